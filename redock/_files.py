"""
redock's own files: where they are, how they are written and locked.

A reader of any of these files sees the old contents or the new, never a part.
Whoever changes one holds its lock; locks are files of their own that are never
replaced, because a replaced lock file lets two processes in.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from redock._log import LateLogger
from redock._process import Deadline
from redock.errors import LockTimeout, RedockError, SettingsError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = [
    "Lock",
    "atomic_write",
    "collect_strays",
    "ensure_directory",
    "path_in_home",
    "read_bytes",
    "redock_home",
    "remove_file",
    "replacing",
    "user_home",
    "write_fully",
]

logger = LateLogger(__name__)

#: The environment variable that moves everything redock writes for itself.
HOME_VARIABLE = "REDOCK_HOME"
#: What ssh cannot read in a path of its configuration, however it is quoted.
UNREADABLE_BY_SSH = ('"', "\\", "\n", "\r", "${")

STRAY_PREFIX = ".redock-"
STRAY_SUFFIX = ".tmp"


class Home:
    """The directory that was found usable, remembered for the rest of the process."""

    found: tuple[str, str] | None = None


def user_home() -> str:
    """
    Get the home directory of the user from the password database.

    This is where ``ssh`` looks for its configuration; it does not use
    ``$HOME`` (ssh(1), FILES).

    :returns: An absolute pathname.
    """
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.environ.get("HOME", "/")


def redock_home() -> str:
    """
    Find the directory for everything redock keeps, and make sure it exists.

    ``$REDOCK_HOME`` or ``~/.redock``. Where the latter cannot be used (a
    read-only home directory, a pathname that ssh cannot read) a private
    directory below ``$XDG_RUNTIME_DIR`` or ``/tmp`` takes its place, with a
    warning, so that machines start all the same.

    :returns: An absolute pathname.
    :raises SettingsError: ``$REDOCK_HOME`` cannot be used.
    :raises StateError: No directory at all can be used.
    """
    wanted = os.environ.get(HOME_VARIABLE, "")
    key = wanted or os.path.join(user_home(), ".redock")
    if Home.found is None or Home.found[0] != key:
        Home.found = (key, choose_home(wanted, key))
    return Home.found[1]


def choose_home(wanted: str, default: str) -> str:
    """
    Choose redock's directory, see :func:`redock_home`.

    :param wanted: The value of ``$REDOCK_HOME``, empty when it is not set.
    :param default: The directory to use unless something is wrong with it.
    :returns: An absolute pathname.
    :raises SettingsError: ``$REDOCK_HOME`` cannot be used.
    :raises StateError: No directory at all can be used.
    """
    problem = find_problem(default, ours=not wanted)
    if not problem:
        return default
    if wanted:
        raise SettingsError(f"{HOME_VARIABLE}={wanted!r} cannot be used: {problem}")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    instead = os.path.join(runtime, "redock") if runtime else f"/tmp/redock-{os.getuid()}"  # noqa: S108
    if find_problem(instead, ours=True):
        raise StateError(f"{default} cannot be used: {problem}; set {HOME_VARIABLE} to a directory")
    logger.warning("%s cannot be used (%s), using %s instead", default, problem, instead)
    return instead


def find_problem(directory: str, *, ours: bool) -> str:
    """
    Find out why a directory cannot hold redock's files; create it if it can.

    :param directory: A pathname.
    :param ours: Nobody but redock has a use for it: it is made private where it is not (an old
                 redock made it with the umask). One that somebody named may be anything.
    :returns: The reason, empty when the directory can be used.
    """
    if not os.path.isabs(directory):
        return "it is not an absolute path"
    for unreadable in UNREADABLE_BY_SSH:
        if unreadable in directory:
            return f"ssh cannot read a path that contains {unreadable!r}"
    try:
        make_directories(directory)
        found = os.stat(directory)
        if not stat.S_ISDIR(found.st_mode):
            return "it is not a directory"
        if found.st_uid != os.getuid():
            return f"it belongs to user id {found.st_uid}"
        if found.st_mode & (0o002 if ours else 0o022):
            return "others may write to it"
        if ours and stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(directory, 0o700)
        if not os.access(directory, os.W_OK | os.X_OK) or is_read_only(directory):
            return "it is read-only"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def is_read_only(directory: str) -> bool:
    """
    Check whether a directory is on a file system mounted read-only.

    :param directory: A pathname.
    :returns: True when it is.
    """
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def path_in_home(*names: str) -> str:
    """
    Get the pathname of one of redock's files.

    :param names: The components below redock's directory.
    :returns: An absolute pathname.
    """
    return os.path.join(redock_home(), *names)


def ensure_directory(directory: str) -> str:
    """
    Make sure a private directory exists, whatever the umask.

    :param directory: A pathname.
    :returns: The same pathname.
    :raises StateError: It does not exist and cannot be created.
    """
    try:
        make_directories(directory)
    except OSError as error:
        raise StateError(f"cannot create {directory}: {error.strerror}") from error
    return directory


def make_directories(directory: str) -> None:
    """
    Create a private directory and what is missing above it, unless it exists.

    :param directory: A pathname.
    """
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    if parent != directory:
        make_directories(parent)
    from contextlib import suppress

    # Another process may be faster.
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)
        os.chmod(directory, 0o700)


def read_bytes(path: str) -> bytes | None:
    """
    Read a whole file.

    :param path: A pathname.
    :returns: The contents; None when there is no such file.
    :raises StateError: The file exists but cannot be read.
    """
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"cannot read {path}: {error.strerror}") from error


def remove_file(path: str) -> None:
    """
    Remove a file if it exists.

    :param path: A pathname.
    :raises StateError: It exists and cannot be removed.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StateError(f"cannot remove {path}: {error.strerror}") from error


