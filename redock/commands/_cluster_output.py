"""
What is printed about clusters.
"""

from __future__ import annotations

import os

from redock.commands._output import print_json, print_table
from redock.commands._several import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from redock.cluster import Cluster, Snapshot

__all__ = [
    "about_snapshot",
    "print_all",
    "print_snapshots",
    "print_status",
    "print_ways",
]

COLORS = {"running": "green", "paused": "yellow", "exited": "red", "gone": "red"}


def print_ways(cluster: Cluster, quiet: int) -> None:
    """
    Say how to connect to each node.

    :param cluster: The cluster.
    :param quiet: Only the names of the nodes.
    """
    from redock._result import quote

    width = max(map(len, cluster.nodes.names))
    for node in cluster.nodes:
        print(node.name if quiet else f"{node.name:{width}}  {quote(node.ssh_command)}")


def print_status(described: dict[str, Any]) -> None:
    """
    Tell about a cluster.

    :param described: What :meth:`Cluster.status` returned, and the process it goes with.
    """
    from redock._table import Cell

    whose = f"goes with process {described['process']}" if described["process"] else "kept"
    print(f"cluster {described['name']}, network {described['network']}, {whose}\n")
    print_table(
        ("NODE", "STATE", "ADDRESS", "SSH", "ROLES"),
        [
            (
                node["name"],
                Cell(node["state"], COLORS.get(node["state"], "")),
                node["address"],
                f"ssh {node['ssh_alias']}",
                ",".join(node["roles"]) or "-",
            )
            for node in described["nodes"]
        ],
    )
    print()
    for fault in described["faults"]:
        print(f"fault: {fault['text']}{since(fault['since'])}")
    if not described["faults"]:
        print("no faults")
    print(f"snapshots: {', '.join(described['snapshots']) or 'none'}")


def since(moment: float | None) -> str:
    """
    Say since when something is so.

    :param moment: Seconds since the epoch, None where that is not known.
    :returns: Text to append, empty where it is not known.
    """
    import datetime

    if not moment:
        return ""
    return f" (since {datetime.datetime.fromtimestamp(moment):%Y-%m-%d %H:%M:%S})"


def print_all(options: argparse.Namespace) -> None:
    """
    List the clusters there are.

    :param options: The command line.
    """
    from redock._engine import Engine
    from redock._table import Cell
    from redock.cluster._listing import describe_clusters

    described = describe_clusters(Engine())
    if options.json:
        print_json(described)
    elif options.quiet:
        print("".join(f"{each['name']}\n" for each in described), end="")
    elif not described:
        log().info("There are no clusters")
    else:
        print_table(
            ("CLUSTER", "NODE", "STATE", "ADDRESS", "SSH", "WHOSE"),
            [
                (
                    cluster["name"],
                    node["name"],
                    Cell(node["state"], COLORS.get(node["state"], "")),
                    node["address"],
                    f"ssh {node['ssh_alias']}",
                    whose(cluster),
                )
                for cluster in described
                for node in cluster["nodes"]
            ],
        )
        for cluster in described:
            for fault in cluster["faults"]:
                print(f"fault in {cluster['name']}: {fault['text']}{since(fault['since'])}")


def whose(described: dict[str, Any]) -> str:
    """
    Say whose a cluster is.

    :param described: What :func:`describe_clusters` says about it.
    :returns: A few words.
    """
    if described["user"] != os.getuid():
        return f"user {described['user']}"
    return f"process {described['process']}" if described["process"] else "kept"


def about_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """
    Describe a snapshot.

    :param snapshot: The snapshot.
    :returns: Plain values.
    """
    return {"name": snapshot.name, "id": snapshot.id, "created": snapshot.created or None}


def print_snapshots(found: Sequence[Snapshot]) -> None:
    """
    List snapshots.

    :param found: The snapshots, the oldest first.
    """
    import datetime

    if not found:
        log().info("There are no snapshots")
        return
    print_table(
        ("NAME", "CREATED", "ID"),
        [
            (
                each.name,
                f"{datetime.datetime.fromtimestamp(each.created):%Y-%m-%d %H:%M:%S}",
                each.id,
            )
            for each in found
        ],
    )
