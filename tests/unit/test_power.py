"""Stopping, restarting, freezing: which request is made in which state."""

from __future__ import annotations

from typing import Any

import pytest

from redock import _machines, _recipe, cli
from redock._engine import KIND, label
from redock.api import Container
from redock.errors import EngineError, NoContainerRunning, NotFound


class Engine:
    """
    An engine with one machine, or none.

    :param state: The state of the machine; empty: there is none.
    """

    def __init__(self, state: str) -> None:
        self.state = state
        self.asked: list[str] = []
        self.failing = False

    def containers(self, filters: object) -> list[dict[str, Any]]:
        """Answer with the machine."""
        labels = {
            KIND: "container",
            label("name"): "me:web",
            label("instance"): "0123456789ab",
            label("alias"): "web-container",
            label("port"): "20000",
        }
        mount = {
            "Destination": _recipe.IDENTITY_DIRECTORY,
            "Name": _machines.volume_name("0123456789ab"),
        }
        summary = {"Id": "c" * 64, "State": self.state, "Labels": labels, "Mounts": [mount]}
        return [summary] if self.state else []

    def pause(self, container: str, *, resume: bool = False) -> None:
        """Freeze or thaw."""
        self.asked.append("resume" if resume else "pause")
        if self.failing:
            self.state = "running" if resume else "paused"
            raise EngineError("it is so already", 409)

    def begin_stop(self, container: str, patience: int) -> Any:
        """Stop."""
        self.asked.append(f"stop {patience}")

        class Pending:
            def result(self) -> None:
                return None

        return Pending()

    def begin_exec(self, container: str, command: object, **options: object) -> Any:
        """Refuse what only makes it faster."""
        raise EngineError("no such program")


def machine(state: str) -> tuple[Container, Engine]:
    """A machine in a state, and the engine that has it."""
    engine = Engine(state)
    return Container("web", engine=engine), engine  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "verb", "asked"),
    [
        ("running", "stop", ["stop 10"]),
        ("restarting", "stop", ["stop 10"]),
        ("paused", "stop", ["resume", "stop 10"]),
        ("exited", "stop", []),
        ("created", "stop", []),
        ("running", "pause", ["pause"]),
        ("paused", "pause", []),
        ("paused", "resume", ["resume"]),
        ("running", "resume", []),
    ],
)
def test_each_state_has_its_requests(state: str, verb: str, asked: list[str]) -> None:
    container, engine = machine(state)
    getattr(container, verb)()
    assert engine.asked == asked


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_what_is_stopped_is_neither_frozen_nor_thawed(verb: str) -> None:
    container, engine = machine("exited")
    with pytest.raises(NoContainerRunning, match="redock start me:web"):
        getattr(container, verb)()
    assert engine.asked == []


@pytest.mark.parametrize("verb", ["stop", "restart", "pause", "resume"])
def test_a_name_that_nobody_has_is_an_error(verb: str) -> None:
    container, _ = machine("")
    with pytest.raises(NotFound, match="redock start me:web") as caught:
        getattr(container, verb)()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(("state", "verb"), [("running", "pause"), ("paused", "resume")])
def test_somebody_else_may_be_faster(state: str, verb: str) -> None:
    container, engine = machine(state)
    engine.failing = True
    getattr(container, verb)()
    assert engine.asked == [verb]


def test_the_patience_is_given_in_whole_seconds() -> None:
    container, engine = machine("running")
    container.stop(0.2)
    assert engine.asked == ["stop 1"]


def test_a_restart_is_a_stop_and_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for state, asked in (("running", ["stop 3", "start"]), ("exited", ["start"])):
        container, engine = machine(state)
        monkeypatch.setattr(Container, "start", lambda self: self.engine.asked.append("start"))
        container.restart(3)
        assert engine.asked == asked


def test_commands_take_several_names_and_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []

    def note(verb: str) -> Any:
        return lambda self, *given: done.append((verb, self.image.tag, *given))

    for verb in ("stop", "restart", "pause", "resume"):
        monkeypatch.setattr(Container, verb, note(verb))
    assert cli.run(["stop", "-t", "2", "web"]) == 0
    assert cli.run(["-t", "3", "restart", "web"]) == 0
    assert cli.run(["pause", "web", "db"]) == 0
    assert cli.run(["resume", "web"]) == 0
    assert done[:2] == [("stop", "web", 2.0), ("restart", "web", 3.0)]
    assert sorted(done[2:4], key=str) == [("pause", "db"), ("pause", "web")]
    assert done[4:] == [("resume", "web")]
