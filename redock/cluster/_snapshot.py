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
import time
from functools import partial

from redock import _connection, _keeper, _machines, _recipe
from redock._engine import KIND, label, label_changes
from redock._parallel import call_all
from redock._process import Deadline
from redock.cluster import _boot, _records
from redock.cluster._disk import BALLAST
from redock.cluster._fault import freeze
from redock.cluster._standby import make_standby
from redock.errors import EngineError, NoContainerRunning, NotFound, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

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
    :param cut: What tells it from others of its name, and says which is the older.
    """

    def __init__(
        self, cluster: str, name: str, images: Mapping[str, str], created: int = 0, cut: str = ""
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.images = dict(images)
        self.created = created
        self.cut = cut

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

    An older snapshot of the name is there until this one is complete.

    :param cluster: The cluster.
    :param name: The name of the snapshot; an older one of that name is replaced.
    :param states: What state the nodes are in, by name.
    :returns: The snapshot.
    :raises RedockError: A node could not be frozen or saved; all go on as before.
    """
    engine, nodes = cluster.engine, {node.name: node for node in cluster.nodes}
    older = engine.images(filters(cluster, name))
    cut = next_cut(older)
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
        keep_disks(node, cut)
        node.baseline = node.packets()
        return engine.commit(
            node.container_id,
            REPOSITORY,
            f"{cluster.name}-{node.name}-{name}-{cut}",
            message=f"{cluster.name} {node.name} {name}",
            changes=instructions(cluster, node, name, cut),
            pause=False,
        )

    try:
        try:
            call_all(nodes, hold)
            states = cluster.states()
            moving = {name for name in states if states[name] not in ("paused", "exited")}
            if moving:
                names = ", ".join(sorted(moving))
                raise EngineError(f"the engine did not freeze {names}")
            images = call_all(nodes, save)
        finally:
            for request in [engine.begin_unpause(node.container_id) for node in frozen]:
                with contextlib.suppress(NotFound):
                    request.result()
    except BaseException:
        with contextlib.suppress(RedockError):
            remove(cluster, engine.images(filters(cluster, name, cut)))
            for node in nodes.values():
                forget_disks(node, [cut])
        raise
    snapshot = Snapshot(cluster.name, name, images, cut=cut)
    for node in nodes.values():
        node.touched = any(node.name in fault.nodes for fault in cluster.active_faults)
        node.at = snapshot.id
    cluster.stagehand.prepare(snapshot)
    if older:
        cluster.stagehand.add(f"deleting the older {name}", partial(remove, cluster, older), True)
    return snapshot


def next_cut(older: Iterable[Mapping[str, Any]]) -> str:
    """
    Choose what tells a snapshot from older ones of its name.

    :param older: The API's summaries of their images.
    :returns: A number in hexadecimal digits, above theirs also when the clock was set back.
    """
    cuts = [int(image["Labels"][label("cut")], 16) for image in older]
    return f"{max([time.time_ns(), *(cut + 1 for cut in cuts)]):016x}"


def filters(cluster: Cluster, name: str = "", cut: str = "") -> dict[str, list[str]]:
    """
    Say which images are the disks of a cluster at some moment.

    :param cluster: The cluster.
    :param name: The name of the snapshot (default: whatever it is).
    :param cut: Which snapshot of the name (default: all).
    :returns: Filters of the API.
    """
    marks = [f"{KIND}=snapshot", f"{label('cluster')}={cluster.name}"]
    marks += [f"{label('snapshot')}={name}"] if name else []
    marks += [f"{label('cut')}={cut}"] if cut else []
    return {"label": marks, "reference": [f"{REPOSITORY}:*"]}


