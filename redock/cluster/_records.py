"""
What other processes did to a cluster, written where it was done.

The owner of a node has what outlives the processes that use a cluster: the
rules of its network, a file that says which container is the node now, and one
for each fault made on purpose that says in words what it is. The engine has
the rest: which containers run, and which are frozen. What is not true any more
(rules that were flushed, a node that somebody booted) is known by looking.

The files about faults are in memory: they go when the owner ends, as rules do.
"""

from __future__ import annotations

import json
import logging

from redock._parallel import call_all
from redock.errors import RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from redock.cluster._fault import Fault
    from redock.cluster._node import Node

__all__ = [
    "FAULTS",
    "TABLE",
    "Sight",
    "erase",
    "erasing",
    "look",
    "note",
    "noting",
    "noting_system",
]

logger = logging.getLogger("redock.cluster")

#: What the names of our tables of nftables begin with; no other program's do.
TABLE = "redock_"
#: Where an owner keeps the records of faults: in memory.
FAULTS = "/run/redock"
#: Where an owner keeps the id of the container that is the node now: on its disk.
SYSTEM = "/var/lib/redock/system"

LOOK = f"""\
cat {SYSTEM} 2>/dev/null
echo
nft list tables 2>/dev/null
cat {FAULTS}/*.json 2>/dev/null
"""


class Sight:
    """
    What was seen of a cluster.

    :param states: What state the nodes are in, by name.
    """

    def __init__(self, states: Mapping[str, str]) -> None:
        self.states = dict(states)
        #: Our tables in the networks of the nodes, by the name of the node; only where they could
        #: be seen.
        self.tables: dict[str, set[str]] = {}
        #: The containers that are the nodes, by name, where that is noted.
        self.systems: dict[str, str] = {}
        #: The records of faults, by their ids.
        self.records: dict[str, dict[str, Any]] = {}

    def add(self, node: str, text: str) -> None:
        """
        Read what an owner says.

        :param node: The name of the node.
        :param text: What :data:`LOOK` printed.
        """
        system, _, rest = text.partition("\n")
        if system.strip():
            self.systems[node] = system.strip()
        tables = self.tables.setdefault(node, set())
        for line in rest.splitlines():
            words = line.split()
            if line.startswith("{"):
                self.add_record(node, line)
            elif len(words) == 3 and words[0] == "table" and words[2].startswith(TABLE):
                tables.add(words[2])

    def add_record(self, node: str, line: str) -> None:
        """
        Read the record of a fault.

        :param node: The name of the node whose owner has it.
        :param line: The record, JSON.
        """
        try:
            record = json.loads(line)
            number = str(record["id"])
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("Node %s: a record of a fault makes no sense: %s", node, error)
            return
        self.records.setdefault(number, record)

    def saw(self, nodes: Iterable[str]) -> bool:
        """
        Check whether owners could be seen.

        :param nodes: The names of the nodes.
        :returns: True when all of them could.
        """
        return all(node in self.tables for node in nodes)


def look(nodes: Iterable[Node], states: Mapping[str, str]) -> Sight:
    """
    Look at the owners of nodes, side by side.

    :param nodes: Nodes whose owners run.
    :param states: What state all nodes are in, by name.
    :returns: What was seen.
    """
    sight = Sight(states)

    def read(node: Node) -> str | None:
        try:
            return node.shell.check(LOOK + "true", f"look at node {node.name}")
        except RedockError as error:
            # Its owner ends at this moment: what was made in it ends as well.
            logger.debug("%s", error)
            return None

    for name, text in call_all({node.name: node for node in nodes}, read).items():
        if text is not None:
            sight.add(name, text)
    return sight


def noting(fault: Fault) -> str:
    """
    Write a script that notes a fault in an owner.

    :param fault: The fault.
    :returns: Text for ``sh``.
    """
    # One line of ASCII: nothing in it ends the document.
    text = json.dumps(fault.record(), ensure_ascii=True)
    path = f"{FAULTS}/{fault.id}.json"
    return (
        f"mkdir -p {FAULTS} && cat >{path}.new <<'RECORD' && mv {path}.new {path}\n{text}\nRECORD\n"
    )


def erasing(fault: Fault) -> str:
    """
    Write a script that forgets a fault in an owner.

    :param fault: The fault.
    :returns: Text for ``sh``.
    """
    return f"rm -f {FAULTS}/{fault.id}.json\n"


def noting_system(container: str) -> str:
    """
    Write a script that notes which container is a node now, booted without any fault.

    :param container: The id of the container.
    :returns: Text for ``sh``.
    """
    directory = SYSTEM.rpartition("/")[0]
    return (
        f"mkdir -p {directory} && echo {container} >{SYSTEM}.new && mv {SYSTEM}.new {SYSTEM};"
        f" rm -f {FAULTS}/*.json"
    )


def note(fault: Fault) -> None:
    """
    Note a fault in the owners of its nodes.

    :param fault: The fault; it has been made.
    :raises RedockError: An owner has gone.
    """
    script = noting(fault)
    call_all(
        {node.name: node for node in fault.places()},
        lambda node: node.shell.check(script, f"note what is broken in node {node.name}"),
    )


def erase(fault: Fault) -> None:
    """
    Forget a fault in the owners of its nodes.

    :param fault: The fault.
    """
    script = erasing(fault)

    def forget(node: Node) -> None:
        try:
            node.shell.check(script, f"forget what was broken in node {node.name}")
        except RedockError as error:
            # With the owner goes the record.
            logger.debug("%s", error)

    call_all({node.name: node for node in fault.places()}, forget)
