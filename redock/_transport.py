"""
The way to the container engine: where it is, how requests get there, what its errors mean.

Plain requests to an engine on a local socket need no Docker SDK (see :mod:`redock._http`);
engines that are reached otherwise do.
"""

from __future__ import annotations

from redock import _http
from redock._endpoint import Endpoint, check, find_endpoint
from redock._http import urlencode
from redock._json_text import dumps, loads
from redock._log import LateLogger
from redock._printed import printable
from redock.errors import DockerUnavailable, EngineError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Self

    import docker

    from redock._tunnel import Tunnel

__all__ = ["COMMIT_PATIENCE", "Pending", "Transport", "answer_error"]

logger = LateLogger(__name__)

#: Seconds a commit may take: the time grows with what changed.
COMMIT_PATIENCE = 3600.0


class Pending:
    """
    A request under way.

    :param engine: The engine it was sent to.
    :param request: The request, or the answer when the transport had to wait for it.
    :param what: What was asked, for messages.
    """

    def __init__(
        self, engine: Transport, request: _http.Request | _http.Response, what: str
    ) -> None:
        self.engine = engine
        self.request = request
        self.what = what

    def result(self) -> Any:
        """
        Wait for the answer.

        :returns: The decoded JSON body, None when there is none.
        :raises NotFound: The engine knows no such object.
        :raises EngineError: The engine refused or failed the request.
        :raises DockerUnavailable: The connection broke.
        """
        return self.decode(self.response())

    def decode(self, response: _http.Response) -> Any:
        """
        Get the contents of the answer.

        :param response: The answer.
        :returns: The decoded JSON body, None when there is none.
        :raises EngineError: It is no JSON.
        """
        try:
            return loads(response.body) if response.body.strip() else None
        except ValueError as error:
            raise EngineError(
                f"whoever answers at {self.engine.endpoint} is no Docker engine:"
                f" it could not {self.what}"
            ) from error

    def response(self) -> _http.Response:
        """
        Wait for the raw answer.

        :returns: The answer, its status below 400.
        :raises NotFound: The engine knows no such object.
        :raises EngineError: The engine refused or failed the request.
        :raises DockerUnavailable: The connection broke.
        """
        if isinstance(self.request, _http.Response):
            response = self.request
        else:
            try:
                response = self.request.response()
            except OSError as error:
                raise self.engine.connection_error(error, self.what) from error
        if response.status >= 400:
            raise answer_error(response, self.what)
        return response


def answer_error(response: _http.Response, what: str) -> EngineError:
    """
    Turn a refusal into an error.

    :param response: The engine's answer.
    :param what: What was asked.
    :returns: The error to raise.
    """
    try:
        message = loads(response.body)["message"]
    except (ValueError, KeyError, TypeError):
        message = response.body.decode("utf-8", "replace")
    message = " ".join(str(message).split())[:500] or f"status {response.status}"
    kind = NotFound if response.status == 404 else EngineError
    return kind(f"the engine could not {what}: {message}", response.status)


class Spoiled(Exception):
    """
    What was to be sent could not be produced.

    Apart from everything that goes wrong with the connection: errors of files
    are of the same kind as those of sockets.

    :param reason: The error.
    """

    def __init__(self, reason: BaseException) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Pieces:
    """
    A body in pieces whose errors are told from those of the connection.

    :param pieces: The body.
    """

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        iterator = iter(self.pieces)
        while True:
            try:
                piece = next(iterator)
            except StopIteration:
                return
            except (OSError, ValueError) as error:
                raise Spoiled(error) from error
            yield piece

    def close(self) -> None:
        """Let go of what the pieces come from."""
        close = getattr(self.pieces, "close", None)
        if close is not None:
            close()


