"""
How a node of a cluster is reached: what it is called, how it is, running commands in it.
"""

from __future__ import annotations

import os
import threading

from redock import _connection, _keeper, _ssh
from redock._command import Line, brief, check_command, last_words
from redock._process import Deadline
from redock._result import Result
from redock.cluster._queues import Delayer
from redock.cluster._shell import Shell
from redock.errors import (
    ExternalCommandFailed,
    NoContainerRunning,
    NotFound,
    RedockError,
    SSHConfigConflict,
    last_lines,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

    from redock._engine import Engine
    from redock._http import Stream
    from redock.cluster._boot import Place
    from redock.cluster._cluster import Cluster
    from redock.cluster._spec import NodeSpec

__all__ = ["SHOWN", "TIMEOUT", "Contact"]

# A test that fails here failed where it asked, so pytest shows that line and not ours.
__tracebackhide__ = True

#: Seconds a command may take when nothing else is said.
TIMEOUT = 60.0
LOG_LINES = 20
#: How much of what a command printed is on the timeline.
SHOWN = 200


class Contact:
    """The part of :class:`~redock.cluster.Node` that reaches it and runs commands."""

    def __init__(self, cluster: Cluster, spec: NodeSpec, place: Place) -> None:
        self.cluster = cluster
        #: What the node was to be, see :class:`NodeSpec`.
        self.spec = spec
        self.place = place
        #: The engine's id of the container that holds address, port and network faults.
        self.owner_id = ""
        #: When that was started, as far as is known: it has another network each time.
        self.owner_since = ""
        #: The engine's id of the container that is the machine itself.
        self.container_id = ""
        self.public_key = b""
        #: What it was to be when it was made, where it was there already.
        self.described = ""
        #: Whether a command, a fault or a packet may have changed it since the last snapshot.
        self.touched = True
        #: The snapshot it was at when it was touched last.
        self.at: str | None = None
        #: How many packets had reached it then.
        self.baseline: int | None = None
        self.closing: _socket.socket | None = None
        #: Its standard input while Supervisor is to wait.
        self.stdin: Stream | None = None
        self.opening = threading.Lock()
        self._shell: Shell | None = None
        self._delayer: Delayer | None = None

    def __repr__(self) -> str:
        return f"Node({self.name!r})"

    # What it is called.

    @property
    def name(self) -> str:
        """Its name: the host name inside, and what the other nodes call it."""
        return self.spec.name

    @property
    def ip(self) -> str:
        """Its address in the private network."""
        return self.place.address

    @property
    def port(self) -> int:
        """The port of its SSH server on the host's loopback interface."""
        return self.place.port

    @property
    def ssh_alias(self) -> str:
        """The name to give to ``ssh``: ``CLUSTER-NODE-container``."""
        return self.place.alias

    @property
    def ssh_command(self) -> list[str]:
        """The command a person would type to connect to it."""
        from redock import _include

        try:
            if _include.find_mode() != "none" and _include.is_installed(_include.read_config()):
                return ["ssh", self.ssh_alias]
        except SSHConfigConflict:
            pass
        return ["ssh", "-F", self.ssh_config, self.ssh_alias]

    @property
    def ssh_config(self) -> str:
        """The pathname of a configuration for ``ssh -F`` that knows all nodes."""
        return _ssh.config_file()

    @property
    def engine(self) -> Engine:
        """The container engine."""
        return self.cluster.engine

    @property
    def host_entry(self) -> _ssh.HostEntry:
        """What ``ssh`` is told about the node."""
        place = self.place
        return _ssh.HostEntry(place.name, place.alias, place.instance, place.port)

    @property
    def shell(self) -> Shell:
        """A shell in the owner, which may change the network of the node."""
        if self._shell is None or self._shell.container != self.owner_id:
            self._shell = Shell(self.engine, self.owner_id)
        return self._shell

    @property
    def delayer(self) -> Delayer:
        """What holds packets back that reach the node."""
        if self._delayer is None or self._delayer.container != self.owner_id:
            if self._delayer is not None:
                self._delayer.close()
            self._delayer = Delayer(self.engine, self.owner_id)
        return self._delayer

    # State.

    @property
    def state(self) -> str:
        """What the engine says: ``running``, ``paused``, ``exited``, or ``gone``."""
        try:
            return str(self.ask(self.engine.inspect_container)["State"]["Status"])
        except NotFound:
            return "gone"

    def ask(self, request: Callable[[str], Any]) -> Any:
        """
        Ask the engine something about the node's container.

        :param request: Gets the id of the container; called again with another one when another
                        process has replaced it.
        :returns: What that returned.
        :raises NotFound: There is no such container.
        """
        try:
            return request(self.container_id)
        except NotFound:
            if not self.was_replaced():
                raise
            return request(self.container_id)

    def was_replaced(self) -> bool:
        """
        Find out whether another process has replaced the node's container, by a restore.

        :returns: True when it has; the new one is used from now on.
        """
        before = self.container_id
        return self.cluster.find_replaced() and self.container_id != before

    def has_network(self) -> bool:
        """
        Find out whether the container that holds its network is there.

        :returns: True when it runs.
        """
        try:
            return bool(self.engine.inspect_container(self.owner_id)["State"]["Running"])
        except NotFound:
            return False

    def check_alive(self) -> None:
        """
        Make sure the node runs.

        :raises NoContainerRunning: It does not; the message has its last words.
        """
        state = self.state
        if state in ("running", "paused", "restarting", "created"):
            return
        log = "" if state == "gone" else self.engine.logs(self.container_id, LOG_LINES)
        words = f": {last_lines(log, 1)}" if log.strip() else ""
        raise NoContainerRunning(
            f"node {self.name} of cluster {self.cluster.name} is {state}{words}"
        )

    def packets(self) -> int:
        """
        Count the packets that have reached it.

        :returns: How many, its own to itself included.
        :raises RedockError: The container with its network has gone.
        """
        lines = self.shell.check("grep ^Ip: /proc/net/snmp", "count packets").splitlines()
        counts = dict(zip(lines[0].split(), lines[1].split(), strict=True))
        return int(counts["InReceives"])

    def let_go(self) -> None:
        """Let Supervisor start."""
        if self.stdin is not None:
            self.stdin.close()
            self.stdin = None

    def wait_until_up(self, timeout: float = TIMEOUT) -> None:
        """
        Wait until the node answers as an SSH server does.

        :param timeout: Seconds to wait at most (default: 60).
        :raises SecureShellTimeout: It did not in time.
        :raises NoContainerRunning: It ended meanwhile.
        """
        _connection.wait_for_banner("127.0.0.1", self.port, Deadline(timeout), self.check_alive)

    def connect(self, timeout: float = TIMEOUT) -> None:
        """
        Make sure there is a shared connection; later commands find it open.

        :param timeout: Seconds to wait at most (default: 60).
        :raises SecureShellTimeout: It did not work in time.
        :raises NoContainerRunning: The node does not run.
        """
        path = _ssh.control_path(self.place.instance)
        with self.opening:
            if path is None or not os.path.exists(path):
                deadline = Deadline(timeout)
                self.wait_until_up(timeout)
                _connection.open_connection(self.host_entry, deadline, self.check_alive)

    def disconnect(self) -> None:
        """End the shared connection."""
        _keeper.close_connection(self.place.instance)

    # Commands.

    def run(
        self,
        *command: str,
        timeout: float = TIMEOUT,
        check: bool = False,
        input: str | None = None,
    ) -> Result:
        """
        Run a command.

        :param command: One text for ``sh``, or the command and its arguments.
        :param timeout: Seconds after which it is killed, inside the node (default: 60).
        :param check: Raise an error when its status is not zero (default: no).
        :param input: Its standard input (default: empty).
        :returns: What it did.
        :raises ExternalCommandFailed: It failed and ``check`` is true.
        :raises Timeout: It did not end in time.
        :raises ConnectionFailed: The node does not run or cannot be reached.
        """
        event = self.cluster.timeline.begin("run", brief(command), (self.name,))
        try:
            done = self._run(command, timeout, input)
        except RedockError as error:
            self.cluster.timeline.end(event, failed=type(error).__name__)
            raise
        if done:
            self.cluster.timeline.end(event, status=0)
        else:
            output = last_lines(done.stdout + done.stderr, 3)[-SHOWN:]
            self.cluster.timeline.end(event, status=done.returncode, output=output)
        if check and not done:
            raise ExternalCommandFailed(done, self.ssh_alias)
        return done

    def _run(self, command: tuple[str, ...], timeout: float, input: str | None = None) -> Result:
        """
        Run a command that the timeline does not tell of.

        :param command: As for :meth:`run`.
        :param timeout: Seconds after which it is killed, inside the node.
        :param input: Its standard input (default: empty).
        :returns: What it did.
        :raises Timeout: It did not end in time.
        :raises ConnectionFailed: The node does not run or cannot be reached.
        """
        check_command(command)
        self.touched = True
        return self.line.run(command, timeout, input=input)

    @property
    def line(self) -> Line:
        """The way commands take to it."""
        return Line(
            self.ssh_alias,
            self.place.instance,
            self.name,
            f"node {self.name} of cluster {self.cluster.name}",
            self.connect,
            lambda: self.state,
        )

    def succeed(self, *command: str, timeout: float = TIMEOUT, input: str | None = None) -> str:
        """
        Run a command that must succeed.

        :param command: As for :meth:`run`.
        :param timeout: Seconds after which it is killed (default: 60).
        :param input: Its standard input (default: empty).
        :returns: What it printed.
        :raises ExternalCommandFailed: Its status is not zero.
        """
        return self.run(*command, timeout=timeout, check=True, input=input).stdout

    def fail(self, *command: str, timeout: float = TIMEOUT, input: str | None = None) -> Result:
        """
        Run a command that must fail.

        :param command: As for :meth:`run`.
        :param timeout: Seconds after which it is killed (default: 60).
        :param input: Its standard input (default: empty).
        :returns: What it did.
        :raises RedockError: Its status is zero.
        """
        result = self.run(*command, timeout=timeout, input=input)
        if result:
            raise RedockError(
                f"{self.line.said(command)} succeeded, and was expected to fail{last_words(result)}"
            )
        return result
