"""
Showing the log on standard error, for the command line program.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from redock._progress import Progress

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
    spinner = None
    if level == 0 and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        spinner = Spinner()
        Progress.show, Progress.hide = spinner.show, spinner.clear
    logger.addHandler(LateHandler(spinner))


class LateHandler(logging.Handler):
    """
    Loads coloredlogs with the first message: most commands have none.

    :param spinner: What has to make way for messages, None where there is no terminal.
    """

    def __init__(self, spinner: Spinner | None) -> None:
        super().__init__()
        self.spinner = spinner

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
        if self.spinner is not None:
            for handler in logger.handlers:
                handler.addFilter(self.spinner.make_way)
        logger.handle(record)


class Spinner:
    """One line at the bottom of a terminal that shows that long work goes on."""

    phases = "|/-\\"
    #: Seconds between two updates: a terminal need not see every line.
    interval = 0.1

    def __init__(self) -> None:
        self.started = self.updated = time.monotonic()
        self.phase = 0
        self.visible = False

    def show(self, line: str) -> None:
        """
        Show a line of detail, in place of the one before.

        :param line: The line.
        """
        import shutil

        now = time.monotonic()
        if self.visible and now - self.updated < self.interval:
            return
        self.updated, self.visible = now, True
        self.phase = (self.phase + 1) % len(self.phases)
        text = f"{self.phases[self.phase]} {now - self.started:4.0f} s  {line}"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[K{text[:width]}")
        sys.stderr.flush()

    def make_way(self, record: logging.LogRecord) -> bool:
        """
        Clear the line before a message is printed.

        :param record: The message.
        :returns: True: the message is to be printed.
        """
        self.clear()
        return True

    def clear(self) -> None:
        """Take the line away."""
        if self.visible:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self.visible = False


def use_color(terminal: bool) -> bool:
    """
    Decide whether to use colours.

    :param terminal: The output is a terminal.
    :returns: False where ``NO_COLOR`` (https://no-color.org) or ``TERM=dumb`` is set.
    """
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
