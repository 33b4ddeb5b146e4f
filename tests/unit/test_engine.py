"""Talking to an engine: HTTP over a socket, where it is, what its errors mean."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker.errors
import pytest
import requests.exceptions

from redock import _engine, _http
from redock._endpoint import Endpoint, check_local, find_endpoint
from redock._engine import Engine, demultiplex, printable
from redock.errors import DockerUnavailable, EngineError, NotFound, RedockError

pytestmark = pytest.mark.usefixtures("default_home")

Answer = bytes | Callable[[socket.socket], None]


class Server:
    """An engine that says what the test wants it to say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Answer = b""
        self.requests: list[bytes] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Answer one connection after the other."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(65536))
                if callable(self.answer):
                    self.answer(connection)
                else:
                    connection.sendall(self.answer)

    @property
    def engine(self) -> Engine:
        """An engine that asks here."""
        return Engine(Endpoint(f"unix://{self.path}", "default"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "socket")
    yield made
    made.listener.close()


def reply(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """Compose an answer with a length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(head).encode() + body


def test_an_answer_with_a_length(server: Server) -> None:
    server.answer = reply(b'{"Id": "x"}')
    assert server.engine.create_container("a name", {"Image": "i"}) == "x"
    assert server.requests[0].startswith(b"POST /containers/create?name=a+name HTTP/1.1\r\n")
    assert server.requests[0].endswith(b'\r\n\r\n{"Image": "i"}')


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_an_answer_in_chunks(server: Server, size: int) -> None:
    body = json.dumps({"Version": "x" * 3000}).encode()
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunked = b"".join(b"%x;e=1\r\n%s\r\n" % (len(each), each) for each in pieces)
    server.answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n"
    )
    assert server.engine.version() == {"Version": "x" * 3000}


def test_an_answer_without_a_body(server: Server) -> None:
    server.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    assert server.engine.begin_start("x").result() is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"x" * 100_000,
    ],
)
def test_answers_that_are_none(server: Server, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(RedockError) as caught:
        server.engine.version()
    assert len(str(caught.value).splitlines()) == 1


def test_a_hung_engine_is_not_waited_for(server: Server) -> None:
    server.answer = lambda connection: time.sleep(5)
    with pytest.raises(EngineError, match="did not answer in time"):
        server.engine.request("GET", "/x", "do it", timeout=0.2)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [("404 Not Found", NotFound, 4), ("409 Conflict", EngineError, 1), ("500 Oh", EngineError, 1)],
)
def test_refusals(server: Server, status: str, kind: type[EngineError], code: int) -> None:
    server.answer = reply(b'{"message": "because\\nof that"}', status)
    with pytest.raises(kind, match=r"the engine could not .*: because of that") as caught:
        server.engine.create_container("x", {})
    assert caught.value.exit_code == code
    assert caught.value.status == int(status[:3])


def test_removing_what_is_not_there_is_fine(server: Server) -> None:
    server.answer = reply(b'{"message": "No such thing"}', "404 Not Found")
    server.engine.remove_container("x")
    server.engine.remove_volume("x")
    assert not server.engine.remove_image("x")
    assert server.engine.inspect_image("x") is None


def test_a_stream(server: Server) -> None:
    got = []

    def converse(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\nearly")
        while data := connection.recv(100):
            got.append(data)
        connection.sendall(b" late")

    server.answer = converse
    stream = server.engine.attach("x", "stdin")
    stream.send(b"hello")
    assert b"".join(stream) == b"early late"
    stream.close()
    assert b"".join(got) == b"hello"


def test_no_engine_at_all(tmp_path: Path) -> None:
    with pytest.raises(DockerUnavailable, match="redock doctor"):
        Engine(Endpoint(f"unix://{tmp_path}/none", "default")).version()


def test_a_socket_nobody_listens_on(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "stale"))
    stale.close()
    with pytest.raises(DockerUnavailable, match="nobody listens"):
        Engine(Endpoint(f"unix://{tmp_path}/stale", "default")).version()


def test_an_engine_one_may_not_use() -> None:
    engine = Engine(Endpoint("unix:///x", "default"))
    message = str(engine.connection_error(PermissionError(13, "no"), "do it"))
    assert "usermod -aG docker" in message


# Where it is.


@pytest.fixture
def docker_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    (home / ".docker").mkdir()
    return home / ".docker"


def test_the_environment_comes_first(docker_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///a")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert find_endpoint().socket_path == "/a"


def test_contexts(docker_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (docker_home / "config.json").write_text('{"currentContext": "mine"}')
    meta = docker_home / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest()
    meta.mkdir(parents=True)
    described = {"Name": "mine", "Endpoints": {"docker": {"Host": "unix:///b"}}}
    (meta / "meta.json").write_text(json.dumps(described))
    assert find_endpoint().socket_path == "/b"
    monkeypatch.setenv("DOCKER_CONTEXT", "missing")
    with pytest.raises(DockerUnavailable, match=r"missing.*docker context ls"):
        find_endpoint()
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert find_endpoint().source in ("default", "the rootless socket")


def test_a_rootless_engine_is_found(
    docker_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redock._endpoint.DEFAULT_SOCKET", "/nonexistent/docker.sock")
    (tmp_path / "docker.sock").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert find_endpoint().socket_path == f"{tmp_path}/docker.sock"


@pytest.mark.parametrize(
    "url",
    ["tcp://192.0.2.1:2375", "ssh://me@host", "https://example.com", "unix://", "nonsense://x"],
)
def test_engines_that_cannot_be_used(url: str) -> None:
    with pytest.raises(DockerUnavailable) as caught:
        check_local(Endpoint(url, "DOCKER_HOST"))
    assert "DOCKER_HOST" in str(caught.value)


@pytest.mark.parametrize("url", ["unix:///x", "tcp://127.0.0.1:2375", "http://localhost:1"])
def test_engines_that_can(url: str) -> None:
    check_local(Endpoint(url, "DOCKER_HOST"))


def test_an_engine_behind_the_sdk(tmp_path: Path) -> None:
    client = docker.APIClient(f"unix://{tmp_path}/x", version="1.41")
    engine = Engine.of(client)
    assert engine.endpoint.socket_path == f"{tmp_path}/x"
    assert engine.client is client
    assert Engine.of(engine) is engine
    client.close()


def test_every_error_of_the_sdk_is_known() -> None:
    known = _engine.failures()
    for module in (docker.errors, requests.exceptions):
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, Exception):
                builtin = each.__module__ == "builtins"
                assert builtin or issubclass(each, (*known, Warning, ValueError, OSError)), each


def test_errors_of_the_sdks_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(Endpoint("tcp://127.0.0.1:9", "DOCKER_HOST"))
    with pytest.raises(DockerUnavailable):
        engine.version()


# What containers print.


def test_output_is_taken_apart() -> None:
    packed = b"".join(
        bytes([kind, 0, 0, 0]) + len(text).to_bytes(4, "big") + text
        for kind, text in ((1, b"out\n"), (2, b"err\n"))
    )
    assert b"".join(demultiplex(packed)) == b"out\nerr\n"
    assert b"".join(demultiplex(b"plain text of a terminal")) == b"plain text of a terminal"


def test_nothing_steers_the_terminal() -> None:
    nasty = "\x1b]52;c;aGk=\x07\x1b[2J\x00a\tb\u202e\x9b1m\x7f\n"
    assert printable(nasty) == "]52;c;aGk=[2Ja\tb1m\n"


def test_a_request_shows_no_secret_in_its_errors(server: Server) -> None:
    server.answer = reply(b"not json", "500 Oh")
    with pytest.raises(EngineError, match="not json"):
        server.engine.containers({})
    assert isinstance(_http.ProtocolError("x"), OSError)
