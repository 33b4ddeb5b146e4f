"""
The container engine: what redock asks of it, a method a request.

API: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

from redock._containers import Containers, short
from redock._http import quote
from redock._json_text import dumps
from redock._names import familiar
from redock._transport import Pending
from redock.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["KIND", "LABEL", "Engine", "label", "label_changes"]

#: The name space of all labels redock puts on what it makes.
LABEL = "io.redock."
KIND = LABEL + "kind"
#: What values of labels of images are made of, and how one is written that is empty.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/@%~")
EMPTY = '""'
#: Seconds the removal of an image may take: its layers are deleted file by file.
REMOVAL_PATIENCE = 600.0


def label(name: str) -> str:
    """
    Get the full name of a label of redock's.

    :param name: Its short name, for instance ``"instance"``.
    :returns: The name with redock's name space in front.
    """
    return LABEL + name


def label_changes(marks: Mapping[str, str]) -> list[str]:
    """
    Say which labels an image is to have.

    One instruction a label, and nothing in it that needs quoting: to Podman 4 everything behind the
    first ``=`` is the value, and backslashes are part of it.

    :param marks: The labels; their values are of letters, digits and what names are made of.
    :returns: Instructions of a Dockerfile.
    """
    for key, value in marks.items():
        assert PLAIN.issuperset(value), f"{key} needs quoting: {value}"
    return [f"LABEL {key}={value or EMPTY}" for key, value in marks.items()]


class Named(Pending):
    """A list of images under way."""

    def result(self) -> Any:
        """
        Wait for it.

        :returns: The API's summaries. Podman gives names with the registry they are from, or would
                  be from; here they are what Docker calls them, and what we called them.
        """
        response = self.response()
        found = self.decode(response) or []
        self.engine.is_podman = "libpod-api-version" in response.headers
        if self.engine.is_podman:
            for each in found:
                names = each.get("RepoTags") or ()
                each["RepoTags"] = [familiar(name) for name in names]
        return found


class Engine(Containers):
    """
    A container engine.

    Basics: one method a request, named as in the Engine API. Identifiers are
    names or ids; answers are the API's JSON.

    Lifecycle and thread safety: see :class:`~redock._transport.Transport`.
    """

    # Networks.

    def create_network(self, name: str, config: Mapping[str, Any]) -> str:
        """
        Create a network.

        :param name: Its name.
        :param config: The API's configuration, without the name.
        :returns: The id of the network.
        """
        body = {"Name": name, "CheckDuplicate": True, **config}
        made = self.request("POST", "/networks/create", f"create the network {name}", body=body)
        return str(made["Id"])

    def connect_network(self, name: str, container: str, aliases: Sequence[str] = ()) -> None:
        """
        Attach a container to a network.

        :param name: The name or id of the network.
        :param container: The name or id of the container.
        :param aliases: What else the others in the network can call it (default: nothing).
        """
        body = {"Container": container, "EndpointConfig": {"Aliases": list(aliases)}}
        what = f"attach the container {short(container)} to the network {name}"
        self.request("POST", f"/networks/{quote(name)}/connect", what, body=body)

    def disconnect_network(self, name: str, container: str) -> None:
        """
        Detach a container from a network.

        :param name: The name or id of the network.
        :param container: The name or id of the container.
        """
        what = f"detach the container {short(container)} from the network {name}"
        body = {"Container": container}
        self.request("POST", f"/networks/{quote(name)}/disconnect", what, body=body)

    def networks(self, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """
        List networks.

        :param filters: The API's filters.
        :returns: The API's descriptions.
        """
        query = {"filters": dumps(filters)}
        return list(self.request("GET", "/networks", "list networks", query=query) or ())

    def remove_network(self, name: str) -> None:
        """
        Remove a network; fine if there is none.

        :param name: Its name or id.
        """
        from contextlib import suppress

        with suppress(NotFound):
            self.request("DELETE", f"/networks/{quote(name)}", f"remove the network {name}")

    # Images and volumes.

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        """
        Get everything about an image.

        :param image: Its name or id.
        :returns: The API's description, None when there is no such image.
        """
        try:
            path = f"/images/{quote(image)}/json"
            return dict(self.request("GET", path, f"inspect the image {image}"))
        except NotFound:
            return None

    def image_history(self, image: str) -> list[dict[str, Any]]:
        """
        Get the steps an image was made in.

        :param image: Its name or id.
        :returns: The API's descriptions, the last step first.
        """
        path = f"/images/{quote(image)}/history"
        return list(self.request("GET", path, f"get the history of the image {image}") or ())

    def images(self, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """
        List images.

        :param filters: The API's filters.
        :returns: The API's summaries.
        """
        return list(self.begin_images(filters).result() or ())

    def begin_images(self, filters: Mapping[str, Sequence[str]]) -> Pending:
        """
        Ask for a list of images, without waiting for it.

        :param filters: The API's filters.
        :returns: The request under way; its result is the API's summaries.
        """
        query = {"filters": dumps(filters)}
        pending = self.begin("GET", "/images/json", "list images", query=query)
        return Named(self, pending.request, pending.what)

    def tag_image(self, image: str, repository: str, tag: str) -> None:
        """
        Give an image another name.

        :param image: Its name or id.
        :param repository: The repository.
        :param tag: The tag.
        """
        query = {"repo": repository, "tag": tag}
        self.request("POST", f"/images/{quote(image)}/tag", f"tag the image {image}", query=query)

    def remove_image(self, image: str, *, force: bool = False) -> bool:
        """
        Remove the name of an image and, with its last name, the image.

        :param image: Its name or id.
        :param force: Also when stopped containers were made from it.
        :returns: False when there was no such image.
        """
        query = {"force": int(force)}
        try:
            path = f"/images/{quote(image)}"
            what = f"remove the image {image}"
            self.request("DELETE", path, what, query=query, timeout=REMOVAL_PATIENCE)
        except NotFound:
            return False
        return True

    def remove_volume(self, name: str) -> None:
        """
        Remove a volume; fine if there is none.

        :param name: Its name.
        """
        from contextlib import suppress

        with suppress(NotFound):
            self.request("DELETE", f"/volumes/{quote(name)}", f"remove the volume {name}")

    def create_volume(self, name: str, labels: Mapping[str, str], **options: Any) -> None:
        """
        Create a volume; fine if there is one of that name.

        :param name: Its name.
        :param labels: Its labels.
        :param options: The API's other settings, for instance ``DriverOpts``.
        """
        body = {"Name": name, "Labels": dict(labels), **options}
        self.request("POST", "/volumes/create", f"create the volume {name}", body=body)

    def volumes(self, filters: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """
        List volumes.

        :param filters: The API's filters.
        :returns: The API's descriptions.
        """
        query = {"filters": dumps(filters)}
        answer = self.request("GET", "/volumes", "list volumes", query=query)
        return list((answer or {}).get("Volumes") or ())

    def info(self) -> dict[str, Any]:
        """
        Get what the engine says about itself and its host.

        :returns: The API's description.
        """
        return dict(self.request("GET", "/info", "describe itself"))

    def version(self) -> dict[str, Any]:
        """
        Get the version of the engine.

        :returns: The API's description.
        """
        return dict(self.request("GET", "/version", "tell its version", timeout=10.0))
