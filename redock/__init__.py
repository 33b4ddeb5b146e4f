"""
redock turns Docker containers into machines you can SSH into.

The command line program is :mod:`redock.cli`, the library :mod:`redock.api`,
the configuration management system :mod:`redock.bootstrap`, clusters
:mod:`redock.cluster`. What is listed in ``__all__`` can be imported from here;
nothing is loaded before it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock.api import Container, Image
    from redock.bootstrap import Bootstrap
    from redock.cluster import Cluster, NodeSpec
    from redock.errors import RedockError

__all__ = [
    "Bootstrap",
    "Cluster",
    "Container",
    "Image",
    "NodeSpec",
    "RedockError",
    "__version__",
]

__version__ = "1.0.0.dev0"

#: The modules of what can be imported from here.
HOMES = {
    "Bootstrap": "bootstrap",
    "Cluster": "cluster",
    "Container": "api",
    "Image": "api",
    "NodeSpec": "cluster",
    "RedockError": "errors",
}


def __getattr__(name: str) -> object:
    if name in HOMES:
        import importlib

        return getattr(importlib.import_module(f"redock.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
