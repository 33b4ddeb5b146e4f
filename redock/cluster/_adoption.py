"""
Finding the nodes of a cluster that is there, and booting those that do not run.
"""

from __future__ import annotations

import logging

from redock import _identity, _machines, _ssh
from redock._engine import KIND, label
from redock._process import Deadline
from redock.cluster import _boot, _network, _sharing, _snapshot
from redock.cluster._node import Node, NodeSet
from redock.errors import ForeignContainer, NetworkUnavailable, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from redock.cluster._cluster import Cluster

__all__ = ["adopt", "take_over"]

logger = logging.getLogger("redock.cluster")


def adopt(cluster: Cluster, found: list[dict[str, Any]]) -> None:
    """
    Take over the nodes that are there.

    :param cluster: The cluster.
    :param found: The engine's summaries of their containers.
    :raises InvalidArgument: They are not those of this cluster.
    """
    owners = {
        each["Labels"][label("node")]: each
        for each in found
        if each["Labels"].get(KIND) == _boot.OWNER
    }
    for each in owners.values():
        _sharing.check_owner(cluster.name, each["Labels"])
    wanted = {spec.name: spec for spec in cluster.spec.nodes}
    if set(owners) != set(wanted):
        raise _sharing.other_nodes(cluster.name, owners, wanted)
    cluster.inherited = _sharing.inherited(found)
    cluster.network = _network.find(cluster.engine, cluster.name)
    if cluster.network is None:
        raise NetworkUnavailable(
            f"the network of cluster {cluster.name} has gone: take the cluster down"
        )
    nodes = []
    for name, spec in wanted.items():
        marks = owners[name]["Labels"]
        place = _boot.Place(
            cluster.name,
            name,
            marks[label("instance")],
            marks[label("address")],
            int(marks[label("port")]),
        )
        node = Node(cluster, spec, place)
        node.owner_id = owners[name]["Id"]
        node.container_id = _sharing.choose_system(place, found) or place.system_name
        node.described = marks.get(label("spec"), "")
        nodes.append(node)
    cluster.nodes = NodeSet(nodes)


def take_over(cluster: Cluster, found: list[dict[str, Any]]) -> None:
    """
    Take over the nodes that are there and boot those that do not run.

    :param cluster: The cluster.
    :param found: The engine's summaries of their containers.
    """
    adopt(cluster, found)
    process = cluster.goes_with
    if cluster.keep and process:
        raise ForeignContainer(
            f"cluster {cluster.name} goes with process {process}, which made it: wait for its end,"
            " or give yours another name"
        )
    for node in cluster.nodes:
        node.public_key = recall_public_key(node)
    cluster.give_access()
    for node in cluster.nodes:
        cluster.revive_owner(node)
    states = _sharing.refresh(cluster)
    _sharing.remove_strays(cluster)
    for fault in cluster.faults:
        # A snapshot whose process was killed, or the engine's own command.
        if fault.kind == "pause" and not fault.is_noted:
            fault.heal()
            states |= dict.fromkeys(fault.nodes, "running")
    for name, settings in cluster.differences().items():
        logger.warning(
            "Node %s of cluster %s was made with other %s than are asked for now: to change that,"
            " take it down first ('redock cluster down %s')",
            *(name, cluster.name, ", ".join(settings), cluster.name),
        )
    off = switched_off(cluster)
    waiting = [node for node in cluster.nodes if node.name not in off]
    for node in waiting:
        if states[node.name] == "running" and _sharing.lost_network(node):
            _snapshot.end(cluster, node)
            states[node.name] = "exited"
        if states[node.name] == "gone":
            raise NotFound(f"node {node.name} has gone, with its disk: restore a snapshot", 404)
        if states[node.name] != "running":
            logger.info("Booting node %s again", node.name)
            cluster.start_system(node)
    deadline = Deadline(cluster.timeout)
    for node in waiting:
        cluster.wait_for(node, deadline)


def switched_off(cluster: Cluster) -> set[str]:
    """Get the names of the nodes that a fault froze or took the power of."""
    faults = [fault for fault in cluster.faults if fault.kind in ("pause", "kill")]
    return {name for fault in faults for name in fault.nodes}


def recall_public_key(node: Node) -> bytes:
    """
    Get the public host key of a node that exists.

    :param node: The node.
    :returns: The pinned key, else the one in its volume.
    """
    pinned = _ssh.pinned_key(node.place.instance)
    if pinned:
        return pinned
    machine = _machines.Machine(
        {
            "Id": node.container_id,
            "Labels": {label("name"): node.place.name, label("instance"): node.place.instance},
        }
    )
    return _identity.adopt(node.engine, machine)
