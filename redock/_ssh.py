"""
The way in: host entries, pinned host keys, the user's ssh configuration, shared connections.

Everything redock tells ``ssh`` is in files of its own; the user's
configuration gets one ``Include`` line. The formats are those of
ssh_config(5) and sshd(8).
"""

from __future__ import annotations

import os

from redock._files import (
    Lock,
    atomic_write,
    collect_strays,
    ensure_directory,
    path_in_home,
    read_bytes,
    remove_file,
    user_home,
)
from redock._log import LateLogger
from redock._process import missing_program
from redock.errors import (
    SSHConfigConflict,
    StateError,
    last_lines,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

__all__ = [
    "HostEntry",
    "HostKey",
    "config_file",
    "fragment_file",
    "install",
    "install_all",
    "pinned_key",
    "remove",
    "remove_all",
    "ssh_quote",
]

logger = LateLogger(__name__)

#: What ssh adds to the path of a control socket, and what fits into a socket address (unix(7)).
LONGEST_CONTROL_PATH = 107 - 17
#: Seconds a shared connection stays open after its last use.
CONTROL_PERSIST = "10m"


class HostEntry:
    """
    What ``ssh`` is told about a machine.

    :param name: The name of its image, ``REPOSITORY:TAG``.
    :param alias: The name to give to ``ssh``.
    :param instance: The id of this very container.
    :param port: The port on the host.
    :param address: The address on the host (default: the loopback interface).
    :param proxy: The command that leads to that host (default: none, it is this one).
    :param user: Whom to log in as (default: root).
    :param agent: Whether the user's agent is forwarded (default: no).
    """

    __slots__ = ("address", "agent", "alias", "instance", "name", "port", "proxy", "user")

    def __init__(
        self,
        name: str,
        alias: str,
        instance: str,
        port: int,
        address: str = "127.0.0.1",
        proxy: str | None = None,
        *,
        user: str = "root",
        agent: bool = False,
    ) -> None:
        self.name = name
        self.alias = alias
        self.instance = instance
        self.port = port
        self.address = address
        self.proxy = proxy
        self.user = user
        self.agent = agent

    @property
    def host_key_alias(self) -> str:
        """The name the pinned host key is filed under, instead of an address."""
        return f"redock-{self.instance}"

    def text(self) -> str:
        """
        Render the entry.

        :returns: A ``Host`` block of ssh_config(5).
        """
        lines = [
            f'# Managed by redock: machine "{self.name}", instance {self.instance}.'
            " Changes will be lost.",
            f"Host {self.alias}",
            f"  HostName {self.address}",
            f"  Port {self.port}",
            f"  User {self.user}",
            f"  IdentityFile {ssh_quote(path_in_home('ssh', 'id_ed25519'))}",
            "  IdentitiesOnly yes",
            "  PreferredAuthentications publickey",
            f"  HostKeyAlias {self.host_key_alias}",
            "  HostKeyAlgorithms ssh-ed25519",
            f"  UserKnownHostsFile {ssh_quote(known_hosts_file(self.instance))}",
            "  GlobalKnownHostsFile /dev/null",
            "  StrictHostKeyChecking yes",
            "  CheckHostIP no",
            "  UpdateHostKeys no",
            f"  ProxyCommand {self.proxy or 'none'}",
            f"  ForwardAgent {'yes' if self.agent else 'no'}",
            "  ForwardX11 no",
            f"  ConnectTimeout {30 if self.proxy else 10}",
            "  KexAlgorithms -sntrup761*",
        ]
        lines.append("  LogLevel ERROR")
        # A shared connection keeps to the agent of whoever opened it, who may have logged out.
        control = None if self.agent else control_path(self.instance)
        if control:
            # Another user over the same connection would be this one.
            lines += [
                f"Match originalhost {self.alias} user {self.user}",
                "  ControlMaster auto",
                f"  ControlPath {ssh_quote(control)}",
                f"  ControlPersist {CONTROL_PERSIST}",
            ]
        # The user's own shared connections are filed under addresses and ports, which change hands.
        lines += [f"Match originalhost {self.alias}", "  ControlPath none"]
        return "\n".join([*lines, ""])


class HostKey:
    """
    A new host key, made by a process of its own while other work goes on.

    :raises RedockError: ``ssh-keygen`` is not installed.
    """

    def __init__(self) -> None:
        import subprocess

        self.directory = path_in_home("ssh", f".new-{os.getpid()}-{os.urandom(8).hex()}")
        ensure_directory(self.directory)
        self.path = os.path.join(self.directory, "key")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "redock", "-f", self.path]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            os.rmdir(self.directory)
            raise missing_program("ssh-keygen") from error

    def collect(self) -> tuple[bytes, bytes]:
        """
        Take the key; nothing of it stays on disk.

        :returns: The private and the public key.
        :raises StateError: It could not be made.
        """
        import subprocess

        try:
            _, stderr = self.process.communicate(timeout=30)
            private, public = read_bytes(self.path), read_bytes(self.path + ".pub")
        except subprocess.TimeoutExpired as error:
            raise StateError("ssh-keygen did not end within 30 seconds") from error
        finally:
            self.discard()
        if self.process.returncode or not private or not public:
            reason = last_lines(stderr.decode("utf-8", "replace"), 1) or "nothing was written"
            raise StateError(f"ssh-keygen could not make a host key: {reason}")
        return private, public

    def discard(self) -> None:
        """Stop making the key and remove what there is of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()
        for path in (self.path, self.path + ".pub"):
            remove_file(path)
        if os.path.isdir(self.directory):
            os.rmdir(self.directory)


def ssh_quote(path: str) -> str:
    """
    Quote a pathname for a value of ssh_config(5).

    :param path: A pathname.
    :returns: The pathname in double quotes, ``%`` doubled.
    :raises SSHConfigConflict: ssh cannot read such a path, however it is quoted.
    """
    for unreadable in ('"', "\\", "\n", "\r", "${"):
        if unreadable in path:
            raise SSHConfigConflict(
                f"ssh cannot read a path that contains {unreadable!r}: {path!r}"
            )
    return '"' + path.replace("%", "%%") + '"'


def config_file() -> str:
    """
    Get the pathname of redock's own ssh configuration.

    :returns: A file for ``ssh -F`` and for ``Include``.
    """
    return path_in_home("ssh", "config")


def fragment_file(name: str) -> str:
    """
    Get the pathname of the host entry of a machine.

    :param name: The name of its image, ``REPOSITORY:TAG``.
    :returns: A pathname; different for every name.
    """
    encoded = name.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")
    if len(encoded) > 200:
        import hashlib

        encoded = encoded[:150] + "-" + hashlib.sha256(name.encode()).hexdigest()[:32]
    return path_in_home("ssh", "config.d", encoded)


def known_hosts_file(instance: str) -> str:
    """
    Get the pathname of the pinned host key of a container.

    :param instance: The id of the container.
    :returns: A pathname.
    """
    return path_in_home("ssh", "known_hosts.d", instance)


def control_path(instance: str) -> str | None:
    """
    Find a place for the socket of the shared connection.

    The path must be short (unix(7)), and ssh needs hard links next to it.

    :param instance: The id of the container.
    :returns: A pathname whose directory exists; None where there is no place for it.
    """
    directories = [path_in_home("ssh", "s")]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        directories.append(os.path.join(runtime, "redock"))
    for directory in directories:
        path = os.path.join(directory, instance)
        if len(os.fsencode(path)) <= LONGEST_CONTROL_PATH and can_link(directory):
            return path
    return None


def can_link(directory: str) -> bool:
    """
    Check by doing it whether a directory supports hard links.

    :param directory: A pathname; the directory is created.
    :returns: True when it does.
    """
    probe = os.path.join(directory, f".probe-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        ensure_directory(directory)
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            os.link(probe, probe + "-")
            os.unlink(probe + "-")
        finally:
            os.unlink(probe)
    except (OSError, StateError):
        return False
    return True


def config_lock() -> Lock:
    """
    Get the lock that guards everything in this module that is written.

    :returns: A lock to be used in a ``with`` statement.
    """
    return Lock(path_in_home("locks", ".ssh.lock"), "the SSH configuration")


# Installing and removing entries.


def install(entry: HostEntry, public_key: bytes) -> None:
    """
    Make a machine known to ``ssh``: pin its host key and write its host entry.

    :param entry: The machine.
    :param public_key: Its public host key, as ``ssh-keygen`` writes it.
    :raises StateError: The files cannot be written.
    :raises SSHConfigConflict: ssh cannot read what would be written.
    """
    install_all({entry: public_key})


def install_all(keys: Mapping[HostEntry, bytes]) -> None:
    """
    Make several machines known to ``ssh`` at once.

    :param keys: The public host key of each machine, as ``ssh-keygen`` writes it.
    :raises StateError: The files cannot be written.
    :raises SSHConfigConflict: ssh cannot read what would be written.
    """
    texts = {entry: entry.text() for entry in keys}
    with config_lock():
        for name in ("known_hosts.d", "config.d"):
            ensure_directory(path_in_home("ssh", name))
        for entry, public_key in keys.items():
            algorithm, key, *_ = public_key.decode("ascii").split()
            pinned = f"{entry.host_key_alias} {algorithm} {key}\n".encode()
            before = instance_of(entry.name)
            write_if_changed(known_hosts_file(entry.instance), pinned)
            write_if_changed(fragment_file(entry.name), texts[entry].encode())
            if before and before != entry.instance:
                # Of a container that somebody removed without us.
                remove_file(known_hosts_file(before))
        assemble()


def collect_orphans() -> None:
    """Remove what processes that were killed left: host keys on their way, probes for links."""
    for directory in (path_in_home("ssh"), path_in_home("ssh", "s")):
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            kind, _, rest = name.partition("-")
            process = rest.partition("-")[0]
            if kind not in (".new", ".probe") or os.path.exists(f"/proc/{process}"):
                continue
            path = os.path.join(directory, name)
            try:
                if kind == ".new":
                    for each in os.listdir(path):
                        remove_file(os.path.join(path, each))
                    os.rmdir(path)
                else:
                    remove_file(path)
            except OSError as error:
                # Another process was faster, or its ssh-keygen is still there.
                logger.debug("Leaving %s: %s", path, error)


def write_if_changed(path: str, contents: bytes) -> None:
    """
    Write a file unless it has these contents already.

    :param path: A pathname.
    :param contents: What it is to contain.
    """
    if read_bytes(path) != contents:
        atomic_write(path, contents)


def assemble() -> None:
    """Write redock's own ssh configuration from the entries; the caller holds the lock."""
    collect_strays(path_in_home("ssh"), "config")
    for name in ("config.d", "known_hosts.d"):
        collect_strays(path_in_home("ssh", name))
    collect_orphans()
    from redock import _dotdee

    _dotdee.assemble(config_file(), path_in_home("ssh", "config.d"), force=True)


