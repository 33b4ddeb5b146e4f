"""
What a machine is started with besides its disk: ports, volumes, limits.
"""

from __future__ import annotations

__all__: list[str] = []
