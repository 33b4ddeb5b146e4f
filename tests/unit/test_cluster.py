"""Clusters without an engine: what they are to be, their networks, rules, identity and record."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock._engine import KIND, Engine, label
from redock.cluster import Cluster, NodeSpec, _boot, _contact, _netfault, _network, _process
from redock.cluster._boot import Place
from redock.cluster._images import fingerprint
from redock.cluster._node import Node
from redock.cluster._sharing import choose_system
from redock.cluster._snapshot import Snapshot
from redock.cluster._spec import (
    ClusterSpec,
    check_network,
    make_nodes,
    prefix_for,
    read_spec,
)
from redock.cluster._timeline import Timeline
from redock.errors import (
    InvalidArgument,
    InvalidName,
    NetworkUnavailable,
    NotFound,
    SettingsError,
    Timeout,
)

# What a cluster is to be.


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a.b", "a b", "1", "x" * 31, "a\n", "-oProxyCommand=x", None]
)
def test_names_that_are_no_host_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidName, match="invalid name for a node"):
        NodeSpec(name)
    with pytest.raises(InvalidName, match="invalid name for a cluster"):
        ClusterSpec(name, (NodeSpec("a"),))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"packages": "redis"}, "give a list"),
        ({"roles": "db"}, "give a list"),
        ({"cpus": 0}, "processors above 0"),
        ({"memory": "much"}, "is not a size"),
        ({"disks": {"data": "1m"}}, "is not the pathname"),
        ({"disks": {"/": "1m"}}, "is not the pathname"),
        ({"disks": {"/a/../etc": "1m"}}, "is not the pathname"),
        ({"base": "debian:12", "image": "a:b"}, "either a base or an image"),
    ],
)
def test_a_node_that_makes_no_sense_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        NodeSpec("a", **options)


def test_nodes_are_given_by_number_name_or_specification() -> None:
    assert [node.name for node in make_nodes(2, {"memory": "1m"})] == ["n1", "n2"]
    mixed = make_nodes(["a", NodeSpec("b", memory="2m")], {"memory": "1m"})
    assert [node.memory for node in mixed] == [1 << 20, 2 << 20]
    with pytest.raises(InvalidArgument, match="a number or a list"):
        make_nodes("abc", {})


def test_a_cluster_is_cheap_to_describe_and_needs_no_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    cluster = Cluster(nodes=3)
    assert len(cluster) == 3
    assert cluster.name.startswith("c")
    assert list(cluster) == []


FILE = """
name = "shop"
network = "10.77.3.0/28"
[defaults]
packages = ["redis-server"]
provision = "provision.py"
[nodes.db1]
roles = ["db"]
[nodes.client]
packages = []
memory = "256m"
disks = {"/data" = "8m"}
"""


def test_a_file_describes_a_cluster(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(FILE)
    spec = read_spec(str(path))
    assert (spec.name, spec.network) == ("shop", "10.77.3.0/28")
    first, second = spec.nodes
    assert (first.name, first.packages, first.roles) == ("db1", ("redis-server",), {"db"})
    assert first.provision == str(tmp_path / "provision.py")
    assert (second.packages, second.memory, second.disks) == ((), 256 << 20, {"/data": 8 << 20})
    path.write_text("nodes = 3")
    assert [node.name for node in read_spec(str(path)).nodes] == ["n1", "n2", "n3"]
    assert read_spec(str(path)).name == "shop"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nodes = [", "is not TOML"),
        ("node = 3", "unknown key node: did you mean nodes?"),
        ("nodes = 'three'", "a number or a list"),
        ("nodes = 0", "has no nodes"),
        ("nodes = ['a', 'a']", "two nodes called a"),
        ("[nodes.a]\nmemmory = '1m'", "unknown key nodes.a.memmory: did you mean nodes.a.memory?"),
        ("[defaults]\npackage = []", "unknown key defaults.package: did you mean"),
        ("nodes = 14\nnetwork = '10.0.0.0/28'", "too small for 14 nodes"),
        ("network = 'x'", "is not an IPv4 network"),
        ("name = 'A'", "invalid name for a cluster"),
        ("nodes = 1\n[defaults]\nmemory = []", "is not a size"),
    ],
)
def test_mistakes_in_a_file_are_one_line(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_spec(str(path))
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*nothing: No such file"):
        read_spec(str(tmp_path / "nothing"))


def provision(host: Any) -> None:
    """What provisions a node in these tests."""


def test_the_hash_of_a_disk_changes_with_what_goes_into_it(tmp_path: Path) -> None:
    script = tmp_path / "p.py"
    script.write_text("def provision(host): pass\n")
    specs = [
        NodeSpec("a"),
        NodeSpec("a", packages=["x"]),
        NodeSpec("a", packages=["x", "y"]),
        NodeSpec("a", provision=provision),
        NodeSpec("a", provision=str(script)),
    ]
    hashes = {fingerprint(spec, "sha256:1") for spec in specs}
    assert len(hashes) == len(specs)
    assert fingerprint(specs[0], "sha256:2") not in hashes
    assert fingerprint(NodeSpec("b", packages=["y", "x"], memory="1m"), "sha256:1") in hashes
    script.write_text("def provision(host): host.packages('x')\n")
    assert fingerprint(specs[-1], "sha256:1") not in hashes
    with pytest.raises(InvalidArgument, match="no provisioning script"):
        fingerprint(NodeSpec("a", provision="/nothing.py"), "sha256:1")
    made: dict[str, Any] = {}
    exec("def provision(host): pass", made)
    with pytest.raises(InvalidArgument, match="cannot be found"):
        fingerprint(NodeSpec("a", provision=made["provision"]), "sha256:1")


# Networks.


@given(st.integers(1, 5000))
def test_a_range_is_large_enough_and_not_twice_too_large(nodes: int) -> None:
    prefix = prefix_for(nodes)
    assert 2 ** (32 - prefix) - 3 >= nodes
    assert prefix == 28 or 2 ** (31 - prefix) - 3 < nodes
    network = check_network(f"10.0.0.0/{prefix}", nodes)
    address = _network.Network("", "", network).address(nodes - 1)
    assert ipaddress.IPv4Address(address) < network.broadcast_address


class FakeEngine(Engine):
    """An engine with networks."""

    def __init__(self, taken: list[str]) -> None:
        super().__init__()
        self.taken = taken
        self.made: list[str] = []

    def networks(self, filters: Any) -> list[dict[str, Any]]:
        return [{"IPAM": {"Config": [{"Subnet": subnet}]}} for subnet in self.taken]

    def containers(self, filters: Any, *, size: bool = False) -> list[dict[str, Any]]:
        return []

    def create_network(self, name: str, config: Any) -> str:
        self.made.append(config["IPAM"]["Config"][0]["Subnet"])
        return "id"


def test_ranges_that_overlap_others_are_passed_over() -> None:
    first = str(next(iter(_network.candidates("x", 3))))
    engine = FakeEngine([first, "fd00::/64", "172.17.0.0/16"])
    network = _network.create(engine, "x", 3, None, {})
    assert str(network.subnet) in engine.made
    assert not network.subnet.overlaps(ipaddress.IPv4Network(first))
    assert network.gateway == str(network.subnet[1])
    with pytest.raises(NetworkUnavailable, match="no free network for 3 nodes"):
        _network.create(FakeEngine(["10.77.0.0/16"]), "x", 3, None, {})
    with pytest.raises(NetworkUnavailable, match="in use already"):
        _network.create(FakeEngine(["10.1.0.0/16"]), "x", 3, "10.1.2.0/28", {})
    with pytest.raises(InvalidArgument, match="more than fit"):
        next(iter(_network.candidates("x", 100_000)))


# What the engine is told.


def place(node: str = "n1") -> Place:
    """A node's place."""
    return Place("shop", node, "0123456789ab", "10.77.0.2", 20001)


