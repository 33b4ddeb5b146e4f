"""
Ways to break a cluster at random, and again in the same way: shapes of partitions, and schedules.

Both are functions of a seed and nothing else. A schedule is a list of plain
records, which JSON can express: whoever finds a mistake with one can keep it,
shorten it, and perform it again.
"""

from __future__ import annotations

import difflib
import inspect
import random

from redock._names import shown
from redock.cluster._faults import FaultVerbs
from redock.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    from redock.cluster._spec import NodeSpec

    Chance = random.Random | int | str
    #: For each node the nodes it does not hear.
    Unheard = dict[str, list[str]]
    Record = dict[str, Any]

__all__ = [
    "HEAL",
    "bridge",
    "check_schedule",
    "halves",
    "majorities_ring",
    "make_schedule",
    "random_node",
    "split_one",
    "spread",
]

#: What can stand in a schedule: verbs of :class:`~redock.cluster.Cluster`, with what they are given
#: when nothing else is said.
ACTIONS: dict[str, dict[str, Any]] = {
    "bandwidth": {"rate": "1mbit"},
    "clock_skew": {},
    "corrupt": {"percent": 5},
    "crash": {},
    "disk_full": {},
    "drop": {},
    "duplicate": {"percent": 20},
    "isolate": {},
    "kill": {},
    "latency": {"delay": "100ms", "jitter": "20ms"},
    "loss": {"percent": 20},
    "partition": {},
    "pause": {},
    "reboot": {},
    "reorder": {"percent": 20},
}
#: The action that ends everything the nemesis has made.
HEAL = "heal"


# Shapes of partitions.


def dice(chance: Chance) -> random.Random:
    """
    Get a source of random numbers that gives the same ones again.

    :param chance: A seed, or a source that is used already.
    :returns: The source.
    """
    return chance if isinstance(chance, random.Random) else random.Random(chance)  # noqa: S311


def apart(*groups: Sequence[str]) -> Unheard:
    """
    Cut groups off from each other.

    :param groups: The groups.
    :returns: For each node the nodes it does not hear.
    """
    return {
        name: sorted(other for others in groups if others is not group for other in others)
        for group in groups
        for name in group
    }


def check_names(nodes: Iterable[str], least: int, shape: str) -> list[str]:
    """
    Make sure there are enough nodes for a shape.

    :param nodes: The names of the nodes.
    :param least: How many it needs.
    :param shape: The shape, for the message.
    :returns: The names in an order that depends on nothing else.
    :raises InvalidArgument: There are too few.
    """
    names = sorted(set(nodes))
    if len(names) < least:
        raise InvalidArgument(f"{shape}: {least} nodes are needed, there are {len(names)}")
    return names


def split_one(nodes: Iterable[str], loner: str) -> Unheard:
    """
    Cut one node off from all others.

    :param nodes: The names of all nodes.
    :param loner: The name of the one.
    :returns: For each node the nodes it does not hear, for :meth:`Cluster.partition`.
    :raises InvalidArgument: It is not one of them, or the only one.
    """
    names = check_names(nodes, 2, "split_one")
    if loner not in names:
        raise InvalidArgument(f"split_one: {shown(loner)} is not one of {', '.join(names)}")
    return apart([loner], [name for name in names if name != loner])


def random_node(nodes: Iterable[str], chance: Chance) -> Unheard:
    """
    Cut a random node off from all others.

    :param nodes: The names of all nodes.
    :param chance: A seed, or a :class:`random.Random`.
    :returns: For each node the nodes it does not hear, for :meth:`Cluster.partition`.
    :raises InvalidArgument: There are less than two nodes.
    """
    names = check_names(nodes, 2, "random_node")
    return split_one(names, dice(chance).choice(names))


def halves(nodes: Iterable[str], chance: Chance) -> Unheard:
    """
    Cut the nodes into two halves; with an odd number one has one node more.

    :param nodes: The names of all nodes.
    :param chance: A seed, or a :class:`random.Random`.
    :returns: For each node the nodes it does not hear, for :meth:`Cluster.partition`.
    :raises InvalidArgument: There are less than two nodes.
    """
    names = check_names(nodes, 2, "halves")
    dice(chance).shuffle(names)
    middle = len(names) // 2
    return apart(names[:middle], names[middle:])