class Transport:
    """
    The way to a container engine, and requests in general.

    Lifecycle: cheap to make, connects with the first request, one connection a
    request, nothing to close.

    Thread safety: may be shared between threads.

    :param endpoint: Where the engine is (default: see :func:`find_endpoint`).
    """

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        self._endpoint = endpoint
        self._client: docker.APIClient | None = None
        self._tunnel: Tunnel | None = None
        self._socket: str | None = None
        #: Whether it said that it is Podman; known when it has listed images.
        self.is_podman = False

    @classmethod
    def of(cls, client: docker.APIClient | Transport) -> Self:
        """
        Get the engine behind a connection of the Docker SDK.

        :param client: A connection, or already an engine.
        :returns: The engine.
        """
        if isinstance(client, Transport):
            assert isinstance(client, cls)
            return client
        url = str(client.base_url)
        # The SDK shows local sockets as "http+docker://localhost" and keeps the path elsewhere.
        path = getattr(client.get_adapter(url), "socket_path", None)
        engine = cls(Endpoint(f"unix://{path}" if path else url, "the client"))
        engine._client = client
        return engine

    @property
    def endpoint(self) -> Endpoint:
        """Where the engine is."""
        if self._endpoint is None:
            self._endpoint = find_endpoint()
            check(self._endpoint)
        return self._endpoint

    @property
    def tunnel(self) -> Tunnel | None:
        """The connection to the machine of the engine, None unless that is reached over SSH."""
        if self._tunnel is None and self.endpoint.url.startswith("ssh://"):
            from redock._tunnel import Tunnel

            self._tunnel = Tunnel(self.endpoint)
        return self._tunnel

    @property
    def socket_path(self) -> str | None:
        """The pathname of a local socket that leads to the engine, None when there is none."""
        if self._socket is None:
            self._socket = self.tunnel.open() if self.tunnel else self.endpoint.socket_path
        return self._socket

    def way_to(self, instance: str) -> str | None:
        """
        Find out how ``ssh`` gets to the ports of a container on the engine's loopback interface.

        :param instance: redock's id of the container.
        :returns: A ``ProxyCommand`` of ssh_config(5); None where that interface is ours.
        """
        if self.tunnel:
            return self.tunnel.proxy_command
        if self.endpoint.is_local:
            return None
        import sys

        from redock._result import quote as quote_words

        words = [sys.executable, "-m", "redock._dial"]
        words += [self.endpoint.url, self.endpoint.tls or "-", instance]
        return quote_words(words).replace("%", "%%")

    @property
    def client(self) -> docker.APIClient:
        """The same engine as a connection of the Docker SDK, for its streams."""
        if self._client is None:
            endpoint = self.endpoint
            if self.tunnel:
                endpoint = Endpoint(f"unix://{self.socket_path}", endpoint.source)
            from redock import _sdk

            self._client = _sdk.connect(endpoint)
        return self._client

    def begin(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        data: bytes | Iterable[bytes] = b"",
        timeout: float | None = None,
    ) -> Pending:
        """
        Send a request and return without waiting for the answer.

        :param method: The HTTP method.
        :param path: The path of the API without a version.
        :param what: What is asked, to complete "the engine could not ...".
        :param query: Parameters of the query.
        :param body: An object to send as JSON.
        :param data: A tar archive to send instead, whole or in pieces.
        :param timeout: Seconds of silence after which the engine counts as hung (default:
                        :data:`redock._http.PATIENCE`).
        :returns: The request under way.
        :raises DockerUnavailable: No engine answers.
        """
        timeout = timeout or _http.PATIENCE
        target = f"{path}?{urlencode(dict(query))}" if query else path
        kind = "application/x-tar" if data else "application/json"
        if body is not None:
            data = dumps(body).encode()
        logger.debug("%s %s", method, target)
        address = self.socket_path
        if address is None:
            from redock import _sdk

            response = _sdk.send(self.client, method, target, data, kind, timeout)
            return Pending(self, response, what)
        try:
            return Pending(self, _http.Request(address, method, target, data, kind, timeout), what)
        except OSError as error:
            raise self.connection_error(error, what) from error

    def request(self, method: str, path: str, what: str, **options: Any) -> Any:
        """
        Send a request and wait for the answer.

        :param method: The HTTP method.
        :param path: The path of the API without a version.
        :param what: What is asked, to complete "the engine could not ...".
        :param options: As for :meth:`begin`.
        :returns: The decoded JSON body, None when there is none.
        :raises NotFound: The engine knows no such object.
        :raises EngineError: The engine refused or failed the request.
        :raises DockerUnavailable: No engine answers.
        """
        return self.begin(method, path, what, **options).result()

    def download(
        self,
        path: str,
        what: str,
        query: Mapping[str, object] | None = None,
        timeout: float | None = _http.PATIENCE,
    ) -> Iterator[bytes]:
        """
        Make a request whose answer need not fit into memory.

        :param path: The path of the API without a version.
        :param what: What is asked, to complete "the engine could not ...".
        :param query: Parameters of the query; a list is a parameter that is repeated.
        :param timeout: Seconds of silence after which the engine counts as hung; None for an
                        answer that may pause (default: :data:`redock._http.PATIENCE`).
        :returns: Yields the body, piece by piece.
        :raises NotFound: The engine knows no such object.
        :raises EngineError: The engine refused or failed the request.
        :raises DockerUnavailable: The connection failed.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        logger.debug("GET %s", target)
        address = self.socket_path
        if address is None:
            from redock import _sdk

            def complain(response: _http.Response) -> EngineError:
                return answer_error(response, what)

            yield from _sdk.download(self.client, target, complain, timeout)
            return
        try:
            request = _http.Request(address, "GET", target, timeout=timeout or _http.PATIENCE)
            try:
                status, headers = request.read_head()
                body = request.body(status, headers)
                if status >= 400:
                    raise answer_error(_http.Response(status, headers, b"".join(body)), what)
                request.socket.settimeout(timeout)
                yield from body
            finally:
                request.close()
        except OSError as error:
            raise self.connection_error(error, what) from error

    def upload(
        self, path: str, what: str, pieces: Iterable[bytes], query: Mapping[str, object]
    ) -> list[dict[str, Any]]:
        """
        Send something that is too large to be kept.

        :param path: The path of the API without a version.
        :param what: What is asked, to complete "the engine could not ...".
        :param pieces: A tar archive in pieces. What it raises is raised here, and the engine has
                       got an archive without an end, which it discards.
        :param query: Parameters of the query.
        :returns: The engine's reports.
        :raises EngineError: The engine refused or failed the request.
        :raises DockerUnavailable: The connection broke.
        """
        body = Pieces(pieces)
        try:
            sent = self.begin("POST", path, what, query=query, data=body, timeout=COMMIT_PATIENCE)
        except Spoiled as spoiled:
            raise spoiled.reason from None
        lines = sent.response().body.splitlines()
        reports = [loads(line) for line in lines if line.strip()]
        for report in reports:
            if "error" in report:
                message = " ".join(str(report["error"]).split())[:500]
                raise EngineError(f"the engine could not {what}: {printable(message)}")
        return reports

    def stream(
        self, target: str, what: str, body: object, with_sdk: Callable[[], Any]
    ) -> _http.Stream:
        """
        Make a request that turns into a stream.

        :param target: The path and query.
        :param what: What is asked, for messages.
        :param body: An object to send as JSON, None for nothing.
        :param with_sdk: Makes the same request where the engine is not on a local socket.
        :returns: The stream; the caller closes it.
        :raises NotFound: The engine knows no such object.
        :raises EngineError: The engine refused or failed the request.
        :raises DockerUnavailable: No engine answers.
        """
        address = self.socket_path
        if address is None:
            from redock import _sdk

            try:
                connection = with_sdk()
            except _sdk.failures() as error:
                raise EngineError(f"the engine could not {what}: {error}") from error
            return _http.Stream(getattr(connection, "_sock", connection))
        data = b"" if body is None else dumps(body).encode()
        try:
            request = _http.Request(
                address, "POST", target, data, timeout=_http.PATIENCE, upgrade=True
            )
            return request.hijack()
        except _http.Refused as refusal:
            raise answer_error(refusal.response, what) from refusal
        except OSError as error:
            raise self.connection_error(error, what) from error

    def connection_error(self, error: OSError, what: str) -> DockerUnavailable | EngineError:
        """
        Explain why the engine cannot be talked to.

        :param error: What the operating system said.
        :param what: What was asked.
        :returns: The error to raise.
        """
        where = self.endpoint
        if isinstance(error, TimeoutError):
            return EngineError(f"the engine at {where} did not answer in time to {what}")
        if isinstance(error, PermissionError):
            return DockerUnavailable(
                f"you may not use the Docker engine at {where}: add yourself to its group with"
                " 'sudo usermod -aG docker $USER' and log in again"
            )
        if isinstance(error, FileNotFoundError):
            reason = "there is no socket; install an engine, or start the one you have"
        elif isinstance(error, ConnectionRefusedError):
            reason = "its socket is there but nobody listens; start the engine"
        else:
            reason = error.strerror or str(error)
        return DockerUnavailable(
            f"no Docker engine answers at {where}: {reason} ('redock doctor' tells how)"
        )
