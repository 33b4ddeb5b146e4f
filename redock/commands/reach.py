"""
Ways into machines: ``ssh``, ``exec``, ``cp``, ``sync``, ``forward``, ``open``, ``wait``.
"""

from __future__ import annotations

import argparse
import os
import sys

from redock._arguments import ONE_NAME, add_name, add_options, add_verb
from redock._session import become, become_session
from redock.commands._several import log, make_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock._arguments import Parser
    from redock._copy import Files
    from redock._forward import Forward

__all__ = ["add"]

#: Runs a shell as a login would, where there is no command.
LOGIN = "if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi"
#: How often to look whether what is forwarded is still there, in seconds.
LOOK = 0.5


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "Connect to a machine, or run a command in it; starts it where it is stopped."
    add_command(add_verb(verbs, "ssh", shell, text))
    add_command(add_verb(verbs, "shell", shell, "The same as ssh."))
    text = "Run a command in a machine through the engine; works without SSH."
    verb = add_verb(verbs, "exec", execute, text)
    verb.add_argument("--user", metavar="USER", default="root", help="who runs it (default: root)")
    add_command(verb)
    verb = add_verb(verbs, "cp", copy, "Copy files into machines and out of them.")
    add_places(verb, "a pathname, NAME:PATH, or - for standard {0}")
    text = "Bring a directory up to date with another one, with rsync."
    verb = add_verb(verbs, "sync", sync, text)
    verb.add_argument("--delete", action="store_true", help="remove what the source does not have")
    verb.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave these out"
    )
    verb.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    add_places(verb, "a pathname or NAME:PATH")
    add_forward(verbs)
    verb = add_verb(verbs, "open", open_editor, "Open a machine in an editor.")
    verb.intermixed = True
    add_name(verb)
    verb.add_argument("path", metavar="PATH", nargs="?", help="what to open (default: /root)")
    verb.add_argument(
        "--editor", metavar="E", help="code, codium, cursor, windsurf, zed, emacs or ssh"
    )
    verb.add_argument("--print", action="store_true", help="print addresses, open nothing")
    verb = add_verb(verbs, "wait", wait, "Wait until a machine can be reached.")
    add_name(verb)
    add_options(verb, "-t", again=True)
    verb.add_argument(
        "--for",
        dest="condition",
        metavar="WHAT",
        default="ssh",
        help="ssh (the default), port:NUMBER (a program listens on it) or stopped",
    )


def add_command(verb: argparse.ArgumentParser) -> None:
    """
    Add a machine and a command to run in it.

    :param verb: The parser of a command.
    """
    verb.add_argument("name", metavar="NAME", help=ONE_NAME)
    command = verb.add_argument(
        "command",
        metavar="COMMAND",
        nargs=argparse.REMAINDER,
        help="one word is text for the shell there, several are passed as they are",
    )
    # Python 3.11 says so of all that remains.
    command.required = False


def add_places(verb: argparse.ArgumentParser, text: str) -> None:
    """
    Add where files come from and where they go.

    :param verb: The parser of a command.
    :param text: What may be written.
    """
    verb.add_argument("source", metavar="SRC", help=text.format("input"))
    verb.add_argument("target", metavar="DST", help=text.format("output"))


