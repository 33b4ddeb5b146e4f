"""
The command line program: arguments, printing, exit statuses.

The commands themselves are in ``redock.commands``, and what a script would
want in :mod:`redock.api`. Results go to standard output, everything else to
standard error.
"""

from __future__ import annotations

import os
import sys

import redock
from redock._report import complain, report
from redock.commands import quick
from redock.errors import RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from types import FrameType

    from redock._arguments import Parser
else:
    # What the module signal adds, enumerations, takes longer to load than a list of machines.
    import _signal as signal

__all__ = ["main"]

EPILOG = """\
NAME is TAG or REPOSITORY:TAG; without a repository it is one of yours ($USER).

  redock start web         make sure the machine runs, and connect to it
  ssh web-container        connect to it, any time, from anywhere (scp, rsync, ...)
  redock commit web        save its disk
  redock kill web          throw it away, up to the last commit
  redock delete web        remove what was saved

Exit status: 0 done; 1 failed; 2 invalid name or usage; 3 not running; 4 not found;
6 host unreachable; 124 timeout; 129, 130 or 143 interrupted by HUP, INT or TERM;
of 'start' on a terminal: that of the SSH session.
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
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words == ["--version"]:
        print(version_line())
        return 0
    try:
        # Before anything else is loaded; where there is more to do it comes back.
        answered = quick.answer(words, make_parser)
        if answered is not None:
            return answered
        options = make_parser(*words[:1]).parse_args(words)
        if options.no_color:
            # For the programs we start, too.
            os.environ["NO_COLOR"] = "1"
        from redock import _logging

        _logging.set_up(options.verbose - options.quiet)
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


def make_parser(verb: str = "") -> Parser:
    """
    Describe the command line.

    :param verb: Its first word, when only what that needs is to be described (default: all).
    :returns: The parser.
    """
    import argparse

    from redock import commands
    from redock._arguments import ANYWHERE, Parser, add_options

    parser = Parser(
        prog="redock",
        description="Docker containers you can SSH into.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=version_line())
    add_options(parser, *ANYWHERE)
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_all(verbs, verb)
    return parser
