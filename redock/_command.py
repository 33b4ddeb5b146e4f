"""
Commands in a machine, over its shared connection.
"""

from __future__ import annotations

import os

from redock import _keeper, _ssh
from redock._process import run
from redock._result import Result, quote
from redock.errors import (
    ConnectionFailed,
    ExternalCommandFailed,
    InvalidArgument,
    RedockError,
    Timeout,
    last_lines,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "GRACE",
    "Line",
    "as_text",
    "brief",
    "check_command",
    "last_words",
    "remote_text",
    "words_of",
]

#: Seconds that ssh may need beyond the time a command has.
GRACE = 5.0
#: Seconds that logging in may take at most when there is no connection yet.
PATIENCE = 60.0
#: How much of a command is shown.
SHOWN = 200


def check_command(command: Sequence[str]) -> None:
    """
    Check a command before it is given away.

    :param command: One text for ``sh``, or the command and its arguments.
    :raises InvalidArgument: It is empty, or no program could be given these words (execve(2)).
    """
    if not command or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise InvalidArgument("a command is one text, or words without NUL")


def words_of(command: Sequence[str]) -> list[str]:
    """
    Turn a command into the words of a program and its arguments.

    :param command: One text for ``sh``, or the command and its arguments.
    :returns: The words.
    :raises InvalidArgument: It is no command.
    """
    check_command(command)
    return ["sh", "-c", as_text(command[0])] if len(command) == 1 else list(command)


def as_text(text: str) -> str:
    """
    Make sure a shell takes text for a command.

    :param text: Text for ``sh -c``.
    :returns: The same; a shell would take a hyphen in front for one of its own options.
    """
    return f" {text}" if text.startswith("-") else text


def remote_text(command: Sequence[str], timeout: float | None = None) -> str:
    """
    Turn a command into text for the login shell, which is what ssh takes.

    :param command: One text for ``sh``, or the command and its arguments.
    :param timeout: Seconds after which it is killed, inside the machine (default: never).
    :returns: Text that makes a shell run exactly this command.
    :raises InvalidArgument: It is no command.
    """
    words = words_of(command)
    if timeout is not None:
        words = ["timeout", "--kill-after=2", f"{timeout:g}", *words]
    return as_text(quote(words))


def brief(command: Sequence[str]) -> str:
    """
    Say which command it is, in a message or on a timeline.

    :param command: One text for ``sh``, or the command and its arguments.
    :returns: Its text, cut where it is long.
    """
    if not all(isinstance(word, str) for word in command):
        return repr(command)[:SHOWN]
    return (command[0] if len(command) == 1 else quote(command))[:SHOWN]


def last_words(result: Result) -> str:
    """
    Quote the end of what a command printed, for a message.

    :param result: What the command did.
    :returns: Text to put behind the message.
    """
    output = last_lines(result.stdout + result.stderr, 5)
    return f"; its last output: {output}" if output else ""


class Line:
    """
    The way commands take to a machine.

    :param alias: The name to give to ``ssh``.
    :param instance: The id of the container, which the shared connection is filed under.
    :param name: What the machine is called in messages about a command.
    :param title: What it is called in messages about the machine itself.
    :param connect: Makes sure there is a shared connection within so many seconds.
    :param state: Says what the engine thinks of the machine.
    """

    def __init__(
        self,
        alias: str,
        instance: str,
        name: str,
        title: str,
        connect: Callable[[float], None],
        state: Callable[[], str],
    ) -> None:
        self.alias = alias
        self.instance = instance
        self.name = name
        self.title = title
        self.connect = connect
        self.state = state

    def said(self, command: Sequence[str]) -> str:
        """
        Say which command it was, for a message.

        :param command: The command.
        :returns: The machine and the command, cut where it is long.
        """
        return f"{self.name}: {brief(command)}"

    def run(
        self,
        command: tuple[str, ...],
        timeout: float | None,
        check: bool = False,
        input: str | None = None,
    ) -> Result:
        """
        Run a command.

        :param command: One text for ``sh``, or the command and its arguments.
        :param timeout: Seconds after which it is killed, inside the machine; None: never.
        :param check: Raise an error when its status is not zero (default: no).
        :param input: Its standard input (default: empty).
        :returns: What it did.
        :raises ExternalCommandFailed: It failed and ``check`` is true.
        :raises Timeout: It did not end in time.
        :raises ConnectionFailed: The machine does not run or cannot be reached.
        """
        remote = remote_text(command, timeout)
        result = self.send(remote, None if timeout is None else timeout + GRACE, input)
        late = timeout is not None and result.seconds >= timeout
        if late and result.returncode in (124, 137):
            raise Timeout(
                f"{self.said(command)} did not end within {timeout:g} seconds{last_words(result)}"
            )
        done = Result(command, result.returncode, result.stdout, result.stderr, result.seconds)
        if check and not done:
            raise ExternalCommandFailed(done, self.alias)
        return done

    def send(self, remote: str, timeout: float | None, input: str | None = None) -> Result:
        """
        Run a command over the shared connection.

        :param remote: Text for the login shell.
        :param timeout: Seconds after which ssh is killed; None: never.
        :param input: Its standard input (default: empty).
        :returns: What it did.
        :raises Timeout: There was no answer in time.
        :raises ConnectionFailed: The machine does not run or cannot be reached.
        """
        command = ["ssh", "-F", _ssh.config_file(), "-o", "BatchMode=yes", "-T"]
        command += [self.alias, remote]
        for attempt in (1, 2):
            try:
                self.connect(PATIENCE if timeout is None else min(timeout, PATIENCE))
                result = run(command, input=input, timeout=timeout, check=False)
            except Timeout as error:
                raise Timeout(
                    f"{self.title} did not answer within {timeout or PATIENCE:g} seconds;"
                    f" it is {self.state()}"
                ) from error
            except (RedockError, OSError) as error:
                raise ConnectionFailed(f"{self.title} cannot be reached: {error}") from error
            if result.returncode != 255:
                return result
            path = _ssh.control_path(self.instance)
            broken = result.stderr.startswith(("mux_", "Connection", "Control"))
            if path is not None and os.path.exists(path) and not broken:
                # The command itself said 255.
                return result
            if attempt == 2 or self.state() != "running":
                break
            # The keeper of the connection has ended: a new one takes its place.
            _keeper.close_connection(self.instance)
        raise ConnectionFailed(
            f"{self.title} is {self.state()}:"
            f" {last_lines(result.stderr, 1) or 'its SSH server did not answer'}",
            "lost",
        )
