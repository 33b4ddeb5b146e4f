"""
Bringing the machine of a project into the state that its ``redock.toml`` asks for.
"""

from __future__ import annotations

import logging

from redock import _identity, _machines
from redock.bootstrap import Bootstrap
from redock.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from redock._project import Project
    from redock.api import Container

__all__ = ["provision_project"]

logger = logging.getLogger("redock.provision")

#: Seconds the script of a project may take.
SCRIPT_PATIENCE = 3600.0
#: Where a machine keeps the script of its project, and the hash of what was done; a part of its
#: disk, so that a commit includes them.
PROJECT_SCRIPT = "/var/lib/redock/provision"
PROJECT_STAMP = "/var/lib/redock/provisioned"


def provision_project(container: Container, project: Project, output: TextIO) -> bool:
    """
    Bring a machine into the state its project wants, unless that was done before.

    The packages are installed and the script is run on the machine, as root, when either has
    changed since; nothing of the project is run on this host.

    :param container: The machine; it runs.
    :param project: The project.
    :param output: Where the script's output goes.
    :returns: False when there was nothing to do.
    :raises SettingsError: The script cannot be read, or reaches out of the project's folder.
    :raises RedockError: A step failed; the next call begins anew.
    """
    packages, script = project.packages, project.script
    if not packages and script is None:
        return False
    import hashlib

    wanted = hashlib.sha256(repr((packages, script)).encode()).hexdigest()
    done = read_stamp(container)
    if done == wanted:
        return False
    why = "its packages or its script have changed" if done else "for the first time"
    logger.info("Provisioning %s, %s", container.image.name, why)
    with Bootstrap(f"root@{container.ssh_alias}", output=output) as host:
        if packages:
            host.packages(*packages)
        if script is not None:
            put_file(container, PROJECT_SCRIPT, 0o755, script)
            # A script without a first line that names its interpreter is one for sh.
            interpreter = [] if script.startswith(b"#!") else ["/bin/sh"]
            command = ["/usr/bin/env", *interpreter, PROJECT_SCRIPT]
            host.execute(*command, timeout=SCRIPT_PATIENCE)
    put_file(container, PROJECT_STAMP, 0o644, f"{wanted}\n".encode())
    return True


def put_file(container: Container, path: str, mode: int, contents: bytes) -> None:
    """
    Write a file of root's into a running machine.

    :param container: The machine.
    :param path: The pathname; its directory is made.
    :param mode: The permissions.
    :param contents: What it contains.
    """
    container.check_active()
    assert container.session.container_id
    files = _machines.archive({path: (mode, contents)})
    container.engine.put_archive(container.session.container_id, "/", files)


def read_stamp(container: Container) -> str:
    """
    Find out what a machine was provisioned with.

    :param container: The machine.
    :returns: The hash; empty when it never was.
    """
    machine = container._find_machine()
    if machine is None:
        return ""
    try:
        return _identity.read_file(container.engine, machine, PROJECT_STAMP).decode().strip()
    except NotFound:
        return ""
