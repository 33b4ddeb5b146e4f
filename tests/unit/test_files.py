"""redock's own files: whole or not at all, private, locked; its directory, usable or refused."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock import _files
from redock._files import (
    Lock,
    atomic_write,
    collect_strays,
    ensure_directory,
    path_in_home,
    read_bytes,
    redock_home,
    remove_file,
    user_home,
)
from redock._process import Deadline, wait_until
from redock.errors import LockTimeout, SettingsError, StateError
from redock.utils import Config
from tests.unit.conftest import PATIENCE, as_nobody, environment, run_python, use_home

OLD, NEW = b"old" * 1000, b"new" * 1000


def mode_of(path: Path | str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# Writing.


def test_a_file_is_replaced_and_private(sandbox: Path) -> None:
    path = sandbox / "file"
    atomic_write(str(path), OLD)
    atomic_write(str(path), NEW)
    assert path.read_bytes() == NEW
    assert mode_of(path) == 0o600
    assert set(os.listdir(sandbox)) == {"home", "file"}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_files_and_directories_are_private_whatever_the_umask(mask: int, sandbox: Path) -> None:
    def write() -> None:
        os.umask(mask)
        with Config() as state:
            state["containers"]["a:b"] = {}
        for directory in ("redock", "redock/locks"):
            assert mode_of(sandbox / directory) == 0o700
        for file in ("redock/state.json", "redock/locks/.state.lock"):
            assert mode_of(sandbox / file) == 0o600, oct(mode_of(sandbox / file))

    sandbox.chmod(0o755)
    as_nobody(sandbox, write)


def test_a_directory_in_a_missing_directory_is_private_too(sandbox: Path) -> None:
    before = os.umask(0)
    try:
        ensure_directory(str(sandbox / "a" / "b"))
    finally:
        os.umask(before)
    assert mode_of(sandbox / "a") == mode_of(sandbox / "a" / "b") == 0o700


KILLED_WRITER = """
import json, os, random, signal, sys, time
from redock.utils import Config

random.seed(7)
rounds = int(sys.argv[1])
path = Config().path
with Config() as state:
    state["containers"] = {"start": "x" * 20000}
strays = 0
for number in range(rounds):
    writer = os.fork()
    if not writer:
        turn = 0
        while True:
            turn += 1
            with Config() as state:
                state["containers"] = {str(number): str(turn % 10) * 20000}
    time.sleep(random.uniform(0.001, 0.012))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    strays += sum(name.endswith(".tmp") for name in os.listdir(os.path.dirname(path)))
    with open(path, "rb") as handle:
        state = json.load(handle)
    (value,) = state["containers"].values()
    assert len(value) == 20000 and len(set(value)) == 1, "torn"
with Config() as state:
    state["containers"].clear()
print(strays, sorted(os.listdir(os.path.dirname(path))))
"""


def test_a_killed_writer_leaves_the_old_state_or_the_new(redock_home: Path) -> None:
    done = run_python("-c", KILLED_WRITER, "300")
    assert done.returncode == 0, done.stderr
    strays, _, left = done.stdout.strip().partition(" ")
    assert left == "['locks', 'state.json']"
    # Some writers were killed at the very moment, otherwise nothing was tested.
    assert int(strays) > 0


def test_a_reader_never_sees_a_part(sandbox: Path) -> None:
    path = str(sandbox / "file")
    atomic_write(path, OLD)
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            atomic_write(path, NEW if turn % 2 else OLD)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {read_bytes(path) for _ in range(500)}
    finally:
        stop.set()
        writer.join(PATIENCE)
    assert seen <= {OLD, NEW}


def test_the_order_of_a_write_survives_a_power_cut(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def note_fsync(handle: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    real_replace = os.replace

    def note_replace(source: str, target: str) -> None:
        done.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    atomic_write(str(sandbox / "file"), NEW)
    assert done == ["file", "rename", "directory"]


FULL_DISK = """
import os, resource, sys
from redock._files import atomic_write
from redock.errors import StateError

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    atomic_write(sys.argv[1], b"x" * 5000)
except StateError as error:
    print(error)
