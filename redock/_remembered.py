"""
What this user's redock remembers of a machine beside the engine, in a file a machine.

The values of environment variables, because neither labels nor images are a
place for secrets; which options were saved with which disk, because a label of
somebody else's image must not open doors on this host; and how far the making
of a new container has come.
"""

from __future__ import annotations

import json
import logging
import os

from redock._files import (
    atomic_write,
    collect_strays,
    ensure_directory,
    path_in_home,
    read_bytes,
    remove_file,
)
from redock._ssh import fragment_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["exists", "forget", "move", "recall", "remember"]

logger = logging.getLogger(__name__)

#: How many different sets of options that were saved are remembered of a machine.
MOST_SAVED = 50


def path_of(name: str) -> str:
    """
    Get the pathname of the file of a machine.

    :param name: The name of its image, ``REPOSITORY:TAG``.
    :returns: A pathname.
    """
    return path_in_home("options", f"{os.path.basename(fragment_file(name))}.json")


def exists(name: str) -> bool:
    """
    Check whether anything is remembered of a machine.

    :param name: The name of its image.
    :returns: True when something is.
    """
    return os.path.exists(path_of(name))


def recall(name: str) -> dict[str, Any]:
    """
    Get what is remembered of a machine.

    :param name: The name of its image.
    :returns: ``env``: values by name; ``saved``: labels of saved disks; ``agent``: whether it is
              forwarded, where that was changed after the start; ``moving``: the disk of a machine
              that is between two containers; ``image``: a disk that has no name. Nothing where
              nothing is remembered or the file makes no sense.
    """
    contents = read_bytes(path_of(name))
    if contents is None:
        return {}
    kinds = {"env": dict, "saved": list, "agent": bool, "moving": dict, "image": str}
    try:
        loaded = json.loads(contents)
        return {
            key: loaded[key] for key, kind in kinds.items() if isinstance(loaded.get(key), kind)
        }
    except (ValueError, AttributeError, RecursionError) as error:
        logger.warning("%s makes no sense (%s): leaving it aside", path_of(name), error)
        return {}


def remember(name: str, **changes: Any) -> None:
    """
    Remember something of a machine; the caller holds the machine's lock.

    :param name: The name of its image.
    :param changes: Values by key, see :func:`recall`; None or nothing forgets one.
    """
    before = recall(name)
    known = {key: value for key, value in {**before, **changes}.items() if value not in (None, {})}
    if "saved" in known:
        known["saved"] = list(dict.fromkeys(map(str, known["saved"])))[-MOST_SAVED:]
    if known == before:
        return
    if not known:
        forget(name)
        return
    path = path_of(name)
    ensure_directory(os.path.dirname(path))
    collect_strays(os.path.dirname(path), os.path.basename(path))
    atomic_write(path, json.dumps(known, indent=1, sort_keys=True).encode() + b"\n")


def forget(name: str) -> None:
    """
    Forget everything of a machine.

    :param name: The name of its image.
    """
    remove_file(path_of(name))


def move(name: str, new_name: str) -> None:
    """
    Remember under another name what is remembered of a machine; the caller holds both locks.

    :param name: The name of its image.
    :param new_name: The new name.
    """
    known = recall(name)
    if known:
        remember(new_name, **known)
        forget(name)
