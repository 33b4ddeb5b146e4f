"""
Sessions: the process becomes ``ssh``.

Whoever types ``redock ssh NAME`` where he might type ``ssh ALIAS`` should not feel
the difference, so nothing is loaded here that a machine which is up does not need:
neither the parser of the command line nor what makes machines.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn

    from redock._engine import Engine
else:
    # As in redock.cli: not the enumerations.
    import _signal as signal

__all__ = ["become", "become_if_warm", "become_session", "find_warm"]


def become(command: list[str]) -> NoReturn:
    """
    Become another program.

    :param command: The program and its arguments.
    :raises RedockError: It is not installed.
    """
    # Python ignores it, and whoever is started inherits that.
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(command[0], command)
    except FileNotFoundError as error:
        from redock._process import missing_program

        raise missing_program(command[0]) from error
    finally:
        # We are still here, so it did not work.
        signal.signal(signal.SIGPIPE, before)


def become_session(alias: str, words: list[str]) -> NoReturn:
    """
    Become a session in a machine.

    :param alias: The name of the machine for ``ssh``.
    :param words: The command: none for a shell, one text for the shell there, or a program and
                  its arguments. A ``--`` before them only says that they begin.
    """
    from redock._include import client_command

    program, *arguments = client_command(alias)
    words = words[1:] if words[:1] == ["--"] else words
    if words:
        from redock._command import as_text
        from redock._result import quote

        if all(os.isatty(handle) for handle in (0, 1, 2)):
            arguments.insert(0, "-t")
        # What starts with a hyphen would be an option of ssh even behind the alias.
        arguments += ["--", as_text(words[0] if len(words) == 1 else quote(words))]
    become([program, *arguments])


def become_if_warm(words: list[str]) -> None:
    """
    Become a session in a machine, if there is nothing to do before.

    :param words: The command line behind ``ssh``.
    """
    if not words or words[0].startswith("-"):
        return
    from redock._engine import Engine
    from redock._image import Image

    alias = find_warm(Engine(), Image.coerce(words[0]).name)
    if alias is not None:
        become_session(alias, words[1:])


def find_warm(engine: Engine, name: str) -> str | None:
    """
    Find out whether ``ssh`` would get into a machine at once.

    The engine says whether it runs and which one it is: a paused machine would not
    answer, and one that was killed and made anew is another one. Its shared connection says
    whether it is there.

    :param engine: The engine.
    :param name: The name of its image, ``REPOSITORY:TAG``.
    :returns: Its alias; None when there is more to do first.
    """
    from redock import _keeper, _machines, _ssh

    for machine in _machines.find_machines(engine, name):
        if machine.state == "running" and _ssh.instance_of(name) == machine.instance:
            return machine.alias if _keeper.is_shared(machine.instance) else None
    return None
