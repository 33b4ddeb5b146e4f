"""Faults of clusters: what each does, that they compose, and that nothing of them is left."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redock.cluster import (
    Capabilities,
    Cluster,
    Fault,
    Nemesis,
    Node,
    NodeSpec,
    _capabilities,
    capabilities,
    majorities_ring,
)
from redock.errors import (
    FaultUnsupported,
    InvalidArgument,
    NotFound,
    RedockError,
)

from .conftest import Home, command, ssh

#: Answers every packet with the same one; and the bytes of every connection with their number.
SERVER = """\
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 7))
tcp = socket.create_server(("", 7))
def answer():
    while True:
        data, sender = udp.recvfrom(2000)
        udp.sendto(data, sender)
threading.Thread(target=answer).start()
while True:
    connection, _ = tcp.accept()
    total = 0
    while data := connection.recv(65536):
        total += len(data)
    connection.sendall(b"%d" % total)
    connection.close()
"""

#: Sends packets one by one; prints the milliseconds each answer took, and what else came.
CLIENT = """\
import json, socket, sys, time
peer, count, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect((peer, 7))
sent, answers = {}, []
def collect(until):
    while (left := until - time.monotonic()) > 0:
        udp.settimeout(left)
        try:
            number = int(udp.recv(2000))
        except (TimeoutError, ConnectionError):
            continue
        answers.append((number, (time.monotonic() - sent[number]) * 1000))
        if pause >= 1 and number == max(sent):
            return
for number in range(count):
    sent[number] = time.monotonic()
    udp.send(b"%d" % number)
    collect(time.monotonic() + pause)
if pause < 1:
    collect(time.monotonic() + 0.3)
