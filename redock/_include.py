"""
The one line in the user's ssh configuration, and how it gets in and out.

Apart from that line, which comes first because ``ssh`` takes the first value it
finds for an option, every byte of the file stays, with its mode, owner and
symbolic link. Taking the line out restores the file.
"""

from __future__ import annotations

import errno
import os
import stat

from redock import _ssh
from redock._files import (
    Lock,
    atomic_write,
    ensure_directory,
    path_in_home,
    read_bytes,
    remove_file,
    user_home,
)
from redock._json_text import dumps, loads
from redock._log import LateLogger
from redock._settings import setting
from redock.errors import AliasTaken, RedockError, SSHConfigConflict, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

__all__ = [
    "AliasProbe",
    "client_command",
    "find_mode",
    "install",
    "is_installed",
    "preview",
    "remove",
]

logger = LateLogger(__name__)

COMMENT = (
    "# Added by redock, for ssh to find its machines; 'redock ssh-config remove' takes it out."
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FRAGMENT = "00-redock"


def lock() -> Lock:
    """
    Get the lock that guards the user's configuration among redock's processes.

    :returns: A lock to be used in a ``with`` statement.
    """
    return Lock(path_in_home("locks", ".include.lock"), "your SSH configuration")


def find_mode() -> str:
    """
    Find out how redock may change the user's configuration.

    :returns: ``include``, ``merge`` (for users of update-dotdee) or ``none``.
    :raises SettingsError: The setting makes no sense.
    """
    mode = setting("ssh_config")
    if mode != "auto":
        return mode
    checksum = os.path.join(dotdee_directory(), ".checksum")
    return "merge" if os.path.isfile(checksum) else "include"


def dotdee_directory() -> str:
    """
    Get the directory update-dotdee assembles the user's configuration from.

    :returns: A pathname.
    """
    return _ssh.home_config_file() + ".d"


def include_line() -> str:
    """
    Get the line that makes ``ssh`` read redock's configuration.

    Below the home directory the path starts with ``~``: ssh versions differ in
    what they make of a ``%`` in it.

    :returns: One line of ssh_config(5).
    :raises SSHConfigConflict: ssh cannot read such a line.
    """
    path, home = _ssh.config_file(), user_home().rstrip("/")
    shown = "~" + path[len(home) :] if path.startswith(home + "/") else path
    if any(character in path for character in '*?["\\\n\r') or "%" in shown or "$" in shown:
        raise SSHConfigConflict(f"ssh cannot include a file of this name: {path}")
    return f'Include "{shown}"' if " " in shown else f"Include {shown}"


def added_bytes(newline: bytes = b"\n") -> bytes:
    """
    Get what is put at the beginning of the user's configuration.

    :param newline: The end of a line in that file.
    :returns: A comment and the line, each with its end.
    """
    return b"".join(line.encode() + newline for line in (COMMENT, include_line()))


def is_installed(contents: bytes) -> bool:
    """
    Check whether the line stands where it works: before the first host.

    :param contents: The user's configuration.
    :returns: True when it does.
    """
    wanted = include_line().encode()
    for line in contents.removeprefix(BYTE_ORDER_MARK).splitlines():
        words = line.strip()
        if words == wanted:
            return True
        if words.lower().startswith(
            (b"host ", b"match ", b"host\t", b"match\t", b"host=", b"match=")
        ):
            return False
    return False


def with_line(contents: bytes) -> bytes:
    """
    Put the line in.

    :param contents: The user's configuration.
    :returns: The same with the line in front, after a byte order mark.
    """
    mark = BYTE_ORDER_MARK if contents.startswith(BYTE_ORDER_MARK) else b""
    newline = b"\r\n" if b"\r\n" in contents.partition(b"\n")[0] + b"\n" else b"\n"
    return mark + added_bytes(newline) + contents[len(mark) :]


def without_line(contents: bytes) -> bytes:
    """
    Take the line out, wherever it stands now.

    :param contents: The user's configuration.
    :returns: The same without the line and its comment.
    """
    kept: list[bytes] = []
    for line in contents.splitlines(keepends=True):
        if line.strip() != include_line().encode():
            kept.append(line)
        elif kept and kept[-1].removeprefix(BYTE_ORDER_MARK).strip() == COMMENT.encode():
            # The comment belongs to this line; another redock's has one of its own.
            comment = kept.pop()
            if comment.startswith(BYTE_ORDER_MARK):
                kept.append(BYTE_ORDER_MARK)
    return b"".join(kept)


def install() -> bool:
    """
    Make sure ``ssh`` reads redock's configuration.

    :returns: True when something was changed.
    :raises SettingsError: The setting makes no sense.
    :raises SSHConfigConflict: It cannot be done safely; nothing was changed.
    """
    mode = find_mode()
    if mode == "none":
        return False
    # The usual case takes one read and no lock.
    if is_installed(read_config()):
        return False
    with lock():
        contents = read_config()
        if is_installed(contents):
            return False
        if mode == "merge":
            install_fragment(contents)
        else:
            replace_config(contents, with_line(contents))
    if os.environ.get("HOME", user_home()).rstrip("/") != user_home().rstrip("/"):
        logger.warning("$HOME is not %s, where ssh looks for its configuration", user_home())
    return True


def remove() -> bool:
    """
    Take redock out of the user's ssh configuration.

    :returns: True when something was changed.
    :raises SSHConfigConflict: It cannot be done safely; nothing was changed.
    """
    with lock():
        fragment = os.path.join(dotdee_directory(), FRAGMENT)
        if os.path.exists(fragment):
            remove_fragment(fragment)
            return True
        contents = read_config()
        remaining = without_line(contents)
        if remaining == contents:
            return False
        created = read_created()
        if not remaining and created.get("file"):
            target = os.path.realpath(_ssh.home_config_file())
            remove_file(target)
            if created.get("directory"):
                remove_if_empty(os.path.dirname(target))
        else:
            replace_config(contents, remaining)
        remove_file(created_file())
        return True


def remove_fragment(fragment: str) -> None:
    """
    Take the line out of what update-dotdee assembles, and undo its installation if that was ours.

    :param fragment: The pathname of redock's fragment.
    :raises SSHConfigConflict: Somebody changed the assembled file; nothing was changed.
    """
    config, directory = _ssh.home_config_file(), dotdee_directory()
    kept = read_bytes(fragment)
    remove_file(fragment)
    try:
        from redock import _dotdee

        _dotdee.assemble(config, directory, force=False)
    except SSHConfigConflict:
        atomic_write(fragment, kept or b"")
        raise
    others = set(os.listdir(directory)) - {"local", ".checksum"}
    if not read_created().get("adopted") or others:
        return
    local = os.path.join(directory, "local")
    original = read_bytes(local)
    if original is None:
        remove_file(os.path.realpath(config))
    else:
        replace_config(read_config(), original)
    for name in ("local", ".checksum"):
        remove_file(os.path.join(directory, name))
    remove_if_empty(directory)
    remove_file(created_file())


def preview(*, removing: bool = False) -> str:
    """
    Show what :func:`install` or :func:`remove` would change.

    :param removing: Show the removal (default: the installation).
    :returns: A unified diff, empty when nothing would change.
    """
    import difflib

    before = read_config()
    after = before
    if removing:
        after = without_line(before)
    elif not is_installed(before):
        after = with_line(before)
    name = _ssh.home_config_file()
    return "".join(
        difflib.unified_diff(
            before.decode("utf-8", "replace").splitlines(keepends=True),
            after.decode("utf-8", "replace").splitlines(keepends=True),
            name,
            name,
        )
    )


def read_config() -> bytes:
    """
    Read the user's configuration; only a file that does not exist counts as empty.

    :returns: Its contents.
    :raises SSHConfigConflict: It exists and cannot be read.
    """
    try:
        return read_bytes(_ssh.home_config_file()) or b""
    except StateError as error:
        raise SSHConfigConflict(str(error)) from error


def install_fragment(contents: bytes) -> None:
    """
    Give the line to update-dotdee as a fragment of its own, first in its order.

    :param contents: The user's configuration.
    :raises SSHConfigConflict: update-dotdee would lose something.
    """
    config, directory = _ssh.home_config_file(), dotdee_directory()
    keep_backup(contents)
    fragment = os.path.join(directory, FRAGMENT)
    try:
        if os.path.exists(config):
            check_writable(config)
        if not os.path.isfile(os.path.join(directory, ".checksum")):
            adopt_config(contents)
        atomic_write(fragment, added_bytes())
    except StateError as error:
        raise SSHConfigConflict(str(error)) from error
    except OSError as error:
        raise SSHConfigConflict(f"cannot write {config}: {error.strerror}") from error
    try:
        from redock import _dotdee

        _dotdee.assemble(config, directory, force=False)
    except SSHConfigConflict:
        remove_file(fragment)
        raise


def adopt_config(contents: bytes) -> None:
    """
    Make a fragment of a configuration that update-dotdee does not generate yet.

    :param contents: The user's configuration.
    :raises SSHConfigConflict: update-dotdee would lose something.
    """
    config, directory = _ssh.home_config_file(), dotdee_directory()
    local = os.path.join(directory, "local")
    if b"config.d" in contents:
        raise SSHConfigConflict(
            f"{config} includes {directory} itself, update-dotdee would include it twice:"
            " set ssh_config to 'include'"
        )
    if contents and read_bytes(local) not in (None, contents):
        raise SSHConfigConflict(
            f"{local} exists and is not {config}, update-dotdee would lose one of them:"
            " set ssh_config to 'include'"
        )
    ensure_directory(path_in_home("ssh"))
    atomic_write(created_file(), dumps({"adopted": True}).encode())
    ensure_directory(directory)
    if contents:
        atomic_write(local, contents)


def keep_backup(contents: bytes) -> None:
    """
    Keep a copy of the user's configuration as it was before redock first changed it.

    :param contents: The user's configuration.
    """
    backup = path_in_home("ssh", "config.before-redock")
    ensure_directory(os.path.dirname(backup))
    if contents and not os.path.exists(backup):
        atomic_write(backup, contents)


def replace_config(before: bytes, after: bytes) -> None:
    """
    Write the user's configuration.

    :param before: What it is thought to contain.
    :param after: What it is to contain.
    :raises SSHConfigConflict: It cannot be written, ssh could not read it, or somebody else
                               changed it at this moment.
    """
    path = os.path.realpath(_ssh.home_config_file())
    keep_backup(before)
    try:
        mode, owner = prepare_place(path)
        check_readable(path, before, after)
        if read_config() != before:
            raise SSHConfigConflict(f"{path} was changed meanwhile: run the command again")
        atomic_write(path, after, mode, owner)
    except StateError as error:
        raise SSHConfigConflict(str(error)) from error
    except OSError as error:
        raise SSHConfigConflict(f"cannot write {path}: {error.strerror}") from error


def prepare_place(path: str) -> tuple[int, tuple[int, int] | None]:
    """
    Find the mode and owner of the user's configuration, or make the place for it.

    :param path: Its pathname, without symbolic links.
    :returns: The mode and, if it exists, the user and group id.
    :raises OSError: It may not be written.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        directory = os.path.dirname(path)
        missing = not os.path.isdir(directory)
        atomic_write(created_file(), dumps({"file": True, "directory": missing}).encode())
        ensure_directory(directory)
        return 0o600, None
    check_writable(path)
    # It is the user's, whatever became of a file that redock once made.
    remove_file(created_file())
    return stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)


def check_writable(path: str) -> None:
    """
    Respect that a file is not to be written, also as root, who could.

    :param path: The pathname of a file.
    :raises OSError: It may not be written.
    """
    if not os.access(path, os.W_OK) or not os.stat(path).st_mode & stat.S_IWUSR:
        raise PermissionError(errno.EACCES, "it is read-only")


def check_readable(path: str, before: bytes, after: bytes) -> None:
    """
    Make sure ``ssh`` reads the new configuration, if it could read the old one.

    :param path: The configuration's pathname.
    :param before: The old contents.
    :param after: The new contents.
    :raises SSHConfigConflict: It does not.
    """
    trial = path_in_home("ssh", f".redock-trial-{os.getpid()}.tmp")
    try:
        atomic_write(trial, after)
        if _ssh.effective_options("redock-trial", trial):
            return
        atomic_write(trial, before)
        if _ssh.effective_options("redock-trial", trial):
            raise SSHConfigConflict(f"ssh could not read {path} with redock's line in it")
        raise SSHConfigConflict(
            f"ssh cannot read {path} as it is: mend it first, see 'ssh -G localhost'"
        )
    finally:
        remove_file(trial)


def created_file() -> str:
    """
    Get the pathname of the note on what redock created for the user's configuration.

    :returns: A pathname.
    """
    return path_in_home("ssh", "created.json")


def read_created() -> dict[str, bool]:
    """
    Read the note on what redock created.

    :returns: ``file`` and ``directory``; empty when nothing was created.
    """
    try:
        loaded = loads(read_bytes(created_file()) or b"{}")
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def remove_if_empty(directory: str) -> None:
    """
    Remove a directory unless something is in it.

    :param directory: A pathname.
    """
    try:
        os.rmdir(directory)
    except OSError as error:
        logger.debug("Leaving %s: %s", directory, error)


class AliasProbe:
    """
    Asks ``ssh``, beside other work, whether an alias means another host to the user.

    :param alias: The alias.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.process: subprocess.Popen[bytes] | None = None
        if find_mode() != "none" and os.path.exists(_ssh.home_config_file()):
            self.process = _ssh.begin_options(alias)

    def check(self) -> None:
        """
        Wait for the answer.

        :raises AliasTaken: The user's configuration leads the alias elsewhere.
        """
        if self.process is None:
            return
        options = _ssh.finish_options(self.process)
        self.process = None
        ours = options.get("hostkeyalias", "").startswith("redock-")
        target = options.get("hostname", self.alias)
        if target != self.alias and not ours:
            raise AliasTaken(
                f"your SSH configuration leads {self.alias} to {target}:"
                " give the machine another name with --hostname"
            )

    def discard(self) -> None:
        """Stop asking."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


def client_command(alias: str) -> list[str]:
    """
    Choose the command that connects to a machine.

    :param alias: The name of the machine for ``ssh``.
    :returns: Plain ``ssh ALIAS`` where the user's configuration knows it.
    """
    try:
        if find_mode() != "none" and is_installed(read_config()):
            return ["ssh", alias]
    except SSHConfigConflict:
        pass
    return ["ssh", "-F", _ssh.config_file(), alias]


def explain(error: RedockError, alias: str) -> str:
    """
    Say how a machine can be reached without the user's configuration.

    :param error: Why the configuration was left alone.
    :param alias: The machine's alias.
    :returns: One line for the user.
    """
    from redock._process import quote

    return f"{error}; connect with: {quote(['ssh', '-F', _ssh.config_file(), alias])}"
