"""
Holds packets back: latency, reordering and corruption where the kernel has no netem.

It is sent as text to the owner of a node, and runs there on Python 3.8 or
later: it imports nothing of redock. Rules of iptables hand packets to queues
of the kernel (``NFQUEUE --queue-bypass`` in the table raw, PREROUTING); this
process is told of each and says when, and how, it may go on. When it ends,
however that happens, the kernel passes the packets on as if there were no rule.

Every line of standard input is a JSON object with all queues there are to be,
``{"queues": {"7": {"delay": 0.1, "jitter": 0.01}}}``: delay and jitter and gap
in seconds; reorder and corrupt as a probability. One line answers it, and the
end of standard input ends the process.

Formats: linux/netlink.h, linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import collections
import gc
import heapq
import json
import os
import select
import socket
import struct
import time
from _random import Random  # the module around it takes as long to load as all the rest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Delayer", "Queue", "main"]

NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
#: struct nlmsghdr and struct nfgenmsg.
HEADER = struct.Struct("=IHHIIBBH")
REQUEST, REQUEST_ACK = 1, 1 | 4
#: Messages of the subsystem for queues.
PACKET, VERDICT, CONFIG, BATCH = (3 << 8 | number for number in range(4))
ACCEPT = 1
#: Attributes of packets, verdicts and settings.
VERDICT_HEADER, PAYLOAD = 2, 10
COMMAND, PARAMETERS, LONGEST, MASK, FLAGS = 1, 2, 3, 4, 5
BIND, UNBIND = 1, 2
#: Whether packets go on when there are too many, and arrive as large as they are.
FAIL_OPEN, GSO = 1, 4
COPY_META, COPY_PACKET = 1, 2
SO_RCVBUFFORCE = 33
SOL_NETLINK, NETLINK_NO_ENOBUFS = 270, 5
#: Packets a queue can hold, and bytes of them that may wait for us.
MOST_PACKETS = 200000
BUFFER = 32 << 20
#: Verdicts are sent in pieces well below the size of a send buffer.
MOST_VERDICTS = 60000
#: What is never changed: the header of IP, without which a packet is nobody's.
IP_HEADER = 20

chance = Random()


def attribute(kind: int, data: bytes) -> bytes:
    """Make an attribute of netlink, padded to four bytes."""
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def message(kind: int, queue: int, body: bytes, flags: int = REQUEST, number: int = 0) -> bytes:
    """Make a message about a queue."""
    size = HEADER.size + len(body)
    return HEADER.pack(size, kind, flags, number, 0, 0, 0, socket.htons(queue)) + body


def corrupted(data: bytes) -> bytes:
    """Change one bit of a packet behind the header of IP; get the attribute that replaces it."""
    offset = HEADER.size
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if kind == PAYLOAD:
            payload = bytearray(data[offset + 4 : offset + size])
            if len(payload) <= IP_HEADER:
                break
            place = IP_HEADER + int(chance.random() * (len(payload) - IP_HEADER))
            payload[place] ^= 1 << int(chance.random() * 8)
            return attribute(PAYLOAD, bytes(payload))
        offset += (size + 3) & ~3
    return b""


class Queue:
    """What is held of the packets from one sender, and how."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: In the order they arrived: when each may go on, its id, what replaces its contents.
        self.line: collections.deque[tuple[float, bytes, bytes]] = collections.deque()
        #: Those that what follows overtakes, the first to go on in front.
        self.aside: list[tuple[float, bytes, bytes]] = []
        self.last = 0.0
        self.packets = 0
        self.set({})

    def set(self, wanted: dict[str, float]) -> None:
        """Hold what arrives from now on in this way."""
        self.delay = wanted.get("delay", 0.0)
        self.jitter = wanted.get("jitter", 0.0)
        self.reorder = wanted.get("reorder", 0.0)
        self.gap = wanted.get("gap", 0.0)
        self.corrupt = wanted.get("corrupt", 0.0)

    def take(self, ident: bytes, data: bytes, now: float) -> None:
        """Hold a packet."""
        self.packets += 1
        due = now + self.delay
        if self.jitter:
            due += (2 * chance.random() - 1) * self.jitter
        extra = b""
        if self.corrupt and chance.random() < self.corrupt:
            extra = corrupted(data)
        if self.reorder and chance.random() < self.reorder:
            heapq.heappush(self.aside, (due + self.gap, ident, extra))
        else:
            # Jitter alone keeps the order, as a cable does.
            self.last = due = max(due, self.last)
            self.line.append((due, ident, extra))

    def verdict(self, ident: bytes, extra: bytes = b"", kind: int = VERDICT) -> bytes:
        """Let one packet go on, or with BATCH all up to it."""
        body = attribute(VERDICT_HEADER, struct.pack(">I", ACCEPT) + ident) + extra
        return message(kind, self.number, body)

    def release(self, now: float) -> list[bytes]:
        """Let go what may go on."""
        out = []
        batch = None
        # A verdict about all up to one packet would let those go that stand aside.
        single = bool(self.aside or self.reorder)
        while self.line and self.line[0][0] <= now:
            _, ident, extra = self.line.popleft()
            if not extra and not single:
                batch = ident
                continue
            if batch is not None:
                out.append(self.verdict(batch, kind=BATCH))
                batch = None
            out.append(self.verdict(ident, extra))
        if batch is not None:
            out.append(self.verdict(batch, kind=BATCH))
        while self.aside and self.aside[0][0] <= now:
            _, ident, extra = heapq.heappop(self.aside)
            out.append(self.verdict(ident, extra))
        return out

    def next(self) -> float | None:
        """Tell when the next packet may go on."""
        heads = [held[0][0] for held in (self.line, self.aside) if held]
        return min(heads) if heads else None


