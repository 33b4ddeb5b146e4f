"""
What changed on a disk: two disks are listed, and the lists compared.

The engine can tell how a container differs from the image it was made from,
but not from a commit made of it since, nor one image from another. So the
files are listed with ``find``: inside the machine, and in a container without
a network that is made from the image and goes with its last line.

Files count as the same when their size and the second of their last change
are (what ``rsync`` goes by, too); images do not keep anything finer. Where that
cannot tell before from after, in the second of a commit, their contents do.
"""

from __future__ import annotations

import difflib
import io
import os
import tarfile
from dataclasses import dataclass, replace

from redock._engine import KIND, label
from redock._parallel import call_all
from redock._printed import join_frames
from redock.errors import EngineError, InvalidArgument, NotFound, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from redock._engine import Engine

__all__ = ["Change", "Disk", "compare", "compare_texts", "count_written", "fold"]

#: What a container has because it is one: the engine puts it there.
NOT_ON_DISK = (
    "/.dockerenv",
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
)
#: What changes while a machine does nothing.
NOISE = ("/etc/redock", "/run", "/tmp", "/var/log", "/var/tmp")  # noqa: S108
#: The kinds of files by the letter that find(1) has for them.
KINDS = {
    "f": "file",
    "d": "directory",
    "l": "symlink",
    "p": "pipe",
    "s": "socket",
    "b": "device",
    "c": "device",
}
LIST = """\
skip=$1
set --
for path in $skip; do set -- "$@" -path "$path" -prune -o; done
find / -xdev "$@" -printf '%y %m %U %G %s %T@ %p\\0%l\\0' 2>/dev/null
printf 'end\\0\\0'
"""
#: Images have times of whole seconds. Files of more than a GiB take longer than they are worth.
DIGEST = """\
skip=$1
shift
for second; do
    set --
    for path in $skip; do set -- "$@" -path "$path" -prune -o; done
    find / -xdev "$@" -type f -size -1048576k -newermt "@$((second - 1)).5" \\
        ! -newermt "@$second.5" -exec sha256sum -z {} + 2>/dev/null
done
printf 'end\\0'
"""
#: A bound on memory, for disks that somebody filled on purpose.
MOST_FILES = 5_000_000
#: Bytes of a file whose contents are compared.
LARGEST_TEXT = 1 << 20


@dataclass(frozen=True)
class Change:
    """A file that differs between two states of a disk."""

    #: ``A`` added, ``D`` deleted, ``M`` modified, ``C`` only its permissions or owner changed.
    change: str
    #: The pathname.
    path: str
    #: file, directory, symlink, pipe, socket or device.
    kind: str
    #: Its bytes; of what was deleted those that it had; of directories those of the files in them.
    size: int
    #: The bytes it had before, None where it was not there.
    before: int | None
    #: It is where files change while a machine does nothing: ``/run``, ``/tmp``, ``/var/log``, ...
    noise: bool
    #: How many files it stands for: of a whole directory all those in it.
    files: int = 1


class Entry:
    """
    A file in a list.

    :param fields: What find(1) printed about it.
    :param target: Where a symbolic link leads.
    """

    __slots__ = ("kind", "moment", "owner", "size", "target")

    def __init__(self, fields: Sequence[str], target: str) -> None:
        kind, mode, user, group, size, moment = fields
        self.kind = KINDS[kind]
        self.owner = ("" if kind == "l" else mode, user, group)
        self.size = int(size) if kind == "f" else 0
        seconds, _, fraction = moment.partition(".")
        #: Seconds, and billionths of them.
        self.moment = (int(seconds), int(fraction[:9].ljust(9, "0") or 0))
        self.target = target


