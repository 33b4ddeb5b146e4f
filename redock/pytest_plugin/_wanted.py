"""
What the cluster of a test is to be: markers and fixtures made into settings.
"""

from __future__ import annotations

import dataclasses
import os

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["canonical", "key_for", "settings_for", "settings_of", "source_of"]

#: What a test suite does not decide: the plugin does.
OURS = ("engine", "keep", "name")


def settings_for(item: pytest.Item) -> dict[str, Any]:
    """
    Find out what the markers of a test say.

    :param item: The test.
    :returns: The parameters of a cluster; what is said nearest to the test counts.
    """
    settings: dict[str, Any] = {}
    for node, marker in reversed(list(item.iter_markers_with_node("cluster"))):
        said = settings_of(marker.kwargs)
        if len(marker.args) > 1 or (marker.args and "nodes" in said):
            raise pytest.UsageError(
                f"{node.nodeid}: cluster(...) takes the nodes and settings by name"
            )
        if marker.args:
            said = {**settings_of(marker.args[0], os.path.dirname(str(item.path))), **said}
        settings.update(said)
    return settings


def settings_of(value: object, directory: str = "") -> dict[str, Any]:
    """
    Turn the usual ways to say it into settings.

    :param value: None, a number of nodes, a list of names or specifications, the pathname of a
                  TOML file, or a mapping of parameters of a cluster.
    :param directory: Where a relative pathname starts (default: the current directory).
    :returns: The parameters of a cluster.
    :raises RedockError: The file cannot be read, or makes no sense.
    :raises pytest.UsageError: It is none of these, or says what only the plugin can decide.
    """
    if value is None:
        return {}
    if isinstance(value, (str, os.PathLike)):
        from redock.cluster._spec import read_spec

        spec = read_spec(os.path.join(directory, value))
        return {"nodes": spec.nodes, **({"network": spec.network} if spec.network else {})}
    if isinstance(value, dict):
        ours = [name for name in OURS if name in value]
        if ours:
            raise pytest.UsageError(f"a cluster of a test has no {ours[0]} of its own")
        return dict(value)
    if isinstance(value, (int, list, tuple)):
        return {"nodes": value}
    raise pytest.UsageError(
        f"a cluster is a number of nodes, a list of them, a file or a mapping, not {value!r}"
    )


def key_for(settings: Mapping[str, Any]) -> str:
    """
    Get what equal settings have in common, also in another process.

    :param settings: The parameters of a cluster.
    :returns: Ten hexadecimal digits.
    """
    import hashlib

    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:10]


def canonical(value: object) -> str:
    """
    Write down a value so that equal ones look the same.

    :param value: What a parameter of a cluster can be.
    :returns: A text.
    """
    if isinstance(value, dict):
        pairs = sorted((str(name), canonical(each)) for name, each in value.items())
        return "{" + ", ".join(f"{name}: {each}" for name, each in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(canonical, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(canonical, value))) + "}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return canonical(
            {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        )
    if callable(value):
        return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', repr(value))}"
    return repr(value)


def source_of(function: object) -> str:
    """
    Get the text of the file a function is in.

    :param function: A function, or anything else.
    :returns: The text; empty when there is none.
    """
    import inspect

    from redock._files import read_bytes

    try:
        file = inspect.getsourcefile(inspect.unwrap(function))  # type: ignore[arg-type]
    except TypeError:
        return ""
    return (read_bytes(file) or b"").decode("utf-8", "replace") if file else ""
