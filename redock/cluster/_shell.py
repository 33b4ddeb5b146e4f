"""
Programs that stay open inside a container, and a shell among them, for many small changes.

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
    from collections.abc import Sequence

    from redock._engine import Engine
    from redock._http import Stream

__all__ = ["Program", "Shell", "text_of"]

#: Stands between what commands print; nothing that is run here prints it.
MARK = b"\x1e"


class Program:
    """
    A program inside a container, its standard input and its output.

    Lifecycle: started when something is written to it; its standard input ends with
    :meth:`close`, or with this process.

    :param engine: The engine.
    :param container: The id of the container.
    :param command: The program and its arguments.
    """

    def __init__(self, engine: Engine, container: str, command: Sequence[str]) -> None:
        self.engine = engine
        self.container = container
        self.command = command
        self.stream: Stream | None = None
        self.lock = threading.Lock()

    def open(self) -> Stream:
        """
        Make sure it has been started.

        :returns: Its standard streams.
        :raises EngineError: The container has gone, or its engine.
        """
        if self.stream is None:
            _, self.stream = self.engine.begin_exec(self.container, self.command, stdin=True)
        return self.stream

    def read(self, deadline: Deadline) -> bytes:
        """
        Read one piece of what it prints.

        :param deadline: When to give up.
        :returns: The piece.
        :raises EOFError: It has ended.
        :raises Timeout: Nothing came in time.
        """
        try:
            return self.open().frame(deadline)[1]
        except TimeoutError:
            raise Timeout(
                f"a command in the container {self.container[:12]}"
                f" did not end within {deadline.seconds:g} seconds"
            ) from None

    def close(self) -> None:
        """End its input."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None


class Shell(Program):
    """
    A shell inside a container.

    Lifecycle: opened by the first command, and again when it has ended; the
    engine ends it with the container.

    Thread safety: one command at a time; others wait.

    :param engine: The engine.
    :param container: The id of the container.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        super().__init__(engine, container, ["sh"])

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
        stream = self.open()
        end = f"EOF{os.urandom(6).hex()}"
        # A script of its own: what it breaks ends with it.
        text = f"sh 2>&1 <<'{end}'\n{script}\n{end}\nprintf '\\036%d\\036' $?\n"
        stream.write(text.encode())
        output = b""
        while output.count(MARK) < 2:
            output += self.read(deadline)
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


def text_of(module: str) -> str:
    """
    Get the text of a module of this package that runs inside containers.

    :param module: Its name.
    :returns: Python.
    """
    path = os.path.join(os.path.dirname(__file__), f"{module}.py")
    with open(path, encoding="utf-8") as handle:
        return handle.read()
