"""
The timeline of a cluster as a page to look at.

One lane a node and one for the cluster as a whole; time runs to the right.
Faults, restarts and waits are bars, with a band behind them where they concern
several nodes; commands are ticks, lines of logs are dots. Below stands
everything as a table. The page is one file, loads nothing and needs no script:
that only makes it more convenient.
"""

from __future__ import annotations

import dataclasses
import math
import os
from html import escape

from redock._files import read_bytes
from redock.cluster._timeline import is_failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from redock.cluster._collect import Evidence
    from redock.cluster._logfiles import LogLine
    from redock.cluster._timeline import Event

__all__ = ["render"]

#: What looks alike, by the kind of event.
FAMILIES = {
    **dict.fromkeys(
        ("partition", "isolate", "drop", "loss", "latency", "jitter", "duplicate", "corrupt",
         "reorder", "bandwidth"),
        "network",
    ),
    **dict.fromkeys(("kill", "crash", "reboot", "pause"), "power"),
    **dict.fromkeys(("disk_full", "clock_skew"), "resource"),
    **dict.fromkeys(("start", "snapshot", "restore", "heal"), "life"),
    **{kind: kind for kind in ("step", "wait", "run", "log")},
}  # fmt: skip
#: The heights of things, in pixels; the style sheet has the same.
BAR, TICKS, DOTS, PADDING = 20, 14, 12, 6
#: How much of the width a bar gets for its label, however short it is.
LABEL = 0.09
#: How much room there is before the first event and after the last.
MARGIN = 0.01
#: More lines than this are not in the picture; the files have them.
MOST_LINES = 2000
#: How much of a text is in the table.
LONGEST = 2000
GROUPS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclasses.dataclass
class Item:
    """
    Something to show.

    :param number: Its number in the table.
    :param kind: What kind of thing.
    :param text: What happened.
    :param nodes: Where.
    :param began: When, in seconds since the beginning of the page.
    :param ended: Until when.
    :param open: Whether it still went on.
    :param notes: More about it, by name.
    :param bad: How bad it was: ``error``, ``warning`` or nothing.
    :param groups: The nodes on each side of a partition.
    """

    number: int
    kind: str
    text: str
    nodes: tuple[str, ...]
    began: float | None
    ended: float
    open: bool
    notes: dict[str, str]
    bad: str = ""
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def family(self) -> str:
        """What it looks like."""
        return FAMILIES.get(self.kind, "other")


