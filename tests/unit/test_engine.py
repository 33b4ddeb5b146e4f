"""The engine: what can be wrong with it, each in one line that says what to do."""

from __future__ import annotations

import gc
import inspect
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import docker.errors
import pytest
import requests.exceptions
import urllib3.exceptions
from hypothesis import given
from hypothesis import strategies as st

from redock import _containers, _http
from redock._containers import short
from redock._endpoint import Endpoint
from redock._engine import Engine, label
from redock._printed import demultiplex, printable
from redock._sdk import connect, failures
from redock.errors import DockerUnavailable, EngineError, NotFound, RedockError
from tests.unit.conftest import PATIENCE, Server, as_nobody, reply, silence

Serve = Callable[[Callable[[socket.socket, bytes], None]], Server]


def engine_at(path: Path | str) -> Engine:
    return Engine(Endpoint(f"unix://{path}", "DOCKER_HOST"))


def answer(status: int, body: object = None, raw: bytes | None = None) -> bytes:
    data = raw if raw is not None else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data)


def complaint(error: BaseException) -> str:
    assert isinstance(error, RedockError)
    text = str(error)
    assert "\n" not in text
    assert text.isprintable()
    return text


# No engine.


def test_a_missing_socket_is_an_absent_engine(sandbox: Path) -> None:
    with pytest.raises(DockerUnavailable, match=r"install an engine, or start") as caught:
        engine_at(sandbox / "none.sock").version()
    assert "redock doctor" in complaint(caught.value)
    assert str(sandbox / "none.sock") in str(caught.value)


def test_a_stale_socket_is_a_stopped_engine(sandbox: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(sandbox / "stale.sock"))
    listener.close()
    with pytest.raises(DockerUnavailable, match="start the engine"):
        engine_at(sandbox / "stale.sock").version()


def test_a_socket_of_another_group_is_a_matter_of_the_group(serve: Serve, sandbox: Path) -> None:
    server = serve(silence)

    def look() -> None:
        server.path.chmod(0)
        with pytest.raises(DockerUnavailable, match="usermod -aG docker"):
            engine_at(server.path).version()

    sandbox.chmod(0o755)
    as_nobody(sandbox, look)


def test_a_file_that_is_no_socket_is_no_engine(sandbox: Path) -> None:
    (sandbox / "file").touch()
    with pytest.raises(DockerUnavailable):
        engine_at(sandbox / "file").version()


def test_a_path_that_is_too_long_for_a_socket_is_one_line() -> None:
    with pytest.raises(DockerUnavailable, match="too long"):
        engine_at("/" + "x" * 200).version()


def test_silence_is_bounded_and_names_the_step(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_at(serve(silence).path)
    with pytest.raises(EngineError, match="did not answer in time to say hello"):
        engine.request("GET", "/x", "say hello", timeout=0.05)


@pytest.mark.parametrize(
    "data", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_what_is_no_engine_is_one_line(data: bytes, serve: Serve) -> None:
    with pytest.raises(DockerUnavailable) as caught:
        engine_at(serve(reply(data)).path).version()
    complaint(caught.value)


@pytest.mark.parametrize("body", [b"<html>login</html>", b"{", b"\xff", b"1 2"])
def test_an_answer_that_is_no_json_is_one_line(body: bytes, serve: Serve) -> None:
    with pytest.raises(EngineError, match="no Docker engine") as caught:
        engine_at(serve(reply(answer(200, raw=body))).path).version()
    complaint(caught.value)


# Refusals.


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, EngineError), (404, NotFound), (409, EngineError), (500, EngineError)],
)
def test_a_refusal_is_quoted_with_its_status(
    status: int, kind: type[EngineError], serve: Serve
) -> None:
    server = serve(reply(answer(status, {"message": "no\nsuch  thing"})))
    with pytest.raises(EngineError) as caught:
        engine_at(server.path).inspect_container("web")
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert complaint(caught.value) == (
        "the engine could not inspect the container web: no such thing"
    )


