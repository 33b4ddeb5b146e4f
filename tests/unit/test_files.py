"""redock's own files: never torn, never lost, private whatever the umask."""

from __future__ import annotations

import os
import random
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redock._files import Lock, atomic_write, collect_strays, ensure_directory, redock_home
from redock.errors import LockTimeout, SettingsError, StateError

from .conftest import use_home

ROUNDS = 150


def test_a_killed_writer_never_leaves_a_torn_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    contents = [bytes([number]) * 40_000 for number in (65, 66)]
    atomic_write(str(target), contents[0])
    chance = random.Random(1)
    for _ in range(ROUNDS):
        child = os.fork()
        if not child:
            while True:
                for each in contents:
                    atomic_write(str(target), each)
        time.sleep(chance.uniform(0.001, 0.008))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert target.read_bytes() in contents
    collect_strays(str(tmp_path))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        directory = ensure_directory(str(tmp_path / "a" / "b"))
        atomic_write(f"{directory}/file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{directory}/file").st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o700


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    child = os.fork()
    if not child:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            atomic_write(str(target), b"x" * 5000)
        except StateError as error:
            os._exit(0 if str(target) in str(error) and "large" in str(error) else 2)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_lock_is_taken_over_at_once_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    holder = hold(path)
    with pytest.raises(LockTimeout, match=str(holder.pid)):
        Lock(path, "the thing", timeout=0.2).acquire()
    holder.kill()
    holder.communicate()
    with Lock(path, "the thing", timeout=5):
        pass


def test_a_stopped_holder_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    holder = hold(path)
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LockTimeout, match=f"the thing .*process {holder.pid}"):
            Lock(path, "the thing", timeout=0.2).acquire()
    finally:
        holder.kill()
        holder.communicate()


def hold(path: str) -> subprocess.Popen[str]:
    """Start a process that holds a lock."""
    program = (
        "import sys, time; from redock._files import Lock\n"
        f"with Lock({path!r}, 'it'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_programs_started_meanwhile_do_not_keep_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with Lock(path, "it"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        with Lock(path, "it", timeout=1):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(StateError):
        Lock(str(tmp_path / "lock"), "it").acquire()
    assert not target.exists()


@pytest.mark.parametrize("value", ["relative", "/tmp/a\nb", '/tmp/a"b', "/dev/null/x", "/tmp/a\\b"])
def test_a_redock_home_that_cannot_be_used(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_HOME", value)
    with pytest.raises(SettingsError, match="REDOCK_HOME"):
        redock_home()


def test_a_home_that_ssh_cannot_read_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / 'a"b'
    home.mkdir()
    use_home(home, monkeypatch)
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert redock_home() == str(runtime / "redock")
    assert not list(home.iterdir())


def test_a_home_others_may_read_is_closed(home: Path) -> None:
    (home / ".redock").mkdir(mode=0o755)
    assert stat.S_IMODE(os.stat(redock_home()).st_mode) == 0o700
