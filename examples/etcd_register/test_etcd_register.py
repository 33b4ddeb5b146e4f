"""
etcd as a register: is it linearizable while the cluster is being broken?

Three nodes run etcd 3.4 from Debian's package. Clients in all three read, write and compare-and-
set a key, while nodes are cut off, frozen, crashed and kept without power. What they asked and were
told is put down with the times of both, and a checker (``linearizability.py``, which has tests of
its own) looks for an order that a single register could have seen.

Run it with ``pytest examples/etcd_register``.

What it shows:

- how to record a history that proves something: times are those of one clock, the host's; whatever
  was not answered, or with an error, may have happened then, later, or never;
- that etcd keeps its promise through a few faults: with ordinary reads there is always an order;
- that the checker would have noticed: "serializable" reads, which etcd answers from what a node
  happens to have, are *caught* when that node is cut off. A test that never fails proves nothing.

What it does not show: that etcd is linearizable. A test can find a violation, never exclude one,
and this is some seconds with one register at a time, no wrong clocks, no lost disks, no changes of
membership. It is Jepsen's idea in a nutshell, not Jepsen.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import etcd_client
import pytest
from linearizability import NotLinearizable, Operation, Value, linearize

from redock.bootstrap import Bootstrap
from redock.cluster import Cluster, Fault, Node
from redock.errors import RedockError

#: Seconds for what takes a moment when the machine has nothing else to do.
PATIENCE = 90.0
#: Seconds etcd has to answer a client, which is more than an election takes.
TIMEOUT = 2.0

MEMBER = """\
#!/bin/sh
exec /usr/bin/etcd --name $(hostname) --data-dir /var/lib/etcd/register \\
    --listen-peer-urls http://0.0.0.0:2380 --initial-advertise-peer-urls http://$(hostname):2380 \\
    --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://$(hostname):2379 \\
    --initial-cluster n1=http://n1:2380,n2=http://n2:2380,n3=http://n3:2380
"""

SERVICE = """\
[program:etcd]
command = /usr/local/bin/member
redirect_stderr = true
stdout_logfile = /var/log/etcd.log
"""


def provision(host: Bootstrap) -> None:
    """Nodes know each other by name, so all three are the same."""
    host.file("/usr/local/bin/member", MEMBER, mode=0o755)
    host.file("/etc/supervisor/conf.d/etcd.conf", SERVICE)


@pytest.fixture(scope="module")
def members() -> Iterator[Cluster]:
    """Three members that have found each other, and a snapshot of them."""
    packages = ["etcd-server", "etcd-client"]
    with Cluster(nodes=3, packages=packages, provision=provision) as cluster:
        wait_until_healthy(cluster)
        cluster.snapshot("ready")
        yield cluster


@pytest.fixture
def cluster(members: Cluster) -> Cluster:
    """The same, as good as new."""
    members.restore("ready")
    wait_until_healthy(members)
    return members


def wait_until_healthy(cluster: Cluster) -> None:
    """Wait until every member knows of all three, and answers a read, which needs a leader."""
    for node in cluster:
        node.wait_until_succeeds(
            "export ETCDCTL_API=3; etcdctl endpoint health &&"
            " etcdctl member list | grep -c started | grep -qx 3",
            timeout=PATIENCE,
        )


def leader_and_followers(cluster: Cluster) -> list[Node]:
    """Find the leader, and put it in front of the others."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for node in cluster:
            status = node.run("ETCDCTL_API=3 etcdctl endpoint status", timeout=20).stdout
            # ENDPOINT, ID, VERSION, DB SIZE, IS LEADER, ...
            if status.split(", ")[4:5] == ["true"]:
                return [node, *(each for each in cluster if each is not node)]
    raise AssertionError("nobody says to be the leader")


