"""
The command line program: arguments, printing, exit statuses.

Nothing here that a script would want: that is in :mod:`redock.api`. Results go
to standard output, everything else to standard error.
"""

from __future__ import annotations

import os
import signal
import sys

import redock
from redock.errors import InvalidName, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import logging
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

    from redock._arguments import Parser
    from redock.api import Container

__all__ = ["main"]

#: With four at a time the engine's own work fills two processors.
WORKERS = 4

EPILOG = """\
NAME is TAG or REPOSITORY:TAG; without a repository it is one of yours ($USER).

  redock start web         make sure the machine runs, and connect to it
  ssh web-container        connect to it, any time, from anywhere (scp, rsync, ...)
  redock commit web        save its disk
  redock kill web          throw it away, up to the last commit
  redock delete web        remove what was saved

Exit status: 0 done; 1 failed; 2 invalid name or usage; 3 not running; 4 not found;
124 timeout; 129, 130 or 143 interrupted by HUP, INT or TERM; of 'start' on a terminal:
that of the SSH session.
"""


class Interrupted(BaseException):
    """
    A signal asks the program to end.

    :param number: The number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the program and end the process with its exit status.

    :param arguments: The command line without the program's name (default: ``sys.argv``).
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    sys.unraisablehook = interrupt_again
    try:
        status = run(arguments)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
        complain("interrupted; run the same command again to finish")
    except Interrupted as interrupted:
        status = 128 + interrupted.number
        complain("interrupted; run the same command again to finish")
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    # Taking the interpreter apart takes longer than some of our commands.
    os._exit(status)


def log() -> logging.Logger:
    """
    Get the log of the program.

    :returns: The logger above all of redock's.
    """
    import logging

    return logging.getLogger("redock")


def interrupt(number: int, frame: FrameType | None) -> None:
    """
    Turn a signal into an error, so that everything is cleaned up.

    :param number: The number of the signal.
    :param frame: Where the program was.
    """
    raise Interrupted(number)


def interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """
    Interrupt the program once more when it was inside something that swallows errors.

    Python calls finalizers and other callbacks between any two instructions,
    and what they raise is printed and forgotten.

    :param lost: What was raised, and where.
    """
    if not isinstance(lost.exc_value, (Interrupted, KeyboardInterrupt)):
        sys.__unraisablehook__(lost)
        return
    number = getattr(lost.exc_value, "number", signal.SIGINT)
    signal.signal(signal.SIGALRM, lambda *_: interrupt(number, None))
    signal.setitimer(signal.ITIMER_REAL, 0.005)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run the program.

    :param arguments: The command line without the program's name (default: ``sys.argv``).
    :returns: The exit status.
    """
    if (sys.argv[1:] if arguments is None else list(arguments)) == ["--version"]:
        print(version_line())
        return 0
    options = make_parser().parse_args(arguments)
    from redock import _logging

    _logging.set_up(options.verbose - options.quiet)
    try:
        status: int = options.run(options)
        return status
    except RedockError as error:
        report(error)
        return error.exit_code


def version_line() -> str:
    """
    Say which redock this is; asking that should not take the time of loading anything.

    :returns: The program's name and version.
    """
    return f"redock {redock.__version__}"


