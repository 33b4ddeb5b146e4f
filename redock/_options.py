"""
What a machine is started with besides its disk: ports, volumes, a user, limits.

Values only: how they look on a command line, in a file, in a label and to the
engine. What is done with them is in ``redock._fitting``.
"""

from __future__ import annotations

import dataclasses
import json
import math

from redock._links import Port, User, Volume, check_environment, check_network
from redock._names import shown
from redock._sizes import parse_cpus, parse_size
from redock.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

__all__ = ["LIVE", "REACHING", "RESTART", "Options", "describe"]

#: When the engine starts a machine by itself; what each means is the engine's business.
RESTART = ("no", "always", "unless-stopped", "on-failure")
#: The least an engine accepts as a limit of memory.
LEAST_MEMORY = 6 * 1024 * 1024
#: What can be changed without making a new container.
LIVE = ("memory", "cpus", "networks", "agent", "restart")
#: What reaches out of the machine: taken over from a saved disk only by whoever saved it.
REACHING = ("ports", "volumes", "networks", "agent", "restart")


@dataclasses.dataclass(frozen=True)
class Options:
    """
    What a machine is started with besides its disk.

    None means "not asked for": what is remembered of the machine, else the setting,
    else the built-in value (nothing, no limit) holds. A value, also an empty one,
    takes the place of what is remembered. They are checked when the object is made.

    >>> Options(ports=["8080:80"], memory="512m").memory
    536870912

    :param ports: Ports to publish, ``[ADDRESS:]PORT[:INSIDE][/udp]``; the address is
                  127.0.0.1 unless one is given, the port inside the same as outside.
    :param volumes: What to mount, ``SOURCE:TARGET[:ro]``: a directory of the host (with a ``/``
                    in it, or ``.`` or ``~`` in front) or the name of a volume of the engine.
    :param user: Whom ``ssh`` logs in as: ``true`` for the user who runs this,
                 ``NAME`` or ``NAME:UID[:GID]``; ``root`` for nobody else.
    :param env: Environment variables that SSH sessions and Supervisor's programs see; None as
                the value of one that is not known here.
    :param memory: The most memory, in bytes or as ``"512m"``; 0 for no limit.
    :param cpus: The most processors, for instance 1.5; 0 for no limit.
    :param networks: Networks of the engine to attach to, besides the default one.
    :param agent: Whether ``ssh`` forwards the user's agent.
    :param restart: ``no``, ``always``, ``unless-stopped`` or ``on-failure``.
    :raises InvalidArgument: A value makes no sense.
    """

    ports: Sequence[Port | str] | None = None
    volumes: Sequence[Volume | str] | None = None
    user: User | str | None = None
    env: Mapping[str, str | None] | None = None
    memory: int | str | None = None
    cpus: float | str | None = None
    networks: Sequence[str] | None = None
    agent: bool | None = None
    restart: str | None = None

    def __post_init__(self) -> None:
        for name in ("ports", "volumes", "networks"):
            if isinstance(getattr(self, name), str):
                raise InvalidArgument(f"{name}: give a list, not text")
        if self.ports is not None:
            self._set("ports", distinct_ports(map(Port.of, self.ports)))
        if self.volumes is not None:
            self._set("volumes", distinct_volumes(map(Volume.of, self.volumes)))
        if self.user is not None:
            self._set("user", User.of(self.user))
        if self.env is not None:
            self._set("env", check_environment(self.env))
        if self.memory is not None:
            self._set("memory", check_memory(self.memory))
        if self.cpus is not None:
            self._set("cpus", parse_cpus(self.cpus, lowest=0))
        if self.networks is not None:
            self._set("networks", tuple(dict.fromkeys(map(check_network, self.networks))))
        if self.agent is not None and not isinstance(self.agent, bool):
            raise InvalidArgument(f"agent is yes or no, not {shown(self.agent)}")
        if self.restart is not None and self.restart not in RESTART:
            raise InvalidArgument(
                f"{shown(self.restart)} is no restart policy: choose from {', '.join(RESTART)}"
            )

    def _set(self, name: str, value: object) -> None:
        """
        Give a field its checked value.

        :param name: The field.
        :param value: The value.
        """
        object.__setattr__(self, name, value)

    def __bool__(self) -> bool:
        return any(getattr(self, name) is not None for name in FIELDS)

    def over(self, other: Options) -> Options:
        """
        Put these options above others.

        :param other: What holds where these say nothing.
        :returns: Both together.
        """
        return dataclasses.replace(other, **self.given())

    def given(self) -> dict[str, Any]:
        """
        Get what is asked for.

        :returns: The values that are not None, by field.
        """
        found = ((name, getattr(self, name)) for name in FIELDS)
        return {name: value for name, value in found if value is not None}

    def only(self, *names: str) -> Options:
        """
        Keep some fields.

        :param names: The fields.
        :returns: Options that say nothing about the others.
        """
        return Options(**{name: value for name, value in self.given().items() if name in names})

    def differences(self, other: Options) -> list[str]:
        """
        Find out what these options ask for that others do not have.

        Nothing, no limit and not asked for are the same machine.

        :param other: What a machine has.
        :returns: The names of the fields.
        """
        return [
            name
            for name, value in self.given().items()
            if normal(name, value) != normal(name, getattr(other, name))
        ]

    def as_dict(self) -> dict[str, Any]:
        """
        Get the options as plain values, for JSON; of the environment only the names.

        :returns: Text, numbers and lists by field, without fields that say nothing.
        """
        plain: dict[str, Any] = self.given()
        for name in ("ports", "volumes"):
            if name in plain:
                plain[name] = [str(each) for each in plain[name]]
        if "user" in plain:
            plain["user"] = str(plain["user"])
        if "env" in plain:
            plain["env"] = sorted(plain["env"])
        if "networks" in plain:
            plain["networks"] = list(plain["networks"])
        return plain

    def text(self) -> str:
        """
        Write the options into a label; of the environment only the names.

        :returns: JSON, empty when they say nothing.
        """
        plain = {name: value for name, value in self.as_dict().items() if value}
        return json.dumps(plain, sort_keys=True, separators=(",", ":")) if plain else ""

    @classmethod
    def parse(cls, text: str) -> Options:
        """
        Read options from a label.

        The values of the environment are not in it, so they are None; a directory of the host may
        have gone meanwhile.

        :param text: What :meth:`text` wrote, or anything that somebody else put there.
        :returns: The options; none where the text makes no sense.
        """
        try:
            plain = json.loads(text) if text else {}
            plain["env"] = dict.fromkeys(plain.get("env", ())) or None
            plain["volumes"] = [Volume.of(each, here=False) for each in plain.get("volumes", ())]
            return cls(**{name: value for name, value in plain.items() if value})
        except (ValueError, TypeError, AttributeError):
            return cls()

    @property
    def published(self) -> tuple[Port, ...]:
        """The ports, as what they are."""
        return tuple(map(Port.of, self.ports or ()))

    @property
    def mounts(self) -> tuple[Volume, ...]:
        """The volumes, as what they are."""
        return tuple(map(Volume.of, self.volumes or ()))

    @property
    def values(self) -> dict[str, str]:
        """The environment variables whose values are known."""
        return {name: value for name, value in (self.env or {}).items() if value is not None}

    @property
    def account(self) -> User | None:
        """The user that has to be made, None for root."""
        return self.user if isinstance(self.user, User) and self.user.name != "root" else None

    @property
    def login(self) -> str:
        """Whom ``ssh`` logs in as."""
        return self.account.name if self.account else "root"


