"""
The base image: finding it, making it, downloading what it is made from.

There is one base image for each distribution that was asked for, called
``redock:base-DISTRIBUTION``; ``redock:base`` is the one that is used when
nothing is asked for. A base image is a distribution's own image plus what
makes a machine of it: an SSH server, Supervisor, Python, rsync and a locale.
"""

from __future__ import annotations

import contextlib
import logging
import os

from redock import _distribution, _recipe
from redock._engine import KIND, Engine, label, label_changes
from redock._files import Lock, path_in_home
from redock._machines import archive
from redock._names import BASE_REPOSITORY, BASE_TAG, REPOSITORY, TAG, image_slug, shown
from redock._printed import join_frames, printable
from redock._progress import detail, step
from redock._sdk import failures
from redock._settings import setting
from redock.errors import (
    BaseImageFailed,
    EngineError,
    ImageUnavailable,
    InvalidName,
    NotFound,
    last_lines,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import docker

    Client = docker.APIClient | Engine

__all__ = [
    "DEFAULT_BASE",
    "create_base_image",
    "download_image",
    "find_base_image",
    "find_named_image",
]

logger = logging.getLogger(__name__)

#: What machines are made from when nothing else is asked for.
DEFAULT_BASE = "ubuntu:24.04"
#: Seconds until a registry that says nothing counts as absent.
REGISTRY_PATIENCE = 10.0
#: Seconds of silence in the middle of a download.
DOWNLOAD_PATIENCE = 300.0
#: Seconds for all the packages of a base image.
BUILD_PATIENCE = 1800.0


def find_base_image(client: Client, base: str | None = None) -> str:
    """
    Find the base image; make it if it is missing or of an older recipe.

    :param client: Connection to the engine (:class:`docker.APIClient`).
    :param base: The distribution's image to make it from (default: the setting ``base``,
                 else ``ubuntu:24.04``).
    :returns: The unique id of the base image.
    :raises BaseImageFailed: It could not be made.
    :raises ImageUnavailable: The distribution's image is not to be had.
    """
    return find_ready_base(client, base) or create_base_image(client, base)


def find_ready_base(client: Client, base: str | None = None) -> str | None:
    """
    Find the base image if it is there and of the current recipe.

    :param client: Connection to the engine.
    :param base: As for :func:`find_base_image`.
    :returns: The unique id of the base image, None when it has to be made.
    """
    tag = base_tag(wanted_base(base))
    described = Engine.of(client).inspect_image(f"{BASE_REPOSITORY}:{tag}")
    if described is None:
        return None
    labels = described["Config"].get("Labels") or {}
    if labels.get(label("recipe")) != _recipe.fingerprint():
        return None
    return str(described["Id"])


def wanted_base(base: str | None) -> str | None:
    """
    Find out which distribution was asked for by name.

    :param base: What the caller asks for, if anything.
    :returns: ``NAME:TAG`` of a distribution's image; None when nobody asked.
    :raises InvalidName: It is not the name of an image.
    """
    wanted = base or setting("base")
    if not wanted:
        return None
    name, colon, tag = wanted.rpartition(":")
    if not colon or "/" in tag:
        name, tag = wanted, "latest"
    if not REPOSITORY.fits(name) or not TAG.fits(tag):
        raise InvalidName(
            f"invalid base image {shown(wanted)}: write NAME:TAG, for instance {DEFAULT_BASE}"
        )
    return f"{name}:{tag}"


def base_tag(wanted: str | None) -> str:
    """
    Get the tag of a base image.

    :param wanted: The distribution's image, None for the default.
    :returns: The tag in the repository ``redock``.
    """
    return f"{BASE_TAG}-{image_slug(wanted)}" if wanted else BASE_TAG


def create_base_image(client: Client, base: str | None = None) -> str:
    """
    Make the base image.

    Starting from the distribution's own image: recommended packages are left
    out, packages come from a nearby mirror with fresh lists, the locale is
    UTF-8; ``openssh-server``, ``supervisor``, ``python3``, ``rsync`` and
    ``iproute2`` are installed; packages that have no business in a container
    are held, so that ``apt-get dist-upgrade`` works; Supervisor looks after
    the SSH server. No key of any kind is in it.

    Where no registry answers, the distribution's image is made with
    ``debootstrap`` or ``mmdebstrap``; where nobody asked for a distribution by
    name and that is not possible for ``ubuntu:24.04`` either, the host's own
    distribution takes its place, and the log says so.

    :param client: Connection to the engine (:class:`docker.APIClient`).
    :param base: As for :func:`find_base_image`.
    :returns: The unique id of the base image.
    :raises BaseImageFailed: A step failed; nothing of it is left.
    :raises ImageUnavailable: The distribution's image is not to be had.
    """
    engine = Engine.of(client)
    wanted = wanted_base(base)
    tag = base_tag(wanted)
    lock = Lock(
        path_in_home("locks", f".{tag}.lock"), f"the base image {tag}", timeout=BUILD_PATIENCE
    )
    with lock:
        # Whoever waited for the lock finds the work done.
        ready = find_ready_base(engine, base)
        if ready:
            return ready
        return build(engine, wanted)


def build(engine: Engine, wanted: str | None) -> str:
    """
    Make a base image and give it its names.

    :param engine: The engine.
    :param wanted: The distribution's image that was asked for, None for the default.
    :returns: The id of the base image.
    """
    outdated = engine.inspect_image(f"{BASE_REPOSITORY}:{base_tag(wanted)}")
    if outdated is not None:
        step("The base image was made by another redock and is made anew")
    step("Making the base image from %s (once, it takes a minute or two)", wanted or DEFAULT_BASE)
    made_here = None
    try:
        source = wanted or DEFAULT_BASE
        name, _, tag = source.rpartition(":")
        download_image(engine, name, tag)
        origin = source
        described = engine.inspect_image(source)
        if described is None:
            raise ImageUnavailable(f"the image {source} is gone again, somebody removed it")
        start_from = str(described["Id"])
        release = _distribution.find_release(source)
    except _distribution.RegistrySilent as silent:
        release = _distribution.choose_release(wanted or DEFAULT_BASE, bool(wanted), str(silent))
        start_from = made_here = _distribution.import_release(engine, release)
        origin = release.image
    tags = {base_tag(wanted), base_tag(origin)}
    try:
        image = set_up(engine, start_from, release, origin, sorted(tags))
    except BaseException:
        if made_here:
            engine.remove_image(made_here, force=True)
        raise
    if outdated is not None and outdated["Id"] != image:
        # It stays where machines or committed images still need it.
        with contextlib.suppress(EngineError):
            engine.remove_image(outdated["Id"])
    step("The base image %s:%s is ready", BASE_REPOSITORY, base_tag(wanted))
    return image


def set_up(
    engine: Engine,
    start_from: str,
    release: _distribution.Release | None,
    origin: str,
    tags: list[str],
) -> str:
    """
    Run the recipe in a container of the distribution's image and commit it.

    :param engine: The engine.
    :param start_from: The id of the distribution's image.
    :param release: The distribution's release, None when it is not known.
    :param origin: The name of the distribution's image.
    :param tags: The tags the base image gets.
    :returns: The id of the base image.
    :raises BaseImageFailed: A step failed.
    """
    name = f"redock-build-{os.urandom(4).hex()}"
    sources = _distribution.apt_sources(release) if release else ""
    locale = os.environ.get("LANG", "")
    files = {path: (mode, text.encode()) for path, (mode, text) in _recipe.files().items()}
    engine.create_container(
        name,
        {
            "Image": start_from,
            "User": "root",
            "WorkingDir": "/",
            "Entrypoint": [],
            "Cmd": ["sh", "/redock-setup", locale if _distribution.is_locale(locale) else ""],
            "Labels": {KIND: "build"},
        },
    )
    try:
        engine.put_archive(
            name,
            "/",
            archive(
                {
                    "redock-files.tar": (0o600, archive(files)),
                    "redock-setup": (0o700, _recipe.setup_script().encode()),
                    "redock-sources": (0o644, sources.encode()),
                }
            ),
        )
        run_setup(engine, name)
        changes = [
            f'CMD ["{_recipe.BOOT}"]',
            *label_changes(
                {KIND: "base", label("recipe"): _recipe.fingerprint(), label("base"): origin}
            ),
        ]
        step("Saving the base image")
        image = engine.commit(name, BASE_REPOSITORY, tags[0], changes=changes)
    finally:
        engine.remove_container(name)
    for tag in tags[1:]:
        engine.tag_image(image, BASE_REPOSITORY, tag)
    return image


def run_setup(engine: Engine, container: str) -> None:
    """
    Run the recipe's script and show what it prints.

    :param engine: The engine.
    :param container: The container that was prepared for it.
    :raises BaseImageFailed: It ended with a nonzero status, or not in time.
    """
    import threading

    stop = threading.Timer(BUILD_PATIENCE, engine.remove_container, [container])
    stop.daemon = True
    stop.start()
    printed: list[str] = []
    try:
        stream = engine.attach(container, "stdout", "stderr")
        try:
            # Packages may take a while without a word; the timer above bounds the wait.
            stream.socket.settimeout(None)
            engine.begin_start(container).result()
            for line in lines_of(stream):
                printed.append(line)
                if line.startswith("redock: "):
                    step("Base image: %s", line.removeprefix("redock: "))
                else:
                    detail(line)
        finally:
            stream.close()
        state = engine.inspect_container(container)["State"]
    except NotFound as error:
        raise BaseImageFailed(
            f"making the base image took longer than {BUILD_PATIENCE:g} seconds",
            "\n".join(printed[-20:]),
        ) from error
    finally:
        stop.cancel()
    if state.get("ExitCode") != 0:
        log = "\n".join(printed[-20:])
        raise BaseImageFailed(
            f"making the base image failed with status {state.get('ExitCode')}:"
            f" {last_lines(log, 1) or 'it printed nothing'}",
            log,
        )


def lines_of(stream: Any) -> Any:
    """
    Split the output of a container into lines that are safe on a terminal.

    :param stream: Yields bytes of the API's multiplexed format.
    :returns: Yields lines.
    """
    import codecs

    text = ""
    # A letter may be split between two pieces.
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    for data in join_frames(stream):
        text += decode(data)
        *lines, text = text.replace("\r", "\n").split("\n")
        yield from (printable(line) for line in lines if line.strip())
    if text.strip():
        yield printable(text)


def download_image(client: Client, repository: str, tag: str) -> None:
    """
    Download an image, unless it is there already.

    :param client: Connection to the engine (:class:`docker.APIClient`).
    :param repository: The name of the image's repository.
    :param tag: The name of the image's tag.
    :raises ImageUnavailable: The registry has no such image, or does not answer.
    """
    engine = Engine.of(client)
    if find_named_image(engine, repository, tag):
        return
    step("Downloading the image %s:%s", repository, tag)
    for event in pull_events(engine, repository, tag):
        if "error" in event:
            refuse_pull(f"{repository}:{tag}", str(event["error"]), 0)
        detail(" ".join(str(event.get(key, "")) for key in ("id", "status", "progress")).strip())
    if not find_named_image(engine, repository, tag):
        raise ImageUnavailable(f"the image {repository}:{tag} was downloaded but is not there")


def pull_events(engine: Engine, repository: str, tag: str) -> Any:
    """
    Follow a download, without waiting for ever.

    :param engine: The engine.
    :param repository: The name of the image's repository.
    :param tag: The name of the image's tag.
    :returns: Yields the engine's reports.
    :raises RegistrySilent: Nothing came for too long, or the registry cannot be reached.
    :raises ImageUnavailable: The registry refused.
    """
    import queue
    import threading

    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    done = object()

    def follow() -> None:
        try:
            for event in engine.client.pull(repository, tag, stream=True, decode=True):
                reports.put(event)
            reports.put(done)
        except Exception as error:
            # It belongs to the thread that waits, whatever it is.
            reports.put(error)

    threading.Thread(target=follow, daemon=True).start()
    patience = REGISTRY_PATIENCE
    while True:
        try:
            report = reports.get(timeout=patience)
        except queue.Empty:
            raise _distribution.RegistrySilent(
                f"no registry answered within {patience:g} seconds for {repository}:{tag}"
            ) from None
        if report is done:
            return
        if isinstance(report, Exception):
            if not isinstance(report, failures()):
                raise report
            status = getattr(getattr(report, "response", None), "status_code", 0)
            reason = getattr(report, "explanation", None) or report
            refuse_pull(f"{repository}:{tag}", str(reason), status)
        patience = DOWNLOAD_PATIENCE
        yield report


def refuse_pull(image: str, reason: str, status: int) -> None:
    """
    Tell a registry that has no such image from one that does not answer.

    :param image: The image that was asked for.
    :param reason: What the engine said.
    :param status: The HTTP status of its answer.
    :raises ImageUnavailable: The registry refused.
    :raises RegistrySilent: It cannot be reached.
    """
    reason = " ".join(reason.split())
    answered = ("not found", "manifest unknown", "denied", "unauthorized", "no matching manifest")
    known = any(word in reason.lower() for word in answered)
    if known or (status == 404 and "no such host" not in reason):
        raise ImageUnavailable(f"the image {image} cannot be downloaded: {reason}")
    # Of "Get URL: dial tcp: lookup HOST: no such host" the end says it.
    brief = reason.rpartition("dial tcp: ")[2]
    raise _distribution.RegistrySilent(f"no registry answered for {image} ({brief})")


def find_named_image(client: Client, repository: str, tag: str) -> str | None:
    """
    Find the most recent image of a name.

    :param client: Connection to the engine (:class:`docker.APIClient`).
    :param repository: The name of the image's repository.
    :param tag: The name of the image's tag.
    :returns: The unique id of the image, None when there is none.
    """
    try:
        described = Engine.of(client).inspect_image(f"{repository}:{tag}")
    except EngineError as error:
        # 400: not the name of an image at all.
        if error.status == 400:
            return None
        raise
    return str(described["Id"]) if described else None
