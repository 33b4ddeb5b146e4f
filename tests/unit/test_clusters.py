"""The command line of ``redock cluster`` without an engine: which one is meant, and mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from redock.cli import make_parser
from redock.commands import _clusters
from redock.errors import InvalidArgument, NotFound
from tests.unit.conftest import run_many, run_redock


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be in, and one cluster that is there, called shop."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_clusters, "is_there", lambda name: name == "shop")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "needs", "place", "rest"),
    [
        (["a.toml"], 0, "a.toml", []),
        (["dir/a", "n1"], 1, "dir/a", ["n1"]),
        (["shop"], 0, "shop", []),
        (["shop", "n1", "n2"], 1, "shop", ["n1", "n2"]),
        # Of too few words the first cannot be the cluster, unless there is no other.
        (["shop"], 1, "cluster.toml", ["shop"]),
        (["n1"], 1, "cluster.toml", ["n1"]),
        (["n1", "n2"], 1, "cluster.toml", ["n1", "n2"]),
        (["clean"], 0, "cluster.toml", ["clean"]),
        ([], 0, "cluster.toml", []),
    ],
)
def test_the_first_word_is_the_cluster_or_not(
    words: list[str], needs: int, place: str, rest: list[str], here: Path
) -> None:
    (here / "cluster.toml").write_text("nodes = 2")
    assert _clusters.split(words, needs) == (place, rest)


def test_where_there_is_no_file_the_cluster_has_to_be_named(here: Path) -> None:
    assert _clusters.split(["shop", "n1"], 1) == ("shop", ["n1"])
    assert _clusters.split(["shop"], 1) == ("shop", [])
    with pytest.raises(NotFound, match="neither a cluster called n1 nor a file"):
        _clusters.split(["n1"], 1)
    with pytest.raises(NotFound, match=r"there is no cluster\.toml here: name a file"):
        _clusters.split([])


def test_groups_are_names_with_commas() -> None:
    assert _clusters.group("n1,n2") == ["n1", "n2"]
    for wrong in ("", ",", "n1,", "n1,,n2"):
        with pytest.raises(InvalidArgument, match="is no group of nodes"):
            _clusters.group(wrong)


def parse(*words: str) -> Any:
    """Read a command line."""
    return make_parser().parse_args(["cluster", *words])


def test_a_command_stands_behind_two_hyphens() -> None:
    options = parse("exec", "shop", "n1", "--json", "--", "ls", "-l", "--", "--json")
    assert (options.words, options.json) == (["shop", "n1"], True)
    assert options.command == ["ls", "-l", "--", "--json"]
    assert parse("exec", "shop").command == []
    assert parse("ssh", "n1", "--").command == []
    options = parse("partition", "--one-way", "shop", "n1,n2", "n3", "-q")
    assert (options.words, options.one_way, options.quiet) == (["shop", "n1,n2", "n3"], True, 1)
    assert make_parser().parse_args(["-q", "cluster", "heal"]).quiet == 1


def test_actions_are_added_when_they_are_needed() -> None:
    parser = make_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action.choices, dict))
    assert isinstance(verbs.choices, dict)
    group = verbs.choices["cluster"]
    assert not group.filled
    parser.parse_args(["cluster", "up"])
    assert group.filled


def test_every_action_has_help() -> None:
    life = ["up", "status", "down", "inventory", "ssh", "exec", "cp", "logs"]
    states = ["snapshot", "snapshots", "restore"]
    faults = ["partition", "isolate", "pause", "resume", "kill", "crash", "heal"]
    actions = [*life, *states, *faults]
    commands = [["cluster", "--help"], *(["cluster", action, "--help"] for action in actions)]
    for command, done in run_many(commands):
        assert (done.returncode, done.stderr) == (0, ""), command
    listed = run_redock("cluster", "--help").stdout
    assert all(re.search(rf"^    {action}\s", listed, re.MULTILINE) for action in actions)


def test_mistakes_are_one_line_and_need_no_engine(home: Path) -> None:
    mistakes = [
        ["cluster"],
        ["cluster", "destroy"],
        ["cluster", "up", "--nonsense"],
        ["cluster", "up", "-t", "0"],
        ["cluster", "exec", "a.toml"],
    ]
    for command, done in run_many(mistakes):
        assert (done.returncode, done.stdout) == (2, ""), command
        assert done.stderr.count("\n") == 1, (command, done.stderr)
        assert done.stderr.startswith("redock: "), command
