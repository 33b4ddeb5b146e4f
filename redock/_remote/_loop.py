"""The loop that answers requests."""

import fcntl
import os
import stat
import time

from redock._remote._accounts import op_group, op_user
from redock._remote._commands import op_command, op_execute
from redock._remote._files import (
    attribute_changes,
    move_over,
    op_directory,
    op_file,
    op_line,
    op_symlink,
    open_directory,
    write_temporary,
)
from redock._remote._packages import op_apt_repository, op_packages, op_update_system_packages
from redock._remote._reading import op_call, op_facts, op_hello, op_read_file, op_stat
from redock._remote._services import op_service
from redock._remote._world import Failure, Node, Unknown, World, text

#: Operations that change the host. One at a time holds the lock of the host, so that two programs
#: cannot both read, compare and then mend.
LOCKED: dict = {
    "apt_repository": op_apt_repository,
    "directory": op_directory,
    "file": op_file,
    "group": op_group,
    "line": op_line,
    "packages": op_packages,
    "service": op_service,
    "symlink": op_symlink,
    "update_system_packages": op_update_system_packages,
    "user": op_user,
}
FREE: dict = {
    "call": op_call,
    "command": op_command,
    "execute": op_execute,
    "facts": op_facts,
    "hello": op_hello,
    "read_file": op_read_file,
    "stat": op_stat,
}


def lock_host(deadline):
    """Take the lock of the host: the root directory, so that no file has to be created for it."""
    descriptor = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if deadline is not None and time.monotonic() > deadline:
                os.close(descriptor)
                raise Failure("another program is provisioning this host") from None
            time.sleep(pause)
            pause = min(pause * 2, 0.1)


