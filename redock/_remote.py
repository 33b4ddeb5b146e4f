"""
The remote half of redock.bootstrap, sent once to each host as text.

It is a loop that answers requests. Only the standard library of Python 3.8 is
used and nothing of redock, because nothing of redock is installed over there.
An operation reads the state, compares, mends, reads again. In a dry run it
writes what it would do into a picture of the host (``World``) instead, so that
later operations see what earlier ones would have done.

Paths and arguments are bytes: the encoding of the host is nobody's business.
"""

import errno
import fcntl
import grp
import os
import pwd
import re
import stat
import subprocess
import sys
import time

#: Content up to this size travels with the request; more is asked for when it is needed.
INLINE = 256 * 1024
#: Content up to this size can be part of a difference.
LONGEST_DIFF = 256 * 1024
#: What is kept of a command's output when nobody asked for all of it.
LONGEST_TAIL = 16 * 1024
#: More captured output than this is refused.
LONGEST_CAPTURE = 48 * 1024 * 1024
#: The number of a user or group that a dry run would have created.
PENDING = -2
#: The content of a file that a dry run would have written from a stream.
NOT_KEPT = b"not kept"
TEMPORARY = b".redock-"
APT_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "NEEDRESTART_MODE": "a",
    "UCF_FORCE_CONFFOLD": "1",
}
APT = ("apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0")
#: Nobody is there to answer questions; configuration files of the administrator stay.
APT_CHANGE = (
    "-o", "DPkg::Lock::Timeout=120",
    "-o", "Dpkg::Options::=--force-confdef",
    "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip
#: A simulation must not even refresh apt's own caches, or log what it was asked.
APT_SIMULATE = (
    "-s",
    "-o", "Dir::Cache::pkgcache=",
    "-o", "Dir::Cache::srcpkgcache=",
    "-o", "Dir::Log::Planner=/dev/null",
)  # fmt: skip


class Failure(Exception):
    """An operation cannot be done; ``details`` go to the caller."""

    def __init__(self, message, **details):
        super().__init__(message)
        self.details = details


class Unknown(Exception):
    """A dry run cannot know the result: it depends on a change that was not made."""


class Hung(Exception):
    """A command did not end in time and was killed."""


class Node:
    """What is found at a path, without following symbolic links."""

    __slots__ = (
        "content",
        "ctime",
        "gid",
        "identity",
        "kind",
        "mode",
        "mtime",
        "size",
        "target",
        "uid",
    )

    def __init__(self, kind, mode, uid, gid, content=None, target=None):
        self.identity = None
        self.kind, self.mode, self.uid, self.gid = kind, mode, uid, gid
        self.content, self.target = content, target
        self.size = len(content or b"")
        self.mtime = self.ctime = 0.0


KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class World:
    """The host as the operations see it; in a dry run with what they would have changed."""

    def __init__(self, channel, dry_run=False, diff=False):
        self.channel = channel
        self.dry_run = dry_run
        self.diff = diff
        self.nodes = {}
        self.users = {}
        self.groups = {}
        self.packages = {}
        self.homes = {}
        self.opaque = []
        self.cleaned = set()
        self.deadline = None
        self.expected = 0
        #: Files of a batch that are written but not yet in place, None outside of a batch.
        self.delayed = None

    # Reading ----------------------------------------------------------------------------------

    def look(self, path, follow=False):
        """Get the Node at a path, None where there is nothing."""
        if self.nodes:
            path = self.place(path, follow)
            if path in self.nodes:
                return self.nodes[path]
            if self.hidden(path):
                return None
        for home, name in self.homes.items():
            # What is in a new home directory is up to the host's settings.
            if path == home or path.startswith(home + b"/"):
                raise Unknown("depends on the user %s, who does not exist yet" % name)
        try:
            found = os.stat(path) if follow else os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        node = Node(
            KINDS[stat.S_IFMT(found.st_mode)],
            stat.S_IMODE(found.st_mode),
            found.st_uid,
            found.st_gid,
        )
        node.size, node.mtime, node.ctime = found.st_size, found.st_mtime, found.st_ctime
        node.identity = (found.st_dev, found.st_ino)
        if node.kind == "symlink":
            node.target = os.readlink(path)
        return node

    def place(self, path, follow=False):
        """Find where a path leads in a dry run, by way of pretended and real symbolic links."""
        names = path.split(b"/")[::-1]
        found, links = b"/", 0
        while names:
            name = names.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                found = os.path.dirname(found)
                continue
            step = os.path.join(found, name)
            target = self.link_target(step) if names or follow else None
            if target is None:
                found = step
                continue
            links += 1
            if links > 40:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            names += target.split(b"/")[::-1]
            if target.startswith(b"/"):
                found = b"/"
        return found

    def link_target(self, path):
        """Where the symbolic link at a path points to; None: it is none."""
        if path in self.nodes:
            node = self.nodes[path]
            return node.target if node is not None else None
        if self.hidden(path):
            return None
        try:
            return os.readlink(path)
        except OSError:
            return None

    def hidden(self, path):
        """Whether a directory above a path is one that a dry run would have removed."""
        parent = os.path.dirname(path)
        while parent not in (b"/", b""):
            if parent in self.nodes:
                return self.nodes[parent] is None
            parent = os.path.dirname(parent)
        return False

    def read(self, path):
        """Get the content of a file; the pretended one in a dry run."""
        node = self.nodes.get(self.place(path, True)) if self.nodes else None
        if node is not None and node.content is not None:
            if node.content is NOT_KEPT:
                raise Unknown("depends on content that a dry run does not transfer")
            return node.content
        with open(path, "rb") as handle:
            return handle.read()

    def missing(self, message):
        """Something needed is not there: an error, or unknown when it may come in the real run."""
        if self.dry_run and self.opaque:
            raise Unknown("depends on " + self.opaque[-1])
        raise Failure(message)

    def uid(self, owner):
        """Find the number of a user; PENDING for one that a dry run would have created."""
        if isinstance(owner, int):
            return owner
        if owner in self.users:
            return PENDING if self.users[owner] else self.missing("there is no user " + owner)
        try:
            return pwd.getpwnam(owner).pw_uid
        except KeyError:
            if owner.isdigit():
                return int(owner)
            return self.missing("there is no user " + owner)

    def gid(self, group):
        """Find the number of a group; PENDING for one that a dry run would have created."""
        if isinstance(group, int):
            return group
        if group in self.groups:
            return PENDING if self.groups[group] else self.missing("there is no group " + group)
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            if group.isdigit():
                return int(group)
            return self.missing("there is no group " + group)

    # Content that is too large for a request ----------------------------------------------------

    def incoming(self, size):
        """Ask for content and yield it in pieces."""
        self.channel.send(("want", None, 0.0))
        self.expected = size
        while self.expected > 0:
            piece = self.channel.receive()
            if not piece:
                self.expected = 0
                raise Failure("the local file became shorter while it was read")
            self.expected -= len(piece)
            yield piece

    def drain(self):
        """Take the rest of the content from the wire when the operation failed meanwhile."""
        while self.expected > 0:
            piece = self.channel.receive()
            self.expected = self.expected - len(piece) if piece else 0


def user_name(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid):
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def text(data):
    return data.decode("utf-8", "replace")


def octal(mode):
    return "%04o" % mode


# Files ----------------------------------------------------------------------------------------


def attribute_changes(world, node, owner, group, mode):
    """Compare owner, group and mode of a Node (None: nothing there) with what is wanted."""
    changes: dict = {}
    if owner is not None and (node is None or node.uid != world.uid(owner)):
        changes["owner"] = (node and user_name(node.uid), str(owner))
    if group is not None and (node is None or node.gid != world.gid(group)):
        changes["group"] = (node and group_name(node.gid), str(group))
    if mode is not None and (node is None or node.mode != mode):
        changes["mode"] = (node and octal(node.mode), octal(mode))
    return changes


def mend_attributes(world, path, owner, group, mode):
    """Set owner, group and mode of what is there, never through a symbolic link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        own(world, descriptor, owner, group)
        if mode is not None:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def own(world, descriptor, owner, group):
    uid = -1 if owner is None else world.uid(owner)
    gid = -1 if group is None else world.gid(group)
    if uid != -1 or gid != -1:
        os.fchown(descriptor, uid, gid)


def pretend(world, path, kind, node, owner, group, mode, content=None, target=None):
    """Note in a dry run what the path would be from now on."""
    world.nodes[world.place(path)] = Node(
        kind,
        mode if mode is not None else node.mode if node else 0o644,
        world.uid(owner) if owner is not None else node.uid if node else os.geteuid(),
        world.gid(group) if group is not None else node.gid if node else os.getegid(),
        content,
        target,
    )


def make_parents(world, path):
    """Create the directories above a path that are missing, for everybody to read."""
    parent = os.path.dirname(path)
    node = world.look(parent, follow=True)
    if node is None:
        make_parents(world, parent)
        if world.dry_run:
            pretend(world, parent, "directory", None, None, None, 0o755)
        else:
            os.mkdir(parent)
            os.chmod(parent, 0o755)  # noqa: S103 - for everybody to read
    elif node.kind != "directory":
        raise Failure("%s is not a directory" % text(parent))
    else:
        return node
    return world.look(parent, follow=True)


def need_parent(world, path):
    node = world.look(os.path.dirname(path), follow=True)
    if node is None:
        world.missing("the directory %s does not exist" % text(os.path.dirname(path)))
    elif node.kind != "directory":
        raise Failure("%s is not a directory" % text(os.path.dirname(path)))
    return node


def resolved(world, path):
    """Follow symbolic links to the path that is to be written."""
    for _ in range(40):
        node = world.look(path)
        if node is None or node.kind != "symlink":
            return path
        path = os.path.normpath(os.path.join(os.path.dirname(path), node.target))
    raise Failure("too many levels of symbolic links")


def open_directory(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def collect_temporaries(world, directory, name):
    """Remove what killed runs left in a directory; the lock of the host keeps living ones out."""
    if name in world.cleaned:
        return
    world.cleaned.add(name)
    for entry in os.listdir(directory):
        entry = os.fsencode(entry)
        if entry.startswith(TEMPORARY):
            os.unlink(entry, dir_fd=directory)


def temporary_name(path):
    # The extension is kept because programs that validate a file look at it.
    extension = os.path.splitext(os.path.basename(path))[1]
    return TEMPORARY + os.urandom(8).hex().encode() + extension[:32]


def write_all(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_temporary(world, directory, path, pieces, owner, group, mode, sync=True):
    """Write the new content beside a file, complete with owner and mode; the name of it."""
    collect_temporaries(world, directory, os.path.dirname(path))
    temporary = temporary_name(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        for piece in pieces:
            write_all(descriptor, piece)
        own(world, descriptor, owner, group)
        os.fchmod(descriptor, mode)
        if sync:
            os.fsync(descriptor)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)
    return temporary


def replace_file(world, path, pieces, owner, group, mode, validate=None):
    """Write a file whole or not at all; say so when only writing in place was possible."""
    directory = open_directory(os.path.dirname(path))
    try:
        temporary = write_temporary(world, directory, path, pieces, owner, group, mode)
        try:
            if validate:
                parent = os.path.dirname(path)
                validate_file(world, validate, os.path.join(parent, temporary))
            note = move_over(directory, temporary, path)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)
        return note
    finally:
        os.close(directory)


def move_over(directory, temporary, path):
    name = os.path.basename(path)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return ""
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
    # A file that a container engine mounted (/etc/hosts) can be written but not replaced.
    source = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    wanted = os.fstat(source)
    target = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with open(source, "rb") as reader, open(target, "wb") as writer:
        os.ftruncate(target, 0)
        for piece in iter(lambda: reader.read(1 << 20), b""):
            writer.write(piece)
        writer.flush()
        os.fchown(target, wanted.st_uid, wanted.st_gid)
        os.fchmod(target, stat.S_IMODE(wanted.st_mode))
        os.fsync(target)
    os.unlink(temporary, dir_fd=directory)
    return "written in place because it is a mount point"


def validate_file(world, command, path):
    words = [path if word == b"%s" else word.replace(b"%s", path) for word in command]
    done = run(world, words)
    if done["returncode"]:
        done["command"] = [os.fsdecode(word) for word in words]
        raise Failure("the new content was refused, nothing was replaced", result=done)


def checksum(world, path):
    import zlib

    value = 0
    with open(path, "rb") as handle:
        for piece in iter(lambda: handle.read(1 << 20), b""):
            value = zlib.crc32(piece, value)
    return value


def digest(path):
    import hashlib

    value = hashlib.sha256()
    with open(path, "rb") as handle:
        for piece in iter(lambda: handle.read(1 << 20), b""):
            value.update(piece)
    return value.digest()


def op_file(
    world,
    path,
    content=None,
    size=None,
    sha256=None,
    owner=None,
    group=None,
    mode=None,
    state="present",
    validate=None,
    backup=False,
    follow=False,
    parents=False,
    hide=False,
):
    """Bring a file into a state; ``size`` without content: it is sent when it is needed."""
    if follow:
        path = resolved(world, path)
    delayed = world.delayed
    if delayed is not None and delayed.touches(path):
        delayed.commit(keep_lock=True)
    node = world.look(path)
    if node is not None and node.kind == "directory":
        raise Failure("it is a directory")
    if state == "absent":
        return remove_file(world, path, node)
    if node is not None and node.kind not in ("file", "symlink"):
        raise Failure("it is a " + node.kind)
    if delayed is None or os.path.dirname(path) not in delayed.directories:
        (make_parents if parents else need_parent)(world, path)
    there = node if node is not None and node.kind == "file" else None
    before = None
    if content is None and size is None and there is None:
        content = b""
    if content is not None:
        size = len(content)
    differs = there is None
    if there is not None and size is not None:
        if content is not None and there.size <= max(size, LONGEST_DIFF):
            before = world.read(path)
            differs = before != content
        else:
            differs = there.size != size or digest(path) != sha256
    changes = attribute_changes(world, there, owner, group, mode)
    if node is not None and there is None:
        changes["type"] = (node.kind, "file")
    if differs:
        changes["content"] = (None if there is None else "%d bytes" % there.size, "%d bytes" % size)
    if not changes:
        return {"changed": False}
    if there is None:
        mode = 0o644 if mode is None else mode
    answer = {"changed": True, "changes": changes}
    if world.diff and differs and not hide and content is not None:
        answer["before"], answer["after"] = before or b"", content
    if world.dry_run:
        new = content
        if content is None:
            new = NOT_KEPT if differs or there is None else there.content
        pretend(world, path, "file", there, owner, group, mode, new)
        return answer
    if not differs:
        mend_attributes(world, path, owner, group, mode)
    else:
        if there is not None:
            owner = there.uid if owner is None else owner
            group = there.gid if group is None else group
            mode = there.mode if mode is None else mode
            if backup:
                keep_backup(world, path, there)
                changes["backup"] = (None, text(backup_name(path)))
        if delayed is not None and content is not None and validate is None:
            delayed.add(path, content, owner, group, mode, answer)
            return answer
        if delayed is not None:
            delayed.commit(keep_lock=True)
        pieces = [content] if content is not None else world.incoming(size)
        answer["reason"] = replace_file(
            world, path, counted(pieces, answer), owner, group, mode, validate
        )
    verify_file(world, path, content, answer.pop("crc", None), owner, group, mode)
    return answer


def counted(pieces, answer):
    """Pass pieces on and keep their checksum for the moment when the file is read again."""
    import zlib

    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
        yield piece
    answer["crc"] = value


def verify_file(world, path, content, crc, owner, group, mode):
    node = world.look(path)
    if node is None or node.kind != "file":
        raise Failure("it was written and is gone again")
    changes = attribute_changes(world, node, owner, group, mode)
    if content is not None and len(content) <= INLINE:
        same = node.size == len(content) and world.read(path) == content
    else:
        same = crc is None or checksum(world, path) == crc
    if changes or not same:
        raise Failure(
            "after the change it still differs in "
            + ", ".join([*changes, *([] if same else ["content"])])
        )


def backup_name(path):
    return os.path.join(os.path.dirname(path), b"." + os.path.basename(path) + b".bak")


def keep_backup(world, path, node):
    with open(path, "rb") as handle:
        pieces = iter(lambda: handle.read(1 << 20), b"")
        replace_file(world, backup_name(path), pieces, node.uid, node.gid, node.mode)


def remove_file(world, path, node):
    if node is None:
        if world.dry_run and world.opaque:
            raise Unknown("depends on " + world.opaque[-1])
        return {"changed": False}
    if world.dry_run:
        world.nodes[world.place(path)] = None
    else:
        os.unlink(path)
        if world.look(path) is not None:
            raise Failure("it was removed and is there again")
    return {"changed": True, "changes": {"state": ("present", "absent")}}


def op_directory(world, path, owner=None, group=None, mode=None, state="present", recurse=False):
    node = world.look(path)
    if state == "absent":
        return remove_directory(world, path, node, recurse)
    if node is not None and node.kind == "symlink":
        node = world.look(path, follow=True)
        if node is None or node.kind != "directory":
            raise Failure("it is a symbolic link, and not to a directory")
        path = world.place(path, follow=True)
    elif node is not None and node.kind != "directory":
        raise Failure("it is a " + node.kind)
    changes = attribute_changes(world, node, owner, group, mode)
    if node is None:
        changes = {"state": ("absent", "directory"), **changes}
        mode = 0o755 if mode is None else mode
    below = []
    if recurse and node is not None and (owner is not None or group is not None):
        below = foreign_entries(world, path, owner, group)
        if below:
            changes["below"] = (None, "%d entries" % len(below))
    if not changes:
        return {"changed": False}
    if world.dry_run:
        make_parents(world, path)
        pretend(world, path, "directory", node, owner, group, mode)
        return {"changed": True, "changes": changes}
    if node is None:
        make_parents(world, path)
        os.mkdir(path)
    mend_attributes(world, path, owner, group, mode)
    for entry in below:
        os.chown(
            entry,
            -1 if owner is None else world.uid(owner),
            -1 if group is None else world.gid(group),
            follow_symlinks=False,
        )
    left = attribute_changes(world, world.look(path), owner, group, mode)
    if left or (below and foreign_entries(world, path, owner, group)):
        raise Failure(
            "after the change it still differs in " + ", ".join(left or ["what is below"])
        )
    return {"changed": True, "changes": changes}


def foreign_entries(world, path, owner, group):
    uid = None if owner is None else world.uid(owner)
    gid = None if group is None else world.gid(group)
    found = []
    for parent, directories, files in os.walk(path):
        for name in directories + files:
            entry = os.path.join(parent, name)
            status = os.lstat(entry)
            if (uid is not None and status.st_uid != uid) or (
                gid is not None and status.st_gid != gid
            ):
                found.append(entry)
    return found


def remove_directory(world, path, node, recurse):
    if node is None:
        if world.dry_run and world.opaque:
            raise Unknown("depends on " + world.opaque[-1])
        return {"changed": False}
    if node.kind != "directory":
        raise Failure("it is a " + node.kind)
    if not recurse and (world.nodes or os.listdir(path)) and not empty(world, path):
        raise Failure("it is not empty; recurse=True removes what is in it, too")
    if world.dry_run:
        path = world.place(path)
        world.nodes = {
            name: value for name, value in world.nodes.items() if not name.startswith(path + b"/")
        }
        world.nodes[path] = None
    elif recurse:
        import shutil

        shutil.rmtree(path)
    else:
        os.rmdir(path)
    if world.look(path) is not None:
        raise Failure("it was removed and is there again")
    return {"changed": True, "changes": {"state": ("directory", "absent")}}


def empty(world, path):
    path = world.place(path)
    entries: set = set()
    if os.path.isdir(path):
        entries.update(os.path.join(path, name) for name in os.listdir(path))
    for name, node in world.nodes.items():
        if os.path.dirname(name) == path:
            (entries.discard if node is None else entries.add)(name)
    return not entries


def op_symlink(world, path, target, state="present", force=False):
    node = world.look(path)
    if node is not None and node.kind != "symlink" and (state == "absent" or not force):
        raise Failure("it is a %s, not a symbolic link" % node.kind)
    if state == "absent":
        return remove_file(world, path, node)
    if node is not None and node.kind == "directory":
        raise Failure("it is a directory")
    need_parent(world, path)
    if node is not None and node.kind == "symlink" and node.target == target:
        return {"changed": False}
    before = None if node is None else text(node.target) if node.target else node.kind
    answer = {"changed": True, "changes": {"target": (before, text(target))}}
    if world.dry_run:
        pretend(world, path, "symlink", None, None, None, 0o777, target=target)
        return answer
    directory = open_directory(os.path.dirname(path))
    try:
        collect_temporaries(world, directory, os.path.dirname(path))
        temporary = temporary_name(path)
        os.symlink(target, temporary, dir_fd=directory)
        try:
            os.rename(temporary, os.path.basename(path), src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)
    if os.readlink(path) != target:
        raise Failure("after the change it points to %s" % text(os.readlink(path)))
    return answer


def op_line(
    world,
    path,
    line,
    match=None,
    after=None,
    state="present",
    create=False,
    follow=False,
    hide=False,
):
    if follow:
        path = resolved(world, path)
    node = world.look(path)
    if node is None:
        if state == "absent":
            return remove_file(world, path, None)
        if not create:
            world.missing("the file does not exist; create=True creates it")
        content = b""
    elif node.kind != "file":
        raise Failure("it is a " + node.kind)
    else:
        content = world.read(path)
    ends = content.endswith(b"\n") or not content
    lines = content.split(b"\n")
    if ends:
        lines.pop()
    if state == "absent":
        kept = [item for item in lines if item != line and not (match and re.search(match, item))]
    else:
        kept = with_line(lines, line, match, after)
    if kept == lines:
        return {"changed": False} if node is not None else op_file(world, path, b"")
    new = b"\n".join(kept) + (b"\n" if kept and (ends or kept[-1] == line) else b"")
    answer = op_file(world, path, new, hide=hide)
    answer["changes"].pop("content", None)
    shown = "********" if hide else text(line)
    answer["changes"]["line"] = (shown, None) if state == "absent" else (None, shown)
    return answer


def with_line(lines, line, match, after):
    """Replace the last line that matches, else insert the line where it belongs."""
    matching = [i for i, item in enumerate(lines) if match and re.search(match, item)]
    if matching:
        return [*lines[: matching[-1]], line, *lines[matching[-1] + 1 :]]
    if line in lines:
        return lines
    places = [i for i, item in enumerate(lines) if after and re.search(after, item)]
    place = places[-1] + 1 if places else len(lines)
    return [*lines[:place], line, *lines[place:]]


# Commands -------------------------------------------------------------------------------------


def decode_words(words):
    return [word if isinstance(word, bytes) else word.encode() for word in words]


def run(world, words, input=b"", env=None, timeout=None, live=False, capture=False):
    """Run a command; its output is sent while it runs, kept, or its end is kept."""
    import selectors

    started = time.monotonic()
    ends = [started + timeout] if timeout is not None else []
    if world.deadline is not None:
        ends.append(world.deadline)
    deadline = min(ends) if ends else float("inf")
    environment = dict(os.environb)
    for name, value in (env or {}).items():
        environment[os.fsencode(name)] = os.fsencode(value)
    process = subprocess.Popen(
        decode_words(words),
        stdin=subprocess.PIPE if input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        cwd=home_directory(),
    )
    limit = LONGEST_CAPTURE if capture else LONGEST_TAIL
    kept = {"out": bytearray(), "err": bytearray()}
    try:
        with selectors.DefaultSelector() as selector:
            watch(selector, process, input)
            pump(world, selector, process, kept, deadline, live, limit, capture)
        process.wait(max(0.01, deadline - time.monotonic()) if deadline < 1e300 else None)
    except (Hung, subprocess.TimeoutExpired):
        kill_group(process)
        return outcome(process, kept, started, hung=True)
    except BaseException:
        kill_group(process)
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                try:
                    stream.close()
                except OSError:
                    pass
    return outcome(process, kept, started)


def outcome(process, kept, started, hung=False):
    return {
        "returncode": process.returncode,
        "stdout": bytes(kept["out"]),
        "stderr": bytes(kept["err"]),
        "seconds": time.monotonic() - started,
        "hung": hung,
    }


def home_directory():
    for directory in (os.environ.get("HOME"), "/"):
        if directory and os.path.isdir(directory):
            return directory
    return None


def kill_group(process):
    import signal

    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def watch(selector, process, input):
    import selectors

    for stream, name in ((process.stdout, "out"), (process.stderr, "err")):
        os.set_blocking(stream.fileno(), False)
        selector.register(stream, selectors.EVENT_READ, name)
    if input:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE, memoryview(input))


def pump(world, selector, process, kept, deadline, live, limit, capture):
    """Move bytes until all pipes are closed, or the command ended and left them to a daemon."""
    ended = None
    while selector.get_map():
        now = time.monotonic()
        if now >= deadline:
            raise Hung
        if ended is not None and now > ended + 0.2:
            return
        for key, _ in selector.select(min(0.1, deadline - now)):
            if isinstance(key.data, memoryview):
                feed(selector, key)
                continue
            data = os.read(key.fileobj.fileno(), 65536)
            if not data:
                selector.unregister(key.fileobj)
                continue
            if live:
                world.channel.send((key.data, data))
            buffer = kept[key.data]
            buffer += data
            if len(buffer) > limit:
                if capture:
                    raise Failure("the command printed more than %d MiB" % (limit >> 20))
                del buffer[:-limit]
        if ended is None and process.poll() is not None:
            ended = time.monotonic()


def feed(selector, key):
    try:
        count = os.write(key.fileobj.fileno(), key.data[:65536])
    except BlockingIOError:
        return
    except BrokenPipeError:
        count = len(key.data)
    selector.unregister(key.fileobj)
    if count < len(key.data):
        import selectors

        selector.register(key.fileobj, selectors.EVENT_WRITE, key.data[count:])
    else:
        key.fileobj.close()


def checked(world, words, what, env=None, input=b""):
    """Run a command of an operation; its failure is the operation's."""
    try:
        done = run(world, words, env=env, input=input)
    except FileNotFoundError:
        raise Failure("%s: the program %s is not installed" % (what, words[0])) from None
    if done["returncode"]:
        done["command"] = [os.fsdecode(word) for word in words]
        raise Failure(what, result=done)
    return done


def shell():
    try:
        found = pwd.getpwuid(os.geteuid()).pw_shell
    except KeyError:
        found = ""
    return found or "/bin/sh"


def op_execute(world, words=None, script=None, input=b"", env=None, timeout=None, capture=False):
    words = words if script is None else [shell(), b"-c", script]
    try:
        return run(world, words, input, env, timeout, live=not capture, capture=capture)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        # The statuses a shell gives: found but not executable, not found.
        code = 126 if isinstance(error, PermissionError) else 127
        message = "%s: %s" % (text(decode_words(words)[0]), error.strerror)
        return {
            "returncode": code,
            "stdout": b"",
            "stderr": message.encode(),
            "seconds": 0.0,
            "hung": False,
        }


def op_command(
    world,
    words=None,
    script=None,
    creates=None,
    unless=None,
    only_if=None,
    input=b"",
    env=None,
    timeout=None,
    title="",
):
    """Run a command unless its effect is there; the escape hatch."""
    shown = "the command " + title
    if creates is not None:
        if world.look(creates, follow=True) is not None:
            return {"changed": False}
        if world.dry_run and world.opaque:
            reason = "depends on " + world.opaque[-1]
            world.opaque.append(shown)
            return {"changed": None, "reason": reason}
    for guard, skip_when in ((unless, True), (only_if, False)):
        if guard is None:
            continue
        if world.dry_run and world.opaque:
            reason = "depends on " + world.opaque[-1]
            world.opaque.append(shown)
            return {"changed": None, "reason": reason}
        if world.dry_run:
            # Nobody can promise that a check changes nothing, so a dry run does not run it.
            world.opaque.append(shown)
            return {"changed": None, "reason": "a dry run does not run the check"}
        done = op_execute(world, **guard, timeout=timeout, capture=True)
        if done["hung"]:
            raise Failure("the check before the command", result=done)
        if (done["returncode"] == 0) == skip_when:
            return {"changed": False}
    if world.dry_run:
        world.opaque.append(shown)
        return {"changed": True, "changes": {"command": (None, "would run")}}
    done = op_execute(world, words, script, input, env, timeout, capture=True)
    answer = {"changed": True, "changes": {"command": (None, "ran")}, "result": done}
    if done["hung"] or done["returncode"]:
        raise Failure("", result=done)
    if creates is not None and world.look(creates, follow=True) is None:
        raise Failure("the command succeeded but did not create " + text(creates), result=done)
    return answer


# Packages -------------------------------------------------------------------------------------

NOT_FOUND = (b"Unable to locate package", b"has no installation candidate", b"was not found")
DPKG_STATUS = "/var/lib/dpkg/status"


def need_apt():
    import shutil

    if not shutil.which("apt-get"):
        raise Failure("there is no apt-get: only Debian and its derivatives are supported")


class PackageDatabase:
    """dpkg's status file, read without starting a process and kept while it does not change."""

    def __init__(self):
        self.stamp = None
        self.data = b""

    def installed(self, name):
        """Find the installed versions of a package: {architecture: version}."""
        if os.path.exists("/var/lib/dpkg/updates") and os.listdir("/var/lib/dpkg/updates"):
            return self.ask_dpkg(name)
        try:
            status = os.stat(DPKG_STATUS)
        except FileNotFoundError:
            return {}
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self.stamp:
            with open(DPKG_STATUS, "rb") as handle:
                self.data = b"\n" + handle.read()
            self.stamp = stamp
        found = {}
        start = self.data.find(b"\nPackage: %s\n" % name.encode())
        while start >= 0:
            end = self.data.find(b"\n\n", start)
            paragraph = self.data[start : end if end >= 0 else len(self.data)]
            if re.search(rb"\nStatus: \S+ \S+ installed(?=\n|$)", paragraph):
                fields = dict(re.findall(rb"\n(Version|Architecture): (.*)", paragraph))
                found[fields[b"Architecture"].decode()] = fields[b"Version"].decode()
            start = self.data.find(b"\nPackage: %s\n" % name.encode(), start + 1)
        return found

    def ask_dpkg(self, name):
        # A dpkg that was killed left a journal which only dpkg can read.
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Architecture} ${Version}\n", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        rows = [line.split() for line in done.stdout.decode().splitlines()]
        return {row[1]: row[2] for row in rows if row and row[0] == "installed"}


