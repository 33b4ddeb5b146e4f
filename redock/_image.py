"""
Names of images, and what is known about a running container: the small values of the API.
"""

from __future__ import annotations

from redock._names import split_image_name
from redock.errors import InvalidName

__all__ = ["Image", "Session"]


class Image:
    """
    The name of an image, and its id where that is known.

    :param repository: The name of the image's repository.
    :param tag: The image's tag.
    :param id: The unique hash of the image (default: not known).
    """

    def __init__(self, repository: str, tag: str, id: str | None = None) -> None:
        self.repository = repository
        self.tag = tag
        self.id = id

    @staticmethod
    def coerce(value: str | Image) -> Image:
        """
        Turn the name of an image into an :class:`Image`.

        :param value: ``REPOSITORY:TAG``, or just ``TAG`` for a repository named after the user
                      (``$USER``); an :class:`Image` is returned as it is.
        :returns: The image.
        :raises InvalidName: The name is outside the grammar (this is a :exc:`ValueError`).
        """
        if isinstance(value, Image):
            return value
        if not isinstance(value, str):
            raise InvalidName(f"the name of an image must be text, not {type(value).__name__}")
        return Image(*split_image_name(value))

    @property
    def key(self) -> tuple[str, str]:
        """The repository and the tag."""
        return self.repository, self.tag

    @property
    def name(self) -> str:
        """The name for people: ``REPOSITORY:TAG``."""
        return f"{self.repository}:{self.tag}"

    @property
    def unique_name(self) -> str:
        """The name for machines: the unique hash if it is known, else ``REPOSITORY:TAG``."""
        return self.id or self.name

    def __repr__(self) -> str:
        return f"Image({self.repository!r}, {self.tag!r}, id={self.id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and (self.key, self.id) == (other.key, other.id)

    def __hash__(self) -> int:
        return hash((self.key, self.id))


class Session:
    """What is known about the running container; None while it is not known."""

    #: The engine's id of the container.
    container_id: str | None
    #: The id redock gave to this very container.
    instance: str | None
    #: The address of its SSH server on the host.
    address: str | None
    #: The port of its SSH server on the host.
    port: int | None
    #: The name to give to ``ssh``.
    ssh_alias: str | None
    #: The host name inside the container.
    hostname: str | None
    #: Whom ``ssh`` logs in as.
    user: str | None
    #: Whether ``ssh`` forwards the user's agent.
    agent: bool | None

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything: set all variables to None."""
        self.container_id = self.instance = self.address = None
        self.port = None
        self.ssh_alias = self.hostname = self.user = None
        self.agent = None
