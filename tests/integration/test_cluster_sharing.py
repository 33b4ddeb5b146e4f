"""Several processes and one cluster: side by side, one after another, and one that was killed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redock._engine import KIND, Engine, label
from redock.cluster import Cluster
from redock.errors import NotFound

from .conftest import REDOCK, Home, command, redock, ssh
from .harness import PATIENCE, ROUNDS
from .test_cluster import leftovers, make_cluster, reaches

__all__ = ["make_cluster"]


def systems(engine: Engine, name: str) -> list[str]:
    """List the containers that are nodes, or wait to become one, or were one."""
    filters = {"label": [f"{KIND}=node", f"{label('cluster')}={name}"]}
    return sorted(each["Names"][0] for each in engine.containers(filters))


def assert_whole(name: str, engine: Engine, count: int = 2) -> None:
    """Check that a cluster runs, that its aliases lead into it, and that there is nothing else."""
    nodes = [f"n{number}" for number in range(1, count + 1)]
    done = redock("cluster", "exec", name, "--", "hostname")
    assert sorted(done.stdout.splitlines()) == [f"{node} | {node}" for node in nodes], done.stderr
    for node in nodes:
        assert ssh(f"{name}-{node}-container", "hostname").stdout == f"{node}\n"
    assert systems(engine, name) == [f"/redock-{name}.{node}" for node in nodes]


def test_another_process_restores_while_replacements_wait(
    make_cluster: Callable[..., Cluster], engine: Engine
) -> None:
    mine = make_cluster(2, keep=True)
    mine.start()
    mine["n1"].succeed("echo one >/root/note")
    snapshot = mine.snapshot("s")
    mine["n1"].succeed("echo two >/root/note")
    mine.snapshot("other")
    mine.snapshot("s2")
    mine.stagehand.wait()
    waiting = {standby.container for standby in mine.stagehand.ready.values()}
    before = {node.name: node.container_id for node in mine}
    assert redock("cluster", "restore", mine.name, "s").returncode == 0
    # Ours wait on: the other process neither used nor removed them.
    assert all(engine.inspect_container(each)["State"]["Running"] for each in waiting)
    # What ran is another container now, and found when it is needed.
    assert mine["n1"].succeed("cat /root/note") == "one\n"
    assert mine["n1"].state == "running"
    mine["n2"].put(b"here", "/root/file")
    assert mine["n2"].get("/root/file") == b"here"
    assert all(node.container_id != before[node.name] for node in mine)
    assert redock("cluster", "restore", mine.name, "s").returncode == 0
    with mine["n2"].pause():
        assert mine.states()["n2"] == "paused"
    # Theirs is undone by ours, with the replacements that waited.
    assert sorted(mine.restore("s2")) == ["n1", "n2"]
    assert {node.container_id for node in mine} == waiting
    assert mine["n1"].succeed("cat /root/note") == "two\n"
    assert mine.restore(snapshot)
    assert mine["n1"].succeed("cat /root/note") == "one\n"
    mine.close()
    assert_whole(mine.name, engine)


def test_faults_of_another_process_are_healed_by_ours(
    make_cluster: Callable[..., Cluster],
) -> None:
    mine = make_cluster(2)
    mine.start()
    snapshot = mine.snapshot("s")
    assert redock("cluster", "partition", mine.name, "n1").returncode == 0
    assert redock("cluster", "pause", mine.name, "n2").returncode == 0
    assert mine.faults == []
    mine.restore(snapshot)
    assert mine.faults == []
    assert reaches(mine["n1"], mine["n2"])
    fault = mine.partition("n1")
    # The other way round: healed by another process, a fault of ours is known to be no more.
    assert redock("cluster", "heal", mine.name).stdout == "healed: partition n1 | n2\n"
    assert fault.active
    mine.refresh()
    assert not fault.active
    assert mine.faults == []
    fault.heal()


def test_many_processes_change_one_cluster_at_the_same_time(
    make_cluster: Callable[..., Cluster], engine: Engine
) -> None:
    name = make_cluster(2, keep=True).name
    with ThreadPoolExecutor(8) as pool:
        file = Path("cluster.toml")
        assert not file.exists()
        made = list(pool.map(lambda _: up(name), range(3)))
        assert [each.returncode for each in made] == [0, 0, 0], made
        assert redock("cluster", "snapshot", name, "s").returncode == 0
        todo = [
            ["restore", name, "s"],
            ["partition", name, "n1"],
            ["snapshot", name],
            ["heal", name],
        ]
        done = list(pool.map(lambda words: redock("cluster", *words), todo * 2 * ROUNDS))
    assert {each.returncode for each in done} == {0}, [each.stderr for each in done]
    assert redock("cluster", "restore", name, "s").returncode == 0
    assert redock("cluster", "heal", name).returncode == 0
    assert_whole(name, engine)


PROGRAM = """
import sys
from redock.cluster import Cluster
cluster = Cluster(nodes=2, name=sys.argv[1], keep=True, standbys=False)
cluster.start()
cluster.close()
"""


def up(name: str) -> subprocess.CompletedProcess[str]:
    """Start a cluster that is kept, in a process of its own."""
    return command(REDOCK[0], "-c", PROGRAM, name)


def kill_after(seconds: float, *words: str) -> None:
    """Start a program, and kill it in the middle."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.mark.parametrize("moment", [0.35, 0.6, 1.0])
def test_a_start_and_an_end_that_were_killed_are_finished_by_the_next(
    moment: float, make_cluster: Callable[..., Cluster], engine: Engine
) -> None:
    name = make_cluster(2, keep=True).name
    kill_after(moment, REDOCK[0], "-c", PROGRAM, name)
    assert up(name).returncode == 0
    assert_whole(name, engine)
    kill_after(moment / 2, *REDOCK, "cluster", "down", name)
    assert up(name).returncode == 0
    assert_whole(name, engine)
    redock("cluster", "down", name)
    assert leftovers(engine, name) == []


def test_a_restore_that_was_killed_is_finished_by_the_next(
    make_cluster: Callable[..., Cluster], engine: Engine
) -> None:
    cluster = make_cluster(2, keep=True)
    cluster.start()
    cluster["n1"].succeed("echo one >/root/note")
    cluster.snapshot("s")
    cluster.close()
    for number in range(6 * ROUNDS):
        kill_after(0.2 + 0.08 * (number % 6), *REDOCK, "cluster", "restore", cluster.name)
        done = redock("cluster", "restore" if number % 2 else "up", cluster.name)
        assert done.returncode == 0, (number, done.stderr)
        assert ssh(cluster["n1"].ssh_alias, "cat /root/note").stdout == "one\n"
    assert redock("cluster", "restore", cluster.name).returncode == 0
    assert_whole(cluster.name, engine)


def test_nodes_that_a_killed_snapshot_left_frozen_are_thawed(
    make_cluster: Callable[..., Cluster], engine: Engine
) -> None:
    cluster = make_cluster(2, keep=True)
    cluster.start()
    cluster.stagehand.wait()
    for node in cluster:
        command("docker", "pause", node.container_id)
    cluster.close()
    assert redock("cluster", "up", cluster.name).returncode == 0
    assert_whole(cluster.name, engine)


def test_an_unknown_cluster_is_not_found(home: Home) -> None:
    with pytest.raises(NotFound, match="there is no cluster nothing-here"):
        Cluster.find("nothing-here")
