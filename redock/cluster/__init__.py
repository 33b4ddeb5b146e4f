"""
A whole cluster to test on: start, break, rewind.

:class:`Cluster` starts machines with SSH on a private network of their own,
takes snapshots of all of them at once, brings them back in a fraction of a
second, and breaks them on purpose: partitions, loss, latency, crashes, full
disks, wrong clocks.
"""

from __future__ import annotations

from redock.cluster._capabilities import Capabilities, Capability, capabilities
from redock.cluster._cluster import Cluster
from redock.cluster._fault import Fault
from redock.cluster._listing import list_clusters
from redock.cluster._nemesis import (
    Nemesis,
    bridge,
    halves,
    majorities_ring,
    random_node,
    split_one,
)
from redock.cluster._node import LogMark, Node, NodeSet
from redock.cluster._snapshot import Snapshot
from redock.cluster._spec import NodeSpec
from redock.cluster._timeline import Event, Timeline

__all__ = [
    "Capabilities",
    "Capability",
    "Cluster",
    "Event",
    "Fault",
    "LogMark",
    "Nemesis",
    "Node",
    "NodeSet",
    "NodeSpec",
    "Snapshot",
    "Timeline",
    "bridge",
    "capabilities",
    "halves",
    "list_clusters",
    "majorities_ring",
    "random_node",
    "split_one",
]
