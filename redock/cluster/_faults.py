"""
The verbs that break a cluster.
"""

from __future__ import annotations

from typing import cast

from redock.cluster import _netfault
from redock.cluster._fault import Kill, Pause
from redock.errors import InvalidArgument, RedockError, SeveralFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from redock._engine import Engine
    from redock.cluster._cluster import Cluster
    from redock.cluster._fault import Fault
    from redock.cluster._node import Node, NodeSet
    from redock.cluster._timeline import Timeline

    Some = str | Node | Iterable[str | Node]

__all__ = ["FaultVerbs"]


class FaultVerbs:
    """The part of :class:`Cluster` that breaks it; each fault is a handle, see :class:`Fault`."""

    engine: Engine
    timeline: Timeline
    nodes: NodeSet
    active_faults: list[Fault]

    @property
    def _cluster(self) -> Cluster:
        """The same, as what it is."""
        return cast("Cluster", self)

    @property
    def faults(self) -> list[Fault]:
        """The faults that hold, the oldest first."""
        return list(self.active_faults)

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

    def pause(self, nodes: Some) -> Fault:
        """
        Freeze all processes of nodes; the kernel goes on to answer for them.

        :param nodes: A node or its name, or several.
        :returns: The fault.
        """
        chosen = self.choose(nodes)
        return Pause(self._cluster, chosen, f"pause {', '.join(n.name for n in chosen)}").begin()

    def kill(self, nodes: Some, signal: str = "KILL") -> Fault:
        """
        Take the power of nodes away.

        :param nodes: A node or its name, or several.
        :param signal: What the first process of each gets (default: KILL).
        :returns: The fault; healing it boots the nodes with the disks they had.
        """
        chosen = self.choose(nodes)
        text = f"kill {', '.join(n.name for n in chosen)}"
        return Kill(self._cluster, chosen, text, signal=signal).begin()

    def crash(self, nodes: Some) -> None:
        """
        Take the power of nodes away and boot them again with the disks they had.

        :param nodes: A node or its name, or several.
        """
        chosen = self.choose(nodes)
        text = f"crash {', '.join(n.name for n in chosen)}"
        event = self.timeline.begin("crash", text, [node.name for node in chosen])
        Kill(self._cluster, chosen, text, signal="KILL").begin().heal()
        self.timeline.end(event)

    def reboot(self, nodes: Some, timeout: float = 60.0) -> None:
        """
        Shut nodes down in order and boot them again.

        :param nodes: A node or its name, or several.
        :param timeout: Seconds for all of it (default: 60).
        """
        chosen = self.choose(nodes)
        event = self.timeline.begin(
            "reboot", f"reboot {', '.join(n.name for n in chosen)}", [n.name for n in chosen]
        )
        for node in chosen:
            node.touched = True
            node.disconnect()
            self.engine.restart_container(node.container_id, 10)
        for node in chosen:
            node.wait_until_up(timeout)
        self.timeline.end(event)

    # Faults of the network.

    def partition(self, *groups: Some, one_way: bool = False) -> Fault:
        """
        Cut groups of nodes off from each other.

        Within a group everything works. Nodes that are not named are a group of their own. The
        host reaches all of them.

        :param groups: The groups.
        :param one_way: Only what the first group sends is lost (default: both ways).
        :returns: The fault.
        :raises InvalidArgument: A node is in two groups, or there is only one group.
        """
        chosen = [self.choose(group) for group in groups]
        named = [node for group in chosen for node in group]
        if len(set(named)) != len(named):
            raise InvalidArgument("partition: a node is in two groups")
        rest = [node for node in self.nodes if node not in named]
        sides = [group for group in [*chosen, rest] if group]
        if len(sides) < 2:
            raise InvalidArgument("partition: give two groups, or leave nodes out for the second")
        if one_way:
            sides = [sides[0], [node for side in sides[1:] for node in side]]
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
        text = "partition " + sign.join(",".join(node.name for node in side) for side in sides)
        names = [[node.name for node in side] for side in sides]
        return _netfault.PacketFault(
            self._cluster, "partition", text, pairs, groups=names, one_way=one_way
        ).begin()

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

    def loss(self, nodes: Some, percent: float, to: Some | None = None) -> Fault:
        """
        Lose packets by chance.

        :param nodes: A node or its name, or several: what they send and what is sent to them.
        :param percent: How many of a hundred are lost.
        :param to: Only what they send to these nodes (default: both ways, with all others).
        :returns: The fault.
        :raises InvalidArgument: That is not a percentage above 0.
        """
        if not 0 < percent <= 100:
            raise InvalidArgument(f"loss: {percent!r} is not a percentage above 0")
        chosen = self.choose(nodes)
        if to is None:
            pairs = _netfault.pairs_around(chosen, list(self.nodes))
        else:
            pairs = _netfault.pairs_between(chosen, self.choose(to))
        text = f"loss {percent:g}% {','.join(node.name for node in chosen)}"
        if to is not None:
            text += f" -> {','.join(node.name for node in self.choose(to))}"
        chance = f"numgen random mod 100000 < {round(percent * 1000)}"
        return _netfault.PacketFault(
            self._cluster, "loss", text, pairs, chance=chance, percent=percent
        ).begin()

    def heal(self) -> list[Fault]:
        """
        Heal all faults, the youngest first: also those of other processes, and rules in the
        networks of nodes that no process knows any more.

        :returns: The faults that held.
        :raises RedockError: One could not be healed, or something of it is left; the others are.
        """
        cluster = self._cluster
        failed: dict[str, Exception] = {}
        with cluster.locked():
            cluster.refresh()
            faults = self.faults[::-1]
            for fault in faults:
                try:
                    fault.heal()
                except RedockError as error:
                    failed[fault.text] = error
        if len(failed) == 1:
            raise next(iter(failed.values()))
        if failed:
            raise SeveralFailed("; ".join(map(str, failed.values())), failed)
        return faults
