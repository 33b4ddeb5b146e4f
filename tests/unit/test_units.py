"""Durations and rates as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock.cluster._units import parse_rate, parse_seconds, say_rate, say_seconds
from redock.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("100ms", 0.1),
        ("+300s", 300),
        ("-1h", -3600),
        ("2d", 172800),
        ("1.5m", 90),
        (" 250 us ", 0.00025),
        (".5s", 0.5),
        (3, 3),
        (-0.5, -0.5),
    ],
)
def test_durations_have_a_unit_or_are_seconds(text: str | float, seconds: float) -> None:
    assert parse_seconds(text, "x", -1e9) == seconds


@pytest.mark.parametrize(
    "value", ["", "1", "s", "1 week", "1e3s", "--1s", "٣s", None, True, [], float("nan"), "9" * 400]
)
def test_other_durations_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^delay: "):
        parse_seconds(value, "delay")


def test_durations_have_a_least() -> None:
    with pytest.raises(InvalidArgument, match=r"delay: '-1s' is not at least 0 seconds"):
        parse_seconds("-1s", "delay")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1mbit", 10**6),
        ("10 Mbit/s", 10**7),
        ("100kbit", 10**5),
        ("2.5gbit", 25 * 10**8),
        ("5000bit", 5000),
        ("1mbitps", 10**6),
        (64000, 64000),
        (1.5e6, 1_500_000),
    ],
)
def test_rates_are_bits_in_powers_of_1000(text: str | float, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("value", ["", "1", "1mb", "1mbyte", "-1mbit", "0bit", 0, 999, 1e12, None])
def test_other_rates_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^bandwidth: "):
        parse_rate(value)


@given(st.integers(1, 10**6))
def test_what_is_said_can_be_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_seconds(say_seconds(seconds), "x") == pytest.approx(seconds, rel=1e-5)
    rate = milliseconds * 1000
    assert parse_rate(say_rate(rate)) == pytest.approx(rate, rel=1e-5)