def add_forward(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add ``forward``.

    :param verbs: Where commands are added.
    """
    text = "Make ports lead into a machine while it runs."
    verb = add_verb(verbs, "forward", forward, text)
    verb.intermixed = True
    verb.add_argument("name", metavar="NAME", help=ONE_NAME)
    verb.add_argument(
        "ports",
        metavar="PORT",
        nargs="*",
        help="PORT, LISTEN:TO or ADDRESS:LISTEN:TO; 0 listens on any free port",
    )
    verb.add_argument(
        "-R", "--reverse", action="store_true", help="listen in the machine, lead to this host"
    )
    what = verb.add_mutually_exclusive_group()
    what.add_argument("--background", action="store_true", help="return, and keep them")
    what.add_argument("--list", action="store_true", help="print those there are")
    what.add_argument("--cancel", action="store_true", help="end these, or all there are")


def command_of(options: argparse.Namespace) -> list[str]:
    """
    Get the command to run.

    :param options: The command line.
    :returns: The words; ``--`` before them only says that they begin.
    """
    words: list[str] = options.command
    return words[1:] if words[:1] == ["--"] else words


def shell(options: argparse.Namespace) -> int:
    """
    Connect to a machine.

    :param options: The command line.
    :returns: Does not return: the process becomes ``ssh``.
    """
    container = make_container(options)
    container.bring_up()
    become_session(container.ssh_alias, options.command)


def execute(options: argparse.Namespace) -> int:
    """
    Run a command in a machine through the engine.

    :param options: The command line.
    :returns: The exit status of the command.
    """
    from redock._command import words_of
    from redock._exec import Exec
    from redock.commands import _terminal

    container = make_container(options)
    words = words_of(command_of(options) or [LOGIN])
    machine = container._running()
    person = _terminal.all_terminals(0, 1)
    term = {"TERM": os.environ.get("TERM", "dumb")} if person else {}
    with Exec(
        container.engine,
        machine.id,
        words,
        stdin=True,
        tty=person,
        user=options.user,
        environment=term,
    ) as running:
        if not person:
            return _terminal.carry(running, stdin=True)
        with _terminal.raw(running):
            return _terminal.carry(running, stdin=True)


def copy(options: argparse.Namespace) -> int:
    """
    Copy files.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import _copy
    from redock._progress import Progress
    from redock.errors import InvalidArgument

    here, source = files_of(options.source, options)
    there, target = files_of(options.target, options)
    if source == "-" and there is not None and here is None:
        _copy.copy_from_stream(sys.stdin.buffer, target, there)
    elif target == "-" and here is not None and there is None:
        _copy.copy_to_stream(source, here, sys.stdout.buffer)
    elif here is None and there is None:
        raise InvalidArgument("neither of the two is in a machine: write NAME:PATH for one of them")
    else:
        _copy.copy(source, target, here, there)
    if Progress.hide is not None:
        Progress.hide()
    return 0


def files_of(place: str, options: argparse.Namespace) -> tuple[Files | None, str]:
    """
    Find the files of a place on the command line.

    :param place: ``NAME:PATH``, or a pathname of this host.
    :param options: The command line.
    :returns: The files of the machine, None for this host, and the pathname.
    """
    from redock._copy import split_place

    name, path = split_place(place)
    return (make_container(options, name)._files() if name is not None else None), path


def sync(options: argparse.Namespace) -> int:
    """
    Bring a directory up to date with another one.

    :param options: The command line.
    :returns: The exit status of ``rsync``.
    """
    import shutil
    import subprocess

    from redock._copy import split_place
    from redock._process import missing_program
    from redock._reach import sync_command
    from redock.errors import InvalidArgument

    if not shutil.which("rsync"):
        raise missing_program("rsync")
    (source_name, source), (target_name, target) = map(
        split_place, (options.source, options.target)
    )
    if (source_name is None) == (target_name is None):
        raise InvalidArgument("exactly one of the two has to be in a machine: write NAME:PATH")
    container = make_container(options, source_name or target_name)
    container.bring_up()
    more = ["--delete"] if options.delete else []
    more += [f"--exclude={pattern}" for pattern in options.exclude]
    more += ["--dry-run", "--itemize-changes"] if options.dry_run else []
    if sys.stderr.isatty() and sys.stdout.isatty() and not (options.quiet or options.dry_run):
        more.append("--info=progress2")
    inward = target_name is not None
    command = sync_command(container.ssh_alias, source, target, inward, more)
    return subprocess.call(command)


def forward(options: argparse.Namespace) -> int:
    """
    Make ports lead into a machine.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock._forward import parse_ports
    from redock.errors import InvalidArgument

    wanted = [parse_ports(text, reverse=options.reverse) for text in options.ports]
    if options.list or options.cancel:
        return list_forwards(options) if options.list else cancel_forwards(options)
    if not wanted:
        raise InvalidArgument("name the ports to forward, for instance 8080:80")
    container = make_container(options)
    container.bring_up()
    made: list[Forward] = []
    try:
        for text in options.ports:
            made.append(
                container.forward(text, reverse=options.reverse, background=options.background)
            )
            print(made[-1].ports.describe(container.ssh_alias), flush=True)
        if options.background:
            made.clear()
            return 0
        while not made[0].wait(LOOK):
            pass
    except KeyboardInterrupt:
        # That is how it is ended.
        return 0
    finally:
        for each in made:
            each.close()
    from redock.errors import NoContainerRunning

    raise NoContainerRunning(f"{container.image.name} has ended, and with it what it was for")


def list_forwards(options: argparse.Namespace) -> int:
    """
    Print the forwardings of a machine.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock._forward import find_forwards

    machine = make_container(options)._present()
    for _, instance, ports in find_forwards():
        if instance == machine.instance:
            print(ports.describe(machine.alias))
    return 0


def cancel_forwards(options: argparse.Namespace) -> int:
    """
    End forwardings of a machine.

    :param options: The command line.
    :returns: 0 when there were any.
    """
    from redock._forward import cancel, find_forwards, parse_ports
    from redock.errors import RedockError

    container = make_container(options)
    machine = container._present()
    listen = {parse_ports(text, reverse=options.reverse).listen for text in options.ports}
    ended = set()
    for pid, instance, ports in find_forwards():
        if instance == machine.instance and (not listen or ports.listen in listen):
            cancel(container._host_entry, pid, ports)
            ended.add(ports.listen)
            print(ports.describe(machine.alias))
    missing = sorted(listen - ended)
    if missing:
        raise RedockError(f"{machine.name} has no forwarding at port {missing[0]}")
    return 0


def open_editor(options: argparse.Namespace) -> int:
    """
    Open a machine in an editor.

    :param options: The command line.
    :returns: The exit status; that of the editor where one was found.
    """
    from redock import _editor, _include

    if (options.name or "").startswith("/") and options.path is None:
        # No name begins like that: it is the folder's machine that is meant.
        options.name, options.path = None, options.name
    options.path = options.path or "/root"
    container = make_container(options)
    _editor.absolute(options.path)
    editor = options.editor or _editor.find_editor()
    if options.print or editor is None:
        container._present()
        if not options.print:
            log().warning("No editor was found (looked for %s)", ", ".join(_editor.USUAL))
        print("\n".join(_editor.urls(container.ssh_alias, options.path)))
        return 0
    command = container.open_command(options.path, editor)
    container.bring_up()
    if len(_include.client_command(container.ssh_alias)) > 2:
        log().warning(
            "Your SSH configuration does not know redock's machines, and so the editor may not:"
            " 'redock ssh-config install'"
        )
    become(container.open_command(options.path, command[0]))


def wait(options: argparse.Namespace) -> int:
    """
    Wait until a machine can be reached.

    :param options: The command line.
    :returns: The exit status.
    """
    make_container(options).wait(options.condition)
    return 0
