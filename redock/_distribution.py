"""
Distributions: their releases, their package mirrors, their images made from scratch.

Used where no registry answers: ``debootstrap`` or ``mmdebstrap`` install a
minimal system from the distribution's own packages, and the engine imports it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading

from redock._engine import Engine
from redock._printed import printable
from redock._process import quote
from redock._progress import detail, step
from redock._sdk import failures
from redock._settings import setting
from redock.errors import BaseImageFailed, ImageUnavailable, last_lines
from redock.utils import check_mirror, select_ubuntu_mirror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "RegistrySilent",
    "Release",
    "apt_sources",
    "choose_release",
    "find_release",
    "host_release",
    "import_release",
    "is_locale",
]

logger = logging.getLogger(__name__)

DEBIAN_ARCHIVE = "http://deb.debian.org/debian"
DEBIAN_SECURITY = "http://deb.debian.org/debian-security"
UBUNTU_SECURITY = "http://security.ubuntu.com/ubuntu"

#: The code names behind the tags of the official images.
CODENAMES = {
    "debian": {
        "11": "bullseye",
        "12": "bookworm",
        "13": "trixie",
        "14": "forky",
        "stable": "stable",
        "testing": "testing",
        "unstable": "sid",
        "sid": "sid",
    },
    "ubuntu": {
        "20.04": "focal",
        "22.04": "jammy",
        "24.04": "noble",
        "25.04": "plucky",
        "25.10": "questing",
        "26.04": "resolute",
    },
}
#: What the packages of a distribution are verified with, on the host.
KEYRINGS = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
#: What debootstrap does for releases that are newer than itself.
FALLBACK_SCRIPTS = {"debian": "sid", "ubuntu": "gutsy"}
DEBOOTSTRAP_SCRIPTS = "/usr/share/debootstrap/scripts"
COMPONENTS = {"debian": "main", "ubuntu": "main restricted universe multiverse"}
#: Seconds for a mirror to answer.
MIRROR_PATIENCE = 5.0
#: Seconds for the packages of a minimal system.
BOOTSTRAP_PATIENCE = 1200.0


class RegistrySilent(ImageUnavailable):
    """No registry answers, which is not the same as one that has no such image."""


class Release:
    """
    A release of a distribution and where its packages come from.

    :param distribution: ``debian`` or ``ubuntu``.
    :param codename: The code name of the release.
    :param mirror: The URL of the archive, None for the distribution's own.
    :param security: The URL of the archive with security updates, None likewise.
    """

    def __init__(
        self,
        distribution: str,
        codename: str,
        mirror: str | None = None,
        security: str | None = None,
    ) -> None:
        self.distribution = distribution
        self.codename = codename
        self.mirror = mirror
        self.security = security

    @property
    def image(self) -> str:
        """The name the distribution's image would have in a registry."""
        return f"{self.distribution}:{self.codename}"

    @property
    def archive(self) -> str:
        """The URL of the archive to use."""
        if self.mirror:
            return self.mirror
        if self.distribution == "ubuntu":
            return select_ubuntu_mirror()
        return check_mirror(setting("mirror") or DEBIAN_ARCHIVE)


def is_locale(name: str) -> bool:
    """
    Check for a locale of a language and a country, in UTF-8.

    :param name: For instance ``nl_NL.UTF-8``.
    :returns: True when it is one that has to be generated.
    """
    return bool(re.fullmatch(r"[a-z]{2,3}_[A-Z]{2}\.(?:UTF-8|utf8)", name)) and name[:5] != "en_US"


def find_release(image: str) -> Release | None:
    """
    Find the release in an official image.

    :param image: The name of an image, for instance ``debian:12-slim``.
    :returns: The release; None for an image redock knows nothing about.
    """
    name, _, tag = image.removeprefix("docker.io/").removeprefix("library/").rpartition(":")
    known = CODENAMES.get(name)
    if known is None:
        return None
    version = re.sub(r"-(?:slim|backports|\d+.*)$", "", tag)
    codename = known.get(version) or (version if version in known.values() else None)
    if codename is None and name == "debian":
        codename = known.get(version.partition(".")[0])
    if codename is None:
        return None
    host = host_release()
    if host is not None and (host.distribution, host.codename) == (name, codename):
        return host
    return Release(name, codename)