def remove(name: str, instance: str | None) -> bool:
    """
    Make ``ssh`` forget a machine.

    :param name: The name of its image.
    :param instance: The id of the container, None when that is not known.
    :returns: False when there was nothing to forget.
    """
    known = os.path.exists(fragment_file(name))
    remove_all({name: instance})
    return known


def remove_all(instances: Mapping[str, str | None]) -> None:
    """
    Make ``ssh`` forget several machines at once.

    :param instances: The id of the container, None where that is not known, by the name of its
                      image.
    """
    with config_lock():
        for name in instances:
            remove_file(fragment_file(name))
        # Also where there was no entry: somebody may have been interrupted after removing it.
        if os.path.isdir(path_in_home("ssh", "config.d")):
            assemble()
        for instance in filter(None, instances.values()):
            remove_file(known_hosts_file(instance))


def forget_key(instance: str) -> None:
    """
    Remove the pinned host key of a container.

    :param instance: The id of the container.
    """
    remove_file(known_hosts_file(instance))


def instance_of(name: str) -> str | None:
    """
    Find out which container the host entry of a machine leads to.

    :param name: The name of its image.
    :returns: The id of the container, None when there is no entry.
    """
    for line in (read_bytes(fragment_file(name)) or b"").decode("utf-8", "replace").splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "HostKeyAlias":
            return value.removeprefix("redock-")
    return None


