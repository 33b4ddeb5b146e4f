"""
Ports that lead into a machine, or out of it, through its shared connection.

ssh adds and takes away forwardings while a connection is open (``-O forward`` and
``-O cancel``, ssh(1)). The connection ends when nobody has used it for a while, and a
port that is listened on is no use, so each forwarding has a *keeper*: a session in
which nothing happens. The command line of the keeper says what it keeps, so that what
there is can be seen in the list of processes and no file has to say it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess

from redock import _ssh
from redock._process import Deadline, missing_program, run, wait_until
from redock.errors import (
    ConnectionFailed,
    InvalidArgument,
    PortUnavailable,
    RedockError,
    last_lines,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Forward", "Ports", "find_forwards", "parse_ports"]

LOOPBACK = "127.0.0.1"
#: What the command line of a keeper starts with.
MARK = ": redock-forward"
#: How often a free port is chosen anew because somebody else was faster.
ATTEMPTS = 8
PORTS = re.compile(
    r"(?:(?P<address>[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.]+\]|localhost):)?"
    r"(?P<listen>[0-9]{1,5})(?::(?P<to>[0-9]{1,5}))?",
    re.ASCII,
)


class Ports:
    """
    Where a forwarding listens and where it leads.

    :param listen: The port that is listened on; 0: any that is free.
    :param to: The port it leads to on the other side.
    :param address: The address that is listened on (default: the loopback interface).
    :param reverse: It listens in the machine and leads to this host (default: no).
    """

    __slots__ = ("address", "listen", "reverse", "to")

    def __init__(
        self, listen: int, to: int, address: str = LOOPBACK, *, reverse: bool = False
    ) -> None:
        self.listen = listen
        self.to = to
        self.address = address
        self.reverse = reverse

    @property
    def option(self) -> list[str]:
        """What ssh is told, see ``-L`` and ``-R`` in ssh(1)."""
        place = f"[{self.address}]" if ":" in self.address else self.address
        return ["-R" if self.reverse else "-L", f"{place}:{self.listen}:localhost:{self.to}"]

    @property
    def place(self) -> str:
        """Where it listens, for people."""
        return (
            f"[{self.address}]:{self.listen}"
            if ":" in self.address
            else (f"{self.address}:{self.listen}")
        )

    def describe(self, alias: str) -> str:
        """
        Say what leads where.

        :param alias: The machine.
        :returns: One line.
        """
        if self.reverse:
            return f"{alias}:{self.listen} -> localhost:{self.to}"
        return f"{self.place} -> {alias}:{self.to}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ports) and self.option == other.option

    def __hash__(self) -> int:
        return hash(tuple(self.option))

    def __repr__(self) -> str:
        return f"Ports({' '.join(self.option)})"


def parse_ports(text: str | int, *, reverse: bool = False) -> Ports:
    """
    Read what is to be forwarded.

    :param text: ``PORT``, ``LISTEN:TO`` or ``ADDRESS:LISTEN:TO``; an IPv6 address in brackets.
    :param reverse: It listens in the machine (default: on this host).
    :returns: The ports.
    :raises InvalidArgument: It is nothing of that kind.
    """
    found = PORTS.fullmatch(str(text))
    if not found:
        raise InvalidArgument(
            f"{str(text)[:60]!r} is no forwarding: write PORT, LISTEN:TO or ADDRESS:LISTEN:TO"
        )
    listen = int(found["listen"])
    to = int(found["to"] or listen)
    address = (found["address"] or LOOPBACK).strip("[]").replace("localhost", LOOPBACK)
    if listen > 65535 or not 0 < to < 65536:
        raise InvalidArgument(f"{text}: a port is a number from 1 to 65535 (0 listens on any)")
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, address)
            break
    else:
        raise InvalidArgument(f"{address} is no IP address")
    if reverse and address != LOOPBACK:
        raise InvalidArgument("in a machine only the loopback interface can be listened on")
    return Ports(listen, to, address, reverse=reverse)


class Forward:
    """
    A forwarding that is there.

    Lifecycle: :meth:`close` ends it; used as a context manager it ends on exit. One
    in the background goes on without this process.

    :param entry: The machine, which runs and has a shared connection.
    :param ports: Where to listen and where to lead; a port 0 is replaced by the one chosen.
    :param background: It goes on when this process has ended (default: no).
    :raises PortUnavailable: Another program listens there.
    :raises ConnectionFailed: The shared connection is gone.
    """

    def __init__(self, entry: _ssh.HostEntry, ports: Ports, *, background: bool = False) -> None:
        self.entry = entry
        self.ports = ports
        self.background = background
        self.keeper: subprocess.Popen[bytes] | None = None
        wanted = ports.listen
        for attempt in range(ATTEMPTS):
            if not wanted:
                self.ports = Ports(free_port(ports), ports.to, ports.address, reverse=ports.reverse)
            try:
                self.open()
                return
            except PortUnavailable:
                if wanted or attempt == ATTEMPTS - 1:
                    raise

    def __repr__(self) -> str:
        return f"Forward({self.entry.alias!r}, {self.ports!r})"

    def __enter__(self) -> Forward:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self.ports.listen

    @property
    def alive(self) -> bool:
        """Whether it is still there: it ends with the machine."""
        return self.keeper is not None and self.keeper.poll() is None

    def open(self) -> None:
        """
        Start the keeper and tell the shared connection what to forward.

        :raises PortUnavailable: Another program listens there.
        :raises ConnectionFailed: The shared connection is gone.
        """
        self.check_free()
        self.start_keeper()
        try:
            control(self.entry, "forward", self.ports)
        except BaseException:
            self.end_keeper()
            raise

    def check_free(self) -> None:
        """
        Make sure nobody listens there; ssh would take two of the same for one.

        :raises PortUnavailable: Somebody does.
        """
        for pid, instance, ports in find_forwards():
            if ports == self.ports and (not ports.reverse or instance == self.entry.instance):
                raise PortUnavailable(f"{ports.place} is forwarded already, by process {pid}")
        if self.ports.reverse or can_listen(self.ports):
            return
        # A redock that was killed could not take it away.
        with contextlib.suppress(RedockError):
            control(self.entry, "cancel", self.ports)
        if not wait_until(lambda: can_listen(self.ports), Deadline(0.2)):
            raise PortUnavailable(
                f"another program listens on {self.ports.place}, or you may not:"
                " choose another port, 0 for any"
            )

    def start_keeper(self) -> None:
        """Start the session that keeps the shared connection open."""
        words = [MARK, self.entry.instance, *self.ports.option]
        # Without standard input nothing tells the other side that we have been killed.
        wait = "exec sleep infinity" if self.background else "exec cat >/dev/null"
        command = ["ssh", "-F", _ssh.config_file(), "-o", "BatchMode=yes", "-T", self.entry.alias]
        try:
            self.keeper = subprocess.Popen(
                [*command, f"{' '.join(words)}; {wait}"],
                stdin=subprocess.DEVNULL if self.background else subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for us alone: we have something to do first.
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise missing_program("ssh") from error

    def end_keeper(self) -> None:
        """End the session that keeps the shared connection open."""
        if self.keeper is not None:
            self.keeper.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.keeper.wait(5)
            if self.keeper.stdin:
                self.keeper.stdin.close()

    def wait(self, seconds: float | None = None) -> bool:
        """
        Wait until the machine has gone, and the forwarding with it.

        :param seconds: How long to wait (default: for as long as it takes).
        :returns: False when it is still there.
        """
        assert self.keeper is not None
        try:
            self.keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """End it; connections that are open through it stay until they end."""
        with contextlib.suppress(RedockError):
            control(self.entry, "cancel", self.ports)
        self.end_keeper()


def control(entry: _ssh.HostEntry, action: str, ports: Ports) -> None:
    """
    Ask the keeper of a shared connection for a change.

    :param entry: The machine.
    :param action: ``forward`` or ``cancel``, see ``-O`` in ssh(1).
    :param ports: What to forward.
    :raises PortUnavailable: It cannot listen there.
    :raises ConnectionFailed: There is no shared connection.
    """
    command = ["ssh", "-F", _ssh.config_file(), "-o", "BatchMode=yes", "-O", action]
    done = run([*command, *ports.option, entry.alias], timeout=30, check=False)
    if done:
        return
    if "forwarding" in done.stderr and "failed" in done.stderr:
        where = f"{entry.alias} port {ports.listen}" if ports.reverse else ports.place
        raise PortUnavailable(f"another program listens on {where}, or you may not: choose another")
    reason = last_lines(done.stderr, 1) or f"ssh ended with status {done.returncode}"
    raise ConnectionFailed(f"{entry.alias} has no shared connection: {reason}", "lost")


def can_listen(ports: Ports) -> bool:
    """
    Check whether a port of this host is free.

    :param ports: Where to listen.
    :returns: True when it is, and we may.
    """
    family = socket.AF_INET6 if ":" in ports.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ports.address, ports.listen))
        except OSError:
            return False
    return True


def free_port(ports: Ports) -> int:
    """
    Choose a port that nobody listens on.

    :param ports: Where to listen.
    :returns: A port; in a machine only one that is free here, as good a guess as any.
    """
    address = LOOPBACK if ports.reverse else ports.address
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise PortUnavailable(f"cannot listen on {address}: {error.strerror}") from error
        return int(probe.getsockname()[1])


def find_forwards() -> list[tuple[int, str, Ports]]:
    """
    Find the forwardings there are, of this user.

    :returns: The number of the process that keeps each, the id of the container, the ports.
    """
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.getuid():
                continue
            with open(f"/proc/{pid}/cmdline", "rb") as handle:
                words = handle.read().decode("utf-8", "replace").split("\0")
        except OSError:
            # It has ended meanwhile.
            continue
        if os.path.basename(words[0]) == "ssh" and len(words) > 1 and words[-2].startswith(MARK):
            with contextlib.suppress(ValueError, InvalidArgument):
                kept = words[-2].removeprefix(MARK).partition(";")[0].split()
                instance, kind, where = kept
                ports = parse_option(where, reverse=kind == "-R")
                found.append((pid, instance, ports))
    return found


def parse_option(text: str, *, reverse: bool) -> Ports:
    """
    Read what ssh was told.

    :param text: What follows ``-L`` or ``-R``.
    :param reverse: It was ``-R``.
    :returns: The ports.
    """
    return parse_ports(text.replace(":localhost:", ":"), reverse=reverse)


def cancel(entry: _ssh.HostEntry, pid: int, ports: Ports) -> None:
    """
    End a forwarding that another process keeps.

    :param entry: The machine.
    :param pid: The process that keeps it.
    :param ports: What it forwards.
    """
    with contextlib.suppress(RedockError):
        control(entry, "cancel", ports)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)
