"""
Fixtures for test suites of clusters: a cluster a test, rewound after each.

pytest loads this module in every run of every project that shares an
installation with redock, so it imports nothing and does nothing until a test
asks for a cluster.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from redock.cluster import Cluster, Nemesis, Node
    from redock.pytest_plugin._session import RedockSession

__all__ = [
    "base_cluster",
    "cluster",
    "cluster_factory",
    "cluster_spec",
    "nemesis",
    "node",
    "redock_session",
]

MARKERS = {
    "cluster(nodes, **settings)": "what the cluster of a test is to be: how many nodes, or their"
    " names or specifications, and what holds for all of them (packages, provision, ...)",
    "rollback(when)": "go back to the base state after the test: always (default), failed, never",
    "requires_fault(*names)": "skip the test where the engine cannot make such faults",
    "nemesis(**settings)": "how the fixture nemesis is to break the cluster: faults, interval,"
    " duration",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """
    Add the command line options.

    :param parser: pytest's parser.
    """
    from redock.pytest_plugin import _options

    _options.add(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """
    Add the hooks that a test suite can implement.

    :param pluginmanager: pytest's plugins.
    """
    from redock.pytest_plugin import _hooks

    pluginmanager.add_hookspecs(_hooks)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """
    Register the markers, and the fixture ``host`` where pytest-testinfra is installed.

    :param config: pytest's configuration.
    """
    import importlib.util

    from redock.pytest_plugin import _options

    # A mistake is told before anything is done.
    _options.read(config)
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    if importlib.util.find_spec("testinfra") is not None:
        from redock.pytest_plugin import _testinfra

        _testinfra.register(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Take part in the run when a test uses redock.

    :param config: pytest's configuration.
    :param items: The tests.
    """
    used = [item for item in items if uses_redock(item)]
    if used:
        from redock.pytest_plugin import _running, _workers

        _workers.group(config, used)
        config.pluginmanager.register(_running.Running(config), "redock-running")


def uses_redock(item: pytest.Item) -> bool:
    """
    Check whether a test uses anything of this plugin.

    :param item: The test.
    :returns: True when it does.
    """
    # All our fixtures need this one; those of others may have the same names as ours.
    names = getattr(item, "fixturenames", ())
    if "redock_session" in names or item.get_closest_marker("requires_fault"):
        return True
    return "host" in names and item.get_closest_marker("cluster") is not None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """
    Tell a worker of pytest-xdist which run it belongs to.

    :param node: The worker, as its controller sees it.
    """
    from redock.pytest_plugin import _workers

    _workers.Controller.of(node.config).introduce(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """
    Hear the report of a worker of pytest-xdist, and tidy up after one that died.

    :param node: The worker, as its controller sees it.
    :param error: Why it died, None when it ended in order.
    """
    from redock.pytest_plugin import _workers

    _workers.Controller.of(node.config).part(node, died=error is not None)


def scope(fixture_name: str, config: pytest.Config) -> Any:
    """
    Choose how long a base cluster lives.

    :param fixture_name: The fixture.
    :param config: pytest's configuration.
    :returns: The scope.
    """
    from redock.pytest_plugin import _options

    return _options.read(config).scope


@pytest.fixture(scope="session")
def redock_session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> RedockSession:
    """The run: its id, its seed, its options and the clusters it has made."""
    from redock.pytest_plugin._session import RedockSession

    session = RedockSession.of(request.config)
    session.factory = tmp_path_factory
    return session


@pytest.fixture(scope="session")
def cluster_factory(redock_session: RedockSession) -> Callable[..., Cluster]:
    """
    Make clusters: called with settings as for :class:`Cluster`, returns one that is started.

    It goes at the end of the run, or before that with its ``down()``.
    """
    return redock_session.make


@pytest.fixture(scope=scope)
def cluster_spec(redock_session: RedockSession) -> Any:
    """
    What the base cluster is to be; override it to say so in Python.

    A number of nodes, a list of names or specifications, the pathname of a TOML file, or a
    mapping of the parameters of :class:`Cluster` (default: what the marker ``cluster`` says).
    """
    return redock_session.wanted()


@pytest.fixture(scope=scope)
def base_cluster(redock_session: RedockSession, cluster_spec: Any) -> Iterator[Cluster]:
    """
    The cluster that tests start from, for fixtures of a wide scope that prepare it.

    What they do to it before a test becomes part of its state ``base``.
    """
    with redock_session.base(cluster_spec) as made:
        yield made


@pytest.fixture
def cluster(
    request: pytest.FixtureRequest, redock_session: RedockSession, base_cluster: Cluster
) -> Iterator[Cluster]:
    """The cluster, in its base state; healed and rewound after the test."""
    redock_session.begin(request.node, base_cluster)
    yield base_cluster
    redock_session.end(request.node, base_cluster)


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """The first node of the cluster."""
    return cluster.nodes[0]


@pytest.fixture
def nemesis(
    request: pytest.FixtureRequest, redock_session: RedockSession, cluster: Cluster
) -> Iterator[Nemesis]:
    """
    What breaks the cluster at random, the same way for the same seed; start it in the test.

    The marker ``nemesis`` says how. It is stopped, and what it made is healed, after the test.
    """
    from redock.cluster import Nemesis

    settings: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("nemesis"))):
        settings.update(marker.kwargs)
        if marker.args:
            settings["faults"] = marker.args
    settings.setdefault("seed", redock_session.seed_for(request.node))
    made = Nemesis(cluster, **settings)
    yield made
    made.stop()
