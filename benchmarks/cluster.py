"""
How fast a cluster is: boot, commands, snapshots, the way back, faults.

Everything is measured in one run and interleaved with what it is compared to: requests of the
Engine API with nothing in between, and clusters that are made anew for every test. Quote the
ratios, not the milliseconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from start import Bench, raw_many

from redock.cluster import Cluster

#: Numbers of threads that raw starts are tried with; the best counts.
THREADS = (2, 4, 8)


def clock(function: Callable[[], Any]) -> float:
    """Call a function; get the milliseconds it took."""
    began = time.monotonic()
    function()
    return (time.monotonic() - began) * 1000


class Figures:
    """The times that were taken, and the limits they are held against."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def note(self, what: str, function: Callable[[], Any]) -> None:
        """Take one time."""
        self.times.setdefault(what, []).append(clock(function))

    def median(self, what: str) -> float:
        """The median of what was taken."""
        return statistics.median(self.times[what])

    def row(
        self, title: str, what: str, limit: float | None = None, floor: str = "", most: float = 0
    ) -> None:
        """Print a row: milliseconds, the ratio to a floor, and the limits for both."""
        value = self.median(what)
        words = [f"{title:52}{value:8.0f}", f"{limit:7.0f}" if limit else " " * 7]
        good = limit is None or value <= limit
        if floor:
            ratio = value / self.median(floor)
            words += [f"{ratio:7.2f}", f"{most:6.2f}" if most else " " * 6]
            good = good and (not most or ratio <= most)
        print(" ".join(words).rstrip() + ("" if good else "   OVER"))


def boots(figures: Figures, bench: Bench, count: int, rounds: int) -> None:
    """Boot clusters, and as many containers with plain requests."""
    threads = {}
    for number in THREADS:
        made: list[str] = []
        threads[number] = clock(lambda n=number, m=made: m.extend(raw_many(bench, count, n)))  # type: ignore[misc]
        for container in made:
            bench.engine.remove_container(container)
    best = min(threads, key=lambda number: threads[number])
    for number in range(rounds):
        print(f"{count} nodes, round {number + 1} of {rounds}", file=sys.stderr)
        made = []
        figures.note(f"raw {count}", lambda m=made: m.extend(raw_many(bench, count, best)))  # type: ignore[misc]
        for container in made:
            bench.engine.remove_container(container)
        cluster = Cluster(nodes=count, name=f"bench{count}", standbys=False)
        figures.note(f"boot {count}", cluster.start)
        cluster.down()


@contextmanager
def three(**options: Any) -> Iterator[Cluster]:
    """Three nodes."""
    with Cluster(nodes=3, name="bench3", **options) as cluster:
        cluster.stagehand.wait()
        yield cluster


def touch(cluster: Cluster) -> None:
    """Change something in every node."""
    for node in cluster:
        node.run("date +%N >/root/note")


def rewinds(figures: Figures, rounds: int) -> None:
    """Snapshots and the way back, with replacements ready and without, and making it anew."""
    for number in range(rounds):
        print(f"rewinding, round {number + 1} of {rounds}", file=sys.stderr)
        fresh = Cluster(nodes=3, name="bench-fresh", standbys=False)
        fresh.start()

        def recreate(cluster: Cluster = fresh) -> None:
            cluster.down()
            cluster.start()

        figures.note("recreate", recreate)
        fresh.down()
        for standbys in (True, False):
            with three(standbys=standbys) as cluster:
                touch(cluster)
                figures.note("snapshot", lambda c=cluster: c.snapshot("s"))  # type: ignore[misc]
                for _ in range(2):
                    touch(cluster)
                    cluster.stagehand.wait()
                    what = "restore" if standbys else "restore cold"
                    figures.note(what, lambda c=cluster: c.restore("s"))  # type: ignore[misc]


def commands(figures: Figures, rounds: int) -> None:
    """Commands and faults on three nodes."""
    with three() as cluster:
        node = cluster["n1"]
        node.run("true")
        print("commands and faults", file=sys.stderr)
        with cluster.partition(["n1"]):
            pass
        for _ in range(rounds * 4):
            figures.note("run", lambda: node.run("true"))
            made: list[Any] = []
            figures.note("fault", lambda m=made: m.append(cluster.isolate(cluster.nodes)))  # type: ignore[misc]
            figures.note("heal", made[0].heal)
            figures.note("crash", node.crash)
            node.run("true")


#: Faults of the network that concern all nodes.
FAULTS: dict[str, Callable[[Cluster], Any]] = {
    "partition": lambda cluster: cluster.partition(["n1"], ["n2"], ["n3"]),
    "loss": lambda cluster: cluster.loss(cluster.nodes, 5),
    "duplicate": lambda cluster: cluster.duplicate(cluster.nodes, 5),
    "bandwidth": lambda cluster: cluster.bandwidth(cluster.nodes, "10mbit"),
    "latency": lambda cluster: cluster.latency(cluster.nodes, "10ms"),
    "reorder": lambda cluster: cluster.reorder(cluster.nodes, 5),
    "corrupt": lambda cluster: cluster.corrupt(cluster.nodes, 5),
}
#: Milliseconds of latency that are looked at, and by how many they may be wrong.
DELAYS, EXACT = (10, 50, 100), 1.0

#: Answers, and asks: packets with one byte, one after the other.
ECHO = """
import socket, statistics, sys, time
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if len(sys.argv) == 1:
    peer.bind(("", 7))
    while True:
        peer.sendto(*peer.recvfrom(100))
peer.connect((sys.argv[1], 7))
peer.settimeout(5)
times = []
for _ in range(int(sys.argv[2])):
    began = time.monotonic()
    peer.send(b"x")
    peer.recv(100)
    times.append((time.monotonic() - began) * 1000)
    time.sleep(0.002)
print(*times)
"""


