"""Shapes of partitions and schedules: what they promise for any number of nodes, and again."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redock.cluster import (
    Capabilities,
    Cluster,
    Nemesis,
    NodeSpec,
    bridge,
    halves,
    majorities_ring,
    random_node,
    split_one,
)
from redock.cluster import _network_faults as network_faults
from redock.cluster._fault import Fault
from redock.cluster._schedule import ACTIONS, SHAPES, check_schedule, make_schedule
from redock.errors import FaultUnsupported, InvalidArgument, NotFound, SeveralFailed

names = st.integers(3, 12).map(lambda count: [f"n{number}" for number in range(1, count + 1)])
seeds = st.one_of(st.integers(0, 2**64), st.text())


@pytest.mark.parametrize("shape", sorted(SHAPES))
@given(names, seeds)
def test_the_same_seed_gives_the_same_shape(shape: str, nodes: list[str], seed: Any) -> None:
    make = SHAPES[shape][1]
    made = make(nodes, seed)
    assert made == make(list(reversed(nodes)), seed)
    assert set(made) == set(nodes)
    for name, unheard in made.items():
        assert name not in unheard
        assert set(unheard) < set(nodes)
        assert unheard == sorted(set(unheard))


@given(names, seeds)
def test_halves_hear_themselves_and_not_each_other(nodes: list[str], seed: Any) -> None:
    made = halves(nodes, seed)
    sides = {tuple(sorted(set(nodes) - set(unheard))) for unheard in made.values()}
    assert sorted(map(len, sides)) == [len(nodes) // 2, len(nodes) - len(nodes) // 2]
    assert sorted(name for side in sides for name in side) == sorted(nodes)


@given(names, seeds)
def test_one_node_is_cut_off(nodes: list[str], seed: Any) -> None:
    made = random_node(nodes, seed)
    (loner,) = (name for name, unheard in made.items() if len(unheard) == len(nodes) - 1)
    assert made == split_one(nodes, loner)
    assert all(unheard == [loner] for name, unheard in made.items() if name != loner)


@given(names, seeds)
def test_a_bridge_hears_both_sides(nodes: list[str], seed: Any) -> None:
    made = bridge(nodes, seed)
    (between,) = (name for name, unheard in made.items() if not unheard)
    for name, unheard in made.items():
        assert between not in unheard
        # Who does not hear somebody is not heard by that one.
        assert all(name in made[other] for other in unheard)
    assert {len(unheard) for name, unheard in made.items() if name != between} <= {
        (len(nodes) - 1) // 2,
        len(nodes) // 2,
    }


@given(names, seeds)
def test_everybody_hears_a_majority_of_their_own(nodes: list[str], seed: Any) -> None:
    made = majorities_ring(nodes, seed)
    heard = {tuple(sorted(set(nodes) - set(unheard))) for unheard in made.values()}
    assert {len(each) for each in heard} == {len(nodes) // 2 + 1}
    assert len(heard) == len(nodes)


def test_shapes_need_enough_nodes() -> None:
    for make in (bridge, majorities_ring):
        with pytest.raises(InvalidArgument, match="3 nodes are needed, there are 2"):
            make(["a", "b"], 1)
    for make in (halves, random_node):
        with pytest.raises(InvalidArgument, match="2 nodes are needed, there are 1"):
            make(["a", "a"], 1)
    with pytest.raises(InvalidArgument, match="'c' is not one of a, b"):
        split_one(["a", "b"], "c")


SPECS = [
    NodeSpec("a", clock="fake", disks={"/data": "1m"}),
    NodeSpec("b", clock="fake"),
    NodeSpec("c"),
]
FAULTS: dict[str, dict[str, Any]] = {
    **{action: {} for action in ACTIONS},
    "disk_full": {"path": "/data"},
    "drop": {"source": "a", "target": "b"},
}


@settings(deadline=None, max_examples=30)
@given(seeds, st.floats(1, 100), st.floats(1, 200))
def test_the_same_seed_gives_the_same_schedule(seed: Any, interval: float, duration: float) -> None:
    made = make_schedule(SPECS, FAULTS, seed, interval, duration)
    assert made == make_schedule(SPECS, dict(reversed(FAULTS.items())), seed, interval, duration)
    assert json.loads(json.dumps(made)) == made
    assert check_schedule(made) == made
    offsets = [record["offset"] for record in made]
    assert offsets == sorted(offsets)
    assert all(offset <= duration + 0.001 for offset in offsets)
    # A fault, its end, a fault: nothing is broken at the end.
    assert [record["action"] == "heal" for record in made] == [
        number % 2 == 1 for number in range(len(made))
    ]
    assert len(made) % 2 == 0
    assert len(made) <= 4 * duration / interval + 2
    for record in made:
        chosen = record["arguments"].get("nodes", [])
        # Never a majority.
        assert len(chosen) <= 1
        if record["action"] == "clock_skew":
            assert chosen[0] in ("a", "b")
        if record["action"] == "disk_full":
            assert chosen == ["a"]


def test_other_seeds_give_other_schedules() -> None:
    made = {json.dumps(make_schedule(SPECS, FAULTS, seed)) for seed in range(20)}
    assert len(made) == 20


def test_everything_that_can_happen_does() -> None:
    made = make_schedule(SPECS, FAULTS, 1, 0.1, 300)
    assert {record["action"] for record in made} == {*FAULTS, "heal"}


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"partitoin": {}}, "there is no fault 'partitoin': did you mean partition"),
        ({}, "at least one fault"),
        ({"partition": {"shape": "star"}}, "'star' is no shape of a partition; there are bridge"),
        ({"disk_full": {"path": "/nothing"}}, "no node can have the fault disk_full"),
        ({"drop": {}}, "step 0 of the schedule: drop: missing a required argument"),
        ({"loss": {"percentage": 2}}, "loss: got an unexpected keyword argument 'percentage'"),
    ],
)
def test_faults_that_cannot_be_scheduled_are_refused(faults: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        make_schedule(SPECS, faults, 1)


def test_intervals_are_above_zero() -> None:
    with pytest.raises(InvalidArgument, match="seconds above 0"):
        make_schedule(SPECS, FAULTS, 1, 0)
    with pytest.raises(InvalidArgument, match="seconds above 0"):
        make_schedule(SPECS, FAULTS, 1, 1, float("nan"))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ("kill", "has not exactly"),
        ({"offset": 0, "action": "kill"}, "has not exactly"),
        ({"offset": "0", "action": "kill", "arguments": {}}, "not a number of seconds"),
        ({"offset": -1, "action": "kill", "arguments": {}}, "not a number of seconds"),
        ({"offset": 1, "action": "kill", "arguments": {"nodes": "a"}}, "before the one in front"),
        ({"offset": 5, "action": "down", "arguments": {}}, "there is no fault 'down'"),
        ({"offset": 5, "action": "__init__", "arguments": {}}, "there is no fault"),
        ({"offset": 5, "action": "kill", "arguments": ["a"]}, "no mapping"),
        ({"offset": 5, "action": "kill", "arguments": {}}, "missing a required argument: 'nodes'"),
        ({"offset": 5, "action": "heal", "arguments": {"nodes": "a"}}, "takes no arguments"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(record: Any, reason: str) -> None:
    first = {"offset": 2, "action": "heal", "arguments": {}}
    with pytest.raises(InvalidArgument, match=f"step 1 of the schedule.*{reason}|{reason}"):
        Nemesis.replay(Cluster(nodes=3), [first, record])


class Imagined(Fault):
    """A fault of nothing."""

    kind = "loss"
    refuses = False

    def make(self) -> None:
        """Do nothing."""

    def unmake(self) -> None:
        """Do nothing, or fail."""
        if self.refuses:
            raise NotFound(f"{self.text} is stuck", 404)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster that is not there, and whose faults are imagined."""
    made = Cluster(nodes=3, name="shop")
    able = {name: ("engine", "") for name in ACTIONS}
    monkeypatch.setattr(network_faults, "capabilities", lambda _: Capabilities(able))

    def loss(nodes: str, percent: float, to: object = None) -> Fault:
        if percent == 99:
            raise NotFound("node n3 has gone", 404)
        fault = Imagined(made, [], f"loss {percent}").begin()
        fault.refuses = percent == 98  # type: ignore[attr-defined]
        return fault

    monkeypatch.setattr(made, "loss", loss)
    return made


