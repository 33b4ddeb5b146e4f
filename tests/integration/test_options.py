"""What machines are started with, on the real engine and through the real ssh."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redock import _machines
from redock._engine import Engine, label
from redock._links import Port
from redock._options import Options
from redock.api import Container
from redock.errors import ContainerDied, PortUnavailable, RedockError
from redock.utils import find_local_ip_addresses

from .conftest import REPOSITORY, Home, command, new_name, redock, ssh
from .harness import (
    assert_exactly_one,
    assert_nothing_left,
    assert_one_line,
    containers_of,
    make_image,
    volumes_of,
    wait_for,
)

UID = 1500
#: A value that is hard to quote, and easy to find where it should not be.
SECRET = 'it\'s "5ecret" $HOME `id` \\ #%s'
#: The same in other shapes would not be found, so this is what is searched for.
MARK = "5ecret"


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(address: str, port: int) -> bool:
    """Check whether somebody answers on a port with what the machine serves."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), 5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP/1.0 200")
    return False


SERVE = """\
[program:web]
command = python3 -m http.server --directory /srv 8000
[program:environment]
command = sh -c 'env -0 >/run/seen; exec sleep infinity'
"""


class Equipped:
    """A machine that was started with everything there is."""

    def __init__(self, folder: Path, network: str, volume: str) -> None:
        self.name = new_name("equipped")
        self.folder = folder
        self.network = network
        self.volume = volume
        self.port = free_port()
        self.container = Container(self.name)
        self.alias = self.container.ssh_alias

    def start(self) -> None:
        """Start it from the command line and give it something to serve."""
        done = redock(
            "start",
            *("--publish", f"{self.port}:8000"),
            *("--volume", f"{self.folder}:/home/sam/src/project"),
            *("-V", f"{self.volume}:/var/lib/data", "-V", f"{self.folder}:/srv/read-only:ro"),
            *(
                f"--user=sam:{UID}:{UID}",
                "--env",
                f"TOKEN={SECRET}",
                "-e",
                "FROM_HERE",
                "-e",
                "NO=",
            ),
            *("--memory", "256m", "--cpus", "0.5", "--network", self.network),
            *("--restart", "unless-stopped", self.name),
            env={"FROM_HERE": "from here"},
        )
        assert (done.returncode, done.stdout) == (0, f"ssh {self.alias}\n"), done
        script = "cat >/etc/supervisor/conf.d/test.conf && supervisorctl update"
        subprocess.run(
            ["ssh", f"root@{self.alias}", script], input=SERVE, text=True, check=True, timeout=60,
            capture_output=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def network(engine: Engine) -> Iterator[str]:
    name = f"{REPOSITORY}-network"
    engine.create_network(name, {"Driver": "bridge"})
    yield name
    engine.remove_network(name)


@pytest.fixture(scope="module")
def equipped(
    home: Home, engine: Engine, network: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Equipped]:
    folder = tmp_path_factory.mktemp("project")
    os.chown(folder, UID, UID)
    machine = Equipped(folder, network, f"{REPOSITORY}-data")
    try:
        machine.start()
        yield machine
    finally:
        with contextlib.suppress(RedockError):
            Container(machine.name).kill()
        engine.remove_volume(machine.volume)


def test_the_port_is_on_the_loopback_interface_and_nowhere_else(equipped: Equipped) -> None:
    wait_for(lambda: listens("127.0.0.1", equipped.port))
    for address in find_local_ip_addresses():
        assert not listens(address, equipped.port), address


def test_the_user_has_a_home_a_shell_and_sudo(equipped: Equipped) -> None:
    done = ssh(equipped.alias, "id -u; id -g; id -un; pwd; echo $SHELL; stat -c %u ~ ~/src; ls -A")
    assert done.stdout.split()[:7] == [
        str(UID), str(UID), "sam", "/home/sam", "/bin/bash", str(UID), str(UID),
    ]  # fmt: skip
    assert ".bashrc" in done.stdout
    assert ssh(equipped.alias, "sudo -n id -u").stdout == "0\n"
    # Over the same alias, and not over the same connection.
    assert ssh(f"root@{equipped.alias}", "id -u").stdout == "0\n"
    assert ssh(equipped.alias, "id -u").stdout == f"{UID}\n"
    assert ssh(equipped.alias, "touch ~/src/mine && stat -c %u ~/src/mine").stdout == f"{UID}\n"


def test_files_of_a_mounted_folder_belong_to_the_same_user_on_both_sides(
    equipped: Equipped,
) -> None:
    done = ssh(equipped.alias, "cd src/project && echo inside >written && stat -c %u .")
    assert done.stdout == f"{UID}\n", done
    assert (equipped.folder / "written").stat().st_uid == UID
    assert (equipped.folder / "written").read_text() == "inside\n"
    # Nothing was given away on the host.
    assert (equipped.folder.stat().st_uid, equipped.folder.parent.stat().st_uid) == (
        UID,
        os.getuid(),
    )
    assert ssh(equipped.alias, "cat /srv/read-only/written").stdout == "inside\n"
    done = ssh(f"root@{equipped.alias}", "touch /srv/read-only/x")
    assert done.returncode != 0 and "Read-only" in done.stderr


def test_variables_are_seen_by_commands_logins_and_programs(equipped: Equipped) -> None:
    expected = {f"TOKEN={SECRET}", "FROM_HERE=from here", "NO="}
    done = ssh(equipped.alias, "env -0")
    assert expected <= set(done.stdout.split("\0"))
    assert expected <= set(ssh(f"root@{equipped.alias}", "env -0").stdout.split("\0"))
    login = subprocess.run(
        ["ssh", "-tt", equipped.alias], input='printf "<%s>\\n" "$TOKEN"\nexit\n',
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert f"<{SECRET}>" in login.stdout
    wait_for(lambda: ssh(f"root@{equipped.alias}", "test -s /run/seen").returncode == 0)
    assert expected <= set(ssh(f"root@{equipped.alias}", "cat /run/seen").stdout.split("\0"))


def test_the_kernel_knows_the_limits(equipped: Equipped) -> None:
    script = "cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert ssh(equipped.alias, f"({script}) 2>/dev/null").stdout == f"{256 << 20}\n"
    script = (
        "cat /sys/fs/cgroup/cpu.max || paste -d' ' /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
        " /sys/fs/cgroup/cpu/cpu.cfs_period_us"
    )
    quota, period = map(int, ssh(equipped.alias, f"({script}) 2>/dev/null").stdout.split())
    assert quota / period == 0.5


def test_machines_of_a_network_find_each_other_by_name(
    equipped: Equipped, remove_machine: Callable[[str], None]
) -> None:
    other = Container(new_name("neighbour"), options=Options(networks=[equipped.network]))
    remove_machine(other.image.name)
    other.start()
    hostname = equipped.container.hostname
    for name in (hostname, equipped.alias):
        done = ssh(other.ssh_alias, f"getent hosts {name}")
        assert done.returncode == 0 and done.stdout, done
    script = f"echo | timeout 20 bash -c 'exec 3<>/dev/tcp/{hostname}/22; head -c 4 <&3'"
    assert ssh(other.ssh_alias, script).stdout == "SSH-"


def test_the_engine_gives_the_options_as_plain_values(equipped: Equipped, engine: Engine) -> None:
    (listed,) = containers_of(engine, equipped.name)
    described = engine.inspect_container(listed["Id"])
    assert _machines.options_of(described).as_dict() == {
        "ports": [f"127.0.0.1:{equipped.port}:8000/tcp"],
        "volumes": [
            f"{equipped.folder}:/home/sam/src/project",
            f"{equipped.volume}:/var/lib/data",
            f"{equipped.folder}:/srv/read-only:ro",
        ],
        "user": f"sam:{UID}:{UID}:/home/sam:/bin/bash",
        "env": ["FROM_HERE", "NO", "TOKEN"],
        "memory": 256 << 20,
        "cpus": 0.5,
        "networks": [equipped.network],
        "restart": "unless-stopped",
    }
    # Whoever may ask the engine is not told the values.
    assert MARK not in json.dumps(described)


def test_the_engine_starts_it_again_with_all_of_it(equipped: Equipped, engine: Engine) -> None:
    (listed,) = containers_of(engine, equipped.name)
    started = engine.inspect_container(listed["Id"])["State"]["StartedAt"]
    ssh(f"root@{equipped.alias}", "kill -TERM 1")

    def again() -> bool:
        state = engine.inspect_container(listed["Id"])["State"]
        return bool(state["Running"]) and state["StartedAt"] != started

    wait_for(again)
    wait_for(lambda: ssh(equipped.alias, "id -u").stdout == f"{UID}\n")
    assert f"TOKEN={SECRET}" in ssh(equipped.alias, "env -0").stdout.split("\0")
    wait_for(lambda: listens("127.0.0.1", equipped.port))


def test_limits_are_changed_while_it_runs(equipped: Equipped, engine: Engine) -> None:
    boot = "stat -c %Z /proc/1"
    before = ssh(f"root@{equipped.alias}", boot).stdout
    done = redock("start", "--memory", "300m", "--restart", "always", equipped.name)
    assert done.returncode == 0, done
    assert "Changed the memory and restart policy" in done.stderr
    script = "cat /sys/fs/cgroup/memory.max || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
    assert ssh(equipped.alias, f"({script}) 2>/dev/null").stdout == f"{300 << 20}\n"
    assert ssh(f"root@{equipped.alias}", boot).stdout == before
    # Asking for the same again changes nothing.
    done = redock("start", "--memory", "300m", equipped.name)
    assert (done.returncode, done.stderr) == (0, "")
    # It is attached to networks and detached from them in the same way.
    assert redock("start", "--network", "none", equipped.name).returncode == 0
    (listed,) = containers_of(engine, equipped.name)
    networks = engine.inspect_container(listed["Id"])["NetworkSettings"]["Networks"]
    assert equipped.network not in networks
    assert redock("start", "--network", equipped.network, equipped.name).returncode == 0
    assert ssh(equipped.alias, "id -u").stdout == f"{UID}\n"


def test_what_needs_a_new_container_is_refused_in_one_line(
    equipped: Equipped, engine: Engine
) -> None:
    before = containers_of(engine, equipped.name)[0]["Id"]
    done = redock("start", "-p", str(free_port()), "--memory", "500m", equipped.name)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr)
    assert "--recreate" in done.stderr
    (listed,) = containers_of(engine, equipped.name)
    assert listed["Id"] == before
    assert engine.inspect_container(before)["HostConfig"]["Memory"] == 300 << 20


def test_a_new_container_has_the_same_disk_identity_and_port(
    equipped: Equipped, engine: Engine, home: Home
) -> None:
    before = containers_of(engine, equipped.name)[0]
    ssh(equipped.alias, "echo kept >~/file; sync")
    pinned = sorted((home.redock / "ssh" / "known_hosts.d").glob("*"))
    port = free_port()
    arguments = ["-p", f"{port}:8000", "-e", "TOKEN=other", "--no-agent", "--memory", "0"]
    done = redock("start", "--recreate", *arguments, equipped.name)
    assert (done.returncode, done.stdout) == (0, f"ssh {equipped.alias}\n"), done
    (after,) = containers_of(engine, equipped.name)
    assert after["Id"] != before["Id"]
    for each in ("instance", "port", "alias", "hostname"):
        assert after["Labels"][label(each)] == before["Labels"][label(each)]
    assert sorted((home.redock / "ssh" / "known_hosts.d").glob("*")) == pinned
    assert ssh(equipped.alias, "cat ~/file; printenv TOKEN FROM_HERE").stdout == "kept\nother\n"
    assert engine.inspect_container(after["Id"])["HostConfig"]["Memory"] == 0
    wait_for(lambda: listens("127.0.0.1", port))
    assert not listens("127.0.0.1", equipped.port)
    assert_exactly_one(home, engine, equipped.name)
    equipped.port = port
    # The disk it came on goes with the machine.
    image = after["ImageID"]
    assert engine.inspect_image(image) is not None
    redock("start", "--recreate", "-e", f"TOKEN={SECRET}", equipped.name)


def test_options_come_back_from_a_saved_disk(
    equipped: Equipped, engine: Engine, home: Home
) -> None:
    assert redock("commit", equipped.name).returncode == 0
    moved = containers_of(engine, equipped.name)[0]["ImageID"]
    assert redock("kill", equipped.name).returncode == 0
    done = redock("start", equipped.name)
    assert (done.returncode, done.stderr) == (0, ""), done
    wait_for(lambda: listens("127.0.0.1", equipped.port))
    done = ssh(equipped.alias, "id -u; printenv -0 TOKEN; cat ~/file ~/src/project/written")
    assert done.stdout == f"{UID}\n{SECRET}\0kept\ninside\n"
    described = engine.inspect_image(equipped.name)
    assert MARK not in json.dumps(described)
    assert described is not None
    assert json.loads(_machines.saved_options(described["Config"]["Labels"]))["env"] == ["TOKEN"]
    # No disk without a name is left once it is all gone.
    assert redock("kill", equipped.name).returncode == 0
    assert engine.inspect_image(moved) is not None
    engine.tag_image(equipped.name, REPOSITORY, "handed-on")
    assert redock("delete", equipped.name).returncode == 0
    assert list((home.redock / "options").iterdir()) == []


def test_an_image_from_elsewhere_opens_no_door_and_knows_no_secret(
    equipped: Equipped, engine: Engine, fresh_home: Home
) -> None:
    name = f"{REPOSITORY}:handed-on"
    assert engine.inspect_image(name) is not None, "the test before saves it"
    done = redock("start", name)
    try:
        assert (done.returncode, done.stdout) == (0, "ssh handed-on-container\n"), done
        assert "are not taken over" in done.stderr and "TOKEN are not known here" in done.stderr
        (listed,) = containers_of(engine, name)
        described = engine.inspect_container(listed["Id"])
        assert set(_machines.options_of(described).as_dict()) == {"cpus", "env", "user"}
        assert {mount["Destination"] for mount in described["Mounts"]} == {"/etc/redock/ssh"}
        assert set(described["HostConfig"]["PortBindings"]) == {"22/tcp"}
        done = ssh("handed-on-container", "id -u; printenv TOKEN; sudo -n ls /var/lib/data")
        assert done.stdout == f"{UID}\n"
        search = f"grep -rlF --binary-files=text {MARK} /etc /home /root /run /srv /tmp /var"
        done = ssh("root@handed-on-container", search)
        assert (done.returncode, done.stdout) == (1, ""), done
    finally:
        redock("kill", name)
        redock("delete", name)
    assert_nothing_left(fresh_home, engine, name)


# Smaller things, each with a machine of its own.


def test_the_default_machine_has_none_of_it(
    home: Home, engine: Engine, name: str, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    assert redock("start", name).returncode == 0
    (listed,) = containers_of(engine, name)
    described = engine.inspect_container(listed["Id"])
    assert not _machines.options_of(described)
    assert described["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
    assert not (home.redock / "options" / f"{name.replace(':', '%3A')}.json").exists()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A real ssh-agent with a key; what to put into the environment to use it."""
    # The path of a socket has to be short.
    path = f"{os.environ['HOME']}/agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    env = {"SSH_AUTH_SOCK": path}
    try:
        wait_for(lambda: os.path.exists(path))
        key = str(tmp_path / "key")
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "mine", "-f", key, check=True)
        command("ssh-add", "-q", key, env=env, check=True)
        yield env
    finally:
        process.kill()
        process.wait()


def test_the_agent_is_forwarded_only_on_request(
    home: Home, engine: Engine, name: str, agent: dict[str, str],
    remove_machine: Callable[[str], None],
) -> None:  # fmt: skip
    remove_machine(name)
    alias = Container(name).ssh_alias
    assert redock("start", name, env=agent).returncode == 0
    done = command("ssh", alias, "ssh-add -l", env=agent)
    assert done.returncode != 0 and "mine" not in done.stdout
    # On, off and on again, with the same container.
    before = containers_of(engine, name)[0]["Id"]
    for flag, forwarded in (("--agent", True), ("--no-agent", False), ("--agent", True)):
        assert redock("start", flag, name, env=agent).returncode == 0
        done = command("ssh", alias, "ssh-add -l", env=agent)
        assert ("mine" in done.stdout) is forwarded, (flag, done)
    # A start that does not ask leaves it so; and the agent is that of who connects now.
    assert redock("start", name).returncode == 0
    assert "mine" in command("ssh", alias, "ssh-add -l", env=agent).stdout
    assert ssh(alias, "ssh-add -l").returncode != 0
    assert containers_of(engine, name)[0]["Id"] == before
    # It is saved with the disk.
    assert redock("commit", name).returncode == 0
    assert redock("kill", name).returncode == 0
    assert redock("start", name).returncode == 0
    assert "mine" in command("ssh", alias, "ssh-add -l", env=agent).stdout


def test_what_cannot_be_had_is_one_line_and_nothing_is_left(
    home: Home, engine: Engine, name: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, status, words in (
            (["--network", "no-such-network"], 2, "docker network create"),
            (["-p", f"{port}:80"], 1, f"port {port}"),
            (["-p", f"127.0.0.1:{port}:80/tcp", "-e", "A=1"], 1, f"port {port}"),
            # Not an address of this host: only the engine can tell.
            (["-p", "192.0.2.7:8080:80"], 1, "192.0.2.7"),
        ):
            done = redock("start", *arguments, name)
            assert (done.returncode, done.stdout) == (status, ""), done
            assert "Traceback" not in done.stderr
            assert words in done.stderr.splitlines()[-1], done
            assert_nothing_left(home, engine, name)


def test_a_port_on_all_addresses_is_warned_of(
    home: Home, name: str, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    port, everywhere = free_port(), ".".join("0000")
    done = redock("start", "-p", f"{everywhere}:{port}:8000", name)
    assert done.returncode == 0, done
    assert f"Port {port} of this host" in done.stderr and "open to everybody" in done.stderr
    alias = Container(name).ssh_alias
    ssh(alias, "cd /srv; nohup python3 -m http.server 8000 >/dev/null 2>&1 </dev/null &")
    for address in ("127.0.0.1", *find_local_ip_addresses()):
        wait_for(lambda address=address: listens(address, port))  # type: ignore[misc]


def test_the_user_of_an_image_becomes_the_one_with_its_number(
    home: Home, engine: Engine, base_image: str, name: str, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    script = "useradd --create-home --uid 1601 ubuntu && groupadd --gid 1700 --force staff-of-image"
    make_image(engine, base_image, name, script)
    options = Options(user="sam:1601:1601", env={"A": "1"})
    container = Container(name, options=options)
    container.start()
    done = ssh(container.ssh_alias, "id; printenv A; pwd; getent passwd ubuntu; sudo -n id -u")
    assert "uid=1601(sam) gid=1601(sam)" in done.stdout
    assert done.stdout.splitlines()[1:] == ["1", "/home/sam", "0"]


@pytest.mark.parametrize("user", ["daemon:1500", "sam:1"])
def test_a_user_who_cannot_be_is_told_and_nothing_is_left(
    user: str, home: Home, engine: Engine, name: str
) -> None:
    # Also where the engine would start it again and again.
    options = Options(user=user, restart="always")
    with pytest.raises(ContainerDied, match=r"whose number is 1|belongs to daemon"):
        Container(name, options=options).start()
    assert_nothing_left(home, engine, name)


def test_an_interrupted_recreation_loses_nothing(
    home: Home, engine: Engine, name: str, remove_machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    remove_machine(name)
    container = Container(name, options=Options(env={"A": "1"}))
    container.start()
    ssh(container.ssh_alias, "echo precious >/root/file")

    def fail(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    for method in ("remove_container", "create_container", "put_archive", "begin_start"):
        again = Container(name, options=Options(env={"A": f"2 {method}"}))
        with monkeypatch.context() as patch:
            patch.setattr(again.engine, method, fail)
            with pytest.raises(KeyboardInterrupt):
                again.start(recreate=True)
        done = redock("start", name)
        assert done.returncode == 0, (method, done)
        assert ssh(container.ssh_alias, "cat /root/file").stdout == "precious\n", method
        assert_exactly_one(home, engine, name)
    assert redock("start", "--recreate", "-e", "A=3", name).returncode == 0
    assert ssh(container.ssh_alias, "printenv A; cat /root/file").stdout == "3\nprecious\n"
    assert len(volumes_of(engine, name)) == 1
    Container(name).kill()
    assert_nothing_left(home, engine, name)
    assert not moving_images(engine, name)


def moving_images(engine: Engine, name: str) -> list[dict[str, Any]]:
    """List the disks of a machine that have no name."""
    filters = {"label": [f"{label('kind')}=moving", f"{label('name')}={name}"]}
    return engine.images(filters)


def test_a_port_lost_while_recreating_is_told_and_the_disk_is_kept(
    home: Home, engine: Engine, name: str, remove_machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    remove_machine(name)
    container = Container(name)
    container.start()
    ssh(container.ssh_alias, "echo precious >/root/file")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        again = Container(name, options=Options(ports=[f"{port}:80"]))
        with monkeypatch.context() as patch:
            # As if it had been free a moment ago.
            patch.setattr(Port, "is_free", lambda self: True)
            with pytest.raises(PortUnavailable, match=f"port {port}"):
                again.start(recreate=True)
        done = redock("start", name)
        assert done.returncode == 1 and f"port {port}" in done.stderr
        assert redock("start", "-p", "none", name).returncode == 0
    assert ssh(container.ssh_alias, "cat /root/file").stdout == "precious\n"
    assert_exactly_one(home, engine, name)


def test_strange_values_survive_a_commit(
    home: Home, engine: Engine, name: str, tmp_path: Path, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    folder = tmp_path / "a $HOME \"b\" \\ ${x} 'c' ü"
    folder.mkdir()
    (folder / "file").write_text("found")
    container = Container(name, options=Options(volumes=[f"{folder}:/srv/a b"]))
    container.start()
    container.commit()
    container.kill()
    again = Container(name)
    again.start()
    assert ssh(again.ssh_alias, "cat '/srv/a b/file'").stdout == "found"
    again.kill()
    again.delete()


def test_settings_are_defaults_of_new_machines(
    fresh_home: Home, engine: Engine, name: str, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    assert redock("config", "set", "memory", "200m").returncode == 0
    assert redock("config", "set", "user", f"sam:{UID}").returncode == 0
    assert redock("start", name, env={"REDOCK_CPUS": "1"}).returncode == 0
    (listed,) = containers_of(engine, name)
    host = engine.inspect_container(listed["Id"])["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (200 << 20, 10**9)
    assert re.match(rf"uid={UID}\(sam\)", ssh(Container(name).ssh_alias, "id").stdout)
