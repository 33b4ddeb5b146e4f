"""
Files, directories, links and lines of files.
"""

from __future__ import annotations

import os

from redock.bootstrap._change import Change, Secret, reveal
from redock.bootstrap._requests import (
    argv,
    check_names,
    check_state,
    content_bytes,
    file_mode,
    path_bytes,
    pattern_bytes,
    render,
)
from redock.bootstrap._session import PATIENCE, Session
from redock.errors import (
    InvalidArgument,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Literal

    Path = str | os.PathLike[str]
    Text = str | bytes | Secret

__all__ = ["Files"]

#: Content larger than this is sent only when the host has something else.
INLINE = 256 * 1024
#: Large content travels in pieces of this size.
PIECE = 512 * 1024


class Files(Session):
    """The part of :class:`Bootstrap` that looks after files."""

    def file(
        self,
        path: Path,
        content: Text | None = None,
        *,
        source: Path | None = None,
        owner: str | int | None = None,
        group: str | int | None = None,
        mode: int | str | None = None,
        state: Literal["present", "absent"] = "present",
        validate: str | Sequence[str] | None = None,
        backup: bool = False,
        sensitive: bool = False,
        follow: bool = False,
    ) -> Change:
        """
        Make sure that a file has a content, an owner and a mode, or does not exist.

        A file is replaced as a whole or not at all, even when the host loses
        its power. The exception are files a container engine has mounted, such
        as ``/etc/hosts``: they can only be written in place, and the change
        says so. A symbolic link at the path is replaced, not followed.

        >>> host.file("/etc/motd", "Welcome!\\n", mode=0o644).changed
        True
        >>> host.file("/etc/motd", "Welcome!\\n", mode=0o644).changed
        False
        >>> host.file("/etc/motd", "Goodbye!\\n").summary()
        'content changed'

        :param path: The absolute path on the host.
        :param content: Text (written as UTF-8), bytes or a secret (default: do not
                        care; a file that does not exist is created empty).
        :param source: A local file with the content, in place of ``content``.
        :param owner: The name or number of the owner (default: do not care).
        :param group: The name or number of the group (default: do not care).
        :param mode: The permissions as an octal number or text such as ``"0644"``
                     (default: do not care; 0644 for a new file).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param validate: A command that must succeed before the file is replaced, with
                         ``%s`` for the path of the new content (default: none).
        :param backup: Keep the content before the last change as ``.NAME.bak`` (default: no).
        :param sensitive: Never show the content (default: no; always for a :class:`Secret`).
        :param follow: Change the file a symbolic link points to (default: no).
        :returns: What changed.
        :raises OperationFailed: The file cannot be brought into that state.
        :raises InvalidArgument: An argument makes no sense.
        """
        return self._file(
            "file",
            path,
            content,
            source=source,
            owner=owner,
            group=group,
            mode=mode,
            state=state,
            validate=validate,
            backup=backup,
            sensitive=sensitive,
            follow=follow,
        )

    def _file(
        self,
        op: str,
        path: Path,
        content: Text | None,
        *,
        source: Path | None = None,
        owner: str | int | None = None,
        group: str | int | None = None,
        mode: int | str | None = None,
        state: str = "present",
        validate: str | Sequence[str] | None = None,
        backup: bool = False,
        sensitive: bool = False,
        follow: bool = False,
        parents: bool = False,
    ) -> Change:
        check_state(state, "present", "absent")
        if content is not None and source is not None:
            raise InvalidArgument("give content or source, not both")
        arguments: dict[str, Any] = {
            "path": path_bytes(path),
            **self._attributes(owner, group, mode),
            "state": state,
            "backup": backup,
            "follow": follow,
            "parents": parents,
            "hide": sensitive,
        }
        if validate is not None:
            arguments["validate"] = validator(validate)
        stream = None
        if source is not None:
            data, stream = self._from_file(source, arguments)
        else:
            data, secret = content_bytes(content)
            arguments["hide"] = sensitive or secret
        if data is not None and len(data) > INLINE:
            stream = lambda: pieces_of(data)  # noqa: E731
            arguments["size"] = len(data)
        elif data is not None:
            arguments["content"] = data
        # What is at its default needs no way: most of the bytes of a small request were names.
        arguments = {n: v for n, v in arguments.items() if v is not None and v is not False}
        # A large file may take as long as it takes, as long as pieces of it arrive.
        timeout = PATIENCE if stream else None
        return self._operate(op, os.fspath(path), "file", arguments, timeout, stream)

    def _from_file(
        self, source: Path, arguments: dict[str, Any]
    ) -> tuple[bytes | None, Callable[[], Iterator[bytes]] | None]:
        """Prepare the content of a local file: small ones are read, large ones streamed."""
        try:
            size = os.stat(source).st_size
            if size <= INLINE:
                with open(source, "rb") as handle:
                    return handle.read(), None
            with open(source, "rb"):
                pass
        except OSError as error:
            raise InvalidArgument(f"cannot read {source}: {error.strerror}") from error
        arguments["size"] = size
        return None, lambda: pieces_of_file(source, size)

    def _attributes(
        self, owner: str | int | None, group: str | int | None, mode: int | str | None
    ) -> dict[str, Any]:
        return {
            "owner": check_names(owner),
            "group": check_names(group),
            "mode": file_mode(mode),
        }

    def upload_file(self, pathname: Path, contents: Text) -> Change:
        """
        Create or replace a file; directories above it are created.

        >>> bool(host.upload_file("/srv/site/hello.txt", "Hello!\\n"))
        True

        :param pathname: The absolute path on the host.
        :param contents: The text (written as UTF-8) or bytes.
        :returns: What changed.
        :raises OperationFailed: The file cannot be written.
        """
        return self._file("upload_file", pathname, contents, parents=True)

    def template(
        self,
        path: Path,
        template: Path,
        variables: Mapping[str, Any] | None = None,
        /,
        **file_options: Any,
    ) -> Change:
        """
        Make sure that a file has the content a Jinja2 template gives.

        Needs ``redock[templates]``. An undefined variable is an error. In the
        template ``host`` is this object, so ``{{ host.facts.hostname }}`` works. A
        secret among the variables makes the file sensitive.

        >>> host.template("/etc/motd", "Welcome to {{ name }}!\\n", {"name": "web"}).changed
        True
        >>> host.read_file("/etc/motd")
        b'Welcome to web!\\n'

        :param path: The absolute path on the host.
        :param template: The text of the template, or a :class:`pathlib.Path` of a local
                         file with it.
        :param variables: The values of the variables (default: none).
        :param file_options: Keyword arguments of :meth:`file`.
        :returns: What changed.
        :raises InvalidArgument: The template is wrong or a variable is missing.
        :raises OperationFailed: The file cannot be brought into that state.
        """
        values, secret = reveal(dict(variables or {}))
        content = render(template, {"host": self, **values})
        if secret:
            file_options["sensitive"] = True
        return self._file("template", path, content, **file_options)

    def directory(
        self,
        path: Path,
        *,
        owner: str | int | None = None,
        group: str | int | None = None,
        mode: int | str | None = None,
        state: Literal["present", "absent"] = "present",
        recurse: bool = False,
    ) -> Change:
        """
        Make sure that a directory exists, with those above it, or does not.

        >>> host.directory("/srv/app/data", mode=0o750).changed
        True
        >>> host.directory("/srv/app", state="absent", recurse=True).changed
        True

        :param path: The absolute path on the host.
        :param owner: The name or number of the owner (default: do not care).
        :param group: The name or number of the group (default: do not care).
        :param mode: The permissions (default: do not care; 0755 for a new directory).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param recurse: Give everything below the same owner and group, or remove it, too
                        (default: no).
        :returns: What changed.
        :raises OperationFailed: The directory cannot be brought into that state.
        """
        check_state(state, "present", "absent")
        target = path_bytes(path)
        if os.path.normpath(target) == b"/" and (state == "absent" or recurse):
            raise InvalidArgument("this would take the whole host")
        arguments = {
            "path": target,
            **self._attributes(owner, group, mode),
            "state": state,
            "recurse": recurse,
        }
        return self._operate("directory", os.fspath(path), "directory", arguments)

    def symlink(
        self,
        path: Path,
        target: Path | None = None,
        *,
        state: Literal["present", "absent"] = "present",
        force: bool = False,
    ) -> Change:
        """
        Make sure that a symbolic link points somewhere, or does not exist.

        >>> host.symlink("/srv/current", "/srv/release-1").changed
        True

        :param path: The absolute path of the link.
        :param target: What it points to, as it is to be stored; not needed for ``absent``.
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param force: Replace a file that is in the way (default: no).
        :returns: What changed.
        :raises OperationFailed: Something else is at the path.
        """
        check_state(state, "present", "absent")
        if target is None and state == "present":
            raise InvalidArgument("a symbolic link needs a target")
        arguments = {
            "path": path_bytes(path),
            "target": b"" if target is None else path_bytes(target, absolute=False),
            "state": state,
            "force": force,
        }
        return self._operate("symlink", os.fspath(path), "symlink", arguments)

    def line(
        self,
        path: Path,
        line: str | Secret,
        *,
        match: str | None = None,
        after: str | None = None,
        state: Literal["present", "absent"] = "present",
        create: bool = False,
        follow: bool = False,
    ) -> Change:
        """
        Make sure that a file contains a line, or does not.

        >>> host.line("/etc/environment", "EDITOR=vi", match="^EDITOR=").changed
        True
        >>> host.line("/etc/environment", "EDITOR=vi", match="^EDITOR=").changed
        False

        :param path: The absolute path on the host.
        :param line: The line, without its end.
        :param match: A regular expression: the last line that it finds is replaced; with
                      ``absent`` all lines that it finds are removed (default: only lines
                      that are equal).
        :param after: A regular expression: a new line goes behind the last line that
                      it finds (default: the end of the file).
        :param state: ``present`` or ``absent`` (default: ``present``).
        :param create: Create the file when it does not exist (default: that is an error).
        :param follow: Change the file a symbolic link points to (default: no).
        :returns: What changed.
        :raises OperationFailed: The file does not exist or cannot be written.
        """
        check_state(state, "present", "absent")
        data, secret = content_bytes(line)
        assert data is not None
        if b"\n" in data:
            raise InvalidArgument("a line has no line breaks")
        arguments = {
            "path": path_bytes(path),
            "line": data,
            "match": pattern_bytes(match),
            "after": pattern_bytes(after),
            "state": state,
            "create": create,
            "follow": follow,
            "hide": secret,
        }
        return self._operate("line", os.fspath(path), "line", arguments)


def validator(command: str | Sequence[str]) -> list[bytes]:
    """Split the command that validates a file."""
    import shlex

    words = argv(shlex.split(command) if isinstance(command, str) else command)
    if not any(b"%s" in word for word in words):
        raise InvalidArgument("a command that validates a file contains %s, for its path")
    return words


def pieces_of(data: bytes) -> Iterator[bytes]:
    """Cut content into pieces that travel one by one."""
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


def pieces_of_file(path: Path, size: int) -> Iterator[bytes]:
    """Read a local file in pieces; an empty one tells that it became shorter."""
    with open(path, "rb") as handle:
        while size > 0:
            piece = handle.read(min(PIECE, size))
            size -= len(piece)
            yield piece
            if not piece:
                return