@pytest.mark.parametrize("body", [b"plain words", b"[]", b"{}", b'{"message": null}', b"\xff", b""])
def test_a_refusal_in_any_form_is_one_line(body: bytes, serve: Serve) -> None:
    server = serve(reply(answer(500, raw=body)))
    with pytest.raises(EngineError) as caught:
        engine_at(server.path).inspect_container("web")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_long_refusal_is_cut(serve: Serve) -> None:
    server = serve(reply(answer(500, {"message": "x" * 100_000})))
    with pytest.raises(EngineError) as caught:
        engine_at(server.path).version()
    assert len(str(caught.value)) < 700


# Requests.


@pytest.mark.parametrize("status", [204, 404, 409])
def test_removing_what_has_gone_is_fine(status: int, serve: Serve) -> None:
    engine = engine_at(serve(reply(answer(status, {"message": "gone"}))).path)
    engine.remove_container("web")


def test_a_removal_that_fails_is_an_error(serve: Serve) -> None:
    engine = engine_at(serve(reply(answer(500, {"message": "busy"}))).path)
    for remove in (engine.remove_container, engine.remove_volume, engine.remove_image):
        with pytest.raises(EngineError, match="busy"):
            remove("web")


def test_a_missing_image_is_none(serve: Serve) -> None:
    engine = engine_at(serve(reply(answer(404, {"message": "no such image"}))).path)
    assert engine.inspect_image("me:web") is None
    assert engine.remove_image("me:web") is False
    engine.remove_volume("x")


@pytest.mark.parametrize("body", [None, []])
def test_empty_lists_come_in_two_forms(body: object, serve: Serve) -> None:
    engine = engine_at(serve(reply(answer(200, body))).path)
    assert engine.containers({}) == []
    assert engine.images({}) == []
    if body is None:
        assert engine.volumes({}) == []


def test_names_are_quoted_in_addresses(serve: Serve) -> None:
    server = serve(reply(answer(200, {"Id": "x"})))
    engine = engine_at(server.path)
    engine.inspect_image("a/b:c?d#e f\r\nX: y")
    line = server.requests[0].split(b"\r\n")[0]
    assert line == b"GET /images/a/b%3Ac%3Fd%23e%20f%0D%0AX%3A%20y/json HTTP/1.1"


def test_a_commit_pauses_and_says_everything(serve: Serve) -> None:
    server = serve(reply(answer(201, {"Id": "sha256:1"})))
    engine = engine_at(server.path)
    changes = ["LABEL a=", "CMD x"]
    committed = engine.commit("web", "me", "web", message="a & b", author="é", changes=changes)
    assert committed == "sha256:1"
    line = server.requests[0].split(b"\r\n")[0].decode()
    for part in ("pause=1", "repo=me", "tag=web", "comment=a+%26+b", "author=%C3%A9", "LABEL+a%3D"):
        assert part in line


def test_a_log_without_a_container_is_empty(serve: Serve) -> None:
    assert engine_at(serve(reply(answer(404, {}))).path).logs("web") == ""


def test_a_log_is_safe_to_print(serve: Serve) -> None:
    text = b"\x1b]52;c;aGk=\x07a\x1b[31mb\0\xff\n"
    raw = b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text
    log = engine_at(serve(reply(answer(200, raw=raw))).path).logs("web")
    assert "\x1b" not in log
    assert "\0" not in log
    assert log.endswith("\n")


def test_a_refused_attachment_is_one_line(serve: Serve, sandbox: Path) -> None:
    for path in (serve(reply(answer(409, {}))).path, sandbox / "none.sock"):
        with pytest.raises(RedockError) as caught:
            engine_at(path).attach("web", "stdin")
        complaint(caught.value)


@pytest.mark.parametrize("status", [404, 409])
def test_a_refused_stream_says_what_the_engine_said(serve: Serve, status: int) -> None:
    engine = engine_at(serve(reply(answer(status, {"message": "web is paused"}))).path)
    with pytest.raises(EngineError, match=r"could not attach .*: web is paused$") as caught:
        engine.attach("web", "stdin")
    assert caught.value.status == status
    assert isinstance(caught.value, NotFound) == (status == 404)


