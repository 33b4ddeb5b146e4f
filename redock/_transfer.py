"""
Machines under other names and in other places: copies, renaming, files to hand on.
"""

from __future__ import annotations

import contextlib
import logging
import os

from redock import _identity, _machines, _remembered, _ssh
from redock._engine import KIND
from redock._image import Image
from redock._machines import Machine
from redock._names import container_name, hostname_for, is_reserved
from redock._progress import busy, counted, size
from redock._succession import Succession
from redock._transport import COMMIT_PATIENCE
from redock.errors import InvalidArgument, InvalidName, NoContainerRunning, NotFound, RedockError
from redock.utils import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from redock._commits import Commit
    from redock._commits import History as Commits
    from redock.api import Container

__all__ = ["Transfer"]

logger = logging.getLogger("redock.api")


class Transfer(Succession):
    """The part of :class:`~redock.api.Container` that copies, renames and hands on."""

    # Copies and names.

    def clone(
        self,
        name: str | Image,
        commit: str | int | None = None,
        *,
        hostname: str | None = None,
    ) -> Container:
        """
        Make a second machine with the same disk: with a host key, a port and an alias of its own.

        :param name: The name of the new machine.
        :param commit: The commit to copy, as for :meth:`find_commit` (default: none, but what is
                       on the disk now; the machine is frozen for a moment and goes on).
        :param hostname: The host name of the new machine (default: the tag of its name).
        :returns: The new machine; it runs.
        :raises NoContainerRunning: There is no machine, and no commit was given.
        :raises NotFound: There is no such commit.
        :raises RedockError: There is a machine or an image of that name already.
        """
        container = self._container
        copy = self._other(name, hostname)
        with self._both_locks(copy):
            if copy._find_machine() is not None or copy._commits.names():
                raise already_there(copy.image.name)
            if commit is None:
                machine = container._find_machine()
                if machine is None:
                    raise NoContainerRunning(
                        f"there is no machine {container.image.name} to copy: start it, or name a"
                        " commit with --from"
                    )
                note = f"Copy of {container.image.name}"
                source = machine.id
                options = container._current_options(source)
            else:
                chosen = self.find_commit(commit)
                note = f"Copy of commit {chosen.number} of {container.image.name}"
                options = container._saved_options(chosen.id)
                source = container.engine.create_container(
                    f"redock-copy-{os.urandom(6).hex()}",
                    {"Image": chosen.id, "Cmd": ["true"], "Labels": {KIND: "scan"}},
                )
            logger.info("Copying the disk of %s", container.image.name)
            saved = container._hand_on(copy, options)
            changes = _machines.saved_changes(copy.image.name, copy.hostname, saved)
            try:
                with busy(f"Copying the disk of {container.image.name}"):
                    made = container.engine.commit(
                        source, *copy.image.key, message=note, changes=changes
                    )
                copy._commits.add(made)
            except BaseException:
                copy._forget()
                raise
            finally:
                if commit is not None:
                    container.engine.remove_container(source)
        try:
            copy.start()
        except BaseException:
            if copy._find_machine() is None:
                copy._forget()
            raise
        return copy

    def _other(self, name: str | Image, hostname: str | None = None) -> Container:
        """
        Get another machine, one that may be made.

        :param name: Its name.
        :param hostname: Its host name (default: the tag).
        :returns: The machine, whether it is there or not.
        :raises InvalidName: Its name is reserved, or that of this one.
        """
        container = self._container
        image = Image.coerce(name)
        if is_reserved(*image.key) or image.key == container.image.key:
            reason = "reserved" if is_reserved(*image.key) else "its own"
            raise InvalidName(f"the name {image.name} is {reason}: give another")
        asked = hostname or hostname_for(image.tag)
        return type(container)(image, asked, container.timeout, engine=container.engine)

    @contextlib.contextmanager
    def _both_locks(self, other: Container) -> Iterator[None]:
        """
        Hold the locks of two machines, taken in the same order by everybody.

        :param other: The other machine.
        :returns: A context manager.
        """
        first, second = sorted((self._container._lock, other._lock), key=lambda lock: lock.path)
        with first, second:
            yield

    def rename(self, name: str | Image) -> Container:
        """
        Give the machine, and all that was saved of it, another name.

        The machine goes on without noticing: disk, host key, port, processes
        and open connections stay. Its alias is another one, unless it was
        started with a host name of its own. The host name inside changes when
        the machine is next made from a commit.

        :param name: The new name.
        :returns: The machine under its new name.
        :raises NotFound: There is neither a machine nor anything saved of it.
        :raises AliasTaken: Another machine answers to the new alias.
        :raises RedockError: There is a machine or an image of that name already.
        """
        container = self._container
        other = self._other(name)
        other.requested_hostname = None
        with self._both_locks(other):
            mine, theirs = self._commits, other._commits
            machines = _machines.find_machines(container.engine)
            machine, moved = (each._find_machine(machines) for each in (container, other))
            check_names(machine, moved, mine, theirs, _ssh.instance_of(mine.image.name))
            if machine is not None:
                container._remember(machine)
                self._check_new_alias(machine, other)
            mine.adopt()
            for number, image_id in mine.numbers.items():
                theirs.put(number, image_id)
            if mine.latest:
                container.engine.tag_image(mine.latest, *other.image.key)
            if machine is not None:
                self._tidy(machine)
                # The moment: before it the machine has the old name, after it the new one.
                container.engine.rename_container(machine.id, container_name(*other.image.key))
            self._move_entry(other)
            for each in mine.names():
                container.engine.remove_image(each)
        logger.info("Renamed %s to %s", mine.image.name, other.image.name)
        container.session.reset()
        return other

    def _check_new_alias(self, machine: Machine, other: Container) -> None:
        """
        Make sure the alias of a new name is free.

        :param machine: The machine that is to get it.
        :param other: The machine under its new name.
        :raises AliasTaken: Somebody else answers to it.
        """
        from redock._include import AliasProbe

        asked = (
            machine.hostname
            if machine.hostname != hostname_for(self._container.image.tag)
            else None
        )
        other.requested_hostname = asked
        if other.ssh_alias == machine.alias:
            return
        probe = AliasProbe(other.ssh_alias)
        try:
            other._check_alias()
            probe.check()
        finally:
            probe.discard()

    def _move_entry(self, other: Container) -> None:
        """
        Make ``ssh`` know a machine under its new name only.

        :param other: The machine under its new name.
        """
        container = self._container
        machine = other._find_machine()
        if machine is not None:
            other._remember(machine)
            known = os.path.exists(container.ssh_config_file)
            if known or os.path.exists(other.ssh_config_file):
                other.public_key = _identity.recall_public_key(container.engine, machine)
                other.setup_ssh_access()
        _remembered.move(container.image.name, other.image.name)
        # Only the entry: the pinned key is that of the same machine.
        _ssh.remove(container.image.name, None)
        with Config() as state:
            state["containers"].pop(container.image.name, None)

    # Handing on.

    def export(
        self,
        file: str | IO[bytes],
        commit: str | int | None = None,
        *,
        history: bool = False,
    ) -> None:
        """
        Write a commit to a file that somebody else can use.

        It is an archive of images as ``docker save`` makes them. No key of
        redock's is in it. Somebody who is interrupted leaves no file, or the
        one that was there before.

        :param file: A pathname, or a file to write to. A pathname that ends in ``.gz`` or
                     ``.tgz`` is that of a compressed file.
        :param commit: As for :meth:`find_commit` (default: the last).
        :param history: All commits, not only one (default: one).
        :raises NotFound: There is no such commit.
        :raises RedockError: The file cannot be written.
        """
        from redock import _imagefile
        from redock._files import replacing, write_fully

        name = self._container.image.name
        chosen = self.find_commit(commit)
        commits = self._commits
        names = commits.names() if history else [chosen.id]
        described = commits.engine.inspect_image(chosen.id) or {}
        archive = commits.engine.download(
            "/images/get", f"export {name}", {"names": names}, timeout=COMMIT_PATIENCE
        )
        pieces = counted(
            _imagefile.rewrite(
                _imagefile.Inflow(archive),
                lambda saved: None,
                lambda image: image.names if history else [name],
            ),
            f"Exporting {name}",
            int(described.get("Size") or 0),
        )
        if not isinstance(file, str):
            for piece in pieces:
                file.write(piece)
            return
        pieces = _imagefile.compress(pieces) if file.endswith((".gz", ".tgz")) else pieces
        if file.endswith((".zst", ".xz", ".bz2")):
            raise InvalidArgument(f"{file}: redock compresses with gzip only, as .tar.gz")
        if os.path.exists(file) and not os.path.isfile(file):
            raise InvalidArgument(f"{file} is there already and no file")
        logger.info("Exporting commit %i of %s", chosen.number, name)
        with replacing(os.path.realpath(file)) as handle:
            for piece in pieces:
                write_fully(handle, piece)
        logger.info("Wrote %s (%s)", file, size(os.path.getsize(file)))

    def import_(self, file: str | IO[bytes], *, force: bool = False) -> Commit:
        """
        Take a machine from a file that :meth:`export` wrote.

        Nothing in the file is believed: names of images in it are not used,
        and an archive that is incomplete, or whose images redock did not
        make, leaves nothing.

        :param file: A pathname, or a file to read from.
        :param force: Also when something was saved under that name already; it stays, as an
                      older commit (default: refuse).
        :returns: The commit where the next start begins.
        :raises RedockError: It cannot be imported, or something is there already.
        """
        from redock import _imagefile

        container = self._container
        if is_reserved(*container.image.key):
            raise InvalidName(f"the name {container.image.name} is reserved: give another")
        with container._lock:
            commits = self._commits
            if not force and (commits.names() or container._find_machine() is not None):
                raise already_there(container.image.name, " or add to it with --force")
            logger.info("Importing %s", container.image.name)
            with contextlib.ExitStack() as stack:
                handle = file
                if isinstance(handle, str):
                    handle = stack.enter_context(_imagefile.open_file(handle))
                ids, last = _imagefile.load(
                    container.engine, handle, f"Importing {container.image.name}"
                )
            commits.adopt()
            for image_id in ids:
                commits.add(image_id)
            container.engine.tag_image(last, *container.image.key)
            container.image.id = last
            made = self.find_commit()
        logger.info("Imported %s as image %s", container.image.name, made.short_id)
        return made