database = PackageDatabase()


def split_package(name):
    rest, _, version = name.partition("=")
    bare, _, architecture = rest.partition(":")
    return bare, architecture, version


def installed_version(world, name):
    """Get the version of a package, None when it is not installed (as asked for)."""
    bare, architecture, _ = split_package(name)
    if bare in world.packages:
        return world.packages[bare]
    versions = database.installed(bare)
    if architecture:
        return versions.get(architecture, versions.get("all"))
    return next(iter(versions.values()), None)


def cache_is_old(seconds):
    lists = "/var/lib/apt/lists"
    try:
        if not any(name.endswith(("Packages", "Packages.lz4")) for name in os.listdir(lists)):
            return True
        newest = max(
            os.stat(path).st_mtime
            for path in (lists, lists + "/partial", "/var/lib/apt/periodic/update-success-stamp")
            if os.path.exists(path)
        )
    except FileNotFoundError:
        return True
    return seconds is not None and abs(time.time() - newest) > seconds


def update_cache(world):
    checked(
        world,
        [*APT, *APT_CHANGE, "-o", "APT::Update::Error-Mode=any", "update"],
        "apt-get update failed",
        APT_ENVIRONMENT,
    )


def simulate(world, *arguments):
    """Let apt say what it would do: {package: (version before, version after)}, or None."""
    done = run(world, [*APT, *APT_SIMULATE, *arguments], env=APT_ENVIRONMENT)
    if done["returncode"]:
        if any(phrase in done["stderr"] + done["stdout"] for phrase in NOT_FOUND):
            return None
        done["command"] = ["apt-get", *arguments]
        raise Failure("apt cannot find a way", result=done)
    plan = {}
    for line in text(done["stdout"]).splitlines():
        match = re.match(r"Inst (\S+)(?: \[([^]]+)\])? \((\S+)", line)
        if match:
            plan[match.group(1)] = (match.group(2), match.group(3))
        match = re.match(r"(?:Remv|Purg) (\S+)(?: \[([^]]+)\])?", line)
        if match:
            plan[match.group(1)] = (match.group(2) or "installed", None)
    return plan


