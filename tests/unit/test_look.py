"""Looking at one machine: what is read from labels, and how it is said."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from redock._listing import FIELDS
from redock._look import MachineStatus, read_options
from redock.api import Container
from redock.commands.see import in_words
from redock.errors import InvalidArgument, NotFound
from tests.unit.conftest import Server

VALUES: dict[str, Any] = {
    **dict.fromkeys(FIELDS, ""),
    "name": "me:web",
    "state": "running",
    "uptime": "6 minutes",
    "port": 20245,
    "address": "127.0.0.1",
    "memory": 17_500_000,
    "disk": None,
    "commits": 0,
    "id": "0123456789abcdef",
    "ssh": "ssh web-container",
    "started": "",
    "exit_status": None,
    "image": "sha256:fedcba9876543210",
    "options": {},
    "changes": 3,
    "connected": False,
    "instance": "abc",
    "version": "1",
}


def said(**changes: Any) -> dict[str, str]:
    return dict(in_words(MachineStatus(**{**VALUES, **changes}), color=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ('{"ports": ["8080:80"]}', {"ports": ["8080:80"]}),
        ("[]", {}),
        ("nonsense", {}),
    ],
)
def test_options_are_read_from_a_label_that_anybody_may_have_written(
    text: str, expected: dict[str, Any]
) -> None:
    assert read_options(text) == expected


def test_a_machine_that_is_removed_meanwhile_is_one_line(
    serve: Callable[[Callable[[socket.socket, bytes], None]], Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = {"io.redock.kind": "container", "io.redock.name": "me:web", "io.redock.instance": "1"}
    there = {
        "Id": "it",
        "Names": ["/redock-me..web"],
        "Labels": labels,
        "State": "running",
        "Mounts": [{"Destination": "/etc/redock/ssh", "Name": "redock-1"}],
    }

    def answer(connection: socket.socket, request: bytes) -> None:
        found: object = []
        if request.startswith(b"GET /containers/it/json"):
            found = {"Id": "it"}
        elif b"kind" in request:
            found = [there]
        body = json.dumps(found).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        connection.close()

    monkeypatch.setenv("DOCKER_HOST", serve(answer).url)
    with pytest.raises(NotFound, match="me:web was removed this moment"):
        Container("me:web").status()


def test_everything_is_said_in_words() -> None:
    words = said()
    assert words["State"] == "running, 6 minutes"
    assert (words["Started"], words["Base"], words["Saved"]) == ("never", "unknown", "never")
    assert words["Disk"] == "unknown, 3 files differ from its image"
    assert (words["Image"], words["Container"]) == ("fedcba987654", "0123456789ab")
    assert words["Memory"] == "17.5 MB"
    assert "Memory" not in said(memory=None)
    assert said(commits=1)["Saved"] == "once"
    assert said(commits=2)["Saved"] == "2 times"
    assert said(changes=None, disk=1500)["Disk"] == "1.5 kB"
    assert said(connected=True)["Connection"] == "open"
    assert said(state="stopped", uptime="2 days ago", exit_status=137)["State"] == (
        "stopped (exit status 137), 2 days ago"
    )


def test_options_are_said_and_cannot_steer_the_terminal() -> None:
    words = said(options={"ports": ["8080:80", "443"], "memory": 512 << 20, "env": {"A": 1}})
    assert words["Options"] == "ports 8080:80, 443; memory 512m; env A"
    assert said(options={"user": "\x1b[2Jx"})["Options"] == "user  [2Jx"
    assert "Options" not in said()


def test_only_the_state_has_a_colour() -> None:
    colored = dict(in_words(MachineStatus(**VALUES), color=True))
    assert colored.pop("State") == "\x1b[32mrunning\x1b[0m, 6 minutes"
    assert all("\x1b" not in words for words in colored.values())


def test_arguments_are_checked_before_anybody_is_asked() -> None:
    container = Container("me:web")
    with pytest.raises(InvalidArgument):
        container.logs(lines=-1)
    for interval in (0, -1, 61, float("nan")):
        with pytest.raises(InvalidArgument):
            container.processes(interval)
