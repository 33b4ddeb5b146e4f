"""Tables: columns, colours and terminals that are too narrow."""

from __future__ import annotations

import io

import pytest

from redock._table import (
    Cell,
    bytes_in_words,
    cells,
    cut,
    paint,
    render,
    time_in_words,
    use_color,
    width,
)


class Stream(io.StringIO):
    """A stream that is a terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_columns_are_aligned_and_lines_have_no_blanks_at_the_end() -> None:
    rows = [["a", "100", "x"], ["longer", "7", ""]]
    assert render(["NAME", "SIZE", "MORE"], rows, right=["SIZE"]) == (
        "NAME    SIZE  MORE\na        100  x\nlonger     7\n"
    )


def test_a_table_without_rows_is_its_header() -> None:
    assert render(["NAME", "STATE"], []) == "NAME  STATE\n"


def test_a_date_is_no_date_when_half_of_it_is_missing() -> None:
    rows = [["2026-11-25 09:36:10", "to everybody", "in use, next start"]]
    for columns, shown in ((51, True), (45, True), (39, True), (30, True), (18, False)):
        text = render(["WHEN", "MESSAGE", "NOTE"], rows, columns=columns, whole=["WHEN"])
        assert (rows[0][0] in text) == shown, columns
        assert max(map(len, text.splitlines())) <= columns


def test_colours_do_not_move_columns() -> None:
    rows: list[list[str | Cell]] = [[Cell("up", "green"), "x"], [Cell("stopped"), "y"]]
    plain = render(["STATE", "MORE"], rows)
    colored = render(["STATE", "MORE"], rows, color=True)
    assert "\x1b" not in plain
    assert colored == plain.replace("up", "\x1b[32mup\x1b[0m")


@pytest.mark.parametrize("columns", range(1, 60))
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_longer_than_the_terminal(columns: int, color: bool) -> None:
    rows: list[list[str | Cell]] = [
        ["a" * 30, Cell("running", "green"), "b" * 12],
        ["c", Cell("日本語"), "d"],
    ]
    text = render(["NAME", "STATE", "MORE"], rows, color=color, columns=columns)
    for line in text.replace("\x1b[32m", "").replace("\x1b[0m", "").splitlines():
        assert cells(line) <= columns


def test_the_widest_column_makes_room() -> None:
    text = render(["NAME", "STATE"], [["n" * 40, "running"]], columns=30)
    assert text.splitlines()[1] == f"{'n' * 20}…  running"


def test_what_a_cell_says_cannot_steer_the_terminal_nor_make_lines() -> None:
    text = render(["NAME"], [["\x1b[31mevil\nline\x07\x9b1m"]])
    assert text.count("\n") == 2
    assert text.isascii() and "\x1b" not in text


def test_wide_characters_take_two_columns() -> None:
    assert (cells("abc"), cells("日本"), cells("e\u0301")) == (3, 4, 1)
    assert cut("日本語", 5) == "日本…"
    assert cut("abc", 0) == ""
    lines = render(["A", "B"], [["日本", "x"], ["abcd", "y"]]).splitlines()
    assert [cells(line) for line in lines] == [7, 7, 7]


@pytest.mark.parametrize(
    ("terminal", "variables", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
    ],
)
def test_colours_are_for_terminals_unless_somebody_says_otherwise(
    terminal: bool, variables: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert use_color(Stream(terminal)) is expected


def test_only_a_terminal_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert width(Stream(False)) is None
    assert width(Stream(True)) == 70


def test_text_without_a_colour_is_left_alone() -> None:
    assert paint("x", "") == "x"
    assert paint("x", "red") == "\x1b[31mx\x1b[0m"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (83_426_967, "83.4 MB"),
        (394_247_009, "394 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_bytes_are_said_as_docker_says_them(count: int | None, words: str) -> None:
    assert bytes_in_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (-5, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3601, "1h"),
        (7322, "2h 2m"),
        (86400 * 3 + 4 * 3600, "3d 4h"),
    ],
)
def test_times_are_said_with_two_units(seconds: float, words: str) -> None:
    assert time_in_words(seconds) == words