def op_packages(world, names, state="present", update_cache_after=3600, recommends=False):
    def wrong(name):
        version = installed_version(world, name)
        wanted = split_package(name)[2]
        if state == "absent":
            return version is not None
        return version is None or bool(wanted and version != wanted)

    before = {name: installed_version(world, name) for name in names}
    pending = [name for name in names if wrong(name)]
    if state == "latest":
        pending = list(names)
    if not pending:
        return {"changed": False}
    need_apt()
    verb = "remove" if state == "absent" else "install"
    options = (
        []
        if state == "absent"
        else ["--install-recommends" if recommends else "--no-install-recommends"]
    )
    allow = ["--allow-downgrades"] if any("=" in name for name in pending) else []
    arguments = [*options, *allow, verb, "--", *pending]
    if world.dry_run:
        return predict_packages(world, names, state, pending, arguments)
    if state != "absent" and cache_is_old(update_cache_after):
        update_cache(world)
    if state == "latest" and not simulate(world, *arguments):
        return {"changed": False}
    done = run(world, [*APT, *APT_CHANGE, *arguments], env=APT_ENVIRONMENT)
    if done["returncode"] and any(p in done["stderr"] + done["stdout"] for p in NOT_FOUND):
        update_cache(world)
        done = run(world, [*APT, *APT_CHANGE, *arguments], env=APT_ENVIRONMENT)
    if done["returncode"]:
        done["command"] = ["apt-get", *arguments]
        raise Failure("apt-get failed", result=done)
    after = {name: installed_version(world, name) for name in names}
    left = [name for name in names if wrong(name)]
    if left:
        raise Failure(
            "apt-get succeeded, but %s still %s as wanted (a virtual package? name a real one)"
            % (", ".join(left), "is not" if len(left) == 1 else "are not")
        )
    changes = {name: (before[name], after[name]) for name in names if before[name] != after[name]}
    return {"changed": bool(changes), "changes": changes}


