"""
The parser of the command line: argparse, with one line for a mistake.
"""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

__all__ = [
    "ANYWHERE",
    "ONE_NAME",
    "OptionalValue",
    "Parser",
    "add_name",
    "add_names",
    "add_options",
    "add_verb",
    "seconds",
]

#: Options that every command understands.
ALWAYS = ("-v", "-q", "--no-color")
#: Options that may stand before the command as well as behind it.
ANYWHERE = (*ALWAYS, "-n", "-m", "-t", "-b")
#: What help says about the name of a machine, and about one that may be left out.
ONE_NAME = "TAG or REPOSITORY:TAG"
NAME_OR_FOLDER = f"{ONE_NAME} (default: the machine of the folder, see redock.toml)"


class OptionalValue(argparse.Action):
    """
    An option whose value may be left out: then it is ``true``.

    As with getopt_long(3) the value is attached with ``=``; what stands behind
    the option is an argument of its own.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """
        Keep the value.

        :param parser: The parser that read it.
        :param namespace: Where to put it.
        :param values: The value.
        :param option_string: How the option was spelled.
        """
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one line and where to read on."""

    #: Options may stand between arguments of which there may be none or several.
    intermixed = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """
        Read a command line, see :meth:`argparse.ArgumentParser.parse_known_args`.

        :param args: The command line (default: the program's).
        :param namespace: Where to put what was read.
        :returns: What was read, and what was not understood.
        """
        given = sys.argv[1:] if args is None else list(args)
        end = given.index("--") if "--" in given else len(given)
        bare = {
            spelling
            for action in self._actions
            if isinstance(action, OptionalValue)
            for spelling in action.option_strings
        }
        given[:end] = [f"{each}=true" if each in bare else each for each in given[:end]]
        if not self.intermixed:
            return super().parse_known_args(given, namespace)
        # That one calls this one, twice.
        self.intermixed = False
        try:
            return self.parse_known_intermixed_args(given, namespace)
        finally:
            self.intermixed = True

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """
        Check a value for which there is a choice; of commands there are too many to list.

        :param action: The argument.
        :param value: What was given.
        :raises argparse.ArgumentError: It is not among them.
        """
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            from redock._names import nearest

            meant = nearest(value, action.choices)
            raise argparse.ArgumentError(
                None, f"there is no command {value!r}, did you mean {meant!r}?"
            )
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """
        End the program because of its command line.

        :param message: What is wrong.
        """
        print(f"redock: {message} (see '{self.prog} --help')", file=sys.stderr)
        raise SystemExit(2)


def add_verb(
    verbs: argparse._SubParsersAction[Parser],
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
    *flags: str,
    aliases: Sequence[str] = (),
    quiet: str = "",
) -> Parser:
    """
    Add a command.

    :param verbs: Where commands are added.
    :param name: Its name.
    :param function: What it does; gets the command line, returns the exit status.
    :param text: What it does, for the reader.
    :param flags: The shared options it understands, besides those that all understand.
    :param aliases: Its other names.
    :param quiet: What ``-q`` means, where it leaves something out of the results (default: it
                  does not).
    :returns: The parser of the command.
    """
    verb = verbs.add_parser(
        name, aliases=aliases, help=text[0].lower() + text[1:-1], description=text
    )
    verb.set_defaults(run=function)
    add_options(verb, *ALWAYS, *flags, again=True)
    if quiet:
        verb._option_string_actions["-q"].help = quiet
    return verb


def add_names(verb: argparse.ArgumentParser) -> None:
    """
    Add the names of machines.

    :param verb: The parser of a command.
    """
    verb.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=NAME_OR_FOLDER,
    )


def add_name(verb: argparse.ArgumentParser) -> None:
    """
    Add the name of one machine, which may be left out in a project's folder.

    :param verb: The parser of a command.
    """
    verb.add_argument("name", nargs="?", metavar="NAME", help=NAME_OR_FOLDER)


def add_options(parser: argparse.ArgumentParser, *flags: str, again: bool = False) -> None:
    """
    Add options that several commands share.

    Those that may stand before the command as well are added twice, to the
    program and to the command.

    :param parser: The parser.
    :param flags: Their first forms.
    :param again: They exist before the command; keep what was given there.
    """
    options: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "-v": (
            ("--verbose",),
            {"action": "count", "default": 0, "help": "say more: each request"},
        ),
        "-q": (
            ("--quiet",),
            {"action": "count", "default": 0, "help": "say only what went wrong"},
        ),
        "--no-color": ((), {"action": "store_true", "help": "no colours"}),
        "-n": (("--hostname",), {"metavar": "NAME", "help": "host name (default: TAG)"}),
        "-m": (("--message",), {"metavar": "TEXT", "help": "describes a commit"}),
        "-t": (
            ("--timeout",),
            {
                "metavar": "S",
                "type": seconds,
                "default": 10.0,
                "help": "seconds to wait for SSH (default: 10)",
            },
        ),
        "-b": (
            ("--base",),
            {
                "metavar": "IMAGE",
                "help": "Debian or Ubuntu image to build on (default: ubuntu:24.04)",
            },
        ),
        "--json": ((), {"action": "store_true", "help": "print one JSON document"}),
        "-y": (("--yes",), {"action": "store_true", "help": "do it without asking"}),
    }
    for flag in flags:
        names, details = options[flag]
        if again and flag in ANYWHERE:
            details["default"] = argparse.SUPPRESS
        parser.add_argument(flag, *names, **details)


def seconds(text: str) -> float:
    """
    Read a number of seconds.

    :param text: What was given.
    :returns: The number.
    :raises argparse.ArgumentTypeError: It is not a number above zero.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value
