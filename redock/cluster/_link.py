"""
Faults of the way from one node to another that do not stop packets but treat them badly.

Several of them may concern the same way. What its packets meet is the sum, and
the sum is what is put in place whenever one of them comes or goes. Ways are
those between nodes: the host, the outside and name resolution are never meant.
Networks of clusters are IPv4 networks, and so are these faults.
"""

from __future__ import annotations

import dataclasses

from redock._parallel import call_all
from redock.cluster import _queues, _shaping
from redock.cluster._effect import Effect
from redock.cluster._fault import Fault
from redock.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["LinkFault"]


class LinkFault(Fault):
    """
    What some nodes send to others is slowed down, mixed up or damaged.

    :param cluster: The cluster.
    :param kind: What kind of fault it is.
    :param text: What is broken, for people.
    :param pairs: Whose packets to whom: (sender, receiver).
    :param effect: What happens to them.
    :param backend: What makes it: ``nfqueue``, where they arrive; else where they are sent.
    :param details: More about it, for programs.
    """

    outlives_restore = True
    noted = ("pairs", "backend", "strength")

    def __init__(
        self,
        cluster: Cluster,
        kind: str,
        text: str,
        pairs: Iterable[tuple[Node, Node]],
        effect: Effect,
        backend: str,
        **details: Any,
    ) -> None:
        self.kind = kind
        self.pairs = [(sender.name, receiver.name) for sender, receiver in pairs]
        names = dict.fromkeys(name for pair in self.pairs for name in pair)
        super().__init__(cluster, [cluster[name] for name in names], text, **details)
        self.effect = effect
        self.backend = backend

    @property
    def at_receiver(self) -> bool:
        """Whether it is made where packets arrive."""
        return self.backend == "nfqueue"

    @property
    def outlives_process(self) -> bool:  # type: ignore[override]
        """Whether it holds on when the process that made it ends: queues have a program."""
        return not self.at_receiver

    @property
    def strength(self) -> dict[str, Any]:
        """The effect, in plain values."""
        return dataclasses.asdict(self.effect)

    @strength.setter
    def strength(self, values: dict[str, Any]) -> None:
        self.effect = Effect(**values)

    def places(self) -> list[Node]:
        """
        Get the nodes it is made in.

        :returns: The nodes.
        """
        names = dict.fromkeys(pair[self.at_receiver] for pair in self.pairs)
        return [self.cluster[name] for name in names]

    def sums(self, faults: Iterable[LinkFault]) -> dict[str, dict[str, Effect]]:
        """
        Add up what is to hold where this fault is made.

        :param faults: The faults that are to hold.
        :returns: The effects by the address of the other node, by the name of each place.
        """
        sums: dict[str, dict[str, Effect]] = {node.name: {} for node in self.places()}
        for fault in faults:
            for pair in fault.pairs:
                here, there = pair[self.at_receiver], pair[not self.at_receiver]
                if here in sums:
                    address = self.cluster[there].ip
                    before = sums[here].get(address)
                    sums[here][address] = fault.effect if before is None else before + fault.effect
        return sums

    def others(self) -> list[LinkFault]:
        """
        Find the other faults that are made in the same places.

        :returns: Those that hold.
        """
        return [
            fault
            for fault in self.cluster.active_faults
            if isinstance(fault, LinkFault)
            and fault is not self
            and fault.at_receiver == self.at_receiver
        ]

    def make(self) -> None:
        """Add it to what holds, everywhere at the same time."""
        sums = self.sums([*self.others(), self])
        put = _queues.hold if self.at_receiver else _shaping.shape
        call_all(
            {node.name: node for node in self.places()},
            lambda node: put(node, sums[node.name], f"{self.kind} node {node.name}"),
        )

    def unmake(self) -> None:
        """Leave the others."""
        sums = self.sums(self.others())
        put = _queues.hold if self.at_receiver else _shaping.shape

        def leave(node: Node) -> None:
            try:
                put(node, sums[node.name], f"heal node {node.name}")
            except NotFound:
                # Its network has gone, and what was made in it.
                return

        call_all({node.name: node for node in self.places()}, leave)
