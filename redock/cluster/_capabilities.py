"""
Which faults an engine can make, and how: found out by making them, in a place that is thrown away.

What a kernel can do is not asked of its configuration, which may not be there
or say what is not so. A container without a network is started, every kind of
fault is made on its loopback interface, and its effect is looked at.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping

from redock import _recipe
from redock._engine import KIND, Engine
from redock._files import Lock, atomic_write, path_in_home, read_bytes
from redock._process import Deadline
from redock.cluster import _probe
from redock.cluster._effect import Effect
from redock.cluster._probe import NO_EFFECT
from redock.cluster._shaping import write_tree
from redock.cluster._shell import Program, text_of
from redock.errors import EngineError, FaultUnsupported, last_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Capabilities", "Capability", "capabilities"]

logger = logging.getLogger("redock.cluster")

#: What needs nothing but the engine.
ALWAYS = ("crash", "kill", "reboot")
#: Seconds the probe may take.
PATIENCE = 60.0

#: What was found in this process, by the address of the engine.
remembered: dict[str, Capabilities] = {}


@dataclasses.dataclass(frozen=True)
class Capability:
    """
    Whether a kind of fault can be made; true when it can.

    :param name: The name of the verb of :class:`Cluster`.
    :param backend: What makes it: ``engine``, ``nftables``, ``htb``, ``netem``, ``nfqueue``,
                    ``tmpfs`` or ``preload``; empty when it cannot be made.
    :param reason: Why it cannot be made.
    """

    name: str
    backend: str = ""
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.backend)

    def __str__(self) -> str:
        return self.backend or f"no: {self.reason}"


class Capabilities(Mapping[str, Capability]):
    """
    Which faults an engine can make: a :class:`Capability` by the name of each verb.

    As text it is a table, for the log of a test run.

    :param found: Backend and reason by name.
    """

    def __init__(self, found: Mapping[str, tuple[str, str]]) -> None:
        self._all = {name: Capability(name, *found[name]) for name in sorted(found)}

    def __getitem__(self, name: str) -> Capability:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __str__(self) -> str:
        width = max(map(len, self._all), default=0)
        return "\n".join(f"{name:{width}}  {able}" for name, able in self._all.items())

    def require(self, name: str) -> str:
        """
        Make sure a kind of fault can be made.

        :param name: The name of the verb.
        :returns: What makes it.
        :raises FaultUnsupported: It cannot be made; says why.
        """
        able = self._all.get(name, Capability(name, "", "there is no such fault"))
        if not able:
            raise FaultUnsupported(f"{name} cannot be made with this engine: {able.reason}")
        return able.backend


def capabilities(engine: Engine | None = None, image: str | None = None) -> Capabilities:
    """
    Find out which faults an engine can make.

    That takes a second, once: what was found is kept for the engine and its kernel.

    :param engine: The engine (default: as for :class:`redock.api.Container`).
    :param image: The id of an image with the tools for faults (default: the base image, which is
                  made when it is missing).
    :returns: What it can make.
    :raises RedockError: The engine does not answer, or there is no base image to be had.
    """
    engine = engine or Engine()
    url = engine.endpoint.url
    if url not in remembered:
        number = f"{engine.info()['ID']} {engine.version()['KernelVersion']} {fingerprint()}"
        path = path_in_home("capabilities.json")
        with Lock(path_in_home("locks", ".capabilities.lock"), "what engines can", PATIENCE * 3):
            kept = read_kept(path)
            found: Any = kept.get(number)
            if not is_result(found):
                found = probe(engine, image)
                # What was refused will be refused again; what had no effect may have been late.
                if not any(NO_EFFECT in reason for _, reason in found.values()):
                    kept[number] = found
                    atomic_write(path, json.dumps(kept, indent=2).encode())
        remembered[url] = Capabilities({name: tuple(each) for name, each in found.items()})
    return remembered[url]


def fingerprint() -> str:
    """
    Get the hash of how capabilities are found out.

    :returns: Twelve hexadecimal digits.
    """
    text = repr((text_of("_probe"), data_for_probe(), _recipe.fingerprint(), ALWAYS))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def data_for_probe() -> dict[str, str]:
    """
    Get what the probe is to try: what faults consist of, on the loopback interface.

    :returns: What :mod:`redock.cluster._probe` takes.
    """
    rate, delay = Effect(rate=1_000_000), Effect(delay=_probe.DELAY)
    return {
        "delayer": text_of("_delayer"),
        "bandwidth": "\n".join(write_tree({"127.0.0.3": rate}, "lo")[0]) + "\n",
        "netem": "\n".join(write_tree({"127.0.0.3": delay}, "lo")[0]) + "\n",
        "disk": "/redock-disk",
    }


def read_kept(path: str) -> dict[str, Any]:
    """
    Read what was found out before.

    :param path: The pathname of the file.
    :returns: What it has; nothing when it makes no sense.
    """
    try:
        kept = json.loads(read_bytes(path) or b"{}")
    except ValueError:
        return {}
    return kept if isinstance(kept, dict) else {}


def is_result(found: object) -> bool:
    """
    Check whether something is what a probe found.

    :param found: What was kept.
    :returns: True when it is.
    """
    return isinstance(found, dict) and all(
        isinstance(each, list) and len(each) == 2 and all(isinstance(word, str) for word in each)
        for each in found.values()
    )


def probe(engine: Engine, image: str | None) -> dict[str, Any]:
    """
    Find out what an engine can make.

    :param engine: The engine.
    :param image: The id of an image with the tools for faults, None for the base image.
    :returns: Backend and reason by name.
    :raises EngineError: The probe could not be run.
    """
    if image is None:
        from redock.base import find_base_image

        image = find_base_image(engine)
    data = data_for_probe()
    logger.info("Finding out which faults the engine can make (once)")
    container = engine.create_container(
        f"redock-probe-{os.urandom(4).hex()}", configuration(image, data["disk"])
    )
    try:
        engine.begin_start(container).result()
        found = run_probe(engine, container, data)
        found["pause"] = probe_pause(engine, container)
    finally:
        engine.remove_container(container)
    return {**found, **{name: ["engine", ""] for name in ALWAYS}}


def configuration(image: str, disk: str) -> dict[str, Any]:
    """
    Describe the container everything is tried in.

    :param image: The id of its image.
    :param disk: Where it is to have a disk in memory.
    :returns: The body of the API's request.
    """
    volume = {"type": "tmpfs", "device": "tmpfs", "o": "size=1048576,mode=0755"}
    return {
        "Image": image,
        "Entrypoint": [],
        # It ends, and is removed, even when this process cannot see to that.
        "Cmd": ["sleep", f"{PATIENCE:g}"],
        "User": "root",
        "Labels": {KIND: "probe"},
        "HostConfig": {
            "AutoRemove": True,
            "NetworkMode": "none",
            "CapAdd": ["NET_ADMIN"],
            "Mounts": [
                {
                    "Type": "volume",
                    "Target": disk,
                    "VolumeOptions": {
                        "NoCopy": True,
                        "DriverConfig": {"Name": "local", "Options": volume},
                    },
                }
            ],
        },
    }


def run_probe(engine: Engine, container: str, data: dict[str, str]) -> dict[str, Any]:
    """
    Try everything that is tried inside.

    :param engine: The engine.
    :param container: The id of the container.
    :param data: What the probe is to try.
    :returns: Backend and reason by name.
    :raises EngineError: It did not get to an end.
    """
    command = ["python3", "-I", "-c", text_of("_probe"), json.dumps(data)]
    program = Program(engine, container, command)
    deadline, output = Deadline(PATIENCE), b""
    try:
        program.open()
        while True:
            output += program.read(deadline)
    except EOFError:
        pass
    finally:
        program.close()
    try:
        return dict(json.loads(output.strip().rpartition(b"\n")[2]))
    except ValueError as error:
        words = last_lines(output.decode("utf-8", "replace"), 1)
        raise EngineError(f"what the engine can make could not be tried: {words}") from error


def probe_pause(engine: Engine, container: str) -> list[str]:
    """
    Find out whether containers can be frozen.

    :param engine: The engine.
    :param container: The id of a container.
    :returns: Backend and reason.
    """
    try:
        engine.pause(container)
        engine.pause(container, resume=True)
    except EngineError as error:
        return ["", str(error)]
    return ["engine", ""]
