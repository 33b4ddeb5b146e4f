"""Which faults an engine can make: what is said about it, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redock._endpoint import Endpoint
from redock._engine import Engine
from redock.cluster import Capabilities, _capabilities, _probe, capabilities
from redock.cluster._probe import NO_EFFECT
from redock.errors import FaultUnsupported

FOUND: dict[str, Any] = {"latency": ["", "no netem"], "loss": ["nftables", ""]}


def test_a_capability_is_true_or_says_why_not() -> None:
    made = Capabilities({name: tuple(each) for name, each in FOUND.items()})
    assert list(made) == ["latency", "loss"]
    assert len(made) == 2
    assert made["loss"]
    assert not made["latency"]
    assert str(made["loss"]) == made.require("loss") == "nftables"
    assert str(made) == "latency  no: no netem\nloss     nftables"
    assert str(Capabilities({})) == ""
    with pytest.raises(FaultUnsupported, match="latency cannot be made with this engine: no netem"):
        made.require("latency")
    with pytest.raises(FaultUnsupported, match="there is no such fault"):
        made.require("teleport")


class FakeEngine(Engine):
    """An engine that says who it is."""

    def __init__(self, number: str, kernel: str) -> None:
        super().__init__(Endpoint(f"unix:///{number}.sock", "default"))
        self.number, self.kernel = number, kernel

    def info(self) -> dict[str, Any]:
        """Say its id."""
        return {"ID": self.number}

    def version(self) -> dict[str, Any]:
        """Say its kernel."""
        return {"KernelVersion": self.kernel}


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What probes will find; each is asked once."""
    found: list[dict[str, Any]] = []
    monkeypatch.setenv("REDOCK_HOME", str(tmp_path))
    monkeypatch.setattr(_capabilities, "remembered", {})
    monkeypatch.setattr(_capabilities, "probe", lambda *_: found.pop(0))
    return found


def forget() -> None:
    """Be another process."""
    _capabilities.remembered.clear()


def test_what_was_found_is_kept_for_the_engine_and_its_kernel(
    probed: list[dict[str, Any]],
) -> None:
    probed[:] = [FOUND, {"loss": ["", "nothing"]}, {}]
    first = FakeEngine("one", "6.1")
    assert capabilities(first) is capabilities(first)
    forget()
    assert capabilities(first)["loss"]
    assert not capabilities(FakeEngine("two", "6.1"))["loss"]
    forget()
    assert not capabilities(FakeEngine("one", "6.2"))
    assert probed == []


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"x": 1}', '{"KEY": {"loss": "yes"}}'])
def test_what_was_kept_and_makes_no_sense_is_found_out_again(
    contents: str, probed: list[dict[str, Any]], tmp_path: Path
) -> None:
    key = f"one 6.1 {_capabilities.fingerprint()}"
    (tmp_path / "capabilities.json").write_text(contents.replace("KEY", key))
    probed[:] = [FOUND]
    assert capabilities(FakeEngine("one", "6.1"))["loss"]
    assert json.loads((tmp_path / "capabilities.json").read_text())[key] == FOUND


def test_what_had_no_effect_may_have_been_late_and_is_not_kept(
    probed: list[dict[str, Any]],
) -> None:
    probed[:] = [{"loss": ["", NO_EFFECT]}, FOUND]
    assert not capabilities(FakeEngine("one", "6.1"))["loss"]
    forget()
    assert capabilities(FakeEngine("one", "6.1"))["loss"]


def refuse(_: Any) -> bool:
    """Be refused."""
    raise _probe.Refused("tc: no")


def fail(_: Any) -> bool:
    """Fail in some other way."""
    raise OSError("broken")


def test_an_attempt_says_why_it_failed() -> None:
    assert _probe.attempt(lambda _: True, {}) == ""
    assert _probe.attempt(lambda _: False, {}) == NO_EFFECT
    assert _probe.attempt(refuse, {}) == "tc: no"
    assert _probe.attempt(fail, {}) == "OSError('broken')"
    with pytest.raises(_probe.Refused, match="nothing-of-that-name"):
        _probe.run("nothing-of-that-name")
    with pytest.raises(_probe.Refused, match=r"^sh: oh no$"):
        _probe.run("sh", "-c", "echo oh no >&2; echo more >&2; exit 3")


@pytest.mark.parametrize(
    ("netem", "nfqueue", "expected"),
    [
        (True, True, ["netem", ""]),
        (False, True, ["nfqueue", ""]),
        (False, False, ["", "netem: tc: no; nfqueue: tc: no"]),
    ],
)
def test_netem_is_taken_before_a_process_of_ours(
    netem: bool, nfqueue: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("drop", "loss", "duplicate", "bandwidth", "disk_full", "clock_skew"):
        monkeypatch.setattr(_probe, name, lambda _: True)
    monkeypatch.setattr(_probe, "netem", (lambda _: True) if netem else refuse)
    monkeypatch.setattr(_probe, "nfqueue", (lambda _: True) if nfqueue else refuse)
    found = _probe.main({})
    assert found["latency"] == found["reorder"] == found["corrupt"] == expected
    assert found["partition"] == ["nftables", ""]
