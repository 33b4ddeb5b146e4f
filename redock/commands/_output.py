"""
What commands print: one document for programs, a table for people.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from redock._table import Cell

__all__ = ["print_json", "print_table"]


def print_json(document: object) -> None:
    """
    Print a document for a program.

    :param document: Plain values.
    """
    import json

    print(json.dumps(document, indent=2))


def print_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """
    Print a table for a person, with colours and as wide as the terminal where there is one.

    :param header: The names of the columns.
    :param rows: The cells.
    :param right: The columns that are aligned on the right (default: none).
    :param whole: The columns that are never cut (default: none).
    """
    from redock._table import render, use_color, width

    color, columns = use_color(sys.stdout), width(sys.stdout)
    text = render(header, rows, right=right, color=color, columns=columns, whole=whole)
    sys.stdout.write(text)
