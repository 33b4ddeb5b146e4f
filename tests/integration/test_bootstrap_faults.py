"""What redock.bootstrap says when something is wrong, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redock.api import Container
from redock.bootstrap import Bootstrap, run
from redock.errors import ConnectionFailed, InvalidName, OperationFailed, RedockError

from .conftest import Home, command, ssh
from .harness import wait_for

HOST, PORT = "127.0.0.1", 1


def children(parent: int) -> list[str]:
    """The command lines of all processes below a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                line = Path(f"/proc/{entry}/cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found += [line, *children(int(entry))]
    return found


def both(parent: int, machine: Container) -> list[str]:
    """The command lines of processes here, below one, and of all in a machine."""
    return children(parent) + ssh(machine.ssh_alias, "ps -eo args").stdout.splitlines()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After each of these tests no process of ours may be running."""
    yield
    deadline = time.monotonic() + 3
    while left := [line for line in children(os.getpid()) if "ssh" in line or "sleep" in line]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def add_host(home: Home, machine: Container, alias: str, **options: str) -> str:
    """Add another entry for a machine to the user's configuration."""
    host, port = machine.ssh_endpoint
    settings = {
        "HostName": host,
        "Port": str(port),
        "User": "root",
        "IdentityFile": str(home.redock / "ssh" / "id_ed25519"),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(home.path / "known_hosts"),
        "StrictHostKeyChecking": "no",
        **options,
    }
    lines = [f"Host {alias}", *(f"  {name} {value}" for name, value in settings.items())]
    with home.ssh_config.open("a") as config:
        config.write("\n".join(["", *lines, ""]))
    return alias


def fails(alias: str, cause: str, timeout: float = 10, **options: Any) -> str:
    """Connect in vain; the message of the error."""
    started = time.monotonic()
    with (
        pytest.raises(ConnectionFailed) as caught,
        Bootstrap(alias, timeout=timeout, **options) as host,
    ):
        host.read_file("/etc/hostname")
    assert caught.value.cause == cause, caught.value
    assert time.monotonic() - started < timeout + 1
    assert alias in str(caught.value)
    assert "hint:" in str(caught.value)
    assert isinstance(caught.value, RedockError)
    return str(caught.value)


def test_an_unreachable_host(home: Home, machine: Container) -> None:
    assert "refused" in fails(add_host(home, machine, "nobody", Port="1"), "refused")
    alias = add_host(home, machine, "unknown", HostName="does-not-exist.invalid")
    assert "does-not-exist.invalid" in fails(alias, "refused")


def test_a_host_that_does_not_answer(home: Home, machine: Container) -> None:
    alias = add_host(home, machine, "silent", ProxyCommand="sleep 300")
    assert "within 1 seconds" in fails(alias, "timeout", timeout=1)


@pytest.fixture(scope="module")
def other_key(home: Home) -> Path:
    """A key that nobody knows."""
    key = home.path / "other-key"
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key), check=True)
    return key


def test_a_refused_key(home: Home, machine: Container, other_key: Path) -> None:
    alias = add_host(home, machine, "stranger", IdentityFile=str(other_key))
    assert "Permission denied" in fails(alias, "authentication")


def test_a_changed_host_key(home: Home, machine: Container, other_key: Path) -> None:
    key = other_key.with_suffix(".pub").read_text().split()[:2]
    host, port = machine.ssh_endpoint
    known = home.path / "other-known-hosts"
    known.write_text(f"[{host}]:{port} {' '.join(key)}\n")
    alias = add_host(
        home,
        machine,
        "imposter",
        UserKnownHostsFile=str(known),
        StrictHostKeyChecking="yes",
        HostKeyAlgorithms="ssh-ed25519",
    )
    assert "Host key verification failed" in fails(alias, "host-key")


def test_no_python(machine: Container) -> None:
    said = fails(machine.ssh_alias, "no-python", python="python3.99")
    assert "python3.99" in said