class Delayer:
    """The queues of this network namespace, and the socket the kernel tells us about them."""

    def __init__(self) -> None:
        self.queues: dict[int, Queue] = {}
        self.number = 0
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except OSError:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)

    def configure(self, queue: int, *attributes: bytes) -> None:
        """Change a queue of the kernel; packets that are met meanwhile are taken."""
        self.number += 1
        self.socket.settimeout(5)
        body = b"".join(attributes)
        self.socket.send(message(CONFIG, queue, body, REQUEST_ACK, self.number))
        while True:
            data = self.socket.recv(1 << 17)
            _, kind, _, number = struct.unpack_from("=IHHI", data)
            if kind == NLMSG_ERROR and number == self.number:
                error = struct.unpack_from("=i", data, 16)[0]
                if error:
                    raise OSError(-error, os.strerror(-error))
                return
            self.take(data, time.monotonic())

    def bind(self, number: int) -> None:
        """Begin with a queue; EPERM means that another process has it."""
        self.configure(number, attribute(COMMAND, struct.pack(">BBH", BIND, 0, 0)))
        self.queues[number] = Queue(number)

    def unbind(self, number: int) -> None:
        """End a queue: what it holds goes on now, the kernel would drop it."""
        self.send(self.queues[number].release(float("inf")))
        self.configure(number, attribute(COMMAND, struct.pack(">BBH", UNBIND, 0, 0)))
        del self.queues[number]

    def set(self, number: int, wanted: dict[str, float]) -> None:
        """Hold the packets of a queue in some way."""
        if number not in self.queues:
            self.bind(number)
        # The contents are needed only by what changes them, and then with a checksum.
        whole = wanted.get("corrupt", 0) > 0
        copy = (0xFFFF, COPY_PACKET) if whole else (0, COPY_META)
        flags = FAIL_OPEN | (0 if whole else GSO)
        self.configure(
            number,
            attribute(PARAMETERS, struct.pack(">IB", *copy)),
            attribute(LONGEST, struct.pack(">I", MOST_PACKETS)),
            attribute(MASK, struct.pack(">I", FAIL_OPEN | GSO)),
            attribute(FLAGS, struct.pack(">I", flags)),
        )
        self.queues[number].set(wanted)

    def take(self, data: bytes, now: float) -> None:
        """Take what the kernel tells."""
        if struct.unpack_from("=H", data, 4)[0] != PACKET:
            return
        queue = self.queues.get(data[18] << 8 | data[19])
        if queue is not None:
            # The id of the packet always comes first.
            queue.take(data[24:28], data, now)

    def send(self, verdicts: list[bytes]) -> None:
        """Tell the kernel what may go on."""
        out, size = [], 0
        for verdict in verdicts:
            out.append(verdict)
            size += len(verdict)
            if size > MOST_VERDICTS:
                self.socket.send(b"".join(out))
                out, size = [], 0
        if out:
            self.socket.send(b"".join(out))

    def obey(self, line: bytes) -> dict[str, Any]:
        """Do what a line says; get the answer."""
        try:
            wanted = {int(name): queue for name, queue in json.loads(line)["queues"].items()}
            for number in set(self.queues) - set(wanted):
                self.unbind(number)
            for number, queue in wanted.items():
                self.set(number, queue)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return {"error": str(error) or repr(error)}
        finally:
            self.socket.settimeout(0)
        return {"queues": {number: queue.packets for number, queue in self.queues.items()}}

    def receive(self) -> None:
        """Take what has arrived, but not for so long that others wait."""
        now = time.monotonic()
        try:
            for _ in range(128):
                self.take(self.socket.recv(1 << 17), now)
        except (BlockingIOError, InterruptedError):
            return

    def run(self, control: int) -> None:
        """Work until the end of the input."""
        self.socket.settimeout(0)
        pending = b""
        while True:
            now = time.monotonic()
            for queue in self.queues.values():
                self.send(queue.release(now))
            heads = [queue.next() for queue in self.queues.values()]
            wake = min([head for head in heads if head is not None], default=None)
            timeout = None if wake is None else max(0.0, wake - time.monotonic())
            ready = select.select([self.socket.fileno(), control], [], [], timeout)[0]
            if self.socket.fileno() in ready:
                self.receive()
            if control in ready:
                arrived = os.read(control, 65536)
                if not arrived:
                    break
                *lines, pending = (pending + arrived).split(b"\n")
                for line in lines:
                    os.write(1, json.dumps(self.obey(line)).encode() + b"\n")
        for number in list(self.queues):
            self.unbind(number)


def main() -> None:
    """Work until the end of standard input."""
    # Nothing here refers to itself, and looking for what does takes time.
    gc.disable()
    Delayer().run(0)


if __name__ == "__main__":
    main()