"""


def test_a_write_that_does_not_fit_leaves_the_old_file(sandbox: Path) -> None:
    path = sandbox / "file"
    path.write_bytes(OLD)
    done = run_python("-c", FULL_DISK, str(path))
    assert done.stdout == f"cannot write {path}: {os.strerror(errno.EFBIG)}\n", done
    assert path.read_bytes() == OLD
    assert set(os.listdir(sandbox)) == {"home", "file"}


def test_a_full_disk_leaves_the_old_file_and_is_called_by_its_name(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sandbox / "file"
    path.write_bytes(OLD)
    real_write = os.write

    def write(handle: int, data: bytes) -> int:
        if len(data) <= 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(handle, data[:1000])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(StateError, match=f"^cannot write {path}: No space left on device$"):
        atomic_write(str(path), NEW)
    assert path.read_bytes() == OLD
    assert set(os.listdir(sandbox)) == {"home", "file"}


def test_a_full_file_system_of_a_page_keeps_the_state(sandbox: Path) -> None:
    small = sandbox / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount; the two tests above do the same with limits")
    try:
        path = small / "file"
        atomic_write(str(path), OLD)
        (small / "filler").write_bytes(b"x" * 8192)
        with pytest.raises(StateError, match="No space left on device"):
            atomic_write(str(path), b"x" * 8192)
        assert path.read_bytes() == OLD
        assert set(os.listdir(small)) == {"file", "filler"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_an_interrupt_leaves_no_temporary_file(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(str(sandbox / "file"), NEW)
    assert os.listdir(sandbox) == ["home"]


def test_a_file_system_that_cannot_sync_is_good_enough(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "fsync", refuse)
    atomic_write(str(sandbox / "file"), NEW)
    assert (sandbox / "file").read_bytes() == NEW


def test_a_disk_that_fails_is_not_taken_for_success(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateError, match="Input/output error"):
        atomic_write(str(sandbox / "file"), NEW)


def test_only_strays_of_redock_are_collected(sandbox: Path) -> None:
    for name in (".redock-state.json-1-0000.tmp", "other.tmp", ".redock-x"):
        (sandbox / name).touch()
    collect_strays(str(sandbox))
    assert set(os.listdir(sandbox)) == {"home", "other.tmp", ".redock-x"}


def test_reading_and_removing_what_is_not_there_is_fine(sandbox: Path) -> None:
    path = str(sandbox / "nothing")
    assert read_bytes(path) is None
    remove_file(path)


def test_reading_and_removing_a_directory_is_an_error_of_ours(sandbox: Path) -> None:
    for function in (read_bytes, remove_file):
        with pytest.raises(StateError, match=str(sandbox)):
            function(str(sandbox))


# Locks.

HOLDER = """
import sys, time
from redock._files import Lock

lock = Lock(sys.argv[1], "machine web")
lock.acquire()
print("held", flush=True)
time.sleep(120)
"""


@pytest.fixture
def lock_path(sandbox: Path) -> str:
    return str(sandbox / "locks" / "web.lock")


@contextlib.contextmanager
def held_by_another(path: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


# Forked from one: twenty interpreters take longer to start than to test.
UPDATERS = """
import os, sys
from redock.utils import Config

children = []
reader, writer = os.pipe()
for number in range(20):
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        for turn in range(10):
            with Config() as state:
                state["containers"][f"{os.getpid()}-{turn}"] = True
        os._exit(0)
    children.append(child)
os.close(writer)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def test_updates_of_twenty_processes_are_all_kept() -> None:
    done = run_python("-c", UPDATERS)
    assert done.returncode == 0, done.stderr
    assert len(Config().load()["containers"]) == 200


def test_the_lock_of_a_killed_process_is_free_at_once(lock_path: str) -> None:
    with held_by_another(lock_path) as process:
        process.kill()
        process.wait(PATIENCE)
        with Lock(lock_path, "machine web", timeout=0.0):
            pass


def test_the_lock_of_a_hung_process_is_waited_for_in_vain(
    lock_path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lock, "patience", 0.05)
    with held_by_another(lock_path) as process, caplog.at_level(logging.INFO, "redock"):
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(LockTimeout) as caught:
            Lock(lock_path, "machine web", timeout=0.3).acquire()
    message = str(caught.value)
    assert f"process {process.pid}" in message
    assert "machine web" in message
    assert "0.3 seconds" in message
    assert "\n" not in message
    assert caught.value.exit_code == 124
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"Waiting for another redock (process {process.pid}) with machine web"]


def test_a_lock_is_taken_over_when_it_is_given_back(lock_path: str) -> None:
    first = Lock(lock_path, "machine web")
    first.acquire()
    taken = threading.Event()

    def take() -> None:
        with Lock(lock_path, "machine web", timeout=PATIENCE):
            taken.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    assert not taken.wait(0.1)
    first.release()
    assert taken.wait(PATIENCE)
    waiting.join(PATIENCE)


def test_programs_that_are_started_do_not_keep_the_lock(lock_path: str) -> None:
    lock = Lock(lock_path, "machine web")
    lock.acquire()
    child = subprocess.Popen(["sleep", "120"], close_fds=False)
    try:
        lock.release()
        with Lock(lock_path, "machine web", timeout=0.0):
            pass
    finally:
        child.kill()
        child.wait(PATIENCE)


def test_a_lock_is_released_when_the_work_fails(lock_path: str) -> None:
    with pytest.raises(ZeroDivisionError), Lock(lock_path, "machine web"):
        raise ZeroDivisionError
    with Lock(lock_path, "machine web", timeout=0.0):
        pass


