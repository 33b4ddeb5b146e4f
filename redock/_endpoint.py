"""
Where the container engine is: the environment, contexts, the usual sockets.
"""

from __future__ import annotations

import os

from redock._json_text import loads
from redock.errors import DockerUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Endpoint", "check", "find_endpoint"]

DEFAULT_SOCKET = "/var/run/docker.sock"
PODMAN_SOCKET = "/run/podman/podman.sock"


class Endpoint:
    """
    Where an engine is and who said so.

    :param url: ``unix://``, ``tcp://``, ``http://``, ``https://``, ``ssh://`` or ``npipe://``.
    :param source: What named it: ``DOCKER_HOST``, a context, or ``default``.
    :param tls: The directory with ``ca.pem``, ``cert.pem`` and ``key.pem`` for a connection that is
                protected by TLS, None for another one.
    """

    __slots__ = ("source", "tls", "url")

    def __init__(self, url: str, source: str, tls: str | None = None) -> None:
        self.url = url
        self.source = source
        self.tls = tls

    @property
    def is_local(self) -> bool:
        """Whether the engine is on this machine, so that its loopback interface is ours."""
        scheme, _, rest = self.url.partition("://")
        host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
        return scheme == "unix" or (
            scheme in ("tcp", "http", "https") and host in ("localhost", "127.0.0.1", "[::1]")
        )

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
    that does not exist, the socket of a rootless engine or of Podman.

    :returns: The endpoint.
    :raises DockerUnavailable: The context does not exist.
    """
    host = os.environ.get("DOCKER_HOST", "").strip()
    if host:
        url = host if "://" in host else f"tcp://{host}"
        return Endpoint(url, "DOCKER_HOST", find_certificates() if "unix:" not in url else None)
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    name, source = os.environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not name:
        config = os.path.join(directory, "config.json")
        name, source = read_json(config).get("currentContext") or "", config
    if name and name != "default":
        return find_context(directory, name, source)
    if not os.path.exists(DEFAULT_SOCKET):
        runtime = os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")
        for path, whose in (
            (os.path.join(runtime, "docker.sock"), "the rootless socket"),
            (os.path.join(runtime, "podman", "podman.sock"), "Podman's rootless socket"),
            (PODMAN_SOCKET, "Podman's socket"),
        ):
            if os.path.exists(path):
                return Endpoint(f"unix://{path}", whose)
    return Endpoint(f"unix://{DEFAULT_SOCKET}", "default")


def find_certificates() -> str | None:
    """
    Find the certificates for an engine that ``DOCKER_HOST`` names, as ``docker`` does.

    :returns: A directory; None when TLS was not asked for.
    """
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return None
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.environ.get("DOCKER_CERT_PATH") or directory


def find_context(directory: str, name: str, source: str) -> Endpoint:
    """
    Look up a Docker context.

    :param directory: Docker's configuration directory.
    :param name: The name of the context.
    :param source: What named it, for the message.
    :returns: The endpoint.
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
    certificates = os.path.join(directory, "contexts", "tls", digest, "docker")
    tls = certificates if os.path.isdir(certificates) else None
    return Endpoint(str(url), f"context {name}", tls)


def read_json(path: str) -> dict[str, Any]:
    """
    Read a JSON object that need not be there.

    :param path: The pathname.
    :returns: The object, empty when there is none that can be read.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            loaded = loads(handle.read())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def check(endpoint: Endpoint) -> None:
    """
    Refuse an address that makes no sense, or that would give the engine to the network.

    :param endpoint: Where the engine is.
    :raises DockerUnavailable: Nobody should use that address.
    """
    scheme, _, rest = endpoint.url.partition("://")
    host = rest.partition("/")[0].rpartition(":")[0] or rest.partition("/")[0]
    if scheme == "unix" and rest.startswith("/"):
        return
    if scheme == "ssh" and host:
        return
    if scheme in ("tcp", "http", "https") and host:
        if endpoint.is_local or endpoint.tls is not None:
            return
        raise DockerUnavailable(
            f"the Docker engine at {endpoint} is on another machine and the connection to it is"
            " not protected: whoever can reach it is root there. Use DOCKER_HOST=ssh://USER@HOST,"
            " or TLS (DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH)"
        )
    raise DockerUnavailable(
        f"cannot make sense of the engine address {endpoint}:"
        " give DOCKER_HOST as unix:///path/to/socket or ssh://USER@HOST"
    )
