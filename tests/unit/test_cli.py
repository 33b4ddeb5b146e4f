"""The command line: one line for a mistake, the documented exit statuses, no traceback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from redock import cli
from redock._parallel import run_all
from redock.errors import EngineError, NoContainerRunning, SeveralFailed, Timeout

from .test_names import INVALID_NAMES as BAD_NAMES

pytestmark = pytest.mark.usefixtures("default_home")

REDOCK = [sys.executable, "-m", "redock"]


def redock(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    return subprocess.run(
        [*REDOCK, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "REDOCK_HOME": os.environ["HOME"] + "/.redock", **env},
    )


def test_every_bad_name_is_one_line_and_status_2(home: Path) -> None:
    for name in BAD_NAMES:
        if "\0" in name or name.startswith("-"):
            # The first cannot be given to a program, the second is an option.
            continue
        status, message = run_here("start", name)
        assert (status, len(message.splitlines())) == (2, 1), name
        assert message.startswith("redock: ")
    assert not (home / ".redock").exists()


def run_here(*arguments: str) -> tuple[int, str]:
    """Run the program in this process; get its status and what it complains about."""
    import contextlib
    import io

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            status = cli.run(arguments)
        except SystemExit as end:
            status = int(str(end.code))
    return status, errors.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["start", "a:b:c"], "invalid name"),
        (["start", "--", "-x"], "invalid name"),
        (["start", "-n", "a b", "web"], "invalid host name"),
        (["start", "-n", "x", "a", "b"], "several machines"),
        (["start", "-b", "Not An Image", "web"], "invalid base image"),
        (["start"], "NAME"),
        (["start", "-t", "0", "web"], "above 0"),
        (["start", "-t", "soon", "web"], "above 0"),
        (["frob"], "frob"),
        ([], "COMMAND"),
        (["delete", "redock:base"], "reserved"),
        (["start", "redock:base"], "reserved"),
    ],
)
def test_mistakes(arguments: list[str], words: str, home: Path) -> None:
    done = redock(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert not (home / ".redock" / "ssh").exists()


def test_no_engine_is_one_line(home: Path) -> None:
    done = redock("start", "web")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no Docker engine answers" in done.stderr and "redock doctor" in done.stderr


def test_several_names_without_an_engine(home: Path) -> None:
    done = redock("kill", "a", "b", "c")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 4
    assert "3 of 3 failed" in done.stderr


def test_the_doctor_without_an_engine(home: Path) -> None:
    done = redock("doctor")
    assert done.returncode == 1
    assert "[!!] engine" in done.stdout and "[ok] ssh:" in done.stdout
    assert done.stderr == ""


def test_a_newer_state_stops_before_anything_is_made(home: Path) -> None:
    directory = home / ".redock"
    directory.mkdir(mode=0o700)
    (directory / "state.json").write_text('{"version": 99, "containers": {}}')
    done = redock("start", "web")
    assert done.returncode == 1
    assert "newer redock" in done.stderr


def test_version_and_help_load_little() -> None:
    done = redock("--version")
    assert done.stdout.startswith("redock 1.")
    program = (
        "import sys; from redock import cli\n"
        "try: cli.run(['--help'])\n"
        "except SystemExit: pass\n"
        "import redock.api\n"
        "heavy = {'docker', 'requests', 'update_dotdee', 'coloredlogs', 'execnet'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("start", "commit", "kill", "delete", "doctor", "ssh-config", "--hostname"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_it_without_a_traceback(
    home: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "hung"))
    listener.listen()
    process = subprocess.Popen(
        [*REDOCK, "start", "web"],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "DOCKER_HOST": f"unix://{tmp_path}/hung",
            "REDOCK_HOME": str(home / ".redock"),
        },
    )
    connection, _ = listener.accept()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    connection.close()
    listener.close()
    assert process.returncode == status
    assert len(errors.splitlines()) == 1 and "interrupted" in errors


def test_the_worst_status_of_several_counts() -> None:
    failed = SeveralFailed("x", {"a": EngineError("a"), "b": NoContainerRunning("b")})
    assert failed.exit_code == 3
    assert Timeout("x").exit_code == 124


def test_side_by_side_one_failure_stops_nobody() -> None:
    seen: list[int] = []
    reported: list[str] = []
    together = threading.Barrier(3, timeout=30)

    def work(item: int) -> None:
        together.wait()
        if item == 2:
            raise ValueError(item)
        seen.append(item)

    items = {"one": 1, "two": 2, "three": 3}
    errors = run_all(items, work, 3, lambda name, error: reported.append(name))
    assert sorted(seen) == [1, 3]
    assert list(errors) == reported == ["two"]


def test_ssh_config_shows_what_it_would_do(home: Path) -> None:
    before = time.monotonic()
    status, _ = run_here("ssh-config", "install", "--dry-run")
    assert status == 0
    assert not (home / ".ssh").exists()
    assert time.monotonic() >= before
