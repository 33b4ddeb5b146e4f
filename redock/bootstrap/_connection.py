"""One connection to one host: starting ssh, saying why it failed, asking the remote loop."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import time

from redock._process import missing_program, run
from redock.bootstrap._change import mask
from redock.bootstrap._payload import FIRST_WORDS, MARK, compose
from redock.errors import ConnectionFailed, InvalidArgument, Timeout, last_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from redock.bootstrap._gateway import Gateway, Pipe

__all__ = ["Connection", "ssh_command"]

logger = logging.getLogger("redock.bootstrap")

#: More noise than this is not waited for.
LOUDEST = 65536

#: What ssh writes to its standard error, and what that means.
SYMPTOMS = (
    ("host-key", ("Host key verification failed", "HOST IDENTIFICATION HAS CHANGED")),
    (
        "authentication",
        ("Permission denied", "Too many authentication failures", "No supported auth"),
    ),
    ("timeout", ("timed out", "Timeout, server")),
    ("sudo", ("sudo: ",)),
    ("no-python", ("command not found", ": not found", "No such file or directory")),
)

HINTS = {
    "refused": "check that the machine runs and that 'ssh {alias}' works",
    "authentication": "check the key, for example with 'ssh -v {alias}'",
    "host-key": "if the machine was replaced on purpose, remove its old key from known_hosts",
    "timeout": "check that the machine runs and that 'ssh {alias}' works",
    "no-python": "install python3 there, or name the interpreter with python=",
    "old-python": "Python 3.8 or later is needed there",
    "incomplete-python": "install the full package: apt-get install python3",
    "noisy-shell": "make the login scripts there print only when a terminal is present",
    "sudo": "sudo=True needs a user who may run sudo without a password (NOPASSWD)",
    "lost": "the state of the last operation is unknown; running it again is safe",
}


def ssh_command(alias: str, *options: str) -> list[str]:
    """
    Compose the beginning of a command line of ssh; the user's configuration does the rest.

    :param alias: A host name that was checked.
    :param options: More options.
    :returns: The command up to the name of the host.
    """
    return [
        "ssh",
        *options,
        *([] if sys.stdin and sys.stdin.isatty() else ["-o", "BatchMode=yes"]),
        "-o",
        "RemoteCommand=none",
        "-o",
        "LogLevel=INFO",
        alias,
    ]


payloads: list[tuple[bytes, bytes]] = []


class Connection:
    """
    A running ``ssh`` with our loop at its other end.

    :param alias: The name of the host, as ssh knows it.
    :param python: The command that starts the remote interpreter.
    :param sudo: Whether to become root with sudo.
    :param timeout: Seconds until the connection has to stand.
    :param on_start: Called with the process of ssh.
    """

    def __init__(
        self,
        alias: str,
        python: str,
        sudo: bool,
        timeout: float,
        on_start: Callable[[subprocess.Popen[Any]], object],
    ) -> None:
        self.alias = alias
        self.python = python
        self.sudo = sudo
        self.timeout = timeout
        self.on_start = on_start
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe: Pipe | None = None
        self.gateway: Gateway | None = None
        self.channel: Any = None
        self.started = 0.0

    def start(self) -> None:
        """Start ssh without waiting for it."""
        command = [
            *ssh_command(self.alias, "-T"),
            ("sudo -n " if self.sudo else "") + f"{self.python} -c '{FIRST_WORDS}'",
        ]
        logger.debug("Running %s", command)
        self.started = time.monotonic()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except FileNotFoundError as error:
            raise missing_program("ssh") from error
        self.on_start(self.process)

    def open(self) -> None:
        """
        Wait until the remote loop runs.

        :raises ConnectionFailed: It never will; the cause says why. No process is left.
        """
        if self.process is None:
            self.start()
        from redock.bootstrap._gateway import Gateway, Pipe

        assert self.process is not None
        self.pipe = Pipe(self.process)
        self.pipe.deadline = self.started + self.timeout
        try:
            if not payloads:
                payloads.append(compose())
            # When ssh has ended already, or nobody reads, what was said is read below.
            with contextlib.suppress(BrokenPipeError, InterruptedError):
                self.pipe.write(b"".join(payloads[0]))
            self.await_mark()
            self.gateway = Gateway(self.pipe, self.alias)
            self.channel = self.gateway.remote_exec(
                "from redock._remote._loop import serve; serve(channel)"
            )
        except BaseException:
            self.kill()
            raise
        logger.debug("Connected to %s in %.0f ms", self.alias, 1000 * self.seconds)

    @property
    def seconds(self) -> float:
        """How long ago ssh was started."""
        return time.monotonic() - self.started

    def await_mark(self) -> None:
        """Read up to the line in which the remote interpreter introduces itself."""
        assert self.pipe is not None
        seen = self.pipe.buffer
        try:
            while MARK not in seen or b"\n" not in seen[seen.index(MARK) :]:
                left = self.pipe.deadline - time.monotonic()
                if left <= 0 or not self.pipe.fill(left):
                    raise self.failed("timeout", f"no answer within {self.timeout:g} seconds")
                if len(seen) > LOUDEST:
                    break
        except EOFError:
            self.diagnose(bytes(seen))
        noise, _, rest = bytes(seen).partition(MARK)
        if noise:
            raise self.noisy(noise)
        line, _, rest = rest.partition(b"\n")
        word, _, detail = line.decode(errors="replace").partition(" ")
        if word != "ready":
            said = (
                "has Python " + detail if word == "old-python" else "has no full Python: " + detail
            )
            raise self.failed(word, f"the host {said}")
        seen[:] = rest

    def diagnose(self, output: bytes) -> None:
        """
        Find out why ssh ended before anything worked.

        :param output: What came on its standard output.
        :raises ConnectionFailed: Always.
        """
        status = self.end()
        assert self.pipe is not None
        said = self.pipe.errors.decode(errors="replace")
        if output:
            raise self.noisy(output)
        for cause, phrases in SYMPTOMS:
            if cause in ("sudo", "no-python") and status == 255:
                continue
            if any(phrase in said for phrase in phrases):
                raise self.failed(cause, f"ssh ended with status {status}")
        cause = "no-python" if status in (126, 127) else "refused"
        raise self.failed(cause, f"ssh ended with status {status}")

    def noisy(self, output: bytes) -> ConnectionFailed:
        """Compose the error for a login that prints."""
        shown = last_lines(output.decode(errors="replace"), 3)[:500]
        return self.failed("noisy-shell", f"its login scripts print on standard output: {shown!r}")

    def failed(self, cause: str, message: str, during: str = "") -> ConnectionFailed:
        """
        Compose the error for a connection that failed.

        :param cause: A word of ConnectionFailed.
        :param message: What happened.
        :param during: The operation that was under way (default: connecting).
        :returns: An error to raise.
        """
        said = self.pipe.errors.decode(errors="replace") if self.pipe else ""
        tail = last_lines(said, 5)
        hint = HINTS[cause].format(alias=self.alias)
        what = (
            f"lost the connection to {self.alias} during {during}"
            if during
            else (f"cannot connect to {self.alias}")
        )
        text = f"{what}: {message}" + (f": {tail}" if tail else "") + f" (hint: {hint})"
        return ConnectionFailed(mask(text), cause)

    def send(self, request: object, timeout: float | None, during: str) -> None:
        """
        Send something to the remote loop.

        :param request: Builtin values.
        :param timeout: Seconds until the remote side has to have read it.
        :param during: What it belongs to, for messages.
        :raises ConnectionFailed: The connection ended or the remote side does not read.
        """
        assert self.pipe is not None
        import struct

        from redock.bootstrap._gateway import DumpError

        self.pipe.deadline = float("inf") if timeout is None else time.monotonic() + timeout
        try:
            self.channel.send(request)
        except OSError as error:
            raise self.lost(error, timeout, during) from None
        except (struct.error, DumpError) as error:
            # Nothing has been sent: everything is serialized first.
            raise InvalidArgument(f"{during}: {mask(str(error))}") from None

    def receive(self, timeout: float | None, during: str) -> Any:
        """
        Wait for something from the remote loop.

        :param timeout: Seconds to wait; None: for ever.
        :param during: What it belongs to, for messages.
        :raises ConnectionFailed: The connection ended or nothing came in time.
        """
        from redock.bootstrap._gateway import RemoteError, TimeoutError

        try:
            return self.channel.receive(timeout)
        except (TimeoutError, EOFError, OSError, RemoteError) as error:
            raise self.lost(error, timeout, during) from None
        except BaseException:
            # The answer to this request would be taken for the answer to the next one.
            self.kill()
            raise

    def lost(self, error: Exception, timeout: float | None, during: str) -> ConnectionFailed:
        """Compose the error for a connection that broke and end what is left of it."""
        from redock.bootstrap._gateway import TimeoutError

        blocked = isinstance(error.__cause__, InterruptedError)
        if isinstance(error, TimeoutError) or blocked:
            self.kill()
            return self.failed("timeout", f"no answer within {timeout:g} seconds", during)
        status = self.end()
        said = f"ssh ended with status {status}"
        return self.failed("lost", said, during)

    def end(self) -> int:
        """Wait for ssh to end by itself, then make it; its exit status."""
        process = self.process
        if process is None:
            return -1
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            logger.debug("ssh to %s is still there", self.alias)
        self.kill()
        return int(process.returncode)

    def kill(self) -> None:
        """End ssh at once."""
        process, gateway = self.process, self.gateway
        self.process = self.channel = self.gateway = None
        if process is None:
            return
        if process.poll() is None:
            # SIGTERM lets ssh end its proxy command, too.
            process.terminate()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.pipe is not None:
            self.pipe.drain_errors()
        if gateway is not None:
            gateway.join(2)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def close(self) -> None:
        """Say good-bye: the remote loop ends, then ssh."""
        process = self.process
        if process is None or process.poll() is not None:
            self.kill()
            return
        if self.gateway is not None:
            self.gateway.exit()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                logger.debug("ssh to %s did not end by itself", self.alias)
        self.kill()


def remote_shell(
    alias: str, script: str, timeout: float, on_start: Callable[[subprocess.Popen[Any]], object]
) -> tuple[int, str]:
    """
    Run a shell script on a host that has no Python yet.

    :param alias: The name of the host.
    :param script: The text of the script.
    :param timeout: Seconds until it is ended.
    :param on_start: Called with the process of ssh.
    :returns: The exit status and the end of what it printed.
    """
    command: Sequence[str] = [*ssh_command(alias, "-T"), script]
    try:
        done = run(command, timeout=timeout, check=False, on_start=on_start)
    except Timeout:
        return 124, f"no end within {timeout:g} seconds"
    return done.returncode, last_lines(done.stdout + done.stderr, 5)