FIELDS = tuple(field.name for field in dataclasses.fields(Options))


def normal(name: str, value: object) -> object:
    """
    Write what amounts to the same in the same way.

    :param name: A field.
    :param value: Its value.
    :returns: The value; None for nothing, no limit and what is so anyway.
    """
    built_in = (name == "restart" and value == "no") or (
        isinstance(value, User) and value.name == "root"
    )
    return None if built_in else value or None


def distinct_ports(ports: Iterable[Port]) -> tuple[Port, ...]:
    """
    Make sure no port of the host is published twice.

    :param ports: The ports.
    :returns: The same ports.
    :raises InvalidArgument: One is.
    """
    found: dict[tuple[str, int, str], Port] = {}
    for port in ports:
        if found.setdefault(port.outside, port) != port:
            raise InvalidArgument(f"port {port.number} of {port.address} cannot lead to two places")
    return tuple(found.values())


def distinct_volumes(volumes: Iterable[Volume]) -> tuple[Volume, ...]:
    """
    Make sure there is one volume a place.

    :param volumes: The volumes.
    :returns: The same volumes.
    :raises InvalidArgument: Two are to be in the same place.
    """
    found: dict[str, Volume] = {}
    for volume in volumes:
        if found.setdefault(volume.target, volume) != volume:
            raise InvalidArgument(f"two volumes cannot both be mounted at {volume.target}")
    return tuple(found.values())


def check_memory(value: str | int) -> int:
    """
    Read a limit of memory.

    :param value: Bytes, or for instance ``"512m"``; 0 for no limit.
    :returns: The number of bytes.
    :raises InvalidArgument: It is no size, or less than any engine accepts.
    """
    if value in (0, "0") and not isinstance(value, bool):
        return 0
    size = parse_size(value)
    if not LEAST_MEMORY <= size < 1 << 60:
        raise InvalidArgument(f"{shown(value)} is no limit for a machine: give 6m or more")
    return size


def describe(plain: Mapping[str, Any]) -> dict[str, str]:
    """
    Say for people what :meth:`Options.as_dict` says for programs.

    :param plain: Plain values by field.
    :returns: Text by field.
    """
    from humanfriendly import format_size

    text: dict[str, str] = {}
    for name, value in plain.items():
        if name == "memory" and value:
            text[name] = format_size(value, binary=True)
        elif isinstance(value, list):
            text[name] = ", ".join(map(str, value))
        elif isinstance(value, bool):
            text[name] = "yes" if value else "no"
        elif isinstance(value, float) and math.isfinite(value):
            text[name] = f"{value:g}"
        else:
            text[name] = str(value)
    return text
