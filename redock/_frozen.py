"""
Containers that an engine froze and does not know of any more.

With control groups of version 1 that happens to one that is killed in the middle of a pause, and to
commands that are started at the moment of a pause. No request of the API ends it.
"""

from __future__ import annotations

from redock._files import read_bytes
from redock.errors import RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock._engine import Engine

__all__ = ["find_frozen", "remedy", "thaw"]

#: Where the kernel says which containers are frozen; cgroups(7), version 1.
FREEZER = "/sys/fs/cgroup/freezer/docker/{}/freezer.state"


def find_frozen(engine: Engine, container: str) -> str | None:
    """
    Find out whether the processes of a container are frozen, whatever the engine says.

    :param engine: The engine.
    :param container: The id of the container.
    :returns: The file that says so; None where they are not, or nobody here can know.
    """
    path = FREEZER.format(container)
    state = read_bytes(path) if engine.endpoint.is_local else None
    return path if state is not None and state.strip() == b"FROZEN" else None


def remedy(path: str) -> str:
    """
    Say how to let processes go on.

    :param path: What :func:`find_frozen` found.
    :returns: A command.
    """
    return f"echo THAWED | sudo tee {path}"


def thaw(path: str, name: str) -> None:
    """
    Let processes go on, as whoever may do that.

    :param path: What :func:`find_frozen` found.
    :param name: What to call the container.
    :raises RedockError: Only root may; the message says how.
    """
    try:
        # In place: it is the kernel that reads it.
        with open(path, "w", encoding="ascii") as handle:
            handle.write("THAWED")
    except OSError as error:
        raise RedockError(
            f"the engine says that {name} runs, but its processes are frozen: {remedy(path)}"
        ) from error
