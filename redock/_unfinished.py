"""
What has to come to its end although we were interrupted.
"""

from __future__ import annotations

import queue
import threading

from redock._log import LateLogger
from redock._parallel import HEARING, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

__all__ = ["finish", "to_the_end"]

logger = LateLogger(__name__)


def to_the_end(function: Callable[[], Any]) -> Any:
    """
    Call a function and, when we are interrupted, wait for its end nevertheless.

    An engine goes on with what it was asked to do: with the container paused,
    and to give the image its name later than we would have thought.

    :param function: What to call, in a thread of its own.
    :returns: What it returned.
    """
    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((function(), None))
        except Exception as error:
            # It belongs to the thread that waits, whatever it is.
            outcome.put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    Unfinished.threads.append(thread)
    thread.start()
    try:
        answer, error = take(outcome)
    except BaseException:
        finish()
        raise
    finally:
        Unfinished.threads.remove(thread)
    if error is not None:
        raise error
    return answer


class Unfinished:
    """What must not be left to itself."""

    threads: ClassVar[list[threading.Thread]] = []


def finish() -> None:
    """Wait for what :func:`to_the_end` began, in whatever thread; a second interrupt ends that."""
    for thread in list(Unfinished.threads):
        if thread.is_alive():
            logger.warning("Waiting for the engine to finish; interrupt again to leave it alone")
        while thread.is_alive():
            thread.join(HEARING)
