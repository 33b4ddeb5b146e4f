"""
One command for several machines: side by side, and one failure does not stop the others.
"""

from __future__ import annotations

import logging

from redock._report import report
from redock.errors import InvalidName, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from redock.api import Container

__all__ = ["for_each", "log", "make_containers"]

#: With four at a time the engine's own work fills two processors.
WORKERS = 4


def log() -> logging.Logger:
    """
    Get the log of the program.

    :returns: The logger above all of redock's.
    """
    return logging.getLogger("redock")


def make_containers(options: argparse.Namespace) -> list[Container]:
    """
    Turn the names on the command line into containers; all of them or none.

    :param options: The command line.
    :returns: The containers, each once.
    :raises InvalidName: A name is outside the grammar, or the same host name is for several.
    """
    from redock.api import Container

    containers = {}
    for name in options.names:
        container = Container(name, options.hostname, options.timeout, base=options.base)
        containers[container.image.name] = container
    if options.hostname and len(containers) > 1:
        raise InvalidName("one host name cannot be for several machines: start them one by one")
    if options.base:
        from redock.base import wanted_base

        wanted_base(options.base)
    return list(containers.values())


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
