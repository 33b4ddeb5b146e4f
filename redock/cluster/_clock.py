"""
Clocks that are wrong.

There is one wall clock for all containers of a host, and setting it would be
felt by everybody. So nodes that ask for it (``clock="fake"``) get a small library
in front of the C library, for all their programs, that adds an offset to what the
kernel says; other clocks, such as the one for timeouts, are not touched. The
offset is in a file on a volume that the owner of a node may write and the node
may only read: every process has it mapped, and sees a change at once. Because it
is on a volume it stays when the node has no power; a restore heals it.

Whether that has worked is seen by writing files: what time it is for them is
always said by the kernel.
"""

from __future__ import annotations

import os

from redock._files import read_bytes
from redock._parallel import call_all
from redock.cluster._fault import Fault
from redock.cluster._netfault import in_owner
from redock.cluster._shell import Shell
from redock.cluster._units import say_seconds
from redock.errors import EngineError, FaultUnsupported, NotFound, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from redock.bootstrap import Bootstrap
    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["COMPILE", "DIRECTORY", "ClockSkew", "compile_library", "install_library", "settle"]

#: Where the volume with the offset is mounted.
DIRECTORY = "/etc/redock/clock"
OFFSET = f"{DIRECTORY}/offset"
LIBRARY = "/usr/lib/redock/clock.so"
#: How the library is made from its source, and what that needs.
COMPILE = (
    *("gcc", "-shared", "-fPIC", "-O2", "-Wall"),
    f'-DREDOCK_CLOCK="{OFFSET}"',
    *("-o", "clock.so", "clock.c"),
)
COMPILER = ("gcc", "libc6-dev")
#: The kernel counts the times of files in ticks, of at most ten milliseconds.
TICK = 0.02

#: Asks for the time between two files; see stat(1).
READ = """\
place=$(mktemp -d /dev/shm/redock-XXXXXX) || exit
: >$place/before && now=$(date +%s.%N) && : >$place/after &&
    echo $(stat -c %.9Y $place/before) $now $(stat -c %.9Y $place/after)
status=$?
rm -rf $place
exit $status"""


def source() -> bytes:
    """
    Get the source of the library.

    :returns: C.
    """
    contents = read_bytes(os.path.join(os.path.dirname(__file__), "clock.c"))
    assert contents is not None
    return contents


def compile_library(host: Bootstrap) -> bytes:
    """
    Make the library.

    :param host: A machine of its own, which is thrown away.
    :returns: The library.
    """
    host.packages(*COMPILER)
    host.file("/root/clock.c", source())
    host.command("sh", "-c", 'cd /root && exec "$@"', "sh", *COMPILE)
    library = host.read_file("/root/clock.so")
    assert library
    return library


def install_library(host: Bootstrap, library: bytes) -> None:
    """
    Put the library in front of the C library, for all programs.

    :param host: The machine whose disk nodes are to have.
    :param library: The library.
    """
    host.directory(DIRECTORY)
    host.file(OFFSET, bytes(8), mode=0o644)
    host.file(LIBRARY, library, mode=0o644)
    host.file("/etc/ld.so.preload", f"{LIBRARY}\n", mode=0o644)


class ClockSkew(Fault):
    """
    The clocks of some nodes are wrong.

    :param cluster: The cluster.
    :param nodes: The nodes.
    :param offset: By how many seconds; several faults add up.
    :raises FaultUnsupported: A node has no clock of its own.
    """

    kind = "clock_skew"
    outlives_restore = True
    outlives_process = True
    noted = ("offset",)
    in_network = False

    def __init__(self, cluster: Cluster, nodes: Iterable[Node], offset: float) -> None:
        chosen = list(nodes)
        for node in chosen:
            if node.spec.clock != "fake":
                raise FaultUnsupported(
                    f"clock_skew: node {node.name} has the clock of the host: give it one of its"
                    f" own with NodeSpec({node.name!r}, clock='fake')"
                )
        sign = "+" if offset >= 0 else ""
        text = f"clock {sign}{say_seconds(offset)} {','.join(node.name for node in chosen)}"
        super().__init__(cluster, chosen, text, offset=offset)
        self.offset = offset

    def make(self) -> None:
        """Add it to what the clocks are wrong by."""

        def add(node: Node) -> None:
            total = round(offset_of(node, self) + self.offset, 9)
            set_offset(node, total, f"set the clock of node {node.name}")

        call_all({node.name: node for node in self.targets()}, add)

    def unmake(self) -> None:
        """Leave the others."""

        def leave(node: Node) -> None:
            try:
                set_offset(node, offset_of(node, self), f"heal the clock of node {node.name}")
            except NotFound:
                # Its owner has gone; the next one sets it right, see settle().
                return

        call_all({node.name: node for node in self.targets()}, leave)


def offset_of(node: Node, leaving: Fault | None = None) -> float:
    """
    Add up what the clock of a node is to be wrong by.

    :param node: The node.
    :param leaving: A fault that does not count (default: none).
    :returns: Seconds.
    """
    return round(
        sum(
            fault.offset
            for fault in node.cluster.active_faults
            if isinstance(fault, ClockSkew) and fault is not leaving and node.name in fault.nodes
        ),
        9,
    )


def settle(node: Node) -> None:
    """
    Set the clock of a node to what it is to be, after its owner was made again.

    :param node: The node.
    """
    if node.spec.clock == "fake":
        write_offset(node, offset_of(node), f"set the clock of node {node.name}")


def set_offset(node: Node, offset: float, what: str) -> None:
    """
    Set the clock of a node, and look whether that has worked.

    :param node: The node.
    :param offset: Seconds it is to be wrong by.
    :param what: What it is for, to complete "could not ...".
    :raises NotFound: The owner of the node has gone.
    :raises RedockError: The clock inside is not what it should be.
    """
    write_offset(node, offset, what)
    before, now, after = read_clock(node, what)
    if not before - TICK <= now - offset <= after + TICK:
        raise RedockError(
            f"could not {what}: the clock inside is wrong by {now - after:+.3f} seconds,"
            f" not by {offset:+g}"
        )


def write_offset(node: Node, offset: float, what: str) -> None:
    """
    Write the offset, in place: processes have this very file mapped.

    :param node: The node.
    :param offset: Seconds.
    :param what: What it is for, to complete "could not ...".
    """
    number = round(offset * 1e9).to_bytes(8, "little", signed=True)
    octal = "".join(f"\\{byte:03o}" for byte in number)
    in_owner(node, f"printf '{octal}' | dd of={OFFSET} conv=notrunc bs=8 status=none", what)


def read_clock(node: Node, what: str) -> tuple[float, float, float]:
    """
    Read the clock of a node.

    :param node: The node; one that has no power or is frozen is not asked, but its owner, which
                 has the same disk and the same clock.
    :param what: What it is for, to complete "could not ...".
    :returns: The time of the kernel before, the time inside, the time of the kernel after.
    """
    shell = Shell(node.engine, node.container_id)
    try:
        words = shell.check(READ, what)
    except EngineError:
        words = in_owner(node, READ, what)
    finally:
        shell.close()
    before, now, after = map(float, words.split())
    return before, now, after
