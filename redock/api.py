"""
The main API: machines you can SSH into.

>>> from redock.api import Container
>>> container = Container("web")
>>> container.start()
>>> container.ssh_alias
'web-container'
>>> container.commit(message="nginx installed")
>>> container.kill()

:class:`Container` is the main entry point; :meth:`~Container.start`,
:meth:`~Container.commit` and :meth:`~Container.kill` are what one usually needs.
"""

from __future__ import annotations

import logging
import os

import redock
from redock import _connection, _identity, _include, _keeper, _machines, _recipe, _ssh
from redock._access import Access
from redock._engine import KIND, label
from redock._fitting import Fitting
from redock._image import Image, Session
from redock._listing import MachineInfo, list_machines
from redock._look import Look, MachineStatus
from redock._machines import Machine
from redock._names import (
    container_name,
    hostname_for,
    is_reserved,
)
from redock._power import Power
from redock._process import Deadline, quote
from redock._reach import Reach
from redock._transfer import Transfer
from redock._transport import Pending
from redock._usage import Process
from redock.errors import (
    ContainerDied,
    EngineError,
    ForeignContainer,
    InvalidName,
    NoContainerRunning,
    PortUnavailable,
    RedockError,
    SecureShellTimeout,
)
from redock.utils import Config, get_ssh_public_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from redock._changes import Change
    from redock._commits import Commit
    from redock._options import Options

__all__ = [
    "Change",
    "Commit",
    "Container",
    "Image",
    "MachineInfo",
    "MachineStatus",
    "NoContainerRunning",
    "Options",
    "Process",
    "SecureShellTimeout",
    "Session",
    "list_machines",
]

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> object:
    # What makes data classes takes a while to load, and a start has no use for it.
    if name == "Commit":
        from redock._commits import Commit

        return Commit
    if name == "Change":
        from redock._changes import Change

        return Change
    if name == "Options":
        from redock._options import Options

        return Options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


#: How often a container is created anew because its port was taken in that moment.
PORT_ATTEMPTS = 8


