"""
The verbs that break a cluster.
"""

from __future__ import annotations

from redock._parallel import raise_all
from redock.cluster._clock import ClockSkew
from redock.cluster._disk import DiskFull
from redock.cluster._fault import Kill, Pause, cannot, each_of
from redock.cluster._network_faults import NetworkVerbs
from redock.cluster._units import parse_seconds
from redock.errors import EngineError, InvalidArgument, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from redock.cluster._fault import Fault
    from redock.cluster._node import Node
    from redock.cluster._timeline import Timeline

    Some = str | Node | Iterable[str | Node]

__all__ = ["FaultVerbs"]

#: Seconds a clock is wrong by at most: a hundred years.
LARGEST_SKEW = 100 * 365.25 * 86400


class FaultVerbs(NetworkVerbs):
    """The part of :class:`Cluster` that breaks it; each fault is a handle, see :class:`Fault`."""

    timeline: Timeline
    active_faults: list[Fault]

    @property
    def faults(self) -> list[Fault]:
        """The faults that hold, the oldest first."""
        return list(self.active_faults)

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
        try:
            Kill(self._cluster, chosen, text, signal="KILL").begin().heal()
        finally:
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
        try:
            each_of(chosen, self._restart)
            each_of(chosen, lambda node: node.wait_until_up(timeout))
        finally:
            self.timeline.end(event)

    def _restart(self, node: Node) -> None:
        """
        Have a node shut down and booted.

        :param node: The node.
        :raises NoContainerRunning: It has gone.
        """
        node.touched = True
        node.disconnect()
        try:
            self.engine.restart_container(node.container_id, 10)
        except EngineError as error:
            raise cannot(node, "reboot", error) from error

    # Faults of disks and clocks.

    def disk_full(self, nodes: Some, path: str) -> Fault:
        """
        Leave no room on a disk: writing says "No space left on device".

        What is deleted meanwhile makes room, as everywhere.

        :param nodes: A node or its name, or several.
        :param path: Where the disk is mounted: one of ``NodeSpec.disks``.
        :returns: The fault.
        :raises InvalidArgument: A node has no such disk.
        """
        return DiskFull(self._cluster, self.choose(nodes), path).begin()

    def clock_skew(self, nodes: Some, offset: str | float) -> Fault:
        """
        Let the clocks of nodes be wrong, at once and for programs that run.

        That is the wall clock, as the C library tells it. Programs that do not use the C library
        (Go, for instance, or what is linked statically) see the right time, and so does the
        kernel: in the times of files, and in waits until a moment of the wall clock. Several
        such faults add up.

        :param nodes: A node or its name, or several; each with ``clock="fake"``.
        :param offset: ``"+300s"``, ``"-1h"``, ``"2d"``, or a number of seconds.
        :returns: The fault.
        :raises InvalidArgument: That is no duration.
        :raises FaultUnsupported: A node has no clock of its own.
        """
        seconds = parse_seconds(offset, "clock_skew", -LARGEST_SKEW)
        if not 0 < abs(seconds) <= LARGEST_SKEW:
            raise InvalidArgument("clock_skew: the offset is not 0, and at most 100 years")
        return ClockSkew(self._cluster, self.choose(nodes), seconds).begin()

    def heal(self) -> list[Fault]:
        """
        Heal all faults, the youngest first; one that cannot be healed stops none of the others.

        Also those of other processes, and rules in the networks of nodes that no process knows
        any more.

        :returns: The faults that held.
        :raises RedockError: One could not be healed, or something of it is left.
        :raises SeveralFailed: More than one could not.
        """
        failed: dict[str, Exception] = {}
        with self._cluster.locked():
            self._cluster.refresh()
            faults = self.faults[::-1]
            for fault in faults:
                try:
                    fault.heal()
                except RedockError as error:
                    failed[fault.text] = error
        raise_all(failed, f"{len(failed)} faults could not be healed")
        return faults
