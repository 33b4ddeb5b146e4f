"""
Showing that long work goes on.

The library reports; whoever owns the terminal decides what is seen. The
command line program shows a spinner on a terminal and plain lines elsewhere.
"""

from __future__ import annotations

import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Progress", "detail", "step"]

logger = logging.getLogger(__name__)


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
