"""
The verbs that break a cluster.
"""

from __future__ import annotations

from typing import cast

from redock.cluster._fault import Kill, Pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from redock._engine import Engine
    from redock.cluster._cluster import Cluster
    from redock.cluster._fault import Fault
    from redock.cluster._node import Node, NodeSet
    from redock.cluster._timeline import Timeline

    Some = str | Node | Iterable[str | Node]

__all__ = ["FaultVerbs"]


class FaultVerbs:
    """The part of :class:`Cluster` that breaks it; each fault is a handle, see :class:`Fault`."""

    engine: Engine
    timeline: Timeline
    nodes: NodeSet
    active_faults: list[Fault]

    @property
    def _cluster(self) -> Cluster:
        """The same, as what it is."""
        return cast("Cluster", self)

    @property
    def faults(self) -> list[Fault]:
        """The faults that hold, the oldest first."""
        return list(self.active_faults)

    def choose(self, some: Some) -> list[Node]:
        """
        Turn the usual ways to say it into nodes.

        :param some: A node or its name, or several.
        :returns: The nodes, each once.
        :raises NotFound: There is no such node.
        """
        listed = [some] if isinstance(some, str) or not hasattr(some, "__iter__") else list(some)
        names = [each if isinstance(each, str) else each.name for each in listed]
        return [self.nodes[name] for name in dict.fromkeys(names)]

    def pause(self, nodes: Some) -> Fault:
        """
        Freeze all processes of nodes; the kernel goes on to answer for them.

        :param nodes: A node or its name, or several.
        :returns: The fault.
        """
        chosen = self.choose(nodes)
        return Pause(self._cluster, chosen, f"pause {', '.join(n.name for n in chosen)}").begin()

    def kill(self, nodes: Some, signal: str = "KILL") -> Fault:
        """
        Take the power of nodes away.

        :param nodes: A node or its name, or several.
        :param signal: What the first process of each gets (default: KILL).
        :returns: The fault; healing it boots the nodes with the disks they had.
        """
        chosen = self.choose(nodes)
        text = f"kill {', '.join(n.name for n in chosen)}"
        return Kill(self._cluster, chosen, text, signal=signal).begin()

    def crash(self, nodes: Some) -> None:
        """
        Take the power of nodes away and boot them again with the disks they had.

        :param nodes: A node or its name, or several.
        """
        chosen = self.choose(nodes)
        text = f"crash {', '.join(n.name for n in chosen)}"
        event = self.timeline.begin("crash", text, [node.name for node in chosen])
        Kill(self._cluster, chosen, text, signal="KILL").begin().heal()
        self.timeline.end(event)

    def reboot(self, nodes: Some, timeout: float = 60.0) -> None:
        """
        Shut nodes down in order and boot them again.

        :param nodes: A node or its name, or several.
        :param timeout: Seconds for all of it (default: 60).
        """
        chosen = self.choose(nodes)
        event = self.timeline.begin(
            "reboot", f"reboot {', '.join(n.name for n in chosen)}", [n.name for n in chosen]
        )
        for node in chosen:
            node.touched = True
            node.disconnect()
            self.engine.restart_container(node.container_id, 10)
        for node in chosen:
            node.wait_until_up(timeout)
        self.timeline.end(event)

    def heal(self) -> None:
        """
        Heal all faults, the youngest first.

        :raises RedockError: One could not be healed, or something of it is left.
        """
        for fault in reversed(self.faults):
            fault.heal()