def predict_packages(world, names, state, pending, arguments):
    # What an unmade change adds (a repository, a package list) is not known to apt.
    blind = any(item.startswith("the repository") for item in world.opaque)
    plan = None if blind else simulate(world, *arguments)
    if state == "latest" and plan is not None and not plan:
        return {"changed": False}
    reason = ""
    if plan is None:
        if blind and state == "latest":
            raise Unknown("depends on " + world.opaque[-1])
        plan, reason = {}, "the version is not known before the package lists are refreshed"
    changes: dict = {}
    for name in pending:
        bare = split_package(name)[0]
        old, new = plan.get(bare, (installed_version(world, name), "?"))
        if state == "absent":
            new = None
        changes[name] = (old, new)
        world.packages[bare] = new
    world.opaque.append("packages %s, which a dry run does not touch" % " ".join(pending))
    others = sorted(set(plan) - {split_package(name)[0] for name in pending})
    answer = {"changed": True, "changes": changes, "reason": reason}
    if others:
        answer["reason"] = "together with " + " ".join(others)
    return answer


def op_update_system_packages(world):
    need_apt()
    if not world.dry_run:
        update_cache(world)
    plan = simulate(world, "dist-upgrade")
    if not plan:
        answer: dict = {"changed": False}
        if world.dry_run:
            answer["reason"] = "as far as the present package lists say"
        return answer
    if world.dry_run:
        world.opaque.append("the upgrade of packages")
    else:
        checked(
            world,
            [*APT, *APT_CHANGE, "dist-upgrade"],
            "apt-get dist-upgrade failed",
            APT_ENVIRONMENT,
        )
        left = simulate(world, "dist-upgrade")
        if left:
            raise Failure("apt-get succeeded, but would still upgrade " + " ".join(sorted(left)))
    return {"changed": True, "changes": plan}


