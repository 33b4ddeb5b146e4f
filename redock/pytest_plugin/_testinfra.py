"""
The fixture ``host`` of pytest-testinfra, for nodes of a cluster.

pytest-testinfra has a fixture of that name for any host. Tests that use redock
get the first node of their cluster; for all others it is what it was.
"""

from __future__ import annotations

import sys

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
    theirs = config.pluginmanager.is_registered(sys.modules.get("testinfra.plugin"))
    # After theirs, so that ours is found first.
    config.pluginmanager.register(Over() if theirs else Alone(), "redock-testinfra")


def host_for(request: pytest.FixtureRequest) -> Any:
    """
    Get a host of pytest-testinfra for a test.

    :param request: Who asks.
    :returns: The first node of the base cluster; it stays the same when that is rewound.
    """
    import testinfra

    node = request.getfixturevalue("base_cluster").nodes[0]
    return testinfra.get_host(f"ssh://{node.ssh_alias}", ssh_config=node.ssh_config)


class Alone:
    """The fixture where pytest-testinfra is no plugin of this run."""

    @pytest.fixture(scope="module")
    def host(self, request: pytest.FixtureRequest) -> Any:
        """The first node of the cluster, for pytest-testinfra."""
        return host_for(request)


class Over:
    """The fixture in front of the one of pytest-testinfra."""

    @pytest.fixture(scope="module")
    def host(self, request: pytest.FixtureRequest, host: Any) -> Any:
        """The first node of the cluster; in tests without one, what pytest-testinfra says."""
        from redock.pytest_plugin._session import RedockSession

        item = RedockSession.of(request.config).item
        names = getattr(item, "fixturenames", ())
        if item is not None and ("base_cluster" in names or item.get_closest_marker("cluster")):
            return host_for(request)
        return host
