"""
What nobody uses any more: finding it, and taking it away.

Only what redock made is looked at, by its labels and in its own directory, and only what nothing
refers to counts. What the user saved, and what runs or could run again, never does; nor does what
is another user's, or so young that somebody may still be making it.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial

from redock import _keeper, _ssh
from redock._engine import KIND, Engine, label
from redock._files import path_in_home, remove_file
from redock.errors import RedockError
from redock.utils import Config, summarize_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

__all__ = ["Leftover", "find_leftovers", "take_away"]

logger = logging.getLogger("redock.tidy")

#: Seconds in which whoever makes something refers to it, too.
YOUNG = 600.0
#: What the label ``io.redock.kind`` of disks and containers says that are only looked at.
SCRATCH = "scan"


class Leftover:
    """
    Something nobody uses.

    :param kind: ``container``, ``volume``, ``image``, ``network``, ``cluster`` or ``file``.
    :param name: Its name.
    :param why: Why nobody uses it.
    :param remove: Takes it away.
    :param size: The bytes it has, where that is known.
    """

    def __init__(
        self, kind: str, name: str, why: str, remove: Callable[[], object], size: int | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        self.why = why
        self.remove = remove
        self.size = size

    def __repr__(self) -> str:
        return f"Leftover({self.kind!r}, {self.name!r})"

    def values(self) -> dict[str, object]:
        """
        Describe it for programs.

        :returns: Plain values.
        """
        return {"kind": self.kind, "name": self.name, "why": self.why, "size": self.size}


class Survey:
    """
    What there is, asked for once.

    :param engine: The engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.containers = engine.containers({"label": [KIND]})
        self.images = engine.images({"label": [KIND]})
        self.volumes = engine.volumes({"label": [KIND]})
        self.networks = engine.networks({"label": [KIND]})
        everybody = engine.containers({})
        #: The ids of the images that containers are made from, redock's or not.
        self.used_images = {each["ImageID"] for each in everybody}
        #: The names of the volumes that containers have mounted, running or not.
        self.used_volumes = {
            mount.get("Name") for each in everybody for mount in each.get("Mounts") or ()
        }
        #: Machines and nodes there are.
        self.instances = {labels_of(each).get(label("instance")) for each in self.containers}
        self.clusters = {labels_of(each).get(label("cluster")) for each in self.containers}
        self.now = time.time()

    def is_settled(self, described: dict[str, Any]) -> bool:
        """
        Check whether something is ours to judge.

        :param described: What the engine says about it.
        :returns: False for what is another user's, and for what was made just now.
        """
        from redock._commits import moment

        if labels_of(described).get(label("user")) not in (None, "", str(os.getuid())):
            return False
        made = described.get("Created") or described.get("CreatedAt") or 0
        seconds = moment(made).timestamp() if isinstance(made, str) else float(made)
        return self.now - seconds > YOUNG


def labels_of(described: dict[str, Any]) -> dict[str, str]:
    """
    Get the labels of something.

    :param described: What the engine says about it.
    :returns: The labels.
    """
    return described.get("Labels") or {}


def find_leftovers(engine: Engine, *, caches: bool = False) -> list[Leftover]:
    """
    Find what nobody uses any more.

    :param engine: The engine.
    :param caches: Also what is only kept to save time: base images and provisioned disks that no
                   container is made from (default: no).
    :returns: What was found, in the order in which it can be taken away.
    """
    survey = Survey(engine)
    found = [
        *lost_clusters(survey),
        *lost_containers(survey),
        *lost_networks(survey),
        *lost_volumes(survey),
        *lost_images(survey),
        *lost_files(survey),
    ]
    return [*found, *(unused_caches(survey) if caches else ())]


def lost_clusters(survey: Survey) -> Iterator[Leftover]:
    """
    Find clusters whose process has ended without taking them down.

    :param survey: What there is.
    :returns: Yields them.
    """
    from redock.cluster import _process

    for name in _process.find_orphans(survey.engine):
        yield Leftover(
            "cluster",
            name,
            "the process that made it has ended",
            partial(_process.remove_cluster, survey.engine, name),
        )


def lost_containers(survey: Survey) -> Iterator[Leftover]:
    """
    Find containers of builds that were interrupted.

    :param survey: What there is.
    :returns: Yields them.
    """
    for each in survey.containers:
        kind = labels_of(each).get(KIND)
        if kind in ("build", SCRATCH) and each["State"] != "running" and survey.is_settled(each):
            yield Leftover(
                "container",
                each["Names"][0].lstrip("/"),
                "whoever made it was interrupted",
                partial(survey.engine.remove_container, each["Id"]),
            )


def lost_networks(survey: Survey) -> Iterator[Leftover]:
    """
    Find networks of clusters that have gone.

    :param survey: What there is.
    :returns: Yields them.
    """
    for each in survey.networks:
        cluster = labels_of(each).get(label("cluster"))
        if cluster and cluster not in survey.clusters and survey.is_settled(each):
            yield Leftover(
                "network",
                each["Name"],
                f"the cluster {cluster} has no nodes any more",
                partial(survey.engine.remove_network, each["Id"]),
            )


