"""
The checker is checked: a checker that is wrong proves nothing. Needs no cluster.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linearizability import NotLinearizable, Operation, Undecided, Value, linearize


def read(value: Value, invoked: float, returned: float) -> Operation:
    return Operation("read", value, invoked, returned)


def write(value: Value, invoked: float, returned: float = math.inf) -> Operation:
    return Operation("write", value, invoked, returned)


def cas(
    expected: Value, value: Value, invoked: float, returned: float = math.inf, swapped: bool = True
) -> Operation:
    return Operation("cas", value, invoked, returned, expected, swapped)


GOOD = {
    "nothing": [],
    "one after the other": [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
    "a read beside a write sees the old value": [write(1, 0, 9), read(None, 1, 2), read(1, 3, 4)],
    "two writes in either order": [write(1, 0, 9), write(2, 0, 9), read(2, 10, 11)],
    "reads between two concurrent writes": [
        write(1, 0, 9), write(2, 0, 9), read(2, 1, 2), read(1, 3, 4),
    ],
    "what was not answered has happened": [write(1, 0), read(1, 1, 2)],
    "what was not answered has not happened": [write(1, 0), read(None, 1, 2)],
    "what was not answered happens late": [
        write(1, 0), read(None, 1, 2), write(2, 3, 4), read(1, 5, 6),
    ],
    "cas in a chain": [cas(None, 1, 0, 1), cas(1, 2, 2, 3), read(2, 4, 5)],
    "a cas that did not match": [write(1, 0, 1), cas(7, 2, 2, 3, swapped=False), read(1, 4, 5)],
    "a cas that was not answered": [cas(None, 1, 0), cas(1, 2, 1), read(2, 5, 6)],
    "an unanswered write explains a failed cas": [
        write(1, 0, 1), write(2, 2), cas(1, 3, 3, 4, swapped=False), write(4, 5, 6), read(4, 7, 8),
    ],
}  # fmt: skip

BAD = {
    "a stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "a value nobody wrote": [write(1, 0, 1), read(2, 2, 3)],
    "a lost write": [write(1, 0, 1), read(None, 2, 3)],
    "time goes back between two reads": [write(1, 0, 9), read(1, 1, 2), read(None, 3, 4)],
    "two orders at once": [
        write(1, 0, 9), write(2, 0, 9), read(1, 10, 11), read(2, 12, 13),
    ],
    "read before it was written": [read(1, 0, 1), write(1, 2, 3)],
    "what was not answered happens twice": [
        write(1, 0), read(1, 1, 2), write(2, 3, 4), read(2, 5, 6), read(1, 7, 8),
    ],
    "before it was invoked": [read(1, 0, 1), write(1, 2)],
    "two cas win": [write(1, 0, 1), cas(1, 2, 2, 9), cas(1, 3, 2, 9), read(3, 10, 11)],
    "a cas that should have matched": [write(1, 0, 1), cas(1, 2, 2, 3, swapped=False)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_are_put_into_an_order(name: str) -> None:
    order = linearize(GOOD[name])
    held: Value = None
    for operation in order:
        fits, held = operation.apply(held)
        assert fits
    assert {each for each in GOOD[name] if each.answered} <= set(order)
    assert not any(
        later.returned < earlier.invoked for earlier, later in itertools.combinations(order, 2)
    )


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_rejected(name: str) -> None:
    with pytest.raises(NotLinearizable, match=r"none of these can be next:\n  \["):
        linearize(BAD[name])


def test_what_cannot_be_decided_is_not_called_good() -> None:
    unanswered = [write(number, 0) for number in range(30)]
    with pytest.raises(Undecided):
        linearize([*unanswered, read(99, 1, 2)], limit=1000)


def from_a_register(seed: int, clients: int, length: int) -> list[Operation]:
    """Run clients against a real register: each operation takes effect at a moment of its own."""
    chance = random.Random(seed)
    effects = []
    for number in range(clients):
        time = 0.0
        for _ in range(length):
            times = sorted(time + chance.random() * 3 for _ in range(3))
            time = times[2]
            kind = chance.choice(["read", "write", "cas"])
            effects.append((times, kind, f"c{number}"))
    held: Value = None
    history = []
    numbers = itertools.count(1)
    for (invoked, _, returned), kind, client in sorted(effects, key=lambda each: each[0][1]):
        if kind == "read":
            operation = Operation("read", held, invoked, returned, client=client)
        elif kind == "write":
            operation = Operation("write", next(numbers), invoked, returned, client=client)
        else:
            expected = held if chance.random() < 0.7 else 0
            operation = Operation(
                "cas", next(numbers), invoked, returned, expected, expected == held, client
            )
        lost = (
            "nothing" if kind == "read" else chance.choice([*["nothing"] * 8, "question", "answer"])
        )
        if lost != "question":
            held = operation.apply(held)[1]
        if lost != "nothing":
            operation = dataclasses.replace(operation, returned=math.inf)
        history.append(operation)
    chance.shuffle(history)
    return history


SEEDS = st.integers(0, 2**32)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 6), st.integers(1, 30))
def test_histories_of_a_real_register_are_accepted(seed: int, clients: int, length: int) -> None:
    linearize(from_a_register(seed, clients, length))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SEEDS, st.integers(1, 6), st.integers(5, 20))
def test_histories_with_a_wrong_read_are_rejected(seed: int, clients: int, length: int) -> None:
    history = from_a_register(seed, clients, length)
    end = max(each.returned for each in history if each.answered)
    # The first value has been overwritten since, for certain: by writes that were answered.
    history += [write(-1, end + 1, end + 2), write(-2, end + 3, end + 4)]
    linearize([*history, read(-2, end + 5, end + 6)])
    with pytest.raises(NotLinearizable):
        linearize([*history, read(-1, end + 5, end + 6)])
    reads = [each for each in history if each.kind == "read"]
    if reads:
        victim = random.Random(seed).choice(reads)
        history[history.index(victim)] = dataclasses.replace(victim, value=-3)
        with pytest.raises(NotLinearizable):
            linearize(history)


def by_brute_force(history: list[Operation]) -> bool:
    """Try every order of every choice of what happened. Slow, and too simple to be wrong."""
    answered = [each for each in history if each.answered]
    unanswered = [each for each in history if not each.answered]
    for count in range(len(unanswered) + 1):
        for chosen in itertools.combinations(unanswered, count):
            for order in itertools.permutations([*answered, *chosen]):
                if any(b.returned < a.invoked for a, b in itertools.combinations(order, 2)):
                    continue
                held: Value = None
                for operation in order:
                    fits, held = operation.apply(held)
                    if not fits:
                        break
                else:
                    return True
    return False


VALUES = st.one_of(st.none(), st.integers(0, 2))
TIMES = st.tuples(st.integers(0, 8), st.integers(0, 4))


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    kind: Literal["read", "write", "cas"] = draw(st.sampled_from(["read", "write", "cas"]))
    invoked, duration = draw(TIMES)
    returned = math.inf if kind != "read" and draw(st.integers(0, 3)) == 0 else invoked + duration
    return Operation(kind, draw(VALUES), invoked, returned, draw(VALUES), draw(st.booleans()))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(operations(), max_size=5))
def test_it_agrees_with_trying_everything(history: list[Operation]) -> None:
    try:
        linearize(history)
        found = True
    except NotLinearizable:
        found = False
    assert found == by_brute_force(history)