class Disk:
    """
    A disk that can be listed: of a running container, or of an image.

    :param engine: The engine.
    :param id: The id of the container or the image.
    :param running: It is a container that runs (default: it is an image).
    :param saved: When the image was made, in billionths of a second since 1970; 0: not known.
    :param skip: More pathnames that are not on it: where volumes are mounted.
    """

    def __init__(
        self,
        engine: Engine,
        id: str,
        *,
        running: bool = False,
        saved: int = 0,
        skip: Iterable[str] = (),
    ) -> None:
        self.engine = engine
        self.id = id
        self.running = running
        self.saved = saved
        self.skip = sorted(path for path in skip if path.startswith("/") and path != "/")

    def entries(self, skip: Iterable[str] = ()) -> dict[str, Entry]:
        """
        List all files.

        :param skip: Pathnames that are left out, with what is below them.
        :returns: The files by pathname.
        :raises RedockError: The disk cannot be listed.
        """
        return parse(self.run(LIST, skip))

    def digests(self, skip: Iterable[str], seconds: Iterable[int]) -> dict[str, str]:
        """
        Look into the files of an image that were last changed in certain seconds.

        :param skip: Pathnames that are left out, with what is below them.
        :param seconds: The seconds, since 1970.
        :returns: The SHA-256 of each by pathname; of those that could be read.
        :raises RedockError: The disk cannot be listed.
        """
        listed = b"".join(self.run(DIGEST, skip, *map(str, seconds))).split(b"\0")
        if listed[-2:] != [b"end", b""]:
            raise EngineError("the list of files ended early: run the command again")
        texts = (each.decode("utf-8", "surrogateescape") for each in listed[:-2])
        return {path: digest for digest, _, path in (text.partition("  ") for text in texts)}

    def run(self, script: str, skip: Iterable[str], *words: str) -> Iterator[bytes]:
        """
        Run a script on the disk.

        :param script: Text for a shell.
        :param skip: Pathnames to leave out, the script's first argument.
        :param words: Its other arguments.
        :returns: Yields what it prints.
        """
        # A pathname with a blank in it cannot be passed in such a list.
        paths = [path for path in {*NOT_ON_DISK, *skip} if path.split() == [path]]
        command = ["sh", "-fc", script, "sh", " ".join(sorted(map(escape, paths))), *words]
        return (self.list_machine if self.running else self.list_image)(command)

    def list_machine(self, command: Sequence[str]) -> Iterator[bytes]:
        """
        Run a command in the container.

        :param command: The command.
        :returns: Yields what it prints.
        """
        _, stream = self.engine.begin_exec(self.id, command)
        try:
            yield from join_frames(stream)
        except OSError as error:
            raise self.engine.connection_error(error, "list the files of the machine") from error
        finally:
            stream.close()

    def list_image(self, command: Sequence[str]) -> Iterator[bytes]:
        """
        Run a command in a container that is made from the image for that.

        :param command: The command.
        :returns: Yields what it prints.
        """
        engine, name = self.engine, f"redock-scan-{os.urandom(6).hex()}"
        host = {"AutoRemove": True, "NetworkMode": "none"}
        config = {**scratch(self.id, command), "HostConfig": host}
        container = engine.create_container(name, config)
        try:
            stream = engine.attach(container, "stdout")
            try:
                engine.begin_start(container).result()
                yield from join_frames(stream)
            except OSError as error:
                raise engine.connection_error(error, "list the files of the image") from error
            finally:
                stream.close()
        finally:
            engine.remove_container(container)

    def read(self, path: str) -> bytes | None:
        """
        Read a file.

        :param path: Its pathname.
        :returns: Its contents, None when there is no such file.
        :raises InvalidArgument: It is not a regular file, or too large.
        """
        if self.running:
            return read_file(self.engine, self.id, path)
        name = f"redock-scan-{os.urandom(6).hex()}"
        container = self.engine.create_container(name, scratch(self.id, ["true"]))
        try:
            return read_file(self.engine, container, path)
        finally:
            self.engine.remove_container(container)


def scratch(image: str, command: Sequence[str]) -> dict[str, object]:
    """
    Describe a container that only looks at the disk of an image.

    :param image: The id of the image.
    :param command: What it runs.
    :returns: The body of the API's request to create a container.
    """
    return {
        "Image": image,
        "User": "root",
        "WorkingDir": "/",
        "Entrypoint": [],
        "Cmd": list(command),
        "Labels": {KIND: "scan", label("port"): ""},
        "NetworkDisabled": True,
    }


