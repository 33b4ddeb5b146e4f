"""What there is, from what engines say."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from redock import _listing, api, cli
from redock._engine import Engine
from redock._listing import MachineInfo, list_machines, moment, to_the_second, words_of
from redock._machines import volume_name
from redock._names import history_repository
from tests.unit.conftest import Server, run_python, run_redock

Serve = Callable[[Callable[[socket.socket, bytes], None]], Server]


def machine(name: str = "me:web", **changes: Any) -> dict[str, Any]:
    """What Docker 20.10 says about a machine."""
    instance = name.encode().hex()
    labels = {
        "io.redock.kind": "container",
        "io.redock.name": name,
        "io.redock.instance": instance,
        "io.redock.alias": "web-container",
        "io.redock.hostname": "web",
        "io.redock.port": "20245",
        "io.redock.user": str(os.getuid()),
        "io.redock.base": "debian:12",
        **changes.pop("labels", {}),
    }
    return {
        "Id": "0123456789ab" * 5 + "0123",
        "Names": [f"/redock-{name.replace(':', '..')}"],
        "Labels": labels,
        "State": "running",
        "Status": "Up 6 minutes",
        "Created": 1795574212,
        "Ports": [{"IP": "127.0.0.1", "PrivatePort": 22, "PublicPort": 20245, "Type": "tcp"}],
        "Mounts": [{"Destination": "/etc/redock/ssh", "Name": volume_name(instance)}],
        **changes,
    }


def image(name: str, *tags: str) -> dict[str, Any]:
    """What an engine says about an image that was committed."""
    labels = {"io.redock.kind": "image", "io.redock.name": name, "io.redock.base": "debian:12"}
    return {"Id": "sha256:1", "RepoTags": list(tags) or None, "Labels": labels, "Created": 5}


@pytest.fixture
def engine(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    """Start an engine that has some containers and images, and make it the one to be used."""

    def start(*containers: dict[str, Any], images: list[dict[str, Any]] | None = None) -> Server:
        def answer(connection: socket.socket, request: bytes) -> None:
            listed = images or [] if request.startswith(b"GET /images/") else list(containers)
            body = json.dumps(listed).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
            connection.sendall(head + body)
            connection.close()

        server = serve(answer)
        monkeypatch.setenv("DOCKER_HOST", server.url)
        return server

    return start


def test_every_field_is_filled_from_what_the_engine_says(engine: Callable[..., Server]) -> None:
    engine(
        machine(SizeRw=83426967),
        images=[
            image("me:web"),
            image("me:web", f"{history_repository('me:web')}:1"),
            image("me:web", "me:web", f"{history_repository('me:web')}:2"),
        ],
    )
    (found,) = list_machines()
    assert found.as_dict() == {
        "name": "me:web",
        "state": "running",
        "uptime": "6 minutes",
        "created": "2026-11-25T02:36:52Z",
        "base": "debian:12",
        "alias": "web-container",
        "hostname": "web",
        "address": "127.0.0.1",
        "port": 20245,
        "commits": 2,
        "memory": None,
        "disk": 83426967,
        "user": os.getuid(),
        "cluster": "",
        "id": "0123456789ab" * 5 + "0123",
    }


def test_the_number_of_requests_does_not_grow(engine: Callable[..., Server]) -> None:
    server = engine(*(machine(f"me:m{number}") for number in range(50)))
    assert len(list_machines()) == 50
    assert len(server.requests) == 2
    assert all(b"size" not in each for each in server.requests)
    server.requests.clear()
    assert len(list_machines(size=True)) == 50
    assert len(server.requests) == 2
    server.requests.clear()
    assert len(_listing.find_names(Engine())) == 50
    assert len(server.requests) == 1


def test_a_list_is_of_the_user_s_machines_unless_all_are_asked_for(
    engine: Callable[..., Server],
) -> None:
    node = {
        "io.redock.kind": "node",
        "io.redock.cluster": "c",
        "io.redock.node": "n1",
        "io.redock.name": "redock:cluster.c.n1",
    }
    containers = [
        machine("me:b"),
        machine("me:a"),
        machine("you:a", labels={"io.redock.user": str(os.getuid() + 1)}),
        machine("old:a", labels={"io.redock.user": ""}),
        machine("false:a", Mounts=[]),
        machine(Names=["/redock-c.n1"], labels=node, State="paused", Ports=[]),
        machine(Names=["/redock-c.n1.owner"], labels={**node, "io.redock.kind": "owner"}),
    ]
    engine(*containers, images=[image("me:gone", "me:gone"), image("me:a", "me:a")])
    assert [each.name for each in list_machines()] == ["me:a", "me:b", "old:a"]
    found = {each.name: each for each in list_machines(everybody=True)}
    assert list(found) == ["me:a", "me:b", "me:gone", "old:a", "you:a", "redock:cluster.c.n1"]
    # The state is that of the node, the port that of what keeps it for life.
    assert (found["redock:cluster.c.n1"].state, found["redock:cluster.c.n1"].port) == (
        "paused",
        20245,
    )
    assert (found["me:gone"].state, found["me:gone"].port) == ("saved", 0)
    assert (found["me:a"].commits, found["me:b"].commits) == (1, 0)


def test_copies_are_counted_where_they_belong(engine: Callable[..., Server]) -> None:
    """The label of a clone's or an import's disk is that of the machine it was made from."""
    web, copy = history_repository("me:web"), history_repository("me:copy")
    engine(
        machine("me:web"),
        images=[
            image("me:web", "me:web", f"{web}:1"),
            image("me:web", "me:copy", f"{copy}:1", "registry.example.org/web:1"),
        ],
    )
    found = {each.name: (each.state, each.commits) for each in list_machines(everybody=True)}
    assert found == {"me:web": ("running", 1), "me:copy": ("saved", 1)}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("Up 6 minutes", "6 minutes"),
        ("Up About an hour", "about an hour"),
        ("Up 2 days (Paused)", "2 days"),
        ("Up 3 seconds (health: starting)", "3 seconds"),
        ("Up 5 minutes ago", "5 minutes"),
        ("Up Less than a second", "less than a second"),
        ("Exited (0) 2 days ago", "2 days ago"),
        ("Exited (137) About a minute ago", "about a minute ago"),
        ("Created", ""),
        ("Removal In Progress", ""),
        ("", ""),
    ],
)
def test_the_time_is_taken_out_of_the_engine_s_words(status: str, words: str) -> None:
    assert words_of(status) == words


@pytest.mark.parametrize(
    ("engine_s", "ours"),
    [("running", "running"), ("exited", "stopped"), ("dead", "stopped"), ("created", "created")],
)
def test_states_have_names_that_people_use(
    engine: Callable[..., Server], engine_s: str, ours: str
) -> None:
    engine(machine(State=engine_s))
    assert list_machines()[0].state == ours


def test_moments_are_in_utc() -> None:
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert to_the_second("2026-11-25T02:57:49.123456789Z") == "2026-11-25T02:57:49Z"
    assert to_the_second("0001-01-01T00:00:00Z") == ""
    assert to_the_second("") == ""


def test_what_was_so_cannot_be_changed(engine: Callable[..., Server]) -> None:
    engine(machine())
    (found,), (again,) = list_machines(), list_machines()
    assert found == again and hash(found) == hash(again)
    assert found != "me:web"
    assert repr(found) == "MachineInfo('me:web', 'running')"
    with pytest.raises(AttributeError, match="ask again"):
        found.state = "stopped"


def test_the_api_has_it_as_well() -> None:
    assert (api.list_machines, api.MachineInfo) == (list_machines, MachineInfo)
    assert issubclass(api.MachineStatus, MachineInfo)
    assert api.MachineStatus.fields[: len(MachineInfo.fields)] == MachineInfo.fields


# The command.


def test_the_table_shows_what_matters(engine: Callable[..., Server]) -> None:
    server = engine(
        machine("me:web"), machine("me:b", State="exited", Status="Exited (0) 2 days ago")
    )
    done = run_redock("list", DOCKER_HOST=server.url)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "NAME    STATE    UPTIME      BASE       ADDRESS          SAVED",
        "me:b    stopped  2 days ago  debian:12  127.0.0.1:20245",
        "me:web  running  6 minutes   debian:12  127.0.0.1:20245",
    ]


@pytest.mark.parametrize("words", [["ls"], ["ps"], ["list", "-v"], ["--no-color", "list"]])
def test_however_it_is_asked_for_the_answer_is_the_same(
    engine: Callable[..., Server], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    engine(machine("me:web"))
    assert cli.run(["list"]) == 0
    expected = capsys.readouterr().out
    assert cli.run(words) == 0
    assert capsys.readouterr().out == expected


def test_only_names_are_what_scripts_want(
    engine: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    engine(machine("me:web"), machine("me:b"), images=[image("me:c", "me:c")])
    for words in (["list", "-q"], ["-q", "list"], ["list", "--quiet"]):
        assert cli.run(words) == 0
        assert capsys.readouterr().out == "me:b\nme:web\n"
    assert cli.run(["list", "-q", "-a"]) == 0
    assert capsys.readouterr().out == "me:b\nme:c\nme:web\n"


def test_json_is_one_document_with_the_documented_names(
    engine: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    engine(machine("me:web"))
    assert cli.run(["list", "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert tuple(document) == _listing.FIELDS
    engine()
    assert cli.run(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_list_takes_no_parser_and_no_logging(engine: Callable[..., Server]) -> None:
    server = engine(machine("me:web"))
    program = (
        "import sys; before = set(sys.modules); from redock import cli; cli.run(['list'])\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)"
    )
    loaded = set(run_python("-c", program, DOCKER_HOST=server.url).stderr.split())
    assert "redock._listing" in loaded
    assert not loaded & {"argparse", "logging", "urllib.parse", "dataclasses", "docker"}
    # Small ones, which together took longer than the list.
    assert not loaded & {"re", "json", "signal", "enum", "contextlib", "functools", "collections"}


def test_a_machine_is_listed_once(engine: Callable[..., Server]) -> None:
    # Somebody was interrupted while it got another disk, and a container is linked to it.
    waiting = machine("me:web", Id="next", Names=["/redock.next.1"])
    engine(machine("me:web", Id="it", Names=["/redock-me..web", "/other/web"]), waiting)
    assert [each.id for each in list_machines()] == ["it"]
    assert [each.id for each in list_machines(everybody=True)] == ["it"]
    # What was to take its place is it when that has gone.
    engine(waiting)
    assert [each.name for each in list_machines()] == ["me:web"]


def test_an_absent_engine_is_one_line() -> None:
    done = run_redock("list")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("redock: no Docker engine answers")
