"""
What others wrote runs on our nodes unchanged: ducktape's own tests, Ansible, pytest-testinfra.

They come from PyPI into an environment of their own, which is kept below the
development environment and made again when what belongs into it changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock._files import Lock
from redock.cluster import Cluster, NodeSpec

from .conftest import Home, command
from .test_cluster import fresh_name

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
REQUIREMENTS = Path(__file__).with_name("suites.txt")
DUCKTAPE = "ducktape==0.17.0"
#: Enough for a slow mirror, and for two processors that others use as well.
PATIENCE = 580.0

#: Of ducktape's own tests, those that cannot pass here, and why.
LEFT_OUT = {
    "test_debug.py": "is there to fail, and to sleep for minutes",
    "test_remote_account.py::RemoteAccountTest.test_flaky": "fails five times out of six, by lot",
    "test_remote_account.py::TestClusterSpec.three_nodes_test": "wants a node with Windows",
    "test_runner_operations.py::SimpleRunnerTest.timeout_test": "only sleeps, for a minute",
}
#: All others; those of the second line measure hundredths of seconds and may be repeated.
PASSING = {
    "NoClusterTest": "test_zero_nodes",
    "TestIterWrapper": "test_iter_wrapper test_iter_wrapper_timeout",
    "FileSystemTest": (
        "create_file_test exists_dir_test exists_file_test mkdir_test mkdirs_nested_test open_test"
        " remove_test"
    ),
    "UnderUtilizedTest": "under_utilized_test",
    "CopyToAndFroTest": (
        "test_copy_from_dir_as_subtree test_copy_from_dir_with_rename"
        " test_copy_to_dir_as_subtree test_copy_to_dir_with_rename"
    ),
    "CopyDirectTest": "test_copy_directory test_copy_file",
    "TestClusterSpec": "test_create_two_node_service",
    "RemoteAccountTest": (
        "test_kill_process test_monitor_log test_monitor_log_exception test_ssh_capture"
        " test_ssh_capture_combine_stderr test_ssh_output test_ssh_output_combine_stderr"
    ),
    "RemoteAccountCompressedTest": "test_log_compression_with_non_existent_files",
    "SimpleRunnerTest": "quick1_test quick2_test",
}


@pytest.fixture(scope="module")
def suites() -> Path:
    """The programs of an environment that has the suites."""
    wanted = f"{sys.version}\n{DUCKTAPE}\n{REQUIREMENTS.read_text()}"
    number = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    place = Path(sys.prefix) / "suites" / number
    with Lock(str(place) + ".lock", "the environment of the suites", timeout=PATIENCE):
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            command(sys.executable, "-m", "venv", str(place), check=True, timeout=PATIENCE)
            pip = [str(place / "bin" / "pip"), "install", "--quiet"]
            install(*pip, "--requirement", str(REQUIREMENTS))
            install(*pip, "--no-deps", DUCKTAPE)
            (place / "complete").touch()
    return place / "bin"


def install(*words: str) -> None:
    """Run pip, and say what it said when it fails."""
    done = command(*words, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def cluster(home: Home) -> Iterator[Cluster]:
    """The nodes of the example for Ansible, with what a test of ducktape's needs."""
    described = Cluster.from_file(str(EXAMPLES / "ansible" / "cluster.toml"))
    nodes = [
        NodeSpec(node.name, roles=node.roles, packages=["netcat-openbsd"])
        for node in described.spec.nodes
    ]
    with Cluster(nodes, name=fresh_name(), standbys=False) as made:
        yield made


def run(
    *words: str, directory: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of somebody else's in a directory."""
    return subprocess.run(
        words,
        cwd=directory,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_ducktapes_own_tests_pass(suites: Path, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(cluster.inventory("ducktape"))
    found = subprocess.check_output(
        [suites / "python", "-c", "import systests; print(systests.__path__[0])"], text=True
    )
    tests = Path(found.strip())
    done = run(
        str(suites / "ducktape"),
        *("--cluster", "ducktape.cluster.json.JsonCluster", "--cluster-file", "cluster.json"),
        *("--max-parallel", "3", "--deflake", "3", "--results-root", "results", "--exclude"),
        *(str(tests / "cluster" / name) for name in LEFT_OUT),
        *("--", str(tests)),
        directory=tmp_path,
    )
    report = json.loads((tmp_path / "results" / "latest" / "report.json").read_text())
    outcome = {
        ".".join(each["test_id"].split(".")[-2:]): each["test_status"] for each in report["results"]
    }
    wanted = {f"{group}.{name}" for group, names in PASSING.items() for name in names.split()}
    assert set(outcome) == wanted
    assert len(outcome) == 28
    timed = {name for name in wanted if name.startswith("TestIterWrapper.")}
    not_passed = {name: status for name, status in outcome.items() if status != "PASS"}
    assert {name for name, status in not_passed.items() if status != "FLAKY"} == set(), done.stdout
    assert set(not_passed) <= timed
    assert done.returncode == 0, done.stderr


def test_ansible_brings_the_nodes_into_a_state_and_finds_them_in_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    for path in (EXAMPLES / "ansible").iterdir():
        if path.suffix != ".toml":
            shutil.copy(path, tmp_path)
    # The example calls its cluster so.
    text = cluster.inventory("ansible").replace(f'"{cluster.name.replace("-", "_")}"', '"shop"')
    (tmp_path / "inventory.yml").write_text(text)
    env = {"ANSIBLE_HOME": str(tmp_path / "ansible"), "ANSIBLE_NOCOLOR": "1"}
    program = str(Path(sys.prefix) / "bin" / "ansible-playbook")
    first, second = (run(program, "site.yml", directory=tmp_path, env=env) for _ in range(2))
    assert first.returncode == 0, first.stdout + first.stderr
    recap = r"^(\w+) +: ok=(\d+) +changed=(\d+) +unreachable=0 +failed=0"
    counts = {name: int(changed) for name, _, changed in re.findall(recap, first.stdout, re.M)}
    assert counts == {"db1": 3, "web1": 5, "web2": 5}
    assert second.returncode == 0, second.stdout + second.stderr
    again = {name: int(changed) for name, _, changed in re.findall(recap, second.stdout, re.M)}
    assert again == {"db1": 0, "web1": 0, "web2": 0}
    addresses = [cluster["web1"].ip, cluster["web2"].ip]
    assert cluster["db1"].succeed("cat /etc/shop-clients").split() == addresses
    assert cluster["web2"].succeed("cat /etc/motd").startswith(f"web2 ({cluster['web2'].ip}), web")
    assert "WARNING" not in first.stderr


def test_testinfra_looks_at_the_nodes(suites: Path, cluster: Cluster, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "testinfra_nodes" / "test_nodes.py", tmp_path)
    hosts = ",".join(cluster.inventory("testinfra").split())
    # One that is wrong, to see that it looks at all.
    wrong = "\ndef test_nonsense(host): assert host.file('/nonsense').exists\n"
    (tmp_path / "test_wrong.py").write_text(wrong)
    done = run(str(suites / "pytest"), "-q", "--hosts", hosts, "test_nodes.py", directory=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout
    done = run(str(suites / "pytest"), "-q", "--hosts", hosts, "test_wrong.py", directory=tmp_path)
    assert done.returncode == 1
    assert "3 failed" in done.stdout
