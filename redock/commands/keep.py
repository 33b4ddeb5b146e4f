"""
Keeping states and going back: ``log``, ``diff``, ``rollback``, ``clone``, ``rename``, ...
"""

from __future__ import annotations

import sys

from redock._arguments import ONE_NAME, add_name, add_names, add_verb
from redock.commands._loss import agreed, describe_loss
from redock.commands._output import print_json, print_table
from redock.commands._several import for_each, log, make_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from redock._arguments import Parser
    from redock._changes import Change
    from redock._commits import Commit
    from redock._table import Cell
    from redock.api import Container

__all__ = ["add"]

COLORS = {"A": "green", "D": "red", "M": "yellow", "C": "blue"}


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    verb = add_verb(
        verbs,
        "log",
        show_log,
        "List what was saved of a machine, the newest first.",
        "--json",
        aliases=["history"],
    )
    add_name(verb)
    add_diff(add_verb(verbs, "diff", diff, "List what changed on a machine's disk.", "--json"))
    verb = add_verb(
        verbs,
        "rollback",
        rollback,
        "Go back to a saved disk; what changed since is lost.",
        "-y",
        "-t",
        aliases=["restore"],
    )
    verb.add_argument("name", metavar="NAME", help=ONE_NAME)
    verb.add_argument(
        "commit",
        nargs="?",
        metavar="COMMIT",
        help="a number or id out of 'log' (default: the last)",
    )
    verb = add_verb(verbs, "clone", clone, "Make a second machine with the same disk.", "-n", "-t")
    verb.add_argument("name", metavar="NAME", help=ONE_NAME)
    verb.add_argument("new", metavar="NEW", help="the name of the new machine")
    add_from(verb, "copy this commit (default: what is on the disk now)")
    verb = add_verb(verbs, "rename", rename, "Give a machine and its commits another name.")
    verb.add_argument("name", metavar="NAME", help=ONE_NAME)
    verb.add_argument("new", metavar="NEW", help="the new name")
    verb = add_verb(verbs, "export", export, "Write what was saved to a file for somebody else.")
    add_name(verb)
    verb.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="ends in .tar or .tar.gz; - is standard output (default: TAG.tar.gz)",
    )
    add_from(verb, "write this commit (default: the last)")
    verb.add_argument("--history", action="store_true", help="all commits, not only one")
    verb = add_verb(verbs, "import", import_, "Take what was saved from a file.")
    verb.add_argument("file", metavar="FILE", help="- is standard input")
    verb.add_argument("name", nargs="?", metavar="NAME", help="the machine (default: as in FILE)")
    verb.add_argument("--force", action="store_true", help="also when there are commits of NAME")
    verb = add_verb(verbs, "squash", squash, "Make one layer of the last commit.")
    add_names(verb)


def add_diff(verb: argparse.ArgumentParser) -> None:
    """
    Add the arguments of ``diff``.

    :param verb: Its parser.
    """
    add_name(verb)
    verb.add_argument(
        "commits",
        nargs="*",
        metavar="COMMIT",
        help="a number or id out of 'log' (default: the last); two: what changed between them",
    )
    verb.add_argument(
        "-a", "--all", action="store_true", help="each file, also in /run, /tmp and /var/log"
    )
    verb.add_argument("--content", metavar="PATH", help="show how this text file changed")


def add_from(verb: argparse.ArgumentParser, text: str) -> None:
    """
    Add the choice of a commit.

    :param verb: The parser of a command.
    :param text: What it does there.
    """
    verb.add_argument("--from", dest="commit", metavar="COMMIT", help=text)


def show_log(options: argparse.Namespace) -> int:
    """
    List the commits of a machine.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.errors import NotFound

    container = make_container(options)
    commits = container.history()
    if options.json:
        print_json([commit_fields(commit) for commit in commits])
        return 0
    if not commits:
        name = container.image.name
        raise NotFound(f"nothing of {name} was saved yet: 'redock commit {name}' does that", 404)
    if options.quiet:
        for commit in commits:
            print(commit.short_id)
        return 0
    headings = ["#", "ID", "WHEN", "SIZE", "LAYERS", "AUTHOR", "MESSAGE", "NOTE"]
    rows = [commit_row(commit) for commit in commits]
    if not any(commit.author for commit in commits):
        # A column with nothing in it takes room from the others.
        empty = headings.index("AUTHOR")
        del headings[empty]
        for row in rows:
            del row[empty]
    print_table(
        headings,
        rows,
        right=["#", "SIZE", "LAYERS"],
        whole=["ID", "WHEN"],
    )
    return 0


def commit_row(commit: Commit) -> list[str | Cell]:
    """
    Lay out a commit for a person.

    :param commit: The commit.
    :returns: The cells of its row.
    """
    from redock._progress import size
    from redock._table import Cell

    notes = []
    if commit.running:
        notes.append("in use")
    if commit.latest:
        notes.append("next start")
    return [
        Cell(str(commit.number), "bold"),
        commit.short_id,
        f"{commit.created.astimezone():%Y-%m-%d %H:%M:%S}",
        size(commit.size),
        str(commit.layers),
        commit.author,
        commit.message,
        Cell(", ".join(notes), "green"),
    ]


def commit_fields(commit: Commit) -> dict[str, Any]:
    """
    Describe a commit for a program.

    :param commit: The commit.
    :returns: What becomes JSON.
    """
    from dataclasses import asdict

    return {**asdict(commit), "created": commit.created.isoformat()}


def diff(options: argparse.Namespace) -> int:
    """
    List what changed on a machine's disk.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock._changes import fold
    from redock.errors import InvalidArgument

    container = make_container(options)
    if len(options.commits) > 2:
        raise InvalidArgument("at most two commits can be compared (see 'redock diff --help')")
    commit, until = [*options.commits, None, None][:2]
    if options.content is not None:
        text = container.diff_file(options.content, commit, until)
        print_text(text)
        return 0
    changes = container.diff(commit, until, everything=options.all)
    if options.json:
        from dataclasses import asdict

        print_json([{**asdict(change), "path": whole(change.path)} for change in changes])
        return 0
    changes = changes if options.all else fold(changes)
    for change in changes:
        print(whole(change.path) if options.quiet else change_line(change))
    if not changes:
        log().info("Nothing changed")
    return 0