def test_a_commit_does_without_pausing_where_that_cannot_be(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    cannot = {"message": "CommitFailure: can not pause containers on rootless containers"}

    def rootless(connection: socket.socket, request: bytes) -> None:
        refuse = b"pause=1" in request
        data = answer(500, cannot) if refuse else answer(201, {"Id": "sha256:1"})
        reply(data)(connection, request)

    server = serve(rootless)
    assert engine_at(server.path).commit("web", "me", "web") == "sha256:1"
    first, second = (request.split(b" ")[1] for request in server.requests)
    assert b"pause=1" in first
    assert second == first.replace(b"pause=1", b"pause=0")
    assert "cannot freeze" in caplog.text


def test_a_commit_that_fails_otherwise_is_not_repeated(serve: Serve) -> None:
    server = serve(reply(answer(500, {"message": "no space left"})))
    with pytest.raises(EngineError, match="no space left"):
        engine_at(server.path).commit("web", "me", "web")
    assert len(server.requests) == 1


def test_ids_are_shortened_in_messages() -> None:
    assert short("a" * 64) == "a" * 12
    assert short("redock-me..web") == "redock-me..web"


def test_labels_have_one_name_space() -> None:
    assert label("name") == "io.redock.name"


# The SDK.


#: Raised for proxies only, which a socket has not.
UNKNOWN = {"ProxySchemeUnsupported"}


def accepts_a_message(error: type[Exception]) -> bool:
    try:
        error("a message")
    except TypeError:
        return False
    return True


def errors_of(module: object) -> list[type[Exception]]:
    classes = [each for _, each in inspect.getmembers(module, inspect.isclass)]
    return [
        each
        for each in classes
        if issubclass(each, Exception)
        and not issubclass(each, Warning)
        and each.__name__ not in UNKNOWN
        and each.__module__.startswith(("docker", "requests", "urllib3"))
    ]


@pytest.mark.parametrize(
    "module", [docker.errors, requests.exceptions, urllib3.exceptions], ids=lambda m: m.__name__
)
def test_every_error_of_the_sdk_is_known(module: object) -> None:
    found = errors_of(module)
    assert len(found) > 10
    assert [each for each in found if not issubclass(each, failures())] == []


class Client:
    base_url = "http://localhost:2375"
    api_version = "1.41"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def request(self, *_: object, **__: object) -> None:
        raise self.error

    attach_socket = request


@pytest.mark.parametrize(
    "error",
    [
        error
        for module in (docker.errors, requests.exceptions, urllib3.exceptions)
        for error in errors_of(module)
        if accepts_a_message(error)
    ],
    ids=lambda error: f"{error.__module__}.{error.__name__}",
)
def test_no_error_of_the_sdk_escapes(error: type[Exception]) -> None:
    engine = Engine(Endpoint("tcp://localhost:2375", "DOCKER_HOST"))
    engine._client = Client(error("went\nwrong"))  # type: ignore[assignment]
    with pytest.raises(DockerUnavailable, match="failed") as caught:
        engine.version()
    assert caught.value.__cause__ is not None
    with pytest.raises(EngineError, match="attach"):
        engine.attach("web", "stdin")


def test_without_the_sdk_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(DockerUnavailable, match="pip install docker"):
        connect(Endpoint("tcp://localhost:1", "DOCKER_HOST"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_sdk_finds_no_engine_either(sandbox: Path) -> None:
    with pytest.raises(DockerUnavailable, match="no Docker engine answers"):
        connect(Endpoint(f"unix://{sandbox}/none.sock", "default"))
    # The SDK leaves an open socket behind.
    gc.collect()


def test_an_engine_is_made_of_a_connection_of_the_sdk(serve: Serve) -> None:
    server = serve(reply(answer(200, {"Version": "1"})))
    client = docker.APIClient(base_url=server.url, version="1.41", timeout=int(PATIENCE))
    try:
        engine = Engine.of(client)
        assert engine.client is client
        assert engine.endpoint.socket_path == str(server.path)
        assert engine.version() == {"Version": "1"}
        assert Engine.of(engine) is engine
    finally:
        client.close()


def test_an_engine_is_made_of_a_connection_over_tcp() -> None:
    client = docker.APIClient(base_url="tcp://localhost:2375", version="1.41")
    try:
        assert Engine.of(client).endpoint.socket_path is None
    finally:
        client.close()


def test_making_an_engine_connects_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("connected"))
    Engine()


# What containers print.


def piece(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_a_log_is_put_together_from_its_pieces() -> None:
    raw = piece(1, b"out\n") + piece(2, b"err\n") + piece(1, b"")
    assert b"".join(demultiplex(raw)) == b"out\nerr\n"


def test_a_log_of_a_terminal_has_no_pieces() -> None:
    assert b"".join(demultiplex(b"plain words")) == b"plain words"
    assert b"".join(demultiplex(b"")) == b""


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=50)), max_size=5))
def test_any_pieces_are_put_together(pieces: list[tuple[int, bytes]]) -> None:
    raw = b"".join(piece(stream, data) for stream, data in pieces)
    assert b"".join(demultiplex(raw)) == b"".join(data for _, data in pieces)


