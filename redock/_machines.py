"""
redock's machines as the engine sees them: labels, identity, configuration.

The engine is the truth about machines. A container is one of ours when its
labels say so *and* the volume with its identity is mounted: labels alone
survive a commit and would make a hand-made container look like ours.

Labels cannot be changed, the name of a container can: where the two differ the
machine was renamed. And while a machine gets another disk there are two
containers with one identity; the one with the name of the machine is it.
"""

from __future__ import annotations

import os

from redock import _recipe
from redock._engine import KIND, label, label_changes
from redock._http import quote
from redock._names import alias_for, container_name, hostname_for, split_container_name
from redock.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from redock._engine import Engine
    from redock._options import Options

__all__ = [
    "BLANKED_LABELS",
    "LOOPBACK",
    "PORTS",
    "Machine",
    "archive",
    "configuration",
    "find_claims",
    "find_machines",
    "limits",
    "new_instance",
    "options_of",
    "pick_port",
    "port_was_taken",
    "saved_changes",
    "saved_marks",
    "saved_options",
    "successor",
    "successor_name",
    "volume_name",
]

CONTAINER = "container"
#: Ports for SSH on the loopback interface: below those the kernel hands out by itself (ip(7)).
PORTS = range(20000, 32000)
SSH_PORT = "22/tcp"
LOOPBACK = "127.0.0.1"
#: What the tags of names start with that belong to nodes of clusters, in redock's own repository.
CLUSTER_TAG = "cluster."
#: The networks a container is in when nobody asked for one.
DEFAULT_NETWORKS = ("bridge", "default", "podman")
#: What the name of a container starts with that is to take the place of a machine's.
SUCCESSOR = "redock.next."


class Machine:
    """
    A container of redock's.

    :param summary: The engine's summary of the container.
    """

    def __init__(self, summary: Mapping[str, Any]) -> None:
        labels = summary.get("Labels") or {}
        self.id: str = summary["Id"]
        #: created, running, paused, restarting, removing, exited or dead.
        self.state: str = summary.get("State", "")
        #: The name of its image, REPOSITORY:TAG.
        self.name: str = labels.get(label("name"), "")
        self.instance: str = labels.get(label("instance"), "")
        self.alias: str = labels.get(label("alias"), "")
        self.hostname: str = labels.get(label("hostname"), "")
        #: The number of the user who made it: aliases are for each user to give.
        self.user: str = labels.get(label("user"), "")
        #: What it was started with besides its disk, as JSON.
        self.options: str = labels.get(label("options"), "")
        names = [each.removeprefix("/") for each in summary.get("Names") or ()]
        #: What the engine calls it.
        self.container_name: str = next((each for each in names if "/" not in each), "")
        #: The name it had when it was made.
        self.first_name: str = self.name
        #: The host name it gets when it is made anew; the one inside stays while it exists.
        self.next_hostname: str = self.hostname
        #: The image it was made from.
        self.image: str = summary.get("ImageID", "")
        #: Containers that were to take its place, by somebody who was interrupted.
        self.successors: list[str] = []
        self.follow_name(labels)
        port = labels.get(label("port"), "")
        #: The port on the host that was chosen for it.
        self.port: int = int(port) if port.isdigit() else 0
        #: The ports the engine publishes now, (address, port) of the host.
        self.published: list[tuple[str, int]] = [
            (item.get("IP", ""), item["PublicPort"])
            for item in summary.get("Ports") or ()
            if item.get("PrivatePort") == 22 and item.get("PublicPort")
        ]
        mounts = summary.get("Mounts") or ()
        #: Whether the volume with its identity is mounted.
        self.genuine: bool = bool(self.instance) and any(
            mount.get("Destination") == _recipe.IDENTITY_DIRECTORY
            and mount.get("Name") == volume_name(self.instance)
            for mount in mounts
        )

    def follow_name(self, labels: Mapping[str, str]) -> None:
        """
        Take the name, and what follows from it, from the container where that was renamed.

        :param labels: Its labels, which say what it was called when it was made.
        """
        repository, _, first = self.name.rpartition(":")
        if labels.get(KIND) != CONTAINER or not self.name:
            return
        # Most were never renamed, and taking a name apart needs regular expressions.
        if container_name(repository, first) == self.container_name:
            return
        found = split_container_name(self.container_name)
        if found is None:
            return
        self.name = ":".join(found)
        if self.hostname == hostname_for(first):
            # Nobody asked for another: it goes with the name, and so does the alias.
            self.next_hostname = hostname_for(found[1])
            self.alias = alias_for(found[1], self.next_hostname)

    @property
    def waiting(self) -> bool:
        """True for a container that is to take the place of a machine's."""
        return self.container_name.startswith(SUCCESSOR)

    @property
    def endpoint(self) -> tuple[str, int]:
        """Address and port of its SSH server; where there are several, one that is not ours."""
        chosen = (LOOPBACK, self.port)
        return max(self.published, key=lambda place: place[0] != LOOPBACK, default=chosen)

    @property
    def running(self) -> bool:
        """True when its processes exist, frozen or not."""
        return self.state in ("running", "paused", "restarting")


