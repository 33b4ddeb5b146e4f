"""
Faults of the network that are rules of nftables: what does not arrive.

Every fault is a table of its own in the network namespaces of the nodes that
do not receive: taking it away is exact, and a packet that any table drops is
dropped, so faults compose. Rules name the other nodes, so the host, the
outside, and name resolution are never cut off; the system of a node has no
right to change them. Packets are dropped where they arrive, because a sender
whose own rules drop a packet is told so, and in a real network it is not.

See nft(8); no rule looks at the state of connections, so those that exist are
hit at once, and go on when the fault is healed.
"""

from __future__ import annotations

from redock._parallel import call_all
from redock.cluster import _records
from redock.cluster._fault import Fault
from redock.cluster._records import TABLE
from redock.errors import InvalidArgument, NotFound, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

    Pairs = Iterable[tuple[Node, Node]]

__all__ = [
    "TABLE",
    "DuplicateFault",
    "PacketFault",
    "chance_of",
    "in_owner",
    "pairs_around",
    "pairs_between",
    "rule_for",
]


class PacketFault(Fault):
    """
    Packets from some nodes to others are dropped, all or some of them.

    :param cluster: The cluster.
    :param kind: What kind of fault it is.
    :param text: What is broken, for people.
    :param pairs: Who does not reach whom: (sender, receiver).
    :param match: Which packets it concerns, in nft's words (default: all).
    :param chance: Which of those, by chance, in nft's words (default: all).
    :param verdict: What happens to them (default: they are dropped).
    :param details: More about it, for programs.
    """

    outlives_restore = True
    outlives_process = True
    noted = ("senders", "match", "chance", "verdict")
    #: The family of its tables.
    family = "inet"

    def __init__(
        self,
        cluster: Cluster,
        kind: str,
        text: str,
        pairs: Pairs,
        *,
        match: str = "",
        chance: str = "",
        verdict: str = "drop",
        **details: Any,
    ) -> None:
        self.kind = kind
        self.senders: dict[str, list[str]] = {}
        names: dict[str, None] = {}
        for sender, receiver in pairs:
            self.senders.setdefault(receiver.name, []).append(sender.ip)
            names |= {sender.name: None, receiver.name: None}
        super().__init__(cluster, [cluster[name] for name in names], text, **details)
        self.match = match
        self.chance = chance
        self.verdict = verdict

    @classmethod
    def found(cls, cluster: Cluster, number: str, nodes: Iterable[str]) -> PacketFault:
        """
        Make a fault of rules that nobody noted.

        :param cluster: The cluster.
        :param number: What their tables are called, behind redock's prefix.
        :param nodes: The names of the nodes that have them.
        :returns: The fault, not yet counted among those that hold.
        """
        text = f"rules nobody knows in {', '.join(nodes)}"
        fault = cls(cluster, "unknown", text, [])
        fault.id, fault.nodes, fault.is_noted = number, tuple(nodes), False
        fault.senders = {name: [] for name in nodes}
        return fault

    @property
    def table(self) -> str:
        """The name of its table in every node."""
        return f"{TABLE}{self.id}"

    def places(self) -> list[Node]:
        """
        Get the nodes the rules are in.

        :returns: The nodes.
        """
        return list(self.receivers().values())

    def note(self) -> None:
        """Do nothing: the script that puts the rules in does it."""

    def erase(self) -> None:
        """Do nothing: the script that takes the rules out does it."""

    def holds(self, sight: _records.Sight) -> bool:
        """
        Check whether it is still there.

        :param sight: What was seen of the cluster.
        :returns: True when one of its nodes has the rules.
        """
        return any(self.table in sight.tables.get(name, ()) for name in self.senders)

    def rules(self, receiver: str) -> str:
        """
        Write the rules for one node.

        :param receiver: Its name.
        :returns: A file for ``nft -f``; it is applied as a whole or not at all.
        """
        addresses = ", ".join(self.senders[receiver])
        words = " ".join(filter(None, [self.match, self.chance, "counter", self.verdict]))
        return (
            f"table inet {self.table} {{\n"
            f"  chain arriving {{\n"
            f"    type filter hook input priority -150; policy accept;\n"
            f'    iif "lo" accept\n'
            f"    ip saddr {{ {addresses} }} {words}\n"
            f"  }}\n"
            f"}}\n"
        )

    def receivers(self) -> dict[str, Node]:
        """
        Get the nodes the rules are in.

        :returns: The nodes by name.
        """
        return {name: self.cluster[name] for name in self.senders}

    def make(self) -> None:
        """Put the rules in, everywhere at the same time."""

        def put(node: Node) -> None:
            # Rules without a record are found and healed; a record without rules is of nothing.
            script = (
                f"nft -f - <<'RULES' || exit\n{self.rules(node.name)}RULES\n{_records.noting(self)}"
            )
            in_owner(node, script, f"{self.kind} node {node.name}")

        call_all(self.receivers(), put)

    def removal(self) -> str:
        """
        Write what takes the rules out.

        :returns: Text for ``sh``.
        """
        # Of rules that nobody noted it is not known which packets they are for.
        families = (self.family,) if self.is_noted else ("inet", "ip")
        return "".join(f"nft delete table {each} {self.table} 2>/dev/null;" for each in families)

    def unmake(self) -> None:
        """Take the rules out, and look whether they are."""

        def take(node: Node) -> None:
            script = (
                f"{self.removal()}"
                f" if nft list tables | grep -qw {self.table};"
                f" then echo the rules are still there; exit 1; fi\n{_records.erasing(self)}"
            )
            try:
                in_owner(node, script, f"heal node {node.name}")
            except NotFound:
                # Its network has gone, and the rules with it.
                return

        call_all(self.receivers(), take)

    def dropped(self) -> dict[str, int]:
        """
        Count the packets it has dropped.

        :returns: How many, by the name of the node that did not get them.
        """

        def count(node: Node) -> int:
            listed = in_owner(
                node,
                f"nft list table {self.family} {self.table}",
                f"read the rules of node {node.name}",
            )
            return sum(
                int(line.split("packets ")[1].split()[0])
                for line in listed.splitlines()
                if "packets " in line
            )

        return call_all(self.receivers(), count)


