"""
Fitting a machine to what it is to be started with.

A new container is made with it; one that exists is changed where the engine
can do that while it runs, and otherwise, when that is asked for, replaced by a
new one with the same disk, identity and port.
"""

from __future__ import annotations

import logging
import os
from typing import cast

from redock import _identity, _keeper, _machines, _recipe, _remembered
from redock._engine import KIND, label, label_changes
from redock._settings import OPTIONS, as_options, configured
from redock.errors import EngineError, InvalidArgument, PortUnavailable, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from redock._machines import Machine
    from redock._options import Options
    from redock.api import Container

__all__ = ["Fitting"]

logger = logging.getLogger(__name__)

#: The label ``io.redock.kind`` of a disk between two containers; it has no name.
MOVING = "moving"
#: Seconds the programs of a machine have to end before it gets a new container.
STOP_PATIENCE = 10
#: What to call the fields of options in a message.
WORDS = {"env": "environment variables", "agent": "agent forwarding", "restart": "restart policy"}


class Fitting:
    """The part of :class:`~redock.api.Container` that fits it to its options."""

    @property
    def _container(self) -> Container:
        """The same, as what it is."""
        return cast("Container", self)

    # Before anything is made.

    def _check_options(self) -> None:
        """
        Make sure that what is asked for exists.

        :raises InvalidArgument: It does not.
        """
        options = self._container.options
        if not options:
            return
        processors = os.cpu_count() or 1
        if options.cpus and float(options.cpus) > processors:
            raise InvalidArgument(f"cpus {options.cpus:g}: this host has {processors}")
        for network in options.networks or ():
            listed = self._container.engine.networks({"name": [network]})
            if all(each["Name"] != network for each in listed):
                raise InvalidArgument(
                    f"there is no network {network}: make it with 'docker network create {network}'"
                )

    def _decide(self, saved: str, trusted: bool = False) -> Options | None:
        """
        Decide what a new container is started with.

        :param saved: The label of the disk it starts from, empty for none.
        :param trusted: The label is known to be this user's (default: find out).
        :returns: What is asked for, above what was saved, above the settings.
        """
        asked = self._container.options
        settings = configured(*OPTIONS)
        if not (asked or saved or settings):
            return None
        from redock._options import Options

        decided = as_options(settings)
        if saved:
            decided = self._take_over(saved, trusted).over(decided)
        if asked:
            decided = asked.over(decided)
        self._check_ports(decided)
        self._warn(decided)
        return decided if decided.differences(Options()) else None

    def _take_over(self, saved: str, trusted: bool) -> Options:
        """
        Take over the options that were saved with a disk.

        What reaches out of the machine holds only for whoever saved it: a label of an image from
        elsewhere must not mount a directory of this host or hand out an agent.

        :param saved: What the label of the disk says, as JSON.
        :param trusted: It is known to be this user's.
        :returns: What holds for the new container, with the values of its environment.
        """
        from redock._options import REACHING, Options

        name = self._container.image.name
        known = _remembered.recall(name)
        options = Options.parse(saved)
        ours = trusted or saved in known.get("saved", ())
        if not ours:
            left_out = options.only(*REACHING)
            options = options.only("memory", "cpus", "user", "env")
            if left_out:
                logger.warning(
                    "%s was not saved by you as %s, so its %s are not taken over: ask for them if"
                    " you want them",
                    "The image", name, in_words(left_out.given()),
                )  # fmt: skip
        if options.env:
            values = known.get("env", {}) if ours else {}
            unknown = [each for each in options.env if each not in values]
            if unknown:
                logger.warning(
                    "The values of %s are not known here: give them with --env", ", ".join(unknown)
                )
            env = {each: values.get(each) for each in options.env}
            options = Options(**{**options.given(), "env": env})
        return options

    def _check_ports(self, wanted: Options, current: Options | None = None) -> None:
        """
        Make sure that ports are free.

        :param wanted: What a new container is to have.
        :param current: What the container has that it takes the place of.
        :raises PortUnavailable: Another program has one.
        """
        ours = current.published if current else ()
        for port in wanted.published:
            if port.outside not in {each.outside for each in ours} and not port.is_free():
                raise port_is_taken(self._container.image.name, port.number)

    def _warn(self, options: Options) -> None:
        """
        Say what somebody may not have thought of.

        :param options: What a new container gets.
        """
        name = self._container.image.name
        for port in options.published:
            if not port.is_local:
                logger.warning(
                    "Port %i of this host, which leads into %s, is open to everybody who can reach"
                    " %s",
                    port.number, name, port.address,
                )  # fmt: skip
        written = [each for each in options.mounts if each.is_bind and not each.read_only]
        if written and os.getuid() and options.account is None:
            logger.warning(
                "What root writes to %s in %s belongs to root on this host as well: with --user you"
                " work there as yourself",
                written[0].target, name,
            )  # fmt: skip

    # A new container.

    def _equip(self, container: str, *, again: bool = False) -> None:
        """
        Give a container that has not been started what is not in its configuration.

        :param container: The engine's id of the container.
        :param again: Its volume is that of another container, whose variables go (default: no).
        :raises EngineError: The engine failed.
        """
        options = self._container.effective
        if not options:
            return
        for network in options.networks or ():
            self._attach(network, container)
        if options.env or again:
            from redock import _preparation

            known = {
                name: value for name, value in (options.env or {}).items() if value is not None
            }
            _remembered.remember(self._container.image.name, env=known)
            files = _machines.archive(_preparation.environment_files(options))
            self._container.engine.put_archive(container, _recipe.IDENTITY_DIRECTORY, files)

    def _attach(self, network: str, container: str) -> None:
        """
        Attach a container to a network, where others find it by its host name.

        :param network: The network.
        :param container: The engine's id of the container.
        """
        hostname = self._container.hostname.partition(".")[0]
        names = list(dict.fromkeys([hostname, self._container.ssh_alias]))
        self._container.engine.connect_network(network, container, names)

    def _explain_port(self, error: BaseException) -> PortUnavailable | None:
        """
        Tell apart a published port that is taken from the port for SSH.

        :param error: Why a container could not start.
        :returns: The error to raise instead, if it was a published one.
        """
        options = self._container.effective
        for port in options.published if options else ():
            if _machines.port_was_taken(error) and f":{port.number}" in str(error):
                return port_is_taken(self._container.image.name, port.number)
        return None

    # A container that exists.

    def _current_options(self, container: str) -> Options:
        """
        Find out what a container was started with, and what was changed since.

        :param container: The engine's id of the container.
        :returns: Its options; variables whose values are not known here have None.
        """
        known = _remembered.recall(self._container.image.name)
        options = _machines.options_of(self._container.engine.inspect_container(container))
        from redock._options import Options

        changes: dict[str, Any] = {}
        if "agent" in known:
            changes["agent"] = known["agent"]
        if options.env:
            changes["env"] = {name: known.get("env", {}).get(name) for name in options.env}
        return Options(**{**options.given(), **changes})

    def _fit(self, machine: Machine, recreate: bool, meanwhile: Callable[[], None]) -> bool:
        """
        Fit a container that exists to what is asked for.

        :param machine: The container.
        :param recreate: Make a new container where that is needed.
        :param meanwhile: Work to do while the engine starts a new one.
        :returns: True when a new container was made and started.
        :raises RedockError: A new one is needed; nothing was changed.
        """
        if not self._container.options:
            return False
        from redock._options import LIVE

        current = self._current_options(machine.id)
        wanted = self._container.options.over(current)
        changed = wanted.differences(current)
        if not changed:
            return False
        # No engine takes back a limit of a container.
        fixed = [
            name
            for name in changed
            if name not in LIVE or (name in ("memory", "cpus") and not getattr(wanted, name))
        ]
        if not fixed:
            self._change(machine, current, wanted, changed)
            return False
        if not recreate:
            raise RedockError(
                f"{machine.name} exists with other {in_words(fixed)}: nothing was changed;"
                f" 'redock start --recreate' gives it a new container with the same disk"
            )
        self._recreate(machine, current, wanted, meanwhile)
        return True

    def _change(
        self, machine: Machine, current: Options, wanted: Options, changed: list[str]
    ) -> None:
        """
        Change a container while it runs.

        :param machine: The container.
        :param current: What it has.
        :param wanted: What it is to have.
        :param changed: The names of the fields that differ.
        """
        engine = self._container.engine
        self._container._remember(machine)
        limits = _machines.limits(wanted.only(*changed))
        if limits:
            engine.update_container(machine.id, limits)
        before, after = set(current.networks or ()), set(wanted.networks or ())
        for network in sorted(after - before):
            self._attach(network, machine.id)
        for network in sorted(before - after):
            engine.disconnect_network(network, machine.id)
        if "agent" in changed:
            _remembered.remember(machine.name, agent=wanted.agent)
        logger.info("Changed the %s of %s", in_words(changed), machine.name)

    def _recreate(
        self, machine: Machine, current: Options, wanted: Options, meanwhile: Callable[[], None]
    ) -> None:
        """
        Give a machine a new container with the same disk, identity and port, and start it.

        At every moment the disk is in a container or, remembered as such, in an image.

        :param machine: The container it has.
        :param current: What that was started with.
        :param wanted: What the new one is to have.
        :param meanwhile: Work to do while the engine starts the new one.
        """
        engine, name = self._container.engine, machine.name
        self._check_ports(wanted, current)
        self._warn(wanted.only(*wanted.differences(current)))
        logger.info("Making a new container for %s", name)
        self._container._remember(machine)
        self._container.public_key = _identity.recall_public_key(engine, machine)
        _keeper.close_connection(machine.instance)
        if machine.state == "paused":
            engine.pause(machine.id, resume=True)
        engine.begin_stop(machine.id, STOP_PATIENCE).result()
        marks = dict.fromkeys((label(each) for each in _machines.BLANKED_LABELS), "")
        changes = [*label_changes({**marks, KIND: MOVING}), f'CMD ["{_recipe.BOOT}"]']
        image = engine.commit(machine.id, "", "", changes=changes)
        moving = {"image": image, "options": wanted.text()}
        _remembered.remember(name, env=wanted.values, moving=moving)
        engine.remove_container(machine.id)
        self._container.effective = wanted
        container = self._container._create_container(image, machine.instance, machine.port)
        session = self._container.session
        session.container_id, session.user, session.agent = container, wanted.login, wanted.agent
        try:
            self._equip(container, again=True)
            self._container.started = True
            self._container._finish_start(engine.begin_start(container), meanwhile)
        except BaseException as error:
            # The disk is remembered: the next start goes on from it.
            engine.remove_container(container)
            raise self._explain_port(error) or error from None
        _remembered.remember(name, moving=None, image=image, agent=None)

    # What is remembered beside the engine.

    def _find_moving(self) -> tuple[str, str] | None:
        """
        Find the disk of a machine that was interrupted between two containers.

        :returns: The id of an image and the label with its options.
        """
        moving = _remembered.recall(self._container.image.name).get("moving", {})
        image = moving.get("image")
        if not image or self._container.engine.inspect_image(str(image)) is None:
            return None
        logger.info("Going on with the disk %s had when it was interrupted", self._container.image)
        return str(image), str(moving.get("options", ""))

    def _settle(self, image: str | None = None) -> None:
        """
        Note that the machine has a container.

        :param image: The disk it was made from, where that has no name (default: any other).
        """
        name = self._container.image.name
        moving = _remembered.recall(name).get("moving")
        if moving and moving.get("image") == image:
            _remembered.remember(name, moving=None, image=image)
        elif moving:
            _remembered.remember(name, moving=None)
            self._drop_image(moving.get("image"))

    def _save_options(self) -> str:
        """
        Write down the options of the running machine, whose disk is about to be saved.

        :returns: The value of the image's label.
        """
        name, container = self._container.image.name, self._container.session.container_id
        assert container
        text = self._current_options(container).text()
        if text:
            saved = _remembered.recall(name).get("saved", [])
            _remembered.remember(name, saved=[*saved, text])
        return text

    def _saved_options(self, image: str) -> Options:
        """
        Find out what a commit of this machine was started with.

        :param image: The id of its image.
        :returns: What holds for a new machine.
        """
        described = self._container.engine.inspect_image(image) or {"Config": {}}
        labels = described["Config"].get("Labels") or {}
        return self._take_over(_machines.saved_options(labels), trusted=False)

    def _hand_on(self, copy: Container, options: Options) -> str:
        """
        Let a copy of the machine be started with the same; ports are one machine's only.

        :param copy: The copy; the caller holds its lock, too.
        :param options: What the machine, or the commit that is copied, was started with.
        :returns: The value of its image's label.
        """
        if options.published:
            name = self._container.image.name
            logger.info("%s does not publish ports: they lead into %s", copy.image.name, name)
        options = options.only("volumes", "user", "env", "memory", "cpus", "networks", "agent")
        text = options.text()
        if text:
            _remembered.remember(copy.image.name, env=options.values, saved=[text])
        return text

    def _forget_options(self) -> bool:
        """
        Forget what belongs to a container that has gone, and all of it if no disk was saved.

        :returns: True when there was a disk between two containers.
        """
        name = self._container.image.name
        known = _remembered.recall(name)
        if not known:
            return False
        if self._container.engine.inspect_image(name) is None:
            _remembered.forget(name)
        else:
            _remembered.remember(name, agent=None, moving=None, image=None)
        for image in (known.get("moving", {}).get("image"), known.get("image")):
            self._drop_image(image)
        return "moving" in known

    def _drop_image(self, image: object) -> None:
        """
        Remove a disk without a name, unless something is built on it.

        :param image: Its id, None for nothing.
        """
        if not image:
            return
        try:
            self._container.engine.remove_image(str(image))
        except EngineError as error:
            # The engine removes it with the last image that needs it.
            logger.debug("%s", error)


def port_is_taken(name: str, number: int) -> PortUnavailable:
    """
    Say that a port cannot be published.

    :param name: The machine.
    :param number: The port.
    :returns: The error to raise.
    """
    return PortUnavailable(
        f"port {number}, which {name} is to publish, is taken by another program: end that"
        " program or choose another port with --publish"
    )


def in_words(fields: dict[str, Any] | list[str]) -> str:
    """
    Enumerate fields of options.

    :param fields: Their names.
    :returns: For instance ``ports and volumes``.
    """
    words = [WORDS.get(each, each) for each in fields]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
