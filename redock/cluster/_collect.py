"""
Evidence: what can be known about a cluster, written down before it is gone.
"""

from __future__ import annotations

import dataclasses
import json
import os

from redock._parallel import call_all
from redock.cluster import _logfiles
from redock.cluster._logfiles import LogFile, LogLine
from redock.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from redock.cluster._cluster import Cluster
    from redock.cluster._node import Node

__all__ = ["Evidence", "gather", "log_sizes"]

#: How many lines of what a container printed are kept.
ENGINE_LINES = 2000


@dataclasses.dataclass
class Evidence:
    """
    What is known about a cluster.

    :param cluster: The cluster.
    :param since: The moment it is about, on the cluster's timeline.
    :param printed: What the first process of each node printed, by name.
    :param logs: The declared logs of each node, by name and pathname.
    :param written: What of each log was written since, by node and pathname.
    :param lines: The same as lines, with the times they were written.
    :param until: The moment it was gathered, on the cluster's timeline.
    """

    cluster: Cluster
    since: float
    printed: dict[str, str]
    logs: dict[str, dict[str, LogFile]]
    written: dict[tuple[str, str], str]
    lines: list[LogLine]
    until: float

    def page(
        self, title: str = "", facts: Mapping[str, str] | None = None, failure: str = ""
    ) -> str:
        """
        Draw the timeline.

        :param title: What it is about (default: the cluster).
        :param facts: More to say about it, by name.
        :param failure: How it went wrong (default: it did not).
        :returns: A page of HTML that needs nothing else.
        """
        from redock.cluster import _page

        return _page.render(self, title or f"Cluster {self.cluster.name}", facts or {}, failure)

    def write(
        self,
        directory: str,
        title: str = "",
        facts: Mapping[str, str] | None = None,
        failure: str = "",
        *,
        logs: bool = True,
        timeline: bool = True,
    ) -> list[str]:
        """
        Write all of it down.

        :param directory: Where to; it is made when it is missing.
        :param title: As for :meth:`page`.
        :param facts: As for :meth:`page`.
        :param failure: As for :meth:`page`.
        :param logs: Write the logs (default: yes).
        :param timeline: Write the timeline (default: yes).
        :returns: The pathnames of the files.
        :raises StateError: They cannot be written.
        """
        files: dict[str, bytes] = {}
        if logs:
            for name, text in self.printed.items():
                files[f"{name}/engine.log"] = text.encode()
            for name, each in self.logs.items():
                for path, log in each.items():
                    files[name + path] = log.data
        if timeline:
            told = json.dumps(self.cluster.timeline.as_dict(self.since), indent=1, default=str)
            files["timeline.json"] = f"{told}\n".encode()
            files["timeline.html"] = self.page(title, facts, failure).encode()
        for name, data in files.items():
            path = os.path.join(directory, name)
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as handle:
                    handle.write(data)
            except OSError as error:
                raise StateError(f"cannot write {path}: {error.strerror}") from error
        return [os.path.join(directory, name) for name in files]


def gather(
    cluster: Cluster,
    since: float = 0.0,
    sizes: Mapping[tuple[str, str], int] | None = None,
    *,
    logs: bool = True,
) -> Evidence:
    """
    Find out what can be known about a cluster. Its nodes do not notice.

    :param cluster: The cluster, in whatever state.
    :param since: The moment it is about, on the cluster's timeline (default: the beginning).
    :param sizes: How large the logs were then, from :func:`log_sizes` (default: they were empty).
    :param logs: Read the logs (default: yes).
    :returns: The evidence.
    """

    def look(node: Node) -> tuple[str, dict[str, LogFile]]:
        if not logs:
            return "", {}
        return cluster.engine.logs(node.container_id, ENGINE_LINES), _logfiles.read_logs(node)

    until = cluster.timeline.now()
    looked = call_all({node.name: node for node in cluster.nodes}, look)
    files = {name: each for name, (_, each) in looked.items()}
    before = sizes or {}
    written = {
        (name, path): log.since(before.get((name, path), 0))
        for name, each in files.items()
        for path, log in each.items()
    }
    events = cluster.timeline.events
    lines = [
        line
        for (name, path), text in written.items()
        for line in _logfiles.parse_lines(files[name][path], text, cluster.timeline.wall, events)
        if line.moment is None or line.moment >= since - _logfiles.SLACK
    ]
    printed = {name: printed for name, (printed, _) in looked.items()}
    return Evidence(cluster, since, printed, files, written, lines, until)


def log_sizes(cluster: Cluster) -> dict[tuple[str, str], int]:
    """
    Note how large the declared logs are, so that what is written later can be told apart.

    :param cluster: The cluster.
    :returns: The size of each, by node and pathname.
    """
    nodes = {node.name: node for node in cluster.nodes if node.spec.logs}
    found = call_all(nodes, _logfiles.read_logs)
    return {(name, path): log.size for name, logs in found.items() for path, log in logs.items()}
