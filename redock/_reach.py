"""
Ways into a machine: commands, files, ports, editors.
"""

from __future__ import annotations

from typing import cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock.api import Container

__all__ = ["Reach"]


class Reach:
    """The part of :class:`~redock.api.Container` that reaches into it."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)