@given(st.binary(max_size=200))
def test_a_damaged_log_is_no_error(raw: bytes) -> None:
    assert len(b"".join(demultiplex(raw))) <= len(raw)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]0;without an end\nafter", "\nafter"),
        ("\x1b]8;;http://x\x1b\\y", "y"),
        ("\x1b[?1049h\x1b[2J\x1b[10;20Hx\x1b7\x1bcy", "xy"),
        ("\x1bP1$r0m\x1b\\\x1b", ""),
        ("\x9b31mred\x9d0;title\x07", "red"),
        ("a\0b\x7fc\rd", "abcd"),
        ("größe 世界", "größe 世界"),
        ("right\u202eleft", "rightleft"),
    ],
)
def test_what_could_steer_a_terminal_is_taken_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_what_is_left_of_any_text_is_printable(text: str) -> None:
    assert all(character in "\n\t" or character.isprintable() for character in printable(text))


def test_the_environment_is_not_changed(serve: Serve) -> None:
    before = dict(os.environ)
    engine_at(serve(reply(answer(200, {}))).path).version()
    assert dict(os.environ) == before
    assert _http.PATIENCE > 0


def test_a_download_comes_in_pieces_or_is_one_line(serve: Serve) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n"
    pieces = engine_at(serve(reply(whole + b"0\r\n\r\n")).path).read_archive("web", "/x")
    assert list(pieces) == [b"abc", b"de"]
    with pytest.raises(DockerUnavailable) as caught:
        list(engine_at(serve(reply(whole)).path).read_archive("web", "/x"))
    complaint(caught.value)
    refused = reply(answer(404, {"message": "no such file"}))
    with pytest.raises(NotFound, match="get files from the container web: no such file"):
        list(engine_at(serve(refused).path).read_archive("web", "/x"))


def head(about: object) -> bytes:
    """An answer about a file."""
    import base64

    text = base64.b64encode(json.dumps(about).encode()).decode()
    return f"HTTP/1.1 200 OK\r\nX-Docker-Container-Path-Stat: {text}\r\n\r\n".encode()


def test_a_file_is_described_or_not_there(serve: Serve) -> None:
    about = {"name": "x", "mode": 420, "linkTarget": ""}
    assert engine_at(serve(reply(head(about))).path).stat_path("web", "/x") == about

    def missing(connection: socket.socket, request: bytes) -> None:
        there = not request.startswith(b"HEAD")
        connection.sendall(answer(200, {}) if there else answer(404))
        connection.close()

    assert engine_at(serve(missing).path).stat_path("web", "/x") is None
    with pytest.raises(NotFound):
        engine_at(serve(reply(answer(404))).path).stat_path("web", "/x")


@pytest.mark.parametrize("about", [{}, [], None, {"mode": "x", "linkTarget": ""}, "text"])
def test_a_description_that_makes_no_sense_is_one_line(about: object, serve: Serve) -> None:
    with pytest.raises(EngineError) as caught:
        engine_at(serve(reply(head(about))).path).stat_path("web", "/x")
    complaint(caught.value)


def test_a_container_that_is_busy_is_frozen_at_a_better_moment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = answer(500, {"message": "OCI runtime pause failed: unable to freeze: unknown"})
    answers = [busy, busy, answer(204, raw=b"")]

    def reply_next(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answers.pop(0) if answers else busy)
        connection.close()

    engine = engine_at(serve(reply_next).path)
    engine.pause("web")
    assert answers == []
    monkeypatch.setattr(_containers, "FREEZING", 0.15)
    with pytest.raises(EngineError, match="unable to freeze"):
        engine.pause("web")


