"""
What the engine is told about a node.

A node is two containers. The *owner* does nothing but hold what a node keeps
for life: its network namespace with address and host name, the port for SSH,
the rules of network faults. The *system* is the machine itself, whose disk is
rewound: it joins the owner's network and may not change it. Replacing a system
is therefore quick, and nothing that others know about the node changes.
"""

from __future__ import annotations

import os

from redock import _machines, _recipe
from redock._engine import KIND, label
from redock.cluster import _clock, _records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from redock.cluster._network import Network
    from redock.cluster._spec import NodeSpec

__all__ = [
    "NODE",
    "OWNER",
    "Place",
    "owner_configuration",
    "system_configuration",
    "wake_up",
]

NODE = "node"
OWNER = "owner"

#: The first program of a node; its first argument is a name that no other container has, so that
#: one made from a copy of its disk waits as well. The first line of standard input says how many
#: bytes of identity follow. Supervisor, which takes three times as long to start as everything
#: else, waits until the end of standard input: until all nodes can be reached.
BOOT_SCRIPT = f"""\
set -u
umask 022
identity={_recipe.IDENTITY_DIRECTORY}
if [ "$(cat /run/redock-woken 2>/dev/null)" = "$0" ]; then
    exec </dev/null
else
    read -r size || exit {_recipe.NOT_WOKEN}
    new=$identity/.new
    if [ "$size" -gt 0 ]; then
        rm -rf $new && mkdir -m 0700 $new
        head -c "$size" | timeout 60 tar -xf - -C $new
        mv $new/* $identity/ && rmdir $new || exit {_recipe.NO_IDENTITY}
    fi
    echo "$0" >/run/redock-woken
fi
mkdir -p /run/sshd
rm -f /run/sshd.pid /run/supervisord.pid /run/supervisor.sock
/usr/sbin/sshd || exit
timeout 60 cat >/dev/null
exec </dev/null
/usr/lib/redock/wake &
exec /usr/lib/redock/supervisord --nodaemon --configuration /etc/supervisor/supervisord.conf
"""


def wake_up(identity: bytes = b"") -> bytes:
    """
    Say what wakes a node that waits.

    :param identity: A tar archive with what makes it that very node, for its first boot.
    :returns: Bytes for its standard input, which is then closed when Supervisor may start.
    """
    return f"{len(identity)}\n".encode() + identity


class Place:
    """
    What a node keeps for life.

    :param cluster: The name of the cluster.
    :param node: The name of the node.
    :param instance: redock's id of the node.
    :param address: Its address in the private network.
    :param port: The port for SSH on the host.
    """

    def __init__(self, cluster: str, node: str, instance: str, address: str, port: int) -> None:
        self.cluster = cluster
        self.node = node
        self.instance = instance
        self.address = address
        self.port = port

    @property
    def alias(self) -> str:
        """The name to give to ``ssh``."""
        return f"{self.cluster}-{self.node}-container"

    @property
    def name(self) -> str:
        """The name the host entry is filed under; no machine can have it."""
        return f"redock:{_machines.CLUSTER_TAG}{self.cluster}.{self.node}"

    @property
    def owner_name(self) -> str:
        """The name of the owner for the engine."""
        return f"{self.system_name}.owner"

    @property
    def system_name(self) -> str:
        """The name of the system for the engine; no machine's container can have it."""
        return f"redock-{self.cluster}.{self.node}"

    def labels(self, kind: str) -> dict[str, str]:
        """
        Get the labels of a container of this node.

        :param kind: :data:`NODE` or :data:`OWNER`.
        :returns: The labels.
        """
        return {
            KIND: kind,
            label("cluster"): self.cluster,
            label("node"): self.node,
            label("name"): self.name,
            label("instance"): self.instance,
            label("alias"): self.alias,
            label("address"): self.address,
            label("port"): str(self.port),
            label("user"): str(os.getuid()),
        }


def disk_volume(place: Place, number: int) -> str:
    """
    Name the volume of a disk.

    :param place: The node.
    :param number: The number of the disk, from 0.
    :returns: A name for the engine.
    """
    return f"redock-{place.instance}-disk{number}"