def pinned_key(instance: str) -> bytes | None:
    """
    Get the pinned public host key of a container.

    :param instance: The id of the container.
    :returns: Algorithm and key, None when nothing is pinned.
    """
    line = read_bytes(known_hosts_file(instance))
    return line.partition(b" ")[2].strip() if line else None


def effective_options(alias: str, config: str | None = None) -> dict[str, str]:
    """
    Ask ``ssh`` what it would do for a host.

    :param alias: The host.
    :param config: The configuration file (default: the user's).
    :returns: The options, names in lower case; empty when ssh cannot tell.
    """
    process = begin_options(alias, config)
    return finish_options(process) if process else {}


def begin_options(alias: str, config: str | None = None) -> subprocess.Popen[bytes] | None:
    """
    Ask ``ssh`` what it would do for a host, without waiting for the answer.

    :param alias: The host.
    :param config: The configuration file (default: the user's).
    :returns: The process that asks; None when there is no ``ssh``.
    """
    import subprocess

    command = ["ssh", "-G", *(["-F", config] if config else []), alias]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None


def finish_options(process: subprocess.Popen[bytes], timeout: float = 5.0) -> dict[str, str]:
    """
    Wait for what ``ssh`` would do for a host.

    :param process: What :func:`begin_options` returned.
    :param timeout: Seconds; the user's configuration may run commands (``Match exec``).
    :returns: The options, names in lower case; empty when ssh cannot tell.
    """
    import subprocess

    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {}
    options: dict[str, str] = {}
    for line in output.decode("utf-8", "replace").splitlines() if not process.returncode else ():
        name, _, value = line.partition(" ")
        options.setdefault(name, value)
    return options


def home_config_file() -> str:
    """
    Get the pathname of the user's ssh configuration.

    :returns: A pathname; ssh takes it from the password database, not from ``$HOME``.
    """
    return os.path.join(user_home(), ".ssh", "config")