def test_images_have_the_names_that_docker_gives_them(serve: Serve) -> None:
    names = ["docker.io/library/me:web", "docker.io/redock-history/me-web-1:1", "quay.io/a/b:c"]
    tags = [*names, "localhost/redock:base"]
    listed = [{"Id": "x", "RepoTags": tags}, {"RepoTags": None}]
    short = ["me:web", "redock-history/me-web-1:1", "quay.io/a/b:c", "redock:base"]
    body = json.dumps(listed).encode()
    for header, expected in (
        (b"Libpod-API-Version: 4.3.1\r\n", [short, []]),
        # To Docker "localhost" is a registry like any other.
        (b"", [tags, None]),
    ):
        head = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (header, len(body))
        images = engine_at(serve(reply(head + body)).path).images({})
        assert [each["RepoTags"] for each in images] == expected


def test_where_nothing_can_be_frozen_it_says_what_to_do_instead(serve: Serve) -> None:
    cannot = {"message": "can not pause containers on rootless containers with cgroup V1"}
    engine = engine_at(serve(reply(answer(500, cannot))).path)
    with pytest.raises(EngineError, match="'redock stop' keeps its disk") as caught:
        engine.pause("web")
    complaint(caught.value)
    assert caught.value.status == 500


# What is too large to be kept.


def test_a_download_arrives_in_pieces(serve: Serve) -> None:
    body = b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    server = serve(reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
    engine = engine_at(server.path)
    pieces = engine.download("/images/get", "export", query={"names": ["a:b", "c"]})
    assert list(pieces) == [b"abc", b"defg"]
    assert server.requests[0].startswith(b"GET /images/get?names=a%3Ab&names=c HTTP/1.1\r\n")


def test_a_download_that_is_refused_or_cut_is_an_error(serve: Serve) -> None:
    gone = b'HTTP/1.1 404 No\r\nContent-Length: 19\r\n\r\n{"message": "gone"}'
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nx"
    for answer, error in ((gone, NotFound), (cut, DockerUnavailable)):
        engine = engine_at(serve(reply(answer)).path)
        with pytest.raises(error):
            list(engine.download("/images/get", "export the image"))


def read_chunks(connection: socket.socket, request: bytes) -> bytes:
    """Read a body in chunks to its end; some of it came with the head."""
    data = request.partition(b"\r\n\r\n")[2]
    while not data.endswith(b"0\r\n\r\n"):
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def test_an_upload_is_sent_in_pieces_and_its_reports_are_read(serve: Serve) -> None:
    received: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        received.append(read_chunks(connection, request))
        body = b'{"stream": "one"}\r\n{"stream": "two"}\r\n'
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        connection.close()

    engine = engine_at(serve(answer).path)
    reports = engine.upload("/images/load", "load", iter([b"ab", b"", b"cde"]), query={"quiet": 1})
    assert reports == [{"stream": "one"}, {"stream": "two"}]
    assert received == [b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"]


@pytest.mark.parametrize("answer", [
    b'HTTP/1.1 500 No\r\nContent-Length: 18\r\n\r\n{"message": "bad"}',
    b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"error": "bad"}',
])  # fmt: skip
def test_an_upload_that_is_refused_is_an_error(serve: Serve, answer: bytes) -> None:
    engine = engine_at(serve(reply(answer)).path)
    # More than the socket takes before somebody reads it.
    with pytest.raises(EngineError, match="could not load: bad"):
        engine.upload("/images/load", "load", [b"x" * 65536] * 100, query={})


@pytest.mark.parametrize("error", [OSError(5, "the disk is broken"), RedockError("refused")])
def test_an_upload_that_cannot_go_on_has_no_end(serve: Serve, error: Exception) -> None:
    received: list[bytes] = []
    ended = threading.Event()

    def answer(connection: socket.socket, request: bytes) -> None:
        received.append(read_chunks(connection, request))
        ended.set()

    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise error

    engine = engine_at(serve(answer).path)
    with pytest.raises(type(error)) as caught:
        engine.upload("/images/load", "load", pieces(), query={})
    assert caught.value is error
    assert ended.wait(60) and not received[0].endswith(b"0\r\n\r\n")