class DuplicateFault(PacketFault):
    """
    Packets from some nodes to others arrive twice, all or some of them.

    The copy comes in over the loopback interface, after the rules that drop packets have let
    the first one pass.
    """

    family = "ip"

    def rules(self, receiver: str) -> str:
        """
        Write the rules for one node.

        :param receiver: Its name.
        :returns: A file for ``nft -f``.
        """
        addresses = ", ".join(self.senders[receiver])
        words = f"{self.chance} counter dup to {self.cluster[receiver].ip}"
        return (
            f"table ip {self.table} {{\n"
            f"  chain arriving {{\n"
            f"    type filter hook input priority 100; policy accept;\n"
            f'    iif "lo" accept\n'
            f"    ip saddr {{ {addresses} }} {words}\n"
            f"  }}\n"
            f"}}\n"
        )


def in_owner(node: Node, script: str, what: str) -> str:
    """
    Run a script in the owner of a node.

    :param node: The node.
    :param script: Text for ``sh``.
    :param what: What it is for, to complete "could not ...".
    :returns: What it printed.
    :raises NotFound: The owner has gone.
    :raises RedockError: It failed.
    """
    try:
        return node.shell.check(script, what)
    except RedockError as error:
        if not node.has_network():
            raise NotFound(f"could not {what}: its network has gone", 404) from error
        raise


def pairs_between(senders: Sequence[Node], receivers: Sequence[Node]) -> list[tuple[Node, Node]]:
    """
    Pair nodes, one way.

    :param senders: Who sends.
    :param receivers: Who does not receive.
    :returns: All pairs of different nodes.
    """
    return [
        (sender, receiver) for receiver in receivers for sender in senders if sender is not receiver
    ]


def pairs_around(nodes: Sequence[Node], everybody: Sequence[Node]) -> list[tuple[Node, Node]]:
    """
    Pair nodes with all others, both ways.

    :param nodes: The nodes.
    :param everybody: All nodes.
    :returns: All pairs of different nodes of which at least one is among the nodes.
    """
    return [
        (sender, receiver)
        for sender, receiver in pairs_between(everybody, everybody)
        if sender in nodes or receiver in nodes
    ]


def rule_for(port: int | None, proto: str | None) -> str:
    """
    Write which packets are meant.

    :param port: The port they are sent to, None for all.
    :param proto: ``tcp``, ``udp`` or ``icmp``, None for all (with a port: TCP).
    :returns: Words for nft.
    :raises InvalidArgument: There are no such packets.
    """
    if proto not in (None, "tcp", "udp", "icmp"):
        raise InvalidArgument(f"drop: the protocol {proto!r} is neither tcp, udp nor icmp")
    if port is None:
        return f"meta l4proto {proto}" if proto else ""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise InvalidArgument(f"drop: {port!r} is no port")
    if proto == "icmp":
        raise InvalidArgument("drop: icmp has no ports")
    return f"{proto or 'tcp'} dport {port}"


def chance_of(percent: float) -> str:
    """
    Write which packets are meant by chance.

    :param percent: How many of a hundred.
    :returns: Words for nft; none for all of them, which it would refuse to compare with.
    """
    number = max(1, round(percent * 1000))
    return f"numgen random mod 100000 < {number}" if number < 100_000 else ""
