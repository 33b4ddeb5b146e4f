"""
Looking at one machine: everything about it, its logs, its processes.
"""

from __future__ import annotations

from typing import cast

from redock import _include, _keeper, _listing, _logs, _machines, _usage
from redock._engine import label
from redock._process import quote
from redock.errors import (
    EngineError,
    InvalidArgument,
    NoContainerRunning,
    NotFound,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from redock._machines import Machine
    from redock.api import Container

__all__ = ["Look", "MachineStatus"]

#: What is known about one machine besides what a list says; the names stay.
FIELDS = (
    *_listing.FIELDS,
    "ssh",
    "started",
    "exit_status",
    "image",
    "options",
    "changes",
    "connected",
    "instance",
    "version",
)


class MachineStatus(_listing.MachineInfo):
    """
    Everything about one machine, at one moment: what a list says, and more.

    :param values: The values of the attributes.
    """

    #: The command that connects to it.
    ssh: str
    #: When it was started last, in UTC by ISO 8601; empty when it never was.
    started: str
    #: How its first program ended the last time; None while it runs.
    exit_status: int | None
    #: The id of the image its disk began with.
    image: str
    #: What it was started with besides its disk, by option; empty for nothing.
    options: dict[str, Any]
    #: How many files differ from that image; None where that is not known.
    changes: int | None
    #: Whether a shared connection to it is open, on which ``ssh`` takes no time.
    connected: bool
    #: The id redock gave to its container.
    instance: str
    #: The version of the redock that made it.
    version: str

    __slots__ = FIELDS[len(_listing.FIELDS) :]
    fields = FIELDS


class Look:
    """The part of :class:`~redock.api.Container` that looks at it."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)

    def _existing(self) -> Machine:
        """
        Find the machine in whatever state.

        :returns: What the engine says about it.
        :raises NotFound: There is none.
        """
        container = self._container
        machine = container._find_machine()
        if machine is None:
            raise NotFound(
                f"there is no machine {container.image.name}:"
                f" 'redock start {container.image.name}' makes one",
                404,
            )
        container._remember(machine)
        return machine

    def status(self) -> MachineStatus:
        """
        Find out everything about the machine.

        :returns: What is so at this moment.
        :raises NotFound: There is no such machine.
        :raises EngineError: The engine failed.
        """
        container = self._container
        machine = self._existing()
        engine = container.engine
        described = engine.inspect_container(machine.id, size=True)
        listed = engine.containers({"id": [machine.id]})
        if not listed:
            raise NotFound(f"the machine {machine.name} was removed this moment", 404)
        summary = {**listed[0], "SizeRw": described.get("SizeRw")}
        known = _listing.describe(_machines.Machine(summary), summary)
        commits = _listing.count_commits(engine.images({"label": [_listing.COMMITTED]}))
        memory = _usage.find_memory(engine, machine.id) if machine.running else None
        state, marks = described["State"], described["Config"]["Labels"]
        return MachineStatus(
            **known,
            commits=commits.get(machine.name, 0),
            memory=memory,
            ssh=quote(_include.client_command(container.ssh_alias)),
            started=_listing.to_the_second(state.get("StartedAt") or ""),
            exit_status=None if machine.running else state.get("ExitCode"),
            image=described["Image"],
            options=read_options(marks.get(label("options"), "")),
            changes=count_changes(container, machine),
            connected=_keeper.is_shared(machine.instance),
            instance=machine.instance,
            version=marks.get(label("version"), ""),
        )

    def logs(
        self, service: str | None = None, *, lines: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """
        Read the log of the machine, or that of a service in it.

        The machine's log is what its first programs print: the boot program, and
        Supervisor's reports of what it starts and what ends. The log of a service
        is what that printed, as far as Supervisor keeps it.

        :param service: The name of a program in Supervisor's configuration (default: the
                        machine's log).
        :param lines: How many of the last lines (default: all there are).
        :param follow: Go on with what is printed from now on, until the machine ends
                       (default: no).
        :returns: Yields lines without their ends, safe to show on a terminal.
        :raises NotFound: There is no such machine, or no such service in it.
        :raises InvalidArgument: The number of lines is negative.
        :raises InvalidName: No service can have such a name.
        :raises EngineError: The engine failed.
        """
        if lines is not None and lines < 0:
            raise InvalidArgument(f"there are no {lines} lines")
        machine = self._existing()
        engine = self._container.engine
        if service is None:
            return _logs.read_log(engine, machine.id, lines=lines, follow=follow)
        return _logs.read_service_log(
            engine,
            machine.id,
            service,
            running=machine.state == "running",
            lines=lines,
            follow=follow,
        )

    def processes(self, interval: float = 0.5) -> list[_usage.Process]:
        """
        List the processes inside the machine and what they use.

        :param interval: For how many seconds to watch them (default: 0.5).
        :returns: The processes, the busiest first.
        :raises NotFound: There is no such machine.
        :raises NoContainerRunning: It does not run, or it is paused.
        :raises InvalidArgument: The interval is not a number of seconds above 0.
        :raises EngineError: The engine failed.
        """
        if not 0 < interval <= 60:
            raise InvalidArgument("processes are watched for up to 60 seconds")
        machine = self._existing()
        if machine.state != "running":
            state = _listing.STATES.get(machine.state, machine.state)
            raise NoContainerRunning(
                f"{machine.name} is {state}: 'redock start {machine.name}' lets it go on"
            )
        return _usage.find_processes(self._container.engine, machine.id, interval)


def read_options(text: str) -> dict[str, Any]:
    """
    Read what a machine was started with from its label.

    :param text: An object in JSON, or nothing.
    :returns: The values by option; empty where the text makes no sense.
    """
    import json

    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def count_changes(container: Container, machine: Machine) -> int | None:
    """
    Count the files that differ from the image a machine began with.

    :param container: The machine.
    :param machine: What the engine says about it.
    :returns: How many, None where the engine cannot tell.
    """
    try:
        return container.engine.changes(machine.id)
    except EngineError:
        return None