def find_machines(engine: Engine, name: str = "") -> list[Machine]:
    """
    List redock's machines, running or not, with one request.

    :param engine: The engine.
    :param name: Only those with this image name (default: all).
    :returns: The machines.
    """
    # Not by the label: a machine that was renamed still has the one of before.
    listed = engine.containers({"label": [f"{KIND}={CONTAINER}"]})
    machines = settle([machine for machine in map(Machine, listed) if machine.genuine])
    return [machine for machine in machines if not name or machine.name == name]


def find_claims(engine: Engine) -> list[Machine]:
    """
    List everything that has an alias and a port: machines, and nodes of clusters.

    :param engine: The engine.
    :returns: Machines and, of nodes, the containers that publish their ports.
    """
    listed = engine.containers({"label": [label("port")]})
    found = [(each["Labels"].get(KIND), Machine(each)) for each in listed]
    machines = settle([each for kind, each in found if kind == CONTAINER and each.genuine])
    return machines + [each for kind, each in found if kind == "owner"]


def settle(found: list[Machine]) -> list[Machine]:
    """
    Tell machines from containers that were to take their places.

    :param found: Containers of machines.
    :returns: The machines. One whose container has gone is what was to take its place: that ran
              by then, with the same identity.
    """
    machines = {each.instance: each for each in found if not each.waiting}
    for each in found:
        if each.waiting and machines.setdefault(each.instance, each) is not each:
            machines[each.instance].successors.append(each.id)
    return list(machines.values())


def new_instance() -> str:
    """
    Make an id for a new container.

    :returns: Twelve random hexadecimal digits.
    """
    return os.urandom(6).hex()


def volume_name(instance: str) -> str:
    """
    Name the volume with the identity of a container.

    :param instance: The id of the container.
    :returns: A name for the engine.
    """
    return f"redock-{instance}"


def pick_port(name: str, used: Iterable[int], is_local: bool = True) -> int | None:
    """
    Choose a port on the loopback interface for the SSH server of a machine.

    A machine gets the same port each time where that is free.

    :param name: The name of its image.
    :param used: Ports that belong to other machines, running or not.
    :param is_local: Look whether somebody listens there: the engine is on this host (default:
                     yes).
    :returns: A port nobody listens on, None when there is none.
    """
    import socket
    import zlib

    taken = set(used)
    start = zlib.crc32(name.encode()) % len(PORTS)
    for offset in range(0, len(PORTS)):
        # Steps of a prime: neighbours are what other machines step to.
        port = PORTS[(start + offset * 7919) % len(PORTS)]
        if port in taken:
            continue
        if not is_local:
            return port
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    return None


def port_was_taken(error: BaseException) -> bool:
    """
    Check whether a container could not start because of its port.

    :param error: The error the engine gave.
    :returns: True when another program has the port.
    """
    text = str(error)
    return isinstance(error, EngineError) and any(
        words in text
        for words in (
            "port is already allocated",
            "address already in use",
            "ports are not available",
        )
    )


