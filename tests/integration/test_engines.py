"""
The same core of redock on other engines, of other versions.

Each engine runs in a container of the engine that is there, made from Debian's packages, and is
reached over SSH as an engine on another machine is: its loopback interface is not ours.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redock._endpoint import Endpoint
from redock._engine import KIND, Engine, label
from redock._tunnel import Tunnel
from redock.api import Container
from redock.bootstrap import Bootstrap
from redock.cluster import NodeSpec
from redock.cluster._images import find_image

from .conftest import REPOSITORY, Home, command, new_name, redock, ssh
from .harness import assert_nothing_left, wait_for

PODMAN = [
    *("podman", "runc", "crun", "netavark", "aardvark-dns", "catatonit"),
    *("fuse-overlayfs", "iptables"),
]
ROOTLESS = [*PODMAN, "slirp4netns", "passt", "uidmap"]
#: The control groups of this kind of container are a mixture that only runc copes with.
PODMAN_SERVICE = """\
mkdir -p /etc/containers
cat >/etc/containers/containers.conf <<'END'
[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
END
exec podman system service -t 0 unix:///var/run/docker.sock
"""
#: The same for a user who is not root, as a session of theirs would have it; with an overlay of the
#: kernel's own, which Podman does not choose by itself here.
ROOTLESS_SERVICE = """\
install -d -m 755 /dev/net
[ -e /dev/net/tun ] || mknod -m 666 /dev/net/tun c 10 200
mount --make-rshared /
install -d -o someone -m 700 /run/user/1000 /home/someone/.ssh /home/someone/.config
install -o someone -m 600 /keys/user_key.pub /home/someone/.ssh/authorized_keys
install -d -o someone /home/someone/.config/containers
cd /home/someone/.config/containers
printf '[engine]\\nruntime = "runc"\\ncgroup_manager = "cgroupfs"\\n' >containers.conf
cat >storage.conf <<'END'
[storage]
driver = "overlay"
runroot = "/run/user/1000/containers"
graphroot = "/home/someone/.local/share/containers/storage"
END
chown -R someone: /home/someone
exec su - someone -c '
    export XDG_RUNTIME_DIR=/run/user/1000
    mkdir -p $XDG_RUNTIME_DIR/podman
    exec podman system service -t 0 unix://$XDG_RUNTIME_DIR/podman/podman.sock'
"""
DOCKER_SERVICE = "exec dockerd --host unix:///var/run/docker.sock"


def someone(host: Bootstrap) -> None:
    """Add a user with a range of subordinate ids, as the distribution does."""
    host.user("someone", uid=1000, shell="/bin/bash", password_hash="*")


def unstable(host: Bootstrap) -> None:
    """Install Docker from Debian unstable, whose lists may be older than they say is right."""
    host.file(
        "/etc/apt/sources.list.d/sid.sources",
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: sid\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\nCheck-Valid-Until: no\n",
    )
    host.execute("apt-get -q update && apt-get -q -y install -t sid docker.io", capture=True)


#: What makes the disk each engine runs on, what starts it, and how its version begins.
ENGINES: dict[str, tuple[NodeSpec, str, str]] = {
    "podman-bookworm": (NodeSpec("lab", packages=PODMAN), PODMAN_SERVICE, "4.3"),
    "rootless-bookworm": (
        NodeSpec("lab", packages=ROOTLESS, provision=someone),
        ROOTLESS_SERVICE,
        "4.3",
    ),
    "docker-trixie": (
        NodeSpec("lab", base="debian:trixie", packages=[*PODMAN, "docker.io"]),
        DOCKER_SERVICE,
        "26.1",
    ),
    "podman-trixie": (
        NodeSpec("lab", base="debian:trixie", packages=[*PODMAN, "docker.io"]),
        PODMAN_SERVICE,
        "5.4",
    ),
    "rootless-trixie": (
        NodeSpec("lab", base="debian:trixie", packages=ROOTLESS, provision=someone),
        ROOTLESS_SERVICE,
        "5.4",
    ),
    "docker-sid": (
        NodeSpec("lab", base="debian:trixie", packages=["iptables"], provision=unstable),
        DOCKER_SERVICE,
        "2",
    ),
}
START = """\
umask 077
mkdir -p /run/sshd /root/.ssh
cp /keys/user_key.pub /root/.ssh/authorized_keys
cp /keys/host_key /root/host_key
/usr/sbin/sshd -e -h /root/host_key
"""


class Elsewhere:
    """
    An engine in a container.

    :param outer: The engine that is there.
    :param home: Whose ssh configuration gets an entry for it.
    :param kind: A key of :data:`ENGINES`.
    """

    def __init__(self, outer: Engine, home: Home, kind: str) -> None:
        spec, service, self.version = ENGINES[kind]
        self.outer, self.name = outer, f"{kind}-{secrets.token_hex(3)}"
        self.rootless = service is ROOTLESS_SERVICE
        self.directory = home.path / self.name
        self.directory.mkdir()
        for key in ("host_key", "user_key"):
            path = str(self.directory / key)
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path, check=True)
        self.container = outer.create_container(
            f"{REPOSITORY}-{self.name}", self.configuration(find_image(outer, spec), service)
        )
        self.inner: Engine | None = None
        outer.begin_start(self.container).result()
        described = outer.inspect_container(self.container)
        (network,) = described["NetworkSettings"]["Networks"].values()
        host_key = (self.directory / "host_key.pub").read_text()
        (self.directory / "known_hosts").write_text(f"{self.name} {host_key}")
        home.ssh_config.parent.mkdir(mode=0o700, exist_ok=True)
        with home.ssh_config.open("a") as config:
            config.write(
                f"Host {self.name}\n  HostName {network['IPAddress']}\n"
                f"  HostKeyAlias {self.name}\n  User root\n"
                f"  IdentityFile {self.directory}/user_key\n"
                f"  UserKnownHostsFile {self.directory}/known_hosts\n"
                "  StrictHostKeyChecking yes\n"
            )

    def configuration(self, image: str, service: str) -> dict[str, Any]:
        """What the engine that is there is told: an engine inside needs nearly everything."""
        return {
            "Image": image,
            "Hostname": "elsewhere",
            "Entrypoint": [],
            "Cmd": ["sh", "-c", START + service],
            # Its own directories must not be layers on layers.
            "Volumes": {"/var/lib/docker": {}, "/var/lib/containers": {}, "/home/someone": {}},
            "Labels": {KIND: "test", label("name"): REPOSITORY},
            "Env": ["PODMAN_IGNORE_CGROUPSV1_WARNING=1"],
            "HostConfig": {
                "CapAdd": ["ALL"],
                "CapDrop": ["SYS_RESOURCE"],
                "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
                "MaskedPaths": [],
                "ReadonlyPaths": [],
                "DeviceCgroupRules": ["a *:* rwm"],
                "CgroupnsMode": "host",
                "Binds": ["/sys/fs/cgroup:/sys/fs/cgroup:rw", f"{self.directory}:/keys:ro"],
            },
        }

    @property
    def url(self) -> str:
        """What to set DOCKER_HOST to."""
        if self.rootless:
            return f"ssh://someone@{self.name}/run/user/1000/podman/podman.sock"
        return f"ssh://{self.name}"

    def prepare(self, image: str) -> Engine:
        """Wait for the engine inside and give it the base image."""
        engine = Engine(Endpoint(self.url, "a test"))

        def answers() -> bool:
            try:
                return str(engine.version()["Version"]).startswith(self.version)
            except Exception:
                engine._socket = None
                state = self.outer.inspect_container(self.container)["State"]
                assert state["Running"], self.outer.logs(self.container)
                return False

        wait_for(answers, 90)
        self.inner = engine
        archive = self.directory / "base.tar"
        outer = {"DOCKER_HOST": f"unix://{self.outer.socket_path}"}
        inner = {"DOCKER_HOST": f"unix://{engine.socket_path}"}
        command("docker", "save", "-o", str(archive), image, env=outer, check=True)
        done = command("docker", "load", "-i", str(archive), env=inner, timeout=300)
        assert done.returncode == 0, done.stderr
        archive.unlink()
        return engine

    def close(self) -> None:
        """Remove what is inside first: its control groups are in the host's tree."""
        if self.inner is not None:
            for each in self.inner.containers({}):
                self.inner.begin_kill(each["Id"]) if each["State"] == "running" else None
                self.inner.remove_container(each["Id"])
        Tunnel(Endpoint(self.url, "a test")).close()
        self.outer.remove_container(self.container)


@pytest.fixture(params=list(ENGINES))
def inner(
    request: pytest.FixtureRequest,
    fresh_home: Home,
    engine: Engine,
    base_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Engine]:
    """An engine of another kind or version, which DOCKER_HOST names."""
    elsewhere = Elsewhere(engine, fresh_home, request.param)
    try:
        made = elsewhere.prepare("redock:base")
        monkeypatch.setenv("DOCKER_HOST", elsewhere.url)
        yield made
    finally:
        elsewhere.close()


def can_freeze(engine: Engine) -> bool:
    """Whether an engine may use the freezer: not without root before control groups version 2."""
    info = engine.info()
    return info["CgroupVersion"] == "2" or not info.get("Rootless")


def check_daily_life(name: str, folder: Path) -> None:
    """What people do all day, with a machine that runs and was not saved since it was made."""
    listed = json.loads(redock("list", "--json").stdout)
    assert [(each["name"], each["state"]) for each in listed] == [(name, "running")]
    assert listed[0]["port"] and listed[0]["uptime"]
    status = json.loads(redock("status", "--json", name).stdout)
    assert {key: status[key] for key in listed[0] if key not in ("memory", "disk")} == {
        key: value for key, value in listed[0].items() if key not in ("memory", "disk")
    } | {"uptime": status["uptime"]}
    done = redock("exec", name, "--", "echo out; echo err >&2; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")
    done = redock("ssh", name, "echo", "a  b")
    assert (done.returncode, done.stdout) == (0, "a  b\n")
    # One that fits into a socket, one that does not, and one that is in the place of another.
    small, large = folder / "small", folder / "large"
    small.write_text("small\n")
    large.write_bytes(os.urandom(3_000_000))
    for source, target in (
        (small, "new"),
        (large, "large"),
        (small, "large"),
        (large, "new"),
    ):
        done = redock("cp", str(source), f"{name}:/srv/{target}")
        assert (done.returncode, done.stderr) == (0, ""), (source, target)
        assert redock("cp", f"{name}:/srv/{target}", str(folder / "back")).returncode == 0
        assert (folder / "back").read_bytes() == source.read_bytes(), (source, target)
    assert redock("cp", str(folder), f"{name}:/srv").returncode == 0
    assert redock("cp", str(folder), f"{name}:/srv").returncode == 0
    assert redock("cp", f"{name}:/srv/{folder.name}", str(folder / "tree")).returncode == 0
    assert (folder / "tree" / "large").read_bytes() == large.read_bytes()
    assert redock("exec", name, "--", "ls", "-A", "/srv").stdout.split() == sorted(
        ["large", "new", folder.name]
    )
    assert redock("sync", f"{folder}/", f"{name}:/srv/synced").returncode == 0
    assert redock("exec", name, "--", "cat", "/srv/synced/small").stdout == "small\n"
    assert {"/srv/new", "/srv/synced"} <= set(
        each["path"] for each in json.loads(redock("diff", "--json", name).stdout)
    )
    assert "sshd" in redock("top", name).stdout
    redock("exec", name, "--", "rm -r /srv/*")


def check_history(name: str, folder: Path) -> None:
    """Going back and handing on, with a machine that was saved once, with /root/kept."""
    (saved,) = json.loads(redock("log", "--json", name).stdout)
    assert saved["message"] == "kept"
    assert redock("exec", name, "--", "rm /root/kept").returncode == 0
    back = redock("rollback", "-q", "-y", name)
    assert (back.returncode, back.stderr) == (0, "")
    assert redock("ssh", name, "cat /root/kept").stdout == "kept\n"
    # With other options, which are remembered, it is made anew around its disk.
    done = redock("start", "-q", "--no-connect", "--recreate", name, "-t", "60", "-p", "18080:80")
    assert (done.returncode, done.stderr) == (0, "")
    assert redock("commit", "-q", "-m", "second", name).returncode == 0
    assert redock("kill", "-q", "-y", name).returncode == 0
    assert redock("start", "-q", "--no-connect", name, "-t", "60").returncode == 0
    status = json.loads(redock("status", "--json", name).stdout)
    assert (status["commits"], status["options"]) == (2, {"ports": ["127.0.0.1:18080:80/tcp"]})
    file, other = str(folder / "saved.tar.gz"), f"{name}x"
    done = redock("export", "-q", name, file)
    assert (done.returncode, done.stderr) == (0, "")
    done = redock("import", "-q", file, other)
    assert (done.returncode, done.stderr) == (0, "")
    assert redock("start", "-q", "--no-connect", other, "-t", "60").returncode == 0
    assert redock("rename", "-q", other, f"{other}y").returncode == 0
    assert redock("ssh", f"{other}y", "cat /root/kept; hostname").stdout.startswith("kept\n")
    assert redock("kill", "-q", "-y", f"{other}y").returncode == 0
    assert redock("delete", "-q", "-y", f"{other}y").returncode == 0


def test_the_core_works(fresh_home: Home, inner: Engine, tmp_path: Path) -> None:
    name = new_name("core")
    freezes = can_freeze(inner)
    started = redock("start", "-q", "--no-connect", name, "--timeout", "60")
    assert (started.returncode, started.stderr) == (0, ""), started.stderr
    machine = Container(name, timeout=60)
    alias = machine.ssh_alias
    try:
        done = ssh(alias, "cat /etc/redock/ssh/instance; exit 7")
        assert (done.returncode, done.stderr) == (7, "")
        assert machine.find_container()
        assert machine.session.instance == done.stdout.strip()
        # Nothing is published but on the loopback interface over there.
        assert machine.session.container_id
        described = inner.inspect_container(machine.session.container_id)
        ((address,),) = described["NetworkSettings"]["Ports"].values()
        assert address["HostIp"] == "127.0.0.1"
        check_daily_life(name, tmp_path)
        with Bootstrap(alias) as host:
            assert host.file("/root/kept", "kept\n").changed
            assert host.file("/root/kept", "kept\n").changed is False
        # The same name again is the same machine.
        assert redock("start", "-q", "--no-connect", name, "--timeout", "60").returncode == 0
        assert ssh(alias, "cat /root/kept").stdout == "kept\n"
        saved = redock("commit", "-q", "-m", "kept", name)
        assert saved.returncode == 0
        warnings = saved.stderr.splitlines()
        assert len(warnings) == (0 if freezes else 1)
        assert all("cannot freeze" in line for line in warnings)
        ssh(alias, "rm /root/kept")
        assert redock("kill", "-q", name).returncode == 0
        assert_nothing_left(fresh_home, inner, name)
        assert redock("kill", "-q", name).returncode == 3
        assert redock("start", "-q", "--no-connect", name, "--timeout", "60").returncode == 0
        done = ssh(alias, "cat /root/kept; ls -A /root/.ssh 2>/dev/null")
        assert done.stdout == "kept\n"
        check_history(name, tmp_path)
        # A machine that was stopped comes back, with its disk and its port.
        assert machine.find_container()
        port = machine.session.port
        ssh(alias, "echo again >/root/again")
        inner.request("POST", f"/containers/{machine.session.container_id}/stop?t=5", "stop it")
        assert redock("start", "-q", "--no-connect", name, "--timeout", "60").returncode == 0
        assert machine.find_container()
        assert machine.session.port == port
        assert ssh(alias, "cat /root/again").stdout == "again\n"
        # And one that is frozen goes on.
        paused = redock("pause", "-q", name)
        assert paused.returncode == (0 if freezes else 1)
        assert len(paused.stderr.splitlines()) == (0 if freezes else 1)
        described = inner.inspect_container(str(machine.session.container_id))
        assert described["State"]["Paused"] == freezes
        assert redock("start", "-q", "--no-connect", name, "--timeout", "60").returncode == 0
        assert ssh(alias, "cat /root/again").stdout == "again\n"
        wait_for(lambda: "RUNNING" in ssh(alias, "supervisorctl status sshd").stdout)
    finally:
        redock("kill", "-q", name)
    deleted = redock("delete", "-q", name)
    assert (deleted.returncode, deleted.stderr) == (0, "")
    assert inner.inspect_image(name) is None
    kept = [name for each in inner.images({}) for name in each["RepoTags"] or ()]
    assert [name for name in kept if name.partition(":")[0] != "redock"] == []
    assert_nothing_left(fresh_home, inner, name)
