"""
What the actions of ``redock cluster`` do, one short function an action.
"""

from __future__ import annotations

import sys

from redock.commands import _cluster_output, _clusters, _everywhere
from redock.commands._output import print_json
from redock.commands._several import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock.cluster import Cluster, Fault

__all__ = [
    "copy",
    "crash",
    "down",
    "execute",
    "heal",
    "inventory",
    "isolate",
    "kill",
    "logs",
    "partition",
    "pause",
    "restore",
    "resume",
    "shell",
    "snapshot",
    "snapshots",
    "status",
    "up",
]


# Beginning and ending.


def up(options: argparse.Namespace) -> int:
    """
    Boot a cluster that outlives this process.

    :param options: The command line.
    :returns: The exit status.
    """
    cluster = _clusters.describe(options)
    cluster.start()
    with _clusters.closing(cluster):
        if options.json:
            print_json(cluster.status())
        else:
            _cluster_output.print_ways(cluster, options.quiet)
    return 1 if cluster.differences() else 0


def status(options: argparse.Namespace) -> int:
    """
    Tell about one cluster, or list all of them.

    :param options: The command line.
    :returns: The exit status.
    """
    if not options.words:
        _cluster_output.print_all(options)
        return 0
    with _clusters.open_cluster(options) as (cluster, _):
        described = {**cluster.status(), "process": cluster.goes_with}
        if options.json:
            print_json(described)
        elif options.quiet:
            print("\n".join(cluster.nodes.names))
        else:
            _cluster_output.print_status(described)
    return 0


def down(options: argparse.Namespace) -> int:
    """
    Take a cluster down.

    :param options: The command line.
    :returns: The exit status.
    """
    name = _clusters.name_of(options)
    done = _clusters.take_down(name, options.force)
    if options.json:
        print_json({"name": name, "removed": done})
    else:
        log().info("Cluster %s %s", name, "is down" if done else "is not there: nothing to do")
    return 0


def inventory(options: argparse.Namespace) -> int:
    """
    Describe the nodes for another program.

    :param options: The command line.
    :returns: The exit status.
    """
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
    with _clusters.open_cluster(options, 1) as (cluster, names):
        (name,) = _clusters.exactly(names, 1, "NODE")
        return _clusters.become_ssh(cluster[name], options.command)


def execute(options: argparse.Namespace) -> int:
    """
    Run a command in nodes.

    :param options: The command line.
    :returns: The greatest status of all nodes.
    """
    if not options.command:
        raise _clusters.usage("give a command behind --")
    with _clusters.open_cluster(options) as (cluster, names):
        chosen = cluster.choose(names) if names else list(cluster.nodes)
        return _everywhere.run(chosen, options.command, as_json=options.json)


def copy(options: argparse.Namespace) -> int:
    """
    Copy files into a node or out of it; this process becomes ``scp``.

    :param options: The command line.
    :returns: Never, unless ``scp`` is missing.
    """
    with _clusters.open_cluster(options, 2) as (cluster, places):
        source, target = _clusters.exactly(places, 2, "SRC and DST")
        return _clusters.become_scp(cluster, source, target)


def logs(options: argparse.Namespace) -> int:
    """
    Show what the first processes of nodes printed.

    :param options: The command line.
    :returns: The exit status.
    """
    with _clusters.open_cluster(options) as (cluster, names):
        chosen = cluster.choose(names) if names else list(cluster.nodes)
        texts = {n.name: cluster.engine.logs(n.container_id, options.lines) for n in chosen}
        if options.json:
            print_json(texts)
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
    with _clusters.open_cluster(options) as (cluster, names):
        made = cluster.snapshot(_clusters.at_most_one(names, "NAME"))
        if options.json:
            print_json(_cluster_output.about_snapshot(made))
        else:
            print(made.name)
    return 0


def snapshots(options: argparse.Namespace) -> int:
    """
    List the snapshots of a cluster.

    :param options: The command line.
    :returns: The exit status.
    """
    with _clusters.open_cluster(options) as (cluster, _):
        found = list(cluster.snapshots().values())
        if options.json:
            print_json([_cluster_output.about_snapshot(each) for each in found])
        elif options.quiet:
            print("".join(f"{each.name}\n" for each in found), end="")
        else:
            _cluster_output.print_snapshots(found)
    return 0


def restore(options: argparse.Namespace) -> int:
    """
    Boot all nodes with the disks of a snapshot.

    :param options: The command line.
    :returns: The exit status.
    """
    with _clusters.open_cluster(options) as (cluster, names):
        cluster.timeout = options.timeout
        name = _clusters.at_most_one(names, "NAME") or _clusters.newest(cluster)
        booted = cluster.restore(name)
        if options.json:
            print_json({"snapshot": name, "booted": booted})
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

    def cut(cluster: Cluster, words: list[str]) -> list[Fault]:
        groups = [_clusters.group(word) for word in words]
        return [cluster.partition(*groups, one_way=options.one_way)]

    return _clusters.do_faults(options, cut)


def isolate(options: argparse.Namespace) -> int:
    """
    Cut nodes off from all others.

    :param options: The command line.
    :returns: The exit status.
    """
    return _clusters.do_faults(options, lambda cluster, names: [cluster.isolate(names)])


def pause(options: argparse.Namespace) -> int:
    """
    Freeze nodes.

    :param options: The command line.
    :returns: The exit status.
    """
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
    return _clusters.do_faults(options, _clusters.thaw)


def kill(options: argparse.Namespace) -> int:
    """
    Take the power of nodes away.

    :param options: The command line.
    :returns: The exit status.
    """
    return _clusters.do_faults(options, lambda cluster, names: [cluster.kill(names)])


def crash(options: argparse.Namespace) -> int:
    """
    Take the power of nodes away and boot them again.

    :param options: The command line.
    :returns: The exit status.
    """

    def cut(cluster: Cluster, names: list[str]) -> list[Fault]:
        cluster.crash(names)
        return []

    return _clusters.do_faults(options, cut)


def heal(options: argparse.Namespace) -> int:
    """
    Heal all faults.

    :param options: The command line.
    :returns: The exit status.
    """
    return _clusters.do_faults(options, lambda cluster, _: cluster.heal(), needs=0)
