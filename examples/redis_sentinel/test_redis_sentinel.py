"""
Redis with Sentinel: what a failover keeps, and what it loses.

Three nodes; each runs a Redis server and a Sentinel, both from Debian's packages. One server is
the primary, the others are its replicas. When two of the three Sentinels have not heard from the
primary for two seconds, they promote a replica.

Run it with ``pytest examples/redis_sentinel``. The first run installs the packages, later ones
start from the disk that was kept.

What it shows:

- how to start services in nodes, take a snapshot when all of them are ready, and go back to it
  before every test (``provision``, ``configure``, and the two fixtures);
- that a partition, a power cut and a frozen machine each make the Sentinels promote a replica, and
  that the old primary comes back as a replica when the partition heals;
- that a primary which is cut off goes on to acknowledge writes, and that *all of them are lost*
  when the partition heals. That is no bug: replication is asynchronous;
- that ``min-replicas-to-write`` bounds this: after the seconds of ``min-replicas-max-lag`` the
  primary refuses writes. What it acknowledged before that is still lost.

What it does not show: that any of it holds for other versions, sizes or settings; what happens when
a disk loses what was not flushed (a "power cut" here ends all processes, but what they had written
is in the memory of the host's kernel, and survives).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from redock.bootstrap import Bootstrap
from redock.cluster import Cluster, Node

PORT = "6379"
SENTINEL = "26379"
#: Seconds for what takes two or three when the machine has nothing else to do.
PATIENCE = 90.0

# Getting there: software and services are part of the disk that is kept, ...

SERVICES = """\
[program:redis]
command = /usr/bin/redis-server /etc/redis/node.conf
user = redis
[program:sentinel]
command = /usr/bin/redis-sentinel /etc/redis/watch.conf
user = redis
"""

SERVER = """\
bind 0.0.0.0
protected-mode no
dir /var/lib/redis
appendonly yes
appendfsync always
repl-diskless-sync-delay 0
"""

WATCHER = """\
bind 0.0.0.0
protected-mode no
dir /tmp
sentinel monitor db {primary} 6379 2
sentinel down-after-milliseconds db 2000
sentinel failover-timeout db 5000
"""


def provision(host: Bootstrap) -> None:
    """Say what is the same in all nodes."""
    host.file("/etc/supervisor/conf.d/redis.conf", SERVICES)


# ... what differs from node to node, or needs their addresses, is done when they are there.


def configure(node: Node, primary: Node) -> None:
    """Give a node its part."""
    part = "" if node is primary else f"replicaof {primary.ip} {PORT}\n"
    with node.bootstrap() as host:
        # Both programs write what they find out into their own configuration.
        for path, text in (
            ("/etc/redis/node.conf", SERVER + part),
            ("/etc/redis/watch.conf", WATCHER.format(primary=primary.ip)),
        ):
            host.file(path, text, owner="redis", group="redis", mode=0o640)
        host.service("redis", "restarted")
        host.service("sentinel", "restarted")


@pytest.fixture(scope="module")
def replicated() -> Iterator[Cluster]:
    """Three nodes that replicate, and a snapshot of them called "ready"."""
    packages = ["redis-server", "redis-sentinel"]
    with Cluster(nodes=3, packages=packages, provision=provision) as cluster:
        for node in cluster:
            configure(node, primary=cluster["n1"])
        wait_until_ready(cluster)
        cluster.snapshot("ready")
        yield cluster


@pytest.fixture
def cluster(replicated: Cluster) -> Cluster:
    """The same, as good as new."""
    replicated.restore("ready")
    wait_until_ready(replicated)
    return replicated


# What the tests say is said with these.


def redis(node: Node, *words: str, port: str = PORT) -> str:
    """Give a command to a server; an error it answers with is raised."""
    return node.succeed("redis-cli", "-e", "-p", port, *words, timeout=20).strip()


def accepts(node: Node, key: str) -> bool:
    """Write a key, and find out whether that was acknowledged."""
    result = node.run("redis-cli", "-e", "set", key, "written", timeout=20)
    assert result or "NOREPLICAS" in result.stdout + result.stderr, result
    return bool(result)


def known_primary(watcher: Node) -> str:
    """Ask a Sentinel for the address of the primary."""
    return redis(watcher, "sentinel", "get-master-addr-by-name", "db", port=SENTINEL).split()[0]


def wait_until_ready(cluster: Cluster) -> None:
    """Wait until there is a primary with two replicas, and all Sentinels know of each other."""
    for node in cluster:
        node.wait_until_succeeds(
            f"redis-cli -p {SENTINEL} sentinel master db | paste - - |"
            " grep -cE '^(flags\tmaster|num-slaves\t2|num-other-sentinels\t2)$' | grep -qx 3",
            timeout=PATIENCE,
        )
    for node in cluster:
        if node.ip == known_primary(node):
            node.wait_until_succeeds(
                "redis-cli info replication | grep -c state=online | grep -qx 2", timeout=PATIENCE
            )


def primary_of(cluster: Cluster) -> tuple[Node, list[Node]]:
    """Find the primary and the others."""
    address = known_primary(cluster["n1"])
    (primary,) = (node for node in cluster if node.ip == address)
    return primary, [node for node in cluster if node is not primary]


def wait_for_another(old: Node, others: list[Node]) -> Node:
    """Wait until those that are left agree on another primary, and it has taken over."""
    for node in others:
        node.wait_until_succeeds(
            f"redis-cli -p {SENTINEL} sentinel get-master-addr-by-name db | head -n 1 |"
            f" grep -vxF {old.ip}",
            timeout=PATIENCE,
        )
    (new,) = (node for node in others if node.ip == known_primary(others[0]))
    new.wait_until_succeeds("redis-cli role | grep -qx master", timeout=PATIENCE)
    return new


def wait_until_follows(node: Node, primary: Node) -> None:
    """Wait until a node is a replica of another one, and up to date."""
    node.wait_until_succeeds(
        "redis-cli info replication | tr -d '\\r' |"
        f" grep -cE '^(master_host:{primary.ip}|master_link_status:up)$' | grep -qx 2",
        timeout=PATIENCE,
    )


def write_during(old: Node, others: list[Node], *, enough: int) -> tuple[list[str], list[str]]:
    """
    Write to a primary that is cut off, until the others have another one, and then some more.

    Returns the keys it acknowledged and those it refused.
    """
    answers: dict[bool, list[str]] = {True: [], False: []}
    deadline = time.monotonic() + PATIENCE
    number = after = 0
    while after < enough:
        assert time.monotonic() < deadline, "no other primary was elected"
        key = f"cut:{number}"
        answers[accepts(old, key)].append(key)
        number += 1
        after += known_primary(others[0]) != old.ip
    return answers[True], answers[False]


# The tests.


def test_what_the_minority_acknowledges_is_lost(cluster: Cluster) -> None:
    old, others = primary_of(cluster)
    redis(old, "set", "before", "the cut")
    assert redis(old, "wait", "2", "20000") == "2"

    with cluster.partition([old], others):
        acknowledged, refused = write_during(old, others, enough=5)
        new = wait_for_another(old, others)
        redis(new, "set", "during", "the cut")
        # There are two primaries now, and both take what they are given.
        assert redis(old, "role").startswith("master")
        assert refused == []
        assert redis(old, "exists", *acknowledged) == str(len(acknowledged))

    # The Sentinels wait for some ten seconds before they turn the old primary into a replica.
    wait_until_follows(old, new)
    for node in cluster:
        assert redis(node, "mget", "before", "during").split("\n") == ["the cut", "the cut"]
        assert redis(node, "exists", *acknowledged) == "0", "nothing was lost: is it synchronous?"


def test_a_primary_that_wants_a_replica_stops_in_time(cluster: Cluster) -> None:
    old, others = primary_of(cluster)
    for node in cluster:
        redis(node, "config", "set", "min-replicas-to-write", "1", "min-replicas-max-lag", "2")
    old.wait_until_succeeds("redis-cli -e set before 'the cut'", timeout=PATIENCE)
    assert redis(old, "wait", "2", "20000") == "2"

    with cluster.partition([old], others):
        acknowledged, refused = write_during(old, others, enough=5)
        new = wait_for_another(old, others)
        # The replicas have been silent for too long: what is refused once stays refused, ...
        old.wait_until_fails("redis-cli -e set probe written", timeout=PATIENCE)
        assert not any(accepts(old, f"late:{number}") for number in range(20))
        # ... while the side with the majority works.
        new.wait_until_succeeds("redis-cli -e set during 'the cut'", timeout=PATIENCE)

    # What is lost is what was acknowledged before the primary could know; it comes first.
    first = [int(key.removeprefix("cut:")) for key in acknowledged]
    assert first == list(range(len(first)))
    assert [int(key.removeprefix("cut:")) for key in refused] == list(
        range(len(first), len(first) + len(refused))
    )
    assert redis(new, "mget", "before", "during").split("\n") == ["the cut", "the cut"]


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_primary_without_power_or_without_an_answer_is_replaced(
    cluster: Cluster, how: str
) -> None:
    old, others = primary_of(cluster)
    redis(old, "set", "before", how)
    assert redis(old, "wait", "2", "20000") == "2"

    with old.kill() if how == "kill" else old.pause():
        new = wait_for_another(old, others)
        assert redis(new, "get", "before") == how
        redis(new, "set", "during", how)


def test_a_crash_loses_nothing_that_was_acknowledged(cluster: Cluster) -> None:
    old, _ = primary_of(cluster)
    redis(old, "mset", *(word for number in range(100) for word in (f"key:{number}", "written")))
    assert redis(old, "wait", "2", "20000") == "2"

    old.crash()

    wait_until_ready(cluster)
    # It was quick enough to stay the primary, or it was not; the data is there.
    primary, _ = primary_of(cluster)
    assert redis(primary, "dbsize") == "100"
