"""Engines that misbehave: one behind a proxy that fails, one of our own that can be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from redock._endpoint import Endpoint
from redock._engine import Engine
from redock.errors import RedockError

from .conftest import command
from .harness import wait_for

#: Starting an engine takes root; whoever is not asks sudo, which must not ask back.
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


class FaultProxy:
    """
    A proxy in front of an engine's socket that fails on purpose.

    :param path: Where it listens.
    :param target: The engine's socket.
    """

    def __init__(self, path: Path, target: str) -> None:
        self.target = target
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(64)
        self.endpoint = Endpoint(f"unix://{path}", "a test")
        self.lock = threading.Lock()
        #: The requests since :meth:`fail` was called.
        self.count = 0
        self.faulty: Callable[[int], bool] = lambda number: False
        self.action = ""
        self.open: list[socket.socket] = []
        threading.Thread(target=self.serve, daemon=True).start()

    def fail(self, action: str, faulty: Callable[[int], bool]) -> None:
        """Fail in some way at the requests with some numbers, counted from 1, from now on."""
        with self.lock:
            self.count, self.action, self.faulty = 0, action, faulty

    def close(self) -> None:
        """Stop to listen."""
        self.server.close()
        for each in self.open:
            each.close()

    def serve(self) -> None:
        """Accept connections, one request each."""
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            with self.lock:
                self.count += 1
                action = self.action if self.faulty(self.count) else ""
            threading.Thread(target=self.handle, args=(client, action), daemon=True).start()

    def handle(self, client: socket.socket, action: str) -> None:
        """Pass on a request, or not."""
        if action == "hang":
            # Kept open, never answered.
            self.open.append(client)
        elif action == "reset":
            client.close()
        elif action.isdigit():
            client.recv(65536)
            body = b'{"message": "made up by a test"}'
            head = f"HTTP/1.1 {action} Fault\r\nContent-Length: {len(body)}\r\n\r\n"
            with contextlib.suppress(OSError):
                client.sendall(head.encode() + body)
            client.close()
        else:
            self.forward(client, {"lose": 0, "cut": 20}.get(action))

    def forward(self, client: socket.socket, limit: int | None) -> None:
        """Pass on a request and its answer, or just the beginning of the answer."""
        with client, socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self.target)
            there = threading.Thread(target=pump, args=(client, engine), daemon=True)
            there.start()
            if limit is None:
                pump(engine, client)
                # Whoever keeps a stream open to send has more to say.
                there.join(timeout=60)
            else:
                with contextlib.suppress(OSError):
                    # The engine has done what was asked before the answer gets lost.
                    client.sendall(engine.recv(65536)[:limit])


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, and that nothing more comes."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


class PrivateEngine:
    """
    An engine of our own: its data, its network, its sockets are nobody else's.

    :param directory: An empty directory with a short name.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "sock"
        self.pidfile = directory / "pid"
        self.containerd = directory / "exec" / "containerd" / "containerd.pid"
        self.options: list[str] = []
        number = os.getpid()
        self.bridge = f"rdk{number}"
        self.subnet = f"10.{200 + number % 50}.{number // 50 % 250}.1/24"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """What leads redock and ``docker`` to this engine."""
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    @property
    def engine(self) -> Engine:
        """The engine for redock."""
        return Engine(Endpoint(f"unix://{self.socket}", "a test"))

    def prepare(self) -> None:
        """Make the network."""
        root("ip", "link", "add", "name", self.bridge, "type", "bridge")
        root("ip", "address", "add", self.subnet, "dev", self.bridge)
        root("ip", "link", "set", self.bridge, "up")

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *AS_ROOT,
                    *("setsid", "dockerd", "--host", f"unix://{self.socket}"),
                    *("--data-root", str(self.directory / "data")),
                    *("--exec-root", str(self.directory / "exec")),
                    *("--pidfile", str(self.pidfile), "--bridge", self.bridge),
                    *("--containerd-namespace", self.bridge),
                    *("--containerd-plugins-namespace", f"{self.bridge}-plugins"),
                    *("--iptables=false", "--ip-masq=false", *self.options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(self.answers)
        except AssertionError:
            print((self.directory / "log").read_text()[-4000:])
            raise
        self.bury_lost()

    def answers(self) -> bool:
        """Check whether the engine answers."""
        try:
            return bool(self.engine.version())
        except RedockError:
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the engine, kindly or not."""
        pid = self.pidfile.read_text().strip()
        root("kill", f"-{int(number)}", pid)
        assert self.process is not None
        self.process.wait(timeout=60)
        wait_for(lambda: not is_alive(pid))
        if number == signal.SIGKILL:
            # Its containerd dies with it. Where nobody buries the dead, a new engine would take
            # the old one's number for that of a living process.
            self.end_containerd()
            stale = [self.pidfile, self.socket, self.containerd]
            root("rm", "-f", *map(str, stale))

    def bury_lost(self) -> None:
        """
        End what runs on in containers that the engine takes for dead.

        One that was killed together with its containerd may lose a container that lives, and give
        its address to the next: nobody who asks the engine can know. A reboot of the host helps.
        """
        for container in self.engine.containers({}):
            if container["State"] not in ("running", "paused", "restarting"):
                lost = processes_in(container["Id"])
                freezer = Path(f"/sys/fs/cgroup/freezer/docker/{container['Id']}/freezer.state")
                if lost and freezer.exists():
                    root("sh", "-c", f"echo THAWED >{freezer}")
                if lost:
                    # Some end with those that end before.
                    command(*AS_ROOT, "kill", "-9", *lost)

    def load(self, *images: str) -> None:
        """Copy images from the engine the tests run on."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
            loaded = subprocess.run(
                ["docker", "load", "--quiet"],
                stdin=saving.stdout,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **self.env},
                timeout=300,
                check=True,
            )
        assert saving.returncode == 0 == loaded.returncode

    def close(self) -> None:
        """Remove everything: containers, processes, mounts, the network, the directory."""
        if self.process is not None:
            if not self.answers():
                with contextlib.suppress(OSError, AssertionError, subprocess.CalledProcessError):
                    self.end(signal.SIGKILL)
                self.start()
            for container in self.engine.containers({}):
                self.engine.remove_container(container["Id"])
            self.end()
        with contextlib.suppress(subprocess.CalledProcessError):
            root("ip", "link", "delete", self.bridge)
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        for path in sorted((line.split(" ")[1] for line in mounts), reverse=True):
            if path.startswith(f"{self.directory}/"):
                root("umount", "--lazy", path)
        root("rm", "-rf", str(self.directory / "data"), str(self.directory / "exec"))
        shutil.rmtree(self.directory, ignore_errors=True)

    def end_containerd(self) -> None:
        """End the engine's own containerd, should it still be there."""
        shown = command(*AS_ROOT, "cat", str(self.containerd)).stdout.strip()
        if shown and is_alive(shown):
            root("kill", "-9", shown)
            wait_for(lambda: not is_alive(shown))


def processes_in(container: str) -> list[str]:
    """Find the processes that belong to a container, whatever its engine says; cgroups(7)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with contextlib.suppress(OSError):
            if container in path.read_text():
                found.append(path.parent.name)
    return found


def is_alive(pid: str) -> bool:
    """Check whether a process exists and is more than a name in its parent's books."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def root(*arguments: str) -> None:
    """Run a command as root."""
    command(*AS_ROOT, *arguments, check=True)
