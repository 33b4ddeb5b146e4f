"""
The parser of the command line: argparse, with one line for a mistake.
"""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["Parser", "add_provision_arguments"]


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one line and where to read on."""

    def error(self, message: str) -> NoReturn:
        """
        End the program because of its command line.

        :param message: What is wrong.
        """
        print(f"redock: {message} (see '{self.prog} --help')", file=sys.stderr)
        raise SystemExit(2)


def add_provision_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Describe the command line of ``redock provision``.

    :param parser: The parser of the command.
    """
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="a machine of redock's, an SSH alias or user@host"
    )
    parser.add_argument("script", metavar="SCRIPT.py", help="defines provision(host)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    parser.add_argument("--diff", action="store_true", help="print how text files change")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--sudo", action="store_true", help="become root with sudo")
    parser.add_argument(
        "-j", "--jobs", type=int, metavar="N", help="how many hosts at the same time (default: 16)"
    )
