"""
Waiting for what happens in a node of a cluster.
"""

from __future__ import annotations

import re

from redock._command import brief, last_words
from redock._process import Deadline
from redock._result import Result, quote
from redock.cluster._contact import SHOWN, TIMEOUT, Contact
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
    from collections.abc import Callable
    from typing import Any

__all__ = ["LogMark", "Waiting"]

# A test that fails here failed where it asked, so pytest shows that line and not ours.
__tracebackhide__ = True


class LogMark:
    """
    A place in a log file, to wait for what is written after it.

    :param path: The pathname.
    :param size: How much was in it.
    :param inode: Which file it was: a log may have been rotated since.
    """

    def __init__(self, path: str, size: int, inode: int) -> None:
        self.path = path
        self.size = size
        self.inode = inode

    def __repr__(self) -> str:
        return f"LogMark({self.path!r}, {self.size})"


class Waiting(Contact):
    """The part of :class:`~redock.cluster.Node` that waits."""

    def _until(
        self,
        what: str,
        deadline: Deadline,
        attempt: Callable[[], Any],
        explain: Callable[[], str],
    ) -> Any:
        """
        Try again until something is true.

        :param what: What is waited for, for the timeline.
        :param deadline: When to give up.
        :param attempt: Returns something true in the end.
        :param explain: Says what was waited for, when it was in vain.
        :returns: What the attempt returned.
        :raises Timeout: The time is over.
        """
        pause = 0.02
        with self.cluster.timeline.during("wait", f"wait {what}", (self.name,)) as event:
            while True:
                event.details["attempts"] = event.details.get("attempts", 0) + 1
                found = attempt()
                if found:
                    return found
                if deadline.passed:
                    raise Timeout(f"{self.name}: {explain()} within {deadline.seconds:g} seconds")
                deadline.sleep(pause)
                pause = min(pause * 1.5, 0.25)

    def wait_until_succeeds(self, *command: str, timeout: float = TIMEOUT) -> str:
        """
        Run a command again and again until it succeeds.

        :param command: As for :meth:`run`.
        :param timeout: Seconds for all of it (default: 60).
        :returns: What it printed in the end.
        :raises Timeout: It did not succeed in time; the message has its last output.
        """
        deadline = Deadline(timeout)
        last: list[Result] = []

        def attempt() -> bool:
            try:
                last[:] = [self._run(command, max(0.1, deadline.remaining))]
            except (Timeout, ConnectionFailed) as error:
                last[:] = [Result(command, 255, "", str(error))]
            return bool(last[0])

        def explain() -> str:
            shown = self.line.said(command).removeprefix(f"{self.name}: ")
            words = last_words(last[0])
            return f"{shown} did not succeed (last status {last[0].returncode}{words})"

        self._until(f"until {brief(command)} succeeds", deadline, attempt, explain)
        return last[0].stdout

    def wait_until_fails(self, *command: str, timeout: float = TIMEOUT) -> Result:
        """
        Run a command again and again until it fails.

        :param command: As for :meth:`run`.
        :param timeout: Seconds for all of it (default: 60).
        :returns: What it did in the end.
        :raises Timeout: It still succeeded.
        """
        deadline = Deadline(timeout)
        last: list[Result] = []

        def attempt() -> bool:
            last[:] = [self._run(command, max(0.1, deadline.remaining))]
            return not last[0]

        self._until(
            f"until {brief(command)} fails",
            deadline,
            attempt,
            lambda: f"{quote(command)} did not fail{last_words(last[0])}",
        )
        return last[0]

    def _wait_remotely(
        self, goal: str, condition: str, arguments: list[str], timeout: float, what: str
    ) -> None:
        """
        Wait inside the node, with one command, until a condition holds.

        :param goal: What is waited for, for the timeline.
        :param condition: Text for ``sh`` that succeeds when it does.
        :param arguments: What it finds as ``$1`` and on.
        :param timeout: Seconds to wait at most.
        :param what: What did not happen, for the message.
        :raises Timeout: It did not in time.
        """
        loop = f"until {condition}; do sleep 0.05; done"
        words = ("sh", "-c", loop, "sh", *arguments)
        with self.cluster.timeline.during("wait", f"wait for {goal}", (self.name,)):
            try:
                done = self._run(words, timeout)
            except Timeout as error:
                raise Timeout(
                    f"{self.name}: {what} within {timeout:g} seconds{self._last_log()}"
                ) from error
            if not done:
                raise ExternalCommandFailed(done, self.ssh_alias)

    def _last_log(self) -> str:
        """Quote the end of what the node's programs logged, for a message."""
        try:
            found = self.line.send(
                quote(
                    [
                        "sh",
                        "-c",
                        "ls -t /var/log/*.log /var/log/*/*.log 2>/dev/null |"
                        " grep -v supervisord.log | head -n 1 |"
                        " xargs -r tail -n 5 -v",
                    ]
                ),
                5.0,
            )
        except RedockError:
            return ""
        output = last_lines(found.stdout, 6)
        return f"; its last log lines: {output}" if output else ""

    def wait_for_port(self, port: int, timeout: float = TIMEOUT) -> None:
        """
        Wait until a program listens on a TCP port.

        :param port: The port.
        :param timeout: Seconds to wait at most (default: 60).
        :raises Timeout: None did in time.
        """
        if not 0 < port < 65536:
            raise InvalidArgument(f"{port} is no TCP port")
        condition = 'ss -Hltn "sport = :$1" | grep -q .'
        self._wait_remotely(
            f"port {port}", condition, [str(port)], timeout, f"nobody listened on port {port}"
        )

    def wait_for_file(self, path: str, timeout: float = TIMEOUT) -> None:
        """
        Wait until a file exists.

        :param path: The pathname.
        :param timeout: Seconds to wait at most (default: 60).
        :raises Timeout: It did not in time.
        """
        self._wait_remotely(path, '[ -e "$1" ]', [path], timeout, f"{path} did not come into being")

    def wait_for_service(self, service: str, timeout: float = TIMEOUT) -> None:
        """
        Wait until Supervisor says that a program runs.

        :param service: Its name in Supervisor's configuration.
        :param timeout: Seconds to wait at most (default: 60).
        :raises Timeout: It did not in time.
        """
        condition = 'supervisorctl status "$1" | grep -q RUNNING'
        self._wait_remotely(service, condition, [service], timeout, f"{service} was not running")

    def log_mark(self, path: str) -> LogMark:
        """
        Note where a log file ends now.

        :param path: The pathname; the file need not exist yet.
        :returns: A mark for :meth:`wait_for_log`.
        """
        script = 'stat -L -c "%s %i" -- "$1" 2>/dev/null || echo 0 0'
        found = self._run(("sh", "-c", script, "sh", path), TIMEOUT)
        size, inode = found.stdout.split()
        return LogMark(path, int(size), int(inode))

    def wait_for_log(
        self,
        pattern: str,
        path: str | LogMark | None = None,
        *,
        since: LogMark | None = None,
        timeout: float = TIMEOUT,
    ) -> re.Match[str]:
        """
        Wait until a line of a log file matches.

        :param pattern: A regular expression, looked for in every line.
        :param path: The pathname of the log (default: that of the mark).
        :param since: Look only at what was written after this mark (default: at everything).
        :param timeout: Seconds to wait at most (default: 60).
        :returns: The match.
        :raises Timeout: No line did in time; the message has the last ones.
        """
        if isinstance(path, LogMark):
            since, name = path, path.path
        else:
            name = path or (since.path if since else "")
        if not name:
            raise InvalidArgument("wait_for_log needs the pathname of a log, or a mark")
        expression = re.compile(pattern, re.MULTILINE)
        script = (
            'now=$(stat -L -c %i -- "$1" 2>/dev/null); from=$2;'
            ' [ "$3" = 0 ] || [ "$now" = "$3" ] || from=0;'
            ' tail -c "+$((from + 1))" -- "$1" 2>/dev/null; true'
        )
        start = (str(since.size), str(since.inode)) if since else ("0", "0")
        seen: list[str] = [""]

        def attempt() -> re.Match[str] | None:
            seen[0] = self._run(("sh", "-c", script, "sh", name, *start), TIMEOUT).stdout
            return expression.search(seen[0])

        found: re.Match[str] = self._until(
            f"for {pattern!r} in {name}",
            Deadline(timeout),
            attempt,
            lambda: (
                f"{name} had no line that matches {pattern!r}"
                f" (it ends with: {last_lines(seen[0], 5) or 'nothing'})"
            ),
        )
        line = seen[0][seen[0].rfind("\n", 0, found.start()) + 1 :].partition("\n")[0]
        self.cluster.timeline.note("log", line[:SHOWN], (self.name,), path=name, pattern=pattern)
        return found
