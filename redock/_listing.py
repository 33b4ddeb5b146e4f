"""
What there is: machines with their state, their age and what they use.
"""

from __future__ import annotations

import os

from redock import _machines
from redock._engine import KIND, Engine, label
from redock._machines import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, ClassVar

__all__ = ["FIELDS", "Engine", "MachineInfo", "find_names", "list_machines"]

#: What is known about a machine in a list; these are the names in JSON, too, and they stay.
FIELDS = (
    "name",
    "state",
    "uptime",
    "created",
    "base",
    "alias",
    "hostname",
    "address",
    "port",
    "commits",
    "memory",
    "disk",
    "user",
    "cluster",
    "id",
)
#: The label of images that were saved.
COMMITTED = f"{KIND}=image"
#: What the engine calls the states of containers, where we have another word.
STATES = {"exited": "stopped", "dead": "stopped"}


class MachineInfo:
    """
    What is known about a machine, at one moment.

    :param values: The values of the attributes.
    """

    #: Its name, ``REPOSITORY:TAG``; of a node of a cluster ``redock:cluster.CLUSTER.NODE``.
    name: str
    #: ``running``, ``paused``, ``stopped``, ``created`` (never started), ``saved`` (there is only
    #: its image), or for moments ``restarting`` or ``removing``.
    state: str
    #: For how long it has run, or since when it has not, in the engine's words: ``6 minutes``,
    #: ``2 days ago``.
    uptime: str
    #: When its container was created, in UTC by ISO 8601.
    created: str
    #: The distribution its base image was made from, for instance ``debian:12``.
    base: str
    #: The name to give to ``ssh``.
    alias: str
    #: The host name inside.
    hostname: str
    #: The address of its SSH server on the host.
    address: str
    #: The port of its SSH server on the host, 0 where it has none.
    port: int
    #: How many states of its disk were saved.
    commits: int
    #: The bytes of memory it uses; None where that was not asked for, where it does not run, and
    #: where the kernel of the engine is not ours to ask.
    memory: int | None
    #: The bytes its disk takes beyond its image; None where that was not asked for.
    disk: int | None
    #: The number of the user it belongs to; None of one whom nobody owns.
    user: int | None
    #: The name of its cluster; empty for a machine of its own.
    cluster: str
    #: The engine's id of its container, or of the image when there is only that.
    id: str

    __slots__ = FIELDS
    #: The names of the attributes, in the order in which JSON has them.
    fields: ClassVar[tuple[str, ...]] = FIELDS

    def __init__(self, **values: Any) -> None:
        for name in self.fields:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} is what was so; ask again for what is so now")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MachineInfo) and self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self.id, self.state, self.uptime))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.state!r})"

    def as_dict(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.

        :returns: The attributes by name.
        """
        return {name: getattr(self, name) for name in self.fields}


def list_machines(
    engine: Engine | None = None, *, everybody: bool = False, size: bool = False
) -> list[MachineInfo]:
    """
    List machines, running or not.

    It takes two requests to the engine, however many machines there are.

    :param engine: The container engine (default: the one that ``DOCKER_HOST`` and the Docker
                   contexts say).
    :param everybody: Those of other users, the nodes of clusters, and what was saved of machines
                      that are not there now (default: your machines).
    :param size: Find out how much memory and disk they use (default: no). The engine looks at
                 every file that changed for that, which can take seconds.
    :returns: What is known about each, in the order of their names.
    :raises DockerUnavailable: No engine answers.
    :raises EngineError: The engine failed.
    """
    engine = engine or Engine()
    # Both at once: the engine has more than one processor.
    saved = engine.begin_images({"label": [COMMITTED]})
    marks = [label("port") if everybody else f"{KIND}={_machines.CONTAINER}"]
    listed = engine.containers({"label": marks}, size=size)
    # It takes longest to look through its images; what can be done without is done meanwhile.
    known = [describe(*each) for each in choose(listed, everybody)]
    memory = memory_of_all(known) if size else {}
    images = saved.result() or ()
    commits = count_commits(images)
    found = [
        MachineInfo(**each, commits=commits.get(each["name"], 0), memory=memory.get(each["id"]))
        for each in known
    ]
    if everybody:
        there = {each.name for each in found}
        found += [
            describe_saved(name, image, commits)
            for name, image in saved_names(images).items()
            if name not in there
        ]
    return sorted(found, key=lambda each: (each.cluster != "", each.name))


def find_names(engine: Engine) -> list[tuple[str, str]]:
    """
    List the names of your machines with their states, with one request.

    :param engine: The engine.
    :returns: Names and states, in order.
    """
    uid = os.getuid()
    machines = _machines.find_machines(engine)
    return sorted((each.name, each.state) for each in machines if owner_of(each) in (None, uid))


def owner_of(machine: Machine) -> int | None:
    """
    Find out whose a machine is.

    :param machine: The machine.
    :returns: The number of the user, None when nobody is named: then it is everybody's.
    """
    return int(machine.user) if machine.user.isdigit() else None


def choose(
    listed: Sequence[Mapping[str, Any]], everybody: bool
) -> list[tuple[Machine, Mapping[str, Any]]]:
    """
    Choose the containers that stand for machines.

    A node of a cluster is two containers, see :mod:`redock.cluster`: one keeps its ports, the
    other is what it does.

    :param listed: The engine's summaries.
    :param everybody: Those of other users and the nodes of clusters, too.
    :returns: The machines, each with the summary that stands for it.
    """
    machines: list[tuple[Machine, Mapping[str, Any]]] = []
    nodes: list[tuple[Machine, Mapping[str, Any]]] = []
    named = {name.removeprefix("/"): each for each in listed for name in each.get("Names") or ()}
    for each in listed:
        kind, machine = each["Labels"].get(KIND), Machine(each)
        if kind == _machines.CONTAINER:
            if machine.genuine and (everybody or owner_of(machine) in (None, os.getuid())):
                machines.append((machine, each))
        elif kind == "owner" and everybody:
            name = machine.container_name.removesuffix(".owner")
            system = {**named.get(name, each), "Ports": each.get("Ports")}
            nodes.append((Machine(system), system))
    there = {machine.id for machine in _machines.settle([machine for machine, _ in machines])}
    return [pair for pair in machines if pair[0].id in there] + nodes


def count_commits(images: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """
    Count the saved states of machines.

    Their names say whose they are, as :mod:`redock._commits` gives them. Labels are what the
    disk was made of: those of a copy say where it was copied from.

    :param images: The engine's summaries of images that were committed.
    :returns: How many there are, by the name of the machine.
    """
    from redock._names import HISTORY, history_repository

    tags = {tag for image in images for tag in image.get("RepoTags") or ()}
    kept: dict[str, int] = {}
    for tag in tags:
        repository = tag.rpartition(":")[0]
        kept[repository] = kept.get(repository, 0) + 1
    names = {(image.get("Labels") or {}).get(label("name"), "") for image in images}
    # What has a machine's name only was saved by a redock that kept no history.
    if not any(repository.startswith(f"{HISTORY}/") for repository in kept):
        # What makes names of repositories takes longer to load than all of this.
        return {name: int(name in tags) for name in names.union(tags)}
    return {
        name: kept.get(history_repository(name), int(name in tags)) for name in names.union(tags)
    }


def saved_names(images: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """
    Find the images that machines can be started from by name.

    :param images: The engine's summaries of images that were committed.
    :returns: The summaries by the name of the machine.
    """
    from redock._names import HISTORY, history_repository

    found = {}
    for image in images:
        tags = image.get("RepoTags") or ()
        known = {tag.rpartition(":")[0] for tag in tags if tag.startswith(f"{HISTORY}/")}
        for tag in tags:
            # Others may have given it names, too.
            mine = tag == (image.get("Labels") or {}).get(label("name"))
            if mine or (known and history_repository(tag) in known):
                found[tag] = image
    return found


def memory_of_all(known: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """
    Find out how much memory machines use.

    :param known: What is known about them otherwise, see :func:`describe`.
    :returns: Bytes by id, of those where it can be known.
    """
    from redock._usage import memory_of

    return memory_of(each["id"] for each in known if each["state"] in ("running", "paused"))


def describe(machine: Machine, summary: Mapping[str, Any]) -> dict[str, Any]:
    """
    Put together what the summary of its container says about a machine.

    :param machine: The machine.
    :param summary: The engine's summary.
    :returns: The attributes of :class:`MachineInfo`, but for those that others know: the number
              of its commits and the memory it uses.
    """
    marks = summary["Labels"]
    address, port = machine.endpoint
    return {
        "name": machine.name,
        "state": STATES.get(machine.state, machine.state),
        "uptime": words_of(summary.get("Status") or ""),
        "created": moment(summary.get("Created") or 0),
        "base": marks.get(label("base"), ""),
        "alias": machine.alias,
        "hostname": machine.hostname,
        "address": address,
        "port": port,
        "disk": summary.get("SizeRw"),
        "user": owner_of(machine),
        "cluster": marks.get(label("cluster"), ""),
        "id": machine.id,
    }


def describe_saved(name: str, image: Mapping[str, Any], commits: Mapping[str, int]) -> MachineInfo:
    """
    Put together what is known about a machine of which there is only the saved disk.

    :param name: The name of the machine.
    :param image: The engine's summary of its image.
    :param commits: How many states were saved, by name.
    :returns: All of it.
    """
    marks = image.get("Labels") or {}
    return MachineInfo(
        name=name,
        state="saved",
        uptime="",
        created=moment(image.get("Created") or 0),
        base=marks.get(label("base"), ""),
        alias="",
        hostname=marks.get(label("hostname"), ""),
        address="",
        port=0,
        commits=commits.get(name, 0),
        memory=None,
        disk=None,
        user=None,
        cluster="",
        id=image["Id"],
    )


def words_of(status: str) -> str:
    """
    Get the time out of what the engine says about a container.

    :param status: For instance ``Up 6 minutes (Paused)`` or ``Exited (0) 2 days ago``.
    :returns: For instance ``6 minutes`` or ``2 days ago``; empty when there is none.
    """
    words = status.split()
    if not words or words[0] not in ("Up", "Exited"):
        return ""
    kept = [word for word in words[1:] if not word.startswith("(") and not word.endswith(")")]
    # Podman says "Up 6 minutes ago" of what runs, too.
    if words[0] == "Up" and kept[-1:] == ["ago"]:
        kept.pop()
    return " ".join(kept).lower()


def moment(seconds: float) -> str:
    """
    Write a moment for people and programs.

    :param seconds: Seconds since 1970, as the engine counts them.
    :returns: UTC by ISO 8601, for instance ``2026-11-25T02:40:10Z``.
    """
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def to_the_second(text: str) -> str:
    """
    Shorten a moment the engine names.

    :param text: UTC by ISO 8601 with fractions of a second; year 1 stands for never.
    :returns: As :func:`moment`; empty for never.
    """
    return "" if text.startswith("0001-") or not text else f"{text[:19]}Z"
