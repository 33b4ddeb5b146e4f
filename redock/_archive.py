"""
Files as streams: packing a tree for the engine, unpacking what it sends, piece by piece.

The format is that of pax(1) in POSIX.1-2001, which is what engines take and
give. Nothing is ever held in memory as a whole.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import posixpath
import shutil
import tempfile
import time

from redock import _progress
from redock._files import STRAY_PREFIX, STRAY_SUFFIX
from redock._names import shown
from redock.errors import RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterable, Iterator
    from typing import IO

__all__ = [
    "Unpacked",
    "beginning",
    "complete",
    "contents",
    "file_contents",
    "pack",
    "pack_stream",
    "repack",
    "unpack",
]

logger = logging.getLogger(__name__)

#: How much of a file is read at once.
PIECE = 256 * 1024
BLOCK = 512
#: What ends an archive.
END = bytes(2 * BLOCK)
#: Seconds between two reports that a copy goes on.
INTERVAL = 0.2
#: The name of what is being unpacked, in its staging directory.
STAGED = "copy"


class Tally:
    """Tells whoever waits how far a copy has come."""

    def __init__(self) -> None:
        self.bytes = 0
        self.reported = time.monotonic()

    def count(self, piece: bytes) -> bytes:
        """
        Count a piece.

        :param piece: The piece.
        :returns: The same.
        """
        self.bytes += len(piece)
        now = time.monotonic()
        if now - self.reported >= INTERVAL and _progress.Progress.show is not None:
            self.reported = now
            _progress.Progress.show(f"copied {self.bytes / 1e6:.1f} MB")
        return piece


class Source(io.RawIOBase):
    """
    Pieces as the file object that tarfile reads from.

    :param pieces: The pieces.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.tally = Tally()
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """
        Read the next piece, however long it is: that is all tarfile's streams ask for.

        :param size: Not looked at.
        :returns: The piece, nothing at the end.
        """
        for piece in self.pieces:
            if piece:
                self.tail = (self.tail + piece[-len(END) :])[-len(END) :]
                return self.tally.count(piece)
        return b""

    def finish(self) -> None:
        """
        Read the rest, and make sure it was the end: tarfile does not mind when it is not.

        :raises RedockError: The archive was cut off.
        """
        while self.read():
            pass
        if self.tail != END:
            raise RedockError("the engine stopped in the middle of an archive: copy it again")


def header(member: tarfile.TarInfo) -> bytes:
    """
    Make the header of a member.

    :param member: The member.
    :returns: Its blocks.
    """
    import tarfile

    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """
    Give a member to root.

    :param member: The member.
    :returns: The same.
    """
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def body(stream: IO[bytes], size: int, name: str, tally: Tally | None = None) -> Iterator[bytes]:
    """
    Read the contents of a member and fill up its last block.

    :param stream: Where to read.
    :param size: How much there is.
    :param name: The name of the file, for messages.
    :param tally: Counts what was read (default: nobody does).
    :returns: Yields the pieces.
    :raises RedockError: There is less.
    """
    left = size
    while left:
        piece = stream.read(min(left, PIECE))
        if not piece:
            raise RedockError(f"{name} became shorter while it was copied: copy it again")
        left -= len(piece)
        yield tally.count(piece) if tally else piece
    yield bytes(-size % BLOCK)


def pack(path: str, name: str, mode: int | None = None) -> Iterator[bytes]:
    """
    Pack a file or directory of this host; it belongs to root in the archive.

    Symbolic links stay what they are, but for ``path`` itself, which is followed. Sockets
    are left out.

    :param path: Its pathname.
    :param name: Its name in the archive; empty to pack only what is in the directory.
    :param mode: Its permissions (default: those it has).
    :returns: Yields the archive, piece by piece.
    :raises RedockError: Something cannot be read.
    """
    import tarfile

    # It knows how to describe files, and which of them are links to each other.
    clerk = tarfile.TarFile(fileobj=io.BytesIO(), mode="w")
    tally = Tally()
    todo = [(os.path.realpath(path), name)]
    while todo:
        here, called = todo.pop()
        try:
            member = clerk.gettarinfo(here, called or ".")
            if member is None:
                logger.warning("Left out %s: it is a socket", shown_path(here))
                continue
            if called == name and mode is not None:
                member.mode = mode
            if called:
                yield header(as_root(member))
            if member.isreg():
                with open(here, "rb") as stream:
                    yield from body(stream, member.size, shown_path(here), tally)
            if member.isdir():
                prefix = f"{called}/" if called else ""
                found = sorted(os.listdir(here), reverse=True)
                todo += [(os.path.join(here, each), prefix + each) for each in found]
        except OSError as error:
            raise RedockError(f"cannot read {shown_path(here)}: {error.strerror}") from error
    yield END


