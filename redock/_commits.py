"""
The commits of a machine: where they are kept, finding them, choosing one.

The engine keeps only the newest image under a name; older ones would lose
theirs and go with the next ``docker image prune``. So every commit has a name
of its own besides, ``redock-history/MACHINE-HASH:NUMBER``, and these names,
not labels, say what belongs to the history: labels survive in whatever is
made from an image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from redock._engine import KIND, label
from redock._names import history_repository
from redock.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from redock._engine import Engine
    from redock._image import Image

__all__ = ["DEEPEST", "NEARLY_DEEPEST", "Commit", "History", "choose"]

#: How many layers the engine's storage takes (docker's layer store: maxLayerDepth).
DEEPEST = 125
#: From here on users are told.
NEARLY_DEEPEST = 100
#: Fractions of seconds as engines write them: with nine digits, or fewer.
FRACTION = re.compile(r"\.(\d+)")


class Mark(NamedTuple):
    """What a commit is told from others by: three fields of :class:`Commit`."""

    number: int
    id: str
    latest: bool


@dataclass(frozen=True)
class Commit:
    """A saved state of the disk of a machine."""

    #: Counts from 1; a number is never given to another commit of the same machine.
    number: int
    #: The id of the image.
    id: str
    #: When it was saved.
    created: datetime
    #: What it was described with, empty for nothing.
    message: str
    #: Who saved it, empty when that was not said.
    author: str
    #: The bytes of its own layer: what it takes besides what it was made on.
    size: int
    #: The layers below and including its own; engines take about 125.
    layers: int
    #: The machine started from this one.
    running: bool
    #: The next start of the machine begins here; so does the next ``diff``.
    latest: bool

    @property
    def short_id(self) -> str:
        """The beginning of the id, enough to tell it from others."""
        return self.id.removeprefix("sha256:")[:12]


AnyMark = TypeVar("AnyMark", Mark, Commit)


class History:
    """
    The commits of a machine, as the engine has them at this moment.

    The caller holds the machine's lock where something is changed.

    :param engine: The engine.
    :param image: The name of the machine.
    """

    def __init__(self, engine: Engine, image: Image) -> None:
        self.engine = engine
        self.image = image
        #: The id of the image under the machine's own name, None when there is none.
        self.latest: str | None = None
        #: The ids of the commits by number.
        self.numbers: dict[int, str] = {}
        #: Whether what is under the machine's own name was saved by redock.
        self.saved = False
        ours = history_repository(image.name)
        images = engine.images({"reference": [ours, image.name]})
        if engine.is_podman:
            # Version 4 knows an image by either of these only where both fit.
            images = engine.images({"label": [f"{KIND}=image"]})
        for listed in images:
            names = listed.get("RepoTags") or ()
            if image.name in names:
                self.latest = listed["Id"]
                self.saved = (listed.get("Labels") or {}).get(KIND) == "image"
            for name in names:
                repo, _, tag = name.rpartition(":")
                if repo == ours and tag.isdigit():
                    self.numbers[int(tag)] = listed["Id"]
        described = None if self.latest else engine.inspect_image(image.name)
        if described is not None:
            # The engine has a shorter form of some names.
            self.latest = described["Id"]
            self.saved = (described["Config"].get("Labels") or {}).get(KIND) == "image"

    @property
    def following(self) -> int:
        """The number of the next commit."""
        return max(self.numbers, default=0) + 1

    def adopt(self) -> None:
        """Take what has the machine's name into the history, where it was not saved by us."""
        if self.saved and self.latest and self.latest not in self.numbers.values():
            self.add(self.latest)

    def add(self, image_id: str) -> int:
        """
        Add a commit.

        :param image_id: The id of its image.
        :returns: Its number.
        """
        number = self.following
        self.put(number, image_id)
        return number

    def put(self, number: int, image_id: str) -> None:
        """
        Give a commit its name.

        :param number: Its number.
        :param image_id: The id of its image.
        """
        self.engine.tag_image(image_id, history_repository(self.image.name), str(number))
        self.numbers[number] = image_id

    def number_of(self, image_id: str) -> int:
        """
        Find the number of a commit.

        :param image_id: The id of its image.
        :returns: The highest that it has, 0 for none.
        """
        return max((n for n, each in self.numbers.items() if each == image_id), default=0)

    def names(self) -> list[str]:
        """
        List the names all commits have, the one of the machine itself last.

        :returns: Names of images.
        """
        ours = history_repository(self.image.name)
        names = [f"{ours}:{number}" for number in sorted(self.numbers)]
        return names + ([self.image.name] if self.latest else [])

    def read(self, started_from: str | None = None) -> list[Commit]:
        """
        Get everything about the commits.

        :param started_from: The id of the image the machine was made from, None without one.
        :returns: The commits, the newest first.
        """
        commits = []
        for mark in self.marks():
            described = self.engine.inspect_image(mark.id)
            if described is not None:
                commits.append(self.describe(mark.number, described, started_from))
        return commits

    def marks(self) -> list[Mark]:
        """
        Get what commits are told apart by, without asking the engine again.

        :returns: One of each commit, the newest first.
        """
        numbers = dict(self.numbers)
        if self.latest and self.latest not in numbers.values() and self.saved:
            # Of a redock that kept no history, or tagged by somebody: what adopting would make it.
            numbers[self.following] = self.latest
        return [
            Mark(number, numbers[number], numbers[number] == self.latest)
            for number in sorted(numbers, reverse=True)
        ]

    def find(self, wanted: str | None, started_from: str | None = None) -> Commit:
        """
        Find one commit, and get everything about it.

        :param wanted: As for :func:`choose`.
        :param started_from: As for :meth:`read`.
        :returns: The commit.
        :raises NotFound: There is no such commit.
        """
        mark = choose(self.marks(), wanted, self.image.name)
        described = self.engine.inspect_image(mark.id)
        if described is None:
            raise NotFound(f"commit {mark.number} of {self.image.name} was removed just now", 404)
        return self.describe(mark.number, described, started_from)

    def describe(self, number: int, described: dict[str, Any], started_from: str | None) -> Commit:
        """
        Put together what is known about a commit.

        :param number: Its number.
        :param described: What the engine says about its image.
        :param started_from: The id of the image the machine was made from.
        :returns: The commit.
        """
        sizes = [each["Size"] for each in self.engine.image_history(described["Id"])]
        before = (described["Config"].get("Labels") or {}).get(label("squashed"))
        return Commit(
            number=number,
            id=described["Id"],
            created=moment(described.get("Created") or ""),
            message=described.get("Comment") or "",
            author=described.get("Author") or "",
            # A squashed one has everything in the layer below the one that only says so.
            size=sum(sizes[: 2 if before else 1]),
            layers=len((described.get("RootFS") or {}).get("Layers") or ()),
            running=started_from is not None and started_from in (described["Id"], before),
            latest=described["Id"] == self.latest,
        )


