"""What faults of the way between nodes come to: sums, trees for tc, rules, scripts."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock.cluster import (
    Capabilities,
    Cluster,
    NodeSpec,
    _network_faults,
    _queues,
    _records,
    _shaping,
)
from redock.cluster._boot import Place
from redock.cluster._clock import READ, offset_of
from redock.cluster._disk import FILL, find_disk
from redock.cluster._effect import Effect
from redock.cluster._fault import Fault
from redock.cluster._link import LinkFault
from redock.cluster._netfault import chance_of
from redock.cluster._node import Node
from redock.cluster._schedule import ACTIONS
from redock.errors import FaultUnsupported, InvalidArgument, NotFound, RedockError

chances = st.floats(0, 1)
effects = st.builds(
    Effect,
    rate=st.none() | st.integers(1000, 10**11),
    delay=st.floats(0, 60),
    jitter=st.floats(0, 60),
    reorder=chances,
    gap=st.floats(0, 60),
    corrupt=chances,
)


@given(effects, effects)
def test_effects_add_up_in_any_order(one: Effect, other: Effect) -> None:
    both = one + other
    assert both == other + one
    assert one + Effect() == one
    assert both.delay >= max(one.delay, other.delay)
    assert max(one.corrupt, other.corrupt) - 1e-9 <= both.corrupt <= 1
    for each in (one, other):
        assert each.rate is None or (both.rate is not None and both.rate <= each.rate)


def test_chances_are_independent_of_each_other() -> None:
    both = Effect(corrupt=0.5, reorder=0.1, gap=0.01) + Effect(corrupt=0.5, reorder=0.2, gap=0.02)
    assert both.corrupt == 0.75
    assert both.reorder == pytest.approx(0.28)
    assert both.gap == 0.02


def test_a_tree_sorts_by_receiver_and_lets_everything_else_pass() -> None:
    wanted = {
        "10.77.0.3": Effect(rate=10_000_000),
        "10.77.0.2": Effect(
            delay=0.1, jitter=0.01, corrupt=0.05, reorder=0.25, gap=0.02, rate=1000
        ),
    }
    lines, kinds = _shaping.write_tree(wanted)
    assert lines == [
        "qdisc add dev eth0 root handle 7d0c: htb default 0",
        "class add dev eth0 parent 7d0c: classid 7d0c:1 htb rate 100gbit quantum 60000",
        "qdisc add dev eth0 parent 7d0c:1 handle 7d0d: netem limit 200000"
        " delay 100000us 10000us corrupt 5.000000%",
        "qdisc add dev eth0 parent 7d0d:1 handle 7d0e: netem limit 200000"
        " delay 20000us reorder 75.000000%",
        "qdisc add dev eth0 parent 7d0e:1 handle 7d0f: tbf rate 1000bit burst 1600 limit 16740",
        "filter add dev eth0 parent 7d0c: protocol ip prio 1"
        " u32 match ip dst 10.77.0.2/32 flowid 7d0c:1",
        "class add dev eth0 parent 7d0c: classid 7d0c:2 htb rate 100gbit quantum 60000",
        "qdisc add dev eth0 parent 7d0c:2 handle 7d10:"
        " tbf rate 10000000bit burst 5000 limit 505000",
        "filter add dev eth0 parent 7d0c: protocol ip prio 1"
        " u32 match ip dst 10.77.0.3/32 flowid 7d0c:2",
    ]
    assert list(kinds.values()) == ["htb", "netem", "netem", "tbf", "tbf"]
    assert [f"{handle:x}" for handle in kinds] == ["7d0c", "7d0d", "7d0e", "7d0f", "7d10"]


class Owner:
    """What runs scripts in the owner of a node."""

    def __init__(self) -> None:
        self.scripts: list[str] = []
        self.answers: list[str] = []

    def __call__(self, node: Node, script: str, what: str) -> str:
        """Keep a script, after a look at its syntax."""
        done = subprocess.run(
            ["sh", "-n"], input=script, text=True, capture_output=True, timeout=60, check=False
        )
        assert done.stderr == ""
        self.scripts.append(script)
        return self.answers.pop(0) if self.answers else ""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that has not been started, with nodes, where everything can be made."""
    made = Cluster(nodes=["a", "b", "c"], name="shop")
    for number, spec in enumerate(made.spec.nodes):
        place = Place("shop", spec.name, f"{number:012}", f"10.77.0.{number + 2}", 20000 + number)
        made.nodes.nodes.append(Node(made, spec, place))
    able = {name: ("nfqueue", "") for name in ACTIONS}
    monkeypatch.setattr(_network_faults, "capabilities", lambda _: Capabilities(able))
    monkeypatch.setattr(_records, "note", lambda fault: noted.append(fault.record()))
    monkeypatch.setattr(_records, "erase", lambda fault: forget(fault.id))
    noted.clear()
    return made


