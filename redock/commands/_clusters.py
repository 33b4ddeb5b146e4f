"""
What the actions on clusters share: which cluster is meant, what is printed about it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys

from redock.cluster import Cluster
from redock.commands._several import log
from redock.errors import ForeignContainer, InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from redock.cluster import Fault, Node
    from redock.cluster._spec import ClusterSpec

__all__ = ["describe", "do_faults", "name_of", "open_cluster"]

#: The file that is meant where none is named.
DEFAULT = "cluster.toml"


# Which cluster is meant.


def split(words: Sequence[str], needs: int = 0) -> tuple[str, list[str]]:
    """
    Tell the cluster on the command line from what follows.

    The first word is the cluster where it is the pathname of a TOML file or the name of a cluster
    that is there. Otherwise ``cluster.toml`` is meant.

    :param words: The words.
    :param needs: How many words have to follow (default: none).
    :returns: The pathname or name, and the words that follow.
    :raises NotFound: The first word is nothing that is there, or there is no ``cluster.toml``.
    """
    first, default = next(iter(words), ""), os.path.exists(DEFAULT)
    if first and (len(words) > needs or not default):
        if is_file(first) or is_there(first):
            return first, list(words[1:])
        if not default:
            raise NotFound(
                f"there is neither a cluster called {first} nor a file {DEFAULT} here:"
                " 'redock cluster status' lists the clusters there are",
                404,
            )
    if not default:
        raise NotFound(f"there is no {DEFAULT} here: name a file or a cluster", 404)
    return DEFAULT, list(words)


def is_file(word: str) -> bool:
    """
    Check whether a word is meant to be a file; names of clusters are not.

    :param word: The word.
    :returns: True when it is.
    """
    return "/" in word or word.endswith(".toml")


def is_there(name: str) -> bool:
    """
    Check whether there is a cluster of this name.

    :param name: The name.
    :returns: True when there is.
    """
    from redock._engine import Engine
    from redock.cluster._sharing import find_nodes
    from redock.cluster._spec import NAME

    if not NAME.fullmatch(name):
        return False
    try:
        return bool(find_nodes(Engine(), name))
    except NotFound:
        return False


def read(path: str) -> ClusterSpec:
    """
    Read a file.

    :param path: Its pathname.
    :returns: What the cluster is to be.
    :raises NotFound: There is no such file.
    :raises SettingsError: It makes no sense.
    """
    from redock.cluster._spec import read_spec

    if not os.path.exists(path):
        raise NotFound(f"there is no file {path}", 404)
    return read_spec(path)


def describe(options: argparse.Namespace) -> Cluster:
    """
    Find what is to be booted.

    :param options: The command line.
    :returns: The cluster, not started.
    :raises SettingsError: The file makes no sense.
    """
    place, rest = split(options.words)
    nothing_more(rest)
    settings = {"keep": True, "standbys": False, "timeout": options.timeout}
    if not is_file(place):
        found = Cluster.find(place)
        return Cluster([node.spec for node in found.nodes], name=place, **settings)
    read(place)
    return Cluster.from_file(place, **settings)


@contextlib.contextmanager
def open_cluster(
    options: argparse.Namespace, needs: int = 0
) -> Iterator[tuple[Cluster, list[str]]]:
    """
    Find the cluster that is meant.

    It is what is there, whatever the file says now; but roles are nothing but words, so those of
    the file count.

    :param options: The command line.
    :param needs: How many words have to follow it (default: none).
    :returns: A context manager that yields the cluster and the words that follow.
    :raises NotFound: There is no such file or cluster.
    """
    place, rest = split(options.words, needs)
    spec = read(place) if is_file(place) else None
    cluster = Cluster.find(spec.name if spec else place, keep=True, standbys=False)
    if spec is not None and sorted(cluster.nodes.names) != sorted(n.name for n in spec.nodes):
        log().warning(
            "%s describes other nodes now than cluster %s has (%s): take it down and up again to"
            " change them",
            *(place, cluster.name, ", ".join(cluster.nodes.names)),
        )
    elif spec is not None:
        for described in spec.nodes:
            node = cluster[described.name]
            node.spec = dataclasses.replace(node.spec, roles=described.roles)
    with closing(cluster):
        yield cluster, rest


@contextlib.contextmanager
def closing(cluster: Cluster) -> Iterator[None]:
    """
    Let what goes on in the background come to its end.

    :param cluster: The cluster.
    :returns: A context manager.
    """
    try:
        yield
    finally:
        cluster.close()


def name_of(options: argparse.Namespace) -> str:
    """
    Get the name of the cluster that is meant, whether it is there or not.

    :param options: The command line.
    :returns: The name.
    """
    place, rest = split(options.words)
    nothing_more(rest)
    return read(place).name if is_file(place) else place


def usage(message: str) -> InvalidArgument:
    """
    Say that something on the command line is missing, or too much.

    :param message: What.
    :returns: The error to raise.
    """
    return InvalidArgument(f"{message} (see 'redock cluster --help')")


def nothing_more(words: Sequence[str]) -> None:
    """
    Make sure nothing stands on the command line that nobody would look at.

    :param words: What follows the cluster.
    :raises InvalidArgument: Something does.
    """
    if words:
        raise usage(f"there is neither a file nor a cluster {words[0]}")


def exactly(words: list[str], count: int, what: str) -> list[str]:
    """
    Make sure the right number of words follows.

    :param words: What follows the cluster.
    :param count: How many there must be.
    :param what: What they are.
    :returns: The words.
    :raises InvalidArgument: There are more or fewer.
    """
    if len(words) != count:
        raise usage(f"give FILE and {what}")
    return words


def at_most_one(words: list[str], what: str) -> str | None:
    """
    Get a word that may be missing.

    :param words: What follows the cluster.
    :param what: What it is.
    :returns: The word, None where there is none.
    :raises InvalidArgument: There are more.
    """
    if len(words) > 1:
        raise usage(f"give FILE and at most one {what}")
    return words[0] if words else None


def group(word: str) -> list[str]:
    """
    Read a group of nodes.

    :param word: Names with commas between them.
    :returns: The names.
    :raises InvalidArgument: A name is missing.
    """
    names = word.split(",")
    if not all(names):
        raise InvalidArgument(f"partition: {word!r} is no group of nodes: write n1,n2")
    return names


def newest(cluster: Cluster) -> str:
    """
    Find the newest snapshot.

    :param cluster: The cluster.
    :returns: Its name.
    :raises NotFound: There is none.
    """
    names = list(cluster.snapshots())
    if not names:
        raise NotFound(
            f"cluster {cluster.name} has no snapshots: 'redock cluster snapshot' takes one", 404
        )
    return names[-1]


# What is done.


def take_down(name: str, force: bool) -> bool:
    """
    Take a cluster down.

    :param name: Its name.
    :param force: Also one that a running process made.
    :returns: False when there was nothing.
    :raises ForeignContainer: A running process made it.
    """
    # Nodes do not matter: what is half made goes as well.
    cluster = Cluster(1, name=name, keep=True, standbys=False)
    process = cluster.find_process()
    if process and not force:
        raise ForeignContainer(
            f"cluster {name} goes with process {process}, which made it and may use it: end that,"
            " or say --force"
        )
    return cluster.down()


def do_faults(
    options: argparse.Namespace,
    function: Callable[[Cluster, list[str]], list[Fault]],
    needs: int = 1,
) -> int:
    """
    Break something, or make it whole again, and say what.

    :param options: The command line.
    :param function: Does it; gets the cluster and the words that follow.
    :param needs: How many words have to follow (default: one).
    :returns: The exit status.
    """
    with open_cluster(options, needs) as (cluster, words):
        if needs and not words:
            raise usage("name the nodes")
        if not needs:
            nothing_more(words)
        faults = function(cluster, words)
        if options.json:
            from redock.commands._output import print_json

            print_json([fault.summary() for fault in faults])
        elif not options.quiet:
            for fault in faults:
                print(fault.text if fault.active else f"healed: {fault.text}")
        if not faults and not needs:
            log().info("Nothing in cluster %s was broken", cluster.name)
    return 0


def thaw(cluster: Cluster, names: list[str]) -> list[Fault]:
    """
    Heal what paused nodes.

    :param cluster: The cluster.
    :param names: The names of the nodes.
    :returns: What was healed.
    """
    chosen = {node.name for node in cluster.choose(names)}
    found = [f for f in cluster.faults if f.kind == "pause" and chosen & set(f.nodes)]
    for fault in found:
        fault.heal()
    return found


def become_ssh(node: Node, command: Sequence[str]) -> int:
    """
    Become ``ssh`` to a node.

    :param node: The node.
    :param command: The command to run there; empty for a session.
    :returns: Never.
    """
    from redock._result import quote
    from redock.commands._everywhere import check_up

    check_up(node)
    words = ["ssh", "-F", node.ssh_config]
    if command and sys.stdin.isatty() and sys.stdout.isatty():
        words.append("-t")
    text = [command[0] if len(command) == 1 else quote(command)] if command else []
    return become([*words, node.ssh_alias, *text])


def become_scp(cluster: Cluster, source: str, target: str) -> int:
    """
    Become ``scp`` from or to a node.

    :param cluster: The cluster.
    :param source: A pathname, or ``NODE:PATH``.
    :param target: The same.
    :returns: Never.
    :raises InvalidArgument: Neither is in a node.
    """
    from redock.commands._everywhere import check_up

    places = []
    for place in (source, target):
        name, colon, path = place.partition(":")
        if colon and "/" not in name:
            node = cluster[name]
            check_up(node)
            places.append(f"{node.ssh_alias}:{path}")
        else:
            # Not an option, and not a host.
            places.append(place if place.startswith(("/", "./", "../")) else f"./{place}")
    if places[0].startswith((".", "/")) and places[1].startswith((".", "/")):
        raise InvalidArgument("cp: neither place is in a node: write NODE:PATH")
    config = next(iter(cluster.nodes)).ssh_config
    return become(["scp", "-q", "-r", "-p", "-F", config, "--", *places])


def become(command: list[str]) -> int:
    """
    Become another program.

    :param command: The program and its arguments.
    :returns: Never.
    :raises RedockError: There is no such program.
    """
    from redock._process import missing_program

    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(command[0], command)
    except FileNotFoundError as error:
        raise missing_program(command[0]) from error
