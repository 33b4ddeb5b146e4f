"""
Whole clusters: ``redock cluster up|status|ssh|exec|snapshot|restore|...``.
"""

from __future__ import annotations

import sys

from redock._arguments import Parser, add_verb
from redock.commands._several import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any

    from redock.cluster import Fault

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
    text = "Boot a cluster that stays until it is taken down; what runs is left as it is."
    verb = add_action(actions, "up", up, text)
    add_timeout(verb)
    add_action(actions, "status", status, "Tell about a cluster; without FILE list all of them.")
    text = "Take a cluster down: nodes, network, disks and snapshots."
    verb = add_action(actions, "down", down, text)
    verb.add_argument(
        "--force", action="store_true", help="even where a process that runs made and uses it"
    )
    text = "Describe the nodes for another program, in a file of its own format."
    verb = add_action(actions, "inventory", inventory, text, json=False)
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
    text = "Connect to a node, or run a command in it."
    add_action(actions, "ssh", shell, text, "NODE [-- COMMAND...]", json=False)
    text = "Run a command in nodes (default: all), side by side."
    add_action(actions, "exec", execute, text, "[NODE...] -- COMMAND...")
    text = "Copy files into a node and out of it, with scp."
    add_action(actions, "cp", copy, text, "SRC NODE:DST", json=False)
    text = "Show what the first processes of nodes (default: all) printed, in any state."
    verb = add_action(actions, "logs", logs, text, "[NODE...]")
    verb.add_argument(
        "--lines", metavar="N", type=int, default=20, help="how many of each node (default: 20)"
    )


def add_snapshots(actions: argparse._SubParsersAction[Any]) -> None:
    """
    Add what keeps states and goes back to them.

    :param actions: Where actions are added.
    """
    text = "Save the disks of all nodes at one moment."
    add_action(actions, "snapshot", snapshot, text, "[NAME]")
    add_action(actions, "snapshots", snapshots, "List the snapshots of a cluster.")
    text = "Heal all faults and boot all nodes with the disks of a snapshot (default: the newest)."
    add_timeout(add_action(actions, "restore", restore, text, "[NAME]"))


def add_faults(actions: argparse._SubParsersAction[Any]) -> None:
    """
    Add what breaks a cluster and makes it whole again.

    :param actions: Where actions are added.
    """
    text = "Cut groups of nodes off from each other: n1,n2 n3. The rest is a group, too."
    verb = add_action(actions, "partition", partition, text, "NODES...")
    verb.add_argument(
        "--one-way", action="store_true", help="only what the first group sends is lost"
    )
    text = "Cut nodes off from all others, and from each other."
    add_action(actions, "isolate", isolate, text, "NODE...")
    add_action(actions, "pause", pause, "Freeze all processes of nodes.", "NODE...")
    add_action(actions, "resume", resume, "Thaw the processes of nodes.", "NODE...")
    add_action(actions, "kill", kill, "Take the power of nodes away.", "NODE...")
    text = "Take the power of nodes away and boot them again with the disks they had."
    add_action(actions, "crash", crash, text, "NODE...")
    text = "Make everything whole again that was broken on purpose."
    add_action(actions, "heal", heal, text)


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


# Beginning and ending.


def up(options: argparse.Namespace) -> int:
    """
    Boot a cluster that outlives this process.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    cluster = _clusters.describe(options)
    cluster.start()
    for line in _clusters.differences(cluster):
        log().error("%s", line)
    with _clusters.closing(cluster):
        if options.json:
            _clusters.print_json(cluster.status())
        else:
            _clusters.print_ways(cluster, options.quiet)
    return 1 if cluster.differences() else 0


def status(options: argparse.Namespace) -> int:
    """
    Tell about one cluster, or list all of them.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    if not options.words:
        _clusters.print_all(options)
        return 0
    with _clusters.open_cluster(options) as (cluster, _):
        described = {**cluster.status(), "process": cluster.goes_with}
        if options.json:
            _clusters.print_json(described)
        elif options.quiet:
            print("\n".join(cluster.nodes.names))
        else:
            _clusters.print_status(described)
    return 0


def down(options: argparse.Namespace) -> int:
    """
    Take a cluster down.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    name = _clusters.name_of(options)
    done = _clusters.take_down(name, options.force)
    if options.json:
        _clusters.print_json({"name": name, "removed": done})
    else:
        log().info("Cluster %s %s", name, "is down" if done else "is not there: nothing to do")
    return 0


def inventory(options: argparse.Namespace) -> int:
    """
    Describe the nodes for another program.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    with _clusters.open_cluster(options) as (cluster, _):
        sys.stdout.write(cluster.inventory(options.format))
    return 0


# Ways in.