def forget(number: str) -> None:
    """Forget a fault that may have been noted."""
    noted[:] = [record for record in noted if record["id"] != number]


#: What is noted where other processes find it.
noted: list[dict[str, Any]] = []


#: What was put in place: the effects by address, for each node, the last ones.
Placed = dict[str, dict[str, Effect]]


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Placed]:
    """What would be put in place, where packets are sent and where they arrive."""
    seen: dict[str, Placed] = {"sent": {}, "received": {}}

    def put(where: str) -> Any:
        return lambda node, wanted, what: seen[where].__setitem__(node.name, dict(wanted))

    monkeypatch.setattr(_shaping, "shape", put("sent"))
    monkeypatch.setattr(_queues, "hold", put("received"))
    return seen


A, B, C = "10.77.0.2", "10.77.0.3", "10.77.0.4"


def test_what_is_put_in_place_is_the_sum_of_what_holds(
    cluster: Cluster, placed: dict[str, Placed]
) -> None:
    wide = cluster.bandwidth("a", "10mbit")
    assert placed["sent"] == {
        "a": {B: Effect(rate=10**7), C: Effect(rate=10**7)},
        "b": {A: Effect(rate=10**7)},
        "c": {A: Effect(rate=10**7)},
    }
    narrow = cluster.bandwidth(["a", "b"], 10**6, to="c")
    assert placed["sent"]["a"] == {B: Effect(rate=10**7), C: Effect(rate=10**6)}
    assert placed["sent"]["b"] == {A: Effect(rate=10**7), C: Effect(rate=10**6)}
    late = cluster.latency("a", "100ms", "10ms", to="c")
    later = cluster.latency(["a", "b"], 0.05, to="c")
    # Where they are held is where they arrive, whatever is made where they are sent.
    assert placed["received"] == {
        "c": {A: Effect(delay=0.1, jitter=0.01) + Effect(delay=0.05), B: Effect(delay=0.05)}
    }
    assert placed["sent"]["a"][C] == Effect(rate=10**6)
    # Queues end with this process; what is made where packets are sent does not.
    assert [record["id"] for record in noted] == [wide.id, narrow.id]
    late.heal()
    assert placed["received"] == {"c": {A: Effect(delay=0.05), B: Effect(delay=0.05)}}
    for fault in (wide, narrow, later):
        fault.heal()
    assert placed == {"sent": {"a": {}, "b": {}, "c": {}}, "received": {"c": {}}}
    assert noted == []
    assert cluster.faults == []


def test_another_process_finds_what_outlives_this_one(
    cluster: Cluster, placed: dict[str, Placed]
) -> None:
    made = cluster.bandwidth("a", "10mbit", to="c")
    record = json.loads(json.dumps(made.record()))
    other = Cluster(nodes=["a", "b", "c"], name="shop")
    other.nodes.nodes.extend(cluster.nodes)
    found = Fault.recall(other, record)
    assert isinstance(found, LinkFault)
    assert (found.id, found.kind, found.text) == (made.id, "bandwidth", made.text)
    assert found.effect == Effect(rate=10**7)
    found.enter()
    other.bandwidth("a", "1mbit", to="b")
    assert placed["sent"]["a"] == {B: Effect(rate=10**6), C: Effect(rate=10**7)}
    found.heal()
    assert placed["sent"]["a"] == {B: Effect(rate=10**6)}


