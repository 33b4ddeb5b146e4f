"""Logs: lines out of pieces, and where Supervisor keeps those of its programs."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock._engine import Engine
from redock._logs import LONGEST_LINE, named_logs, read_service_log, split_lines
from redock._printed import join_frames
from redock.errors import EngineError, InvalidName, NotFound

CONFIGURATION = """\
; A comment
[supervisord]
logfile = /var/log/supervisor/supervisord.log
[program:plain]
command = sleep 100 ; a comment
[program:named]
stdout_logfile = /var/log/named/%(program_name)s.log ; a comment
stderr_logfile=NONE
[program:loud]
stdout_logfile = /dev/stdout
"""


class Disk(Engine):
    """An engine with one container that has files and does not run."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.files = files

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        found = {name: data for name, data in self.files.items() if name.startswith(f"{path}/")}
        if not found:
            raise NotFound("no such file", 404)
        buffer = io.BytesIO()
        parent = path.rpartition("/")[0]
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in found.items():
                member = tarfile.TarInfo(name.removeprefix(f"{parent}/"))
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        raw = buffer.getvalue()
        for start in range(0, len(raw), 1000):
            yield raw[start : start + 1000]

    def read_logs(self, container: str, *, tail: int | None, follow: bool) -> Iterator[bytes]:
        yield b"\x01\0\0\0\0\0\0\x04own\n"


@pytest.fixture
def disk() -> Disk:
    logs = "/var/log/supervisor"
    return Disk(
        {
            "/etc/supervisor/supervisord.conf": CONFIGURATION.encode(),
            "/etc/supervisor/conf.d/more.conf": b"[program:more]\ncommand = x\n",
            "/etc/supervisor/conf.d/broken.conf": b"no section = here\n",
            "/etc/supervisor/conf.d/unused.txt": b"[program:unused]\n",
            f"{logs}/plain-stdout---supervisor-a1_b2.log": b"1\n2\n3\n",
            f"{logs}/plain-stderr---supervisor-c3d4.log": b"\x1b[31merror\x1b[0m\n",
            f"{logs}/plain_00-stdout---supervisor-e5f6.log": b"of one of several\n",
            f"{logs}/plain-stdout---supervisor-a1_b2.log.1": b"old\n",
            f"{logs}/plainer-stdout---supervisor-g7h8.log": b"of another\n",
            "/var/log/named/named.log": b"named\n",
            "/var/log/named/other.log": b"other\n",
        }
    )


def read(disk: Disk, service: str, lines: int | None = None) -> list[str]:
    return list(read_service_log(disk, "x", service, running=False, lines=lines))


def test_the_log_of_a_program_is_found_on_the_disk_of_what_does_not_run(disk: Disk) -> None:
    assert read(disk, "plain") == ["1", "2", "3", "error", "of one of several"]
    assert read(disk, "plain", 1) == ["3", "error", "of one of several"]
    assert read(disk, "named") == ["named"]
    assert read(disk, "loud") == ["own"]


def test_an_unknown_program_is_answered_with_those_there_are(disk: Disk) -> None:
    with pytest.raises(NotFound, match=r"no program nginx .* loud, more, named, plain$"):
        read(disk, "nginx")
    with pytest.raises(NotFound, match="keeps no log of more"):
        read(disk, "more")
    with pytest.raises(NotFound, match="there is none"):
        read(Disk({}), "nginx")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "*", "-x\n", "x" * 101])
def test_names_that_no_program_has_are_refused(disk: Disk, name: str) -> None:
    with pytest.raises(InvalidName):
        read(disk, name)


def test_paths_are_what_the_configuration_says(disk: Disk) -> None:
    assert named_logs(disk, "x", "plain") == ["", ""]
    assert named_logs(disk, "x", "named") == ["/var/log/named/named.log", ""]
    assert named_logs(disk, "x", "loud") == ["/dev/stdout", ""]


def test_an_archive_that_is_none_is_an_error_of_the_engine(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "read_archive", lambda *_: iter([b"x" * 2000]))
    with pytest.raises(EngineError, match="could not read"):
        read(disk, "plain")


@given(st.lists(st.binary(max_size=60)), st.data())
def test_lines_do_not_depend_on_where_the_pieces_end(
    lines: list[bytes], data: st.DataObject
) -> None:
    raw = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)))))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert list(split_lines(pieces)) == list(split_lines([raw]))
    assert len(list(split_lines([raw]))) == len(lines)


@given(st.lists(st.binary(max_size=60)), st.integers(1, 20))
def test_frames_do_not_depend_on_where_the_pieces_end(parts: list[bytes], size: int) -> None:
    raw = b"".join(b"\x01\0\0\0" + len(part).to_bytes(4, "big") + part for part in parts)
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert b"".join(join_frames(pieces)) == b"".join(parts)


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    found = list(split_lines(b"x" * 1000 for _ in range(200)))
    assert sum(map(len, found)) == 200_000
    assert max(map(len, found)) <= LONGEST_LINE + 1000
    assert list(split_lines([b"a\nno end"])) == ["a", "no end"]


def test_what_is_in_a_log_cannot_steer_the_terminal() -> None:
    hostile = b"\x1b]0;title\x07a\x1b[2Jb\xc2\x9b31mc\r\x08\xff\xc3\n\x1b[31", b"mred\x1b[0m\n"
    assert list(split_lines(hostile)) == ["abc\ufffd\ufffd", "red"]
