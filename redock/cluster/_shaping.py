"""
Queueing disciplines of a node: rates, and where the kernel has netem also delays.

What a node sends to another goes through a class of its own, below one root
with a handle that nothing else uses; all other packets pass by. The whole tree
is made anew from what is to hold whenever that changes, with one program, so
that it is never half of it. A root that somebody else put there stays.

A rate is kept where packets are sent, in both directions at the sender's end.
Keeping it where they arrive, through an intermediate device (ifb), is as exact
(9.57 against 9.55 of 10 Mbit/s) but is seen inside the node as one more network
interface, and loses packets where a slow line would only make the sender wait.
The rate is that of a token bucket below the class: the class itself lets the
packets of 64 kB pass that virtual interfaces have, with silence behind them
(1.5 seconds at 100 kbit/s); the bucket cuts them up.

See tc-htb(8), tc-tbf(8), tc-netem(8).
"""

from __future__ import annotations

import re

from redock.cluster._netfault import in_owner
from redock.errors import FaultUnsupported, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from redock.cluster._effect import Effect
    from redock.cluster._node import Node

__all__ = ["HANDLE", "shape", "write_tree"]

#: The major number of the root.
HANDLE = 0x7D0C
#: The interface of a node; its owner is in one network only.
DEVICE = "eth0"
#: What a class that only sorts packets lets through.
UNLIMITED = "100gbit"
#: The largest packet of Ethernet.
PACKET = 1514
#: Seconds of a rate that may pass at once, and that may wait.
BURST, PATIENCE = 0.004, 0.4
#: Packets that may be held.
MOST_PACKETS = 200_000
#: What is printed instead of the result where somebody else has put a root.
FOREIGN = "foreign: "

QDISC = re.compile(r"^qdisc (\w+) ([0-9a-f]+):", re.MULTILINE)


def leaves(effect: Effect) -> list[str]:
    """
    Write the disciplines for one receiver, from the class on.

    :param effect: What is to happen to its packets.
    :returns: Words for tc, one text each.
    """
    found = []
    delay = []
    if effect.delay or effect.jitter:
        delay = [f"delay {effect.delay * 1e6:.0f}us {effect.jitter * 1e6:.0f}us"]
    if effect.corrupt:
        delay.append(f"corrupt {effect.corrupt * 100:.6f}%")
    if delay:
        found.append(f"netem limit {MOST_PACKETS} {' '.join(delay)}")
    if effect.reorder:
        # netem's words are the other way round: all others are not held.
        found.append(
            f"netem limit {MOST_PACKETS} delay {effect.gap * 1e6:.0f}us"
            f" reorder {100 - effect.reorder * 100:.6f}%"
        )
    if effect.rate is not None:
        burst = max(PACKET + 86, round(effect.rate / 8 * BURST))
        limit = burst + max(10 * PACKET, round(effect.rate / 8 * PATIENCE))
        found.append(f"tbf rate {effect.rate}bit burst {burst} limit {limit}")
    return found


def write_tree(
    wanted: Mapping[str, Effect], device: str = DEVICE
) -> tuple[list[str], dict[int, str]]:
    """
    Write the whole tree of a node.

    :param wanted: What is to happen to packets, by the address of the receiver.
    :param device: The network interface (default: that of a node).
    :returns: Commands for ``tc -batch``, and the kind of each discipline by its handle.
    """
    lines = [f"qdisc add dev {device} root handle {HANDLE:x}: htb default 0"]
    kinds = {HANDLE: "htb"}
    for number, (address, effect) in enumerate(sorted(wanted.items()), 1):
        parent = f"{HANDLE:x}:{number:x}"
        lines.append(
            f"class add dev {device} parent {HANDLE:x}: classid {parent}"
            f" htb rate {UNLIMITED} quantum 60000"
        )
        for leaf in leaves(effect):
            handle = max(kinds) + 1
            lines.append(f"qdisc add dev {device} parent {parent} handle {handle:x}: {leaf}")
            kinds[handle] = leaf.partition(" ")[0]
            parent = f"{handle:x}:1"
        lines.append(
            f"filter add dev {device} parent {HANDLE:x}: protocol ip prio 1"
            f" u32 match ip dst {address}/32 flowid {HANDLE:x}:{number:x}"
        )
    return lines, kinds


def shape(node: Node, wanted: Mapping[str, Effect], what: str) -> None:
    """
    Put a tree in place, and look whether it is.

    :param node: The node that sends.
    :param wanted: What is to happen to packets, by the address of the receiver; nothing takes the
                   tree away.
    :param what: What it is for, to complete "could not ...".
    :raises NotFound: The owner of the node has gone.
    :raises FaultUnsupported: Somebody else put queueing disciplines there.
    :raises RedockError: It failed.
    """
    lines, kinds = write_tree(wanted) if wanted else ([], {})
    batch = "\n".join(lines)
    script = (
        f"root=$(tc qdisc show dev {DEVICE} root) || exit\n"
        f"case $root in\n"
        f"'qdisc htb {HANDLE:x}: '*) old='qdisc del dev {DEVICE} root' ;;\n"
        f"''|qdisc\\ *\\ 0:\\ *) old= ;;\n"
        f"*) echo '{FOREIGN}'\"$root\"; exit 0 ;;\n"
        f"esac\n"
        f"tc -batch - <<TREE\n$old\n{batch}\nqdisc show dev {DEVICE}\nTREE"
    )
    listed = in_owner(node, script, what)
    if listed.startswith(FOREIGN):
        raise FaultUnsupported(
            f"could not {what}: somebody else has put a queueing discipline on its interface"
            f" ({' '.join(listed.removeprefix(FOREIGN).split())}), which is left alone"
        )
    found = {int(handle, 16): kind for kind, handle in QDISC.findall(listed) if handle != "0"}
    if found != kinds:
        raise RedockError(f"could not {what}: its queueing disciplines are {found}, not {kinds}")
