"""
Is there an order? A checker for histories of a single register.

A history is *linearizable* when its operations can be put into one order that a single register
could have seen, in which no operation comes before one that had returned when it was invoked.

The search is the one of Wing and Gong (1993) with the memory of Lowe (2017): take any operation
that may come next, see whether the register would have answered as it did, go on; go back when
there is none; never look twice at the same operations done with the same value left. In the worst
case that is exponential; with a handful of clients it is linear.

An operation that was not answered may have happened at any time after it was invoked, or never.

- Wing, Gong: Testing and Verifying Concurrent Objects. J. Parallel Distrib. Comput. 17, 1993.
- Lowe: Testing for linearizability. Concurrency Computat.: Pract. Exper. 29(4), 2017.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Value = int | None


@dataclasses.dataclass(frozen=True)
class Operation:
    """
    Something a client asked for.

    ``value`` is what was read, or what was to be written. A "cas" writes it if the register holds
    ``expected``; ``swapped`` says whether it did. ``returned`` is infinite for an operation that
    was not answered; such a read says nothing, and does not belong into a history.
    """

    kind: Literal["read", "write", "cas"]
    value: Value
    invoked: float
    returned: float = math.inf
    expected: Value = None
    swapped: bool = True
    client: str = ""

    @property
    def answered(self) -> bool:
        return self.returned < math.inf

    def apply(self, held: Value) -> tuple[bool, Value]:
        """Tell whether a register that holds a value answers like this, and what it holds then."""
        if self.kind == "read":
            return held == self.value, held
        if self.kind == "write":
            return True, self.value
        swapped = held == self.expected
        return swapped == self.swapped, self.value if swapped else held

    def __str__(self) -> str:
        text = f"{self.kind} {self.value}"
        if self.kind == "cas":
            text += f" if {self.expected}{'' if self.swapped else ' (it was not)'}"
        end = f"{self.returned:.4f}" if self.answered else "..."
        return f"[{self.invoked:.4f} to {end}] {self.client} {text}"


class Point(NamedTuple):
    """
    A point of the search: what is done, and what the register holds.

    Of the answered operations, in the order they were invoked, all before ``first`` are done, and
    those in ``ahead``; of the unanswered ones those in ``guessed``.
    """

    first: int
    ahead: frozenset[int]
    guessed: frozenset[int]
    held: Value

    @property
    def done(self) -> int:
        return self.first + len(self.ahead)


class NotLinearizable(AssertionError):
    """There is no such order; says how far the best attempt came."""


class Undecided(Exception):
    """The search was given up: the history is too long, or too much in it was not answered."""


class Search:
    def __init__(self, history: Iterable[Operation]) -> None:
        ordered = sorted(history, key=lambda each: each.invoked)
        self.answered = [each for each in ordered if each.answered]
        self.unanswered = [each for each in ordered if not each.answered]

    def next_answered(self, point: Point) -> tuple[list[int], float]:
        """Find what may come next, and when the first of it returned."""
        found = []
        horizon = math.inf
        index = point.first
        while index < len(self.answered) and self.answered[index].invoked <= horizon:
            if index not in point.ahead:
                found.append(index)
                horizon = min(horizon, self.answered[index].returned)
            index += 1
        return found, horizon

    def steps(self, point: Point) -> Iterator[tuple[Operation, Point]]:
        """Go one step: the unanswered operations first, because the last one is tried first."""
        candidates, horizon = self.next_answered(point)
        for index, operation in enumerate(self.unanswered):
            if index not in point.guessed and operation.invoked <= horizon:
                # Whether it fits does not matter: nobody was told.
                _, held = operation.apply(point.held)
                if held != point.held:
                    yield operation, point._replace(guessed=point.guessed | {index}, held=held)
        for index in reversed(candidates):
            fits, held = self.answered[index].apply(point.held)
            if fits:
                first, ahead = point.first, point.ahead | {index}
                while first in ahead:
                    ahead -= {first}
                    first += 1
                yield self.answered[index], Point(first, ahead, point.guessed, held)

    def explain(self, best: Point) -> str:
        """Say how far it went."""
        stuck = "\n".join(f"  {self.answered[each]}" for each in self.next_answered(best)[0])
        return (
            f"not linearizable: after {best.done} of {len(self.answered)} answered operations the"
            f" register would hold {best.held}, and none of these can be next:\n{stuck}"
        )


def linearize(
    history: Iterable[Operation], initial: Value = None, limit: int = 500_000
) -> list[Operation]:
    """
    Put the operations of a history into an order that a single register could have seen.

    :param history: The operations, in any order.
    :param initial: What the register held before.
    :param limit: How many points to look at before it is given up.
    :returns: The order; unanswered operations that need not have happened are left out.
    :raises NotLinearizable: There is none.
    :raises Undecided: It was given up.
    """
    search = Search(history)
    start = best = Point(0, frozenset(), frozenset(), initial)
    came_from: dict[Point, tuple[Point, Operation] | None] = {start: None}
    stack = [start]
    while stack:
        point = stack.pop()
        if point.done == len(search.answered):
            order = []
            while (step := came_from[point]) is not None:
                point, operation = step
                order.append(operation)
            return order[::-1]
        best = max(best, point, key=lambda each: each.done)
        for operation, following in search.steps(point):
            if following not in came_from:
                came_from[following] = point, operation
                stack.append(following)
        if len(came_from) > limit:
            raise Undecided(f"looked at {limit} points; the best: {search.explain(best)}")
    raise NotLinearizable(search.explain(best))
