"""
What the plugin does while tests run: the hooks of a run that uses clusters.
"""

from __future__ import annotations

import pytest

from redock.errors import FaultUnsupported, RedockError
from redock.pytest_plugin import _report, _wanted
from redock.pytest_plugin._session import FAILED, Managed, RedockSession
from redock.pytest_plugin._workers import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from redock.cluster import Capabilities

__all__ = ["Running"]

#: The fixtures that a base cluster depends on, or that depend on it without pytest's knowledge.
WATCHED = ("base_cluster", "cluster_spec", "host")


class Running:
    """
    Takes part in a run, from the moment it is known that a test uses redock.

    :param config: pytest's configuration.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.session = RedockSession.of(config)
        #: The fixtures that are set up: definition and request by name.
        self.fixtures: dict[str, tuple[pytest.FixtureDef[Any], Any]] = {}
        #: What the base cluster was made from.
        self.key = ""
        self.able: Capabilities | None = None

    def pytest_report_collectionfinish(self) -> str:
        """
        Say what is needed to do it again.

        :returns: A line for the terminal.
        """
        return f"redock: run {self.session.run}, --redock-seed={self.session.seed}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """
        Make sure the base cluster is what a test wants, before its fixtures ask for it.

        :param item: The test.
        """
        self.session.item = item
        for managed in self.session.live:
            managed.mark = managed.cluster.timeline.now()
        self.require_faults(item)
        if "cluster_spec" in getattr(item, "fixturenames", ()):
            key = _wanted.key_for(_wanted.settings_for(item))
            if key != self.key:
                self.finish("host", "cluster_spec")
            self.key = key

    def require_faults(self, item: pytest.Item) -> None:
        """
        Skip a test that needs faults the engine cannot make.

        :param item: The test.
        """
        names = [name for marker in item.iter_markers("requires_fault") for name in marker.args]
        if not names:
            return
        reason = ""
        for name in names:
            try:
                self.capabilities().require(name)
            except FaultUnsupported as error:
                reason = str(error)
        if reason:
            self.give_up(reason)

    def capabilities(self) -> Capabilities:
        """
        Find out which faults the engine can make, once.

        :returns: What it can make.
        """
        if self.able is None:
            from redock.cluster import capabilities

            self.able = capabilities()
        return self.able

    def give_up(self, reason: str) -> None:
        """
        Skip a test, or let it fail where nothing may be missed.

        :param reason: Why.
        """
        if self.session.options.strict_faults:
            pytest.fail(f"{reason} (--redock-strict-faults)", pytrace=False)
        pytest.skip(reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: Any
    ) -> Generator[None, object, object]:
        """
        Remember how the base cluster can be had anew.

        :param fixturedef: The fixture that is set up.
        :param request: By whom it is.
        """
        if fixturedef.argname in WATCHED:
            self.fixtures[fixturedef.argname] = fixturedef, request
        return (yield)

    def finish(self, *names: str) -> None:
        """
        End fixtures, and with them all that depend on them; who asks next gets new ones.

        :param names: Their names.
        """
        for name in names:
            if name in self.fixtures:
                definition, request = self.fixtures.pop(name)
                definition.finish(request)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """
        Skip a test that finds out itself that the engine cannot make a fault.

        :param item: The test.
        """
        try:
            return (yield)
        except FaultUnsupported as error:
            if self.session.options.strict_faults:
                raise
            reason = str(error)
        self.give_up(reason)
        return None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """
        Add to the report of a test what is known about its clusters, which it has just left.

        :param item: The test.
        :param call: What was run: its setup, itself or its teardown.
        """
        report = yield
        if report.failed:
            item.stash[FAILED] = True
        if call.when == "call" or (call.when == "setup" and report.failed):
            used = [managed for managed in self.session.live if is_used(managed)]
            if report.failed and self.session.options.keep != "never":
                for managed in used:
                    self.session.keep(managed)
            if used:
                _report.add(self.session, name_of(item), report, used, self.session.seed)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """
        Replace a base cluster that is kept, or that could not be rewound.

        :param item: The test.
        :param nextitem: The next one.
        """
        self.session.next = nextitem
        try:
            return (yield)
        finally:
            if self.session.spent or any(managed.kept for managed in self.session.live):
                self.finish("host", "base_cluster")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Take down what is left, and tell the controller about the rest."""
        self.session.close()
        output = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["redock"] = self.told()

    def told(self) -> dict[str, Any]:
        """
        Sum up the run.

        :returns: Plain values, for the controller.
        """
        able: dict[str, str] = {}
        if self.session.made or self.able is not None:
            try:
                able = {name: str(each) for name, each in self.capabilities().items()}
            except RedockError as error:
                able = {"unknown": str(error)}
        return {
            "made": self.session.made,
            "kept": self.session.kept,
            "artifacts": self.session.artifacts if self.session.collected else "",
            "capabilities": able,
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """
        Say what became of the clusters.

        :param terminalreporter: Where to say it.
        """
        session = self.session
        _report.summarize(terminalreporter, session.run, session.seed, [self.told()])


def is_used(managed: Managed) -> bool:
    """
    Check whether a test has had to do with a cluster.

    :param managed: The cluster.
    :returns: True when anything has happened in it since the test began.
    """
    return bool(managed.cluster.timeline.since(managed.mark)) and len(managed.cluster.nodes) > 0
