"""
One node of a cluster, and several: put files into them, break them.
"""

from __future__ import annotations

import io
import os

from redock import _ssh
from redock._result import Result
from redock.cluster._contact import TIMEOUT
from redock.cluster._waiting import LogMark, Waiting
from redock.errors import ConnectionFailed, InvalidArgument, NotFound, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from redock.bootstrap import Bootstrap
    from redock.cluster._fault import Fault

__all__ = ["LogMark", "Node", "NodeSet"]

# A test that fails here failed where it asked, so pytest shows that line and not ours.
__tracebackhide__ = True


class Node(Waiting):
    """
    One node of a cluster.

    Commands run as root over a shared SSH connection, which takes about ten
    milliseconds and works while the node is cut off from the others. Text is
    for ``sh``; several words are passed exactly as they are::

        node.succeed("redis-cli ping | grep PONG")
        node.run("touch", "a file")

    Thread safety: commands may be run from several threads.
    """

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
            grace=0.0,
        )
