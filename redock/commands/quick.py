"""
What is answered before the parser would be loaded: ``list``, ``ssh``, and completion.

Python is up after some ten milliseconds; the parser with all commands takes
longer than that, and longer than the engine needs to say what there is.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Sequence

    from redock._listing import MachineInfo
    from redock._table import Cell

__all__ = ["LIST", "answer", "color_of", "print_machines"]

#: What the command is called.
LIST = ("list", "ls", "ps")
#: Its options, as they are usually given; whatever else there is goes to the parser.
OPTIONS = {
    "-a": "everybody",
    "--all": "everybody",
    "-s": "size",
    "--size": "size",
    "-q": "names",
    "--quiet": "names",
    "--json": "json",
}
#: The colours of states; other states last for moments.
COLORS = {"running": "green", "stopped": "red", "saved": ""}


def answer(words: Sequence[str], make_parser: Callable[[str], ArgumentParser]) -> int | None:
    """
    Answer a command line that needs no parser.

    :param words: The command line.
    :param make_parser: Describes the command line, for completion.
    :returns: The exit status, None when it needs one.
    :raises RedockError: What was asked for failed.
    """
    if words[:1] == ["--complete"]:
        from redock.commands import _completion

        return _completion.answer(words[1:], make_parser)
    if words[:1] in (["ssh"], ["shell"]):
        from redock._session import become_if_warm

        become_if_warm(list(words[1:]))
    elif words and words[0] in LIST and all(word in OPTIONS for word in words[1:]):
        return print_machines(**{OPTIONS[word]: True for word in words[1:]})
    return None


def print_machines(
    *, everybody: bool = False, size: bool = False, names: bool = False, json: bool = False
) -> int:
    """
    List machines.

    :param everybody: Those of others, nodes of clusters and what was saved (default: the user's).
    :param size: The memory and disk they use, too (default: no).
    :param names: Only the names (default: a table).
    :param json: As JSON (default: a table).
    :returns: The exit status.
    """
    from redock import _listing

    if names and not json and not everybody:
        lines = [f"{name}\n" for name, _ in _listing.find_names(_listing.Engine())]
        sys.stdout.write("".join(lines))
        return 0
    machines = _listing.list_machines(everybody=everybody, size=size)
    if json:
        from redock._json_text import indented

        sys.stdout.write(f"{indented([machine.as_dict() for machine in machines])}\n")
    elif names:
        sys.stdout.write("".join(f"{machine.name}\n" for machine in machines))
    else:
        sys.stdout.write(make_table(machines, size))
    return 0


def color_of(state: str) -> str:
    """
    Choose the colour of a state.

    :param state: The state of a machine.
    :returns: The name of a colour.
    """
    return COLORS.get(state, "yellow")


def make_table(machines: Sequence[MachineInfo], size: bool) -> str:
    """
    Lay out a list of machines.

    :param machines: The machines.
    :param size: Show the memory and disk they use.
    :returns: Lines.
    """
    from redock import _table

    header = ["NAME", "STATE", "UPTIME", "BASE", "ADDRESS", "SAVED"]
    header += ["MEMORY", "DISK"] if size else []
    rows = []
    for each in machines:
        row: list[str | Cell] = [
            each.name,
            _table.Cell(each.state, color_of(each.state)),
            each.uptime,
            each.base,
            f"{each.address}:{each.port}" if each.port else "",
            str(each.commits or ""),
        ]
        used = (each.memory, each.disk) if size else ()
        rows.append(row + [_table.bytes_in_words(count) for count in used])
    return _table.render(
        header,
        rows,
        right=("SAVED", "MEMORY", "DISK"),
        color=_table.use_color(sys.stdout),
        columns=_table.width(sys.stdout),
    )
