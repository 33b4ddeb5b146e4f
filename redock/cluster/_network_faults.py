"""
The verbs that break the network of a cluster.
"""

from __future__ import annotations

from typing import cast

from redock.cluster import _netfault
from redock.cluster._capabilities import capabilities
from redock.cluster._effect import Effect
from redock.cluster._link import LinkFault
from redock.cluster._units import parse_rate, parse_seconds, say_rate, say_seconds
from redock.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypeAlias

    from redock._engine import Engine
    from redock.cluster._capabilities import Capabilities
    from redock.cluster._cluster import Cluster
    from redock.cluster._fault import Fault
    from redock.cluster._node import Node, NodeSet

    Some: TypeAlias = str | Node | Iterable[str | Node]
    Unheard: TypeAlias = Mapping[str, Iterable[str]]

__all__ = ["NetworkVerbs", "names_of"]

#: Seconds a packet is held at most; more than that is not seen on any line.
LONGEST_DELAY = 60.0


class NetworkVerbs:
    """The part of :class:`Cluster` that breaks its network; each fault is a handle."""

    engine: Engine
    nodes: NodeSet

    @property
    def _cluster(self) -> Cluster:
        """The same, as what it is."""
        return cast("Cluster", self)

    @property
    def capabilities(self) -> Capabilities:
        """Which faults the engine can make, see :func:`redock.cluster.capabilities`."""
        return capabilities(self.engine)

    def choose(self, some: Some) -> list[Node]:
        """
        Turn the usual ways to say it into nodes.

        :param some: A node or its name, or several.
        :returns: The nodes, each once.
        :raises NotFound: There is no such node.
        """
        listed = [some] if isinstance(some, str) or not hasattr(some, "__iter__") else list(some)
        names = [each if isinstance(each, str) else each.name for each in listed]
        return [self.nodes[name] for name in dict.fromkeys(names)]

    def partition(self, *groups: Some | Unheard, one_way: bool = False) -> Fault:
        """
        Cut groups of nodes off from each other.

        Within a group everything works. Nodes that are not named are a group of their own. The
        host reaches all of them.

        :param groups: The groups; or one mapping, from the names of nodes to those of the nodes
                       that each does not hear, such as :func:`redock.cluster.bridge` makes.
        :param one_way: Only what the first group sends is lost (default: both ways).
        :returns: The fault.
        :raises InvalidArgument: A node is in two groups, or nobody is cut off from anybody.
        """
        if len(groups) == 1 and isinstance(groups[0], dict):
            return self._partition_unheard(groups[0])
        chosen = [self.choose(group) for group in groups]
        named = [node for group in chosen for node in group]
        if len(set(named)) != len(named):
            raise InvalidArgument("partition: a node is in two groups")
        rest = [node for node in self.nodes if node not in named]
        sides = [group for group in [*chosen, rest] if group]
        if len(sides) < 2:
            raise InvalidArgument("partition: give two groups, or leave nodes out for the second")
        if one_way:
            others = [node for side in sides[1:] for node in side]
            sides = [sides[0], others]
            pairs = _netfault.pairs_between(*sides)
        else:
            pairs = [
                pair
                for one in sides
                for other in sides
                if one is not other
                for pair in _netfault.pairs_between(one, other)
            ]
        sign = " -> " if one_way else " | "
        text = "partition " + sign.join(names_of(side) for side in sides)
        names = [[node.name for node in side] for side in sides]
        return _netfault.PacketFault(
            self._cluster, "partition", text, pairs, groups=names, one_way=one_way
        ).begin()

    def _partition_unheard(self, unheard: Unheard) -> Fault:
        """
        Cut nodes off from others, each from its own.

        :param unheard: From the names of nodes to those of the nodes that each does not hear.
        :returns: The fault.
        """
        pairs = [
            (sender, self.nodes[name])
            for name, others in unheard.items()
            for sender in self.choose(others)
            if sender.name != name
        ]
        if not pairs:
            raise InvalidArgument("partition: nobody is cut off from anybody")
        text = "partition " + ", ".join(
            f"{name} hears no {','.join(others)}" for name, others in unheard.items() if others
        )
        names = {name: list(others) for name, others in unheard.items()}
        return _netfault.PacketFault(self._cluster, "partition", text, pairs, unheard=names).begin()

    def isolate(self, nodes: Some) -> Fault:
        """
        Cut nodes off from all others, and from each other.

        :param nodes: A node or its name, or several.
        :returns: The fault.
        """
        chosen = self.choose(nodes)
        pairs = _netfault.pairs_around(chosen, list(self.nodes))
        text = f"isolate {','.join(node.name for node in chosen)}"
        return _netfault.PacketFault(self._cluster, "isolate", text, pairs).begin()

    def drop(
        self,
        source: Some,
        target: Some,
        port: int | None = None,
        proto: str | None = None,
        *,
        reject: bool = False,
    ) -> Fault:
        """
        Lose what nodes send to others: one way, and perhaps only to a port.

        :param source: Who sends.
        :param target: Who does not receive.
        :param port: The port it is sent to (default: all).
        :param proto: ``tcp``, ``udp`` or ``icmp`` (default: all; with a port TCP).
        :param reject: Say so to the sender, as a host does where nobody listens (default: no).
        :returns: The fault.
        :raises InvalidArgument: There are no such packets.
        """
        match = _netfault.rule_for(port, proto)
        tcp = match.startswith("tcp") or proto == "tcp"
        refusal = "reject with tcp reset" if tcp else "reject"
        senders, receivers = self.choose(source), self.choose(target)
        text = (
            f"drop {','.join(n.name for n in senders)} -> {','.join(n.name for n in receivers)}"
            f"{f' {match}' if match else ''}"
        )
        return _netfault.PacketFault(
            self._cluster,
            "drop",
            text,
            _netfault.pairs_between(senders, receivers),
            match=match,
            verdict=refusal if reject else "drop",
            port=port,
            proto=proto,
            reject=reject,
        ).begin()

    def _ways(self, nodes: Some, to: Some | None) -> tuple[list[tuple[Node, Node]], str]:
        """
        Find the ways between nodes that are meant.

        :param nodes: Nodes.
        :param to: Those they send to; None for both ways, with all others.
        :returns: Pairs of sender and receiver, and how to say which.
        :raises InvalidArgument: There are none.
        """
        chosen = self.choose(nodes)
        if to is None:
            pairs = _netfault.pairs_around(chosen, list(self.nodes))
            words = names_of(chosen)
        else:
            receivers = self.choose(to)
            pairs = _netfault.pairs_between(chosen, receivers)
            words = f"{names_of(chosen)} -> {names_of(receivers)}"
        if not pairs:
            raise InvalidArgument(f"there is no way between different nodes: {words}")
        return pairs, words

    def loss(self, nodes: Some, percent: float, to: Some | None = None) -> Fault:
        """
        Lose packets by chance.

        :param nodes: A node or its name, or several: what they send and what is sent to them.
        :param percent: How many of a hundred are lost.
        :param to: Only what they send to these nodes (default: both ways, with all others).
        :returns: The fault.
        :raises InvalidArgument: That is not a percentage above 0.
        """
        check_percent("loss", percent)
        pairs, words = self._ways(nodes, to)
        chance = _netfault.chance_of(percent)
        text = f"loss {percent:g}% {words}"
        return _netfault.PacketFault(
            self._cluster, "loss", text, pairs, chance=chance, percent=percent
        ).begin()

    def duplicate(self, nodes: Some, percent: float, to: Some | None = None) -> Fault:
        """
        Let packets arrive twice, by chance.

        :param nodes: A node or its name, or several: what they send and what is sent to them.
        :param percent: How many of a hundred.
        :param to: Only what they send to these nodes (default: both ways, with all others).
        :returns: The fault.
        :raises InvalidArgument: That is not a percentage above 0.
        """
        check_percent("duplicate", percent)
        pairs, words = self._ways(nodes, to)
        chance = _netfault.chance_of(percent)
        text = f"duplicate {percent:g}% {words}"
        return _netfault.DuplicateFault(
            self._cluster, "duplicate", text, pairs, chance=chance, percent=percent
        ).begin()

    def bandwidth(self, nodes: Some, rate: str | float, to: Some | None = None) -> Fault:
        """
        Make the ways between nodes narrow.

        Each way has the rate for itself: what two nodes send to a third arrives at twice the
        rate. Of several limits of the same way the lowest holds.

        :param nodes: A node or its name, or several: what they send and what is sent to them.
        :param rate: ``"10mbit"``, ``"100kbit"``, or bits in a second.
        :param to: Only what they send to these nodes (default: both ways, with all others).
        :returns: The fault.
        :raises InvalidArgument: That is no rate.
        :raises FaultUnsupported: The kernel cannot; says why.
        """
        bits = parse_rate(rate)
        pairs, words = self._ways(nodes, to)
        text = f"bandwidth {say_rate(bits)} {words}"
        effect = Effect(rate=bits)
        return LinkFault(self._cluster, "bandwidth", text, pairs, effect, "htb", rate=bits).begin()

    def latency(
        self,
        nodes: Some,
        delay: str | float = "100ms",
        jitter: str | float | None = None,
        to: Some | None = None,
    ) -> Fault:
        """
        Let every packet take longer.

        A question and its answer take twice the delay longer, unless only one way is meant.
        Several such faults of the same way add up. It ends with this process, however that ends.

        :param nodes: A node or its name, or several: what they send and what is sent to them.
        :param delay: How much longer: ``"100ms"`` (the default), or a number of seconds.
        :param jitter: By how much that varies, up or down (default: not at all).
        :param to: Only what they send to these nodes (default: both ways, with all others).
        :returns: The fault.
        :raises InvalidArgument: That is no duration, or the jitter is more than the delay.
        :raises FaultUnsupported: The kernel cannot; says why.
        """
        seconds = parse_seconds(delay, "latency")
        spread = parse_seconds(jitter or 0.0, "latency")
        if not 0 < seconds <= LONGEST_DELAY or spread > seconds:
            raise InvalidArgument(
                f"latency: the delay is above 0 and at most {LONGEST_DELAY:g} seconds,"
                " and the jitter at most the delay"
            )
        pairs, words = self._ways(nodes, to)
        varies = f" +-{say_seconds(spread)}" if spread else ""
        text = f"latency {say_seconds(seconds)}{varies} {words}"
        effect = Effect(delay=seconds, jitter=spread)
        return self._hold("latency", text, pairs, effect, delay=seconds, jitter=spread)

    def reorder(
        self, nodes: Some, percent: float, gap: str | float = "10ms", to: Some | None = None
    ) -> Fault:
        """
        Hold some packets for longer, so that those behind overtake them.

        :param nodes: A node or its name, or several: what they send and what is sent to them.
        :param percent: How many of a hundred.
        :param gap: How much longer: ``"10ms"`` (the default), or a number of seconds.
        :param to: Only what they send to these nodes (default: both ways, with all others).
        :returns: The fault.
        :raises InvalidArgument: That is not a percentage above 0, or no duration.
        :raises FaultUnsupported: The kernel cannot; says why.
        """
        check_percent("reorder", percent)
        seconds = parse_seconds(gap, "reorder")
        if not 0 < seconds <= LONGEST_DELAY:
            raise InvalidArgument(f"reorder: the gap is above 0 and at most {LONGEST_DELAY:g} s")
        pairs, words = self._ways(nodes, to)
        text = f"reorder {percent:g}% by {say_seconds(seconds)} {words}"
        effect = Effect(reorder=percent / 100, gap=seconds)
        return self._hold("reorder", text, pairs, effect, percent=percent, gap=seconds)

    def corrupt(self, nodes: Some, percent: float, to: Some | None = None) -> Fault:
        """
        Change a bit of some packets, behind the header of IP.

        Checksums find that out: TCP sends such a packet again, UDP loses it, and programs
        never see what was changed.

        :param nodes: A node or its name, or several: what they send and what is sent to them.
        :param percent: How many of a hundred.
        :param to: Only what they send to these nodes (default: both ways, with all others).
        :returns: The fault.
        :raises InvalidArgument: That is not a percentage above 0.
        :raises FaultUnsupported: The kernel cannot; says why.
        """
        check_percent("corrupt", percent)
        pairs, words = self._ways(nodes, to)
        text = f"corrupt {percent:g}% {words}"
        effect = Effect(corrupt=percent / 100)
        return self._hold("corrupt", text, pairs, effect, percent=percent)

    def _hold(
        self, kind: str, text: str, pairs: list[tuple[Node, Node]], effect: Effect, **details: Any
    ) -> Fault:
        """
        Make a fault with what this kernel has for it: netem, or a process of ours.

        :param kind: What kind of fault it is.
        :param text: What is broken, for people.
        :param pairs: Whose packets to whom.
        :param effect: What happens to them.
        :param details: More about it, for programs.
        :returns: The fault.
        """
        backend = self.capabilities.require(kind)
        return LinkFault(self._cluster, kind, text, pairs, effect, backend, **details).begin()


def names_of(nodes: Iterable[Node]) -> str:
    """
    Name nodes, for a text.

    :param nodes: The nodes.
    :returns: Their names.
    """
    return ",".join(node.name for node in nodes)


def check_percent(what: str, percent: float) -> None:
    """
    Make sure something is a percentage.

    :param what: What it is for, for the message.
    :param percent: The value.
    :raises InvalidArgument: It is none, or not above 0.
    """
    number = isinstance(percent, (int, float)) and not isinstance(percent, bool)
    if not number or not 0 < percent <= 100:
        raise InvalidArgument(f"{what}: {percent!r} is not a percentage above 0")
