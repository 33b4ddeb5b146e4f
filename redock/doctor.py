"""
Examining the host: what is missing for redock to work, and how to mend it.
"""

from __future__ import annotations

import os
import shutil

from redock import _include, _ssh
from redock._engine import Engine
from redock._files import path_in_home, redock_home, user_home
from redock.errors import DockerUnavailable, RedockError, SSHConfigConflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Finding", "examine"]

#: Before this version a port published on the loopback interface could be reached from the
#: neighbouring network: moby#45610, and CVE-2025-54388 again in some later ones.
SAFE_ENGINE = (28, 3, 3)


class Finding:
    """
    One thing that was looked at.

    :param what: What it is.
    :param good: It is as it should be.
    :param detail: What was found.
    :param remedy: What to do about it, a command where possible.
    """

    def __init__(self, what: str, good: bool, detail: str, remedy: str = "") -> None:
        self.what = what
        self.good = good
        self.detail = detail
        self.remedy = remedy

    def __str__(self) -> str:
        line = f"[{'ok' if self.good else '!!'}] {self.what}: {self.detail}"
        return f"{line}\n     {self.remedy}" if self.remedy else line


def examine() -> list[Finding]:
    """
    Look at everything redock needs.

    :returns: What was found, in the order in which to mend it.
    """
    examinations: list[Callable[[], Iterator[Finding]]] = [
        examine_programs,
        examine_home,
        examine_engine,
        examine_base,
        examine_ssh_config,
    ]
    findings: list[Finding] = []
    for examination in examinations:
        try:
            findings.extend(examination())
        except RedockError as error:
            what = examination.__name__.removeprefix("examine_").replace("_", " ")
            findings.append(Finding(what, False, str(error)))
    return findings


def examine_programs() -> Iterator[Finding]:
    """
    Look for the programs redock runs.

    :returns: Yields a finding a program.
    """
    for program, package in (("ssh", "openssh-client"), ("ssh-keygen", "openssh-client")):
        found = shutil.which(program)
        remedy = "" if found else f"sudo apt-get install {package}"
        yield Finding(program, bool(found), found or "not installed", remedy)
    rsync = shutil.which("rsync")
    yield Finding("rsync", True, rsync or "not installed (only needed to copy directories)")


def examine_home() -> Iterator[Finding]:
    """
    Look at redock's directory.

    :returns: Yields one finding.
    """
    home = redock_home()
    expected = os.environ.get("REDOCK_HOME") or os.path.join(user_home(), ".redock")
    if home == expected:
        yield Finding("redock's directory", True, home)
    else:
        yield Finding(
            "redock's directory",
            False,
            f"{expected} cannot be used, {home} is used instead",
            "set REDOCK_HOME to a directory of yours",
        )


def examine_engine() -> Iterator[Finding]:
    """
    Look at the container engine.

    :returns: Yields one or two findings.
    """
    engine = Engine()
    try:
        version = engine.version()
    except RedockError as error:
        remedy = (
            "sudo systemctl start docker"
            if shutil.which("dockerd")
            else "sudo apt-get install docker.io"
        )
        if "may not use" in str(error):
            remedy = "sudo usermod -aG docker $USER, then log in again"
        elif "context" in str(error):
            remedy = "docker context ls"
        elif os.environ.get("DOCKER_HOST"):
            remedy = "unset DOCKER_HOST, or start the engine it names"
        yield Finding(
            "engine", False, str(error).removesuffix(" ('redock doctor' tells how)"), remedy
        )
        return
    number = str(version.get("Version", "unknown"))
    yield Finding("engine", True, f"{number} at {engine.endpoint}")
    parts = tuple(int(part) for part in number.split("+")[0].split(".")[:3] if part.isdigit())
    if parts and parts < SAFE_ENGINE:
        yield Finding(
            "engine's age",
            True,
            f"before {'.'.join(map(str, SAFE_ENGINE))} hosts on the same network segment could"
            " reach ports published on the loopback interface; machines accept keys only",
        )


def examine_base() -> Iterator[Finding]:
    """
    Look for the base image.

    :returns: Yields one finding.
    """
    from redock.base import find_ready_base

    try:
        found = find_ready_base(Engine())
    except DockerUnavailable:
        # That has been said already.
        return
    yield Finding(
        "base image", True, "ready" if found else "not made yet, the first start does that"
    )


def examine_ssh_config() -> Iterator[Finding]:
    """
    Look at the user's SSH configuration.

    :returns: Yields one finding.
    """
    path = _ssh.home_config_file()
    mode = _include.find_mode()
    try:
        installed = mode != "none" and _include.is_installed(_include.read_config())
    except SSHConfigConflict as error:
        yield Finding("SSH configuration", False, str(error))
        return
    if os.path.exists(path) and not _ssh.effective_options("localhost", path):
        yield Finding(
            "SSH configuration", False, f"ssh cannot read {path}", "see 'ssh -G localhost'"
        )
    elif mode == "none":
        yield Finding(
            "SSH configuration", True, f"left alone; use 'ssh -F {path_in_home('ssh', 'config')}'"
        )
    else:
        state = "includes redock's" if installed else "does not include redock's yet"
        yield Finding("SSH configuration", True, f"{path} {state}")
