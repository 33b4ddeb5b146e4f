"""Seeing what there is: lists, states, logs and processes of real machines."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from redock import __version__, _machines, api
from redock._engine import Engine
from redock._keeper import close_connection
from redock._listing import FIELDS
from redock._look import FIELDS as STATUS_FIELDS
from redock._parallel import call_all
from redock.api import Container
from redock.errors import InvalidName, NoContainerRunning, NotFound

from .conftest import REDOCK, REPOSITORY, Home, new_name, redock, ssh
from .harness import PATIENCE, act, run_inside, wait_for

STAND_INS = 50

#: A program for Supervisor that prints what nobody's terminal should see.
HOSTILE = r"""
cat >/usr/local/bin/talker <<'END'
#!/bin/sh
printf '\033]0;stolen\007plain \033[31mred\033[0m \033[2J\rend\n'
echo "to stderr" >&2
exec sleep 1000
END
chmod 755 /usr/local/bin/talker
printf '[program:talker]\ncommand = /usr/local/bin/talker\n' >/etc/supervisor/conf.d/talker.conf
supervisorctl update
"""


def row_of(name: str) -> dict[str, str]:
    """What the table says about a machine."""
    header, *lines = redock("list", "-a").stdout.splitlines()
    (line,) = [line for line in lines if line.split()[0] == name]
    starts = [header.index(word) for word in header.split()]
    ends: list[int | None] = [*starts[1:], None]
    return {
        header[start:end].strip(): line[start:end].strip()
        for start, end in zip(starts, ends, strict=True)
    }


def document(*arguments: str) -> dict[str, object]:
    """The only object that a command prints as JSON."""
    printed = json.loads(redock(*arguments, "--json").stdout)
    found = printed if isinstance(printed, dict) else printed[0]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def stand_ins(engine: Engine, base_image: str) -> Iterator[None]:
    """Many containers that look like machines, none of which was ever started."""

    def make(number: int) -> tuple[str, str]:
        instance = _machines.new_instance()
        config = _machines.configuration(
            name=f"{REPOSITORY}:stand-in-{number}",
            image=base_image,
            hostname=f"m{number}",
            alias=f"m{number}-{REPOSITORY}",
            instance=instance,
            port=33000 + number,
            version=__version__,
        )
        made = engine.create_container(f"{REPOSITORY}-stand-in-{number}", config)
        return made, _machines.volume_name(instance)

    made = call_all({str(number): number for number in range(STAND_INS)}, make, 4)
    yield
    for container, volume in made.values():
        engine.remove_container(container)
        engine.remove_volume(volume)


def test_states_are_told_as_they_are(home: Home, engine: Engine, container: Container) -> None:
    name = container.image.name
    row = row_of(name)
    assert (row["STATE"], row["ADDRESS"]) == ("running", f"127.0.0.1:{container.session.port}")
    assert "second" in row["UPTIME"] or "minute" in row["UPTIME"]
    assert row["BASE"] and not row["SAVED"]
    assert container.session.container_id
    engine.pause(container.session.container_id)
    assert (row_of(name)["STATE"], container.status().state) == ("paused", "paused")
    with pytest.raises(NoContainerRunning, match="paused"):
        container.processes(0.1)
    engine.pause(container.session.container_id, resume=True)
    container.commit("once")
    assert row_of(name)["SAVED"] == "1"
    assert container.status().commits == 1
    act(engine, container.session.container_id, "kill")
    row = row_of(name)
    assert row["STATE"] == "stopped" and row["UPTIME"].endswith("ago")
    status = container.status()
    assert (status.state, status.exit_status, status.memory) == ("stopped", 137, None)
    container.kill()
    assert row_of(name)["STATE"] == "saved"
    assert name not in redock("list", "-q").stdout.splitlines()
    container.delete()
    assert name not in redock("list", "-q", "-a").stdout.splitlines()


def test_json_has_the_documented_fields_and_true_values(home: Home, machine: Container) -> None:
    name = machine.image.name
    (listed,) = [each for each in api.list_machines(size=True) if each.name == name]
    assert tuple(listed.as_dict()) == FIELDS
    assert listed.memory and listed.memory > 1_000_000
    assert listed.disk is not None
    ssh(machine.ssh_alias, "head -c 5000000 /dev/urandom >/root/big && touch /root/a /root/b")
    status = document("status", name)
    assert tuple(status) == STATUS_FIELDS
    assert status["name"] == name
    assert status["alias"] == machine.ssh_alias
    assert status["ssh"] == f"ssh {machine.ssh_alias}"
    assert status["id"] == machine.session.container_id
    assert isinstance(status["disk"], int) and status["disk"] >= listed.disk + 5_000_000
    assert isinstance(status["changes"], int) and status["changes"] >= 3
    assert str(status["started"]) >= str(status["created"])
    assert status["exit_status"] is None


def test_status_knows_whether_a_connection_is_open(home: Home, machine: Container) -> None:
    assert ssh(machine.ssh_alias, "true").returncode == 0
    assert machine.status().connected
    assert machine.session.instance
    close_connection(machine.session.instance)
    assert not machine.status().connected
    assert "none is open" in redock("status", machine.image.name).stdout


def test_what_is_not_there_is_said_with_its_status(home: Home) -> None:
    missing = new_name()
    for arguments in (["status"], ["logs"], ["top", "-1"]):
        done = redock(*arguments, missing)
        assert (done.returncode, done.stdout) == (4, ""), done
        assert f"there is no machine {missing}" in done.stderr
    with pytest.raises(NotFound):
        Container(missing).status()


def test_fifty_machines_take_as_many_requests_as_one(
    home: Home, stand_ins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    begin = Engine.begin

    def count(self: Engine, method: str, path: str, *rest: object, **options: object) -> object:
        asked.append(path)
        return begin(self, method, path, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "begin", count)
    for size in (False, True):
        asked.clear()
        found = [each for each in api.list_machines(size=size) if "stand-in" in each.name]
        assert len(found) == STAND_INS
        assert sorted(asked) == ["/containers/json", "/images/json"]
    assert {each.state for each in found} == {"created"}


# Logs.


def test_the_log_of_a_machine_is_there_also_when_it_has_ended(
    home: Home, engine: Engine, container: Container
) -> None:
    name = container.image.name
    wait_for(lambda: "entered RUNNING" in redock("logs", name).stdout)
    assert len(redock("logs", name, "-n", "2").stdout.splitlines()) == 2
    assert container.session.container_id
    act(engine, container.session.container_id, "kill")
    assert "entered RUNNING" in redock("logs", name).stdout
    assert "entered RUNNING" in redock("logs", "-f", name).stdout
    done = redock("logs", name, "-n", "-1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_log_of_a_service_is_found_and_harmless(
    home: Home, engine: Engine, container: Container
) -> None:
    name = container.image.name
    assert ssh(container.ssh_alias, HOSTILE).returncode == 0
    expected = {"plain red end", "to stderr"}
    wait_for(lambda: expected <= set(redock("logs", name, "talker").stdout.splitlines()))
    assert "\x1b" not in redock("logs", name, "talker").stdout
    assert list(container.logs("sshd")) == []
    done = redock("logs", name, "nginx")
    assert (done.returncode, done.stdout) == (4, "")
    assert "no program nginx in this machine: there is sshd, talker" in done.stderr
    with pytest.raises(InvalidName):
        list(container.logs("../../etc/shadow"))
    assert container.session.container_id
    act(engine, container.session.container_id, "kill")
    assert expected <= set(container.logs("talker"))


def follow(*arguments: str) -> subprocess.Popen[str]:
    """Follow a log."""
    return subprocess.Popen(
        [*REDOCK, "logs", "-f", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("service", [[], ["talker"]], ids=["machine", "service"])
def test_following_ends_with_the_machine(
    home: Home, engine: Engine, container: Container, service: list[str]
) -> None:
    assert ssh(container.ssh_alias, HOSTILE).returncode == 0
    wait_for(lambda: "to stderr" in redock("logs", container.image.name, "talker").stdout)
    following = follow(container.image.name, *service)
    try:
        assert following.stdout is not None
        assert following.stdout.readline()
        container.kill()
        following.communicate(timeout=PATIENCE)
        assert following.returncode == 0
    finally:
        following.kill()
        following.communicate()


def test_following_goes_on_until_somebody_has_had_enough(
    home: Home, engine: Engine, machine: Container
) -> None:
    assert ssh(machine.ssh_alias, HOSTILE).returncode == 0
    name = machine.image.name
    wait_for(lambda: "to stderr" in redock("logs", name, "talker").stdout)
    following = follow(name, "-n", "1", "talker")
    try:
        assert following.stdout is not None
        assert following.stdout.readline()
        log = "/var/log/supervisor/talker-stdout---*.log"
        assert ssh(machine.ssh_alias, f"for f in {log}; do echo more >>$f; done").returncode == 0
        while following.stdout.readline() != "more\n":
            pass
        following.send_signal(signal.SIGINT)
        _, stderr = following.communicate(timeout=PATIENCE)
        assert (following.returncode, stderr) == (130, "")
    finally:
        following.kill()
        following.communicate()
    # Nothing goes on inside.
    wait_for(lambda: not [each for each in machine.processes(0.1) if "tail -q" in each.command])


# Processes.


def test_processes_are_those_inside_with_what_they_use(home: Home, machine: Container) -> None:
    assert machine.session.container_id
    run_inside(
        machine.engine,
        machine.session.container_id,
        *("sh", "-c", "useradd -m busy 2>/dev/null; setsid su busy -c 'exec yes' >/dev/null & :"),
    )
    wait_for(lambda: any(each.command == "yes" for each in machine.processes(0.1)))
    try:
        busiest = next(each for each in machine.processes(0.5) if each.command == "yes")
        assert busiest.user == "busy" and busiest.cpu > 5 and busiest.memory > 100_000
        assert not [each for each in machine.processes(0.1) if each.command.startswith("ps -ww")]
        lines = redock("top", machine.image.name).stdout.splitlines()
        assert lines[0].split() == ["PID", "USER", "CPU%", "MEMORY", "TIME", "COMMAND"]
        assert str(busiest.pid) in [line.split()[0] for line in lines if line.endswith(" yes")]
        (found,) = [
            each
            for each in json.loads(redock("top", "--json").stdout)
            if each["name"] == machine.image.name
        ]
        assert set(found) == {"name", "cpu", "memory", "processes"}
        assert found["memory"] > 1_000_000
        assert "yes" in [each["command"] for each in found["processes"]]
    finally:
        ssh(machine.ssh_alias, "pkill -x yes")


def test_top_on_a_terminal_is_refreshed_until_q(home: Home, machine: Container) -> None:
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        os.execv(REDOCK[0], [*REDOCK, "top", "-d", "0.5", machine.image.name])
    screen = b""

    def seen(text: bytes) -> Callable[[], bool]:
        def look() -> bool:
            nonlocal screen
            ready, _, _ = select.select([terminal], [], [], 0.1)
            if ready:
                # A terminal that nobody has open any more is an error to read.
                with contextlib.suppress(OSError):
                    screen += os.read(terminal, 65536)
            return screen.count(text) >= 2

        return look

    try:
        wait_for(seen(b"1 machine, CPU"))
        assert b"supervisord" in screen
        os.write(terminal, b"q")
        deadline = time.monotonic() + PATIENCE
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline
            seen(b"\0")()
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        child = 0
        # The screen as it was before comes back.
        wait_for(lambda: seen(b"\0")() or screen.endswith(b"\x1b[?25h\x1b[?1049l"))
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(terminal)


def test_one_that_fails_does_not_hide_the_others(home: Home, machine: Container) -> None:
    done = redock("top", "-1", machine.image.name, new_name())
    assert done.returncode == 4
    assert machine.image.name in done.stdout
    assert "there is no machine" in done.stderr


def test_names_are_completed_from_what_there_is(home: Home, machine: Container) -> None:
    name = machine.image.name
    lines = redock("--complete", "status", name[:-2]).stdout.splitlines()
    assert f"{name}\trunning" in lines