def pack_stream(stream: IO[bytes], name: str, mode: int = 0o644) -> Iterator[bytes]:
    """
    Pack what comes from a stream as one file.

    An archive says in front how long a file is. Where that is not known, as with
    a pipe, the contents wait on disk until they are complete.

    :param stream: What to read.
    :param name: The name in the archive.
    :param mode: The permissions of the file (default: 0644).
    :returns: Yields the archive, piece by piece.
    :raises RedockError: It cannot be read, or there is no room for it.
    """
    import stat
    import tarfile

    with contextlib.ExitStack() as stack:
        try:
            about = os.fstat(stream.fileno())
            regular = stat.S_ISREG(about.st_mode)
        except (OSError, ValueError, AttributeError):
            regular = False
        try:
            if regular:
                size = max(0, about.st_size - os.lseek(stream.fileno(), 0, os.SEEK_CUR))
            else:
                waiting = stack.enter_context(tempfile.TemporaryFile(prefix="redock-"))
                shutil.copyfileobj(stream, waiting, PIECE)
                size = waiting.tell()
                waiting.seek(0)
                stream = waiting
        except OSError as error:
            raise RedockError(f"cannot read standard input: {error.strerror}") from error
        member = as_root(tarfile.TarInfo(name))
        # The file is as old as this copy; the wall clock is what file systems have.
        member.size, member.mode, member.mtime = size, mode, wall_clock()
        yield header(member)
        yield from body(stream, size, "standard input", Tally())
        yield END


