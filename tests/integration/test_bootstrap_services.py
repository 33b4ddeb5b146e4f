"""Services: Supervisor, the scripts of System V, and systemd."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from redock._engine import KIND, Engine, label
from redock.api import Container
from redock.bootstrap import Bootstrap, Change
from redock.errors import OperationFailed

from .conftest import REPOSITORY, Home, ssh
from .harness import wait_for
from .test_bootstrap_hosts import add_entry, address_of, pin

PROGRAM = "[program:{0}]\ncommand = {1}\nstartsecs = {2}\n{3}"


@pytest.fixture(scope="module")
def host(machine: Container) -> Iterator[Bootstrap]:
    with Bootstrap(machine.ssh_alias) as host:
        yield host


def pid_of(host: Bootstrap, name: str) -> int:
    return int(host.execute("supervisorctl", "pid", name, capture=True).stdout)


def configure(
    host: Bootstrap, name: str, command: str = "sleep 1000", more: str = "", seconds: int = 0
) -> Change:
    path = f"/etc/supervisor/conf.d/{name}.conf"
    return host.file(path, PROGRAM.format(name, command, seconds, more))


def test_supervisor_starts_stops_and_restarts(host: Bootstrap) -> None:
    configure(host, "one")
    assert host.service("one").changes == {"state": ("stopped", "running")}
    assert host.service("one").changed is False
    pid = pid_of(host, "one")
    assert host.service("one", "restarted").changed
    assert pid_of(host, "one") != pid
    assert host.service("one", "stopped").changes == {"state": ("running", "stopped")}
    assert host.service("one", "stopped").changed is False
    assert host.service("one", "restarted").changes["state"] == ("stopped", "running")


def test_supervisor_takes_in_a_changed_program(host: Bootstrap) -> None:
    conf = configure(host, "two", "sleep 1001")
    host.service("two", restart_if=[conf])
    conf = configure(host, "two", "sleep 1002")
    assert host.service("two", restart_if=[conf]).changed
    command = host.execute(f"tr '\\0' ' ' < /proc/{pid_of(host, 'two')}/cmdline", capture=True)
    assert command.stdout == "sleep 1002 "
    assert host.service("two", restart_if=[conf.target]).changed is False


def test_restart_because_of_a_newer_file(host: Bootstrap) -> None:
    configure(host, "three")
    host.file("/srv/three.conf", "1")
    host.service("three", restart_if="/srv/three.conf")
    pid = pid_of(host, "three")
    for _ in range(3):
        assert host.service("three", restart_if="/srv/three.conf").changed is False
    # An old time of modification does not hide a change.
    host.execute("echo 2 > /srv/three.conf; touch -d 2001-01-01 /srv/three.conf")
    change = host.service("three", restart_if="/srv/three.conf")
    assert change.changes == {"restart": (None, "because of /srv/three.conf")}
    assert pid_of(host, "three") != pid
    assert host.service("three", restart_if="/srv/three.conf").changed is False


def test_reload_is_remembered(host: Bootstrap) -> None:
    trap = "bash -c \"trap 'echo hup >> /srv/hups' HUP; while true; do sleep 0.1; done\""
    configure(host, "four", trap)
    host.file("/srv/four.conf", "1")
    host.service("four", restart_if="/srv/four.conf", reload=True)
    time.sleep(0.3)
    pid = pid_of(host, "four")
    host.file("/srv/four.conf", "2")
    assert host.service("four", restart_if="/srv/four.conf", reload=True).changed
    assert host.service("four", restart_if="/srv/four.conf", reload=True).changed is False
    time.sleep(0.3)
    assert host.service("four", "reloaded").changed
    time.sleep(0.5)
    assert pid_of(host, "four") == pid
    assert host.read_file("/srv/hups") == b"hup\nhup\n"


def test_a_program_that_does_not_start(host: Bootstrap) -> None:
    configure(host, "five", "sh -c 'echo the reason >&2; exit 1'", "startretries = 0\n", 1)
    with pytest.raises(OperationFailed, match="the reason"):
        host.service("five")


def test_enabled_is_read_from_supervisor(host: Bootstrap) -> None:
    configure(host, "six", more="autostart = false\n")
    host.service("six")
    assert host.service("six", enabled=False).changed is False
    with pytest.raises(OperationFailed, match="autostart"):
        host.service("six", enabled=True)


def test_supervisor_is_waited_for_when_it_comes_after_sshd(
    make_machine: Callable[[str], Container],
) -> None:
    # The operations may be there before it is: a machine answers as soon as sshd does.
    late = make_machine("late")
    script = '#!/bin/sh\nsleep 3\nexec /usr/lib/redock/supervisord.real "$@"\n'
    with Bootstrap(late.ssh_alias) as host:
        host.execute("mv /usr/lib/redock/supervisord /usr/lib/redock/supervisord.real")
        host.file("/usr/lib/redock/supervisord", script, mode=0o755)
        host.file("/etc/supervisor/conf.d/late.conf", "[program:late]\ncommand = sleep 1000\n")
    assert late.session.container_id
    late.engine.restart_container(late.session.container_id, 0)
    late.start()
    with Bootstrap(late.ssh_alias) as host:
        assert host.execute("test -S /run/supervisor.sock", check=False, capture=True).returncode
        host.service("late")
        said = host.execute("supervisorctl status late", capture=True).stdout
        assert "RUNNING" in said or "STARTING" in said


def test_nobody_knows_the_service(host: Bootstrap) -> None:
    with pytest.raises(OperationFailed, match="neither Supervisor nor"):
        host.service("no-such-service")


def test_scripts_of_system_v(host: Bootstrap) -> None:
    host.packages("cron")
    config = host.file("/etc/cron.d/example", "# nothing\n")
    assert host.service("cron", restart_if=[config], enabled=True).changed
    assert host.service("cron", restart_if=[config.target], enabled=True).changed is False
    pid = host.read_file("/run/crond.pid")
    host.file("/etc/cron.d/example", "# nothing yet\n")
    # The change is not given: the file is newer than the process.
    assert host.service("cron", restart_if="/etc/cron.d/example").changed
    assert host.read_file("/run/crond.pid") != pid
    assert host.service("cron", restart_if="/etc/cron.d/example").changed is False
    assert host.service("cron", enabled=False).changes == {"enabled": (True, False)}
    assert host.service("cron", enabled=False).changed is False
    assert host.service("cron", "stopped").changed
    assert host.service("cron", "stopped").changed is False


SCRIPT = """\
#!/bin/sh
NAME=example
DAEMON=/bin/sleep
PIDFILE=/run/$NAME.pid
case $1 in
status)
    echo asked >>/srv/asked
    test "$(readlink "/proc/$(cat $PIDFILE)/exe")" = "$(readlink -f $DAEMON)"
    ;;
