"""
The nodes of a cluster, described for other programs.

Each format is the text of a file that the other program uses with no other
setting: how a node is reached and which host key it has is in redock's own SSH
configuration, which the file names or contains. Addresses between nodes are
those of the private network.
"""

from __future__ import annotations

import json
import os
import re

from redock import _ssh
from redock._names import nearest
from redock.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["FORMATS", "write"]

#: Where Python is in every machine of redock's.
PYTHON = "/usr/bin/python3"
#: What Ansible has a meaning of its own for, besides what every inventory has.
RESERVED = ("all", "ungrouped", "localhost", "hosts", "children", "vars")


def write(cluster: Cluster, format: str) -> str:
    """
    Describe the nodes of a cluster for another program.

    :param cluster: The cluster; its nodes are there.
    :param format: One of :data:`FORMATS`.
    :returns: The text of a file, with a line's end at its end.
    :raises InvalidArgument: There is no such format, or the cluster has not been started.
    """
    if format not in FORMATS:
        raise InvalidArgument(
            f"there is no inventory format {format!r}: did you mean {nearest(format, FORMATS)}?"
            f" The formats are {', '.join(FORMATS)}"
        )
    if not len(cluster.nodes):
        raise InvalidArgument(f"cluster {cluster.name} has no nodes yet: start it first")
    return FORMATS[format](cluster)


def connection(node: Node) -> dict[str, Any]:
    """
    Say how a node is reached from this host.

    :param node: The node.
    :returns: Values that mean the same in all formats.
    """
    return {
        "hostname": "127.0.0.1",
        "port": node.port,
        "user": "root",
        "identityfile": os.path.join(os.path.dirname(_ssh.config_file()), "id_ed25519"),
    }


def write_ansible(cluster: Cluster) -> str:
    """
    Write an inventory for Ansible.

    Hosts have the names of the nodes; there is a group for the cluster and one for each role. The
    format is YAML, written as JSON, which is a part of it: see Ansible's user guide, "How to build
    your inventory".

    :param cluster: The cluster.
    :returns: The text of a file whose name ends with ``.yml``.
    """
    config = _ssh.config_file()
    hosts = {
        node.name: {
            # The alias: ssh finds everything else under that name, the pinned host key included.
            "ansible_host": node.ssh_alias,
            "ansible_port": node.port,
            "ansible_user": "root",
            "ansible_ssh_common_args": f"-F {shell_word(config)}",
            # Without arguments of its own Ansible shares redock's connection, which is open already
            # and is closed when the node is booted with another disk.
            "ansible_ssh_args": "",
            "ansible_python_interpreter": PYTHON,
            "redock_address": node.ip,
            "redock_roles": sorted(node.spec.roles),
        }
        for node in cluster.nodes
    }
    groups: dict[str, Any] = {
        group_name(cluster.name, hosts): {"hosts": {name: {} for name in hosts}}
    }
    for role in sorted({role for node in cluster.nodes for role in node.spec.roles}):
        members: dict[str, Any] = {node.name: {} for node in cluster.nodes.role(role)}
        group = groups.setdefault(group_name(role, hosts), {"hosts": {}})
        group["hosts"].update(members)
    heading = f"# Cluster {cluster.name} of redock; made by 'redock cluster inventory'.\n"
    return heading + as_json({"all": {"hosts": hosts, "children": groups}})


def shell_word(text: str) -> str:
    """
    Quote a word as Ansible splits its SSH arguments: as a shell does.

    :param text: The word.
    :returns: The quoted word.
    """
    from redock._result import quote

    return quote([text])


def group_name(text: str, hosts: dict[str, Any]) -> str:
    """
    Make the name of a group for Ansible: letters, digits and ``_``, and no host's.

    :param text: The name of a cluster or a role.
    :param hosts: The hosts.
    :returns: A valid name.
    """
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    if not name or name[0].isdigit() or name in RESERVED or name in hosts:
        name = f"group_{name}"
    return name


def write_ssh_config(cluster: Cluster) -> str:
    """
    Write a file for ``ssh -F``.

    :param cluster: The cluster.
    :returns: A host entry for each node, with its alias and, in the cluster, its name.
    """
    heading = f"# Cluster {cluster.name} of redock; made by 'redock cluster inventory'.\n"
    entries = []
    for node in cluster.nodes:
        entry = node.host_entry
        # The short name as well: this file is for this cluster only.
        text = entry.text().replace(f"Host {entry.alias}\n", f"Host {entry.alias} {node.name}\n", 1)
        entries.append(text)
    return heading + "\n".join(entries)


def write_testinfra(cluster: Cluster) -> str:
    """
    Write the hosts for pytest-testinfra, one a line, for its option ``--hosts``.

    :param cluster: The cluster.
    :returns: ``ssh://ALIAS?ssh_config=FILE`` for each node.
    """
    from urllib.parse import quote

    config = quote(_ssh.config_file())
    return "".join(f"ssh://{node.ssh_alias}?ssh_config={config}\n" for node in cluster.nodes)


def write_ducktape(cluster: Cluster) -> str:
    """
    Write the cluster file of ducktape's ``JsonCluster``.

    :param cluster: The cluster.
    :returns: JSON; ``host`` is the name other nodes know a node by.
    """
    nodes = [
        {
            "externally_routable_ip": node.ip,
            "ssh_config": {"host": node.name, **connection(node), "password": None},
        }
        for node in cluster.nodes
    ]
    return as_json({"_comment": f"Cluster {cluster.name} of redock", "nodes": nodes})


def write_json(cluster: Cluster) -> str:
    """
    Write everything, for programs of your own.

    :param cluster: The cluster.
    :returns: JSON.
    """
    return as_json(
        {
            "name": cluster.name,
            "network": str(cluster.network.subnet) if cluster.network else None,
            "ssh_config": _ssh.config_file(),
            "nodes": [
                {
                    "name": node.name,
                    "address": node.ip,
                    "ssh_alias": node.ssh_alias,
                    "roles": sorted(node.spec.roles),
                    "host_key": (_ssh.pinned_key(node.place.instance) or b"").decode() or None,
                    **connection(node),
                }
                for node in cluster.nodes
            ],
        }
    )


def as_json(data: Any) -> str:
    """
    Render JSON for people.

    :param data: Plain values.
    :returns: The text, with a line's end at its end.
    """
    return json.dumps(data, indent=2) + "\n"


#: What writes each format, by its name.
FORMATS: dict[str, Callable[[Cluster], str]] = {
    "ansible": write_ansible,
    "ssh_config": write_ssh_config,
    "testinfra": write_testinfra,
    "ducktape": write_ducktape,
    "json": write_json,
}
