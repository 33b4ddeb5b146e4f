"""
update-dotdee, kept away from what it can break.

update-dotdee assembles a configuration file from a directory of fragments.
With the context it comes with it starts a process for each step, truncates
the file before it writes, and moves the user's file away. The context given to
it here does none of that: plain function calls, atomic writes, no programs.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import types

from redock._files import atomic_write, ensure_directory, read_bytes
from redock.errors import SSHConfigConflict, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

__all__ = ["assemble"]

logger = logging.getLogger(__name__)

#: Only one thread at a time may see the stand-ins.
IMPORTING = threading.Lock()


class PlainFiles:
    """
    The few methods of an execution context that update-dotdee calls.

    :param own: The files are redock's alone: always private, and whatever their names, fragments
                (default: the user's, whose mode, owner and symbolic links stay).
    """

    def __init__(self, own: bool = False) -> None:
        self.own = own

    def is_directory(self, path: str) -> bool:
        """Check whether a directory exists."""
        return os.path.isdir(path)

    def is_file(self, path: str) -> bool:
        """Check whether a regular file exists."""
        return os.path.isfile(path)

    def is_executable(self, path: str) -> bool:
        """Say no: fragments are read, never run."""
        return False

    def list_entries(self, path: str) -> list[str]:
        """List the plain files of a directory, editors' leftovers excluded."""
        return [
            name
            for name in os.listdir(path)
            if os.path.isfile(os.path.join(path, name))
            and (self.own or not name.endswith(("~", ".orig", ".bak")))
        ]

    def read_file(self, path: str) -> bytes:
        """Read a whole file."""
        return read_bytes(path) or b""

    def write_file(self, path: str, contents: bytes | str) -> None:
        """Write a whole file atomically, unless it has these contents already."""
        data = contents.encode("ascii") if isinstance(contents, str) else contents
        if read_bytes(path) == data:
            return
        mode, owner = 0o600, None
        if not self.own and os.path.exists(path):
            path = os.path.realpath(path)
            found = os.stat(path)
            mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
        atomic_write(path, data, mode, owner)

    def execute(self, program: str, *arguments: str, **_options: Any) -> None:
        """Do what update-dotdee runs programs for: make the directory, keep the first file."""
        if program == "mkdir":
            ensure_directory(arguments[-1])
        elif program == "mv":
            # A copy: the original is replaced, atomically, in a moment.
            contents = read_bytes(arguments[0])
            if contents is not None:
                atomic_write(arguments[1], contents)
        else:
            raise NotImplementedError(program)


def load() -> ModuleType:
    """
    Import update-dotdee whatever else is installed, and without executor.

    update-dotdee loads executor for the context that is replaced here. That
    takes longer than everything else a machine's start imports, and fails on
    Python 3.13, which dropped the module ``pipes``.

    :returns: The module.
    :raises SSHConfigConflict: It cannot be imported.
    """
    stand_ins = {}
    for name in ("executor", "executor.contexts"):
        if name not in sys.modules:
            stand_ins[name] = types.ModuleType(name)
            stand_ins[name].LocalContext = PlainFiles  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        import update_dotdee
    except ImportError as error:
        raise SSHConfigConflict(f"update-dotdee cannot be loaded: {error}") from error
    finally:
        # Whoever needs executor in this process gets the real one.
        for name in stand_ins:
            del sys.modules[name]
    if not callable(update_dotdee.natsort):
        # The packages naturalsort and natsort both install a module "natsort".
        update_dotdee.natsort = sorted
    # That it overwrites redock's own file is no news.
    logging.getLogger("update_dotdee").setLevel(logging.ERROR)
    module: ModuleType = update_dotdee
    return module


def assemble(filename: str, directory: str, *, force: bool) -> None:
    """
    Write a configuration file from its fragments.

    :param filename: The file to generate.
    :param directory: The directory of the fragments.
    :param force: The file is redock's alone; overwrite what somebody changed in it.
    :raises SSHConfigConflict: The file was changed by somebody else, or cannot be written.
    """
    with IMPORTING:
        module = load()
    tool = module.UpdateDotDee(
        filename=filename, directory=directory, force=force, context=PlainFiles(own=force)
    )
    try:
        tool.update_file()
    except module.RefuseToOverwrite as error:
        raise SSHConfigConflict(
            f"{filename} was changed by hand since update-dotdee generated it: move the change to"
            f" a file in {directory}, delete {directory}/.checksum and run the command again"
        ) from error
    except (OSError, StateError, ValueError) as error:
        raise SSHConfigConflict(f"{filename} cannot be updated: {error}") from error
