"""
What there is: machines with their state, their age and what they use.
"""

from __future__ import annotations

__all__: list[str] = []
