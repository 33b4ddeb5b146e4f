"""
What happens to the packets on the way from one node to another.
"""

from __future__ import annotations

import dataclasses

__all__ = ["Effect"]


@dataclasses.dataclass(frozen=True)
class Effect:
    """
    What happens to packets. Effects can be added: delays add up, the lowest rate holds, chances
    are independent of each other.

    :param rate: Bits in a second that get through (default: all).
    :param delay: Seconds each is held.
    :param jitter: Seconds by which that varies, up or down, all values being equally likely.
    :param reorder: The probability of being held longer, so that those behind overtake.
    :param gap: Seconds those are held longer.
    :param corrupt: The probability of a changed bit.
    """

    rate: int | None = None
    delay: float = 0.0
    jitter: float = 0.0
    reorder: float = 0.0
    gap: float = 0.0
    corrupt: float = 0.0

    def __add__(self, other: Effect) -> Effect:
        rates = [rate for rate in (self.rate, other.rate) if rate is not None]
        return Effect(
            rate=min(rates, default=None),
            delay=self.delay + other.delay,
            jitter=self.jitter + other.jitter,
            reorder=either(self.reorder, other.reorder),
            gap=max(self.gap, other.gap),
            corrupt=either(self.corrupt, other.corrupt),
        )


def either(one: float, other: float) -> float:
    """
    Get the probability of at least one of two things that are independent of each other.

    :param one: The probability of one.
    :param other: That of the other.
    :returns: The probability.
    """
    return min(1.0, one + other - one * other)