def choose(commits: Sequence[AnyMark], wanted: str | None, name: str) -> AnyMark:
    """
    Find a commit that somebody asks for.

    :param commits: All commits of the machine, or their marks, the newest first.
    :param wanted: A number, or the beginning of an id; None for the last one that was saved.
    :param name: The name of the machine, for messages.
    :returns: The commit.
    :raises NotFound: There is none, or several begin like that.
    """
    if not commits:
        raise NotFound(f"nothing of {name} was saved yet: 'redock commit {name}' does that", 404)
    if wanted is None:
        return next((each for each in commits if each.latest), commits[0])
    text = wanted.removeprefix("sha256:").removeprefix("#").lower()
    found = [each for each in commits if text == str(each.number)]
    if not found and len(text) >= 4:
        found = [each for each in commits if each.id.removeprefix("sha256:").startswith(text)]
    if len({each.id for each in found}) != 1:
        problem = "stands for several commits" if found else "is no commit"
        from redock._names import shown

        raise NotFound(f"{shown(wanted)} {problem} of {name}: 'redock log {name}' lists them", 404)
    return found[0]


def moment(text: str) -> datetime:
    """
    Read a moment as the engine writes it (RFC 3339).

    :param text: For example ``2026-11-25T02:54:44.893283678Z``.
    :returns: The moment; the beginning of time where it cannot be read.
    """
    try:
        # Nanoseconds are more than Python takes.
        shorter = FRACTION.sub(lambda found: "." + found[1][:6].ljust(6, "0"), text)
        read = datetime.fromisoformat(shorter)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return read if read.tzinfo else read.replace(tzinfo=UTC)
