"""
What all operations on a host have in common: the connection, requests and answers, batches.
"""

from __future__ import annotations

import logging
import os
import re
import time
import weakref

from redock._names import check_ssh_alias
from redock._process import Result
from redock.bootstrap._change import Change, ChangeList, Secret, mask
from redock.bootstrap._connection import Connection, remote_shell
from redock.bootstrap._requests import (
    unified_diff,
)
from redock.errors import (
    ConnectionFailed,
    InvalidArgument,
    OperationFailed,
    OperationTimeout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, Self, TextIO

    from redock.bootstrap._facts import Facts

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Session"]

logger = logging.getLogger("redock.bootstrap")

#: How many bytes of a batch may wait for answers.
MOST_PENDING = 16 * 1024 * 1024
#: Programs that download and install take longer than anything else.
PATIENCE = 1800.0
#: The remote side ends a command itself; this is how much later we stop waiting for it.
GRACE = 0.8

INSTALL_PYTHON = (
    "export DEBIAN_FRONTEND=noninteractive; command -v apt-get >/dev/null || "
    "{ echo 'there is no apt-get to install it with'; exit 1; }; "
    "{sudo}apt-get -q -y install python3 || "
    "{ {sudo}apt-get -q -y update && {sudo}apt-get -q -y install python3; }"
)


class Session:
    """The part of :class:`Bootstrap` that connects, asks and keeps the record."""

    def __init__(
        self,
        ssh_alias: str,
        *,
        sudo: bool = False,
        dry_run: bool = False,
        diff: bool = False,
        python: str = "python3",
        timeout: float = 60.0,
        retries: int = 0,
        output: TextIO | None = None,
        prefix: bool = False,
    ) -> None:
        #: The name of the host.
        self.ssh_alias = check_ssh_alias(ssh_alias)
        if not re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./+ -]*", python):
            raise InvalidArgument(f"invalid command for Python: {python!r}")
        #: Whether operations become root with sudo.
        self.sudo = sudo
        #: Whether operations only say what they would do.
        self.dry_run = dry_run
        #: Whether changes have a unified diff.
        self.diff = diff
        #: Seconds for connecting and for each operation.
        self.timeout = timeout
        #: How often something that may pass is tried again.
        self.retries = retries
        #: What was done so far.
        self.history = ChangeList(ssh_alias)
        #: Called with each :class:`Change` as soon as it is known (default: nobody).
        self.on_change: Callable[[Change], object] | None = None
        self._python = python
        self._output = output
        self._prefix = prefix
        self._connection: Connection | None = None
        self._facts: Facts | None = None
        self._pending: list[_Pending] = []
        self._pending_bytes = 0
        self._batch: int | None = None
        self._batch_open = False
        self._batches = 0
        self._starting: Connection | None = None
        #: The programs that run here for this host, in whatever thread.
        self._programs: weakref.WeakSet[subprocess.Popen[Any]] = weakref.WeakSet()
        self._given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Bootstrap({self.ssh_alias!r})"

    # The connection.

    def start(self) -> None:
        """
        Start connecting without waiting for it, to do something else meanwhile.

        Never needed: the first operation connects, too.
        """
        if self._connection is None and self._starting is None:
            self._starting = self._new_connection()
            self._starting.start()

    def close(self) -> None:
        """Close the connection; closing twice is allowed, the next operation opens it again."""
        connection = self._connection or self._starting
        self._connection = self._starting = None
        try:
            if connection is not None and self._connection is None:
                connection.close()
        finally:
            self._pending.clear()

    @property
    def gateway(self) -> Any:
        """
        The :class:`execnet.Gateway`, for whatever else one wants to run over there.

        :raises ConnectionFailed: The host cannot be reached.
        """
        return self._connect().gateway

    def _watch(self, program: subprocess.Popen[Any]) -> None:
        """Remember a program that runs here for this host."""
        self._programs.add(program)
        if self._given_up:
            program.terminate()

    def _give_up(self) -> None:
        """End what goes on, in whatever thread, and never begin anything again."""
        self._given_up = True
        for program in list(self._programs):
            program.terminate()

    def _new_connection(self) -> Connection:
        if self._given_up:
            raise ConnectionFailed(f"the connection to {self.ssh_alias} was given up", "lost")
        return Connection(self.ssh_alias, self._python, self.sudo, self.timeout, self._watch)

    def _connect(self) -> Connection:
        if self._connection is not None and self._connection.process is not None:
            return self._connection
        for attempt in range(self.retries + 1):
            connection = self._starting or self._new_connection()
            self._starting = None
            try:
                try:
                    connection.open()
                except ConnectionFailed as error:
                    connection = self._with_python(error)
                break
            except ConnectionFailed as error:
                if attempt == self.retries or error.cause not in ("refused", "timeout", "lost"):
                    raise
                logger.info("[%s] trying to connect again: %s", self.ssh_alias, error)
                time.sleep(min(2.0**attempt, 10))
        self._connection = connection
        self._facts = None
        during = "hello"
        request = ("hello", {"dry_run": self.dry_run, "diff": self.diff}, self.timeout, None)
        connection.send(request, self.timeout, during)
        connection.receive(self.timeout, during)
        return connection

    def _with_python(self, error: ConnectionFailed) -> Connection:
        """Install Python where that is what was missing, and connect again."""
        if (
            error.cause not in ("no-python", "incomplete-python")
            or self._python != "python3"
            or self.dry_run
        ):
            raise error
        logger.info("[%s] installing python3", self.ssh_alias)
        script = INSTALL_PYTHON.replace("{sudo}", "sudo -n " if self.sudo else "")
        status, said = remote_shell(self.ssh_alias, script, PATIENCE, self._watch)
        if status:
            raise ConnectionFailed(f"{error}; installing it failed: {said}", error.cause) from None
        connection = self._new_connection()
        connection.open()
        return connection

    # Asking.

    def _ask(
        self,
        name: str,
        arguments: dict[str, Any],
        during: str,
        timeout: float | None = None,
        stream: Callable[[], Iterator[bytes]] | None = None,
        show: Callable[[str, bytes], None] | None = None,
        limited: bool = True,
    ) -> tuple[Any, float]:
        """Send one request, wait for its answer; the answer and the seconds it took there."""
        self._settle_all()
        if timeout is None and limited:
            timeout = self.timeout
        connection = self._connect()
        connection.send((name, arguments, timeout, None), timeout, during)
        return self._answer(during, timeout, stream, show)

    def _answer(
        self,
        during: str,
        timeout: float | None,
        stream: Callable[[], Iterator[bytes]] | None = None,
        show: Callable[[str, bytes], None] | None = None,
    ) -> tuple[Any, float]:
        connection = self._connection
        assert connection is not None
        end = None if timeout is None else time.monotonic() + timeout + GRACE
        while True:
            left = None if end is None else max(0.01, end - time.monotonic())
            answer = connection.receive(left, during)
            kind = answer[0]
            if kind in ("out", "err"):
                if show:
                    show(kind, answer[1])
            elif kind == "want" and stream:
                for piece in stream():
                    connection.send(piece, timeout, during)
            elif kind == "digest" and stream:
                connection.send(digest_of(stream()), timeout, during)
            elif kind == "failed":
                raise self._failure(answer[1], during, timeout)
            elif kind == "skipped":
                raise OperationFailed("an operation before it failed", self.ssh_alias, during)
            else:
                return answer[1], answer[2]

    def _failure(
        self, details: dict[str, Any], during: str, timeout: float | None
    ) -> OperationFailed:
        """Turn what the remote side says about a failure into an exception."""
        raw = details.get("result")
        result = None
        message = details["message"]
        kind = operation_failed_as(details.get("type", ""))
        if raw is not None:
            result = self._result(raw, raw.get("command") or [during.partition(" ")[2]])
            if raw["hung"]:
                words = f"did not end within {timeout:g} seconds" if timeout else "did not end"
                message = f"{message}: {words}" if message else words
                kind = OperationTimeout
        trace = mask(details.get("traceback", ""))
        error = kind(
            mask(message), self.ssh_alias, mask(during), result, details.get("type", ""), trace
        )
        if isinstance(error, OSError):
            error.errno = details.get("errno")
        return error

    def _result(self, raw: dict[str, Any], command: Sequence[str], *, shown: bool = True) -> Result:
        """Make a Result; one that ends in a message hides secrets, one that is data does not."""
        hide = mask if shown else str
        return Result(
            [mask(word) for word in command],
            raw["returncode"],
            hide(raw["stdout"].decode("utf-8", "replace")),
            hide(raw["stderr"].decode("utf-8", "replace")),
            raw["seconds"],
        )

    def _operate(
        self,
        op: str,
        target: str,
        request: str,
        arguments: dict[str, Any],
        timeout: float | None = None,
        stream: Callable[[], Iterator[bytes]] | None = None,
    ) -> Change:
        """Do one operation, or put it into the batch."""
        during = f"{op} {target}".strip()
        timeout = self.timeout if timeout is None else timeout
        change = Change(
            self.ssh_alias,
            op,
            target,
            dry_run=self.dry_run,
            settle=lambda: self._settle(change),
        )
        pending = _Pending(change, during, timeout, stream)
        if self._batch is None or stream is not None:
            self._settle_all()
        connection = self._connect()
        batch = self._batch if stream is None else None
        try:
            connection.send((request, arguments, timeout, batch), timeout, during)
        except ConnectionFailed as error:
            self.history.failed.append(error)
            raise
        self._pending.append(pending)
        if batch is None:
            self._settle_all()
        else:
            self._batch_open = True
            self._pending_bytes += len(arguments.get("content") or b"") + 200
            if self._pending_bytes > MOST_PENDING:
                self._settle_all()
        return change

    def _settle_all(self) -> None:
        if self._pending:
            self._settle(self._pending[-1].change)

    def _settle(self, change: Change) -> None:
        """Read answers up to that of one operation; they come in the order of the requests."""
        if self._batch_open and self._connection is not None:
            # The host may wait for more, to make many files durable together.
            self._batch_open = False
            self._connection.send(("flush", {}, None, None), self.timeout, "batch")
        while self._pending:
            pending = self._pending.pop(0)
            try:
                answer, seconds = self._answer(pending.during, pending.timeout, pending.stream)
            except Exception as error:
                self._abandon(error)
                raise
            self._record(pending.change, answer, seconds)
            if pending.change is change:
                break
        if not self._pending:
            self._pending_bytes = 0

    def _abandon(self, error: Exception) -> None:
        """An operation failed: those behind it in the batch were not done."""
        self.history.failed.append(error)
        rest, self._pending = self._pending, []
        self._pending_bytes = 0
        for pending in rest:
            if self._connection is None or self._connection.process is None:
                break
            try:
                self._answer(pending.during, pending.timeout)
            except OperationFailed:
                continue

    def _record(self, change: Change, answer: dict[str, Any], seconds: float) -> None:
        diff = ""
        if "before" in answer:
            diff = mask(unified_diff(change.target, answer["before"], answer["after"]))
        change._fill(
            answer["changed"],
            answer.get("changes", {}),
            diff,
            mask(answer.get("reason") or ""),
            seconds,
            answer.get("attempts", 1),
        )
        self._note(change)

    def _note(self, change: Change) -> None:
        self.history._add(change)
        level = logging.DEBUG if change.changed is False else logging.INFO
        logger.log(level, "%s  %.0f ms", change, 1000 * change.seconds)
        if self.on_change is not None:
            self.on_change(change)

    def batch(self) -> AbstractContextManager[Self]:
        """
        Send the operations of a ``with`` block without waiting for each answer.

        On a slow line this saves a round trip for each operation. The answers
        are read at the end of the block, or when a :class:`Change` is looked
        at. When an operation fails, those after it are not done, and the error
        is raised at one of these points.

        >>> with host.batch():
        ...     for number in range(5):
        ...         _ = host.file(f"/srv/numbers-{number}", str(number))
        >>> host.read_file("/srv/numbers-4")
        b'4'

        :returns: A context manager.
        :raises OperationFailed: One of the operations failed.
        """
        # A type variable would need the module typing when this is run.
        return _Batch(self)  # type: ignore[return-value]


