"""
Faults: what they have in common, and those that need nothing but the engine.
"""

from __future__ import annotations

import logging
import os

from redock._engine import Engine
from redock._parallel import raise_all
from redock.cluster import _records
from redock.errors import (
    EngineError,
    FaultUnsupported,
    NoContainerRunning,
    NotFound,
    RedockError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Any, ClassVar

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["Fault", "Kill", "Pause", "cannot", "each_of", "thaw"]

logger = logging.getLogger("redock.cluster")


class Fault:
    """
    Something that is broken on purpose.

    It holds from the moment it is made until :meth:`heal`, or the end of a
    ``with`` block. Healing takes away exactly what was made, and looks whether
    that has worked::

        with cluster.partition(["n1"], ["n2", "n3"]):
            ...

    A fault that outlives the process that made it is noted in the owners of its
    nodes, and another process finds it there. Such a kind of fault says so
    (:attr:`outlives_process`), says what has to be noted of it beyond what all
    have in common (:attr:`noted`), and how it is seen that it still holds
    (:meth:`holds`). One that ends with its process is not noted, and nobody else
    hears of it.

    :param cluster: The cluster.
    :param nodes: The nodes it concerns.
    :param text: What is broken, for people.
    :param details: More about it, for programs.
    """

    #: What kind of fault it is, the name of the method of :class:`Cluster` that makes it.
    kind = "fault"
    #: Whether it holds where a restore does not reach.
    outlives_restore = False
    #: Whether it goes with the network namespace of a node.
    in_network = True
    #: Whether it holds on when the process that made it ends.
    outlives_process = False
    #: The attributes that another process needs to heal it, besides those of this class.
    noted: ClassVar[tuple[str, ...]] = ()
    #: All classes of faults by name, for those that are found.
    classes: ClassVar[dict[str, type[Fault]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Fault.classes[cls.__name__] = cls

    def __init__(self, cluster: Cluster, nodes: Iterable[Node], text: str, **details: Any) -> None:
        self.cluster = cluster
        self.id = os.urandom(4).hex()
        #: The names of the nodes it concerns.
        self.nodes = tuple(node.name for node in nodes)
        self.text = text
        self.details = details
        #: When it was made, in seconds since the epoch.
        self.since = round(cluster.timeline.wall + cluster.timeline.now(), 3)
        #: Whether it says what it is; False for what was found without a record.
        self.is_noted = True
        #: Whether it holds.
        self.active = False

    def __repr__(self) -> str:
        state = "active" if self.active else "healed"
        return f"<{self.kind} {self.text}: {state}>"

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.heal()

    def begin(self) -> Fault:
        """
        Break it.

        :returns: This fault.
        :raises RedockError: It could not be done; nothing is left of the attempt.
        """
        with self.cluster.locked():
            for name in self.nodes:
                self.cluster[name].touched = True
            try:
                self.make()
                self.note()
            except BaseException as error:
                try:
                    self.unmake()
                    self.erase()
                except RedockError as failure:
                    logger.debug("After a fault that could not be made: %s", failure)
                self.explain(error)
                raise
            logger.debug("Fault: %s", self.text)
            self.enter()
        return self

    def enter(self) -> None:
        """Count it among the faults that hold."""
        self.active = True
        self.event = self.cluster.timeline.begin(
            self.kind, self.text, self.nodes, fault=self.id, **self.details
        )
        self.cluster.active_faults.append(self)

    def explain(self, error: BaseException) -> None:
        """
        Find out whether a fault could not be made because the engine cannot make such faults.

        :param error: Why it could not be made.
        :raises FaultUnsupported: It cannot make such faults at all.
        """
        known = (EngineError, FaultUnsupported, NoContainerRunning)
        if not isinstance(error, RedockError) or isinstance(error, known):
            return
        try:
            self.cluster.capabilities.require(self.kind)
        except FaultUnsupported as reason:
            raise reason from error
        except RedockError as failure:
            logger.debug("Looking for the reason: %s", failure)

    def heal(self) -> None:
        """
        Make it whole again; nothing happens when it is.

        :raises RedockError: It could not be done, or something of it is left.
        """
        with self.cluster.locked():
            if self.active:
                self.unmake()
                self.erase()
                logger.debug("Healed: %s", self.text)
                self.forget()

    def forget(self) -> None:
        """What it was made in has gone, and the fault with it."""
        with self.cluster.locked():
            if self.active:
                self.active = False
                self.cluster.active_faults.remove(self)
                self.cluster.timeline.end(self.event)

    def make(self) -> None:
        """Break it."""
        raise NotImplementedError

    def unmake(self) -> None:
        """Take away what :meth:`make` made, or a part of it, and verify that."""
        raise NotImplementedError

    def targets(self) -> list[Node]:
        """
        Get the nodes it concerns.

        :returns: The nodes.
        """
        return [self.cluster[name] for name in self.nodes]

    # What other processes know of it.

    def places(self) -> list[Node]:
        """
        Get the nodes it is made in: their owners have its record.

        :returns: The nodes.
        """
        return self.targets()

    def note(self) -> None:
        """Note it in the owners of its nodes, for other processes."""
        if self.outlives_process:
            _records.note(self)

    def erase(self) -> None:
        """Take away what :meth:`note` wrote."""
        if self.outlives_process:
            _records.erase(self)

    def record(self) -> dict[str, Any]:
        """
        Describe it for another process.

        :returns: Plain values that JSON can express; :meth:`recall` makes a fault of them.
        """
        return {
            "class": type(self).__name__,
            "id": self.id,
            "kind": self.kind,
            "nodes": list(self.nodes),
            "text": self.text,
            "since": self.since,
            "details": self.details,
            "noted": {name: getattr(self, name) for name in self.noted},
        }

    def summary(self) -> dict[str, Any]:
        """
        Describe it.

        :returns: Its id, kind, nodes and text, and since when; plain values that JSON can express.
        """
        about = {"id": self.id, "kind": self.kind, "nodes": list(self.nodes), "text": self.text}
        return {**about, "since": self.since if self.is_noted else None}

    @classmethod
    def recall(cls, cluster: Cluster, record: Mapping[str, Any]) -> Fault | None:
        """
        Make a fault of what another process noted.

        :param cluster: The cluster.
        :param record: What :meth:`record` returned.
        :returns: The fault, not yet counted among those that hold; None when it is of a kind, or
                  concerns nodes, that this redock does not know.
        """
        kind = Fault.classes.get(str(record.get("class")))
        try:
            if kind is None:
                raise KeyError(record.get("class"))
            nodes = [cluster[name] for name in record["nodes"]]
            fault = kind.__new__(kind)
            Fault.__init__(fault, cluster, nodes, record["text"], **record["details"])
            fault.kind, fault.id, fault.since = record["kind"], record["id"], record["since"]
            for name in kind.noted:
                setattr(fault, name, record["noted"][name])
        except (LookupError, TypeError) as error:
            logger.debug("A fault that cannot be recalled (%r): %r", error, record)
            return None
        return fault

    def holds(self, sight: _records.Sight) -> bool:
        """
        Check whether it is still there, whatever its record says.

        :param sight: What was seen of the cluster.
        :returns: True when it is (default: the record is there, which goes with the owner).
        """
        return self.id in sight.records


class Pause(Fault):
    """The processes of nodes are frozen: they are there, and do not answer."""

    kind = "pause"
    in_network = False
    outlives_process = True

    def holds(self, sight: _records.Sight) -> bool:
        """
        Check whether it is still there.

        :param sight: What was seen of the cluster.
        :returns: True when one of its nodes is frozen.
        """
        return any(sight.states[name] == "paused" for name in self.nodes)

    def make(self) -> None:
        """Freeze them."""
        for node in self.targets():
            freeze(node)
            if node.state != "paused":
                raise EngineError(f"the engine did not pause node {node.name}")

    def unmake(self) -> None:
        """Thaw them."""
        held = {
            name
            for other in self.cluster.active_faults
            if other is not self and other.kind == "pause"
            for name in other.nodes
        }
        each_of(
            [node for node in self.targets() if node.name not in held],
            lambda node: thaw(self.cluster.engine, node),
        )


class Kill(Fault):
    """Nodes are without power."""

    kind = "kill"
    in_network = False
    outlives_process = True

    def holds(self, sight: _records.Sight) -> bool:
        """
        Check whether it is still there.

        :param sight: What was seen of the cluster.
        :returns: True when one of its nodes does not run, and was not ended by anything else.
        """
        dead = any(sight.states[name] in ("exited", "dead", "created") for name in self.nodes)
        return dead and self.id in sight.records

    def make(self) -> None:
        """Take their power away."""
        for node in self.targets():
            node.disconnect()
        signal = self.details["signal"]
        pending = {
            node.name: self.cluster.engine.begin_kill(node.container_id, signal)
            for node in self.targets()
        }

        def finish(node: Node) -> None:
            try:
                pending[node.name].result()
            except NotFound as error:
                if not node.was_replaced():
                    raise cannot(node, "kill", error) from error
                self.cluster.engine.begin_kill(node.container_id, self.details["signal"]).result()
            except EngineError as error:
                if node.state == "paused":
                    thaw(self.cluster.engine, node)
                    self.cluster.engine.begin_kill(node.container_id).result()
                elif node.state == "running":
                    raise cannot(node, "kill", error) from error

        each_of(self.targets(), finish)

    def unmake(self) -> None:
        """Boot them with the disks they had."""
        each_of(self.targets(), self.cluster.boot_again)


def each_of(nodes: Iterable[Node], function: Callable[[Node], object]) -> None:
    """
    Do something to nodes, one after the other; a failure stops none of the others.

    :param nodes: The nodes.
    :param function: Does it.
    :raises RedockError: It failed for one.
    :raises SeveralFailed: It failed for several.
    """
    failed: dict[str, Exception] = {}
    for node in nodes:
        try:
            function(node)
        except RedockError as error:
            failed[node.name] = error
    raise_all(failed)


def freeze(node: Node) -> bool:
    """
    Freeze a node.

    :param node: The node.
    :returns: False when it was frozen already.
    :raises NoContainerRunning: It does not run.
    :raises EngineError: It could not be frozen.
    """
    try:
        node.ask(node.engine.pause)
        return True
    except EngineError as error:
        if node.state == "paused":
            return False
        raise cannot(node, "pause", error) from error


def thaw(engine: Engine, node: Node) -> None:
    """
    Thaw a node, whatever state it is in.

    :param engine: The engine.
    :param node: The node.
    :raises EngineError: It is still frozen.
    """
    try:
        engine.pause(node.container_id, resume=True)
    except EngineError:
        # Not frozen, not running, or gone.
        if node.state == "paused":
            raise


def cannot(node: Node, what: str, error: EngineError) -> RedockError:
    """
    Say that a node cannot be broken.

    :param node: The node.
    :param what: What was tried.
    :param error: What the engine said.
    :returns: The error to raise.
    """
    state = node.state
    if state == "running":
        return error
    return NoContainerRunning(f"cannot {what} node {node.name}: it is {state}")