def host_release() -> Release | None:
    """
    Find the release this host runs and the mirrors its apt uses.

    :returns: The release; None when the host runs neither Debian nor Ubuntu.
    """
    facts = {}
    try:
        with open("/etc/os-release", encoding="utf-8") as handle:
            for line in handle:
                key, _, value = line.strip().partition("=")
                facts[key] = value.strip("'\"")
    except OSError:
        return None
    distribution, codename = facts.get("ID", ""), facts.get("VERSION_CODENAME", "")
    if distribution not in CODENAMES or not codename:
        return None
    archives = {suite: uri for uri, suites in host_sources() for suite in suites}
    release = Release(distribution, codename)
    # Others' archives have a suite of this name too, but none for updates.
    if f"{codename}-updates" in archives:
        release.mirror = archives[f"{codename}-updates"]
        release.security = archives.get(f"{codename}-security")
    elif codename in archives and len(archives) == 1:
        release.mirror = archives[codename]
    if setting("mirror"):
        release.mirror = check_mirror(setting("mirror"))
    return release


def host_sources(directory: str = "/etc/apt") -> Iterator[tuple[str, list[str]]]:
    """
    Read the sources of the host's apt, in both formats of sources.list(5).

    :param directory: apt's configuration directory.
    :returns: Yields the URI and suites of each source that is fetched over HTTP.
    """
    parts = os.path.join(directory, "sources.list.d")
    names = sorted(os.listdir(parts)) if os.path.isdir(parts) else []
    paths = [
        os.path.join(directory, "sources.list"),
        *(os.path.join(parts, name) for name in names),
    ]
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                text = handle.read()
        except OSError:
            continue
        if path.endswith(".sources"):
            yield from deb822_sources(text)
        elif path.endswith(".list"):
            for line in text.splitlines():
                match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(https?://\S+)\s+(\S+)\s", line)
                if match:
                    yield match[1].rstrip("/"), [match[2]]


def deb822_sources(text: str) -> Iterator[tuple[str, list[str]]]:
    """
    Read apt sources in the format of deb822.

    :param text: The contents of a file.
    :returns: Yields the URI and suites of each source.
    """
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = {}
        for line in lines:
            key, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "\t")):
                fields[key.strip().lower()] = value.split()
        if fields.get("enabled") == ["no"] or "deb" not in fields.get("types", ["deb"]):
            continue
        for uri in fields.get("uris", ()):
            if uri.startswith(("http://", "https://")):
                yield uri.rstrip("/"), fields.get("suites", [])


def apt_sources(release: Release) -> str:
    """
    Write the sources for apt inside the base image.

    :param release: The release in the image.
    :returns: Lines of sources.list(5); empty where the image's own are as good.
    """
    custom = bool(setting("mirror"))
    if release.distribution == "debian" and not release.mirror and not custom:
        return ""
    mirror = release.archive
    if mirror.startswith("https://") and not custom:
        # An image without certificates could not fetch them.
        return ""
    codename, components = release.codename, COMPONENTS[release.distribution]
    lines = [f"deb {mirror} {codename} {components}"]
    if codename in ("sid", "testing", "stable"):
        return "\n".join([*lines, ""])
    lines.append(f"deb {mirror} {codename}-updates {components}")
    security = release.security or (
        DEBIAN_SECURITY if release.distribution == "debian" else UBUNTU_SECURITY
    )
    lines.append(f"deb {security} {codename}-security {components}")
    return "\n".join([*lines, ""])


def choose_release(image: str, by_name: bool, reason: str) -> Release:
    """
    Decide what to make from packages when no registry answers.

    :param image: The image that is wanted.
    :param by_name: Somebody asked for this image, nothing else will do.
    :param reason: Why it cannot be downloaded.
    :returns: The release to make.
    :raises ImageUnavailable: It cannot be made here.
    """
    release = find_release(image)
    problem = find_problem(release) if release else "redock does not know its release"
    if release is not None and not problem:
        step("%s; making %s from the packages at %s", reason, release.image, release.archive)
        return release
    if by_name:
        raise ImageUnavailable(
            f"the image {image} is not to be had: {reason}; {problem}."
            " Load it with 'docker load', or choose another with --base"
        )
    host = host_release()
    host_problem = find_problem(host) if host else "this host is neither Debian nor Ubuntu"
    if host is None or host_problem:
        raise ImageUnavailable(
            f"no image to start from: {reason}; {problem}; {host_problem}."
            " Load an image with 'docker load' and name it with --base"
        )
    step(
        "%s; %s; making %s, which this host runs, from the packages at %s",
        reason,
        problem,
        host.image,
        host.archive,
    )
    return host


def find_problem(release: Release) -> str:
    """
    Find out why a release cannot be made from its packages here.

    :param release: The release.
    :returns: The reason, empty when it can be made.
    """
    import urllib.request

    keyring = KEYRINGS[release.distribution]
    if not os.path.exists(keyring):
        return f"{release.image} cannot be verified here, there is no {keyring}"
    url = f"{release.archive}/dists/{release.codename}/InRelease"
    try:
        with urllib.request.urlopen(url, timeout=MIRROR_PATIENCE) as answer:  # noqa: S310
            if answer.read(64).startswith(b"-----BEGIN PGP SIGNED MESSAGE-----"):
                return ""
    except (OSError, ValueError) as error:
        logger.debug("%s does not answer: %s", url, error)
    return f"no mirror of {release.image} answers at {release.archive}"


