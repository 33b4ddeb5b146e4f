"""
Snapshots of a whole cluster, and the way back to them.

A snapshot is what a power cut would leave: all nodes are frozen, the disk of
each is saved as an image, and they go on. Restoring one is booting from those
disks: nodes keep their names, addresses, ports, host keys and aliases, which
belong to their owners. What is in memory is lost.

What takes the place of a node is in :mod:`redock.cluster._standby`.
"""

from __future__ import annotations

import contextlib
import json
import logging

from redock import _connection, _machines, _recipe
from redock._engine import KIND, label
from redock._parallel import call_all
from redock._process import Deadline
from redock.cluster import _boot, _records
from redock.cluster._disk import BALLAST
from redock.cluster._fault import freeze
from redock.cluster._standby import make_standby
from redock.errors import EngineError, NoContainerRunning, NotFound, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["Snapshot", "delete", "end", "find_snapshots", "restore", "take"]

logger = logging.getLogger("redock.cluster")

REPOSITORY = "redock-snapshot"
#: What a commit must not hand on: these labels made the container a node.
BLANKED = (
    *_machines.BLANKED_LABELS,
    *("address", "name", "process", "run", "host", "worker", "standby"),
)
#: Where owners keep what was on the disks in memory.
DISKS = "/var/lib/redock"


