"""
One node of a cluster: run commands in it, wait for things, put files into it, break it.
"""

from __future__ import annotations

import io
import os
import re
import threading

from redock import _connection, _ssh
from redock._command import Line, brief, check_command, last_words
from redock._process import Deadline
from redock._result import Result, quote
from redock.cluster._queues import Delayer
from redock.cluster._shell import Shell
from redock.errors import (
    ConnectionFailed,
    ExternalCommandFailed,
    InvalidArgument,
    NoContainerRunning,
    NotFound,
    RedockError,
    SSHConfigConflict,
    Timeout,
    last_lines,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from typing import Any

    from redock._engine import Engine
    from redock._http import Stream
    from redock.bootstrap import Bootstrap
    from redock.cluster._boot import Place
    from redock.cluster._cluster import Cluster
    from redock.cluster._fault import Fault
    from redock.cluster._spec import NodeSpec

__all__ = ["LogMark", "Node", "NodeSet"]

# A test that fails here failed where it asked, so pytest shows that line and not ours.
__tracebackhide__ = True

#: Seconds a command may take when nothing else is said.
TIMEOUT = 60.0
LOG_LINES = 20
#: How much of what a command printed is on the timeline.
SHOWN = 200


class LogMark:
    """
    A place in a log file, to wait for what is written after it.

    :param path: The pathname.
    :param size: How much was in it.
    :param inode: Which file it was: a log may have been rotated since.
    """

    def __init__(self, path: str, size: int, inode: int) -> None:
        self.path = path
        self.size = size
        self.inode = inode

    def __repr__(self) -> str:
        return f"LogMark({self.path!r}, {self.size})"


class Node:
    """
    One node of a cluster.

    Commands run as root over a shared SSH connection, which takes about ten
    milliseconds and works while the node is cut off from the others. Text is
    for ``sh``; several words are passed exactly as they are::

        node.succeed("redis-cli ping | grep PONG")
        node.run("touch", "a file")

    Thread safety: commands may be run from several threads.
    """

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
        self.closing: socket.socket | None = None
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
        _connection.close_connection(self.place.instance)

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

    # Waiting.

    def _until(
        self,
        what: str,
        deadline: Deadline,
        attempt: Callable[[], Any],
        explain: Callable[[], str],
    ) -> Any:
        """
        Try again until something is true.

        :param what: What is waited for, for the timeline.
        :param deadline: When to give up.
        :param attempt: Returns something true in the end.
        :param explain: Says what was waited for, when it was in vain.
        :returns: What the attempt returned.
        :raises Timeout: The time is over.
        """
        pause = 0.02
        with self.cluster.timeline.during("wait", f"wait {what}", (self.name,)) as event:
            while True:
                event.details["attempts"] = event.details.get("attempts", 0) + 1
                found = attempt()
                if found:
                    return found
                if deadline.passed:
                    raise Timeout(f"{self.name}: {explain()} within {deadline.seconds:g} seconds")
                deadline.sleep(pause)
                pause = min(pause * 1.5, 0.25)

    def wait_until_succeeds(self, *command: str, timeout: float = TIMEOUT) -> str:
        """
        Run a command again and again until it succeeds.

        :param command: As for :meth:`run`.
        :param timeout: Seconds for all of it (default: 60).
        :returns: What it printed in the end.
        :raises Timeout: It did not succeed in time; the message has its last output.
        """
        deadline = Deadline(timeout)
        last: list[Result] = []

        def attempt() -> bool:
            try:
                last[:] = [self._run(command, max(0.1, deadline.remaining))]
            except (Timeout, ConnectionFailed) as error:
                last[:] = [Result(command, 255, "", str(error))]
            return bool(last[0])

        def explain() -> str:
            shown = self.line.said(command).removeprefix(f"{self.name}: ")
            words = last_words(last[0])
            return f"{shown} did not succeed (last status {last[0].returncode}{words})"

        self._until(f"until {brief(command)} succeeds", deadline, attempt, explain)
        return last[0].stdout

    def wait_until_fails(self, *command: str, timeout: float = TIMEOUT) -> Result:
        """
        Run a command again and again until it fails.

        :param command: As for :meth:`run`.
        :param timeout: Seconds for all of it (default: 60).
        :returns: What it did in the end.
        :raises Timeout: It still succeeded.
        """
        deadline = Deadline(timeout)
        last: list[Result] = []

        def attempt() -> bool:
            last[:] = [self._run(command, max(0.1, deadline.remaining))]
            return not last[0]

        self._until(
            f"until {brief(command)} fails",
            deadline,
            attempt,
            lambda: f"{quote(command)} did not fail{last_words(last[0])}",
        )
        return last[0]

    def _wait_remotely(
        self, goal: str, condition: str, arguments: list[str], timeout: float, what: str
    ) -> None:
        """
        Wait inside the node, with one command, until a condition holds.

        :param goal: What is waited for, for the timeline.
        :param condition: Text for ``sh`` that succeeds when it does.
        :param arguments: What it finds as ``$1`` and on.
        :param timeout: Seconds to wait at most.
        :param what: What did not happen, for the message.
        :raises Timeout: It did not in time.
        """
        loop = f"until {condition}; do sleep 0.05; done"
        words = ("sh", "-c", loop, "sh", *arguments)
        with self.cluster.timeline.during("wait", f"wait for {goal}", (self.name,)):
            try:
                done = self._run(words, timeout)
            except Timeout as error:
                raise Timeout(
                    f"{self.name}: {what} within {timeout:g} seconds{self._last_log()}"
                ) from error
            if not done:
                raise ExternalCommandFailed(done, self.ssh_alias)

    def _last_log(self) -> str:
        """Quote the end of what the node's programs logged, for a message."""
        try:
            found = self.line.send(
                quote(
                    [
                        "sh",
                        "-c",
                        "ls -t /var/log/*.log /var/log/*/*.log 2>/dev/null |"
                        " grep -v supervisord.log | head -n 1 |"
                        " xargs -r tail -n 5 -v",
                    ]
                ),
                5.0,
            )
        except RedockError:
            return ""
        output = last_lines(found.stdout, 6)
        return f"; its last log lines: {output}" if output else ""

    def wait_for_port(self, port: int, timeout: float = TIMEOUT) -> None:
        """
        Wait until a program listens on a TCP port.

        :param port: The port.
        :param timeout: Seconds to wait at most (default: 60).
        :raises Timeout: None did in time.
        """
        if not 0 < port < 65536:
            raise InvalidArgument(f"{port} is no TCP port")
        condition = 'ss -Hltn "sport = :$1" | grep -q .'
        self._wait_remotely(
            f"port {port}", condition, [str(port)], timeout, f"nobody listened on port {port}"
        )

    def wait_for_file(self, path: str, timeout: float = TIMEOUT) -> None:
        """
        Wait until a file exists.

        :param path: The pathname.
        :param timeout: Seconds to wait at most (default: 60).
        :raises Timeout: It did not in time.
        """
        self._wait_remotely(path, '[ -e "$1" ]', [path], timeout, f"{path} did not come into being")

    def wait_for_service(self, service: str, timeout: float = TIMEOUT) -> None:
        """
        Wait until Supervisor says that a program runs.

        :param service: Its name in Supervisor's configuration.
        :param timeout: Seconds to wait at most (default: 60).
        :raises Timeout: It did not in time.
        """
        condition = 'supervisorctl status "$1" | grep -q RUNNING'
        self._wait_remotely(service, condition, [service], timeout, f"{service} was not running")

    def log_mark(self, path: str) -> LogMark:
        """
        Note where a log file ends now.

        :param path: The pathname; the file need not exist yet.
        :returns: A mark for :meth:`wait_for_log`.
        """
        script = 'stat -L -c "%s %i" -- "$1" 2>/dev/null || echo 0 0'
        found = self._run(("sh", "-c", script, "sh", path), TIMEOUT)
        size, inode = found.stdout.split()
        return LogMark(path, int(size), int(inode))

    def wait_for_log(
        self,
        pattern: str,
        path: str | LogMark | None = None,
        *,
        since: LogMark | None = None,
        timeout: float = TIMEOUT,
    ) -> re.Match[str]:
        """
        Wait until a line of a log file matches.

        :param pattern: A regular expression, looked for in every line.
        :param path: The pathname of the log (default: that of the mark).
        :param since: Look only at what was written after this mark (default: at everything).
        :param timeout: Seconds to wait at most (default: 60).
        :returns: The match.
        :raises Timeout: No line did in time; the message has the last ones.
        """
        if isinstance(path, LogMark):
            since, name = path, path.path
        else:
            name = path or (since.path if since else "")
        if not name:
            raise InvalidArgument("wait_for_log needs the pathname of a log, or a mark")
        expression = re.compile(pattern, re.MULTILINE)
        script = (
            'now=$(stat -L -c %i -- "$1" 2>/dev/null); from=$2;'
            ' [ "$3" = 0 ] || [ "$now" = "$3" ] || from=0;'
            ' tail -c "+$((from + 1))" -- "$1" 2>/dev/null; true'
        )
        start = (str(since.size), str(since.inode)) if since else ("0", "0")
        seen: list[str] = [""]

        def attempt() -> re.Match[str] | None:
            seen[0] = self._run(("sh", "-c", script, "sh", name, *start), TIMEOUT).stdout
            return expression.search(seen[0])

        found: re.Match[str] = self._until(
            f"for {pattern!r} in {name}",
            Deadline(timeout),
            attempt,
            lambda: (
                f"{name} had no line that matches {pattern!r}"
                f" (it ends with: {last_lines(seen[0], 5) or 'nothing'})"
            ),
        )
        line = seen[0][seen[0].rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
        self.cluster.timeline.note("log", line[:SHOWN], (self.name,), path=name, pattern=pattern)
        return found

    # Files.

    def put(
        self, source: str | os.PathLike[str] | bytes, target: str, mode: int | None = None
    ) -> None:
        """
        Put a file or directory into the node. It belongs to root there.

        :param source: A pathname on this host, or the contents of a file.
        :param target: The pathname inside; directories that are missing are made.
        :param mode: Its permissions (default: those it has here; 0644 for contents).
        :raises InvalidArgument: There is no such file here, or the target is not absolute.
        """
        from redock import _archive

        if not target.startswith("/") or target.endswith("/"):
            raise InvalidArgument(f"put: the target {target!r} must be the whole pathname inside")
        self.touched = True
        name = target.lstrip("/")
        if isinstance(source, bytes):
            permissions = 0o644 if mode is None else mode

            def pieces() -> Iterator[bytes]:
                return _archive.pack_stream(io.BytesIO(source), name, permissions)

        else:
            try:
                os.stat(source)
            except OSError as error:
                raise InvalidArgument(f"put: {source}: {error.strerror}") from error

            def pieces() -> Iterator[bytes]:
                return _archive.pack(os.fspath(source), name, mode)

        try:
            self.ask(lambda number: self.engine.put_archive(number, "/", pieces()))
        except NotFound as error:
            raise ConnectionFailed(f"node {self.name} has gone", "lost") from error

    def get(self, source: str, target: str | os.PathLike[str] | None = None) -> bytes:
        """
        Get a file or directory out of the node.

        :param source: The pathname inside.
        :param target: Where to put it on this host: a directory that exists, or the pathname of
                       the copy (default: nowhere).
        :returns: The contents of the file; empty for a directory.
        :raises NotFound: There is no such file inside.
        :raises InvalidArgument: It cannot be written here.
        """
        from redock import _archive

        try:
            packed = [self.ask(lambda number: self.engine.get_archive(number, source))]
        except NotFound as error:
            raise NotFound(f"node {self.name} has no file {source}", 404) from error
        if target is not None:
            path = os.path.abspath(os.fspath(target))
            if os.path.isdir(path):
                path = os.path.join(path, os.path.basename(source.rstrip("/")))
            try:
                _archive.unpack(packed, os.path.dirname(path), path, merge=True)
            except RedockError as error:
                raise InvalidArgument(f"get: {error}") from error
        return _archive.file_contents(packed)

    # Other ways in.

    def bootstrap(self, **options: Any) -> Bootstrap:
        """
        Get configuration management for the node.

        :param options: As for :class:`redock.bootstrap.Bootstrap`.
        :returns: A connection to it.
        """
        from redock.bootstrap import Bootstrap

        self.touched = True
        return Bootstrap(self.ssh_alias, **options)

    def gateway(self, timeout: float = TIMEOUT) -> Any:
        """
        Get Python inside the node.

        :param timeout: Seconds the node may take to answer at all (default: 60).
        :returns: An execnet gateway, https://execnet.readthedocs.io.
        :raises ConnectionFailed: The node does not run, cannot be reached, or has no Python.
        :raises Timeout: It did not answer in time.
        """
        import execnet

        # execnet waits for ever for a node that is frozen, and does not mind when there is no
        # Python.
        if not self.run("python3", "-c", "", timeout=timeout):
            raise ConnectionFailed(
                f"node {self.name} of cluster {self.cluster.name} has no python3"
            )
        spec = f"ssh={self.ssh_alias}//ssh_config={_ssh.config_file()}//python=python3"
        try:
            return execnet.makegateway(spec)
        except (execnet.HostNotFound, EOFError, OSError) as error:
            raise ConnectionFailed(
                f"node {self.name} of cluster {self.cluster.name} is {self.state}:"
                " there is no Python to talk to",
                "lost",
            ) from error

    # Faults.

    def pause(self) -> Fault:
        """
        Freeze all its processes; the kernel goes on to answer for it.

        :returns: The fault; :meth:`resume` or healing it ends it.
        """
        return self.cluster.pause(self)

    def resume(self) -> None:
        """Thaw its processes: heal all faults that paused it."""
        for fault in self.cluster.faults:
            if fault.kind == "pause" and self.name in fault.nodes:
                fault.heal()

    def kill(self, signal: str = "KILL") -> Fault:
        """
        Take its power away.

        :param signal: What its first process gets (default: KILL).
        :returns: The fault; healing it boots the node with the disk it had.
        """
        return self.cluster.kill(self, signal=signal)

    def crash(self) -> None:
        """Take its power away and boot it again with the disk it had."""
        self.cluster.crash(self)

    def reboot(self, timeout: float = TIMEOUT) -> None:
        """
        Shut it down in order and boot it again.

        :param timeout: Seconds for all of it (default: 60).
        """
        self.cluster.reboot(self, timeout)

    def clock_skew(self, offset: str | float) -> Fault:
        """
        Let its clock be wrong.

        :param offset: ``"+300s"``, ``"-1h"``, ``"2d"``, or a number of seconds.
        :returns: The fault, see :meth:`Cluster.clock_skew`.
        """
        return self.cluster.clock_skew(self, offset)

    def disk_full(self, path: str) -> Fault:
        """
        Leave no room on one of its disks.

        :param path: Where the disk is mounted: one of ``NodeSpec.disks``.
        :returns: The fault.
        """
        return self.cluster.disk_full(self, path)


class NodeSet:
    """
    Several nodes.

    :param nodes: The nodes, in order.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: int | str) -> Node:
        if isinstance(index, int):
            return self.nodes[index]
        for node in self.nodes:
            if node.name == index:
                return node
        raise NotFound(f"there is no node called {index}; there are {', '.join(self.names)}", 404)

    def __contains__(self, item: object) -> bool:
        return item in self.nodes or item in self.names

    def __repr__(self) -> str:
        return f"NodeSet({', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [node.name for node in self.nodes]

    def role(self, role: str) -> NodeSet:
        """
        Choose the nodes with a role.

        :param role: One of ``NodeSpec.roles``.
        :returns: Those that have it.
        """
        return NodeSet([node for node in self.nodes if role in node.spec.roles])

    def run(
        self, *command: str, timeout: float = TIMEOUT, check: bool = True, input: str | None = None
    ) -> dict[str, Result]:
        """
        Run a command in all of them, side by side.

        :param command: As for :meth:`Node.run`.
        :param timeout: Seconds after which it is killed (default: 60).
        :param check: Raise an error when a status is not zero (default: yes).
        :param input: The standard input of each (default: empty).
        :returns: What it did in each node, by name.
        :raises ExternalCommandFailed: It failed in one node.
        :raises SeveralFailed: It failed in several.
        """
        from redock._parallel import call_all

        return call_all(
            {node.name: node for node in self.nodes},
            lambda node: node.run(*command, timeout=timeout, check=check, input=input),
        )
