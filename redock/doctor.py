"""
Examining the host: what is missing for redock to work, and how to mend it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import partial

from redock import _include, _ssh
from redock._engine import KIND, Engine
from redock._files import path_in_home, redock_home, user_home
from redock._frozen import find_frozen, remedy
from redock.errors import RedockError, SSHConfigConflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Finding", "examine"]

#: What versions of Docker before these are known for; distributions mend some of it in older ones.
HOLES = (
    (
        (28, 3, 3),
        "hosts on the same network segment could reach ports published on the loopback interface"
        " (moby#45610, CVE-2025-54388); machines accept keys only",
    ),
    (
        (25, 0, 2),
        "an image made by somebody else could get at files of this host (CVE-2024-21626, mended"
        " with runc 1.1.12)",
    ),
)
INSTALL_SSH = "sudo apt-get install openssh-client"
#: Before this version ssh knows no Include, see its release notes.
OLDEST_SSH = (7, 3)
#: Less than this many bytes are not enough for a base image.
LITTLE = 1 << 30


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

    def values(self) -> dict[str, object]:
        """
        Describe it for programs.

        :returns: Plain values.
        """
        return {
            "what": self.what,
            "good": self.good,
            "detail": self.detail,
            "remedy": self.remedy or None,
        }


def examine() -> list[Finding]:
    """
    Look at everything redock needs.

    :returns: What was found, in the order in which to mend it.
    """
    engine = Engine()
    findings = [
        *look("programs", examine_programs),
        *look("redock's directory", examine_home),
        *look("settings", examine_settings),
        *look("SSH configuration", examine_ssh_config),
        *look("group", partial(examine_group, engine)),
    ]
    answered = look("engine", partial(examine_engine, engine))
    findings += answered
    if all(finding.good for finding in answered):
        # Of one that does not answer there is nothing else to find out, after as long a wait each.
        for what, examination in (
            ("base image", examine_base),
            ("engine's disk", examine_disk),
            ("frozen containers", examine_frozen),
            ("leftovers", examine_leftovers),
        ):
            findings += look(what, partial(examination, engine))
    return findings


def look(what: str, examination: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """
    Look at one thing.

    :param what: What it is, for the case that it cannot be looked at.
    :param examination: Looks at it.
    :returns: What was found.
    """
    findings: list[Finding] = []
    try:
        findings.extend(examination())
    except RedockError as error:
        findings.append(Finding(what, False, str(error)))
    return findings


def examine_programs() -> Iterator[Finding]:
    """
    Look for the programs redock runs.

    :returns: Yields a finding a program.
    """
    for program in ("ssh", "ssh-keygen"):
        found = shutil.which(program)
        remedy = "" if found else INSTALL_SSH
        yield Finding(program, bool(found), found or "not installed", remedy)
    if shutil.which("ssh"):
        yield examine_version()
    rsync = shutil.which("rsync")
    yield Finding("rsync", True, rsync or "not installed (only needed to copy directories)")


def examine_version() -> Finding:
    """
    Look at the version of ``ssh``.

    :returns: The finding.
    """
    try:
        done = subprocess.run(
            ["ssh", "-V"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("ssh's version", False, str(error), "see 'ssh -V'")
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", done.stderr)
    if found is None:
        said = " ".join(done.stderr.split())[:60]
        return Finding("ssh's version", False, f"not OpenSSH: {said}", INSTALL_SSH)
    version = (int(found[1]), int(found[2]))
    good = version >= OLDEST_SSH
    words = f"OpenSSH {found[1]}.{found[2]}"
    if not good:
        words += f", which is older than {'.'.join(map(str, OLDEST_SSH))}"
    return Finding("ssh's version", good, words, "" if good else INSTALL_SSH)


def examine_home() -> Iterator[Finding]:
    """
    Look at redock's directory and for room on its disk.

    :returns: Yields a finding for each.
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
    yield from room("redock's disk", home)


