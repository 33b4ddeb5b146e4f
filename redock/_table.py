"""
Tables for people: aligned columns, colours on a terminal, no line longer than it is wide.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

__all__ = [
    "Cell",
    "bytes_in_words",
    "paint",
    "plain",
    "render",
    "time_in_words",
    "use_color",
    "width",
]

#: The numbers of colours in ECMA-48 (8.3.117, SGR).
COLORS = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
#: Columns between two columns.
GAP = "  "
#: A column is not made narrower than this; where that is too wide the last columns go.
NARROWEST = 8


class Cell:
    """
    Text with a colour.

    :param text: The text, one line.
    :param color: A name out of :data:`COLORS`, empty for none.
    """

    __slots__ = ("color", "text")

    def __init__(self, text: str, color: str = "") -> None:
        self.text = text
        self.color = color

    def __str__(self) -> str:
        return self.text


def use_color(stream: TextIO) -> bool:
    """
    Decide whether to print colours.

    :param stream: Where the output goes.
    :returns: False where ``NO_COLOR`` (https://no-color.org) is set, else true where
              ``FORCE_COLOR`` (https://force-color.org) is, else true for a terminal other
              than ``TERM=dumb``.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def width(stream: TextIO) -> int | None:
    """
    Find out how long a line may be.

    :param stream: Where the output goes.
    :returns: The columns of the terminal, None where it is not one: then nothing is cut off.
    """
    if not stream.isatty():
        return None
    import shutil

    return shutil.get_terminal_size().columns


def paint(text: str, color: str) -> str:
    """
    Colour a text.

    :param text: The text.
    :param color: A name out of :data:`COLORS`, empty for none.
    :returns: The text with escape sequences around it.
    """
    return f"\x1b[{COLORS[color]}m{text}\x1b[0m" if color and text else text


def render(
    header: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    right: Sequence[str] = (),
    color: bool = False,
    columns: int | None = None,
    whole: Sequence[str] = (),
) -> str:
    """
    Lay out a table.

    Where it is too wide its widest columns are made narrower, and what does not
    fit into them ends with an ellipsis.

    :param header: The names of the columns.
    :param rows: The cells of each row, as many as the header has.
    :param right: The columns that are aligned on the right, for numbers (default: none).
    :param color: Print colours (default: no).
    :param columns: How long a line may be (default: as long as it takes).
    :param whole: The columns that say nothing in part, such as dates; they are not made narrower
                  as long as others can be (default: none).
    :returns: Lines, each with its end.
    """
    texts = [[plain(str(cell)) for cell in row] for row in rows]
    widths = [
        max([cells(name), *(cells(row[number]) for row in texts)])
        for number, name in enumerate(header)
    ]
    if columns is not None:
        others = [number for number, name in enumerate(header) if name not in whole]
        shrink(widths, columns - len(GAP) * (len(widths) - 1), others)
    lines = [layout(header, header, header, widths, right, False)]
    for row, line in zip(rows, texts, strict=True):
        lines.append(layout(row, line, header, widths, right, color))
    return "".join(f"{line}\n" for line in lines)


def layout(
    row: Sequence[str | Cell],
    texts: Sequence[str],
    header: Sequence[str],
    widths: Sequence[int],
    right: Sequence[str],
    color: bool,
) -> str:
    """
    Lay out one line.

    :param row: The cells.
    :param texts: What they say.
    :param header: The names of the columns.
    :param widths: How wide the columns are.
    :param right: The columns that are aligned on the right.
    :param color: Print colours.
    :returns: The line, without blanks at its end.
    """
    parts = []
    for cell, text, name, space in zip(row, texts, header, widths, strict=True):
        shown = cut(text, space)
        blank = " " * (space - cells(shown))
        if color and isinstance(cell, Cell):
            shown = paint(shown, cell.color)
        parts.append(blank + shown if name in right else shown + blank)
    return GAP.join(parts).rstrip()


def shrink(widths: list[int], space: int, others: Sequence[int]) -> None:
    """
    Make the widest columns narrower until the line fits, then the last ones.

    :param widths: How wide the columns are; changed.
    :param space: How wide they may be together.
    :param others: The numbers of the columns to begin with.
    """
    while sum(widths) > space:
        widest = max(others, key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    for number in reversed(range(len(widths))):
        excess = max(0, sum(widths) - space)
        widths[number] = max(0, widths[number] - excess)


def plain(text: str) -> str:
    """
    Make a text one that can stand in a cell: one line, nothing that steers a terminal.

    :param text: Any text.
    :returns: The text on one line.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " for c in text)


def cells(text: str) -> int:
    """
    Count the columns a text takes on a terminal.

    :param text: One line.
    :returns: Two for each wide character of East Asia (UAX #11), none for marks on others.
    """
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def cut(text: str, space: int) -> str:
    """
    Make a text short enough.

    :param text: One line.
    :param space: How many columns there are.
    :returns: The text, with an ellipsis in place of an end that does not fit.
    """
    if cells(text) <= space:
        return text
    kept = text
    while kept and cells(kept) >= space:
        kept = kept[:-1]
    return kept + "…" if space else ""


def bytes_in_words(count: int | None) -> str:
    """
    Write a number of bytes for people.

    :param count: How many, None where that is not known.
    :returns: For instance ``12.3 MB``: powers of 1000, as ``docker`` has it; empty for None.
    """
    if count is None:
        return ""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"


def time_in_words(seconds: float) -> str:
    """
    Write a time span for people.

    :param seconds: How long it is.
    :returns: The two largest units, for instance ``3d 4h`` or ``12s``.
    """
    whole = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if whole >= size or (unit == "s" and not parts):
            parts.append(f"{whole // size}{unit}")
            whole %= size
        elif parts:
            parts.append("")
    return " ".join(filter(None, parts[:2]))
