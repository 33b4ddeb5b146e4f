"""How the documentation is built: ``sphinx-build -W -n -b html docs docs/_build/html``."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import redock  # noqa: E402

project = "redock"
copyright = "2026, the redock developers"
author = "The redock developers"
release = redock.__version__
version = release.partition(".dev")[0]

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
# Links to other projects' documentation would need the network to build ours.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(collections\.abc|datetime|docker|execnet|executor|os|pathlib|random|subprocess|types|typing)\..*",
    ),
    # Names that are imported for the type checker only, as they stand in the source.
    (
        r"py:class",
        r"(AbstractContextManager|Any|Callable|Chance|Client|Engine|Iterable|Iterator|Mapping|Path|Place"
        r"|Port|Provision|Result|Sequence|Some|Stream|TracebackType|Unheard|User|Volume|Mapping\[str|re\.Match)",
    ),
    (r"py:.*", r"redock\.(\w+\.)?_.*"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_maximum_signature_line_length = 78

# The timeline of a real test run, to look at.
html_extra_path = ["extra"]
html_theme = "furo"
html_title = f"redock {release}"


def setup(app: Sphinx) -> None:
    """
    Leave out what only whoever works on redock needs to know.

    :param app: The application.
    """
    app.connect("autodoc-skip-member", skip_member)
    app.connect("include-read", link_pages)


def link_pages(app: Sphinx, path: object, docname: str, text: list[str]) -> None:
    """
    Make links between pages of links to their sources, which README.rst has for code hosts.

    :param app: The application.
    :param path: The file that is included.
    :param docname: The page that includes it.
    :param text: Its text, a list of one; changed in place.
    """
    text[0] = re.sub(r"`([^`<]+) <docs/([\w-]+)\.rst>`__", r":doc:`\1 <\2>`", text[0])


def skip_member(
    app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """
    Leave out members of the built-in exceptions that ours inherit.

    :param app: The application.
    :param what: The kind of object the member belongs to.
    :param name: The name of the member.
    :param obj: The member.
    :param skip: What would happen otherwise.
    :param options: The options of the directive.
    :returns: True to leave it out, None to go on as otherwise.
    """
    return True if name in ("add_note", "with_traceback") else None