class Snapshot:
    """
    The disks of all nodes of a cluster at one moment.

    :param cluster: The name of the cluster.
    :param name: Its own name.
    :param images: The id of the image with the disk of each node, by name.
    :param created: When it was taken, in seconds since the epoch; 0 when that is not known.
    """

    def __init__(
        self, cluster: str, name: str, images: Mapping[str, str], created: int = 0
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.images = dict(images)
        self.created = created

    def __repr__(self) -> str:
        return f"Snapshot({self.cluster!r}, {self.name!r})"

    @property
    def id(self) -> str:
        """What tells it from all other snapshots: a hash of its contents."""
        import hashlib

        text = json.dumps(self.images, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def take(cluster: Cluster, name: str, states: Mapping[str, str]) -> Snapshot:
    """
    Save the disks of all nodes at one moment.

    :param cluster: The cluster.
    :param name: The name of the snapshot; an older one of that name is replaced.
    :param states: What state the nodes are in, by name.
    :returns: The snapshot.
    :raises RedockError: A node could not be frozen or saved; all go on as before.
    """
    engine, nodes = cluster.engine, {node.name: node for node in cluster.nodes}
    for node in nodes.values():
        if states[node.name] == "gone":
            raise NotFound(f"node {node.name} has gone: nothing of it can be saved", 404)
    frozen: list[Node] = []

    def hold(node: Node) -> None:
        # Without power there is nothing to freeze.
        with contextlib.suppress(NoContainerRunning):
            if freeze(node):
                frozen.append(node)

    def save(node: Node) -> str:
        keep_disks(node, name)
        node.baseline = node.packets()
        return engine.commit(
            node.container_id,
            REPOSITORY,
            f"{cluster.name}-{node.name}-{name}",
            message=f"{cluster.name} {node.name} {name}",
            changes=instructions(cluster, node, name),
            pause=False,
        )

    try:
        call_all(nodes, hold)
        moving = {n for n, state in cluster.states().items() if state not in ("paused", "exited")}
        if moving:
            names = ", ".join(sorted(moving))
            raise EngineError(f"the engine did not freeze {names}")
        images = call_all(nodes, save)
    finally:
        for request in [engine.begin_unpause(node.container_id) for node in frozen]:
            with contextlib.suppress(NotFound):
                request.result()
    snapshot = Snapshot(cluster.name, name, images)
    for node in nodes.values():
        node.touched = any(node.name in fault.nodes for fault in cluster.active_faults)
        node.at = snapshot.id
    cluster.stagehand.prepare(snapshot)
    return snapshot


def instructions(cluster: Cluster, node: Node, name: str) -> list[str]:
    """
    Say what is to be written into the image of a snapshot.

    :param cluster: The cluster.
    :param node: The node.
    :param name: The name of the snapshot.
    :returns: Instructions of a Dockerfile.
    """
    marks = dict.fromkeys((label(each) for each in BLANKED), "")
    marks |= {KIND: "snapshot", label("cluster"): cluster.name, label("node"): node.name}
    marks[label("snapshot")] = name
    marks |= cluster.marks()
    words = " ".join(f"{key}={json.dumps(value)}" for key, value in marks.items())
    return [f"LABEL {words}", f'CMD ["{_recipe.BOOT}"]']


def keep_disks(node: Node, name: str) -> None:
    """
    Copy what is on a node's disks in memory, which are not part of an image.

    :param node: The node; it is frozen.
    :param name: The name of the snapshot.
    """
    for number, path in enumerate(node.spec.disks):
        node.shell.check(
            f"mkdir -p {DISKS} && tar -C {path} --numeric-owner --exclude='./{BALLAST}*'"
            f" -cf {DISKS}/{name}.{number}.tar .",
            f"keep what is on {path} of node {node.name}",
            timeout=120,
        )


def return_disks(node: Node, name: str) -> None:
    """
    Put back what was on a node's disks in memory; empty them when nothing was kept.

    :param node: The node; none of its programs runs.
    :param name: The name of the snapshot.
    """
    for number, path in enumerate(node.spec.disks):
        archive = f"{DISKS}/{name}.{number}.tar"
        node.shell.check(
            f"find {path} -mindepth 1 -delete &&"
            f" {{ [ ! -e {archive} ] || tar -C {path} --numeric-owner -xpf {archive}; }}",
            f"put back what was on {path} of node {node.name}",
            timeout=120,
        )


def find_snapshots(cluster: Cluster) -> dict[str, Snapshot]:
    """
    Find the snapshots of a cluster.

    :param cluster: The cluster.
    :returns: The snapshots by name, the oldest first; only those that have all nodes.
    """
    marks = [f"{KIND}=snapshot", f"{label('cluster')}={cluster.name}"]
    found: dict[str, dict[str, str]] = {}
    created: dict[str, int] = {}
    listed = cluster.engine.images({"label": marks, "reference": [f"{REPOSITORY}:*"]})
    for image in sorted(listed, key=lambda each: each["Created"]):
        names = image["Labels"]
        found.setdefault(names[label("snapshot")], {})[names[label("node")]] = image["Id"]
        created[names[label("snapshot")]] = int(image["Created"])
    wanted = set(cluster.nodes.names)
    return {
        name: Snapshot(cluster.name, name, images, created[name])
        for name, images in found.items()
        if wanted <= set(images)
    }


def delete(cluster: Cluster, snapshot: Snapshot) -> None:
    """
    Delete a snapshot.

    :param cluster: The cluster.
    :param snapshot: The snapshot.
    """
    for node in snapshot.images:
        name = f"{REPOSITORY}:{cluster.name}-{node}-{snapshot.name}"
        cluster.engine.remove_image(name, force=True)


# The way back.


def restore(
    cluster: Cluster, snapshot: Snapshot, full: bool, states: Mapping[str, str]
) -> list[str]:
    """
    Bring the disks of all nodes back to a snapshot and boot them.

    :param cluster: The cluster; its network faults have been healed.
    :param snapshot: The snapshot.
    :param full: Also nodes that nothing has touched since.
    :param states: What state the nodes are in, by name.
    :returns: The names of the nodes that were booted.
    :raises RedockError: A node could not be brought back.
    """
    changed = {
        node.name: node
        for node in cluster.nodes
        if full or not is_clean(node, snapshot, states[node.name])
    }
    for node in changed.values():
        node.closing = _connection.begin_close(node.place.instance)
    try:
        old = call_all(changed, lambda node: swap(cluster, node, snapshot), max(1, len(changed)))
        deadline = Deadline(cluster.timeout)
        for node in changed.values():
            _connection.wait_for_banner("127.0.0.1", node.port, deadline, node.check_alive)
            node.touched, node.at, node.baseline = False, snapshot.id, None
    finally:
        for node in changed.values():
            node.let_go()
            if node.closing is not None:
                node.closing.close()
                node.closing = None
    cluster.stagehand.tidy_up(snapshot, {changed[name]: gone for name, gone in old.items()})
    return list(changed)


def is_clean(node: Node, snapshot: Snapshot, state: str) -> bool:
    """
    Check whether a node is as it was when the snapshot was taken.

    :param node: The node.
    :param snapshot: The snapshot.
    :param state: What the engine says about it.
    :returns: True when no command, fault or packet has reached it since.
    """
    if node.touched or node.at != snapshot.id or state != "running" or node.baseline is None:
        return False
    try:
        return node.packets() == node.baseline
    except RedockError:
        return False


def swap(cluster: Cluster, node: Node, snapshot: Snapshot) -> str:
    """
    Replace the system of a node.

    :param cluster: The cluster.
    :param node: The node.
    :param snapshot: The snapshot with its new disk.
    :returns: The id of the container that was replaced; it does not run any more.
    """
    engine = cluster.engine
    cluster.revive_owner(node)
    standby = cluster.stagehand.claim(node, snapshot.images[node.name])
    try:
        if standby is None:
            standby = make_standby(cluster, node, snapshot.images[node.name])
        end(cluster, node)
        return_disks(node, snapshot.name)
        standby.stream.write(_boot.wake_up())
    except BaseException:
        if standby is not None:
            standby.stream.close()
            engine.remove_container(standby.container)
        raise
    node.stdin = standby.stream
    old, node.container_id = node.container_id, standby.container
    # While it boots: another process has to know which of them is the node.
    node.shell.check(_records.noting_system(node.container_id), f"note what node {node.name} is")
    return old


def end(cluster: Cluster, node: Node) -> None:
    """
    End all programs of a node, whatever state it is in.

    :param cluster: The cluster.
    :param node: The node.
    """
    for attempt in (1, 2, 3):
        try:
            cluster.engine.begin_kill(node.container_id).result()
        except NotFound:
            break
        except EngineError:
            state = node.state
            if state == "paused":
                # What is frozen cannot even be killed.
                with contextlib.suppress(EngineError):
                    cluster.engine.pause(node.container_id, resume=True)
                if attempt < 3:
                    continue
            if state in ("running", "paused", "restarting"):
                raise
        break
    _connection.close_connection(node.place.instance, node.closing)
    node.closing = None
