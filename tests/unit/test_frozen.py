"""Containers that were left frozen: what can be seen, what is done, what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from redock import _frozen
from redock._endpoint import Endpoint
from redock._engine import Engine
from redock.errors import RedockError

HERE = Engine(Endpoint("unix:///run/engine.sock", "a test"))
ELSEWHERE = Engine(Endpoint("ssh://me@server", "a test"))


def test_what_is_frozen_is_thawed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_frozen, "FREEZER", f"{tmp_path}/{{}}")
    state = tmp_path / "abc"
    assert _frozen.find_frozen(HERE, "abc") is None
    for text, found in (("THAWED\n", None), ("FROZEN\n", str(state)), ("FREEZING\n", None)):
        state.write_text(text)
        assert _frozen.find_frozen(HERE, "abc") == found
        # The kernel of another host cannot be asked.
        assert _frozen.find_frozen(ELSEWHERE, "abc") is None
    _frozen.thaw(str(state), "me:web")
    assert state.read_text() == "THAWED"


def test_whoever_may_not_thaw_is_told_how(tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "state")
    with pytest.raises(RedockError) as caught:
        _frozen.thaw(path, "me:web")
    assert str(caught.value).endswith(f"frozen: echo THAWED | sudo tee {path}")