def test_only_the_owner_may_change_the_network_and_publishes_on_loopback() -> None:
    network = _network.Network("id", "redock-shop", ipaddress.IPv4Network("10.77.0.0/28"))
    spec = NodeSpec("n1", memory="1m", cpus=0.5, disks={"/data": "8m"})
    owner = _boot.owner_configuration(place(), spec, "image", network, {label("run"): "r"})
    system = _boot.system_configuration(place(), spec, "image", "owner", {})
    assert owner["HostConfig"]["CapAdd"] == ["NET_ADMIN"]
    assert "CapAdd" not in system["HostConfig"]
    bindings = owner["HostConfig"]["PortBindings"]
    assert bindings == {"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}]}
    assert "PortBindings" not in system["HostConfig"]
    assert system["HostConfig"]["NetworkMode"] == "container:owner"
    assert system["HostConfig"]["Memory"] == system["HostConfig"]["MemorySwap"] == 1 << 20
    assert owner["Labels"][label("run")] == "r"
    disks = [mount["Source"] for mount in owner["HostConfig"]["Mounts"]]
    assert disks == [each["Source"] for each in system["HostConfig"]["Mounts"][1:]]
    again = _boot.system_configuration(place(), spec, "image", "owner", {})
    assert system["Cmd"][-1] != again["Cmd"][-1]


def test_the_boot_script_is_a_script() -> None:
    done = subprocess.run(["sh", "-n"], input=_boot.BOOT_SCRIPT, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert _boot.wake_up() == b"0\n"
    assert _boot.wake_up(b"abc") == b"3\nabc"


def test_the_container_that_is_the_node_is_told_from_its_replacements() -> None:
    def summary(number: str, name: str, state: str, created: int) -> dict[str, Any]:
        marks = {KIND: "node", label("instance"): "0123456789ab"}
        return {
            "Id": number,
            "Names": [f"/{name}"],
            "State": state,
            "Created": created,
            "Labels": marks,
        }

    now = summary("now", "redock-shop.n1", "running", 1)
    standby = summary("standby", "redock-shop.n1.abcd", "running", 2)
    stopped = summary("stopped", "redock-shop.n1", "exited", 1)
    assert choose_system(place(), [standby, now]) == "now"
    assert choose_system(place(), [standby, stopped]) == "stopped"
    assert choose_system(place(), [standby]) == "standby"
    assert choose_system(place(), []) == ""


# Rules.


def cluster_of(*names: str) -> Cluster:
    """A cluster that has not been started, with nodes."""
    cluster = Cluster(nodes=list(names), name="shop", engine=FakeEngine([]))
    for number, spec in enumerate(cluster.spec.nodes):
        made = Place("shop", spec.name, f"{number:012}", f"10.77.0.{number + 2}", 20000 + number)
        cluster.nodes.nodes.append(Node(cluster, spec, made))
    return cluster


class Recorder(_netfault.PacketFault):
    """Faults that are not made."""

    def make(self) -> None:
        """Do nothing."""

    def unmake(self) -> None:
        """Do nothing."""


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster whose faults of the network are not made."""
    monkeypatch.setattr(_netfault, "PacketFault", Recorder)
    return cluster_of("a", "b", "c", "d")


def blocked(fault: Any) -> set[str]:
    """Who does not reach whom."""
    names = {node.ip: node.name for node in fault.cluster}
    return {
        f"{names[sender]}{receiver}"
        for receiver, senders in fault.senders.items()
        for sender in senders
    }


def test_groups_are_cut_off_from_each_other(recorded: Cluster) -> None:
    both = {"ac", "ca", "ad", "da", "bc", "cb", "bd", "db"}
    assert blocked(recorded.partition(["a", "b"], ["c", "d"])) == both
    assert blocked(recorded.partition(["a", "b"])) == both
    assert blocked(recorded.partition("a", "b", ["c", "d"])) == both | {"ab", "ba"}
    assert blocked(recorded.partition("a", one_way=True)) == {"ab", "ac", "ad"}
    assert blocked(recorded.isolate("a")) == {"ab", "ac", "ad", "ba", "ca", "da"}
    assert blocked(recorded.drop("a", ["b", "c"])) == {"ab", "ac"}
    assert blocked(recorded.loss("a", 5, to="b")) == {"ab"}
    assert len(recorded.faults) == 7
    assert recorded.faults[0].text == "partition a,b | c,d"
    assert recorded.faults[3].text == "partition a -> b,c,d"
    recorded.heal()
    assert recorded.faults == []
    assert [event.ended is not None for event in recorded.timeline.events] == [True] * 7


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda c: c.partition(["a"], ["a", "b"]), "is in two groups"),
        (lambda c: c.partition(["a", "b", "c", "d"]), "give two groups"),
        (lambda c: c.partition(), "give two groups"),
        (lambda c: c.drop("a", "b", port=0), "is no port"),
        (lambda c: c.drop("a", "b", port="80"), "is no port"),
        (lambda c: c.drop("a", "b", proto="sctp"), "is neither tcp, udp nor icmp"),
        (lambda c: c.drop("a", "b", port=1, proto="icmp"), "icmp has no ports"),
        (lambda c: c.loss("a", 0), "not a percentage"),
        (lambda c: c.loss("a", 101), "not a percentage"),
        (lambda c: c.isolate("z"), "no node called z; there are a, b, c, d"),
    ],
)
def test_faults_that_make_no_sense_are_refused(make: Any, reason: str, recorded: Cluster) -> None:
    with pytest.raises((InvalidArgument, NotFound), match=reason):
        make(recorded)
    assert recorded.faults == []


def test_rules_name_the_senders_and_nobody_else(recorded: Cluster) -> None:
    fault = recorded.drop("a", "b", port=80, reject=True)
    assert isinstance(fault, Recorder)
    text = fault.rules("b")
    assert "ip saddr { 10.77.0.2 } tcp dport 80 counter reject with tcp reset\n" in text
    assert text.startswith(f"table inet {fault.table} {{\n")
    chance = recorded.loss("a", 12.5, to="b")
    assert isinstance(chance, Recorder)
    assert "numgen random mod 100000 < 12500 counter drop" in chance.rules("b")


def test_nodes_of_a_set_are_found_by_number_name_and_role() -> None:
    cluster = cluster_of("a", "b")
    assert cluster["b"] is cluster.nodes[1]
    assert "a" in cluster.nodes
    assert cluster["a"] in cluster.nodes
    assert cluster.nodes.role("db").names == []
    assert cluster["a"].ssh_alias == "shop-a-container"


# Whose they are.


def test_a_process_is_told_from_others_that_had_its_number() -> None:
    mine = _process.process_id()
    assert mine is not None
    assert mine == _process.process_id(os.getpid())
    assert mine.startswith(f"{os.getpid()}:")
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait(60)
    assert _process.process_id(done.pid) is None
    marks = _process.labels()
    assert not _process.is_orphan(marks)
    dead = {**marks, label("process"): f"{os.getpid()}:1:boot"}
    assert _process.is_orphan(dead)
    assert not _process.is_orphan({**dead, label("host"): "elsewhere"})
    assert not _process.is_orphan({**dead, label("user"): "4242"})
    assert not _process.is_orphan({})


def test_the_id_of_a_snapshot_is_that_of_its_disks() -> None:
    one = Snapshot("shop", "s", {"a": "1", "b": "2"})
    assert one.id == Snapshot("shop", "other", {"b": "2", "a": "1"}).id
    assert one.id != Snapshot("shop", "s", {"a": "1", "b": "3"}).id


# The record.


def test_a_timeline_keeps_what_happened_and_for_how_long() -> None:
    timeline = Timeline()
    event = timeline.begin("partition", "partition a | b", ["a", "b"], fault="1")
    assert event.ended is None
    timeline.note("run", "true", ["a"])
    timeline.end(event, packets=3)
    first, second = timeline.events
    assert first.ended is not None
    assert first.began <= second.began <= first.ended
    assert first.details == {"fault": "1", "packets": 3}
    timeline.longest, timeline.most_commands = 5, 3
    timeline.clear()
    assert timeline.events == []
    for number in range(20):
        timeline.note("run", f"r{number}")
        timeline.note("step", f"s{number}")
    # Commands are many, and are not to drive out what is few.
    kept = [each.text for each in timeline.events]
    assert kept == ["s15", "s16", "r17", "s17", "r18", "s18", "r19", "s19"]
    assert timeline.forgotten == 17


def test_a_failed_test_is_shown_where_it_asked_and_not_inside_of_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(self: Node, *command: str, **options: object) -> None:
        raise Timeout("it did not end")

    monkeypatch.setattr(Node, "run", run)
    with pytest.raises(Timeout) as caught:
        Node.succeed(Node.__new__(Node), "true")
    assert str(_contact.__file__) in {str(entry.path) for entry in caught.traceback}
    assert {str(entry.path) for entry in caught.traceback.filter(caught)} == {__file__}