def read_file(engine: Engine, container: str, path: str) -> bytes | None:
    """
    Read a file of a container.

    :param engine: The engine.
    :param container: The id of the container.
    :param path: The pathname inside.
    :returns: The contents, None when there is no such file.
    :raises InvalidArgument: It is not a regular file, or too large.
    """
    try:
        pieces = engine.download(
            f"/containers/{container}/archive", f"read {path}", query={"path": path}
        )
        packed = b""
        for piece in pieces:
            packed += piece
            if len(packed) > LARGEST_TEXT + 16384:
                raise InvalidArgument(f"{path} is a directory or larger than {LARGEST_TEXT} bytes")
    except NotFound:
        return None
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        member = tar.next()
        handle = tar.extractfile(member) if member is not None and member.isreg() else None
        if handle is None:
            raise InvalidArgument(f"{path} is not a regular file")
        return handle.read()


def escape(path: str) -> str:
    """
    Take the meaning from characters that find(1) takes for a pattern.

    :param path: A pathname.
    :returns: A pattern that matches that pathname only.
    """
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in path)


def parse(pieces: Iterable[bytes]) -> dict[str, Entry]:
    """
    Read a list of files.

    :param pieces: What :data:`LIST` printed, in pieces.
    :returns: The files by pathname.
    :raises EngineError: It is not a list, or its end is missing.
    """
    found: dict[str, Entry] = {}
    rest, ended = b"", False
    for piece in pieces:
        *texts, rest = (rest + piece).split(b"\0")
        if len(texts) % 2:
            rest = texts.pop() + b"\0" + rest
        for head, target in zip(texts[::2], texts[1::2], strict=True):
            ended = head == b"end"
            if ended:
                break
            *fields, path = head.decode("utf-8", "surrogateescape").split(" ", 6)
            try:
                found[path] = Entry(fields, target.decode("utf-8", "surrogateescape"))
            except (KeyError, ValueError):
                raise RedockError(
                    "what the disk's own 'find' printed is no list of files"
                ) from None
        if len(found) > MOST_FILES:
            raise RedockError(f"the disk has more than {MOST_FILES} files: too many to compare")
    if not ended:
        raise EngineError("the list of files ended early: run the command again")
    return found


def compare(before: Disk, after: Disk) -> list[Change]:
    """
    Find out what changed.

    :param before: The older disk.
    :param after: The newer one.
    :returns: Every file that differs, by pathname.
    :raises RedockError: A disk cannot be listed.
    """
    skip = {*before.skip, *after.skip}
    listed = call_all({"before": before, "after": after}, lambda disk: disk.entries(skip))
    old, new = listed["before"], listed["after"]
    rewritten = set() if after.running else find_rewritten(before, after, old, new, skip)
    changes = []
    for path in sorted(old.keys() | new.keys()):
        was, now = old.get(path), new.get(path)
        letter = judge(was, now, before.saved if after.running else 0)
        letter = "M" if path in rewritten else letter
        if letter:
            known = now or was
            assert known is not None
            changes.append(
                Change(
                    change=letter,
                    path=path,
                    kind=known.kind,
                    size=known.size,
                    before=was.size if was else None,
                    noise=any(path == each or path.startswith(each + "/") for each in NOISE),
                )
            )
    return changes


