"""
The commands of the program, one module a kind, one short function a command.

A module has a function ``add`` that describes its commands to the parser;
everything heavier than that is imported when a command runs.
"""

from __future__ import annotations

from redock.commands import (
    cluster,
    keep,
    machines,
    mend,
    power,
    provision,
    reach,
    see,
    settings,
    shell,
    tidy,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock._arguments import Parser

__all__ = ["add_all"]


def add_all(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add all commands.

    :param verbs: Where commands are added.
    """
    for module in (
        machines,
        power,
        see,
        reach,
        keep,
        settings,
        provision,
        cluster,
        mend,
        tidy,
        shell,
    ):
        module.add(verbs)