class Load:
    """
    Clients at work in all nodes, and the history of what they did.

    :param cluster: The cluster.
    :param stale: Let any node answer reads from what it has: etcd's "serializable" reads.
    :param per_key: How many operations use the same key, so that one without an answer burdens
                    few others.
    """

    def __init__(self, cluster: Cluster, *, stale: bool = False, per_key: int = 150) -> None:
        self.stale = stale
        self.per_key = per_key
        self.numbers = itertools.count(1)
        self.histories: dict[str, list[Operation]] = defaultdict(list)
        self.progress = threading.Condition()
        #: How many operations of each kind have been answered, by node.
        self.answered: dict[tuple[str, str], int] = defaultdict(int)
        self.unknown = 0
        self.failures: list[BaseException] = []
        self.stopped = threading.Event()
        self.threads = [
            threading.Thread(target=self.work, args=(node, f"{node.name}/{number}"))
            for node in cluster
            for number in (1, 2)
        ]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self.threads), "a client hangs"
        if self.failures:
            raise self.failures[0]

    def work(self, node: Node, name: str) -> None:
        """Be a client, and come again when the node has been without power."""
        chance = random.Random(name)
        while not self.stopped.is_set():
            try:
                gateway = node.gateway()
            except RedockError:
                self.stopped.wait(0.2)
                continue
            try:
                self.talk(gateway.remote_exec(etcd_client), node.name, name, chance)
            except (EOFError, OSError):
                # The node has lost its power. What was asked and not answered is in the history.
                continue
            except BaseException as error:
                self.failures.append(error)
                raise
            finally:
                with contextlib.suppress(Exception):
                    gateway.exit()

    def talk(self, channel: Any, node: str, name: str, chance: random.Random) -> None:
        """Ask one thing after another."""
        seen: Value = None
        while not self.stopped.wait(0.005):
            number = next(self.numbers)
            key = f"key{number // self.per_key}"
            kind = chance.choice(["read", "read", "write", "cas"])
            # Every value is written once, so that a read says exactly which write it has seen.
            value = None if kind == "read" else number
            invoked = time.monotonic()
            outcome, answer = "unknown", None
            try:
                channel.send((number, (kind, key, value, seen, self.stale, TIMEOUT)))
                outcome, answer = receive(channel, number)
            finally:
                asked = Operation(kind, value, invoked, expected=seen, client=name)  # type: ignore[arg-type]
                self.note(node, key, asked, outcome, answer)
            if outcome == "ok" and answer is not False:
                seen = answer if kind == "read" else value

    def note(self, node: str, key: str, asked: Operation, outcome: str, answer: Any) -> None:
        """Put an operation down, now that the answer is here, or that there is none."""
        returned = time.monotonic()
        with self.progress:
            if outcome == "ok":
                changes = {"value": answer} if asked.kind == "read" else {}
                changes |= {"swapped": answer} if asked.kind == "cas" else {}
                done = Operation(**{**vars(asked), **changes, "returned": returned})
                self.histories[key].append(done)
                self.answered[node, asked.kind] += 1
                self.progress.notify_all()
            elif outcome == "unknown" and asked.kind != "read":
                self.histories[key].append(asked)
                self.unknown += 1

    def wait_for(self, nodes: list[Node], count: int = 10, kinds: str = "read write cas") -> None:
        """Wait until so many more operations of each kind have been answered in each node."""
        with self.progress:
            wanted = {
                (node.name, kind): self.answered[node.name, kind] + count
                for node in nodes
                for kind in kinds.split()
            }
            if not self.progress.wait_for(lambda: self.reached(wanted), PATIENCE):
                raise AssertionError(f"answered: {dict(self.answered)}; wanted: {wanted}")

    def reached(self, wanted: dict[tuple[str, str], int]) -> bool:
        return bool(self.failures) or all(
            self.answered[each] >= count for each, count in wanted.items()
        )


def receive(channel: Any, number: int) -> tuple[str, Any]:
    """Wait for an answer; one that comes too late belongs to another question."""
    deadline = time.monotonic() + 2 * TIMEOUT
    while True:
        try:
            which, outcome, answer = channel.receive(max(0.0, deadline - time.monotonic()))
        except channel.TimeoutError:
            return "unknown", None
        if which == number:
            return outcome, answer


# How to break it, given the leader and two followers, and in which nodes work must go on.

Break = Callable[[Cluster, Node, Node, Node], tuple[Fault, list[Node]]]

FAULTS: dict[str, Break] = {
    "the leader is cut off": lambda cluster, leader, one, two: (
        cluster.partition([leader]),
        [one, two],
    ),
    "the leader is not heard": lambda cluster, leader, one, two: (
        cluster.partition([leader], one_way=True),
        [one, two],
    ),
    "a follower is cut off": lambda cluster, leader, one, two: (
        cluster.isolate(one),
        [leader, two],
    ),
    "two see the third but not each other": lambda cluster, leader, one, two: (
        cluster.drop([leader, one], [leader, one]),
        [two],
    ),
    "the leader is frozen": lambda cluster, leader, one, two: (cluster.pause(leader), [one, two]),
    "the leader has no power": lambda cluster, leader, one, two: (cluster.kill(leader), [one, two]),
}


@pytest.mark.parametrize("what", FAULTS)
def test_there_is_an_order_whatever_is_broken(cluster: Cluster, what: str) -> None:
    with Load(cluster) as load:
        load.wait_for(list(cluster))
        leader, one, two = leader_and_followers(cluster)
        fault, working = FAULTS[what](cluster, leader, one, two)
        with fault:
            load.wait_for(working)
        load.wait_for(list(cluster))
    for history in load.histories.values():
        linearize(history)


def test_there_is_an_order_when_nodes_crash_one_after_the_other(cluster: Cluster) -> None:
    with Load(cluster) as load:
        load.wait_for(list(cluster))
        for node in cluster:
            node.crash()
            load.wait_for(list(cluster), count=5)
    for history in load.histories.values():
        linearize(history)


def test_stale_reads_are_caught(cluster: Cluster) -> None:
    with Load(cluster, stale=True, per_key=10**9) as load:
        load.wait_for(list(cluster))
        leader, one, two = leader_and_followers(cluster)
        with cluster.isolate(one):
            load.wait_for([leader, two], kinds="write")
            load.wait_for([one], count=3, kinds="read")
    (history,) = load.histories.values()
    # It is what that node has answered that cannot be; without it there is an order.
    changes = [each for each in history if each.kind != "read"]
    reads = [each for each in history if each.kind == "read" and each.client.startswith(one.name)]
    linearize(changes)
    with pytest.raises(NotLinearizable):
        linearize(changes + reads)
