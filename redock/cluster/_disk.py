"""
Disks that are full.

The disks of a node are in memory, of limited size, and its owner has them as
well: there a file is made that takes all the room there is. It is charged to
the owner, so the memory of the node is not less for it, and it stays when the
node has no power.
"""

from __future__ import annotations

import os

from redock._names import shown
from redock._parallel import call_all
from redock._result import quote
from redock.cluster._fault import Fault
from redock.cluster._netfault import in_owner
from redock.cluster._shell import Shell
from redock.errors import EngineError, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["BALLAST", "DiskFull", "find_disk"]

#: What the names of the files begin with that take the room; they are not part of a snapshot.
BALLAST = ".redock-ballast-"

#: Takes all the room there is. Programs that write meanwhile may be faster, or make room.
FILL = r"""
fill() {
    for attempt in 1 2 3 4 5; do
        free=$(($(stat -f -c '%a*%S' "$1")))
        [ "$free" -gt 0 ] || return 0
        size=$(stat -c %s "$2" 2>/dev/null || echo 0)
        fallocate -o "$size" -l "$free" "$2" 2>/dev/null
    done
    [ "$(stat -f -c %a "$1")" = 0 ] || { echo "$1 did not become full"; return 1; }
}
"""


class DiskFull(Fault):
    """
    There is no room on a disk of some nodes.

    :param cluster: The cluster.
    :param nodes: The nodes.
    :param path: Where the disk is mounted.
    """

    kind = "disk_full"
    outlives_restore = True
    outlives_process = True
    noted = ("path", "mark")
    in_network = False

    def __init__(self, cluster: Cluster, nodes: Iterable[Node], path: str) -> None:
        chosen = list(nodes)
        for node in chosen:
            find_disk(node, path)
        text = f"disk full {path} on {','.join(node.name for node in chosen)}"
        super().__init__(cluster, chosen, text, path=path)
        self.path = path
        self.mark = os.urandom(4).hex()

    @property
    def ballast(self) -> str:
        """The pathname of the file that takes the room."""
        return f"{self.path}/{BALLAST}{self.mark}"

    def make(self) -> None:
        """Take all the room there is."""
        words = quote(["fill", self.path, self.ballast])
        # A file of ours even where there was no room: the one to fill when another one goes.
        script = f"{FILL}\n: >{quote([self.ballast])} 2>/dev/null\n{words}"
        call_all(
            {node.name: node for node in self.targets()},
            lambda node: in_owner(node, script, f"fill the disk {self.path} of node {node.name}"),
        )

    def unmake(self) -> None:
        """Give the room back, unless another fault takes it."""
        call_all({node.name: node for node in self.targets()}, self.empty)

    def empty(self, node: Node) -> None:
        """
        Take our file away from one node.

        :param node: The node.
        """
        script = f"rm -f {quote([self.ballast])} && [ ! -e {quote([self.ballast])} ]"
        for other in self.cluster.active_faults:
            same = isinstance(other, DiskFull) and other.path == self.path
            if same and other is not self and node.name in other.nodes:
                assert isinstance(other, DiskFull)
                script = f"{FILL}\n{script} && {quote(['fill', other.path, other.ballast])}"
                break
        what = f"empty the disk {self.path} of node {node.name}"
        try:
            in_owner(node, script, what)
        except NotFound:
            # The owner has gone; where the system has not, the disk is still there.
            shell = Shell(node.engine, node.container_id)
            try:
                shell.check(script, what)
            except EngineError:
                return
            finally:
                shell.close()


def find_disk(node: Node, path: str) -> int:
    """
    Find a disk of a node.

    :param node: The node.
    :param path: Where it is mounted.
    :returns: Its size in bytes.
    :raises InvalidArgument: It has no such disk; the message says which there are.
    """
    disks = node.spec.disks
    if path in disks:
        return int(disks[path])
    there = f"its disks are {', '.join(disks)}" if disks else "it has none"
    raise InvalidArgument(
        f"disk_full: node {node.name} has no disk at {shown(path)} ({there}):"
        f" declare one with NodeSpec({node.name!r}, disks={{{path!r}: '64m'}})"
    )
