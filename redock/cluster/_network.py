"""
The private network of a cluster: a free range of addresses, and the bridge that has it.
"""

from __future__ import annotations

import ipaddress
import logging
import zlib

from redock._engine import KIND, label
from redock.cluster._spec import check_network, prefix_for
from redock.errors import EngineError, InvalidArgument, NetworkUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from redock._engine import Engine

__all__ = ["Network", "create", "find"]

logger = logging.getLogger("redock.cluster")

#: Where clusters get their addresses from.
POOL = ipaddress.IPv4Network("10.77.0.0/16")


class Network:
    """
    The private network of a cluster.

    :param id: The engine's id of it.
    :param name: Its name.
    :param subnet: Its addresses.
    """

    def __init__(self, id: str, name: str, subnet: ipaddress.IPv4Network) -> None:
        self.id = id
        self.name = name
        self.subnet = subnet

    @property
    def gateway(self) -> str:
        """The address of the host."""
        return str(self.subnet[1])

    def address(self, number: int) -> str:
        """
        Get the address of a node.

        :param number: The number of the node, from 0.
        :returns: An address.
        """
        return str(self.subnet[number + 2])


def name_of(cluster: str) -> str:
    """
    Name the network of a cluster.

    :param cluster: The name of the cluster.
    :returns: A name for the engine.
    """
    return f"redock-{cluster}"


def create(
    engine: Engine, cluster: str, nodes: int, wanted: str | None, labels: Mapping[str, str]
) -> Network:
    """
    Create the network of a cluster.

    The engine knows what is in use, and refuses a range that overlaps: the
    next one is tried then. So two programs may do this at the same time.

    :param engine: The engine.
    :param cluster: The name of the cluster.
    :param nodes: How many nodes it has to hold.
    :param wanted: The range that was asked for, None for a free one.
    :param labels: The labels to give it.
    :returns: The network.
    :raises NetworkUnavailable: There is no free range, or the wanted one is in use.
    """
    taken = used_ranges(engine)
    for subnet in [check_network(wanted, nodes)] if wanted else candidates(cluster, nodes):
        if any(subnet.overlaps(each) for each in taken):
            continue
        config = {
            "Driver": "bridge",
            "IPAM": {"Config": [{"Subnet": str(subnet), "Gateway": str(subnet[1])}]},
            "Labels": {**labels, KIND: "network", label("cluster"): cluster},
        }
        try:
            network = engine.create_network(name_of(cluster), config)
        except EngineError as error:
            text = str(error).lower()
            if "overlaps" in text or "already used" in text or "already exists" in text:
                if "name" in text and "already exists" in text:
                    raise NetworkUnavailable(
                        f"a network called {name_of(cluster)} exists already: take it away with"
                        f" 'redock cluster down' or 'docker network rm {name_of(cluster)}'"
                    ) from error
                taken.append(subnet)
                continue
            raise
        logger.debug("Network %s has %s", name_of(cluster), subnet)
        return Network(network, name_of(cluster), subnet)
    if wanted:
        raise NetworkUnavailable(f"the network {wanted} is in use already: take another one")
    raise NetworkUnavailable(
        f"no free network for {nodes} nodes in {POOL}: take clusters down that nobody needs"
        " ('redock cluster status' lists them) or ask for a network of your own"
    )


def candidates(cluster: str, nodes: int) -> Iterator[ipaddress.IPv4Network]:
    """
    List the ranges that are large enough, starting somewhere else for every cluster.

    :param cluster: The name of the cluster.
    :param nodes: How many nodes a range has to hold.
    :returns: Yields the ranges.
    :raises InvalidArgument: No range would be.
    """
    prefix = prefix_for(nodes)
    if prefix < POOL.prefixlen:
        raise InvalidArgument(f"{nodes} nodes are more than fit into {POOL}")
    count = 2 ** (prefix - POOL.prefixlen)
    size = 2 ** (32 - prefix)
    start = zlib.crc32(cluster.encode()) % count
    for number in range(count):
        first = int(POOL.network_address) + (start + number) % count * size
        yield ipaddress.IPv4Network((first, prefix))


def used_ranges(engine: Engine) -> list[ipaddress.IPv4Network]:
    """
    Find the ranges that networks of the engine have.

    :param engine: The engine.
    :returns: The ranges.
    """
    used = []
    for network in engine.networks({}):
        for config in (network.get("IPAM") or {}).get("Config") or ():
            try:
                used.append(ipaddress.IPv4Network(config["Subnet"]))
            except (KeyError, ValueError):
                # IPv6, or none of its own.
                continue
    return used


def find(engine: Engine, cluster: str) -> Network | None:
    """
    Find the network of a cluster.

    :param engine: The engine.
    :param cluster: The name of the cluster.
    :returns: The network, None when there is none.
    """
    filters = {"label": [f"{KIND}=network", f"{label('cluster')}={cluster}"]}
    for network in engine.networks(filters):
        subnet = ipaddress.IPv4Network(network["IPAM"]["Config"][0]["Subnet"])
        return Network(network["Id"], network["Name"], subnet)
    return None
