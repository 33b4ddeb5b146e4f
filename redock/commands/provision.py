"""
Bringing hosts into a state: ``provision``.
"""

from __future__ import annotations

from redock._arguments import add_verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock._arguments import Parser

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "Bring machines, or any hosts, into the state a script describes."
    parser = add_verb(verbs, "provision", provision, text, "--json")
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="a machine of redock's, an SSH alias or user@host"
    )
    parser.add_argument("script", metavar="SCRIPT.py", help="defines provision(host)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    parser.add_argument("--diff", action="store_true", help="print how text files change")
    parser.add_argument("--sudo", action="store_true", help="become root with sudo")
    parser.add_argument(
        "-j", "--jobs", type=int, metavar="N", help="how many hosts at the same time (default: 16)"
    )


def provision(options: argparse.Namespace) -> int:
    """
    Bring machines into the state a script describes.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.provision import main as provision_main

    return provision_main(options)
