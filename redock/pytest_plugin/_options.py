"""
The options of the plugin, from the command line or from the project's ini file.
"""

from __future__ import annotations

import dataclasses
import os

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Options", "add", "read"]

SCOPES = ("function", "class", "module", "package", "session")
WHEN = ("failed", "all", "no")
KEEP = ("never", "failed", "always")


@dataclasses.dataclass(frozen=True)
class Options:
    """
    How the run is to be.

    :param scope: How long a base cluster lives.
    :param keep: Which clusters outlive the run: ``never``, ``failed`` or ``always``.
    :param reuse: Whether base clusters are kept for the next run and found by it.
    :param artifacts: The directory for evidence; None for pytest's own temporary directory.
    :param logs: For which tests logs are collected: ``failed``, ``all`` or ``no``.
    :param timeline: For which tests timelines are drawn: ``failed``, ``all`` or ``no``.
    :param seed: What everything random is made from; None for a random one.
    :param max_clusters: How many clusters there may be at a time on this host; None for any.
    :param strict_faults: Whether tests fail that need faults the engine cannot make.
    """

    scope: str = "module"
    keep: str = "never"
    reuse: bool = False
    artifacts: str | None = None
    logs: str = "failed"
    timeline: str = "failed"
    seed: int | None = None
    max_clusters: int | None = None
    strict_faults: bool = False


#: Name, what the command line is told, and what it means; an ini file has the same ones.
TABLE: list[tuple[str, dict[str, Any], str]] = [
    ("scope", {"choices": SCOPES}, "how long a base cluster lives (default: module)"),
    ("keep", {"choices": KEEP}, "which clusters outlive the run (default: never)"),
    ("reuse", {"action": "store_true"}, "keep base clusters for the next run, and find them"),
    ("artifacts", {"metavar": "DIR"}, "where to write logs and timelines of failed tests"
     " (default: a temporary directory of pytest's)"),
    ("logs", {"choices": WHEN}, "for which tests logs are collected (default: failed)"),
    ("timeline", {"choices": WHEN}, "for which tests timelines are drawn (default: failed)"),
    ("seed", {"metavar": "N"}, "what everything random is made from (default: a random one)"),
    ("max-clusters", {"metavar": "N"}, "how many clusters there may be at a time on this host,"
     " in all test runs (default: any number)"),
    ("strict-faults", {"action": "store_true"}, "let tests fail that need faults the engine"
     " cannot make, in place of skipping them"),
]  # fmt: skip


def add(parser: pytest.Parser) -> None:
    """
    Add the options and their equivalents for ini files.

    :param parser: pytest's parser.
    """
    group = parser.getgroup("redock", "clusters of redock")
    for name, settings, meaning in TABLE:
        key = f"redock_{name.replace('-', '_')}"
        default = {"default": None} if "action" not in settings else {"default": False}
        group.addoption(f"--redock-{name}", dest=key, help=meaning, **default, **settings)
        if "action" in settings:
            parser.addini(key, meaning, type="bool", default=False)
        else:
            parser.addini(key, meaning, type="string", default="")


def read(config: pytest.Config) -> Options:
    """
    Read the options; the command line comes before the ini file.

    :param config: pytest's configuration.
    :returns: The options.
    :raises pytest.UsageError: A value makes no sense.
    """
    if KEY not in config.stash:
        found: dict[str, Any] = {}
        for name, settings, _ in TABLE:
            key = f"redock_{name.replace('-', '_')}"
            value = config.getoption(key) or config.getini(key)
            if value in (None, "", False):
                continue
            choices = settings.get("choices")
            if choices and value not in choices:
                raise pytest.UsageError(f"{key}: {value!r} is none of {', '.join(choices)}")
            if settings.get("metavar") == "N":
                value = whole_number(key, value)
            found[key.removeprefix("redock_")] = value
        if found.get("artifacts"):
            # Absolute: a test may change the directory; relative ones start where pytest did.
            found["artifacts"] = os.path.join(config.invocation_params.dir, found["artifacts"])
        if found.get("max_clusters", 1) < 1:
            raise pytest.UsageError("redock_max_clusters: at least one cluster is needed")
        config.stash[KEY] = Options(**found)
    return config.stash[KEY]


KEY = pytest.StashKey[Options]()


def whole_number(key: str, value: str) -> int:
    """
    Read a number.

    :param key: What it is for.
    :param value: The text.
    :returns: The number.
    :raises pytest.UsageError: It is none.
    """
    try:
        return int(value)
    except ValueError:
        raise pytest.UsageError(f"{key}: {value!r} is not a whole number") from None
