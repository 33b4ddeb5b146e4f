"""Engines on other machines: over SSH, and over TCP with TLS. Here those machines are this one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock._endpoint import Endpoint, find_endpoint
from redock._engine import Engine
from redock._tunnel import Tunnel
from redock.api import Container
from redock.bootstrap import Bootstrap
from redock.cluster import Cluster
from redock.errors import DockerUnavailable

from .conftest import REDOCK, REPOSITORY, Home, command, new_name, redock, ssh
from .harness import assert_nothing_left, assert_one_line, wait_for

#: A container with the network and the engine of this host stands for the other machine: nothing
#: has to be installed for it.
SSHD = """\
umask 077
mkdir -p /run/sshd /root/.ssh
cp /keys/user_key.pub /root/.ssh/authorized_keys
cp /keys/host_key /root/host_key
exec /usr/sbin/sshd -D -e -p $0 -o ListenAddress=127.0.0.1 -h /root/host_key
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def elsewhere(
    home: Home, engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A host that the user's ssh configuration knows, whose engine is this one's."""
    directory = tmp_path_factory.mktemp("sshd")
    for name in ("host_key", "user_key"):
        key = str(directory / name)
        command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, check=True)
    port, path = free_port(), engine.socket_path
    server = engine.create_container(
        f"{REPOSITORY}-elsewhere",
        {
            "Image": base_image,
            "Cmd": ["sh", "-c", SSHD, str(port)],
            "HostConfig": {
                "NetworkMode": "host",
                "Binds": [f"{path}:/var/run/docker.sock", f"{directory}:/keys:ro"],
            },
        },
    )
    engine.begin_start(server).result()
    host_key = (directory / "host_key.pub").read_text()
    (directory / "known_hosts").write_text(f"elsewhere {host_key}")
    home.ssh_config.parent.mkdir(mode=0o700, exist_ok=True)
    home.ssh_config.write_text(
        f"Host elsewhere\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias elsewhere\n"
        f"  User root\n  IdentityFile {directory}/user_key\n"
        f"  UserKnownHostsFile {directory}/known_hosts\n  StrictHostKeyChecking yes\n"
    )
    before = home.ssh_config.read_bytes()
    wait_for(lambda: ssh("elsewhere", "true").returncode == 0)
    yield "ssh://elsewhere"
    Tunnel(Endpoint("ssh://elsewhere", "a test")).close()
    engine.remove_container(server)
    # Besides our own line, nothing of the user's was changed.
    assert home.ssh_config.read_bytes().endswith(before)


@pytest.fixture
def over_ssh(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The engine over there is what the environment names."""
    monkeypatch.setenv("DOCKER_HOST", elsewhere)
    return elsewhere


def test_a_machine_over_there_is_reached_by_its_alias(
    home: Home, over_ssh: str, engine: Engine
) -> None:
    name = new_name("far")
    done = redock("start", "-q", "--no-connect", name, "--timeout", "60")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    alias = Container(name).ssh_alias
    assert done.stdout == f"ssh {alias}\n"
    entry = (home.redock / "ssh" / "config").read_text()
    assert "ProxyCommand ssh" in entry
    assert ssh(alias, "hostname").stdout == f"{alias.removesuffix('-container')}\n"
    # Without the connection that was left open it works as well.
    command("ssh", "-O", "exit", alias)
    Tunnel(find_endpoint()).close()
    done = ssh(alias, "cat /etc/redock/ssh/instance")
    assert (done.returncode, done.stderr) == (0, "")
    with Bootstrap(alias) as host:
        assert host.file("/root/hello", "from afar\n").changed
    (home.path / "files").mkdir()
    (home.path / "files" / "a").write_text("a")
    copied = command("rsync", "-a", str(home.path / "files"), f"{alias}:/srv/")
    assert (copied.returncode, copied.stderr) == (0, "")
    assert redock("commit", name).returncode == 0
    assert redock("kill", name).returncode == 0
    assert_nothing_left(home, engine, name)
    assert redock("start", "--no-connect", name, "--timeout", "60").returncode == 0
    assert ssh(alias, "cat /root/hello /srv/files/a").stdout == "from afar\na"
    for verb in ("kill", "delete"):
        assert redock(verb, name).returncode == 0


def test_a_stopped_machine_comes_back(home: Home, over_ssh: str, engine: Engine) -> None:
    with Container(new_name("far"), timeout=60) as machine:
        assert machine.session.container_id
        port = machine.session.port
        engine.request("POST", f"/containers/{machine.session.container_id}/stop?t=0", "stop")
        assert not machine.find_container()
        machine.start()
        assert machine.session.port == port
        assert machine.ssh_endpoint == ("127.0.0.1", port)
        assert ssh(machine.ssh_alias, "true").returncode == 0


def test_the_tunnel_is_opened_again_when_it_broke(over_ssh: str) -> None:
    engine = Engine()
    assert engine.version()["Version"]
    tunnel = engine.tunnel
    assert tunnel is not None
    command(*tunnel.ssh("-O", "stop"))
    command("pkill", "-f", tunnel.control_path)
    assert Engine().version()["Version"]
    # What is left of a connection that was killed is in nobody's way.
    Path(tunnel.socket_path).unlink()
    assert Engine().version()["Version"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ssh://elsewhere/nonexistent/docker.sock", "start it there"),
        ("ssh://nobody.invalid", "has to work without a question"),
        ("ssh://other@elsewhere", "has to work without a question"),
        ("tcp://192.0.2.1:2375", "not protected"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(elsewhere: str, url: str, words: str) -> None:
    done = redock("kill", new_name("none"), env={"DOCKER_HOST": url})
    assert done.returncode == 1
    assert_one_line(done.stderr)
    assert words in done.stderr


def test_clusters_say_that_they_need_an_engine_here(over_ssh: str) -> None:
    with pytest.raises(DockerUnavailable, match="run redock there"):
        Cluster(nodes=1).start()


def test_two_commands_at_once_share_one_tunnel(home: Home, over_ssh: str) -> None:
    Tunnel(find_endpoint()).close()
    names = [new_name("pair"), new_name("pair")]
    running = [
        subprocess.Popen(
            [*REDOCK, "start", "-q", "--no-connect", name, "-t60"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for name in names
    ]
    for process in running:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, b"")
    keepers = command("pgrep", "-fc", Tunnel(find_endpoint()).control_path).stdout
    assert int(keepers) >= 1
    for name in names:
        assert ssh(Container(name).ssh_alias, "true").returncode == 0
        assert redock("kill", name).returncode == 0


# Over TCP with TLS.


class TlsProxy:
    """
    A server that lets clients with the right certificate talk to an engine's socket.

    It listens on an address of the loopback network that redock does not take for its own host.

    :param certificates: A directory with the certificates.
    :param target: The engine's socket.
    """

    address = "127.0.0.2"

    def __init__(self, certificates: Path, target: str) -> None:
        self.target = target
        self.context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem")
        )
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        wait_for(lambda: self.port)

    def run(self) -> None:
        """Serve until the loop is stopped."""
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_server(self.handle, self.address, 0, ssl=self.context)
        )
        self.port = server.sockets[0].getsockname()[1]
        self.loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    def close(self) -> None:
        """Stop serving."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=10)
        self.loop.close()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect a client with the engine."""
        engine_reader, engine_writer = await asyncio.open_unix_connection(self.target)

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
                if target.can_write_eof():
                    target.write_eof()

        there = asyncio.create_task(pass_on(reader, engine_writer))
        await pass_on(engine_reader, writer)
        writer.close()
        engine_writer.close()
        there.cancel()


def make_certificates(directory: Path) -> None:
    """Make an authority, and certificates of it for a server and for a client."""

    def openssl(*arguments: str) -> None:
        command("openssl", *arguments, check=True)

    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority"),
        *("-keyout", str(directory / "ca-key.pem"), "-out", str(directory / "ca.pem")),
    )
    for name, key, extension in (
        ("server", "server-key", f"subjectAltName=IP:{TlsProxy.address}"),
        ("cert", "key", "extendedKeyUsage=clientAuth"),
    ):
        (directory / "extension").write_text(extension)
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(directory / f"{key}.pem"), "-out", str(directory / "request.pem")),
        )
        openssl(
            *("x509", "-req", "-in", str(directory / "request.pem"), "-days", "2"),
            *("-CA", str(directory / "ca.pem"), "-CAkey", str(directory / "ca-key.pem")),
            *("-CAcreateserial", "-extfile", str(directory / "extension")),
            *("-out", str(directory / f"{name}.pem")),
        )


