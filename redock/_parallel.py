"""
Doing the same thing to several machines side by side.
"""

from __future__ import annotations

import queue
import threading

from redock.errors import RedockError, SeveralFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    R = TypeVar("R")
    T = TypeVar("T")

__all__ = ["call_all", "raise_all", "run_all"]


def run_all(
    items: Mapping[str, T],
    function: Callable[[T], object],
    workers: int,
    on_error: Callable[[str, Exception], None],
) -> dict[str, Exception]:
    """
    Call a function for every item; a failure does not stop the others.

    The threads do not keep the process alive: an interrupt ends all of them.

    :param items: The items by name.
    :param function: Called with each item.
    :param workers: How many items at a time.
    :param on_error: Called in this thread with the name and error of each failure.
    :returns: The errors by name, in the order of the items.
    """
    waiting: queue.SimpleQueue[tuple[str, T]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[str, Exception | None]] = queue.SimpleQueue()
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
            except Exception as error:
                done.put((name, error))
            else:
                done.put((name, None))

    for _ in range(min(workers, len(items))):
        threading.Thread(target=work, daemon=True).start()
    errors: dict[str, Exception] = {}
    for _ in items:
        name, error = done.get()
        if error is not None:
            errors[name] = error
            on_error(name, error)
    return {name: errors[name] for name in items if name in errors}


def call_all(
    items: Mapping[str, T],
    function: Callable[[T], R],
    workers: int = 8,
    on_error: Callable[[str, Exception], None] = lambda name, error: None,
) -> dict[str, R]:
    """
    Call a function for every item and collect what it returns.

    :param items: The items by name.
    :param function: Called with each item.
    :param workers: How many items at a time (default: 8).
    :param on_error: Called in this thread with the name and error of each failure
                     (default: nothing is).
    :returns: What was returned, by name.
    :raises RedockError: The error of the only item that failed.
    :raises SeveralFailed: At least two items failed.
    """
    returned: dict[str, R] = {}

    def work(name: str) -> None:
        returned[name] = function(items[name])

    failed = run_all({name: name for name in items}, work, workers, on_error)
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
