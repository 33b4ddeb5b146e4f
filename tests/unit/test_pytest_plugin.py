"""The pytest plugin without an engine: options, markers, groups, and being unnoticed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from redock.cluster import NodeSpec
from redock.errors import InvalidArgument, SettingsError
from redock.pytest_plugin import _options, _report, _wanted, _workers, uses_redock
from redock.pytest_plugin._session import policy

pytest_plugins = ["pytester"]


def provision(host: object) -> None:
    """Provision nothing."""


# Being unnoticed.

PROBE = """
    import sys

    def pytest_unconfigure():
        print("LOADED", sorted(name for name in sys.modules if name.startswith("redock.")))
"""


def test_a_run_without_clusters_does_not_notice(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(PROBE)
    # Others may have used the same names.
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def node(): return "mine"

        @pytest.mark.cluster("mine")
        def test_x(tmp_path, node): assert node == "mine"
        """
    )
    done = pytester.runpytest_subprocess("-v", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=1)
    (line,) = (line for line in done.outlines if line.startswith("LOADED"))
    names = set(json.loads(line.removeprefix("LOADED ").replace("'", '"')))
    assert names == {"redock.pytest_plugin"} | {
        f"redock.pytest_plugin.{name}" for name in ("_hooks", "_options", "_testinfra")
    }
    # Plugins are listed by pytest itself; beyond that there is not a word.
    said = [line for line in done.outlines if "redock" in line and line != done.outlines[0]]
    assert [line for line in said if not line.startswith(("plugins:", "LOADED"))] == []


def test_it_explains_itself(pytester: pytest.Pytester) -> None:
    markers = pytester.runpytest_subprocess("--markers").stdout.str()
    fixtures = pytester.runpytest_subprocess("--fixtures", "-p", "no:testinfra").stdout.str()
    options = pytester.runpytest_subprocess("--help").stdout.str()
    for marker in ("cluster(nodes", "rollback(when", "requires_fault(*", "nemesis(**"):
        assert f"@pytest.mark.{marker}" in markers
    for fixture in ("redock_session", "cluster_factory", "base_cluster", "node", "nemesis", "host"):
        assert f"\n{fixture}" in fixtures
    for name, _, _ in _options.TABLE:
        assert f"--redock-{name}" in options
        assert f"redock_{name.replace('-', '_')}" in options


# Options.


def read(pytester: pytest.Pytester, *arguments: str) -> _options.Options:
    """Read the options of a run."""
    return _options.read(pytester.parseconfig(*arguments))


def test_options_come_from_the_command_line_or_the_ini_file(pytester: pytest.Pytester) -> None:
    assert read(pytester) == _options.Options()
    pytester.makeini(
        "[pytest]\nredock_scope = session\nredock_max_clusters = 2\nredock_strict_faults = yes\n"
        "redock_artifacts = from-ini\nredock_keep = failed\n"
    )
    given = read(pytester, "--redock-keep=always", "--redock-seed=0", "--redock-logs=all")
    assert given == _options.Options(
        scope="session",
        keep="always",
        artifacts=str(pytester.path / "from-ini"),
        logs="all",
        seed=0,
        max_clusters=2,
        strict_faults=True,
    )