start) start-stop-daemon -S --background --make-pidfile --pidfile $PIDFILE --exec $DAEMON 1000 ;;
stop) start-stop-daemon -K --pidfile $PIDFILE ;;
esac
"""


def test_a_script_is_asked_unless_its_pid_file_is_right(host: Bootstrap) -> None:
    host.file("/etc/init.d/example", SCRIPT, mode=0o755)
    assert host.service("example").changed
    host.file("/srv/asked", state="absent")
    assert host.service("example").changed is False
    assert host.read_file("/srv/asked") is None
    pid = host.read_file("/run/example.pid")
    # Another process has the number now, or nobody: only the script can tell.
    for wrong in ("1\n", "999999\n", "nonsense\n"):
        host.file("/run/example.pid", wrong)
        assert host.service("example").changed
        assert host.read_file("/srv/asked")
        assert host.read_file("/run/example.pid") not in (pid, wrong.encode())
    host.execute("pkill -x sleep")
    assert host.service("example").changed
    assert host.service("example", "stopped").changed
    assert host.service("example", "stopped").changed is False


def test_an_upgraded_package_restarts(host: Bootstrap) -> None:
    package = host.packages("cron")
    host.service("cron", restart_if=[package])
    assert host.service("cron", restart_if=[package]).changed is False
    host.execute("apt-get -q -y install --reinstall cron", capture=True)
    assert host.service("cron", restart_if=[package]).changed
    assert host.service("cron", restart_if=[package]).changed is False


UNIT = """\
[Unit]
Description = An example
[Service]
ExecStartPre = /bin/sh -c '{}'
ExecStart = /bin/sleep {}
ExecReload = /bin/touch /srv/reloaded
[Install]
WantedBy = multi-user.target
"""


@pytest.fixture(scope="module")
def systemd(
    home: Home, engine: Engine, make_machine: Callable[[str], Container]
) -> Iterator[Bootstrap]:
    """The disk of a machine, booted by systemd in the place of Supervisor."""
    machine = make_machine("systemd")
    with Bootstrap(machine.ssh_alias) as host:
        host.packages("systemd", "dbus")
        host.execute("systemctl disable supervisor && systemctl enable ssh", capture=True)
    assert machine.session.container_id
    image = engine.commit(machine.session.container_id, REPOSITORY, "systemd")
    # Where there are cgroups of the first version, those of systemd are all it needs to change.
    first = "/sys/fs/cgroup/systemd"
    cgroups = first if os.path.isdir(first) else "/sys/fs/cgroup"
    container = engine.create_container(
        f"{REPOSITORY}-systemd",
        {
            "Image": image,
            "Entrypoint": [],
            "Cmd": ["/lib/systemd/systemd"],
            "Labels": {KIND: "test", label("port"): ""},
            "HostConfig": {
                "Binds": [f"{cgroups}:{cgroups}:rw"],
                "CgroupnsMode": "host",
                "CapAdd": ["SYS_ADMIN"],
                "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
                "Tmpfs": {"/run": "", "/run/lock": ""},
                # The host key, and who may log in.
                "VolumesFrom": [machine.session.container_id],
            },
        },
    )
    try:
        engine.begin_start(container).result()
        add_entry(
            home,
            "Host systemd.example",
            f"HostName {address_of(engine, container)}",
            "User root",
            "HostKeyAlias systemd",
            f"UserKnownHostsFile {pin(home, machine, 'systemd')}",
            "StrictHostKeyChecking yes",
            f"IdentityFile {home.redock}/ssh/id_ed25519",
        )
        wait_for(lambda: ssh("systemd.example", "true").returncode == 0)
        with Bootstrap("systemd.example") as host:
            yield host
    finally:
        engine.remove_container(container)
        engine.remove_image(image, force=True)


def write_unit(host: Bootstrap, name: str, seconds: int, before: str = "true") -> Change:
    path = f"/etc/systemd/system/{name}.service"
    return host.file(path, UNIT.format(before, seconds))


def words_of(host: Bootstrap, name: str) -> str:
    """The command line of the unit's main process."""
    script = f"tr '\\0' ' ' </proc/$(systemctl show --value -p MainPID {name})/cmdline"
    return host.execute(script, capture=True).stdout.strip()


