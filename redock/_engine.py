"""
The container engine: where it is, what redock asks of it, what its errors mean.

This is the only module that knows the Docker SDK. Plain requests to an engine
on a local socket do not need it (see :mod:`redock._http`); it is loaded for
engines that are reached otherwise and for the long streams (pulls, imports).

API: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import contextlib
import json
import os

from redock import _http
from redock._endpoint import Endpoint, check, find_endpoint
from redock._http import quote, urlencode
from redock._log import LateLogger
from redock.errors import DockerUnavailable, EngineError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, ClassVar

    import docker

    from redock._tunnel import Tunnel

__all__ = [
    "KIND",
    "LABEL",
    "Endpoint",
    "Engine",
    "Pending",
    "find_endpoint",
    "label",
]

logger = LateLogger(__name__)

#: The name space of all labels redock puts on what it makes.
LABEL = "io.redock."
KIND = LABEL + "kind"
#: Seconds of silence after which the engine counts as hung.
PATIENCE = 60.0
#: Seconds to try to freeze a container that is busy.
FREEZING = 10.0
#: Seconds a commit may take: the time grows with what changed.
COMMIT_PATIENCE = 3600.0
#: Seconds the removal of an image may take: its layers are deleted file by file.
REMOVAL_PATIENCE = 600.0


def label(name: str) -> str:
    """
    Get the full name of a label of redock's.

    :param name: Its short name, for instance ``"instance"``.
    :returns: The name with redock's name space in front.
    """
    return LABEL + name


class Pending:
    """
    A request under way.

    :param engine: The engine it was sent to.
    :param request: The request, or the answer when the transport had to wait for it.
    :param what: What was asked, for messages.
    """

    def __init__(self, engine: Engine, request: _http.Request | _http.Response, what: str) -> None:
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
        response = self.response()
        try:
            return json.loads(response.body) if response.body.strip() else None
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
        message = json.loads(response.body)["message"]
    except (ValueError, KeyError, TypeError):
        message = response.body.decode("utf-8", "replace")
    message = " ".join(str(message).split())[:500] or f"status {response.status}"
    kind = NotFound if response.status == 404 else EngineError
    return kind(f"the engine could not {what}: {message}", response.status)


class Engine:
    """
    A container engine.

    Basics: one method a request, named as in the Engine API. Identifiers are
    names or ids; answers are the API's JSON.

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

    @classmethod
    def of(cls, client: docker.APIClient | Engine) -> Engine:
        """
        Get the engine behind a connection of the Docker SDK.

        :param client: A connection, or already an engine.
        :returns: The engine.
        """
        if isinstance(client, Engine):
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
            self._client = connect(endpoint)
        return self._client

    # The transport.

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
                        :data:`PATIENCE`).
        :returns: The request under way.
        :raises DockerUnavailable: No engine answers.
        """
        timeout = timeout or PATIENCE
        target = f"{path}?{urlencode(dict(query))}" if query else path
        kind = "application/x-tar" if data else "application/json"
        if body is not None:
            data = json.dumps(body).encode()
        logger.debug("%s %s", method, target)
        address = self.socket_path
        if address is None:
            response = send_with_sdk(self.client, method, target, data, kind, timeout)
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
        timeout: float | None = PATIENCE,
    ) -> Iterator[bytes]:
        """
        Make a request whose answer need not fit into memory.

        :param path: The path of the API without a version.
        :param what: What is asked, to complete "the engine could not ...".
        :param query: Parameters of the query; a list is a parameter that is repeated.
        :param timeout: Seconds of silence after which the engine counts as hung; None for an
                        answer that may pause (default: :data:`PATIENCE`).
        :returns: Yields the body, piece by piece.
        :raises NotFound: The engine knows no such object.
        :raises EngineError: The engine refused or failed the request.
        :raises DockerUnavailable: The connection failed.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        logger.debug("GET %s", target)
        address = self.socket_path
        if address is None:
            yield from download_with_sdk(self.client, target, what, timeout)
            return
        try:
            request = _http.Request(address, "GET", target, timeout=timeout or PATIENCE)
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
        reports = [json.loads(line) for line in lines if line.strip()]
        for report in reports:
            if "error" in report:
                message = " ".join(str(report["error"]).split())[:500]
                raise EngineError(f"the engine could not {what}: {printable(message)}")
        return reports

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

    # Containers.

    def containers(
        self, filters: Mapping[str, Sequence[str]], *, size: bool = False
    ) -> list[dict[str, Any]]:
        """
        List containers, running or not.

        :param filters: The API's filters, for instance ``{"label": ["key=value"]}``.
        :param size: Find out the sizes of their disks, which takes its time (default: no).
        :returns: The API's summaries.
        """
        query = {"all": 1, "filters": json.dumps(filters), **({"size": 1} if size else {})}
        listed = self.request("GET", "/containers/json", "list containers", query=query)
        return list(listed or ())

    def create_container(self, name: str, config: Mapping[str, Any]) -> str:
        """
        Create a container.

        :param name: Its name.
        :param config: The API's configuration.
        :returns: The id of the container.
        """
        created = self.request(
            "POST",
            "/containers/create",
            f"create the container {name}",
            query={"name": name},
            body=config,
        )
        return str(created["Id"])

    def inspect_container(self, container: str, *, size: bool = False) -> dict[str, Any]:
        """
        Get everything about a container.

        :param container: Its name or id.
        :param size: Find out the size of its disk, which takes its time (default: no).
        :returns: The API's description.
        """
        described = self.request(
            "GET",
            f"/containers/{quote(container)}/json",
            f"inspect the container {short(container)}",
            query={"size": 1} if size else None,
        )
        return dict(described)

    def rename_container(self, container: str, name: str) -> None:
        """
        Give a container another name.

        :param container: Its name or id.
        :param name: The new name.
        """
        path = f"/containers/{quote(container)}/rename"
        self.request("POST", path, f"rename the container {short(container)}", query={"name": name})

    def begin_stop(self, container: str, patience: int) -> Pending:
        """
        Tell the engine to stop a container in order, without waiting for it.

        :param container: Its name or id.
        :param patience: Seconds its programs have before they are killed.
        :returns: The request under way; fine if it does not run.
        """
        return self.begin(
            "POST",
            f"/containers/{quote(container)}/stop",
            f"stop the container {short(container)}",
            query={"t": patience},
            timeout=patience + 2 * PATIENCE,
        )

    def restart_container(self, container: str, patience: int) -> None:
        """
        Stop a container in order and start it again.

        :param container: Its name or id.
        :param patience: Seconds its programs have before they are killed.
        """
        self.request(
            "POST",
            f"/containers/{quote(container)}/restart",
            f"restart the container {short(container)}",
            query={"t": patience},
            timeout=patience + 2 * PATIENCE,
        )

    def update_container(self, container: str, limits: Mapping[str, Any]) -> None:
        """
        Change the limits of a container, whether it runs or not.

        :param container: Its name or id.
        :param limits: Fields of the API's ``HostConfig``.
        """
        path = f"/containers/{quote(container)}/update"
        self.request("POST", path, f"change the container {short(container)}", body=dict(limits))

    def begin_start(self, container: str) -> Pending:
        """
        Tell the engine to start a container, without waiting for it.

        :param container: Its name or id.
        :returns: The request under way.
        """
        return self.begin(
            "POST",
            f"/containers/{quote(container)}/start",
            f"start the container {short(container)}",
            timeout=2 * PATIENCE,
        )

    def begin_kill(self, container: str, signal: str = "KILL") -> Pending:
        """
        Tell the engine to kill a container, without waiting for it.

        :param container: Its name or id.
        :param signal: What its first process gets (default: KILL).
        :returns: The request under way.
        """
        return self.begin(
            "POST",
            f"/containers/{quote(container)}/kill",
            f"kill the container {short(container)}",
            query={"signal": signal},
        )

    def remove_container(self, container: str) -> None:
        """
        Remove a container, killing it where it still runs; fine if there is none.

        :param container: Its name or id.
        """
        try:
            self.begin_remove(container).result()
        except NotFound:
            pass
        except EngineError as error:
            # 409: somebody else is removing it at this moment.
            if error.status != 409:
                raise

    def pause(self, container: str, *, resume: bool = False) -> None:
        """
        Freeze or thaw the processes of a container.

        :param container: Its name or id.
        :param resume: Thaw instead of freeze (default: False).
        """
        from redock._process import Deadline

        begin = self.begin_unpause if resume else self.begin_pause
        deadline = Deadline(FREEZING)
        while True:
            try:
                begin(container).result()
                return
            except EngineError as error:
                # runc gives up on a container that makes processes all the time, or on a host
                # that is busy; the next try may come at a better moment.
                if "unable to freeze" not in str(error) or deadline.passed:
                    raise
            deadline.sleep(0.1)

    def begin_pause(self, container: str) -> Pending:
        """
        Tell the engine to freeze the processes of a container, without waiting for it.

        :param container: Its name or id.
        :returns: The request under way.
        """
        path = f"/containers/{quote(container)}/pause"
        return self.begin("POST", path, f"pause the container {short(container)}")

    def begin_unpause(self, container: str) -> Pending:
        """
        Tell the engine to thaw the processes of a container, without waiting for it.

        :param container: Its name or id.
        :returns: The request under way.
        """
        path = f"/containers/{quote(container)}/unpause"
        return self.begin("POST", path, f"unpause the container {short(container)}")

    def commit(
        self,
        container: str,
        repository: str,
        tag: str,
        *,
        message: str | None = None,
        author: str | None = None,
        changes: Sequence[str] = (),
        pause: bool = True,
    ) -> str:
        """
        Save the disk of a container as an image.

        :param container: Its name or id.
        :param repository: The repository of the image.
        :param tag: The tag of the image.
        :param message: A description.
        :param author: Who made it.
        :param changes: Dockerfile instructions to apply to the image.
        :param pause: Pause the container meanwhile, so that the disk is of one moment
                      (default: True).
        :returns: The id of the image.
        """
        query: dict[str, object] = {
            "container": container,
            "repo": repository,
            "tag": tag,
            "pause": int(pause),
            "comment": message or "",
            "author": author or "",
        }
        if changes:
            query["changes"] = "\n".join(changes)
        committed = to_the_end(
            lambda: self.request(
                "POST",
                "/commit",
                f"commit the container {short(container)}",
                query=query,
                # Podman wants a configuration, if only an empty one.
                body={},
                timeout=COMMIT_PATIENCE,
            )
        )
        return str(committed["Id"])

    def logs(self, container: str, tail: int = 20) -> str:
        """
        Get the last lines a container printed, safe to show on a terminal.

        :param container: Its name or id.
        :param tail: How many lines.
        :returns: The text, empty when there is none or the container has gone.
        """
        query = {"stdout": 1, "stderr": 1, "tail": tail}
        path = f"/containers/{quote(container)}/logs"
        try:
            pending = self.begin("GET", path, "read the log", query=query)
            raw = pending.response().body
        except (EngineError, DockerUnavailable):
            return ""
        return printable(b"".join(demultiplex(raw)).decode("utf-8", "replace"))

    def read_logs(self, container: str, *, tail: int | None, follow: bool) -> Iterator[bytes]:
        """
        Read what a container printed, as it comes.

        :param container: Its name or id.
        :param tail: How many lines of what there is (None: all).
        :param follow: Go on until the container ends.
        :returns: Yields a stream, see :func:`join_frames`.
        """
        return self.download(
            f"/containers/{quote(container)}/logs",
            f"read the log of the container {short(container)}",
            {
                "stdout": 1,
                "stderr": 1,
                "follow": int(follow),
                "tail": "all" if tail is None else tail,
            },
            timeout=None if follow else PATIENCE,
        )

    def stats(self, container: str) -> dict[str, Any]:
        """
        Get what a container uses, as of now.

        :param container: Its name or id.
        :returns: The API's statistics; without numbers when it does not run.
        """
        query = {"stream": "false", "one-shot": "true"}
        path = f"/containers/{quote(container)}/stats"
        what = f"ask what the container {short(container)} uses"
        return dict(self.request("GET", path, what, query=query) or {})

    def changes(self, container: str) -> int:
        """
        Count the files of a container that are not as in its image.

        :param container: Its name or id.
        :returns: How many were added, changed or removed.
        """
        path = f"/containers/{quote(container)}/changes"
        what = f"compare the container {short(container)} with its image"
        return len(self.request("GET", path, what) or ())

    def put_archive(self, container: str, path: str, archive: bytes | Iterable[bytes]) -> None:
        """
        Unpack an archive inside a container.

        :param container: Its name or id; it need not run.
        :param path: The directory to unpack into.
        :param archive: A tar archive, whole or in pieces.
        """
        self.request(
            "PUT",
            f"/containers/{quote(container)}/archive",
            f"put files into the container {short(container)}",
            # A directory does not take the place of a file, nor the other way round.
            query={"path": path, "noOverwriteDirNonDir": 1},
            data=archive,
        )

    def get_archive(self, container: str, path: str) -> bytes:
        """
        Get files out of a container, into memory.

        :param container: Its name or id; it need not run.
        :param path: A pathname.
        :returns: A tar archive.
        """
        return b"".join(self.read_archive(container, path))

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        """
        Get files out of a container.

        :param container: Its name or id; it need not run.
        :param path: A pathname.
        :returns: Yields a tar archive, piece by piece.
        """
        what = f"get files from the container {short(container)}"
        return self.download(f"/containers/{quote(container)}/archive", what, {"path": path})

    def stat_path(self, container: str, path: str) -> dict[str, Any] | None:
        """
        Look at a file inside a container.

        :param container: Its name or id; it need not run.
        :param path: A pathname.
        :returns: The API's description (``name``, ``size``, ``mode`` as Go has it, ``mtime``,
                  ``linkTarget``), None when there is no such file or a part of the pathname is no
                  directory.
        :raises NotFound: There is no such container.
        """
        what = f"look at {path} in the container {short(container)}"
        target = f"/containers/{quote(container)}/archive"
        try:
            headers = self.begin("HEAD", target, what, query={"path": path}).response().headers
        except EngineError as error:
            if error.status not in (404, 500):
                raise
            # 404 for both: a missing file and a missing container.
            self.inspect_container(container)
            return None
        import base64

        try:
            found = dict(json.loads(base64.b64decode(headers["x-docker-container-path-stat"])))
            return {**found, "mode": int(found["mode"]), "linkTarget": str(found["linkTarget"])}
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the engine did not say what {path} is") from error

    def attach(self, container: str, *streams: str) -> _http.Stream:
        """
        Connect to the standard streams of a container that has been created.

        :param container: Its name or id.
        :param streams: ``stdin``, or ``stdout`` and ``stderr``.
        :returns: The stream; the caller closes it.
        :raises EngineError: The engine refused.
        """
        query = {"stream": 1, **dict.fromkeys(streams, 1)}
        what = f"attach to the container {short(container)}"
        target = f"/containers/{quote(container)}/attach?{urlencode(query)}"
        return self._stream(
            target, what, None, lambda: self.client.attach_socket(container, params=query)
        )

    def begin_exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool = False,
        tty: bool = False,
        **options: Any,
    ) -> tuple[str, _http.Stream]:
        """
        Start a command inside a container.

        :param container: Its name or id.
        :param command: The command and its arguments.
        :param stdin: Connect its standard input as well (default: no).
        :param tty: Give it a terminal; its output is not multiplexed then (default: no).
        :param options: The API's other settings, for instance ``User``.
        :returns: The id of the command, and its standard streams; the caller closes them.
        :raises EngineError: The engine refused.
        """
        what = f"run {command[0]} in the container {short(container)}"
        body = {
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "Cmd": list(command),
            **options,
        }
        made = self.request("POST", f"/containers/{quote(container)}/exec", what, body=body)
        number = str(made["Id"])
        stream = self._stream(
            f"/exec/{number}/start",
            what,
            {"Detach": False, "Tty": tty},
            lambda: self.client.exec_start(number, tty=tty, socket=True),
        )
        return number, stream

    def exec_status(self, number: str) -> int | None:
        """
        Get the exit status of a command that was started inside a container.

        :param number: The id of the command.
        :returns: Its exit status, None while it runs.
        """
        described = self.inspect_exec(number)
        return None if described["Running"] else int(described["ExitCode"] or 0)

    def inspect_exec(self, number: str) -> dict[str, Any]:
        """
        Get everything about a command that was started inside a container.

        :param number: The id of the command.
        :returns: The API's description.
        """
        return dict(self.request("GET", f"/exec/{number}/json", "inspect a command"))

    def resize_exec(self, number: str, rows: int, columns: int) -> None:
        """
        Tell the terminal of a command inside a container how large it is.

        :param number: The id of the command.
        :param rows: Its height.
        :param columns: Its width.
        """
        query = {"h": rows, "w": columns}
        self.request("POST", f"/exec/{number}/resize", "resize a terminal", query=query)

    def _stream(
        self, target: str, what: str, body: object, with_sdk: Callable[[], Any]
    ) -> _http.Stream:
        """
        Make a request that turns into a stream.

        :param target: The path and query.
        :param what: What is asked, for messages.
        :param body: An object to send as JSON, None for nothing.
        :param with_sdk: Makes the same request where the engine is not on a local socket.
        :returns: The stream; the caller closes it.
        """
        address = self.socket_path
        if address is None:
            try:
                connection = with_sdk()
            except failures() as error:
                raise EngineError(f"the engine could not {what}: {error}") from error
            return _http.Stream(getattr(connection, "_sock", connection))
        data = b"" if body is None else json.dumps(body).encode()
        try:
            request = _http.Request(address, "POST", target, data, timeout=PATIENCE, upgrade=True)
            return request.hijack()
        except OSError as error:
            raise self.connection_error(error, what) from error

    def begin_remove(self, container: str) -> Pending:
        """
        Tell the engine to remove a container, killing it first, without waiting for it.

        :param container: Its name or id.
        :returns: The request under way.
        """
        return self.begin(
            "DELETE",
            f"/containers/{quote(container)}",
            f"remove the container {short(container)}",
            query={"force": 1, "v": 1},
        )

    # Networks.

    def create_network(self, name: str, config: Mapping[str, Any]) -> str:
        """
        Create a network.

        :param name: Its name.
        :param config: The API's configuration, without the name.
        :returns: The id of the network.
        """
        body = {"Name": name, "CheckDuplicate": True, **config}
        made = self.request("POST", "/networks/create", f"create the network {name}", body=body)
        return str(made["Id"])

    def connect_network(self, name: str, container: str, aliases: Sequence[str] = ()) -> None:
        """
        Attach a container to a network.

        :param name: The name or id of the network.
        :param container: The name or id of the container.
        :param aliases: What else the others in the network can call it (default: nothing).
        """
        body = {"Container": container, "EndpointConfig": {"Aliases": list(aliases)}}
        what = f"attach the container {short(container)} to the network {name}"
        self.request("POST", f"/networks/{quote(name)}/connect", what, body=body)

    def disconnect_network(self, name: str, container: str) -> None:
        """
        Detach a container from a network.

        :param name: The name or id of the network.
        :param container: The name or id of the container.
        """
        what = f"detach the container {short(container)} from the network {name}"
        body = {"Container": container}
        self.request("POST", f"/networks/{quote(name)}/disconnect", what, body=body)

    def networks(self, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """
        List networks.

        :param filters: The API's filters.
        :returns: The API's descriptions.
        """
        query = {"filters": json.dumps(filters)}
        return list(self.request("GET", "/networks", "list networks", query=query) or ())

    def remove_network(self, name: str) -> None:
        """
        Remove a network; fine if there is none.

        :param name: Its name or id.
        """
        with contextlib.suppress(NotFound):
            self.request("DELETE", f"/networks/{quote(name)}", f"remove the network {name}")

    # Images and volumes.

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        """
        Get everything about an image.

        :param image: Its name or id.
        :returns: The API's description, None when there is no such image.
        """
        try:
            path = f"/images/{quote(image)}/json"
            return dict(self.request("GET", path, f"inspect the image {image}"))
        except NotFound:
            return None

    def image_history(self, image: str) -> list[dict[str, Any]]:
        """
        Get the steps an image was made in.

        :param image: Its name or id.
        :returns: The API's descriptions, the last step first.
        """
        path = f"/images/{quote(image)}/history"
        return list(self.request("GET", path, f"get the history of the image {image}") or ())

    def images(self, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """
        List images.

        :param filters: The API's filters.
        :returns: The API's summaries.
        """
        return list(self.begin_images(filters).result() or ())

    def begin_images(self, filters: Mapping[str, Sequence[str]]) -> Pending:
        """
        Ask for a list of images, without waiting for it.

        :param filters: The API's filters.
        :returns: The request under way; its result is the API's summaries.
        """
        query = {"filters": json.dumps(filters)}
        return self.begin("GET", "/images/json", "list images", query=query)

    def tag_image(self, image: str, repository: str, tag: str) -> None:
        """
        Give an image another name.

        :param image: Its name or id.
        :param repository: The repository.
        :param tag: The tag.
        """
        query = {"repo": repository, "tag": tag}
        self.request("POST", f"/images/{quote(image)}/tag", f"tag the image {image}", query=query)

    def remove_image(self, image: str, *, force: bool = False) -> bool:
        """
        Remove the name of an image and, with its last name, the image.

        :param image: Its name or id.
        :param force: Also when stopped containers were made from it.
        :returns: False when there was no such image.
        """
        query = {"force": int(force)}
        try:
            path = f"/images/{quote(image)}"
            what = f"remove the image {image}"
            self.request("DELETE", path, what, query=query, timeout=REMOVAL_PATIENCE)
        except NotFound:
            return False
        return True

    def remove_volume(self, name: str) -> None:
        """
        Remove a volume; fine if there is none.

        :param name: Its name.
        """
        with contextlib.suppress(NotFound):
            self.request("DELETE", f"/volumes/{quote(name)}", f"remove the volume {name}")

    def create_volume(self, name: str, labels: Mapping[str, str], **options: Any) -> None:
        """
        Create a volume; fine if there is one of that name.

        :param name: Its name.
        :param labels: Its labels.
        :param options: The API's other settings, for instance ``DriverOpts``.
        """
        body = {"Name": name, "Labels": dict(labels), **options}
        self.request("POST", "/volumes/create", f"create the volume {name}", body=body)

    def volumes(self, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """
        List volumes.

        :param filters: The API's filters.
        :returns: The API's descriptions.
        """
        query = {"filters": json.dumps(filters)}
        answer = self.request("GET", "/volumes", "list volumes", query=query)
        return list((answer or {}).get("Volumes") or ())

    def info(self) -> dict[str, Any]:
        """
        Get what the engine says about itself and its host.

        :returns: The API's description.
        """
        return dict(self.request("GET", "/info", "describe itself"))

    def version(self) -> dict[str, Any]:
        """
        Get the version of the engine.

        :returns: The API's description.
        """
        return dict(self.request("GET", "/version", "tell its version", timeout=10.0))


def to_the_end(function: Callable[[], Any]) -> Any:
    """
    Call a function and, when we are interrupted, wait for its end nevertheless.

    An engine goes on with what it was asked to do: with the container paused,
    and to give the image its name later than we would have thought.

    :param function: What to call, in a thread of its own.
    :returns: What it returned.
    """
    import queue
    import threading

    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((function(), None))
        except Exception as error:
            # It belongs to the thread that waits, whatever it is.
            outcome.put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    Unfinished.threads.append(thread)
    thread.start()
    try:
        answer, error = outcome.get()
    except BaseException:
        finish()
        raise
    finally:
        Unfinished.threads.remove(thread)
    if error is not None:
        raise error
    return answer


class Unfinished:
    """What must not be left to itself."""

    threads: ClassVar[list[threading.Thread]] = []


def finish() -> None:
    """Wait for what :func:`to_the_end` began, in whatever thread; a second interrupt ends that."""
    for thread in list(Unfinished.threads):
        if thread.is_alive():
            logger.warning("Waiting for the engine to finish; interrupt again to leave it alone")
            thread.join()


def short(container: str) -> str:
    """
    Shorten the id of a container for a message; names stay as they are.

    :param container: A name or id.
    :returns: The name, or twelve digits of the id.
    """
    return container[:12] if len(container) == 64 else container


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

        return Client(version="auto", timeout=int(PATIENCE), **options)
    except failures() as error:
        raise DockerUnavailable(
            f"no Docker engine answers at {endpoint}: {error} ('redock doctor' tells how)"
        ) from error


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


def send_with_sdk(
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


def join_frames(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """
    Get what a container prints out of a stream, as it comes.

    As :func:`demultiplex`, for a stream that arrives in pieces of any size.

    :param pieces: The stream.
    :returns: Yields what was printed.
    """
    buffer, missing = b"", 0
    for piece in pieces:
        buffer += piece
        while buffer:
            if missing:
                part, buffer = buffer[:missing], buffer[missing:]
                missing -= len(part)
                yield part
            elif len(buffer) < 8:
                break
            else:
                missing, buffer = int.from_bytes(buffer[4:8], "big"), buffer[8:]


def download_with_sdk(
    client: docker.APIClient, target: str, what: str, timeout: float | None
) -> Iterator[bytes]:
    """
    Make a request over the SDK's connection whose answer need not fit into memory.

    :param client: The connection.
    :param target: The path and query.
    :param what: What is asked, to complete "the engine could not ...".
    :param timeout: Seconds of silence after which the engine counts as hung; None: never.
    :returns: Yields the body, piece by piece.
    """
    url = f"{client.base_url}/v{client.api_version}{target}"
    try:
        answer = client.request("GET", url, stream=True, timeout=timeout)
        if answer.status_code >= 400:
            raise answer_error(_http.Response(answer.status_code, {}, answer.content), what)
        # As it comes, not when so much of it is there.
        yield from answer.raw.stream(65536, decode_content=False)
    except failures() as error:
        raise DockerUnavailable(f"the connection to the Docker engine failed: {error}") from error


def demultiplex(raw: bytes) -> Iterator[bytes]:
    """
    Split a container's log into the pieces it printed.

    The format is that of the API's attach: eight bytes of header, of which the
    last four are the length, before each piece.

    :param raw: The log as the engine sends it.
    :returns: Yields the pieces.
    """
    position = 0
    while position + 8 <= len(raw):
        if raw[position] > 2 or raw[position + 1 : position + 4] != b"\0\0\0":
            break
        size = int.from_bytes(raw[position + 4 : position + 8], "big")
        yield raw[position + 8 : position + 8 + size]
        position += 8 + size
    yield raw[position:]


def printable(text: str) -> str:
    """
    Remove what could steer a terminal from the output of a container.

    :param text: Any text.
    :returns: The text without escape sequences (ECMA-48) and other control characters, except
              newlines and tabs.
    """
    import re

    kept = "\n\t"
    # Sequences with parameters, strings up to their end, and the rest: two characters.
    text = re.sub(
        r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
        r"|(?:\x1b[PX^_\]]|[\x90\x98\x9d-\x9f])[^\x07\x1b\n]*(?:\x07|\x1b\\)?"
        r"|\x1b[ -~]",
        "",
        text,
    )
    return "".join(c for c in text if c in kept or (c.isprintable() and c != "\x7f"))


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
