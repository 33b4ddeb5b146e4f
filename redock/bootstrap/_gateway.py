"""The wire: an execnet gateway over a pipe to ``ssh``, with deadlines. Imported on first use."""

from __future__ import annotations

import os
import select
import subprocess
import time

import execnet
from execnet.gateway_base import get_execmodel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Gateway", "Pipe", "RemoteError", "TimeoutError"]

RemoteError = execnet.RemoteError
TimeoutError = execnet.TimeoutError

#: A hostile machine can send as much as it likes; no answer of ours comes close to this.
LARGEST_MESSAGE = 64 * 1024 * 1024
#: How much of ssh's standard error is kept for messages.
LONGEST_ERROR = 8192


class Pipe:
    """
    Both directions of a running ``ssh``, in the form execnet wants them.

    :param process: The running ssh with three pipes.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.execmodel = get_execmodel("thread")
        self.process = process
        self.remoteaddress = "ssh"
        self.errors = b""
        self.buffer = bytearray()
        self.deadline = float("inf")
        self.output = process.stdout.fileno()
        self.error_output = process.stderr.fileno()
        self.input = process.stdin.fileno()
        os.set_blocking(self.input, False)
        os.set_blocking(self.error_output, False)
        self.poll = select.poll()
        self.poll.register(self.output, select.POLLIN)
        self.poll.register(self.error_output, select.POLLIN)

    def read(self, numbytes: int) -> bytes:
        """Read exactly this many bytes; execnet's receiver thread lives here."""
        if numbytes > LARGEST_MESSAGE:
            raise EOFError(f"the remote side announced a message of {numbytes} bytes")
        while len(self.buffer) < numbytes:
            self.fill(None)
        data = bytes(memoryview(self.buffer)[:numbytes])
        del self.buffer[:numbytes]
        return data

    def fill(self, seconds: float | None) -> bool:
        """Wait for output and take it in; false when the time is over, EOFError at its end."""
        events = self.poll.poll(None if seconds is None else max(0, int(seconds * 1000) + 1))
        for descriptor, _ in events:
            if descriptor == self.error_output:
                self.drain_errors()
            else:
                data = os.read(self.output, 1 << 18)
                if not data:
                    raise EOFError("ssh closed its output")
                self.buffer += data
        return bool(events)

    def drain_errors(self) -> None:
        """Keep the end of what ssh wrote to its standard error."""
        try:
            while data := os.read(self.error_output, 65536):
                self.errors = (self.errors + data)[-LONGEST_ERROR:]
            self.poll.unregister(self.error_output)
        except (BlockingIOError, KeyError, OSError):
            pass

    def write(self, data: bytes) -> None:
        """Write everything before the deadline, or fail with TimeoutError of the built-in kind."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.input, view) :]
            except BlockingIOError:
                left = self.deadline - time.monotonic()
                if left <= 0:
                    raise InterruptedError("the remote side does not read") from None
                wait = select.poll()
                wait.register(self.input, select.POLLOUT)
                wait.poll(min(left, 1.0) * 1000)

    def close_read(self) -> None:
        """Stop reading; the pipes are closed together, by close()."""

    def close_write(self) -> None:
        """Tell the remote side that nothing more will come."""
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()

    def wait(self) -> int | None:
        """Wait for the end of ssh."""
        return self.process.wait(10)

    def kill(self) -> None:
        """End ssh."""
        self.process.kill()


class Gateway(execnet.Gateway):
    """An execnet gateway that ends together with its pipe."""

    def __init__(self, pipe: Pipe, alias: str) -> None:
        super().__init__(pipe, execnet.XSpec(f"ssh={alias}//id={alias}"))

    def exit(self) -> None:
        """Close the connection."""
        pipe: Any = self._io
        pipe.close_write()
