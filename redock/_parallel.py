"""
Doing the same thing to several machines side by side.
"""

from __future__ import annotations

import queue
import threading
import time

from redock._process import Deadline
from redock.errors import RedockError, SeveralFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    R = TypeVar("R")
    T = TypeVar("T")

__all__ = ["HEARING", "call_all", "raise_all", "run_all", "take"]

#: Seconds that what is under way may go on after an interrupt.
GRACE = 30.0
#: Seconds after which an interrupt is heard at the latest.
HEARING = 0.25


def run_all(
    items: Mapping[str, T],
    function: Callable[[T], object],
    workers: int,
    on_error: Callable[[str, Exception], None],
    grace: float = 0.0,
    on_interrupt: Callable[[], None] = lambda: None,
) -> dict[str, Exception]:
    """
    Call a function for every item; a failure does not stop the others.

    After an interrupt no call begins any more. The threads do not keep the process alive.

    :param items: The items by name.
    :param function: Called with each item.
    :param workers: How many items at a time.
    :param on_error: Called in this thread with the name and error of each failure.
    :param grace: Seconds to wait, after an interrupt, for the end of calls that are under way
                  (default: they are left to themselves).
    :param on_interrupt: Called in this thread before that, to make them end (default: nothing is).
    :returns: The errors by name, in the order of the items.
    """
    waiting: queue.SimpleQueue[tuple[str, T]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()
    ended: list[str] = []
    for item in items.items():
        waiting.put(item)

    def work() -> None:
        while True:
            try:
                name, item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                function(item)
            except BaseException as error:
                done.put((name, error))
            else:
                done.put((name, None))
            finally:
                ended.append(name)

    errors: dict[str, Exception] = {}
    exits: list[BaseException] = []
    try:
        for _ in range(min(workers, len(items))):
            threading.Thread(target=work, daemon=True).start()
        for _ in items:
            name, error = take(done)
            if isinstance(error, Exception):
                errors[name] = error
                on_error(name, error)
            elif error is not None:
                exits.append(error)
    except BaseException:
        begun = len(items) - empty(waiting)
        on_interrupt()
        deadline = Deadline(grace)
        while len(ended) < begun and not deadline.passed:
            time.sleep(0.01)
        raise
    if exits:
        # What ends a program does so, after the others have come to their end.
        raise exits[0]
    return {name: errors[name] for name in items if name in errors}


def take(outcomes: queue.SimpleQueue[T]) -> T:
    """
    Wait for what a thread puts into a queue, and hear interrupts meanwhile.

    A wait is ended by signals that come while it lasts. One that comes the moment before it
    begins, or to another thread, would be heard at its end only: handlers are called between
    instructions of the main thread (the documentation of Python's module signal, "Execution of
    Python signal handlers").

    :param outcomes: The queue.
    :returns: The first thing in it.
    """
    while True:
        try:
            return outcomes.get(timeout=HEARING)
        except queue.Empty:
            continue


def empty(waiting: queue.SimpleQueue[tuple[str, T]]) -> int:
    """
    Take everything out of a queue.

    :param waiting: The queue.
    :returns: How much that was.
    """
    taken = 0
    while True:
        try:
            waiting.get_nowait()
        except queue.Empty:
            return taken
        taken += 1


def call_all(
    items: Mapping[str, T],
    function: Callable[[T], R],
    workers: int = 8,
    on_error: Callable[[str, Exception], None] = lambda name, error: None,
    grace: float = GRACE,
    on_interrupt: Callable[[], None] = lambda: None,
) -> dict[str, R]:
    """
    Call a function for every item and collect what it returns.

    Who tidies up after an interrupt does not meet calls at work: their end is waited for. Another
    interrupt ends that.

    :param items: The items by name.
    :param function: Called with each item.
    :param workers: How many items at a time (default: 8).
    :param on_error: Called in this thread with the name and error of each failure
                     (default: nothing is).
    :param grace: Seconds to wait for that at most (default: 30).
    :param on_interrupt: Called in this thread before that, to make them end (default: nothing is).
    :returns: What was returned, by name.
    :raises RedockError: The error of the only item that failed.
    :raises SeveralFailed: At least two items failed.
    """
    returned: dict[str, R] = {}

    def work(name: str) -> None:
        returned[name] = function(items[name])

    failed = run_all({name: name for name in items}, work, workers, on_error, grace, on_interrupt)
    raise_all(failed, f"{len(failed)} of {len(items)} failed")
    return {name: returned[name] for name in items}


def raise_all(failed: Mapping[str, Exception], words: str = "") -> None:
    """
    Raise the error that happened, or one that stands for several.

    :param failed: The errors by the name of what failed; none is fine.
    :param words: What the message of the latter begins with (default: how many failed).
    :raises RedockError: The only one.
    :raises SeveralFailed: There are several.
    """
    for error in failed.values():
        if len(failed) == 1 or not isinstance(error, RedockError):
            raise error
    if failed:
        reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise SeveralFailed(f"{words or f'{len(failed)} failed'}: {reasons}", failed)
