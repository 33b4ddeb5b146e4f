"""What others must not get: a way in, a key, a secret, the terminal."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from redock._engine import Engine, label
from redock._machines import BLANKED_LABELS, archive
from redock._ssh import fragment_file, known_hosts_file
from redock.api import Container
from redock.errors import HostKeyMismatch
from redock.utils import find_local_ip_addresses, get_ssh_public_key

from .conftest import REDOCK, Home, command, new_name, redock, ssh
from .harness import (
    ROUNDS,
    act,
    assert_nothing_left,
    assert_one_line,
    kill_quietly,
    make_image,
    replace_program,
    wait_for,
)

#: Machines from one committed image whose host keys are compared.
CLONES = 3 * ROUNDS
#: A private key as it stands in a file; programs only contain the first line, as text.
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n[A-Za-z0-9+/=]{32}")


@pytest.fixture(scope="module")
def saved(make_machine: Callable[[str], Container]) -> Container:
    """A machine whose disk has been committed."""
    container = make_machine("saved")
    assert ssh(container.ssh_alias, "echo data >/root/file").returncode == 0
    container.commit("for the tests of security")
    return container


def known_id(container: Container) -> str:
    """Get the id of a started machine's container."""
    assert container.session.container_id
    return container.session.container_id


# Who gets in.


def direct(container: Container, *options: str, key: str | Path) -> list[str]:
    """Connect to the machine's port with a key of one's own choice, the host key pinned."""
    assert container.session.instance
    return [
        *("ssh", "-F", "/dev/null", "-p", str(container.session.port)),
        *("-o", f"UserKnownHostsFile={known_hosts_file(container.session.instance)}"),
        *("-o", f"HostKeyAlias=redock-{container.session.instance}"),
        *("-o", "IdentitiesOnly=yes", "-i", str(key), *options, "root@127.0.0.1", "echo in"),
    ]


def test_a_password_does_not_let_anybody_in(container: Container, tmp_path: Path) -> None:
    assert ssh(container.ssh_alias, "echo root:secret | chpasswd").returncode == 0
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho secret\n")
    ask.chmod(0o700)
    env = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":"}
    by_password = direct(container, "-o", "PubkeyAuthentication=no", key="/dev/null")
    done = command(*by_password, env=env)
    assert (done.returncode, done.stdout) == (255, "")
    assert "Permission denied (publickey)" in done.stderr
    # The same command gets in where passwords are allowed: it is sshd that refuses.
    allow = "sed -i 's/^PasswordAuthentication no/PasswordAuthentication yes/;"
    allow += " s/^PermitRootLogin .*/PermitRootLogin yes/' /etc/ssh/sshd_config.d/00-redock.conf"
    assert ssh(container.ssh_alias, f"{allow} && supervisorctl restart sshd").returncode == 0
    assert command(*by_password, env=env).stdout == "in\n"


def test_another_key_does_not_let_anybody_in(
    container: Container, home: Home, tmp_path: Path
) -> None:
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"), check=True)
    done = command(*direct(container, "-o", "BatchMode=yes", key=tmp_path / "key"))
    assert (done.returncode, done.stdout) == (255, "")
    assert "Permission denied (publickey)" in done.stderr
    right = home.redock / "ssh" / "id_ed25519"
    assert command(*direct(container, "-o", "BatchMode=yes", key=right)).stdout == "in\n"


def test_the_port_is_on_the_loopback_interface_only(machine: Container) -> None:
    address, port = machine.ssh_endpoint
    assert address == "127.0.0.1"
    assert listeners(port) == {"0100007F"}
    others = find_local_ip_addresses() | addresses_of_version_6()
    assert others
    for other in [*others, "::1"]:
        with pytest.raises(OSError):
            socket.create_connection((other, port), timeout=5).close()


def listeners(port: int) -> set[str]:
    """List the addresses something listens on at a port, as the kernel writes them."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, number = fields[1].rpartition(":")
            if int(number, 16) == port and fields[3] == "0A":
                found.add(address)
    return found


def addresses_of_version_6() -> set[str]:
    """Find the host's IPv6 addresses that need no zone."""
    table = Path("/proc/net/if_inet6")
    lines = table.read_text().splitlines() if table.exists() else []
    plain = (line.split()[0] for line in lines if line.split()[3] == "00")
    return {socket.inet_ntop(socket.AF_INET6, bytes.fromhex(each)) for each in plain}


# Who answers.