def disk_mounts(place: Place, spec: NodeSpec, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """
    Describe the disks of a node: in memory, of limited size.

    The owner mounts them as well, because what is in memory would vanish with
    the last container that has it.

    :param place: The node.
    :param spec: What the node is to be.
    :param labels: The labels of the volumes.
    :returns: The API's mounts.
    """
    return [
        {
            "Type": "volume",
            "Source": disk_volume(place, number),
            "Target": path,
            "VolumeOptions": {
                "NoCopy": True,
                "Labels": {**labels, KIND: "volume"},
                "DriverConfig": {
                    "Name": "local",
                    "Options": {"type": "tmpfs", "device": "tmpfs", "o": f"size={size},mode=0755"},
                },
            },
        }
        for number, (path, size) in enumerate(spec.disks.items())
    ]


def clock_mounts(
    place: Place, spec: NodeSpec, labels: Mapping[str, str], *, read_only: bool
) -> list[dict[str, Any]]:
    """
    Describe where the offset of a node's clock is, see :mod:`redock.cluster._clock`.

    :param place: The node.
    :param spec: What the node is to be.
    :param labels: The labels of the volume.
    :param read_only: Who has it may not change it. Who may has it first, and the engine fills
                      the new volume with what is at that place in the image.
    :returns: The API's mounts; none for a node with the clock of the host.
    """
    if spec.clock is None:
        return []
    return [
        {
            "Type": "volume",
            "Source": f"redock-{place.instance}-clock",
            "Target": _clock.DIRECTORY,
            "ReadOnly": read_only,
            "VolumeOptions": {"NoCopy": read_only, "Labels": {**labels, KIND: "volume"}},
        }
    ]


def owner_configuration(
    place: Place, spec: NodeSpec, image: str, network: Network, extra: Mapping[str, str]
) -> dict[str, Any]:
    """
    Describe the owner of a node.

    :param place: The node.
    :param spec: What the node is to be.
    :param image: The id of an image with the tools for faults.
    :param network: The network of the cluster.
    :param extra: More labels.
    :returns: The body of the API's request.
    """
    labels = {**place.labels(OWNER), **extra}
    return {
        "Image": image,
        "Hostname": place.node,
        "Entrypoint": [],
        "Cmd": ["sleep", "infinity"],
        "User": "root",
        "Labels": labels,
        "ExposedPorts": {_machines.SSH_PORT: {}},
        "HostConfig": {
            "NetworkMode": network.name,
            "CapAdd": ["NET_ADMIN"],
            "PortBindings": {
                _machines.SSH_PORT: [{"HostIp": _machines.LOOPBACK, "HostPort": str(place.port)}]
            },
            "Mounts": [
                *disk_mounts(place, spec, labels),
                *clock_mounts(place, spec, labels, read_only=False),
            ],
            # The records of faults go when the owner ends, as its rules do.
            "Tmpfs": {_records.FAULTS: "mode=0700,size=4m"},
        },
        "NetworkingConfig": {
            "EndpointsConfig": {
                network.name: {
                    "IPAMConfig": {"IPv4Address": place.address},
                    "Aliases": [place.node],
                }
            }
        },
    }


def system_configuration(
    place: Place, spec: NodeSpec, image: str, owner: str, extra: Mapping[str, str]
) -> dict[str, Any]:
    """
    Describe the system of a node.

    It waits for a line on its standard input before it boots, so that it can
    be started beforehand.

    :param place: The node.
    :param spec: What the node is to be.
    :param image: The id of the image with its disk.
    :param owner: The id of the node's owner.
    :param extra: More labels.
    :returns: The body of the API's request.
    """
    labels = {**place.labels(NODE), **extra}
    identity = {
        "Type": "volume",
        "Source": _machines.volume_name(place.instance),
        "Target": _recipe.IDENTITY_DIRECTORY,
        "VolumeOptions": {"NoCopy": True, "Labels": {**labels, KIND: "volume"}},
    }
    host: dict[str, Any] = {
        "NetworkMode": f"container:{owner}",
        "Mounts": [
            identity,
            *disk_mounts(place, spec, labels),
            *clock_mounts(place, spec, labels, read_only=True),
        ],
    }
    if spec.memory is not None:
        host["Memory"] = host["MemorySwap"] = spec.memory
    if spec.cpus is not None:
        host["NanoCpus"] = int(spec.cpus * 1e9)
    return {
        "Image": image,
        "Entrypoint": [],
        "Cmd": ["/bin/sh", "-c", BOOT_SCRIPT, os.urandom(8).hex()],
        "User": "root",
        "WorkingDir": "/",
        "Labels": labels,
        "AttachStdin": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "Tty": False,
        "HostConfig": host,
    }
