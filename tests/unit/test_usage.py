"""What machines use, from the files of kernels and from what is printed inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock import _usage
from redock._engine import Engine
from redock._usage import find_memory, memory_of, parse
from redock.errors import EngineError

VERSION_1 = {"memory.usage_in_bytes": "1000\n", "memory.stat": "cache 5\ntotal_inactive_file 300\n"}
VERSION_2 = {"memory.current": "1000\n", "memory.stat": "anon 5\ninactive_file 300\n"}


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that plays /sys/fs/cgroup."""
    monkeypatch.setattr(_usage, "CGROUPS", str(tmp_path))
    return tmp_path


def make(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(parents=True)
    for name, contents in files.items():
        (directory / name).write_text(contents)


@pytest.mark.parametrize(
    ("place", "files"),
    [
        ("memory/docker/{id}", VERSION_1),
        ("memory/system.slice/docker-{id}.scope", VERSION_1),
        ("docker/{id}", VERSION_2),
        ("system.slice/docker-{id}.scope", VERSION_2),
        ("machine.slice/libpod-{id}.scope", VERSION_2),
        ("user.slice/user-{uid}.slice/user@{uid}.service/user.slice/docker-{id}.scope", VERSION_2),
    ],
)
def test_memory_is_what_docker_stats_shows(groups: Path, place: str, files: dict[str, str]) -> None:
    for container in "ab":
        make(groups / place.format(id=container, uid=os.getuid()), files)
    assert memory_of(["a", "b", "gone"]) == {"a": 700, "b": 700}


def test_memory_is_not_known_where_the_kernel_is_another_one(groups: Path) -> None:
    assert memory_of(["a", "b"]) == {}
    make(groups / "docker/a", {"memory.current": "not a number", "memory.stat": ""})
    assert memory_of(["a"]) == {}


def test_one_that_has_ended_does_not_hide_the_others(groups: Path) -> None:
    for container in "ac":
        make(groups / "docker" / container, VERSION_2)
    assert memory_of(["a", "b", "c"]) == {"a": 700, "c": 700}


class Statistics(Engine):
    """An engine that says what a container uses."""

    def __init__(self, answer: dict[str, Any] | None) -> None:
        super().__init__()
        self.answer = answer

    def stats(self, container: str) -> dict[str, Any]:
        if self.answer is None:
            raise EngineError("gone")
        return self.answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"memory_stats": {"usage": 1000, "stats": {"inactive_file": 300}}}, 700),
        ({"memory_stats": {"usage": 1000, "stats": {"total_inactive_file": 300}}}, 700),
        ({"memory_stats": {"usage": 1000}}, 1000),
        ({"memory_stats": {}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_engine_is_asked_where_the_kernel_cannot_be(
    groups: Path, answer: dict[str, Any] | None, expected: int | None
) -> None:
    assert find_memory(Statistics(answer), "a") == expected


def counters(pid: int, name: str, user: int, system: int) -> str:
    """A line of /proc/PID/stat: proc_pid_stat(5)."""
    return f"{pid} ({name}) S 1 1 1 0 -1 4 1 2 3 4 {user} {system} 0 0 20 0 1 0 5 6 7"


def test_processes_are_those_of_ps_with_what_they_used_between_two_looks() -> None:
    text = "\n".join(
        [
            "77",
            counters(1, "supervisord", 10, 5),
            counters(9, "a) S 9 9 (b", 100, 50),
            "---",
            counters(1, "supervisord", 10, 6),
            counters(9, "a) S 9 9 (b", 140, 60),
            counters(12, "new", 3, 2),
            "---",
            "    1     0 root      2048     90 /usr/bin/python3 supervisord",
            "    9     1 www-data  1024     80 a) S 9 9 (b --with blanks",
            "   12     1 root       512      0 new",
            "   77     0 root       100      0 ps -ww",
            "nonsense",
            "",
        ]
    )
    found = parse(text, 0.5)
    assert [(each.pid, each.cpu) for each in found] == [(9, 100.0), (12, 10.0), (1, 2.0)]
    assert found[0].as_dict() == {
        "pid": 9,
        "parent": 1,
        "user": "www-data",
        "cpu": 100.0,
        "memory": 1024 * 1024,
        "seconds": 80,
        "command": "a) S 9 9 (b --with blanks",
    }
    assert repr(found[2]) == "Process(1, '/usr/bin/python3 supervisord')"


def test_a_number_that_was_given_again_uses_nothing_negative() -> None:
    text = "\n".join(
        ["5", counters(7, "a", 900, 0), "---", counters(7, "b", 1, 0), "---", "7 1 root 1 0 b"]
    )
    assert [each.cpu for each in parse(text, 0.5)] == [0.0]


@given(st.text())
def test_whatever_is_printed_inside_is_no_error(text: str) -> None:
    parse(text, 0.5)
    parse(f"1\n{text}\n---\n{text}\n---\n{text}", 0.5)
