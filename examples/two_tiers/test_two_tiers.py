"""
Configuration management under test: two machines, and a second run that changes nothing.

``two_tiers.py`` says what an application server and a proxy are. Here it is tried on two nodes of a
cluster, from scratch for every test.

Run it with ``pytest examples/two_tiers``.

What it shows:

- that the configuration works, as a user of the service sees it: through the proxy;
- that it is idempotent, twice proven: a second run says that it changes nothing, and the disks of
  both nodes say so as well, file by file, whatever the run says;
- that one change of the input is one change of the machines;
- what a user sees when the application is cut off.

What it does not show: how it behaves on machines with systemd, or with another history.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial

import pytest
from two_tiers import PROXY_PORT, provision

from redock.bootstrap import ChangeList, run
from redock.cluster import Cluster, Node


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    """Two nodes that have the packages and nothing else, and a snapshot of them."""
    with Cluster(["app", "proxy"], packages=["nginx-light", "curl"]) as cluster:
        cluster.snapshot("empty")
        yield cluster


@pytest.fixture
def cluster(machines: Cluster) -> Cluster:
    """The same, as good as new."""
    machines.restore("empty")
    return machines


def configure(cluster: Cluster, page: str = "Hello!\n") -> dict[str, ChangeList]:
    """Provision both nodes at the same time, and get what was changed in each."""
    aliases = {node.ssh_alias: node.name for node in cluster}
    changes = {}
    for alias, outcome in run(partial(provision, page=page), *aliases).items():
        if isinstance(outcome, Exception):
            raise outcome
        changes[aliases[alias]] = outcome
    return changes


def files(node: Node) -> dict[str, str]:
    """
    Get the state of every file that is not as it was when the node was booted.

    Which these are is what ``docker diff`` says; what they are like, down to the times, is what
    ``stat`` says. Logs and what belongs to running programs are left out.
    """
    command = ["docker", "diff", node.container_id]
    diff = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    changed = [line[2:] for line in diff.stdout.splitlines()]
    settled = [path for path in changed if not path.startswith(("/run", "/var/log", "/tmp"))]
    states = node.succeed(
        "xargs -d '\\n' stat --format='%n %f %U:%G %s %Y %Z' 2>/dev/null; true",
        input="\n".join(settled),
    )
    known = dict(line.split(" ", 1) for line in states.splitlines())
    return {path: known.get(path, "is not there") for path in settled}


def test_the_application_is_served_through_the_proxy(cluster: Cluster) -> None:
    configure(cluster)
    proxy = cluster["proxy"]
    answer = proxy.wait_until_succeeds(f"curl -sSif http://proxy:{PROXY_PORT}/", timeout=60)
    assert "X-Served-By: app" in answer
    assert answer.endswith("Hello!\n")


def test_a_second_run_changes_nothing(cluster: Cluster) -> None:
    first = configure(cluster)
    before = {node.name: files(node) for node in cluster}
    second = configure(cluster)
    after = {node.name: files(node) for node in cluster}

    for name in cluster.nodes.names:
        assert {change.op for change in first[name].changed} >= {"file", "symlink", "service"}
        assert len(second[name]) == len(first[name])
        assert second[name].changed == second[name].unknown == []
        assert "/etc/nginx/sites-available/site" in before[name]
    assert after == before


def test_one_change_is_one_change(cluster: Cluster) -> None:
    configure(cluster)
    before = {node.name: files(node) for node in cluster}
    changes = configure(cluster, page="Goodbye!\n")
    after = {node.name: files(node) for node in cluster}

    assert [change.target for change in changes["app"].changed] == ["/srv/app/index.html"]
    assert changes["proxy"].changed == []
    assert after["proxy"] == before["proxy"]
    different = {path for path, state in after["app"].items() if before["app"].get(path) != state}
    # The file was replaced, so its directory has another time.
    assert different == {"/srv/app", "/srv/app/index.html"}


def test_without_the_application_the_proxy_says_so(cluster: Cluster) -> None:
    configure(cluster)
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' http://localhost:{PROXY_PORT}/"
    cluster["proxy"].wait_until_succeeds(f"{ask} | grep -qx 200", timeout=60)
    with cluster.partition(["app"], ["proxy"]):
        assert cluster["proxy"].succeed(ask) == "504"
    cluster["proxy"].wait_until_succeeds(f"{ask} | grep -qx 200", timeout=60)
