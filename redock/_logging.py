"""
Showing the log on standard error, for the command line program.
"""

from __future__ import annotations

import logging
import os
import sys

__all__ = ["set_up", "use_color"]

logger = logging.getLogger("redock")

LONG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"
SHORT_FORMAT = "%(asctime)s %(message)s"


def set_up(level: int) -> None:
    """
    Show the log on standard error.

    :param level: 0: what the user waits for; above: more; below: only what went wrong.
    """
    logger.setLevel(logging.DEBUG if level > 0 else logging.INFO if level == 0 else logging.WARNING)
    logger.propagate = False
    logger.addHandler(LateHandler())


class LateHandler(logging.Handler):
    """Loads coloredlogs with the first message: most commands have none."""

    def emit(self, record: logging.LogRecord) -> None:
        """
        Replace this handler by that of coloredlogs and pass the message on.

        :param record: The message.
        """
        import coloredlogs

        logger.removeHandler(self)
        styles = {**coloredlogs.DEFAULT_FIELD_STYLES, "levelname": {"color": "cyan"}}
        coloredlogs.install(
            level=logger.level,
            logger=logger,
            fmt=SHORT_FORMAT if logger.level > logging.DEBUG else LONG_FORMAT,
            datefmt="%H:%M:%S",
            field_styles=styles,
            isatty=use_color(sys.stderr.isatty()),
            reconfigure=False,
        )
        logger.handle(record)


def use_color(terminal: bool) -> bool:
    """
    Decide whether to use colours.

    :param terminal: The output is a terminal.
    :returns: False where ``NO_COLOR`` (https://no-color.org) or ``TERM=dumb`` is set.
    """
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