def print_text(text: str) -> None:
    """
    Print a difference of a text file.

    :param text: The text.
    """
    from redock._printed import printable
    from redock._table import paint, use_color

    color = use_color(sys.stdout)
    colors = {"+": "green", "-": "red", "@": "cyan"}
    for line in text.splitlines():
        shown = whole(printable(line))
        print(paint(shown, colors.get(line[:1], "")) if color else shown)


def whole(text: str) -> str:
    """
    Make a text one that can be printed, whatever bytes a file's name consists of.

    :param text: The text, with bytes that are no letters in the form of PEP 383.
    :returns: The text with those written out.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def change_line(change: Change) -> str:
    """
    Lay out a change for a person.

    :param change: The change.
    :returns: A line.
    """
    from redock._printed import printable
    from redock._progress import size
    from redock._table import paint, use_color

    letter = paint(change.change, COLORS[change.change]) if use_color(sys.stdout) else change.change
    path = printable(whole(change.path)).replace("\n", "?").replace("\t", "?")
    if change.kind == "directory":
        path += "/" * (path != "/")
        count = f"{change.files} file{'s' * (change.files != 1)}, " if change.files else ""
        extra = f"{count}{size(change.size)}" if change.change in "AD" and change.files else ""
    elif change.kind == "file":
        extra = size(change.size)
        if change.before is not None and change.change == "M" and change.before != change.size:
            extra = f"{size(change.before)} -> {extra}"
    else:
        extra = change.kind
    if change.change == "C":
        extra = "permissions or owner"
    return f"{letter} {path}" + (f"  ({extra})" if extra else "")


def rollback(options: argparse.Namespace) -> int:
    """
    Go back to a commit.

    :param options: The command line.
    :returns: The exit status.
    """
    container = make_container(options)
    # Whoever mistypes a commit need not answer a question first.
    container.find_commit(options.commit)
    if not agreed([container], options, "Go back"):
        return 1
    container.rollback(options.commit)
    return 0


def clone(options: argparse.Namespace) -> int:
    """
    Make a second machine with the same disk.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import api

    copy = make_container(options).clone(options.new, options.commit, hostname=options.hostname)
    print(api.connect_hint(copy))
    return 0


def rename(options: argparse.Namespace) -> int:
    """
    Give a machine and its commits another name.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import api

    renamed = make_container(options).rename(options.new)
    if renamed.find_container():
        print(api.connect_hint(renamed))
    return 0


def export(options: argparse.Namespace) -> int:
    """
    Write what was saved to a file.

    :param options: The command line.
    :returns: The exit status.
    """
    import os

    from redock.errors import InvalidArgument

    container = make_container(options)
    file = options.file
    if file is None:
        file = f"{container.image.tag}.tar.gz"
        if os.path.lexists(file):
            raise InvalidArgument(f"{file} is there already: give its name to replace it")
    if file == "-":
        if sys.stdout.isatty():
            raise InvalidArgument("an archive is nothing for a terminal: give a FILE")
        container.export(sys.stdout.buffer, options.commit, history=options.history)
        sys.stdout.buffer.flush()
        return 0
    warn_of_changes(container, options.commit)
    container.export(file, options.commit, history=options.history)
    return 0


def warn_of_changes(container: Container, commit: str | None) -> None:
    """
    Tell somebody who exports the last commit that the machine has gone on since.

    :param container: The machine.
    :param commit: The commit that was asked for, None for the last.
    """
    if commit is not None:
        return
    loss = describe_loss(container) if container.history() else ""
    if loss:
        count = loss.partition(" changed")[0]
        log().warning("%s changed since the last commit and are not in the file", count)


def import_(options: argparse.Namespace) -> int:
    """
    Take what was saved from a file.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import _imagefile
    from redock.errors import InvalidArgument

    if options.file == "-":
        if options.name is None:
            raise InvalidArgument("the NAME is missing: it is not known before the end of the file")
        make_container(options).import_(sys.stdin.buffer, force=options.force)
        return 0
    options.name = options.name or _imagefile.find_name(options.file)
    make_container(options).import_(options.file, force=options.force)
    return 0


def squash(options: argparse.Namespace) -> int:
    """
    Make one layer of the last commit of machines.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.commands._several import make_containers

    def work(container: Container) -> None:
        container.squash()

    for_each(make_containers(options), work)
    return 0
