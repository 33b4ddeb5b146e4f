"""
Looking without changing: facts, files, and functions that are run over there.
"""

from __future__ import annotations

import os

from redock.bootstrap._change import Secret, reveal
from redock.bootstrap._requests import (
    path_bytes,
    pure_source,
)
from redock.bootstrap._session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from redock.bootstrap._facts import Facts, Stat

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Reading"]


class Reading(Session):
    """The part of :class:`Bootstrap` that looks."""

    @property
    def facts(self) -> Facts:
        """
        What kind of host it is, read once when first asked for.

        >>> host.facts.os_id
        'debian'

        :raises ConnectionFailed: The host cannot be reached.
        """
        if self._facts is None:
            from redock.bootstrap._facts import Facts

            answer, _ = self._ask("facts", {}, "facts")
            self._facts = Facts(**answer)
        return self._facts

    def read_file(self, path: Path) -> bytes | None:
        """
        Read a file.

        >>> host.read_file("/etc/hostname").strip() != b""
        True

        :param path: The absolute path on the host.
        :returns: The content; None when there is no such file.
        :raises OperationFailed: The file cannot be read or has more than 48 MiB.
        """
        during = f"read_file {os.fspath(path)}"
        answer: bytes | None = self._ask("read_file", {"path": path_bytes(path)}, during)[0]
        return answer

    def stat(self, path: Path, *, follow: bool = False) -> Stat | None:
        """
        Look at what is at a path.

        >>> host.stat("/etc/passwd").owner
        'root'

        :param path: The absolute path on the host.
        :param follow: Follow a symbolic link at the path (default: no).
        :returns: What is there; None when there is nothing.
        :raises OperationFailed: The path cannot be looked at.
        """
        arguments = {"path": path_bytes(path), "follow": follow}
        answer, _ = self._ask("stat", arguments, f"stat {os.fspath(path)}")
        if answer is None:
            return None
        from redock.bootstrap._facts import Stat

        target = answer.pop("target")
        return Stat(**answer, target=None if target is None else os.fsdecode(target))

    def call(self, function: Callable[..., Any], /, **arguments: Any) -> Any:
        """
        Run a function on the host and get what it returns.

        The source of the function is sent. It has to be a function of its own,
        written with ``def``, that imports what it needs itself. Arguments and results are
        None, booleans, numbers (integers not below -2**31), text, bytes, and lists,
        tuples, sets and dictionaries of these. It runs in a dry run, too.

        >>> def count(directory):
        ...     import os
        ...
        ...     return len(os.listdir(directory))
        >>> host.call(count, directory="/etc/ssh") > 1
        True

        An exception over there is an :class:`~redock.errors.OperationFailed` here, which is
        also of the same built-in type, so that ``except FileNotFoundError`` works.

        :param function: The function.
        :param arguments: Its arguments, by keyword.
        :returns: What the function returned.
        :raises InvalidArgument: The function cannot be sent.
        :raises OperationFailed: The function raised an exception.
        """
        source, name = pure_source(function)
        values, _ = reveal(arguments)
        request = {"source": source, "name": name, "arguments": values}
        return self._ask("call", request, f"call {name}")[0]
