"""
A small configuration management system: bring a machine into a state, over SSH.

:class:`Bootstrap` is a connection to one host. Its methods are operations that
look at the host, change only what is not as wanted, look again and return a
:class:`Change`. Programs are plain Python and run from top to bottom::

    from redock.bootstrap import Bootstrap

    with Bootstrap("web-container") as host:
        host.packages("nginx")
        page = host.file("/var/www/html/index.html", "Hello!\\n")
        host.service("nginx", restart_if=[page])

Any host that ``ssh`` reaches will do: an alias of the SSH client configuration,
a host name, ``user@host``; keys, agents and jump hosts are as configured there.
The host needs Debian or a derivative for packages, and Python 3.8, which is
installed when it is missing.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time

from redock._names import check_ssh_alias
from redock._process import Result, missing_program, quote
from redock.bootstrap._change import Change, ChangeList, Secret, known_secrets, mask, reveal
from redock.bootstrap._connection import Connection, remote_shell, ssh_command
from redock.bootstrap._facts import Facts, Stat
from redock.bootstrap._hosts import run
from redock.bootstrap._requests import (
    argv,
    authorized_keys_text,
    check_environment,
    check_names,
    content_bytes,
    file_mode,
    package_names,
    path_bytes,
    pattern_bytes,
    pure_source,
    render,
    repository_text,
    unified_diff,
)
from redock.errors import (
    ConnectionFailed,
    ExternalCommandFailed,
    InvalidArgument,
    OperationFailed,
    OperationTimeout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, Literal, TextIO

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = [
    "Bootstrap",
    "Change",
    "ChangeList",
    "ExternalCommandFailed",
    "Facts",
    "Secret",
    "Stat",
    "run",
]

logger = logging.getLogger(__name__)

#: Content larger than this is sent only when the host has something else.
INLINE = 256 * 1024
#: Large content travels in pieces of this size.
PIECE = 512 * 1024
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


class Bootstrap:
    """
    One host, reached over SSH, and the operations on it.

    **Basics.** Each operation compares the host with what is wanted and changes
    it only where it differs. The result is a :class:`Change`, which is true
    when something was changed::

        if host.file("/etc/motd", "Welcome!\\n"):
            print("there is a new message of the day")

    **Lifecycle.** Creating the object starts nothing. The connection is made by
    the first operation and lives until :meth:`close`, or the end of the
    ``with`` block; it is one ``ssh`` process and one Python process on the
    host. Nothing is installed there, and nothing stays.

    **Dry run.** With ``dry_run=True`` operations say what they would do and
    change nothing at all. A result that depends on a change that was not made
    is None ("unknown").

    **Threads.** One object belongs to one thread; :func:`run` uses one for each
    host.

    :param ssh_alias: The name of the host in the SSH client configuration, a
                      host name or ``user@host``.
    :param sudo: Become root with ``sudo``, which must not ask for a password
                 (default: no).
    :param dry_run: Only say what would change (default: no).
    :param diff: Compute unified diffs of changed text files (default: no).
    :param python: The command that starts Python on the host (default: ``python3``).
    :param timeout: Seconds for connecting, and for each operation that has no
                    timeout of its own (default: 60).
    :param retries: How often to try again when connecting fails for a reason that may
                    pass, or a package cannot be downloaded (default: 0).
    :param output: A text stream for the output of :meth:`execute`, in place of
                   this process's own (default: none).
    :param prefix: Put ``[alias]`` in front of each line of that output (default:
                   no; :func:`run` does).
    :raises InvalidName: The alias could be taken for something else by ``ssh``.
    """

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

    def __enter__(self) -> Bootstrap:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Bootstrap({self.ssh_alias!r})"

    # The connection ---------------------------------------------------------------------------

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

    def _new_connection(self) -> Connection:
        return Connection(self.ssh_alias, self._python, self.sudo, self.timeout)

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
        status, said = remote_shell(self.ssh_alias, script, PATIENCE)
        if status:
            raise ConnectionFailed(f"{error}; installing it failed: {said}", error.cause) from None
        connection = self._new_connection()
        connection.open()
        return connection

    # Asking -----------------------------------------------------------------------------------

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

    def _result(self, raw: dict[str, Any], command: Sequence[str]) -> Result:
        return Result(
            [mask(word) for word in command],
            raw["returncode"],
            mask(raw["stdout"].decode("utf-8", "replace")),
            mask(raw["stderr"].decode("utf-8", "replace")),
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

    def batch(self) -> AbstractContextManager[Bootstrap]:
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
        return _Batch(self)

    # The interface of 2013 --------------------------------------------------------------------

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
            result = self._result(raw, shown)
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

    def install_packages(self, *packages: str) -> Change:
        """
        Install packages; the 2013 name of :meth:`packages`.

        >>> host.install_packages("python3").changed
        False

        :param packages: The names of one or more packages.
        :returns: What changed.
        :raises OperationFailed: ``apt-get`` failed.
        """
        return self.packages(*packages)

    def update_system_packages(self, *, timeout: float = PATIENCE) -> Change:
        """
        Bring all installed packages up to date.

        >>> change = host.update_system_packages()

        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed, with the versions before and after.
        :raises OperationFailed: ``apt-get`` failed.
        """
        return self._operate("update_system_packages", "", "update_system_packages", {}, timeout)

    def upload_file(self, pathname: Path, contents: Text) -> Change:
        """
        Create or replace a file; directories above it are created.

        >>> bool(host.upload_file("/srv/site/hello.txt", "Hello!\\n"))
        True

        :param pathname: The absolute path on the host.
        :param contents: The text (written as UTF-8) or bytes.
        :returns: What changed.
        :raises OperationFailed: The file cannot be written.
        """
        return self._file("upload_file", pathname, contents, parents=True)

    def rsync(
        self,
        local_directory: Path,
        remote_directory: Path,
        cvs_exclude: bool = True,
        delete: bool = True,
        *,
        timeout: float = PATIENCE,
    ) -> Change:
        """
        Copy a local directory to the host with ``rsync``, which is installed when missing.

        Only what differs is sent. Times and modes are kept; the files belong to
        the user one logs in as.

        >>> change = host.rsync(local_directory, "/srv/copy")

        :param local_directory: The directory whose contents are copied.
        :param remote_directory: The absolute path of the directory they go to.
        :param cvs_exclude: Leave out what version control systems and compilers
                            leave behind, as ``rsync --cvs-exclude`` defines it (default: yes).
        :param delete: Delete remote files that do not exist locally (default: yes).
        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed: each path that was copied or deleted.
        :raises ExternalCommandFailed: ``rsync`` failed.
        """
        source = os.path.abspath(os.fspath(local_directory))
        target = os.fsdecode(path_bytes(remote_directory))
        if not os.path.isdir(source):
            raise InvalidArgument(f"{source} is not a local directory")
        started = time.monotonic()
        there = self.stat(target, follow=True)
        if not self.execute("command -v rsync", check=False, capture=True) and not self.dry_run:
            self.packages("rsync")
        if there is None and not self.dry_run:
            self.directory(target)
        if there is None and self.dry_run:
            changes: dict[str, tuple[object, object]] = {"directory": (None, "would be created")}
        else:
            changes = self._run_rsync(source, target, cvs_exclude, delete, timeout)
        change = Change(
            self.ssh_alias,
            "rsync",
            target,
            bool(changes),
            changes,
            seconds=time.monotonic() - started,
            dry_run=self.dry_run,
        )
        self._note(change)
        return change

    def _run_rsync(
        self, source: str, target: str, cvs_exclude: bool, delete: bool, timeout: float
    ) -> dict[str, tuple[object, object]]:
        from redock._process import run as run_command

        ssh = ssh_command(self.ssh_alias)[:-1]
        command = [
            "rsync",
            "--recursive",
            "--links",
            "--perms",
            "--times",
            "--devices",
            "--specials",
            "--protect-args",
            "--out-format=%i %n%L",
            "--rsh=" + quote(ssh),
            *(["--dry-run"] if self.dry_run else []),
            *(["--cvs-exclude"] if cvs_exclude else []),
            *(["--delete"] if delete else []),
            *(["--rsync-path=sudo -n rsync"] if self.sudo else []),
            "--",
            source.rstrip("/") + "/",
            f"{self.ssh_alias}:{target.rstrip('/')}/",
        ]
        try:
            done = run_command(command, timeout=timeout)
        except ExternalCommandFailed as error:
            failure = ExternalCommandFailed(error.result, self.ssh_alias)
            self.history.failed.append(failure)
            raise failure from None
        changes: dict[str, tuple[object, object]] = {}
        for line in done.stdout.splitlines():
            code, _, name = line.partition(" ")
            if code.startswith("*deleting"):
                changes[name.strip()] = ("present", None)
            elif code:
                changes[name.strip()] = (None, "created" if "+++" in code else "updated")
        return changes

    # Files ------------------------------------------------------------------------------------

    def file(
        self,
        path: Path,
        content: Text | None = None,
        *,
        source: Path | None = None,
        owner: str | int | None = None,
        group: str | int | None = None,
        mode: int | str | None = None,
        state: Literal["present", "absent"] = "present",
        validate: str | Sequence[str] | None = None,
        backup: bool = False,
        sensitive: bool = False,
        follow: bool = False,
    ) -> Change:
        """
        Make sure that a file has a content, an owner and a mode, or does not exist.

        A file is replaced as a whole or not at all, even when the host loses
        its power. The exception are files a container engine has mounted, such
        as ``/etc/hosts``: they can only be written in place, and the change
        says so. A symbolic link at the path is replaced, not followed.

        >>> host.file("/etc/motd", "Welcome!\\n", mode=0o644).changed
        True
        >>> host.file("/etc/motd", "Welcome!\\n", mode=0o644).changed
        False
        >>> host.file("/etc/motd", "Goodbye!\\n").summary()
        'content changed'

        :param path: The absolute path on the host.
        :param content: Text (written as UTF-8), bytes or a secret (default: do not
                        care; a file that does not exist is created empty).
        :param source: A local file with the content, in place of ``content``.
        :param owner: The name or number of the owner (default: do not care).
        :param group: The name or number of the group (default: do not care).
        :param mode: The permissions as an octal number or text such as ``"0644"``
                     (default: do not care; 0644 for a new file).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param validate: A command that must succeed before the file is replaced, with
                         ``%s`` for the path of the new content (default: none).
        :param backup: Keep the content before the last change as ``.NAME.bak`` (default: no).
        :param sensitive: Never show the content (default: no; always for a :class:`Secret`).
        :param follow: Change the file a symbolic link points to (default: no).
        :returns: What changed.
        :raises OperationFailed: The file cannot be brought into that state.
        :raises InvalidArgument: An argument makes no sense.
        """
        return self._file(
            "file",
            path,
            content,
            source=source,
            owner=owner,
            group=group,
            mode=mode,
            state=state,
            validate=validate,
            backup=backup,
            sensitive=sensitive,
            follow=follow,
        )

    def _file(
        self,
        op: str,
        path: Path,
        content: Text | None,
        *,
        source: Path | None = None,
        owner: str | int | None = None,
        group: str | int | None = None,
        mode: int | str | None = None,
        state: str = "present",
        validate: str | Sequence[str] | None = None,
        backup: bool = False,
        sensitive: bool = False,
        follow: bool = False,
        parents: bool = False,
    ) -> Change:
        check_state(state, "present", "absent")
        if content is not None and source is not None:
            raise InvalidArgument("give content or source, not both")
        arguments: dict[str, Any] = {
            "path": path_bytes(path),
            **self._attributes(owner, group, mode),
            "state": state,
            "backup": backup,
            "follow": follow,
            "parents": parents,
            "hide": sensitive,
        }
        if validate is not None:
            arguments["validate"] = validator(validate)
        stream = None
        if source is not None:
            data, stream = self._from_file(source, arguments)
        else:
            data, secret = content_bytes(content)
            arguments["hide"] = sensitive or secret
        if data is not None and len(data) > INLINE:
            stream = lambda: pieces_of(data)  # noqa: E731
            arguments.update(size=len(data), sha256=digest_of(pieces_of(data)))
        elif data is not None:
            arguments["content"] = data
        # What is at its default needs no way: most of the bytes of a small request were names.
        arguments = {n: v for n, v in arguments.items() if v is not None and v is not False}
        # A large file may take as long as it takes, as long as pieces of it arrive.
        timeout = PATIENCE if stream else None
        return self._operate(op, os.fspath(path), "file", arguments, timeout, stream)

    def _from_file(
        self, source: Path, arguments: dict[str, Any]
    ) -> tuple[bytes | None, Callable[[], Iterator[bytes]] | None]:
        """Prepare the content of a local file: small ones are read, large ones streamed."""
        try:
            size = os.stat(source).st_size
            if size <= INLINE:
                with open(source, "rb") as handle:
                    return handle.read(), None
            sha256 = digest_of(pieces_of_file(source, size))
        except OSError as error:
            raise InvalidArgument(f"cannot read {source}: {error.strerror}") from error
        arguments.update(size=size, sha256=sha256)
        return None, lambda: pieces_of_file(source, size)

    def _attributes(
        self, owner: str | int | None, group: str | int | None, mode: int | str | None
    ) -> dict[str, Any]:
        return {
            "owner": check_names(owner),
            "group": check_names(group),
            "mode": file_mode(mode),
        }

    def template(
        self,
        path: Path,
        template: Path,
        variables: Mapping[str, Any] | None = None,
        /,
        **file_options: Any,
    ) -> Change:
        """
        Make sure that a file has the content a Jinja2 template gives.

        Needs ``redock[templates]``. An undefined variable is an error. In the
        template ``host`` is this object, so ``{{ host.facts.hostname }}`` works. A
        secret among the variables makes the file sensitive.

        >>> host.template("/etc/motd", "Welcome to {{ name }}!\\n", {"name": "web"}).changed
        True
        >>> host.read_file("/etc/motd")
        b'Welcome to web!\\n'

        :param path: The absolute path on the host.
        :param template: The text of the template, or a :class:`pathlib.Path` of a local
                         file with it.
        :param variables: The values of the variables (default: none).
        :param file_options: Keyword arguments of :meth:`file`.
        :returns: What changed.
        :raises InvalidArgument: The template is wrong or a variable is missing.
        :raises OperationFailed: The file cannot be brought into that state.
        """
        values, secret = reveal(dict(variables or {}))
        content = render(template, {"host": self, **values})
        if secret:
            file_options["sensitive"] = True
        return self._file("template", path, content, **file_options)

    def directory(
        self,
        path: Path,
        *,
        owner: str | int | None = None,
        group: str | int | None = None,
        mode: int | str | None = None,
        state: Literal["present", "absent"] = "present",
        recurse: bool = False,
    ) -> Change:
        """
        Make sure that a directory exists, with those above it, or does not.

        >>> host.directory("/srv/app/data", mode=0o750).changed
        True
        >>> host.directory("/srv/app", state="absent", recurse=True).changed
        True

        :param path: The absolute path on the host.
        :param owner: The name or number of the owner (default: do not care).
        :param group: The name or number of the group (default: do not care).
        :param mode: The permissions (default: do not care; 0755 for a new directory).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param recurse: Give everything below the same owner and group, or remove it, too
                        (default: no).
        :returns: What changed.
        :raises OperationFailed: The directory cannot be brought into that state.
        """
        check_state(state, "present", "absent")
        target = path_bytes(path)
        if os.path.normpath(target) == b"/" and (state == "absent" or recurse):
            raise InvalidArgument("this would take the whole host")
        arguments = {
            "path": target,
            **self._attributes(owner, group, mode),
            "state": state,
            "recurse": recurse,
        }
        return self._operate("directory", os.fspath(path), "directory", arguments)

    def symlink(
        self,
        path: Path,
        target: Path | None = None,
        *,
        state: Literal["present", "absent"] = "present",
        force: bool = False,
    ) -> Change:
        """
        Make sure that a symbolic link points somewhere, or does not exist.

        >>> host.symlink("/srv/current", "/srv/release-1").changed
        True

        :param path: The absolute path of the link.
        :param target: What it points to, as it is to be stored; not needed for ``absent``.
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param force: Replace a file that is in the way (default: no).
        :returns: What changed.
        :raises OperationFailed: Something else is at the path.
        """
        check_state(state, "present", "absent")
        if target is None and state == "present":
            raise InvalidArgument("a symbolic link needs a target")
        arguments = {
            "path": path_bytes(path),
            "target": b"" if target is None else path_bytes(target, absolute=False),
            "state": state,
            "force": force,
        }
        return self._operate("symlink", os.fspath(path), "symlink", arguments)

    def line(
        self,
        path: Path,
        line: str | Secret,
        *,
        match: str | None = None,
        after: str | None = None,
        state: Literal["present", "absent"] = "present",
        create: bool = False,
        follow: bool = False,
    ) -> Change:
        """
        Make sure that a file contains a line, or does not.

        >>> host.line("/etc/environment", "EDITOR=vi", match="^EDITOR=").changed
        True
        >>> host.line("/etc/environment", "EDITOR=vi", match="^EDITOR=").changed
        False

        :param path: The absolute path on the host.
        :param line: The line, without its end.
        :param match: A regular expression: the last line that it finds is replaced; with
                      ``absent`` all lines that it finds are removed (default: only lines
                      that are equal).
        :param after: A regular expression: a new line goes behind the last line that
                      it finds (default: the end of the file).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param create: Create the file when it does not exist (default: that is an error).
        :param follow: Change the file a symbolic link points to (default: no).
        :returns: What changed.
        :raises OperationFailed: The file does not exist or cannot be written.
        """
        check_state(state, "present", "absent")
        data, secret = content_bytes(line)
        assert data is not None
        if b"\n" in data:
            raise InvalidArgument("a line has no line breaks")
        arguments = {
            "path": path_bytes(path),
            "line": data,
            "match": pattern_bytes(match),
            "after": pattern_bytes(after),
            "state": state,
            "create": create,
            "follow": follow,
            "hide": secret,
        }
        return self._operate("line", os.fspath(path), "line", arguments)

    # Packages ---------------------------------------------------------------------------------

    def packages(
        self,
        *names: str,
        state: Literal["present", "absent", "latest"] = "present",
        update_cache: int = 3600,
        recommends: bool = False,
        timeout: float = PATIENCE,
    ) -> Change:
        """
        Make sure that packages are installed, or are not.

        All of them are installed by one run of ``apt-get``, which waits for
        other package managers and asks no questions; configuration files that
        the administrator changed stay.

        >>> host.packages("python3", "rsync").changed
        False

        :param names: The names; ``name=version`` and ``name:architecture`` are allowed.
        :param state: ``present``, ``absent`` or ``latest`` (default: ``present``).
        :param update_cache: Fetch the package lists first when they are older than this
                             many seconds and something is to be installed (default: 3600).
        :param recommends: Install recommended packages, too (default: no).
        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed, with the versions before and after.
        :raises InvalidArgument: A name is not the name of a package.
        :raises OperationFailed: ``apt-get`` failed; the message has its last lines.
        """
        check_state(state, "present", "absent", "latest")
        arguments = {
            "names": package_names(names),
            "state": state,
            "update_cache_after": int(update_cache),
            "recommends": recommends,
        }
        for attempt in range(self.retries + 1):
            try:
                return self._operate("packages", " ".join(names), "packages", arguments, timeout)
            except OperationFailed as error:
                if attempt == self.retries or isinstance(error, OperationTimeout):
                    raise
                self.history.failed.remove(error)
                logger.info("[%s] trying again: %s", self.ssh_alias, error)
                time.sleep(min(2.0**attempt, 10))
        raise AssertionError("unreachable")

    def apt_repository(
        self,
        name: str,
        *,
        uris: str | Iterable[str] = (),
        suites: str | Iterable[str] = (),
        components: str | Iterable[str] = ("main",),
        signed_by: str | None = None,
        state: Literal["present", "absent"] = "present",
        timeout: float = PATIENCE,
    ) -> Change:
        """
        Make sure that ``apt`` knows a repository, or does not.

        The repository is tried before its file is put in place, and its
        package lists are there afterwards.

        >>> host.apt_repository("example", state="absent").changed
        False

        :param name: The name of the file below ``/etc/apt/sources.list.d``, without ``.sources``.
        :param uris: The addresses of the repository.
        :param suites: The suites, for example ``bookworm``.
        :param components: The components (default: ``main``).
        :param signed_by: The path of a keyring on the host, or the ASCII armored key itself
                          (default: the keys ``apt`` trusts).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed.
        :raises InvalidArgument: A value does not fit into the file.
        :raises OperationFailed: ``apt-get`` cannot use the repository; nothing was changed.
        """
        check_state(state, "present", "absent")
        content = repository_text(name, uris, suites, components, signed_by, state)
        arguments = {"name": name, "content": content, "state": state}
        return self._operate("apt_repository", name, "apt_repository", arguments, timeout)

    # Users and services -----------------------------------------------------------------------

    def group(
        self,
        name: str,
        *,
        gid: int | None = None,
        system: bool = False,
        state: Literal["present", "absent"] = "present",
    ) -> Change:
        """
        Make sure that a group exists, or does not.

        >>> host.group("deployers").changed
        True

        :param name: The name of the group.
        :param gid: Its number (default: do not care).
        :param system: Create it with a number for system groups (default: no).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :returns: What changed.
        :raises OperationFailed: The group cannot be brought into that state.
        """
        check_state(state, "present", "absent")
        arguments = {"name": login_name(name), "gid": gid, "system": system, "state": state}
        return self._operate("group", name, "group", arguments)

    def user(
        self,
        name: str,
        *,
        uid: int | None = None,
        group: str | int | None = None,
        groups: Sequence[str] = (),
        home: Path | None = None,
        shell: str | None = None,
        system: bool = False,
        password_hash: str | Secret | None = None,
        authorized_keys: str | Iterable[str] | None = None,
        state: Literal["present", "absent"] = "present",
    ) -> Change:
        """
        Make sure that a user exists, or does not.

        >>> host.user("deploy", shell="/bin/bash", groups=["www-data"]).changed
        True
        >>> host.user("deploy", shell="/bin/bash", groups=["www-data"]).changed
        False

        :param name: The login name.
        :param uid: The number (default: do not care).
        :param group: The primary group (default: do not care; a new user gets one
                      of the same name).
        :param groups: Further groups the user is to be in; others are left alone.
        :param home: The home directory (default: do not care); it is created together
                     with the user, unless that is a system user.
        :param shell: The login shell (default: do not care).
        :param system: Create a system user, without a home directory (default: no).
        :param password_hash: The password as :manpage:`crypt(5)` stores it (default: do not care).
        :param authorized_keys: The complete content of ``~/.ssh/authorized_keys``, as text or
                                as lines (default: do not care).
        :param state: ``present`` or ``absent``; the home directory is not removed
                      (default: ``present``).
        :returns: What changed.
        :raises OperationFailed: The user cannot be brought into that state.
        """
        check_state(state, "present", "absent")
        hashed, _ = reveal(password_hash)
        if hashed is not None and (set(hashed) & set(":\n\r") or not hashed):
            raise InvalidArgument("that is not the hash of a password")
        if hashed is not None:
            # A hash can be attacked at leisure, so it is hidden even when it came as plain text.
            Secret(hashed)
        arguments = {
            "name": login_name(name),
            "uid": uid,
            "group": check_names(group),
            "groups": [login_name(item) for item in groups],
            "home": None if home is None else os.fsdecode(path_bytes(home)),
            "shell": shell,
            "system": system,
            "password_hash": hashed,
            "authorized_keys": authorized_keys_text(authorized_keys),
            "state": state,
        }
        return self._operate("user", name, "user", arguments)

    def service(
        self,
        name: str,
        state: Literal["running", "stopped", "restarted", "reloaded"] = "running",
        *,
        enabled: bool | None = None,
        restart_if: Change | Path | Iterable[Change | Path] = (),
        reload: bool = False,
        timeout: float = 120.0,
    ) -> Change:
        """
        Make sure that a service runs, or does not, and has seen its configuration.

        Supervisor is asked first, then systemd, then the scripts in ``/etc/init.d``.

        A service is restarted when one of the changes in ``restart_if`` changed
        something, and also when a file it is about is newer than the running process. So a
        restart is not lost when the program ends between the change and the
        restart: the next run sees the newer file.

        >>> config = host.file("/etc/cron.d/example", "# nothing yet\\n")
        >>> host.service("cron", restart_if=[config]).changed
        True
        >>> host.service("cron", restart_if=["/etc/cron.d/example"]).changed
        False

        :param name: The name of the service.
        :param state: ``running`` or ``stopped``; ``restarted`` and ``reloaded`` act every time
                      (default: ``running``).
        :param enabled: Whether it starts together with the host (default: do not care).
        :param restart_if: Changes and paths of files that the service reads.
        :param reload: Reload where ``restart_if`` asks for a restart (default: no).
        :param timeout: Seconds to wait (default: 120).
        :returns: What changed.
        :raises OperationFailed: The service cannot be brought into that state.
        """
        check_state(state, "running", "stopped", "restarted", "reloaded")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]*", name):
            raise InvalidArgument(f"{name!r} is not the name of a service")
        items: Iterable[Change | Path] = (
            [restart_if] if isinstance(restart_if, (Change, str, os.PathLike)) else restart_if
        )
        watch: list[bytes] = []
        changed = False
        for item in items:
            if isinstance(item, Change):
                changed = changed or bool(item)
                watch += watched(item)
            else:
                watch.append(path_bytes(item))
        arguments = {
            "name": name,
            "state": state,
            "enabled": enabled,
            "watch": watch,
            "changed": changed,
            "reload": reload,
        }
        return self._operate("service", name, "service", arguments, timeout)

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
                result = self._result(raw, [title])
                if until(result):
                    break
                raise OperationFailed(
                    "the result is not the wanted one", self.ssh_alias, during, result
                )
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

    # Reading ----------------------------------------------------------------------------------

    @property
    def facts(self) -> Facts:
        """
        What kind of host it is, read once when first asked for.

        >>> host.facts.os_id
        'debian'

        :raises ConnectionFailed: The host cannot be reached.
        """
        if self._facts is None:
            answer, _ = self._ask("facts", {}, "facts")
            self._facts = Facts(**answer)
        return self._facts

    def read_file(self, path: Path) -> bytes | None:
        """
        Read a file.

        >>> host.read_file("/etc/hostname").strip() != b""
        True

        :param path: The absolute path on the host.
        :returns: The content; None when there is no such file.
        :raises OperationFailed: The file cannot be read or has more than 48 MiB.
        """
        during = f"read_file {os.fspath(path)}"
        answer: bytes | None = self._ask("read_file", {"path": path_bytes(path)}, during)[0]
        return answer

    def stat(self, path: Path, *, follow: bool = False) -> Stat | None:
        """
        Look at what is at a path.

        >>> host.stat("/etc/passwd").owner
        'root'

        :param path: The absolute path on the host.
        :param follow: Follow a symbolic link at the path (default: no).
        :returns: What is there; None when there is nothing.
        :raises OperationFailed: The path cannot be looked at.
        """
        arguments = {"path": path_bytes(path), "follow": follow}
        answer, _ = self._ask("stat", arguments, f"stat {os.fspath(path)}")
        if answer is None:
            return None
        target = answer.pop("target")
        return Stat(**answer, target=None if target is None else os.fsdecode(target))

    def call(self, function: Callable[..., Any], /, **arguments: Any) -> Any:
        """
        Run a function on the host and get what it returns.

        The source of the function is sent. It has to be a function of its own,
        written with ``def``, that imports what it needs itself. Arguments and results are
        None, booleans, numbers, text, bytes, and lists, tuples, sets and dictionaries
        of these. It runs in a dry run, too.

        >>> def count(directory):
        ...     import os
        ...     return len(os.listdir(directory))
        >>> host.call(count, directory="/etc/ssh") > 1
        True

        An exception over there is an :class:`~redock.errors.OperationFailed` here, which is
        also of the same built-in type, so that ``except FileNotFoundError`` works.

        :param function: The function.
        :param arguments: Its arguments, by keyword.
        :returns: What the function returned.
        :raises InvalidArgument: The function cannot be sent.
        :raises OperationFailed: The function raised an exception.
        """
        source, name = pure_source(function)
        values, _ = reveal(arguments)
        request = {"source": source, "name": name, "arguments": values}
        try:
            return self._ask("call", request, f"call {name}")[0]
        except OperationFailed:
            raise
        except Exception as error:
            if type(error).__name__ == "DumpError":
                raise InvalidArgument(f"call {name}: {error}") from None
            raise


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

    def __init__(self, host: Bootstrap) -> None:
        self.host = host

    def __enter__(self) -> Bootstrap:
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


class _Show:
    """Shows the output of a command: as it comes, or in lines with the name of the host."""

    def __init__(self, host: Bootstrap) -> None:
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


def check_state(state: str, *known: str) -> None:
    """
    Check the state an operation is asked for.

    :param state: The state.
    :param known: The states the operation knows.
    :raises InvalidArgument: It is none of them.
    """
    if state not in known:
        raise InvalidArgument(f"the state {state!r} is none of {', '.join(known)}")


def login_name(name: str) -> str:
    """
    Check the name of a user or group.

    :param name: The name.
    :returns: The same name.
    :raises InvalidArgument: It is not one, and might be an option.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", name):
        raise InvalidArgument(f"{name!r} is not the name of a user or group")
    return name


