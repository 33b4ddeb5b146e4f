"""
Which faults an engine can make, and how: found out by making them, in a place that is thrown away.

What a kernel can do is not asked of its configuration, which may not be there
or say what is not so. A container without a network is started, every kind of
fault is made on its loopback interface, and its effect is looked at.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

from redock._engine import Engine
from redock.errors import FaultUnsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Capabilities", "Capability", "capabilities"]

logger = logging.getLogger("redock.cluster")

#: What needs nothing but the engine.
ALWAYS = ("crash", "kill", "pause", "reboot")
#: Seconds the probe may take.
PATIENCE = 60.0


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
        able = self._all.get(name) or Capability(name, "", "there is no such fault")
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
    raise NotImplementedError
