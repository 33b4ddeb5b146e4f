"""
The first boot of a cluster: its network, and two containers for each node.

All of it or nothing: whatever goes wrong, and whoever interrupts it, nothing of
the attempt is left.
"""

from __future__ import annotations

import logging
import os

from redock import _identity, _machines, _ssh
from redock._engine import label
from redock._parallel import call_all
from redock._process import Deadline
from redock.cluster import _boot, _images, _network, _process, _sharing
from redock.cluster._node import Node, NodeSet
from redock.errors import AliasTaken, EngineError, PortUnavailable, RedockError
from redock.utils import get_ssh_public_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from redock.cluster._cluster import Cluster
    from redock.cluster._spec import NodeSpec

__all__ = ["FirstBoot", "create_owner", "find_images"]

logger = logging.getLogger("redock.cluster")

#: How many nodes are booted at the same time: more are not faster on two processors.
WORKERS = 8
PORT_ATTEMPTS = 8


def find_images(cluster: Cluster) -> dict[str, str]:
    """
    Find the disks of all nodes; equal ones are looked for once.

    :param cluster: The cluster.
    :returns: The ids of the images, by the name of the node.
    """
    made: dict[str, str] = {}
    images = {}
    for spec in cluster.spec.nodes:
        provision = spec.provision if spec.packages or spec.provision else None
        same = repr((spec.base, spec.image, spec.clock, sorted(spec.packages), provision))
        if same not in made:
            made[same] = _images.find_image(cluster.engine, spec)
        images[spec.name] = made[same]
    return images


def create_owner(cluster: Cluster, node: Node, image: str) -> str:
    """
    Create the owner of a node.

    :param cluster: The cluster.
    :param node: The node.
    :param image: The id of an image with the tools for faults.
    :returns: Its id.
    """
    marks = {**cluster.marks(), label("spec"): _sharing.describe(node.spec)}
    network = cluster.network_or_fail()
    config = _boot.owner_configuration(node.place, node.spec, image, network, marks)
    return cluster.engine.create_container(node.place.owner_name, config)


class FirstBoot:
    """
    Boots all nodes of a cluster that is not there yet.

    :param cluster: The cluster; its lock is held.
    :param images: The ids of the images with the disks of the nodes, by name.
    """

    def __init__(self, cluster: Cluster, images: Mapping[str, str]) -> None:
        self.cluster = cluster
        self.engine = cluster.engine
        self.images = images
        #: Nothing more is begun: a node has failed, or somebody has interrupted us.
        self.over = False

    def run(self) -> None:
        """
        Boot them.

        :raises RedockError: It could not be done; nothing is left of the attempt.
        """
        cluster = self.cluster
        claims = _machines.find_claims(self.engine)
        self.used_ports = {claim.port for claim in claims}
        self.check_aliases(claims)
        logger.info("Booting cluster %s: %s", cluster.name, ", ".join(self.images))
        cluster.inherited = None
        _process.begin_change(self.engine, cluster.name)
        try:
            self.boot()
            _process.end_change(self.engine, cluster.name)
            cluster.created = True
        except BaseException:
            # What could not be made whole is taken away; why it could not is what matters.
            self.remove()
            raise
        for node in cluster.nodes:
            cluster.stagehand.add(f"connecting to {node.name}", node.connect)

    def boot(self) -> None:
        """Make the network and the nodes, and wait until all of them answer."""
        cluster, spec = self.cluster, self.cluster.spec
        cluster.network = network = _network.create(
            self.engine, cluster.name, len(spec.nodes), spec.network, cluster.marks()
        )
        nodes = [
            self.place(each, network.address(number)) for number, each in enumerate(spec.nodes)
        ]
        cluster.nodes = NodeSet(nodes)
        call_all(
            {node.name: node for node in nodes},
            self.boot_node,
            WORKERS,
            self.note_failure,
            on_interrupt=self.stop,
        )
        cluster.give_access()
        deadline = Deadline(cluster.timeout)
        for node in nodes:
            cluster.wait_for(node, deadline)
        for node in nodes:
            node.let_go()

    def remove(self) -> None:
        """Take away what was made."""
        cluster = self.cluster
        for node in cluster.nodes:
            node.let_go()
        cluster.stagehand.close()
        try:
            _process.remove_cluster(self.engine, cluster.name)
        except RedockError as error:
            logger.warning("Some of cluster %s is left: %s", cluster.name, error)
        cluster.nodes, cluster.created = NodeSet([]), False

    def stop(self) -> None:
        """Begin nothing more."""
        self.over = True

    def note_failure(self, name: str, error: Exception) -> None:
        """
        Stop booting the others when one has failed.

        :param name: The node.
        :param error: Why.
        """
        self.stop()
        logger.debug("Node %s did not boot: %s", name, error)

    def check_aliases(self, claims: list[_machines.Machine]) -> None:
        """
        Make sure nothing else of this user answers to the aliases of the nodes.

        :param claims: What there is.
        :raises AliasTaken: Something does.
        """
        cluster = self.cluster
        wanted = {f"{cluster.name}-{spec.name}-container": spec.name for spec in cluster.spec.nodes}
        for claim in claims:
            if claim.alias in wanted and claim.user in ("", str(os.getuid())):
                raise AliasTaken(
                    f"the alias {claim.alias} of node {wanted[claim.alias]} belongs to"
                    f" {claim.name}: give the cluster another name"
                )

    def place(self, spec: NodeSpec, address: str) -> Node:
        """
        Choose what a node keeps for life.

        :param spec: What it is to be.
        :param address: Its address.
        :returns: The node.
        """
        name, instance = self.cluster.name, _machines.new_instance()
        place = _boot.Place(name, spec.name, instance, address, self.pick_port(spec))
        return Node(self.cluster, spec, place)

    def pick_port(self, spec: NodeSpec) -> int:
        """
        Choose the port of a node.

        :param spec: What it is to be.
        :returns: A free port.
        :raises PortUnavailable: There is none.
        """
        port = _machines.pick_port(f"{self.cluster.name}.{spec.name}", self.used_ports)
        if port is None:
            raise PortUnavailable(f"found no free port for node {spec.name}: kill a machine")
        self.used_ports.add(port)
        return port

    def boot_node(self, node: Node) -> None:
        """
        Boot a node.

        :param node: The node.
        """
        if self.over:
            return
        image = self.images[node.name]
        host_key = _ssh.HostKey()
        try:
            self.start_owner(node, image)
            if self.over:
                return
            marks = self.cluster.marks()
            config = _boot.system_configuration(node.place, node.spec, image, node.owner_id, marks)
            node.container_id = self.engine.create_container(node.place.system_name, config)
            private, node.public_key = host_key.collect()
            identity = _machines.archive(
                _identity.files(node.place.instance, private, node.public_key, get_ssh_public_key())
            )
            node.stdin = self.engine.attach(node.container_id, "stdin")
            starting = self.engine.begin_start(node.container_id)
            node.stdin.write(_boot.wake_up(identity))
            starting.result()
        finally:
            host_key.discard()

    def start_owner(self, node: Node, image: str) -> None:
        """
        Create and start the owner of a node.

        :param node: The node.
        :param image: The id of an image with the tools for faults.
        """
        for attempts_left in range(PORT_ATTEMPTS - 1, -1, -1):
            node.owner_id = create_owner(self.cluster, node, image)
            try:
                self.engine.begin_start(node.owner_id).result()
                return
            except EngineError as error:
                self.engine.remove_container(node.owner_id)
                if not (_machines.port_was_taken(error) and attempts_left):
                    raise
                node.place.port = self.pick_port(node.spec)
