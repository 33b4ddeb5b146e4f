"""
How long a start takes, against the engine's own floor in the same run.

Everything is measured as a user feels it: from the launch of the command to
the end of the first ``ssh ... true``. The rounds are interleaved, so that a
machine that gets slower gets slower for all of them; quote the ratios.

Run it with a home directory of its own: ``make benchmark``.
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
from collections.abc import Callable
from typing import Any

from redock import _machines
from redock._connection import wait_for_banner
from redock._engine import KIND, Engine
from redock._process import Deadline
from redock.base import find_base_image

LABEL = {KIND: "benchmark"}
IMAGE = "redock-benchmark:direct"
STOCK = ["/usr/bin/supervisord", "-n", "-c", "/etc/supervisor/benchmark.conf"]
STOCK_CONFIG = b"""\
[unix_http_server]
file = /run/supervisor.sock
[supervisord]
logfile = /dev/null
logfile_maxbytes = 0
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:sshd]
command = /usr/sbin/sshd -D -e
"""
DIRECT = ["/usr/sbin/sshd", "-D", "-e"]

#: Seconds between a start and a kill, so that what runs inside has come up.
SETTLE = 0.5


class Bench:
    """
    The engine, an image whose command is sshd itself, and a key to log in with.

    :param directory: Where keys are kept.
    """

    def __init__(self, directory: str) -> None:
        self.engine = Engine()
        self.key = os.path.join(directory, "key")
        self.ports = iter(_machines.PORTS)
        self.redock = shutil.which("redock") or ""
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True, timeout=60
        )
        self.make_image()

    def make_image(self) -> None:
        """Make the image of the floor: the base image with keys in it and sshd as its command."""
        engine = self.engine
        host_key = os.path.join(os.path.dirname(self.key), "host")
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host_key], check=True, timeout=60
        )
        container = engine.create_container(
            "redock-benchmark", {"Image": find_base_image(engine), "Cmd": ["true"], "Labels": LABEL}
        )
        files = {
            "etc/ssh/ssh_host_ed25519_key": (0o600, read(host_key)),
            "root/.ssh/authorized_keys": (0o600, read(self.key + ".pub")),
            "etc/ssh/sshd_config.d/00-redock.conf": (0o644, b"UseDNS no\n"),
            "etc/supervisor/benchmark.conf": (0o644, STOCK_CONFIG),
            "etc/tmpfiles.d/none": (0o644, b""),
            "run/sshd/.keep": (0o644, b""),
        }
        engine.put_archive(container, "/", _machines.archive(files))
        engine.commit(container, *IMAGE.split(":"), changes=[f"LABEL {KIND}=benchmark"])
        engine.remove_container(container)

    def port(self) -> int:
        """Get a free port."""
        port = _machines.pick_port(str(next(self.ports)), ())
        assert port is not None
        return port

    def ssh(self, port: int) -> None:
        """Run ``true`` over plain ssh, with OpenSSH's own settings."""
        command = ["ssh", "-F", "/dev/null", "-i", self.key, "-p", str(port)]
        command += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        command += ["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "root@127.0.0.1", "true"]
        subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)

    def raw(self, command: list[str] = DIRECT) -> str:
        """Create and start a container with plain requests, and log in."""
        port = self.port()
        container = self.engine.create_container(
            f"redock-benchmark-{port}",
            {
                "Image": IMAGE,
                "Cmd": command,
                "Labels": LABEL,
                "ExposedPorts": {"22/tcp": {}},
                "HostConfig": {
                    "PortBindings": {"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
                },
            },
        )
        self.engine.begin_start(container).result()
        wait_for_banner("127.0.0.1", port, Deadline(60), lambda: None)
        self.ssh(port)
        return container

    def docker_run(self) -> str:
        """The same with the docker program."""
        port = self.port()
        command = ["docker", "run", "-d", "--label", f"{KIND}=benchmark"]
        command += ["-p", f"127.0.0.1:{port}:22", IMAGE, *DIRECT]
        done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
        wait_for_banner("127.0.0.1", port, Deadline(60), lambda: None)
        self.ssh(port)
        return done.stdout.strip()

    def start(self, *names: str) -> None:
        """``redock start NAME``, then plain ``ssh NAME-container true``."""
        self.run_redock("start", *names)
        for name in names[:1]:
            command = ["ssh", f"{name}-container", "true"]
            subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)

    def run_redock(self, *arguments: str) -> None:
        """Run the program as a user does."""
        subprocess.run(
            [self.redock, "-q", *arguments],
            check=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def clean(self) -> None:
        """Remove what this program made."""
        for container in self.engine.containers({"label": [f"{KIND}=benchmark"]}):
            self.engine.remove_container(container["Id"])
        self.engine.remove_image(IMAGE, force=True)


def read(path: str) -> bytes:
    """Read a file."""
    with open(path, "rb") as handle:
        return handle.read()


def clock(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Call a function; get the milliseconds it took and what it returned."""
    started = time.monotonic()
    returned = function(*arguments)
    return (time.monotonic() - started) * 1000, returned


def raw_many(bench: Bench, count: int, threads: int) -> list[str]:
    """Start several containers with plain requests."""
    made: list[str] = []
    todo = list(range(count))

    def work() -> None:
        while todo:
            todo.pop()
            made.append(bench.raw())

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return made


def measure(bench: Bench, rounds: int, many_rounds: int) -> dict[str, list[float]]:
    """Take all the times, in milliseconds."""
    times: dict[str, list[float]] = {}

    def note(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        taken, returned = clock(function, *arguments)
        times.setdefault(what, []).append(taken)
        return returned

    def raw_kill(container: str) -> None:
        bench.engine.begin_kill(container).result()
        bench.engine.remove_container(container)

    # One of each to warm up.
    raw_kill(bench.raw())
    bench.start("bench")
    bench.run_redock("kill", "bench")
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        container = note("raw start", bench.raw)
        time.sleep(SETTLE)
        note("raw kill", raw_kill, container)
        note("redock start", bench.start, "bench")
        time.sleep(SETTLE)
        note("redock kill", bench.run_redock, "kill", "bench")
        bench.engine.remove_container(note("docker run", bench.docker_run))
        bench.engine.remove_container(note("stock supervisor", bench.raw, STOCK))
        python = [sys.executable, "-c", "pass"]
        note("python", subprocess.run, python)
        note("redock --version", lambda: subprocess.run([bench.redock, "--version"], stdout=-3))
    names = [f"bench-{number}" for number in range(8)]
    for number in range(many_rounds):
        print(f"eight machines, round {number + 1} of {many_rounds}", file=sys.stderr)
        for container in note("8 raw", raw_many, bench, 8, 4):
            bench.engine.remove_container(container)
        note("8 redock", bench.start, *names)
        bench.run_redock("kill", *names)
    return times


def report(times: dict[str, list[float]]) -> None:
    """Print the table."""
    median = {what: statistics.median(values) for what, values in times.items()}
    rows = [
        ("raw Engine API, sshd alone, ssh (the floor)", "raw start", "raw start", None),
        ("redock start, ssh NAME-container", "redock start", "raw start", 1.25),
        ("docker run, sshd alone, ssh", "docker run", "raw start", None),
        ("raw Engine API, stock Supervisor, ssh", "stock supervisor", "raw start", None),
        ("raw kill and remove", "raw kill", "raw kill", None),
        ("redock kill", "redock kill", "raw kill", 1.5),
        ("eight raw starts, four threads", "8 raw", "8 raw", None),
        ("redock start, eight names", "8 redock", "8 raw", 1.25),
        ("python -c pass", "python", "python", None),
        ("redock --version", "redock --version", "python", None),
    ]
    heading = f"median of {len(times['raw start'])} rounds"
    print(f"{heading:45} {'ms':>6} {'ratio':>6}  limit")
    for title, what, floor, limit in rows:
        ratio = median[what] / median[floor]
        shown = f"{limit:.2f}" if limit else ""
        print(f"{title:45} {median[what]:6.0f} {ratio:6.2f}  {shown}")
    more = median["redock --version"] - median["python"]
    print(f"redock --version over python -c pass: {more:.0f} ms (limit 40)")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Measure how long a start takes.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--many-rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(directory)
        try:
            report(measure(bench, options.rounds, options.many_rounds))
        finally:
            bench.clean()


if __name__ == "__main__":
    main()