def examine_settings() -> Iterator[Finding]:
    """
    Look at the settings.

    :returns: Yields one finding.
    """
    from redock import _settings

    path = _settings.settings_file()
    try:
        _settings.configured(*_settings.SETTINGS)
    except RedockError as error:
        yield Finding("settings", False, str(error), "redock config path")
        return
    yield Finding("settings", True, path if os.path.exists(path) else f"none in {path}")


def examine_engine(engine: Engine) -> Iterator[Finding]:
    """
    Look at the container engine.

    :param engine: The engine.
    :returns: Yields one finding, and one for each known hole.
    """
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
    named = {str(each.get("Name", "")) for each in version.get("Components") or ()}
    if any("podman" in name.lower() for name in named):
        return
    for fixed, hole in HOLES:
        if parts and parts < fixed:
            yield Finding(
                "engine's age",
                True,
                f"before {'.'.join(map(str, fixed))}, unless your distribution has mended it:"
                f" {hole}",
                "sudo apt-get install --only-upgrade docker.io runc",
            )


def examine_group(engine: Engine) -> Iterator[Finding]:
    """
    Find out by what right the user talks to the engine on this host.

    :param engine: The engine.
    :returns: Yields one finding, or none for another engine.
    """
    import grp

    path = engine.endpoint.socket_path
    if path is None or not os.path.exists(path):
        return
    group = os.stat(path).st_gid
    try:
        name = grp.getgrgid(group).gr_name
    except KeyError:
        name = str(group)
    if not os.access(path, os.W_OK):
        yield Finding(
            "group", False, f"you are not in the group {name}", f"sudo usermod -aG {name} $USER"
        )
    elif os.getuid() and group in os.getgroups():
        yield Finding("group", True, f"{name}; whoever is in it can do what root can")
    else:
        yield Finding("group", True, f"not needed: {path} is yours to write")


def examine_disk(engine: Engine) -> Iterator[Finding]:
    """
    Look for room on the disk of the engine.

    :param engine: The engine.
    :returns: Yields one finding; none where the disk is not here or cannot be seen.
    """
    if engine.endpoint.is_local:
        yield from room("engine's disk", str(engine.info().get("DockerRootDir") or ""))


def room(what: str, path: str) -> Iterator[Finding]:
    """
    Look for room on a disk.

    :param what: Whose disk it is.
    :param path: A pathname on it, whether it is there or not.
    :returns: Yields one finding, none where it cannot be seen.
    """
    while path not in ("", "/") and not os.path.exists(path):
        path = os.path.dirname(path)
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return
    words = f"{free / 1e9:.1f} GB free below {path}"
    yield Finding(what, free >= LITTLE, words, "" if free >= LITTLE else "redock prune --all")


def examine_frozen(engine: Engine) -> Iterator[Finding]:
    """
    Look for containers that the engine takes for running and whose processes are frozen.

    With cgroups of version 1 a command that is started at the moment of a pause stays frozen, and
    every removal on the engine waits for it.

    :param engine: The engine.
    :returns: Yields a finding for each.
    """
    for each in engine.containers({"label": [KIND], "status": ["running"]}):
        path = find_frozen(engine, each["Id"])
        if path is not None:
            name = each["Names"][0].lstrip("/")
            yield Finding(
                "frozen container",
                False,
                f"the engine says that {name} runs, but its processes are frozen",
                remedy(path),
            )


def examine_leftovers(engine: Engine) -> Iterator[Finding]:
    """
    Look for what nobody uses any more.

    :param engine: The engine.
    :returns: Yields one finding.
    """
    from redock import _tidy

    count = len(_tidy.find_leftovers(engine))
    words = "1 thing" if count == 1 else f"{count} things"
    if count:
        yield Finding("leftovers", True, f"{words} that nobody uses any more", "redock prune")
    else:
        yield Finding("leftovers", True, "none")


def examine_base(engine: Engine) -> Iterator[Finding]:
    """
    Look for the base image.

    :param engine: The engine.
    :returns: Yields one finding.
    """
    from redock.base import find_ready_base

    found = find_ready_base(engine)
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
