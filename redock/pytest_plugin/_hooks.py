"""
The hooks of the plugin: what a conftest.py or another plugin can have its say in.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock.cluster import Cluster

__all__ = ["pytest_redock_collect", "pytest_redock_provision"]


def pytest_redock_provision(cluster: Cluster) -> None:
    """
    Prepare a cluster that has been booted, before its state ``base`` is saved.

    :param cluster: The cluster.
    """


def pytest_redock_collect(cluster: Cluster, dest: str) -> None:
    """
    Add to the evidence of a test, before its cluster is rewound.

    :param cluster: The cluster, as the test left it.
    :param dest: The directory with what redock has collected.
    """