def find_rewritten(
    before: Disk,
    after: Disk,
    old: Mapping[str, Entry],
    new: Mapping[str, Entry],
    skip: Iterable[str],
) -> set[str]:
    """
    Find the files of two images that were written again in the second in which one was saved.

    :param before: The older disk.
    :param after: The newer one.
    :param old: The files of the older one.
    :param new: Those of the newer one.
    :param skip: Pathnames that are left out.
    :returns: The pathnames of those that look the same and are not.
    :raises RedockError: A disk cannot be listed.
    """
    seconds = {disk.saved // 1_000_000_000 for disk in (before, after) if disk.saved}
    doubtful = {
        path
        for path, now in new.items()
        if now.kind == "file" and now.moment[0] in seconds and now.size
        if (was := old.get(path)) and judge(was, now, 0) in ("", "C")
    }
    if not doubtful:
        return set()
    found = call_all(
        {"before": before, "after": after}, lambda disk: disk.digests(skip, sorted(seconds))
    )
    return {path for path in doubtful if found["before"].get(path) != found["after"].get(path)}


def judge(was: Entry | None, now: Entry | None, saved: int) -> str:
    """
    Say how a file changed.

    :param was: What it was, None for nothing.
    :param now: What it is, None for nothing.
    :param saved: When the older disk was saved and the other one went on, in billionths of a
                  second; 0 where it did not.
    :returns: The letter of :attr:`Change.change`, empty when it did not change.
    """
    if was is None or now is None:
        return "A" if now is not None else "D"
    if was.kind != now.kind or was.target != now.target or was.size != now.size:
        return "M"
    if now.kind == "file":
        if was.moment[0] != now.moment[0]:
            return "M"
        # In the second of the commit the image cannot tell before from after, but we can.
        seconds, fraction = divmod(saved, 1_000_000_000)
        if now.moment[0] == seconds and now.moment[1] > fraction:
            return "M"
    return "C" if was.owner != now.owner else ""


def fold(changes: Sequence[Change]) -> list[Change]:
    """
    Make one entry of each directory that is there, or gone, with all that is in it.

    :param changes: The changes, by pathname.
    :returns: Fewer changes.
    """
    folded: dict[tuple[str, str], Change] = {}
    for change in changes:
        top = find_top(change, folded)
        if top is None:
            own = 0 if change.kind == "directory" else 1
            folded[change.change, change.path] = replace(change, files=own)
        elif change.kind != "directory":
            folded[top.change, top.path] = replace(
                top, files=top.files + 1, size=top.size + change.size
            )
    return sorted(folded.values(), key=lambda each: each.path)


def find_top(change: Change, folded: Mapping[tuple[str, str], Change]) -> Change | None:
    """
    Find the directory that a change is part of.

    :param change: The change.
    :param folded: The directories so far; those above come before those below.
    :returns: The directory, None when the change stands for itself.
    """
    if change.change not in ("A", "D"):
        return None
    path = change.path
    while path := path.rpartition("/")[0]:
        top = folded.get((change.change, path))
        if top is not None:
            return top if top.kind == "directory" else None
    return None


def compare_texts(before: bytes | None, after: bytes | None, path: str) -> str:
    """
    Show how the contents of a file changed.

    :param before: What it was, None for no file.
    :param after: What it is, None for no file.
    :param path: Its pathname.
    :returns: A unified diff, empty for no change.
    :raises InvalidArgument: It is not text.
    """
    lines = []
    for contents in (before, after):
        if contents is not None and b"\0" in contents:
            raise InvalidArgument(f"{path} is not a text file")
        lines.append((contents or b"").decode("utf-8", "replace").splitlines(keepends=True))
    names = [
        f"{letter}{path}" if contents is not None else "/dev/null"
        for letter, contents in (("a", before), ("b", after))
    ]
    shown = []
    for line in difflib.unified_diff(lines[0], lines[1], names[0], names[1]):
        shown.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(shown)


def count_written(engine: Engine, container: str, since: float, until: float) -> int | None:
    """
    Count the files that were written in a container.

    Not beside a commit: an engine that pauses a container in the moment it
    starts a command in it may wait for both for ever (Docker 20.10).

    :param engine: The engine.
    :param container: The id of the container; it runs.
    :param since: When it was made, in seconds since 1970.
    :param until: When to stop counting.
    :returns: How many files, None when that cannot be found out.
    """
    skip = [word for path in (*NOT_ON_DISK, *NOISE) for word in ("-path", path, "-prune", "-o")]
    # Whatever is written there anew, or only touched, changes at that moment (inode(7)).
    tests = ["-newerct", f"@{since:.6f}", "!", "-newerct", f"@{until:.6f}"]
    command = ["find", "/", "-xdev", *skip, *tests, "!", "-type", "d", "-printf", "."]
    try:
        _, stream = engine.begin_exec(container, command)
        try:
            return sum(piece.count(b".") for piece in join_frames(stream))
        finally:
            stream.close()
    except (OSError, RedockError):
        # A number that is missing is no reason to say that nothing was saved.
        return None
