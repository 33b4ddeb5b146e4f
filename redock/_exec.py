"""
Commands in a container through the engine: they need neither an SSH server nor a network.
"""

from __future__ import annotations

import contextlib
import threading
import time

from redock._process import Deadline, Result, wait_until
from redock.errors import EngineError, RedockError, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from redock._engine import Engine

__all__ = ["ERROR", "OUTPUT", "Exec", "capture"]

#: The numbers of the streams, as the engine multiplexes them.
OUTPUT, ERROR = 1, 2
#: Keys nobody presses one after the other: the engine ends its part of a session with them, and
#: keeps the first of them to itself until it has seen the next.
DETACH_KEYS = "ctrl-^,ctrl-],ctrl-^"
#: Seconds the engine may need to notice that a command has ended.
PATIENCE = 30.0


class Exec:
    """
    A command that runs in a container.

    Lifecycle: started by the constructor; used as a context manager it closes its
    streams on exit. It goes on running unless :meth:`kill` is called.

    Thread safety: one thread may write while another one reads.

    :param engine: The engine.
    :param container: The id of the container.
    :param command: The program and its arguments.
    :param stdin: Connect its standard input (default: no, it is empty).
    :param tty: Give it a terminal (default: no).
    :param user: Who runs it, ``USER[:GROUP]`` (default: root).
    :param environment: Variables it gets besides those of the container (default: none).
    :raises EngineError: The engine refused.
    """

    def __init__(
        self,
        engine: Engine,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool = False,
        tty: bool = False,
        user: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.engine = engine
        self.container = container
        self.tty = tty
        self.number, self.stream = engine.begin_exec(
            container,
            command,
            stdin=stdin,
            tty=tty,
            User=user or "root",
            Env=[f"{name}={value}" for name, value in (environment or {}).items()],
            DetachKeys=DETACH_KEYS,
        )

    def __enter__(self) -> Exec:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stream.close()

    def read(self, deadline: Deadline) -> Iterator[tuple[int, bytes]]:
        """
        Read what it prints, until it has printed everything.

        :param deadline: When to give up.
        :returns: Yields the number of the stream and a piece.
        :raises TimeoutError: It did not end in time.
        :raises EngineError: The connection broke.
        """
        try:
            while True:
                if self.tty:
                    arrived, self.stream.arrived = self.stream.arrived, b""
                    yield OUTPUT, arrived or self.stream.piece(deadline)
                else:
                    yield self.stream.frame(deadline)
        except EOFError:
            return
        except TimeoutError:
            raise
        except OSError as error:
            raise EngineError(f"the connection to a command broke: {error.strerror}") from error

    def feed(self, source: Callable[[], bytes]) -> None:
        """
        Give it standard input, in a thread of its own.

        :param source: Called until it returns nothing; then the input ends.
        """

        def work() -> None:
            with contextlib.suppress(OSError, ValueError):
                while data := source():
                    self.stream.write(data)
            self.stream.end()

        threading.Thread(target=work, daemon=True).start()

    def resize(self, rows: int, columns: int) -> None:
        """
        Tell its terminal how large it is; where that is in vain, nobody minds.

        :param rows: The height.
        :param columns: The width.
        """
        with contextlib.suppress(RedockError):
            self.engine.resize_exec(self.number, rows, columns)

    def status(self, deadline: Deadline) -> int:
        """
        Wait for its exit status, once it has printed everything.

        :param deadline: When to give up: it may have closed its output and go on.
        :returns: The exit status; 126 or 127 where there is no such program.
        :raises TimeoutError: It did not end in time.
        """
        found: list[int] = []

        def ended() -> bool:
            status = self.engine.exec_status(self.number)
            found.extend([] if status is None else [status])
            return bool(found)

        if not wait_until(ended, deadline, 0.002, 0.25):
            raise TimeoutError
        return found[0]

    def _pid(self) -> int:
        """
        Find out the number of the process on the engine's host.

        :returns: Its number, 0 when it has ended.
        """
        found: list[int] = []

        def known() -> bool:
            described = self.engine.inspect_exec(self.number)
            found.append(int(described["Pid"]))
            # What it prints may be here before the engine has noted its number.
            return found[-1] != 0 or not described["Running"]

        wait_until(known, Deadline(PATIENCE), 0.002, 0.25)
        return found[-1]

    def kill(self, signal: str = "KILL") -> None:
        """
        Send it and its children a signal; nobody minds when it has ended already.

        :param signal: The name of the signal (default: KILL).
        """
        with contextlib.suppress(RedockError, OSError, ValueError, StopIteration):
            # The engine tells the number it has outside; inside it has another (proc(5)).
            with open(f"/proc/{self._pid()}/status", encoding="ascii", errors="replace") as lines:
                numbers = next(line.split() for line in lines if line.startswith("NSpid:"))
            # It leads a process group of its own.
            script = 'kill -s "$1" -- "-$2" || kill -s "$1" -- "$2"'
            command = ["sh", "-c", script, "sh", signal, numbers[-1]]
            with Exec(self.engine, self.container, command) as killing:
                for _ in killing.read(Deadline(PATIENCE)):
                    pass


def capture(
    running: Exec, command: Sequence[str], input: str | None, timeout: float | None
) -> Result:
    """
    Run a command to its end and keep what it prints.

    :param running: The command that has been started, with its standard input where there is any.
    :param command: What to call it.
    :param input: Its standard input, None for none.
    :param timeout: Seconds after which it is killed; None: never.
    :returns: What it did.
    :raises Timeout: It did not end in time.
    """
    started, deadline = time.monotonic(), Deadline(timeout)
    printed: dict[int, list[bytes]] = {OUTPUT: [], ERROR: []}
    with running:
        if input is not None:
            pieces = [input.encode("utf-8", "surrogateescape")]
            running.feed(lambda: pieces.pop() if pieces else b"")
        try:
            for stream, data in running.read(deadline):
                printed[ERROR if stream == ERROR else OUTPUT].append(data)
            status = running.status(deadline)
        except TimeoutError:
            running.kill()
            raise Timeout(f"a command did not end within {timeout:g} seconds") from None
        except BaseException:
            running.kill("TERM")
            raise
    output, errors = (
        b"".join(printed[each]).decode("utf-8", "replace") for each in (OUTPUT, ERROR)
    )
    return Result(tuple(command), status, output, errors, time.monotonic() - started)
