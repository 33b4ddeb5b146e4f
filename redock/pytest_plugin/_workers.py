"""
Several workers at one test run: what pytest-xdist has to be told.
"""

from __future__ import annotations

import contextlib
import logging
import os

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Controller", "group", "name_of"]

logger = logging.getLogger("redock.pytest")

CONTROLLER = pytest.StashKey["Controller"]()
NAME = pytest.StashKey[str]()


class Controller:
    """
    The process that hands tests to workers.

    :param config: pytest's configuration.
    """

    def __init__(self, config: pytest.Config) -> None:
        from redock.pytest_plugin._session import choose_seed

        self.run = os.urandom(6).hex()
        self.seed = choose_seed(config)
        #: What workers said at their end.
        self.told: list[dict[str, Any]] = []
        #: Whether a worker died.
        self.died = False
        config.pluginmanager.register(self, "redock-controller")

    @classmethod
    def of(cls, config: pytest.Config) -> Controller:
        """
        Get the controller of a run; there is one.

        :param config: pytest's configuration.
        :returns: The controller.
        """
        if CONTROLLER not in config.stash:
            config.stash[CONTROLLER] = cls(config)
        return config.stash[CONTROLLER]

    def introduce(self, node: Any) -> None:
        """
        Tell a worker which run it belongs to.

        :param node: The worker.
        """
        node.workerinput["redock_run"] = self.run
        node.workerinput["redock_seed"] = self.seed

    def part(self, node: Any, *, died: bool) -> None:
        """
        Hear what a worker has to say, and tidy up after one that died.

        :param node: The worker.
        :param died: Whether it did not end in order.
        """
        told = getattr(node, "workeroutput", {}).get("redock")
        if told:
            self.told.append(told)
        if died:
            from redock._engine import Engine
            from redock.cluster import _process
            from redock.errors import RedockError

            self.died = True
            # Its own watchdog does the same; whether there is an engine at all is not known here.
            with contextlib.suppress(RedockError):
                _process.sweep(Engine())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """
        Say what became of the clusters.

        :param terminalreporter: Where to say it.
        """
        if self.told:
            from redock.pytest_plugin import _report

            _report.summarize(terminalreporter, self.run, self.seed, self.told)

    def pytest_unconfigure(self) -> None:
        """Remove what workers have left, when the last one has gone."""
        if self.told or self.died:
            from redock._engine import Engine
            from redock.cluster import _process
            from redock.errors import RedockError

            try:
                _process.remove_run(Engine(), self.run)
            except RedockError as error:
                logger.warning("Clusters of this run may be left: %s", error)


def group(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Keep tests that can share a cluster on one worker, under ``--dist loadgroup``.

    :param config: pytest's configuration.
    :param items: The tests that use redock.
    """
    for item in items:
        # pytest-xdist appends the group to it.
        item.stash[NAME] = item.nodeid
    if not config.getoption("loadgroup", False):
        return
    from redock.pytest_plugin import _options, _wanted

    kinds: dict[str, type[pytest.Collector]] = {
        "class": pytest.Class,
        "module": pytest.Module,
        "package": pytest.Package,
    }
    kind = kinds.get(_options.read(config).scope)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            shared = item.getparent(kind) if kind is not None else None
            key = _wanted.key_for(
                {"spec": _wanted.settings_for(item), "in": shared.nodeid if shared else ""}
            )
            item.add_marker(pytest.mark.xdist_group(f"redock-{key}"))


def name_of(item: pytest.Item) -> str:
    """
    Get the name of a test, without what workers are told by it.

    :param item: The test.
    :returns: What to give to pytest to run it.
    """
    return item.stash.get(NAME, item.nodeid)
