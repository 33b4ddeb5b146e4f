"""What nobody uses is taken away, and nothing else; what the doctor sees of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

import pytest

from redock import _ssh, _tidy
from redock._engine import KIND, Engine, label
from redock._machines import volume_name
from redock.api import Container

from .conftest import REPOSITORY, Home, command, new_name, redock, ssh


@pytest.fixture
def theirs() -> Iterator[str]:
    """A volume of somebody who knows nothing of redock."""
    name = new_name("theirs").replace(":", "-")
    command("docker", "volume", "create", name, check=True)
    yield name
    command("docker", "volume", "rm", "-f", name)


def test_what_nobody_uses_goes_and_everything_else_stays(
    home: Home,
    engine: Engine,
    make_machine: Callable[[str], Container],
    theirs: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, lost = make_machine("kept"), make_machine("lost")
    kept.commit("one")
    assert kept.session.container_id and lost.session.container_id
    assert kept.session.instance and lost.session.instance
    marks = [f"LABEL {KIND}=scan {label('name')}={REPOSITORY}:none {label('instance')}="]
    unnamed = engine.commit(kept.session.container_id, "", "", changes=marks)
    build = engine.create_container(
        new_name("build").replace(":", "-"), {"Image": unnamed, "Labels": {KIND: "scan"}}
    )
    command("docker", "rm", "-f", lost.session.container_id, check=True)
    mine = {volume_name(lost.session.instance), _ssh.fragment_file(lost.image.name)}
    # What is young is left alone: somebody may be at work.
    listed = json.loads(redock("prune", "--dry-run", "--json").stdout)
    assert not {each["name"] for each in listed} & {volume_name(lost.session.instance)}
    monkeypatch.setattr(_tidy, "YOUNG", -1.0)
    found = {each.name: each for each in _tidy.find_leftovers(engine)}
    assert mine <= set(found)
    assert volume_name(kept.session.instance) not in found
    assert not any(name.startswith(REPOSITORY) and "build" not in name for name in found)
    assert theirs not in found
    short = unnamed.removeprefix("sha256:")[:12]
    ours = [each for name, each in found.items() if name in mine or name.startswith(REPOSITORY)]
    assert _tidy.take_away(ours) == []
    assert engine.inspect_image(unnamed)
    again = {each.name: each for each in _tidy.find_leftovers(engine)}
    assert not mine & set(again)
    # Nothing is made from it any more.
    assert short in again
    assert _tidy.take_away([again[short]]) == []
    assert engine.inspect_image(unnamed) is None
    assert all(each["Id"] != build for each in engine.containers({}))
    assert ssh(kept.ssh_alias, "true").returncode == 0
    assert kept.find_commit().message == "one"
    assert command("docker", "volume", "inspect", theirs).returncode == 0
    assert not os.path.exists(_ssh.fragment_file(lost.image.name))
    kept.kill()
    kept.delete()


def test_the_doctor_sees_the_real_engine(home: Home) -> None:
    done = redock("doctor")
    assert done.returncode == 0, done.stdout
    for what in ("ssh's version", "engine", "group", "base image", "engine's disk", "leftovers"):
        assert f"[ok] {what}: " in done.stdout
    findings = json.loads(redock("doctor", "--json").stdout)
    assert all(each["good"] for each in findings)
    assert {"what", "good", "detail", "remedy"} == set(findings[0])
    (home.redock / "config.toml").write_text("baze = 'x'\n")
    try:
        done = redock("doctor")
        assert done.returncode == 1
        assert "[!!] settings: " in done.stdout and "base" in done.stdout
    finally:
        os.remove(home.redock / "config.toml")


@pytest.mark.skipif(
    not os.path.isdir("/sys/fs/cgroup/freezer/docker"),
    reason="the kernel has no freezer of cgroups version 1, so nothing can stay frozen in it",
)
def test_the_doctor_finds_what_is_frozen_behind_the_engines_back(
    home: Home, machine: Container
) -> None:
    state = f"/sys/fs/cgroup/freezer/docker/{machine.session.container_id}/freezer.state"
    with open(state, "w", encoding="ascii") as handle:
        handle.write("FROZEN")
    try:
        done = redock("doctor")
        assert done.returncode == 1
        assert f"echo THAWED | sudo tee {state}" in done.stdout
    finally:
        with open(state, "w", encoding="ascii") as handle:
            handle.write("THAWED")
    assert redock("doctor").returncode == 0
    # An engine that was killed at the wrong moment leaves it so.
    with open(state, "w", encoding="ascii") as handle:
        handle.write("FROZEN")
    try:
        done = redock("start", "--no-connect", machine.image.name)
        assert (done.returncode, done.stderr.count("left frozen")) == (0, 1), done.stderr
    finally:
        with open(state, "w", encoding="ascii") as handle:
            handle.write("THAWED")
    assert ssh(machine.ssh_alias, "true").returncode == 0
