"""Hosts that are reached as the user's ssh configuration says: through others, with an agent."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock._engine import Engine
from redock.api import Container
from redock.bootstrap import Bootstrap, run
from redock.errors import ConnectionFailed

from .conftest import Home, command, ssh


@pytest.fixture
def agent(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A running ssh-agent without keys; its socket is in the environment."""
    path = home.path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
    finally:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)


def address_of(engine: Engine, container: str | None) -> str:
    """The address of a container in the engine's own network, where nothing is published."""
    assert container
    described = engine.inspect_container(container)
    (network,) = described["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def pin(home: Home, container: Container, alias: str) -> str:
    """Write the host key of a machine under another name; the pathname of the file."""
    key = (home.redock / "ssh" / "known_hosts.d" / str(container.session.instance)).read_text()
    path = home.path / f"known_{alias}"
    path.write_text(" ".join([alias, *key.split()[1:]]) + "\n")
    return str(path)


def add_entry(home: Home, *lines: str) -> None:
    """Add to the user's own configuration."""
    with home.ssh_config.open("a") as config:
        config.write("\n" + "\n  ".join(lines) + "\n")


def test_through_a_jump_host_with_a_key_of_the_agent(
    home: Home, engine: Engine, agent: Path, make_machine: Callable[[str], Container]
) -> None:
    jump, inner = make_machine("jump"), make_machine("inner")
    key = home.path / "id_agent"
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key), check=True)
    for machine in (jump, inner):
        with Bootstrap(machine.ssh_alias) as host:
            host.user("root", authorized_keys=[key.with_suffix(".pub").read_text().strip()])
    add_entry(
        home,
        "Host inner.example",
        f"HostName {address_of(engine, inner.session.container_id)}",
        "User root",
        "HostKeyAlias inner",
        f"UserKnownHostsFile {pin(home, inner, 'inner')}",
        "StrictHostKeyChecking yes",
        "IdentityFile none",
        f"ProxyJump {jump.ssh_alias}",
    )
    with pytest.raises(ConnectionFailed) as caught, Bootstrap("inner.example") as host:
        host.read_file("/etc/hostname")
    assert caught.value.cause == "authentication"
    command("ssh-add", "-q", str(key), check=True)
    key.unlink()
    with Bootstrap("inner.example") as host:
        assert host.facts.hostname == inner.hostname
        assert host.file("/srv/through", "jumped\n").changed
        assert host.execute("cat", "/srv/through", capture=True).stdout == "jumped\n"
        # The host could reach that address itself: it is the jump host that did.
        came_from = host.execute("echo $SSH_CONNECTION", capture=True).stdout.split()[0]
        assert came_from == address_of(engine, jump.session.container_id)
        assert host.rsync(Path(__file__).parent, "/srv/tests").changed
        assert host.rsync(Path(__file__).parent, "/srv/tests").changed is False
    # The way in is what ssh says it is, for all hosts of a run as well.
    results = run(lambda host: host.file("/srv/through", "jumped\n"), "inner.example")
    assert results["inner.example"].changed == []  # type: ignore[union-attr]
    assert ssh(inner.ssh_alias, "cat /srv/through").stdout == "jumped\n"