def make_parser() -> Parser:
    """
    Describe the command line.

    :returns: The parser.
    """
    import argparse

    from redock._arguments import Parser

    parser = Parser(
        prog="redock",
        description="Docker containers you can SSH into.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line())
    add_options(parser, "-v", "-q", "-n", "-m", "-t", "-b")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, function, text, flags in (
        ("start", start, "Make sure machines run; connect to a single one.", "-n -t -b"),
        ("commit", commit, "Save the disk of machines as their images.", "-m"),
        ("kill", kill, "Throw machines away, with all changes since the last commit.", ""),
        ("delete", delete, "Delete the images of machines.", ""),
    ):
        verb = add_verb(verbs, name, function, text, *flags.split())
        verb.add_argument("names", nargs="+", metavar="NAME", help="TAG or REPOSITORY:TAG")
        if name == "delete":
            verb.add_argument("--force", action="store_true", help="even redock's base images")
        if name == "start":
            verb.add_argument("--no-connect", action="store_true", help="do not open a session")
    text = "Show, install or remove redock's line in your SSH configuration."
    verb = add_verb(verbs, "ssh-config", ssh_config, text)
    verb.add_argument("action", choices=("show", "install", "remove"))
    verb.add_argument("--dry-run", action="store_true", help="print the change, do not make it")
    add_provision(verbs)
    add_verb(verbs, "doctor", examine, "Explain what is missing and how to mend it.")
    return parser


def add_verb(
    verbs: argparse._SubParsersAction[Parser],
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
    *flags: str,
) -> Parser:
    """
    Add a command.

    :param verbs: Where commands are added.
    :param name: Its name.
    :param function: What it does; gets the command line, returns the exit status.
    :param text: What it does, for the reader.
    :param flags: The options it understands, besides those that all understand.
    :returns: The parser of the command.
    """
    verb = verbs.add_parser(name, help=text[0].lower() + text[1:-1], description=text)
    verb.set_defaults(run=function)
    add_options(verb, "-v", "-q", *flags, again=True)
    return verb


def add_provision(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the command ``provision``.

    :param verbs: Where commands are added.
    """
    from redock._arguments import add_provision_arguments

    text = "Bring machines, or any hosts, into the state a script describes."
    add_provision_arguments(add_verb(verbs, "provision", provision, text))


def add_options(parser: argparse.ArgumentParser, *flags: str, again: bool = False) -> None:
    """
    Add options that may stand before the command or after it.

    :param parser: The parser.
    :param flags: Their short forms.
    :param again: They exist before the command; keep what was given there.
    """
    import argparse

    options: dict[str, tuple[str, dict[str, Any]]] = {
        "-v": ("--verbose", {"action": "count", "default": 0, "help": "say more: each request"}),
        "-q": ("--quiet", {"action": "count", "default": 0, "help": "say only what went wrong"}),
        "-n": ("--hostname", {"metavar": "NAME", "help": "host name (default: TAG)"}),
        "-m": ("--message", {"metavar": "TEXT", "help": "describes a commit"}),
        "-t": (
            "--timeout",
            {
                "metavar": "S",
                "type": seconds,
                "default": 10.0,
                "help": "seconds to wait for SSH (default: 10)",
            },
        ),
        "-b": (
            "--base",
            {
                "metavar": "IMAGE",
                "help": "Debian or Ubuntu image to build on (default: ubuntu:24.04)",
            },
        ),
    }
    for flag in flags:
        name, details = options[flag]
        if again:
            details["default"] = argparse.SUPPRESS
        parser.add_argument(flag, name, **details)


def seconds(text: str) -> float:
    """
    Read a number of seconds.

    :param text: What was given.
    :returns: The number.
    :raises argparse.ArgumentTypeError: It is not a number above zero.
    """
    import argparse

    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def report(error: BaseException, name: str = "") -> None:
    """
    Tell the user what went wrong.

    :param error: The error.
    :param name: The machine it concerns, where there are several.
    """
    from redock._progress import Progress

    if Progress.hide is not None:
        Progress.hide()
    log = getattr(error, "log", "")
    for line in log.splitlines()[-20:]:
        print(f"    {line}", file=sys.stderr)
    complain(f"{name}: {error}" if name and name not in str(error) else str(error))


def complain(message: str) -> None:
    """
    Print one line on standard error.

    :param message: The line.
    """
    import contextlib

    # Where standard error is closed nobody is there to be told.
    with contextlib.suppress(OSError):
        print(f"redock: {' '.join(message.split())}", file=sys.stderr, flush=True)


# The commands.


def start(options: argparse.Namespace) -> int:
    """
    Start machines; connect to a single one on a terminal.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import api
    from redock.errors import SeveralFailed

    containers = make_containers(options)
    try:
        for_each(containers, lambda container: container.start())
    except SeveralFailed as failed:
        for container in containers:
            if container.image.name not in failed.failures:
                print(api.connect_hint(container))
        raise
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not options.no_connect
    if len(containers) == 1 and interactive:
        command = api.connect_command(containers[0])
        log().info("Connecting with: %s", " ".join(command))
        sys.stdout.flush()
        sys.stderr.flush()
        os.execvp(command[0], command)
    for container in containers:
        print(api.connect_hint(container))
    return 0


def commit(options: argparse.Namespace) -> int:
    """
    Save the disks of machines.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock._engine import finish

    try:
        for_each(make_containers(options), lambda container: container.commit(options.message))
    except BaseException:
        # Interrupted while other threads save the disks of several machines.
        finish()
        raise
    return 0


def kill(options: argparse.Namespace) -> int:
    """
    Throw machines away.

    :param options: The command line.
    :returns: The exit status.
    """
    for_each(make_containers(options), lambda container: container.kill())
    return 0


def delete(options: argparse.Namespace) -> int:
    """
    Delete the images of machines.

    :param options: The command line.
    :returns: The exit status.
    """
    for_each(make_containers(options), lambda container: container.delete(options.force))
    return 0


def ssh_config(options: argparse.Namespace) -> int:
    """
    Show, install or remove redock's line in the user's SSH configuration.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import _include, _ssh
    from redock._files import read_bytes

    if options.action == "show":
        sys.stdout.write((read_bytes(_ssh.config_file()) or b"").decode("utf-8", "replace"))
    elif options.dry_run:
        sys.stdout.write(_include.preview(removing=options.action == "remove"))
    else:
        change = _include.remove if options.action == "remove" else _include.install
        changed = change()
        log().info("%s: %s", _ssh.home_config_file(), "changed" if changed else "nothing to change")
    return 0


def examine(options: argparse.Namespace) -> int:
    """
    Explain what is missing and how to mend it.

    :param options: The command line.
    :returns: 0 when nothing is missing, else 1.
    """
    from redock import doctor

    findings = doctor.examine()
    for finding in findings:
        print(finding)
    return 0 if all(finding.good for finding in findings) else 1


def provision(options: argparse.Namespace) -> int:
    """
    Bring machines into the state a script describes.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock.provision import main as provision_main

    return provision_main(options)


def make_containers(options: argparse.Namespace) -> list[Container]:
    """
    Turn the names on the command line into containers; all of them or none.

    :param options: The command line.
    :returns: The containers, each once.
    :raises InvalidName: A name is outside the grammar, or the same host name is for several.
    """
    from redock.api import Container

    containers = {}
    for name in options.names:
        container = Container(name, options.hostname, options.timeout, base=options.base)
        containers[container.image.name] = container
    if options.hostname and len(containers) > 1:
        raise InvalidName("one host name cannot be for several machines: start them one by one")
    if options.base:
        from redock.base import wanted_base

        wanted_base(options.base)
    return list(containers.values())


def for_each(containers: list[Container], function: Callable[[Container], None]) -> None:
    """
    Do something with each container, side by side; one failure does not stop the others.

    :param containers: The containers.
    :param function: What to do.
    :raises RedockError: The only container failed.
    :raises SeveralFailed: At least one of several failed; each failure has been reported.
    """
    if len(containers) == 1:
        function(containers[0])
        return
    from redock._parallel import run_all
    from redock.errors import SeveralFailed

    names = [container.image.name for container in containers]
    failed = run_all(
        dict(zip(names, containers, strict=True)), function, WORKERS, on_error=report_failure
    )
    done = [name for name in names if name not in failed]
    if done:
        log().info("Done: %s", ", ".join(done))
    if failed:
        raise SeveralFailed(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}", failed)


def report_failure(name: str, error: Exception) -> None:
    """
    Report the failure of one of several machines when it happens.

    :param name: The machine.
    :param error: The error.
    """
    if not isinstance(error, RedockError):
        raise error
    report(error, name)
