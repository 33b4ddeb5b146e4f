"""
Copying files into machines and out of them, through the engine: SSH is not needed for it.

What goes where is decided as ``docker cp`` does, see :func:`landing`.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat

from redock import _archive
from redock._archive import shown_path
from redock._files import STRAY_PREFIX, STRAY_SUFFIX
from redock._names import shown
from redock.errors import InvalidArgument, NotFound, RedockError, last_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from redock._engine import Engine
    from redock._result import Result

__all__ = ["Files", "Local", "copy", "split_place"]

#: Where a pathname inside counts from that is not absolute: root's home, as it is with scp.
HOME = "/root"
#: Bits of Go's os.FileMode: https://pkg.go.dev/io/fs#FileMode
GO_DIRECTORY, GO_LINK = 1 << 31, 1 << 27
#: How many symbolic links may lead to each other, see path_resolution(7).
LONGEST_CHAIN = 40
#: Bytes of an archive that are sent at once: the buffer of a socket takes them, see unix(7), so
#: nobody can be interrupted in the middle.
AT_ONCE = 128 * 1024
#: Seconds a copy that is there may need to get its name.
PLACING = 600.0
#: How a copy gets its name; the names of both are the arguments. A file or a new directory:
NAMED = 'exec mv -fT -- "$1" "$2"'
#: A directory that goes into one of its name. Links to the copies, but for other file systems that
#: are mounted in there; what was there is replaced file by file.
MERGED = """
options="-a -T --remove-destination"
time=$(stat -c @%.9Y -- "$1")
cp -l $options -- "$1" "$2" 2>/dev/null || cp $options -- "$1" "$2" || exit
rm -rf -- "$1"
touch -d "$time" -- "$2"
"""
#: What is in a directory, which goes into another one.
EMPTIED = """
cd -- "$1" || exit
enter() { find . -mindepth 1 -maxdepth 1 -exec cp -a --remove-destination "$@" {} +; }
enter -l -t "$2" 2>/dev/null || enter -t "$2" || exit
rm -rf -- "$1"
"""


def split_place(text: str) -> tuple[str | None, str]:
    """
    Tell a place in a machine from one on this host.

    :param text: ``NAME:PATH``, or a pathname of this host. One with a colon in it has to start
                 with ``/`` or ``.``.
    :returns: The name of the machine, None for this host, and the pathname.
    """
    if ":" not in text or text.startswith(("/", ".", "~")):
        return None, text
    # The name of a machine may have a colon, and so may an absolute pathname.
    name, found, path = text.partition(":/")
    if found and name:
        return name, "/" + path
    name, _, path = text.rpartition(":")
    return name, path


def landing(
    target: str, name: str, directory: bool, kind: Callable[[str], str | None]
) -> tuple[str, str]:
    """
    Decide under which name a copy is to be, by the rules of ``docker cp``.

    A directory that exists gets the copy put into it; anything else is the name of the copy.
    With ``/.`` behind its name a directory stands for what is in it.

    :param target: The pathname that was given.
    :param name: The last part of the name of the source; ``.`` for what is in a directory.
    :param directory: The source is a directory.
    :param kind: Says of a pathname whether it is a ``directory``, a ``file`` or None.
    :returns: The directory to write into, which exists, and the name in it; empty: the directory
              takes up what is in the source.
    :raises RedockError: It cannot be written there.
    """
    found = kind(target)
    if found == "directory":
        return target, "" if name == "." else name
    if found is None and target.endswith("/") and not directory:
        raise RedockError(f"there is no directory {shown_path(target)} to copy into")
    if found is not None and directory:
        raise RedockError(f"{shown_path(target)} is no directory: one cannot be copied over it")
    parent, last = posixpath.split(target.rstrip("/"))
    if kind(parent or ".") != "directory":
        raise RedockError(f"there is no directory {shown_path(parent)} to copy into")
    return parent or ".", last


class Files:
    """
    The files of a container, running or not.

    :param engine: The engine.
    :param container: The id of the container.
    :param title: What to call it in messages.
    :param running: Whether programs can be started in it.
    """

    def __init__(self, engine: Engine, container: str, title: str, running: bool) -> None:
        self.engine = engine
        self.container = container
        self.title = title
        self.running = running

    def resolve(self, path: str) -> tuple[str, str | None]:
        """
        Find the file a pathname stands for, and what it is.

        :param path: A pathname inside; one that is not absolute counts from root's home.
        :returns: The pathname without a link at its end, and ``directory``, ``file`` or None.
        """
        if "\0" in path:
            raise InvalidArgument("a pathname cannot contain NUL")
        path = posixpath.join(HOME, path)
        for _ in range(LONGEST_CHAIN):
            found = self.engine.stat_path(self.container, path)
            if found is None:
                return path, None
            mode = int(found["mode"])
            if mode & GO_DIRECTORY:
                return path, "directory"
            if not mode & GO_LINK:
                return path, "file"
            path = posixpath.join(posixpath.dirname(path.rstrip("/")), found["linkTarget"])
        raise RedockError(f"{self.title}: too many links at {shown(path)}")

    def kind(self, path: str) -> str | None:
        """
        Find out what a file is.

        :param path: A pathname inside.
        :returns: ``directory``, ``file`` or None.
        """
        return self.resolve(path)[1]

    def source(self, path: str) -> tuple[str, str, bool]:
        """
        Look at what is to be copied.

        :param path: A pathname inside.
        :returns: Where it is, its last name and whether it is a directory.
        :raises NotFound: There is no such file.
        """
        name = "." if path.endswith("/.") else posixpath.basename(path.rstrip("/"))
        found, kind = self.resolve(path)
        if kind is None or (path.endswith(("/", "/.")) and kind != "directory"):
            raise NotFound(f"{self.title} has no file {shown_path(path)}", 404)
        if posixpath.normpath(found) == "/":
            raise InvalidArgument("a whole machine is not copied: name a directory in it")
        return found, name or posixpath.basename(found.rstrip("/")), kind == "directory"

    def read(self, path: str) -> Iterator[bytes]:
        """
        Get files out of it.

        :param path: Where they are.
        :returns: Yields an archive.
        """
        return self.engine.read_archive(self.container, path)

    def write(
        self, target: str, name: str, directory: bool, pack: Callable[[str], Iterator[bytes]]
    ) -> None:
        """
        Put a file or directory into it.

        An engine unpacks what it gets as it comes. So what is more than it gets at once is unpacked
        under another name, and has its own when all of it is there. For that a program has to be
        started in the machine; in one that does not run an interrupt leaves a part.

        :param target: Where it was asked to go.
        :param name: Its last name; ``.`` for what is in a directory.
        :param directory: It is a directory.
        :param pack: Packs it under a name.
        """
        place, _ = self.resolve(target)
        if target.endswith("/") and not place.endswith("/"):
            place += "/"
        parent, called = landing(place, name, directory, self.kind)
        parent, _ = self.resolve(parent)
        final = posixpath.join(parent, called)
        found = self.engine.stat_path(self.container, final)
        merging = found is not None and bool(int(found["mode"]) & GO_DIRECTORY)
        if found is not None and merging != directory:
            what = "is a directory" if merging else "is no directory"
            raise RedockError(f"{self.title}: {shown_path(final)} {what} and is in the way")
        stray = f"{STRAY_PREFIX}{os.urandom(6).hex()}{STRAY_SUFFIX}"
        head, more = _archive.beginning(pack(stray), AT_ONCE)
        if more is None:
            whole = b"".join(_archive.repack([head], called))
            self.engine.put_archive(self.container, parent, whole)
        elif self.running:
            script = (MERGED if called else EMPTIED) if merging else NAMED
            # Where it is to end there may be another file system.
            beside = final if merging else parent
            self.put_aside(beside, stray, more, script, final)
        else:
            self.engine.put_archive(self.container, parent, _archive.repack(more, called))

    def put_aside(
        self, directory: str, stray: str, archive: Iterator[bytes], script: str, final: str
    ) -> None:
        """
        Unpack something under a name of ours, and give it its own when all of it is there.

        :param directory: Where to unpack.
        :param stray: Our name; an interrupt leaves nothing under it either.
        :param archive: The archive.
        :param script: Gives it its name.
        :param final: That name.
        """
        path = posixpath.join(directory, stray)
        try:
            self.engine.put_archive(self.container, directory, archive)
            done = self.run("sh", "-c", script, "sh", path, final)
            if not done:
                reason = last_lines(done.stderr, 1) or f"status {done.returncode}"
                raise RedockError(f"{self.title}: cannot write {shown_path(final)}: {reason}")
        except BaseException:
            with contextlib.suppress(RedockError):
                self.run("rm", "-rf", "--", path)
            raise

    def run(self, *command: str) -> Result:
        """
        Run a program in the machine, which has to run itself.

        :param command: The program and its arguments.
        :returns: What it did.
        :raises Timeout: It did not end in time.
        """
        from redock._exec import Exec, capture

        return capture(Exec(self.engine, self.container, command), command, None, PLACING)


class Local:
    """The files of this host, as somebody without other privileges sees them."""

    def kind(self, path: str) -> str | None:
        """
        Find out what a file is.

        :param path: A pathname.
        :returns: ``directory``, ``file`` or None.
        """
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return None
        return "directory" if stat.S_ISDIR(mode) else "file"

    def source(self, path: str) -> tuple[str, str, bool]:
        """
        Look at what is to be copied.

        :param path: A pathname.
        :returns: Where it is, its last name and whether it is a directory.
        :raises RedockError: There is no such file.
        """
        kind = self.kind(path)
        if kind is None or (path.endswith(("/", "/.")) and kind != "directory"):
            raise RedockError(f"there is no file {shown_path(path)} here")
        inside = path == "." or path.endswith("/.")
        name = "." if inside else os.path.basename(os.path.abspath(path))
        return path, name, kind == "directory"

    def read(self, path: str) -> Callable[[str], Iterator[bytes]]:
        """
        Get something that packs a file or directory.

        :param path: Where it is.
        :returns: A function of the name it is to have.
        """
        return lambda called: _archive.pack(path, called)

    def write(self, target: str, name: str, directory: bool, pieces: Iterator[bytes]) -> None:
        """
        Unpack a file or directory.

        :param target: Where it was asked to go.
        :param name: Its last name; ``.`` for what is in a directory.
        :param directory: It is a directory.
        :param pieces: The archive.
        """
        parent, called = landing(target, name, directory, self.kind)
        if called:
            _archive.unpack(pieces, parent, os.path.join(parent, called))
        else:
            _archive.unpack(pieces, parent, parent, merge=True)


def copy(source: str, target: str, here: Files | None, there: Files | None) -> None:
    """
    Copy a file or directory.

    :param source: Its pathname.
    :param target: The pathname of the copy, or a directory to put it into.
    :param here: The machine the source is in, None for this host.
    :param there: The machine the target is in, None for this host.
    :raises RedockError: It cannot be read or written.
    """
    origin = here or Local()
    path, name, directory = origin.source(source)
    if there is None:
        assert isinstance(origin, Files)
        Local().write(target, name, directory, origin.read(path))
    elif isinstance(origin, Files):
        pieces = origin.read(path)
        if origin.container == there.container:
            # While an engine reads from a container it does not write into it.
            pieces = _archive.complete(pieces)
        there.write(target, name, directory, lambda called: _archive.repack(pieces, called))
    else:
        there.write(target, name, directory, origin.read(path))


def copy_from_stream(stream: IO[bytes], target: str, there: Files) -> None:
    """
    Put what comes from a stream into a file.

    :param stream: What to read.
    :param target: The pathname of the file.
    :param there: The machine.
    :raises RedockError: It cannot be read or written.
    """
    if there.kind(target) == "directory" or target.endswith("/"):
        raise InvalidArgument(f"{shown_path(target)} is a directory: name the file to write")
    there.write(target, "-", False, lambda called: _archive.pack_stream(stream, called))


def copy_to_stream(source: str, here: Files, stream: IO[bytes]) -> None:
    """
    Write the contents of a file to a stream.

    :param source: The pathname of the file.
    :param here: The machine.
    :param stream: Where to write.
    :raises RedockError: It cannot be read, or is no single file.
    """
    path, _, directory = here.source(source)
    if directory:
        raise InvalidArgument(f"{shown_path(source)} is a directory: only a file can be printed")
    for piece in _archive.contents(here.read(path)):
        stream.write(piece)
    stream.flush()
