"""
What breaks a cluster while a test uses it, according to a schedule.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from redock._parallel import raise_all
from redock.cluster._schedule import (
    HEAL,
    bridge,
    check_schedule,
    halves,
    majorities_ring,
    make_schedule,
    random_node,
    split_one,
    spread,
)
from redock.errors import FaultUnsupported, InvalidArgument, RedockError, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Any

    from redock.cluster._cluster import Cluster
    from redock.cluster._fault import Fault

    Record = dict[str, Any]

__all__ = ["Nemesis", "bridge", "halves", "majorities_ring", "random_node", "split_one"]

logger = logging.getLogger("redock.cluster")

#: What a nemesis does when nothing else is said: what every engine can.
USUAL = ("kill", "partition", "pause")


class Nemesis:
    """
    Breaks a cluster according to a schedule, in a thread, while a test uses it.

    Basics::

        with Nemesis(cluster, {"partition", "kill"}, interval=2, seed=7) as nemesis:
            work()
        json.dump(nemesis.schedule, file)

        with Nemesis.replay(cluster, json.load(file)) as nemesis:
            work()
            nemesis.wait()

    A fault holds for about an interval, then nothing is broken for about an
    interval, then comes the next. The same seed, nodes and faults make the same
    schedule, at any time and on any machine.

    Lifecycle: the constructor makes the schedule and does nothing else.
    :meth:`start`, or the ``with`` statement, begins; :meth:`stop`, or the end of
    the block, ends it, heals what it made, and raises what went wrong meanwhile.
    It ends by itself with its schedule, all healed.

    Thread safety: faults may be made and healed beside it. Do not restore the
    cluster while it is at work.

    :param cluster: The cluster.
    :param faults: Names of verbs of :class:`Cluster`; or by name the arguments that are to be
                   fixed, ``{"latency": {"delay": "50ms"}, "partition": {"shape": "halves"}}``
                   (default: ``partition``, ``pause`` and ``kill``).
    :param interval: Seconds between two steps, give or take half of it (default: 5).
    :param seed: What the schedule is made from (default: a random one, see :attr:`seed`).
    :param duration: Seconds until it ends by itself (default: 300).
    :raises InvalidArgument: There is no such fault, or not with such arguments or nodes.
    """

    def __init__(
        self,
        cluster: Cluster,
        faults: Iterable[str] | Mapping[str, Mapping[str, Any]] = USUAL,
        interval: float = 5.0,
        seed: int | str | None = None,
        *,
        duration: float = 300.0,
    ) -> None:
        self.cluster = cluster
        #: What the schedule was made from; None for one that was given.
        self.seed: int | str | None = int.from_bytes(os.urandom(4)) if seed is None else seed
        if isinstance(faults, str):
            faults = [faults]
        wanted = dict(faults) if isinstance(faults, dict) else {name: {} for name in faults}
        #: What it does: records with ``offset``, ``action`` and ``arguments``.
        self.schedule = make_schedule(cluster.spec.nodes, wanted, self.seed, interval, duration)
        self.prepare()

    def prepare(self) -> None:
        """Have done nothing yet."""
        #: What it has done: records as in the schedule, with the offsets it was really done at.
        self.history: list[Record] = []
        #: What went wrong: for each step its number and action, and the error.
        self.errors: dict[str, Exception] = {}
        self.made: list[Fault] = []
        self.ending = threading.Event()
        self.thread: threading.Thread | None = None

    @classmethod
    def replay(cls, cluster: Cluster, schedule: Iterable[Mapping[str, Any]]) -> Nemesis:
        """
        Do again what a schedule says.

        :param cluster: The cluster; its nodes have the names they had.
        :param schedule: The schedule, or the ``history``, of another one.
        :returns: A nemesis that has not been started.
        :raises InvalidArgument: It is not a schedule.
        """
        nemesis = cls.__new__(cls)
        nemesis.cluster = cluster
        nemesis.seed = None
        nemesis.schedule = check_schedule(schedule)
        nemesis.prepare()
        return nemesis

    def __repr__(self) -> str:
        what = "replayed" if self.seed is None else f"seed {self.seed!r}"
        return f"<Nemesis {what}: {len(self.history)} of {len(self.schedule)} steps>"

    def __enter__(self) -> Nemesis:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except Exception as error:
            if value is None:
                raise
            # What the test raised is what matters; this may have been the reason.
            logger.warning("The nemesis: %s", error)

    @property
    def running(self) -> bool:
        """Whether it is at work."""
        return self.thread is not None and self.thread.is_alive()

    def start(self) -> Nemesis:
        """
        Begin.

        :returns: This nemesis.
        :raises FaultUnsupported: The schedule has a fault that cannot be made here; nothing began.
        :raises InvalidArgument: It was started before.
        """
        if self.thread is not None:
            raise InvalidArgument("this nemesis was started before: make another one")
        for action in sorted({record["action"] for record in self.schedule} - {HEAL}):
            able = self.cluster.capabilities.get(action)
            if able is not None and not able:
                raise FaultUnsupported(f"nemesis: {action}: {able.reason}")
        self.event = self.cluster.timeline.begin(
            "nemesis", repr(self)[1:-1].lower(), seed=self.seed
        )
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.work, daemon=True, name="redock-nemesis")
        self.thread.start()
        return self

    def work(self) -> None:
        """Do what the schedule says, until it ends or somebody ends it."""
        for number, record in enumerate(self.schedule):
            if self.ending.wait(max(0.0, self.began + record["offset"] - time.monotonic())):
                return
            done = {**record, "offset": round(time.monotonic() - self.began, 3)}
            self.history.append(done)
            try:
                self.perform(record["action"], record["arguments"])
            except Exception as error:
                # It belongs to whoever stops it, whatever it is; the next step may work.
                self.errors[f"step {number} ({record['action']})"] = error
                self.cluster.timeline.note("nemesis", f"{record['action']} failed: {error}")
                logger.debug("The nemesis, %s: %s", record["action"], error)

    def perform(self, action: str, arguments: Mapping[str, Any]) -> None:
        """
        Do one step.

        :param action: The name of the verb, or :data:`HEAL`.
        :param arguments: What it is given.
        """
        if action == HEAL:
            self.heal()
            return
        positional, named = spread(action, arguments)
        fault = getattr(self.cluster, action)(*positional, **named)
        if fault is not None:
            self.made.append(fault)

    def heal(self) -> None:
        """
        Heal what it made, the youngest first; one that cannot be healed stops none of the others.

        :raises RedockError: At least one could not be healed.
        """
        failed: dict[str, Exception] = {}
        while self.made:
            fault = self.made.pop()
            try:
                fault.heal()
            except RedockError as error:
                failed[fault.text] = error
        raise_all(failed, f"{len(failed)} faults could not be healed")

    def wait(self, timeout: float | None = None) -> None:
        """
        Wait until the schedule is done.

        :param timeout: Seconds to wait at most (default: until its last step, and a minute).
        :raises Timeout: It was not done in time.
        """
        if self.thread is None:
            return
        if timeout is None:
            end = self.schedule[-1]["offset"] if self.schedule else 0.0
            timeout = max(0.0, self.began + end - time.monotonic()) + 60.0
        self.thread.join(timeout)
        if self.thread.is_alive():
            raise Timeout(f"the nemesis was not done within {timeout:g} seconds")

    def stop(self) -> None:
        """
        End it and heal what it made; nothing happens when that has been done.

        :raises RedockError: A step went wrong, or a fault could not be healed.
        :raises SeveralFailed: More than one did.
        :raises Timeout: The step it was at did not end.
        """
        if self.thread is None or (self.ending.is_set() and not self.thread.is_alive()):
            return
        self.ending.set()
        self.wait(self.cluster.timeout + 60.0)
        try:
            self.heal()
        except RedockError as error:
            self.errors["heal"] = error
        self.cluster.timeline.end(self.event, steps=len(self.history), errors=len(self.errors))
        raise_all(self.errors, f"{len(self.errors)} steps of the nemesis failed")
