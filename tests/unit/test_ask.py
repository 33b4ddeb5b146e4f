"""Questions: who is asked, and what counts as yes."""

from __future__ import annotations

import io
import sys

import pytest

from redock._ask import confirm, is_somebody_there


class Terminal(io.StringIO):
    """Something that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "agreed"),
    [("y\n", True), ("Yes\n", True), (" YES \n", True), ("\n", False), ("", False), ("n\n", False),
     ("yep\n", False), ("y", True)],
)  # fmt: skip
def test_only_yes_is_yes(
    typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert confirm("Lose\x1b[31m it?") is agreed
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("Lose it? [y/N] ")


def test_an_interrupt_is_no(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys.stdin, "readline", interrupt)
    assert not confirm("Lose it?")
    assert capsys.readouterr().err.endswith("\n")


def test_only_people_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin, stderr, there in (
        (Terminal(), Terminal(), True),
        (io.StringIO(), Terminal(), False),
        (Terminal(), io.StringIO(), False),
        (None, Terminal(), False),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", stdin)
            patch.setattr(sys, "stderr", stderr)
            found = is_somebody_there()
        assert found is there