def import_release(engine: Engine, release: Release) -> str:
    """
    Install a minimal system from packages and import it as an image.

    :param engine: The engine.
    :param release: The release.
    :returns: The id of an image without a name.
    :raises BaseImageFailed: A step failed; nothing of it is left.
    """
    if os.geteuid() == 0 and shutil.which("debootstrap"):
        return import_with_debootstrap(engine, release)
    if shutil.which("mmdebstrap"):
        command = ["mmdebstrap", "--variant=minbase", release.codename, "-", release.archive]
        return import_output(engine, command)
    if shutil.which("debootstrap"):
        raise ImageUnavailable(
            "only root can use debootstrap: run 'sudo apt-get install mmdebstrap uidmap',"
            " which works for everybody"
        )
    raise ImageUnavailable(
        "making an image from packages needs a tool: run 'sudo apt-get install mmdebstrap uidmap'"
        " (or debootstrap, as root)"
    )


def import_with_debootstrap(engine: Engine, release: Release) -> str:
    """
    Use ``debootstrap``, which needs a directory and root.

    :param engine: The engine.
    :param release: The release.
    :returns: The id of an image without a name.
    """
    directory = tempfile.mkdtemp(prefix="redock-debootstrap-", dir="/var/tmp")
    try:
        # It becomes the root directory of the image.
        os.chmod(directory, 0o755)  # noqa: S103
        command = ["debootstrap", "--variant=minbase", "--force-check-gpg"]
        command.append(f"--keyring={KEYRINGS[release.distribution]}")
        if release.archive.startswith("https:"):
            command.append("--include=ca-certificates")
        script = os.path.join(DEBOOTSTRAP_SCRIPTS, release.codename)
        if not os.path.exists(script):
            script = os.path.join(DEBOOTSTRAP_SCRIPTS, FALLBACK_SCRIPTS[release.distribution])
        follow([*command, release.codename, directory, release.archive, script])
        archives = os.path.join(directory, "var/cache/apt/archives")
        for name in os.listdir(archives):
            if name.endswith(".deb"):
                os.unlink(os.path.join(archives, name))
        step("Importing %s into the engine", release.image)
        return import_output(engine, ["tar", "--numeric-owner", "-C", directory, "-c", "."])
    finally:
        remove_tree(directory)


def follow(command: Sequence[str]) -> None:
    """
    Run a command that takes long and show what it prints.

    :param command: The command and its arguments.
    :raises BaseImageFailed: It failed, or did not end in time.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    printed = []
    stop = threading.Timer(BOOTSTRAP_PATIENCE, process.kill)
    stop.daemon = True
    stop.start()
    try:
        for line in process.stdout:
            printed.append(printable(line.rstrip()))
            detail(printed[-1])
    except BaseException:
        process.terminate()
        raise
    finally:
        stop.cancel()
        process.stdout.close()
        process.wait(timeout=60)
    if process.returncode:
        log = "\n".join(printed[-20:])
        raise BaseImageFailed(
            f"{quote(command[:2])} failed with status {process.returncode}: {last_lines(log, 1)}",
            log,
        )


def import_output(engine: Engine, command: Sequence[str]) -> str:
    """
    Import the archive a command writes to its standard output.

    :param engine: The engine.
    :param command: The command and its arguments.
    :returns: The id of an image without a name.
    :raises BaseImageFailed: The command or the import failed.
    """
    import json

    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdout is not None
        stop = threading.Timer(BOOTSTRAP_PATIENCE, process.kill)
        stop.daemon = True
        stop.start()
        try:
            answer = engine.client.import_image_from_stream(process.stdout)
        except failures() as error:
            raise BaseImageFailed(f"the engine could not import an image: {error}") from error
        finally:
            stop.cancel()
            process.stdout.close()
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=60)
        errors.seek(0)
        printed = errors.read().decode("utf-8", "replace")
    image = ""
    for line in answer.splitlines():
        report = json.loads(line)
        image = str(report.get("status", image))
    if process.returncode or not image.startswith("sha256:"):
        if image.startswith("sha256:"):
            engine.remove_image(image, force=True)
        raise BaseImageFailed(
            f"{quote(command[:2])} failed: {last_lines(printed, 1) or answer[-200:]}", printed
        )
    return image


def remove_tree(directory: str) -> None:
    """
    Remove a directory in which ``debootstrap`` may have left something mounted.

    :param directory: The pathname.
    """
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as handle:
        mounted = [line.split(" ")[1] for line in handle]
    for path in sorted(mounted, reverse=True):
        if path.startswith(directory + "/"):
            subprocess.run(["umount", "--lazy", path], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(directory, ignore_errors=True)
