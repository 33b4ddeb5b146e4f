"""
One command for several machines: side by side, and one failure does not stop the others.
"""

from __future__ import annotations

from redock._report import report
from redock.errors import InvalidArgument, InvalidName, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import logging
    from collections.abc import Callable
    from typing import Any

    from redock._options import Options
    from redock._project import Project
    from redock.api import Container

__all__ = ["find_names", "for_each", "log", "make_container", "make_containers"]

#: With four at a time the engine's own work fills two processors.
WORKERS = 4


def log() -> logging.Logger:
    """
    Get the log of the program.

    :returns: The logger above all of redock's.
    """
    import logging

    return logging.getLogger("redock")


def find_names(options: argparse.Namespace) -> tuple[list[str], Project | None]:
    """
    Find out which machines a command is about.

    :param options: The command line.
    :returns: The names on it and None, else the name of the folder's machine and its project.
    :raises InvalidArgument: There are no names, and no project either.
    :raises SettingsError: The project's file is somebody else's, or makes no sense.
    """
    names: list[str | None] = options.names if "names" in options else [options.name]
    given = [name for name in names if name is not None]
    if given:
        return given, None
    from redock._project import FILE, find_project

    project = find_project()
    if project is None:
        raise InvalidArgument(f"which machine? Give a NAME, or go to a folder with a {FILE}")
    return [project.name], project


def make_containers(
    options: argparse.Namespace, asked: Options | None = None, project: Project | None = None
) -> list[Container]:
    """
    Turn the names on the command line into containers; all of them or none.

    :param options: The command line.
    :param asked: What the machines are to be started with (default: what they are).
    :param project: The project whose machine it is (default: found when there are no names).
    :returns: The containers, each once.
    :raises InvalidName: A name is outside the grammar, or the same host name is for several.
    :raises InvalidArgument: There are no names and no project, or a port is for several machines.
    """
    from redock.api import Container

    names, found = ([project.name], project) if project else find_names(options)
    hostname = options.hostname or (found.hostname if found else None)
    base = options.base or (found.base if found else None)
    more: dict[str, Any] = {"options": asked} if asked else {}
    containers = {}
    for name in names:
        container = Container(name, hostname, options.timeout, base=base, **more)
        containers[container.image.name] = container
    if len(containers) > 1 and options.hostname:
        raise InvalidName("one host name cannot be for several machines: start them one by one")
    if len(containers) > 1 and asked and asked.ports:
        raise InvalidArgument("one port cannot be for several machines: start them one by one")
    if base:
        from redock.base import wanted_base

        wanted_base(base)
    return list(containers.values())


def make_container(options: argparse.Namespace, name: str | None = None) -> Container:
    """
    Turn the name on the command line into a container.

    :param options: The command line of a command about one machine.
    :param name: The name of the machine (default: what the command line says, else the name of the
                 folder's machine).
    :returns: The container.
    :raises InvalidName: The name is outside the grammar.
    :raises InvalidArgument: There is no name, and no project either.
    """
    from redock.api import Container

    (name,), project = find_names(options) if name is None else ([name], None)
    return Container(name, project.hostname if project else None, options.timeout)


def for_each(containers: list[Container], function: Callable[[Container], None]) -> None:
    """
    Do something with each container, side by side; one failure does not stop the others.

    :param containers: The containers.
    :param function: What to do.
    :raises RedockError: The only container failed.
    :raises SeveralFailed: At least one of several failed; each failure has been reported.
    """
    if len(containers) == 1:
        function(containers[0])
        return
    from redock._parallel import run_all
    from redock.errors import SeveralFailed

    names = [container.image.name for container in containers]
    failed = run_all(
        dict(zip(names, containers, strict=True)), function, WORKERS, on_error=report_failure
    )
    done = [name for name in names if name not in failed]
    if done:
        log().info("Done: %s", ", ".join(done))
    if failed:
        raise SeveralFailed(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}", failed)


def report_failure(name: str, error: Exception) -> None:
    """
    Report the failure of one of several machines when it happens.

    :param name: The machine.
    :param error: The error.
    """
    if not isinstance(error, RedockError):
        raise error
    report(error, name)
