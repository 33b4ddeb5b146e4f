"""HTTP over a local socket: every kind of answer, and everything that is none."""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redock._http import LONGEST_HEAD, Refused, Request, Stream, quote, urlencode
from redock._process import Deadline
from tests.unit.conftest import PATIENCE, Server, reply, silence

Serve = Callable[[Callable[[socket.socket, bytes], None]], Server]


def ask(server: Server, **options: float) -> Request:
    return Request(str(server.path), "GET", "/x", timeout=options.get("timeout", PATIENCE))


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more", 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", 404, b"{}"),
        (b"HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", 500, b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
            b"5\r\nhello\r\n1;x=y\r\n,\r\nA\r\n 012345678\r\n0\r\n\r\n",
            200,
            b"hello, 012345678",
        ),
    ],
)
def test_an_answer_is_read_as_it_was_meant(
    answer: bytes, status: int, body: bytes, serve: Serve
) -> None:
    response = ask(serve(reply(answer))).response()
    assert (response.status, response.body) == (status, body)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_an_answer_in_small_pieces_is_put_together(size: int, serve: Serve) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n you\r\n0\r\n\r\n"
    )

    def dribble(connection: socket.socket, request: bytes) -> None:
        for start in range(0, len(answer), size):
            connection.sendall(answer[start : start + size])
            time.sleep(0.0005)
        connection.close()

    assert ask(serve(dribble)).response().body == b"hello you"


def test_a_request_says_what_it_carries(serve: Serve) -> None:
    server = serve(reply(b"HTTP/1.1 204 No Content\r\n\r\n"))
    Request(str(server.path), "PUT", "/x?y=z", b"tar", "application/x-tar", PATIENCE).response()
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /x?y=z HTTP/1.1\r\nHost: ")
    assert b"Content-Length: 3" in head
    assert b"Content-Type: application/x-tar" in head
    assert b"Connection: close" in head
    assert body == b"tar"


def dechunk(body: bytes) -> bytes:
    """Read a chunked body."""
    data = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        if not count:
            assert body == b"\r\n"
            return data
        data, body = data + body[:count], body[count + 2 :]


def test_what_comes_in_pieces_is_sent_in_pieces(serve: Serve) -> None:
    bodies: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        body = request.partition(b"\r\n\r\n")[2]
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += connection.recv(65536)
        bodies.append(body)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = serve(answer)
    pieces = iter([b"one", b"", b"x" * 100_000, b"three"])
    request = Request(str(server.path), "PUT", "/x", pieces, "application/x-tar", PATIENCE)
    assert request.response().status == 200
    assert b"Transfer-Encoding: chunked" in server.requests[0]
    assert b"Content-Length" not in server.requests[0].partition(b"\r\n\r\n")[0]
    assert dechunk(bodies[0]) == b"one" + b"x" * 100_000 + b"three"


def test_an_engine_that_wants_no_more_says_why(serve: Serve) -> None:
    server = serve(reply(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\ndisk full"))
    closed: list[bool] = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.append(True)

    request = Request(str(server.path), "PUT", "/x", endless(), "application/x-tar", PATIENCE)
    answer = request.response()
    assert (answer.status, answer.body) == (500, b"disk full")
    assert closed == [True]


def test_what_cannot_be_sent_ends_the_request(serve: Serve) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise ValueError("cannot read on")

    server = serve(silence)
    with pytest.raises(ValueError, match="cannot read on"):
        Request(str(server.path), "PUT", "/x", broken(), timeout=PATIENCE)


def test_an_answer_to_head_has_no_body(serve: Serve) -> None:
    server = serve(reply(b"HTTP/1.1 404 No\r\nContent-Length: 100\r\nX: y\r\n\r\n"))
    answer = Request(str(server.path), "HEAD", "/x", timeout=PATIENCE).response()
    assert (answer.status, answer.headers["x"], answer.body) == (404, "y", b"")


@given(
    pieces=st.lists(st.tuples(st.integers(1, 2), st.binary(max_size=50)), max_size=5),
    cut=st.integers(1, 9),
)
def test_what_a_command_prints_is_taken_apart(pieces: list[tuple[int, bytes]], cut: int) -> None:
    raw = b"".join(
        bytes([number, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for number, data in pieces
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours, raw[:cut])
        theirs.sendall(raw[cut:])
        theirs.shutdown(socket.SHUT_WR)
        assert [stream.frame(Deadline(PATIENCE)) for _ in pieces] == pieces
        with pytest.raises(EOFError):
            stream.frame(Deadline(PATIENCE))


def test_a_command_that_prints_nothing_is_not_waited_for_longer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        Stream(ours).frame(Deadline(0.05))


NO_ANSWERS = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    "a chunk cut off": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello",
    "chunks without end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a senseless chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello",
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello",
    "a senseless length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nhello",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
    "a length without end": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a senseless status": b"HTTP/1.1 two hundred\r\n\r\n",
    "a superscript status": b"HTTP/1.1 \xb2 OK\r\n\r\n",
    "an SSH server": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (LONGEST_HEAD // 5),
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_what_is_no_answer_is_an_error_of_the_connection(answer: bytes, serve: Serve) -> None:
    with pytest.raises(OSError) as caught:
        ask(serve(reply(answer))).response()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_silence_ends_with_the_patience(serve: Serve) -> None:
    request = ask(serve(silence), timeout=0.05)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        request.response()
    assert time.monotonic() - started < 10


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    answer=st.one_of(
        st.binary(max_size=100),
        st.lists(
            st.sampled_from(
                b"HTTP/1.1 200 OK|\r\n|\r\n\r\n|Content-Length: |3|abc|0|"
                b"Transfer-Encoding: chunked|\xb2|:| |-|_|1_0".split(b"|")
            ),
            max_size=12,
        ).map(b"".join),
    )
)
@example(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789")
def test_any_bytes_are_an_answer_or_an_error_of_the_connection(answer: bytes) -> None:
    ours, theirs = socket.socketpair()
    request = Request.__new__(Request)
    request.socket, request.buffer, request.method = ours, b"", "GET"
    ours.settimeout(PATIENCE)
    theirs.sendall(answer)
    theirs.close()
    with contextlib.suppress(OSError):
        assert request.response().status >= 0
    assert ours.fileno() == -1, "the connection is closed"


def test_a_stream_begins_with_what_came_with_the_head(serve: Serve) -> None:
    def upgrade(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\nfirst")
        received = b""
        while more := connection.recv(100):
            received += more
        connection.sendall(b" " + received)
        connection.close()

    server = serve(upgrade)
    stream = Request(str(server.path), "POST", "/attach", timeout=PATIENCE, upgrade=True).hijack()
    stream.send(b"sent")
    assert b"".join(stream) == b"first sent"
    stream.close()
    assert b"Upgrade: tcp" in server.requests[0]


def test_a_refused_stream_is_an_error(serve: Serve) -> None:
    server = serve(reply(b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nbusy"))
    request = Request(str(server.path), "POST", "/attach", timeout=PATIENCE, upgrade=True)
    with pytest.raises(Refused, match="409") as caught:
        request.hijack()
    assert (caught.value.response.status, caught.value.response.body) == (409, b"busy")
    assert request.socket.fileno() == -1


@given(st.text())
def test_paths_are_written_as_the_standard_library_writes_them(text: str) -> None:
    assert quote(text) == urllib.parse.quote(text)


@given(st.dictionaries(st.sampled_from(["a", "filters"]), st.text() | st.integers()))
def test_queries_are_written_as_the_standard_library_writes_them(query: dict[str, object]) -> None:
    assert urlencode(query) == urllib.parse.urlencode(query)