def bridge(nodes: Iterable[str], chance: Chance) -> Unheard:
    """
    Cut the nodes into two halves that do not hear each other, and one node that hears both.

    :param nodes: The names of all nodes.
    :param chance: A seed, or a :class:`random.Random`.
    :returns: For each node the nodes it does not hear, for :meth:`Cluster.partition`.
    :raises InvalidArgument: There are less than three nodes.
    """
    names = check_names(nodes, 3, "bridge")
    dice(chance).shuffle(names)
    between, rest = names[0], names[1:]
    middle = len(rest) // 2
    return {between: [], **apart(rest[:middle], rest[middle:])}


def majorities_ring(nodes: Iterable[str], chance: Chance) -> Unheard:
    """
    Let every node hear a majority (itself included), and no two the same one.

    The nodes stand in a ring, and each hears its neighbours. With an even
    majority (three nodes, for instance) one is heard that does not hear back.

    :param nodes: The names of all nodes.
    :param chance: A seed, or a :class:`random.Random`.
    :returns: For each node the nodes it does not hear, for :meth:`Cluster.partition`.
    :raises InvalidArgument: There are less than three nodes.
    """
    names = check_names(nodes, 3, "majorities_ring")
    dice(chance).shuffle(names)
    count = len(names)
    majority = count // 2 + 1
    unheard = {}
    for start in range(count):
        heard = [names[(start + step) % count] for step in range(majority)]
        unheard[heard[majority // 2]] = sorted(set(names) - set(heard))
    return unheard


#: The shapes a nemesis chooses from, and how many nodes each needs.
SHAPES: dict[str, tuple[int, Callable[[Iterable[str], Chance], Unheard]]] = {
    "bridge": (3, bridge),
    "halves": (2, halves),
    "majorities_ring": (3, majorities_ring),
    "random_node": (2, random_node),
}


# Schedules.


def make_schedule(
    nodes: Sequence[NodeSpec],
    faults: Mapping[str, Mapping[str, Any]],
    seed: int | str,
    interval: float = 5.0,
    duration: float = 300.0,
) -> list[Record]:
    """
    Make up a schedule: a fault, its end, another one, and so on; it ends with all healed.

    :param nodes: What the nodes are to be.
    :param faults: What can happen: names of verbs, with arguments that are to be fixed.
    :param seed: The same one makes the same schedule.
    :param interval: Seconds between two steps; they vary by half of it (default: 5).
    :param duration: Seconds until its end (default: 300).
    :returns: Records with ``offset`` (seconds from the start), ``action`` and ``arguments``.
    :raises InvalidArgument: There is no such fault, or not with such arguments or nodes.
    """
    if not interval > 0 or not duration > 0:
        raise InvalidArgument("nemesis: interval and duration are seconds above 0")
    if not faults:
        raise InvalidArgument("nemesis: give at least one fault")
    for action in faults:
        check_action(action)
    chance = dice(seed)
    schedule: list[Record] = []
    offset = 0.0
    while True:
        record: Record = {"action": HEAL, "arguments": {}}
        if len(schedule) % 2 == 0:
            action = chance.choice(sorted(faults))
            record = {
                "action": action,
                "arguments": choose_arguments(action, nodes, faults[action], chance),
            }
        offset += interval * chance.uniform(0.5, 1.5)
        if offset >= duration:
            break
        schedule.append({"offset": round(offset, 3), **record})
    if len(schedule) % 2:
        schedule.append({"offset": round(duration, 3), "action": HEAL, "arguments": {}})
    return check_schedule(schedule)


def choose_arguments(
    action: str, nodes: Sequence[NodeSpec], fixed: Mapping[str, Any], chance: random.Random
) -> dict[str, Any]:
    """
    Choose what a verb is given: less than half of the nodes, or the shape of a partition.

    :param action: The name of the verb.
    :param nodes: What the nodes are to be.
    :param fixed: Arguments that are not to be chosen; for ``partition`` also ``shape``.
    :param chance: Where random numbers come from.
    :returns: Its arguments, plain values.
    :raises InvalidArgument: No node can have such a fault.
    """
    arguments = {**ACTIONS[action], **fixed}
    names = sorted(spec.name for spec in nodes if can_have(spec, action, arguments))
    if action == "partition":
        shape = arguments.pop("shape", None)
        if "groups" not in arguments:
            fitting = sorted(name for name, (least, _) in SHAPES.items() if least <= len(names))
            shape = shape or chance.choice(fitting or ["halves"])
            if shape not in SHAPES:
                raise InvalidArgument(
                    f"nemesis: {shown(shape)} is no shape of a partition;"
                    f" there are {', '.join(SHAPES)}"
                )
            arguments["groups"] = [SHAPES[shape][1](names, chance)]
        return arguments
    if action != "drop" and "nodes" not in arguments:
        if not names:
            raise InvalidArgument(f"nemesis: no node can have the fault {action}")
        most = max(1, (len(nodes) - 1) // 2)
        count = chance.randint(1, min(most, len(names)))
        arguments["nodes"] = sorted(chance.sample(names, count))
    if action == "clock_skew" and "offset" not in arguments:
        arguments["offset"] = chance.choice((-1, 1)) * chance.choice((1, 10, 60, 3600))
    return arguments


def can_have(spec: NodeSpec, action: str, arguments: Mapping[str, Any]) -> bool:
    """
    Check whether a node was made so that it can have a fault.

    :param spec: What the node is to be.
    :param action: The fault.
    :param arguments: What it is given.
    :returns: True when it can.
    """
    if action == "clock_skew":
        return getattr(spec, "clock", None) == "fake"
    if action == "disk_full":
        return arguments.get("path") in spec.disks
    return True


def check_action(action: object) -> None:
    """
    Make sure a nemesis can do something.

    :param action: The name of the verb.
    :raises InvalidArgument: There is no such verb; the message names the nearest one.
    """
    if action not in ACTIONS:
        near = difflib.get_close_matches(str(action), ACTIONS, 1, 0.0)[0]
        raise InvalidArgument(f"nemesis: there is no fault {shown(action)}: did you mean {near}?")


def check_schedule(schedule: Iterable[Mapping[str, Any]]) -> list[Record]:
    """
    Make sure a schedule can be performed, before anything is.

    :param schedule: The records.
    :returns: A copy of them.
    :raises InvalidArgument: One is malformed, out of order, or no verb takes such arguments.
    """
    checked: list[Record] = []
    for number, record in enumerate(schedule):
        where = f"step {number} of the schedule"
        if not isinstance(record, dict) or set(record) != {"offset", "action", "arguments"}:
            raise InvalidArgument(f"{where} has not exactly offset, action and arguments")
        offset, action, arguments = record["offset"], record["action"], record["arguments"]
        if isinstance(offset, bool) or not isinstance(offset, (int, float)) or not offset >= 0:
            raise InvalidArgument(f"{where}: {shown(offset)} is not a number of seconds")
        if checked and offset < checked[-1]["offset"]:
            raise InvalidArgument(f"{where} is before the one in front of it")
        if not isinstance(arguments, dict):
            raise InvalidArgument(f"{where}: the arguments are no mapping")
        if action != HEAL:
            check_action(action)
            positional, named = spread(action, arguments)
            try:
                inspect.signature(getattr(FaultVerbs, action)).bind(None, *positional, **named)
            except TypeError as error:
                raise InvalidArgument(f"{where}: {action}: {error}") from error
        elif arguments:
            raise InvalidArgument(f"{where}: {HEAL} takes no arguments")
        checked.append({"offset": offset, "action": action, "arguments": dict(arguments)})
    return checked


def spread(action: str, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """
    Tell the arguments without a name from those with one.

    :param action: The name of the verb.
    :param arguments: The arguments by name.
    :returns: Both kinds.
    """
    named = dict(arguments)
    return (list(named.pop("groups", ())) if action == "partition" else []), named
