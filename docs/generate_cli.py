"""
Writes docs/cli.rst, the reference of the command line, from the parser itself.

Run ``python docs/generate_cli.py`` after a change of the command line;
``--check`` only compares, which is what the tests do.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from redock.cli import EPILOG, make_parser  # noqa: E402
from redock.commands.cluster import Group  # noqa: E402

TARGET = os.path.join(HERE, "cli.rst")
TITLE = "Reference of the command line"
INTRODUCTION = """\
.. Made by docs/generate_cli.py from the argument parser: do not edit, run it again.

{title}
{underline}

This page lists every command and option. What they are good for is told in
:doc:`usage`.

.. code-block:: console

   $ redock [OPTION...] COMMAND [ARGUMENT...]

``python -m redock`` is the same program. The options in the first section stand
before the command. Behind ``start``, ``commit``, ``kill`` and ``delete`` they are
understood as well, except ``--version``, which goes without a command.

Results are printed on standard output, everything else (progress, warnings,
errors) on standard error.
"""


def generate() -> str:
    """
    Make the page.

    :returns: Text in reStructuredText.
    """
    parser = make_parser()
    commands = find_commands(parser)
    lines = INTRODUCTION.format(title=TITLE, underline="=" * len(TITLE)).splitlines()
    lines += ["", *heading("Options"), ""]
    common = [action for action in parser._actions if action.option_strings]
    for action in common:
        lines += describe(action)
    known = {option for action in common for option in action.option_strings}
    for name, (text, command) in commands.items():
        lines += ["", *heading(f"redock {name}"), "", f"{text[0].upper()}{text[1:]}.", ""]
        own = [
            action
            for action in command._actions
            if not known & set(action.option_strings)
            and not isinstance(action, argparse._SubParsersAction)
        ]
        more = ["ACTION"] if isinstance(command, Group) else []
        usage = " ".join([f"$ redock {name}", *(brief(action) for action in own), *more])
        lines += [".. code-block:: console", "", f"   {usage}", ""]
        for action in own:
            lines += describe(action)
    lines += ["", *heading("What ``redock --help`` adds"), "", ".. code-block:: text", ""]
    lines += [f"   {line}".rstrip() for line in EPILOG.splitlines()]
    lines += ["", "All exit statuses are explained in :doc:`errors`.", ""]
    return "\n".join(lines)


def heading(text: str) -> list[str]:
    """
    Make the heading of a section.

    :param text: The heading.
    :returns: Two lines.
    """
    return [text, "-" * len(text)]


def find_commands(
    parser: argparse.ArgumentParser,
) -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """
    Find the commands of the program.

    :param parser: The parser of the command line.
    :returns: The help text and the parser of each command; of actions of a command as well.
    """
    found = {}
    for verbs in parser._actions:
        if not isinstance(verbs, argparse._SubParsersAction):
            continue
        texts = {choice.dest: choice.help or "" for choice in verbs._choices_actions}
        for name, command in verbs.choices.items():
            if isinstance(command, Group):
                command.fill()
            found[name] = (texts[name], command)
            for action, described in find_commands(command).items():
                found[f"{name} {action}"] = described
    return found


def brief(action: argparse.Action) -> str:
    """
    Show an argument as usage lines do.

    :param action: The argument.
    :returns: For instance ``NAME...`` or ``[--force]``.
    """
    if action.option_strings:
        return f"[{spell(action, action.option_strings[-1])}]"
    name = value_name(action)
    return f"{name}..." if action.nargs == "+" else name


def value_name(action: argparse.Action) -> str:
    """
    Name the value of an argument.

    :param action: The argument.
    :returns: For instance ``NAME``, or the choices there are.
    """
    if action.choices is not None:
        return "{" + "|".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def spell(action: argparse.Action, option: str) -> str:
    """
    Show an option with its value.

    :param action: The option.
    :param option: One of its spellings.
    :returns: For instance ``--timeout S``.
    """
    return option if action.nargs == 0 else f"{option} {value_name(action)}"


def describe(action: argparse.Action) -> Iterator[str]:
    """
    Describe an argument.

    :param action: The argument.
    :returns: Yields the lines of an entry of a definition list.
    """
    if action.option_strings:
        shown = [spell(action, option) for option in action.option_strings]
    else:
        shown = [value_name(action)]
    text = action.help or ("What to do." if action.choices else "")
    yield ", ".join(f"``{each}``" for each in shown)
    yield f"   {text[0].upper()}{text[1:]}".rstrip(".") + "."
    yield ""


def main() -> int:
    """
    Write the page, or compare it.

    :returns: The exit status: 1 when the page is not up to date.
    """
    arguments = argparse.ArgumentParser(description="Write docs/cli.rst.")
    arguments.add_argument("--check", action="store_true", help="compare, do not write")
    options = arguments.parse_args()
    page = generate()
    if options.check:
        with open(TARGET, encoding="utf-8") as handle:
            if handle.read() != page:
                print("docs/cli.rst is not up to date: run docs/generate_cli.py", file=sys.stderr)
                return 1
        return 0
    with open(TARGET, "w", encoding="utf-8") as handle:
        handle.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
