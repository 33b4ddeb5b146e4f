"""One cluster and several processes, without an engine: records, labels, who is who."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from redock._engine import KIND, Engine, label
from redock.cluster import Cluster, Fault, NodeSpec, _netfault, _process, _records, _sharing
from redock.cluster._boot import Place
from redock.cluster._fault import Kill, Pause
from redock.cluster._listing import describe_clusters, running_process
from redock.cluster._node import Node
from redock.errors import ForeignContainer, InvalidArgument, NotFound, RedockError

ID = "a" * 64


class Quiet(Engine):
    """An engine with nothing."""

    def __init__(self, containers: list[dict[str, Any]] | None = None) -> None:
        super().__init__()
        self.there = containers or []

    def containers(self, filters: Any, *, size: bool = False) -> list[dict[str, Any]]:
        wanted = filters["label"]
        return [
            each
            for each in self.there
            if all(
                f"{key}={value}" in wanted or key in wanted or not mentions(wanted, key)
                for key, value in each["Labels"].items()
            )
        ]

    def volumes(self, filters: Any) -> list[dict[str, Any]]:
        return []


def mentions(wanted: list[str], key: str) -> bool:
    """Check whether a filter says anything about a label."""
    return any(each.partition("=")[0] == key for each in wanted)


@pytest.fixture
def cluster() -> Cluster:
    """Three nodes that were never started."""
    cluster = Cluster(["n1", "n2", "n3"], name="shop", engine=Quiet())
    for number, spec in enumerate(cluster.spec.nodes):
        place = Place("shop", spec.name, f"{number:012}", f"10.77.0.{number + 2}", 20000 + number)
        cluster.nodes.nodes.append(Node(cluster, spec, place))
    return cluster


def partition(cluster: Cluster) -> _netfault.PacketFault:
    """A fault that was not made."""
    pairs = _netfault.pairs_around([cluster["n1"]], list(cluster.nodes))
    return _netfault.PacketFault(
        cluster, "partition", "partition n1 | n2,n3", pairs, groups=[["n1"], ["n2", "n3"]]
    )


def seen(cluster: Cluster, **texts: str) -> _records.Sight:
    """What owners say, and all nodes run."""
    sight = _records.Sight(dict.fromkeys(cluster.nodes.names, "running"))
    for name, text in texts.items():
        sight.add(name, text)
    return sight


# Records.


def test_what_an_owner_says_is_read() -> None:
    sight = _records.Sight({})
    sight.add(
        "n1",
        f"{ID}\n\ntable inet redock_abc\ntable ip nat\ntable inet redock_def\n"
        '{"id": "abc", "text": "x"}\n{nonsense\n{"no": "id"}\n[1]\n',
    )
    sight.add("n2", "\n")
    assert sight.systems == {"n1": ID}
    assert sight.tables == {"n1": {"redock_abc", "redock_def"}, "n2": set()}
    assert list(sight.records) == ["abc"]
    assert sight.saw(["n1", "n2"])
    assert not sight.saw(["n1", "n3"])


def test_a_record_is_written_and_erased_by_a_shell(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_records, "FAULTS", str(tmp_path / "faults"))
    monkeypatch.setattr(_records, "SYSTEM", str(tmp_path / "var" / "system"))
    fault = partition(cluster)
    fault.text = "RECORD\nRECORD '$(touch x)' ü"
    subprocess.run(["sh", "-ec", _records.noting(fault)], check=True, cwd=tmp_path)
    (path,) = (tmp_path / "faults").iterdir()
    assert json.loads(path.read_text())["text"] == fault.text
    assert path.read_text().count("\n") == 1
    subprocess.run(["sh", "-ec", _records.erasing(fault)], check=True)
    assert list((tmp_path / "faults").iterdir()) == []
    subprocess.run(["sh", "-ec", _records.noting(fault)], check=True)
    subprocess.run(["sh", "-ec", _records.noting_system(ID)], check=True)
    assert (tmp_path / "var" / "system").read_text() == f"{ID}\n"
    assert list((tmp_path / "faults").iterdir()) == []


@pytest.mark.parametrize("make", [
    partition,
    lambda cluster: Pause(cluster, [cluster["n1"]], "pause n1"),
    lambda cluster: Kill(cluster, list(cluster.nodes), "kill all", signal="KILL"),
])  # fmt: skip
def test_a_fault_is_recalled_from_its_record(make: Any, cluster: Cluster) -> None:
    fault = make(cluster)
    again = Fault.recall(cluster, json.loads(json.dumps(fault.record())))
    assert again is not None
    assert type(again) is type(fault)
    assert again.record() == fault.record()
    assert again.summary() == fault.summary()
    assert [node.name for node in again.places()] == [node.name for node in fault.places()]
    assert not again.active


def test_records_of_another_redock_are_passed_over(cluster: Cluster) -> None:
    record = partition(cluster).record()
    changes: list[dict[str, Any]] = [
        {"class": "Earthquake"},
        {"nodes": ["n9"]},
        {"noted": {}},
        {"details": None},
        {"nodes": None},
    ]
    for change in changes:
        assert Fault.recall(cluster, {**record, **change}) is None
    assert Fault.recall(cluster, {}) is None


def test_faults_of_other_processes_are_found_and_those_they_healed_forgotten(
    cluster: Cluster,
) -> None:
    theirs = partition(cluster)
    record = json.dumps(theirs.record())
    text = f"\ntable inet {theirs.table}\n{record}\n"
    _sharing.merge(cluster, seen(cluster, n1=text, n2=text, n3=text), False)
    (found,) = cluster.faults
    assert (found.id, found.text, found.active) == (theirs.id, theirs.text, True)
    # Seen again it is the same, and what could not be seen is believed.
    _sharing.merge(cluster, seen(cluster, n1=text, n2=text, n3=text), False)
    _sharing.merge(cluster, seen(cluster, n1="\n", n2="\n"), False)
    assert cluster.faults == [found]
    _sharing.merge(cluster, seen(cluster, n1="\n", n2="\n", n3="\n"), False)
    assert cluster.faults == []
    assert not found.active
    # A record of rules that have gone is of nothing.
    _sharing.merge(cluster, seen(cluster, n1=f"\n{record}\n"), False)
    assert cluster.faults == []


def test_what_nobody_noted_is_found(cluster: Cluster) -> None:
    sight = seen(cluster, n1="\ntable inet redock_aa\n", n2="\ntable inet redock_aa\n", n3="\n")
    sight.states["n3"] = "paused"
    _sharing.merge(cluster, sight, False)
    rules, pause = cluster.faults
    assert (rules.kind, rules.text) == ("unknown", "rules nobody knows in n1, n2")
    assert isinstance(rules, _netfault.PacketFault)
    assert rules.table == "redock_aa"
    assert (pause.kind, pause.text, pause.is_noted) == ("pause", "pause n3", False)
    assert pause.summary()["since"] is None
    _sharing.merge(cluster, sight, False)
    assert cluster.faults == [rules, pause]


def test_faults_of_nodes_hold_while_the_engine_says_so(cluster: Cluster) -> None:
    pause = Pause(cluster, [cluster["n1"]], "pause n1")
    kill = Kill(cluster, [cluster["n2"]], "kill n2", signal="KILL")
    noted = f"\n{json.dumps(pause.record())}\n{json.dumps(kill.record())}\n"
    sight = seen(cluster, n1=noted, n2=noted)
    assert not pause.holds(sight)
    assert not kill.holds(sight)
    sight.states |= {"n1": "paused", "n2": "exited"}
    assert pause.holds(sight)
    assert kill.holds(sight)
    # Without power, but nobody's fault.
    sight.records.clear()
    assert not kill.holds(sight)


def test_a_fault_that_ends_with_its_process_is_not_noted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fleeting(Fault):
        """One that holds while this process does."""

        kind = "fleeting"

        def make(self) -> None:
            """Do nothing."""

        def unmake(self) -> None:
            """Do nothing."""

    noted: list[Fault] = []
    monkeypatch.setattr(_records, "note", noted.append)
    monkeypatch.setattr(_records, "erase", noted.append)
    fault = Fleeting(cluster, [cluster["n1"]], "fleeting").begin()
    # Nobody else sees it, so nobody's look ends it.
    _sharing.merge(cluster, seen(cluster, n1="\n", n2="\n", n3="\n"), False)
    assert cluster.faults == [fault]
    assert cluster.heal() == [fault]
    assert noted == []


def test_healing_goes_on_where_one_fault_cannot_be_healed(cluster: Cluster) -> None:
    class Stubborn(Fault):
        """One that cannot be healed at first."""

        kind = "stubborn"
        attempts = 0

        def make(self) -> None:
            """Do nothing."""

        def unmake(self) -> None:
            """Fail the first time."""
            self.attempts += 1
            if self.attempts == 1 and self.text == "stubborn":
                raise RedockError("no")

    good, bad = (Stubborn(cluster, [cluster["n1"]], text) for text in ("good", "stubborn"))
    good.begin()
    bad.begin()
    with pytest.raises(RedockError, match="no"):
        cluster.heal()
    assert cluster.faults == [bad]
    cluster.heal()
    assert cluster.faults == []


def test_one_thread_at_a_time_changes_a_cluster_and_may_do_so_again(cluster: Cluster) -> None:
    entered: list[str] = []
    with cluster.locked(), cluster.locked():
        thread = threading.Thread(target=lambda: entered.append(str(cluster.find_replaced())))
        thread.start()
        thread.join(60)
    # It did not wait for us: nobody else can have changed anything.
    assert entered == ["False"]
    assert cluster.find_replaced()


# Which container is a node.


def container(number: str, kind: str = "node", state: str = "running", **marks: str) -> Any:
    """A container of the cluster as the engine lists it."""
    name = marks.pop("named", f"redock-shop.n1.{number}")
    labels = {KIND: kind, label("cluster"): "shop", label("node"): "n1"}
    labels |= {label("instance"): "0" * 12, label("address"): "10.77.0.2", label("port"): "20000"}
    labels |= {label(key): value for key, value in marks.items()}
    return {"Id": number, "Names": [f"/{name}"], "State": state, "Created": 1, "Labels": labels}


def test_the_owner_knows_which_container_is_the_node(cluster: Cluster) -> None:
    place = cluster["n1"].place
    named = container("old", state="exited", named="redock-shop.n1")
    new, other = (container(each, standby="1:2:x") for each in ("new", "other"))
    assert _sharing.choose_system(place, [named, new, other], "new") == "new"
    assert _sharing.choose_system(place, [named, new, other]) == "old"
    # What only waits is not the node, and what was the node may have gone.
    assert _sharing.choose_system(place, [new, other]) == ""
    assert _sharing.choose_system(place, [named, other], "new") == ""


def test_strays_are_told_from_what_waits(cluster: Cluster) -> None:
    mine = _process.process_id() or ""
    dead = f"{os.getpid()}:1:boot"
    cluster["n1"].container_id = "now"
    found = [
        container("now", standby=dead),
        container("waits", standby=mine),
        container("woken", standby=dead),
        container("replaced", state="exited", standby=mine),
        container("first", state="exited"),
        container("owner", kind="owner"),
    ]
    assert _sharing.find_strays(cluster, found) == ["woken", "replaced", "first"]
    cluster.stagehand.buried.add("first")
    assert _sharing.find_strays(cluster, found) == ["woken", "replaced"]


# What is written on the owners.


def test_a_node_is_described_for_those_without_the_file(tmp_path: Path) -> None:
    script = tmp_path / "provision.py"
    script.write_text("def provision(host): pass\n")
    spec = NodeSpec(
        "n1",
        roles={"db"},
        memory="64m",
        cpus=0.5,
        disks={"/data": "8m"},
        packages=["b", "a"],
        provision=str(script),
    )
    text = _sharing.describe(spec)
    again = _sharing.recall_spec("n1", text)
    assert (again.roles, again.memory, again.cpus, again.disks) == (
        spec.roles,
        spec.memory,
        spec.cpus,
        spec.disks,
    )
    assert _sharing.changes(spec, text) == []
    # An older redock said nothing: nothing is known to be different.
    assert _sharing.changes(spec, "") == []
    assert _sharing.recall_spec("n1", "") == NodeSpec("n1")
    script.write_text("def provision(host): ...\n")
    assert _sharing.changes(spec, text) == ["provision"]
    assert _sharing.changes(NodeSpec("n1", roles={"web"}), text) == [
        "packages",
        "provision",
        "memory",
        "cpus",
        "disks",
    ]


def test_a_cluster_of_another_user_or_another_shape_is_refused(cluster: Cluster) -> None:
    _sharing.check_owner("shop", {label("user"): str(os.getuid())})
    _sharing.check_owner("shop", {})
    with pytest.raises(ForeignContainer, match="cluster shop belongs to another user"):
        _sharing.check_owner("shop", {label("user"): str(os.getuid() + 1)})
    engine = Quiet([container("o", kind="owner")])
    with pytest.raises(InvalidArgument, match=r"with other nodes \(n1, not n2\): take it down"):
        Cluster(["n2"], name="shop", engine=engine).attach()
    with pytest.raises(NotFound, match="'redock cluster up FILE' starts one"):
        Cluster.find("shop", engine=Quiet())


def test_what_is_added_to_a_cluster_goes_with_the_same_process(cluster: Cluster) -> None:
    theirs = {"run": "r", "process": "1:2:boot", "host": "h", "user": "0"}
    assert _sharing.inherited([container("o", kind="owner", **theirs)]) == {
        label(name): value for name, value in theirs.items()
    }
    assert _sharing.inherited([container("o", kind="owner")]) == {}
    cluster.inherited = {}
    assert cluster.marks() == {label("cluster"): "shop"}
    assert cluster.goes_with is None


def test_clusters_are_listed_with_whose_they_are() -> None:
    mine = {"process": _process.process_id() or "", "user": str(os.getuid())}
    there = [
        container("owner", kind="owner", named="redock-shop.n1.owner", **mine),
        container("now", named="redock-shop.n1", state="paused", **mine),
        container("waits", standby="1:2:x", **mine),
    ]
    (listed,) = describe_clusters(Quiet(there))
    assert listed["name"] == "shop"
    assert listed["process"] == os.getpid()
    (node,) = listed["nodes"]
    assert (node["name"], node["state"]) == ("n1", "paused")
    assert (node["ssh_alias"], node["port"]) == ("shop-n1-container", 20000)
    called = running_process(_process.labels())
    assert called is not None
    assert called.startswith(f"{os.getpid()} (")
    assert running_process({label("process"): f"{os.getpid()}:1:boot"}) is None
    assert running_process({}) is None