def configuration(
    *,
    name: str,
    image: str,
    hostname: str,
    alias: str,
    instance: str,
    port: int,
    version: str,
    options: Options | None = None,
) -> dict[str, Any]:
    """
    Describe a machine's container to the engine.

    :param name: The name of its image, ``REPOSITORY:TAG``.
    :param image: The id of the image to start from.
    :param hostname: The host name inside.
    :param alias: The name for ``ssh``.
    :param instance: The id of this container.
    :param port: The port on the host's loopback interface.
    :param version: redock's version.
    :param options: What it is started with besides its disk (default: nothing).
    :returns: The body of the API's request to create a container.
    """
    labels = {
        KIND: CONTAINER,
        label("name"): name,
        label("instance"): instance,
        label("alias"): alias,
        label("hostname"): hostname,
        label("port"): str(port),
        label("user"): str(os.getuid()),
        label("version"): version,
        # Also where there are none: an image may have been saved with some.
        label("options"): options.text() if options else "",
    }
    volume_labels = {KIND: "volume", label("name"): name, label("instance"): instance}
    host, _, domain = hostname.partition(".")
    body: dict[str, Any] = {
        "Image": image,
        "Hostname": host,
        "Domainname": domain,
        "User": "root",
        "WorkingDir": "/",
        "Entrypoint": [],
        "Cmd": [_recipe.BOOT],
        "Labels": labels,
        # The engine publishes only what is exposed.
        "ExposedPorts": {SSH_PORT: {}},
        # The identity arrives on standard input, once.
        "AttachStdin": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "Tty": False,
        "HostConfig": {
            "PortBindings": {SSH_PORT: [{"HostIp": LOOPBACK, "HostPort": str(port)}]},
            # Not "Volumes": a commit would copy those into the image.
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": volume_name(instance),
                    "Target": _recipe.IDENTITY_DIRECTORY,
                    "VolumeOptions": {"NoCopy": True, "Labels": volume_labels},
                }
            ],
        },
    }
    if options:
        add_options(body, options)
    return body


def add_options(body: dict[str, Any], options: Options) -> None:
    """
    Add to a container's configuration what a machine is started with besides its disk.

    Networks and environment variables are no part of it: neither belongs into what an engine
    copies into images.

    :param body: The body of the API's request to create a container; changed.
    :param options: What the machine is started with.
    """
    from redock import _preparation

    body["Cmd"] = _preparation.command(options)
    host = body["HostConfig"]
    for port in options.published:
        inside = f"{port.inside}/{port.protocol}"
        body["ExposedPorts"][inside] = {}
        place = {"HostIp": port.address, "HostPort": str(port.number)}
        host["PortBindings"].setdefault(inside, []).append(place)
    for volume in options.mounts:
        kind = "bind" if volume.is_bind else "volume"
        mount = {"Type": kind, "Source": volume.source, "Target": volume.target}
        host["Mounts"].append({**mount, "ReadOnly": volume.read_only})
    host.update(limits(options))


def limits(options: Options) -> dict[str, Any]:
    """
    Describe to the engine what it can also change while a machine runs.

    :param options: What the machine is started with.
    :returns: Fields of the API's ``HostConfig``; none for what is not limited.
    """
    found: dict[str, Any] = {}
    if options.memory:
        # Without swap, as a machine with that much memory and no more.
        found["Memory"] = found["MemorySwap"] = options.memory
    if options.cpus:
        found["NanoCpus"] = round(float(options.cpus) * 1e9)
    if options.restart:
        found["RestartPolicy"] = {"Name": options.restart, "MaximumRetryCount": 0}
    return found


