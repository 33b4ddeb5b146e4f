"""
One layer out of many: the disk of a container as an image without a past.

Each commit of a machine that was started from a commit is a layer on top of
the one before, and engines take about 125 of them. What a container shows of
them all is exported, imported as one layer, and given the same configuration.
"""

from __future__ import annotations

import os

from redock import _recipe
from redock._engine import KIND, label
from redock._progress import counted
from redock._transport import COMMIT_PATIENCE
from redock.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from redock._engine import Engine

__all__ = ["flatten", "flatten_image"]


def flatten_image(
    engine: Engine, described: Mapping[str, Any], repository: str, tag: str, what: str
) -> str:
    """
    Make an image of one layer out of another.

    :param engine: The engine.
    :param described: What the engine says about the image.
    :param repository: The repository of the new image.
    :param tag: The tag of the new image.
    :param what: What is done, to be shown.
    :returns: The id of the new image.
    """
    name = f"redock-squash-{os.urandom(6).hex()}"
    config = {"Image": described["Id"], "Entrypoint": [], "Cmd": ["true"], "Labels": {KIND: "scan"}}
    container = engine.create_container(name, config)
    try:
        marks = {**(described["Config"].get("Labels") or {}), label("squashed"): described["Id"]}
        return flatten(
            engine,
            container,
            {**described["Config"], "Labels": marks},
            repository,
            tag,
            message=described.get("Comment") or "",
            author=described.get("Author") or "",
            what=what,
            total=described.get("Size") or 0,
        )
    finally:
        engine.remove_container(container)


def flatten(
    engine: Engine,
    container: str,
    config: Mapping[str, Any],
    repository: str,
    tag: str,
    *,
    message: str,
    author: str,
    what: str,
    total: int = 0,
) -> str:
    """
    Make an image of one layer out of what is on the disk of a container.

    :param engine: The engine.
    :param container: The id of the container; what runs in it should be frozen.
    :param config: The configuration the image is to have.
    :param repository: The repository of the new image.
    :param tag: The tag of the new image.
    :param message: What it is described with.
    :param author: Who saved it.
    :param what: What is done, to be shown.
    :param total: About how many bytes there are (default: not known).
    :returns: The id of the new image; nothing else is left of the attempt.
    """
    path = f"/containers/{container}/export"
    disk = engine.download(path, "export the disk", timeout=COMMIT_PATIENCE)
    reports = engine.upload(
        "/images/create", "import the disk", counted(disk, what, total), query={"fromSrc": "-"}
    )
    raw = next((str(each["status"]) for each in reversed(reports) if "status" in each), "")
    if not raw:
        raise EngineError("the engine did not say what it made of the disk")
    try:
        # A configuration that is committed needs no quoting, and the image gets its author.
        kept = ("Env", "ExposedPorts", "Labels", "User", "WorkingDir", "Hostname", "Domainname")
        made = {key: config[key] for key in kept if config.get(key)}
        made |= {"Image": raw, "Entrypoint": [], "Cmd": [_recipe.BOOT]}
        name = f"redock-squash-{os.urandom(6).hex()}"
        shell = engine.create_container(name, made)
        try:
            return engine.commit(shell, repository, tag, message=message, author=author)
        finally:
            engine.remove_container(shell)
    except BaseException:
        engine.remove_image(raw)
        raise
