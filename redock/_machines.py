"""
redock's machines as the engine sees them: labels, identity, configuration.

The engine is the truth about machines. A container is one of ours when its
labels say so *and* the volume with its identity is mounted: labels alone
survive a commit and would make a hand-made container look like ours.
"""

from __future__ import annotations

import os

from redock import _recipe
from redock._engine import KIND, label
from redock.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from redock._engine import Engine

__all__ = [
    "BLANKED_LABELS",
    "LOOPBACK",
    "PORTS",
    "Machine",
    "archive",
    "configuration",
    "find_claims",
    "find_machines",
    "new_instance",
    "pick_port",
    "port_was_taken",
    "volume_name",
]

CONTAINER = "container"
#: Ports for SSH on the loopback interface: below those the kernel hands out by itself (ip(7)).
PORTS = range(20000, 32000)
SSH_PORT = "22/tcp"
LOOPBACK = "127.0.0.1"
#: What the tags of names start with that belong to nodes of clusters, in redock's own repository.
CLUSTER_TAG = "cluster."


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
    wanted = [f"{label('name')}={name}"] if name else []
    listed = engine.containers({"label": [f"{KIND}={CONTAINER}", *wanted]})
    return [machine for machine in map(Machine, listed) if machine.genuine]


def find_claims(engine: Engine) -> list[Machine]:
    """
    List everything that has an alias and a port: machines, and nodes of clusters.

    :param engine: The engine.
    :returns: Machines and, of nodes, the containers that publish their ports.
    """
    listed = engine.containers({"label": [label("port")]})
    found = [(each["Labels"].get(KIND), Machine(each)) for each in listed]
    return [each for kind, each in found if kind == "owner" or (kind == CONTAINER and each.genuine)]


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
    *, name: str, image: str, hostname: str, alias: str, instance: str, port: int, version: str
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
    }
    volume_labels = {KIND: "volume", label("name"): name, label("instance"): instance}
    host, _, domain = hostname.partition(".")
    return {
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
