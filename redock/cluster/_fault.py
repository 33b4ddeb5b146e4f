"""
Faults: what they have in common, and those that need nothing but the engine.
"""

from __future__ import annotations

import itertools
import logging

from redock._engine import Engine
from redock._parallel import raise_all
from redock.errors import (
    EngineError,
    FaultUnsupported,
    NoContainerRunning,
    NotFound,
    RedockError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["Fault", "Kill", "Pause", "cannot", "each_of", "thaw"]

logger = logging.getLogger("redock.cluster")

numbers = itertools.count(1)


class Fault:
    """
    Something that is broken on purpose.

    It holds from the moment it is made until :meth:`heal`, or the end of a
    ``with`` block. Healing takes away exactly what was made, and looks whether
    that has worked::

        with cluster.partition(["n1"], ["n2", "n3"]):
            ...

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

    def __init__(self, cluster: Cluster, nodes: Iterable[Node], text: str, **details: Any) -> None:
        self.cluster = cluster
        self.id = f"{next(numbers)}"
        #: The names of the nodes it concerns.
        self.nodes = tuple(node.name for node in nodes)
        self.text = text
        self.details = details
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
        for name in self.nodes:
            self.cluster[name].touched = True
        with self.cluster.breaking:
            try:
                self.make()
            except BaseException as error:
                try:
                    self.unmake()
                except RedockError as failure:
                    logger.debug("After a fault that could not be made: %s", failure)
                self.explain(error)
                raise
            self.active = True
            logger.debug("Fault: %s", self.text)
            self.event = self.cluster.timeline.begin(
                self.kind, self.text, self.nodes, fault=self.id, **self.details
            )
            self.cluster.active_faults.append(self)
        return self

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
        with self.cluster.breaking:
            if self.active:
                self.unmake()
                logger.debug("Healed: %s", self.text)
                self.forget()

    def forget(self) -> None:
        """What it was made in has gone, and the fault with it."""
        with self.cluster.breaking:
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


class Pause(Fault):
    """The processes of nodes are frozen: they are there, and do not answer."""

    kind = "pause"
    in_network = False

    def make(self) -> None:
        """Freeze them."""
        for node in self.targets():
            try:
                self.cluster.engine.pause(node.container_id)
            except EngineError as error:
                if node.state != "paused":
                    raise cannot(node, "pause", error) from error
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
                raise cannot(node, "kill", error) from error
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
