"""
Let Hypothesis break a cluster, and reduce what it did to what matters.

A toy service (``journal.py``) keeps a journal on a primary and a replica. Hypothesis makes up
schedules: write, cut the nodes off from each other, heal, crash one of them, in any order. When
an acknowledged entry is missing in the end, it runs the schedule again and again with steps left
out, until no step can go: the bug report is the shortest story that shows the bug. That takes
some dozens of runs, each on a cluster that is as good as new; restoring a snapshot is what makes
them quick enough.

Run it with ``pytest examples/shrinking_schedules --log-cli-level=INFO``, and watch.

What it shows:

- a ``RuleBasedStateMachine`` whose rules are operations and faults, and whose reset is
  ``cluster.restore``;
- that it finds two planted bugs, and reduces the schedules that show them to three steps and two;
- that the service without them passes.

What it needs: a schedule has to end in the same way whenever it is run, or it cannot be reduced.
So nothing here waits for some time and hopes: the service says when its nodes have been in touch.

What it does not show: bugs that need several things to happen at the same moment. Steps come one
after the other; for the other kind see ``examples/etcd_register``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from journal import BUGS, PORT

from redock.cluster import Cluster, Fault

logger = logging.getLogger(__name__)

PROGRAM = "/usr/local/bin/journal"

SERVICE = f"""\
[program:journal]
command = {PROGRAM} serve n1 n2 {{bug}}
redirect_stderr = true
stdout_logfile = /var/log/journal.log
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A primary and a replica, and a snapshot for each version of the service."""
    with Cluster(nodes=2) as cluster:
        for node in cluster:
            node.put(Path(__file__).with_name("journal.py"), PROGRAM, mode=0o755)
        for bug in ("", *BUGS):
            for node in cluster:
                service = SERVICE.format(bug=bug)
                node.put(service.encode(), "/etc/supervisor/conf.d/journal.conf")
            cluster.snapshot(bug or "correct")
        yield cluster


class Trial:
    """
    Runs schedules against one version of the service.

    :param cluster: The cluster.
    :param version: The snapshot with that version.
    """

    def __init__(self, cluster: Cluster, version: str) -> None:
        self.cluster = cluster
        self.version = version
        self.primary, self.replica = cluster
        #: What was missing after each schedule that was run, and the last one asked for.
        self.known: dict[tuple[str, ...], list[str]] = {}
        self.last: tuple[str, ...] = ()

    def run(self, steps: list[str]) -> list[str]:
        """Run a schedule on a cluster that is as good as new, unless it is known how that ends."""
        self.last = tuple(steps)
        if self.last not in self.known:
            self.known[self.last] = self.run_anew(steps)
            logger.info("%s: %s", ", ".join(steps), self.known[self.last] or "good")
        return self.known[self.last]

    def run_anew(self, steps: list[str]) -> list[str]:
        self.cluster.restore(self.version, full=True)
        for node in self.cluster:
            node.wait_for_port(PORT, timeout=90)
        acknowledged: list[str] = []
        faults: list[Fault] = []
        for step in steps:
            match step.split():
                case ["write"]:
                    value = str(len(acknowledged))
                    self.primary.succeed(PROGRAM, "append", value)
                    acknowledged.append(value)
                case ["cut"]:
                    # Refused, so that nobody has to wait until an answer is overdue.
                    both = list(self.cluster)
                    faults.append(self.cluster.drop(both, both, port=PORT, reject=True))
                case ["heal"]:
                    faults.pop().heal()
                case ["crash", name]:
                    self.cluster[name].crash()
                    self.cluster[name].wait_for_port(PORT, timeout=90)
        # In the end all is well again, and then nothing may be missing.
        self.cluster.heal()
        self.primary.succeed(PROGRAM, "settle")
        return [
            f"{name} has {result.stdout.strip()} of {json.dumps(acknowledged)}"
            for name, result in self.cluster.nodes.run(PROGRAM, "read").items()
            if json.loads(result.stdout) != acknowledged
        ]


class Schedule(RuleBasedStateMachine):
    """
    What can happen, and when.

    Rules only note what is to happen; it happens in the end. When Hypothesis reduces a schedule it
    comes by the same one again and again, and one that is known need not be run.

    What makes no sense, to cut twice, is not noted. With a ``precondition`` a cut could not be left
    out without what depends on it, and now and then the reduction would get stuck.
    """

    trial: ClassVar[Trial]

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.is_cut = False

    @initialize()
    def begin(self) -> None:
        # Who has nothing has nothing to lose.
        self.write()

    @rule()
    def write(self) -> None:
        self.steps.append("write")

    @rule()
    def cut(self) -> None:
        if not self.is_cut:
            self.is_cut = True
            self.steps.append("cut")

    @rule()
    def heal(self) -> None:
        if self.is_cut:
            self.is_cut = False
            self.steps.append("heal")

    @rule(name=st.sampled_from(["n1", "n2"]))
    def crash(self, name: str) -> None:
        self.steps.append(f"crash {name}")

    def teardown(self) -> None:
        missing = self.trial.run(self.steps)
        assert not missing, f"{self.steps}: {missing}"


SETTINGS = settings(
    stateful_step_count=5,
    # The same schedules every time: a test suite is no place for surprises. To look for new bugs,
    # let it run overnight without this, and with more examples.
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def explore(cluster: Cluster, version: str, max_examples: int = 300) -> tuple[str, ...] | None:
    """
    Look for a schedule after which something is missing: the shortest, or None.

    The search ends with the first one that is found, so there may be plenty of examples: whatever
    the version of Hypothesis makes up, and it goes by which modules are loaded, it is among them.
    """
    trial = Trial(cluster, version)
    machine = type("Schedule", (Schedule,), {"trial": trial})
    try:
        run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=max_examples))
    except AssertionError:
        # The last thing Hypothesis does is to run the shortest once more.
        return trial.last
    assert len(trial.known) >= 5
    return None


def test_a_replica_that_never_catches_up(cluster: Cluster) -> None:
    assert explore(cluster, "forgetful") == ("write", "cut", "write")


def test_a_journal_that_is_in_memory_only(cluster: Cluster) -> None:
    assert explore(cluster, "volatile") == ("write", "crash n1")


def test_the_service_without_bugs(cluster: Cluster) -> None:
    assert explore(cluster, "correct", max_examples=10) is None
