"""
A machine as it is known here: its names, what the engine says about it, its lock.
"""

from __future__ import annotations

import os

from redock import _machines, _remembered, _ssh
from redock._engine import Engine
from redock._files import Lock, path_in_home
from redock._image import Image, Session
from redock._machines import Machine
from redock._names import alias_for, check_hostname, hostname_for
from redock.errors import NoContainerRunning, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from redock._options import Options

__all__ = ["LOCK_PATIENCE", "Handle"]

#: Seconds another redock may need for the same machine before we give up.
LOCK_PATIENCE = 120.0


class Handle:
    """The part of :class:`~redock.api.Container` that knows which machine it is."""

    def __init__(
        self,
        image: str | Image,
        hostname: str | None = None,
        timeout: float = 10,
        *,
        base: str | None = None,
        engine: Engine | None = None,
        options: Options | None = None,
    ) -> None:
        self.image = Image.coerce(image)
        self.requested_hostname = check_hostname(hostname) if hostname else None
        self.timeout = timeout
        self.base = base
        self.engine = engine or Engine()
        #: What is asked for.
        self.options = options
        #: What the container that this object creates is started with.
        self.effective: Options | None = None
        self.session = Session()
        #: Whether this object created the container.
        self.created = False
        #: Whether this object started the container; False when it found it running.
        self.started = False
        self.public_key: bytes | None = None

    def __repr__(self) -> str:
        return f"Container({self.image.name!r})"

    # Names.

    @property
    def hostname(self) -> str:
        """The host name inside the container."""
        return self.requested_hostname or self.session.hostname or hostname_for(self.image.tag)

    @property
    def ssh_alias(self) -> str:
        """The name to give to ``ssh``: ``NAME-container``."""
        if self.session.ssh_alias:
            return self.session.ssh_alias
        # The host name may have been asked for, now or when the image was committed.
        return alias_for(self.image.tag, self.hostname)

    @property
    def ssh_config_file(self) -> str:
        """The pathname of the ssh configuration for this container."""
        return _ssh.fragment_file(self.image.name)

    def get_ssh_client_command(
        self, ip_address: str | None = None, port_number: int | None = None
    ) -> list[str]:
        """
        Generate the command line that connects to the (running) container.

        It works whether or not the user's ssh configuration mentions redock, as long as
        the container has been given SSH access (:meth:`start`, :meth:`setup_ssh_access`).

        :param ip_address: Replaces the address that is known.
        :param port_number: Replaces the port that is known.
        :returns: The command and its arguments.
        """
        command = ["ssh", "-F", _ssh.config_file()]
        if ip_address is not None:
            command += ["-o", f"HostName={ip_address}"]
        if port_number is not None:
            command += ["-o", f"Port={port_number}"]
        if ip_address is not None or port_number is not None:
            # A shared connection leads to where it was opened to.
            command += ["-o", "ControlPath=none"]
        return [*command, self.ssh_alias]

    # Looking.

    def find_container(self) -> bool:
        """
        Check whether the container runs.

        :returns: True when a running container exists, False otherwise.
        """
        machine = self._find_machine()
        if machine is None or not machine.running:
            self.session.reset()
            return False
        self._remember(machine)
        return True

    def check_active(self) -> None:
        """
        Make sure the container runs.

        :raises NoContainerRunning: It does not.
        """
        if not self.find_container():
            raise self._not_running()

    def _not_running(self) -> NoContainerRunning:
        """
        Say that the container does not run.

        :returns: The error to raise.
        """
        self.session.reset()
        return NoContainerRunning(
            f"{self.image.name} is not running: start it with 'redock start {self.image.name}'"
        )

    def find_image(self, image_to_find: Image) -> Image | None:
        """
        Find the most recent image with the given repository and tag.

        :param image_to_find: The image to look for.
        :returns: The image with its id, None when there is none.
        """
        described = self.engine.inspect_image(image_to_find.name)
        return Image(*image_to_find.key, id=described["Id"]) if described else None

    def expand_id(self, short_id: str, candidate_ids: Sequence[str]) -> str:
        """
        Translate a short id into the long id it stands for.

        :param short_id: The beginning of an id, as ``docker`` shows it.
        :param candidate_ids: The long ids there are.
        :returns: The only one that starts with the short id.
        :raises NotFound: None does, or several do.
        """
        wanted = short_id.removeprefix("sha256:")
        found = [each for each in candidate_ids if each.removeprefix("sha256:").startswith(wanted)]
        if not wanted or len(set(found)) != 1:
            problem = "stands for several ids" if found else "matches no id"
            raise NotFound(f"the short id {short_id!r} {problem}")
        return found[0]

    def _find_machine(self, machines: Sequence[Machine] | None = None) -> Machine | None:
        """
        Find the container in whatever state.

        :param machines: All machines, where they are known (default: ask the engine).
        :returns: What the engine says about it, None when there is none.
        """
        if machines is None:
            machines = _machines.find_machines(self.engine, self.image.name)
        return next((each for each in machines if each.name == self.image.name), None)

    def _remember(self, machine: Machine) -> None:
        """
        Take what is known about the container into the session.

        :param machine: What the engine says.
        """
        session = self.session
        session.container_id, session.instance = machine.id, machine.instance
        session.ssh_alias, session.hostname = machine.alias, machine.hostname
        session.address, session.port = machine.endpoint
        session.user, session.agent = "root", False
        if machine.options or _remembered.exists(machine.name):
            from redock._options import Options

            options = Options.parse(machine.options)
            session.user = options.login
            session.agent = _remembered.recall(machine.name).get("agent", bool(options.agent))

    @property
    def _lock(self) -> Lock:
        """The lock that lets one process at a time work on this machine."""
        name = os.path.basename(self.ssh_config_file)
        path = path_in_home("locks", f"{name}.lock")
        return Lock(path, f"machine {self.image.name}", timeout=LOCK_PATIENCE)