def op_apt_repository(world, name, content, state="present"):
    path = b"/etc/apt/sources.list.d/" + name.encode() + b".sources"
    need_apt()
    validate = [
        *(word.encode() for word in (*APT, *APT_CHANGE)),
        b"-o", b"APT::Update::Error-Mode=any",
        b"-o", b"APT::Get::List-Cleanup=0",
        b"-o", b"Dir::Etc::sourceparts=-",
        b"-o", b"Dir::Etc::sourcelist=%s",
        b"update",
    ]  # fmt: skip
    answer = op_file(world, path, content, state=state, mode=0o644, validate=validate)
    if answer["changed"] and world.dry_run:
        world.opaque.append("the repository " + name)
    return answer


# Users and groups -----------------------------------------------------------------------------


def find_group(world, name):
    if name in world.groups:
        return world.groups[name]
    try:
        found = grp.getgrnam(name)
    except KeyError:
        return None
    return {"gid": found.gr_gid, "members": list(found.gr_mem)}


def op_group(world, name, gid=None, system=False, state="present"):
    def compare():
        found = find_group(world, name)
        if state == "absent":
            return {} if found is None else {"state": ("present", "absent")}
        if found is None:
            return {
                "state": ("absent", "present"),
                **({"gid": (None, gid)} if gid is not None else {}),
            }
        return {} if gid in (None, found["gid"]) else {"gid": (found["gid"], gid)}

    changes = compare()
    if not changes:
        if state == "absent" and world.dry_run and world.opaque:
            raise Unknown("depends on " + world.opaque[-1])
        return {"changed": False}
    if world.dry_run:
        world.groups[name] = None if state == "absent" else {"gid": gid or PENDING, "members": []}
        return {"changed": True, "changes": changes}
    if state == "absent":
        words = ["groupdel", name]
    else:
        words = ["groupadd" if "state" in changes else "groupmod"]
        words += ["--gid", str(gid)] if gid is not None else []
        words += ["--system"] if system and "state" in changes else []
        words.append(name)
    checked(world, words, words[0] + " failed")
    if compare():
        raise Failure("after the change it still differs in " + ", ".join(compare()))
    return {"changed": True, "changes": changes}


