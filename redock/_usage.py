"""
What machines use: memory, processors, and which of their processes do.

The memory of many machines comes from the kernel's files, so that the engine
need not be asked about each of them.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from redock._engine import Engine

__all__ = ["Process", "find_memory", "find_processes", "memory_of"]

CGROUPS = "/sys/fs/cgroup"
#: Where engines put the control group of a container, below the root of the hierarchy: Docker
#: with the driver cgroupfs and with that of systemd, Podman, and both without root.
PLACES = (
    "docker/{id}",
    "system.slice/docker-{id}.scope",
    "machine.slice/libpod-{id}.scope",
    "user.slice/user-{uid}.slice/user@{uid}.service/user.slice/docker-{id}.scope",
    "user.slice/user-{uid}.slice/user@{uid}.service/user.slice/libpod-{id}.scope",
)
#: Of both versions: the hierarchy, the file with the number, and the name of what may be dropped.
VERSIONS = (
    ("", "memory.current", "inactive_file"),
    ("memory", "memory.usage_in_bytes", "total_inactive_file"),
)

#: Run inside: two looks at the counters of all processes, and what they are. The first line is the
#: number of the process that looks, which in the end is ps.
LOOK = """\
echo $$
cat /proc/[0-9]*/stat 2>/dev/null
sleep "$1"
echo ---
cat /proc/[0-9]*/stat 2>/dev/null
echo ---
exec ps -ww -eo pid=,ppid=,user:32=,rss=,etimes=,args=
"""
#: Processor time is counted in hundredths of seconds: USER_HZ of proc(5).
TICKS = 100


def memory_of(containers: Iterable[str]) -> dict[str, int]:
    """
    Find out how much memory containers use, without the engine.

    As ``docker stats`` counts it: without the part of the page cache that can be
    dropped at once.

    :param containers: The engine's ids of running containers.
    :returns: Bytes by id; without those whose control group cannot be found, as when the
              engine runs on another host or in a virtual machine.
    """
    found: dict[str, int] = {}
    uid = os.getuid()
    likely = ""
    for container in containers:
        for place in (likely, *PLACES) if likely else PLACES:
            value = read_group(place.format(id=container, uid=uid))
            if value is not None:
                found[container] = value
                likely = place
                break
        else:
            if not likely:
                # All of them are in the same kind of place, or nowhere to be seen.
                break
    return found


def read_group(place: str) -> int | None:
    """
    Read how much memory a control group uses.

    :param place: Its pathname below the root of the hierarchy.
    :returns: Bytes, None when there is no such group.
    """
    for hierarchy, file, droppable in VERSIONS:
        directory = os.path.join(CGROUPS, hierarchy, place)
        try:
            with open(os.path.join(directory, file), "rb") as handle:
                used = int(handle.read())
            with open(os.path.join(directory, "memory.stat"), "rb") as handle:
                statistics = handle.read()
        except (OSError, ValueError):
            continue
        for line in statistics.splitlines():
            key, _, value = line.partition(b" ")
            if key == droppable.encode():
                return max(0, used - int(value))
        return used
    return None


def find_memory(engine: Engine, container: str) -> int | None:
    """
    Find out how much memory a container uses, from the engine if need be.

    :param engine: The engine.
    :param container: The engine's id of the container.
    :returns: Bytes, None when it does not run.
    """
    from redock.errors import EngineError

    known = memory_of([container])
    if container in known:
        return known[container]
    try:
        memory = engine.stats(container).get("memory_stats") or {}
    except EngineError:
        # It ended meanwhile.
        return None
    if "usage" not in memory:
        return None
    details = memory.get("stats") or {}
    droppable = details.get("total_inactive_file", details.get("inactive_file", 0))
    return max(0, int(memory["usage"]) - int(droppable))


class Process:
    """
    A process inside a machine.

    :param pid: Its number inside.
    :param parent: The number of its parent.
    :param user: Who runs it, by the user names inside.
    :param cpu: How much of one processor it used while we looked, in percent; above 100 for one
                that keeps several busy.
    :param memory: The memory it occupies, in bytes.
    :param seconds: For how long it has run.
    :param command: Its command line.
    """

    __slots__ = ("command", "cpu", "memory", "parent", "pid", "seconds", "user")

    def __init__(
        self,
        pid: int,
        parent: int,
        user: str,
        cpu: float,
        memory: int,
        seconds: int,
        command: str,
    ) -> None:
        self.pid = pid
        self.parent = parent
        self.user = user
        self.cpu = cpu
        self.memory = memory
        self.seconds = seconds
        self.command = command

    def as_dict(self) -> dict[str, Any]:
        """
        Turn it into what JSON can say.

        :returns: The attributes by name.
        """
        names = ("pid", "parent", "user", "cpu", "memory", "seconds", "command")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        return f"Process({self.pid}, {self.command!r})"


def find_processes(engine: Engine, container: str, interval: float) -> list[Process]:
    """
    List the processes inside a container, the busiest first.

    :param engine: The engine.
    :param container: Its name or id; it has to run and not be paused.
    :param interval: For how many seconds to watch what they use.
    :returns: The processes, without the ones that look.
    :raises EngineError: The engine refused.
    """
    from redock._printed import join_frames, printable

    command = ["sh", "-c", LOOK, "sh", f"{interval:g}"]
    _, stream = engine.begin_exec(container, command)
    try:
        text = printable(b"".join(join_frames(stream)).decode("utf-8", "replace"))
    except OSError as error:
        raise engine.connection_error(error, "list processes") from error
    finally:
        stream.close()
    return parse(text, interval)


def parse(text: str, interval: float) -> list[Process]:
    """
    Make sense of what :data:`LOOK` printed.

    :param text: Its output.
    :param interval: The seconds between the two looks.
    :returns: The processes, the busiest first.
    """
    looker, _, rest = text.partition("\n")
    before, _, rest = rest.partition("\n---\n")
    after, _, listed = rest.partition("\n---\n")
    earlier, later = read_counters(before), read_counters(after)
    found = []
    for line in listed.splitlines():
        fields = line.split(None, 5)
        if len(fields) < 6 or not all(fields[number].isdigit() for number in (0, 1, 3, 4)):
            continue
        pid, parent, user, memory, seconds, command = fields
        if pid == looker:
            continue
        # What is new since the first look has used all of it since then.
        used = later.get(int(pid), 0) - earlier.get(int(pid), 0)
        cpu = round(max(0, used) / TICKS / interval * 100, 1)
        found.append(
            Process(int(pid), int(parent), user, cpu, int(memory) * 1024, int(seconds), command)
        )
    return sorted(found, key=lambda each: (-each.cpu, -each.memory, each.pid))


def read_counters(text: str) -> dict[int, int]:
    """
    Read how much processor time processes have used: proc_pid_stat(5).

    :param text: The lines of several processes.
    :returns: Hundredths of seconds in user and kernel mode, by number of process.
    """
    found = {}
    for line in text.splitlines():
        # The name of the program stands in parentheses and may contain anything.
        head, _, tail = line.rpartition(")")
        pid, fields = head.partition(" ")[0], tail.split()
        if pid.isdigit() and len(fields) > 13 and fields[11].isdigit() and fields[12].isdigit():
            found[int(pid)] = int(fields[11]) + int(fields[12])
    return found
