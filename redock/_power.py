"""
The power of a machine: stopping, restarting, freezing.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import cast

from redock import _keeper
from redock.errors import EngineError, NoContainerRunning, NotFound, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from redock._engine import Engine
    from redock._machines import Machine
    from redock.api import Container

__all__ = ["Power"]

logger = logging.getLogger(__name__)

#: Supervisor looks up once a second, unless somebody connects to its socket; it has to look up
#: several times until it has stopped its programs.
HURRY = """\
wake=/usr/lib/redock/wake
while [ -x $wake ] && [ -S /run/supervisor.sock ]; do $wake || sleep 0.1; done
"""


class Power:
    """The part of :class:`~redock.api.Container` that stops it and lets it go on."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)

    def _present(self) -> Machine:
        """
        Find the machine, in whatever state.

        :returns: What the engine says about it.
        :raises NotFound: There is none.
        """
        container = self._container
        machine = container._find_machine()
        if machine is None:
            name = container.image.name
            raise NotFound(f"there is no machine {name}: 'redock start {name}' makes one", 404)
        container._remember(machine)
        return machine

    def _running(self) -> Machine:
        """
        Find the machine, which has to run.

        :returns: What the engine says about it.
        :raises NotFound: There is none.
        :raises NoContainerRunning: It is stopped or paused.
        """
        machine = self._present()
        if machine.state == "paused":
            raise NoContainerRunning(
                f"{machine.name} is paused: let it go on with 'redock resume {machine.name}'"
            )
        if machine.state != "running":
            raise NoContainerRunning(
                f"{machine.name} is not running: start it with 'redock start {machine.name}'"
            )
        return machine

    def stop(self, timeout: float = 10) -> None:
        """
        Stop the machine in order. One that is stopped already is left alone.

        Its disk, its port, its alias and its options stay; :meth:`~redock.api.Container.start`
        brings it back. Supervisor is asked to stop its programs and then to end; what is not
        over in time is killed.

        :param timeout: Seconds its programs have (default: 10).
        :raises NotFound: There is no such machine.
        :raises EngineError: The engine failed.
        """
        container = self._container
        with container._lock:
            machine = self._present()
            if not machine.running:
                logger.info("%s is stopped already", machine.name)
                return
            # Whoever uses the connection should hear of the end, not wait for an answer.
            closing = _keeper.begin_close(machine.instance)
            try:
                if machine.state == "paused":
                    # Who is frozen cannot be asked to end.
                    container.engine.pause(machine.id, resume=True)
                with hurried(container.engine, machine.id):
                    container.engine.begin_stop(machine.id, math.ceil(timeout)).result()
            finally:
                _keeper.close_connection(machine.instance, closing)
            logger.info("Stopped %s", machine.name)

    def restart(self, timeout: float = 10) -> None:
        """
        Stop the machine in order and start it again; start one that is stopped.

        :param timeout: Seconds its programs have to end (default: 10).
        :raises NotFound: There is no such machine.
        :raises RedockError: As for :meth:`~redock.api.Container.start`.
        """
        if self._present().running:
            self.stop(timeout)
        self._container.start()

    def pause(self) -> None:
        """
        Freeze all processes of the machine. One that is paused already is left alone.

        They keep their memory and get no processor time; connections stay open and wait.

        :raises NotFound: There is no such machine.
        :raises NoContainerRunning: It is stopped.
        """
        self._freeze("paused")

    def resume(self) -> None:
        """
        Let a machine go on that was paused. One that runs is left alone.

        :raises NotFound: There is no such machine.
        :raises NoContainerRunning: It is stopped.
        """
        self._freeze("running")

    def _freeze(self, wanted: str) -> None:
        """
        Freeze or thaw the machine.

        :param wanted: The state it is to be in, ``paused`` or ``running``.
        """
        container = self._container
        with container._lock:
            machine = self._present()
            if machine.state == wanted:
                logger.info("%s is %s already", machine.name, wanted)
                return
            if machine.state not in ("running", "paused"):
                raise NoContainerRunning(
                    f"{machine.name} is stopped: start it with 'redock start {machine.name}'"
                )
            try:
                container.engine.pause(machine.id, resume=wanted == "running")
            except EngineError:
                # Somebody else may have been faster.
                if self._present().state != wanted:
                    raise
            logger.info("%s %s", "Paused" if wanted == "paused" else "Resumed", machine.name)


@contextlib.contextmanager
def hurried(engine: Engine, container: str) -> Iterator[None]:
    """
    Keep Supervisor awake while a container is stopped; it works without, but slower.

    :param engine: The engine.
    :param container: The id of the container.
    """
    stream = None
    try:
        _, stream = engine.begin_exec(container, ["sh", "-c", HURRY])
    except RedockError as error:
        logger.debug("%s", error)
    try:
        yield
    finally:
        if stream is not None:
            stream.close()
