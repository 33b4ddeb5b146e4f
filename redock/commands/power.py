"""
The power of machines: ``stop``, ``restart``, ``pause``, ``resume``.
"""

from __future__ import annotations

import argparse

from redock._arguments import add_names, add_verb, seconds
from redock.commands._several import for_each, make_containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock._arguments import Parser

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    for name, function, text in (
        ("stop", stop, "Stop machines in order; disk, port and alias stay."),
        ("restart", restart, "Stop machines in order and start them again."),
        ("pause", pause, "Freeze all processes of machines."),
        ("resume", resume, "Let machines go on that were paused."),
    ):
        verb = add_verb(verbs, name, function, text)
        if name in ("stop", "restart"):
            verb.add_argument(
                "-t",
                "--timeout",
                metavar="S",
                type=seconds,
                default=argparse.SUPPRESS,
                help="seconds its programs have before they are killed (default: 10)",
            )
        add_names(verb)


def stop(options: argparse.Namespace) -> int:
    """
    Stop machines.

    :param options: The command line.
    :returns: The exit status.
    """
    for_each(make_containers(options), lambda container: container.stop(options.timeout))
    return 0


def restart(options: argparse.Namespace) -> int:
    """
    Restart machines.

    :param options: The command line.
    :returns: The exit status.
    """
    for_each(make_containers(options), lambda container: container.restart(options.timeout))
    return 0


def pause(options: argparse.Namespace) -> int:
    """
    Freeze machines.

    :param options: The command line.
    :returns: The exit status.
    """
    for_each(make_containers(options), lambda container: container.pause())
    return 0


def resume(options: argparse.Namespace) -> int:
    """
    Let machines go on.

    :param options: The command line.
    :returns: The exit status.
    """
    for_each(make_containers(options), lambda container: container.resume())
    return 0
