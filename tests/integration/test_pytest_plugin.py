"""The pytest plugin: real test suites in processes of their own, with the real engine."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import redock
from redock._engine import Engine, label
from redock.cluster import Cluster, _process, list_clusters
from redock.cluster._collect import gather, log_sizes
from redock.errors import Timeout

from .conftest import Home, ssh
from .harness import PATIENCE, ROUNDS, wait_for

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA"]


class Suite:
    """
    A test suite in a directory of its own.

    :param directory: The directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")

    def write(self, **files: str) -> None:
        """Write modules, given by name."""
        for name, text in files.items():
            (self.directory / f"{name}.py").write_text(textwrap.dedent(text))

    def begin(self, *options: str) -> subprocess.Popen[str]:
        """Start the suite."""
        return subprocess.Popen(
            [*PYTEST, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            start_new_session=True,
        )

    def run(self, *options: str, **outcomes: int) -> str:
        """Run the suite, check what became of its tests, and return what it printed."""
        process = self.begin(*options)
        output, _ = process.communicate(timeout=300)
        check(output, **outcomes)
        return output

    def notes(self) -> list[list[str]]:
        """Read what the tests noted down, a line each."""
        file = self.directory / "notes"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def check(output: str, **outcomes: int) -> None:
    """Compare the last line of pytest's with what is expected."""
    last = output.rstrip().splitlines()[-1]
    found = {what: int(count) for count, what in re.findall(r"(\d+) ([a-z]+)", last)}
    assert {what: found.get(what, 0) for what in outcomes} == outcomes, output
    assert set(found) - set(outcomes) <= {"in"}, output


@pytest.fixture
def suite(home: Home, tmp_path: Path) -> Suite:
    """An empty test suite."""
    return Suite(tmp_path)


@pytest.fixture
def clusters(engine: Engine) -> Iterator[set[str]]:
    """The clusters that are taken down after the test, by name."""
    names: set[str] = set()
    yield names
    for name in names:
        Cluster(name=name).down()


def leftovers(engine: Engine, name: str, value: str, start: str = "") -> list[str]:
    """Find what carries a label, or one that starts so."""
    wanted = label(name)
    marks = {"label": [f"{wanted}={value}" if value else wanted]}
    found = [*engine.containers(marks), *engine.networks(marks), *engine.volumes(marks)]
    found += engine.images(marks)
    return [
        str(each.get("Name") or each.get("Names") or each.get("RepoTags"))
        for each in found
        if ((each.get("Labels") or {}).get(wanted) or "").startswith(start)
    ]


def run_of(output: str) -> str:
    """Find the name of the run in what pytest printed."""
    found = re.search(r"\brun ([0-9a-f]{12}), --redock-seed", output)
    assert found, output
    return found[1]


#: Succeeds where the node n2 can be reached.
REACH = "timeout 2 bash -c '</dev/tcp/n2/22'"
NOTE = f"""
    import os

    REACH = {REACH!r}

    def note(*words):
        with open(os.path.join(os.path.dirname(__file__), "notes"), "a") as handle:
            print(*words, file=handle)
"""


def test_every_test_starts_from_the_base_state(suite: Suite, engine: Engine) -> None:
    suite.write(
        conftest="""
            def pytest_redock_provision(cluster):
                cluster.nodes.run("echo hook >>/etc/state")

            def pytest_redock_collect(cluster, dest):
                with open(f"{dest}/mine", "w") as handle:
                    handle.write(cluster.name)
        """,
        test_one=NOTE
        + """
    import pytest
    pytestmark = pytest.mark.cluster(nodes=2, logs=["/var/log/app*.log"])

    @pytest.fixture(scope="module")
    def provision(base_cluster):
        base_cluster.nodes.run("echo fixture >>/etc/state")

    @pytest.fixture(scope="module")
    def later(base_cluster):
        base_cluster["n1"].succeed("echo later >>/etc/state")

    def state(node):
        return node.succeed("cat /etc/state").split()

    def test_prepared(provision, cluster, node, redock_session):
        assert [each.name for each in cluster] == ["n1", "n2"]
        assert state(node) == state(cluster["n2"]) == ["hook", "fixture"]
        node.run("echo dirt >>/etc/state; echo 2026-01-01T00:00:00Z hello >/var/log/app1.log")
        cluster.partition(["n1"], ["n2"])
        note(redock_session.run, redock_session.seed, cluster.name)

    def test_healed_and_rewound(provision, cluster, node):
        assert cluster.faults == []
        assert node.run(REACH).ok
        assert state(node) == ["hook", "fixture"]

    def test_fixtures_that_come_later_count(provision, later, cluster, node):
        assert state(node) == ["hook", "fixture", "later"]
        node.run("echo dirt >>/etc/state")

    def test_and_stay(provision, later, cluster, node):
        assert state(node) == ["hook", "fixture", "later"]

    @pytest.mark.rollback("never")
    def test_leaves_dirt(cluster, node):
        node.run("echo dirt >>/etc/state")
        node.pause()

    @pytest.mark.rollback("failed")
    def test_finds_dirt(cluster, node):
        assert state(node)[-1] == "dirt"

    def test_finds_it_still(cluster, node):
        assert state(node)[-1] == "dirt"

    def test_finds_none(cluster, node):
        assert state(node)[-1] == "later"

    @pytest.mark.cluster(nodes=["solo"])
    def test_with_another_cluster(cluster, node, cluster_factory, redock_session):
        note(redock_session.run, redock_session.seed, cluster.name)
        assert node.name == "solo" and node.spec.logs == ("/var/log/app*.log",)
        assert state(node) == ["hook"]

    @pytest.mark.cluster(nodes=["solo"])
    def test_factory(cluster_factory):
        made = cluster_factory(nodes=1)
        assert state(made["n1"]) == ["hook"]
        with pytest.raises(Exception, match="a cluster of a test has no name of its own"):
            cluster_factory(nodes=1, name="x")
""",
    )
    output = suite.run(
        "--redock-logs=all", "--redock-timeline=all", "--redock-artifacts=art",
        "--redock-seed=5", "--redock-max-clusters=2", passed=10,
    )  # fmt: skip
    (run, seed, first), (again, _, second) = suite.notes()
    assert (run, seed, again) == (run_of(output), "5", run)
    assert first == f"t{run[:7]}-1" and second == f"t{run[:7]}-2"
    assert f"run {run}, --redock-seed=5, clusters made: 3" in output
    assert "evidence: " in output and "faults this engine can make: " in output
    evidence = suite.directory / "art" / "test_one-test_prepared"
    assert (evidence / "mine").read_text() == first
    assert (evidence / "n1/var/log/app1.log").read_text() == "2026-01-01T00:00:00Z hello\n"
    events = json.loads((evidence / "timeline.json").read_text())["events"]
    assert {"run", "partition"} <= {event["kind"] for event in events}
    assert "partition n1 | n2" in (evidence / "timeline.html").read_text()
    assert leftovers(engine, "run", run) == []


def test_what_fails_is_kept_and_explained(suite: Suite, engine: Engine, clusters: set[str]) -> None:
    suite.write(
        test_kept=NOTE
        + """
    import pytest
    pytestmark = pytest.mark.cluster(nodes=2, logs=["/var/log/app.log"])

    @pytest.fixture(scope="module", autouse=True)
    def provision(base_cluster):
        base_cluster.nodes.run("echo before the test >/var/log/app.log; touch /etc/prepared")

    @pytest.mark.nemesis("pause", interval=60)
    def test_split(cluster, node, nemesis):
        note("failed", cluster.name, nemesis.seed)
        cluster["n2"].run("echo 'it went \\033[31mwrong' >>/var/log/app.log")
        node.run("touch /etc/dirt")
        cluster.isolate("n1")
        with cluster.timeline.step("look & see"):
            assert node.run(REACH).ok, "<b>cut off</b>"

    def test_next(cluster, node):
        note("next", cluster.name, 0)
        assert node.run("test -e /etc/prepared").ok and not node.run("test -e /etc/dirt").ok
"""
    )
    output = suite.run(
        "--redock-keep=failed", "--redock-artifacts=art", "--redock-seed=9", failed=1, passed=1
    )
    (_, name, seed), (_, other, _) = suite.notes()
    clusters.update([name, other])
    assert name != other
    again = "again:     pytest test_kept.py::test_split --redock-seed=9"
    assert again in output
    assert f"kept:      {name}, as the test left it\n" in output
    assert output.count(f"ssh {name}-n1-container") == 2, "in the report and in the summary"
    assert f"kept: {name} (redock cluster down {name})" in output
    log = output.partition("redock: n2:/var/log/app.log")[2].partition("\n-")[0]
    assert "it went wrong" in log and "before the test" not in log
    assert re.search(r"n1 +isolate: isolate n1", output)
    assert re.search(r"all +step: look & see \(AssertionError\)", output)
    page = (suite.directory / "art/test_kept-test_split/timeline.html").read_text()
    assert "look &amp; see" in page and "&lt;b&gt;cut off" in page and "<b>cut off" not in page
    assert not (suite.directory / "art/test_kept-test_next").exists()

    # It is as the test left it, whatever sweeps the others away.
    assert _process.sweep(engine) == []
    assert list_clusters(engine)[name] == ["n1", "n2"] and other not in list_clusters(engine)
    assert ssh(f"{name}-n1-container", "ls /etc/dirt").stdout == "/etc/dirt\n"
    assert ssh(f"{name}-n1-container", REACH).returncode
    assert Cluster(name=name).down()
    assert leftovers(engine, "cluster", name) == []
    assert leftovers(engine, "run", run_of(output)) == []

    # The same seed breaks the same test in the same way, also when it runs alone.
    suite.run(again.split()[2], "--redock-seed=9", failed=1)
    assert suite.notes()[-1][2] == seed
    suite.run(again.split()[2], "--redock-seed=10", failed=1)
    assert suite.notes()[-1][2] != seed


def test_tests_that_need_what_the_engine_cannot_do_are_skipped(suite: Suite) -> None:
    suite.write(
        test_faults="""
            import pytest
            from redock.errors import FaultUnsupported

            @pytest.mark.requires_fault("partition", "earthquake")
            def test_never(cluster):
                raise AssertionError("it ran")

            @pytest.mark.requires_fault("partition")
            def test_finds_out_itself(redock_session):
                raise FaultUnsupported("no ground to shake")
        """
    )
    output = suite.run(skipped=2)
    assert "earthquake cannot be made with this engine: there is no such fault" in output
    assert "no ground to shake" in output
    assert re.search(r"faults this engine can make: .*partition \(nftables\)", output)
    output = suite.run("--redock-strict-faults", failed=1, error=1)
    assert "there is no such fault (--redock-strict-faults)" in output


def test_workers_have_clusters_of_their_own(suite: Suite, engine: Engine) -> None:
    module = (
        NOTE
        + """
    import os, time, pytest
    pytestmark = pytest.mark.cluster(nodes=1)

    def test_a(cluster, redock_session, worker_id):
        note("%s", worker_id, cluster.name, redock_session.run, redock_session.seed)
        time.sleep(1)

    def test_b(cluster, worker_id):
        note("%s", worker_id, cluster.name)
"""
    )
    suite.write(
        test_x=module.replace("%s", "x"),
        test_y=module.replace("%s", "y"),
    )
    output = suite.run("-n2", "--dist=loadfile", "--redock-seed=3", passed=4)
    run = run_of(output)
    assert f"run {run}, --redock-seed=3, clusters made: " in output
    seen: dict[str, set[tuple[str, ...]]] = {}
    for module_name, worker, name, *more in suite.notes():
        assert name.startswith(f"t{run[:7]}-{worker}-")
        assert more in ([], [run, "3"])
        seen.setdefault(module_name, set()).add((worker, name))
    assert {len(seen["x"]), len(seen["y"])} == {1}
    assert seen["x"] != seen["y"]
    assert leftovers(engine, "run", run) == []


def test_what_a_worker_leaves_that_dies_is_removed(suite: Suite, engine: Engine) -> None:
    suite.write(
        test_dies=NOTE
        + """
    import os, pytest, signal

    @pytest.mark.cluster(nodes=1)
    def test_dies(cluster, redock_session):
        note(redock_session.run)
        os.kill(os.getpid(), signal.SIGKILL)

    @pytest.mark.cluster(nodes=1)
    def test_goes_on(cluster, redock_session):
        note(redock_session.run)
"""
    )
    output = suite.run("-n1", passed=1, failed=1)
    ((run,), (again,)) = suite.notes()
    assert "crashed while running 'test_dies.py::test_dies'" in output
    assert run == again == run_of(output)
    wait_for(lambda: leftovers(engine, "run", run) == [])


def test_runs_side_by_side_let_each_other_be(suite: Suite, engine: Engine) -> None:
    suite.write(
        test_slow="""
            import time, pytest
            pytestmark = pytest.mark.cluster(nodes=1)

            @pytest.mark.parametrize("number", range(3))
            def test_alone(cluster, node, number):
                assert not node.run("test -e /etc/mine").ok
                node.succeed("touch /etc/mine")
        """
    )
    outputs = [process.communicate(timeout=300)[0] for process in [suite.begin(), suite.begin()]]
    runs = {run_of(output) for output in outputs}
    assert len(runs) == 2
    for output in outputs:
        check(output, passed=3)
    for run in runs:
        assert leftovers(engine, "run", run) == []


def test_the_next_run_finds_a_cluster_that_is_reused(
    suite: Suite, engine: Engine, clusters: set[str]
) -> None:
    suite.write(
        test_again=NOTE
        + """
    import pytest
    pytestmark = pytest.mark.cluster(nodes=1)

    @pytest.fixture(scope="module", autouse=True)
    def provision(base_cluster):
        base_cluster["n1"].succeed("! test -e /etc/state && echo once >/etc/state")

    def test_reused(cluster, node):
        note(cluster.name, node.owner_id, cluster.created)
        assert node.succeed("cat /etc/state") == "once\\n"
        node.succeed("echo dirt >/etc/state")
"""
    )
    outputs = [suite.run("--redock-reuse", passed=1) for _ in (1, 2)]
    (name, owner, created), (again, same, found) = suite.notes()
    clusters.add(name)
    assert (again, same) == (name, owner) and (created, found) == ("True", "False")
    assert f"ssh {name}-n1-container" in outputs[0]
    assert "clusters made: 1" in outputs[0] and "clusters made: 0" in outputs[1]
    assert Cluster(name=name).down()
    assert leftovers(engine, "cluster", name) == []


LONG = """
    import pytest
    pytestmark = pytest.mark.cluster(nodes=2)

    @pytest.mark.parametrize("number", range(1000))
    def test_busy(cluster, node, number):
        with cluster.isolate("n1"):
            node.succeed("echo dirt >>/etc/state")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("round", range(ROUNDS))
def test_nothing_is_left_of_a_run_that_is_killed(
    suite: Suite, engine: Engine, number: int, round: int
) -> None:
    suite.write(test_long=LONG)
    process = suite.begin()
    assert process.stdout is not None
    mine: Callable[[], list[str]] = lambda: leftovers(engine, "process", "", f"{process.pid}:")  # noqa: E731
    wait_for(mine)
    # Anywhere from the first container to the middle of a test.
    with_luck = random.uniform(0.0, 4.0)
    try:
        process.wait(with_luck)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, number)
    output, _ = process.communicate(timeout=PATIENCE)
    print(f"killed after {with_luck:.2f} seconds", output[-500:])
    assert process.returncode in (2, -number)
    wait_for(lambda: mine() == [])


def test_nothing_is_left_where_a_cluster_could_not_be_taken_down(
    suite: Suite, engine: Engine
) -> None:
    suite.write(
        test_stubborn="""
            import pytest
            from redock.cluster import _process
            from redock.errors import EngineError

            def refuse(engine, cluster):
                raise EngineError("the engine is in a mood")

            @pytest.mark.cluster(nodes=1)
            def test_it(cluster):
                _process.remove_cluster = refuse
        """
    )
    output = suite.run(passed=1, error=1)
    assert "the engine is in a mood" in output
    wait_for(lambda: leftovers(engine, "run", run_of(output)) == [])


def test_nothing_is_left_of_workers_whose_controller_is_killed(
    suite: Suite, engine: Engine
) -> None:
    suite.write(test_long=LONG)
    process = suite.begin("-n2")
    assert process.stdout is not None
    wait_for(lambda: workers(engine, process.pid))
    seen = workers(engine, process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait(PATIENCE)
    wait_for(lambda: not any(leftovers(engine, "process", "", f"{pid}:") for pid in seen))


def workers(engine: Engine, controller: int) -> list[int]:
    """Find the children of a process that have made something."""
    found = []
    for each in engine.containers({"label": [label("worker")]}):
        pid = each["Labels"][label("process")].partition(":")[0]
        status = Path(f"/proc/{pid}/status")
        if status.exists() and f"PPid:\t{controller}\n" in status.read_text():
            found.append(int(pid))
    return found


def test_the_quick_start_works_when_it_is_pasted(suite: Suite) -> None:
    page = Path(redock.__file__).parents[1] / "docs" / "pytest.rst"
    found = re.search(r"code-block:: python\n\n(.*?)\n\n\S", page.read_text(), re.DOTALL)
    assert found
    suite.write(test_redis=found[1])
    output = suite.run("--redock-artifacts=art", passed=2, failed=1)
    assert r"AssertionError: assert '\n' == 'red\n'" in output
    drawn = (suite.directory / "art/test_redis-test_no_write_is_lost/timeline.html").read_text()
    assert "partition</em> n1 | n2,n3" in drawn
    assert "Connection with replica" in drawn, "the log of Redis"


def test_testinfra_looks_at_the_first_node(suite: Suite, engine: Engine) -> None:
    suite.write(
        test_infra="""
            import pytest

            @pytest.mark.cluster(nodes=["seen"])
            def test_node(host, cluster):
                assert host.check_output("hostname") == "seen"
                assert host.file("/etc/passwd").contains("root")
        """,
        test_other="""
            import os

            def test_this_machine(host):
                assert host.check_output("hostname") == os.uname().nodename
        """,
    )
    output = suite.run(passed=2)
    assert "test_node[local]" in output, "both plugins are at work"
    assert leftovers(engine, "run", run_of(output)) == []
    # Without the plugin of pytest-testinfra the fixture is ours alone.
    output = suite.run("-p", "no:pytest11.testinfra", "test_infra.py", passed=1)
    assert "PASSED test_infra.py::test_node\n" in output


@pytest.fixture(scope="module")
def two(home: Home) -> Iterator[Cluster]:
    """Two nodes with logs."""
    logs = ["/var/log/app*.log"]
    with Cluster(nodes=2, name=f"t{os.getpid()}-evidence", logs=logs) as cluster:
        yield cluster


def test_evidence_is_collected_from_nodes_in_any_state(two: Cluster, tmp_path: Path) -> None:
    two.nodes.run('echo "$(date -u +%FT%T.%N) $(hostname) is fine" >/var/log/app1.log')
    sizes = log_sizes(two)
    assert sizes == {(name, "/var/log/app1.log"): 41 for name in ("n1", "n2")}
    # Nobody notices that anything was collected: nothing has to be rewound.
    # Unless a packet of the network's own comes in between: somebody asks who has an address.
    for attempt in range(5):
        base = two.snapshot(f"base{attempt}")
        assert two.collect(tmp_path / f"quiet{attempt}")
        if two.restore(base) == []:
            break
    else:
        pytest.fail("it was noticed that logs were collected")
    mark = two.timeline.now()
    two["n1"].succeed('echo "$(date -u +%FT%T.%N) error 17" >>/var/log/app1.log')
    two["n2"].succeed("ln -s app1.log /var/log/app2.log; echo no time >>/var/log/app1.log")
    with two["n1"].kill(), two["n2"].pause():
        evidence = gather(two, mark, sizes)
        files = evidence.write(str(tmp_path / "evidence"), "what was seen")
    assert {os.path.relpath(file, tmp_path / "evidence") for file in files} == {
        "timeline.json",
        "timeline.html",
        "n1/engine.log",
        "n2/engine.log",
        "n1/var/log/app1.log",
        "n2/var/log/app1.log",
        "n2/var/log/app2.log",
    }
    whole = (tmp_path / "evidence/n1/var/log/app1.log").read_text()
    assert "n1 is fine" in whole and "error 17" in whole
    assert "supervisord started" in (tmp_path / "evidence/n2/engine.log").read_text()
    assert evidence.written["n2", "/var/log/app1.log"] == "no time\n"
    (line,) = (line for line in evidence.lines if line.node == "n1")
    assert line.moment is not None and line.level == "error"
    # It is where it happened: after the command began that wrote it, before the power was cut.
    begun = {event.kind: event.began for event in two.timeline.since(mark)}
    command = next(event for event in two.timeline.since(mark) if event.nodes == ("n1",))
    assert command.began <= line.moment <= begun["kill"]


def test_commands_are_on_the_timeline(two: Cluster) -> None:
    node = two["n1"]
    mark = two.timeline.now()
    node.run("echo bad >&2; exit 3")
    node.wait_until_succeeds("true")
    node.wait_for_file("/etc/passwd")
    node.succeed("echo a word >/var/log/app9.log")
    node.wait_for_log("w.rd", "/var/log/app9.log")
    with pytest.raises(Timeout):
        node.wait_for_port(4242, timeout=0.2)
    found = [(event.kind, event.text) for event in two.timeline.since(mark)]
    assert found == [
        ("run", "echo bad >&2; exit 3"),
        ("wait", "wait until true succeeds"),
        ("wait", "wait for /etc/passwd"),
        ("run", "echo a word >/var/log/app9.log"),
        ("wait", "wait for 'w.rd' in /var/log/app9.log"),
        ("log", "a word"),
        ("wait", "wait for port 4242"),
    ]
    first, *_, last = two.timeline.since(mark)
    assert first.details == {"status": 3, "output": "bad"}
    assert last.details == {"failed": "Timeout"}
