"""
Another disk for a machine: going back to a saved state.

A container cannot get another disk, so another container takes its place, with
the same identity, port and settings. Two containers cannot have one name: the
new one waits under another, and what tells a machine from one that waits is
in :mod:`redock._machines`. So whoever is interrupted leaves one machine.
"""

from __future__ import annotations

import logging

from redock import _connection, _identity, _keeper, _machines
from redock._history import History
from redock._machines import Machine
from redock._names import container_name
from redock._process import Deadline
from redock.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from redock._commits import Commit

__all__ = ["Succession"]

logger = logging.getLogger("redock.api")

#: Seconds the port of a machine may take to become free after its end.
PORT_PATIENCE = 10.0


class Succession(History):
    """The part of :class:`~redock.api.Container` that goes back to saved states."""

    def rollback(self, commit: str | int | None = None) -> Commit:
        """
        Go back to a commit: the machine gets that disk and boots from it.

        It keeps its name, alias, host key, port and whatever it was started
        with. What changed since its last commit is lost; later commits stay
        and can be gone to again. The next start begins from the commit, too.

        The old container is only removed when the new one can be logged into;
        when that fails the machine is what it was before, booted anew.

        :param commit: As for :meth:`find_commit` (default: the last).
        :returns: The commit.
        :raises NotFound: There is no such commit.
        :raises RedockError: The machine did not come up with that disk.
        """
        container = self._container
        with container._lock:
            chosen = self.find_commit(commit)
            commits = self._commits
            commits.adopt()
            machine = container._find_machine()
            if machine is not None and machine.state == "created":
                # Somebody was interrupted before its first start: nothing is lost.
                container._discard(machine)
                machine = None
            if machine is not None:
                self._replace(machine, chosen.id)
            container.engine.tag_image(chosen.id, *container.image.key)
            container.image.id = chosen.id
        if machine is None:
            logger.info(
                "The next start of %s begins from commit %i", container.image.name, chosen.number
            )
        else:
            logger.info("%s is back at commit %i", container.image.name, chosen.number)
        return chosen

    def _replace(self, machine: Machine, image_id: str) -> None:
        """
        Put a container with another disk into the place of a machine's.

        :param machine: The machine.
        :param image_id: The id of the image with the other disk.
        :raises RedockError: The new one did not come up; the old one is in its place again.
        """
        container = self._container
        engine = container.engine
        self._tidy(machine)
        container._remember(machine)
        container.public_key = _identity.recall_public_key(engine, machine)
        described = engine.inspect_container(machine.id)
        made = engine.create_container(
            _machines.successor_name(machine.instance),
            _machines.successor(machine, described, image_id),
        )
        logger.info("Starting %s with the other disk", machine.name)
        try:
            self._join_networks(described, made)
            _keeper.close_connection(machine.instance)
            self._end(machine)
            self._start_soon(made)
            container.session.container_id = made
            container.setup_ssh_access()
            self._log_in_anew(machine)
        except BaseException:
            logger.warning("%s did not come up with that disk, going back", machine.name)
            _keeper.close_connection(machine.instance)
            engine.remove_container(made)
            container._remember(machine)
            if machine.running:
                self._start_soon(machine.id)
            raise
        engine.remove_container(machine.id)
        engine.rename_container(made, container_name(*container.image.key))

    def _join_networks(self, described: Mapping[str, Any], made: str) -> None:
        """
        Attach a container to the networks of another, besides that which both have.

        :param described: Everything the engine says about the other one.
        :param made: The id of the container.
        """
        mode = described["HostConfig"].get("NetworkMode")
        networks = (described.get("NetworkSettings") or {}).get("Networks") or {}
        for name, place in networks.items():
            if name not in (mode, *_machines.DEFAULT_NETWORKS):
                # The engine adds the id of each container itself.
                aliases = [
                    each for each in place.get("Aliases") or () if each not in described["Id"]
                ]
                self._container.engine.connect_network(name, made, aliases)

    def _log_in_anew(self, machine: Machine) -> None:
        """
        Wait for a real login into the container that takes the place of a machine's.

        :param machine: The machine.
        """
        try:
            self._container._log_in()
        except _connection.KeyRefused:
            # redock's key pair is a new one: tell the machine, whose identity both have.
            _identity.adopt(self._container.engine, machine)
            self._container._log_in()

    def _tidy(self, machine: Machine) -> None:
        """
        Put right what somebody left who was interrupted while a machine got another disk.

        :param machine: The machine.
        """
        engine = self._container.engine
        for leftover in machine.successors:
            engine.remove_container(leftover)
        machine.successors.clear()
        if machine.waiting:
            engine.rename_container(machine.id, container_name(*self._container.image.key))

    def _end(self, machine: Machine) -> None:
        """
        End all processes of a machine, whatever state it is in.

        :param machine: The machine.
        """
        engine = self._container.engine
        if not machine.running:
            return
        if machine.state == "paused":
            # What is frozen cannot even be killed.
            engine.pause(machine.id, resume=True)
        # Podman takes the ports back when it stops a container, not when it kills one.
        engine.begin_stop(machine.id, 0).result()

    def _start_soon(self, container: str) -> None:
        """
        Start a container as soon as its port is free.

        :param container: The id of the container.
        """
        deadline = Deadline(PORT_PATIENCE)
        while True:
            try:
                self._container.engine.begin_start(container).result()
                return
            except EngineError as error:
                if not _machines.port_was_taken(error) or deadline.passed:
                    raise
            deadline.sleep(0.1)
