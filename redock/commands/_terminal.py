"""
The terminal of a command that runs in a machine: every key goes there, and so does its size.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
import tty

from redock._process import Deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from redock._exec import Exec

__all__ = ["all_terminals", "carry", "raw"]

STDIN, STDOUT, STDERR = 0, 1, 2


def all_terminals(*handles: int) -> bool:
    """
    Check whether somebody sits there.

    :param handles: Descriptors.
    :returns: True when all of them are terminals.
    """
    return all(os.isatty(handle) for handle in handles)


@contextlib.contextmanager
def raw(running: Exec) -> Iterator[None]:
    """
    Hand the terminal over to a command; it is what it was before in the end.

    :param running: The command, which has a terminal itself.
    """

    def resize(*_: object) -> None:
        size = os.get_terminal_size(STDOUT)
        running.resize(size.lines, size.columns)

    before = termios.tcgetattr(STDIN)
    previous = signal.signal(signal.SIGWINCH, resize)
    try:
        # What was typed ahead stays.
        tty.setraw(STDIN, termios.TCSADRAIN)
        resize()
        yield
    finally:
        signal.signal(signal.SIGWINCH, previous)
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


def carry(running: Exec, *, stdin: bool) -> int:
    """
    Carry everything between a command and this process until the command ends.

    :param running: The command.
    :param stdin: Its standard input is connected.
    :returns: Its exit status.
    """
    if stdin:
        running.feed(lambda: os.read(STDIN, 65536))
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        for stream, data in running.read(Deadline(None)):
            write(STDERR if stream == STDERR else STDOUT, data)
        return running.status(Deadline(None))
    except BaseException:
        # Interrupted, or nobody reads any more: what nobody waits for need not go on.
        running.kill("TERM")
        raise


def write(handle: int, data: bytes) -> None:
    """
    Write all of it.

    :param handle: A descriptor.
    :param data: The bytes.
    """
    while data:
        data = data[os.write(handle, data) :]