def test_with_netem_packets_are_held_where_they_are_sent(
    cluster: Cluster, placed: dict[str, Placed], monkeypatch: pytest.MonkeyPatch
) -> None:
    able = Capabilities({"latency": ("netem", ""), "reorder": ("netem", "")})
    monkeypatch.setattr(_network_faults, "capabilities", lambda _: able)
    cluster.latency("a", "100ms", to="c")
    cluster.bandwidth("a", "1mbit", to="c")
    cluster.reorder("b", 10, to="c")
    assert placed["sent"] == {
        "a": {C: Effect(delay=0.1, rate=10**6)},
        "b": {C: Effect(reorder=0.1, gap=0.01)},
    }
    assert placed["received"] == {}
    with pytest.raises(FaultUnsupported, match="corrupt cannot be made with this engine"):
        cluster.corrupt("a", 10)


def test_what_could_not_be_made_is_taken_back_everywhere(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Placed = {}

    def shape(node: Node, wanted: dict[str, Effect], what: str) -> None:
        if node.name == "c":
            raise NotFound(f"could not {what}: its network has gone", 404)
        seen[node.name] = dict(wanted)

    first = {B: Effect(rate=1000)}
    monkeypatch.setattr(_shaping, "shape", shape)
    cluster.bandwidth("a", 1000, to="b")
    with pytest.raises(NotFound, match="could not bandwidth node c: its network has gone"):
        cluster.bandwidth(["a", "c"], 5000)
    assert seen == {"a": first, "b": {}}
    assert len(cluster.faults) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda c: c.bandwidth("a", "fast"), "'fast' is not a rate"),
        (lambda c: c.bandwidth("a", "1bit"), "not between 1kbit and 100gbit"),
        (lambda c: c.bandwidth("a", "1mbit", to="a"), "no way between different nodes: a -> a"),
        (lambda c: c.latency("a", "soon"), "'soon' is not a duration"),
        (lambda c: c.latency("a", 0), "the delay is above 0"),
        (lambda c: c.latency("a", "2m"), "at most 60 seconds"),
        (lambda c: c.latency("a", "10ms", "11ms"), "the jitter at most the delay"),
        (lambda c: c.latency("a", "-1s"), "not at least 0 seconds"),
        (lambda c: c.reorder("a", 0), "reorder: 0 is not a percentage"),
        (lambda c: c.reorder("a", 5, gap=0), "the gap is above 0"),
        (lambda c: c.corrupt("a", True), "corrupt: True is not a percentage"),
        (lambda c: c.duplicate("a", "5"), "duplicate: '5' is not a percentage"),
        (lambda c: c.clock_skew("a", 0), "the offset is not 0"),
        (lambda c: c.clock_skew("a", "200000d"), "at most 100 years"),
        (lambda c: c.clock_skew("a", "+x"), "is not a duration"),
        (lambda c: c.partition({"a": []}), "nobody is cut off"),
        (lambda c: c.partition({"a": ["a"]}), "nobody is cut off"),
    ],
)
def test_faults_that_make_no_sense_are_refused(
    make: Any, reason: str, cluster: Cluster, placed: dict[str, Placed]
) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        make(cluster)
    assert cluster.faults == []


