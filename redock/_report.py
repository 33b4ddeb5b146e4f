"""
What the program tells its user: one line for a failure, on standard error.
"""

from __future__ import annotations

import sys

__all__ = ["complain", "report"]


def report(error: BaseException, name: str = "") -> None:
    """
    Tell the user what went wrong.

    :param error: The error.
    :param name: The machine it concerns, where there are several.
    """
    from redock._progress import Progress

    if Progress.hide is not None:
        Progress.hide()
    log = getattr(error, "log", "")
    for line in log.splitlines()[-20:]:
        print(f"    {line}", file=sys.stderr)
    complain(f"{name}: {error}" if name and name not in str(error) else str(error))


def complain(message: str) -> None:
    """
    Print one line on standard error.

    :param message: The line.
    """
    import contextlib

    # Where standard error is closed nobody is there to be told.
    with contextlib.suppress(OSError):
        print(f"redock: {' '.join(message.split())}", file=sys.stderr, flush=True)
