"""
Asking before something is lost; only people are asked, programs never.
"""

from __future__ import annotations

import sys

__all__ = ["confirm", "is_somebody_there"]


def is_somebody_there() -> bool:
    """
    Find out whether there is a person to ask.

    :returns: True when standard input and standard error are terminals.
    """
    try:
        return sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):
        # Closed, or not there at all.
        return False


def confirm(question: str) -> bool:
    """
    Ask a question that is answered with yes or no, on standard error.

    :param question: The question, one line.
    :returns: True for yes. Everything else is no: another answer, none, an interrupt.
    """
    from redock._printed import printable
    from redock._progress import Progress

    if Progress.hide is not None:
        Progress.hide()
    answer = ""
    try:
        print(f"{printable(question)} [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        pass
    if not answer.endswith("\n"):
        # The cursor is still behind the question.
        print(file=sys.stderr, flush=True)
    return answer.strip().lower() in ("y", "yes")