def atomic_write(
    path: str, contents: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """
    Write a file so that readers, and a crash, see the old contents or the new.

    :param path: The pathname to write.
    :param contents: The new contents.
    :param mode: The permissions (default: only the user), independent of the umask.
    :param owner: The user and group id the file is to have (default: those of the process).
    :raises StateError: The disk is full or the directory cannot be written; the old file is intact.
    """
    with replacing(path, mode, owner) as handle:
        write_fully(handle, contents)


def replacing(
    path: str, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> AbstractContextManager[int]:
    """
    Write a file in pieces so that readers, and a crash, see the old contents or the new.

    The contents go to a temporary file in the same directory, which is synced
    and renamed; then the directory is synced (rename(2), fsync(2)).

    :param path: The pathname to write.
    :param mode: The permissions (default: only the user), independent of the umask.
    :param owner: The user and group id the file is to have (default: those of the process).
    :returns: A context manager, which gives a descriptor to write to.
    :raises StateError: The disk is full or the directory cannot be written; the old file is intact.
    """
    from contextlib import contextmanager

    return contextmanager(replace)(path, mode, owner)


def replace(path: str, mode: int, owner: tuple[int, int] | None) -> Iterator[int]:
    """
    Do what :func:`replacing` does.

    :param path: The pathname to write.
    :param mode: The permissions.
    :param owner: The user and group id the file is to have, None for those of the process.
    :returns: Yields the descriptor, once.
    :raises StateError: It cannot be written.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(
        directory, f"{STRAY_PREFIX}{name}-{os.getpid()}-{os.urandom(4).hex()}{STRAY_SUFFIX}"
    )
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(temporary, flags, 0o600)
        try:
            yield handle
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(handle, *owner)
            os.fchmod(handle, mode)
            sync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)
    except BaseException as error:
        # An interrupt must not leave the temporary file behind either.
        if os.path.lexists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, RedockError):
            raise StateError(f"cannot write {path}: {error.strerror}") from error
        raise
    sync_directory(directory)


def write_fully(handle: int, contents: bytes) -> None:
    """
    Write everything: write(2) may stop short of it, for instance on a full disk.

    :param handle: An open file descriptor.
    :param contents: What to write.
    """
    view = memoryview(contents)
    while view:
        view = view[os.write(handle, view) :]


def sync(handle: int) -> None:
    """
    Flush a file to the disk, where the file system can do that.

    :param handle: An open file descriptor.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise


def sync_directory(directory: str) -> None:
    """
    Flush a directory, so that a rename in it survives a power cut.

    :param directory: A pathname.
    """
    handle = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(handle)
    finally:
        os.close(handle)


def collect_strays(directory: str, file: str | None = None) -> None:
    """
    Remove the temporary files that killed processes left in a directory.

    :param directory: A pathname; the caller holds the lock that guards its files.
    :param file: The name of the only file the caller's lock guards (default: all files).
    """
    prefix = f"{STRAY_PREFIX}{file}-" if file else STRAY_PREFIX
    for name in os.listdir(directory):
        if name.startswith(prefix) and name.endswith(STRAY_SUFFIX):
            remove_file(os.path.join(directory, name))


class Lock:
    """
    An exclusive lock between processes, to be used as a context manager.

    The kernel releases it when the process ends, however it ends; programs
    started meanwhile do not inherit it.

    :param path: The pathname of the lock file; its directory is created.
    :param what: What is locked, for messages (for instance ``"machine web"``).
    :param timeout: Seconds to wait for another process (default: 30).
    """

    #: Seconds after which the user is told what is being waited for.
    patience = 1.0

    def __init__(self, path: str, what: str, timeout: float = 30.0) -> None:
        self.path = path
        self.what = what
        self.timeout = timeout
        self.handle: int | None = None

    def acquire(self) -> None:
        """
        Take the lock.

        :raises LockTimeout: Another process still holds it when the time is over.
        :raises StateError: The file system cannot lock.
        """
        ensure_directory(os.path.dirname(self.path))
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            handle = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise StateError(f"cannot open the lock {self.path}: {error.strerror}") from error
        try:
            # The umask may have taken away what the next one needs.
            os.fchmod(handle, 0o600)
            self.wait(handle)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        except OSError as error:
            os.close(handle)
            if isinstance(error, (LockTimeout, StateError)):
                raise
            raise StateError(f"cannot lock {self.path}: {error.strerror}") from error
        except BaseException:
            os.close(handle)
            raise
        self.handle = handle

    def wait(self, handle: int) -> None:
        """
        Wait until the lock is ours.

        :param handle: The opened lock file.
        :raises LockTimeout: Another process still holds it when the time is over.
        """
        deadline = Deadline(self.timeout)
        told_at = time.monotonic() + self.patience
        told = False
        pause = 0.002
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            holder = os.pread(handle, 20, 0).decode("ascii", "replace") or "unknown"
            if deadline.passed:
                raise LockTimeout(
                    f"{self.what} is still in use by another redock (process {holder})"
                    f" after {self.timeout:g} seconds: wait for it or end it"
                )
            if not told and time.monotonic() > told_at:
                told = True
                logger.info("Waiting for another redock (process %s) with %s", holder, self.what)
            deadline.sleep(pause)
            pause = min(pause * 2, 0.05)

    def release(self) -> None:
        """Give the lock back."""
        if self.handle is not None:
            handle, self.handle = self.handle, None
            os.close(handle)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
