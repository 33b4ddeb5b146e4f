"""
The way to an engine on another machine, over the user's own SSH.

``DOCKER_HOST=ssh://...`` names a machine that ``ssh`` reaches; one connection to
it stays open. The engine's socket is forwarded through that connection, and the
host entries of machines over there lead through it as well, so nothing has to
listen on any network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
from urllib.parse import urlsplit

from redock._files import Lock, ensure_directory, path_in_home, remove_file
from redock._process import missing_program
from redock._result import quote
from redock.errors import DockerUnavailable, last_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock._endpoint import Endpoint

__all__ = ["Tunnel"]

#: What becomes words of a command line: nothing that ssh or a shell could read differently.
DESTINATION = re.compile(r"(?:[\w.+-]+@)?[A-Za-z0-9_][\w.-]*", re.ASCII)
SOCKET = "/var/run/docker.sock"
#: Seconds the connection stays open after its last use.
PERSIST = "10m"
#: Seconds it may take to log in.
PATIENCE = 30.0


class Tunnel:
    """
    The connection to the machine of an engine.

    Lifecycle: opened when it is needed, by whatever process comes first, and shared by all; it
    closes ten minutes after its last use.

    :param endpoint: Where the engine is; its URL begins with ``ssh://``.
    :raises DockerUnavailable: The URL makes no sense.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        try:
            parts = urlsplit(endpoint.url)
            self.port = parts.port
        except ValueError:
            parts, self.port = urlsplit(""), None
        self.destination = parts.netloc.rpartition(":")[0] if self.port else parts.netloc
        self.remote_socket = parts.path if parts.path not in ("", "/") else SOCKET
        # urlsplit() passes over line ends.
        if (
            not endpoint.url.isprintable()
            or not DESTINATION.fullmatch(self.destination)
            or not re.fullmatch(r"/[\w./@-]+", self.remote_socket, re.ASCII)
        ):
            raise DockerUnavailable(
                f"cannot make sense of the engine address {endpoint}:"
                " write ssh://USER@HOST, or ssh://USER@HOST:PORT/PATH/TO/SOCKET"
            )
        digest = hashlib.sha256(endpoint.url.encode()).hexdigest()[:12]
        self.name = f"engine-{digest}"

    @property
    def socket_path(self) -> str:
        """The pathname of the local socket that leads to the engine."""
        return path_in_home("ssh", "s", f"{self.name}.sock")

    @property
    def control_path(self) -> str:
        """The pathname of the socket of the shared connection."""
        return path_in_home("ssh", "s", self.name)

    def ssh(self, *options: str) -> list[str]:
        """
        Compose a command that uses the shared connection; the user's configuration does the rest.

        :param options: More options.
        :returns: The command, up to and including the destination.
        """
        return [
            "ssh",
            "-T",
            *("-o", "BatchMode=yes"),
            *("-o", "ConnectTimeout=10"),
            *("-o", "ControlMaster=auto"),
            *("-o", f"ControlPath={self.control_path.replace('%', '%%')}"),
            *("-o", f"ControlPersist={PERSIST}"),
            *(["-p", str(self.port)] if self.port else []),
            *options,
            "--",
            self.destination,
        ]

    @property
    def proxy_command(self) -> str:
        """What ``ssh`` runs to get to a port of that machine; for ssh_config(5)."""
        words = self.ssh("-o", "LogLevel=ERROR", "-W", "\0")
        # The percent signs of ssh's own tokens are the only ones that are not doubled.
        return quote(words).replace("%", "%%").replace(quote(["\0"]), "%h:%p")

    def open(self) -> str:
        """
        Make sure the engine can be reached.

        :returns: The pathname of the local socket that leads to it.
        :raises DockerUnavailable: The machine cannot be reached, or no engine answers there.
        """
        if self.answers():
            return self.socket_path
        ensure_directory(os.path.dirname(self.socket_path))
        with Lock(path_in_home("locks", f".{self.name}.lock"), f"the engine {self.endpoint}"):
            if not self.answers():
                self.connect()
        return self.socket_path

    def answers(self) -> bool:
        """
        Check whether an engine answers at the local socket.

        :returns: True when it does.
        """
        from redock import _http

        try:
            request = _http.Request(self.socket_path, "GET", "/_ping", timeout=15.0)
            return request.response().status < 500
        except OSError:
            return False

    def connect(self) -> None:
        """
        Log into the machine and forward the socket.

        :raises DockerUnavailable: That did not work.
        """
        self.close()
        forward = f"{self.socket_path}:{self.remote_socket}"
        command = self.ssh(
            *("-o", "ExitOnForwardFailure=yes"),
            *("-o", "StreamLocalBindUnlink=yes"),
            *("-o", "StreamLocalBindMask=0177"),
            *("-o", "ServerAliveInterval=15"),
            *("-L", forward),
        )
        command.append("true")
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
                check=False,
            )
        except FileNotFoundError as error:
            raise missing_program("ssh") from error
        except subprocess.TimeoutExpired:
            raise DockerUnavailable(
                f"logging into {self.destination} for the engine at {self.endpoint}"
                f" did not work within {PATIENCE:g} seconds"
            ) from None
        said = last_lines(done.stderr.decode("utf-8", "replace"), 1)
        if done.returncode == 255:
            raise DockerUnavailable(
                f"cannot log into {self.destination} for the engine at {self.endpoint}:"
                f" {said or 'ssh failed'}; 'ssh {self.destination}' has to work without a question"
            )
        if not self.answers():
            self.close()
            raise DockerUnavailable(
                f"no Docker engine answers on {self.destination} at {self.remote_socket}"
                f"{f' ({said})' if said else ''}: start it there, and make sure that"
                " your user there may use it"
            )

    def close(self) -> None:
        """End the shared connection, if there is one."""
        if os.path.exists(self.control_path):
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    [*self.ssh("-O", "exit")],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=10,
                    check=False,
                )
        for path in (self.control_path, self.socket_path):
            remove_file(path)
