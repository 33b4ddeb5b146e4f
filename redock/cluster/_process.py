"""
Whose clusters these are: the process that made them, and what is left when it has gone.

Everything an ephemeral cluster consists of carries the identity of the process
that made it. A watchdog, a small process of its own, removes it when that
process ends without doing so; where even the watchdog was killed, the next
start of a cluster does. Neither needs an image.
"""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys

from redock import _keeper, _ssh
from redock._engine import KIND, Engine, label
from redock._files import read_bytes
from redock.errors import RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "Watchdog",
    "find_orphans",
    "is_kept",
    "join_run",
    "keep",
    "labels",
    "remove_cluster",
    "remove_run",
    "run_id",
    "sweep",
]

logger = logging.getLogger("redock.cluster")


def host_id() -> str:
    """
    Get what tells this host from others that may use the same engine.

    :returns: The machine-id of the host, else its name.
    """
    return (read_bytes("/etc/machine-id") or b"").decode().strip() or os.uname().nodename


def process_id(pid: int | str = "self") -> str | None:
    """
    Get what tells a process from all others there ever were on this host.

    :param pid: The number of the process (default: this one).
    :returns: Number, start and boot, None when there is no such process. See proc(5).
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as handle:
            fields = handle.read()
    except OSError:
        return None
    rest = fields.rpartition(b")")[2].split()
    if rest[0] in (b"Z", b"X"):
        return None
    boot = (read_bytes("/proc/sys/kernel/random/boot_id") or b"").decode().strip()
    return f"{int(fields.split()[0])}:{int(rest[19])}:{boot}"


def run_id() -> str:
    """
    Get the name of this run: what one process makes has it in common.

    :returns: Twelve hexadecimal digits; another one after a fork.
    """
    return joined.get(os.getpid(), ("", ""))[0] or make_run_id(os.getpid())


#: Processes that are part of a run of several: the run and the name of each in it.
joined: dict[int, tuple[str, str]] = {}


def join_run(run: str, worker: str = "") -> None:
    """
    Make this process a part of a run; what it makes carries the name of that.

    :param run: The name of the run.
    :param worker: The name of this process in it (default: none).
    """
    joined[os.getpid()] = (run, worker)


@functools.cache
def make_run_id(pid: int) -> str:
    """
    Make the name of a run.

    :param pid: The process.
    :returns: Twelve random hexadecimal digits.
    """
    return os.urandom(6).hex()


def labels() -> dict[str, str]:
    """
    Get the labels of everything that is to go when this process goes.

    :returns: The labels.
    """
    worker = joined.get(os.getpid(), ("", ""))[1]
    return {
        label("run"): run_id(),
        **({label("worker"): worker} if worker else {}),
        label("process"): process_id() or "",
        label("host"): host_id(),
        label("user"): str(os.getuid()),
    }


def is_orphan(marks: Mapping[str, str]) -> bool:
    """
    Check whether something was made by a process of this host that has ended.

    :param marks: The labels of it.
    :returns: True when nobody else will remove it.
    """
    process = marks.get(label("process"))
    if not process or marks.get(label("host")) != host_id():
        return False
    if marks.get(label("user")) != str(os.getuid()):
        return False
    return process_id(process.partition(":")[0]) != process


def find_orphans(engine: Engine) -> list[str]:
    """
    Find the clusters of processes that have ended, except those somebody wanted to keep.

    :param engine: The engine.
    :returns: The names of the clusters.
    """
    orphans = dict.fromkeys(
        marks.get(label("cluster"))
        for marks in labels_of(engine, label("process"))
        if is_orphan(marks)
    )
    return [cluster for cluster in orphans if cluster and not is_kept(engine, cluster)]


def sweep(engine: Engine) -> list[str]:
    """
    Remove the clusters of processes that have ended.

    :param engine: The engine.
    :returns: The names of the clusters.
    """
    removed = []
    for cluster in find_orphans(engine):
        logger.info("Removing cluster %s: the process that made it has ended", cluster)
        try:
            remove_cluster(engine, cluster)
        except RedockError as error:
            # Another process may be doing the same.
            logger.warning("Cluster %s: %s", cluster, error)
        removed.append(cluster)
    return removed


def labels_of(engine: Engine, wanted: str) -> Iterator[Mapping[str, str]]:
    """
    Find what is left of clusters: nodes, networks, and disks that were saved.

    :param engine: The engine.
    :param wanted: A label it has.
    :returns: Yields the labels of each.
    """
    for find in (engine.containers, engine.networks, engine.images):
        for each in find({"label": [wanted]}):
            yield each["Labels"]


def remove_run(engine: Engine, run: str) -> list[str]:
    """
    Remove the clusters that are left of a run, except those somebody wanted to keep.

    :param engine: The engine.
    :param run: The name of the run.
    :returns: The names of the clusters.
    """
    found = labels_of(engine, f"{label('run')}={run}")
    removed = []
    for cluster in dict.fromkeys(filter(None, (marks.get(label("cluster")) for marks in found))):
        if not is_kept(engine, cluster):
            logger.info("Removing cluster %s: its test run is over", cluster)
            try:
                remove_cluster(engine, cluster)
            except RedockError as error:
                # A watchdog may be doing the same.
                logger.warning("Cluster %s: %s", cluster, error)
            removed.append(cluster)
    return removed


def is_kept(engine: Engine, cluster: str) -> bool:
    """
    Check whether somebody wanted to keep a cluster.

    :param engine: The engine.
    :param cluster: The name of the cluster.
    :returns: True when it must stay.
    """
    filters = {"label": [f"{KIND}=kept", f"{label('cluster')}={cluster}"]}
    return bool(engine.volumes(filters))


def keep(engine: Engine, cluster: str) -> None:
    """
    Keep a cluster when this process ends. Labels cannot be changed: an empty volume says so.

    :param engine: The engine.
    :param cluster: The name of the cluster.
    """
    engine.create_volume(f"redock-kept-{cluster}", {KIND: "kept", label("cluster"): cluster})


def begin_change(engine: Engine, cluster: str) -> None:
    """
    Note that a cluster is being made or removed, in case this process is killed meanwhile.

    :param engine: The engine.
    :param cluster: The name of the cluster.
    """
    marks = {KIND: "incomplete", label("cluster"): cluster}
    engine.create_volume(f"redock-incomplete-{cluster}", marks)


def end_change(engine: Engine, cluster: str) -> None:
    """
    Note that a cluster is complete.

    :param engine: The engine.
    :param cluster: The name of the cluster.
    """
    engine.remove_volume(f"redock-incomplete-{cluster}")


def finish_removal(engine: Engine, cluster: str) -> None:
    """
    Remove what is left of a cluster whose making or removal was interrupted.

    :param engine: The engine.
    :param cluster: The name of the cluster; its lock is held.
    """
    filters = {"label": [f"{KIND}=incomplete", f"{label('cluster')}={cluster}"]}
    if engine.volumes(filters):
        logger.info("Removing what an interrupted redock left of cluster %s", cluster)
        remove_cluster(engine, cluster)


def remove_cluster(engine: Engine, cluster: str) -> bool:
    """
    Remove everything a cluster consists of.

    :param engine: The engine.
    :param cluster: The name of the cluster.
    :returns: False when there was nothing.
    :raises RedockError: Something could not be removed.
    """
    marks = {"label": [f"{label('cluster')}={cluster}"]}
    containers = engine.containers(marks)
    # Those that share the network of another go first.
    containers.sort(key=lambda each: each["Labels"].get(KIND) == "owner")
    instances = {}
    pending = []
    for container in containers:
        found = container["Labels"]
        if found.get(label("instance")):
            instances[found.get(label("name"), "")] = found[label("instance")]
    for instance in instances.values():
        _keeper.close_connection(instance)
    _ssh.remove_all(instances)
    for container in containers:
        pending.append((container["Id"], engine.begin_remove(container["Id"])))
    for number, request in pending:
        try:
            request.result()
        except RedockError as error:
            logger.debug("%s", error)
            engine.remove_container(number)
    networks = engine.networks(marks)
    for network in networks:
        engine.remove_network(network["Id"])
    volumes = engine.volumes(marks)
    for volume in volumes:
        engine.remove_volume(volume["Name"])
    images = engine.images({"label": [f"{KIND}=snapshot", *marks["label"]]})
    for image in images:
        for name in image.get("RepoTags") or [image["Id"]]:
            engine.remove_image(image["Id"] if name == "<none>:<none>" else name, force=True)
    return bool(containers or networks or volumes or images)


class Watchdog:
    """
    A process that removes what this one leaves behind.

    It reads from a pipe whose other end only this process has. When that ends
    without the word "done" it removes what carries the identity of the run.
    """

    current: Watchdog | None = None

    def __init__(self) -> None:
        self.pid = os.getpid()
        # It does nothing until the end, so it loads nothing until then.
        program = (
            "import sys, signal\n"
            "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):\n"
            "    signal.signal(number, signal.SIG_IGN)\n"
            "if 'done' not in sys.stdin.read():\n"
            f"    sys.path[:0] = {sys.path!r}\n"
            "    from redock.cluster import _process\n"
            f"    _process.clean_up({process_id()!r})\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-E", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    @classmethod
    def start(cls) -> None:
        """Make sure this process has a watchdog."""
        if cls.current is None or cls.current.pid != os.getpid():
            cls.current = cls()

    @classmethod
    def dismiss(cls, engine: Engine) -> None:
        """
        End the watchdog when there is nothing left to remove.

        :param engine: The engine.
        """
        watchdog = cls.current
        if watchdog is None or watchdog.pid != os.getpid():
            return
        try:
            if any(labels_of(engine, f"{label('process')}={process_id()}")):
                return
        except RedockError:
            return
        cls.current = None
        try:
            watchdog.process.communicate(b"done", timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            watchdog.process.kill()
            watchdog.process.wait()


def clean_up(process: str) -> None:
    """
    Remove what a process that has ended left behind; run by the watchdog.

    :param process: Its identity.
    """
    import time

    # Its last requests may still be under way.
    for pause in (0.0, 0.5, 1.5):
        time.sleep(pause)
        if process_id(process.partition(":")[0]) == process:
            continue
        sweep(Engine())
