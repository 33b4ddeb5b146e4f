"""
What happened in a cluster, and when.
"""

from __future__ import annotations

import dataclasses
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
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

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begin anew; what goes on is forgotten as well."""
        with self.lock:
            self.events: list[Event] = []
            #: The moment everything is counted from, on two clocks.
            self.wall, self.zero = time.time(), time.monotonic()

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
        event = Event(kind, text, tuple(nodes), self.now(), None, details)
        with self.lock:
            self.events.append(event)
            del self.events[: -self.longest]
        return event

    def end(self, event: Event, **details: Any) -> None:
        """
        Record that something is over.

        :param event: What :meth:`begin` returned.
        :param details: More about it.
        """
        event.ended = self.now()
        event.details.update(details)
