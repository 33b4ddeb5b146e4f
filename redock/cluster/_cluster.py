"""
A cluster: its nodes, its network, its life.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading

from redock import _include, _ssh
from redock._engine import KIND, Engine, label
from redock._files import Lock, path_in_home
from redock._process import Deadline
from redock.cluster import (
    _adoption,
    _boot,
    _clock,
    _first_boot,
    _images,
    _network,
    _process,
    _sharing,
    _snapshot,
    _standby,
)
from redock.cluster._faults import FaultVerbs
from redock.cluster._node import Node, NodeSet
from redock.cluster._spec import ClusterSpec, check_name, make_nodes, read_spec
from redock.cluster._timeline import Timeline
from redock.errors import (
    ContainerDied,
    DockerUnavailable,
    InvalidArgument,
    NotFound,
    RedockError,
    SSHConfigConflict,
    last_lines,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from redock.cluster._fault import Fault
    from redock.cluster._snapshot import Snapshot
    from redock.cluster._spec import NodeSpec

__all__ = ["Cluster"]

logger = logging.getLogger("redock.cluster")

LOG_LINES = 20


class Cluster(FaultVerbs):
    """
    Machines on a private network of their own, to test on: start, break, rewind.

    Basics::

        from redock.cluster import Cluster

        with Cluster(nodes=3, packages=["redis-server"]) as cluster:
            clean = cluster.snapshot("clean")
            with cluster.partition(["n1"], ["n2", "n3"]):
                cluster["n2"].succeed("redis-cli -h n3 ping")
            cluster.restore(clean)

    Nodes know each other by name. Each is reached from the host as
    ``ssh CLUSTER-NODE-container``, also while it is cut off from the others.

    Lifecycle: the constructor does nothing but check its arguments. :meth:`start`,
    or the ``with`` statement, boots all nodes, or finds those of a cluster of this
    name that is there already. The end of the ``with`` block takes down what it
    booted. A cluster goes with the process that made it, however that ends, unless
    it was made with ``keep``.

    Thread safety: nodes may be used from several threads, the cluster from one.

    :param nodes: How many (called n1, n2, ...), or their names or specifications.
    :param name: Its name (default: a random one).
    :param network: Its network, for instance ``"10.77.0.0/28"`` (default: a free one).
    :param timeout: Seconds a node may need to boot (default: 60).
    :param standbys: Prepare replacements in the background, so that :meth:`restore` only has to
                     wake them (default: yes).
    :param keep: It outlives this process (default: no).
    :param engine: The container engine (default: as for :class:`redock.api.Container`).
    :param defaults: What holds for nodes given by number or name: parameters of
                     :class:`NodeSpec`.
    :raises InvalidName: A name is outside the grammar, or is there twice.
    :raises InvalidArgument: Another value makes no sense.
    """

    def __init__(
        self,
        nodes: int | Iterable[str | NodeSpec] = 3,
        *,
        name: str | None = None,
        network: str | None = None,
        timeout: float = 60.0,
        standbys: bool = True,
        keep: bool = False,
        engine: Engine | None = None,
        **defaults: Any,
    ) -> None:
        try:
            made = make_nodes(nodes, defaults)
        except TypeError as error:
            raise InvalidArgument(f"a cluster has no such setting: {error}") from error
        self.spec = ClusterSpec(name or f"c{os.urandom(3).hex()}", made, network)
        self.timeout = timeout
        self.keep = keep
        self.engine = engine or Engine()
        #: What happened in it, see :class:`Timeline`.
        self.timeline = Timeline()
        #: Whether this object booted it.
        self.created = False
        self.network: _network.Network | None = None
        self.nodes = NodeSet([])
        self.active_faults: list[Fault] = []
        self.standbys = standbys
        self.stagehand = _standby.Stagehand(self, standbys)
        #: The labels of one that is there: what is added to it goes with the same process, or none.
        self.inherited: dict[str, str] | None = None
        #: Containers that interrupted processes left, see :meth:`refresh`.
        self.strays: list[str] = []
        self.mutex = threading.RLock()
        self.depth = 0

    @classmethod
    def find(cls, name: str, **options: Any) -> Cluster:
        """
        Find a cluster that is there, by its name.

        :param name: Its name.
        :param options: As for :class:`Cluster`, except what it consists of.
        :returns: The cluster, attached (see :meth:`attach`).
        :raises NotFound: There is no cluster of this name.
        """
        engine = options.setdefault("engine", Engine())
        nodes = _sharing.find_nodes(engine, check_name(name, "a cluster"))
        return cls(nodes, name=name, **options).attach()

    @classmethod
    def from_file(cls, path: str, **options: Any) -> Cluster:
        """
        Describe a cluster by a file.

        :param path: The pathname of a TOML file.
        :param options: As for :class:`Cluster`, except what the file says.
        :returns: The cluster, not started.
        :raises SettingsError: The file cannot be read, or makes no sense.
        """
        spec = read_spec(path)
        return cls(spec.nodes, name=spec.name, network=spec.network, **options)

    def __repr__(self) -> str:
        return f"Cluster({self.name!r})"

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.created and not self.keep:
            self.down()
        else:
            self.close()

    def __getitem__(self, name: str | int) -> Node:
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.spec.nodes)

    @property
    def name(self) -> str:
        """The name of the cluster."""
        return self.spec.name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """
        Let nobody else change the cluster: no other process, and no other thread of this one.

        :returns: A context manager; it may be entered again inside.
        :raises LockTimeout: Another process did not let go of it for five minutes.
        """
        with self.mutex:
            if self.depth:
                yield
                return
            path = path_in_home("locks", f".cluster-{self.name}.lock")
            with Lock(path, f"cluster {self.name}", timeout=300.0):
                self.depth = 1
                try:
                    yield
                finally:
                    self.depth = 0

    @property
    def goes_with(self) -> str | None:
        """The process it will be taken down with, where that runs on this host."""
        from redock.cluster._listing import running_process

        return running_process(self.marks())

    def find_process(self) -> str | None:
        """
        Find out which process a cluster of this name, complete or not, goes with.

        :returns: Its number and what it is called, None when it goes with none that runs here.
        """
        from redock.cluster._listing import running_process

        return running_process(_sharing.inherited(_sharing.find_containers(self)))

    def marks(self) -> dict[str, str]:
        """
        Get the labels of everything that belongs to it.

        :returns: The labels; those of this process, unless it is to outlive it or is another's.
        """
        mine = {} if self.keep else _process.labels()
        return {label("cluster"): self.name, **(mine if self.inherited is None else self.inherited)}

    # Starting.

    def start(self) -> None:
        """
        Boot all nodes; those of a cluster of this name that is there already are found.

        :raises DockerUnavailable: The engine is on another machine, or does not answer.
        :raises AliasTaken: Something else answers to the alias of a node.
        :raises NetworkUnavailable: There is no free network.
        :raises ContainerDied: A node ended while it booted; has its last words.
        :raises SecureShellTimeout: A node did not answer in time.
        :raises RedockError: Another of :mod:`redock.errors`. Whatever it is, nothing is left of
                             the attempt.
        """
        if not self.engine.endpoint.is_local:
            raise DockerUnavailable(
                f"the engine at {self.engine.endpoint} is on another machine: clusters and their"
                " faults need it on this one; run redock there"
            )
        if not self.keep:
            _process.Watchdog.start()
        with self.timeline.during("start", f"start {self.name}"):
            _process.sweep(self.engine)
            # Making images may take long, and needs no lock of ours.
            images = {} if _sharing.find_containers(self) else _first_boot.find_images(self)
            with self.locked():
                _process.finish_removal(self.engine, self.name)
                found = _sharing.find_containers(self)
                if found:
                    _adoption.take_over(self, found)
                else:
                    _first_boot.FirstBoot(self, images or _first_boot.find_images(self)).run()

    def give_access(self) -> None:
        """Make all nodes known to ``ssh``."""
        _ssh.install_all({node.host_entry: node.public_key for node in self.nodes})
        try:
            _include.install()
        except SSHConfigConflict as error:
            logger.warning("%s", _include.explain(error, self.nodes[0].ssh_alias))

    def wait_for(self, node: Node, deadline: Deadline) -> None:
        """
        Wait until a node answers.

        :param node: The node.
        :param deadline: When to give up.
        :raises ContainerDied: It ended; has its last words.
        """
        try:
            node.wait_until_up(max(0.1, deadline.remaining))
        except RedockError as error:
            log = self.engine.logs(node.container_id, LOG_LINES)
            words = f"; its last words: {last_lines(log, 3)}" if log.strip() else ""
            raise ContainerDied(f"node {node.name} did not boot: {error}{words}", log) from error

    # Finding one that is there.

    def attach(self) -> Cluster:
        """
        Find the nodes of a cluster that is there; nothing is booted.

        :returns: This cluster.
        :raises NotFound: There is no cluster of this name.
        :raises ForeignContainer: It is another user's.
        :raises InvalidArgument: It has other nodes.
        """
        found = _sharing.find_containers(self)
        if not any(each["Labels"].get(KIND) == _boot.OWNER for each in found):
            raise _sharing.no_such_cluster(self.name)
        _adoption.adopt(self, found)
        self.refresh()
        return self

    def differences(self) -> dict[str, list[str]]:
        """
        Find out in what the nodes that are there are not what they are to be.

        :returns: The names of the settings, by the name of the node; only where there are any.
        """
        found = {node.name: _sharing.changes(node.spec, node.described) for node in self.nodes}
        return {name: settings for name, settings in found.items() if settings}

    # Its state.

    def states(self) -> dict[str, str]:
        """
        Find out what state all nodes are in, with one request.

        :returns: ``running``, ``paused``, ``exited`` or ``gone``, by the name of the node.
        """
        marks = [f"{KIND}={_boot.NODE}", f"{label('cluster')}={self.name}"]
        listed = {each["Id"]: each["State"] for each in self.engine.containers({"label": marks})}
        return {node.name: listed.get(node.container_id, "gone") for node in self.nodes}

    def refresh(self) -> dict[str, str]:
        """
        See what other processes have done to the cluster: what they restored, broke and healed.

        :meth:`start`, :meth:`attach`, :meth:`status`, :meth:`snapshot`, :meth:`restore` and
        :meth:`heal` begin with it.

        :returns: What state the nodes are in, by name, see :meth:`states`.
        """
        with self.locked():
            return _sharing.refresh(self)

    def peek(self) -> list[Fault]:
        """
        Look which faults hold, without waiting for whoever changes the cluster at this moment.

        :returns: The faults.
        """
        _adoption.adopt(self, _sharing.find_containers(self))
        _sharing.refresh(self, erasing=False)
        return self.faults

    def find_replaced(self) -> bool:
        """
        Look for containers that another process has put in the place of nodes.

        :returns: False when this process itself is changing the cluster: nobody else does then.
        """
        if not self.mutex.acquire(blocking=False):
            return False
        try:
            if self.depth:
                # In the middle of a change: what is half made is no news about faults.
                _sharing.refresh(self, merging=False)
            else:
                self.refresh()
        finally:
            self.mutex.release()
        return True

    def inventory(self, format: str = "json") -> str:
        """
        Describe the nodes for another program: a file it can use with no other setting.

        :param format: ``ansible`` (an inventory in YAML, with a group for each role),
                       ``ssh_config`` (a file for ``ssh -F``), ``testinfra`` (a host on each
                       line), ``ducktape`` (the file of a JsonCluster) or ``json`` (default).
        :returns: The text of the file.
        :raises InvalidArgument: There is no such format.
        """
        from redock.cluster._inventory import write

        return write(self, format)

    def status(self) -> dict[str, Any]:
        """
        Describe the cluster.

        :returns: Its name, network, nodes (state, address, alias, port, roles), active faults and
                  snapshots; plain values that JSON can express.
        """
        states = self.refresh()
        return {
            "name": self.name,
            "network": str(self.network.subnet) if self.network else None,
            "nodes": [
                {
                    "name": node.name,
                    "state": states[node.name],
                    "address": node.ip,
                    "ssh_alias": node.ssh_alias,
                    "port": node.port,
                    "roles": sorted(node.spec.roles),
                }
                for node in self.nodes
            ],
            "faults": [fault.summary() for fault in self.faults],
            "snapshots": list(_snapshot.find_snapshots(self)),
        }

    def revive_owner(self, node: Node) -> bool:
        """
        Make sure the owner of a node runs; it may have been ended or removed by others.

        :param node: The node.
        :returns: False when it runs.
        """
        try:
            state = self.engine.inspect_container(node.owner_id)["State"]
        except NotFound:
            logger.warning("The network of node %s had gone: making it again", node.name)
            image = self._image_of(node)
            node.owner_id = _first_boot.create_owner(self, node, image)
        else:
            if state["Running"]:
                node.owner_since = state["StartedAt"]
                if state.get("Paused"):
                    self.engine.pause(node.owner_id, resume=True)
                return False
            logger.warning("The network of node %s had ended: starting it again", node.name)
        self.engine.begin_start(node.owner_id).result()
        node.owner_since = self.engine.inspect_container(node.owner_id)["State"]["StartedAt"]
        # What was made in the old network went with it; in those of other nodes it is left.
        for fault in self.faults:
            if node.name in fault.nodes and fault.in_network:
                try:
                    fault.heal()
                except RedockError as error:
                    logger.warning("Healing %s: %s", fault.text, error)
                    fault.forget()
        _clock.settle(node)
        node.touched = True
        return True

    def network_or_fail(self) -> _network.Network:
        """Get the network of the running cluster."""
        if self.network is None:
            raise NotFound(f"cluster {self.name} has not been started", 404)
        return self.network

    def _image_of(self, node: Node) -> str:
        """
        Find an image for the owner of a node.

        :param node: The node.
        :returns: The image of its system where that is there, else that of its specification.
        """
        try:
            return str(self.engine.inspect_container(node.container_id)["Image"])
        except NotFound:
            return _images.find_image(self.engine, node.spec)

    def start_system(self, node: Node) -> None:
        """
        Boot a node that has no power, with the disk it had.

        :param node: The node.
        """
        stream = self.engine.attach(node.container_id, "stdin")
        try:
            starting = self.engine.begin_start(node.container_id)
            # One that was never woken waits for it.
            stream.send(_boot.wake_up())
            starting.result()
        finally:
            stream.close()

    def boot_again(self, node: Node) -> None:
        """
        Boot a node that has no power, with the disk it had, and wait for it.

        :param node: The node.
        :raises NotFound: Its container was removed: only a snapshot can bring it back.
        """
        node.touched = True
        state = node.state
        if state == "gone":
            raise NotFound(f"node {node.name} has gone, with its disk: restore a snapshot", 404)
        self.revive_owner(node)
        if state == "paused":
            self.engine.pause(node.container_id, resume=True)
        elif state != "running":
            self.start_system(node)
        self.wait_for(node, Deadline(self.timeout))

    # Ending.

    def down(self) -> bool:
        """
        Take the cluster down: nodes, network, disks and snapshots. Nothing is left.

        :returns: False when there was nothing.
        """
        self.close()
        with self.locked():
            containers = _sharing.find_containers(self)
            for each in containers:
                _sharing.check_owner(self.name, each["Labels"])
            if containers:
                _process.begin_change(self.engine, self.name)
            found = _process.remove_cluster(self.engine, self.name)
        self.nodes = NodeSet([])
        self.active_faults.clear()
        self.created = False
        return found

    def close(self) -> None:
        """End what goes on in the background, and let the nodes be."""
        self.stagehand.close()
        for node in self.nodes:
            for program in (node._shell, node._delayer):
                if program is not None:
                    program.close()

    # Snapshots.

    def snapshot(self, name: str | None = None) -> Snapshot:
        """
        Save the disks of all nodes at one moment: what a power cut would leave.

        Memory and processes are not part of it. The nodes go on as they were.

        :param name: Its name (default: the number of the snapshot).
        :returns: The snapshot.
        :raises RedockError: A node could not be frozen or saved.
        """
        if name is not None:
            check_name(name, "a snapshot")
        self.network_or_fail()
        with self.locked():
            states = _sharing.refresh(self)
            name = name or self._number_snapshot()
            with self.timeline.during("snapshot", f"snapshot {name}"):
                return _snapshot.take(self, name, states)

    def _number_snapshot(self) -> str:
        """Find a name that no snapshot has."""
        there = self.snapshots()
        return next(name for name in (f"s{n}" for n in range(1, 10_000)) if name not in there)

    def snapshots(self) -> dict[str, Snapshot]:
        """
        Find the snapshots there are.

        :returns: The snapshots by name, the oldest first.
        """
        return _snapshot.find_snapshots(self)

    def restore(self, snapshot: Snapshot | str, *, full: bool = False) -> list[str]:
        """
        Heal all faults and boot all nodes with the disks of a snapshot.

        Names, addresses, ports, host keys and aliases stay. Nodes that nothing has reached since
        the snapshot (no command, no fault, no packet) are left running.

        :param snapshot: The snapshot, or its name.
        :param full: Boot also nodes that nothing has reached (default: no).
        :returns: The names of the nodes that were booted.
        :raises NotFound: There is no such snapshot.
        :raises RedockError: A node could not be brought back.
        """
        if isinstance(snapshot, str):
            found = self.snapshots()
            if snapshot not in found:
                names = ", ".join(found) or "none"
                raise NotFound(
                    f"cluster {self.name} has no snapshot {snapshot}; there are: {names}", 404
                )
            snapshot = found[snapshot]
        self.network_or_fail()
        with self.timeline.during("restore", f"restore {snapshot.name}") as event, self.locked():
            states = _sharing.refresh(self)
            _sharing.remove_strays(self)
            self._heal_for_restore()
            event.details["nodes"] = booted = _snapshot.restore(self, snapshot, full, states)
        return booted

    def _heal_for_restore(self) -> None:
        """Heal what would outlive a restore; the rest goes with what is replaced."""
        for fault in reversed(self.faults):
            if fault.outlives_restore:
                fault.heal()
            else:
                fault.forget()

    # Evidence.

    def collect(
        self,
        dest: str | os.PathLike[str],
        *,
        title: str = "",
        since: float = 0.0,
        facts: Mapping[str, str] | None = None,
        failure: str = "",
    ) -> list[str]:
        """
        Write down what can be known about the cluster.

        For each node what its first process printed (``NODE/engine.log``) and the logs that
        ``NodeSpec.logs`` declares (``NODE/var/log/...``); for all of them the timeline, as data
        (``timeline.json``) and as a page to look at (``timeline.html``). It works for nodes in any
        state, and they do not notice.

        :param dest: A directory; it is made when it is missing.
        :param title: What the page is about (default: the cluster).
        :param since: The moment it is about, from ``timeline.now()`` (default: the beginning).
        :param facts: More for the page to say, by name.
        :param failure: How it went wrong, for the page (default: it did not).
        :returns: The pathnames of the files.
        :raises StateError: They cannot be written.
        """
        from redock.cluster._collect import gather

        return gather(self, since).write(os.fspath(dest), title, facts, failure)

    @contextlib.contextmanager
    def rollback(self) -> Iterator[Snapshot]:
        """
        Take a snapshot now, and restore it at the end of the ``with`` block.

        :returns: A context manager that yields the snapshot.
        """
        snapshot = self.snapshot(f"rollback-{os.urandom(3).hex()}")
        try:
            yield snapshot
        finally:
            self.restore(snapshot)
            self.stagehand.add(
                f"deleting {snapshot.name}", lambda: _snapshot.delete(self, snapshot), always=True
            )
