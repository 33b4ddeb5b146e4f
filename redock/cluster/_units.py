"""
Durations and rates, as people write them.
"""

from __future__ import annotations

import math
import re

from redock._names import shown
from redock.errors import InvalidArgument

__all__ = ["parse_rate", "parse_seconds", "say_rate", "say_seconds"]

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
NUMBER = r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))"
DURATION = re.compile(rf"{NUMBER}\s*(us|ms|s|m|h|d)", re.ASCII)
RATE = re.compile(rf"{NUMBER}\s*([kmg]?bit)(?:/s|ps)?", re.ASCII | re.IGNORECASE)


def parse_seconds(value: str | float, what: str, least: float = 0.0) -> float:
    """
    Read a duration.

    >>> parse_seconds("100ms", "delay")
    0.1

    :param value: A number of seconds, or a number with ``us``, ``ms``, ``s``, ``m``, ``h`` or
                  ``d``; it may have a sign.
    :param what: What it is for, for the message.
    :param least: The shortest it may be (default: 0).
    :returns: Seconds.
    :raises InvalidArgument: It is no duration, or too short.
    """
    match = DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = float(match[1]) * SECONDS[match[2]] if match else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise InvalidArgument(
            f"{what}: {shown(value)} is not a duration: write seconds, or for instance '100ms'"
        )
    if not math.isfinite(seconds) or seconds < least:
        raise InvalidArgument(f"{what}: {shown(value)} is not at least {least:g} seconds")
    # 0.1 and not 0.10000000000000001: a nanosecond is as exact as anything here.
    return round(float(seconds), 9)


def parse_rate(value: str | float) -> int:
    """
    Read a rate.

    >>> parse_rate("10mbit")
    10000000

    :param value: Bits in a second, or a number with ``bit``, ``kbit``, ``mbit`` or ``gbit``
                  (powers of 1000, as for tc(8)).
    :returns: Bits in a second.
    :raises InvalidArgument: It is no rate, or one that cannot be kept.
    """
    match = RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    rate = float(match[1]) * BITS[match[2].lower()] if match else value
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise InvalidArgument(
            f"bandwidth: {shown(value)} is not a rate: write bits in a second, or '10mbit'"
        )
    # Below, a single packet takes longer than TCP waits; above, nothing here is that fast.
    if not 1_000 <= rate <= 100e9:
        raise InvalidArgument(f"bandwidth: {shown(value)} is not between 1kbit and 100gbit")
    return round(rate)


def say_seconds(seconds: float) -> str:
    """
    Write a duration.

    :param seconds: Seconds.
    :returns: Text with a unit.
    """
    return f"{seconds:g}s" if abs(seconds) >= 1 or not seconds else f"{seconds * 1000:g}ms"


def say_rate(rate: int) -> str:
    """
    Write a rate.

    :param rate: Bits in a second.
    :returns: Text with a unit.
    """
    for unit in ("gbit", "mbit", "kbit"):
        if rate >= BITS[unit]:
            return f"{rate / BITS[unit]:g}{unit}"
    return f"{rate}bit"
