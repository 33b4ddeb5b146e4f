"""
The way to the SSH server of a container through its engine, for ``ssh`` to run.

Where an engine is reached over TCP with TLS, nothing of its machine but the
engine itself can be reached. The engine can start ``sshd -i`` inside, which
speaks SSH on its standard input and output (sshd(8)); this program connects the
two ends. It is a ``ProxyCommand`` of ssh_config(5); nothing listens anywhere.
"""

from __future__ import annotations

import os
import select
import sys

from redock._endpoint import Endpoint
from redock._engine import Engine, label
from redock.errors import NoContainerRunning, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from redock._http import Stream

__all__ = ["connect", "main"]

COMMAND = ("/usr/sbin/sshd", "-i")


def main() -> int:
    """
    Connect standard input and output to the SSH server of a container.

    The arguments are the address of the engine, the directory with the certificates
    (or ``-``) and redock's id of the container.

    :returns: The exit status.
    """
    url, tls, instance = sys.argv[1:]
    engine = Engine(Endpoint(url, "the host entry", None if tls == "-" else tls))
    try:
        connect(engine, instance)
    except RedockError as error:
        print(f"redock: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"redock: the connection to the engine failed: {error}", file=sys.stderr)
        return 1
    return 0


def connect(engine: Engine, instance: str) -> None:
    """
    Pass on what comes, in both directions, until one side has had enough.

    :param engine: The engine.
    :param instance: redock's id of the container.
    :raises NoContainerRunning: It does not run.
    """
    found = engine.containers({"label": [f"{label('instance')}={instance}"]})
    running = [each["Id"] for each in found if each["State"] == "running"]
    if not running:
        raise NoContainerRunning("the machine is not running: start it with 'redock start'")
    _, stream = engine.begin_exec(running[0], COMMAND, stdin=True)
    try:
        pump(stream)
    finally:
        stream.close()


def pump(stream: Stream) -> None:
    """
    Pass on what comes, in both directions.

    What comes from the engine is in frames: eight bytes of header, of which the last four
    are the length of what follows; the first tells output (1) from errors (2).

    :param stream: The streams of the program inside.
    """
    pending = stream.arrived
    sources: list[Any] = [0, stream.socket]
    while True:
        while len(pending) >= 8:
            size = int.from_bytes(pending[4:8], "big")
            if len(pending) < 8 + size:
                break
            write_all(2 if pending[0] == 2 else 1, pending[8 : 8 + size])
            pending = pending[8 + size :]
        # What a TLS connection has decrypted already does not make its socket readable.
        waiting = getattr(stream.socket, "pending", int)()
        ready = [stream.socket] if waiting else select.select(sources, [], [])[0]
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            stream.write(data)
        if stream.socket in ready:
            data = stream.socket.recv(65536)
            if not data:
                return
            pending += data


def write_all(descriptor: int, data: bytes) -> None:
    """
    Write everything.

    :param descriptor: Where to.
    :param data: What.
    """
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    sys.exit(main())