def step(offset: float, percent: float | None) -> dict[str, Any]:
    """A record: a fault, or the end of all."""
    if percent is None:
        return {"offset": offset, "action": "heal", "arguments": {}}
    return {"offset": offset, "action": "loss", "arguments": {"nodes": "n1", "percent": percent}}


def test_a_nemesis_does_what_the_schedule_says(cluster: Cluster) -> None:
    schedule = [step(0, 1), step(0.01, 2), step(0.02, None), step(0.03, 3)]
    nemesis = Nemesis.replay(cluster, schedule)
    assert not nemesis.running
    with nemesis:
        nemesis.wait(60)
        assert [fault.text for fault in cluster.faults] == ["loss 3"]
    assert cluster.faults == []
    assert [each["arguments"] for each in nemesis.history] == [
        each["arguments"] for each in schedule
    ]
    assert [event.kind for event in cluster.timeline.events] == ["nemesis", *["loss"] * 3]
    assert cluster.timeline.events[0].details["steps"] == 4
    assert "4 of 4 steps" in repr(nemesis)


def test_errors_of_a_nemesis_are_raised_by_stop(cluster: Cluster) -> None:
    nemesis = Nemesis.replay(cluster, [step(0, 99), step(0, 1)]).start()
    nemesis.wait(60)
    # One that failed does not end it.
    assert len(cluster.faults) == 1
    with pytest.raises(NotFound, match="n3 has gone"):
        nemesis.stop()
    assert cluster.faults == []
    nemesis.stop()
    assert any("n3 has gone" in event.text for event in cluster.timeline.events)
    with pytest.raises(SeveralFailed, match=r"2 steps .* step 0 \(loss\): .*; step 1 \(loss\)"):
        run(Nemesis.replay(cluster, [step(0, 99), step(0, 99)]))


