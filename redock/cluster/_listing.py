"""
What clusters there are, and whose they are.
"""

from __future__ import annotations

import logging
import os

from redock._engine import KIND, Engine, label
from redock._files import read_bytes
from redock.cluster import _boot, _process, _sharing
from redock.cluster._cluster import Cluster
from redock.errors import RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["describe_clusters", "list_clusters", "running_process"]

logger = logging.getLogger("redock.cluster")


def list_clusters(engine: Engine) -> dict[str, list[str]]:
    """
    List the clusters there are.

    :param engine: The engine.
    :returns: The names of their nodes, by the name of the cluster.
    """
    described = describe_clusters(engine, faults=False)
    return {each["name"]: [node["name"] for node in each["nodes"]] for each in described}


def describe_clusters(engine: Engine, *, faults: bool = True) -> list[dict[str, Any]]:
    """
    Describe the clusters there are, of all users.

    It is done without a lock, so that it works while somebody changes them.

    :param engine: The engine.
    :param faults: Look for the faults that hold, in every node (default: yes).
    :returns: For each its name, its nodes (state, address, alias, port), the faults that hold (not
              known of another user's), and whose it is: the number of the user, and of the process
              it goes with (None: it stays); plain values that JSON can express.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for each in engine.containers({"label": [label("cluster")]}):
        found.setdefault(each["Labels"][label("cluster")], []).append(each)
    kept = {
        volume["Labels"].get(label("cluster"))
        for volume in engine.volumes({"label": [f"{KIND}=kept"]})
    }
    described = []
    for name, containers in sorted(found.items()):
        owners = [each for each in containers if each["Labels"].get(KIND) == _boot.OWNER]
        if not owners:
            continue
        nodes = [describe_node(name, owner["Labels"], containers) for owner in owners]
        marks = owners[0]["Labels"]
        user = int(marks.get(label("user")) or os.getuid())
        process = "" if name in kept else marks.get(label("process"), "")
        described.append(
            {
                "name": name,
                "nodes": sorted(nodes, key=lambda node: str(node["name"])),
                "faults": find_faults(engine, name) if faults and user == os.getuid() else [],
                "user": user,
                "process": int(process.partition(":")[0]) if process else None,
            }
        )
    return described


def find_faults(engine: Engine, name: str) -> list[dict[str, Any]]:
    """
    Find the faults that hold in a cluster.

    :param engine: The engine.
    :param name: The name of the cluster.
    :returns: What :meth:`Fault.summary` says of each.
    """
    try:
        cluster = Cluster(_sharing.find_nodes(engine, name), name=name, engine=engine)
        faults = cluster.peek()
        cluster.close()
    except RedockError as error:
        # It is taken down at this moment, or half made.
        logger.debug("Cluster %s: %s", name, error)
        return []
    # While a snapshot is taken all nodes are frozen: nobody broke them.
    return [fault.summary() for fault in faults if fault.is_noted or fault.kind != "pause"]


def describe_node(
    cluster: str, marks: Mapping[str, str], containers: list[dict[str, Any]]
) -> dict[str, Any]:
    """
    Describe a node by what the engine says.

    :param cluster: The name of the cluster.
    :param marks: The labels of its owner.
    :param containers: The engine's summaries of the containers of the cluster.
    :returns: Plain values.
    """
    name, address, port = (marks[label(key)] for key in ("node", "address", "port"))
    place = _boot.Place(cluster, name, marks[label("instance")], address, int(port))
    system = _sharing.choose_system(place, containers)
    states = {each["Id"]: each["State"] for each in containers}
    return {
        "name": name,
        "state": states.get(system, "gone"),
        "address": address,
        "ssh_alias": place.alias,
        "port": place.port,
    }


def running_process(marks: Mapping[str, str]) -> str | None:
    """
    Find out which running process a cluster goes with.

    :param marks: The labels that say whose it is.
    :returns: Its number and what it is called, None when it goes with none that runs here.
    """
    process = marks.get(label("process"), "")
    number = process.partition(":")[0]
    if not process or _process.process_id(number) != process:
        return None
    called = (read_bytes(f"/proc/{number}/comm") or b"").decode("utf-8", "replace").strip()
    return f"{number} ({called})"
