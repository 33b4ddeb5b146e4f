"""
A shell that stays open inside a container, for many small changes.

A command through the engine takes three requests and 60 ms; a line to a shell
that waits for it 16 ms, most of it the program that is run.
"""

from __future__ import annotations

import os
import threading

from redock._process import Deadline
from redock._result import Result
from redock.errors import EngineError, RedockError, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock._engine import Engine
    from redock._http import Stream

__all__ = ["Shell"]

#: Stands between what commands print; nothing that is run here prints it.
MARK = b"\x1e"


class Shell:
    """
    A shell inside a container.

    Lifecycle: opened by the first command, and again when it has ended; the
    engine ends it with the container.

    Thread safety: one command at a time; others wait.

    :param engine: The engine.
    :param container: The id of the container.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        self.engine = engine
        self.container = container
        self.stream: Stream | None = None
        self.lock = threading.Lock()

    def run(self, script: str, timeout: float = 30.0) -> Result:
        """
        Run a script and wait for its end.

        :param script: Text for ``sh``; its output and errors arrive together.
        :param timeout: Seconds to wait at most (default: 30).
        :returns: What it did.
        :raises Timeout: It did not end in time; the shell is given up.
        :raises EngineError: The container has gone, or its engine.
        """
        with self.lock:
            try:
                return self.exchange(script, Deadline(timeout))
            except (ConnectionError, EOFError):
                # The container was restarted, or the shell ended: once more with a new one.
                self.close()
                try:
                    return self.exchange(script, Deadline(timeout))
                except (ConnectionError, EOFError) as error:
                    self.close()
                    raise EngineError(
                        f"the shell in the container {self.container[:12]} ended: {error}"
                    ) from error
            except BaseException:
                # What it prints now would be taken for the answer to the next command.
                self.close()
                raise

    def exchange(self, script: str, deadline: Deadline) -> Result:
        """
        Send a script and read what it prints.

        :param script: Text for ``sh``.
        :param deadline: When to give up.
        :returns: What it did.
        """
        if self.stream is None:
            _, self.stream = self.engine.begin_exec(self.container, ["sh"], stdin=True)
        end = f"EOF{os.urandom(6).hex()}"
        # A script of its own: what it breaks ends with it.
        text = f"sh 2>&1 <<'{end}'\n{script}\n{end}\nprintf '\\036%d\\036' $?\n"
        self.stream.write(text.encode())
        output = b""
        try:
            while output.count(MARK) < 2:
                output += self.stream.frame(deadline)[1]
        except TimeoutError:
            raise Timeout(
                f"a command in the container {self.container[:12]}"
                f" did not end within {deadline.seconds:g} seconds"
            ) from None
        printed, status, _ = output.rsplit(MARK, 2)
        return Result([script], int(status), printed.decode("utf-8", "replace"))

    def check(self, script: str, what: str, timeout: float = 30.0) -> str:
        """
        Run a script that must succeed.

        :param script: Text for ``sh``.
        :param what: What it is for, to complete "could not ...".
        :param timeout: Seconds to wait at most (default: 30).
        :returns: What it printed.
        :raises RedockError: It failed; the message ends with what it printed.
        """
        result = self.run(script, timeout)
        if not result:
            words = " ".join(result.stdout.split()) or f"status {result.returncode}"
            raise RedockError(f"could not {what}: {words[:300]}")
        return result.stdout

    def close(self) -> None:
        """End the shell."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
