"""What happened in a cluster, as records, as plain values and as text."""

from __future__ import annotations

import json

import pytest

from redock.cluster import Timeline


def test_steps_and_what_ends_them_are_recorded() -> None:
    timeline = Timeline()
    with timeline.step("all is well", "n1") as step:
        assert step.ended is None
    with pytest.raises(KeyError), timeline.step("all is not well"):
        raise KeyError("x")
    well, bad = timeline.events
    assert (well.kind, well.nodes, well.details) == ("step", ("n1",), {})
    assert well.ended is not None
    assert bad.details == {"failed": "KeyError"}


def test_what_was_over_before_can_be_left_out() -> None:
    timeline = Timeline()
    timeline.note("run", "before", ["n1"])
    fault = timeline.begin("pause", "pause n1", ["n1"])
    mark = timeline.now()
    timeline.note("run", "after", ["n1"], status=3)
    assert [event.text for event in timeline.since(mark)] == ["pause n1", "after"]
    told = json.loads(json.dumps(timeline.as_dict(mark)))
    assert told["began"] == timeline.wall and told["forgotten"] == 0
    assert [event["text"] for event in told["events"]] == ["pause n1", "after"]
    first, second = timeline.as_text(mark).splitlines()
    assert first.split()[0].startswith("-0.0") and "goes on" in first and "pause: pause n1" in first
    assert second.endswith("run: after (status 3)")
    timeline.end(fault)
    assert [event.text for event in timeline.since(mark)] == ["pause n1", "after"]


def test_text_is_short_and_leaves_out_commands_that_worked_first() -> None:
    timeline = Timeline()
    timeline.note("step", "a step\nof two lines")
    for number in range(50):
        timeline.note("run", f"command {number}", ["n1"], status=int(number == 20))
    lines = timeline.as_text(longest=10).splitlines()
    assert lines[0] == "(49 more are not shown)"
    assert len(lines) == 3
    assert lines[1].endswith("all         step: a step of two lines")
    assert lines[2].endswith("run: command 20 (status 1)")
    assert len(timeline.as_text(longest=100).splitlines()) == 51