def password_of(name):
    try:
        with open("/etc/shadow", encoding="utf-8", errors="surrogateescape") as handle:
            for line in handle:
                fields = line.split(":")
                if fields[0] == name:
                    return fields[1]
    except FileNotFoundError:
        pass
    return None


def find_user(world, name):
    if name in world.users:
        return world.users[name]
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return {
        "uid": found.pw_uid,
        "gid": found.pw_gid,
        "home": found.pw_dir,
        "shell": found.pw_shell,
        "groups": [group.gr_name for group in grp.getgrall() if name in group.gr_mem],
    }


def op_user(
    world,
    name,
    uid=None,
    group=None,
    groups=(),
    home=None,
    shell=None,
    system=False,
    password_hash=None,
    authorized_keys=None,
    state="present",
):
    wanted = {"uid": uid, "home": home, "shell": shell}

    def compare():
        found = find_user(world, name)
        if state == "absent":
            return {} if found is None else {"state": ("present", "absent")}
        changes: dict = {}
        if found is None:
            changes["state"] = ("absent", "present")
        for key, value in wanted.items():
            if value is not None and (found is None or found[key] != value):
                changes[key] = (found and found[key], value)
        if group is not None and (found is None or found["gid"] != world.gid(group)):
            changes["group"] = (found and group_name(found["gid"]), group)
        present = found["groups"] if found else []
        missing = [item for item in groups if item not in present]
        if missing:
            for item in missing:
                world.gid(item)
            changes["groups"] = (None, "+" + ",".join(missing))
        if password_hash is not None and (
            found is None or current_password(found) != password_hash
        ):
            changes["password"] = (None, "changed")
        return changes

    def current_password(found):
        return found["password"] if "password" in found else password_of(name)

    changes = compare()
    if state == "absent" and not changes and world.dry_run and world.opaque:
        raise Unknown("depends on " + world.opaque[-1])
    keys_changed = False
    if changes and world.dry_run:
        pretend_user(world, name, state, wanted, groups, password_hash, system)
    elif changes:
        change_user(world, name, changes, wanted, group, system, password_hash)
        if compare():
            raise Failure("after the change it still differs in " + ", ".join(compare()))
    if authorized_keys is not None and state == "present":
        keys_changed = authorize(world, name, authorized_keys)
        if keys_changed:
            changes["authorized_keys"] = (None, "%d lines" % len(authorized_keys.splitlines()))
    return {"changed": bool(changes), "changes": changes}


def pretend_user(world, name, state, wanted, groups, password_hash, system):
    if state == "absent":
        world.users[name] = None
        return
    new = find_user(world, name) is None
    found = find_user(world, name) or {
        "uid": PENDING,
        "gid": PENDING,
        "home": "/home/" + name,
        "shell": "",
        "groups": [],
    }
    if password_hash is not None:
        found["password"] = password_hash
    found = {**found, **{key: value for key, value in wanted.items() if value is not None}}
    found["groups"] = sorted({*found["groups"], *groups})
    world.users[name] = found
    home = os.fsencode(found["home"])
    if new and not system and world.look(home) is None:
        world.homes[home] = name
    # Whoever creates a user creates a group of that name, unless another one was asked for.
    world.groups.setdefault(name, {"gid": PENDING, "members": []})


def change_user(world, name, changes, wanted, group, system, password_hash):
    if changes.get("state") == ("present", "absent"):
        checked(world, ["userdel", name], "userdel failed")
        return
    new = "state" in changes
    words = ["useradd"] if new else ["usermod"]
    for option, key in (("--uid", "uid"), ("--shell", "shell")):
        if key in changes:
            words += [option, str(wanted[key])]
    if "home" in changes:
        words += ["--home-dir" if new else "--home", wanted["home"]]
    if "group" in changes:
        words += ["--gid", str(group)]
    elif new and find_group(world, name):
        words += ["--gid", name]
    if "groups" in changes:
        words += [*([] if new else ["--append"]), "--groups", changes["groups"][1][1:]]
    if new:
        words += ["--system"] if system else []
        words += ["--no-create-home"] if system else ["--create-home"]
    if len(words) > 1:
        checked(world, [*words, name], words[0] + " failed")
    if "password" in changes:
        # Not an argument of useradd: everybody could read it there.
        line = "%s:%s\n" % (name, password_hash)
        checked(world, ["chpasswd", "--encrypted"], "chpasswd failed", input=line.encode())


def authorize(world, name, content):
    """Write a user's authorized_keys without trusting what the user made of the directory."""
    found = find_user(world, name)
    home = os.fsencode(found["home"])
    directory = os.path.join(home, b".ssh")
    path = os.path.join(directory, b"authorized_keys")
    pending = world.dry_run and found["uid"] == PENDING
    if pending and home in world.homes:
        return True
    if world.look(home, follow=True) is None:
        raise Failure("the home directory %s does not exist" % text(home))
    for place, kind in ((directory, "directory"), (path, "file")):
        node = world.look(place)
        if node is not None and node.kind != kind:
            raise Failure("%s is a %s" % (text(place), node.kind))
    owner, group = (name, None) if pending else (found["uid"], found["gid"])
    changed = op_directory(world, directory, owner, group, 0o700)["changed"]
    answer = op_file(world, path, content, owner=owner, group=group, mode=0o600)
    return changed or answer["changed"]


# Services -------------------------------------------------------------------------------------