class Container(Transfer, Look, Reach, Power, Fitting, Access):
    """
    A machine you can SSH into: a container, its image and the way in.

    Basics: :meth:`start` makes sure the machine runs and can be reached as
    ``ssh ALIAS`` (see :attr:`ssh_alias`), :meth:`commit` saves its disk as an
    image, :meth:`kill` throws it away, :meth:`delete` removes the image.

    Lifecycle: the constructor does nothing but check its arguments; the engine
    is asked when a method needs it. The machine lives on when the object and
    the process are gone, unless it is used as a context manager, which kills on
    exit what it created on entry::

        with Container("test") as container:
            subprocess.run(["ssh", container.ssh_alias, "uname", "-a"], check=True)

    Thread safety: one object a thread; several objects, threads and processes
    may work on the same machine, one after the other.

    :param image: The name of the image, see :meth:`Image.coerce`.
    :param hostname: The host name inside the container (default: the image's tag).
    :param timeout: Seconds to wait for the machine to become reachable over SSH (default: 10).
    :param base: What the base image is made from (default: the setting, else ``ubuntu:24.04``);
                 used when there is no image of that name yet.
    :param engine: The container engine, for several containers to share (default: the one
                   that ``DOCKER_HOST`` and the Docker contexts say).
    :param options: What the machine is started with besides its disk (default: what is
                    remembered of it, else what the settings say).
    :raises InvalidName: The image or host name is outside the grammar.
    """

    def __enter__(self) -> Container:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.created:
            self.kill()

    # Starting.

    def start(self, *, recreate: bool = False) -> None:
        """
        Make sure the machine runs and can be reached over SSH.

        A machine that does not exist is created, from the image of its name or
        else from the base image (made on the first run). One that was stopped,
        by an engine or host that went down, comes back with its disk. One that
        runs is left running.

        Where :attr:`options` ask for something else than a machine has, limits, networks, agent
        forwarding and the restart policy are changed as it is. Other options need a new container.

        :param recreate: Make a new container where the options need one, with the same disk,
                         identity and port; running programs are stopped (default: no).
        :raises InvalidArgument: The options ask for what does not exist.
        :raises InvalidName: The base image's name is outside the grammar.
        :raises DockerUnavailable: No engine answers.
        :raises AliasTaken: Another machine answers to the same alias.
        :raises ContainerDied: It ended while it was starting.
        :raises SecureShellTimeout: It could not be reached in time.
        :raises RedockError: Another of :mod:`redock.errors`.
        """
        for attempts_left in (2, 1, 0):
            self._launch(self.setup_ssh_access, recreate)
            try:
                self._log_in()
            except _connection.KeyRefused:
                # redock's key pair is a new one: tell the machine.
                machine = self._find_machine()
                if machine is None or self.created:
                    raise
                _identity.adopt(self.engine, machine)
                self._log_in()
            except ContainerDied as died:
                # One that ran when we came was ended by somebody else; and whoever started it
                # first may have been killed before handing over the identity.
                unborn = died.status == _recipe.NO_IDENTITY and not self.created
                if attempts_left and (unborn or not self.started):
                    continue
                self._bury()
                raise
            return

    def start_supervisor(self) -> None:
        """
        Start the container and, inside it, Supervisor; give it no SSH access.

        The first half of :meth:`start`; :meth:`setup_ssh_access` is the second.

        :raises RedockError: As for :meth:`start`.
        """
        self._launch(lambda: None)

    def _launch(self, meanwhile: Callable[[], None], recreate: bool = False) -> None:
        """
        Make sure the container runs.

        :param meanwhile: Work to do while the engine starts it.
        :param recreate: Make a new container where the options need one (default: no).
        """
        if is_reserved(*self.image.key):
            raise InvalidName(f"the name {self.image.name} is reserved for redock's base images")
        # Of a newer redock's state we want to know before anything is made.
        Config().load()
        self._check_options()
        self.started = False
        while True:
            with self._lock:
                machines = _machines.find_claims(self.engine)
                machine = self._find_machine(machines)
                if machine is not None and machine.state == "created":
                    # Somebody was interrupted before its first start: nothing is lost.
                    self._discard(machine)
                    machines.remove(machine)
                    machine = None
                if machine is not None:
                    if self.base:
                        logger.warning("%s exists already, --base is not used", self.image.name)
                    self._tidy(machine)
                    self._settle(machine.image)
                    if not self._fit(machine, recreate, meanwhile):
                        self._resume(machine, meanwhile)
                    return
                image_id = self._find_image_id()
                if image_id is not None:
                    self._create(image_id, machines, meanwhile)
                    self._settle(image_id)
                    return
            # Making the base image takes minutes; nobody needs to wait for us meanwhile.
            from redock.base import create_base_image

            create_base_image(self.engine, self.base)

    def _find_image_id(self) -> str | None:
        """
        Find the image to start from.

        :returns: The id of the image of this name, else of the base image; None when that has
                  to be made first.
        """
        moving = self._find_moving()
        if moving is not None:
            image_id, saved = moving
            self.effective = self._decide(saved, trusted=True)
            return image_id
        described = self.engine.inspect_image(self.image.name)
        if described is not None:
            if self.base:
                logger.warning("The image %s exists already, --base is not used", self.image.name)
            self.image.id = str(described["Id"])
            labels = described["Config"].get("Labels") or {}
            if not labels.get(label("recipe")):
                raise RedockError(
                    f"the image {self.image.name} was not made by redock and has no SSH server to"
                    f" start: name it with --base to build on it, and the machine otherwise"
                )
            saved, hostname = labels.get(label("name"), ""), labels.get(label("hostname"))
            if hostname and hostname != hostname_for(saved.rpartition(":")[2]):
                # It was asked for when the machine was made, so it belongs to what was saved.
                self.session.hostname = hostname
            self.effective = self._decide(_machines.saved_options(labels))
            return self.image.id
        from redock.base import find_ready_base

        self.effective = self._decide("")
        return find_ready_base(self.engine, self.base)

    def _create(
        self, image_id: str, machines: Sequence[Machine], meanwhile: Callable[[], None]
    ) -> None:
        """
        Create and start a new container.

        :param image_id: The image to start from.
        :param machines: The other machines.
        :param meanwhile: Work to do while the engine starts it.
        """
        foreign = _include.AliasProbe(self.ssh_alias)
        host_key = _ssh.HostKey()
        used = {machine.port for machine in machines}
        try:
            for _ in range(PORT_ATTEMPTS):
                instance = _machines.new_instance()
                port = _machines.pick_port(self.image.name, used, self.engine.endpoint.is_local)
                if port is None:
                    break
                logger.debug("Creating %s on port %i", self.image.name, port)
                with self._alias_lock:
                    self._check_alias()
                    container = self._create_container(image_id, instance, port)
                self.session.container_id, self.session.instance = container, instance
                self.session.address, self.session.port = "127.0.0.1", port
                self.session.ssh_alias, self.session.hostname = self.ssh_alias, self.hostname
                self.session.user = self.effective.login if self.effective else "root"
                self.session.agent = bool(self.effective and self.effective.agent)
                try:
                    foreign.check()
                    self._equip(container)
                    self._start_new(*host_key.collect(), meanwhile)
                except BaseException as error:
                    self._remove_container(container, instance)
                    published = self._explain_port(error)
                    if published is not None:
                        self._withdraw(error)
                        raise published from error
                    if not _machines.port_was_taken(error):
                        self._withdraw(error)
                        raise
                    host_key = _ssh.HostKey()
                    used.add(port)
                    continue
                self.created = self.started = True
                return
        finally:
            host_key.discard()
            foreign.discard()
        raise PortUnavailable(
            f"found no free port for {self.image.name} on 127.0.0.1"
            f" ({_machines.PORTS.start} to {_machines.PORTS.stop - 1}): kill a machine"
        )

    def _withdraw(self, reason: BaseException) -> None:
        """
        Take back the way in to a container that could not be started.

        :param reason: Why it could not; more important than what goes wrong here.
        """
        self.session.reset()
        try:
            self.revoke_ssh_access()
        except RedockError as error:
            logger.debug("After %s: %s", reason, error)

    def _create_container(self, image_id: str, instance: str, port: int) -> str:
        """
        Create a new container.

        :param image_id: The image to start from.
        :param instance: The id redock gives to the container.
        :param port: The port for SSH.
        :returns: The engine's id of the container.
        :raises ForeignContainer: Its name is taken by a container that is not ours.
        """
        name = container_name(*self.image.key)
        config = _machines.configuration(
            name=self.image.name,
            image=image_id,
            hostname=self.hostname,
            alias=self.ssh_alias,
            instance=instance,
            port=port,
            version=redock.__version__,
            options=self.effective,
        )
        deadline = Deadline(5.0)
        while True:
            try:
                return self.engine.create_container(name, config)
            except EngineError as error:
                # Docker says 409, Podman 500.
                if "already in use" not in str(error):
                    raise
                if self._find_machine() is not None:
                    raise RedockError(
                        f"somebody else is starting {self.image.name}: run the command again"
                    ) from error
                # For a moment the engine keeps the name of a container that was removed.
                if deadline.passed:
                    raise ForeignContainer(
                        f"a container called {name} exists that redock did not make:"
                        f" remove it with 'docker rm -f {name}' or choose another name"
                    ) from error
                deadline.sleep(0.2)

    def _start_new(
        self, private_key: bytes, public_key: bytes, meanwhile: Callable[[], None]
    ) -> None:
        """
        Start a container for the first time and hand it its identity.

        :param private_key: The private host key.
        :param public_key: The public host key.
        :param meanwhile: Work to do while the engine starts it.
        """
        assert self.session.container_id and self.session.instance
        self.public_key = public_key
        identity = _machines.archive(
            _identity.files(self.session.instance, private_key, public_key, get_ssh_public_key())
        )
        stream = self.engine.attach(self.session.container_id, "stdin")
        try:
            starting = self.engine.begin_start(self.session.container_id)
            stream.send(identity)
            self._finish_start(starting, meanwhile)
            self._sweep()
        finally:
            stream.close()

    def _finish_start(self, starting: Pending, meanwhile: Callable[[], None]) -> None:
        """
        Do other work until the engine has started the container.

        :param starting: The request under way.
        :param meanwhile: The other work.
        """
        try:
            meanwhile()
        finally:
            starting.result()

    def _resume(self, machine: Machine, meanwhile: Callable[[], None]) -> None:
        """
        Make sure a container that exists runs.

        :param machine: The container.
        :param meanwhile: Work to do while the engine starts it.
        """
        if self.requested_hostname and self.requested_hostname != machine.hostname:
            logger.warning(
                "%s exists already, under the host name %s", self.image.name, machine.hostname
            )
            self.requested_hostname = None
        self._remember(machine)
        self.public_key = _identity.recall_public_key(self.engine, machine)
        if machine.state == "paused":
            self.engine.pause(machine.id, resume=True)
        if machine.running:
            meanwhile()
            return
        logger.debug("Starting %s again", machine.name)
        self.started = True
        if self.engine.inspect_container(machine.id)["State"]["ExitCode"] == _recipe.NO_IDENTITY:
            self.public_key = _identity.adopt(self.engine, machine)
        try:
            # Without its identity (somebody removed it inside) the boot program would wait for
            # it: here it sees the end of its input, says so, and is given a new one.
            stream = self.engine.attach(machine.id, "stdin")
            try:
                self._finish_start(self.engine.begin_start(machine.id), meanwhile)
            finally:
                stream.close()
        except EngineError as error:
            if not _machines.port_was_taken(error):
                raise
            raise PortUnavailable(
                f"port {machine.port} of {machine.name} is taken by another program: end that"
                " program, or save the disk with 'docker commit' and start a new machine"
            ) from error

    # Ending.

    def _bury(self) -> None:
        """Take away the alias of a container that ended, and the container if it was new."""
        with self._lock:
            # Another start may have made a new container meanwhile: the alias is that one's.
            if _ssh.instance_of(self.image.name) in (None, self.session.instance):
                self._revoke_or_warn()
            if self.created and self.session.container_id and self.session.instance:
                self._remove_container(self.session.container_id, self.session.instance)
                self.created = False

    def _revoke_or_warn(self) -> None:
        """Make ``ssh`` forget the container, but keep the pinned key of one that exists."""
        _ssh.remove(self.image.name, self.session.instance if self.created else None)
        with Config() as state:
            state["containers"].pop(self.image.name, None)

    def commit(
        self, message: str | None = None, author: str | None = None, *, squash: bool = False
    ) -> None:
        """
        Save the disk of the running container as its image.

        The next :meth:`start` after a :meth:`kill` begins from there. Volumes,
        processes and memory are not part of it; neither are keys. What was
        saved before stays, see :meth:`history`. The container is frozen
        meanwhile; a warning says so where the engine cannot do that.

        :param message: A short description (default: none).
        :param author: Who made the change (default: nobody).
        :param squash: Make one layer of it, see :meth:`squash` (default: no).
        :raises NoContainerRunning: The container does not run.
        :raises InvalidName: The message or the author is too long or contains a NUL.
        :raises EngineError: The engine failed; the old image is intact.
        """
        for what, text in (("message", message), ("author", author)):
            if text and ("\0" in text or len(text.encode("utf-8", "replace")) > 4096):
                raise InvalidName(f"the {what} must be at most 4096 bytes, without NUL")
        with self._lock:
            machine = self._find_machine()
            if machine is None or not machine.running:
                raise self._not_running()
            self._remember(machine)
            self.image.id = self._save(machine, message, author, squash)

    def kill(self) -> None:
        """
        Kill and remove the container.

        All changes since the last :meth:`commit` are lost. Its alias and pinned
        key are removed.

        :raises NoContainerRunning: There is no container, nor anything left of one.
        :raises EngineError: The engine failed.
        """
        Config().load()
        with self._lock:
            machine = self._find_machine()
            if machine is None:
                self.session.reset()
                entry = os.path.exists(self.ssh_config_file)
                swept = self._sweep()
                self.revoke_ssh_access()
                if self._forget_options() or swept or entry:
                    logger.info("%s had gone already; removed what was left", self.image.name)
                    return
                raise NoContainerRunning(f"there is no machine {self.image.name} to kill")
            self._remember(machine)
            for leftover in machine.successors:
                self.engine.remove_container(leftover)
            closing = _keeper.begin_close(machine.instance)
            killing = None
            try:
                if machine.running:
                    killing = self.engine.begin_kill(machine.id)
                # The engine needs longer for its part than we for ours, the message included.
                self.revoke_ssh_access()
                logger.info("Killing %s", self.image.name)
            finally:
                try:
                    if killing is not None:
                        killing.result()
                except EngineError as error:
                    # It ended, or was removed, by itself: what we wanted.
                    logger.debug("%s", error)
                finally:
                    _keeper.close_connection(machine.instance, closing)
                self._remove_container(machine.id, machine.instance)
            self._forget_options()
            self.session.reset()
            self.created = False

    def delete(self, force: bool = False) -> None:
        """
        Delete what was saved: the image, and all commits before it. The data is lost.

        :param force: Delete even redock's base image (default: False).
        :raises RedockError: A container still exists, or it is the base image.
        """
        if is_reserved(*self.image.key) and not force:
            raise InvalidName(
                f"{self.image.name} is reserved for redock's base images:"
                " with --force it is deleted and made anew when it is needed"
            )
        with self._lock:
            if self._find_machine() is not None:
                raise RedockError(
                    f"{self.image.name} still has a machine: 'redock kill {self.image.name}' first"
                )
            count = self._forget()
            if count > 1:
                logger.info("Deleted the image %s: %i commits", self.image.name, count)
            elif count:
                logger.info("Deleted the image %s", self.image.name)
            else:
                logger.info("There is no image %s", self.image.name)
            self.image.id = None

    def _sweep(self) -> bool:
        """
        Remove what containers of this name left behind that went without us.

        :returns: True when there was something.
        """
        mine = self.session.instance
        named = {"label": [f"{label('name')}={self.image.name}", f"{KIND}=volume"]}
        instances = {volume["Labels"][label("instance")] for volume in self.engine.volumes(named)}
        entry = _ssh.instance_of(self.image.name)
        if entry:
            instances.add(entry)
        if instances - {mine}:
            # The volume of one that was renamed still says the name it had.
            instances -= {each.instance for each in _machines.find_machines(self.engine)}
        for instance in instances - {mine}:
            _keeper.close_connection(instance)
            try:
                self.engine.remove_volume(_machines.volume_name(instance))
            except EngineError as error:
                # A container of somebody else's has it.
                logger.warning("%s", error)
            _ssh.forget_key(instance)
        if entry and entry != mine:
            self.revoke_ssh_access()
        return bool(instances - {mine})

    def _discard(self, machine: Machine) -> None:
        """
        Remove a container that never ran, and what was written for it.

        :param machine: The container.
        """
        _ssh.remove(machine.name, machine.instance)
        self._remove_container(machine.id, machine.instance)

    def _remove_container(self, container: str, instance: str) -> None:
        """
        Remove a container and its identity.

        :param container: The engine's id of the container.
        :param instance: redock's id of the container.
        """
        self.engine.remove_container(container)
        self.engine.remove_volume(_machines.volume_name(instance))
        _ssh.forget_key(instance)


def connect_command(container: Container) -> list[str]:
    """
    Choose the command a person would type to connect.

    :param container: A started container.
    :returns: Plain ``ssh ALIAS`` where the user's configuration knows it.
    """
    return _include.client_command(container.ssh_alias)


def connect_hint(container: Container) -> str:
    """
    Say how to connect.

    :param container: A started container.
    :returns: A command line.
    """
    return quote(connect_command(container))
