"""
What the programs of a cluster logged, and when.

Logs are read through the engine, so that those of a node without power, cut
off or frozen can be read as well, and reading them does not touch the node.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import io
import os
import re

from redock._printed import printable
from redock.errors import EngineError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from redock.cluster._node import Node
    from redock.cluster._timeline import Event

__all__ = ["LogFile", "LogLine", "parse_lines", "parse_time", "read_logs"]

#: How much of the end of a log is looked at, in bytes.
LIMIT = 4 << 20
#: How far into a line its time is looked for.
HEAD = 120
#: Times are often without a fraction: a line may seem this much older than it is, in seconds.
SLACK = 1.0

MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
ZONE = r"(?: ?(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)(?![\w.]))?"
#: How programs write down when something happened. ISO 8601 and its relatives (RFC 3339, Python,
#: PostgreSQL, nginx), day first (Redis, web servers), syslog (RFC 3164, which has no year).
STYLES = [
    re.compile(rf"(?P<year>\d{{4}})[-/](?P<month>\d\d)[-/](?P<day>\d\d)[T ]{CLOCK}{ZONE}"),
    re.compile(
        rf"(?P<day>\d\d?)[ /-](?P<name>{MONTHS})[ /-](?P<year>\d{{4}})[ :]{CLOCK}{ZONE}", re.ASCII
    ),
    re.compile(rf"^(?:<\d+>)?(?P<name>{MONTHS}) +(?P<day>\d\d?) {CLOCK}", re.ASCII),
]
#: Seconds since 1970, as a JSON logger writes them.
EPOCH = re.compile(r'^\[?(\d{10}(?:\.\d+)?)\b|"(?:ts|time|timestamp)": ?(\d{10}(?:\.\d+)?)\b')
LEVELS = [
    ("error", re.compile(r"\b(?:error|fatal|panic|crit(?:ical)?|exception|traceback)\b", re.I)),
    ("warning", re.compile(r"\bwarn(?:ing)?\b", re.I)),
]


@dataclasses.dataclass(frozen=True)
class LogFile:
    """
    A log of a node.

    :param node: The name of the node.
    :param path: The pathname inside.
    :param size: How large it is, in bytes.
    :param data: Its contents, or the end of them.
    """

    node: str
    path: str
    size: int
    data: bytes

    def since(self, size: int) -> str:
        """
        Get what was written after it had a size.

        :param size: The size; a log that is smaller now was begun anew.
        :returns: The text, without what could steer a terminal.
        """
        start = len(self.data) - (self.size - size) if size <= self.size else 0
        return printable(self.data[max(0, start) :].decode("utf-8", "replace"))


@dataclasses.dataclass(frozen=True)
class LogLine:
    """
    A line of a log, with those that follow it and have no time of their own.

    :param node: The name of the node.
    :param path: The pathname of the log inside.
    :param text: The text.
    :param moment: When, in seconds since the timeline began; None when nobody knows.
    """

    node: str
    path: str
    text: str
    moment: float | None

    @property
    def level(self) -> str:
        """How bad it is: ``error``, ``warning`` or nothing."""
        return next((name for name, words in LEVELS if words.search(self.text)), "")


def read_logs(node: Node) -> dict[str, LogFile]:
    """
    Read the logs that a node's specification declares.

    :param node: The node, in whatever state.
    :returns: The logs that are there, by pathname.
    """
    found: dict[str, LogFile] = {}
    for pattern in node.spec.logs:
        try:
            found.update((log.path, log) for log in read_log(node, pattern))
        except EngineError:
            # Not written yet, or the node has gone: there is nothing to read.
            continue
    return found


def read_log(node: Node, pattern: str, links: int = 8) -> Iterator[LogFile]:
    """
    Read the logs that a pattern matches.

    :param node: The node.
    :param pattern: A pathname, perhaps with ``*``, ``?`` and ``[...]``.
    :param links: How many symbolic links to follow.
    :returns: Yields the logs.
    :raises EngineError: There is no such file, or no such node.
    """
    import tarfile

    if not links:
        raise NotFound(f"too many symbolic links: {pattern}", 404)
    wanted = pattern.split("/")
    literal = next((n for n, part in enumerate(wanted) if re.search(r"[*?[]", part)), len(wanted))
    start = "/".join(wanted[:literal]) or "/"
    packed = node.engine.get_archive(node.container_id, start)
    parent = os.path.dirname(start)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            path = os.path.normpath(os.path.join(parent, member.name))
            parts = path.split("/")
            if len(parts) != len(wanted) or not all(map(fnmatch.fnmatchcase, parts, wanted)):
                continue
            if member.issym():
                target = os.path.normpath(os.path.join(os.path.dirname(path), member.linkname))
                for log in read_log(node, target, links - 1):
                    yield dataclasses.replace(log, path=path)
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                file.seek(max(0, member.size - LIMIT))
                yield LogFile(node.name, path, member.size, file.read())


def parse_time(line: str, near: float) -> float | None:
    """
    Find out when a line was logged.

    >>> parse_time("1970-01-01T00:01:00.5Z hello", 0.0)
    60.5

    :param line: The line.
    :param near: About when that was, in seconds since 1970, for times without a year.
    :returns: Seconds since 1970, None when the line does not say. A time without a zone is UTC,
              which is what nodes run on.
    """
    head = line[:HEAD]
    for style in STYLES:
        match = style.search(head)
        if match:
            return moment_of(match.groupdict(), near)
    match = EPOCH.search(head)
    return float(match[1] or match[2]) if match else None


def moment_of(found: Mapping[str, Any], near: float) -> float | None:
    """
    Turn the parts of a time into a moment.

    :param found: The parts by name.
    :param near: About when that was.
    :returns: Seconds since 1970, None when there is no such time.
    """
    name = found.get("name")
    month = MONTHS.split("|").index(name) + 1 if name else int(found["month"])
    clock = tuple(int(found[each]) for each in ("hour", "minute", "second"))
    day = int(found["day"])
    if found.get("year"):
        whole = seconds_of(int(found["year"]), month, day)
    else:
        this = year_of(near)
        each = [seconds_of(year, month, day) for year in (this - 1, this, this + 1)]
        whole = min((e for e in each if e is not None), key=lambda e: abs(e - near), default=None)
    if whole is None:
        return None
    zone = found.get("zone") or ""
    offset = 0
    if zone[:1] in ("+", "-"):
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * (1 if zone[0] == "+" else -1)
    fraction = float(f"0.{found['fraction']}") if found.get("fraction") else 0.0
    return whole + clock[0] * 3600 + clock[1] * 60 + clock[2] + fraction - offset


@functools.lru_cache(maxsize=64)
def seconds_of(year: int, month: int, day: int) -> int | None:
    """
    Turn a date into a moment.

    :param year: The year.
    :param month: The month, from 1.
    :param day: The day, from 1.
    :returns: Seconds from 1970 to its beginning, None when there is no such day.
    """
    import datetime

    try:
        date = datetime.date(year, month, day)
    except ValueError:
        return None
    return (date - datetime.date(1970, 1, 1)).days * 86400


def year_of(moment: float) -> int:
    """
    Get the year of a moment.

    :param moment: Seconds since 1970.
    :returns: The year.
    """
    import datetime

    return datetime.datetime.fromtimestamp(moment, datetime.UTC).year


def parse_lines(log: LogFile, text: str, wall: float, events: Iterable[Event]) -> list[LogLine]:
    """
    Split what was logged into lines and find out when each was.

    :param log: The log.
    :param text: What was logged, or a part of it.
    :param wall: When the timeline began, in seconds since 1970.
    :param events: What happened: the clock of a node may have been put wrong.
    :returns: The lines.
    """
    skews = [event for event in events if event.kind == "clock_skew" and log.node in event.nodes]
    found: list[LogLine] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        time = parse_time(line, wall)
        if time is not None:
            moment = put_right(time - wall, skews)
            found.append(LogLine(log.node, log.path, line, moment))
        elif found and found[-1].moment is not None:
            last = found[-1]
            found[-1] = dataclasses.replace(last, text=f"{last.text}\n{line}")
        else:
            found.append(LogLine(log.node, log.path, line, None))
    return found


def put_right(moment: float, skews: Iterable[Event]) -> float:
    """
    Find out when something was that a wrong clock tells of.

    :param moment: When it was, by the clock of the node.
    :param skews: When that clock was wrong, and how much (``offset`` of the details, seconds).
    :returns: When it was by the clock of the host, as far as can be told.
    """
    for skew in skews:
        offset = skew.details.get("offset")
        if isinstance(offset, (int, float)):
            true = moment - offset
            until = float("inf") if skew.ended is None else skew.ended
            if skew.began - SLACK <= true <= until:
                return true
    return moment
