"""
The remote half of redock.bootstrap, sent once to each host as text.

It is a loop that answers requests. Only the standard library of Python 3.8 is
used and nothing else of redock, because nothing of redock is installed over
there. An operation reads the state, compares, mends, reads again. In a dry run
it writes what it would do into a picture of the host (``World``) instead, so
that later operations see what earlier ones would have done.

Paths and arguments are bytes: the encoding of the host is nobody's business.
"""

from __future__ import annotations

import os

__all__ = ["PARTS", "sources"]

#: The modules of this package from the ground up; each imports what stands before it.
PARTS = (
    "_world",
    "_commands",
    "_files",
    "_services",
    "_accounts",
    "_packages",
    "_reading",
    "_loop",
)


def sources() -> list[tuple[str, str]]:
    """
    Read what is sent.

    :returns: Pairs of the name and the source of a module, in the order to load them in.
    """
    found = []
    for part in PARTS:
        with open(os.path.join(os.path.dirname(__file__), part + ".py"), encoding="utf-8") as file:
            found.append((f"{__name__}.{part}", file.read()))
    return found
