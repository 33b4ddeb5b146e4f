"""
Running external commands and waiting: the one place for each.

Commands are argument lists, never shell text; every wait is bounded by the
monotonic clock, so that a step of the wall clock neither ends nor extends it.
"""

from __future__ import annotations

import os
import time

from redock._log import LateLogger
from redock._result import Result, quote
from redock.errors import ExternalCommandFailed, RedockError, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Deadline", "Result", "quote", "run", "wait_until"]

logger = LateLogger(__name__)


class Deadline:
    """
    A moment in the future, on the monotonic clock.

    :param seconds: How far away it is; None for never.
    """

    __slots__ = ("end", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.end = None if seconds is None else time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """The seconds that are left, never negative; infinite without an end."""
        return float("inf") if self.end is None else max(0.0, self.end - time.monotonic())

    @property
    def passed(self) -> bool:
        """True once the moment has come."""
        return self.remaining <= 0

    def sleep(self, seconds: float) -> None:
        """
        Sleep, but not past the deadline.

        :param seconds: How long to sleep at most.
        """
        time.sleep(min(seconds, self.remaining))


def run(
    command: Sequence[str],
    *,
    input: str | None = None,
    timeout: float | None = 60.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    on_start: Callable[[subprocess.Popen[str]], object] = lambda process: None,
) -> Result:
    """
    Run a command and capture its output.

    :param command: The command name and its arguments.
    :param input: The standard input (default: empty).
    :param timeout: Seconds after which the command is killed (default: 60; None: never).
    :param check: Raise an error when the exit status is not zero (default: True).
    :param env: Environment variables to add to the inherited ones.
    :param on_start: Called with the process, so that another thread can end it (default: nothing
                     is).
    :returns: What the command did.
    :raises ExternalCommandFailed: The command failed and ``check`` is true.
    :raises Timeout: The command did not end in time; it was killed.
    :raises RedockError: There is no such program.
    """
    import subprocess

    logger.debug("Running %s", Quoted(command))
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env} if env else None,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError as error:
        raise missing_program(command[0]) from error
    with process:
        try:
            on_start(process)
            stdout, stderr = process.communicate(input, timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            words = f"did not end within {timeout:g} seconds"
            raise Timeout(f"command {quote(command)} {words}") from error
        except BaseException:
            process.kill()
            raise
    result = Result(command, process.returncode, stdout, stderr, time.monotonic() - started)
    if check and not result:
        raise ExternalCommandFailed(result)
    return result


def missing_program(name: str) -> RedockError:
    """
    Say that a program is not installed.

    :param name: The name of the program.
    :returns: An error to raise.
    """
    packages = {
        "ssh": "openssh-client",
        "ssh-keygen": "openssh-client",
        "scp": "openssh-client",
        "docker": "docker-cli",
    }
    package = packages.get(name, name)
    return RedockError(f"the program {name!r} is not installed: apt-get install {package}")


def wait_until(
    condition: Callable[[], bool],
    deadline: Deadline,
    first: float = 0.01,
    longest: float = 0.1,
) -> bool:
    """
    Ask again and again, at growing intervals, until a condition holds.

    :param condition: Called without arguments; returns true when the wait is over.
    :param deadline: When to give up.
    :param first: The first pause in seconds (default: 0.01).
    :param longest: The longest pause in seconds (default: 0.1).
    :returns: True when the condition held, False when the deadline passed first.
    """
    pause = first
    while not condition():
        if deadline.passed:
            return False
        deadline.sleep(pause)
        pause = min(pause * 1.5, longest)
    return True


class Quoted:
    """
    A command line that is quoted only when somebody reads the log line.

    :param command: The command name and its arguments.
    """

    __slots__ = ("command",)

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command

    def __str__(self) -> str:
        return quote(self.command)