def test_a_lock_file_is_never_replaced(lock_path: str) -> None:
    with Lock(lock_path, "machine web"):
        first = os.stat(lock_path).st_ino
    with Lock(lock_path, "machine web"):
        assert os.stat(lock_path).st_ino == first


def test_a_lock_does_not_follow_a_link_somebody_planted(sandbox: Path, lock_path: str) -> None:
    victim = sandbox / "victim"
    victim.write_text("precious")
    ensure_directory(os.path.dirname(lock_path))
    os.symlink(victim, lock_path)
    with pytest.raises(StateError, match="cannot open the lock"):
        Lock(lock_path, "machine web").acquire()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_loud_failure(
    number: int, lock_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StateError, match=f"cannot lock {lock_path}"):
        Lock(lock_path, "machine web").acquire()


# Waiting.


def test_a_deadline_does_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = Deadline(3600)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert not deadline.passed
    assert 3500 < deadline.remaining <= 3600
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert deadline.remaining <= 3600


def test_a_wait_without_success_ends() -> None:
    assert wait_until(lambda: False, Deadline(0.05)) is False
    assert wait_until(lambda: True, Deadline(0.0)) is True


# The directory.


def test_the_directory_is_below_the_home_directory(default_home: Path) -> None:
    assert redock_home() == str(default_home)
    assert mode_of(default_home) == 0o700
    assert path_in_home("a", "b") == f"{default_home}/a/b"


def test_the_home_directory_is_that_of_the_password_database(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    assert user_home() == str(home)


BAD_HOMES = ['/tmp/a"b', "/tmp/a\nb", "/tmp/a\\b", "/tmp/${x}", "relative", "/proc/nothing"]


@pytest.mark.parametrize("path", BAD_HOMES)
def test_a_directory_that_ssh_cannot_read_or_nobody_can_make_is_refused(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDOCK_HOME", path)
    with pytest.raises(SettingsError) as caught:
        redock_home()
    assert "REDOCK_HOME=" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not os.path.lexists(path)


@pytest.mark.parametrize("path", ['/tmp/a"b', "/tmp/a\nb", "relative"])
def test_the_program_says_so_in_one_line(path: str) -> None:
    done = run_python("-m", "redock", "start", "web", REDOCK_HOME=path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
    assert done.stderr.startswith("redock: REDOCK_HOME=")


def test_a_directory_that_is_a_file_is_refused(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sandbox / "redock").touch()
    with pytest.raises(SettingsError, match="not a directory"):
        redock_home()


def test_a_directory_of_somebody_else_is_refused(sandbox: Path) -> None:
    def look() -> None:
        os.environ["REDOCK_HOME"] = "/"
        with pytest.raises(SettingsError, match="belongs to user id 0"):
            redock_home()

    as_nobody(sandbox, look)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o702])
def test_a_directory_others_may_write_to_is_refused_and_left_alone(
    mode: int, sandbox: Path
) -> None:
    path = sandbox / "redock"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(SettingsError, match="others may write"):
        redock_home()
    assert mode_of(path) == mode


def test_the_mode_of_a_directory_somebody_named_is_left_alone(sandbox: Path) -> None:
    path = sandbox / "redock"
    path.mkdir()
    path.chmod(0o755)
    assert redock_home() == str(path)
    assert mode_of(path) == 0o755


def test_the_directory_of_the_program_of_2013_becomes_private(default_home: Path) -> None:
    default_home.mkdir()
    default_home.chmod(0o775)
    assert redock_home() == str(default_home)
    assert mode_of(default_home) == 0o700


def test_a_read_only_home_directory_does_not_stop_machines(
    sandbox: Path, default_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = sandbox / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    def look() -> None:
        default_home.parent.chmod(0o500)
        assert redock_home() == str(runtime / "redock")
        assert mode_of(runtime / "redock") == 0o700

    sandbox.chmod(0o755)
    as_nobody(sandbox, look)


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "dollar${x}"])
def test_a_home_directory_that_ssh_cannot_read_does_not_stop_machines(
    name: str,
    sandbox: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = sandbox / name
    odd.mkdir()
    use_home(odd, monkeypatch)
    monkeypatch.delenv("REDOCK_HOME")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sandbox))
    assert redock_home() == str(sandbox / "redock")
    assert "cannot be used" in caplog.text
    assert os.listdir(odd) == []


def test_where_nothing_can_be_used_there_is_one_line(
    sandbox: Path, default_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default_home.touch()
    (sandbox / "redock").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sandbox))
    with pytest.raises(StateError, match="set REDOCK_HOME"):
        redock_home()


def test_the_directory_is_looked_for_once(
    default_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = _files.find_problem

    def look(directory: str, *, ours: bool) -> str:
        looked.append(directory)
        return real(directory, ours=ours)

    monkeypatch.setattr(_files, "find_problem", look)
    assert redock_home() == redock_home()
    assert len(looked) == 1
