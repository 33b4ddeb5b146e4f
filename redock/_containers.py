"""
What we ask of the engine about containers: their lives, their disks, what runs in them.

API: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

from redock import _http
from redock._http import quote, urlencode
from redock._json_text import dumps, loads
from redock._log import LateLogger
from redock._printed import demultiplex, printable
from redock._transport import COMMIT_PATIENCE, Pending, Transport
from redock.errors import DockerUnavailable, EngineError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

__all__ = ["Containers", "short"]

logger = LateLogger(__name__)

#: Seconds to try to freeze a container that is busy.
FREEZING = 10.0
#: What Podman without root says where control groups are of version 1.
CANNOT_FREEZE = "can not pause"


class Containers(Transport):
    """The part of :class:`~redock._engine.Engine` that is about containers."""

    def containers(
        self, filters: Mapping[str, Sequence[str]], *, size: bool = False
    ) -> list[dict[str, Any]]:
        """
        List containers, running or not.

        :param filters: The API's filters, for instance ``{"label": ["key=value"]}``.
        :param size: Find out the sizes of their disks, which takes its time (default: no).
        :returns: The API's summaries.
        """
        query = {"all": 1, "filters": dumps(filters), **({"size": 1} if size else {})}
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
            timeout=patience + 2 * _http.PATIENCE,
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
            timeout=patience + 2 * _http.PATIENCE,
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
            timeout=2 * _http.PATIENCE,
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
                if CANNOT_FREEZE in str(error):
                    raise EngineError(
                        f"{error}; 'redock stop' keeps its disk, too, and 'redock start' brings it"
                        " back",
                        error.status,
                    ) from error
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
                      (default: True). An engine that cannot pause saves it as it is, and a
                      warning says so.
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
        try:
            return self._commit(container, query)
        except EngineError as error:
            if not (pause and CANNOT_FREEZE in str(error)):
                raise
        logger.warning(
            "This engine cannot freeze a container: the disk is saved while programs write to it"
        )
        return self._commit(container, {**query, "pause": 0})

    def _commit(self, container: str, query: Mapping[str, object]) -> str:
        """
        Ask for an image of the disk of a container.

        :param container: Its name or id.
        :param query: What the image is to be.
        :returns: The id of the image.
        """
        from redock._unfinished import to_the_end

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
            timeout=None if follow else _http.PATIENCE,
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
            found = dict(loads(base64.b64decode(headers["x-docker-container-path-stat"])))
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
        return self.stream(
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
        stream = self.stream(
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


def short(container: str) -> str:
    """
    Shorten the id of a container for a message; names stay as they are.

    :param container: A name or id.
    :returns: The name, or twelve digits of the id.
    """
    return container[:12] if len(container) == 64 else container
