"""
What the unit tests share: a home directory of their own, and a guard around the real one.

redock takes the home directory from the password database, and so does ssh. The
first is told another one here; the second cannot be told, so it is always called
with ``-F``, and its ``Include`` lines point below ``$REDOCK_HOME``.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock._files import Home

ROOT = Path(__file__).parents[2]
SANDBOX = Path(__file__).parent / "sandbox"
REAL_HOME = pwd.getpwuid(os.getuid()).pw_dir
FORBIDDEN = tuple(os.path.join(REAL_HOME, name) for name in (".ssh", ".redock"))
#: Enough for anything on a slow machine; what takes longer hangs.
PATIENCE = 60.0
NOBODY = 65534

touched: list[str] = []


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """Notice, as Python's audit hook, whoever goes near the user's own files."""
    if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod"):
        return
    for argument in arguments[:2]:
        path = os.fsdecode(argument) if isinstance(argument, (str, bytes)) else ""
        if path.startswith(FORBIDDEN):
            touched.append(f"{event} {path}")
            raise PermissionError(13, "the tests keep away from the real home directory", path)


sys.addaudithook(watch)


@pytest.fixture(autouse=True)
def real_home_is_out_of_reach() -> Iterator[None]:
    """Fail a test that goes near the real ~/.ssh or ~/.redock, even when it swallows the error."""
    touched.clear()
    yield
    assert not touched, touched


@pytest.fixture
def sandbox() -> Iterator[Path]:
    """A directory with a short name: the path of a control socket has to be short."""
    path = Path(tempfile.mkdtemp(prefix="redock-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of a test, by the password database and by $HOME."""
    path = sandbox / "home"
    path.mkdir(mode=0o700)
    use_home(path, monkeypatch)
    for name in list(os.environ):
        if name.startswith(("REDOCK_", "DOCKER_", "XDG_", "SSH_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("USER", "me")
    # Not below the home directory: the Include line has no "~" then, of which ssh thinks otherwise.
    monkeypatch.setenv("REDOCK_HOME", str(sandbox / "redock"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{sandbox}/no-engine.sock")
    monkeypatch.setattr(Home, "found", None)
    return path


def use_home(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put another home directory into the password database, as this process sees it."""
    entry = pwd.struct_passwd(("me", "x", os.getuid(), os.getgid(), "", str(path), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    monkeypatch.setenv("HOME", str(path))


@pytest.fixture
def redock_home(sandbox: Path) -> Path:
    """redock's own directory, which does not exist before redock makes it."""
    return sandbox / "redock"


@pytest.fixture
def default_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """redock's own directory where $REDOCK_HOME is not set."""
    monkeypatch.delenv("REDOCK_HOME")
    return home / ".redock"


def environment(**more: str) -> dict[str, str]:
    """The environment for programs that have to see the test's home directory."""
    path = os.pathsep.join([str(SANDBOX), str(ROOT)])
    inherited = {**os.environ, "REDOCK_TEST_HOME": os.environ["HOME"], "PYTHONPATH": path}
    return {**inherited, "PYTHONDONTWRITEBYTECODE": "1", **more}


def run_python(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments, in the test's home directory."""
    return subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(**more),
        cwd=os.environ["HOME"],
    )


def run_redock(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does, without a terminal."""
    return run_python("-m", "redock", *arguments, **more)


def run_many(
    commands: list[list[str]], **more: str
) -> list[tuple[list[str], subprocess.CompletedProcess[str]]]:
    """Run the program many times, each in a process of its own, in the time of a few."""
    done = subprocess.run(
        [sys.executable, str(SANDBOX / "many.py")],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        env=environment(**more),
        cwd=os.environ["HOME"],
    )
    return [
        (command, subprocess.CompletedProcess(command, *result))
        for command, result in zip(commands, json.loads(done.stdout), strict=True)
    ]


def ssh_options(config: Path | str, host: str) -> tuple[int, dict[str, list[str]], str]:
    """Ask ssh itself what a configuration means: exit status, options, complaints."""
    done = subprocess.run(
        ["ssh", "-G", "-T", "-F", str(config), host],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    options: dict[str, list[str]] = {}
    for line in done.stdout.decode("utf-8", "surrogateescape").split("\n"):
        name, _, value = line.partition(" ")
        options.setdefault(name, []).append(value)
    return done.returncode, options, done.stderr.decode("utf-8", "replace")


def as_nobody(directory: Path, function: Callable[[], object]) -> None:
    """
    Call a function without root's privileges, which make permissions meaningless.

    It runs in a child process; an assertion that fails there fails here.
    """
    if os.geteuid() == 0:
        for each in [directory, *directory.rglob("*")]:
            os.chown(each, NOBODY, NOBODY, follow_symlinks=False)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            function()
            os._exit(0)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:4000])
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, said


class Server:
    """
    A server on a UNIX socket that plays an engine.

    :param path: The pathname of the socket.
    :param answer: Called with each connection and the request that arrived on it.
    """

    def __init__(self, path: Path, answer: Callable[[socket.socket, bytes], None]) -> None:
        self.path = path
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections: list[socket.socket] = []
        self.closed = False
        self.lock = threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(64)
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def url(self) -> str:
        """What DOCKER_HOST is set to."""
        return f"unix://{self.path}"

    def serve(self) -> None:
        """Accept connections until the listener is closed."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                if self.closed:
                    connection.close()
                    return
                self.connections.append(connection)
            threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection: socket.socket) -> None:
        """Read a request and answer it."""
        try:
            connection.settimeout(PATIENCE)
            request = b""
            while b"\r\n\r\n" not in request:
                more = connection.recv(65536)
                if not more:
                    # Whoever it was has gone without a request.
                    return
                request += more
            head, _, body = request.partition(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    while len(body) < int(line.partition(b":")[2]):
                        body += connection.recv(65536)
            self.requests.append(head + b"\r\n\r\n" + body)
            self.answer(connection, self.requests[-1])
        except (OSError, ValueError):
            # Closed in the meantime.
            pass

    def close(self) -> None:
        """Stop, and break what is still connected."""
        with self.lock:
            self.closed = True
            self.listener.close()
            for connection in self.connections:
                connection.close()


@pytest.fixture
def serve(sandbox: Path) -> Iterator[Callable[[Callable[[socket.socket, bytes], None]], Server]]:
    """Start servers that play an engine; they stop with the test."""
    servers: list[Server] = []

    def start(answer: Callable[[socket.socket, bytes], None]) -> Server:
        server = Server(sandbox / f"engine{len(servers)}.sock", answer)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


def reply(data: bytes) -> Callable[[socket.socket, bytes], None]:
    """An answer that is always the same and ends the connection."""

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(data)
        connection.close()

    return answer


def silence(connection: socket.socket, request: bytes) -> None:
    """No answer at all; the connection stays open."""
