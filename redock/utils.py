"""
Helpers: redock's state, its key pair, package mirrors, quoting and slugs.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess

from redock._files import (
    Lock,
    atomic_write,
    collect_strays,
    ensure_directory,
    path_in_home,
    read_bytes,
    redock_home,
    remove_file,
)
from redock._names import slug
from redock._process import Deadline, missing_program, quote, run
from redock._settings import setting
from redock.errors import SettingsError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

__all__ = [
    "Config",
    "RemoteTerminal",
    "apt_get_install",
    "create_configuration_directory",
    "find_local_ip_addresses",
    "generate_ssh_key_pair",
    "get_ssh_public_key",
    "quote_command_line",
    "select_ubuntu_mirror",
    "slug",
    "summarize_id",
]

logger = logging.getLogger(__name__)

#: The default mirror of Ubuntu's packages; every request may be answered by another server.
UBUNTU_ARCHIVE = "http://archive.ubuntu.com/ubuntu"
#: Answers with the mirrors in the country of whoever asks, one a line.
UBUNTU_MIRRORS = "http://mirrors.ubuntu.com/mirrors.txt"


class Config:
    """
    The bits of state redock keeps between its runs.

    The container engine is the truth about containers; this is a cache that
    can be thrown away. To change the state, use it as a context manager:

    >>> config = Config()
    >>> with config as state:
    ...     state["containers"].clear()

    The dictionary is saved when the block ends without an error. Other
    processes wait meanwhile, and readers see the old state or the new.
    """

    #: The version of the format.
    version = 2
    #: A file larger than this is not ours.
    size_limit = 16 * 1024 * 1024

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None
        self.lock: Lock | None = None

    @property
    def path(self) -> str:
        """The pathname of the state file."""
        return path_in_home("state.json")

    def load(self, exists: bool = True) -> dict[str, Any]:
        """
        Load the state from disk.

        A file that makes no sense is set aside as ``state.json.corrupt-N``;
        what was in it is found anew from the engine. Nothing in it is ever
        executed.

        :param exists: Look for the file at all (default: True).
        :returns: The state; an empty one when there is no file yet.
        :raises StateError: A newer redock wrote the file; it was left alone.
        """
        empty: dict[str, Any] = {"version": self.version, "containers": {}}
        if not exists:
            return empty
        contents = self.read()
        if contents is None:
            return empty
        try:
            loaded = json.loads(contents.decode("utf-8"), object_pairs_hook=unique_keys)
            version = loaded["version"]
            if not isinstance(version, int) or not isinstance(loaded["containers"], dict):
                raise ValueError("the values have the wrong types")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            self.set_aside(str(error))
            return empty
        if version > self.version:
            raise StateError(
                f"{self.path} was written by a newer redock (format {version}):"
                " use that one, or move the file away"
            )
        return dict(loaded)

    def read(self) -> bytes | None:
        """
        Read the state file, if that is what it is.

        :returns: Its contents; None when there is none.
        :raises StateError: It cannot be read.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if os.path.islink(self.path):
                self.set_aside("it is a symbolic link")
                return None
            raise StateError(f"cannot read {self.path}: {error.strerror}") from error
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > self.size_limit:
                self.set_aside("it is not a file of redock's")
                return None
            with os.fdopen(os.dup(handle), "rb") as stream:
                return stream.read()
        finally:
            os.close(handle)

    def set_aside(self, reason: str) -> None:
        """
        Move a state file that makes no sense out of the way.

        :param reason: What is wrong with it.
        """
        number = 1
        while os.path.lexists(f"{self.path}.corrupt-{number}"):
            number += 1
        target = f"{self.path}.corrupt-{number}"
        try:
            os.rename(self.path, target)
        except FileNotFoundError:
            # Another process did the same a moment ago.
            return
        except OSError as error:
            raise StateError(f"cannot move {self.path} away: {error.strerror}") from error
        logger.warning("%s made no sense (%s), moved to %s", self.path, reason, target)

    def __enter__(self) -> dict[str, Any]:
        self.lock = Lock(path_in_home("locks", ".state.lock"), "redock's state")
        self.lock.acquire()
        try:
            self.state = self.load()
        except BaseException:
            self.lock.release()
            raise
        return self.state

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self.lock is not None
        try:
            if kind is None:
                contents = json.dumps(self.state, indent=1, sort_keys=True).encode() + b"\n"
                if read_bytes(self.path) != contents:
                    collect_strays(redock_home(), "state.json")
                    atomic_write(self.path, contents)
        finally:
            self.state = None
            self.lock.release()


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """
    Make a dictionary of a JSON object, but not of one that says a thing twice.

    :param pairs: The keys and values.
    :returns: The dictionary.
    :raises ValueError: A key occurs twice.
    """
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key occurs twice")
    return made