print(json.dumps(answers))
"""

#: Sends bytes through one connection; prints how many arrived, and the megabits in a second.
SENDER = """\
import socket, sys, time
tcp = socket.create_connection((sys.argv[1], 7))
began = time.monotonic()
tcp.sendall(bytes(int(sys.argv[2])))
tcp.shutdown(socket.SHUT_WR)
arrived = int(tcp.recv(100))
print(arrived, arrived * 8e-6 / (time.monotonic() - began))
"""


@pytest.fixture(scope="module")
def cluster(home: Home) -> Iterator[Cluster]:
    """Three nodes that answer; the first has a clock of its own and a disk."""
    nodes = [NodeSpec("n1", clock="fake", disks={"/data": "8m"}), NodeSpec("n2"), NodeSpec("n3")]
    with Cluster(nodes=nodes, name=f"f{os.getpid()}") as made:
        for node in made:
            equip(node)
        yield made


def equip(node: Node) -> None:
    """Put programs that measure into a node, and start the one that answers."""
    node.put(SERVER.encode(), "/server.py")
    node.put(CLIENT.encode(), "/client.py")
    node.put(SENDER.encode(), "/sender.py")
    node.succeed("setsid python3 /server.py >/dev/null 2>&1 </dev/null &")
    node.wait_for_port(7)


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> Iterator[None]:
    """No test leaves a fault, nor anything of one, in a node."""
    before = traces(cluster)
    yield
    cluster.heal()
    assert cluster.faults == []
    assert traces(cluster) == before


def traces(cluster: Cluster) -> dict[str, str]:
    """Everything in the network namespaces that a fault could leave, without what only counts."""
    script = (
        "nft list ruleset; iptables-legacy-save 2>/dev/null; tc qdisc show dev eth0;"
        " tc filter show dev eth0; ip -o link | grep -c .; ls -A /data 2>/dev/null; true"
    )
    return {
        node.name: re.sub(r"packets \d+ bytes \d+|127\.0\.0\.11:\d+|sport \d+", "", text)
        for node in cluster
        for text in [node.shell.check(script, "look")]
    }


def answers(
    sender: Node, receiver: Node, count: int = 20, pause: float = 1.0
) -> list[tuple[int, float]]:
    """Send packets from one node to another and collect what comes back."""
    words = ["python3", "/client.py", receiver.name, str(count), str(pause)]
    found: list[tuple[int, float]] = json.loads(sender.succeed(*words, timeout=120))
    return found


def fastest(sender: Node, receiver: Node, count: int = 10) -> float:
    """How many milliseconds the fastest answer takes: others are late where much else goes on."""
    times = [took for _, took in answers(sender, receiver, count)]
    assert len(times) == count
    return min(times)


def hears(sender: Node, receiver: Node) -> bool:
    """Whether an answer comes."""
    return bool(answers(sender, receiver, 1, 0.3))


def rate_of(sender: Node, receiver: Node, size: int) -> float:
    """The megabits in a second that get through."""
    arrived, rate = sender.succeed("python3", "/sender.py", receiver.name, str(size)).split()
    assert int(arrived) == size
    return float(rate)


# Latency.


def test_latency_is_that_of_the_way_that_is_meant(cluster: Cluster) -> None:
    n1, n2, n3 = cluster
    with cluster.latency("n1", "40ms", to="n2") as fault:
        assert 39 < fastest(n1, n2) < 79
        assert fastest(n1, n3) < 30
        assert ssh(n2.ssh_alias, "hostname").stdout == "n2\n"
        assert "latency 40ms n1 -> n2" in repr(fault)
    assert fastest(n1, n2) < 30


def test_latency_of_a_way_adds_up_and_holds_both_ways(cluster: Cluster) -> None:
    n1, n2, n3 = cluster
    first = cluster.latency(["n1"], "20ms", jitter="5ms")
    second = cluster.latency("n2", 0.030, to="n1")
    # Twice 20 and once 30, and once 30 the other way; the jitter takes up to 10.
    assert 59 < fastest(n1, n2) < 140
    assert 29 < fastest(n3, n1) < 59
    first.heal()
    assert 29 < fastest(n1, n2) < 59
    second.heal()
    assert fastest(n1, n2) < 20


def test_jitter_varies_and_keeps_the_order(cluster: Cluster) -> None:
    n1, n2, _ = cluster
    with cluster.latency("n1", "40ms", "30ms", to="n2"):
        found = answers(n1, n2, 60, 0.005)
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers)
    assert len(numbers) == 60
    times = [took for _, took in found]
    assert max(times) - min(times) > 10


def test_a_delayer_that_is_killed_lets_packets_pass_and_is_started_again(cluster: Cluster) -> None:
    n1, n2, _ = cluster
    fault = cluster.latency("n1", "200ms", to="n2")
    assert fastest(n1, n2, 3) > 200
    n2.shell.check("pkill -9 -x python3", "kill the delayer")
    assert fastest(n1, n2, 3) < 150
    with cluster.latency("n3", "10ms", to="n2"):
        assert fastest(n1, n2, 3) > 200
    fault.heal()
    assert fastest(n1, n2, 3) < 150


def test_latency_ends_with_the_process_that_made_it(cluster: Cluster) -> None:
    program = (
        "import sys, time\n"
        "from redock.cluster import Cluster\n"
        "cluster = Cluster(nodes=['n1', 'n2', 'n3'], name=sys.argv[1]).attach()\n"
        "cluster.latency('n1', '300ms', to='n3')\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    n1, _, n3 = cluster
    process = subprocess.Popen(
        [sys.executable, "-c", program, cluster.name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    with process, process.stdout:
        assert process.stdout.readline() == "ready\n"
        assert fastest(n1, n3, 3) > 300
        process.kill()
    deadline = time.monotonic() + 60
    while fastest(n1, n3, 3) > 250:
        assert time.monotonic() < deadline
    # The rule that is left does nothing; what is made next takes it away.
    cluster.latency("n1", "1ms", to="n3").heal()


# Bandwidth.


def test_bandwidth_is_that_of_each_way_and_the_lowest_holds(cluster: Cluster) -> None:
    n1, n2, n3 = cluster
    wide = cluster.bandwidth("n1", "20mbit")
    narrow = cluster.bandwidth("n1", 4_000_000, to="n2")
    assert 0.5 < rate_of(n1, n2, 500_000) < 5.5
    assert 5.5 < rate_of(n2, n1, 2_000_000) < 26
    assert 5.5 < rate_of(n1, n3, 2_000_000) < 26
    assert rate_of(n2, n3, 10_000_000) > 26
    wide.heal()
    assert 0.5 < rate_of(n1, n2, 500_000) < 5.5
    assert rate_of(n1, n3, 10_000_000) > 26
    narrow.heal()
    assert rate_of(n1, n2, 10_000_000) > 26


def test_a_narrow_way_does_not_slow_ssh_down(cluster: Cluster) -> None:
    n1, n2, _ = cluster
    with cluster.bandwidth(["n1", "n2"], "10kbit"):
        began = time.monotonic()
        done = subprocess.run(
            ["ssh", n1.ssh_alias, "head -c 2000000 /dev/zero"], capture_output=True, timeout=120
        )
        assert len(done.stdout) == 2_000_000
        # At that rate it would take twenty minutes.
        assert time.monotonic() - began < 60
        assert n2.succeed("getent hosts n1").split()[0] == n1.ip


def test_the_queueing_disciplines_of_others_are_left_alone(cluster: Cluster) -> None:
    n2 = cluster["n2"]
    n2.shell.check("tc qdisc add dev eth0 root handle 1: htb default 0", "be somebody else")
    try:
        with pytest.raises(FaultUnsupported, match=r"node n2: somebody else has put .*htb 1:"):
            cluster.bandwidth("n1", "1mbit")
        assert "7d0c:" not in cluster["n1"].shell.check("tc qdisc show dev eth0", "look")
        assert "htb 1: " in n2.shell.check("tc qdisc show dev eth0", "look")
    finally:
        n2.shell.check("tc qdisc del dev eth0 root", "be oneself again")


# Packets that are mixed up, changed, or there twice.


def test_duplicates_do_not_slip_through_a_partition(cluster: Cluster) -> None:
    n1, n2, _ = cluster
    with cluster.duplicate("n1", 100, to="n2"):
        assert len(answers(n1, n2, 20, 0.01)) == 40
        with cluster.partition("n1", one_way=True):  # An answer would arrive.
            assert answers(n1, n2, 5, 0.01) == []
    with cluster.duplicate("n1", 50, to="n2"):
        assert 105 < len(answers(n1, n2, 100, 0.002)) < 195
    assert len(answers(n1, n2, 20, 0.01)) == 20


def test_some_packets_overtake_others(cluster: Cluster) -> None:
    n1, n2, _ = cluster
    with cluster.reorder("n1", 30, gap="40ms", to="n2"):
        numbers = [number for number, _ in answers(n1, n2, 60, 0.005)]
    assert sorted(numbers) == list(range(60))
    assert numbers != sorted(numbers)


def test_changed_packets_are_found_out_by_checksums(cluster: Cluster) -> None:
    n1, n2, _ = cluster
    script = "nstat -asz UdpInCsumErrors | tail -n 1"
    before = float(n2.succeed(script).split()[1])
    with cluster.corrupt("n1", 40, to="n2"):
        assert 5 < len(answers(n1, n2, 100, 0.002)) < 95
    assert float(n2.succeed(script).split()[1]) > before
    with cluster.corrupt("n1", 2, to="n2"):
        rate_of(n1, n2, 300_000)


def test_all_packets_can_be_lost(cluster: Cluster) -> None:
    with cluster.loss("n1", 100):
        assert not hears(cluster["n1"], cluster["n2"])
    assert hears(cluster["n1"], cluster["n2"])


def test_nodes_hear_a_majority_in_a_ring(cluster: Cluster) -> None:
    unheard = majorities_ring(cluster.nodes.names, 1)
    with cluster.partition(unheard) as fault:
        for node in cluster:
            for other in cluster:
                if other is not node:
                    # An answer has to be heard, too.
                    both = other.name not in unheard[node.name]
                    both = both and node.name not in unheard[other.name]
                    assert hears(node, other) == both
        assert fault.details["unheard"] == unheard


NETWORK: dict[str, Callable[[Cluster], Fault]] = {
    "partition": lambda c: c.partition(["n1"], ["n2"]),
    "isolate": lambda c: c.isolate("n3"),
    "drop": lambda c: c.drop("n1", "n3", port=80),
    "loss": lambda c: c.loss("n3", 5),
    "duplicate": lambda c: c.duplicate("n3", 5),
    "bandwidth": lambda c: c.bandwidth("n3", "10mbit"),
    "latency": lambda c: c.latency("n3", "10ms"),
    "reorder": lambda c: c.reorder("n3", 5),
    "corrupt": lambda c: c.corrupt("n3", 5),
}


def test_all_of_them_at_once_leave_the_host_in_and_nothing_behind(cluster: Cluster) -> None:
    before = traces(cluster)
    made = [make(cluster) for make in (*NETWORK.values(), *NETWORK.values())]
    for node in cluster:
        assert ssh(node.ssh_alias, "hostname").stdout == f"{node.name}\n"
        assert node.succeed("getent hosts n1").split()[0] == cluster["n1"].ip
        for attempt in (
            "tc qdisc del dev eth0 root",
            "iptables -t raw -F",
            "nft flush ruleset",
            "kill -9 -1",
        )[: 3 if node.name == "n1" else 0]:
            assert not node.run(attempt).ok
    random.Random(3).shuffle(made)
    for number, fault in enumerate(made):
        fault.heal()
        assert len(cluster.faults) == len(made) - number - 1
    assert traces(cluster) == before


def test_a_network_that_was_restarted_can_be_broken_again(cluster: Cluster) -> None:
    n1, n2, n3 = cluster
    snapshot = cluster.snapshot("owner")
    for make in NETWORK.values():
        make(cluster)
    assert command("docker", "restart", "-t", "0", n3.owner_id).returncode == 0
    cluster.restore(snapshot, full=True)
    assert cluster.faults == []
    for node in cluster:
        equip(node)
    assert fastest(n1, n3) < 30
    with cluster.latency("n3", "40ms", to="n1"):
        assert fastest(n3, n1) > 39
        assert fastest(n2, n1) < 30


# Disks.


def test_a_full_disk_says_so_until_it_is_healed(cluster: Cluster) -> None:
    node = cluster["n1"]
    node.succeed("echo kept >/data/before")
    with node.disk_full("/data") as fault:
        failed = node.fail("head -c 5000 /dev/zero >/data/file")
        assert "No space left on device" in failed.stderr
        with node.disk_full("/data"):
            assert not node.run("echo more >/data/file").ok
        # One of two faults has gone, the other one holds.
        assert not node.run("echo more >/data/file").ok
        node.crash()
        assert not node.run("echo more >/data/file").ok
        assert node.succeed("cat /data/before") == "kept\n"
        snapshot = cluster.snapshot("full")
        assert fault.active
    node.succeed("head -c 4000000 /dev/zero >/data/file")
    fault = node.disk_full("/data")
    cluster.restore(snapshot)
    assert not fault.active
    # The restored disk has what was on it, and room.
    node.succeed("cat /data/before; head -c 4000000 /dev/zero >/data/file")
    assert node.succeed("ls -A /data").split() == ["before", "file"]
    node.succeed("rm /data/*")
    equip(node)
    equip(cluster["n2"])
    equip(cluster["n3"])


def test_a_disk_that_was_not_declared_is_not_filled(cluster: Cluster) -> None:
    with pytest.raises(InvalidArgument, match=r"no disk at '/tmp' \(its disks are /data\)"):
        cluster["n1"].disk_full("/tmp")
    with pytest.raises(InvalidArgument, match=r"n2 has no disk .*it has none.*disks=\{'/data'"):
        cluster.disk_full(["n1", "n2"], "/data")
    assert cluster.faults == []


# Clocks.


def clocks(node: Node) -> tuple[float, float]:
    """By how many seconds two clocks of a node differ from ours: the wall clock, and the other."""
    script = "import time; print(time.time(), time.monotonic())"
    wall, other = map(float, node.succeed("python3", "-c", script).split())
    return wall - time.time(), other - time.monotonic()


def test_a_clock_is_wrong_at_once_for_programs_that_run(cluster: Cluster) -> None:
    node = cluster["n1"]
    loop = "import time\nwhile True: print(time.time(), flush=True); time.sleep(0.05)"
    node.put(loop.encode(), "/loop.py")
    node.succeed("setsid python3 /loop.py >/loop.out 2>/dev/null </dev/null & echo $! >/loop.pid")
    node.wait_for_file("/loop.out")
    with node.clock_skew("+300s"):
        wall, other = clocks(node)
        assert 240 < wall < 310
        assert abs(other) < 60
        deadline = time.monotonic() + 60
        while float(node.succeed("tail -n 1 /loop.out")) < time.time() + 240:
            assert time.monotonic() < deadline
        with cluster.clock_skew("n1", "-1h"):
            assert -3400 < clocks(node)[0] < -3230
            # What is waited for is on the other clock; a login works.
            node.succeed("sleep 0.1")
            assert ssh(node.ssh_alias, "hostname").stdout == "n1\n"
        node.crash()
        assert 240 < clocks(node)[0] < 310
    assert abs(clocks(node)[0]) < 60
    equip(node)


def test_a_restore_sets_the_clock_right(cluster: Cluster) -> None:
    node = cluster["n1"]
    snapshot = cluster.snapshot("clock")
    fault = node.clock_skew("2d")
    cluster.restore(snapshot)
    assert not fault.active
    assert abs(clocks(node)[0]) < 60
    for each in cluster:
        equip(each)


def test_the_clock_of_a_node_without_power_can_be_set(cluster: Cluster) -> None:
    node = cluster["n1"]
    with node.kill():
        fault = node.clock_skew(-7200)
    assert -7300 < clocks(node)[0] < -7100
    with node.pause():
        fault.heal()
    assert abs(clocks(node)[0]) < 60
    equip(node)


def test_root_in_a_node_cannot_set_its_clock_right_and_has_no_compiler(cluster: Cluster) -> None:
    node = cluster["n1"]
    with node.clock_skew("1d"):
        assert not node.run("printf '\\0\\0\\0\\0\\0\\0\\0\\0' >/etc/redock/clock/offset").ok
        assert not node.run("umount /etc/redock/clock").ok
    assert not node.run("command -v gcc").ok


def test_the_clock_of_the_host_is_never_set(cluster: Cluster) -> None:
    with pytest.raises(FaultUnsupported, match=r"NodeSpec\('n2', clock='fake'\)"):
        cluster.clock_skew(["n1", "n2"], "+1s")
    assert cluster.faults == []
    assert abs(clocks(cluster["n1"])[0]) < 60


# What the engine can.


def test_what_the_engine_can_is_found_out_once(
    cluster: Cluster, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = capabilities(cluster.engine)
    assert set(NETWORK) | {"pause", "kill", "crash", "disk_full", "clock_skew"} <= set(found)
    assert found["latency"].backend in ("netem", "nfqueue")
    assert str(found["partition"]) == "nftables"
    assert "latency " in str(found)
    assert cluster.capabilities is found
    kept = home.redock / "capabilities.json"
    assert len(json.loads(kept.read_text())) == 1
    # Another process finds what was kept; one that makes no sense is found out again.
    monkeypatch.setattr(_capabilities, "remembered", {})
    monkeypatch.setattr(_capabilities, "probe", lambda *_: pytest.fail("again"))
    assert str(capabilities(cluster.engine)) == str(found)
    monkeypatch.undo()
    kept.write_text("{")
    monkeypatch.setattr(_capabilities, "remembered", {})
    assert str(capabilities(cluster.engine)) == str(found)
    assert not cluster.engine.containers({"label": ["io.redock.kind=probe"]})


def test_a_fault_that_cannot_be_made_says_why(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "netem: Specified qdisc kind is unknown; nfqueue: no such module"
    found: dict[str, tuple[str, str]] = {
        name: (able.backend, "") for name, able in cluster.capabilities.items()
    }
    unable = Capabilities({**found, "latency": ("", reason), "partition": ("", "no nft")})
    url = cluster.engine.endpoint.url
    monkeypatch.setitem(_capabilities.remembered, url, unable)
    with pytest.raises(FaultUnsupported, match=f"latency cannot be made .*{reason}"):
        cluster.latency("n1")
    with pytest.raises(FaultUnsupported, match=f"nemesis: latency: {reason}"):
        Nemesis(cluster, ["latency"], seed=1).start()
    assert not cluster.capabilities["latency"]
    # What fails is looked up afterwards, and is not asked for before.
    cluster.partition(["n1"]).heal()
    script = "mv /usr/sbin/nft /usr/sbin/nft.away"
    cluster["n1"].shell.check(script, "take nft away")
    try:
        with pytest.raises(FaultUnsupported, match=r"partition cannot be made .*no nft"):
            cluster.partition(["n1"])
    finally:
        cluster["n1"].shell.check("mv /usr/sbin/nft.away /usr/sbin/nft", "give it back")
    assert cluster.faults == []


# The nemesis.


def test_a_nemesis_breaks_heals_and_can_be_replayed(cluster: Cluster) -> None:
    faults = {"partition": {}, "pause": {}, "latency": {"delay": "5ms"}, "loss": {"percent": 10}}
    cluster.timeline.clear()
    with Nemesis(cluster, faults, interval=0.1, seed=5, duration=1.5) as nemesis:
        nemesis.wait(120)
        assert not nemesis.running
    assert cluster.faults == []
    actions = [record["action"] for record in nemesis.schedule]
    assert [record["action"] for record in nemesis.history] == actions
    kinds = [event.kind for event in cluster.timeline.events]
    assert kinds[0] == "nemesis"
    assert [kind for kind in kinds if kind in faults] == [
        each for each in actions if each != "heal"
    ]
    assert all(event.ended is not None for event in cluster.timeline.events)
    again = Nemesis.replay(cluster, json.loads(json.dumps(nemesis.schedule)))
    assert again.schedule == nemesis.schedule
    with again:
        again.wait(120)
    assert [(each["action"], each["arguments"]) for each in again.history] == [
        (each["action"], each["arguments"]) for each in nemesis.history
    ]


def test_stopping_a_nemesis_heals_what_it_made_and_nothing_else(cluster: Cluster) -> None:
    mine = cluster.loss("n1", 1)
    schedule = [
        {"offset": 0, "action": "isolate", "arguments": {"nodes": ["n2"]}},
        {"offset": 600, "action": "heal", "arguments": {}},
    ]
    nemesis = Nemesis.replay(cluster, schedule).start()
    deadline = time.monotonic() + 60
    while len(cluster.faults) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    nemesis.stop()
    nemesis.stop()
    assert cluster.faults == [mine]
    with pytest.raises(InvalidArgument, match="started before"):
        nemesis.start()


# Nodes that have gone.

EVERYTHING: dict[str, Callable[[Cluster], Any]] = {
    **NETWORK,
    "pause": lambda c: c.pause(["n1", "n3"]),
    "kill": lambda c: c.kill(["n3", "n1"]),
    "crash": lambda c: c.crash(["n3", "n1"]),
    "reboot": lambda c: c.reboot(["n3", "n1"]),
    "disk_full": lambda c: c.disk_full(["n1", "n3"], "/data"),
    "clock_skew": lambda c: c.clock_skew(["n1", "n3"], "+1h"),
}


@pytest.fixture
def other(home: Home) -> Iterator[Cluster]:
    """A cluster to take nodes of away."""
    name = f"g{os.getpid()}"
    with Cluster(nodes=3, name=name, clock="fake", disks={"/data": "1m"}) as made:
        yield made


def test_a_fault_on_a_node_that_has_gone_is_an_error_and_leaves_nothing(other: Cluster) -> None:
    before = traces(other)
    n3 = other["n3"]
    command("docker", "rm", "-f", n3.container_id, n3.owner_id)
    other.nodes.nodes.remove(n3)
    left = list(other)
    other.nodes.nodes.append(n3)
    for kind, make in EVERYTHING.items():
        with pytest.raises(RedockError, match=r"n3.*gone|gone.*n3") as caught:
            make(other)
        assert "\n" not in str(caught.value), kind
        assert other.faults == [], kind
        for node in left:
            assert node.state == "running", kind
            assert traces_of(node) == before[node.name], kind
    assert hearing_hosts(left)
    assert all(event.ended is not None for event in other.timeline.events)


def traces_of(node: Node) -> str:
    """What :func:`traces` says about one node."""
    cluster = node.cluster
    nodes, cluster.nodes.nodes = cluster.nodes.nodes, [node]
    try:
        return traces(cluster)[node.name]
    finally:
        cluster.nodes.nodes = nodes


def hearing_hosts(nodes: list[Node]) -> bool:
    """Whether nodes can still be reached from the host, and from each other."""
    one, two = nodes
    script = f"timeout 5 bash -c '</dev/tcp/{two.name}/22'"
    return one.run(script).ok and ssh(two.ssh_alias, "true").returncode == 0


@pytest.mark.parametrize("what", ["both", "system", "owner"])
def test_faults_are_healed_where_a_node_has_gone_meanwhile(other: Cluster, what: str) -> None:
    before = traces(other)
    snapshot = other.snapshot("before")
    for kind, make in EVERYTHING.items():
        if kind not in ("kill", "crash", "reboot"):
            make(other)
    n3 = other["n3"]
    ids = {"both": [n3.container_id, n3.owner_id], "system": [n3.container_id]}
    command("docker", "rm", "-f", *ids.get(what, [n3.owner_id]))
    other.heal()
    assert other.faults == []
    for node in list(other)[:2]:
        assert traces_of(node) == before[node.name]
    nemesis = Nemesis.replay(
        other, [{"offset": 0, "action": "pause", "arguments": {"nodes": ["n3"]}}]
    )
    if what != "owner":
        with pytest.raises(RedockError, match=r"n3.*gone"), nemesis:
            nemesis.wait(60)
        assert list(nemesis.errors) == ["step 0 (pause)"]
    # The way back makes it whole.
    assert "n3" in other.restore(snapshot)
    assert traces(other) == before
    assert abs(clocks(n3)[0]) < 60
    n3.succeed("echo room >/data/file")
    assert hearing_hosts([n3, other["n1"]])


def test_a_node_that_is_not_there_is_named(cluster: Cluster) -> None:
    for make in (cluster.latency, cluster.pause, cluster.isolate):
        with pytest.raises(NotFound, match="there is no node called n4"):
            make("n4")
    path = Path(cluster["n1"].ssh_config)
    assert path.exists()