def test_units_of_systemd(systemd: Bootstrap) -> None:
    host = systemd
    assert host.facts.init == "systemd"
    unit = write_unit(host, "example", 1000)
    change = host.service("example", enabled=True, restart_if=[unit])
    assert change.changes == {"state": ("stopped", "running"), "enabled": (False, True)}
    assert host.service("example", enabled=True, restart_if=[unit.target]).changed is False
    # A changed file is taken in without another word, whether or not its change is given.
    unit = write_unit(host, "example", 1001)
    assert host.service("example", restart_if=[unit]).changed
    assert words_of(host, "example") == "/bin/sleep 1001"
    write_unit(host, "example", 1002)
    assert host.service("example", restart_if=[unit.target]).changed
    assert host.service("example", restart_if=[unit.target]).changed is False
    assert words_of(host, "example") == "/bin/sleep 1002"
    assert host.service("example", "reloaded").changed
    assert host.stat("/srv/reloaded") is not None
    assert words_of(host, "example") == "/bin/sleep 1002"
    assert host.service("example", "restarted").changed
    assert host.service("example", "stopped", enabled=False).changes == {
        "state": ("running", "stopped"),
        "enabled": (True, False),
    }
    assert host.service("example", "stopped", enabled=False).changed is False


def test_a_unit_that_does_not_start(systemd: Bootstrap) -> None:
    write_unit(systemd, "broken", 1000, "echo the reason >&2; exit 1")
    with pytest.raises(OperationFailed, match="the reason"):
        systemd.service("broken")


def test_a_unit_that_nobody_knows(systemd: Bootstrap) -> None:
    with pytest.raises(OperationFailed, match="neither Supervisor nor"):
        systemd.service("no-such-unit")