def inside(machine: Container, script: str) -> None:
    """Run a script in a machine that nobody can log in to properly."""
    found = machine._find_machine()
    assert found is not None
    done = command("docker", "exec", found.id, "sh", "-c", script)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def login_script(machine: Container) -> Iterator[Callable[[str], None]]:
    """Put a line at the beginning of root's login script."""
    inside(machine, "cp /root/.bashrc /root/saved")

    def put(line: str) -> None:
        inside(machine, f"{{ echo '{line}'; cat /root/saved; }} > /root/.bashrc")

    yield put
    inside(machine, "mv /root/saved /root/.bashrc")


@pytest.mark.parametrize("line", ["echo Welcome!", "printf unfinished", "yes"])
def test_a_login_script_that_prints(
    machine: Container, login_script: Callable[[str], None], line: str
) -> None:
    login_script(line)
    said = fails(machine.ssh_alias, "noisy-shell")
    assert line.split()[-1].replace("yes", "y") in said


def test_a_login_script_that_complains(
    machine: Container, login_script: Callable[[str], None]
) -> None:
    login_script("echo error >&2")
    with Bootstrap(machine.ssh_alias) as host:
        assert host.facts.os_id == "debian"


def test_a_login_script_that_hangs(machine: Container, login_script: Callable[[str], None]) -> None:
    login_script("sleep 300")
    fails(machine.ssh_alias, "timeout", timeout=1.5)


def test_sudo_that_asks(machine: Container, home: Home) -> None:
    with Bootstrap(machine.ssh_alias) as host:
        host.packages("sudo")
        host.user("plain", shell="/bin/bash", password_hash="*")
        host.execute(
            "mkdir -p /home/plain/.ssh; cp /etc/redock/ssh/authorized_keys /home/plain/.ssh/;"
            " chown -R plain: /home/plain/.ssh"
        )
    alias = add_host(home, machine, "plain", User="plain")
    assert "sudo" in fails(alias, "sudo", sudo=True)
    with Bootstrap(machine.ssh_alias) as host:
        host.file(
            "/etc/sudoers.d/plain",
            "plain ALL=(ALL) NOPASSWD: ALL\n",
            mode=0o440,
            validate="visudo -cf %s",
        )
    with Bootstrap(alias, sudo=True) as host:
        assert host.facts.user == "root"
        assert host.file("/root/by-sudo", "x").changed
        assert host.execute("id -un", capture=True).stdout == "root\n"
    with Bootstrap(alias) as host:
        assert host.facts.user == "plain"
        with pytest.raises(PermissionError, match="Permission denied"):
            host.file("/root/not-by-plain", "x")
    with Bootstrap("plain@" + add_host(home, machine, "rootly")) as host:
        assert host.facts.user == "plain"


def test_a_connection_that_dies(machine: Container) -> None:
    with Bootstrap(machine.ssh_alias, timeout=20) as host:
        pid = host.call(own_pid)
        thread = threading.Timer(0.5, ssh, (machine.ssh_alias, f"kill -9 {pid}"))
        thread.start()
        started = time.monotonic()
        with pytest.raises(ConnectionFailed) as caught:
            host.execute("echo last words; sleep 300")
        thread.join()
        assert caught.value.cause == "lost"
        assert "execute echo last words" in str(caught.value)
        assert machine.ssh_alias in str(caught.value)
        assert time.monotonic() - started < 4
        # The next operation connects again.
        assert host.read_file("/etc/hostname")


def test_a_connection_that_dies_during_a_large_upload(machine: Container) -> None:
    with Bootstrap(machine.ssh_alias, timeout=20) as host:
        host.file("/srv/upload", "before")
        pid = host.call(own_pid)
        thread = threading.Timer(0.3, ssh, (machine.ssh_alias, f"kill -9 {pid}"))
        thread.start()
        with pytest.raises(ConnectionFailed) as caught:
            while True:
                host.upload_file("/srv/upload", os.urandom(8_000_000))
        thread.join()
        assert caught.value.cause == "lost"
        content = host.read_file("/srv/upload")
        assert content is not None
        assert len(content) in (6, 8_000_000)


def own_pid() -> int:
    import os

    return os.getpid()


