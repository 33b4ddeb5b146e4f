"""
The errors redock raises, as one tree.

.. code-block:: text

    RedockError                  anything below
    ├── InvalidName              (ValueError)       a name outside the grammar
    ├── InvalidArgument          (ValueError)       an operation cannot work with an argument
    ├── SettingsError            (ValueError)       a setting nobody can act on
    ├── DockerUnavailable        (ConnectionError)  no engine answers
    ├── EngineError              the engine refused or failed a request; has ``status``
    │   └── NotFound             (LookupError)      no such container, image or volume
    ├── NoContainerRunning       (LookupError)      the container is not running
    ├── ContainerDied            the container ended while it was starting; has ``log``
    ├── SecureShellTimeout       (TimeoutError)     not reachable over SSH in time
    ├── Timeout                  (TimeoutError)     another wait ended without success
    ├── AliasTaken               another machine answers to the same SSH alias
    ├── PortUnavailable          a port is taken, or no port is free
    ├── NetworkUnavailable       no free network for a cluster
    ├── FaultUnsupported         this machine cannot make such a fault; says why
    ├── ForeignContainer         a container of that name, or a cluster, is not yours
    ├── ImageUnavailable         an image is neither here nor to be had
    ├── BaseImageFailed          the base image could not be built; has ``log``
    ├── SSHConfigConflict        the SSH client configuration cannot be updated safely
    ├── HostKeyMismatch          the machine's host key is not the pinned one
    ├── StateError               redock's own files cannot be read or written
    ├── LockTimeout              (TimeoutError)     another redock holds the lock
    ├── SeveralFailed            several machines, at least one failure; has ``failures``
    ├── ExternalCommandFailed    a command ended with a nonzero status; has ``result``
    │   └── OperationFailed      a configuration management operation failed; has ``operation``
    │       └── OperationTimeout  (Timeout)         a remote command did not end in time
    └── ConnectionFailed         (ConnectionError)  a host cannot be reached over SSH; has ``cause``

Whoever wants to handle everything redock can raise writes::

    from redock.errors import RedockError

    try:
        Container("web").start()
    except RedockError as error:
        print(error)

Errors of the libraries underneath (``docker``, ``requests``, ``execnet``,
``executor``) never leave redock; where one was the reason it is the
``__cause__``.
"""

from __future__ import annotations

from redock._result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AliasTaken",
    "BaseImageFailed",
    "ConnectionFailed",
    "ContainerDied",
    "DockerUnavailable",
    "EngineError",
    "ExternalCommandFailed",
    "FaultUnsupported",
    "ForeignContainer",
    "HostKeyMismatch",
    "ImageUnavailable",
    "InvalidArgument",
    "InvalidName",
    "LockTimeout",
    "NetworkUnavailable",
    "NoContainerRunning",
    "NotFound",
    "OperationFailed",
    "OperationTimeout",
    "PortUnavailable",
    "RedockError",
    "SSHConfigConflict",
    "SecureShellTimeout",
    "SettingsError",
    "SeveralFailed",
    "StateError",
    "Timeout",
]


class RedockError(Exception):
    """
    Base of everything redock raises on purpose.

    The message is one line that says what failed, for which machine, and what
    to do about it.
    """

    #: The exit status of the command line program when this error ends it.
    exit_code: int = 1


class InvalidName(RedockError, ValueError):
    """A container, image, host or alias name is outside the grammar; nothing was created."""

    exit_code = 2


class InvalidArgument(RedockError, ValueError):
    """An operation was given an argument it cannot use; nothing was done."""

    exit_code = 2


class SettingsError(RedockError, ValueError):
    """A settings file or environment variable has a value redock cannot act on."""

    exit_code = 2


class DockerUnavailable(RedockError, ConnectionError):
    """No container engine answers: not installed, started, permitted or well addressed."""


class EngineError(RedockError):
    """
    The container engine refused or failed a request.

    :param message: One line for the user.
    :param status: The HTTP status of the engine's answer, 0 if there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotFound(EngineError, LookupError):
    """The engine knows no such container, image or volume."""

    exit_code = 4


class NoContainerRunning(RedockError, LookupError):
    """The container has no running Docker container associated with it."""

    exit_code = 3


class ContainerDied(RedockError):
    """
    The container ended while it was starting.

    :param message: One line for the user.
    :param log: The last lines the container printed.
    :param status: The exit status of its first process (default: not known).
    """

    def __init__(self, message: str, log: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.log = log
        self.status = status


class SecureShellTimeout(RedockError, TimeoutError):
    """The container runs but could not be reached over SSH in time (10 seconds by default)."""

    exit_code = 124


class Timeout(RedockError, TimeoutError):
    """Something redock waited for did not happen in time."""

    exit_code = 124


class AliasTaken(RedockError):
    """The SSH alias belongs to another machine already."""


class PortUnavailable(RedockError):
    """Another program listens on a port that was asked for, or no port is free for SSH."""


class NetworkUnavailable(RedockError):
    """No network is free for a cluster, or the one asked for is in use."""


class FaultUnsupported(RedockError):
    """This machine cannot make such a fault: its kernel lacks something, or the node does."""


class ForeignContainer(RedockError):
    """
    What has the needed name is somebody else's; it was left alone.

    A container that redock did not create, or a cluster of another user or of a process that runs.
    """


class ImageUnavailable(RedockError):
    """An image is neither present nor can it be downloaded."""


class BaseImageFailed(RedockError):
    """
    The base image could not be built; nothing of the attempt is left.

    :param message: One line for the user.
    :param log: The last lines the build printed.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class SSHConfigConflict(RedockError):
    """The user's SSH client configuration cannot be updated safely; it was left as it is."""