class RemoteTerminal:
    """
    Shows what a running container prints on the terminal of the host.

    To be used as a context manager, or with :meth:`attach` and :meth:`detach`.

    :param container_id: The id or name of the container.
    """

    def __init__(self, container_id: str) -> None:
        self.container_id = container_id
        self.process: subprocess.Popen[bytes] | None = None

    def attach(self) -> None:
        """
        Start to show the output (``docker attach``, in the background).

        :raises RedockError: The program ``docker`` is not installed.
        """
        if self.process is None:
            command = ["docker", "attach", "--no-stdin", "--sig-proxy=false", self.container_id]
            try:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            except FileNotFoundError as error:
                raise missing_program("docker") from error

    def detach(self) -> None:
        """Stop to show the output; the container goes on."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> RemoteTerminal:
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()


def apt_get_install(*packages: str) -> str:
    """
    Generate a command that installs packages without asking anything.

    >>> apt_get_install("nginx")
    'DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends nginx'

    :param packages: The names of the packages.
    :returns: A command line for a shell.
    """
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    return f"DEBIAN_FRONTEND=noninteractive {quote(command)}"


def create_configuration_directory() -> None:
    """
    Make sure redock's directory (``~/.redock`` or ``$REDOCK_HOME``) exists.

    :raises RedockError: It cannot be created or used.
    """
    redock_home()


def find_local_ip_addresses() -> set[str]:
    """
    Find the IPv4 addresses of the host's network interfaces, loopback excluded.

    :returns: Addresses in dotted notation.
    """
    import fcntl
    import socket
    import struct

    get_address = 0x8915  # SIOCGIFADDR, netdevice(7)
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), get_address, request)
            except OSError:
                # An interface without an IPv4 address.
                continue
            found.add(socket.inet_ntoa(answer[20:24]))
    return {address for address in found if not address.startswith("127.")}


def private_key_file() -> str:
    """
    Get the pathname of redock's private key.

    :returns: A pathname.
    """
    return path_in_home("ssh", "id_ed25519")


def generate_ssh_key_pair() -> None:
    """
    Generate the key pair redock logs into its machines with, unless it exists.

    The private key stays on the host, in ``~/.redock/ssh``; only the public
    key goes into machines.

    :raises RedockError: ``ssh-keygen`` is not installed or fails.
    """
    path = private_key_file()
    if os.path.exists(path) and os.path.exists(path + ".pub"):
        return
    ensure_directory(os.path.dirname(path))
    with Lock(path_in_home("locks", ".key.lock"), "redock's key pair"):
        if os.path.exists(path):
            if not os.path.exists(path + ".pub"):
                public = run(["ssh-keygen", "-y", "-P", "", "-f", path]).stdout
                atomic_write(path + ".pub", public.encode())
            return
        logger.info("Generating an SSH key pair for redock's machines")
        new = f"{path}.new"
        for stray in (new, new + ".pub"):
            remove_file(stray)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "redock", "-f", new])
        # No secret, but all of redock's files are the user's alone.
        os.chmod(new + ".pub", 0o600)
        # The private key last: it is what counts as "there is a key pair".
        os.replace(new + ".pub", path + ".pub")
        os.replace(new, path)


def get_ssh_public_key() -> str:
    """
    Get the public key of redock's key pair, which is generated on first use.

    :returns: The contents of ``~/.redock/ssh/id_ed25519.pub``.
    :raises RedockError: The key pair cannot be generated or read.
    """
    contents = read_bytes(private_key_file() + ".pub")
    if contents is None or not os.path.exists(private_key_file()):
        generate_ssh_key_pair()
        contents = read_bytes(private_key_file() + ".pub") or b""
    return contents.decode("utf-8", "replace").strip()


def quote_command_line(command: Sequence[str]) -> str:
    """
    Quote the tokens of a shell command line.

    >>> quote_command_line(["echo", "two words"])
    "echo 'two words'"

    :param command: The command name and its arguments.
    :returns: The command line as one string.
    """
    return quote(command)


def select_ubuntu_mirror(force: bool = False) -> str:
    """
    Choose a mirror of Ubuntu's packages that is close by.

    The choice is remembered, so that every machine uses the same mirror:
    another one would mean to download all package lists again. The setting
    ``mirror`` (``$REDOCK_MIRROR``) comes before any choice.

    :param force: Choose anew (default: False).
    :returns: The URL of the mirror.
    :raises SettingsError: The setting is not a URL.
    """
    wanted = setting("mirror")
    if wanted:
        return check_mirror(wanted)
    path = path_in_home("mirror")
    remembered = (read_bytes(path) or b"").decode("ascii", "replace").strip()
    if remembered and not force:
        return remembered
    mirror = find_fastest_mirror()
    if mirror is None:
        # Not remembered: the list may only be out of reach today.
        logger.debug("No list of Ubuntu mirrors can be had, using %s", UBUNTU_ARCHIVE)
        return UBUNTU_ARCHIVE
    atomic_write(path, mirror.encode() + b"\n")
    logger.info("Chose the Ubuntu mirror %s", mirror)
    return mirror


def check_mirror(url: str) -> str:
    """
    Check the URL of a package mirror.

    :param url: A URL.
    :returns: The URL without a slash at its end.
    :raises SettingsError: It is not one that apt understands.
    """
    scheme, _, rest = url.partition("://")
    if (
        scheme not in ("http", "https")
        or not rest
        or not url.isascii()
        or set(url) & set(" \t\n\"'[]")
    ):
        raise SettingsError(f"the package mirror {url!r} is not a URL: give http://HOST/PATH")
    return url.rstrip("/")


def find_fastest_mirror(patience: float = 5.0) -> str | None:
    """
    Find the mirror that answers first.

    :param patience: Seconds for all of it (default: 5).
    :returns: The URL of a mirror, None when none answers.
    """
    import queue
    import threading
    import urllib.request

    deadline = Deadline(patience)
    try:
        with urllib.request.urlopen(UBUNTU_MIRRORS, timeout=patience / 2) as answer:
            lines = answer.read(65536).decode("ascii", "replace").split()
    except OSError:
        return None
    mirrors = [line.rstrip("/") for line in lines if line.startswith(("http://", "https://"))][:8]
    answered: queue.SimpleQueue[str] = queue.SimpleQueue()

    def try_mirror(mirror: str) -> None:
        try:
            release = f"{mirror}/dists/noble/Release"
            with urllib.request.urlopen(release, timeout=deadline.remaining) as answer:  # noqa: S310
                answer.read(1024)
            answered.put(mirror)
        except (OSError, ValueError):
            return

    for mirror in mirrors:
        threading.Thread(target=try_mirror, args=(mirror,), daemon=True).start()
    try:
        return answered.get(timeout=deadline.remaining) if mirrors else None
    except queue.Empty:
        return None


def summarize_id(id: str) -> str:
    """
    Shorten the id of a container or image the way ``docker`` shows it.

    :param id: A hexadecimal id, with ``sha256:`` in front or not.
    :returns: Its first 12 characters.
    """
    return id.removeprefix("sha256:")[:12]
