"""Logs: when a line was written, and which part of a log is new."""

from __future__ import annotations

import datetime
import io
import tarfile
from types import SimpleNamespace
from typing import Any

import pytest

from redock.cluster._logfiles import LogFile, parse_lines, parse_time, read_logs
from redock.cluster._timeline import Event
from redock.errors import NotFound

MOMENT = datetime.datetime(2026, 11, 25, 2, 40, 52, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("2026-11-25T02:40:52Z plain ISO 8601", 0.0),
        ("2026-11-25T03:40:52.250+01:00 with a zone", 0.25),
        ("2026-11-25T02:10:52.5-0030 another zone", 0.5),
        ("2026-11-25 02:40:52,123 INFO Supervisor, Python", 0.123),
        ("2026-11-25 02:40:52.123 UTC [17] LOG:  PostgreSQL", 0.123),
        ("2026-11-25 02:40:52.123456789 twelve digits", 0.123456789),
        ("2026/11/25 02:40:52 [error] 17#17: nginx", 0.0),
        ('127.0.0.1 - - [25/Nov/2026:02:40:52 +0000] "GET / HTTP/1.1"', 0.0),
        ('127.0.0.1 - - [25/Nov/2026:04:40:52 +0200] "GET / HTTP/1.1"', 0.0),
        ("1:M 25 Nov 2026 02:40:52.789 * Ready to accept connections", 0.789),
        ("Nov 25 02:40:52 n1 sshd[12]: syslog", 0.0),
        ("<34>Nov 25 02:40:52 n1 su: RFC 3164", 0.0),
        (f'{{"level":"info","ts":{MOMENT:.3f},"msg":"etcd"}}', 0.0),
        (f"[{MOMENT:.0f}] corosync", 0.0),
    ],
)
def test_the_usual_ways_to_write_a_time_are_understood(line: str, more: float) -> None:
    found = parse_time(line, MOMENT + 3600)
    assert found == pytest.approx(MOMENT + more, abs=1e-6)


@pytest.mark.parametrize(
    "line",
    [
        "", "no time at all", "2026-13-25T02:40:52Z", "2026-02-30 02:40:52", "Foo 25 02:40:52",
        "12345678901 too long", "at 02:40:52", "Feb 30 02:40:52 n1 x",
        "x" * 200 + "2026-11-25T02:40:52Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_none(line: str) -> None:
    assert parse_time(line, MOMENT) is None


def test_a_time_without_a_year_is_the_nearest() -> None:
    new_year = datetime.datetime(2027, 1, 1, 0, 0, 5, tzinfo=datetime.UTC).timestamp()
    assert parse_time("Dec 31 23:59:59 n1 x: old", new_year) == new_year - 6
    assert parse_time("Jan  1 00:00:06 n1 x: new", new_year - 10) == new_year + 1
    leap = datetime.datetime(2028, 2, 29, tzinfo=datetime.UTC).timestamp()
    assert parse_time("Feb 29 00:00:00 n1 x", leap + 5) == leap


def log(text: str, size: int | None = None) -> LogFile:
    """A log, or the end of a longer one."""
    data = text.encode()
    return LogFile("n1", "/var/log/x", len(data) if size is None else size, data)


def test_what_was_written_since_is_told_apart() -> None:
    assert log("old\nnew\n").since(4) == "new\n"
    assert log("old\nnew\n").since(0) == "old\nnew\n"
    # Begun anew: all of it was written since.
    assert log("new\n").since(100) == "new\n"
    # Only the end is there.
    assert log("new\n", size=1000).since(996) == "new\n"
    assert log("new\n", size=1000).since(10) == "new\n"
    assert log("a\x1b[31mb\x00\xff").since(0) == "ab\xff"


def test_lines_without_a_time_belong_to_the_one_before() -> None:
    text = (
        "who knows\n2026-11-25T02:40:52Z Traceback\n  File x\n\n  File y\n2026-11-25T02:40:53Z on\n"
    )
    lost, first, second = parse_lines(log(text), text, MOMENT - 10, [])
    assert (lost.moment, lost.text) == (None, "who knows")
    assert first.moment == 10 and first.text.endswith("Traceback\n  File x\n  File y")
    assert first.level == "error"
    assert (second.moment, second.level) == (11, "")


def test_a_clock_that_is_wrong_is_put_right() -> None:
    text = "2026-11-25T03:40:52Z an hour ahead\n2026-11-25T02:40:59Z healed\n"
    skew = Event("clock_skew", "clock +3600s", ("n1",), 8.0, 12.0, {"offset": 3600.0})
    other = Event("clock_skew", "clock +3600s", ("n2",), 0.0, None, {"offset": 1.0})
    ahead, healed = parse_lines(log(text), text, MOMENT - 10, [other, skew])
    assert (ahead.moment, healed.moment) == (10, 17)


class FakeEngine:
    """Hands out archives of a tree that is not there."""

    def __init__(self, files: dict[str, bytes | str]) -> None:
        self.files = files

    def get_archive(self, container: str, path: str) -> bytes:
        """As the engine does it: names start with that of the file or directory itself."""
        parent = path.rpartition("/")[0]
        found = {
            name: value
            for name, value in self.files.items()
            if name == path or name.startswith(path.rstrip("/") + "/")
        }
        if not found:
            raise NotFound("no such file", 404)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, value in found.items():
                member = tarfile.TarInfo(name[len(parent) + 1 :])
                if isinstance(value, str):
                    member.type, member.linkname = tarfile.SYMTYPE, value
                else:
                    member.size = len(value)
                tar.addfile(member, io.BytesIO(value) if isinstance(value, bytes) else None)
        return buffer.getvalue()


def read(files: dict[str, bytes | str], *patterns: str) -> dict[str, bytes]:
    """Read the logs of a node with such files."""
    node: Any = SimpleNamespace(
        name="n1",
        spec=SimpleNamespace(logs=patterns),
        engine=FakeEngine(files),
        container_id="x",
    )
    return {path: found.data for path, found in read_logs(node).items()}


def test_logs_are_found_by_pattern_and_through_links() -> None:
    files: dict[str, bytes | str] = {
        "/var/log/a.log": b"a",
        "/var/log/deep/b.log": b"b",
        "/var/log/link.log": "deep/b.log",
        "/var/log/loop.log": "loop.log",
        "/var/log/text": b"t",
    }
    assert read(files, "/var/log/a.log") == {"/var/log/a.log": b"a"}
    assert read(files, "/var/log/*.log") == {"/var/log/a.log": b"a", "/var/log/link.log": b"b"}
    assert read(files, "/var/log/*/?.log", "/var/*/text") == {
        "/var/log/deep/b.log": b"b",
        "/var/log/text": b"t",
    }
    assert read(files, "/nothing", "/var/log/loop.log", "/var/log/a.log") == {
        "/var/log/a.log": b"a"
    }