class Delayed:
    """
    Files of a batch on their way: written, to be made durable together and then put in place.

    Waiting for the disk costs a millisecond for each file, or once for a thousand of them.
    Answers go out in the order of the requests, so they wait here, too.
    """

    MOST_FILES = 2000
    MOST_BYTES = 32 << 20
    #: A program that does something else in the middle of a batch must not keep the lock.
    IDLE = 0.2

    def __init__(self, world, batch):
        self.world = world
        self.batch = batch
        self.lock = None
        self.failed = False
        self.clear()

    def clear(self):
        self.answers = []
        self.files = {}
        self.paths = set()
        self.directories = {}
        self.bytes = 0

    def directory(self, parent):
        """Open a directory once for all files in it: its descriptor, and what tells it apart."""
        found = self.directories.get(parent)
        if found is None:
            descriptor = open_directory(parent)
            status = os.fstat(descriptor)
            found = self.directories[parent] = (descriptor, (status.st_dev, status.st_ino))
        return found

    def touches(self, path):
        """Whether a path is one of those on their way, below one, or another name of one."""
        if not self.files:
            return False
        parent = above = os.path.dirname(path)
        if path in self.paths:
            return True
        if parent in self.directories:
            return (self.directories[parent][1], os.path.basename(path)) in self.files
        while above not in (b"/", b""):
            if above in self.paths:
                return True
            above = os.path.dirname(above)
        try:
            return (self.directory(parent)[1], os.path.basename(path)) in self.files
        except OSError:
            return False

    def add(self, path, content, owner, group, mode, answer):
        directory, identity = self.directory(os.path.dirname(path))
        temporary = write_temporary(
            self.world, directory, path, [content], owner, group, mode, sync=False
        )
        item = (path, directory, temporary, answer, content, owner, group, mode)
        self.files[identity, os.path.basename(path)] = item
        self.paths.add(path)
        self.bytes += len(content)

    def full(self):
        return len(self.answers) >= self.MOST_FILES or self.bytes > self.MOST_BYTES

    def commit(self, keep_lock=False):
        """Put the files in place and send the answers that wait."""
        files, answers, directories = list(self.files.values()), self.answers, self.directories
        self.clear()
        failures: dict = {}
        try:
            if files:
                self.flush(directories)
            for index, item in enumerate(files):
                failure = attempt(lambda item=item: self.place(*item))
                if failure is not None:
                    failures[id(item[3])] = failure
                    self.drop(files[index + 1 :])
                    break
            if files:
                for descriptor, _ in directories.values():
                    os.fsync(descriptor)
        finally:
            for descriptor, _ in directories.values():
                os.close(descriptor)
            if self.lock is not None and not keep_lock:
                os.close(self.lock)
                self.lock = None
        for outcome, value, seconds in answers:
            if self.failed:
                outcome, value = "skipped", None
            else:
                outcome, value = failures.get(id(value), (outcome, value))
                self.failed = outcome == "failed"
            send_answer(self.world, outcome, value, seconds)

    def flush(self, directories):
        """Make the content of all new files durable: each file system at once."""
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        systems = {device: descriptor for descriptor, (device, _) in directories.values()}
        for descriptor in systems.values():
            if library.syncfs(descriptor) != 0:
                os.sync()

    def place(self, path, directory, temporary, answer, content, owner, group, mode):
        """Rename one file into place and read it again."""
        try:
            answer["reason"] = move_over(directory, temporary, path)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(os.path.basename(path), flags, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            found = os.read(descriptor, len(content) + 1)
        finally:
            os.close(descriptor)
        node = Node("file", stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        changes = attribute_changes(self.world, node, owner, group, mode)
        if changes or found != content:
            names = [*changes, *([] if found == content else ["content"])]
            raise Failure("after the change it still differs in " + ", ".join(names))

    def abandon(self):
        """The connection broke in the middle of a batch: nobody waits for these files."""
        files, directories = list(self.files.values()), self.directories
        self.clear()
        self.drop(files)
        for descriptor, _ in directories.values():
            os.close(descriptor)

    def drop(self, files):
        for _, directory, temporary, *_ in files:
            os.unlink(temporary, dir_fd=directory)


def perform(world, name, arguments, timeout):
    world.deadline = None if timeout is None else time.monotonic() + timeout
    if name in FREE:
        return FREE[name](world, **arguments)
    if world.dry_run or (world.delayed is not None and world.delayed.lock is not None):
        return LOCKED[name](world, **arguments)
    descriptor = lock_host(world.deadline)
    if world.delayed is not None:
        world.delayed.lock = descriptor
        return LOCKED[name](world, **arguments)
    try:
        return LOCKED[name](world, **arguments)
    finally:
        os.close(descriptor)


def answer_to(world, name, arguments, timeout):
    result = []

    def work():
        result.append(perform(world, name, arguments, timeout))

    failure = attempt(work)
    if failure is None:
        return ("done", result[0])
    if failure[0] == "failed":
        world.drain()
    return failure


def attempt(work):
    """Do something; None when it worked, else the answer that says how it failed."""
    try:
        work()
        return None
    except Unknown as unknown:
        return ("done", {"changed": None, "reason": str(unknown)})
    except Failure as failure:
        return ("failed", {"message": str(failure), **failure.details})
    except (EOFError, KeyboardInterrupt, SystemExit):
        raise
    except OSError as error:
        name = error.filename
        if isinstance(name, bytes):
            name = text(name)
        message = error.strerror or str(error)
        return problem(error, "%s: %s" % (name, message) if isinstance(name, str) else message)
    except BaseException as error:
        return problem(error, str(error))


def problem(error, message):
    import traceback

    return (
        "failed",
        {
            "message": message.encode("utf-8", "replace").decode(),
            "type": type(error).__name__,
            "errno": getattr(error, "errno", None),
            "traceback": traceback.format_exc().encode("utf-8", "replace").decode(),
        },
    )


def plain(value):
    """Keep to what travels: only builtin types, and text that is text."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (
            type(value)(plain(item) for item in value)
            if type(value) in (list, tuple)
            else tuple(map(plain, value))
        )
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else str(value)
    return value


def send_answer(world, outcome, value, seconds):
    try:
        try:
            world.channel.send((outcome, value, seconds))
        except OSError:
            raise
        except Exception:
            # Text that is none, or types of our own.
            world.channel.send((outcome, plain(value), seconds))
    except OSError:
        raise
    except Exception as error:
        # execnet raises its own error for other types and struct.error for numbers below -2**31.
        message = "the answer cannot be sent: %s" % error
        world.channel.send(("failed", {"message": message, "type": "TypeError"}, 0.0))


def requests(world, channel):
    """Yield requests; None when a batch pauses."""
    while True:
        waiting = world.delayed is not None and (world.delayed.answers or world.delayed.lock)
        try:
            yield channel.receive(Delayed.IDLE if waiting else None)
        except channel.TimeoutError:
            yield None
        except EOFError:
            return


class Server:
    """The loop that answers requests until the connection ends."""

    def __init__(self, channel):
        self.channel = channel
        self.world = World(channel)
        self.failed_batch = None

    def serve(self):
        try:
            for request in requests(self.world, self.channel):
                if request is None or request[0] == "flush":
                    self.commit()
                else:
                    self.answer(*request)
        finally:
            if self.world.delayed is not None:
                self.world.delayed.abandon()

    def commit(self):
        delayed = self.world.delayed
        if delayed is not None:
            delayed.commit()
            if delayed.failed:
                self.failed_batch = delayed.batch

    def answer(self, name, arguments, timeout, batch):
        world = self.world
        delayed = world.delayed
        if delayed is not None and (name != "file" or batch != delayed.batch or delayed.full()):
            self.commit()
            if name != "file" or batch != delayed.batch:
                delayed = world.delayed = None
        if batch is not None and batch == self.failed_batch:
            self.channel.send(("skipped", None, 0.0))
            return
        if delayed is None and name == "file" and batch is not None and not world.dry_run:
            delayed = world.delayed = Delayed(world, batch)
        started = time.monotonic()
        outcome, value = answer_to(world, name, arguments, timeout)
        seconds = time.monotonic() - started
        if delayed is not None:
            delayed.answers.append((outcome, value, seconds))
            if outcome == "failed":
                self.commit()
        else:
            send_answer(world, outcome, value, seconds)
            if outcome == "failed":
                self.failed_batch = batch


def serve(channel):
    """Answer requests until the connection ends."""
    Server(channel).serve()