class Lane:
    """
    The place of a node in the picture.

    :param name: The name of the node; empty for the cluster.
    :param rows: The bars in each row, from left to right.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[list[tuple[Item, bool]]] = []
        self.ticks: list[Item] = []
        self.dots: list[Item] = []
        self.top = 0

    @property
    def height(self) -> int:
        """How high it is, in pixels."""
        small = TICKS + DOTS if self.name else 0
        return max(1, len(self.rows)) * BAR + small + PADDING

    def add(self, item: Item, room: float, first: bool) -> None:
        """
        Find a place for a bar.

        :param item: What it stands for.
        :param room: How many seconds its label takes.
        :param first: Whether it is the first of the same event, which has the label.
        """
        assert item.began is not None
        for row in self.rows:
            last, labelled = row[-1]
            assert last.began is not None
            end = max(last.ended, last.began + (room if labelled else room / 4))
            if end <= item.began:
                row.append((item, first))
                return
        self.rows.append([(item, first)])


class Picture:
    """
    Where everything is.

    :param items: What to show.
    :param nodes: The names of the nodes.
    :param span: How many seconds are shown.
    """

    def __init__(self, items: Iterable[Item], nodes: Iterable[str], span: float) -> None:
        self.span = span
        self.lanes = {name: Lane(name) for name in ["", *nodes]}
        self.bands: list[Item] = []
        for item in items:
            if item.began is not None:
                self.add(item)
        self.height = 0
        for lane in self.lanes.values():
            lane.top = self.height
            self.height += lane.height

    def add(self, item: Item) -> None:
        """
        Find a place for something.

        :param item: It.
        """
        names = [name for name in item.nodes if name in self.lanes] or [""]
        if item.family in ("run", "log"):
            for name in filter(None, names):
                lane = self.lanes[name]
                (lane.ticks if item.family == "run" else lane.dots).append(item)
            return
        for number, name in enumerate(names):
            self.lanes[name].add(item, LABEL * self.span, number == 0)
        if len(names) > 1 and item.family != "life":
            self.bands.append(item)

    def left(self, moment: float) -> float:
        """
        Find the place of a moment.

        :param moment: Seconds since the beginning of the page.
        :returns: Percent of the width.
        """
        return (MARGIN + (1 - 2 * MARGIN) * min(max(moment / self.span, 0.0), 1.0)) * 100

    def place(self, item: Item) -> str:
        """
        Say where something is and how wide.

        :param item: It.
        :returns: Declarations for the style sheet.
        """
        assert item.began is not None
        left = self.left(item.began)
        return f"left:{left:.3f}%;width:{self.left(item.ended) - left:.3f}%"


def render(evidence: Evidence, title: str, facts: Mapping[str, str], failure: str) -> str:
    """
    Draw the timeline of a cluster.

    :param evidence: What is known about it.
    :param title: What the page is about.
    :param facts: More to say about it, by name.
    :param failure: How it went wrong; empty when it did not.
    :returns: A page of HTML.
    """
    items, hidden = make_items(evidence)
    span = max(evidence.until - evidence.since, 0.001)
    picture = Picture(items, evidence.cluster.nodes.names, span)
    timeline = evidence.cluster.timeline
    told = {
        "Cluster": f"{evidence.cluster.name}, nodes: {len(evidence.cluster.nodes)}",
        "From": f"{date(timeline.wall + evidence.since)}, for {span:.1f} seconds",
        **facts,
    }
    if timeline.forgotten:
        told["Not shown"] = f"{timeline.forgotten} commands, the oldest"
    if hidden:
        told["Not in the picture"] = f"{hidden} lines of logs: see the files"
    parts = [
        f"<h1>{text(title)}</h1>",
        '<table class="facts">',
        *(f"<tr><th>{text(name)}</th><td>{text(fact)}</td></tr>" for name, fact in told.items()),
        "</table>",
        *([f"<details><summary>{text(gist(failure))}</summary><pre>{text(failure)}</pre></details>"]
          if failure else []),
        *draw(picture, bool(failure)),
        *tabulate(items),
    ]  # fmt: skip
    return assemble(title, "\n".join(parts))


def assemble(title: str, body: str) -> str:
    """
    Put a page together.

    :param title: Its title.
    :param body: What is on it.
    :returns: The page; whatever went into it, browsers run nothing but our own script.
    """
    import base64
    import hashlib

    style, script = (resource(name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy};'
        " base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def resource(name: str) -> str:
    """
    Read a file that stands beside this module.

    :param name: Its name.
    :returns: Its text.
    """
    contents = read_bytes(os.path.join(os.path.dirname(__file__), name))
    assert contents is not None, name
    return contents.decode()


def text(value: str) -> str:
    """
    Make a text harmless.

    :param value: Any text.
    :returns: The same for HTML, as contents or in a quoted attribute; control characters, which
              HTML does not allow, are replaced.
    """
    return escape("".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in value))


def gist(failure: str) -> str:
    """
    Choose the line that says the most about a failure.

    :param failure: What pytest says about it, or any text.
    :returns: The first line that pytest marks as the error, else the last line.
    """
    lines = [line for line in failure.splitlines() if line.strip()] or ["it failed"]
    return next((line[1:].strip() for line in lines if line.startswith("E ")), lines[-1])


def date(moment: float) -> str:
    """
    Write a moment down.

    :param moment: Seconds since 1970.
    :returns: Date and time, UTC.
    """
    import datetime

    when = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def make_items(evidence: Evidence) -> tuple[list[Item], int]:
    """
    Decide what to show, in what order.

    :param evidence: What is known.
    :returns: The items, and how many lines of logs are not among them.
    """
    lines = [line for line in evidence.lines if is_within(line, evidence)]
    hidden = max(0, len(lines) - MOST_LINES)
    items = [item_for_event(event, evidence) for event in evidence.cluster.timeline.since(
        evidence.since)]  # fmt: skip
    items += [item_for_line(line, evidence) for line in lines[hidden:]]
    items.sort(key=lambda item: math.inf if item.began is None else item.began)
    for number, item in enumerate(items):
        item.number = number
    return items, hidden


def is_within(line: LogLine, evidence: Evidence) -> bool:
    """
    Check whether a line was written in the time that is shown.

    :param line: The line.
    :param evidence: What is known.
    :returns: True for lines whose time nobody knows, too.
    """
    return line.moment is None or line.moment <= evidence.until + 1.0


def item_for_event(event: Event, evidence: Evidence) -> Item:
    """
    Decide how to show an event.

    :param event: The event.
    :param evidence: What is known.
    :returns: The item.
    """
    details = dict(event.details)
    booted = details.pop("nodes", ()) if event.kind == "restore" else ()
    sides = details.pop("groups", None) or ()
    # The shapes of a nemesis have no sides: each node hears others.
    groups = tuple(tuple(side) for side in sides if isinstance(side, (list, tuple)))
    for name in ("fault", "status"):
        if not details.get(name) or name == "fault":
            details.pop(name, None)
    notes = {name: str(value) for name, value in details.items() if value not in (None, "", False)}
    return Item(
        0,
        event.kind,
        event.text,
        event.nodes or tuple(booted),
        max(event.began, evidence.since) - evidence.since,
        (evidence.until if event.ended is None else event.ended) - evidence.since,
        event.ended is None,
        notes,
        "error" if is_failure(event) else "",
        groups,
    )


def item_for_line(line: LogLine, evidence: Evidence) -> Item:
    """
    Decide how to show a line of a log.

    :param line: The line.
    :param evidence: What is known.
    :returns: The item.
    """
    moment = line.moment
    if moment is not None:
        moment = min(max(moment, evidence.since), evidence.until) - evidence.since
    notes = {"in": line.path}
    return Item(0, "log", line.text, (line.node,), moment, moment or 0.0, False, notes, line.level)


# The picture.


def draw(picture: Picture, failed: bool) -> Iterator[str]:
    """
    Draw the picture.

    :param picture: Where everything is.
    :param failed: Whether it ended badly.
    :returns: Yields pieces of HTML.
    """
    legend = ("step", "network", "power", "resource", "life", "wait", "run", "log")
    names = ("step of the test", "network", "power", "disk, clock", "cluster", "waiting",
             "command", "log line")  # fmt: skip
    keys = "".join(
        f'<span class="key {kind}">{name}</span>' for kind, name in zip(legend, names, strict=True)
    )
    yield f'<div class="tools"><span class="zoom"></span><span class="legend">{keys}</span></div>'
    yield '<div class="chart"><div class="inner">'
    yield '<div class="corner">seconds</div><div class="axis">'
    for moment, label in ticks(picture.span):
        yield f'<span style="left:{picture.left(moment):.3f}%">{label}</span>'
    yield '</div><div class="names">'
    for lane in picture.lanes.values():
        yield f'<div style="height:{lane.height}px">{text(lane.name) or "<i>cluster</i>"}</div>'
    yield f'</div><div class="plot" data-span="{picture.span:.6f}"'
    yield f'style="height:{picture.height}px">'
    for lane in picture.lanes.values():
        yield f'<div class="lane" style="top:{lane.top}px;height:{lane.height}px"></div>'
    for item in picture.bands:
        yield draw_band(picture, item)
    if failed:
        yield f'<div class="end" style="left:{picture.left(picture.span):.3f}%"></div>'
    for lane in picture.lanes.values():
        yield from draw_lane(picture, lane)
    yield "</div></div></div>"
    yield '<div id="box" hidden></div>'


def ticks(span: float, most: int = 12) -> Iterator[tuple[float, str]]:
    """
    Choose moments for the scale.

    :param span: How many seconds are shown.
    :param most: How many there may be.
    :returns: Yields moments and their labels.
    """
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= most)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    for number in range(int(span / step) + 1):
        yield number * step, f"{number * step:.{digits}f}"


def draw_band(picture: Picture, item: Item) -> str:
    """
    Draw what connects the bars of something that concerns several nodes.

    :param picture: Where everything is.
    :param item: It.
    :returns: HTML.
    """
    lanes = [picture.lanes[name] for name in item.nodes if name in picture.lanes]
    top = min(lane.top for lane in lanes)
    height = max(lane.top + lane.height for lane in lanes) - top
    return (
        f'<div class="band {item.family}" '
        f'style="{picture.place(item)};top:{top}px;height:{height}px"></div>'
    )


def draw_lane(picture: Picture, lane: Lane) -> Iterator[str]:
    """
    Draw what happened to a node.

    :param picture: Where everything is.
    :param lane: The place of the node.
    :returns: Yields pieces of HTML.
    """
    top = lane.top + PADDING // 2
    for row in lane.rows:
        for number, (item, labelled) in enumerate(row):
            after = row[number + 1][0].began if number + 1 < len(row) else None
            yield draw_bar(picture, lane, item, labelled, top, after)
        top += BAR
    top = lane.top + lane.height - PADDING // 2 - DOTS - TICKS
    for item in lane.ticks:
        yield (
            f'<a class="run {item.bad}" href="#e{item.number}" tabindex="-1" '
            f'style="{picture.place(item)};top:{top}px"></a>'
        )
    for item in lane.dots:
        assert item.began is not None
        yield (
            f'<a class="log {item.bad}" href="#e{item.number}" tabindex="-1" '
            f'style="left:{picture.left(item.began):.3f}%;top:{top + TICKS}px"></a>'
        )


def draw_bar(
    picture: Picture, lane: Lane, item: Item, labelled: bool, top: int, after: float | None
) -> str:
    """
    Draw a bar.

    :param picture: Where everything is.
    :param lane: The place of the node.
    :param item: What it stands for.
    :param labelled: Whether it says what it is.
    :param top: Where its row is.
    :param after: When the next bar in its row begins.
    :returns: HTML.
    """
    assert item.began is not None
    left = picture.left(item.began)
    room = (picture.left(after) if after is not None else 100.0) - left
    side = next((n for n, group in enumerate(item.groups) if lane.name in group), None)
    badge = f"<b>{GROUPS[side % 26]}</b>" if side is not None else ""
    label = text(item.text) if labelled else ""
    states = f"{item.family} {item.bad}{' open' if item.open else ''}"
    states += f" side{side % 4}" if side is not None else ""
    return (
        f'<a class="bar {states}" href="#e{item.number}" style="{picture.place(item)};top:{top}px">'
        f"<i></i></a>"
        f'<span class="label" style="left:{left:.3f}%;max-width:{room:.3f}%;top:{top}px">'
        f"{badge}{label}</span>"
    )


# The table.


def tabulate(items: Iterable[Item]) -> Iterator[str]:
    """
    Write everything down below each other.

    :param items: What to show.
    :returns: Yields pieces of HTML.
    """
    yield '<div class="tools"><h2>Everything in order</h2><span class="filter"></span></div>'
    yield '<table class="events"><thead><tr>'
    yield "".join(f"<th>{each}</th>" for each in ("At", "Took", "Where", "What", ""))
    yield "</tr></thead><tbody>"
    for item in items:
        at = "" if item.began is None else f"{item.began:.3f}"
        took = item.ended - (item.began or 0.0)
        length = "goes on" if item.open else f"{took:.3f}" if took >= 0.0005 else ""
        what = item.text.removeprefix(f"{item.kind} ")[:LONGEST]
        notes = "\n".join(f"{name}: {value}" for name, value in item.notes.items())
        yield (
            f'<tr id="e{item.number}" class="{item.family} {item.bad}"><td>{at}</td>'
            f"<td>{length}</td><td>{text(', '.join(item.nodes))}</td>"
            f"<td><em>{text(item.kind)}</em> {text(what)}</td>"
            f"<td>{text(notes[:LONGEST])}</td></tr>"
        )
    yield "</tbody></table>"
