"""
The logs of machines: what their first programs print, and those Supervisor keeps.

What is read here was written by whoever is in the machine; it is passed on line
by line and without anything that could steer a terminal.
"""

from __future__ import annotations

import codecs
import contextlib
import re

from redock._printed import join_frames, printable
from redock.errors import EngineError, InvalidName, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redock._engine import Engine

__all__ = ["read_log", "read_service_log"]

#: Where Supervisor's configuration is, and where it keeps logs unless told otherwise.
CONFIGURATION = "/etc/supervisor"
LOG_DIRECTORY = "/var/log/supervisor"
#: The sections of Supervisor's configuration that describe programs.
KINDS = ("program", "fcgi-program", "eventlistener")
SERVICE = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)
#: What names its output: the machine's own log.
OWN_OUTPUT = ("/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2")
#: A line that is longer is passed on in parts.
LONGEST_LINE = 65536

#: Run inside; the first argument says how many lines, the second how tail is to go on. When
#: whoever reads hangs up standard input ends, and with it everything here.
FOLLOW = """\
lines=$1; shift
exec 3<&0
tail -q -n "$lines" -F -- "$@" 2>/dev/null </dev/null &
tail=$!
cat <&3 >/dev/null
kill "$tail"
"""


def split_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """
    Make lines of what comes in pieces.

    :param pieces: Text in UTF-8, or what claims to be.
    :returns: Yields lines without their ends, safe to show on a terminal.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            yield printable(line)
        if len(rest) > LONGEST_LINE:
            yield printable(rest)
            rest = ""
    rest += decoder.decode(b"", final=True)
    if rest:
        yield printable(rest)


def read_log(
    engine: Engine, container: str, *, lines: int | None = None, follow: bool = False
) -> Iterator[str]:
    """
    Read what the first programs of a machine printed: boot, and Supervisor.

    :param engine: The engine.
    :param container: The id of the container; it need not run.
    :param lines: How many of the last lines (default: all).
    :param follow: Go on until the container ends (default: no).
    :returns: Yields lines.
    :raises EngineError: The engine failed.
    """
    pieces = engine.read_logs(container, tail=lines, follow=follow)
    yield from split_lines(join_frames(pieces))


def read_service_log(
    engine: Engine,
    container: str,
    service: str,
    *,
    running: bool,
    lines: int | None = None,
    follow: bool = False,
) -> Iterator[str]:
    """
    Read the log that Supervisor keeps of one of its programs.

    :param engine: The engine.
    :param container: The id of the container.
    :param service: The name of the program in Supervisor's configuration.
    :param running: Whether the container runs, and is not paused.
    :param lines: How many of the last lines (default: all).
    :param follow: Go on until the container ends (default: no).
    :returns: Yields lines.
    :raises InvalidName: No program can have such a name.
    :raises NotFound: Supervisor has no such program, or keeps no log of it.
    :raises EngineError: The engine failed.
    """
    if not SERVICE.fullmatch(service):
        raise InvalidName(f"no service can be called {service!a}")
    paths = named_logs(engine, container, service)
    if any(path in OWN_OUTPUT for path in paths):
        # It writes into the machine's log.
        yield from read_log(engine, container, lines=lines, follow=follow)
        return
    wanted = re.compile(
        "|".join(
            [re.escape(path) for path in paths if path]
            # Supervisor's own names: of several processes each has its number in it.
            + [rf"{LOG_DIRECTORY}/{re.escape(service)}(_\d+)?-std(out|err)---supervisor-\w+\.log"]
        )
    )
    directories = {path.rpartition("/")[0] for path in paths if path} | {LOG_DIRECTORY}
    if running:
        read = tail_inside(engine, container, directories, wanted, lines, follow)
    else:
        read = read_archived(engine, container, directories, wanted, lines)
    some = False
    for line in read:
        some = True
        yield from [] if line is None else [line]
    if not some:
        raise NotFound(f"Supervisor keeps no log of {service}", 404)


def tail_inside(
    engine: Engine,
    container: str,
    directories: Iterable[str],
    wanted: re.Pattern[str],
    lines: int | None,
    follow: bool,
) -> Iterator[str | None]:
    """
    Read log files in a container that runs.

    :param engine: The engine.
    :param container: The id of the container.
    :param directories: Where to look for them.
    :param wanted: Matches their pathnames.
    :param lines: How many of the last lines (None: all).
    :param follow: Go on until the container ends.
    :returns: Yields None when there are some, then lines.
    """
    listed = [
        path for each in sorted(directories) for path in list_directory(engine, container, each)
    ]
    found = [path for path in listed if wanted.fullmatch(path)]
    if not found:
        return
    yield None
    count = "+1" if lines is None else str(lines)
    if follow:
        command = ["sh", "-c", FOLLOW, "sh", count, *found]
    else:
        command = ["tail", "-q", "-n", count, "--", *found]
    yield from split_lines(run_inside(engine, container, command, stdin=follow))


def run_inside(
    engine: Engine, container: str, command: list[str], *, stdin: bool = False
) -> Iterator[bytes]:
    """
    Run a command inside a container and read what it prints.

    :param engine: The engine.
    :param container: The id of the container.
    :param command: The command and its arguments.
    :param stdin: Connect its standard input, which ends when nobody reads any more.
    :returns: Yields what it prints, as it comes.
    :raises EngineError: The engine failed.
    """
    _, stream = engine.begin_exec(container, command, stdin=stdin)
    try:
        if stdin:
            # Nothing may happen for hours.
            stream.socket.settimeout(None)
        yield from join_frames(stream)
    except OSError as error:
        raise engine.connection_error(error, f"run {command[0]}") from error
    finally:
        stream.close()


def list_directory(engine: Engine, container: str, directory: str) -> list[str]:
    """
    List the files of a directory in a running container.

    :param engine: The engine.
    :param container: The id of the container.
    :param directory: The pathname.
    :returns: Pathnames.
    """
    command = ["find", directory, "-maxdepth", "1", "-type", "f"]
    return list(split_lines(run_inside(engine, container, command)))


class Reader:
    """
    The body of an answer as a file, for :mod:`tarfile`.

    :param pieces: The body, as it comes.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.buffer = b""

    def read(self, size: int) -> bytes:
        """
        Read bytes.

        :param size: How many at most.
        :returns: The bytes, fewer at the end only.
        """
        parts, missing = [], size
        while missing:
            if not self.buffer:
                self.buffer = next(self.pieces, b"")
                if not self.buffer:
                    break
            part, self.buffer = self.buffer[:missing], self.buffer[missing:]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def read_files(
    engine: Engine, container: str, directory: str
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """
    Read the files of a directory in a container that need not run.

    :param engine: The engine.
    :param container: The id of the container.
    :param directory: The pathname.
    :returns: Yields pathnames and, to be read before the next, what the files contain.
    :raises EngineError: The engine failed.
    """
    import tarfile
    from functools import partial

    parent = directory.rpartition("/")[0]
    body = Reader(engine.read_archive(container, directory))
    try:
        # The interface tarfile asks for is all there is.
        with tarfile.open(fileobj=body, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                handle = archive.extractfile(member) if member.isfile() else None
                if handle is not None:
                    yield f"{parent}/{member.name}", iter(partial(handle.read, 65536), b"")
    except tarfile.TarError as error:
        raise EngineError(f"the engine could not read {directory}: {error}") from error


def read_archived(
    engine: Engine,
    container: str,
    directories: Iterable[str],
    wanted: re.Pattern[str],
    lines: int | None,
) -> Iterator[str | None]:
    """
    Read log files out of a container that does not run.

    :param engine: The engine.
    :param container: The id of the container.
    :param directories: Where to look for them.
    :param wanted: Matches their pathnames.
    :param lines: How many of the last lines of each (None: all).
    :returns: Yields None when there are some, then lines.
    """
    from collections import deque

    for directory in sorted(directories):
        with contextlib.suppress(NotFound):
            for path, pieces in read_files(engine, container, directory):
                if wanted.fullmatch(path):
                    yield None
                    yield from deque(split_lines(pieces), lines)


def named_logs(engine: Engine, container: str, service: str) -> list[str]:
    """
    Find out which log files Supervisor's configuration names for a program.

    :param engine: The engine.
    :param container: The id of the container; it need not run.
    :param service: The name of the program.
    :returns: Pathnames; those that Supervisor chooses itself are empty.
    :raises NotFound: There is no such program.
    """
    import configparser

    programs: dict[str, list[str]] = {}
    with contextlib.suppress(NotFound):
        for path, pieces in read_files(engine, container, CONFIGURATION):
            text = b"".join(pieces).decode("utf-8", "replace")
            if not path.endswith(".conf"):
                continue
            parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";",))
            with contextlib.suppress(configparser.Error):
                parser.read_string(text)
            for section in parser.sections():
                kind, _, name = section.partition(":")
                if kind in KINDS and name:
                    programs[name.strip()] = [
                        expand(parser[section].get(f"std{each}_logfile", "AUTO"), name.strip())
                        for each in ("out", "err")
                    ]
    if service not in programs:
        there = ", ".join(sorted(programs)) or "none"
        raise NotFound(
            f"Supervisor has no program {service} in this machine: there is {there}", 404
        )
    return programs[service]


def expand(value: str, name: str) -> str:
    """
    Turn the setting of a log file into a pathname.

    :param value: The setting.
    :param name: The name of the program.
    :returns: The pathname, empty when it is Supervisor's to choose or there is none.
    """
    value = value.strip()
    for variable in ("program_name", "process_name"):
        value = value.replace(f"%({variable})s", name)
    return value if value.startswith("/") else ""
