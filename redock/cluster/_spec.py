"""
What a cluster is to be: its nodes, read from arguments or from a file.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import os
import re

from redock._names import shown
from redock.errors import InvalidArgument, InvalidName, SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from redock.bootstrap import Bootstrap

    Provision = Callable[[Bootstrap], object] | str

__all__ = ["ClusterSpec", "NodeSpec", "check_name", "nearest", "parse_size", "read_spec"]

#: A part of a host name and of an alias; short enough that "CLUSTER-NODE" is a host name, too.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,28}[a-z0-9])?", re.ASCII)
SIZE = re.compile(r"(\d+)\s*([kmg]?)i?b?", re.ASCII | re.IGNORECASE)
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


@dataclasses.dataclass(frozen=True)
class NodeSpec:
    """
    What one node is to be.

    :param name: Its name: the host name inside, and what the other nodes call it.
    :param base: The Debian or Ubuntu image its base image is made from (default: the setting,
                 as for :class:`redock.api.Container`).
    :param image: The saved disk of a machine to start from, ``REPOSITORY:TAG``, in place of a
                  base image.
    :param packages: Packages of the distribution to install.
    :param provision: A function that is called with a :class:`~redock.bootstrap.Bootstrap`, or
                      the pathname of a script with a function ``provision(host)``. It is run once;
                      the disk is kept as an image for as long as its inputs stay the same.
    :param roles: What it is for; :meth:`NodeSet.role` finds nodes by them.
    :param memory: The most memory it may use, in bytes or as ``"256m"`` (default: no limit).
    :param cpus: The most processors it may use, for instance 0.5 (default: no limit).
    :param disks: Sizes of disks of its own by mount point, ``{"/var/lib/redis": "64m"}``; they
                  are in memory and can be made full.
    :raises InvalidName: The name is not a host name of at most 30 lower case characters.
    :raises InvalidArgument: Another value makes no sense.
    """

    name: str
    base: str | None = None
    image: str | None = None
    packages: Sequence[str] = ()
    provision: Provision | None = None
    roles: Iterable[str] = ()
    memory: str | int | None = None
    cpus: float | None = None
    disks: Mapping[str, str | int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "a node")
        for what in ("packages", "roles"):
            value = getattr(self, what)
            if isinstance(value, str):
                raise InvalidArgument(f"{what} of node {self.name}: give a list, not text")
        object.__setattr__(self, "packages", tuple(self.packages))
        object.__setattr__(self, "roles", frozenset(self.roles))
        disks = {check_mount_point(self.name, path): size for path, size in self.disks.items()}
        object.__setattr__(self, "disks", {path: parse_size(size) for path, size in disks.items()})
        if self.memory is not None:
            object.__setattr__(self, "memory", parse_size(self.memory))
        if self.cpus is not None and not 0 < float(self.cpus) <= 4096:
            raise InvalidArgument(f"cpus of node {self.name}: {self.cpus!r} is not above 0")
        if self.base and self.image:
            raise InvalidArgument(f"node {self.name}: give either a base or an image")


@dataclasses.dataclass(frozen=True)
class ClusterSpec:
    """
    What a cluster is to be.

    :param name: The name of the cluster.
    :param nodes: Its nodes.
    :param network: Its network, for instance ``"10.77.0.0/28"`` (default: a free one).
    :raises InvalidName: Names clash or are outside the grammar.
    :raises InvalidArgument: There are no nodes, or the network is too small for them.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    network: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "a cluster")
        if not self.nodes:
            raise InvalidArgument(f"cluster {self.name} has no nodes: it needs at least one")
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise InvalidName(f"cluster {self.name} has two nodes called {node.name}")
            seen.add(node.name)
        if self.network is not None:
            check_network(self.network, len(self.nodes))


