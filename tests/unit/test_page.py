"""The timeline as a page: everything is there, and nothing of it can do harm."""

from __future__ import annotations

import html.parser
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import redock.cluster
from redock.cluster import Timeline
from redock.cluster._collect import Evidence
from redock.cluster._logfiles import LogLine
from redock.cluster._page import Item, Lane, ticks
from redock.cluster._timeline import Event

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\" ' & \x1b[31m \ud800"
VOID = {"meta", "img", "br", "input"}


class Page(html.parser.HTMLParser):
    """A page, taken apart; tags that do not match are an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of_class(self, name: str) -> list[dict[str, str]]:
        """Find the attributes of everything of a class."""
        return [attrs for _, attrs in self.tags if name in attrs.get("class", "").split()]


def draw(
    events: list[Event],
    lines: list[LogLine] | None = None,
    nodes: int = 3,
    failure: str = "",
    **facts: str,
) -> str:
    """Draw a page of ten seconds."""
    timeline = Timeline()
    timeline.kept.extend(event for event in events if event.kind != "run")
    timeline.commands.extend(event for event in events if event.kind == "run")
    names = [f"n{number}" for number in range(1, nodes + 1)]
    listed = type("Nodes", (), {"names": names, "__len__": lambda self: nodes})()
    cluster: Any = SimpleNamespace(name="shop", timeline=timeline, nodes=listed)
    evidence = Evidence(cluster, 0.0, {}, {}, {}, lines or [], 10.0)
    return evidence.page("a test", facts, failure)


def test_what_happened_is_where_it_happened() -> None:
    page = Page(
        draw(
            [
                Event("step", "first step", (), 1.0, 2.0),
                Event(
                    "partition",
                    "partition n1 | n2,n3",
                    ("n1", "n2", "n3"),
                    2.0,
                    4.5,
                    {"fault": "1", "groups": [["n1"], ["n2", "n3"]]},
                ),
                Event("run", "redis-cli ping", ("n2",), 3.0, 3.5, {"status": 1, "output": "bad"}),
                Event("restore", "restore base", (), 0.0, 0.5, {"nodes": ["n3"]}),
                Event("kill", "kill n1", ("n1",), 5.0, None, {"fault": "2", "signal": "KILL"}),
            ],
            [
                LogLine("n3", "/var/log/x", "an ERROR\nwith more", 6.0),
                LogLine("n3", "/var/log/x", "who knows when", None),
            ],
            failure="it went wrong",
            Seed="4711",
        )
    )
    (band,) = page.of_class("band")
    assert "left:20.600%;width:24.500%;top:26px" in band["style"]
    bars = [each["class"].split() for each in page.of_class("bar")]
    assert [each for each in bars if "network" in each] == [
        ["bar", "network", "side0"],
        ["bar", "network", "side1"],
        ["bar", "network", "side1"],
    ]
    assert ["bar", "power", "open"] in bars and ["bar", "life"] in bars
    (command,) = (each for each in page.of_class("run") if "href" in each)
    assert command["class"] == "run error" and "left:30.400%;width:4.900%" in command["style"]
    (dot,) = (each for each in page.of_class("log") if "href" in each)
    assert dot["class"] == "log error"
    rows = {each["id"]: each["class"] for tag, each in page.tags if tag == "tr" and "id" in each}
    assert set(rows) == {f"e{number}" for number in range(7)}
    for link in (each["href"] for tag, each in page.tags if tag == "a"):
        assert link[1:] in rows
    text = "\n".join(page.texts)
    for words in (
        "Seed", "4711", "it went wrong", "output: bad", "status: 1", "with more", "goes on",
        "in: /var/log/x", "who knows when", "signal: KILL",
    ):  # fmt: skip
        assert words in text
    assert "fault:" not in text


def test_hostile_text_stays_text() -> None:
    event = Event(HOSTILE, HOSTILE, ("n1", HOSTILE), 1.0, 2.0, {HOSTILE: HOSTILE})
    wild = Event("run", HOSTILE, ("n1",), 1.0, 2.0, {"output": HOSTILE})
    text = draw([event, wild], [LogLine("n2", HOSTILE, HOSTILE, 3.0)], failure=HOSTILE, x=HOSTILE)
    text.encode()
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert "img" not in tags and [tag for tag, _ in page.tags].count("script") == 1
    attributes = {name for _, attrs in page.tags for name in attrs}
    assert not any(name.startswith("on") for name in attributes)
    assert "\x1b" not in text and "\x00" not in text


def test_nothing_is_loaded_and_only_our_script_may_run() -> None:
    text = draw([])
    page = Page(text)
    assert not re.search(r"https?://|\burl\(|@import", text)
    assert not any({"src", "srcset"} & set(attrs) for _, attrs in page.tags)
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "base-uri 'none'" in policy


def test_many_nodes_and_events_fit() -> None:
    events = [
        Event("run", f"command {number}", (f"n{number % 32 + 1}",), number / 300, number / 300)
        for number in range(2000)
    ]
    events.append(
        Event("isolate", "isolate all", tuple(f"n{n}" for n in range(1, 33)), 1.0, 2.0, {})
    )
    text = draw(events, nodes=32)
    assert len(text) < 1_500_000
    page = Page(text)
    assert len(page.of_class("lane")) == 33 and len(page.of_class("band")) == 1
    lines = [LogLine("n1", "/x", str(number), 1.0) for number in range(2500)]
    page = Page(draw([], lines))
    assert "500 lines of logs: see the files" in page.texts


def item(began: float, ended: float) -> Item:
    """Something of a kind that is a bar."""
    return Item(0, "kill", "kill", ("n1",), began, ended, False, {})


def test_bars_that_overlap_are_below_each_other() -> None:
    lane = Lane("n1")
    for began, ended in ((0.0, 5.0), (1.0, 2.0), (3.0, 4.0), (5.0, 6.0)):
        lane.add(item(began, ended), 0.5, True)
    assert [[each.began for each, _ in row] for row in lane.rows] == [[0.0, 5.0], [1.0, 3.0]]
    # Short ones leave room for what they say.
    lane = Lane("n1")
    lane.add(item(0.0, 0.1), 1.0, True)
    lane.add(item(0.5, 0.6), 1.0, True)
    assert len(lane.rows) == 2


@pytest.mark.parametrize("span", [0.0013, 0.5, 1.0, 7.0, 59.0, 3600.0, 86400.0])
def test_the_scale_has_round_numbers(span: float) -> None:
    found = list(ticks(span))
    assert 4 <= len(found) <= 13
    assert found[0][0] == 0.0 and found[-1][0] <= span
    assert len({label for _, label in found}) == len(found)


def test_the_script_is_a_script() -> None:
    node = subprocess.run(["sh", "-c", "command -v node"], capture_output=True, check=False)
    if node.returncode:
        pytest.skip("there is no JavaScript here to check it with")
    source = Path(redock.cluster.__file__).with_name("page.js")
    subprocess.run(["node", "--check", source], check=True, timeout=60)
