"""
What happened in a cluster, and when.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import heapq
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

__all__ = ["Event", "Timeline"]


@dataclasses.dataclass
class Event:
    """
    Something that happened, or is going on.

    :param kind: What kind of thing: ``start``, ``snapshot``, ``restore``, ``run``, the kind of a
                 fault, ``step`` (of a test), ``log``, ...
    :param text: What happened, for people.
    :param nodes: The nodes it concerns; none for the whole cluster.
    :param began: When, in seconds since the timeline began.
    :param ended: When it was over; None while it goes on.
    :param details: More about it.
    """

    kind: str
    text: str
    nodes: tuple[str, ...]
    began: float
    ended: float | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


class Timeline:
    """
    The record of what happened in a cluster.

    Thread safety: may be shared between threads.
    """

    #: The oldest events of something that runs for days are forgotten.
    longest = 10_000
    #: Commands are many and say little: no more of them than this are kept beside the rest.
    most_commands = 2_000

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begin anew; what goes on is forgotten as well."""
        with self.lock:
            self.kept: collections.deque[Event] = collections.deque(maxlen=self.longest)
            self.commands: collections.deque[Event] = collections.deque(maxlen=self.most_commands)
            #: How many commands were forgotten.
            self.forgotten = 0
            #: The moment everything is counted from, on two clocks.
            self.wall, self.zero = time.time(), time.monotonic()

    @property
    def events(self) -> list[Event]:
        """What happened, in the order in which it began."""
        with self.lock:
            return list(heapq.merge(self.kept, self.commands, key=lambda event: event.began))

    def since(self, began: float) -> list[Event]:
        """
        Get what happened, or still went on, after a moment.

        :param began: Seconds since the timeline began, from :meth:`now`.
        :returns: The events, in the order in which they began.
        """
        return [event for event in self.events if event.ended is None or event.ended >= began]

    def now(self) -> float:
        """
        Get the time.

        :returns: Seconds since the timeline began.
        """
        return time.monotonic() - self.zero

    def note(self, kind: str, text: str, nodes: Iterable[str] = (), **details: Any) -> Event:
        """
        Record something that happened in this moment.

        :param kind: What kind of thing.
        :param text: What happened, for people.
        :param nodes: The nodes it concerns.
        :param details: More about it.
        :returns: The event.
        """
        event = self.begin(kind, text, nodes, **details)
        event.ended = event.began
        return event

    def begin(self, kind: str, text: str, nodes: Iterable[str] = (), **details: Any) -> Event:
        """
        Record something that begins in this moment; :meth:`end` ends it.

        :param kind: What kind of thing.
        :param text: What happens, for people.
        :param nodes: The nodes it concerns.
        :param details: More about it.
        :returns: The event.
        """
        with self.lock:
            event = Event(kind, text, tuple(nodes), self.now(), None, details)
            if kind == "run":
                self.forgotten += len(self.commands) == self.commands.maxlen
                self.commands.append(event)
            else:
                self.kept.append(event)
        return event

    def end(self, event: Event, **details: Any) -> None:
        """
        Record that something is over.

        :param event: What :meth:`begin` returned.
        :param details: More about it.
        """
        event.ended = self.now()
        event.details.update(details)

    @contextlib.contextmanager
    def step(self, text: str, *nodes: str) -> Iterator[Event]:
        """
        Record a step of a test, for as long as a ``with`` block runs::

            with cluster.timeline.step("the leader loses its followers"):
                ...

        :param text: What the test does, for people.
        :param nodes: The nodes it concerns (default: the whole cluster).
        :returns: A context manager that yields the event.
        """
        with self.during("step", text, nodes) as event:
            yield event

    @contextlib.contextmanager
    def during(self, kind: str, text: str, nodes: Iterable[str] = ()) -> Iterator[Event]:
        """
        Record something that goes on for as long as a ``with`` block runs.

        :param kind: What kind of thing.
        :param text: What happens, for people.
        :param nodes: The nodes it concerns.
        :returns: A context manager that yields the event; an error that ends the block becomes
                  part of it.
        """
        event = self.begin(kind, text, nodes)
        try:
            yield event
        except BaseException as error:
            self.end(event, failed=type(error).__name__)
            raise
        self.end(event)

    def as_dict(self, since: float = 0.0) -> dict[str, Any]:
        """
        Turn it into plain values that JSON can express.

        :param since: Leave out what was over before this moment (default: nothing).
        :returns: ``began`` (seconds since 1970 on the host's clock, which all other times are
                  counted from), ``forgotten`` (how many commands are missing) and ``events``.
        """
        return {
            "began": self.wall,
            "forgotten": self.forgotten,
            "events": [dataclasses.asdict(event) for event in self.since(since)],
        }

    def as_text(self, since: float = 0.0, longest: int = 60) -> str:
        """
        Turn it into lines for a terminal.

        :param since: Leave out what was over before this moment, and count from it (default:
                      nothing).
        :param longest: How many lines at most; commands that worked are left out first, then
                        what is oldest (default: 60).
        :returns: The lines, one an event: when, for how long, where, what.
        """
        events = self.since(since)
        shown = events
        if len(shown) > longest:
            shown = [event for event in events if event.kind != "run" or is_failure(event)]
        shown = shown[-longest:]
        lines = [line_for(event, since) for event in shown]
        if len(shown) < len(events):
            lines.insert(0, f"({len(events) - len(shown)} more are not shown)")
        return "\n".join(lines)


def is_failure(event: Event) -> bool:
    """
    Check whether something did not go well.

    :param event: The event.
    :returns: True for commands and steps that failed, and waits that were in vain.
    """
    return bool(event.details.get("status") or event.details.get("failed"))


def line_for(event: Event, since: float) -> str:
    """
    Describe an event in one line.

    :param event: The event.
    :param since: The moment times are counted from.
    :returns: The line.
    """
    if event.ended is None:
        length = "goes on"
    elif event.ended - event.began < 0.0005:
        length = ""
    else:
        length = f"{event.ended - event.began:.3f} s"
    status = event.details.get("status")
    said = f" (status {status})" if status else ""
    said += f" ({event.details['failed']})" if event.details.get("failed") else ""
    where = ",".join(event.nodes) or "all"
    text = " ".join(event.text.split())
    return f"{event.began - since:9.3f} s  {length:>9}  {where:10}  {event.kind}: {text}{said}"
