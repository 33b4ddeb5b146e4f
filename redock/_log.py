"""
A logger that is loaded when somebody listens.

Loading :mod:`logging` takes as long as asking the engine what there is. As long
as nobody has loaded it nobody has asked for messages, and those below a warning
would be dropped anyway.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["LateLogger"]

#: What is not shown unless somebody asks for it.
QUIET = frozenset(("debug", "info"))


class LateLogger:
    """
    Stands for a logger.

    :param name: The name of the logger.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method in QUIET and "logging" not in sys.modules:
            return ignore
        import logging

        found: Callable[..., Any] = getattr(logging.getLogger(self.name), method)
        return found


def ignore(*_: object, **__: object) -> None:
    """Drop a message."""