def network_faults(figures: Figures, rounds: int) -> None:
    """How long it takes to make and heal each fault, and how exact a latency is."""
    with three() as cluster:
        n1, n2, _ = cluster
        # What the engine can is found out once.
        assert cluster.capabilities["latency"]
        for _ in range(rounds * 2):
            for kind, make in FAULTS.items():
                # The processes that hold packets are started by the first one.
                begins = kind == "latency" and "latency first" not in figures.times
                made: list[Any] = []
                figures.note(
                    f"{kind} first" if begins else kind,
                    lambda make=make, made=made: made.append(make(cluster)),  # type: ignore[misc]
                )
                figures.note(f"{kind} healed", made[0].heal)
        for node in (n1, n2):
            node.put(ECHO.encode(), "/echo.py")
        n2.run("setsid python3 /echo.py >/dev/null 2>&1 </dev/null &")
        n2.wait_until_succeeds("ss -Hlun 'sport = :7' | grep -q .")
        print("how exact latency is", file=sys.stderr)
        for _ in range(rounds):
            for delay in (0, *DELAYS):
                fault = cluster.latency("n1", delay / 1000, to="n2") if delay else None
                words = n1.succeed("python3", "/echo.py", "n2", "40", timeout=120)
                figures.times.setdefault(f"answer {delay}", []).extend(map(float, words.split()))
                if fault is not None:
                    fault.heal()


def suites(figures: Figures, tests: int) -> None:
    """What users feel: many tests on three nodes, each from a clean state."""

    def test(cluster: Cluster) -> None:
        cluster["n1"].succeed("echo dirty >/root/file; test ! -e /root/other")
        cluster["n2"].succeed("touch /root/other")
        with cluster.partition(["n1"]):
            cluster["n3"].succeed("true")

    def with_restore() -> None:
        with Cluster(nodes=3, name="bench-suite") as cluster:
            clean = cluster.snapshot("clean")
            for _ in range(tests):
                test(cluster)
                cluster.restore(clean)

    def with_recreation() -> None:
        for _ in range(tests):
            with Cluster(nodes=3, name="bench-suite", standbys=False) as cluster:
                test(cluster)

    print(f"{tests} tests", file=sys.stderr)
    figures.note("suite restore", with_restore)
    figures.note("suite recreate", with_recreation)
    if shutil.which("docker-compose"):
        figures.note("suite compose", lambda: with_compose(tests))


def with_compose(tests: int) -> None:
    """The same with three services of docker-compose: up, three commands, down."""
    from redock._engine import Engine
    from redock.base import find_base_image

    image = find_base_image(Engine())
    service = f"    image: {image}\n    command: sleep infinity\n"
    text = "version: '3'\nservices:\n" + "".join(f"  n{n}:\n{service}" for n in (1, 2, 3))
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "docker-compose.yml"), "w") as handle:
            handle.write(text)

        def compose(*arguments: str) -> None:
            subprocess.run(
                ["docker-compose", "-p", "redockbench", *arguments],
                cwd=directory,
                check=True,
                capture_output=True,
                timeout=300,
            )

        for _ in range(tests):
            compose("up", "-d")
            for number in (1, 2, 3):
                compose("exec", "-T", f"n{number}", "true")
            compose("down", "-t", "0")


def report(figures: Figures, tests: int) -> None:
    """Print the table."""
    print(f"{'':52}{'ms':>8} {'limit':>7} {'ratio':>7} {'limit':>6}")
    row = figures.row
    for count in (8, 32):
        if f"raw {count}" in figures.times:
            row(f"{count} raw starts, best number of threads", f"raw {count}")
            row(f"a cluster of {count} nodes", f"boot {count}", None, f"raw {count}", 1.25)
    row("three nodes: taken down and booted again", "recreate")
    row("three nodes: restored, replacements ready", "restore", 250, "recreate", 0.25)
    row("three nodes: restored, without replacements", "restore cold", 500, "recreate", 0.45)
    row("three nodes: snapshot", "snapshot", 350)
    row("node.run('true')", "run", 20)
    row("three nodes: isolated", "fault", 50)
    row("three nodes: and healed", "heal", 50)
    for kind in FAULTS:
        row(f"three nodes: {kind}", kind, 50)
        row("three nodes: and healed", f"{kind} healed", 50)
    row("three nodes: the first latency", "latency first")
    for delay in DELAYS:
        late = figures.median(f"answer {delay}") - figures.median("answer 0")
        good = abs(late - delay) <= EXACT
        title = f"latency of {delay} ms: answers are later by"
        print(f"{title:52}{late:8.2f} {delay + EXACT:7.0f}{'' if good else '   OVER'}")
    row("a node crashed, and back", "crash")
    if "suite restore" in figures.times:
        row(f"{tests} tests on three nodes: restore", "suite restore", None, "suite recreate")
        row(f"{tests} tests on three nodes: made anew for each", "suite recreate")
        if "suite compose" in figures.times:
            row(f"{tests} tests on three services: docker-compose", "suite compose")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Measure how fast a cluster is.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tests", type=int, default=20)
    parser.add_argument("--nodes", type=int, nargs="*", default=[8, 32])
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(directory)
        try:
            for count in options.nodes:
                boots(figures, bench, count, max(1, min(3, options.rounds)))
            rewinds(figures, options.rounds)
            commands(figures, options.rounds)
            network_faults(figures, options.rounds)
            if options.tests:
                suites(figures, options.tests)
            # Threads of ours must not be at work when times are printed.
            assert threading.active_count() < 50
            report(figures, options.tests)
        finally:
            bench.clean()


if __name__ == "__main__":
    main()
