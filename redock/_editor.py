"""
Opening a machine in an editor: command lines and addresses.
"""

from __future__ import annotations

import posixpath
import shutil

from redock.errors import InvalidArgument, RedockError

__all__ = ["EDITORS", "editor_command", "find_editor", "urls"]

#: How each editor is told, by the name of its program: {alias} and {path} are replaced.
#: https://code.visualstudio.com/docs/remote/troubleshooting#_connect-to-a-remote-host-from-the-terminal
#: https://zed.dev/docs/remote-development
EDITORS = {
    "code": ["code", "--remote", "ssh-remote+{alias}", "{path}"],
    "code-insiders": ["code-insiders", "--remote", "ssh-remote+{alias}", "{path}"],
    "codium": ["codium", "--remote", "ssh-remote+{alias}", "{path}"],
    "cursor": ["cursor", "--remote", "ssh-remote+{alias}", "{path}"],
    "windsurf": ["windsurf", "--remote", "ssh-remote+{alias}", "{path}"],
    "zed": ["zed", "ssh://{alias}{url}"],
    "emacs": ["emacs", "/ssh:{alias}:{path}"],
    "ssh": ["ssh", "-t", "{alias}", "{shell}"],
}
#: Those that are looked for when none is asked for.
USUAL = ("code", "codium", "cursor", "windsurf", "code-insiders", "zed")


def absolute(path: str) -> str:
    """
    Make a pathname inside absolute.

    :param path: A pathname; one that is not absolute counts from root's home.
    :returns: The pathname.
    :raises InvalidArgument: It is no pathname.
    """
    if not path.isprintable():
        raise InvalidArgument(f"{path!r} is no pathname for an editor")
    return posixpath.normpath(posixpath.join("/root", path))


def find_editor() -> str | None:
    """
    Find an editor that is installed.

    :returns: The name of its program, None when there is none.
    """
    return next((name for name in USUAL if shutil.which(name)), None)


def editor_command(editor: str, alias: str, path: str) -> list[str]:
    """
    Make the command line that opens a machine in an editor.

    :param editor: A key of :data:`EDITORS`.
    :param alias: The name of the machine for ``ssh``.
    :param path: The pathname inside.
    :returns: The command and its arguments.
    :raises InvalidArgument: We do not know such an editor.
    :raises RedockError: It is not installed.
    """
    from urllib.parse import quote as url_quote

    from redock._result import quote

    if editor not in EDITORS:
        raise InvalidArgument(f"unknown editor {editor!r}: choose from {', '.join(EDITORS)}")
    if not shutil.which(editor):
        raise RedockError(f"there is no program {editor!r}: install it, or use --print")
    path = absolute(path)
    words = {
        "alias": alias,
        "path": path,
        "url": url_quote(path),
        "shell": f'cd -- {quote([path])} && exec "$SHELL" -l',
    }
    return [word.format(**words) for word in EDITORS[editor]]


def urls(alias: str, path: str) -> list[str]:
    """
    Make the addresses of a machine.

    :param alias: The name of the machine for ``ssh``.
    :param path: The pathname inside.
    :returns: One for programs that speak SSH (ssh(1) knows no pathname in it), one for VS Code.
    """
    from urllib.parse import quote

    return [
        f"ssh://{alias}",
        f"vscode://vscode-remote/ssh-remote+{alias}{quote(absolute(path))}",
    ]
