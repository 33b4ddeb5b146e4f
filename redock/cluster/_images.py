"""
The disks that nodes start from: base images, saved machines, and what provisioning made of them.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os

from redock._engine import KIND, Engine, label
from redock._files import Lock, path_in_home, read_bytes
from redock._image import Image
from redock.errors import ImageUnavailable, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from redock.bootstrap import Bootstrap
    from redock.cluster._spec import NodeSpec

__all__ = ["REPOSITORY", "find_image", "fingerprint"]

logger = logging.getLogger("redock.cluster")

#: The repository of provisioned disks; the tag is the hash of what went into them.
REPOSITORY = "redock-provisioned"
#: Seconds another process may need to provision the same.
PATIENCE = 3600.0


def find_image(engine: Engine, spec: NodeSpec) -> str:
    """
    Find the image a node starts from; what it needs is made when it is missing.

    :param engine: The engine.
    :param spec: What the node is to be.
    :returns: The id of the image.
    :raises ImageUnavailable: There is no such saved machine.
    :raises RedockError: The base image could not be made, or provisioning failed.
    """
    start = find_start(engine, spec)
    if not spec.packages and spec.provision is None:
        return start
    number = fingerprint(spec, start)
    name = f"{REPOSITORY}:{number}"
    described = engine.inspect_image(name)
    if described is None:
        path = path_in_home("locks", f".provision-{number}.lock")
        with Lock(path, f"the provisioned disk {number}", timeout=PATIENCE):
            described = engine.inspect_image(name)
            if described is None:
                provision(engine, spec, start, name)
                described = engine.inspect_image(name)
    assert described is not None
    return str(described["Id"])


def find_start(engine: Engine, spec: NodeSpec) -> str:
    """
    Find the image provisioning starts from.

    :param engine: The engine.
    :param spec: What the node is to be.
    :returns: The id of the image.
    """
    if spec.image is None:
        from redock.base import create_base_image, find_ready_base

        return find_ready_base(engine, spec.base) or create_base_image(engine, spec.base)
    image = Image.coerce(spec.image)
    described = engine.inspect_image(image.name)
    if described is None:
        raise ImageUnavailable(
            f"node {spec.name}: there is no image {image.name};"
            f" save a machine as one with 'redock commit {image.name}'"
        )
    if not (described["Config"].get("Labels") or {}).get(label("recipe")):
        raise ImageUnavailable(
            f"node {spec.name}: the image {image.name} was not made by redock:"
            " give it as base instead"
        )
    return str(described["Id"])


def fingerprint(spec: NodeSpec, start: str) -> str:
    """
    Get the hash of everything that goes into a provisioned disk.

    :param spec: What the node is to be.
    :param start: The id of the image it starts from.
    :returns: Twenty hexadecimal digits.
    """
    inputs = [start, sorted(spec.packages), source_of(spec)]
    return hashlib.sha256(repr(inputs).encode()).hexdigest()[:20]


def hash_of(spec: NodeSpec) -> str:
    """
    Get the hash of what provisions a node.

    :param spec: What the node is to be.
    :returns: Twenty hexadecimal digits.
    """
    return hashlib.sha256(source_of(spec).encode()).hexdigest()[:20]


def source_of(spec: NodeSpec) -> str:
    """
    Get the source of what provisions a node.

    :param spec: What the node is to be.
    :returns: The text of the whole file a script or function is in, so that a change of what it
              calls there counts too.
    :raises InvalidArgument: There is no such script, or the source of the function is unknown.
    """
    provision = spec.provision
    if provision is None:
        return ""
    if isinstance(provision, (str, os.PathLike)):
        contents = read_bytes(os.fspath(provision))
        if contents is None:
            raise InvalidArgument(f"node {spec.name}: there is no provisioning script {provision}")
        return contents.decode("utf-8", "replace")
    try:
        function = inspect.unwrap(provision)
        file = inspect.getsourcefile(function)
        source = read_bytes(file).decode("utf-8", "replace") if file and read_bytes(file) else ""  # type: ignore[union-attr]
        cells = [repr(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
        return "\n".join([source or inspect.getsource(function), function.__qualname__, *cells])
    except (OSError, TypeError) as error:
        raise InvalidArgument(
            f"node {spec.name}: the source of {provision!r} cannot be found, so what it makes"
            " cannot be kept: give a function of a file, or a script"
        ) from error


def provision(engine: Engine, spec: NodeSpec, start: str, name: str) -> None:
    """
    Make a provisioned disk: on a machine of its own, which is saved and thrown away.

    :param engine: The engine.
    :param spec: What the node is to be.
    :param start: The id of the image to start from.
    :param name: The name of the image to make.
    """
    from redock.api import Container
    from redock.bootstrap import Bootstrap

    logger.info("Provisioning %s (once: the disk is kept)", spec.name)
    # Another name until it is complete: an interrupted run leaves nothing that looks ready.
    building = Image(REPOSITORY, f"{name.rpartition(':')[2]}-{os.getpid()}-building")
    engine.tag_image(start, *building.key)
    container = Container(building, hostname=None, timeout=60, engine=engine)
    try:
        container.start()
        with Bootstrap(container.ssh_alias) as host:
            if spec.packages:
                host.packages(*spec.packages)
            if spec.provision is not None:
                find_function(spec.provision)(host)
        container.commit(f"provisioned: {', '.join(spec.packages) or 'by a script'}")
        assert container.image.id
        engine.tag_image(container.image.id, *name.rsplit(":", 1))
    finally:
        if container._find_machine() is not None:
            container.kill()
        engine.remove_image(building.name, force=True)


def find_function(provision: Callable[[Bootstrap], object] | str) -> Callable[[Bootstrap], object]:
    """
    Get the function that provisions a node.

    :param provision: The function, or the pathname of a script with a function ``provision``.
    :returns: The function.
    """
    if callable(provision):
        return provision
    from redock.provision import load_script

    return load_script(os.fspath(provision))


def provisioned(engine: Engine) -> list[str]:
    """
    List the provisioned disks that are kept.

    :param engine: The engine.
    :returns: Their names.
    """
    return [
        name
        for image in engine.images({"reference": [f"{REPOSITORY}:*"], "label": [KIND]})
        for name in image.get("RepoTags") or ()
    ]
