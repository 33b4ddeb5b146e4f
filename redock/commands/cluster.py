"""
Whole clusters: ``redock cluster up|status|ssh|exec|snapshot|restore|...``.
"""

from __future__ import annotations

from redock._arguments import Parser, add_verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any

__all__ = ["add"]

FILE = "a file that describes a cluster, or the name of one (default: cluster.toml)"
NODES = f"{FILE}; then names of nodes"


class Group(Parser):
    """The parser of a command with actions of its own, which are added when it is used."""

    filled = False

    def fill(self) -> None:
        """Add the actions; they would make all other commands slower to start."""
        if self.filled:
            return
        self.filled = True
        actions = self.add_subparsers(
            metavar="ACTION", required=True, parser_class=ClusterParser, title="actions"
        )
        for add_some in (add_life, add_ways_in, add_snapshots, add_faults):
            add_some(actions)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """
        Read a command line, see :meth:`argparse.ArgumentParser.parse_known_args`.

        :param args: The command line.
        :param namespace: Where to put what was read.
        :returns: What was read, and what was not understood.
        """
        self.fill()
        return super().parse_known_args(args, namespace)


class ClusterParser(Parser):
    """The parser of an action on a cluster."""

    #: What stands behind ``--`` is a command for nodes.
    takes_command = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """
        Read a command line, see :meth:`argparse.ArgumentParser.parse_known_args`.

        :param args: The command line.
        :param namespace: Where to put what was read.
        :returns: What was read, and what was not understood.
        """
        words, command = list(args or ()), []
        if self.takes_command and "--" in words:
            words, command = words[: words.index("--")], words[words.index("--") + 1 :]
        options, rest = super().parse_known_args(words, namespace)
        options.command = command
        return options, rest


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "Start whole clusters of machines, break them on purpose, and rewind them."
    plain = verbs.add_parser("cluster", help=text[0].lower() + text[1:-1], description=text)
    verbs.choices["cluster"] = Group(prog=plain.prog, description=text)


def add_action(
    actions: argparse._SubParsersAction[Any],
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
    rest: str = "",
    *,
    json: bool = True,
) -> ClusterParser:
    """
    Add an action.

    :param actions: Where actions are added.
    :param name: Its name.
    :param function: What it does; gets the command line, returns the exit status.
    :param text: What it does, for the reader.
    :param rest: What follows the cluster on the command line (default: nothing).
    :param json: It understands ``--json`` (default: yes).
    :returns: The parser of the action.
    """
    verb = add_verb(actions, name, function, text, *(["--json"] if json else []))
    assert isinstance(verb, ClusterParser)
    shown = f"[FILE] {rest}".strip()
    verb.add_argument("words", nargs="*", metavar=shown, help=NODES if "NODE" in rest else FILE)
    verb.usage = f"{verb.prog} [OPTION...] {shown}"
    verb.takes_command = "COMMAND" in rest
    return verb


def add_life(actions: argparse._SubParsersAction[Any]) -> None:
    """
    Add what begins and ends a cluster, and what tells about it.

    :param actions: Where actions are added.
    """
    from redock.commands import _cluster_actions as do

    text = "Boot a cluster that stays until it is taken down; what runs is left as it is."
    verb = add_action(actions, "up", do.up, text)
    add_timeout(verb)
    add_action(
        actions,
        "status",
        do.status,
        "Tell about a cluster; without FILE list all of them.",
    )
    text = "Take a cluster down: nodes, network, disks and snapshots."
    verb = add_action(actions, "down", do.down, text)
    verb.add_argument(
        "--force", action="store_true", help="even where a process that runs made and uses it"
    )
    text = "Describe the nodes for another program, in a file of its own format."
    verb = add_action(actions, "inventory", do.inventory, text, json=False)
    verb.add_argument(
        "--format",
        metavar="F",
        default="json",
        help="ansible, ssh_config, testinfra, ducktape or json (the default)",
    )


def add_ways_in(actions: argparse._SubParsersAction[Any]) -> None:
    """
    Add what leads into nodes.

    :param actions: Where actions are added.
    """
    from redock.commands import _cluster_actions as do

    text = "Connect to a node, or run a command in it."
    add_action(actions, "ssh", do.shell, text, "NODE [-- COMMAND...]", json=False)
    text = "Run a command in nodes (default: all), side by side."
    add_action(actions, "exec", do.execute, text, "[NODE...] -- COMMAND...")
    text = "Copy files into a node and out of it, with scp."
    add_action(actions, "cp", do.copy, text, "SRC NODE:DST", json=False)
    text = "Show what the first processes of nodes (default: all) printed, in any state."
    verb = add_action(actions, "logs", do.logs, text, "[NODE...]")
    verb.add_argument(
        "--lines", metavar="N", type=int, default=20, help="how many of each node (default: 20)"
    )


def add_snapshots(actions: argparse._SubParsersAction[Any]) -> None:
    """
    Add what keeps states and goes back to them.

    :param actions: Where actions are added.
    """
    from redock.commands import _cluster_actions as do

    text = "Save the disks of all nodes at one moment."
    add_action(actions, "snapshot", do.snapshot, text, "[NAME]")
    add_action(actions, "snapshots", do.snapshots, "List the snapshots of a cluster.")
    text = "Heal all faults and boot all nodes with the disks of a snapshot (default: the newest)."
    add_timeout(add_action(actions, "restore", do.restore, text, "[NAME]"))


def add_faults(actions: argparse._SubParsersAction[Any]) -> None:
    """
    Add what breaks a cluster and makes it whole again.

    :param actions: Where actions are added.
    """
    from redock.commands import _cluster_actions as do

    text = "Cut groups of nodes off from each other: n1,n2 n3. The rest is a group, too."
    verb = add_action(actions, "partition", do.partition, text, "NODES...")
    verb.add_argument(
        "--one-way", action="store_true", help="only what the first group sends is lost"
    )
    text = "Cut nodes off from all others, and from each other."
    add_action(actions, "isolate", do.isolate, text, "NODE...")
    add_action(actions, "pause", do.pause, "Freeze all processes of nodes.", "NODE...")
    add_action(actions, "resume", do.resume, "Thaw the processes of nodes.", "NODE...")
    add_action(actions, "kill", do.kill, "Take the power of nodes away.", "NODE...")
    text = "Take the power of nodes away and boot them again with the disks they had."
    add_action(actions, "crash", do.crash, text, "NODE...")
    text = "Make everything whole again that was broken on purpose."
    add_action(actions, "heal", do.heal, text)


def add_timeout(verb: ClusterParser) -> None:
    """
    Add the time nodes have to boot.

    :param verb: The parser of an action.
    """
    from redock._arguments import seconds

    verb.add_argument(
        "-t",
        "--timeout",
        metavar="S",
        type=seconds,
        default=60.0,
        help="seconds the nodes have to boot (default: 60)",
    )
