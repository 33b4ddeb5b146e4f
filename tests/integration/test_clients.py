"""Programs that ride on ssh: they work with no option, no prompt and no warning."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock.api import Container

from .conftest import Home, command, ssh
from .harness import wait_for

#: Where the web server inside the machine listens, on its own loopback interface.
WEB_PORT = 8123


def test_ansible_reaches_a_machine(machine: Container, home: Home, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "ansible"
    done = command(
        *(str(program), "all", "-i", f"{machine.ssh_alias},", "-m", "ping"),
        env={"ANSIBLE_HOME": str(home.path / ".ansible"), "ANSIBLE_LOCALHOST_WARNING": "0"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"ping": "pong"' in done.stdout
    assert "Permanently added" not in done.stderr and "host key" not in done.stderr.lower()


@pytest.fixture(scope="module")
def web(machine: Container) -> Container:
    """A machine with a web server that can be reached from inside only."""
    alias = machine.ssh_alias
    serve = f"python3 -m http.server --bind 127.0.0.1 --directory /srv {WEB_PORT}"
    assert ssh(alias, "echo inside >/srv/page").returncode == 0
    assert ssh(alias, f"setsid {serve} </dev/null >/dev/null 2>&1 &").returncode == 0
    look = f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {WEB_PORT}))'"
    wait_for(lambda: ssh(alias, look).returncode == 0)
    return machine


def free_port() -> int:
    """Find a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def editor(alias: str, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Connect the way VS Code does: no terminal, a shell, dynamic forwarding."""
    process = subprocess.Popen(
        ["ssh", "-T", "-D", str(port), *options, alias, "bash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ValueError):
            process.communicate(timeout=30)


@pytest.mark.parametrize("options", [[], ["-S", "none"]], ids=["shared", "alone"])
def test_an_editor_gets_a_shell_and_dynamic_forwarding(web: Container, options: list[str]) -> None:
    port = free_port()
    with editor(web.ssh_alias, port, *options) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("echo ready; hostname\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == f"{web.hostname}\n"
        assert get_through_socks(port).endswith(b"\r\n\r\ninside\n")
        process.stdin.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None and process.stderr.read() == ""
        process.stdout.close()
        process.stderr.close()


def get_through_socks(port: int) -> bytes:
    """Fetch the page through a SOCKS 5 proxy (RFC 1928)."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"\x05\x01\x00")
        assert connection.recv(2) == b"\x05\x00"
        connection.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1"))
        connection.sendall(struct.pack("!H", WEB_PORT))
        assert connection.recv(10)[:2] == b"\x05\x00"
        connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_port_is_forwarded_and_given_back(web: Container) -> None:
    port = free_port()
    forward = f"{port}:127.0.0.1:{WEB_PORT}"
    assert command("ssh", "-O", "forward", "-L", forward, web.ssh_alias).returncode == 0
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.endswith(b"inside\n")
    assert command("ssh", "-O", "cancel", "-L", forward, web.ssh_alias).returncode == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_old_and_new_scp_copy_both_ways(machine: Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 4096)
    for number, option in enumerate(([], ["-O"])):
        remote = f"{machine.ssh_alias}:/root/copy{number}"
        back = tmp_path / f"back{number}"
        there = command("scp", *option, "-q", str(tmp_path / "file"), remote)
        again = command("scp", *option, "-q", remote, str(back))
        assert (there.returncode, there.stderr, again.returncode, again.stderr) == (0, "", 0, "")
        assert back.read_bytes() == (tmp_path / "file").read_bytes()
