"""
Programs that run, under Supervisor, systemd or the scripts of System V.
"""

from __future__ import annotations

import os
import re

from redock.bootstrap._change import Change, Secret
from redock.bootstrap._requests import (
    check_state,
    path_bytes,
)
from redock.bootstrap._session import Session
from redock.errors import (
    InvalidArgument,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Services"]


class Services(Session):
    """The part of :class:`Bootstrap` that looks after services."""

    def service(
        self,
        name: str,
        state: Literal["running", "stopped", "restarted", "reloaded"] = "running",
        *,
        enabled: bool | None = None,
        restart_if: Change | Path | Iterable[Change | Path] = (),
        reload: bool = False,
        timeout: float = 120.0,
    ) -> Change:
        """
        Make sure that a service runs, or does not, and has seen its configuration.

        Supervisor is asked first, then systemd, then the scripts in ``/etc/init.d``. Supervisor
        and systemd read the files that describe a service again before it is started or
        restarted, where these have changed.

        A service is restarted when one of the changes in ``restart_if`` changed
        something, and also when a file it is about is newer than the running process. So a
        restart is not lost when the program ends between the change and the
        restart: the next run sees the newer file.

        >>> config = host.file("/etc/cron.d/example", "# nothing yet\\n")
        >>> host.service("cron", restart_if=[config]).changed
        True
        >>> host.service("cron", restart_if=["/etc/cron.d/example"]).changed
        False

        :param name: The name of the service.
        :param state: ``running`` or ``stopped``; ``restarted`` and ``reloaded`` act every time
                      (default: ``running``).
        :param enabled: Whether it starts together with the host (default: do not care).
        :param restart_if: Changes and paths of files that the service reads.
        :param reload: Reload where ``restart_if`` asks for a restart (default: no).
        :param timeout: Seconds to wait (default: 120).
        :returns: What changed.
        :raises OperationFailed: The service cannot be brought into that state.
        """
        check_state(state, "running", "stopped", "restarted", "reloaded")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]*", name):
            raise InvalidArgument(f"{name!r} is not the name of a service")
        items: Iterable[Change | Path] = (
            [restart_if] if isinstance(restart_if, (Change, str, os.PathLike)) else restart_if
        )
        watch: list[bytes] = []
        changed = False
        for item in items:
            if isinstance(item, Change):
                changed = changed or bool(item)
                watch += watched(item)
            else:
                watch.append(path_bytes(item))
        arguments = {
            "name": name,
            "state": state,
            "enabled": enabled,
            "watch": watch,
            "changed": changed,
            "reload": reload,
        }
        return self._operate("service", name, "service", arguments, timeout)


#: Operations whose target is a path.
FILE_OPERATIONS = {"file", "template", "upload_file", "directory", "symlink", "line", "rsync"}


def watched(change: Change) -> list[bytes]:
    """Find what tells, also in the next run, that a change happened: paths and packages."""
    if change.op in FILE_OPERATIONS:
        return [os.fsencode(change.target)]
    if change.op == "packages":
        return [b"package:" + re.split("[:=]", name)[0].encode() for name in change.target.split()]
    return []
