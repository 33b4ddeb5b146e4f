"""
Getting through to a machine: its greeting, and the first login, which others then share.
"""

from __future__ import annotations

import socket
import subprocess

from redock._process import Deadline, missing_program
from redock._ssh import HostEntry, config_file
from redock.errors import HostKeyMismatch, RedockError, SecureShellTimeout, last_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "KeyRefused",
    "open_connection",
    "wait_for_banner",
]


class KeyRefused(RedockError):
    """The machine is the right one, but does not know redock's key."""


def wait_for_banner(
    address: str, port: int, deadline: Deadline, check_alive: Callable[[], object]
) -> None:
    """
    Wait until an SSH server answers.

    Where a port is published a connection succeeds before the server listens;
    only its greeting (RFC 4253, section 4.2) shows that it is there.

    :param address: The address to connect to.
    :param port: The port to connect to.
    :param deadline: When to give up.
    :param check_alive: Called now and then; raises an error to end the wait.
    :raises SecureShellTimeout: There was no answer in time.
    """
    pause, checked = 0.005, Deadline(0.1)
    while not greets(address, port, min(1.0, deadline.remaining)):
        if checked.passed:
            check_alive()
            checked = Deadline(0.2)
        if deadline.passed:
            raise SecureShellTimeout(
                f"no SSH server answered on {address} port {port}"
                f" within {deadline.seconds:g} seconds"
            )
        deadline.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def greets(address: str, port: int, timeout: float) -> bool:
    """
    Check whether an SSH server answers.

    :param address: The address to connect to.
    :param port: The port to connect to.
    :param timeout: Seconds to wait for the greeting.
    :returns: True when it does.
    """
    try:
        with socket.create_connection((address, port), timeout=max(0.01, timeout)) as connection:
            return connection.recv(8).startswith(b"SSH-")
    except OSError:
        return False


def open_connection(
    entry: HostEntry, deadline: Deadline, check_alive: Callable[[], object]
) -> None:
    """
    Log in; the connection stays open and later commands share it.

    :param entry: The machine.
    :param deadline: When to give up.
    :param check_alive: Called when it did not work; raises an error to end the wait.
    :raises HostKeyMismatch: The machine's host key is not the pinned one.
    :raises SecureShellTimeout: It did not work in time.
    :raises KeyRefused: The machine does not know redock's key.
    """
    command = ["ssh", "-F", config_file(), "-o", "BatchMode=yes", entry.alias, "true"]
    while True:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=max(0.05, deadline.remaining),
                check=False,
            )
        except FileNotFoundError as error:
            raise missing_program("ssh") from error
        except subprocess.TimeoutExpired:
            raise SecureShellTimeout(login_failed(entry, deadline, "")) from None
        if done.returncode == 0:
            return
        message = last_lines(done.stderr.decode("utf-8", "replace"), 20)
        if "host key" in message.lower() and "verif" in message.lower():
            raise HostKeyMismatch(
                f"{entry.alias}: whoever answers on port {entry.port} does not have the host key"
                " of this machine; nothing was sent to it. If you replaced the key yourself, make a"
                f" new machine with 'redock kill {entry.name}' and 'redock start {entry.name}'"
            )
        if "Permission denied" in message:
            raise KeyRefused(
                f"{entry.alias} refused redock's key: {last_lines(message, 1)};"
                f" 'redock kill {entry.name}' and 'redock start {entry.name}' make a new machine"
            )
        if deadline.passed:
            raise SecureShellTimeout(login_failed(entry, deadline, message))
        check_alive()
        deadline.sleep(0.1)


def login_failed(entry: HostEntry, deadline: Deadline, message: str) -> str:
    """
    Say that a machine could not be logged into in time.

    :param entry: The machine.
    :param deadline: The deadline that passed.
    :param message: What ssh printed.
    :returns: One line for the user.
    """
    detail = f": {last_lines(message, 1)}" if message else ""
    return f"logging into {entry.alias} did not work within {deadline.seconds:g} seconds{detail}"
