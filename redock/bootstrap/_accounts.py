"""
Users and groups.
"""

from __future__ import annotations

import os
import re

from redock.bootstrap._change import Change, Secret, reveal
from redock.bootstrap._requests import (
    authorized_keys_text,
    check_names,
    check_state,
    path_bytes,
)
from redock.bootstrap._session import Session
from redock.errors import (
    InvalidArgument,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Accounts"]


class Accounts(Session):
    """The part of :class:`Bootstrap` that looks after users and groups."""

    def group(
        self,
        name: str,
        *,
        gid: int | None = None,
        system: bool = False,
        state: Literal["present", "absent"] = "present",
    ) -> Change:
        """
        Make sure that a group exists, or does not.

        >>> host.group("deployers").changed
        True

        :param name: The name of the group.
        :param gid: Its number (default: do not care).
        :param system: Create it with a number for system groups (default: no).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :returns: What changed.
        :raises OperationFailed: The group cannot be brought into that state.
        """
        check_state(state, "present", "absent")
        arguments = {"name": login_name(name), "gid": gid, "system": system, "state": state}
        return self._operate("group", name, "group", arguments)

    def user(
        self,
        name: str,
        *,
        uid: int | None = None,
        group: str | int | None = None,
        groups: Sequence[str] = (),
        home: Path | None = None,
        shell: str | None = None,
        system: bool = False,
        password_hash: str | Secret | None = None,
        authorized_keys: str | Iterable[str] | None = None,
        state: Literal["present", "absent"] = "present",
    ) -> Change:
        """
        Make sure that a user exists, or does not.

        >>> host.user("deploy", shell="/bin/bash", groups=["www-data"]).changed
        True
        >>> host.user("deploy", shell="/bin/bash", groups=["www-data"]).changed
        False

        :param name: The login name.
        :param uid: The number (default: do not care).
        :param group: The primary group (default: do not care; a new user gets one
                      of the same name).
        :param groups: Further groups the user is to be in; others are left alone.
        :param home: The home directory (default: do not care); it is created together
                     with the user, unless that is a system user.
        :param shell: The login shell (default: do not care).
        :param system: Create a system user, without a home directory (default: no).
        :param password_hash: The password as :manpage:`crypt(5)` stores it (default: do not care).
        :param authorized_keys: The complete content of ``~/.ssh/authorized_keys``, as text or
                                as lines (default: do not care).
        :param state: ``present`` or ``absent``; the home directory is not removed
                      (default: ``present``).
        :returns: What changed.
        :raises OperationFailed: The user cannot be brought into that state.
        """
        check_state(state, "present", "absent")
        hashed, _ = reveal(password_hash)
        if hashed is not None and (set(hashed) & set(":\n\r") or not hashed):
            raise InvalidArgument("that is not the hash of a password")
        if hashed is not None:
            # A hash can be attacked at leisure, so it is hidden even when it came as plain text.
            Secret(hashed)
        arguments = {
            "name": login_name(name),
            "uid": uid,
            "group": check_names(group),
            "groups": [login_name(item) for item in groups],
            "home": None if home is None else os.fsdecode(path_bytes(home)),
            "shell": shell,
            "system": system,
            "password_hash": hashed,
            "authorized_keys": authorized_keys_text(authorized_keys),
            "state": state,
        }
        return self._operate("user", name, "user", arguments)


def login_name(name: str) -> str:
    """
    Check the name of a user or group.

    :param name: The name.
    :returns: The same name.
    :raises InvalidArgument: It is not one, and might be an option.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", name):
        raise InvalidArgument(f"{name!r} is not the name of a user or group")
    return name