def check_name(name: object, what: str) -> str:
    """
    Check the name of a cluster or node.

    :param name: The name.
    :param what: What it is for, for the message.
    :returns: The same name.
    :raises InvalidName: It is outside the grammar.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.isdigit():
        raise InvalidName(
            f"invalid name for {what}: {shown(name)}; lower case letters, digits and '-'"
            " (not only digits), at most 30 characters"
        )
    return name


def check_mount_point(node: str, path: str) -> str:
    """
    Check where a disk is to be mounted.

    :param node: The name of the node.
    :param path: The pathname.
    :returns: The same pathname.
    :raises InvalidArgument: It is not a place of its own.
    """
    if (
        not path.startswith("/")
        or os.path.normpath(path) != path
        or path in RESERVED
        or ":" in path
    ):
        raise InvalidArgument(
            f"disks of node {node}: {shown(path)} is not the pathname of a directory of its own"
        )
    return path


#: Where no disk can go: what every system needs, or redock itself.
RESERVED = ("/", "/etc", "/usr", "/bin", "/lib", "/sbin", "/dev", "/proc", "/sys", "/run")


def parse_size(value: str | int) -> int:
    """
    Read a number of bytes.

    >>> parse_size("64m")
    67108864

    :param value: A number, or a number with ``k``, ``m`` or ``g`` (powers of 1024).
    :returns: The number of bytes.
    :raises InvalidArgument: It is no size, or not above zero.
    """
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    size = int(match[1]) * UNITS[match[2].lower()] if match else value
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise InvalidArgument(f"{shown(value)} is not a size: write bytes, or for instance '64m'")
    return size


def check_network(network: str, nodes: int) -> ipaddress.IPv4Network:
    """
    Check the network of a cluster.

    :param network: An IPv4 network, ``ADDRESS/LENGTH``.
    :param nodes: How many nodes it has to hold.
    :returns: The network.
    :raises InvalidArgument: It is none, or too small.
    """
    try:
        parsed = ipaddress.IPv4Network(network)
    except ValueError as error:
        raise InvalidArgument(f"{shown(network)} is not an IPv4 network: {error}") from error
    # The network's own address, the host's and the broadcast address are no node's.
    if parsed.num_addresses - 3 < nodes:
        raise InvalidArgument(
            f"the network {network} is too small for {nodes} nodes:"
            f" take a prefix of at most {prefix_for(nodes)}"
        )
    return parsed


def prefix_for(nodes: int) -> int:
    """
    Find the length of the prefix of a network that is large enough.

    :param nodes: How many nodes it has to hold.
    :returns: At most 28, which 13 nodes fit into.
    """
    return min(28, 32 - (nodes + 3 - 1).bit_length())


def make_nodes(
    nodes: int | Iterable[str | NodeSpec], defaults: Mapping[str, Any]
) -> tuple[NodeSpec, ...]:
    """
    Turn the usual ways to say it into nodes.

    :param nodes: How many (they are called n1, n2, ...), or their names or specifications.
    :param defaults: What holds for nodes that are given by number or by name.
    :returns: The nodes.
    :raises InvalidName: A name is outside the grammar.
    :raises InvalidArgument: Another value makes no sense.
    """
    if isinstance(nodes, str):
        raise InvalidArgument(f"nodes: give a number or a list of names, not {shown(nodes)}")
    if isinstance(nodes, int):
        nodes = [f"n{number}" for number in range(1, nodes + 1)]
    return tuple(
        node if isinstance(node, NodeSpec) else NodeSpec(check_name(node, "a node"), **defaults)
        for node in nodes
    )


def read_spec(path: str) -> ClusterSpec:
    """
    Read a cluster from a file.

    The file is TOML: ``name`` (default: the file's name), ``network``, ``nodes`` (a number, a
    list of names, or a table for each node) and ``[defaults]`` for all nodes. The keys of a node
    are the parameters of :class:`NodeSpec`; ``provision`` is relative to the file.

    :param path: The pathname.
    :returns: What the cluster is to be.
    :raises SettingsError: The file cannot be read, or makes no sense.
    """
    import tomllib

    try:
        with open(path, "rb") as handle:
            data = tomllib.load(handle)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    try:
        return parse_spec(data, path)
    except (InvalidArgument, InvalidName, TypeError, AttributeError) as error:
        raise SettingsError(f"{path}: {error}") from error


def parse_spec(data: Mapping[str, Any], path: str) -> ClusterSpec:
    """
    Turn the contents of a file into a cluster.

    :param data: The contents.
    :param path: The pathname, which relative pathnames start from.
    :returns: What the cluster is to be.
    :raises InvalidArgument: A value makes no sense, or a key is unknown.
    """
    check_keys(data, ("name", "network", "nodes", "defaults"), "")
    fields = [field.name for field in dataclasses.fields(NodeSpec) if field.name != "name"]
    defaults = dict(data.get("defaults", {}))
    check_keys(defaults, fields, "defaults.")
    listed = data.get("nodes", 1)
    tables: list[tuple[str, dict[str, Any]]]
    if isinstance(listed, dict):
        tables = list(listed.items())
    else:
        tables = [(node.name, {}) for node in make_nodes(listed, {})]
    nodes = []
    for name, own in tables:
        check_keys(own, fields, f"nodes.{name}.")
        values = {**defaults, **own}
        if values.get("provision"):
            script = os.path.join(os.path.dirname(os.path.abspath(path)), values["provision"])
            values["provision"] = script
        nodes.append(NodeSpec(name, **values))
    stem = os.path.splitext(os.path.basename(path))[0]
    return ClusterSpec(data.get("name", stem), tuple(nodes), data.get("network"))


def check_keys(found: Iterable[str], known: Sequence[str], where: str) -> None:
    """
    Make sure all keys of a table are known.

    :param found: The keys there are.
    :param known: The keys that may be there.
    :param where: What stands in front of the keys in the message.
    :raises InvalidArgument: One is unknown; the message names the nearest known one.
    """
    for key in found:
        if key not in known:
            near = f"{where}{nearest(key, known)}"
            raise InvalidArgument(f"unknown key {where}{key}: did you mean {near}?")


def nearest(word: str, known: Iterable[str]) -> str:
    """
    Find what somebody may have meant.

    :param word: What was written.
    :param known: What could have been; at least one.
    :returns: The one that is most like it.
    """
    return difflib.get_close_matches(word, list(known), 1, 0.0)[0]