def test_a_tree_that_is_not_there_afterwards_is_an_error(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Owner()
    monkeypatch.setattr(_shaping, "in_owner", owner)
    node = cluster["a"]
    wanted = {B: Effect(rate=1000)}
    there = (
        "qdisc htb 7d0c: root refcnt 2 r2q 10 default 0\n"
        "qdisc tbf 7d0d: parent 7d0c:1 rate 1Kbit burst 1600b lat 400ms\n"
    )
    nothing = "qdisc noqueue 0: root refcnt 2\n"
    owner.answers = [there, nothing]
    _shaping.shape(node, wanted, "do it")
    _shaping.shape(node, {}, "do it")
    assert "tbf rate 1000bit" in owner.scripts[0]
    for answer, each in ((nothing, wanted), (there, {}), (there.replace("7d0d", "7d0e"), wanted)):
        owner.answers = [answer]
        with pytest.raises(RedockError, match="could not do it: its queueing disciplines are"):
            _shaping.shape(node, each, "do it")
    owner.answers = ["foreign: qdisc htb 1: root refcnt 2\n"]
    with pytest.raises(FaultUnsupported, match=r"somebody else .*\(qdisc htb 1: root refcnt 2\)"):
        _shaping.shape(node, wanted, "do it")


class Delayer(_queues.Delayer):
    """A process that is not there."""

    def tell(self, queues: Any, timeout: float = 30.0) -> dict[str, Any]:
        """Keep what it is told."""
        self.told.append(dict(queues))
        self.queues = queues
        return {}

    @property
    def told(self) -> list[Any]:
        """What it was told."""
        found: list[Any] = self.__dict__.setdefault("lines", [])
        return found


def test_a_queue_is_there_before_a_rule_leads_to_it_and_goes_after_that(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Owner()
    monkeypatch.setattr(_queues, "in_owner", owner)
    node = cluster["c"]
    delayer = Delayer(cluster.engine, "")
    node._delayer = delayer
    _queues.hold(node, {A: Effect(delay=0.1)}, "do it")
    assert delayer.told == [{7000: {"delay": 0.1}}]
    rule = f"-A REDOCK -s {A}/32 -j NFQUEUE --queue-num 7000 --queue-bypass\n"
    assert rule in owner.scripts[0]
    # Another delay is nothing new for the rules.
    _queues.hold(node, {A: Effect(delay=0.2)}, "do it")
    assert (len(owner.scripts), len(delayer.told)) == (1, 2)
    _queues.hold(node, {B: Effect(corrupt=0.2)}, "do it")
    assert delayer.told[2:] == [
        {7000: {"delay": 0.2}, 7001: {"corrupt": 0.2}},
        {7001: {"corrupt": 0.2}},
    ]
    assert rule not in owner.scripts[1]
    _queues.hold(node, {}, "do it")
    assert delayer.told[4:] == [{}]
    assert "-X REDOCK" in owner.scripts[2]
    assert len(owner.scripts) == 3


def test_chances_are_written_as_nft_takes_them() -> None:
    assert chance_of(100) == ""
    assert chance_of(12.5) == "numgen random mod 100000 < 12500"
    assert chance_of(0.00001) == "numgen random mod 100000 < 1"


def test_a_disk_is_one_that_was_declared() -> None:
    made = Cluster(nodes=[NodeSpec("a", disks={"/data": "1m"}), NodeSpec("b")], name="shop")
    nodes = [
        Node(made, spec, Place("shop", spec.name, "0" * 12, "10.77.0.2", 20000))
        for spec in made.spec.nodes
    ]
    assert find_disk(nodes[0], "/data") == 1 << 20
    with pytest.raises(InvalidArgument, match=r"no disk at '/data/x' \(its disks are /data\)"):
        find_disk(nodes[0], "/data/x")
    with pytest.raises(InvalidArgument, match=r"it has none.*disks=\{'/data': '64m'\}"):
        find_disk(nodes[1], "/data")


@pytest.mark.parametrize("script", [FILL, READ])
def test_scripts_are_scripts(script: str) -> None:
    done = subprocess.run(["sh", "-n"], input=script, text=True, timeout=60, check=False)
    assert done.returncode == 0


def test_a_clock_is_wrong_by_the_sum(cluster: Cluster) -> None:
    assert offset_of(cluster["a"]) == 0
    with pytest.raises(FaultUnsupported, match=r"NodeSpec\('a', clock='fake'\)"):
        cluster.clock_skew("a", "1h")
    with pytest.raises(InvalidArgument, match="'real' is not 'fake', the only kind"):
        NodeSpec("a", clock="real")
