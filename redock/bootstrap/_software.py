"""
Packages and where they come from.
"""

from __future__ import annotations

import logging
import os
import time

from redock.bootstrap._change import Change, Secret
from redock.bootstrap._requests import (
    check_state,
    package_names,
    repository_text,
)
from redock.bootstrap._session import PATIENCE, Session
from redock.errors import (
    OperationFailed,
    OperationTimeout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Software"]

logger = logging.getLogger("redock.bootstrap")


class Software(Session):
    """The part of :class:`Bootstrap` that looks after packages."""

    def packages(
        self,
        *names: str,
        state: Literal["present", "absent", "latest"] = "present",
        update_cache: int = 3600,
        recommends: bool = False,
        timeout: float = PATIENCE,
    ) -> Change:
        """
        Make sure that packages are installed, or are not.

        All of them are installed by one run of ``apt-get``, which waits for
        other package managers and asks no questions; configuration files that
        the administrator changed stay.

        >>> host.packages("python3", "rsync").changed
        False

        :param names: The names; ``name=version`` and ``name:architecture`` are allowed.
        :param state: ``present``, ``absent`` or ``latest`` (default: ``present``).
        :param update_cache: Fetch the package lists first when they are older than this
                             many seconds and something is to be installed (default: 3600).
        :param recommends: Install recommended packages, too (default: no).
        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed, with the versions before and after.
        :raises InvalidArgument: A name is not the name of a package.
        :raises OperationFailed: ``apt-get`` failed; the message has its last lines.
        """
        check_state(state, "present", "absent", "latest")
        arguments = {
            "names": package_names(names),
            "state": state,
            "update_cache_after": int(update_cache),
            "recommends": recommends,
        }
        for attempt in range(self.retries + 1):
            try:
                return self._operate("packages", " ".join(names), "packages", arguments, timeout)
            except OperationFailed as error:
                if attempt == self.retries or isinstance(error, OperationTimeout):
                    raise
                self.history.failed.remove(error)
                logger.info("[%s] trying again: %s", self.ssh_alias, error)
                time.sleep(min(2.0**attempt, 10))
        raise AssertionError("unreachable")

    def install_packages(self, *packages: str) -> Change:
        """
        Install packages; the 2013 name of :meth:`packages`.

        >>> host.install_packages("python3").changed
        False

        :param packages: The names of one or more packages.
        :returns: What changed.
        :raises OperationFailed: ``apt-get`` failed.
        """
        return self.packages(*packages)

    def update_system_packages(self, *, timeout: float = PATIENCE) -> Change:
        """
        Bring all installed packages up to date.

        >>> change = host.update_system_packages()

        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed, with the versions before and after.
        :raises OperationFailed: ``apt-get`` failed.
        """
        return self._operate("update_system_packages", "", "update_system_packages", {}, timeout)

    def apt_repository(
        self,
        name: str,
        *,
        uris: str | Iterable[str] = (),
        suites: str | Iterable[str] = (),
        components: str | Iterable[str] = ("main",),
        signed_by: str | None = None,
        state: Literal["present", "absent"] = "present",
        timeout: float = PATIENCE,
    ) -> Change:
        """
        Make sure that ``apt`` knows a repository, or does not.

        The repository is tried before its file is put in place, and its
        package lists are there afterwards.

        >>> host.apt_repository("example", state="absent").changed
        False

        :param name: The name of the file below ``/etc/apt/sources.list.d``, without ``.sources``.
        :param uris: The addresses of the repository.
        :param suites: The suites, for example ``bookworm``.
        :param components: The components (default: ``main``).
        :param signed_by: The path of a keyring on the host, or the ASCII armored key itself
                          (default: the keys ``apt`` trusts).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param timeout: Seconds to wait (default: 1800).
        :returns: What changed.
        :raises InvalidArgument: A value does not fit into the file.
        :raises OperationFailed: ``apt-get`` cannot use the repository; nothing was changed.
        """
        check_state(state, "present", "absent")
        content = repository_text(name, uris, suites, components, signed_by, state)
        arguments = {"name": name, "content": content, "state": state}
        return self._operate("apt_repository", name, "apt_repository", arguments, timeout)
