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

__all__ = ["PARTS", "paths"]

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


def paths() -> dict[str, str]:
    """
    Find what is sent.

    :returns: The pathnames of the modules by name, in the order to load them in.
    """
    here = os.path.dirname(__file__)
    return {f"{__name__}.{part}": os.path.join(here, part + ".py") for part in PARTS}
