"""
Commands: with their output on the terminal, or as operations with guards.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

from redock._process import Result, missing_program, quote
from redock.bootstrap._change import Change, Secret, known_secrets, mask
from redock.bootstrap._connection import ssh_command
from redock.bootstrap._requests import (
    argv,
    check_environment,
    content_bytes,
    path_bytes,
)
from redock.bootstrap._session import PATIENCE, Session
from redock.errors import (
    ConnectionFailed,
    ExternalCommandFailed,
    OperationFailed,
    OperationTimeout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Commands"]

logger = logging.getLogger("redock.bootstrap")


class Commands(Session):
    """The part of :class:`Bootstrap` that runs commands."""

    def execute(
        self,
        *command: str,
        input: Text | None = None,
        check: bool = True,
        capture: bool = False,
        timeout: float | None = None,
        env: Mapping[str, str | Secret] | None = None,
    ) -> Result:
        """
        Run a command; what it prints is visible at once.

        One argument is text for the login shell of the user over there. Two or
        more are a program and its arguments, which no shell looks at. When the
        standard input of this process is a terminal (and there is neither
        ``input`` nor ``capture`` nor a timeout), the command gets a pseudo-terminal and
        the operator can answer its questions. A dry run does not run it.

        >>> host.execute("echo one; echo two", capture=True).stdout
        'one\\ntwo\\n'
        >>> host.execute("printf", "<%s>", "a b", "$HOME", capture=True).stdout
        '<a b><$HOME>'

        :param command: Text for the shell, or a program and its arguments.
        :param input: The standard input (default: empty).
        :param check: Raise an error when the exit status is not zero (default: yes).
        :param capture: Return the output instead of showing it (default: no).
        :param timeout: Seconds after which the command is killed (default: never).
        :param env: Environment variables to add.
        :returns: What the command did; without ``capture`` only the end of its output.
        :raises ExternalCommandFailed: The command failed and ``check`` is true.
        :raises OperationTimeout: The command did not end in time.
        :raises ConnectionFailed: The host cannot be reached or the connection broke.
        """
        words = argv(command)
        shown = list(command)
        environment, hidden = check_environment(env)
        if self.dry_run:
            logger.info("[%s] execute %s: not run in a dry run", self.ssh_alias, quote(shown))
            return Result(shown, 0)
        interactive = sys.stdin is not None and sys.stdin.isatty()
        if interactive and input is None and not (capture or timeout or hidden or self._prefix):
            result = self._execute_on_terminal(shown, environment)
        else:
            request = words if len(words) > 1 else {"script": words[0]}
            arguments: dict[str, Any] = request if isinstance(request, dict) else {"words": request}
            arguments.update(
                input=content_bytes(input)[0] if input is not None else b"",
                env=environment,
                timeout=timeout,
                capture=capture,
            )
            during = "execute " + (command[0] if len(command) == 1 else quote(shown))
            show = _Show(self)
            raw, _ = self._ask("execute", arguments, during, timeout, show=show, limited=False)
            show.flush()
            fails = raw["hung"] or (check and raw["returncode"] != 0)
            result = self._result(raw, shown, shown=fails)
            if raw["hung"]:
                message = f"did not end within {timeout:g} seconds"
                raise OperationTimeout(message, self.ssh_alias, mask(during), result)
        if check and not result:
            raise ExternalCommandFailed(result, self.ssh_alias)
        return result

    def _execute_on_terminal(self, command: Sequence[str], env: Mapping[str, str]) -> Result:
        """Run a command with ssh's own pseudo-terminal."""
        text = command[0] if len(command) == 1 else quote(command)
        for name, value in reversed(list(env.items())):
            text = f"{name}={quote([value])}; export {name}; {text}"
        if self.sudo:
            text = quote(["sudo", "-n", "sh", "-c", text])
        started = time.monotonic()
        try:
            status = subprocess.call([*ssh_command(self.ssh_alias, "-t"), text])
        except FileNotFoundError as error:
            raise missing_program("ssh") from error
        if status == 255:
            # Either the command or ssh: the gateway knows whether the host can be reached.
            self._connect()
        return Result(command, status, seconds=time.monotonic() - started)

    def command(
        self,
        *command: str,
        creates: Path | None = None,
        unless: str | Sequence[str] | None = None,
        only_if: str | Sequence[str] | None = None,
        input: Text | None = None,
        env: Mapping[str, str | Secret] | None = None,
        sensitive: bool = False,
        retries: int | None = None,
        until: Callable[[Result], object] | None = None,
        timeout: float = PATIENCE,
    ) -> Change:
        """
        Run a command unless its effect is there already: the escape hatch.

        A dry run runs neither the command nor the checks. Without any check the command
        runs, and counts as a change, every time.

        >>> host.command("touch", "/srv/initialised", creates="/srv/initialised").changed
        True
        >>> host.command("touch", "/srv/initialised", creates="/srv/initialised").changed
        False

        :param command: Text for the shell, or a program and its arguments.
        :param creates: A path; the command runs only when it does not exist, and must create it.
        :param unless: A command; this one runs only when that fails.
        :param only_if: A command; this one runs only when that succeeds.
        :param input: The standard input (default: empty).
        :param env: Environment variables to add.
        :param sensitive: Show neither the command nor its output (default: no).
        :param retries: How often to try again after a failure, once a second (default: the
                        ``retries`` of the host).
        :param until: Called with the :class:`~redock._process.Result`; false means try again.
        :param timeout: Seconds after which the command is killed (default: 1800).
        :returns: Whether the command ran.
        :raises OperationFailed: The command failed, or did not create what it should.
        :raises OperationTimeout: The command did not end in time.
        """
        words = argv(command)
        title = "********" if sensitive else command[0] if len(command) == 1 else quote(command)
        environment, _ = check_environment(env)
        arguments: dict[str, Any] = {
            **guard_arguments(words),
            "creates": None if creates is None else path_bytes(creates),
            "unless": None if unless is None else guard_arguments(argv(as_words(unless))),
            "only_if": None if only_if is None else guard_arguments(argv(as_words(only_if))),
            "input": content_bytes(input)[0] or b"",
            "env": environment,
            "timeout": timeout,
            "title": title,
        }
        tries = 1 + (self.retries if retries is None else retries)
        if until is None and tries == 1 and self._batch is not None:
            return self._operate("command", title, "command", arguments, timeout)
        return self._command_with_retries(title, arguments, timeout, tries, until, sensitive)

    def _command_with_retries(
        self,
        title: str,
        arguments: dict[str, Any],
        timeout: float,
        tries: int,
        until: Callable[[Result], object] | None,
        sensitive: bool,
    ) -> Change:
        during = "command " + title
        for attempt in range(1, tries + 1):
            try:
                answer, seconds = self._ask("command", arguments, during, timeout)
                raw = answer.get("result")
                if raw is None or until is None:
                    break
                if until(self._result(raw, [title], shown=False)):
                    break
                message = "the result is not the wanted one"
                raise OperationFailed(message, self.ssh_alias, during, self._result(raw, [title]))
            except OperationFailed as error:
                if attempt == tries:
                    shown = error
                    if sensitive:
                        shown = type(error)("it failed", self.ssh_alias, during)
                    self.history.failed.append(shown)
                    raise shown from None
                time.sleep(1)
            except ConnectionFailed as error:
                self.history.failed.append(error)
                raise
        answer["attempts"] = attempt
        change = Change(self.ssh_alias, "command", title, dry_run=self.dry_run, settle=lambda: None)
        self._record(change, answer, seconds)
        return change


