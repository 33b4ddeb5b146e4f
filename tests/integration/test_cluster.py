"""Clusters: booting, running commands, waiting, snapshots and the way back, whatever others do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock import _machines
from redock._engine import Engine, label
from redock.api import Container
from redock.cluster import Cluster, Fault, Node, NodeSpec, _netfault, _network, _process, _snapshot
from redock.errors import (
    AliasTaken,
    ConnectionFailed,
    ContainerDied,
    EngineError,
    ExternalCommandFailed,
    InvalidArgument,
    NetworkUnavailable,
    NotFound,
    RedockError,
    Timeout,
)

from .conftest import Home, command, new_name, ssh

#: Seconds for what takes a moment on an idle machine.
PATIENCE = 60.0


def fresh_name() -> str:
    """A name for a cluster that no other run uses."""
    return f"t{os.getpid()}-{next(_numbers)}"


_numbers = iter(range(1, 10_000))


@pytest.fixture(scope="module")
def cluster(home: Home) -> Iterator[Cluster]:
    """Three nodes, for tests that leave them as they were."""
    with Cluster(nodes=3, name=fresh_name()) as made:
        yield made


@pytest.fixture
def make_cluster(home: Home) -> Iterator[Callable[..., Cluster]]:
    """Make clusters that are taken down after the test."""
    made: list[Cluster] = []

    def make(*args: object, **options: object) -> Cluster:
        options.setdefault("name", fresh_name())
        cluster = Cluster(*args, **options)  # type: ignore[arg-type]
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.down()


def leftovers(engine: Engine, name: str) -> list[str]:
    """Find what is left of a cluster."""
    marks = {"label": [f"{label('cluster')}={name}"]}
    found = [each["Names"][0] for each in engine.containers(marks)]
    found += [each["Name"] for each in engine.networks(marks)]
    found += [each["Name"] for each in engine.volumes(marks)]
    found += [each["Id"] for each in engine.images(marks)]
    config = Path(os.environ["HOME"]) / ".redock" / "ssh" / "config"
    if config.exists():
        found += [line for line in config.read_text().splitlines() if f"Host {name}-" in line]
    return found


def reaches(sender: Node, receiver: Node) -> bool:
    """Try to connect from one node to another."""
    script = f"timeout 0.5 bash -c '</dev/tcp/{receiver.name}/22'"
    return sender.run(script).ok


# Booting.


def test_nodes_know_each_other_by_name_and_are_known_to_ssh(cluster: Cluster) -> None:
    assert [node.name for node in cluster] == ["n1", "n2", "n3"]
    for node in cluster:
        assert node.succeed("hostname") == f"{node.name}\n"
        done = ssh(node.ssh_alias, "hostname -I")
        assert (done.returncode, done.stdout.split(), done.stderr) == (0, [node.ip], "")
    assert cluster["n1"].succeed("getent hosts n3").split()[0] == cluster["n3"].ip
    assert all(reaches(a, b) for a in cluster for b in cluster if a is not b)


def test_ports_are_published_on_the_loopback_interface_only(cluster: Cluster) -> None:
    marks = {"label": [f"{label('cluster')}={cluster.name}"]}
    published = [
        (port["IP"], port["PublicPort"])
        for each in cluster.engine.containers(marks)
        for port in each["Ports"]
        if port.get("PublicPort")
    ]
    assert sorted(published) == sorted(("127.0.0.1", node.port) for node in cluster)


def test_root_in_a_node_cannot_undo_a_fault(cluster: Cluster) -> None:
    with cluster.isolate("n1") as fault:
        for attempt in ("nft flush ruleset", "nft list ruleset", "ip link set lo down"):
            assert not cluster["n1"].run(attempt).ok
        assert not reaches(cluster["n1"], cluster["n2"])
        assert fault.active


def test_no_key_is_in_the_image_of_a_snapshot(cluster: Cluster) -> None:
    snapshot = cluster.snapshot("keys")
    engine = cluster.engine
    container = engine.create_container(
        f"redock-{fresh_name()}", {"Image": snapshot.images["n1"], "Cmd": ["true"]}
    )
    try:
        packed = engine.get_archive(container, "/etc/redock")
        assert b"PRIVATE KEY" not in packed
        assert b"ssh-ed25519" not in packed
        marks = engine.inspect_container(container)["Config"]["Labels"]
        assert not any(marks[label(each)] for each in ("instance", "alias", "port", "name"))
    finally:
        engine.remove_container(container)


def test_commands_give_their_output_and_status(cluster: Cluster) -> None:
    node = cluster["n1"]
    result = node.run("echo out; echo err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert node.run("printf", "%s|", "a b", "c'd", "", "$HOME").stdout == "a b|c'd||$HOME|"
    assert node.run("cat", input="text").stdout == "text"
    assert node.run("exit 255").returncode == 255
    with pytest.raises(ExternalCommandFailed, match="no such thing"):
        node.succeed("echo no such thing >&2; false")
    assert node.fail("exit 7").returncode == 7
    with pytest.raises(RedockError, match="n1: true succeeded, and was expected to fail"):
        node.fail("true")
    everywhere = cluster.nodes.run("hostname")
    assert {name: each.stdout for name, each in everywhere.items()} == {
        "n1": "n1\n",
        "n2": "n2\n",
        "n3": "n3\n",
    }


def test_a_command_that_hangs_is_ended_inside_the_node(cluster: Cluster) -> None:
    node = cluster["n1"]
    with pytest.raises(Timeout, match=r"within 2 seconds; its last output: begun"):
        node.run("echo begun; sleep 4242", timeout=2)
    node.wait_until_fails("pgrep -f 'sleep 424[2]'")


def test_waiting_says_what_was_seen_last(cluster: Cluster) -> None:
    node = cluster["n2"]
    with pytest.raises(Timeout, match="last status 1; its last output: not yet"):
        node.wait_until_succeeds("echo not yet; false", timeout=2)
    with pytest.raises(Timeout, match="nobody listened on port 4242 within"):
        node.wait_for_port(4242, timeout=0.3)
    with pytest.raises(Timeout, match="/nothing did not come into being"):
        node.wait_for_file("/nothing", timeout=0.3)
    node.put(b"first\n", "/var/log/x.log")
    mark = node.log_mark("/var/log/x.log")
    with pytest.raises(Timeout, match="no line that matches 'first'"):
        node.wait_for_log("first", mark, timeout=0.3)
    node.run("(sleep 0.3; echo second line >>/var/log/x.log) >/dev/null 2>&1 &")
    assert node.wait_for_log(r"second (\w+)", mark)[1] == "line"
    assert node.wait_for_log("first", "/var/log/x.log")[0] == "first"
    node.run("setsid python3 -m http.server 4243 >/dev/null 2>&1 &")
    node.wait_for_port(4243)
    node.run("pkill", "-f", "http.server")


def test_files_go_in_and_come_out(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster["n3"]
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "a b").write_bytes(b"\0\xff")
    (tree / "script").write_text("#!/bin/sh\necho it runs\n")
    (tree / "script").chmod(0o755)
    node.put(tree, "/srv/tree")
    assert node.succeed("/srv/tree/script") == "it runs\n"
    assert node.succeed("stat -c %U:%G /srv/tree/below") == "root:root\n"
    assert node.get("/srv/tree/below/a b") == b"\0\xff"
    node.get("/srv/tree", tmp_path / "copy")
    assert (tmp_path / "copy" / "below" / "a b").read_bytes() == b"\0\xff"
    node.get("/srv/tree/script", tmp_path)
    assert (tmp_path / "script").read_text().endswith("it runs\n")
    node.put(b"secret", "/srv/secret", mode=0o600)
    assert node.succeed("stat -c %a /srv/secret") == "600\n"
    with pytest.raises(NotFound, match="node n3 has no file /nothing"):
        node.get("/nothing")
    with pytest.raises(InvalidArgument, match="No such file"):
        node.put(tmp_path / "nothing", "/x")


def test_configuration_management_and_remote_python(cluster: Cluster) -> None:
    with cluster["n1"].bootstrap() as host:
        assert host.file("/etc/motd", "Hello!\n")
        assert not host.file("/etc/motd", "Hello!\n")
    gateway = cluster["n1"].gateway()
    try:
        channel = gateway.remote_exec("channel.send(open('/etc/hostname').read())")
        assert channel.receive(PATIENCE) == "n1\n"
    finally:
        gateway.exit()
    with (
        cluster["n1"].pause(),
        pytest.raises(Timeout, match=r"n1 of .* did not answer .* is paused"),
    ):
        cluster["n1"].gateway(timeout=0.5)
    cluster["n1"].succeed("mv /usr/bin/python3 /usr/bin/python3.away")
    try:
        with pytest.raises(ConnectionFailed, match=r"node n1 .* has no python3"):
            cluster["n1"].gateway()
    finally:
        cluster["n1"].succeed("mv /usr/bin/python3.away /usr/bin/python3")


def test_mistakes_are_found_before_anything_is_made(home: Home) -> None:
    with pytest.raises(InvalidArgument, match="has no nodes"):
        Cluster(nodes=[])
    with pytest.raises(ValueError, match="two nodes called a"):
        Cluster(nodes=["a", "a"])
    with pytest.raises(ValueError, match="invalid name for a node"):
        Cluster(nodes=["-oProxyCommand=x"])
    with pytest.raises(InvalidArgument, match="too small for 14 nodes"):
        Cluster(nodes=14, network="10.78.0.0/28")
    with pytest.raises(InvalidArgument, match="no such setting"):
        Cluster(nodes=1, colour="red")


def test_a_cluster_that_is_there_is_found_again(make_cluster: Callable[..., Cluster]) -> None:
    first = make_cluster(2, keep=True)
    first.start()
    first["n1"].succeed("echo kept >/root/note")
    first.close()
    with make_cluster(2, name=first.name, keep=True) as second:
        assert not second.created
        assert second["n1"].succeed("cat /root/note") == "kept\n"
        assert [node.port for node in second] == [node.port for node in first]
    third = make_cluster(3, name=first.name, keep=True)
    with pytest.raises(InvalidArgument, match="is there with other nodes"):
        third.start()
    assert first.states() == {"n1": "running", "n2": "running"}


def test_a_node_that_fails_to_boot_stops_the_others_and_says_why(
    home: Home, engine: Engine, base_image: str
) -> None:
    broken = Container(new_name("broken"), timeout=30)
    broken.start()
    try:
        ssh(broken.ssh_alias, "echo 'nonsense here' >>/etc/ssh/sshd_config.d/00-redock.conf")
        broken.commit()
    finally:
        broken.kill()
    name = fresh_name()
    nodes = [NodeSpec("good"), NodeSpec("bad", image=broken.image.name)]
    try:
        with pytest.raises(ContainerDied, match=r"node bad did not boot: .*nonsense"):
            Cluster(nodes=nodes, name=name, timeout=10).start()
    finally:
        broken.delete()
    assert leftovers(engine, name) == []


def test_names_that_clash_are_refused(
    home: Home, engine: Engine, make_cluster: Callable[..., Cluster]
) -> None:
    first = make_cluster(nodes=["b-c"], name=f"{fresh_name()}-a")
    first.start()
    # "x-a" with node "b-c", and "x-a-b" with node "c", have the same alias.
    name = f"{first.name}-b"
    with pytest.raises(AliasTaken, match="give the cluster another name"):
        make_cluster(nodes=["c"], name=name).start()
    # The alias is there, and the first one's.
    assert leftovers(engine, name) == [f"Host {first['b-c'].ssh_alias}"]
    machine = Container(new_name("m"), hostname=f"{first.name}-b-c")
    with pytest.raises(AliasTaken, match="belongs to"):
        machine.start()
    assert machine._find_machine() is None


def test_networks_that_are_used_up_are_an_error_that_says_so(
    engine: Engine, make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ipaddress

    monkeypatch.setattr(_network, "POOL", ipaddress.IPv4Network("10.79.240.0/28"))
    make_cluster(1).start()
    name = fresh_name()
    with pytest.raises(NetworkUnavailable, match="no free network for 1 nodes"):
        make_cluster(1, name=name).start()
    with pytest.raises(NetworkUnavailable, match="is in use already"):
        make_cluster(1, name=name, network="10.79.240.0/29").start()
    assert leftovers(engine, name) == []


def test_two_clusters_side_by_side_do_not_meet(
    engine: Engine, make_cluster: Callable[..., Cluster]
) -> None:
    one, two = make_cluster(2), make_cluster(2)
    one.start()
    two.start()
    assert one["n1"].ip != two["n1"].ip
    assert one["n1"].succeed("getent hosts n2").split()[0] == one["n2"].ip
    with one.partition(["n1"]):
        assert reaches(two["n1"], two["n2"])
    one.down()
    assert leftovers(engine, one.name) == []
    assert reaches(two["n1"], two["n2"])


def test_taking_it_down_leaves_nothing(
    engine: Engine, make_cluster: Callable[..., Cluster]
) -> None:
    cluster = make_cluster([NodeSpec("n1", disks={"/data": "8m"})])
    cluster.start()
    cluster.snapshot("one")
    cluster.restore("one", full=True)
    assert leftovers(engine, cluster.name)
    assert cluster.down()
    assert leftovers(engine, cluster.name) == []
    assert not cluster.down()


def test_resources_are_limited(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster([NodeSpec("n1", memory="64m", cpus=0.5)])
    cluster.start()
    described = cluster.engine.inspect_container(cluster["n1"].container_id)["HostConfig"]
    assert (described["Memory"], described["NanoCpus"]) == (64 * 1024**2, 500_000_000)


def test_provisioning_happens_once(
    engine: Engine, make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    script = tmp_path / "provision.py"
    script.write_text(
        "def provision(host):\n"
        f"    # {fresh_name()}\n"
        "    host.execute('date +%N >/etc/provisioned')\n"
    )
    stamps = set()
    for _ in range(2):
        cluster = make_cluster(2, provision=str(script))
        cluster.start()
        first = engine.inspect_container(cluster["n1"].container_id)["Image"]
        stamps |= {each.stdout for each in cluster.nodes.run("cat /etc/provisioned").values()}
        cluster.down()
    assert len(stamps) == 1
    script.write_text(script.read_text() + "# changed\n")
    cluster = make_cluster(1, provision=str(script))
    cluster.start()
    marks = stamps | {cluster["n1"].succeed("cat /etc/provisioned")}
    assert len(marks) == 2
    made = engine.inspect_container(cluster["n1"].container_id)["Image"]
    cluster.down()
    # Both of this test: nobody else provisions like that.
    for image in engine.images({"reference": ["redock-provisioned:*"]}):
        if image["Id"] in (made, first):
            engine.remove_image(image["RepoTags"][0], force=True)


def test_another_way_to_provision_installs_no_package_again(
    engine: Engine, make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    script = tmp_path / "provision.py"
    installed, made = set(), set()
    for number in (1, 2):
        script.write_text(
            "def provision(host):\n"
            f"    # {fresh_name()}\n"
            f"    host.file('/etc/provisioned', '{number}')\n"
            "    host.execute('dpkg-query -s hello', capture=True)\n"
        )
        cluster = make_cluster(1, packages=["hello"], provision=str(script))
        cluster.start()
        assert cluster["n1"].succeed("cat /etc/provisioned") == str(number)
        installed.add(cluster["n1"].succeed("stat -c %z /var/lib/dpkg/info/hello.list"))
        made.add(engine.inspect_container(cluster["n1"].container_id)["Image"])
        cluster.down()
    assert len(made) == 2
    assert len(installed) == 1
    # Not the one with the package: others may have it, too.
    for image in engine.images({"reference": ["redock-provisioned:*"]}):
        if image["Id"] in made:
            engine.remove_image(image["RepoTags"][0], force=True)


# Snapshots.


def test_restoring_brings_disks_back_and_keeps_what_others_know(cluster: Cluster) -> None:
    before = {node.name: (node.ip, node.port, node.ssh_alias) for node in cluster}
    keys = {node.name: node.succeed("cat /etc/redock/ssh/*.pub") for node in cluster}
    cluster["n1"].succeed("echo one >/root/note; rm -f /root/later")
    snapshot = cluster.snapshot("note")
    cluster["n1"].succeed("echo two >/root/note; touch /root/later; rm -rf /usr/share")
    assert "n1" in cluster.restore(snapshot)
    assert cluster["n1"].succeed("cat /root/note; ls /root") == "one\nnote\n"
    assert cluster["n1"].run("test -d /usr/share").ok
    assert before == {node.name: (node.ip, node.port, node.ssh_alias) for node in cluster}
    assert keys == {node.name: node.succeed("cat /etc/redock/ssh/*.pub") for node in cluster}
    done = ssh("-o", "ControlPath=none", cluster["n1"].ssh_alias, "hostname")
    assert (done.stdout, done.stderr) == ("n1\n", "")
    assert reaches(cluster["n1"], cluster["n2"])
    assert reaches(cluster["n2"], cluster["n1"])


def test_nodes_that_nothing_touched_are_left_running(cluster: Cluster) -> None:
    cluster.restore(cluster.snapshot("quiet"), full=True)
    cluster.stagehand.wait()
    for _ in range(5):
        snapshot = cluster.snapshot("quiet")
        containers = {node.name: node.container_id for node in cluster}
        # Neighbours ask for each other's addresses now and then, which is a trace as any other.
        if not cluster.restore(snapshot):
            break
    else:
        pytest.fail("nodes that nothing touched were restored")
    cluster["n2"].run("true")
    assert cluster.restore(snapshot) == ["n2"]
    assert cluster["n1"].container_id == containers["n1"]
    # A packet from another node, and one from the host that we know nothing of.
    cluster.stagehand.wait()
    assert reaches(cluster["n2"], cluster["n3"])
    assert set(cluster.restore(snapshot)) == {"n2", "n3"}
    assert ssh(cluster["n1"].ssh_alias, "true").returncode == 0
    assert "n1" in cluster.restore(snapshot)
    assert set(cluster.restore(snapshot, full=True)) == {"n1", "n2", "n3"}


def test_a_snapshot_is_of_one_moment(cluster: Cluster) -> None:
    counter = (
        "i=0; while :; do i=$((i+1)); echo $i >/root/new; mv /root/new /root/count; done"
        " >/dev/null 2>&1 &"
    )
    # n1 counts, and n2 copies what n1 counts: the copy must never be ahead.
    cluster["n1"].put(counter.encode(), "/root/counter")
    cluster["n1"].run("setsid sh /root/counter")
    server = "cd /root && setsid python3 -m http.server 8000 >/dev/null 2>&1 &"
    cluster["n1"].run(server)
    cluster["n1"].wait_for_port(8000)
    copier = (
        "import os, urllib.request\n"
        "while True:\n"
        "    data = urllib.request.urlopen('http://n1:8000/count').read()\n"
        "    with open('/root/new', 'wb') as file: file.write(data)\n"
        "    os.rename('/root/new', '/root/copy')\n"
    )
    cluster["n2"].put(copier.encode(), "/root/copier.py")
    cluster["n2"].run("setsid python3 /root/copier.py >/dev/null 2>&1 &")
    cluster["n2"].wait_for_file("/root/copy")
    try:
        snapshot = cluster.snapshot("moment")
    finally:
        cluster["n1"].run("pkill -f counter; pkill -f http.server")
        cluster["n2"].run("pkill -f copier")
    cluster.restore(snapshot, full=True)
    count = cluster["n1"].succeed("cat /root/count").strip()
    copy = cluster["n2"].succeed("cat /root/copy").strip()
    assert int(copy) <= int(count)
    assert cluster.states() == dict.fromkeys(["n1", "n2", "n3"], "running")


def test_disks_in_memory_are_brought_back_too(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster([NodeSpec("n1", disks={"/data": "8m"})])
    cluster.start()
    node = cluster["n1"]
    node.succeed("echo one >/data/file; chown daemon /data/file")
    snapshot = cluster.snapshot("disk")
    node.succeed("echo two >/data/file; touch /data/more")
    node.crash()
    assert node.succeed("cat /data/file") == "two\n"
    cluster.restore(snapshot)
    assert node.succeed("ls /data; cat /data/file; stat -c %U /data/file") == "file\none\ndaemon\n"
    assert not node.run("head -c 9m /dev/zero >/data/big").ok


def test_a_snapshot_replaces_the_older_one_of_its_name(
    make_cluster: Callable[..., Cluster], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster([NodeSpec("n1", disks={"/data": "8m"}), NodeSpec("n2")])
    cluster.start()
    for note in ("one", "two", "three"):
        cluster.nodes.run(f"echo {note} >/root/note")
        cluster["n1"].succeed(f"echo {note} >/data/note")
        cluster.snapshot("again")
        # The clock of the host is set back.
        monkeypatch.setattr(_snapshot.time, "time_ns", lambda: 1)  # type: ignore[attr-defined]
    # Also before the older ones have been deleted.
    cluster.restore("again")
    assert cluster["n1"].succeed("cat /root/note /data/note") == "three\nthree\n"
    cluster.stagehand.wait()
    saved = engine.images({"label": [f"{label('cluster')}={cluster.name}"]})
    assert sorted(each["Labels"][label("node")] for each in saved if each["RepoTags"]) == [
        "n1",
        "n2",
    ]
    assert len(cluster["n1"].shell.check("ls /var/lib/redock/*.tar", "look").split()) == 1


def test_a_snapshot_that_fails_leaves_the_older_one_of_its_name(
    make_cluster: Callable[..., Cluster], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster([NodeSpec("n1", disks={"/data": "8m"}), NodeSpec("n2")])
    cluster.start()
    cluster.nodes.run("echo one >/root/note")
    cluster["n1"].succeed("echo one >/data/note")
    cluster.snapshot("again")
    cluster.nodes.run("echo two >/root/note")
    cluster["n1"].succeed("echo two >/data/note")
    commit = Engine.commit

    def fail(self: Engine, container: str, *args: str, **options: object) -> str:
        if container == cluster["n2"].container_id:
            assert set(cluster.states().values()) == {"paused"}
            raise EngineError("no space left on device")
        return commit(self, container, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "commit", fail)
    with pytest.raises(EngineError, match="no space left"):
        cluster.snapshot("again")
    assert set(cluster.states().values()) == {"running"}
    monkeypatch.undo()
    assert len([each for each in leftovers(engine, cluster.name) if "sha256:" in each]) == 2
    assert len(cluster["n1"].shell.check("ls /var/lib/redock/*.tar", "look").split()) == 1
    cluster.restore("again")
    assert {result.stdout for result in cluster.nodes.run("cat /root/note").values()} == {"one\n"}
    assert cluster["n1"].succeed("cat /data/note") == "one\n"


def test_rollback_is_a_with_statement(cluster: Cluster, engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), cluster.rollback():
        cluster["n1"].succeed("touch /root/in-the-block")
        raise ZeroDivisionError
    assert not cluster["n1"].run("test -e /root/in-the-block").ok
    cluster.stagehand.wait()
    assert not [name for name in cluster.snapshots() if name.startswith("rollback")]


@pytest.mark.parametrize("what", ["kill", "pause", "remove", "owner-kill", "owner-remove"])
def test_restoring_copes_with_what_others_did(
    what: str, make_cluster: Callable[..., Cluster], engine: Engine
) -> None:
    cluster = make_cluster(2)
    cluster.start()
    cluster["n1"].succeed("echo one >/root/note")
    snapshot = cluster.snapshot("before")
    node = cluster["n1"]
    target = node.owner_id if what.startswith("owner") else node.container_id
    verb = what.removeprefix("owner-")
    arguments = {"kill": ["kill"], "pause": ["pause"], "remove": ["rm", "-f"]}[verb]
    assert command("docker", *arguments, target).returncode == 0
    booted = cluster.restore(snapshot)
    assert "n1" in booted
    assert node.succeed("cat /root/note") == "one\n"
    assert reaches(cluster["n2"], node)
    assert reaches(node, cluster["n2"])
    assert ssh(node.ssh_alias, "hostname").stdout == "n1\n"


def test_a_replacement_that_somebody_removed_is_made_again(cluster: Cluster) -> None:
    snapshot = cluster.snapshot("standby")
    cluster.stagehand.wait()
    for standby in list(cluster.stagehand.ready.values()):
        cluster.engine.remove_container(standby.container)
    assert len(cluster.restore(snapshot, full=True)) == 3
    assert cluster["n1"].succeed("hostname") == "n1\n"


def test_an_unknown_snapshot_is_named(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match="has no snapshot nothing; there are: "):
        cluster.restore("nothing")


# Power.


def test_crash_keeps_the_disk_and_reboot_shuts_down_in_order(cluster: Cluster) -> None:
    node = cluster["n1"]
    node.succeed("echo kept >/root/disk")
    first = node.succeed("cat /proc/1/stat").split()[21]
    node.crash()
    assert node.succeed("cat /root/disk") == "kept\n"
    assert node.succeed("cat /proc/1/stat").split()[21] != first
    mark = node.log_mark("/var/log/supervisor/supervisord.log")
    node.reboot()
    node.wait_for_log("received SIGTERM|waiting for .* to die", mark)


def test_killed_and_paused_nodes_say_so(cluster: Cluster) -> None:
    node = cluster["n2"]
    with node.kill():
        with pytest.raises(ConnectionFailed, match=r"node n2 .* is exited"):
            node.run("true")
        assert not reaches(cluster["n1"], node)
    assert node.succeed("hostname") == "n2\n"
    with node.pause():
        assert node.state == "paused"
        with pytest.raises(Timeout, match="it is paused"):
            node.line.send("true", 0.5)
        assert cluster.snapshot("frozen")
        assert node.state == "paused"
    assert node.succeed("hostname") == "n2\n"
    node.pause()
    node.resume()
    assert node.state == "running"
    assert cluster.faults == []


def test_a_fault_on_a_node_that_has_gone_leaves_nothing(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(3)
    cluster.start()
    command("docker", "rm", "-f", cluster["n3"].container_id, cluster["n3"].owner_id)
    attempts: list[Callable[[], Fault]] = [
        lambda: cluster.isolate("n3"),
        cluster["n3"].pause,
        cluster["n3"].kill,
    ]
    for attempt in attempts:
        with pytest.raises(RedockError, match=r"n3.*gone|gone.*n3"):
            attempt()
    assert cluster.faults == []
    assert reaches(cluster["n1"], cluster["n2"])
    with pytest.raises(NotFound, match="there is no node called n4"):
        cluster.pause("n4")


# Interrupts, while threads are at work.


def interrupt_before(monkeypatch: pytest.MonkeyPatch, holder: object, verb: str) -> None:
    """
    Have this process interrupted at the first use of a verb, which then is done nevertheless.

    :param monkeypatch: Puts things right again.
    :param holder: The class or module that has the verb.
    :param verb: Its name.
    """
    done = getattr(holder, verb)
    first = iter([True])

    def late(*args: object, **options: object) -> object:
        if next(first, False):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        return done(*args, **options)

    monkeypatch.setattr(holder, verb, late)


@pytest.mark.parametrize("verb", ["create_container", "attach", "begin_start"])
def test_nothing_is_left_of_a_start_that_is_interrupted(
    verb: str,
    make_cluster: Callable[..., Cluster],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = make_cluster(2)
    interrupt_before(monkeypatch, Engine, verb)
    with pytest.raises(KeyboardInterrupt):
        cluster.start()
    assert leftovers(engine, cluster.name) == []
    assert "is left" not in caplog.text


def test_after_an_interrupted_snapshot_all_nodes_go_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_before(monkeypatch, _snapshot, "freeze")
    with pytest.raises(KeyboardInterrupt):
        cluster.snapshot("interrupted")
    assert set(cluster.states().values()) == {"running"}
    assert "interrupted" not in cluster.snapshots()


def test_nothing_is_left_of_a_fault_that_was_interrupted(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_before(monkeypatch, _netfault, "in_owner")
    with pytest.raises(KeyboardInterrupt):
        cluster.partition(["n1"], ["n2", "n3"])
    assert cluster.refresh() and cluster.faults == []
    assert reaches(cluster["n1"], cluster["n2"]) and reaches(cluster["n3"], cluster["n1"])


# What is left when the process ends.

PROGRAM = """
import sys, time
from redock.cluster import Cluster
cluster = Cluster(nodes=2, name=sys.argv[1])
cluster.start()
cluster.snapshot("s")
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", [0.4, 0.9, None])
def test_nothing_is_left_when_the_process_is_killed(
    number: signal.Signals, moment: float | None, home: Home, engine: Engine
) -> None:
    name = fresh_name()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        if moment is None:
            assert process.stdout.readline() == "ready\n"
        else:
            time.sleep(moment)
        process.send_signal(number)
        process.wait(PATIENCE)
    end = time.monotonic() + PATIENCE
    while leftovers(engine, name) and time.monotonic() < end:
        time.sleep(0.2)
    assert leftovers(engine, name) == []


