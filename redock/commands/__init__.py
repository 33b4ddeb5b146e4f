"""
The commands of the program, one module a kind, one short function a command.

A module has a function ``add`` that describes its commands to the parser;
everything heavier than that is imported when a command runs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock._arguments import Parser

__all__ = ["MODULES", "VERBS", "add_all"]

#: The modules in the order in which help shows their commands.
MODULES = (
    "machines",
    "power",
    "see",
    "reach",
    "keep",
    "settings",
    "provision",
    "cluster",
    "mend",
    "tidy",
    "shell",
)
#: Where commands are that people use all day: loading all modules takes longer than most of them.
VERBS = {
    "commit": "machines",
    "cp": "reach",
    "delete": "machines",
    "exec": "reach",
    "forward": "reach",
    "info": "see",
    "kill": "machines",
    "list": "see",
    "logs": "see",
    "ls": "see",
    "open": "reach",
    "pause": "power",
    "ps": "see",
    "restart": "power",
    "resume": "power",
    "shell": "reach",
    "ssh": "reach",
    "start": "machines",
    "status": "see",
    "stop": "power",
    "sync": "reach",
    "top": "see",
    "wait": "reach",
}


def add_all(verbs: argparse._SubParsersAction[Parser], verb: str = "") -> None:
    """
    Add all commands, or all that are needed.

    :param verbs: Where commands are added.
    :param verb: The command that was given; where it is known the others of other modules are
                 left out (default: all are added).
    """
    from importlib import import_module

    for name in (VERBS[verb],) if verb in VERBS else MODULES:
        import_module(f"redock.commands.{name}").add(verbs)