def test_a_hang(machine: Container) -> None:
    with Bootstrap(machine.ssh_alias) as host:
        pid = host.call(own_pid)
        host.timeout = 1.0
        ssh(machine.ssh_alias, f"kill -STOP {pid}")
        started = time.monotonic()
        with pytest.raises(ConnectionFailed) as caught:
            host.read_file("/etc/hostname")
        assert time.monotonic() - started < 2
        assert caught.value.cause == "timeout"
        assert "read_file /etc/hostname" in str(caught.value)
        ssh(machine.ssh_alias, f"kill -9 {pid}")


def test_a_hang_while_sending(machine: Container) -> None:
    with Bootstrap(machine.ssh_alias) as host:
        pid = host.call(own_pid)
        host.timeout = 1.0
        ssh(machine.ssh_alias, f"kill -STOP {pid}")
        started = time.monotonic()
        with pytest.raises(ConnectionFailed) as caught, host.batch():
            for number in range(200):
                host.file(f"/srv/{number}", "x" * 200_000)
        assert time.monotonic() - started < 3
        assert caught.value.cause == "timeout"
        ssh(machine.ssh_alias, f"kill -9 {pid}")


def test_an_interrupt_ends_the_connection(machine: Container) -> None:
    script = (
        "from redock.bootstrap import Bootstrap\n"
        f"Bootstrap({machine.ssh_alias!r}).execute('echo ready; sleep 60')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(2)
    _, errors = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", ["host.execute('sleep 57')", "host.rsync('.', '/srv/copy')"])
def test_an_interrupt_ends_what_goes_on_at_several_hosts_and_begins_no_other(
    machine: Container, home: Home, tmp_path: Path, work: str, number: signal.Signals
) -> None:
    aliases = [machine.ssh_alias, f"root@{machine.ssh_alias}"]
    aliases += [add_host(home, machine, f"queued{each}") for each in (1, 2, 3)]
    # A copy that takes its time.
    slow = tmp_path / "bin" / "rsync"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 57\n")
    slow.chmod(0o755)
    script = tmp_path / "script.py"
    script.write_text(
        "def provision(host):\n"
        "    host.file('/srv/first', 'x')\n"
        f"    open('begun-' + host.ssh_alias, 'w').close()\n"
        f"    {work}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "redock", "provision", "-j2", *aliases, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": f"{slow.parent}:{os.environ['PATH']}",
        },
    )
    wait_for(lambda: len(list(tmp_path.glob("begun-*"))) == 2)
    wait_for(lambda: sum("sleep 57" in line for line in both(process.pid, machine)) >= 2)
    time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == "redock: interrupted; run the same command again to finish"
    assert "Traceback" not in errors
    assert len(list(tmp_path.glob("begun-*"))) == 2
    wait_for(lambda: not [line for line in both(1, machine) if "sleep 57" in line])


