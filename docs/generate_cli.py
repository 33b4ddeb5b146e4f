"""
Writes the references of the command line from the parser itself: docs/cli.rst and docs/redock.1.

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

from redock import __version__  # noqa: E402
from redock._arguments import OptionalValue  # noqa: E402
from redock.cli import EPILOG, make_parser  # noqa: E402

TITLE = "Reference of the command line"
INTRODUCTION = """\
.. Made by docs/generate_cli.py from the argument parser: do not edit, run it again.

{title}
{underline}

This page lists every command and option. What they are good for is told in
:doc:`usage`. The manual page ``redock(1)`` says the same.

.. code-block:: console

   $ redock [OPTION...] COMMAND [ARGUMENT...]

``python -m redock`` is the same program. The options in the first section stand
before the command. Behind it may stand ``--verbose``, ``--quiet`` and
``--no-color`` as well, and those that are listed with the command.

Results are printed on standard output, everything else (progress, warnings,
errors) on standard error.
"""

MANUAL = r"""
.\" Made by docs/generate_cli.py from the argument parser: do not edit, run it again.
.TH REDOCK 1 "" "redock {version}" "User Commands"
.SH NAME
redock \- Docker containers you can SSH into
.SH SYNOPSIS
.B redock
.RI [ OPTION ...]
.I COMMAND
.RI [ ARGUMENT ...]
.SH DESCRIPTION
.B redock
turns containers into machines: each has an SSH server, an entry in your SSH configuration that
leads there, and a disk that can be saved.
.PP
.I NAME
is
.I TAG
or
.IR REPOSITORY : TAG ;
without a repository it is one of yours
.RI ( $USER ).
The machine
.I web
is reached with
.BR "ssh web\-container" ,
and so it is with
.BR scp (1),
.BR rsync (1)
and everything else that speaks SSH.
.PP
Results are printed on standard output, everything else on standard error.
"""

#: What the manual page says at its end; the statuses are those of redock.errors.
APPENDIX = {
    "EXIT STATUS": (
        ("0", "It is done, or was so already."),
        ("1", "It failed, or you answered a question with no."),
        ("2", "A name or the command line is wrong; nothing was done."),
        ("3", "The machine does not run, or there is none to kill, to commit or to compare."),
        ("4", "There is no such machine, commit, snapshot, image or volume."),
        ("6", "A host cannot be reached over SSH."),
        ("124", "It took too long."),
        ("129, 130, 143", "It was interrupted by HUP, INT or TERM."),
    ),
    "ENVIRONMENT": (
        ("DOCKER_HOST", "Where the engine is."),
        ("REDOCK_HOME", "The directory for everything redock keeps, instead of ~/.redock."),
        ("REDOCK_BASE", "The image that base images are made from."),
        ("NO_COLOR", "No colours, with any value."),
        ("FORCE_COLOR", "Colours where there is no terminal, too."),
    ),
    "FILES": (
        ("~/.redock/", "Everything redock keeps."),
        ("~/.redock/config.toml", "Settings."),
        ("~/.ssh/config", "Has one Include line of redock's."),
    ),
    "EXAMPLES": (
        ("redock start web", "Make sure the machine runs, and connect to it."),
        ("ssh web-container", "Connect to it, any time, from anywhere."),
        ("redock list", "See what there is."),
        ("redock commit \\-m 'with nginx' web", "Save its disk."),
        ("redock kill web", "Throw it away, up to the last commit."),
    ),
}


class Command:
    """
    A command.

    :param name: Its name, with that of the command it belongs to.
    :param text: What it does.
    :param parser: What describes it.
    :param aliases: Its other names.
    """

    def __init__(
        self, name: str, text: str, parser: argparse.ArgumentParser, aliases: list[str]
    ) -> None:
        self.name = name
        self.text = text
        self.parser = parser
        self.aliases = aliases

    def arguments(self, known: set[tuple[object, ...]]) -> list[argparse.Action]:
        """
        List its arguments and options.

        :param known: Marks of the options that are described elsewhere.
        :returns: The others; a choice of commands is not among them.
        """
        return [
            action
            for action in self.parser._actions
            if mark(action) not in known
            and not isinstance(action, argparse._SubParsersAction)
            and action.help != argparse.SUPPRESS
        ]

    def usage(self, known: set[tuple[object, ...]]) -> str:
        """
        Show how it is called.

        :param known: Marks of the options that are described elsewhere.
        :returns: For instance ``redock commit [--message TEXT] NAME...``.
        """
        own = self.arguments(known)
        ordered = [each for each in own if each.option_strings]
        ordered += [each for each in own if not each.option_strings]
        return " ".join([f"redock {self.name}", *map(brief, ordered)])


def mark(action: argparse.Action) -> tuple[object, ...]:
    """
    Make something that equal options have in common.

    :param action: An option.
    :returns: Its spellings and what help says.
    """
    return (*action.option_strings, action.help)


def find_commands(
    parser: argparse.ArgumentParser, prefix: str = "", text: str = "", names: tuple[str, ...] = ()
) -> Iterator[Command]:
    """
    Find the commands of the program, and the commands of commands.

    :param parser: The parser of the command line, or of a command.
    :param prefix: The name of the command.
    :param text: What the command does.
    :param names: Its other names.
    :returns: Yields commands, those that only choose another one not among them.
    """
    choices = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not choices:
        yield Command(prefix, text, parser, list(names))
    for verbs in choices:
        texts = {choice.dest: choice.help or "" for choice in verbs._choices_actions}
        for name, says in texts.items():
            command = verbs.choices[name]
            aliases = tuple(
                alias
                for alias, other in verbs.choices.items()
                if other is command and alias != name
            )
            yield from find_commands(command, f"{prefix} {name}".strip(), says, aliases)


def common_options(
    parser: argparse.ArgumentParser,
) -> tuple[list[argparse.Action], set[tuple[object, ...]]]:
    """
    Find the options that stand before a command.

    :param parser: The parser of the command line.
    :returns: The options, and the marks of those that every command has.
    """
    common = [action for action in parser._actions if action.option_strings]
    marks = [{mark(action) for action in each.parser._actions} for each in find_commands(parser)]
    return common, set.intersection(*marks)


def generate() -> str:
    """
    Make the page.

    :returns: Text in reStructuredText.
    """
    parser = make_parser()
    common, known = common_options(parser)
    lines = INTRODUCTION.format(title=TITLE, underline="=" * len(TITLE)).splitlines()
    lines += ["", *heading("Options"), ""]
    for action in common:
        lines += describe(action)
    for command in find_commands(parser):
        lines += ["", *heading(f"redock {command.name}"), "", f"{sentence(command.text)}", ""]
        if command.aliases:
            also = ", ".join(f"``redock {alias}``" for alias in command.aliases)
            lines += [f"Also: {also}.", ""]
        lines += [".. code-block:: console", "", f"   $ {command.usage(known)}", ""]
        for action in command.arguments(known):
            lines += describe(action)
    lines += ["", *heading("What ``redock --help`` adds"), "", ".. code-block:: text", ""]
    lines += [f"   {line}".rstrip() for line in EPILOG.splitlines()]
    lines += ["", "All exit statuses are explained in :doc:`errors`.", ""]
    return "\n".join(lines)


def generate_manual() -> str:
    """
    Make the manual page.

    :returns: Text for ``man``, see man(7).
    """
    parser = make_parser()
    common, known = common_options(parser)
    lines = [MANUAL.strip().format(version=__version__), ".SH OPTIONS"]
    lines += ["Before the command, and where they apply also behind it:"]
    for action in common:
        lines += describe_in_manual(action)
    lines += [".SH COMMANDS"]
    for command in find_commands(parser):
        lines += [f".SS {roff(command.usage(known))}", roff(sentence(command.text))]
        if command.aliases:
            lines += [roff(f"Also: {', '.join(command.aliases)}.")]
        for action in command.arguments(known):
            lines += describe_in_manual(action)
    for title, entries in APPENDIX.items():
        lines += [f".SH {title}"]
        for name, text in entries:
            lines += [".TP", f".B {roff(name)}", roff(text)]
    lines += [".SH SEE ALSO", ".BR docker (1),", ".BR ssh (1),", ".BR ssh_config (5)"]
    return "\n".join([*lines, ""])


def roff(text: str) -> str:
    """
    Write text for ``man``.

    :param text: Any text on one line.
    :returns: The text with what means something else escaped.
    """
    text = text.replace("\\-", "-").replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def describe_in_manual(action: argparse.Action) -> Iterator[str]:
    """
    Describe an argument for ``man``.

    :param action: The argument.
    :returns: Yields lines.
    """
    yield ".TP"
    yield f".B {roff(', '.join(spellings(action)))}"
    yield roff(explanation(action))


def heading(text: str) -> list[str]:
    """
    Make the heading of a section.

    :param text: The heading.
    :returns: Two lines.
    """
    return [text, "-" * len(text)]


def sentence(text: str) -> str:
    """
    Make a sentence of what help says.

    :param text: Words.
    :returns: The same with a capital letter and a full stop.
    """
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def brief(action: argparse.Action) -> str:
    """
    Show an argument as usage lines do.

    :param action: The argument.
    :returns: For instance ``NAME...`` or ``[--force]``.
    """
    if action.option_strings:
        return f"[{spell(action, action.option_strings[-1])}]"
    name = value_name(action)
    if action.nargs in ("*", "...", "A..."):
        return f"[{name}...]"
    if action.nargs == "?":
        return f"[{name}]"
    return f"{name}..." if action.nargs == "+" else name


def value_name(action: argparse.Action) -> str:
    """
    Name the value of an argument.

    :param action: The argument.
    :returns: For instance ``NAME``, or the choices there are.
    """
    if action.metavar is None and action.choices is not None:
        return "{" + "|".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def spell(action: argparse.Action, option: str) -> str:
    """
    Show an option with its value.

    :param action: The option.
    :param option: One of its spellings.
    :returns: For instance ``--timeout S``.
    """
    if isinstance(action, OptionalValue):
        return f"{option}[={value_name(action)}]"
    return option if action.nargs == 0 else f"{option} {value_name(action)}"


def spellings(action: argparse.Action) -> list[str]:
    """
    Show an argument in all its spellings.

    :param action: The argument.
    :returns: For instance ``-t S`` and ``--timeout S``.
    """
    if action.option_strings:
        return [spell(action, option) for option in action.option_strings]
    return [value_name(action)]


def explanation(action: argparse.Action) -> str:
    """
    Explain an argument.

    :param action: The argument.
    :returns: A sentence.
    """
    return sentence(action.help or ("What to do." if action.choices else ""))


def describe(action: argparse.Action) -> Iterator[str]:
    """
    Describe an argument.

    :param action: The argument.
    :returns: Yields the lines of an entry of a definition list.
    """
    yield ", ".join(f"``{each}``" for each in spellings(action))
    yield f"   {explanation(action)}"
    yield ""


#: What is written where.
TARGETS = {
    os.path.join(HERE, "cli.rst"): generate,
    os.path.join(HERE, "redock.1"): generate_manual,
}


def main() -> int:
    """
    Write the pages, or compare them.

    :returns: The exit status: 1 when one is not up to date.
    """
    arguments = argparse.ArgumentParser(description="Write docs/cli.rst and docs/redock.1.")
    arguments.add_argument("--check", action="store_true", help="compare, do not write")
    options = arguments.parse_args()
    status = 0
    for target, make in TARGETS.items():
        page = make()
        if not options.check:
            with open(target, "w", encoding="utf-8") as handle:
                handle.write(page)
            continue
        name = os.path.relpath(target, os.path.dirname(HERE))
        try:
            with open(target, encoding="utf-8") as handle:
                written = handle.read()
        except FileNotFoundError:
            written = ""
        if written != page:
            print(f"{name} is not up to date: run docs/generate_cli.py", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