class Supervisor:
    """The services of a running supervisord, asked over its socket."""

    name = "supervisor"
    configurations = ("/etc/supervisor/supervisord.conf", "/etc/supervisord.conf")

    def __init__(self):
        self.socket, self.login = "/var/run/supervisor.sock", None
        for path in self.configurations:
            if os.path.exists(path):
                self.configure(path)
                break

    def configure(self, path):
        with open(path, encoding="utf-8", errors="replace") as handle:
            section = re.search(
                r"^\[unix_http_server\]\n((?:(?!\[).*(?:\n|$))*)", handle.read(), re.MULTILINE
            )
        options = (
            dict(re.findall(r"^(\w+)\s*=\s*([^;\n]*?)\s*(?:;.*)?$", section.group(1), re.M))
            if section
            else {}
        )
        self.socket = options.get("file", self.socket)
        if "username" in options:
            self.login = "%s:%s" % (options["username"], options.get("password", ""))

    def present(self):
        import socket

        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(5)
                probe.connect(self.socket)
            return True
        except OSError:
            return False

    def call(self, method, *arguments, timeout=60):
        """Call a method; XML-RPC by hand, as the standard library's costs 25 ms to import."""
        from xml.etree import ElementTree
        from xml.sax.saxutils import escape

        values = "".join(
            "<param><value>%s</value></param>"
            % (
                "<boolean>%d</boolean>" % a
                if isinstance(a, bool)
                else "<int>%d</int>" % a
                if isinstance(a, int)
                else "<string>%s</string>" % escape(a)
            )
            for a in arguments
        )
        body = "<methodCall><methodName>%s</methodName><params>%s</params></methodCall>"
        answer = self.post(("<?xml version='1.0'?>" + body % (method, values)).encode(), timeout)
        answer = ElementTree.fromstring(answer)  # noqa: S314 - from root's own socket
        fault = answer.find("fault/value")
        if fault is not None:
            raise SupervisorFault(decode_xml(fault))
        return decode_xml(answer.find("params/param/value"))

    def post(self, body, timeout):
        import base64
        import socket

        head = "POST /RPC2 HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/xml\r\n"
        if self.login:
            head += "Authorization: Basic %s\r\n" % base64.b64encode(self.login.encode()).decode()
        head += "Content-Length: %d\r\n\r\n" % len(body)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self.socket)
            connection.sendall(head.encode() + body)
            data = b""
            length = None
            while length is None or len(data) < length:
                piece = connection.recv(65536)
                if not piece:
                    break
                data += piece
                if length is None and b"\r\n\r\n" in data:
                    found = re.search(rb"(?i)content-length: (\d+)", data)
                    length = (
                        data.index(b"\r\n\r\n") + 4 + (int(found.group(1)) if found else 1 << 40)
                    )
        status = data.split(b"\r\n", 1)[0]
        if b" 200 " not in status + b" ":
            raise Failure("supervisord answers: " + text(status))
        return data.partition(b"\r\n\r\n")[2]

    def info(self, name):
        try:
            return self.call("supervisor.getProcessInfo", name)
        except SupervisorFault as fault:
            if fault.code == 10:
                return None
            raise

    def knows(self, name):
        return self.info(name) is not None or self.configured(name)

    def configured(self, name):
        """Whether a file that supervisord has not read yet describes the program."""
        wanted = re.compile(
            rb"^\[(?:program|group|fcgi-program|eventlistener):%s\]" % re.escape(name.encode()),
            re.M,
        )
        import glob

        for path in glob.glob("/etc/supervisor/conf.d/*.conf"):
            with open(path, "rb") as handle:
                if wanted.search(handle.read()):
                    return True
        return False

    def running(self, name):
        info = self.info(name)
        return info is not None and info["statename"] in ("RUNNING", "STARTING")

    def undecided(self, name):
        """Whether supervisord still waits to see if the program stays."""
        info = self.info(name)
        return info is not None and info["statename"] in ("STARTING", "STOPPING", "BACKOFF")

    def gave_up(self, name):
        info = self.info(name)
        return info is None or info["statename"] in ("FATAL", "EXITED", "STOPPED")

    def pid(self, name):
        info = self.info(name)
        return (info or {}).get("pid") or None

    def reread(self, name):
        """Let supervisord take in its files; true when that (re)started the program."""
        added, changed, _ = self.call("supervisor.reloadConfig")[0]
        if name in changed:
            self.call("supervisor.stopProcessGroup", name, True)
            self.call("supervisor.removeProcessGroup", name)
        if name in added or name in changed:
            self.call("supervisor.addProcessGroup", name)
            return True
        return False

    def start(self, world, name):
        if self.info(name) is None:
            self.reread(name)
        if self.info(name) is None:
            raise Failure("supervisord does not know the program")
        self.attempt(name, "supervisor.startProcess", 60)

    def stop(self, world, name):
        self.attempt(name, "supervisor.stopProcess", 70)

    def restart(self, world, name):
        self.reread(name)
        if self.running(name):
            self.stop(world, name)
        self.start(world, name)

    def reload(self, world, name):
        self.call("supervisor.signalProcess", name, "HUP")

    def attempt(self, name, method, done):
        try:
            self.call(method, name, True, timeout=120)
        except SupervisorFault as fault:
            if fault.code != done:
                raise Failure("supervisord says %s%s" % (fault, self.log(name))) from None

    def log(self, name):
        """Get the end of what a program printed."""
        for method in ("supervisor.readProcessStderrLog", "supervisor.readProcessStdoutLog"):
            try:
                said = self.call(method, name, -2000, 0).strip()
            except SupervisorFault:
                continue
            if said:
                return ": " + said
        return ""

    def enabled(self, name):
        if self.info(name) is None:
            return True
        for entry in self.call("supervisor.getAllConfigInfo"):
            if entry["name"] == name:
                return bool(entry["autostart"])
        return True

    def enable(self, world, name, on):
        raise Failure(
            "Supervisor reads autostart from the program's configuration: change it there"
        )


class SupervisorFault(Exception):
    def __init__(self, fault):
        super().__init__(fault["faultString"])
        self.code = fault["faultCode"]


def decode_xml(value):
    item = value[0] if len(value) else None
    if item is None:
        return value.text or ""
    if item.tag in ("int", "i4"):
        return int(item.text)
    if item.tag == "boolean":
        return item.text == "1"
    if item.tag == "array":
        return [decode_xml(element) for element in item.findall("data/value")]
    if item.tag == "struct":
        return {m.find("name").text: decode_xml(m.find("value")) for m in item.findall("member")}
    return item.text or ""