def run(nemesis: Nemesis) -> None:
    """Let a nemesis do everything."""
    with nemesis:
        nemesis.wait(60)


def test_a_fault_that_cannot_be_healed_stops_none_of_the_others(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="loss 98 is stuck"):
        run(Nemesis.replay(cluster, [step(0, 1), step(0, 98), step(0, 2)]))
    assert [fault.text for fault in cluster.faults] == ["loss 98"]


def test_what_the_test_raised_matters_more(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError), Nemesis.replay(cluster, [step(0, 99)]) as nemesis:
        nemesis.wait(60)
        raise ZeroDivisionError
    assert len(nemesis.errors) == 1


def test_stopping_does_not_wait_for_the_next_step(cluster: Cluster) -> None:
    began = time.monotonic()
    with Nemesis.replay(cluster, [step(3600, 1)]) as nemesis:
        assert nemesis.running
    assert time.monotonic() - began < 60
    assert nemesis.history == []
    with pytest.raises(InvalidArgument, match="started before"):
        nemesis.start()


def test_a_nemesis_says_before_it_begins_what_cannot_be_made(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    unable = Capabilities({"loss": ("", "no nftables")})
    monkeypatch.setattr(network_faults, "capabilities", lambda _: unable)
    with pytest.raises(FaultUnsupported, match="nemesis: loss: no nftables"):
        Nemesis(cluster, ["loss"]).start()
    assert cluster.timeline.events == []


def test_a_seed_is_made_up_and_remembered(cluster: Cluster) -> None:
    first = Nemesis(cluster)
    assert first.seed is not None
    assert Nemesis(cluster, seed=first.seed).schedule == first.schedule
    assert {each["action"] for each in first.schedule} <= {"partition", "pause", "kill", "heal"}
    assert Nemesis(cluster, "pause", seed="x").schedule[0]["action"] == "pause"