def options_of(described: Mapping[str, Any]) -> Options:
    """
    Get what a container was started with, as it is now.

    What can be changed while it runs is what the engine says, the rest is in its label. Their
    plain values are in :meth:`~redock._options.Options.as_dict`.

    :param described: The engine's description of the container.
    :returns: The options; of environment variables only the names are known.
    """
    from redock._options import Options

    labels = described.get("Config", {}).get("Labels") or {}
    host = described.get("HostConfig") or {}
    attached = (described.get("NetworkSettings") or {}).get("Networks") or {}
    policy = (host.get("RestartPolicy") or {}).get("Name") or "no"
    live = Options(
        memory=host.get("Memory") or None,
        cpus=(host.get("NanoCpus") or 0) / 1e9 or None,
        networks=[name for name in sorted(attached) if name not in DEFAULT_NETWORKS] or None,
        restart=None if policy == "no" else policy,
    )
    stable = Options.parse(labels.get(label("options"), ""))
    return live.over(stable.only("ports", "volumes", "user", "env", "agent"))


def successor_name(instance: str) -> str:
    """
    Name a container that is to take the place of a machine's.

    :param instance: The id of the machine.
    :returns: A name for the engine.
    """
    return SUCCESSOR + instance


def successor(machine: Machine, described: Mapping[str, Any], image: str) -> dict[str, Any]:
    """
    Describe a container that is the same machine with another disk.

    Whatever it was started with, it is started with again: alias, port and
    identity, and what the user asked for besides.

    :param machine: The machine.
    :param described: Everything the engine says about its container.
    :param image: The id of the image with the other disk.
    :returns: The body of the API's request to create a container.
    """
    host = dict(described["HostConfig"])
    if host.get("Ulimits"):
        # Podman 4 describes them with the names of getrlimit(2), and takes only those of Docker.
        host["Ulimits"] = [
            {**each, "Name": each["Name"].removeprefix("RLIMIT_").lower()}
            for each in host["Ulimits"]
        ]
    config = {**described["Config"], "Image": image, "HostConfig": host}
    labels = dict(config["Labels"])
    # Of the image it was made from, not of the machine.
    for name in ("recipe", "base", "squashed"):
        labels.pop(label(name), None)
    labels |= {label("name"): machine.name, label("alias"): machine.alias}
    labels[label("hostname")] = machine.next_hostname
    config["Labels"] = labels
    config["Hostname"], _, config["Domainname"] = machine.next_hostname.partition(".")
    return config


def saved_marks(name: str, hostname: str, options: str = "") -> dict[str, str]:
    """
    Get the labels that the image of a machine has.

    :param name: The name of the machine, ``REPOSITORY:TAG``.
    :param hostname: Its host name.
    :param options: What it was started with besides its disk, as JSON (default: nothing).
    :returns: The labels, also those that are blanked; the options percent-encoded (RFC 3986), so
              that nothing in them needs quoting.
    """
    marks = dict.fromkeys((label(each) for each in (*BLANKED_LABELS, "squashed")), "")
    marks |= {KIND: "image", label("name"): name, label("hostname"): hostname}
    return {**marks, label("options"): quote(options)}


def saved_options(labels: Mapping[str, str]) -> str:
    """
    Get what a machine was started with that was saved, as :func:`saved_marks` writes it.

    :param labels: The labels of its image.
    :returns: JSON, or whatever somebody else put there; empty for nothing.
    """
    text = labels.get(label("options"), "")
    if text.startswith("%"):
        from urllib.parse import unquote

        text = unquote(text)
    return text


def saved_changes(name: str, hostname: str, options: str = "") -> list[str]:
    """
    Say what is written into the image of a machine.

    :param name: The name of the machine, ``REPOSITORY:TAG``.
    :param hostname: Its host name.
    :param options: What it was started with besides its disk, as JSON (default: nothing).
    :returns: Instructions of a Dockerfile.
    """
    marks = saved_marks(name, hostname, options)
    return [*label_changes(marks), f'CMD ["{_recipe.BOOT}"]']


#: What a commit must not hand on: these labels made the container ours.
BLANKED_LABELS = ("instance", "alias", "port", "user")


def archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """
    Make a tar archive of files that belong to root.

    :param files: Permissions and contents, by pathname.
    :returns: The archive.
    """
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, (mode, contents) in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.mode, member.size = mode, len(contents)
            tar.addfile(member, io.BytesIO(contents))
    return buffer.getvalue()