class Systemd:
    """The units of systemd."""

    name = "systemd"

    def undecided(self, name):
        return self.show(name).get("ActiveState") in ("activating", "deactivating")

    def gave_up(self, name):
        return self.show(name).get("ActiveState") == "failed"

    def log(self, name):
        done = subprocess.run(
            ["systemctl", "status", "--lines=5", "--no-pager", "--", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return ": " + text(done.stdout).strip()

    def present(self):
        return os.path.isdir("/run/systemd/system")

    def show(self, name):
        done = subprocess.run(
            [
                "systemctl",
                "show",
                "--property=LoadState,ActiveState,MainPID,UnitFileState",
                "--",
                name,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return dict(line.partition("=")[::2] for line in text(done.stdout).splitlines())

    def knows(self, name):
        return self.show(name).get("LoadState") not in (None, "not-found")

    def running(self, name):
        return self.show(name).get("ActiveState") in ("active", "activating", "reloading")

    def pid(self, name):
        return int(self.show(name).get("MainPID") or 0) or None

    def systemctl(self, world, verb, name):
        checked(world, ["systemctl", verb, "--", name], "systemctl %s failed" % verb)

    def start(self, world, name):
        self.systemctl(world, "start", name)

    def stop(self, world, name):
        self.systemctl(world, "stop", name)

    def restart(self, world, name):
        self.systemctl(world, "restart", name)

    def reload(self, world, name):
        self.systemctl(world, "reload-or-restart", name)

    def enabled(self, name):
        return self.show(name).get("UnitFileState") not in ("disabled", "masked")

    def enable(self, world, name, on):
        self.systemctl(world, "enable" if on else "disable", name)


class SysV:
    """The scripts in /etc/init.d."""

    name = "sysv"

    def undecided(self, name):
        return False

    def gave_up(self, name):
        return False

    def log(self, name):
        return ""

    def present(self):
        return os.path.isdir("/etc/init.d")

    def knows(self, name):
        return os.access("/etc/init.d/" + name, os.X_OK)

    def running(self, name):
        if not self.knows(name):
            return False
        done = subprocess.run(
            ["/etc/init.d/" + name, "status"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode == 0

    def pid(self, name):
        for path in ("/run/%s.pid" % name, "/run/%s/%s.pid" % (name, name)):
            try:
                with open(path) as handle:
                    return int(handle.read().split()[0])
            except (OSError, ValueError, IndexError):
                pass
        # Without a pid file: the oldest process of that name.
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open("/proc/%s/comm" % entry) as handle:
                        if handle.read().strip() == name[:15]:
                            found.append((process_start(int(entry)), int(entry)))
                except (OSError, TypeError):
                    pass
        return min(found)[1] if found else None

    def script(self, world, name, verb):
        checked(world, ["/etc/init.d/" + name, verb], "/etc/init.d/%s %s failed" % (name, verb))

    def start(self, world, name):
        self.script(world, name, "start")

    def stop(self, world, name):
        self.script(world, name, "stop")

    def restart(self, world, name):
        self.script(world, name, "restart")

    def reload(self, world, name):
        self.script(world, name, "reload")

    def enabled(self, name):
        import glob

        return bool(glob.glob("/etc/rc[2345].d/S[0-9][0-9]" + glob.escape(name)))

    def enable(self, world, name, on):
        for verb in ("defaults", "enable") if on else ("disable",):
            checked(world, ["update-rc.d", name, verb], "update-rc.d failed")


MANAGERS = (Supervisor(), Systemd(), SysV())


def manager_of(name):
    """Find who looks after a service: Supervisor where it knows it, else the init system."""
    for manager in MANAGERS:
        if manager.present() and manager.knows(name):
            return manager
    return None


def process_start(pid):
    """Find when a process started, on the clock that files are stamped with; None: no process."""
    try:
        with open("/proc/%d/stat" % pid) as handle:
            ticks = int(handle.read().rpartition(")")[2].split()[19])
    except OSError:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def stamp_of(name):
    return "/run/redock-reloaded-" + name.replace("/", "-")


def newest(world, watch):
    """Find the newest of the things a service depends on: (time, path); pretended: infinity."""
    import glob

    found = (0.0, "")
    for path in watch:
        if path.startswith(b"package:"):
            name = glob.escape(path[8:].decode())
            places = [
                os.fsencode(p)
                for pattern in ("%s.list", "%s:*.list")
                for p in glob.glob("/var/lib/dpkg/info/" + pattern % name)
            ]
        else:
            places = [path]
        for place in places:
            for follow in (False, True):
                node = world.look(place, follow)
                if node is not None:
                    moment = node.ctime or float("inf")
                    found = max(found, (moment, text(place)))
    return found


def owed(world, name, pid, watch):
    """Say which file a running service has not seen yet, by the time it was last changed."""
    started = process_start(pid) if pid else None
    if started is None or not watch:
        return ""
    try:
        started = max(started, os.stat(stamp_of(name)).st_mtime)
    except FileNotFoundError:
        pass
    moment, path = newest(world, watch)
    return path if moment > started + 0.02 else ""


def op_service(world, name, state="running", enabled=None, watch=(), changed=False, reload=False):
    manager = manager_of(name)
    if manager is None:
        if world.dry_run and pretended_program(world, name):
            return {"changed": True, "changes": {"state": ("absent", state)}}
        world.missing("neither Supervisor nor the init system knows this service")
    running = manager.running(name)
    pid = manager.pid(name) if running else None
    changes: dict = {}
    action = None
    if state in ("restarted", "reloaded"):
        action = ("reload" if state == "reloaded" else "restart") if running else "start"
    elif state == "running" and not running:
        action = "start"
    elif state == "stopped" and running:
        action = "stop"
    elif state == "running" and (changed or watch):
        why = "a change before" if changed else owed(world, name, pid, watch)
        if why:
            action = "reload" if reload else "restart"
            changes[action] = (None, "because of " + why)
    if action in ("start", "stop"):
        changes["state"] = ("running", "stopped") if running else ("stopped", "running")
    elif action and action not in changes:
        changes[action] = (None, "done" if not world.dry_run else "would be done")
    if enabled is not None and manager.enabled(name) != enabled:
        changes["enabled"] = (not enabled, enabled)
    if not changes:
        return {"changed": False}
    if not world.dry_run:
        if "enabled" in changes:
            manager.enable(world, name, enabled)
        if action:
            getattr(manager, action)(world, name)
            if action == "reload":
                note_reload(name)
            verify_service(manager, name, state, action, pid)
        if "enabled" in changes and manager.enabled(name) != enabled:
            raise Failure("after the change it still differs in enabled")
    return {"changed": True, "changes": changes, "reason": ""}


def pretended_program(world, name):
    wanted = b"[program:%s]" % name.encode()
    return any(
        node is not None and wanted in (node.content or b"") for node in world.nodes.values()
    )


def note_reload(name):
    # A process that reloads keeps its start time, so the moment is kept beside it.
    with open(stamp_of(name), "w") as handle:
        os.utime(handle.fileno())


def verify_service(manager, name, state, action, pid):
    wanted = state != "stopped"
    deadline = time.monotonic() + 60
    while manager.running(name) != wanted or manager.undecided(name):
        if time.monotonic() > deadline or (wanted and manager.gave_up(name)):
            words = "running" if not wanted else "not running"
            raise Failure("after %s it is %s%s" % (action, words, manager.log(name)))
        time.sleep(0.05)
    if action == "restart" and pid and manager.pid(name) == pid:
        raise Failure("after the restart the same process is running")


# Reading --------------------------------------------------------------------------------------


def op_facts(world):
    import platform

    release = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8") as handle:
                for line in handle:
                    key, _, value = line.strip().partition("=")
                    release[key] = value.strip("\"'")
            break
        except FileNotFoundError:
            pass
    return {
        "os_id": release.get("ID", "linux"),
        "os_version": release.get("VERSION_ID", ""),
        "codename": release.get("VERSION_CODENAME", ""),
        "arch": platform.machine(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "hostname": os.uname().nodename,
        "cpus": len(os.sched_getaffinity(0)),
        "memory": memory(),
        "is_container": is_container(),
        "init": next((m.name for m in MANAGERS if m.present()), "none"),
        "user": user_name(os.geteuid()),
    }


def memory():
    with open("/proc/meminfo") as handle:
        sizes = [int(handle.readline().split()[1]) * 1024]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as handle:
                sizes.append(int(handle.read()))
        except (OSError, ValueError):
            pass
    return min(sizes)


def is_container():
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return True
    try:
        with open("/proc/1/environ", "rb") as handle:
            return b"container=" in handle.read()
    except OSError:
        return False


def op_read_file(world, path):
    try:
        if world.look(path, follow=True) is None:
            return None
        content = world.read(path)
    except FileNotFoundError:
        return None
    if len(content) > LONGEST_CAPTURE:
        raise Failure("it has more than %d MiB" % (LONGEST_CAPTURE >> 20))
    return content


def op_stat(world, path, follow=False):
    node = world.look(path, follow)
    if node is None:
        return None
    return {
        "kind": node.kind,
        "mode": node.mode,
        "owner": user_name(node.uid),
        "group": group_name(node.gid),
        "size": node.size,
        "mtime": node.mtime,
        "target": node.target,
    }


def op_call(world, source, name, arguments):
    names: dict = {"__name__": "redock_call"}
    exec(compile("from __future__ import annotations\n" + source, "<call>", "exec"), names)
    return names[name](**arguments)


def op_hello(world, dry_run, diff):
    world.dry_run, world.diff = dry_run, diff
    return sys.version_info[:3]


# The loop -------------------------------------------------------------------------------------

#: Operations that change the host. One at a time holds the lock of the host, so that two programs
#: cannot both read, compare and then mend.
LOCKED = {
    name: globals()["op_" + name]
    for name in (
        "file",
        "directory",
        "symlink",
        "line",
        "packages",
        "update_system_packages",
        "apt_repository",
        "group",
        "user",
        "service",
    )
}
FREE = {
    name: globals()["op_" + name]
    for name in ("execute", "command", "facts", "read_file", "stat", "call", "hello")
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