@pytest.mark.parametrize(
    ("ini", "message"),
    [
        ("redock_scope = month", "'month' is none of function, class, module, package, session"),
        ("redock_keep = maybe", "'maybe' is none of never, failed, always"),
        ("redock_seed = x", "'x' is not a whole number"),
        ("redock_max_clusters = 0", "at least one cluster is needed"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    pytester: pytest.Pytester, ini: str, message: str
) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    with pytest.raises(pytest.UsageError, match=message):
        read(pytester)


def test_a_mistake_is_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(cluster): pass")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--redock-seed=x")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in done.stderr.str()
    assert "ERROR: redock_seed: 'x' is not a whole number" in done.stderr.str()


# What a cluster is to be.


def items_of(pytester: pytest.Pytester, source: str) -> dict[str, pytest.Item]:
    """Collect a module."""
    return {item.name: item for item in pytester.getitems(source)}


def test_what_is_said_nearest_to_the_test_counts(pytester: pytest.Pytester) -> None:
    (pytester.path / "shop.toml").write_text(
        'network = "10.9.0.0/28"\n[nodes.db]\nmemory = "64m"\n[nodes.web]\n'
    )
    items = items_of(
        pytester,
        """
        import pytest
        pytestmark = pytest.mark.cluster(nodes=3, packages=["redis"], timeout=9)

        def test_plain(cluster): pass

        @pytest.mark.cluster(nodes=1)
        def test_small(cluster): pass

        @pytest.mark.cluster("shop.toml", packages=[])
        def test_file(cluster): pass

        @pytest.mark.cluster(2, nodes=3)
        def test_twice(cluster): pass

        @pytest.mark.cluster(name="x")
        def test_named(cluster): pass
        """,
    )
    plain = _wanted.settings_for(items["test_plain"])
    assert plain == {"nodes": 3, "packages": ["redis"], "timeout": 9}
    assert _wanted.settings_for(items["test_small"]) == {**plain, "nodes": 1}
    found = _wanted.settings_for(items["test_file"])
    assert [node.name for node in found["nodes"]] == ["db", "web"]
    assert found["network"] == "10.9.0.0/28" and found["packages"] == []
    with pytest.raises(pytest.UsageError, match="test_twice: cluster"):
        _wanted.settings_for(items["test_twice"])
    with pytest.raises(pytest.UsageError, match="no name of its own"):
        _wanted.settings_for(items["test_named"])


def test_the_usual_ways_to_say_it_are_understood(tmp_path: Path) -> None:
    spec = NodeSpec("db")
    assert _wanted.settings_of(None) == {}
    assert _wanted.settings_of(2) == {"nodes": 2}
    assert _wanted.settings_of(["a", spec]) == {"nodes": ["a", spec]}
    assert _wanted.settings_of({"nodes": 1, "cpus": 0.5}) == {"nodes": 1, "cpus": 0.5}
    (tmp_path / "x.toml").write_text("nodes = 2\n")
    assert len(_wanted.settings_of("x.toml", str(tmp_path))["nodes"]) == 2
    with pytest.raises(SettingsError):
        _wanted.settings_of(tmp_path / "nothing.toml")
    for wrong in (1.5, object(), {"keep": True}):
        with pytest.raises(pytest.UsageError):
            _wanted.settings_of(wrong)
    with pytest.raises(InvalidArgument):
        NodeSpec("n1", logs=["var/log/x"])
    with pytest.raises(InvalidArgument):
        NodeSpec("n1", logs="/var/log/x")


def test_equal_settings_have_the_same_key_in_every_process() -> None:
    def settings(**more: Any) -> dict[str, Any]:
        node = NodeSpec("n1", roles={"b", "a"}, provision=provision, disks={"/data": "1m"})
        return {"nodes": [node, "n2"], "packages": ["x"], **more}

    text = _wanted.canonical(settings())
    assert " at 0x" not in text and "test_pytest_plugin:provision" in text
    assert _wanted.key_for(settings()) == _wanted.key_for(dict(reversed(settings().items())))
    assert _wanted.key_for(settings()) != _wanted.key_for(settings(packages=["y"]))
    assert _wanted.source_of(provision) == Path(__file__).read_text()
    assert _wanted.source_of(len) == ""


def test_tests_that_use_redock_are_told_from_others(pytester: pytest.Pytester) -> None:
    items = items_of(
        pytester,
        """
        import pytest

        @pytest.fixture
        def mine(cluster): pass

        def test_plain(tmp_path): pass
        def test_cluster(cluster): pass
        def test_mine(mine): pass
        @pytest.mark.requires_fault("latency")
        def test_fault(): pass
        @pytest.mark.rollback("sometimes")
        def test_policy(cluster): pass
        @pytest.mark.rollback("failed")
        def test_failed(cluster): pass
        """,
    )
    used = [name for name, item in items.items() if uses_redock(item)]
    assert used == [name for name in items if name != "test_plain"]
    assert policy(items["test_cluster"]) == "always"
    assert policy(items["test_failed"]) == "failed"
    with pytest.raises(pytest.UsageError, match="rollback\\('sometimes'\\) is none of"):
        policy(items["test_policy"])


def test_tests_that_share_a_cluster_are_a_group(pytester: pytest.Pytester) -> None:
    items = items_of(
        pytester,
        """
        import pytest
        pytestmark = pytest.mark.cluster(nodes=3)

        def test_a(cluster): pass
        def test_b(cluster): pass
        @pytest.mark.cluster(nodes=1)
        def test_c(cluster): pass
        @pytest.mark.xdist_group("mine")
        def test_d(cluster): pass
        """,
    )

    def groups(*arguments: str) -> list[str | None]:
        config = pytester.parseconfig(*arguments)
        config.option.loadgroup = "--dist=loadgroup" in arguments
        _workers.group(config, list(items.values()))
        found = [item.get_closest_marker("xdist_group") for item in items.values()]
        return [mark.args[0] if mark else None for mark in found]

    assert groups() == [None, None, None, "mine"]
    a, b, c, d = groups("--dist=loadgroup")
    assert a == b and a is not None and a.startswith("redock-")
    assert c not in (a, None) and d == "mine"
    assert [_workers.name_of(item) for item in items.values()] == [
        item.nodeid for item in items.values()
    ]


# What is told.


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("tests/test_x.py::test_a", "tests-test_x-test_a"),
        ("test_x.py::TestThem::test_a", "test_x-TestThem-test_a"),
        ("test_x.py::test_a[../../etc]", "test_x-test_a-..-..-etc-"),
    ],
)
def test_evidence_has_a_directory_a_test(name: str, directory: str) -> None:
    found = _report.directory_for("/art", name)
    assert os.path.dirname(found) == "/art"
    assert os.path.basename(found).startswith(directory)
    other = _report.directory_for("/art", "test_x.py::test_a[../..-etc]")
    assert os.path.normpath(found) == found and found != other
    assert len(os.path.basename(_report.directory_for("/art", "x" * 500))) < 120
