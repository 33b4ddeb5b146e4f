"""
The clusters of a test run: making them, rewinding them, and what becomes of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os

import pytest

from redock._engine import Engine
from redock._files import Lock, path_in_home
from redock._process import Deadline
from redock.cluster import Cluster, _process
from redock.cluster._collect import log_sizes
from redock.errors import LockTimeout, RedockError
from redock.pytest_plugin import _options, _wanted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from redock.cluster import Snapshot

__all__ = ["BASE", "FAILED", "Managed", "RedockSession", "choose_seed"]

logger = logging.getLogger("redock.pytest")

#: The name of the snapshot every test starts from.
BASE = "base"
#: The snapshot a reused cluster starts from: before the fixtures of a run have done anything.
PROVISIONED = "provisioned"
#: Seconds to wait until there may be another cluster.
PATIENCE = 1800.0

FAILED = pytest.StashKey[bool]()
SESSION = pytest.StashKey["RedockSession"]()


@dataclasses.dataclass
class Managed:
    """
    A cluster and what the run knows about it.

    :param cluster: The cluster.
    :param locks: What it holds while it is in use.
    :param snapshot: The state ``base``, None before the first test.
    :param carried: Whether the last test has left it changed, as its marker says.
    :param kept: Whether it is to stay as it is.
    :param mark: The moment the present test began, on the cluster's timeline.
    :param sizes: How large the declared logs were in the state ``base``.
    """

    cluster: Cluster
    locks: list[Lock]
    snapshot: Snapshot | None = None
    carried: bool = False
    kept: bool = False
    mark: float = 0.0
    sizes: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether a command or a fault may have changed a node since the state ``base``."""
        return any(node.touched for node in self.cluster.nodes)

    def prepare(self) -> None:
        """Make sure there is a state ``base``, with all that fixtures of a wide scope have done."""
        if self.snapshot is None or (self.changed and not self.carried):
            self.snapshot = self.cluster.snapshot(BASE)
            self.sizes = log_sizes(self.cluster)
        self.mark = self.cluster.timeline.now()

    def release(self) -> None:
        """Let others have its place."""
        while self.locks:
            self.locks.pop().release()