def instructions(cluster: Cluster, node: Node, name: str, cut: str) -> list[str]:
    """
    Say what is to be written into the image of a snapshot.

    :param cluster: The cluster.
    :param node: The node.
    :param name: The name of the snapshot.
    :param cut: Which snapshot of the name it is.
    :returns: Instructions of a Dockerfile.
    """
    marks = dict.fromkeys((label(each) for each in BLANKED), "")
    marks |= {KIND: "snapshot", label("cluster"): cluster.name, label("node"): node.name}
    marks |= {label("snapshot"): name, label("cut"): cut}
    marks |= cluster.marks()
    return [*label_changes(marks), f'CMD ["{_recipe.BOOT}"]']


def keep_disks(node: Node, cut: str) -> None:
    """
    Copy what is on a node's disks in memory, which are not part of an image.

    :param node: The node; it is frozen.
    :param cut: Which snapshot it is for.
    """
    for number, path in enumerate(node.spec.disks):
        node.shell.check(
            f"mkdir -p {DISKS} && tar -C {path} --numeric-owner --exclude='./{BALLAST}*'"
            f" -cf {DISKS}/{cut}.{number}.tar .",
            f"keep what is on {path} of node {node.name}",
            timeout=120,
        )


def return_disks(node: Node, cut: str) -> None:
    """
    Put back what was on a node's disks in memory; empty them when nothing was kept.

    :param node: The node; none of its programs runs.
    :param cut: Which snapshot it is from.
    """
    for number, path in enumerate(node.spec.disks):
        archive = f"{DISKS}/{cut}.{number}.tar"
        node.shell.check(
            f"find {path} -mindepth 1 -delete &&"
            f" {{ [ ! -e {archive} ] || tar -C {path} --numeric-owner -xpf {archive}; }}",
            f"put back what was on {path} of node {node.name}",
            timeout=120,
        )


def forget_disks(node: Node, cuts: Iterable[str]) -> None:
    """
    Delete what was kept of a node's disks in memory.

    :param node: The node.
    :param cuts: Which snapshots it was for.
    """
    kept = " ".join(f"{DISKS}/{cut}.*.tar" for cut in cuts)
    if kept and node.spec.disks:
        node.shell.check(f"rm -f {kept}", f"delete what was on disks of node {node.name}")


def find_snapshots(cluster: Cluster) -> dict[str, Snapshot]:
    """
    Find the snapshots of a cluster.

    :param cluster: The cluster.
    :returns: The snapshots by name, the oldest first; only those that have all nodes.
    """
    found: dict[tuple[str, str], Snapshot] = {}
    for image in cluster.engine.images(filters(cluster)):
        marks = image["Labels"]
        name, cut = marks[label("snapshot")], marks[label("cut")]
        snapshot = found.setdefault((name, cut), Snapshot(cluster.name, name, {}, cut=cut))
        snapshot.images[marks[label("node")]] = image["Id"]
        snapshot.created = max(snapshot.created, int(image["Created"]))
    wanted = set(cluster.nodes.names)
    complete = [each for each in found.values() if wanted <= set(each.images)]
    return {each.name: each for each in sorted(complete, key=lambda each: each.cut)}


def delete(cluster: Cluster, snapshot: Snapshot) -> None:
    """
    Delete a snapshot.

    :param cluster: The cluster.
    :param snapshot: The snapshot.
    """
    remove(cluster, cluster.engine.images(filters(cluster, snapshot.name, snapshot.cut)))


def remove(cluster: Cluster, images: Iterable[Mapping[str, Any]]) -> None:
    """
    Delete disks that were saved, and what was kept of those in memory.

    :param cluster: The cluster.
    :param images: The API's summaries of the images.
    """
    cuts: dict[str, set[str]] = {}
    for image in images:
        marks = image["Labels"]
        cuts.setdefault(marks[label("node")], set()).add(marks[label("cut")])
        for name in image["RepoTags"] or ():
            cluster.engine.remove_image(name, force=True)
    for node in cluster.nodes:
        forget_disks(node, cuts.get(node.name, ()))


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
        node.closing = _keeper.begin_close(node.place.instance)
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
        return_disks(node, snapshot.cut)
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
    _keeper.close_connection(node.place.instance, node.closing)
    node.closing = None
