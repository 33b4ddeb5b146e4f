"""
One cluster and several processes: what each has to know of what the others did.

Whatever changes a cluster (a fault, a snapshot, a restore, taking it down) is
done under a lock, so these things happen one after another, whichever process
does them. Each begins with a look at what is there now. What a process has
prepared for itself, replacements for nodes, is its own: others neither use nor
remove them while it lives.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os

from redock._engine import KIND, label
from redock.cluster import _boot, _images, _process, _records
from redock.cluster._fault import Fault, Pause
from redock.cluster._netfault import PacketFault
from redock.errors import EngineError, ForeignContainer, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from redock._engine import Engine
    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node
    from redock.cluster._spec import NodeSpec

    Summary = dict[str, Any]

__all__ = [
    "changes",
    "check_owner",
    "choose_system",
    "describe",
    "find_containers",
    "find_nodes",
    "inherited",
    "lost_network",
    "no_such_cluster",
    "other_nodes",
    "refresh",
    "remove_strays",
]

logger = logging.getLogger("redock.cluster")


def choose_system(place: _boot.Place, found: Iterable[Summary], noted: str = "") -> str:
    """
    Choose the container that is a node now among those that were or may become it.

    :param place: The node.
    :param found: The engine's summaries of the cluster's containers.
    :param noted: The id that its owner has noted (default: none; no restore has replaced it).
    :returns: The id of the container; empty when there is none.
    """
    mine = [each for each in found if is_system(each, place.instance)]
    if noted:
        return noted if any(each["Id"] == noted for each in mine) else ""

    def rank(each: Summary) -> tuple[bool, bool, int]:
        named = f"/{place.system_name}" in each["Names"]
        return each["State"] in ("running", "paused") and named, named, each["Created"]

    # What was made to take a node's place gets its name when it has.
    candidates = [
        each for each in mine if rank(each)[1] or not each["Labels"].get(label("standby"))
    ]
    return str(max(candidates, key=rank)["Id"]) if candidates else ""


def is_system(container: Summary, instance: str) -> bool:
    """
    Check whether a container is, was or may become a node.

    :param container: The engine's summary of it.
    :param instance: The id of the node.
    :returns: True when it is.
    """
    marks = container["Labels"]
    return bool(marks.get(KIND) == _boot.NODE and marks.get(label("instance")) == instance)


def find_containers(cluster: Cluster) -> list[Summary]:
    """
    Find the containers of a cluster.

    :param cluster: The cluster.
    :returns: The engine's summaries.
    """
    return cluster.engine.containers({"label": [f"{label('cluster')}={cluster.name}"]})


def refresh(cluster: Cluster, *, erasing: bool = True, merging: bool = True) -> dict[str, str]:
    """
    See what other processes have done to a cluster.

    :param cluster: The cluster; its nodes are known, and its lock is held.
    :param erasing: Erase records of what is no longer so (default: yes; no where the lock is not
                    held).
    :param merging: Learn which faults hold (default: yes).
    :returns: What state the nodes are in, by name.
    """
    found = find_containers(cluster)
    states = {each["Id"]: str(each["State"]) for each in found}
    for each in found:
        marks = each["Labels"]
        if marks.get(KIND) == _boot.OWNER and marks.get(label("node")) in cluster.nodes.names:
            cluster[marks[label("node")]].owner_id = each["Id"]
    seen = [node for node in cluster.nodes if states.get(node.owner_id) == "running"]
    sight = _records.look(seen, {})
    for node in cluster.nodes:
        system = choose_system(node.place, found, sight.systems.get(node.name, ""))
        if system and system != node.container_id:
            logger.debug("Node %s is another container now", node.name)
            node.container_id, node.touched, node.at = system, True, None
        sight.states[node.name] = states.get(system, "gone")
    cluster.strays = find_strays(cluster, found)
    if merging:
        merge(cluster, sight, erasing)
    return sight.states


def merge(cluster: Cluster, sight: _records.Sight, erasing: bool) -> None:
    """
    Learn which faults hold, whoever made them.

    :param cluster: The cluster.
    :param sight: What was seen of it.
    :param erasing: Erase records of what is no longer so.
    """
    for fault in cluster.faults:
        # Of what could not be seen nothing new is known.
        seen = fault.outlives_process and sight.saw(node.name for node in fault.places())
        if seen and not fault.holds(sight):
            fault.forget()
    known = {fault.id for fault in cluster.faults}
    new = [
        Fault.recall(cluster, each) for each in sight.records.values() if each["id"] not in known
    ]
    for recalled in sorted(filter(None, new), key=lambda fault: fault.since):
        if recalled.holds(sight):
            recalled.enter()
        elif erasing:
            logger.debug("No longer so: %s", recalled.text)
            _records.erase(recalled)
    for fault in unnoted(cluster, sight):
        fault.enter()


def unnoted(cluster: Cluster, sight: _records.Sight) -> Iterator[Fault]:
    """
    Find what is broken without a record: a process was killed, or somebody used the engine.

    :param cluster: The cluster.
    :param sight: What was seen of it.
    :returns: Yields faults, not yet counted among those that hold.
    """
    known = {fault.id for fault in cluster.faults}
    places: dict[str, list[str]] = {}
    for node, tables in sight.tables.items():
        for table in tables:
            places.setdefault(table.removeprefix(_records.TABLE), []).append(node)
    for number, nodes in places.items():
        if number not in known:
            yield PacketFault.found(cluster, number, nodes)
    frozen = {name for name, state in sight.states.items() if state == "paused"}
    for fault in cluster.faults:
        if fault.kind == "pause":
            frozen -= set(fault.nodes)
    for name in sorted(frozen):
        fault = Pause(cluster, [cluster[name]], f"pause {name}")
        fault.is_noted = False
        yield fault


def find_strays(cluster: Cluster, found: Iterable[Summary]) -> list[str]:
    """
    Find what processes left that were interrupted in the middle of a restore.

    :param cluster: The cluster; it is known which containers are its nodes.
    :param found: The engine's summaries of its containers.
    :returns: The ids of containers that neither are nodes nor wait to become one.
    """
    known = {node.container_id for node in cluster.nodes} | cluster.stagehand.containers()
    strays = []
    for each in found:
        maker = each["Labels"].get(label("standby"), "")
        alive = maker and _process.process_id(maker.partition(":")[0]) == maker
        if (
            each["Labels"].get(KIND) == _boot.NODE
            and each["Id"] not in known
            and not (alive and each["State"] in ("created", "running"))
        ):
            strays.append(each["Id"])
    return strays


def remove_strays(cluster: Cluster) -> None:
    """
    Remove what processes left that were interrupted in the middle of a restore.

    What they woke would be in the way of what boots next.

    :param cluster: The cluster; it was refreshed, and its lock is held.
    """
    pending = [cluster.engine.begin_remove(each) for each in cluster.strays]
    for request in pending:
        # Whoever replaced it may be removing it at this moment.
        with contextlib.suppress(EngineError):
            request.result()
    cluster.strays = []


def lost_network(node: Node) -> bool:
    """
    Check whether a node is in a network that has ended: its owner was started again meanwhile.

    :param node: The node; it runs.
    :returns: True when it has to be booted to be reached.
    """

    def started(container: str) -> tuple[str, str]:
        # The engine leaves out zeros at the end: RFC 3339, section 5.6.
        state = node.engine.inspect_container(container)["State"]
        whole, _, fraction = str(state["StartedAt"]).rstrip("Z").partition(".")
        return whole, fraction.ljust(9, "0")

    return started(node.container_id) < started(node.owner_id)


# What a node is, for processes that do not have the file.


def describe(spec: NodeSpec) -> str:
    """
    Describe a node for a label of its owner.

    :param spec: What it is to be.
    :returns: JSON.
    """
    return json.dumps(
        {
            "base": spec.base,
            "image": spec.image,
            "packages": sorted(spec.packages),
            "provision": _images.hash_of([_images.source_of(spec)]) if spec.provision else None,
            "roles": sorted(spec.roles),
            "memory": spec.memory,
            "cpus": spec.cpus,
            "disks": dict(spec.disks),
            "clock": spec.clock,
        }
    )


def recall_spec(name: str, text: str) -> NodeSpec:
    """
    Make the specification of a node from the label of its owner.

    :param name: The name of the node.
    :param text: What :func:`describe` returned; empty for a node of an older redock.
    :returns: The specification; without packages and provisioning, which are in its disk.
    """
    from redock.cluster._spec import NodeSpec

    kept = ("base", "image", "roles", "memory", "cpus", "disks", "clock")
    values = json.loads(text or "{}")
    return NodeSpec(name, **{key: values[key] for key in kept if values.get(key)})


def changes(spec: NodeSpec, text: str) -> list[str]:
    """
    Find out in what a node is not what it is to be now.

    Roles do not count: they are nothing but words.

    :param spec: What it is to be.
    :param text: What :func:`describe` returned when it was made; empty where that is unknown.
    :returns: The names of the settings.
    """
    if not text:
        return []
    before, now = json.loads(text), json.loads(describe(spec))
    return [key for key in now if key != "roles" and now[key] != before.get(key)]


def check_owner(name: str, marks: Mapping[str, str]) -> None:
    """
    Make sure a cluster is this user's.

    :param name: The name of the cluster.
    :param marks: The labels of one of its containers.
    :raises ForeignContainer: It is another user's, whose key opens its nodes.
    """
    user = marks.get(label("user"), "")
    if user not in ("", str(os.getuid())):
        import pwd

        try:
            shown = pwd.getpwuid(int(user)).pw_name
        except (KeyError, ValueError):
            shown = f"number {user}"
        raise ForeignContainer(
            f"cluster {name} belongs to another user ({shown}): give yours another name"
        )


def inherited(found: Iterable[Summary]) -> dict[str, str]:
    """
    Get the labels that say whose a cluster is.

    :param found: The engine's summaries of its containers.
    :returns: The labels of the process it goes with; none when it was made to stay.
    """
    for each in found:
        marks = each["Labels"]
        if marks.get(label("process")):
            names = [label(name) for name in ("run", "process", "host", "user")]
            return {name: marks[name] for name in names if name in marks}
    return {}


def find_nodes(engine: Engine, name: str) -> list[NodeSpec]:
    """
    Find out what the nodes of a cluster are.

    :param engine: The engine.
    :param name: The name of the cluster.
    :returns: Their specifications, in the order of their addresses, which is that of the file.
    :raises NotFound: There is no such cluster.
    """
    import ipaddress

    filters = {"label": [f"{KIND}={_boot.OWNER}", f"{label('cluster')}={name}"]}
    owners = [each["Labels"] for each in engine.containers(filters)]
    if not owners:
        raise no_such_cluster(name)
    owners.sort(key=lambda marks: ipaddress.IPv4Address(marks[label("address")]))
    return [recall_spec(marks[label("node")], marks.get(label("spec"), "")) for marks in owners]


def no_such_cluster(name: str) -> NotFound:
    """
    Say that there is no such cluster.

    :param name: Its name.
    :returns: The error to raise.
    """
    return NotFound(f"there is no cluster {name}: 'redock cluster up FILE' starts one", 404)


def other_nodes(name: str, there: Iterable[str], wanted: Iterable[str]) -> InvalidArgument:
    """
    Say that a cluster has other nodes than it is to have.

    :param name: The name of the cluster.
    :param there: The nodes there are.
    :param wanted: The nodes there are to be.
    :returns: The error to raise.
    """
    return InvalidArgument(
        f"cluster {name} is there with other nodes ({', '.join(sorted(there)) or 'none'}, not"
        f" {', '.join(sorted(wanted))}): take it down first, with 'redock cluster down {name}'"
    )
