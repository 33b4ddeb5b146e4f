"""
Completion for shells: ``completion``.
"""

from __future__ import annotations

import sys

from redock._arguments import add_verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock._arguments import Parser

__all__ = ["add"]

SHELLS = ("bash", "fish", "zsh")


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "Print what makes a shell complete redock's commands, options and names."
    verb = add_verb(verbs, "completion", print_script, text)
    verb.add_argument("shell", choices=SHELLS, help="the shell")


def print_script(options: argparse.Namespace) -> int:
    """
    Print a script for a shell.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands._completion import SCRIPTS

    sys.stdout.write(SCRIPTS[options.shell])
    return 0
