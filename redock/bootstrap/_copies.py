"""
Whole directories, copied with rsync.
"""

from __future__ import annotations

import os
import time

from redock._process import quote
from redock.bootstrap._change import Change, Secret
from redock.bootstrap._commands import Commands
from redock.bootstrap._connection import ssh_command
from redock.bootstrap._files import Files
from redock.bootstrap._reading import Reading
from redock.bootstrap._requests import (
    path_bytes,
)
from redock.bootstrap._session import PATIENCE
from redock.bootstrap._software import Software
from redock.errors import (
    ExternalCommandFailed,
    InvalidArgument,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Copies"]


class Copies(Commands, Files, Software, Reading):
    """The part of :class:`Bootstrap` that copies directories."""

    def rsync(
        self,
        local_directory: Path,
        remote_directory: Path,
        cvs_exclude: bool = True,
        delete: bool = True,
        *,
        timeout: float = PATIENCE,
    ) -> Change:
        """
        Copy a local directory to the host with ``rsync``, which is installed when missing.

        Only what differs is sent. Modes, and times of files, are kept; the files
        belong to the user one logs in as.

        >>> change = host.rsync(local_directory, "/srv/copy")

        :param local_directory: The directory whose contents are copied.
        :param remote_directory: The absolute path of the directory they go to.
        :param cvs_exclude: Leave out what version control systems and compilers
                            leave behind, as ``rsync --cvs-exclude`` defines it (default: yes).
        :param delete: Delete remote files that do not exist locally (default: yes).
        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed: each path that was copied or deleted.
        :raises ExternalCommandFailed: ``rsync`` failed.
        """
        source = os.path.abspath(os.fspath(local_directory))
        target = os.fsdecode(path_bytes(remote_directory))
        if not os.path.isdir(source):
            raise InvalidArgument(f"{source} is not a local directory")
        started = time.monotonic()
        there = self.stat(target, follow=True)
        if not self.execute("command -v rsync", check=False, capture=True) and not self.dry_run:
            self.packages("rsync")
        if there is None and not self.dry_run:
            self.directory(target)
        if there is None and self.dry_run:
            changes: dict[str, tuple[object, object]] = {"directory": (None, "would be created")}
        else:
            changes = self._run_rsync(source, target, cvs_exclude, delete, timeout)
        change = Change(
            self.ssh_alias,
            "rsync",
            target,
            bool(changes),
            changes,
            seconds=time.monotonic() - started,
            dry_run=self.dry_run,
        )
        self._note(change)
        return change

    def _run_rsync(
        self, source: str, target: str, cvs_exclude: bool, delete: bool, timeout: float
    ) -> dict[str, tuple[object, object]]:
        from redock._process import run as run_command

        ssh = ssh_command(self.ssh_alias)[:-1]
        command = [
            "rsync",
            "--recursive",
            "--links",
            "--perms",
            "--times",
            # Those of directories change with whatever is written in them: that is no difference.
            "--omit-dir-times",
            "--devices",
            "--specials",
            "--protect-args",
            "--out-format=%i %n%L",
            "--rsh=" + quote(ssh),
            *(["--dry-run"] if self.dry_run else []),
            *(["--cvs-exclude"] if cvs_exclude else []),
            *(["--delete"] if delete else []),
            *(["--rsync-path=sudo -n rsync"] if self.sudo else []),
            "--",
            source.rstrip("/") + "/",
            f"{self.ssh_alias}:{target.rstrip('/')}/",
        ]
        try:
            done = run_command(command, timeout=timeout, on_start=self._watch)
        except ExternalCommandFailed as error:
            failure = ExternalCommandFailed(error.result, self.ssh_alias)
            self.history.failed.append(failure)
            raise failure from None
        changes: dict[str, tuple[object, object]] = {}
        for line in done.stdout.splitlines():
            code, _, name = line.partition(" ")
            if code.startswith("*deleting"):
                changes[name.strip()] = ("present", None)
            elif code:
                changes[name.strip()] = (None, "created" if "+++" in code else "updated")
        return changes