def test_where_even_the_watchdog_was_killed_the_next_start_tidies_up(
    home: Home, engine: Engine, make_cluster: Callable[..., Cluster]
) -> None:
    name = fresh_name()
    program = PROGRAM.replace(
        'print("ready"', "from redock.cluster import _process\n"
        '_process.Watchdog.current.process.kill()\nprint("ready"'
    )  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", program, name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        process.kill()
    assert leftovers(engine, name)
    make_cluster(1).start()
    assert leftovers(engine, name) == []


def test_what_was_kept_is_not_tidied_up(
    home: Home, engine: Engine, make_cluster: Callable[..., Cluster]
) -> None:
    name = fresh_name()
    program = PROGRAM.replace(
        "time.sleep(600)",
        "from redock.cluster import _process\n_process.keep(cluster.engine, cluster.name)",
    )
    subprocess.run([sys.executable, "-c", program, name], check=True, capture_output=True)
    make_cluster(1).start()
    cluster = make_cluster(2, name=name)
    cluster.attach()
    assert cluster["n1"].succeed("hostname") == "n1\n"


def test_ports_of_nodes_are_not_given_to_machines(cluster: Cluster, engine: Engine) -> None:
    claimed = {claim.port for claim in _machines.find_claims(engine)}
    assert {node.port for node in cluster} <= claimed
    assert _process.process_id() is not None
