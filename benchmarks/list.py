"""
How long ``redock list`` and completion take for fifty machines, against ``docker ps``.

The machines are stand-ins: containers with the labels, the volume and the published port of a
machine, in which only ``sleep`` runs. Both programs are measured as whole processes and in turn, so
that a host that gets slower gets slower for both; quote the ratio.

Run it as installed and with a home directory of its own: ``make benchmark BENCHMARKS=list``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

from redock import __version__, _machines, _names
from redock._engine import Engine
from redock._parallel import call_all
from redock.base import find_base_image

REPOSITORY = f"redockbench{os.getpid()}"


def make(engine: Engine, image: str, number: int) -> tuple[str, str]:
    """Start a stand-in; get its id and the name of its volume."""
    name, instance = f"{REPOSITORY}:m{number}", _machines.new_instance()
    config = _machines.configuration(
        name=name,
        image=image,
        hostname=f"m{number}",
        alias=f"m{number}-{REPOSITORY}",
        instance=instance,
        # Above those that redock hands out.
        port=32100 + number,
        version=__version__,
    )
    config["Cmd"] = ["sleep", "infinity"]
    container = engine.create_container(_names.container_name(REPOSITORY, f"m{number}"), config)
    engine.begin_start(container).result()
    return container, _machines.volume_name(instance)


def clock(command: list[str]) -> float:
    """Run a program; get the milliseconds it took."""
    began = time.monotonic()
    # Without a timeout: with one Python looks every now and then whether it has ended.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - began) * 1000


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """Take the times of several commands, in turn."""
    times: dict[str, list[float]] = {what: [] for what in commands}
    for command in commands.values():
        clock(command)
    for _ in range(rounds):
        for what, command in commands.items():
            times[what].append(clock(command))
    return times


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Measure how fast machines are listed.")
    parser.add_argument("--machines", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    redock = shutil.which("redock", path=os.path.dirname(sys.executable)) or "redock"
    engine = Engine()
    image = find_base_image(engine)
    made: dict[str, tuple[str, str]] = {}
    try:
        print(f"starting {options.machines} stand-ins", file=sys.stderr)
        numbers = {str(number): number for number in range(options.machines)}
        call_all(numbers, lambda number: made.update({str(number): make(engine, image, number)}), 4)
        commands = {
            "docker ps": ["docker", "ps"],
            "docker ps --size": ["docker", "ps", "--size"],
            "python -c pass": [sys.executable, "-c", "pass"],
            "redock list": [redock, "list"],
            "redock list --size": [redock, "list", "--size"],
            "redock list --json": [redock, "list", "--json"],
            "redock list -q": [redock, "list", "-q"],
            "complete a name": [redock, "--complete", "kill", ""],
            "complete a command": [redock, "--complete", "st"],
        }
        times = measure(commands, options.rounds)
    finally:
        for container, volume in made.values():
            engine.remove_container(container)
            engine.remove_volume(volume)
    floor = statistics.median(times["docker ps"])
    print(f"{options.machines} machines, {options.rounds} rounds: medians in ms, ratio, fastest")
    for what, taken in times.items():
        value = statistics.median(taken)
        print(f"{what:20}{value:8.1f}{value / floor:8.2f}{min(taken):8.1f}")


if __name__ == "__main__":
    main()
