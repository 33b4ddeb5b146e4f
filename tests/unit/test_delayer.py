"""What holds packets back inside a node, without a kernel: order, time, verdicts, obedience."""

from __future__ import annotations

import ast
import json
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock.cluster import _delayer, _probe
from redock.cluster._delayer import BATCH, HEADER, VERDICT, Delayer, Queue


def ident(number: int) -> bytes:
    """The id of a packet."""
    return struct.pack(">I", number)


def verdicts(messages: list[bytes]) -> list[tuple[int, int]]:
    """Kind and packet of each verdict."""
    return [
        (HEADER.unpack_from(each)[1], struct.unpack_from(">I", each, HEADER.size + 8)[0])
        for each in messages
    ]


@pytest.mark.parametrize("module", [_delayer, _probe])
def test_it_runs_on_old_pythons_and_imports_nothing_of_redock(module: object) -> None:
    text = Path(str(module.__file__)).read_text()  # type: ignore[attr-defined]
    tree = ast.parse(text, feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(alias.name in sys.stdlib_module_names for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in sys.stdlib_module_names
        # What came after 3.8.
        assert not isinstance(node, ast.Match | ast.TryStar)
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("removeprefix", "removesuffix")
    # An argument of a program has at most 128 kB.
    assert len(text.encode()) < 60_000


def test_packets_are_held_for_their_time_and_go_on_together() -> None:
    queue = Queue(7)
    queue.set({"delay": 0.1})
    for number in range(3):
        queue.take(ident(number), b"", 1.0 + number / 100)
    assert queue.release(1.09) == []
    assert queue.next() == pytest.approx(1.1)
    # One verdict for all up to it.
    assert verdicts(queue.release(1.115)) == [(BATCH, 1)]
    assert verdicts(queue.release(2)) == [(BATCH, 2)]
    assert queue.next() is None
    assert queue.packets == 3


@given(st.lists(st.floats(0, 0.01), min_size=1, max_size=50))
def test_jitter_keeps_the_order_and_its_bounds(pauses: list[float]) -> None:
    queue = Queue(7)
    queue.set({"delay": 0.05, "jitter": 0.02})
    now = 0.0
    arrived = []
    for number, pause in enumerate(pauses):
        now += pause
        arrived.append(now)
        queue.take(ident(number), b"", now)
    due = [moment for moment, _, _ in queue.line]
    assert due == sorted(due)
    assert all(moment >= when + 0.0299 for moment, when in zip(due, arrived, strict=True))
    assert max(due) <= now + 0.0701


def test_a_shorter_delay_does_not_make_packets_overtake() -> None:
    queue = Queue(7)
    queue.set({"delay": 1.0})
    queue.take(ident(1), b"", 0.0)
    queue.set({"delay": 0.0})
    queue.take(ident(2), b"", 0.1)
    assert queue.release(0.5) == []
    assert verdicts(queue.release(1.0)) == [(BATCH, 2)]


def test_those_that_stand_aside_are_not_freed_with_the_others() -> None:
    queue = Queue(7)
    queue.set({"reorder": 1.0, "gap": 0.5})
    queue.take(ident(1), b"", 0.0)
    queue.set({"reorder": 0.0})
    for number in (2, 3):
        queue.take(ident(number), b"", 0.0)
    # Packet 1 has the lowest number: a verdict for all up to 3 would free it.
    assert verdicts(queue.release(0.1)) == [(VERDICT, 2), (VERDICT, 3)]
    assert verdicts(queue.release(0.5)) == [(VERDICT, 1)]


def packet(payload: bytes) -> bytes:
    """What the kernel tells about a packet, with its contents."""
    head = _delayer.attribute(1, ident(5) + b"\x08\0\0\0")
    return _delayer.message(_delayer.PACKET, 7, head + _delayer.attribute(10, payload))


@given(st.binary(min_size=21, max_size=200))
def test_one_bit_behind_the_header_is_changed(payload: bytes) -> None:
    changed = _delayer.corrupted(packet(payload))
    size, kind = struct.unpack_from("=HH", changed)
    assert (kind, size) == (10, len(payload) + 4)
    after = changed[4:size]
    assert after[:20] == payload[:20]
    bits = [bin(a ^ b).count("1") for a, b in zip(payload, after, strict=True)]
    assert sum(bits) == 1


def test_a_packet_that_is_all_header_stays_as_it_is() -> None:
    assert _delayer.corrupted(packet(bytes(20))) == b""
    queue = Queue(7)
    queue.set({"corrupt": 1.0})
    queue.take(ident(5), packet(bytes(20)), 0.0)
    assert verdicts(queue.release(0.0)) == [(BATCH, 5)]


class Kernel:
    """The other end of the socket: acknowledges what it is told."""

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.answers: list[bytes] = []
        self.error = 0

    def send(self, data: bytes) -> None:
        """Take a message and answer it."""
        self.told.append(data)
        _, _, flags, number = struct.unpack_from("=IHHI", data)
        if flags & 4:
            # A packet comes before the answer.
            self.answers.append(packet(bytes(30)))
            self.answers.append(struct.pack("=IHHIIi", 36, 2, 0, number, 0, -self.error))

    def recv(self, _: int) -> bytes:
        """Give the next answer."""
        return self.answers.pop(0)

    def settimeout(self, _: float) -> None:
        """Have no timeout."""


@pytest.fixture
def delayer() -> Delayer:
    """A delayer with a kernel that is not one."""
    made = Delayer.__new__(Delayer)
    made.queues, made.number = {}, 0
    made.socket = Kernel()  # type: ignore[assignment]
    return made


def obey(delayer: Delayer, queues: object) -> dict[str, object]:
    """Send a line and get the answer."""
    return delayer.obey(json.dumps({"queues": queues}).encode())


def test_the_queues_are_those_of_the_last_line(delayer: Delayer) -> None:
    # A packet is met with every answer: once there is a queue for it, it is taken.
    assert obey(delayer, {"7": {"delay": 1}, "8": {}}) == {"queues": {7: 3, 8: 0}}
    assert obey(delayer, {"7": {"delay": 2}}) == {"queues": {7: 5}}
    assert delayer.queues[7].delay == 2
    assert len(delayer.queues[7].line) == 5
    kernel = delayer.socket
    assert isinstance(kernel, Kernel)
    kernel.told.clear()
    assert obey(delayer, {}) == {"queues": {}}
    # What is held goes on before the queue is given back: the kernel would drop it.
    assert verdicts(kernel.told[:1]) == [(BATCH, 5)]
    assert HEADER.unpack_from(kernel.told[1])[1] == _delayer.CONFIG


def test_a_line_that_cannot_be_obeyed_is_answered(delayer: Delayer) -> None:
    for line in (b"", b"{", b"[]", b"{}", b'{"queues": 1}', b'{"queues": {"x": {}}}'):
        assert "error" in delayer.obey(line)
    kernel = delayer.socket
    assert isinstance(kernel, Kernel)
    kernel.error = 1
    assert obey(delayer, {"7": {}}) == {"error": "[Errno 1] Operation not permitted"}
    assert delayer.queues == {}


def test_many_verdicts_are_sent_in_pieces(delayer: Delayer) -> None:
    delayer.send([bytes(40_000)] * 5)
    kernel = delayer.socket
    assert isinstance(kernel, Kernel)
    assert [len(data) for data in kernel.told] == [80_000, 80_000, 40_000]