@pytest.mark.parametrize(
    "alias",
    [
        "-oProxyCommand=touch${IFS}MARKER",
        "-F/dev/null",
        "--",
        "-",
        "",
        " ",
        "a b",
        "a\nb",
        "a//b",
        "a//python=touch",
        "host\0",
        "a\tb",
        "user@-oProxyCommand=x",
        "-x@host",
        "host;touch x",
        "$(touch x)",
        "\u00fc",
        "a\n",
    ],
)
def test_aliases_that_could_be_something_else(
    alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    with pytest.raises(InvalidName):
        Bootstrap(alias)
    with pytest.raises(InvalidName):
        run(lambda host: host.facts, "fine", alias)
    assert started == []
    assert os.listdir(tmp_path) == []


TORTURE = r"""
import os, random, signal, sys, time, zlib
sys.path.insert(0, "/srv")
from redock._remote._files import op_file
from redock._remote._world import World
random.seed(1)
path = b"/srv/torn/file"
os.makedirs("/srv/torn", exist_ok=True)
contents = [os.urandom(size) for size in (65536, 262144, 1 << 20, 8 << 20)]
sums = {zlib.crc32(content) for content in contents}
op_file(World(None), path, contents[0])
killed = torn = left = 0
while killed < int(sys.argv[1]):
    content = random.choice(contents)
    child = os.fork()
    if child == 0:
        world = World(None)
        op_file(world, path, content, mode=random.choice((0o600, 0o644)))
        os._exit(0)
    time.sleep(random.random() * 0.003 + len(content) / 8e8 * random.random())
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
    left += len(os.listdir("/srv/torn")) > 1
    with open(path, "rb") as handle:
        torn += zlib.crc32(handle.read()) not in sums
op_file(World(None), path, b"the end")
print(killed, torn, left, len(os.listdir("/srv/torn")))
"""


def test_killed_in_the_middle_of_writing(machine: Container) -> None:
    import redock

    assert redock.__file__ is not None
    remote = Path(redock.__file__).parent / "_remote"
    with Bootstrap(machine.ssh_alias) as host:
        host.upload_file("/srv/redock/__init__.py", "")
        host.rsync(remote, "/srv/redock/_remote")
        host.file("/srv/torture.py", TORTURE)
        result = host.execute("python3", "-B", "/srv/torture.py", "500", capture=True, timeout=300)
    killed, torn, left, files = map(int, result.stdout.split())
    assert killed >= 500
    assert torn == 0
    # Some were killed between creating and renaming, and the next run tidied up after them.
    assert left > 10
    assert files == 1


def test_an_owed_restart_is_not_lost(machine: Container) -> None:
    program = "[program:{}]\ncommand = sleep 1000\nstartsecs = 0\n"

    def provision(host: Bootstrap, version: int, *, die: bool = False) -> bool:
        conf = host.file("/etc/supervisor/conf.d/owed.conf", program.format("owed"))
        data = host.file("/srv/owed.conf", f"version {version}\n")
        if die:
            os._exit(9)
        return bool(host.service("owed", restart_if=[conf, data]))

    with Bootstrap(machine.ssh_alias) as host:
        assert provision(host, 0)
        assert not provision(host, 0)
    for version in range(1, 4):
        child = os.fork()
        if child == 0:
            try:
                provision(Bootstrap(machine.ssh_alias), version, die=True)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 9
        with Bootstrap(machine.ssh_alias) as host:
            before = host.execute("supervisorctl pid owed", capture=True).stdout
            assert provision(host, version), version
            assert host.execute("supervisorctl pid owed", capture=True).stdout != before
            assert not provision(host, version)


def test_failures_name_host_operation_and_command(machine: Container) -> None:
    with Bootstrap(machine.ssh_alias) as host, pytest.raises(OperationFailed) as caught:
        host.command("seq 100; echo the reason >&2; exit 4")
    said = str(caught.value)
    assert machine.ssh_alias in said
    assert "command seq 100" in said
    assert "exited with status 4" in said
    assert "the reason" in said
    assert "\n50\n" not in said


def test_python_is_installed_where_it_is_missing(
    make_machine: Callable[[str], Container],
) -> None:
    bare = make_machine("bare")
    purge = (
        "export DEBIAN_FRONTEND=noninteractive; apt-get -q -y purge python3-minimal"
        " python3.11-minimal libpython3.11-minimal"
    )
    done = ssh(bare.ssh_alias, purge, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ssh(bare.ssh_alias, "command -v python3").returncode != 0
    assert "not found" in fails(bare.ssh_alias, "no-python", dry_run=True)
    ssh(bare.ssh_alias, "mv /usr/bin/apt-get /usr/bin/apt-got")
    assert "no apt-get" in fails(bare.ssh_alias, "no-python")
    ssh(bare.ssh_alias, "mv /usr/bin/apt-got /usr/bin/apt-get")
    done = ssh(
        bare.ssh_alias, "apt-get -q update && apt-get -q -y install python3-minimal", timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search("No module named", fails(bare.ssh_alias, "incomplete-python", dry_run=True))
    with Bootstrap(bare.ssh_alias) as host:
        assert host.packages("python3").changed is False
        assert host.execute("command -v rsync", capture=True).ok
        host.packages("rsync", state="absent")
        assert host.rsync(Path(__file__).parent, "/srv/tests").changed
        assert host.packages("rsync").changed is False
