"""
Seeing what there is: ``list``, ``status``, ``logs``, ``top``.
"""

from __future__ import annotations

import sys

from redock._arguments import ONE_NAME, add_name, add_verb, seconds
from redock.commands import quick
from redock.commands._several import make_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from redock._arguments import Parser
    from redock._look import MachineStatus

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "List machines, with their states."
    name, *aliases = quick.LIST
    verb = add_verb(
        verbs, name, show_list, text, "--json", aliases=aliases, quiet="print only the names"
    )
    verb.add_argument(
        "-a",
        "--all",
        action="store_true",
        help="those of others, nodes of clusters, and saved disks, too",
    )
    verb.add_argument(
        "-s", "--size", action="store_true", help="the memory and disk they use, too (slower)"
    )
    text = "Show everything about a machine."
    verb = add_verb(verbs, "status", show_status, text, "--json", aliases=("info",))
    add_name(verb)
    verb = add_verb(verbs, "logs", show_logs, "Show the log of a machine, or of a service in it.")
    add_name(verb)
    verb.intermixed = True
    verb.add_argument(
        "service", nargs="?", metavar="SERVICE", help="a program that Supervisor looks after there"
    )
    verb.add_argument("-f", "--follow", action="store_true", help="go on until the machine ends")
    verb.add_argument("-n", "--lines", type=int, metavar="N", help="only the last N lines")
    text = "Show the processes in machines and what they use."
    verb = add_verb(verbs, "top", show_top, text, "--json")
    verb.intermixed = True
    verb.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{ONE_NAME} (default: the machine of the folder, else all that run)",
    )
    verb.add_argument(
        "-a", "--all", action="store_true", help="all that run, in a project's folder, too"
    )
    verb.add_argument(
        "-d",
        "--delay",
        type=seconds,
        default=2.0,
        metavar="S",
        help="seconds between two looks (default: 2)",
    )
    verb.add_argument("-1", "--once", action="store_true", help="look once, do not refresh")


def show_list(options: argparse.Namespace) -> int:
    """
    List machines.

    :param options: The command line.
    :returns: The exit status.
    """
    return quick.print_machines(
        everybody=options.all, size=options.size, names=bool(options.quiet), json=options.json
    )


def show_status(options: argparse.Namespace) -> int:
    """
    Show everything about a machine.

    :param options: The command line.
    :returns: The exit status.
    """
    status = make_container(options).status()
    if options.json:
        from redock.commands._output import print_json

        print_json(status.as_dict())
        return 0
    from redock import _table

    color = _table.use_color(sys.stdout)
    for what, words in in_words(status, color):
        print(f"{what:<12}{words}".rstrip())
    return 0


def in_words(status: MachineStatus, color: bool) -> Iterator[tuple[str, str]]:
    """
    Say everything about a machine in words.

    :param status: What is so.
    :param color: Use colours.
    :returns: Yields what it is, and what to say about it.
    """
    from redock._table import bytes_in_words, paint, plain

    state = paint(status.state, quick.color_of(status.state) if color else "")
    if status.exit_status is not None:
        state += f" (exit status {status.exit_status})"
    yield "Name", status.name
    yield "State", f"{state}, {status.uptime}" if status.uptime else state
    yield "Created", status.created
    yield "Started", status.started or "never"
    yield "Base", status.base or "unknown"
    yield "Image", status.image.removeprefix("sha256:")[:12]
    yield "Connect", status.ssh
    yield "Address", f"{status.address} port {status.port}"
    yield "Host name", status.hostname
    if status.options:
        yield "Options", plain("; ".join(map(option_in_words, status.options.items())))
    yield "Connection", "open" if status.connected else "none is open"
    changed = "" if status.changes is None else f", {status.changes} files differ from its image"
    yield "Disk", f"{bytes_in_words(status.disk) or 'unknown'}{changed}"
    if status.memory is not None:
        yield "Memory", bytes_in_words(status.memory)
    yield "Saved", {0: "never", 1: "once"}.get(status.commits, f"{status.commits} times")
    yield "Container", status.id[:12]


def option_in_words(option: tuple[str, object]) -> str:
    """
    Say what a machine was started with.

    :param option: The name of the option, and its value.
    :returns: For instance ``ports 8080:80, 443:443``.
    """
    from redock._sizes import brief_size

    name, value = option
    if name == "memory" and isinstance(value, int):
        value = brief_size(value)
    values = value if isinstance(value, (list, dict)) else [value]
    return f"{name} {', '.join(map(str, values))}"


def show_logs(options: argparse.Namespace) -> int:
    """
    Show the log of a machine, or of a service in it.

    :param options: The command line.
    :returns: The exit status.
    """
    lines = make_container(options).logs(
        options.service, lines=options.lines, follow=options.follow
    )
    try:
        for line in lines:
            print(line, flush=options.follow)
    except KeyboardInterrupt:
        if not options.follow:
            raise
        # There is no other way to have enough.
        return 130
    return 0


def show_top(options: argparse.Namespace) -> int:
    """
    Show the processes in machines.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _top

    return _top.main(options)