def test_a_host_key_that_was_replaced_inside_is_refused(container: Container) -> None:
    alias = container.ssh_alias
    replace = "cd /etc/redock/ssh && rm ssh_host_ed25519_key &&"
    replace += " ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key </dev/null &&"
    assert ssh(alias, f"{replace} supervisorctl restart sshd").returncode == 0
    command("ssh", "-O", "exit", alias)
    done = ssh(alias, "true")
    assert done.returncode == 255
    assert "verification failed" in done.stderr
    with pytest.raises(HostKeyMismatch):
        Container(container.image).start()
    started = redock("start", container.image.name)
    assert started.returncode == 1
    assert_one_line(started.stderr)


@pytest.fixture
def squat(engine: Engine, base_image: str) -> Iterator[Callable[[int], str]]:
    """Let a stranger's SSH server, which would let anybody in, answer on a port."""
    made: list[str] = []

    def start(port: int) -> str:
        name = f"redock-test-{os.urandom(4).hex()}"
        script = "ssh-keygen -q -t ed25519 -N '' -f /key; mkdir -p /run/sshd /root/.ssh;"
        script += " exec /usr/sbin/sshd -D -e -h /key -o LogLevel=DEBUG1"
        made.append(name)
        engine.create_container(
            name,
            {
                "Image": base_image,
                "Cmd": ["sh", "-c", script],
                "ExposedPorts": {"22/tcp": {}},
                "HostConfig": {
                    "PortBindings": {"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
                },
            },
        )
        engine.begin_start(name).result()
        wait_for(lambda: "Server listening" in engine.logs(name, 1000))
        return name

    yield start
    for name in made:
        engine.remove_container(name)


def test_a_stranger_on_the_port_is_refused_before_any_key_is_offered(
    container: Container, engine: Engine, squat: Callable[[int], str], tmp_path: Path
) -> None:
    alias, port, instance = container.ssh_alias, container.session.port, container.session.instance
    assert port and instance
    old = tmp_path / "old"
    old.write_text(Path(fragment_file(container.image.name)).read_text())
    act(engine, known_id(container), "stop?t=1")
    stranger = squat(port)
    done = ssh(alias, "true")
    assert done.returncode == 255
    assert "verification failed" in done.stderr
    # The machine itself cannot come back on this port, and says so.
    started = redock("start", container.image.name)
    assert started.returncode == 1
    assert_one_line(started.stderr)
    assert str(port) in started.stderr
    # Killed: nothing is pinned any more, and whoever kept the old entry is refused as well.
    assert redock("kill", container.image.name).returncode == 0
    assert ssh(alias, "true").returncode == 255
    assert command("ssh", "-F", str(old), alias, "true").returncode == 255
    log = engine.logs(stranger, 1000)
    # Three came as far as the greeting, none tried to log in.
    assert log.count("Connection from") >= 2
    assert "userauth-request" not in log
    # A new machine takes another port.
    again = Container(container.image, timeout=30)
    again.start()
    try:
        assert again.session.port != port
        assert ssh(alias, "true").returncode == 0
    finally:
        again.kill()


def test_a_stranger_sees_who_tries_to_log_in(
    container: Container, engine: Engine, squat: Callable[[int], str]
) -> None:
    """The control of the test above: without the pinned key the stranger is talked to."""
    port = container.session.port
    assert port
    act(engine, known_id(container), "stop?t=1")
    stranger = squat(port)
    trusting = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    command("ssh", *trusting, container.ssh_alias, "true")
    assert "userauth-request" in engine.logs(stranger, 1000)


def test_every_machine_of_one_image_has_its_own_host_key(
    home: Home, engine: Engine, saved: Container
) -> None:
    names = [new_name("clone") for _ in range(CLONES)]
    for name in names:
        engine.tag_image(saved.image.name, *name.rsplit(":", 1))
    clones = [Container(name, timeout=30) for name in names]
    try:
        keys = {public_host_key(saved)}
        for clone in clones:
            clone.start()
            keys.add(public_host_key(clone))
            assert ssh(clone.ssh_alias, "cat /root/file").stdout == "data\n"
        assert len(keys) == CLONES + 1
    finally:
        for name in names:
            kill_quietly(name)


def public_host_key(container: Container) -> str:
    """Get the host key a machine shows."""
    return ssh(container.ssh_alias, "cut -d' ' -f2 /etc/redock/ssh/ssh_host_ed25519_key.pub").stdout


# What is in an image.


def test_a_committed_image_carries_nothing_of_ours(saved: Container) -> None:
    instance = saved.session.instance
    assert instance
    keys = [get_ssh_public_key().split()[1].encode(), public_host_key(saved).encode()]
    assert search_image(saved.image.name, *keys, instance.encode()) == []


def test_the_base_image_carries_no_key(home: Home, base_image: str) -> None:
    assert search_image(base_image, get_ssh_public_key().split()[1].encode()) == []


def search_image(image: str, *secrets: bytes) -> list[tuple[str, bytes]]:
    """Search everything ``docker save`` writes for private keys and other secrets."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = search_archive(process.stdout, *secrets)
    assert process.returncode == 0
    return found


def search_archive(stream: IO[bytes], *secrets: bytes) -> list[tuple[str, bytes]]:
    """Search the files of an archive, and of the archives in it, compressed or not."""
    found: list[tuple[str, bytes]] = []
    members = 0
    with tarfile.open(fileobj=stream, mode="r|*") as opened:
        for member in opened:
            handle = opened.extractfile(member) if member.isreg() else None
            if handle is None:
                continue
            members += 1
            data = handle.read()
            if data[257:262] == b"ustar" or (data[:2] == b"\x1f\x8b" and member.size > 1 << 20):
                found += search_archive(io.BytesIO(data), *secrets)
            else:
                found += [(member.name, each) for each in search(data, *secrets)]
    assert members
    return found


def search(data: bytes, *secrets: bytes) -> list[bytes]:
    """Search a file."""
    # Libraries of cryptography test themselves with keys that everybody knows.
    found = [] if data.startswith(b"\x7fELF") else PRIVATE_KEY.findall(data)
    if data.startswith(b"{") and b'"container_config"' in data:
        # Engines before 25 note down the container the image was made from; nothing reads it.
        described = json.loads(data)
        described.pop("container_config")
        data = json.dumps(described).encode()
    return found + [secret for secret in secrets if secret.strip() and secret.strip() in data]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "compressed"])
def test_the_search_finds_what_it_searches(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"), check=True)
    filler = os.urandom(2 << 20)
    key = filler + (tmp_path / "key").read_bytes() + filler
    secret = filler + b"the secret" + filler
    layer = pack(archive({"root/key": (0o600, key), "etc/file": (0o600, secret)}))
    found = search_archive(io.BytesIO(archive({"layer.tar": (0o600, layer)})), b"the secret")
    assert [name for name, _ in found] == ["root/key", "etc/file"]
    assert found[0][1].startswith(b"-----BEGIN OPENSSH") and found[1][1] == b"the secret"


def test_the_base_image_is_ready_and_clean(engine: Engine, base_image: str) -> None:
    script = """
        ls /etc/ssh/ssh_host_* /root/.ssh /etc/redock/ssh /var/lib/dbus/machine-id 2>/dev/null
        find / -xdev -name '*.deb' -o -xdev -name 'authorized_keys'
        cat /etc/machine-id
        ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || echo "no package lists"
        getent shadow root | cut -d: -f2 | grep -qx '[*]' || echo "root may have a password"
    """
    name = f"redock-test-{os.urandom(4).hex()}"
    engine.create_container(name, {"Image": base_image, "Cmd": ["sh", "-c", script]})
    try:
        engine.begin_start(name).result()
        wait_for(lambda: not engine.inspect_container(name)["State"]["Running"])
        assert engine.logs(name, 1000) == ""
    finally:
        engine.remove_container(name)


def test_a_hand_made_container_of_a_committed_image_is_not_ours(
    home: Home, engine: Engine, saved: Container, name: str
) -> None:
    engine.tag_image(saved.image.name, *name.rsplit(":", 1))
    labels = engine.inspect_container(known_id(saved))["Config"]["Labels"]
    # One as "docker run" makes it, one that claims to be the very machine.
    plain, liar = (f"redock-test-{os.urandom(4).hex()}" for _ in range(2))
    engine.create_container(plain, {"Image": name, "Cmd": ["sleep", "600"]})
    lies = {**labels, label("name"): name}
    engine.create_container(liar, {"Image": name, "Cmd": ["sleep", "600"], "Labels": lies})
    try:
        for each in (plain, liar):
            engine.begin_start(each).result()
        container = Container(name, timeout=30)
        assert not container.find_container()
        assert container._find_machine() is None
        assert redock("kill", name).returncode == 3
        assert redock("commit", name).returncode == 3
        assert redock("start", name).returncode == 0
        assert_exactly_one_besides(home, engine, name, liar)
        assert redock("kill", name).returncode == 0
        assert redock("delete", name).returncode == 0
        for each in (plain, liar):
            assert engine.inspect_container(each)["State"]["Running"]
    finally:
        for each in (plain, liar):
            engine.remove_container(each)
    assert_nothing_left(home, engine, name)


def assert_exactly_one_besides(home: Home, engine: Engine, name: str, liar: str) -> None:
    """Check for one machine, not counting a container that lies."""
    container = Container(name)
    assert container.find_container()
    assert container.session.container_id != engine.inspect_container(liar)["Id"]
    assert ssh(container.ssh_alias, "true").returncode == 0


def test_a_committed_image_does_not_say_whose_it_was(engine: Engine, saved: Container) -> None:
    described = engine.inspect_image(saved.image.name)
    assert described is not None
    config = described["Config"]
    assert [config["Labels"].get(label(name)) for name in BLANKED_LABELS] == [""] * len(
        BLANKED_LABELS
    )
    assert not config.get("Volumes")
    assert not any("redock" in variable.lower() for variable in config["Env"] or ())
    assert saved.session.instance and saved.session.instance not in json.dumps(config)


# What the user has besides.


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An agent with six keys, all of them tried before ours if nothing prevents it."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    env = {"SSH_AUTH_SOCK": str(path)}
    try:
        wait_for(path.exists)
        for number in range(6):
            key = str(tmp_path / f"key{number}")
            command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, check=True)
            command("ssh-add", "-q", key, check=True, env=env)
        yield env
    finally:
        process.kill()
        process.wait()


def test_an_agent_with_many_keys_neither_disturbs_nor_is_forwarded(
    container: Container, agent: dict[str, str]
) -> None:
    look = "echo \"[$SSH_AUTH_SOCK]\"; find /tmp -name 'agent.*'"
    done = command("ssh", "-S", "none", container.ssh_alias, look, env=agent)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    # The control: whoever asks for it gets it, and these keys really are too many.
    asked = command("ssh", "-S", "none", "-A", container.ssh_alias, look, env=agent)
    assert "/tmp/" in asked.stdout
    many = command("ssh", "-S", "none", "-o", "IdentitiesOnly=no", container.ssh_alias, env=agent)
    assert "Too many authentication failures" in many.stderr or many.returncode == 0


def test_the_users_defaults_for_all_hosts_do_not_disturb(
    fresh_home: Home, engine: Engine, name: str, agent: dict[str, str], tmp_path: Path
) -> None:
    fresh_home.ssh_config.parent.mkdir(mode=0o700)
    fresh_home.ssh_config.write_text(
        "Host *\n  ProxyJump nowhere.invalid\n  ForwardAgent yes\n  ForwardX11 yes\n"
        "  SendEnv SECRET\n  User nobody\n  Port 1\n  ControlMaster no\n"
        f"  IdentityFile {tmp_path}/key0\n  UserKnownHostsFile {tmp_path}/known\n"
        "  StrictHostKeyChecking no\n  LogLevel INFO\n"
    )
    started = redock("start", name, env=agent)
    assert started.returncode == 0, started.stderr
    env = {**agent, "SECRET": "told"}
    look = 'id -un; echo "[$SECRET]" "[$SSH_AUTH_SOCK]" "[$DISPLAY]"'
    for options in ([], ["-S", "none"]):
        done = command("ssh", *options, Container(name).ssh_alias, look, env=env)
        assert (done.stdout, done.stderr) == ("root\n[] [] []\n", "")
    assert not (tmp_path / "known").exists()
    assert not (fresh_home.path / ".ssh" / "known_hosts").exists()
    assert redock("kill", name).returncode == 0


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_private_whatever_the_umask(fresh_home: Home, name: str, umask: int) -> None:
    script = f'umask {umask:03o}; exec "$@"'
    done = command("sh", "-c", script, "sh", *REDOCK, "start", name)
    try:
        assert done.returncode == 0, done.stderr
        assert ssh(Container(name).ssh_alias, "true").returncode == 0
        open_to_others = {
            str(path.relative_to(fresh_home.path)): oct(path.lstat().st_mode)
            for directory in (fresh_home.redock, fresh_home.ssh_config.parent)
            for path in [directory, *directory.rglob("*")]
            if path.lstat().st_mode & 0o077
        }
        assert open_to_others == {}
    finally:
        kill_quietly(name)


def test_a_log_cannot_steer_the_terminal(home: Home, engine: Engine, base_image: str) -> None:
    name = new_name("steer")
    nasty = (
        r"\033]52;c;AAAA\007\033[2J\033]8;;http://x\033\\link\000\302\23331m\377\342\200\256end\r"
    )
    make_image(
        engine,
        base_image,
        name,
        replace_program("/usr/sbin/sshd", f"printf '{nasty}\\n'; printf '{nasty}\\n' >&2; exit 1"),
    )
    for options in ([], ["-v"], ["-vv"]):
        done = subprocess.run(
            [*REDOCK, *options, "start", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 1
        shown = (done.stdout + done.stderr).decode()
        assert "link" in shown and "end" in shown
        assert [c for c in shown if not c.isprintable() and c not in "\n\t"] == []
