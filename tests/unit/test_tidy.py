"""What nobody uses: what counts, what is shown, what is taken away."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from redock import _ask, cli
from redock._engine import Engine
from redock._tidy import find_leftovers, is_being_built, take_away

from .conftest import Server

Serve = Callable[[Callable[[socket.socket, bytes], None]], Server]

OLD = time.time() - 3600
Things = dict[str, list[dict[str, Any]]]


def thing(kind: str, number: str, created: float | str = OLD, **labels: str) -> dict[str, Any]:
    """What an engine says about something of redock's."""
    marks = {f"io.redock.{name}": value for name, value in {"kind": kind, **labels}.items()}
    return {
        **{"Id": f"sha256:{number:0>64}", "Name": number, "Names": [f"/{number}"]},
        **{"Labels": marks, "Created": created, "CreatedAt": created, "State": "exited"},
        **{"ImageID": "", "Mounts": [], "RepoTags": [], "Size": 5_000_000},
    }


@pytest.fixture
def engine(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Callable[[Things], Server]:
    """Start an engine that has some things, and make it the one to be used."""

    def start(things: Things) -> Server:
        def answer(connection: socket.socket, request: bytes) -> None:
            method, path, _ = request.decode().split(" ", 2)
            parts = path.split("?")[0].split("/")
            found: Any = []
            for kind in ("containers", "images", "volumes", "networks"):
                if kind in parts:
                    found = things.get(kind, [])
                    found = {"Volumes": found} if kind == "volumes" else found
            body = json.dumps(found).encode()
            status = 200
            if method == "DELETE":
                status, body = (409, b'{"message": "in use"}') if b"busy" in request else (204, b"")
            head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            connection.sendall(head + body)
            connection.close()

        server = serve(answer)
        monkeypatch.setenv("DOCKER_HOST", server.url)
        return server

    return start


def removed(server: Server) -> list[str]:
    """The names of what was removed, in order."""
    lines = [each.split(b"\r\n")[0].decode() for each in server.requests]
    found = [line.split()[1].split("?")[0] for line in lines if line.startswith("DELETE")]
    return [path.rpartition("/")[2].removeprefix("sha256%3A").lstrip("0") for path in found]


THINGS: Things = {
    "containers": [
        thing("build", "1"),
        {**thing("build", "2"), "State": "running"},
        thing("build", "3", created=time.time()),
        thing("scan", "4"),
        {
            **thing("container", "5", instance="abc", user="4294967294"),
            "Mounts": [{"Name": "redock-abc"}],
        },
    ],
    "images": [
        thing("scan", "11"),
        # What somebody made of a machine's disk, of a snapshot, of the base image.
        thing("image", "18"),
        {**thing("snapshot", "19", cluster="gone"), "RepoTags": ["theirs:1"]},
        {**thing("base", "20"), "RepoTags": ["theirs:2"]},
        {**thing("image", "12"), "RepoTags": ["me:web"]},
        thing("moving", "13"),
        {**thing("snapshot", "14", cluster="gone"), "RepoTags": ["redock-snapshot:14"]},
        {**thing("base", "15"), "RepoTags": ["redock:base-debian"]},
        {**thing("node", "16"), "RepoTags": ["redock-provisioned:16"]},
        {**thing("node", "17"), "RepoTags": [f"redock-provisioned:17-{os.getpid()}-building"]},
    ],
    "volumes": [
        thing("volume", "redock-abc", "2026-01-01T00:00:00Z", instance="abc"),
        thing("volume", "redock-def", "2026-01-01T00:00:00Z", instance="def", name="me:old"),
        thing("volume", "redock-other", "2026-01-01T00:00:00Z", user="4294967294"),
    ],
    "networks": [thing("network", "21", "2026-01-01T00:00:00Z", cluster="gone")],
}


def test_only_what_nobody_uses_counts(engine: Callable[[Things], Server]) -> None:
    engine(THINGS)
    found = [(each.kind, each.name.lstrip("0")) for each in find_leftovers(Engine())]
    assert found == [
        ("container", "1"),
        ("container", "4"),
        ("network", "21"),
        ("volume", "redock-def"),
        ("image", ""),
        ("image", "redock-snapshot:14"),
    ]
    more = [each.name for each in find_leftovers(Engine(), caches=True)][len(found) :]
    assert more == ["redock:base-debian", "redock-provisioned:16"]


def test_what_one_layer_was_made_of_is_not_kept(engine: Callable[[Things], Server]) -> None:
    flat = thing("image", "23", squashed=f"sha256:{'22':0>64}")
    flat["RepoTags"] = ["me:db"]
    container = {**thing("container", "5", instance="abc"), "ImageID": f"sha256:{'24':0>64}"}
    other = thing("image", "25", squashed=container["ImageID"])
    images = [thing("image", "21"), thing("image", "22"), flat, thing("image", "24"), other]
    server = engine({"images": images, "containers": [container]})
    (found,) = find_leftovers(Engine())
    assert (found.size, found.why) == (5_000_000, "a squashed one took its place")
    found.remove()
    assert removed(server) == ["22"]


def test_it_is_shown_before_it_is_taken_away(
    engine: Callable[[Things], Server], capsys: pytest.CaptureFixture[str]
) -> None:
    server = engine(THINGS)
    assert cli.run(["prune", "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["KIND", "NAME", "SIZE", "WHY"] and len(shown) == 7
    (line,) = (each for each in shown if "redock-def" in each)
    assert "me:old was removed without redock" in line
    assert removed(server) == []
    assert cli.run(["prune", "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6
    assert cli.run(["prune", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6
    assert removed(server) == []
    assert cli.run(["prune", "-y"]) == 0
    assert removed(server) == ["1", "4", "21", "redock-def", "11", "redock-snapshot%3A14"]
    engine({})
    assert cli.run(["prune"]) == 0
    assert capsys.readouterr().out.count("KIND") == 1


def test_people_are_asked_and_programs_are_not(
    engine: Callable[[Things], Server],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = engine(THINGS)
    questions: list[str] = []

    def refuse(question: str) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr(_ask, "is_somebody_there", lambda: True)
    monkeypatch.setattr(_ask, "confirm", refuse)
    assert cli.run(["prune"]) == 1
    assert questions == ["Remove these 6?"]
    assert removed(server) == []
    monkeypatch.setattr(_ask, "is_somebody_there", lambda: False)
    assert cli.run(["prune"]) == 0
    assert len(removed(server)) == 6


def test_what_is_in_use_after_all_stays(
    engine: Callable[[Things], Server], capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = [thing("volume", name, "2026-01-01T00:00:00Z") for name in ("busy", "free")]
    server = engine({"volumes": volumes})
    found = find_leftovers(Engine())
    assert [each.name for each, _ in take_away(found)] == ["busy"]
    assert removed(server) == ["busy", "free"]
    assert cli.run(["prune", "-y"]) == 1


def test_a_disk_that_is_being_provisioned_is_left_alone() -> None:
    assert is_being_built(f"redock-provisioned:1-{os.getpid()}-building")
    assert not is_being_built("redock-provisioned:1-4194305-building")
