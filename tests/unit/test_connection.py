"""Getting through: greetings, logins, the shared connection; no server is needed."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock import _keeper
from redock._connection import KeyRefused, open_connection, wait_for_banner
from redock._keeper import begin_close, close_connection
from redock._process import Deadline
from redock._ssh import HostEntry, control_path
from redock.errors import ContainerDied, HostKeyMismatch, RedockError, SecureShellTimeout
from tests.unit.conftest import PATIENCE

ENTRY = HostEntry("me:web", "web-container", "0123456789ab", 20001)


def alive() -> None:
    """A container that goes on."""


@pytest.fixture
def listen() -> Iterator[Callable[[bytes], int]]:
    """Listen on a port of the loopback interface and greet with some bytes."""
    listeners: list[socket.socket] = []

    def start(greeting: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(greeting)

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_greeting_ends_the_wait(listen: Callable[[bytes], int]) -> None:
    wait_for_banner("127.0.0.1", listen(b"SSH-2.0-x\r\n"), Deadline(PATIENCE), alive)


def test_a_server_that_comes_later_is_waited_for(listen: Callable[[bytes], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]

    def later() -> None:
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-x\r\n")

    timer = threading.Timer(0.1, later)
    timer.start()
    wait_for_banner("127.0.0.1", port, Deadline(PATIENCE), alive)
    timer.join(PATIENCE)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad\r\n\r\n"])
def test_an_open_port_is_no_ssh_server(greeting: bytes, listen: Callable[[bytes], int]) -> None:
    with pytest.raises(SecureShellTimeout, match=r"within 0\.1 seconds"):
        wait_for_banner("127.0.0.1", listen(greeting), Deadline(0.1), alive)


def test_a_container_that_ends_ends_the_wait(listen: Callable[[bytes], int]) -> None:
    def dead() -> None:
        raise ContainerDied("it ended")

    with pytest.raises(ContainerDied):
        wait_for_banner("127.0.0.1", listen(b""), Deadline(PATIENCE), dead)


@pytest.fixture
def fake_ssh(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a program called ssh in front that does what a test says."""

    def make(script: str) -> Path:
        program = sandbox / "ssh"
        program.write_text(f'#!/bin/sh\necho "$@" >>{sandbox}/calls\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{sandbox}:{os.environ['PATH']}")
        return sandbox / "calls"

    return make


def test_a_login_asks_nothing_and_uses_redocks_configuration(
    fake_ssh: Callable[[str], Path], redock_home: Path
) -> None:
    calls = fake_ssh("exit 0")
    open_connection(ENTRY, Deadline(PATIENCE), alive)
    assert calls.read_text() == (
        f"-F {redock_home}/ssh/config -o BatchMode=yes web-container true\n"
    )


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("Host key verification failed.", HostKeyMismatch),
        ("root@127.0.0.1: Permission denied (publickey).", KeyRefused),
    ],
)
def test_a_refusal_is_told_at_once(
    message: str, error: type[RedockError], fake_ssh: Callable[[str], Path]
) -> None:
    calls = fake_ssh(f"echo '{message}' >&2; exit 255")
    with pytest.raises(error, match="web-container"):
        open_connection(ENTRY, Deadline(PATIENCE), alive)
    assert len(calls.read_text().splitlines()) == 1


def test_other_failures_are_tried_again_until_the_deadline(
    fake_ssh: Callable[[str], Path], sandbox: Path
) -> None:
    calls = fake_ssh(f"[ $(wc -l <{sandbox}/calls) -ge 3 ] || {{ echo reset >&2; exit 255; }}")
    open_connection(ENTRY, Deadline(PATIENCE), alive)
    assert len(calls.read_text().splitlines()) == 3


def test_a_login_that_never_works_is_one_line_with_the_reason(
    fake_ssh: Callable[[str], Path],
) -> None:
    fake_ssh("echo one >&2; echo 'Connection reset' >&2; exit 255")
    with pytest.raises(SecureShellTimeout, match=r"within 0\.3 seconds: Connection reset$"):
        open_connection(ENTRY, Deadline(0.3), alive)


def test_a_login_that_hangs_is_ended(fake_ssh: Callable[[str], Path]) -> None:
    fake_ssh("exec sleep 120")
    with pytest.raises(SecureShellTimeout):
        open_connection(ENTRY, Deadline(0.2), alive)


def test_a_container_that_ends_meanwhile_ends_the_login(fake_ssh: Callable[[str], Path]) -> None:
    def dead() -> None:
        raise ContainerDied("it ended")

    fake_ssh("exit 255")
    with pytest.raises(ContainerDied):
        open_connection(ENTRY, Deadline(PATIENCE), dead)


def test_without_ssh_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RedockError, match="apt-get install openssh-client"):
        open_connection(ENTRY, Deadline(PATIENCE), alive)


@pytest.fixture
def keeper() -> Iterator[Callable[[bool], list[bytes]]]:
    """Keep a shared connection as OpenSSH's master does: note what is said, hang up or not."""
    path = control_path(ENTRY.instance)
    assert path is not None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ends: list[socket.socket] = [listener]

    def start(hang_up: bool) -> list[bytes]:
        said: list[bytes] = []
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            ends.append(connection)
            said.append(connection.recv(24, socket.MSG_WAITALL))
            if hang_up:
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return said

    yield start
    for end in ends:
        end.close()


def test_a_shared_connection_is_told_to_end_and_its_socket_removed(
    keeper: Callable[[bool], list[bytes]],
) -> None:
    said = keeper(True)
    close_connection(ENTRY.instance)
    # OpenSSH's PROTOCOL.mux: hello, version 4; terminate, request 0; each eight bytes long.
    assert said == [bytes.fromhex("00000008 00000001 00000004 00000008 10000005 00000000")]
    path = control_path(ENTRY.instance)
    assert path is not None
    assert not Path(path).exists()


def test_a_keeper_that_hangs_is_not_waited_for_long(
    keeper: Callable[[bool], list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_keeper, "CLOSE_PATIENCE", 0.05)
    keeper(False)
    begun = begin_close(ENTRY.instance)
    assert begun is not None
    close_connection(ENTRY.instance, begun)
    assert begun.fileno() == -1


def test_a_socket_that_nobody_keeps_is_removed() -> None:
    path = control_path(ENTRY.instance)
    assert path is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(path)
    assert begin_close(ENTRY.instance) is None
    close_connection(ENTRY.instance)
    assert not Path(path).exists()


def test_without_a_shared_connection_there_is_nothing_to_end() -> None:
    assert begin_close(ENTRY.instance) is None
    close_connection(ENTRY.instance)