class _Pending:
    """An operation whose answer has not been read."""

    __slots__ = ("change", "during", "stream", "timeout")

    def __init__(
        self,
        change: Change,
        during: str,
        timeout: float | None,
        stream: Callable[[], Iterator[bytes]] | None,
    ) -> None:
        self.change = change
        self.during = during
        self.timeout = timeout
        self.stream = stream


class _Batch:
    """The context manager of Bootstrap.batch()."""

    def __init__(self, host: Session) -> None:
        self.host = host

    def __enter__(self) -> Session:
        host = self.host
        if host._batch is not None:
            raise InvalidArgument("a batch inside of a batch")
        host._settle_all()
        host._batches += 1
        host._batch = host._batches
        return host

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        host = self.host
        host._batch = None
        if error is None:
            host._settle_all()
            return
        try:
            host._settle_all()
        except Exception as second:
            # The first error is the one that is on its way to the caller.
            logger.debug("[%s] %s", host.ssh_alias, second)


failures: dict[str, type[OperationFailed]] = {}


def operation_failed_as(name: str) -> type[OperationFailed]:
    """
    Find the exception that stands for a remote one.

    :param name: The name of the type of the remote exception.
    :returns: OperationFailed, where possible one that is of the built-in type, too.
    """
    import builtins

    if name not in failures:
        kind = getattr(builtins, name, None)
        failures[name] = OperationFailed
        if (
            isinstance(kind, type)
            and issubclass(kind, Exception)
            and not issubclass(kind, (UnicodeError, SyntaxError, ImportError, Warning))
            and not issubclass(kind, (BaseExceptionGroup, StopIteration, AttributeError, NameError))
            and kind is not Exception
        ):
            failures[name] = type("OperationFailed", (OperationFailed, kind), {})
    return failures[name]


def digest_of(pieces: Iterable[bytes]) -> bytes:
    """Compute what the remote side compares a large file with, when that has the same size."""
    import hashlib

    value = hashlib.sha256()
    for piece in pieces:
        value.update(piece)
    return value.digest()
