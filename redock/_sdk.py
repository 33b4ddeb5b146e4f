"""
The Docker SDK: connections to engines that are not on a local socket, and long streams.

This is the only module that knows it. It is loaded where it is needed, since that takes longer
than most commands do.
"""

from __future__ import annotations

import os

from redock import _http
from redock.errors import DockerUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    import docker

    from redock._endpoint import Endpoint

__all__ = ["connect", "download", "failures", "send"]


def connect(endpoint: Endpoint) -> docker.APIClient:
    """
    Connect the Docker SDK to an engine.

    :param endpoint: Where the engine is.
    :returns: A connection; not to be shared between threads.
    :raises DockerUnavailable: No engine answers, or the SDK is not installed.
    """
    try:
        import docker
        import docker.tls
    except ImportError as error:
        raise DockerUnavailable(
            f"the Docker SDK for Python cannot be loaded ({error}): pip install docker"
        ) from error
    try:
        options: dict[str, Any] = {"base_url": endpoint.url}
        if endpoint.tls is not None:
            files = [os.path.join(endpoint.tls, f"{name}.pem") for name in ("cert", "key", "ca")]
            options["tls"] = docker.tls.TLSConfig(
                client_cert=(files[0], files[1]), ca_cert=files[2], verify=True
            )

        class Client(docker.APIClient):
            def merge_environment_settings(
                self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
            ) -> Any:
                # $REQUESTS_CA_BUNDLE would take the place of the engine's own authority.
                verify = self.verify if verify is None else verify
                return super().merge_environment_settings(url, proxies, stream, verify, cert)

        return Client(version="auto", timeout=int(_http.PATIENCE), **options)
    except failures() as error:
        raise DockerUnavailable(
            f"no Docker engine answers at {endpoint}: {error} ('redock doctor' tells how)"
        ) from error


def send(
    client: docker.APIClient,
    method: str,
    target: str,
    data: bytes | Iterable[bytes],
    kind: str,
    timeout: float,
) -> _http.Response:
    """
    Make a request over the SDK's connection.

    :param client: The connection.
    :param method: The HTTP method.
    :param target: The path and query.
    :param data: The body, in pieces where it is large.
    :param kind: The media type of the body.
    :param timeout: Seconds of silence after which the engine counts as hung.
    :returns: The answer.
    :raises DockerUnavailable: The connection failed.
    """
    try:
        answer = client.request(
            method,
            f"{client.base_url}/v{client.api_version}{target}",
            data=data or None,
            headers={"Content-Type": kind},
            timeout=timeout,
        )
    except failures() as error:
        raise DockerUnavailable(f"the connection to the Docker engine failed: {error}") from error
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return _http.Response(answer.status_code, headers, answer.content)


def download(
    client: docker.APIClient,
    target: str,
    complain: Callable[[_http.Response], Exception],
    timeout: float | None,
) -> Iterator[bytes]:
    """
    Make a request over the SDK's connection whose answer need not fit into memory.

    :param client: The connection.
    :param target: The path and query.
    :param complain: Turns a refusal into an error.
    :param timeout: Seconds of silence after which the engine counts as hung; None: never.
    :returns: Yields the body, piece by piece.
    """
    url = f"{client.base_url}/v{client.api_version}{target}"
    try:
        answer = client.request("GET", url, stream=True, timeout=timeout)
        if answer.status_code >= 400:
            raise complain(_http.Response(answer.status_code, {}, answer.content))
        # As it comes, not when so much of it is there.
        yield from answer.raw.stream(65536, decode_content=False)
    except failures() as error:
        raise DockerUnavailable(f"the connection to the Docker engine failed: {error}") from error


def failures() -> tuple[type[Exception], ...]:
    """
    Get the errors of the SDK, for the few places that use its streams.

    :returns: The classes an ``except`` needs.
    """
    import docker.errors
    import requests.exceptions
    import urllib3.exceptions

    return (
        docker.errors.DockerException,
        docker.errors.StreamParseError,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
    )
