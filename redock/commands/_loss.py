"""
What would be lost, and whether its owner agrees.
"""

from __future__ import annotations

from redock.commands._several import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from redock.api import Container

__all__ = ["agreed", "describe_loss"]


def agreed(
    containers: Sequence[Container], options: argparse.Namespace, verb: str
) -> list[Container]:
    """
    Ask about each machine whose work would be lost, where there is somebody to ask.

    :param containers: The machines.
    :param options: The command line.
    :param verb: What is to be done, for the question.
    :returns: Those with which to go on.
    """
    from redock._ask import confirm, is_somebody_there

    if options.yes or not is_somebody_there():
        return list(containers)
    kept = []
    for container in containers:
        name = container.image.name
        loss = describe_loss(container)
        if not loss or confirm(f"{name}: {loss}. {verb}?"):
            kept.append(container)
        else:
            log().warning("%s was left as it is", name)
    return kept


def describe_loss(container: Container) -> str:
    """
    Say what of a machine would be lost.

    :param container: The machine.
    :returns: A clause, empty for nothing.
    """
    from redock.errors import NoContainerRunning, RedockError

    try:
        changes = container.diff()
    except NoContainerRunning:
        return ""
    except RedockError as error:
        log().debug("%s", error)
        return "what changed since its last commit is lost, and it cannot be told what that is"
    # As "diff" counts: what is in a directory, and the directory only where nothing is.
    count = sum(change.kind != "directory" for change in changes)
    what = "file" if count else "directory"
    count = count or sum(change.change != "C" for change in changes)
    if not count:
        return ""
    plural = {"file": "files", "directory": "directories"}[what]
    words = f"1 {what}" if count == 1 else f"{count} {plural}"
    return f"{words} changed since the last commit and will be lost"
