"""
Replacements of nodes, and the stagehand that prepares them.

The replacement of a node is a container that has been started beforehand and
waits, before its first program, for a line on standard input. The replaced one
is removed, and the next replacement made, by a stagehand in the background.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from functools import partial

from redock._engine import label
from redock._process import Deadline
from redock.cluster import _boot
from redock.cluster._process import process_id
from redock.errors import NotFound, RedockError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from redock._http import Stream
    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node
    from redock.cluster._snapshot import Snapshot

__all__ = ["Stagehand", "Standby", "make_standby"]

logger = logging.getLogger("redock.cluster")


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
