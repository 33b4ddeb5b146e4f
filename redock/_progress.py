"""
Showing that long work goes on.

The library reports; whoever owns the terminal decides what is seen. The
command line program shows a spinner on a terminal and plain lines elsewhere.
"""

from __future__ import annotations

import contextlib
import logging
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Progress", "busy", "counted", "detail", "size", "step"]

logger = logging.getLogger(__name__)

#: Seconds between two lines where there is no terminal.
PLAIN_INTERVAL = 10.0
#: Seconds between two looks of somebody who waits for a single answer.
TICK = 0.2


class Progress:
    """Where progress is shown, set by the program that owns the terminal."""

    #: Called with each line of detail; None: nobody wants them.
    show: Callable[[str], None] | None = None
    #: Called before something else is printed; None: there is nothing to hide.
    hide: Callable[[], None] | None = None


def step(message: str, *arguments: object) -> None:
    """
    Report that a new part of the work begins.

    :param message: A message in the style of :mod:`logging`.
    :param arguments: What to put into it.
    """
    logger.info(message, *arguments)


def detail(line: str) -> None:
    """
    Report a line of output of the work.

    :param line: The line, safe to show on a terminal.
    """
    logger.debug("%s", line)
    if Progress.show is not None:
        Progress.show(line)


def counted(pieces: Iterable[bytes], what: str, total: int = 0) -> Iterator[bytes]:
    """
    Report how much of something has gone by.

    :param pieces: What is transferred.
    :param what: What is done, for example ``"Exporting sam:web"``.
    :param total: About how many bytes there are (default: not known).
    :returns: Yields the same pieces.
    """
    done, told_at = 0, time.monotonic() + PLAIN_INTERVAL
    of = f" of about {size(total)}" if total else ""
    for piece in pieces:
        yield piece
        done += len(piece)
        if Progress.show is not None:
            Progress.show(f"{what}: {size(done)}{of}")
        elif time.monotonic() > told_at:
            told_at = time.monotonic() + PLAIN_INTERVAL
            logger.info("%s: %s%s", what, size(done), of)
    if Progress.hide is not None:
        Progress.hide()


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """
    Show that work goes on of which nothing is heard before its end.

    :param what: What is done, for example ``"Saving the disk of sam:web"``.
    :returns: A context manager.
    """
    if Progress.show is None:
        yield
        return
    import threading

    done = threading.Event()

    def tick() -> None:
        while not done.wait(TICK):
            if Progress.show is not None:
                Progress.show(what)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if Progress.hide is not None:
            Progress.hide()


def size(count: int) -> str:
    """
    Say how much that is.

    :param count: A number of bytes.
    :returns: For example ``1.2 MB``; a MB is a million bytes, as in what ``docker`` prints.
    """
    number, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or number >= 99.5 else 1
    return f"{number:.{digits}f} {units[0]}"