def shell(options: argparse.Namespace) -> int:
    """
    Connect to a node; this process becomes ``ssh``.

    :param options: The command line.
    :returns: Never, unless ``ssh`` is missing.
    """
    from redock.commands import _clusters

    with _clusters.open_cluster(options, 1) as (cluster, names):
        (name,) = _clusters.exactly(names, 1, "NODE")
        return _clusters.become_ssh(cluster[name], options.command)


def execute(options: argparse.Namespace) -> int:
    """
    Run a command in nodes.

    :param options: The command line.
    :returns: The greatest status of all nodes.
    """
    from redock.commands import _clusters, _everywhere

    if not options.command:
        raise _clusters.usage(options, "give a command behind --")
    with _clusters.open_cluster(options) as (cluster, names):
        chosen = cluster.choose(names) if names else list(cluster.nodes)
        return _everywhere.run(chosen, options.command, as_json=options.json)


def copy(options: argparse.Namespace) -> int:
    """
    Copy files into a node or out of it; this process becomes ``scp``.

    :param options: The command line.
    :returns: Never, unless ``scp`` is missing.
    """
    from redock.commands import _clusters

    with _clusters.open_cluster(options, 2) as (cluster, places):
        source, target = _clusters.exactly(places, 2, "SRC and DST")
        return _clusters.become_scp(cluster, source, target)


def logs(options: argparse.Namespace) -> int:
    """
    Show what the first processes of nodes printed.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters, _everywhere

    with _clusters.open_cluster(options) as (cluster, names):
        chosen = cluster.choose(names) if names else list(cluster.nodes)
        texts = {n.name: cluster.engine.logs(n.container_id, options.lines) for n in chosen}
        if options.json:
            _clusters.print_json(texts)
        else:
            _everywhere.print_texts(texts)
    return 0


# Snapshots.


def snapshot(options: argparse.Namespace) -> int:
    """
    Save the disks of all nodes.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    with _clusters.open_cluster(options) as (cluster, names):
        made = cluster.snapshot(_clusters.at_most_one(names, "NAME"))
        if options.json:
            _clusters.print_json(_clusters.about_snapshot(made))
        else:
            print(made.name)
    return 0


def snapshots(options: argparse.Namespace) -> int:
    """
    List the snapshots of a cluster.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    with _clusters.open_cluster(options) as (cluster, _):
        found = list(cluster.snapshots().values())
        if options.json:
            _clusters.print_json([_clusters.about_snapshot(each) for each in found])
        elif options.quiet:
            print("".join(f"{each.name}\n" for each in found), end="")
        else:
            _clusters.print_snapshots(found)
    return 0


def restore(options: argparse.Namespace) -> int:
    """
    Boot all nodes with the disks of a snapshot.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    with _clusters.open_cluster(options) as (cluster, names):
        cluster.timeout = options.timeout
        name = _clusters.at_most_one(names, "NAME") or _clusters.newest(cluster)
        booted = cluster.restore(name)
        if options.json:
            _clusters.print_json({"snapshot": name, "booted": booted})
        else:
            log().info("Cluster %s is back at snapshot %s", cluster.name, name)
    return 0


# Faults.


def partition(options: argparse.Namespace) -> int:
    """
    Cut groups of nodes off from each other.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    def cut(cluster: Any, words: list[str]) -> list[Fault]:
        groups = [_clusters.group(word) for word in words]
        return [cluster.partition(*groups, one_way=options.one_way)]

    return _clusters.do_faults(options, cut)


def isolate(options: argparse.Namespace) -> int:
    """
    Cut nodes off from all others.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    return _clusters.do_faults(options, lambda cluster, names: [cluster.isolate(names)])


def pause(options: argparse.Namespace) -> int:
    """
    Freeze nodes.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    # One fault each: they may be resumed one by one.
    return _clusters.do_faults(
        options, lambda cluster, names: [cluster.pause(node) for node in cluster.choose(names)]
    )


def resume(options: argparse.Namespace) -> int:
    """
    Thaw nodes.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    return _clusters.do_faults(options, _clusters.thaw)


def kill(options: argparse.Namespace) -> int:
    """
    Take the power of nodes away.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    return _clusters.do_faults(options, lambda cluster, names: [cluster.kill(names)])


def crash(options: argparse.Namespace) -> int:
    """
    Take the power of nodes away and boot them again.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    def cut(cluster: Any, names: list[str]) -> list[Fault]:
        cluster.crash(names)
        return []

    return _clusters.do_faults(options, cut)


def heal(options: argparse.Namespace) -> int:
    """
    Heal all faults.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands import _clusters

    return _clusters.do_faults(options, lambda cluster, _: cluster.heal(), needs=0)