class HostKeyMismatch(RedockError):
    """Whoever answers on the machine's port does not have the machine's host key."""


class StateError(RedockError):
    """A file of redock's own cannot be read or written."""


class LockTimeout(RedockError, TimeoutError):
    """Another redock process held a lock for too long."""

    exit_code = 124


class SeveralFailed(RedockError):
    """
    Some of several machines failed; the others were not stopped by it.

    :param message: One line for the user.
    :param failures: The error of each machine that failed, by name.
    """

    def __init__(self, message: str, failures: Mapping[str, Exception]) -> None:
        super().__init__(message)
        self.failures = dict(failures)
        self.exit_code = max(getattr(error, "exit_code", 1) for error in failures.values())


class ExternalCommandFailed(RedockError):
    """
    An external command ended with a nonzero exit status.

    :param result: What the command did, see :class:`redock._result.Result`.
    :param host: The alias of the remote host the command ran on (default: none, it ran locally).
    :param reason: Replaces "exited with status N" in the message (default: none).
    """

    #: How many lines of each output stream the message shows.
    shown_lines = 10

    def __init__(self, result: Result, host: str | None = None, reason: str | None = None) -> None:
        self.result = result
        self.host = host
        self.reason = reason or f"exited with status {result.returncode}"
        super().__init__(result, host, reason)

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        message = f"command {self.result.command_line}{where} {self.reason}"
        tail = last_lines(self.result.stderr or self.result.stdout, self.shown_lines)
        return f"{message}: {tail}" if tail else message

    @property
    def command(self) -> Sequence[str]:
        """The command and its arguments."""
        return self.result.command

    @property
    def returncode(self) -> int:
        """The exit status of the command."""
        return self.result.returncode

    @property
    def stdout(self) -> str:
        """What the command printed on its standard output, if that was captured."""
        return self.result.stdout

    @property
    def stderr(self) -> str:
        """What the command printed on its standard error, if that was captured."""
        return self.result.stderr


class OperationFailed(ExternalCommandFailed):
    """
    A configuration management operation failed on the remote host.

    :param message: What went wrong.
    :param host: The name of the host.
    :param operation: The operation and what it was about, for example ``file /etc/motd``.
    :param result: The command that failed, if the operation ran one (default: none).
    :param remote_type: The name of the exception on the remote side, if there was one.
    :param traceback: Where on the remote side that was, as text.
    """

    def __init__(
        self,
        message: str,
        host: str,
        operation: str,
        result: Result | None = None,
        remote_type: str = "",
        traceback: str = "",
    ) -> None:
        self.has_result = result is not None
        super().__init__(Result((operation,), 1) if result is None else result, host, message)
        self.reason = message
        self.operation = operation
        self.remote_type = remote_type
        self.traceback = traceback
        self.args = (message, host, operation)

    def __str__(self) -> str:
        message = f"{self.operation} on {self.host} failed"
        if self.reason:
            message += f": {self.reason}"
        if not self.has_result:
            return message
        result = self.result
        status = f"{result.command_line} exited with status {result.returncode}"
        tail = last_lines("\n".join((result.stdout, result.stderr)), self.shown_lines)
        return f"{message}: {status}" + (f": {tail}" if tail else "")


class OperationTimeout(OperationFailed, Timeout):
    """A command on the remote host did not end in time; it was killed there."""


class ConnectionFailed(RedockError, ConnectionError):
    """
    A host cannot be reached over SSH.

    :param message: One line for the user.
    :param cause: A word for programs: ``refused``, ``authentication``, ``host-key``,
                  ``no-python``, ``old-python``, ``incomplete-python``, ``noisy-shell``,
                  ``sudo``, ``lost`` or ``timeout``.
    """

    exit_code = 6

    def __init__(self, message: str, cause: str = "refused") -> None:
        super().__init__(message)
        self.cause = cause


def last_lines(text: str, count: int) -> str:
    """
    Get the end of a text, for an error message.

    :param text: Any text.
    :param count: How many lines to keep.
    :returns: The last lines that are not blank, joined by newlines.
    """
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
