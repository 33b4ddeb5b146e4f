"""
The life of a machine: ``start``, ``commit``, ``kill``, ``delete``.
"""

from __future__ import annotations

import os
import sys

from redock._arguments import add_names, add_verb
from redock.commands._loss import agreed
from redock.commands._several import for_each, log, make_containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock._arguments import Parser
    from redock.api import Container

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    for name, function, text, flags in (
        ("start", start, "Make sure machines run; connect to a single one.", "-n -t -b"),
        ("commit", commit, "Save the disk of machines as their images.", "-m"),
        ("kill", kill, "Throw machines away, with all changes since the last commit.", "-y"),
        ("delete", delete, "Delete what was saved of machines, all commits.", "-y"),
    ):
        verb = add_verb(verbs, name, function, text, *flags.split())
        add_names(verb)
        if name == "commit":
            verb.add_argument("--author", metavar="WHO", help="who made the change")
            verb.add_argument("--squash", action="store_true", help="make one layer of it")
        if name == "delete":
            verb.add_argument("--force", action="store_true", help="even redock's base images")
        if name == "start":
            verb.add_argument("--no-connect", action="store_true", help="do not open a session")


def start(options: argparse.Namespace) -> int:
    """
    Start machines; connect to a single one on a terminal.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import api
    from redock.errors import SeveralFailed

    containers = make_containers(options)
    try:
        for_each(containers, lambda container: container.start())
    except SeveralFailed as failed:
        for container in containers:
            if container.image.name not in failed.failures:
                print(api.connect_hint(container))
        raise
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not options.no_connect
    if len(containers) == 1 and interactive:
        command = api.connect_command(containers[0])
        log().info("Connecting with: %s", " ".join(command))
        sys.stdout.flush()
        sys.stderr.flush()
        os.execvp(command[0], command)
    for container in containers:
        print(api.connect_hint(container))
    return 0


def commit(options: argparse.Namespace) -> int:
    """
    Save the disks of machines.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock._engine import finish

    def save(container: Container) -> None:
        container.commit(options.message, options.author, squash=options.squash)

    try:
        for_each(make_containers(options), save)
    except BaseException:
        # Interrupted while other threads save the disks of several machines.
        finish()
        raise
    return 0


def kill(options: argparse.Namespace) -> int:
    """
    Throw machines away.

    :param options: The command line.
    :returns: The exit status.
    """
    containers = make_containers(options)
    doomed = agreed(containers, options, "Kill it")
    if doomed:
        for_each(doomed, lambda container: container.kill())
    return int(doomed != containers)


def delete(options: argparse.Namespace) -> int:
    """
    Delete the images of machines.

    :param options: The command line.
    :returns: The exit status.
    """
    containers = make_containers(options)
    doomed = [each for each in containers if may_delete(each, options)]
    if doomed:
        for_each(doomed, lambda container: container.delete(options.force))
    return int(doomed != containers)


def may_delete(container: Container, options: argparse.Namespace) -> bool:
    """
    Ask whether to delete what was saved, where there is something and somebody to ask.

    :param container: The machine.
    :param options: The command line.
    :returns: False when the answer was no.
    """
    from redock._ask import confirm, is_somebody_there

    if options.yes or not is_somebody_there():
        return True
    name, count = container.image.name, len(container.history())
    # While there is a machine it is refused, whatever the answer.
    if not count or container._find_machine() is not None:
        return True
    what = "its only commit" if count == 1 else f"all {count} commits"
    if confirm(f"{name}: {what} will be lost. Delete?"):
        return True
    log().warning("%s was left as it is", name)
    return False
