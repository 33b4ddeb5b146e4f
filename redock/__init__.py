"""
redock turns Docker containers into machines you can SSH into.

The command line program is :mod:`redock.cli`, the library :mod:`redock.api`,
the configuration management system :mod:`redock.bootstrap`. What is listed in
``__all__`` can be imported from here; nothing is loaded before it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock.api import Container, Image
    from redock.errors import RedockError

__all__ = ["Container", "Image", "RedockError", "__version__"]

__version__ = "1.0.0.dev0"


def __getattr__(name: str) -> object:
    if name in ("Container", "Image"):
        import redock.api

        return getattr(redock.api, name)
    if name == "RedockError":
        import redock.errors

        return redock.errors.RedockError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
