"""
What links a machine with its host: published ports, volumes, the user, variables, networks.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re

from redock import _recipe
from redock._names import shown
from redock.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "MYSELF",
    "Port",
    "User",
    "Volume",
    "check_environment",
    "check_network",
    "is_own_place",
    "read_environment",
]

PORT = re.compile(
    r"(?:(\[[0-9A-Fa-f:.]+\]|[0-9]+(?:\.[0-9]+)+):)?([0-9]{1,5})(?::([0-9]{1,5}))?(?:/(tcp|udp))?",
    re.ASCII,
)
#: The engine's grammar of the names of volumes and networks.
ENGINE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,254}", re.ASCII)
#: What useradd(8) of every Debian and Ubuntu accepts.
LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
#: A longer value does not fit into the arguments and environment of a program (execve(2)).
LONGEST_VALUE = 128 * 1024 - 1024
LARGEST_ID = 2**31 - 2
#: Asks for the user who runs redock.
MYSELF = "true"
#: Where nothing can be mounted: what every system needs, or redock itself.
RESERVED = ("/", "/etc", "/usr", "/bin", "/lib", "/sbin", "/dev", "/proc", "/sys", "/run")
#: Where nothing can be mounted, nor below.
UNTOUCHABLE = (os.path.dirname(_recipe.IDENTITY_DIRECTORY), os.path.dirname(_recipe.BOOT))
#: Networks that every machine is in, or that leave no way for SSH.
BUILT_IN_NETWORKS = ("bridge", "default", "host", "none")


def is_own_place(path: str) -> bool:
    """
    Check whether something may be mounted there.

    :param path: A pathname inside a machine.
    :returns: True for the plain pathname of a directory that nothing else needs.
    """
    below = any(f"{path}/".startswith(f"{each}/") for each in (*UNTOUCHABLE, "/proc", "/sys"))
    return (
        path.startswith("/")
        and not path.startswith("//")
        and os.path.normpath(path) == path
        and path not in RESERVED
        and not below
        and path.isprintable()
        and ":" not in path
    )


@dataclasses.dataclass(frozen=True)
class Port:
    """
    A port of a machine that is published on the host.

    :param number: The port on the host.
    :param inside: The port inside.
    :param protocol: ``tcp`` or ``udp``.
    :param address: The address on the host.
    """

    number: int
    inside: int
    protocol: str = "tcp"
    address: str = "127.0.0.1"

    @classmethod
    def of(cls, value: Port | str) -> Port:
        """
        Read a port.

        :param value: ``[ADDRESS:]PORT[:INSIDE][/udp]``; IPv6 addresses in brackets.
        :returns: The port.
        :raises InvalidArgument: It makes no sense, or is the port of the SSH server.
        """
        if isinstance(value, Port):
            return value
        match = PORT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise InvalidArgument(
                f"{shown(value)} is no port: write [ADDRESS:]PORT[:INSIDE][/udp], for instance"
                " 8080:80; an address is a number"
            )
        try:
            address = str(ipaddress.ip_address((match[1] or "127.0.0.1").strip("[]")))
        except ValueError as error:
            raise InvalidArgument(f"{shown(value)}: {error}") from error
        number, inside = int(match[2]), int(match[3] or match[2])
        if not (0 < number < 65536 and 0 < inside < 65536):
            raise InvalidArgument(f"{shown(value)}: ports are numbers from 1 to 65535")
        protocol = match[4] or "tcp"
        if (inside, protocol) == (22, "tcp"):
            raise InvalidArgument(
                f"{shown(value)}: port 22 of a machine is redock's way in, and stays on 127.0.0.1"
            )
        return cls(number, inside, protocol, address)

    @property
    def outside(self) -> tuple[str, int, str]:
        """What cannot be published twice."""
        return self.address, self.number, self.protocol

    @property
    def is_local(self) -> bool:
        """Whether only this host can reach it."""
        return ipaddress.ip_address(self.address).is_loopback

    def is_free(self) -> bool:
        """
        Check whether nobody on this host listens there.

        :returns: False when somebody does.
        """
        import errno
        import socket

        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        kind = socket.SOCK_STREAM if self.protocol == "tcp" else socket.SOCK_DGRAM
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.address, self.number))
            except OSError as error:
                # Other failures are for the engine to judge: it may be allowed what we are not.
                return error.errno != errno.EADDRINUSE
        return True

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.number}:{self.inside}/{self.protocol}"


@dataclasses.dataclass(frozen=True)
class Volume:
    """
    Something that is mounted in a machine.

    :param source: The pathname of a directory of the host, or the name of a volume.
    :param target: The pathname inside.
    :param read_only: Whether the machine can only read it.
    """

    source: str
    target: str
    read_only: bool = False

    @classmethod
    def of(cls, value: Volume | str, here: bool = True) -> Volume:
        """
        Read a volume; relative pathnames start from the working directory.

        :param value: ``SOURCE:TARGET[:ro]``.
        :param here: Look for the directory on this host (default: yes).
        :returns: The volume.
        :raises InvalidArgument: It makes no sense, or there is no such directory.
        """
        if isinstance(value, Volume):
            return value
        parts = value.split(":") if isinstance(value, str) else []
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
            raise InvalidArgument(
                f"{shown(value)} is no volume: write SOURCE:TARGET or .../TARGET:ro"
            )
        source, target = parts[0], parts[1].rstrip("/") or "/"
        if not is_own_place(target):
            raise InvalidArgument(
                f"{shown(value)}: {shown(target)} is not the pathname of a directory of its own"
                " inside the machine"
            )
        if is_path(source):
            source = find_directory(source) if here else source
        elif not ENGINE_NAME.fullmatch(source) or (here and source.startswith("redock-")):
            raise InvalidArgument(
                f"{shown(value)}: {shown(source)} cannot be the name of a volume;"
                " a directory is written ./NAME"
            )
        return cls(source, target, parts[2:] == ["ro"])

    @property
    def is_bind(self) -> bool:
        """Whether it is a directory of the host."""
        return self.source.startswith("/")

    def __str__(self) -> str:
        return f"{self.source}:{self.target}" + (":ro" if self.read_only else "")


def is_path(source: str) -> bool:
    """
    Tell a directory of the host from the name of a volume.

    :param source: What somebody wrote.
    :returns: True for a directory.
    """
    return "/" in source or source.startswith((".", "~"))


def find_directory(source: str) -> str:
    """
    Find a directory of the host.

    :param source: Its pathname; ``~`` is the home directory.
    :returns: Its real pathname, without symbolic links.
    :raises InvalidArgument: There is none.
    """
    path = os.path.realpath(os.path.expanduser(source))
    if not os.path.isdir(path):
        raise InvalidArgument(f"there is no directory {shown(path)} to mount")
    if ":" in path or not path.isprintable():
        raise InvalidArgument(f"the directory {shown(path)} cannot be mounted because of its name")
    return path


@dataclasses.dataclass(frozen=True)
class User:
    """
    A user of a machine that stands for one of the host's.

    :param name: The login name.
    :param uid: The number.
    :param gid: The number of the group.
    :param home: The home directory.
    :param shell: The login shell.
    """

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    @classmethod
    def of(cls, value: User | str) -> User:
        """
        Find a user.

        :param value: ``true`` for the user who runs this, ``NAME`` for one of the host's (another
                      name: the numbers of the one who runs this), ``NAME:UID[:GID]``, ``root``.
        :returns: The user.
        :raises InvalidArgument: It cannot be a user of a machine.
        """
        if isinstance(value, User):
            return value
        if not isinstance(value, str):
            raise InvalidArgument(f"{shown(value)} is no user")
        name, *numbers = value.split(":", 4)
        if value == MYSELF:
            found = find_account(os.getuid())
            if found.uid == 0:
                raise InvalidArgument("you are root: say whose user it is to be, --user=NAME")
            return found
        if name == "root" and not numbers:
            return cls("root", 0, 0, "/root", "/bin/bash")
        if not LOGIN.fullmatch(name) or name == "root":
            raise InvalidArgument(
                f"{shown(name)} cannot be a user in a machine: lower case letters, digits, '_' and"
                " '-', at most 32; name another one with --user=NAME"
            )
        if not numbers:
            return find_account(name)
        if not all(each.isascii() and each.isdigit() for each in numbers[:2]):
            raise InvalidArgument(f"{shown(value)} is no user: write NAME or NAME:UID[:GID]")
        uid, gid = int(numbers[0]), int(numbers[1] if len(numbers) > 1 else numbers[0])
        if not 0 < uid <= LARGEST_ID or not 0 <= gid <= LARGEST_ID:
            raise InvalidArgument(f"{shown(value)}: the number of a user is above 0")
        home, shell = [*numbers[2:], "", ""][:2]
        return cls(name, uid, gid, *check_account(name, home, shell))

    def __str__(self) -> str:
        if self.name == "root":
            return self.name
        return f"{self.name}:{self.uid}:{self.gid}:{self.home}:{self.shell}"


def find_account(wanted: str | int) -> User:
    """
    Find a user of the host.

    :param wanted: The name or the number; an unknown name gets the numbers of whoever runs this.
    :returns: The user.
    :raises InvalidArgument: There is none who could be one of a machine.
    """
    import pwd

    try:
        entry = pwd.getpwnam(wanted) if isinstance(wanted, str) else pwd.getpwuid(wanted)
    except KeyError as error:
        if isinstance(wanted, int):
            raise InvalidArgument(
                f"you have no name on this host, only the number {wanted}: --user=NAME gives one"
            ) from error
        if not os.getuid():
            raise InvalidArgument(
                f"there is no user {wanted} on this host: give a number as well, {wanted}:UID"
            ) from error
        return User(wanted, os.getuid(), os.getgid(), *check_account(wanted, "", ""))
    if entry.pw_uid == 0:
        return User("root", 0, 0, "/root", "/bin/bash")
    if not LOGIN.fullmatch(entry.pw_name):
        raise InvalidArgument(
            f"your name {shown(entry.pw_name)} cannot be that of a user in a machine:"
            " give another one with --user=NAME"
        )
    places = check_account(entry.pw_name, entry.pw_dir, entry.pw_shell)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, *places)


def check_account(name: str, home: str, shell: str) -> tuple[str, str]:
    """
    Choose the home directory and the shell of a user.

    :param name: The login name.
    :param home: The home directory on the host, if that is known.
    :param shell: The shell on the host, if that is known.
    :returns: Both, replaced where they could not be the same inside.
    """
    if not is_own_place(home) or home in ("/root", "/nonexistent", "/var", "/home"):
        home = f"/home/{name}"
    usable = shell.startswith("/") and shell.isprintable() and ":" not in shell
    no_login = os.path.basename(shell) in ("nologin", "false", "sync")
    return home, shell if usable and not no_login else "/bin/bash"


def check_environment(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """
    Check environment variables.

    :param variables: The values by name, None for one that is not known.
    :returns: The same.
    :raises InvalidArgument: A name or a value cannot be handed on.
    """
    for name, value in variables.items():
        if not isinstance(name, str) or not VARIABLE.fullmatch(name):
            raise InvalidArgument(f"{shown(name)} cannot be the name of an environment variable")
        if value is None:
            continue
        if not isinstance(value, str):
            raise InvalidArgument(f"the variable {name} must be text")
        if any(character in value for character in "\0\n\r") or not is_utf8(value):
            raise InvalidArgument(f"the variable {name} must be one line of text")
        if len(value.encode()) > LONGEST_VALUE:
            raise InvalidArgument(f"the variable {name} is too long for an environment")
    return dict(variables)


def is_utf8(text: str) -> bool:
    """
    Check whether text can be encoded.

    :param text: The text.
    :returns: False when it has surrogates, as undecodable bytes of the host's environment do.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_environment(given: Iterable[str]) -> dict[str, str]:
    """
    Read environment variables as they are on a command line.

    :param given: ``KEY=VALUE``, or ``KEY`` for the value it has here.
    :returns: The values by name.
    :raises InvalidArgument: A variable is not set here.
    """
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            if name not in os.environ:
                raise InvalidArgument(
                    f"the environment variable {shown(name)} is not set here: write {name}=VALUE"
                )
            value = os.environ[name]
        found[name] = value
    check_environment(found)
    return found


def check_network(name: str) -> str:
    """
    Check the name of a network.

    :param name: The name.
    :returns: The same name.
    :raises InvalidArgument: It can be none that a machine is attached to.
    """
    if not isinstance(name, str) or not ENGINE_NAME.fullmatch(name):
        raise InvalidArgument(f"{shown(name)} cannot be the name of a network")
    if name in BUILT_IN_NETWORKS:
        raise InvalidArgument(
            f"machines are not attached to the network {name}: make one of your own with"
            " 'docker network create NAME'"
        )
    return name
