"""
What ``redock ssh NAME true`` costs above plain ``ssh``, and how long a stop takes.

Whole processes, interleaved, so that a machine that gets slower gets slower for all.
Run it as installed and with a home directory of its own: ``make benchmark BENCHMARKS=reach``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time

from redock.api import Container

#: Seconds between a start and a stop, so that what runs inside has come up.
SETTLE = 1.5


def timed(*command: str) -> float:
    """Run a program and return the milliseconds it took."""
    started = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    return (time.perf_counter() - started) * 1000


def compare(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Run commands in turn and return the milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            taken[name].append(timed(*command))
    return taken


def stop_times(container: Container, rounds: int) -> dict[str, list[float]]:
    """Stop a machine, with the engine alone and with redock."""
    taken: dict[str, list[float]] = {"docker stop": [], "Container.stop()": []}
    for _ in range(rounds):
        for name in taken:
            container.start()
            time.sleep(SETTLE)
            started = time.perf_counter()
            if name == "docker stop":
                assert container.session.container_id
                container.engine.begin_stop(container.session.container_id, 10).result()
            else:
                container.stop()
            taken[name].append((time.perf_counter() - started) * 1000)
    return taken


def show(title: str, taken: dict[str, list[float]]) -> None:
    """Print a table."""
    print(title)
    for name, values in taken.items():
        quartiles = statistics.quantiles(values, n=4)
        print(
            f"  {name:<22} median {statistics.median(values):7.1f} ms"
            f"   quartiles {quartiles[0]:.1f} to {quartiles[2]:.1f}   best {min(values):.1f}"
        )


def main() -> None:
    """Measure, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="how often each command runs")
    parser.add_argument("--stops", type=int, default=5, help="how often a machine is stopped")
    options = parser.parse_args()
    redock = shutil.which("redock") or f"{sys.prefix}/bin/redock"
    container = Container("redockbenchmark:reach", timeout=60)
    container.start()
    try:
        name, alias = container.image.name, container.ssh_alias
        commands = {
            "ssh": ["ssh", alias, "true"],
            "redock ssh": [redock, "ssh", name, "true"],
            "redock exec": [redock, "exec", name, "true"],
            "docker exec": ["docker", "exec", str(container.session.container_id), "true"],
            "python -c pass": [f"{sys.prefix}/bin/python", "-c", "pass"],
        }
        if not shutil.which("docker"):
            del commands["docker exec"]
        for command in commands.values():
            timed(*command)
        taken = compare(commands, options.rounds)
        show("A command that does nothing", taken)
        above = [b - a for a, b in zip(taken["ssh"], taken["redock ssh"], strict=True)]
        print(f"  redock ssh above ssh   median {statistics.median(above):7.1f} ms")
        show("Stopping a machine", stop_times(container, options.stops))
    finally:
        container.kill()


if __name__ == "__main__":
    main()
