"""
The saved states of a machine: listing them, comparing, going back, copying, handing on.
"""

from __future__ import annotations

from typing import cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock.api import Container

__all__ = ["History"]


class History:
    """The part of :class:`~redock.api.Container` that keeps states of its disk."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)
