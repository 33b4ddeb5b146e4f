"""
Files with saved machines: archives of images as ``docker save`` makes them.

What is written can be read by ``docker load`` and by redock. What is read was
made by somebody else, so nothing in it is believed: names of images are not
taken from it, only the layers and their configuration go on to the engine,
and not before everything has been looked at. An archive passes through here
in pieces, whatever its size.

Format: https://github.com/moby/docker-image-spec (manifest.json and what it
names; both layouts, that of directories and that of blobs).
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zlib
from typing import cast

from redock._engine import label
from redock._names import HISTORY, check_hostname, familiar, shown
from redock._printed import printable
from redock._progress import counted
from redock.errors import InvalidArgument, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO, Any, Protocol

    from redock._engine import Engine

    class Source(Protocol):
        """What archives are read from."""

        def read(self, count: int, /) -> bytes:
            """Read some bytes."""


__all__ = ["Inflow", "Saved", "compress", "find_name", "load", "open_file", "rewrite"]

BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 20
DIGEST = r"[0-9a-f]{64}"
#: As Docker has it, and as Podman has it.
LAYER = re.compile(rf"{DIGEST}(?:/layer)?\.tar")
BLOB = re.compile(rf"blobs/sha256/{DIGEST}")
#: Layers that are there twice are links to each other.
LINK = re.compile(rf"(?:\.\./)?{DIGEST}(?:/layer)?\.tar|(?:\.\./)*blobs/sha256/{DIGEST}")
#: What is not needed: it says again, for older engines, what the manifest says.
DROPPED = re.compile(rf"(?:{DIGEST}|blobs|blobs/sha256)/?|{DIGEST}/(?:VERSION|json)")
DROPPED_NAMES = ("repositories", "oci-layout", "index.json")
#: What engines say about an image without a name; without "ID" it is Podman.
LOADED = re.compile(rf"(?:Loaded image(?: ID)?: |,)(sha256:{DIGEST})")
#: Disks are large: a little less for a third of the time (zlib's manual, deflateInit).
COMPRESSION = 3
#: Bounds on memory: of one description, of all of them.
LARGEST_TEXT, LARGEST_TEXTS = 1 << 20, 32 << 20


class Saved:
    """
    An image in an archive.

    :param names: The names it had.
    :param config: Its configuration.
    :param layers: Where its layers are in the archive.
    """

    def __init__(self, names: Sequence[str], config: dict[str, Any], layers: Sequence[str]) -> None:
        self.names = list(names)
        self.config = config
        self.layers = list(layers)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        found = (self.config.get("config") or {}).get("Labels") or {}
        return {str(key): str(value) for key, value in found.items()}

    @property
    def number(self) -> int:
        """Its number in the history of its machine; 0 where it has none."""
        tags = [name.rpartition(":") for name in self.names]
        numbers = [tag for repo, _, tag in tags if repo.startswith(f"{HISTORY}/") and tag.isdigit()]
        return max((int(number) for number in numbers), default=0)

    @property
    def machine(self) -> str | None:
        """The name of the machine whose last commit it is, None for older ones."""
        return next((name for name in self.names if not name.startswith(f"{HISTORY}/")), None)


def rewrite(
    source: Source, accept: Callable[[list[Saved]], None], rename: Callable[[Saved], list[str]]
) -> Iterator[bytes]:
    """
    Pass an archive on, without what it should not say and what nobody should believe.

    :param source: The archive, compressed or not.
    :param accept: Called with the images in it before anything is complete; raises an error to
                   refuse them.
    :param rename: Says how an image is to be called.
    :returns: Yields an archive of the same layers, in pieces.
    :raises RedockError: It is not an archive of images of redock's.
    """
    try:
        yield from rewrite_members(source, accept, rename)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise RedockError(f"this is not a complete archive: {printable(str(error))}") from error
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        if isinstance(error, RedockError):
            raise
        raise RedockError(
            "this is not an archive of images: its descriptions are broken"
        ) from error


def rewrite_members(
    source: Source, accept: Callable[[list[Saved]], None], rename: Callable[[Saved], list[str]]
) -> Iterator[bytes]:
    """
    Do the work of :func:`rewrite`, whose errors are those of the archive.

    :param source: As there.
    :param accept: As there.
    :param rename: As there.
    :returns: As there.
    """
    texts: dict[str, bytes] = {}
    layers: set[str] = set()
    with tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|*") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.issym() and LAYER.fullmatch(name) and LINK.fullmatch(member.linkname):
                layers.add(name)
                yield header(name, 0, member.linkname)
                continue
            if DROPPED.fullmatch(name) or name in DROPPED_NAMES or name in ("", "."):
                continue
            if not member.isreg() or member.issparse():
                raise RedockError(f"this is not an archive of images: {shown(name)} is in it")
            handle = tar.extractfile(member)
            assert handle is not None
            blob = BLOB.fullmatch(name)
            start = b""
            if not LAYER.fullmatch(name):
                if not blob and "/" in name:
                    raise RedockError(f"this is not an archive of images: {shown(name)} is in it")
                if member.size <= LARGEST_TEXT:
                    start = handle.read()
                    if len(start) < member.size:
                        raise EOFError("unexpected end of data")
                if is_text(start):
                    texts[name] = start
                    if sum(map(len, texts.values())) > LARGEST_TEXTS:
                        raise RedockError("this is not an archive of images: its texts are endless")
                    continue
                if not blob:
                    raise RedockError(f"this is not an archive of images: {shown(name)} is in it")
            layers.add(name)
            yield header(name, member.size)
            yield from contents(handle, start, member.size)
    saved = read_manifest(texts, layers)
    accept(saved)
    yield from descriptions(saved, rename)


def is_text(data: bytes) -> bool:
    """
    Check whether a small file is a description.

    :param data: Its contents.
    :returns: True for JSON.
    """
    if data[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def header(name: str, size: int, target: str = "") -> bytes:
    """
    Make the header of a member.

    :param name: Its name.
    :param size: Its bytes.
    :param target: Where it leads, for a symbolic link.
    :returns: The header.
    """
    member = tarfile.TarInfo(name)
    member.size, member.linkname = size, target
    member.type = tarfile.SYMTYPE if target else tarfile.REGTYPE
    return member.tobuf(tarfile.GNU_FORMAT)


def contents(handle: IO[bytes], start: bytes, size: int) -> Iterator[bytes]:
    """
    Pass on the contents of a member.

    :param handle: The member.
    :param start: What has been read of it.
    :param size: How long it is.
    :returns: Yields the contents and what fills the last block.
    """
    done = len(start)
    if start:
        yield start
    while done < size:
        data = handle.read(min(PIECE, size - done))
        if not data:
            raise EOFError("unexpected end of data")
        done += len(data)
        yield data
    yield bytes(-size % BLOCK)


def read_manifest(texts: dict[str, bytes], layers: set[str]) -> list[Saved]:
    """
    Read what an archive says about its images.

    :param texts: The descriptions in it.
    :param layers: The layers in it.
    :returns: The images.
    :raises RedockError: It is incomplete, or an image in it was not made by redock.
    """
    if "manifest.json" not in texts:
        raise RedockError(
            "this is not an archive of images, or its end is missing: it has no manifest.json"
        )
    saved = []
    for entry in json.loads(texts["manifest.json"]):
        names = [familiar(str(name)) for name in entry.get("RepoTags") or ()]
        config = json.loads(texts.get(str(entry["Config"]), b"null"))
        paths = [str(path) for path in entry["Layers"]]
        if not isinstance(config, dict) or not set(paths) <= layers:
            raise RedockError("this archive is not complete: it lacks something its manifest names")
        image = Saved(names, config, paths)
        if not image.labels.get(label("recipe")):
            what = f" ({shown(names[0])})" if names else ""
            raise RedockError(
                f"the image in this archive{what} was not made by redock and has no SSH server"
                " to start: use 'docker load', and --base to build on it"
            )
        # Who saved it, and on which machine, is nobody's business.
        for name in ("container", "container_config"):
            config.pop(name, None)
        saved.append(image)
    if not saved:
        raise RedockError("this archive has no image in it")
    return saved


def descriptions(saved: Sequence[Saved], rename: Callable[[Saved], list[str]]) -> Iterator[bytes]:
    """
    Write the descriptions, which end an archive.

    :param saved: The images.
    :param rename: Says how an image is to be called.
    :returns: Yields the rest of the archive.
    """
    manifest = []
    for image in saved:
        text = json.dumps(image.config, separators=(",", ":")).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        yield from (header(name, len(text)), text, bytes(-len(text) % BLOCK))
        names = rename(image)
        manifest.append({"Config": name, "RepoTags": names or None, "Layers": image.layers})
    text = json.dumps(manifest).encode()
    yield from (header("manifest.json", len(text)), text, bytes(-len(text) % BLOCK))
    yield bytes(2 * BLOCK)


class Inflow:
    """
    Something that arrives in pieces, as a file to read.

    :param pieces: The pieces.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.rest = b""

    def read(self, count: int) -> bytes:
        """
        Read some bytes.

        :param count: How many.
        :returns: That many; fewer only at the end.
        """
        parts, missing = [self.rest], count - len(self.rest)
        while missing > 0:
            piece = next(self.pieces, b"")
            if not piece:
                break
            parts.append(piece)
            missing -= len(piece)
        data = b"".join(parts)
        self.rest = data[count:]
        return data[:count]


