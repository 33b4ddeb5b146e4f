"""
The power of a machine: stopping, restarting, freezing.
"""

from __future__ import annotations

from typing import cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock.api import Container

__all__ = ["Power"]


class Power:
    """The part of :class:`~redock.api.Container` that stops it and lets it go on."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)
