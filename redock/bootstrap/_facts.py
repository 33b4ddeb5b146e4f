"""What was found on a host."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Facts", "Stat"]


class Facts(NamedTuple):
    """What kind of host it is."""

    #: The identifier of the distribution, for example ``debian``.
    os_id: str
    #: Its version, for example ``12``; empty where it has none.
    os_version: str
    #: The code name of the version, for example ``bookworm``.
    codename: str
    #: The machine architecture, for example ``x86_64``.
    arch: str
    #: The version of the interpreter that runs there, for example ``3.11.2``.
    python: str
    #: The name of the host.
    hostname: str
    #: How many processors may be used.
    cpus: int
    #: How many bytes of memory may be used.
    memory: int
    #: Whether it is a container.
    is_container: bool
    #: Who looks after services: ``supervisor``, ``systemd``, ``sysv`` or ``none``.
    init: str
    #: The name of the user the operations run as.
    user: str


class Stat(NamedTuple):
    """What is at a path of a host."""

    #: ``file``, ``directory``, ``symlink``, ``fifo``, ``socket`` or ``device``.
    kind: str
    #: The permissions, as a number.
    mode: int
    #: The name of the owner, or the number where there is no name.
    owner: str
    #: The name of the group, or the number where there is no name.
    group: str
    #: How many bytes it has.
    size: int
    #: When the content was last modified, in seconds since 1970.
    mtime: float
    #: Where a symbolic link points to.
    target: str | None
