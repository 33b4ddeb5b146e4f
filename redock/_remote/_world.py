"""The host as the operations see it, what can go wrong, and what files are."""

import errno
import grp
import os
import pwd
import stat

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

    def same_content(self, digest):
        """Ask whether content that is not here has a digest; both sides compute it meanwhile."""
        self.channel.send(("digest", None, 0.0))
        try:
            mine = digest()
        finally:
            # The answer is on its way in any case.
            theirs = self.channel.receive()
        return mine == theirs

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
