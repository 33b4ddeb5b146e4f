"""
Snapshots of a whole cluster, and the way back to them.

A snapshot is what a power cut would leave: all nodes are frozen, the disk of
each is saved as an image, and they go on. Restoring one is booting from those
disks: nodes keep their names, addresses, ports, host keys and aliases, which
belong to their owners. What is in memory is lost.

The replacement of a node is a container that has been started beforehand and
waits, before its first program, for a line on standard input. The replaced one
is removed, and the next replacement made, by a stagehand in the background.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
import time
from functools import partial

from redock import _connection, _machines, _recipe
from redock._engine import KIND, label
from redock._parallel import call_all
from redock._process import Deadline
from redock.cluster import _boot, _records
from redock.cluster._disk import BALLAST
from redock.cluster._fault import freeze
from redock.cluster._process import process_id
from redock.errors import EngineError, NoContainerRunning, NotFound, RedockError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redock._http import Stream
    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["Snapshot", "Stagehand", "find_snapshots", "restore", "take"]

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


class Standby:
    """
    A container that waits to take the place of a node.

    :param container: Its id.
    :param image: The image it was made from.
    :param owner: When the owner was started whose network it has joined; it has another one then.
    :param stream: Its standard input.
    """

    def __init__(self, container: str, image: str, owner: str, stream: Stream) -> None:
        self.container = container
        self.image = image
        self.owner = owner
        self.stream = stream


# Taking one.


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


def make_standby(cluster: Cluster, node: Node, image: str) -> Standby:
    """
    Start a container that waits to take the place of a node.

    :param cluster: The cluster.
    :param node: The node.
    :param image: The id of the image with its disk.
    :returns: The standby.
    """
    engine = cluster.engine
    marks = {**cluster.marks(), label("standby"): process_id() or ""}
    config = _boot.system_configuration(node.place, node.spec, image, node.owner_id, marks)
    name = f"{node.place.system_name}.{os.urandom(4).hex()}"
    container = engine.create_container(name, config)
    try:
        stream = engine.attach(container, "stdin")
        try:
            since = engine.inspect_container(node.owner_id)["State"]["StartedAt"]
            engine.begin_start(container).result()
        except BaseException:
            stream.close()
            raise
    except BaseException:
        engine.remove_container(container)
        raise
    return Standby(container, image, since, stream)


class Stagehand:
    """
    Works in the background: removes what was replaced, prepares replacements.

    :param cluster: The cluster.
    :param standbys: Prepare replacements at all.
    """

    workers = 2

    def __init__(self, cluster: Cluster, standbys: bool) -> None:
        self.cluster = cluster
        self.wanted = standbys
        self.jobs: queue.Queue[tuple[str, Callable[[], None], bool] | None] = queue.Queue()
        self.lock = threading.Condition()
        self.ready: dict[str, Standby] = {}
        #: What the replacements of nodes that are being made will be made from.
        self.making: dict[str, str] = {}
        #: The ids of replaced containers that are to be removed.
        self.buried: set[str] = set()
        self.threads: list[threading.Thread] = []
        self.closed = False

    def containers(self) -> set[str]:
        """
        Get the containers it knows of.

        :returns: The ids of replacements that wait and of what was replaced.
        """
        with self.lock:
            return {standby.container for standby in self.ready.values()} | self.buried

    def add(self, what: str, job: Callable[[], None], always: bool = False) -> None:
        """
        Have something done in the background.

        :param what: What it is, for messages.
        :param job: Does it.
        :param always: Also when the cluster is closed before its turn comes (default: no).
        """
        if self.closed:
            if always:
                self.do(what, job)
            return
        while len(self.threads) < self.workers:
            thread = threading.Thread(target=self.work, daemon=True, name="redock-stagehand")
            self.threads.append(thread)
            thread.start()
        self.jobs.put((what, job, always))

    def work(self) -> None:
        """Do what there is to do."""
        while True:
            todo = self.jobs.get()
            try:
                if todo is None:
                    return
                what, job, always = todo
                if always or not self.closed:
                    self.do(what, job)
            finally:
                self.jobs.task_done()

    def do(self, what: str, job: Callable[[], None]) -> None:
        """
        Do something that nobody waits for.

        :param what: What it is, for messages.
        :param job: Does it.
        """
        try:
            job()
        except (RedockError, OSError) as error:
            # Whoever needs it will do it, and see why it fails.
            logger.debug("In the background, %s: %s", what, error)

    def wait(self, timeout: float = 60.0) -> None:
        """
        Wait until everything is done.

        :param timeout: Seconds to wait at most (default: 60).
        :raises StateError: It was not done in time.
        """
        deadline = Deadline(timeout)
        while self.jobs.unfinished_tasks:
            if deadline.passed:
                raise StateError(f"replacements were not ready within {timeout:g} seconds")
            time.sleep(0.01)

    def prepare(self, snapshot: Snapshot) -> None:
        """
        Make replacements for all nodes.

        :param snapshot: What to make them from.
        """
        if not self.wanted:
            return
        for node in self.cluster.nodes:
            self.prepare_one(node, snapshot.images[node.name])

    def prepare_one(self, node: Node, image: str) -> None:
        """
        Make a replacement for a node.

        :param node: The node.
        :param image: The id of the image with its disk.
        """
        if not self.wanted or self.closed:
            return
        with self.lock:
            self.making[node.name] = image

        def job() -> None:
            try:
                with self.lock:
                    standby = self.ready.pop(node.name, None)
                if standby is not None and standby.image == image:
                    made = standby
                else:
                    if standby is not None:
                        self.drop(standby)
                    if self.making.get(node.name) != image:
                        return
                    made = make_standby(self.cluster, node, image)
                with self.lock:
                    # Another worker may have made one of a newer snapshot meanwhile.
                    wanted = self.making.get(node.name) == image
                    unused = self.ready.pop(node.name, None) if wanted else made
                    if wanted:
                        self.ready[node.name] = made
                if unused is not None:
                    self.drop(unused)
            finally:
                with self.lock:
                    if self.making.get(node.name) == image:
                        del self.making[node.name]
                    self.lock.notify_all()

        self.add(f"preparing a replacement of {node.name}", job)

    def claim(self, node: Node, image: str) -> Standby | None:
        """
        Get the replacement of a node; one that is being made is waited for.

        :param node: The node.
        :param image: The id of the image it must have been made from.
        :returns: The replacement, None when there is none.
        """
        deadline = Deadline(30.0)
        with self.lock:
            while self.making.get(node.name) == image and not deadline.passed:
                self.lock.wait(min(1.0, deadline.remaining))
            standby = self.ready.pop(node.name, None)
        if standby is None:
            return None
        if standby.image == image and standby.owner == node.owner_since:
            with contextlib.suppress(NotFound):
                state = self.cluster.engine.inspect_container(standby.container)["State"]
                if state["Running"]:
                    return standby
        self.add(f"removing a replacement of {node.name}", lambda: self.drop(standby))
        return None

    def drop(self, standby: Standby) -> None:
        """
        Remove a replacement nobody needs.

        :param standby: The replacement.
        """
        standby.stream.close()
        self.cluster.engine.remove_container(standby.container)

    def tidy_up(self, snapshot: Snapshot, replaced: Mapping[Node, str]) -> None:
        """
        Remove what was replaced, and prepare for the next time.

        :param snapshot: What the nodes have been brought back to.
        :param replaced: The ids of the replaced containers.
        """
        # What the next command needs comes first.
        for node in replaced:
            self.add(f"connecting to {node.name}", partial(self.connect, node))
        for node in replaced:
            self.prepare_one(node, snapshot.images[node.name])
        with self.lock:
            self.buried |= set(filter(None, replaced.values()))
        for node, container in replaced.items():
            self.add(f"removing the old {node.name}", partial(self.bury, node, container), True)

    def bury(self, node: Node, container: str) -> None:
        """
        Remove a container that was replaced; its name is for the one that is there now.

        :param node: The node.
        :param container: The id of the container.
        """
        engine = self.cluster.engine
        if container:
            engine.remove_container(container)
        with self.lock:
            self.buried.discard(container)
        engine.rename_container(node.container_id, node.place.system_name)

    def connect(self, node: Node) -> None:
        """
        Open the shared connection to a node that was booted.

        :param node: The node.
        """
        container = node.container_id
        node.connect()
        # What the connection has to say comes to rest.
        time.sleep(0.05)
        packets = node.packets()
        # Once somebody uses the cluster, a packet may be from anybody.
        if node.container_id == container and not any(each.touched for each in self.cluster.nodes):
            node.baseline = packets

    def close(self) -> None:
        """End the work and remove the replacements."""
        self.closed = True
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join(timeout=60)
        for standby in self.ready.values():
            with contextlib.suppress(RedockError):
                self.drop(standby)
        self.ready.clear()
        self.threads.clear()
