"""
The fixture ``host`` of pytest-testinfra, for nodes of a cluster.

pytest-testinfra has a fixture of that name for any host. Tests that use redock
get the first node of their cluster; for all others it is what it was.
"""

from __future__ import annotations

import sys
import types

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["host_for", "register"]


def register(config: pytest.Config) -> None:
    """
    Offer the fixture.

    :param config: pytest's configuration.
    """
    # One that was blocked is registered as None.
    theirs = sys.modules.get("testinfra.plugin") in filter(None, config.pluginmanager.get_plugins())
    # After theirs, so that ours is found first.
    ours = types.ModuleType("redock_testinfra")
    vars(ours)["host"] = in_front if theirs else alone
    config.pluginmanager.register(ours, "redock-testinfra")


def host_for(request: pytest.FixtureRequest) -> Any:
    """
    Get a host of pytest-testinfra for a test.

    :param request: Who asks.
    :returns: The first node of the base cluster; it stays the same when that is rewound.
    """
    import testinfra

    node = request.getfixturevalue("base_cluster").nodes[0]
    return testinfra.get_host(f"ssh://{node.ssh_alias}", ssh_config=node.ssh_config)


@pytest.fixture(scope="module", name="host")
def alone(request: pytest.FixtureRequest) -> Any:
    """The first node of the cluster, for pytest-testinfra."""
    return host_for(request)


@pytest.fixture(scope="module", name="host")
def in_front(request: pytest.FixtureRequest, host: Any) -> Any:
    """The first node of the cluster; in tests without one, what pytest-testinfra says."""
    from redock.pytest_plugin._session import RedockSession

    item = RedockSession.of(request.config).item
    names = getattr(item, "fixturenames", ())
    if item is not None and ("base_cluster" in names or item.get_closest_marker("cluster")):
        return host_for(request)
    return host
