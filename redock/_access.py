"""
The way into a machine: what ``ssh`` is told about it, and waiting until it can be reached.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time

from redock import _connection, _frozen, _identity, _include, _machines, _ssh
from redock._files import Lock, path_in_home
from redock._handle import LOCK_PATIENCE, Handle
from redock._names import check_ssh_alias, shown
from redock._process import Deadline
from redock.errors import (
    AliasTaken,
    ContainerDied,
    EngineError,
    LockTimeout,
    NotFound,
    SecureShellTimeout,
    SSHConfigConflict,
    last_lines,
)
from redock.utils import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Access"]

logger = logging.getLogger("redock.api")

LOG_LINES = 20


class Access(Handle):
    """The part of :class:`~redock.api.Container` that lets one in."""

    @property
    def _host_entry(self) -> _ssh.HostEntry:
        """
        What ``ssh`` is told about the (running) container.

        :raises EngineError: The engine publishes it where redock would not.
        :raises InvalidName: Its alias could be taken for something else.
        """
        session = self.session
        if session.instance is None or session.port is None:
            self.check_active()
        assert session.instance
        if session.address != _machines.LOOPBACK or not 0 < (session.port or 0) < 65536:
            raise EngineError(
                f"the engine publishes {self.image.name} at {shown(session.address)} port"
                f" {session.port}, which redock never asks for: 'redock kill {self.image.name}'"
            )
        assert session.port
        alias = check_ssh_alias(self.ssh_alias)
        return _ssh.HostEntry(
            self.image.name,
            alias,
            session.instance,
            session.port,
            session.address,
            self.engine.way_to(session.instance),
            user=session.user or "root",
            agent=bool(session.agent),
        )

    def setup_ssh_access(self) -> None:
        """
        Make the container known to ``ssh``: ``ssh ALIAS`` works from then on.

        Writes the host entry and the pinned host key below ``~/.redock`` and
        makes sure one ``Include`` line stands in ``~/.ssh/config``. Where that
        file cannot be changed a warning says how to connect without it.

        :raises NoContainerRunning: The container does not run.
        :raises RedockError: redock's own files cannot be written.
        """
        entry = self._host_entry
        if self.public_key is None:
            machine = self._find_machine()
            assert machine is not None
            self.public_key = _identity.recall_public_key(self.engine, machine)
        _ssh.install(entry, self.public_key)
        try:
            _include.install()
        except SSHConfigConflict as error:
            logger.warning("%s", _include.explain(error, entry.alias))
        with Config() as state:
            state["containers"][self.image.name] = {
                "alias": entry.alias,
                "id": self.session.container_id,
                "instance": entry.instance,
                "port": entry.port,
                "engine": self.engine.endpoint.url,
            }

    def revoke_ssh_access(self) -> None:
        """
        Make ``ssh`` forget the container.

        :raises RedockError: redock's own files cannot be written.
        """
        instance = self.session.instance
        if instance is None:
            known = _ssh.instance_of(self.image.name)
            # The entry may be of a machine that has another name by now.
            taken = (
                {each.instance for each in _machines.find_machines(self.engine)} if known else ()
            )
            instance = None if known in taken else known
        _ssh.remove(self.image.name, instance)
        with Config() as state:
            state["containers"].pop(self.image.name, None)

    @property
    def ssh_endpoint(self) -> tuple[str, int]:
        """
        Wait for the container to become reachable over SSH.

        The address and the port of its SSH server, after somebody has
        answered there as an SSH server does.

        :raises NoContainerRunning: The container does not run.
        :raises SecureShellTimeout: There was no answer within the timeout.
        """
        self.check_active()
        return self._wait_for_ssh(Deadline(self.timeout), self._check_alive)

    @property
    def _alias_lock(self) -> Lock:
        """The lock that lets one machine at a time take the alias."""
        path = path_in_home("locks", f".{self.ssh_alias}.lock")
        return Lock(path, f"the alias {self.ssh_alias}", timeout=LOCK_PATIENCE)

    def _check_alias(self) -> None:
        """
        Make sure no other machine of this user answers to the alias.

        :raises AliasTaken: One does.
        """
        for machine in _machines.find_claims(self.engine):
            if (
                machine.alias == self.ssh_alias
                and machine.name != self.image.name
                and machine.user in ("", str(os.getuid()))
            ):
                raise AliasTaken(
                    f"the alias {self.ssh_alias} belongs to {machine.name}:"
                    f" give {self.image.name} another one with --hostname"
                )

    def _wait_for_ssh(
        self, deadline: Deadline, check_alive: Callable[[], object]
    ) -> tuple[str, int]:
        """
        Wait until the container's SSH server answers.

        :param deadline: When to give up.
        :param check_alive: Called now and then; raises an error to end the wait.
        :returns: Its address and port.
        :raises ContainerDied: The container ended meanwhile.
        :raises SecureShellTimeout: There was no answer in time.
        """
        entry = self._host_entry
        if entry.proxy is None:
            _connection.wait_for_banner(entry.address, entry.port, deadline, check_alive)
        else:
            # The port is another machine's: only ssh gets there.
            _connection.open_connection(entry, deadline, check_alive)
        return entry.address, entry.port

    def _check_alive(self) -> str:
        """
        Make sure the container has not ended.

        :returns: Its state.
        :raises ContainerDied: It has; the message ends with what it printed last.
        """
        assert self.session.container_id
        try:
            state = self.engine.inspect_container(self.session.container_id)["State"]
        except NotFound as error:
            raise ContainerDied(f"{self.image.name} was removed while it was starting") from error
        # One that the engine starts again and again never came up.
        failing = self.created and state["Status"] == "restarting"
        if state["Status"] in ("running", "restarting", "paused", "created") and not failing:
            return str(state["Status"])
        log = self.engine.logs(self.session.container_id, LOG_LINES)
        raise ContainerDied(
            f"{self.image.name} ended with status {state['ExitCode']} while it was starting:"
            f" {last_lines(log, 1) or 'it printed nothing'}",
            log,
            state["ExitCode"],
        )

    def _keep_going(self) -> None:
        """
        Make sure the container has not ended, and let it go on where it is paused.

        An engine that was killed while it saved the disk, and that lets containers live on, learns
        a moment after its start that it had paused one. Where another redock is at work on the
        machine, it is that which has paused it.

        :raises ContainerDied: It has ended.
        """
        state = self._check_alive()
        if state == "running":
            self._let_go_on()
        if state != "paused":
            return
        lock = self._lock
        lock.timeout = 0.0
        with contextlib.suppress(LockTimeout), lock:
            if self._check_alive() == "paused":
                logger.info("%s turned out to be paused: letting it go on", self.image.name)
                assert self.session.container_id
                self.engine.pause(self.session.container_id, resume=True)

    def _let_go_on(self) -> None:
        """
        Let the container go on where an engine was killed before it knew that it had frozen it.

        :raises ContainerDied: It has ended.
        :raises RedockError: It is frozen, and only root may change that.
        """
        number = self.session.container_id
        assert number
        if _frozen.find_frozen(self.engine, number) is None:
            return
        lock = self._lock
        lock.timeout = 0.0
        with contextlib.suppress(LockTimeout), lock:
            # An engine that freezes it at this moment says so in the next.
            time.sleep(0.5)
            path = _frozen.find_frozen(self.engine, number)
            if path is not None and self._check_alive() == "running":
                _frozen.thaw(path, self.image.name)
                logger.warning("%s was left frozen by its engine: it goes on now", self.image.name)

    def _log_in(self) -> None:
        """
        Wait for a real login, whose connection later commands share.

        :raises SecureShellTimeout: It did not work in time.
        :raises ContainerDied: The container ended meanwhile.
        """
        deadline = Deadline(self.timeout)
        try:
            self._wait_for_ssh(deadline, self._keep_going)
            _connection.open_connection(self._host_entry, deadline, self._keep_going)
        except SecureShellTimeout as error:
            raise SecureShellTimeout(
                f"{error}; {self.image.name} is still running: run the command again to wait"
                f" longer (--timeout), see its log with"
                f" 'redock logs {self.image.name}'"
            ) from error
