"""What other programs are told about the nodes of a cluster, without an engine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from redock.cluster import Cluster, NodeSpec, _network
from redock.cluster._boot import Place
from redock.cluster._inventory import FORMATS, group_name
from redock.cluster._node import Node
from redock.errors import InvalidArgument


@pytest.fixture
def cluster() -> Cluster:
    """Two nodes that were never started."""
    import ipaddress

    nodes = [NodeSpec("db1", roles={"db", "all", "db1"}), NodeSpec("web", roles={"web-front"})]
    cluster = Cluster(nodes, name="my-shop")
    for number, spec in enumerate(cluster.spec.nodes):
        place = Place(
            "my-shop", spec.name, f"{number:012}", f"10.77.0.{number + 2}", 20000 + number
        )
        cluster.nodes.nodes.append(Node(cluster, spec, place))
    subnet = ipaddress.IPv4Network("10.77.0.0/28")
    cluster.network = _network.Network("id", "redock-my-shop", subnet)
    return cluster


def test_an_unknown_format_is_refused_and_the_known_ones_are_named(cluster: Cluster) -> None:
    for wrong in ("ansbile", "", "../json", "JSON"):
        with pytest.raises(InvalidArgument, match="ansible, ssh_config, testinfra, ducktape, json"):
            cluster.inventory(wrong)
    with pytest.raises(InvalidArgument, match="did you mean ducktape"):
        cluster.inventory("ducktap")


def test_a_cluster_without_nodes_is_refused() -> None:
    for format in FORMATS:
        with pytest.raises(InvalidArgument, match="has no nodes yet: start it first"):
            Cluster(1, name="shop").inventory(format)


def test_every_format_is_a_file_with_an_end(cluster: Cluster) -> None:
    for format in FORMATS:
        assert cluster.inventory(format).endswith("\n"), format


def from_ansible(cluster: Cluster) -> dict[str, Any]:
    """Read the inventory as Ansible does: YAML, of which JSON is a part."""
    first, _, rest = cluster.inventory("ansible").partition("\n")
    assert first.startswith("# ")
    return dict(json.loads(rest)["all"])


def test_ansible_gets_hosts_and_groups(cluster: Cluster, redock_home: Path) -> None:
    found = from_ansible(cluster)
    assert found["hosts"]["db1"] == {
        "ansible_host": "my-shop-db1-container",
        "ansible_port": 20000,
        "ansible_user": "root",
        "ansible_ssh_common_args": f"-F {redock_home}/ssh/config",
        "ansible_ssh_args": "",
        "ansible_python_interpreter": "/usr/bin/python3",
        "redock_address": "10.77.0.2",
        "redock_roles": ["all", "db", "db1"],
    }
    # Roles with the name of a host, or of what Ansible has already, are told from those.
    assert {name: list(group["hosts"]) for name, group in found["children"].items()} == {
        "my_shop": ["db1", "web"],
        "db": ["db1"],
        "group_all": ["db1"],
        "group_db1": ["db1"],
        "web_front": ["web"],
    }


def test_ansible_itself_understands_it(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(cluster.inventory("ansible"))
    import sys

    program = Path(sys.prefix) / "bin" / "ansible-inventory"
    done = subprocess.run(
        [program, "-i", path, "--list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    listed = json.loads(done.stdout)
    assert listed["db"]["hosts"] == ["db1"]
    assert listed["_meta"]["hostvars"]["web"]["ansible_host"] == "my-shop-web-container"
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    ("text", "name"),
    [("db", "db"), ("web-front", "web_front"), ("1st", "group_1st"), ("all", "group_all"),
     ("", "group_"), ("n1", "group_n1"), ("Größe", "Gr__e")],
)  # fmt: skip
def test_names_of_groups_are_valid(text: str, name: str) -> None:
    assert group_name(text, {"n1": {}}) == name


def test_paths_with_blanks_stay_one_word(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shlex

    home = tmp_path / "a home"
    monkeypatch.setenv("REDOCK_HOME", str(home))
    words = from_ansible(cluster)["hosts"]["web"]["ansible_ssh_common_args"]
    assert shlex.split(words) == ["-F", f"{home}/ssh/config"]
    assert "a%20home" in cluster.inventory("testinfra").splitlines()[0]


def test_ssh_reads_the_configuration(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(cluster.inventory("ssh_config"))
    for alias in ("web", "my-shop-web-container"):
        done = subprocess.run(
            ["ssh", "-F", path, "-G", alias], capture_output=True, text=True, timeout=60, check=True
        )
        options = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        assert (options["hostname"], options["port"], options["user"]) == (
            "127.0.0.1",
            "20001",
            "root",
        )
        assert options["hostkeyalias"] == "redock-000000000001"
        assert options["stricthostkeychecking"] in ("yes", "true")


def test_testinfra_gets_a_host_on_each_line(cluster: Cluster, redock_home: Path) -> None:
    assert cluster.inventory("testinfra").splitlines() == [
        f"ssh://my-shop-{name}-container?ssh_config={redock_home}/ssh/config"
        for name in ("db1", "web")
    ]


def test_ducktape_gets_what_its_json_cluster_reads(cluster: Cluster, redock_home: Path) -> None:
    first, second = json.loads(cluster.inventory("ducktape"))["nodes"]
    assert first == {
        "externally_routable_ip": "10.77.0.2",
        "ssh_config": {
            "host": "db1",
            "hostname": "127.0.0.1",
            "port": 20000,
            "user": "root",
            "identityfile": f"{redock_home}/ssh/id_ed25519",
            "password": None,
        },
    }
    assert second["ssh_config"]["host"] == "web"


def test_programs_of_ones_own_get_everything(cluster: Cluster, redock_home: Path) -> None:
    found = json.loads(cluster.inventory())
    assert (found["name"], found["network"]) == ("my-shop", "10.77.0.0/28")
    assert found["ssh_config"] == f"{redock_home}/ssh/config"
    assert found["nodes"][1]["roles"] == ["web-front"]
    assert found["nodes"][1]["host_key"] is None
