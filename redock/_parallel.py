"""
Doing the same thing to several machines side by side.
"""

from __future__ import annotations

import queue
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["run_all"]


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