def lost_volumes(survey: Survey) -> Iterator[Leftover]:
    """
    Find identities and disks of containers that were removed without redock.

    :param survey: What there is.
    :returns: Yields them.
    """
    for each in survey.volumes:
        if not survey.is_settled(each) or each["Name"] in survey.used_volumes:
            continue
        kind = labels_of(each).get(KIND)
        gone = labels_of(each).get(label("cluster")) not in survey.clusters
        if kind == "volume" or (kind in ("kept", "incomplete") and gone):
            whose = labels_of(each).get(label("name")) or labels_of(each).get(label("cluster"), "")
            yield Leftover(
                "volume",
                each["Name"],
                f"{whose or 'its container'} was removed without redock",
                partial(survey.engine.remove_volume, each["Name"]),
            )


def lost_images(survey: Survey) -> Iterator[Leftover]:
    """
    Find copies that were made to be looked at, unfinished disks, snapshots of clusters that have
    gone, and commits that were used while one layer was made of them.

    :param survey: What there is.
    :returns: Yields them.
    """
    replaced = {labels_of(each).get(label("squashed")) for each in survey.images}
    for each in survey.images:
        if each["Id"] in survey.used_images or not survey.is_settled(each):
            continue
        kind, names = labels_of(each).get(KIND), real_names(each)
        # Images that others make of ours have the same labels, but not the names.
        if not names and kind == SCRATCH:
            yield image(survey, each, "whoever made it was interrupted")
        elif not names and each["Id"] in replaced:
            yield image(survey, each, "a squashed one took its place")
        elif not names:
            continue
        elif all(name.startswith("redock-snapshot:") for name in names):
            if labels_of(each).get(label("cluster")) not in survey.clusters:
                yield image(survey, each, "its cluster has gone")
        elif all(is_unfinished(name) and not is_being_built(name) for name in names):
            yield image(survey, each, "whoever provisioned it was interrupted")


def is_unfinished(name: str) -> bool:
    """
    Check whether an image is a disk that was never finished.

    :param name: The name of the image.
    :returns: True when its name says so.
    """
    return name.startswith("redock-provisioned:") and name.endswith("-building")


def is_being_built(name: str) -> bool:
    """
    Check whether a process provisions a disk at this moment.

    :param name: The name of the image, which has the number of the process in it.
    :returns: True when that process exists.
    """
    process = name.removesuffix("-building").rpartition("-")[2]
    return process.isdigit() and os.path.exists(f"/proc/{process}")


def real_names(described: dict[str, Any]) -> list[str]:
    """
    Get the names of an image.

    :param described: What the engine says about it.
    :returns: The names; none for an image without one.
    """
    return [name for name in described.get("RepoTags") or () if "<none>" not in name]


def image(survey: Survey, described: dict[str, Any], why: str) -> Leftover:
    """
    Describe an image nobody uses.

    :param survey: What there is.
    :param described: What the engine says about it.
    :param why: Why nobody uses it.
    :returns: The leftover.
    """
    names = real_names(described) or [described["Id"]]

    def remove() -> None:
        for name in names:
            survey.engine.remove_image(name)

    shown = ", ".join(real_names(described)) or summarize_id(described["Id"])
    return Leftover("image", shown, why, remove, described.get("Size"))


def lost_files(survey: Survey) -> Iterator[Leftover]:
    """
    Find what ``ssh`` is told about machines of this engine that have gone.

    Other engines may have machines, too: only what this user's state or a closed socket tells
    is looked at.

    :param survey: What there is.
    :returns: Yields them.
    """
    engine = survey.engine.endpoint.url
    for name, known in Config().load()["containers"].items():
        instance = known.get("instance")
        if known.get("engine") == engine and instance and instance not in survey.instances:
            yield Leftover(
                "file",
                _ssh.fragment_file(name),
                f"{name} was removed without redock",
                partial(forget, name, instance),
            )
    directory = path_in_home("ssh", "s")
    for each in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        path = os.path.join(directory, each)
        if each not in survey.instances and not each.startswith((".", "engine-")):
            if _keeper.is_shared(each):
                continue
            yield Leftover(
                "file",
                path,
                "the connection it was for has ended",
                partial(remove_file, path),
            )


def forget(name: str, instance: str) -> None:
    """
    Make ``ssh`` and the state forget a machine.

    :param name: The name of its image.
    :param instance: The id of the container.
    """
    _keeper.close_connection(instance)
    _ssh.remove(name, instance)
    with Config() as state:
        state["containers"].pop(name, None)


def unused_caches(survey: Survey) -> Iterator[Leftover]:
    """
    Find base images and provisioned disks that no container is made from.

    :param survey: What there is.
    :returns: Yields them.
    """
    for each in survey.images:
        names = real_names(each)
        if each["Id"] in survey.used_images or not names or not survey.is_settled(each):
            continue
        if any(name.endswith("-building") for name in names):
            continue
        if all(name.startswith("redock:base") for name in names):
            yield image(survey, each, "no machine is made from it; it is made anew when needed")
        elif all(name.startswith("redock-provisioned:") for name in names):
            yield image(survey, each, "no node is made from it; it is provisioned anew when needed")


def take_away(leftovers: Sequence[Leftover]) -> list[tuple[Leftover, RedockError]]:
    """
    Take away what nobody uses; what cannot be is left and told.

    :param leftovers: What to take away.
    :returns: What could not be taken away, and why.
    """
    failed: list[tuple[Leftover, RedockError]] = []
    for each in leftovers:
        try:
            each.remove()
        except RedockError as error:
            # Somebody began to use it, or it is the parent of something that is used.
            failed.append((each, error))
        else:
            logger.debug("Removed the %s %s", each.kind, each.name)
    return failed
