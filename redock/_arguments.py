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

__all__ = ["Parser", "add_names", "add_options", "add_verb", "seconds"]


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one line and where to read on."""

    #: Options may stand between arguments of which there may be none or several.
    intermixed = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """
        Read a command line, see :meth:`argparse.ArgumentParser.parse_known_args`.

        :param args: The command line.
        :param namespace: Where to put what was read.
        :returns: What was read, and what was not understood.
        """
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        # That one calls this one, twice.
        self.intermixed = False
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True

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
) -> Parser:
    """
    Add a command.

    :param verbs: Where commands are added.
    :param name: Its name.
    :param function: What it does; gets the command line, returns the exit status.
    :param text: What it does, for the reader.
    :param flags: The options it understands, besides those that all understand.
    :returns: The parser of the command.
    """
    verb = verbs.add_parser(name, help=text[0].lower() + text[1:-1], description=text)
    verb.set_defaults(run=function)
    add_options(verb, "-v", "-q", *flags, again=True)
    return verb


def add_names(verb: argparse.ArgumentParser) -> None:
    """
    Add the names of machines.

    :param verb: The parser of a command.
    """
    verb.add_argument("names", nargs="+", metavar="NAME", help="TAG or REPOSITORY:TAG")


def add_options(parser: argparse.ArgumentParser, *flags: str, again: bool = False) -> None:
    """
    Add options that may stand before the command or after it.

    :param parser: The parser.
    :param flags: Their short forms.
    :param again: They exist before the command; keep what was given there.
    """
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "-v": ("--verbose", {"action": "count", "default": 0, "help": "say more: each request"}),
        "-q": ("--quiet", {"action": "count", "default": 0, "help": "say only what went wrong"}),
        "-n": ("--hostname", {"metavar": "NAME", "help": "host name (default: TAG)"}),
        "-m": ("--message", {"metavar": "TEXT", "help": "describes a commit"}),
        "-t": (
            "--timeout",
            {
                "metavar": "S",
                "type": seconds,
                "default": 10.0,
                "help": "seconds to wait for SSH (default: 10)",
            },
        ),
        "-b": (
            "--base",
            {
                "metavar": "IMAGE",
                "help": "Debian or Ubuntu image to build on (default: ubuntu:24.04)",
            },
        ),
    }
    for flag in flags:
        name, details = options[flag]
        if again:
            details["default"] = argparse.SUPPRESS
        parser.add_argument(flag, name, **details)


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
