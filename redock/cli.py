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
124 timeout; 130 interrupted; of 'start' on a terminal: that of the SSH session.
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

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more (twice: requests as well)"
    )
    common.add_argument("-q", "--quiet", action="count", default=0, help="say only what went wrong")
    from redock._arguments import Parser

    parser = Parser(
        prog="redock",
        description="Docker containers you can SSH into.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument("--version", action="version", version=version_line())
    add_machine_options(parser)
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, function, text in (
        ("start", start, "make sure machines run and can be reached; connect to a single one"),
        ("commit", commit, "save the disk of machines as their images"),
        ("kill", kill, "throw machines away, with all changes since the last commit"),
        ("delete", delete, "delete the images of machines"),
    ):
        verb = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
        verb.add_argument("names", nargs="+", metavar="NAME", help="TAG or REPOSITORY:TAG")
        verb.set_defaults(run=function)
        add_machine_options(verb, again=True)
        if name == "delete":
            verb.add_argument("--force", action="store_true", help="even redock's base images")
        if name == "start":
            verb.add_argument("--no-connect", action="store_true", help="do not open a session")
    add_ssh_config(verbs)
    doctor = verbs.add_parser("doctor", help="explain what is missing and how to mend it")
    doctor.set_defaults(run=examine)
    return parser


def add_machine_options(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """
    Add the options of machines; they may stand before the command or after it.

    :param parser: The parser.
    :param again: The options exist before the command; keep what was given there.
    """

    import argparse

    def default(value: object) -> object:
        return argparse.SUPPRESS if again else value

    parser.add_argument(
        "-n", "--hostname", metavar="NAME", default=default(None), help="host name (default: TAG)"
    )
    parser.add_argument(
        "-m", "--message", metavar="TEXT", default=default(None), help="describes a commit"
    )
    parser.add_argument(
        "-t",
        "--timeout",
        metavar="S",
        type=seconds,
        default=default(10.0),
        help="seconds to wait for SSH (default: 10)",
    )
    parser.add_argument(
        "-b",
        "--base",
        metavar="IMAGE",
        default=default(None),
        help="Debian or Ubuntu image to build on (default: ubuntu:24.04)",
    )
    if again:
        for flag, name in (("-v", "--verbose"), ("-q", "--quiet")):
            parser.add_argument(
                flag, name, action="count", default=argparse.SUPPRESS, help=argparse.SUPPRESS
            )


def add_ssh_config(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Describe the command ``ssh-config``.

    :param verbs: Where commands are added.
    """
    text = "show, install or remove redock's line in your SSH configuration"
    parser = verbs.add_parser("ssh-config", help=text, description=text.capitalize() + ".")
    parser.add_argument("action", choices=("show", "install", "remove"))
    parser.add_argument("--dry-run", action="store_true", help="print the change, do not make it")
    parser.set_defaults(run=ssh_config)


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
    containers = make_containers(options)
    for_each(containers, lambda container: container.start())
    from redock import api

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
    for_each(make_containers(options), lambda container: container.commit(options.message))
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
