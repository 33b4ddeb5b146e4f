"""
The parser of the command line: argparse, with one line for a mistake.
"""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with one line and where to read on."""

    def error(self, message: str) -> NoReturn:
        """
        End the program because of its command line.

        :param message: What is wrong.
        """
        print(f"redock: {message} (see '{self.prog} --help')", file=sys.stderr)
        raise SystemExit(2)
