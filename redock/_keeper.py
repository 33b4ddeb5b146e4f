"""
The keeper of a shared connection: the process of ``ssh`` that others go through.

It is asked over its control socket, without the time it takes to start a program:
OpenSSH's PROTOCOL.mux.
"""

from __future__ import annotations

# As in redock._http: what the module socket adds is not used, and would be loaded by each session.
import _socket as socket
import os

from redock._files import remove_file
from redock._http import Stream
from redock._process import Deadline
from redock._ssh import control_path

__all__ = ["begin_close", "close_connection", "is_shared"]

#: The numbers of OpenSSH's PROTOCOL.mux.
MUX_HELLO, MUX_VERSION, MUX_TERMINATE = 0x00000001, 4, 0x10000005
MUX_ALIVE_CHECK, MUX_ALIVE = 0x10000004, 0x80000005
#: Seconds a keeper may need to say that it is there.
ALIVE_PATIENCE = 2.0
#: Seconds a keeper may need to end the connection.
CLOSE_PATIENCE = 5.0


def is_shared(instance: str) -> bool:
    """
    Check whether there is a shared connection to a container.

    What ``ssh -O check`` asks: PROTOCOL.mux, section 5.

    :param instance: The id of the container.
    :returns: True when its keeper answers.
    """
    path = control_path(instance)
    if path is None or not os.path.exists(path):
        return False
    keeper = tell(path, MUX_ALIVE_CHECK, ALIVE_PATIENCE)
    if keeper is None:
        return False
    stream, deadline = Stream(keeper), Deadline(ALIVE_PATIENCE)
    try:
        # Its hello comes first.
        return any(hear(stream, deadline)[:4] == number(MUX_ALIVE) for _ in range(2))
    except (OSError, EOFError):
        # It ended meanwhile.
        return False
    finally:
        keeper.close()


def begin_close(instance: str) -> socket.socket | None:
    """
    Tell the shared connection to a container to end, without waiting for it.

    What ``ssh -O exit`` says: PROTOCOL.mux, sections 1 and 7.

    :param instance: The id of the container.
    :returns: The connection to its keeper, None when there is no shared connection.
    """
    path = control_path(instance)
    return None if path is None else tell(path, MUX_TERMINATE, CLOSE_PATIENCE)


def close_connection(instance: str, begun: socket.socket | None = None) -> None:
    """
    End the shared connection to a container, before the container goes.

    :param instance: The id of the container.
    :param begun: What :func:`begin_close` returned, when that was called.
    """
    keeper = begun or begin_close(instance)
    if keeper is not None:
        deadline = Deadline(CLOSE_PATIENCE)
        try:
            # It hangs up when it has ended.
            while keeper.recv(512) and not deadline.passed:
                pass
        except OSError:
            # Or it does not answer; the socket goes all the same.
            pass
        finally:
            keeper.close()
    path = control_path(instance)
    if path is not None:
        remove_file(path)


def number(value: int) -> bytes:
    """
    Write a number as the protocol does.

    :param value: The number, 32 bits.
    :returns: Four bytes.
    """
    return value.to_bytes(4, "big")


def tell(path: str, request: int, patience: float) -> socket.socket | None:
    """
    Say hello to a keeper, and what it is to do.

    :param path: Its control socket.
    :param request: The number of the request.
    :param patience: Seconds it has for each answer.
    :returns: The connection to it, None when nobody keeps it any more, or it is ending by itself.
    """
    keeper = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    keeper.settimeout(patience)
    try:
        keeper.connect(path)
        for first, second in ((MUX_HELLO, MUX_VERSION), (request, 0)):
            keeper.sendall(number(8) + number(first) + number(second))
    except OSError:
        keeper.close()
        return None
    return keeper


def hear(keeper: Stream, deadline: Deadline) -> bytes:
    """
    Read what a keeper says.

    :param keeper: The connection to it.
    :param deadline: When to give up.
    :returns: The message, up to 1024 bytes of it.
    :raises EOFError: It hung up.
    :raises TimeoutError: It said nothing in time.
    """
    size = int.from_bytes(keeper.exactly(4, deadline), "big")
    return keeper.exactly(min(1024, size), deadline)