@pytest.fixture(scope="module")
def over_tls(
    home: Home, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment that names an engine that is reached over TLS."""
    directory = tmp_path_factory.mktemp("tls")
    make_certificates(directory)
    assert engine.socket_path
    proxy = TlsProxy(directory, engine.socket_path)
    yield {
        "DOCKER_HOST": f"tcp://{proxy.address}:{proxy.port}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(directory),
    }
    proxy.close()


def test_a_machine_is_reached_through_an_engine_over_tls(
    home: Home, over_tls: dict[str, str], engine: Engine
) -> None:
    name = new_name("tls")
    done = redock("start", "-q", "--no-connect", name, "--timeout", "60", env=over_tls)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    alias = Container(name).ssh_alias
    command("ssh", "-O", "exit", alias)
    assert "redock._dial" in (home.redock / "ssh" / "config").read_text()
    text = "x" * 1_000_000
    done = command("ssh", alias, "wc -c; hostname", input=text)
    assert done.stdout.split() == ["1000000", alias.removesuffix("-container")]
    assert command("ssh", alias, "head -c 3000000 /dev/zero | tr '\\0' y").stdout == "y" * 3_000_000
    assert ssh(alias, "exit 42").returncode == 42
    assert redock("commit", name, env=over_tls).returncode == 0
    assert redock("kill", name, env=over_tls).returncode == 0
    assert_nothing_left(home, engine, name)
    assert redock("delete", name, env=over_tls).returncode == 0


def test_certificates_are_verified(over_tls: dict[str, str], tmp_path: Path) -> None:
    make_certificates(tmp_path)
    done = redock("kill", new_name("none"), env={**over_tls, "DOCKER_CERT_PATH": str(tmp_path)})
    assert done.returncode == 1
    assert_one_line(done.stderr)
    assert "certificate" in done.stderr.lower()
    done = redock("kill", new_name("none"), env={**over_tls, "DOCKER_CERT_PATH": "/nonexistent"})
    assert done.returncode == 1
    assert_one_line(done.stderr)