def already_there(name: str, or_else: str = "") -> RedockError:
    """
    Say that a name is taken.

    :param name: The name.
    :param or_else: What else may be done.
    :returns: An error to raise.
    """
    return RedockError(
        f"{name} is there already: choose another name, remove it with 'redock kill {name}' and"
        f" 'redock delete {name}',{or_else}".rstrip(",")
    )


def check_names(
    machine: Machine | None,
    moved: Machine | None,
    mine: Commits,
    theirs: Commits,
    entry: str | None,
) -> None:
    """
    Make sure a machine can get another name, or got it from somebody who was interrupted.

    :param machine: The machine of the old name.
    :param moved: The machine of the new name.
    :param mine: The commits of the old name.
    :param theirs: The commits of the new name.
    :param entry: The machine that the host entry of the old name leads to.
    :raises NotFound: There is nothing of the old name.
    :raises RedockError: There is something else of the new name.
    """
    # Names are given in this order: all commits, the machine; and taken away in the same.
    given, taken = is_part(theirs, mine), is_part(mine, theirs)
    done = moved is not None and mine.image.name == moved.first_name
    ours = done or (moved is not None and moved.instance == entry)
    if machine is None and not mine.names() and not ours:
        name = mine.image.name
        raise NotFound(f"there is neither a machine {name} nor anything saved of it", 404)
    if machine is not None:
        free = moved is None and given
    elif moved is not None:
        free = taken
    else:
        free = given or taken
    if not free:
        raise already_there(theirs.image.name)


def is_part(theirs: Commits, mine: Commits) -> bool:
    """
    Check whether one history is part of another: what an interrupted rename left.

    :param theirs: The one that may be part.
    :param mine: The other.
    :returns: True when each commit has the same number there; also when there is none.
    """
    same = all(mine.numbers.get(number) == each for number, each in theirs.numbers.items())
    return same and theirs.latest in (None, mine.latest)
