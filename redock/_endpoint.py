"""
Where the container engine is: the environment, contexts, the usual sockets.
"""

from __future__ import annotations

import json
import os

from redock.errors import DockerUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Endpoint", "check_local", "find_endpoint"]

DEFAULT_SOCKET = "/var/run/docker.sock"


class Endpoint:
    """
    Where an engine is and who said so.

    :param url: ``unix://``, ``tcp://``, ``http://``, ``https://``, ``ssh://`` or ``npipe://``.
    :param source: What named it: ``DOCKER_HOST``, a context, or ``default``.
    """

    __slots__ = ("source", "url")

    def __init__(self, url: str, source: str) -> None:
        self.url = url
        self.source = source

    @property
    def socket_path(self) -> str | None:
        """The pathname of the local socket, None when the engine is reached otherwise."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None

    def __str__(self) -> str:
        return self.url if self.source == "default" else f"{self.url} (from {self.source})"


def find_endpoint() -> Endpoint:
    """
    Find the engine the user means, by the rules of the ``docker`` program.

    ``DOCKER_HOST`` comes first, then ``DOCKER_CONTEXT``, then the current
    context of ``~/.docker/config.json``, then the default socket or, where
    that does not exist, the socket of a rootless engine.

    :returns: The endpoint.
    :raises DockerUnavailable: The context does not exist.
    """
    host = os.environ.get("DOCKER_HOST", "").strip()
    if host:
        return Endpoint(host if "://" in host else f"tcp://{host}", "DOCKER_HOST")
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    name, source = os.environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not name:
        config = os.path.join(directory, "config.json")
        name, source = read_json(config).get("currentContext") or "", config
    if name and name != "default":
        return Endpoint(find_context(directory, name, source), f"context {name}")
    rootless = os.path.join(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"), "docker.sock")
    if not os.path.exists(DEFAULT_SOCKET) and os.path.exists(rootless):
        return Endpoint(f"unix://{rootless}", "the rootless socket")
    return Endpoint(f"unix://{DEFAULT_SOCKET}", "default")


def find_context(directory: str, name: str, source: str) -> str:
    """
    Look up a Docker context.

    :param directory: Docker's configuration directory.
    :param name: The name of the context.
    :param source: What named it, for the message.
    :returns: The URL of the engine.
    :raises DockerUnavailable: There is no such context.
    """
    import hashlib

    digest = hashlib.sha256(name.encode()).hexdigest()
    metadata = read_json(os.path.join(directory, "contexts", "meta", digest, "meta.json"))
    try:
        url = metadata["Endpoints"]["docker"]["Host"]
    except (KeyError, TypeError):
        url = None
    if not url:
        raise DockerUnavailable(
            f"the Docker context {name!r} (from {source}) does not exist:"
            " see 'docker context ls', choose another with 'docker context use NAME'"
        )
    return str(url)


def read_json(path: str) -> dict[str, Any]:
    """
    Read a JSON object that need not be there.

    :param path: The pathname.
    :returns: The object, empty when there is none that can be read.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            loaded = json.load(handle)
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def check_local(endpoint: Endpoint) -> None:
    """
    Refuse an engine on another machine: ports are published on its loopback, not on ours.

    :param endpoint: Where the engine is.
    :raises DockerUnavailable: The engine is remote, or the address makes no sense.
    """
    scheme, _, rest = endpoint.url.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return
    host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
    if scheme in ("tcp", "http", "https") and host in ("localhost", "127.0.0.1", "[::1]"):
        return
    if scheme in ("tcp", "http", "https", "ssh") and host:
        raise DockerUnavailable(
            f"the Docker engine at {endpoint} is on another machine, where redock cannot reach"
            " the SSH servers of its containers yet: run redock on that machine"
        )
    raise DockerUnavailable(
        f"cannot make sense of the engine address {endpoint}:"
        " give DOCKER_HOST as unix:///path/to/socket"
    )