class _Show:
    """Shows the output of a command: as it comes, or in lines with the name of the host."""

    def __init__(self, host: Session) -> None:
        self.host = host
        self.lines = host._prefix or bool(known_secrets)
        self.rest = {"out": b"", "err": b""}

    def __call__(self, kind: str, data: bytes) -> None:
        if not self.lines:
            self.write(kind, data.decode("utf-8", "replace") if self.host._output else data)
            return
        *lines, self.rest[kind] = (self.rest[kind] + data).split(b"\n")
        for line in lines:
            self.line(kind, line)

    def flush(self) -> None:
        """Show an unfinished last line."""
        for kind, rest in self.rest.items():
            if rest:
                self.line(kind, rest)

    def line(self, kind: str, line: bytes) -> None:
        """Show one line."""
        text = mask(line.decode("utf-8", "replace"))
        prefix = f"[{self.host.ssh_alias}] " if self.host._prefix else ""
        self.write(kind, f"{prefix}{text}\n")

    def write(self, kind: str, data: str | bytes) -> None:
        """Write to the terminal or the stream that was asked for."""
        stream = self.host._output or (sys.stdout if kind == "out" else sys.stderr)
        if isinstance(data, bytes):
            binary = getattr(stream, "buffer", None)
            if binary is not None:
                stream.flush()
                binary.write(data)
                binary.flush()
                return
            data = data.decode("utf-8", "replace")
        stream.write(data)
        stream.flush()


def as_words(command: str | Sequence[str]) -> Sequence[str]:
    """Take one text as text for the shell."""
    return [command] if isinstance(command, str) else command


def guard_arguments(words: list[bytes]) -> dict[str, Any]:
    """Tell text for the shell from a program and its arguments."""
    return {"words": words} if len(words) > 1 else {"script": words[0]}