def load(engine: Engine, source: Source, what: str) -> tuple[list[str], str]:
    """
    Give the images of an archive to the engine; they have no names there.

    :param engine: The engine.
    :param source: The archive, compressed or not.
    :param what: What is done, to be shown.
    :returns: The ids of the images, the oldest first, and that of the last commit among them.
    :raises RedockError: It is not an archive of one machine of redock's; nothing of it is left.
    """
    images: list[Saved] = []
    known: set[str] = set()

    def accept(saved: list[Saved]) -> None:
        if len(saved) > 1 and any(not image.number for image in saved):
            raise RedockError("this archive is of several images, not of one machine")
        images.extend(saved)
        known.update(each["Id"] for each in engine.images({}))

    pieces = counted(rewrite(source, accept, lambda image: []), what)
    reports = engine.upload("/images/load", "load the archive", pieces, query={"quiet": 1})
    text = "".join(str(report.get("stream", "")) for report in reports)
    ids = LOADED.findall(text)
    try:
        if len(ids) != len(images):
            raise RedockError(f"the engine did not load the archive: {printable(text.strip())}")
        for image_id in ids:
            check_image(engine.inspect_image(image_id))
    except BaseException:
        for image_id in set(ids) - known:
            engine.remove_image(image_id)
        raise
    paired = sorted(zip(images, ids, strict=True), key=lambda each: each[0].number)
    last = next((image_id for image, image_id in paired if image.machine), paired[-1][1])
    return [image_id for _, image_id in paired], last


