"""
Amounts as people write them: memory and processors.
"""

from __future__ import annotations

import re

from redock._names import shown
from redock.errors import InvalidArgument

__all__ = ["brief_size", "parse_cpus", "parse_size"]

SIZE = re.compile(r"(\d+)\s*([kmg]?)i?b?", re.ASCII | re.IGNORECASE)
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
#: More processors than any machine has.
MOST_CPUS = 4096


def parse_size(value: str | int) -> int:
    """
    Read a number of bytes.

    >>> parse_size("64m")
    67108864

    :param value: A number, or a number with ``k``, ``m`` or ``g`` (powers of 1024).
    :returns: The number of bytes.
    :raises InvalidArgument: It is no size, or not above zero.
    """
    match = SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    size = int(match[1]) * UNITS[match[2].lower()] if match else value
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise InvalidArgument(f"{shown(value)} is not a size: write bytes, or for instance '64m'")
    return size


def brief_size(size: int) -> str:
    """
    Write a number of bytes as :func:`parse_size` reads it.

    >>> brief_size(536870912)
    '512m'

    :param size: The number.
    :returns: The number, in the largest of the units that leaves nothing over.
    """
    for unit, factor in sorted(UNITS.items(), key=lambda each: -each[1]):
        if unit and size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def parse_cpus(value: str | float, lowest: float = 0.01) -> float:
    """
    Read a number of processors.

    >>> parse_cpus("1.5")
    1.5

    :param value: A number, for instance 0.5.
    :param lowest: The least that is accepted (default: 0.01, the least an engine does); 0 is
                   accepted where this is 0.
    :returns: The number.
    :raises InvalidArgument: It is none, or out of range.
    """
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number == lowest == 0 or 0.01 <= number <= MOST_CPUS:
        return number
    raise InvalidArgument(f"{shown(value)} is not a number of processors above 0")