class RedockSession:
    """
    A test run, or what one worker does of it.

    :param config: pytest's configuration.
    """

    def __init__(self, config: pytest.Config) -> None:
        given = getattr(config, "workerinput", {})
        self.config = config
        self.options = _options.read(config)
        #: What all clusters of the run have in common, in their labels and names.
        self.run: str = given.get("redock_run") or os.urandom(6).hex()
        #: What everything random in the run is made from.
        self.seed: int = given["redock_seed"] if "redock_seed" in given else choose_seed(config)
        #: The name of the worker; empty without pytest-xdist.
        self.worker: str = given.get("workerid", "")
        #: Where temporary directories come from.
        self.factory: pytest.TempPathFactory | None = None
        #: The clusters that are there.
        self.live: list[Managed] = []
        #: How many were made.
        self.made = 0
        #: What is kept: the aliases of the nodes by the name of the cluster.
        self.kept: dict[str, list[str]] = {}
        #: Whether evidence has been written.
        self.collected = False
        self.item: pytest.Item | None = None
        #: The next test of the run.
        self.next: pytest.Item | None = None
        #: A base cluster that no test can use any more.
        self.spent = False
        _process.join_run(self.run, self.worker)

    @classmethod
    def of(cls, config: pytest.Config) -> RedockSession:
        """
        Get the session of a run; there is one.

        :param config: pytest's configuration.
        :returns: The session.
        """
        if SESSION not in config.stash:
            config.stash[SESSION] = cls(config)
        return config.stash[SESSION]

    @property
    def artifacts(self) -> str:
        """The directory that evidence is written to."""
        if self.options.artifacts:
            return self.options.artifacts
        assert self.factory is not None
        return os.path.join(str(self.factory.getbasetemp()), "redock")

    def seed_for(self, item: pytest.Item) -> int:
        """
        Get the seed of a test: it depends on the run's seed and the test's name, and nothing else.

        :param item: The test.
        :returns: A number.
        """
        from redock.pytest_plugin._workers import name_of

        return int(hashlib.sha256(f"{self.seed}:{name_of(item)}".encode()).hexdigest()[:8], 16)

    # Making clusters.

    def wanted(self) -> dict[str, Any]:
        """
        Find out what the present test wants its cluster to be.

        :returns: The parameters of a cluster.
        """
        return _wanted.settings_for(self.item) if self.item is not None else {}

    def make(self, nodes: Any = None, **settings: Any) -> Cluster:
        """
        Make a cluster, start it and let hooks provision it.

        :param nodes: As for :class:`Cluster`, or the pathname of a TOML file (default: three).
        :param settings: As for :class:`Cluster`, except ``name``, ``keep`` and ``engine``.
        :returns: The cluster; it goes at the end of the run unless it is taken down before.
        :raises RedockError: It could not be started.
        """
        return self.manage({**_wanted.settings_of(nodes), **_wanted.settings_of(settings)}).cluster

    def manage(self, settings: dict[str, Any]) -> Managed:
        """
        Make a cluster and take care of it.

        :param settings: The parameters of a cluster.
        :returns: The cluster, started and provisioned.
        """
        locks = self.take_place()
        try:
            managed = self.find(settings, locks) if self.options.reuse else None
            if managed is None:
                self.made += 1
                worker = f"{self.worker}-" if self.worker else ""
                name = f"t{self.run[:7]}-{worker}{self.made}"
                managed = Managed(Cluster(**{**settings, "name": name}), locks)
                self.boot(managed)
        except BaseException:
            for lock in locks:
                lock.release()
            raise
        self.live.append(managed)
        return managed

    def boot(self, managed: Managed) -> None:
        """
        Start a cluster and provision it; nothing is left when that fails.

        :param managed: The cluster.
        """
        managed.cluster.start()
        try:
            self.config.hook.pytest_redock_provision(cluster=managed.cluster)
        except BaseException:
            managed.cluster.down()
            raise

    def take_place(self) -> list[Lock]:
        """
        Wait until there may be another cluster on this host.

        :returns: The lock of the place it takes; none when there is no limit.
        :raises LockTimeout: There is no place; this process may have all of them.
        """
        most = self.options.max_clusters
        if most is None:
            return []
        for managed in self.live:
            if not len(managed.cluster.nodes):
                managed.release()
        if sum(1 for managed in self.live if managed.locks) >= most:
            raise LockTimeout(
                f"this test needs one more cluster than --redock-max-clusters={most} allows"
            )
        deadline = Deadline(PATIENCE)
        while True:
            for number in range(most):
                path = path_in_home("locks", f".pytest-place-{number}.lock")
                lock = Lock(path, f"place {number} for clusters of tests", timeout=0.0)
                with contextlib.suppress(LockTimeout):
                    lock.acquire()
                    return [lock]
            if deadline.passed:
                raise LockTimeout(
                    f"no place for another cluster within {PATIENCE:g} seconds:"
                    f" other test runs have all {most} (--redock-max-clusters)"
                )
            deadline.sleep(0.2)

    def find(self, settings: dict[str, Any], locks: list[Lock]) -> Managed | None:
        """
        Find the cluster an earlier run has kept, or make one that later runs will find.

        :param settings: The parameters of the cluster.
        :param locks: What it holds already; the lock of its name is added.
        :returns: The cluster, None when another run is using it.
        """
        name = f"r{self.reuse_key(settings)}-{self.worker or 'main'}"
        lock = Lock(path_in_home("locks", f".pytest-{name}.lock"), f"cluster {name}", timeout=0.0)
        try:
            lock.acquire()
        except LockTimeout:
            logger.warning("Another test run is using the cluster %s: making a new one", name)
            return None
        locks.append(lock)
        managed = Managed(Cluster(**{**settings, "name": name, "keep": True}), locks)
        cluster = managed.cluster
        try:
            cluster.start()
            found = None if cluster.created else cluster.snapshots()[PROVISIONED]
            if found is not None:
                cluster.restore(found, full=True)
                return managed
        except (RedockError, KeyError) as error:
            # Whatever is left of an earlier run, a new one is as good.
            logger.info("Making the cluster %s again: %s", name, error)
            cluster.down()
            managed.cluster = cluster = Cluster(**{**settings, "name": name, "keep": True})
        self.boot(managed)
        self.made += 1
        cluster.snapshot(PROVISIONED)
        return managed

    def reuse_key(self, settings: dict[str, Any]) -> str:
        """
        Get what tells a cluster from those that were made otherwise, in this and other projects.

        :param settings: The parameters of the cluster.
        :returns: Ten hexadecimal digits.
        """
        from redock.cluster._images import source_of
        from redock.cluster._spec import make_nodes

        cluster = Cluster(**settings)
        hooks = self.config.hook.pytest_redock_provision.get_hookimpls()
        made = make_nodes(cluster.spec.nodes, {})
        return _wanted.key_for(
            {
                "project": str(self.config.rootpath),
                "settings": {**settings, "nodes": made},
                "sources": [source_of(node) for node in made],
                "hooks": [_wanted.source_of(each.function) for each in hooks],
            }
        )

    # The base cluster of a test.

    @contextlib.contextmanager
    def base(self, spec: Any) -> Iterator[Cluster]:
        """
        Make a base cluster, for as long as a ``with`` block runs.

        :param spec: What the fixture ``cluster_spec`` said.
        :returns: A context manager that yields the cluster.
        """
        directory = str(self.item.path.parent) if self.item is not None else ""
        settings = _wanted.settings_of(spec, directory)
        if self.options.scope == "function":
            # Nobody will go back to its state.
            settings.setdefault("standbys", False)
        managed = self.manage(settings)
        try:
            yield managed.cluster
        finally:
            self.spent = False
            self.part(managed)

    def of_cluster(self, cluster: Cluster) -> Managed:
        """
        Find what the run knows about a cluster.

        :param cluster: The cluster.
        :returns: What it knows; a fixture of the user's may have made it.
        """
        for managed in self.live:
            if managed.cluster is cluster:
                return managed
        managed = Managed(cluster, [])
        self.live.append(managed)
        return managed

    def begin(self, item: pytest.Item, cluster: Cluster) -> None:
        """
        Bring a cluster into the state a test starts from.

        :param item: The test.
        :param cluster: The cluster.
        """
        self.of_cluster(cluster).prepare()

    def end(self, item: pytest.Item, cluster: Cluster) -> None:
        """
        Heal and rewind a cluster after a test, or keep it.

        :param item: The test.
        :param cluster: The cluster.
        :raises RedockError: It could not be brought back; the next test gets another one.
        """
        managed = self.of_cluster(cluster)
        failed = item.stash.get(FAILED, False)
        if managed.kept:
            self.spent = True
            return
        if not self.is_needed(item):
            return
        try:
            cluster.heal()
            if policy(item) == "always" or (policy(item) == "failed" and failed):
                assert managed.snapshot is not None
                cluster.restore(managed.snapshot)
                managed.carried = False
            else:
                managed.carried = True
        except RedockError:
            self.spent = True
            raise

    def is_needed(self, item: pytest.Item) -> bool:
        """
        Check whether the base cluster of a test will be needed after it.

        :param item: The test.
        :returns: False when it ends with the test.
        """
        kinds: dict[str, type[pytest.Collector | pytest.Item]] = {
            "function": pytest.Item,
            "class": pytest.Class,
            "module": pytest.Module,
            "package": pytest.Package,
        }
        if self.next is None or self.options.scope == "function":
            return False
        kind = kinds.get(self.options.scope)
        if kind is None:
            return True
        mine, next = item.getparent(kind), self.next.getparent(kind)
        return mine is None or mine is next

    def part(self, managed: Managed) -> None:
        """
        Take a cluster down, or leave it where it is to be kept.

        :param managed: The cluster.
        """
        cluster = managed.cluster
        if self.options.keep == "always" and not managed.kept and len(cluster.nodes):
            self.keep(managed)
        if managed in self.live:
            self.live.remove(managed)
        try:
            if managed.kept or cluster.keep:
                self.kept[cluster.name] = [node.ssh_alias for node in cluster.nodes]
                cluster.close()
            else:
                cluster.down()
        finally:
            managed.release()

    def keep(self, managed: Managed) -> None:
        """
        Let a cluster outlive the run, as it is now.

        :param managed: The cluster.
        """
        cluster = managed.cluster
        _process.keep(cluster.engine, cluster.name)
        managed.kept = True

    def close(self) -> None:
        """Take everything down that is to go."""
        for managed in reversed(self.live):
            self.part(managed)
        if not self.live:
            _process.Watchdog.dismiss(Engine())


def policy(item: pytest.Item) -> str:
    """
    Find out when a cluster is to be rewound after a test.

    :param item: The test.
    :returns: ``always``, ``failed`` or ``never``.
    :raises pytest.UsageError: Its marker says something else.
    """
    marker = item.get_closest_marker("rollback")
    when = "always" if marker is None else (marker.args or tuple(marker.kwargs.values()))[0]
    if when not in ("always", "failed", "never"):
        raise pytest.UsageError(
            f"{item.nodeid}: rollback({when!r}) is none of always, failed, never"
        )
    return str(when)


def choose_seed(config: pytest.Config) -> int:
    """
    Choose what everything random in a run is made from.

    :param config: pytest's configuration.
    :returns: What the options say, else a random number.
    """
    seed = _options.read(config).seed
    return int.from_bytes(os.urandom(4), "big") if seed is None else seed