def as_words(command: str | Sequence[str]) -> Sequence[str]:
    """Take one text as text for the shell."""
    return [command] if isinstance(command, str) else command


def guard_arguments(words: list[bytes]) -> dict[str, Any]:
    """Tell text for the shell from a program and its arguments."""
    return {"words": words} if len(words) > 1 else {"script": words[0]}


def validator(command: str | Sequence[str]) -> list[bytes]:
    """Split the command that validates a file."""
    import shlex

    words = argv(shlex.split(command) if isinstance(command, str) else command)
    if not any(b"%s" in word for word in words):
        raise InvalidArgument("a command that validates a file contains %s, for its path")
    return words


#: Operations whose target is a path.
FILE_OPERATIONS = {"file", "template", "upload_file", "directory", "symlink", "line", "rsync"}


def watched(change: Change) -> list[bytes]:
    """Find what tells, also in the next run, that a change happened: paths and packages."""
    if change.op in FILE_OPERATIONS:
        return [os.fsencode(change.target)]
    if change.op == "packages":
        return [b"package:" + re.split("[:=]", name)[0].encode() for name in change.target.split()]
    return []


def pieces_of(data: bytes) -> Iterator[bytes]:
    """Cut content into pieces that travel one by one."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def pieces_of_file(path: Path, size: int) -> Iterator[bytes]:
    """Read a local file in pieces; an empty one tells that it became shorter."""
    with open(path, "rb") as handle:
        while size > 0:
            piece = handle.read(min(PIECE, size))
            size -= len(piece)
            yield piece
            if not piece:
                return


def digest_of(pieces: Iterable[bytes]) -> bytes:
    """Compute the digest the remote side compares a large file with."""
    import hashlib

    value = hashlib.sha256()
    for piece in pieces:
        value.update(piece)
    return value.digest()