def check_image(described: dict[str, Any] | None) -> None:
    """
    Make sure that a machine can be made from an image.

    :param described: What the engine says about it.
    :raises RedockError: It cannot.
    """
    labels = ((described or {}).get("Config") or {}).get("Labels") or {}
    if not labels.get(label("recipe")):
        raise RedockError("the engine made something else of the archive: it has no label of ours")
    hostname = labels.get(label("hostname"))
    if hostname:
        check_hostname(hostname)


def compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """
    Compress, as gzip(1) does.

    :param pieces: What is to be compressed.
    :returns: Yields the compressed file in pieces.
    """
    # 31: with the header of gzip (zlib's manual, deflateInit2).
    packer = zlib.compressobj(COMPRESSION, zlib.DEFLATED, 31)
    for piece in pieces:
        packed = packer.compress(piece)
        if packed:
            yield packed
    yield packer.flush()


def find_name(path: str) -> str:
    """
    Find out which machine was saved in a file.

    :param path: The pathname of the file.
    :returns: The name of the machine.
    :raises RedockError: There is no such file, it is no archive, or it does not say.
    """
    found: list[Saved] = []

    def note(saved: list[Saved]) -> None:
        found.extend(saved)

    with open_file(path) as handle:
        for _ in rewrite(handle, note, lambda image: []):
            pass
    names = [image.machine for image in found if image.machine]
    if len(names) != 1:
        raise InvalidArgument(f"{path} does not say which machine it is: give a NAME")
    return str(names[0])


def open_file(path: str) -> IO[bytes]:
    """
    Open a file to be imported.

    :param path: Its pathname.
    :returns: The file.
    :raises RedockError: It cannot be read.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise RedockError(f"cannot read {path}: {error.strerror}") from error
