"""The command ``redock cluster``: each action in a process of its own, as from a shell."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redock._engine import KIND, Engine, label
from redock.cluster import Cluster, Node

from .conftest import REDOCK, Home, command, redock, ssh
from .harness import PATIENCE, assert_one_line
from .test_cluster import fresh_name, leftovers

FILE = """
name = "{name}"
[nodes.n1]
roles = ["db", "web-front"]
[nodes.n2]
roles = ["db"]
[nodes.n3]
disks = {{"/data" = "8m"}}
"""


class Shop:
    """
    A cluster of three nodes that is only ever changed by commands.

    :param path: The file that describes it, in a directory where it is the default.
    :param name: Its name.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.found: list[Cluster] = []

    def __call__(self, *words: str, status: int = 0) -> str:
        """Run an action; get what it printed."""
        done = self.run(*words)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout

    def run(self, action: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run an action."""
        return redock("cluster", action, str(self.path), *words)

    def status(self) -> dict[str, Any]:
        """What there is."""
        found: dict[str, Any] = json.loads(self("status", "--json"))
        return found

    def states(self) -> dict[str, str]:
        """What state the nodes are in."""
        return {node["name"]: node["state"] for node in self.status()["nodes"]}

    def faults(self) -> list[str]:
        """What is broken."""
        return [fault["text"] for fault in self.status()["faults"]]

    def reaches(self, sender: str, receiver: str, seconds: float = 10) -> bool:
        """Try to connect from one node to another."""
        script = f"timeout {seconds} bash -c '</dev/tcp/{receiver}/22'"
        return ssh(f"{self.name}-{sender}-container", script).returncode == 0

    def is_cut_off(self, sender: str, receiver: str) -> bool:
        """Find out whether one node cannot connect to another."""
        return not self.reaches(sender, receiver, 0.5)

    def cluster(self) -> Cluster:
        """The same as an object of Python."""
        self.found.append(Cluster.find(self.name))
        return self.found[-1]


@pytest.fixture(scope="module")
def shop(home: Home, tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Shop]:
    """Three nodes that run."""
    name = fresh_name()
    path = tmp_path_factory.mktemp("shop") / "cluster.toml"
    path.write_text(FILE.format(name=name))
    made = Shop(path, name)
    made("up")
    yield made
    for cluster in made.found:
        cluster.close()
    made("down")
    assert leftovers(engine, name) == []


@pytest.fixture
def healed(shop: Shop) -> Iterator[Shop]:
    """Three nodes in which nothing is broken, before the test and after it."""
    yield shop
    shop("heal")
    assert shop.faults() == []
    assert set(shop.states().values()) == {"running"}


def test_up_says_how_to_connect_and_can_be_repeated(shop: Shop) -> None:
    before = {node.name: node.container_id for node in shop.cluster()}
    done = shop.run("up")
    assert done.stdout.splitlines() == [
        f"n{number}  ssh {shop.name}-n{number}-container" for number in (1, 2, 3)
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert before == {node.name: node.container_id for node in shop.cluster()}
    assert shop("up", "-q") == "n1\nn2\nn3\n"
    assert json.loads(shop("up", "--json"))["name"] == shop.name
    assert ssh(f"{shop.name}-n2-container", "hostname").stdout == "n2\n"


def test_status_tells_about_one_or_lists_all(shop: Shop) -> None:
    one = shop("status")
    assert one.startswith(f"cluster {shop.name}, network 10.77.")
    assert "no faults" in one
    assert [line.split()[:2] for line in one.splitlines()[3:6]] == [
        ["n1", "running"],
        ["n2", "running"],
        ["n3", "running"],
    ]
    assert shop("status", "-q") == "n1\nn2\nn3\n"
    described = shop.status()
    assert [node["roles"] for node in described["nodes"]] == [["db", "web-front"], ["db"], []]
    assert described["process"] is None
    everything = redock("cluster", "status").stdout
    lines = [line.split() for line in everything.splitlines() if line.startswith(f"{shop.name} ")]
    assert [[line[1], line[2], line[5], line[6]] for line in lines] == [
        [f"n{number}", "running", f"{shop.name}-n{number}-container", "kept"]
        for number in (1, 2, 3)
    ]
    assert shop.name in redock("cluster", "status", "-q").stdout.split()
    listed = {
        each["name"]: each for each in json.loads(redock("cluster", "status", "--json").stdout)
    }
    assert listed[shop.name]["process"] is None
    assert listed[shop.name]["user"] == os.getuid()


def test_the_cluster_is_meant_by_file_by_name_or_by_where_one_is(
    shop: Shop, tmp_path: Path
) -> None:
    hostname = ["--", "hostname"]
    assert redock("cluster", "ssh", shop.name, "n1", *hostname).stdout == "n1\n"
    assert redock("cluster", "ssh", str(shop.path), "n2", *hostname).stdout == "n2\n"
    here = subprocess.run(
        [*REDOCK, "cluster", "ssh", "n3", *hostname],
        cwd=shop.path.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert here.stdout == "n3\n"


def test_ssh_passes_output_status_and_terminal_through(shop: Shop) -> None:
    done = shop.run("ssh", "n1", "--", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert shop("ssh", "n1", "--", "printf", "%s|", "a b", "--", "$HOME") == "a b|--|$HOME|"
    ours, theirs = pty.openpty()
    words = [*REDOCK, "cluster", "ssh", str(shop.path), "n1", "--", "test -t 0 && echo it is one"]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while b"it is one" not in seen:
            seen += os.read(ours, 1000)
        assert process.wait(PATIENCE) == 0
    os.close(ours)


def test_exec_runs_everywhere_and_the_worst_status_counts(healed: Shop) -> None:
    shop = healed
    done = shop.run("exec", "--", "hostname; hostname >&2")
    assert sorted(done.stdout.splitlines()) == ["n1 | n1", "n2 | n2", "n3 | n3"]
    assert sorted(done.stderr.splitlines()) == ["n1 | n1", "n2 | n2", "n3 | n3"]
    assert shop("exec", "n2", "--", "printf", "%s\\n", "a b") == "n2 | a b\n"
    script = "exit $(hostname | tr -d n)"
    assert shop("exec", "n1", "n2", "--", script, status=2) == ""
    # What a node prints does not steer our terminal.
    assert shop("exec", "n1", "--", "printf '\\033[31mred\\n'") == "n1 | red\n"
    shop("pause", "n2")
    done = shop.run("exec", "--json", "--", "hostname")
    results = json.loads(done.stdout)
    assert (done.returncode, results["n2"]["status"]) == (3, 3)
    assert results["n3"] == {"status": 0, "stdout": "n3\n", "stderr": ""}
    assert_one_line(done.stderr)
    assert "node n2" in done.stderr and "'redock cluster resume' brings it back" in done.stderr


def test_a_partition_outlives_its_process_and_the_next_one_heals_it(healed: Shop) -> None:
    shop = healed
    assert shop("partition", "n1,n2", "n3") == "partition n1,n2 | n3\n"
    assert shop.reaches("n1", "n2")
    assert shop.is_cut_off("n1", "n3")
    assert shop.is_cut_off("n3", "n1")
    assert shop.faults() == ["partition n1,n2 | n3"]
    assert "fault: partition n1,n2 | n3 (since 20" in shop("status")
    everything = redock("cluster", "status").stdout
    assert f"fault in {shop.name}: partition n1,n2 | n3 (since" in everything
    # Two at a time, and one of them one way.
    assert shop("partition", "n1", "n2", "--one-way") == "partition n1 -> n2,n3\n"
    assert shop("isolate", "n2", "-q") == ""
    assert len(shop.faults()) == 3
    (n2,) = (each for each in shop.status()["faults"] if each["kind"] == "isolate")
    assert sorted(n2["nodes"]) == ["n1", "n2", "n3"]
    assert shop("heal").splitlines() == [
        "healed: isolate n2",
        "healed: partition n1 -> n2,n3",
        "healed: partition n1,n2 | n3",
    ]
    assert shop.faults() == []
    assert shop.reaches("n1", "n3")
    done = shop.run("heal")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing in cluster" in done.stderr


def test_nodes_are_paused_killed_and_crashed(healed: Shop) -> None:
    shop = healed
    assert shop("pause", "n1", "n2").splitlines() == ["pause n1", "pause n2"]
    assert json.loads(shop("kill", "n3", "--json"))[0]["text"] == "kill n3"
    assert shop.states() == {"n1": "paused", "n2": "paused", "n3": "exited"}
    # What was broken on purpose stays so.
    shop("up")
    assert shop.states() == {"n1": "paused", "n2": "paused", "n3": "exited"}
    assert shop("resume", "n1") == "healed: pause n1\n"
    assert shop.faults() == ["pause n2", "kill n3"]
    done = shop.run("ssh", "n3", "--", "true")
    assert (done.returncode, done.stdout) == (3, "")
    assert_one_line(done.stderr)
    assert "is exited: 'redock cluster heal' brings it back" in done.stderr
    assert shop("heal").count("healed: ") == 2
    assert set(shop.states().values()) == {"running"}
    first = shop("ssh", "n1", "--", "cut -d' ' -f22 /proc/1/stat; touch /root/kept")
    shop("crash", "n1")
    assert shop("ssh", "n1", "--", "cut -d' ' -f22 /proc/1/stat; ls /root/kept") != first
    # Nobody's fault: the node is booted again.
    command("docker", "kill", shop.cluster()["n2"].container_id)
    assert shop.faults() == []
    shop("up")
    assert shop.states()["n2"] == "running"


def owner(shop: Shop, node: str, script: str) -> str:
    """Run a script in the owner of a node."""
    return shop.cluster()[node].shell.check(script, "look")


def test_rules_without_a_record_and_records_without_rules(healed: Shop) -> None:
    shop = healed
    shop("partition", "n1")
    owner(shop, "n1", "rm /run/redock/*.json")
    assert shop.faults() == ["partition n1 | n2,n3"]
    for node in ("n2", "n3"):
        owner(shop, node, "rm /run/redock/*.json")
    (text,) = shop.faults()
    assert text == "rules nobody knows in n1, n2, n3"
    assert shop.is_cut_off("n1", "n2")
    assert shop("heal") == f"healed: {text}\n"
    assert shop.reaches("n1", "n2")
    # What was flushed by hand, or is nonsense, is nobody's fault.
    shop("isolate", "n3")
    for node in ("n1", "n2", "n3"):
        ours = "nft list tables | grep -o 'redock_.*'"
        owner(shop, node, f"for each in $({ours}); do nft delete table inet $each; done")
        owner(shop, node, "echo '{nonsense' >/run/redock/x.json")
    done = shop.run("status", "--json")
    assert json.loads(done.stdout)["faults"] == []
    assert "a record of a fault makes no sense" in done.stderr
    for node in ("n1", "n2", "n3"):
        assert owner(shop, node, "ls /run/redock; rm /run/redock/x.json") == "x.json\n"
    # Of one that somebody froze with the engine's own command.
    command("docker", "pause", shop.cluster()["n1"].container_id)
    assert shop.faults() == ["pause n1"]


def test_faults_go_with_the_network_they_were_made_in(healed: Shop) -> None:
    shop = healed
    shop("partition", "n1")
    shop("kill", "n2")
    command("docker", "restart", "-t", "0", shop.cluster()["n1"].owner_id)
    assert "kill n2" in shop.faults()
    shop("up")
    assert shop.states()["n2"] == "exited"
    assert ssh(f"{shop.name}-n1-container", "hostname").stdout == "n1\n"
    shop("heal")
    assert shop.reaches("n1", "n2")
    assert shop.reaches("n3", "n1")


def test_snapshots_are_taken_listed_and_restored(healed: Shop) -> None:
    shop = healed
    shop("ssh", "n1", "--", "echo one >/root/note")
    shop("ssh", "n3", "--", "echo one >/data/note")
    assert shop("snapshot", "clean") == "clean\n"
    shop("ssh", "n1", "--", "echo two >/root/note; rm -rf /usr/share/doc")
    shop("ssh", "n3", "--", "echo two >/data/note")
    assert shop("snapshot") == "s1\n"
    assert shop("snapshots", "-q") == "clean\ns1\n"
    assert [line.split()[0] for line in shop("snapshots").splitlines()] == ["NAME", "clean", "s1"]
    assert [each["name"] for each in json.loads(shop("snapshots", "--json"))] == ["clean", "s1"]
    shop("partition", "n1")
    shop("kill", "n2")
    assert json.loads(shop("restore", "clean", "--json")) == {
        "snapshot": "clean",
        "booted": ["n1", "n2", "n3"],
    }
    assert shop.faults() == []
    assert shop("exec", "n1", "--", "cat /root/note") == "n1 | one\n"
    assert shop("exec", "n3", "--", "cat /data/note") == "n3 | one\n"
    assert shop.reaches("n1", "n2")
    # Nothing is left of what was replaced, and the names are those of before.
    filters = {"label": [f"{KIND}=node", f"{label('cluster')}={shop.name}"]}
    found = sorted(each["Names"][0] for each in Engine().containers(filters))
    assert found == [f"/redock-{shop.name}.n{number}" for number in (1, 2, 3)]
    shop("restore")
    assert shop("exec", "n1", "--", "cat /root/note") == "n1 | two\n"
    assert shop.status()["snapshots"] == ["clean", "s1"]


def test_files_logs_and_inventories(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("contents\n")
    shop("cp", str(tmp_path / "a file"), "n1:/srv/copy")
    shop("cp", "n1:/srv/copy", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "contents\n"
    printed = shop("logs", "n2", "--lines", "3").splitlines()
    assert 1 <= len(printed) <= 3
    assert all(line.startswith("n2 | ") for line in printed)
    assert json.loads(shop("logs", "--json")).keys() == {"n1", "n2", "n3"}
    config = tmp_path / "config"
    config.write_text(shop("inventory", "--format", "ssh_config"))
    done = command("ssh", "-F", str(config), "n2", "hostname")
    assert (done.returncode, done.stdout, done.stderr) == (0, "n2\n", "")


MISTAKES = [
    (["status", "/nowhere/x.toml"], 4, "there is no file /nowhere/x.toml"),
    (["status", "nowhere"], 4, "there is neither a cluster called nowhere nor a file"),
    (["up"], 4, "there is no cluster.toml here: name a file or a cluster"),
    (["ssh", "{file}"], 2, "give FILE and NODE"),
    (["ssh", "{file}", "n9"], 4, "there is no node called n9; there are n1, n2, n3"),
    (["exec", "{file}"], 2, "give a command behind --"),
    (["exec", "{file}", "n9", "--", "true"], 4, "there is no node called n9"),
    (["pause", "{file}"], 2, "name the nodes"),
    (["pause", "{file}", "n1", "n9"], 4, "there is no node called n9"),
    (["partition", "{file}", "n1,n1", "n1"], 2, "is in two groups"),
    (["partition", "{file}", "n1,n2,n3"], 2, "give two groups"),
    (["partition", "{file}", "n1,,n2"], 2, "is no group of nodes"),
    (["restore", "{file}", "nothing"], 4, "has no snapshot nothing; there are: "),
    (["snapshot", "{file}", "-no"], 2, "unrecognized arguments"),
    (["snapshot", "{file}", "No!"], 2, "invalid name for a snapshot"),
    (["snapshot", "{file}", "a", "b"], 2, "at most one NAME"),
    (["heal", "{file}", "n1"], 2, "neither a file nor a cluster n1"),
    (["cp", "{file}", "a", "b"], 2, "neither place is in a node"),
    (["inventory", "{file}", "--format", "ansbile"], 2, "did you mean ansible?"),
    (["destroy"], 2, "there is no command"),
    ([], 2, "required"),
]


@pytest.mark.parametrize(("words", "status", "reason"), MISTAKES)
def test_mistakes_are_one_line(words: list[str], status: int, reason: str, shop: Shop) -> None:
    filled = [word.format(file=shop.path) for word in words]
    done = redock("cluster", *filled)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert_one_line(done.stderr)
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nodes = [", "is not TOML"),
        ("nodes = 3\n[defaults]\nmemmory = '1m'", "did you mean defaults.memory?"),
        ("nodes = 0", "has no nodes"),
    ],
)
def test_files_that_make_no_sense_are_one_line(
    text: str, reason: str, home: Home, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    for action in ("up", "status", "down"):
        done = redock("cluster", action, str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert_one_line(done.stderr)
        assert reason in done.stderr


def test_a_cluster_that_is_not_up_says_so(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(f"name = '{fresh_name()}'")
    for words in (["status"], ["heal"], ["exec", "--", "true"], ["restore"], ["inventory"]):
        done = redock("cluster", words[0], str(path), *words[1:])
        assert (done.returncode, done.stdout) == (4, "")
        assert_one_line(done.stderr)
        assert "'redock cluster up FILE' starts one" in done.stderr
    done = redock("cluster", "down", str(path))
    assert done.returncode == 0
    assert "is not there: nothing to do" in done.stderr


def test_a_file_that_describes_something_else_now(shop: Shop, tmp_path: Path) -> None:
    changed = tmp_path / "cluster.toml"
    text = shop.path.read_text()
    changed.write_text(text.replace("[nodes.n3]", "[nodes.n4]"))
    done = redock("cluster", "up", str(changed))
    assert done.returncode == 2
    assert "is there with other nodes (n1, n2, n3, not n1, n2, n4)" in done.stderr
    assert f"'redock cluster down {shop.name}'" in done.stderr
    done = redock("cluster", "exec", str(changed), "n3", "--", "hostname")
    assert (done.returncode, done.stdout) == (0, "n3 | n3\n")
    assert "describes other nodes now" in done.stderr
    changed.write_text(text.replace('roles = ["db"]', 'roles = ["cache"]\nmemory = "64m"'))
    done = redock("cluster", "up", str(changed))
    assert done.returncode == 1
    assert f"Node n2 of cluster {shop.name} was made with other memory than" in done.stderr
    assert f"('redock cluster down {shop.name}')" in done.stderr
    listed = json.loads(redock("cluster", "inventory", str(changed)).stdout)
    assert listed["nodes"][1]["roles"] == ["cache"]
    assert shop.states() == {"n1": "running", "n2": "running", "n3": "running"}


def test_a_cluster_of_a_running_process_is_used_with_care(
    home: Home, tmp_path: Path, engine: Engine
) -> None:
    path = tmp_path / "other.toml"
    name = fresh_name()
    path.write_text(f"name = '{name}'\nnodes = 2")
    with Cluster.from_file(str(path)) as mine:
        for action in ("up", "down"):
            done = redock("cluster", action, str(path))
            assert done.returncode == 1
            assert_one_line(done.stderr)
            assert f"cluster {name} goes with process {os.getpid()} (" in done.stderr
        assert redock("cluster", "partition", name, "n1").stdout == "partition n1 | n2\n"
        described = json.loads(redock("cluster", "status", name, "--json").stdout)
        assert described["process"].startswith(f"{os.getpid()} (")
        (fault,) = mine.heal()
        assert fault.text == "partition n1 | n2"
        assert redock("cluster", "snapshot", name, "theirs").returncode == 0
        # What another process adds goes with this one all the same.
        marks = engine.images({"label": [f"{label('cluster')}={name}"]})[0]["Labels"]
        assert marks[label("process")].startswith(f"{os.getpid()}:")
        mine["n1"].succeed("touch /root/x")
        assert redock("cluster", "restore", name).returncode == 0
        assert not mine["n1"].run("test -e /root/x").ok
        assert redock("cluster", "down", name, "--force").returncode == 0
    assert leftovers(engine, name) == []


def test_a_cluster_of_another_user_is_left_alone(
    home: Home, engine: Engine, base_image: str
) -> None:
    name = fresh_name()
    marks = {KIND: "owner", label("cluster"): name, label("node"): "n1", label("user"): "4242"}
    marks |= {label("address"): "10.1.2.3", label("port"): "1", label("instance"): "0"}
    container = engine.create_container(f"redock-{name}", {"Image": base_image, "Labels": marks})
    try:
        for action in ("status", "heal", "down"):
            done = redock("cluster", action, name)
            assert (done.returncode, done.stdout) == (1, "")
            assert_one_line(done.stderr)
            assert f"cluster {name} belongs to another user (number 4242)" in done.stderr
        assert f"{name}     n1" in redock("cluster", "status").stdout.replace(" " * 8, " " * 5) or (
            "user 4242" in redock("cluster", "status").stdout
        )
    finally:
        engine.remove_container(container)


def test_nodes_are_found_again_by_name(shop: Shop) -> None:
    found = shop.cluster()
    assert isinstance(found["n1"], Node)
    assert found["n3"].spec.disks == {"/data": 8 << 20}
    assert found.nodes.role("db").names == ["n1", "n2"]
