"""
Ways into a machine: commands, files, ports, editors.
"""

from __future__ import annotations

import io
import os
from typing import cast

from redock import _connection, _keeper, _ssh
from redock._process import Deadline, wait_until
from redock.errors import ExternalCommandFailed, InvalidArgument, NotFound, RedockError, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from redock._command import Line
    from redock._copy import Files
    from redock._forward import Forward
    from redock._machines import Machine
    from redock._result import Result
    from redock.api import Container

__all__ = ["Reach", "sync_command"]


class Reach:
    """The part of :class:`~redock.api.Container` that reaches into it."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)

    def bring_up(self) -> None:
        """
        Make sure a machine that exists, or was saved, runs and can be reached.

        Unlike :meth:`~redock.api.Container.start` it does not make a new one.

        :raises NotFound: There is no such machine, and nothing was saved under its name.
        :raises RedockError: As for :meth:`~redock.api.Container.start`.
        """
        container = self._container
        if container._find_machine() is None and container.find_image(container.image) is None:
            name = container.image.name
            raise NotFound(
                f"there is no machine {name}, and nothing was saved under that name:"
                f" 'redock start {name}' makes one",
                404,
            )
        container.start()

    def _connected(self) -> Machine:
        """
        Make sure a machine that runs has a shared connection.

        :returns: What the engine says about it.
        :raises NoContainerRunning: It does not run.
        """
        machine = self._container._running()
        self._connect(machine)
        return machine

    def _connect(self, machine: Machine) -> None:
        """
        Make sure there is a shared connection.

        :param machine: The machine, which runs.
        """
        known = _ssh.instance_of(machine.name) == machine.instance
        if not (known and _keeper.is_shared(machine.instance)):
            self._container.start()

    # Commands.

    def run(
        self,
        *command: str,
        input: str | None = None,
        timeout: float | None = None,
        check: bool = False,
    ) -> Result:
        """
        Run a command as root, over SSH.

        >>> container.run("supervisorctl status | grep RUNNING")
        >>> container.run("touch", "a file")

        :param command: One text for ``sh``, or the command and its arguments, which are passed
                        exactly as they are.
        :param input: Its standard input (default: empty).
        :param timeout: Seconds after which it is killed, inside the machine (default: never).
        :param check: Raise an error when its status is not zero (default: no).
        :returns: What it did: ``returncode``, ``stdout``, ``stderr``, ``seconds``.
        :raises InvalidArgument: It is no command.
        :raises NotFound: There is no such machine.
        :raises NoContainerRunning: The machine is stopped or paused.
        :raises ExternalCommandFailed: It failed and ``check`` is true.
        :raises Timeout: It did not end in time.
        :raises ConnectionFailed: The machine cannot be reached.
        """
        from redock._command import check_command

        check_command(command)
        return self._line(self._container._running()).run(command, timeout, check, input)

    def _line(self, machine: Machine) -> Line:
        """
        Get the way commands take to the machine.

        :param machine: The machine.
        :returns: The way.
        """
        from redock._command import Line

        def state() -> str:
            found = self._container._find_machine()
            return found.state if found else "gone"

        return Line(
            machine.alias,
            machine.instance,
            machine.name,
            machine.name,
            lambda seconds: self._connect(machine),
            state,
        )

    def exec(
        self,
        *command: str,
        input: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        user: str = "root",
    ) -> Result:
        """
        Run a command through the engine. It needs neither SSH nor a network.

        :param command: As for :meth:`run`.
        :param input: Its standard input (default: empty).
        :param timeout: Seconds after which it is killed (default: never).
        :param check: Raise an error when its status is not zero (default: no).
        :param user: Who runs it, ``USER`` or ``USER:GROUP`` (default: root).
        :returns: What it did.
        :raises InvalidArgument: It is no command.
        :raises NotFound: There is no such machine.
        :raises NoContainerRunning: The machine is stopped or paused.
        :raises ExternalCommandFailed: It failed and ``check`` is true.
        :raises Timeout: It did not end in time.
        """
        from redock._command import words_of
        from redock._exec import Exec, capture

        words = words_of(command)
        machine = self._container._running()
        engine = self._container.engine
        running = Exec(engine, machine.id, words, stdin=input is not None, user=user)
        done = capture(running, command, input, timeout)
        if check and not done:
            raise ExternalCommandFailed(done, machine.alias)
        return done

    # Files.

    def _files(self) -> Files:
        """Get the files of the machine, which need not run."""
        from redock._copy import Files

        machine = self._container._present()
        running = machine.state == "running"
        return Files(self._container.engine, machine.id, machine.name, running)

    def copy_in(self, source: str | os.PathLike[str] | bytes | IO[bytes], target: str) -> None:
        """
        Copy a file or directory into the machine, running or not. It belongs to root there.

        Permissions and times are kept. A target that is a directory gets the copy put into
        it; a source that ends with ``/.`` stands for what is in the directory.

        :param source: A pathname on this host, the contents of a file, or a binary stream.
        :param target: The pathname inside; one that is not absolute counts from ``/root``.
        :raises NotFound: There is no such machine.
        :raises RedockError: There is no such file, or it cannot be written there.
        """
        from redock import _copy

        files = self._files()
        if isinstance(source, (str, os.PathLike)):
            _copy.copy(os.fspath(source), target, None, files)
        else:
            stream = io.BytesIO(source) if isinstance(source, bytes) else source
            _copy.copy_from_stream(stream, target, files)

    def copy_out(self, source: str, target: str | os.PathLike[str] | IO[bytes]) -> None:
        """
        Copy a file or directory out of the machine, running or not. It belongs to the caller.

        Permissions and times are kept. Links that lead out of the directory are left
        out, with a warning. Nothing is under its final name before all of it is there.

        :param source: The pathname inside; one that is not absolute counts from ``/root``.
        :param target: A pathname on this host, or a binary stream for the contents of a file.
        :raises NotFound: There is no such machine, or no such file in it.
        :raises RedockError: It cannot be written here.
        """
        from redock import _copy

        files = self._files()
        if isinstance(target, (str, os.PathLike)):
            _copy.copy(source, os.fspath(target), files, None)
        else:
            _copy.copy_to_stream(source, files, target)

    def sync_in(
        self,
        source: str | os.PathLike[str],
        target: str,
        *,
        delete: bool = False,
        exclude: Sequence[str] = (),
        dry_run: bool = False,
    ) -> Result:
        """
        Bring a directory in the machine up to date with one here: ``rsync`` over SSH.

        :param source: A pathname on this host; with ``/`` at its end what is in the directory.
        :param target: The pathname inside.
        :param delete: Remove from the target what the source does not have (default: no).
        :param exclude: Patterns of what to leave out, see rsync(1) (default: none).
        :param dry_run: Only say what would be done (default: no).
        :returns: What ``rsync`` said.
        :raises ExternalCommandFailed: It failed.
        :raises RedockError: It is not installed, or the machine does not run.
        """
        return self._sync(os.fspath(source), target, True, delete, exclude, dry_run)

    def sync_out(
        self,
        source: str,
        target: str | os.PathLike[str],
        *,
        delete: bool = False,
        exclude: Sequence[str] = (),
        dry_run: bool = False,
    ) -> Result:
        """
        Bring a directory here up to date with one in the machine: ``rsync`` over SSH.

        :param source: The pathname inside; with ``/`` at its end what is in the directory.
        :param target: A pathname on this host.
        :param delete: As for :meth:`sync_in`.
        :param exclude: As for :meth:`sync_in`.
        :param dry_run: As for :meth:`sync_in`.
        :returns: What ``rsync`` said.
        :raises ExternalCommandFailed: It failed.
        :raises RedockError: It is not installed, or the machine does not run.
        """
        return self._sync(source, os.fspath(target), False, delete, exclude, dry_run)

    def _sync(
        self,
        source: str,
        target: str,
        inward: bool,
        delete: bool,
        exclude: Sequence[str],
        dry_run: bool,
    ) -> Result:
        """Run ``rsync``, see :meth:`sync_in`."""
        from redock._process import run

        alias = self._connected().alias
        more = [*(["--delete"] if delete else []), *[f"--exclude={each}" for each in exclude]]
        more += ["--dry-run", "--itemize-changes"] if dry_run else []
        return run(sync_command(alias, source, target, inward, more), timeout=None)

    # Ports and editors.

    def forward(
        self, ports: str | int, *, reverse: bool = False, background: bool = False
    ) -> Forward:
        """
        Make a port of this host lead into the machine, which goes on as it is.

        >>> with container.forward("8080:80") as forward:
        ...     urllib.request.urlopen(f"http://127.0.0.1:{forward.port}/")

        :param ports: ``PORT``, ``LISTEN:TO`` or ``ADDRESS:LISTEN:TO``. It listens on the loopback
                      interface unless there is an address, and on any free port for 0.
        :param reverse: It listens in the machine and leads to this host (default: no).
        :param background: It stays when this process has ended (default: no).
        :returns: The forwarding, a context manager; its ``port`` is the one that is listened on.
        :raises InvalidArgument: Those are no ports.
        :raises PortUnavailable: Another program listens there.
        :raises NoContainerRunning: The machine does not run.
        """
        from redock import _forward

        parsed = _forward.parse_ports(ports, reverse=reverse)
        self._connected()
        return _forward.Forward(self._container._host_entry, parsed, background=background)

    def open_command(self, path: str = "/root", editor: str | None = None) -> list[str]:
        """
        Make the command line that opens the machine in an editor.

        :param path: A file or directory inside (default: root's home).
        :param editor: ``code``, ``codium``, ``cursor``, ``windsurf``, ``zed``, ``emacs`` or ``ssh``
                       (default: the first that is installed).
        :returns: The command and its arguments.
        :raises InvalidArgument: We do not know such an editor.
        :raises RedockError: It is not installed, or none is.
        """
        from redock import _editor

        editor = editor or _editor.find_editor()
        if editor is None:
            raise RedockError(
                f"none of {', '.join(_editor.USUAL)} is installed: name one with --editor"
            )
        return _editor.editor_command(editor, self._container.ssh_alias, path)

    # Waiting.

    def wait(self, condition: str = "ssh", timeout: float | None = None) -> None:
        """
        Wait until something is true of the machine; it need not exist yet.

        :param condition: ``ssh``: somebody can log in; ``port:NUMBER``: a program in it listens
                          on that TCP port; ``stopped``: it does not run (default: ``ssh``).
        :param timeout: Seconds to wait (default: that of the object, 10).
        :raises InvalidArgument: There is no such condition.
        :raises Timeout: It did not become true in time.
        """
        seconds = self._container.timeout if timeout is None else timeout
        deadline = Deadline(seconds)
        state = ""

        def holds() -> bool:
            nonlocal state
            machine = self._container._find_machine()
            state = machine.state if machine else "not there"
            if condition == "stopped":
                return machine is None or not machine.running
            return machine is not None and machine.state == "running" and check(machine)

        def check(machine: Machine) -> bool:
            try:
                return attempt(machine, max(0.1, deadline.remaining))
            except RedockError:
                return False

        attempt = self._attempt(condition)
        if not wait_until(holds, deadline, 0.05, 0.25):
            failed = {"ssh": "nobody could log in", "stopped": "it did not stop"}
            what = failed.get(condition, f"nothing listened on {condition.replace(':', ' ')}")
            raise Timeout(
                f"{self._container.image.name}: {what} within {seconds:g} seconds;"
                f" the machine is {state}"
            )

    def _attempt(self, condition: str) -> Callable[[Machine, float], bool]:
        """
        Get what tells whether a machine that runs is as somebody waits for it.

        :param condition: As for :meth:`wait`.
        :returns: A function of the machine and of the seconds it may take.
        :raises InvalidArgument: There is no such condition.
        """
        kind, _, number = condition.partition(":")
        if condition in ("ssh", "stopped"):
            return self._answers
        if kind != "port" or not (number.isascii() and number.isdigit() and len(number) < 6):
            raise InvalidArgument(f"{condition!r} is no condition: ssh, port:NUMBER or stopped")
        if not 0 < int(number) < 65536:
            raise InvalidArgument(f"{number} is no TCP port")

        def listens(machine: Machine, seconds: float) -> bool:
            text = f'ss -Hltn "sport = :{int(number)}" | grep -q .'
            return bool(self.exec(text, timeout=max(seconds, 1.0)))

        return listens

    def _answers(self, machine: Machine, seconds: float) -> bool:
        """
        Log into a machine that runs.

        :param machine: The machine.
        :param seconds: How long it may take.
        :returns: True when it worked.
        """
        deadline = Deadline(seconds)

        def give_up() -> None:
            if self._container._running().instance != machine.instance:
                raise NotFound(f"{machine.name} is another one now", 404)

        self._container._remember(machine)
        _connection.wait_for_banner(*machine.endpoint, deadline, give_up)
        _connection.open_connection(self._container._host_entry, deadline, give_up)
        return True


def sync_command(
    alias: str, source: str, target: str, inward: bool, more: Sequence[str]
) -> list[str]:
    """
    Make the command line of ``rsync``.

    :param alias: The name of the machine for ``ssh``.
    :param source: Where the files are.
    :param target: Where they go.
    :param inward: They go into the machine.
    :param more: Further options.
    :returns: The command and its arguments.
    """
    from redock._result import quote

    def here(path: str) -> str:
        # A colon or a hyphen would make something else of it.
        return path if path.startswith("/") else f"./{path}"

    def there(path: str) -> str:
        return f"{alias}:{path if path.startswith('/') else './' + path}"

    client = quote(["ssh", "-F", _ssh.config_file()])
    # Numbers of users mean nothing on the other side; and what comes out may not lead elsewhere.
    command = ["rsync", "--archive", "--no-owner", "--no-group", "--protect-args", "-e", client]
    command += [*more, "--"] if inward else ["--safe-links", *more, "--"]
    pair = (here(source), there(target)) if inward else (there(source), here(target))
    return [*command, *pair]
