"""
The saved states of a machine: making them, listing them, comparing.
"""

from __future__ import annotations

import contextlib
import logging
from typing import cast

from redock import _machines, _remembered
from redock._engine import KIND, label_changes
from redock._machines import Machine
from redock._progress import busy, size
from redock.errors import (
    EngineError,
    InvalidArgument,
    NoContainerRunning,
    NotFound,
    RedockError,
)
from redock.utils import summarize_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from redock._changes import Change, Disk
    from redock._commits import Commit
    from redock._commits import History as Commits
    from redock._engine import Engine
    from redock.api import Container

__all__ = ["History"]

logger = logging.getLogger("redock.api")


class History:
    """The part of :class:`~redock.api.Container` that keeps states of its disk."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)

    @property
    def _commits(self) -> Commits:
        """Its commits, as the engine has them now."""
        from redock._commits import History as Commits

        return Commits(self._container.engine, self._container.image)

    # Looking.

    def history(self) -> list[Commit]:
        """
        List what was saved.

        :returns: The commits, the newest first.
        :raises DockerUnavailable: No engine answers.
        """
        machine = self._container._find_machine()
        return self._commits.read(machine.image if machine else None)

    def find_commit(self, commit: str | int | None = None) -> Commit:
        """
        Find one of the commits.

        :param commit: Its number, or the beginning of its id (default: the last that was saved,
                       where the next start begins).
        :returns: The commit.
        :raises NotFound: There is no such commit, or several begin like that.
        """
        machine = self._container._find_machine()
        wanted = None if commit is None else str(commit)
        return self._commits.find(wanted, machine.image if machine else None)

    def diff(
        self,
        commit: str | int | None = None,
        until: str | int | None = None,
        *,
        everything: bool = False,
    ) -> list[Change]:
        """
        Find out what changed on the disk.

        :param commit: The commit to compare with, as for :meth:`find_commit` (default: the last;
                       of a machine that was never saved the disk it was made from).
        :param until: The commit whose changes since the other are wanted (default: none, but
                      what is on the machine's disk now).
        :param everything: Also what changes while a machine does nothing, below ``/run``,
                           ``/tmp`` and ``/var/log`` (default: leave it out).
        :returns: Every file that differs, by pathname.
        :raises NoContainerRunning: There is no machine, and no second commit was given.
        :raises NotFound: There is no such commit.
        """
        from redock._changes import compare

        with self._disks(commit, until) as (before, after):
            changes = compare(before, after)
        return [each for each in changes if everything or not each.noise]

    def diff_file(
        self, path: str, commit: str | int | None = None, until: str | int | None = None
    ) -> str:
        """
        Show how the contents of a text file changed.

        :param path: The pathname inside the machine.
        :param commit: As for :meth:`diff`.
        :param until: As for :meth:`diff`.
        :returns: A unified diff, empty when nothing changed.
        :raises NotFound: The file is on neither disk.
        :raises InvalidArgument: It is not a text file, or too large.
        """
        from redock._changes import compare_texts

        if not path.startswith("/") or "\0" in path:
            raise InvalidArgument(f"{path!r} is not the pathname of a file in the machine")
        with self._disks(commit, until) as (before, after):
            texts = before.read(path), after.read(path)
        if texts == (None, None):
            raise NotFound(f"there is no file {path} in {self._container.image.name}", 404)
        return compare_texts(*texts, path)

    @contextlib.contextmanager
    def _disks(
        self, commit: str | int | None, until: str | int | None
    ) -> Iterator[tuple[Disk, Disk]]:
        """
        Get two disks to compare.

        :param commit: As for :meth:`diff`.
        :param until: As for :meth:`diff`.
        :returns: A context manager, which gives the older and the newer disk.
        """
        from redock._changes import Disk

        engine, name = self._container.engine, self._container.image.name
        machine = self._container._find_machine()
        if machine is None and until is None:
            raise NoContainerRunning(
                f"there is no machine {name} to compare: start it, or name two commits"
            )
        commits = self._commits
        if machine is not None and commit is None and not commits.marks():
            before = Disk(engine, machine.image)
        else:
            before = disk_of(commits.find(None if commit is None else str(commit)), engine)
        if until is not None:
            yield before, disk_of(commits.find(str(until)), engine)
            return
        assert machine is not None
        described = engine.inspect_container(machine.id)
        skip = [mount["Destination"] for mount in described.get("Mounts") or ()]
        if machine.state == "running":
            yield before, Disk(engine, machine.id, running=True, skip=skip)
            return
        # Nothing can be run in it: look at a copy of its disk.
        marks = label_changes({KIND: "scan"})
        copy = engine.commit(machine.id, "", "", changes=marks, pause=False)
        try:
            yield before, Disk(engine, copy, skip=skip)
        finally:
            engine.remove_image(copy, force=True)

    # Saving.

    def _save(self, machine: Machine, message: str | None, author: str | None, squash: bool) -> str:
        """
        Save the disk of a machine as its image; the caller holds the lock.

        :param machine: The machine.
        :param message: A short description.
        :param author: Who made the change.
        :param squash: Make one layer of it.
        :returns: The id of the image.
        """
        container = self._container
        engine, image = container.engine, container.image
        commits = self._commits
        commits.adopt()
        options = container._save_options()
        changes = _machines.saved_changes(image.name, machine.next_hostname, options)
        logger.info("Saving the disk of %s", image.name)
        with busy(f"Saving the disk of {image.name}"):
            try:
                saved = engine.commit(
                    machine.id, *image.key, message=message, author=author, changes=changes
                )
            except EngineError as error:
                if "max depth exceeded" not in str(error):
                    raise
                if not squash:
                    raise RedockError(
                        f"{image.name} has as many layers as the engine takes: save it with"
                        f" 'redock commit --squash {image.name}'"
                    ) from error
                saved = self._save_flat(machine, message, author, options)
        number = commits.add(saved)
        if squash:
            saved = self._flatten(commits, number, saved)
        self._tell_saved(commits, number, machine)
        return saved

    def _tell_saved(self, commits: Commits, number: int, machine: Machine) -> None:
        """
        Say what was saved, and how near the engine's limit is.

        :param commits: The commits.
        :param number: The number of the one that was saved.
        :param machine: The machine.
        """
        from redock._changes import count_written
        from redock._commits import DEEPEST, NEARLY_DEEPEST, moment

        engine, name = commits.engine, self._container.image.name
        described = engine.inspect_image(commits.numbers[number])
        if described is None:
            return
        saved = commits.describe(number, described, None)
        files = None
        # Counting takes a while: only where somebody reads it.
        if machine.state == "running" and logger.isEnabledFor(logging.INFO):
            created = moment(engine.inspect_container(machine.id)["Created"])
            until = saved.created.timestamp()
            files = count_written(engine, machine.id, created.timestamp(), until)
        counted = f" in {files} file{'s' * (files != 1)}" if files is not None else ""
        logger.info(
            "Saved %s as image %s: commit %i, %s%s",
            name,
            summarize_id(saved.id),
            number,
            size(saved.size),
            counted,
        )
        if saved.layers >= NEARLY_DEEPEST:
            logger.warning(
                "%s has %i layers of the %i an engine takes: 'redock squash %s' makes one of them",
                name,
                saved.layers,
                DEEPEST,
                name,
            )

    def _save_flat(
        self, machine: Machine, message: str | None, author: str | None, options: str
    ) -> str:
        """
        Save the disk of a machine that has too many layers for another one.

        :param machine: The machine.
        :param message: A short description.
        :param author: Who made the change.
        :param options: What it was started with besides its disk, as JSON.
        :returns: The id of the image, which has one layer.
        """
        from redock._flat import flatten

        container = self._container
        engine, image = container.engine, container.image
        described = engine.inspect_container(machine.id)
        marks = _machines.saved_marks(image.name, machine.next_hostname, options)
        marks = {**described["Config"]["Labels"], **marks}
        frozen = machine.state == "running"
        if frozen:
            engine.pause(machine.id)
        try:
            return flatten(
                engine,
                machine.id,
                {**described["Config"], "Labels": marks},
                *image.key,
                message=message or "",
                author=author or "",
                what=f"Saving the disk of {image.name}",
            )
        finally:
            if frozen:
                engine.pause(machine.id, resume=True)

    def squash(self) -> Commit:
        """
        Make one layer of the last commit, which keeps its number, message and author.

        Engines take about 125 layers, and each commit of a machine that was
        started from a commit adds one. A machine that runs is not touched; it
        has one layer when it is next made from its commit.

        :returns: The commit.
        :raises NotFound: Nothing was saved.
        """
        with self._container._lock:
            last = self.find_commit()
            commits = self._commits
            commits.adopt()
            if last.layers <= 1:
                logger.info("%s has one layer already", self._container.image.name)
                return last
            self._flatten(commits, last.number, last.id)
            made = self.find_commit()
        logger.info(
            "Made one layer of %i in commit %i of %s: image %s, %s",
            last.layers,
            made.number,
            self._container.image.name,
            made.short_id,
            size(made.size),
        )
        return made

    def _flatten(self, commits: Commits, number: int, image_id: str) -> str:
        """
        Make one layer of the last commit.

        :param commits: The commits.
        :param number: Its number.
        :param image_id: The id of its image.
        :returns: The id of the image it has then.
        """
        from redock._flat import flatten_image

        described = commits.engine.inspect_image(image_id)
        assert described is not None
        what = f"Making one layer of {commits.image.name}"
        made = flatten_image(commits.engine, described, *commits.image.key, what)
        commits.put(number, made)
        commits.latest = made
        left = commits.engine.inspect_image(image_id)
        # Somebody else may have given it a name; where a container is made of it, it stays.
        if left is not None and not left.get("RepoTags"):
            try:
                commits.engine.remove_image(image_id)
            except EngineError as error:
                if error.status != 409:
                    raise
        return made

    # Forgetting.

    def _forget(self) -> int:
        """
        Delete all commits and what is remembered of them; the caller holds the lock.

        :returns: How many there were.
        """
        container = self._container
        commits = self._commits
        count = len({*commits.numbers.values(), *filter(None, [commits.latest])})
        for name in commits.names():
            container.engine.remove_image(name)
        _remembered.forget(container.image.name)
        return count


def disk_of(commit: Commit, engine: Engine) -> Disk:
    """
    Get the disk of a commit, to compare.

    :param commit: The commit.
    :param engine: The engine.
    :returns: The disk.
    """
    from redock._changes import Disk

    return Disk(engine, commit.id, saved=round(commit.created.timestamp() * 1e6) * 1000)