def complete(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """
    Wait for the end of a stream, on disk.

    :param pieces: The stream.
    :returns: Yields it again, from the disk.
    :raises RedockError: There is no room for it.
    """
    waiting = tempfile.TemporaryFile(prefix="redock-")  # noqa: SIM115
    try:
        for piece in pieces:
            waiting.write(piece)
        waiting.seek(0)
    except OSError as error:
        waiting.close()
        raise RedockError(f"cannot write a temporary file: {error.strerror}") from error

    def again() -> Iterator[bytes]:
        with waiting:
            while piece := waiting.read(PIECE):
                yield piece

    return again()


def beginning(pieces: Iterator[bytes], enough: int) -> tuple[bytes, Iterator[bytes] | None]:
    """
    Find out whether a stream is a short one.

    :param pieces: The stream.
    :param enough: How many bytes are not short any more.
    :returns: All of it and None, or nothing and the stream as it was.
    """
    first = []
    for piece in pieces:
        first.append(piece)
        enough -= len(piece)
        if enough < 0:
            break
    else:
        return b"".join(first), None

    def again() -> Iterator[bytes]:
        yield from first
        yield from pieces

    return b"", again()


def wall_clock() -> float:
    """
    Get the time for a new file.

    :returns: Seconds since 1970.
    """
    import datetime

    return datetime.datetime.now().timestamp()


def members(pieces: Iterable[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo, str]]:
    """
    Read an archive of one file or directory.

    :param pieces: The archive.
    :returns: Yields the archive, each member, and the member's name below the first one (empty
              for that one); hard links lead to such a name, too.
    :raises RedockError: It is no such archive.
    """
    import tarfile

    try:
        source = Source(pieces)
        with tarfile.open(fileobj=source, mode="r|", errorlevel=1) as tar:
            root = None
            for member in tar:
                root = root if root is not None else posixpath.normpath(member.name)
                if member.islnk():
                    member.linkname = below(root, member.linkname)
                yield tar, member, below(root, member.name)
                # A tree may have more files than there is memory for their descriptions.
                tar.members.clear()  # type: ignore[attr-defined]
        source.finish()
    except tarfile.TarError as error:
        raise RedockError(f"the engine sent an archive that cannot be read: {error}") from error


def below(root: str, name: str) -> str:
    """
    Find the name of a member below the first one.

    :param root: The name of the first one.
    :param name: The name of the member.
    :returns: A relative name without ``..``; empty for the first one.
    :raises RedockError: It is somewhere else.
    """
    normal = posixpath.normpath(name)
    if root not in (".", "/"):
        if normal != root and not normal.startswith(root + "/"):
            raise RedockError(f"the engine sent a file that does not belong there: {shown(name)}")
        normal = normal[len(root) :]
    relative = normal.lstrip("/")
    if relative.split("/")[0] == "..":
        raise RedockError(f"the engine sent a file that does not belong there: {shown(name)}")
    return "" if relative == "." else relative


def repack(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """
    Turn an archive from one machine into one for another.

    :param pieces: The archive of one file or directory.
    :param name: What it is to be called; empty to pack only what is in the directory.
    :returns: Yields the archive, piece by piece.
    """
    for tar, member, relative in members(pieces):
        called = posixpath.join(name, relative).rstrip("/")
        if not called:
            continue
        if member.islnk():
            member.linkname = posixpath.join(name, member.linkname)
        member.name = called
        kept = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY")}
        member.pax_headers = kept
        yield header(as_root(member))
        if member.isreg():
            stream = tar.extractfile(member)
            assert stream is not None
            yield from body(stream, member.size, shown(called))
    yield END


def contents(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """
    Get the contents of a single file.

    :param pieces: The archive with it.
    :returns: Yields the contents, piece by piece.
    :raises RedockError: It is no file.
    """
    for tar, member, _ in members(pieces):
        stream = tar.extractfile(member) if member.isreg() else None
        if stream is None:
            raise RedockError("only the contents of a single file can be printed, not a directory")
        while piece := stream.read(PIECE):
            yield piece


def file_contents(pieces: Iterable[bytes]) -> bytes:
    """
    Get the contents of a small file.

    :param pieces: The archive of a file or directory.
    :returns: The contents, empty for a directory.
    """
    for tar, member, _ in members(pieces):
        stream = tar.extractfile(member) if member.isreg() else None
        return stream.read() if stream else b""
    return b""


class Unpacked:
    """
    What has been unpacked, in a directory of its own next to where it belongs.

    Nothing of it is under its final name before all of it is there.

    :param parent: The directory it is to be placed in.
    """

    def __init__(self, parent: str) -> None:
        try:
            self.staging = tempfile.mkdtemp(STRAY_SUFFIX, STRAY_PREFIX, parent)
        except OSError as error:
            raise RedockError(
                f"cannot write into {shown_path(parent)}: {error.strerror}"
            ) from error
        self.path = os.path.join(self.staging, STAGED)
        #: Permissions and time of each directory, by its name below the first.
        self.directories: dict[str, tuple[int, float]] = {}
        self.links: dict[str, str] = {}
        #: What was left out, with the reason.
        self.skipped: list[str] = []

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo, relative: str) -> None:
        """
        Unpack a member.

        No symbolic link is made before everything else is there, so nothing is ever
        written through one. The rest is checked as PEP 706 has it.

        :param tar: The archive.
        :param member: The member.
        :param relative: Its name below the first one.
        """
        import tarfile

        member.name = posixpath.join(STAGED, relative).rstrip("/")
        if member.issym():
            self.links[relative] = member.linkname
            return
        if member.islnk():
            if member.linkname in self.links:
                self.links[relative] = self.links[member.linkname]
                return
            member.linkname = posixpath.join(STAGED, member.linkname)
        try:
            checked = tarfile.data_filter(member, self.staging)
        except tarfile.SpecialFileError:
            self.skipped.append(f"{relative} (a device)")
            return
        except tarfile.FilterError as error:
            raise RedockError(f"refused to unpack {shown(relative)}: {error}") from error
        # The owner is whoever calls; permissions are kept, but nobody lends them to others.
        mode = member.mode & 0o777
        if member.isdir():
            self.directories[relative] = (mode, member.mtime)
            mode = 0o700
        checked = checked.replace(mode=mode, deep=False)
        try:
            tar.extract(checked, self.staging, filter="fully_trusted")
        except (tarfile.ExtractError, KeyError):
            # Another name of something that was left out itself.
            self.skipped.append(relative)

    def make_links(self) -> None:
        """Make the symbolic links, but for those that lead out of the directory."""
        for relative, target in self.links.items():
            os.symlink(target, self.staged(relative))
        # Not asked for itself: it may be a link, too.
        inside = os.path.join(os.path.realpath(self.staging), STAGED)
        again = bool(inside)
        while again:
            again = False
            for relative in list(self.links):
                where = os.path.realpath(self.staged(relative))
                if where != inside and not where.startswith(inside + "/"):
                    os.unlink(self.staged(relative))
                    self.skipped.append(f"{relative} (a link to {self.links.pop(relative)})")
                    # Another one may have led through it.
                    again = True

    def staged(self, relative: str) -> str:
        """
        Find a file before it is placed.

        :param relative: Its name below the first one.
        :returns: Its pathname.
        """
        return os.path.join(self.path, relative) if relative else self.path

    def place(self, target: str, *, merge: bool) -> None:
        """
        Put it where it belongs; directories that exist take up what is new.

        :param target: The pathname it is to have.
        :param merge: It may be a directory that exists.
        :raises RedockError: Something else is in the way.
        """
        if not os.path.lexists(self.path):
            raise RedockError("it is a link that leads elsewhere: name what it leads to")
        kept = set()
        todo = [("", target)]
        while todo:
            relative, there = todo.pop()
            here = self.staged(relative)
            if not os.path.isdir(here) or os.path.islink(here):
                if os.path.isdir(there) and not os.path.islink(there):
                    raise RedockError(f"{shown_path(there)} is a directory and is in the way")
                os.replace(here, there)
            elif not os.path.lexists(there):
                os.rename(here, there)
            elif os.path.isdir(there) and (not os.path.islink(there) or (merge and not relative)):
                kept.add(relative)
                for name in sorted(os.listdir(here), reverse=True):
                    todo.append((os.path.join(relative, name), os.path.join(there, name)))
            else:
                raise RedockError(f"{shown_path(there)} is no directory and is in the way")
        for relative, (mode, mtime) in reversed(self.directories.items()):
            if relative not in kept:
                path = os.path.join(target, relative) if relative else target
                os.utime(path, (mtime, mtime))
                os.chmod(path, mode)


def unpack(pieces: Iterable[bytes], parent: str, target: str, *, merge: bool = False) -> None:
    """
    Unpack a file or directory; it belongs to whoever calls.

    :param pieces: The archive.
    :param parent: A directory on the file system of the target, for what is not complete yet.
    :param target: The pathname it is to have.
    :param merge: The target is a directory that takes up what is in the archive's (default: no).
    :raises RedockError: It cannot be written, or something is in the way.
    """
    with Unpacked(parent) as unpacked:
        try:
            for tar, member, relative in members(pieces):
                unpacked.add(tar, member, relative)
            unpacked.make_links()
            unpacked.place(target, merge=merge)
        except OSError as error:
            where = shown_path(os.fsdecode(error.filename or target))
            raise RedockError(f"cannot write {where}: {error.strerror or error}") from error
        if unpacked.skipped:
            names = ", ".join(shown(each) for each in unpacked.skipped[:5])
            more = len(unpacked.skipped) - 5
            logger.warning(
                "Left out %d that would lead out of the copy or are no files: %s%s",
                len(unpacked.skipped),
                names,
                f" and {more} more" if more > 0 else "",
            )


def shown_path(path: str) -> str:
    """
    Show a pathname in a message, in full where it is harmless.

    :param path: The pathname.
    :returns: The pathname, quoted where it has characters a terminal might obey.
    """
    return path if path.isprintable() else ascii(path)
