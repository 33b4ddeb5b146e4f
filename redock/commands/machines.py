"""
The life of a machine: ``start``, ``commit``, ``kill``, ``delete``.
"""

from __future__ import annotations

import os
import sys

from redock._arguments import OptionalValue, add_names, add_verb
from redock.commands._loss import agreed
from redock.commands._several import find_names, for_each, log, make_containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from redock._arguments import Parser
    from redock._options import Options
    from redock._project import Project
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
            add_equipment(verb)


def add_equipment(verb: argparse.ArgumentParser) -> None:
    """
    Add what a machine is started with besides its disk.

    :param verb: The parser of a command.
    """
    import argparse

    more: dict[str, Any] = {"action": "append"}
    verb.add_argument(
        *("-p", "--publish"), metavar="[ADDRESS:]PORT[:INSIDE][/udp]", **more,
        help="make a port of the machine one of this host, on 127.0.0.1 unless told otherwise"
        " ('none': no more)",
    )  # fmt: skip
    verb.add_argument(
        *("-V", "--volume"), metavar="SOURCE:TARGET[:ro]", **more,
        help="mount a directory (./DIRECTORY) or a volume of the engine ('none': no more)",
    )  # fmt: skip
    verb.add_argument(
        "--user", metavar="NAME[:UID[:GID]]", action=OptionalValue,
        help="log in as this user, with your number and sudo, not as root; without a value: as you",
    )  # fmt: skip
    verb.add_argument(
        *("-e", "--env"), metavar="KEY[=VALUE]", **more,
        help="set an environment variable; without a value: as it is here ('none': no more)",
    )  # fmt: skip
    verb.add_argument("--memory", metavar="SIZE", help="limit the memory, e.g. 512m (0: no limit)")
    verb.add_argument("--cpus", metavar="N", help="limit the processors, e.g. 1.5 (0: no limit)")
    verb.add_argument(
        "--network", metavar="NAME", **more,
        help="attach to a network of the engine as well ('none': no more)",
    )  # fmt: skip
    verb.add_argument(
        "--agent",
        action=argparse.BooleanOptionalAction,
        help="forward your SSH agent (default: no)",
    )
    verb.add_argument(
        "--restart", metavar="POLICY",
        help="when the engine starts it again: no, always, unless-stopped or on-failure",
    )  # fmt: skip
    verb.add_argument(
        "--recreate", action="store_true",
        help="where options need it, make a new container for the same disk; programs are stopped",
    )  # fmt: skip


def asked_for(options: argparse.Namespace, project: Project | None) -> Options | None:
    """
    Find out what machines are to be started with.

    :param options: The command line.
    :param project: The project whose machine it is, if any.
    :returns: What the command line says, above what the project says; None for nothing.
    :raises InvalidArgument: A value makes no sense.
    :raises SettingsError: A value of the project's makes no sense.
    """
    names = ("publish", "volume", "user", "env", "memory", "cpus", "network", "agent", "restart")
    given = {name: getattr(options, name) for name in names}
    if project is None and all(value is None for value in given.values()):
        return None
    from redock._links import read_environment
    from redock._options import Options

    lists = {name: given.pop(name) for name in ("publish", "volume", "env", "network")}
    for name, value in lists.items():
        if value is not None:
            lists[name] = [each for each in value if each != "none"]
    variables = None if lists["env"] is None else read_environment(lists["env"])
    asked = Options(
        ports=lists["publish"],
        volumes=lists["volume"],
        networks=lists["network"],
        env=variables,
        **given,
    )
    if project is None:
        return asked
    theirs = project.options()
    if variables:
        asked = Options(**{**asked.given(), "env": {**theirs.values, **variables}})
    return asked.over(theirs)


def start(options: argparse.Namespace) -> int:
    """
    Start machines; connect to a single one on a terminal.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import api
    from redock.errors import SeveralFailed

    _, project = find_names(options)
    containers = make_containers(options, asked_for(options, project), project)
    again = {"recreate": True} if options.recreate else {}
    try:
        for_each(containers, lambda container: container.start(**again))
    except SeveralFailed as failed:
        for container in containers:
            if container.image.name not in failed.failures:
                print(api.connect_hint(container))
        raise
    if project is not None:
        from redock._project_state import provision_project

        provision_project(containers[0], project, sys.stderr)
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
    from redock._unfinished import finish

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
