#!/usr/bin/env python3
"""
Records the terminal sessions in docs/sessions again, on the engine of this machine.

``make sessions``, or ``tests/with-home python docs/record.py [NAME...]``, types, in a
real terminal, what is typed in ``docs/sessions/NAME.txt``, and writes down there what is
printed now. Lines that begin with a prompt are what is typed, and so are answers to
questions; everything else is replaced. So a session is changed by editing its commands
and recording it. Files in the folder ``docs/sessions/NAME`` are in the working directory.

Nothing is left out but lines about machines of others, and pathnames of the home
directory are those of Sam. The session ``first`` is put into README.rst as well.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
SESSIONS = os.path.join(HERE, "sessions")
README = os.path.join(os.path.dirname(HERE), "README.rst")
#: What stands in front of the session in there; it ends with two empty lines.
PLACE = ".. Recorded by docs/record.py.\n\n.. code-block:: console\n\n"
USER = "sam"
#: Lines of documentation are not much longer.
SIZE = struct.pack("HHHH", 50, 92, 0, 0)
#: Seconds a command may take: packages are installed in some.
PATIENCE = 300.0
#: Seconds without output after which a prompt is one.
QUIET = 0.3

PROMPT = r"(?:\$|[a-z][\w-]*@[\w.-]+:[^\s#$]+[#$]) "
TYPED = re.compile(rf"(?P<prompt>{PROMPT}|.* \[y/N\] )(?P<text>.*)")
WAITING = re.compile(rf"(?:{PROMPT}|.* \[y/N\] )")
#: What moves the cursor, and other sequences of control characters (ECMA-48).
CONTROLS = re.compile(r"(\x1b\[[0-?]*[@-~]|\x1b\][^\x07]*\x07|\x1b[=>]|[\r\b])")
#: A line of a table about a machine of somebody else.
FOREIGN = re.compile(r"(?!sam:)[a-z0-9._/-]+:\S+ +(?:running|paused|stopped|created|saved)\b.*")


class Terminal:
    """
    A shell in a terminal.

    :param directory: Where it begins.
    """

    def __init__(self, directory: str) -> None:
        self.output = ""
        self.process, self.handle = pty.fork()
        if self.process == 0:
            os.chdir(directory)
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, SIZE)

    def wait(self) -> None:
        """Wait until something may be typed."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            readable, _, _ = select.select([self.handle], [], [], QUIET)
            if readable:
                self.output += os.read(self.handle, 65536).decode("utf-8", "replace")
            elif WAITING.fullmatch(render(self.output).rpartition("\n")[2]):
                return
        raise SystemExit(f"record: no prompt after {PATIENCE:g} seconds:\n{render(self.output)}")

    def type(self, text: str) -> None:
        """
        Type a line.

        :param text: The line.
        """
        os.write(self.handle, f"{text}\n".encode())
        self.wait()

    def close(self) -> None:
        """End the shell and what runs in it."""
        os.kill(self.process, signal.SIGHUP)
        os.close(self.handle)
        os.waitpid(self.process, 0)


def render(output: str) -> str:
    """
    Find out what is on the screen.

    :param output: What was printed to the terminal.
    :returns: The lines, without colours.
    """
    lines = []
    for line in output.replace("\r\n", "\n").split("\n"):
        shown: list[str] = []
        column = 0
        for part in CONTROLS.split(line):
            if part in ("\r", "\b"):
                column = 0 if part == "\r" else max(0, column - 1)
            elif part.startswith("\x1b"):
                if part in ("\x1b[K", "\x1b[0K"):
                    del shown[column:]
            else:
                shown[column : column + len(part)] = part
                column += len(part)
        lines.append("".join(shown).rstrip())
    # The blank behind a prompt is part of it.
    last = lines.pop()
    return "\n".join([*lines, f"{last} " if re.search(r"[]#$]$", last) else last])


def typed(text: str) -> list[str]:
    """
    Find what is typed in a session.

    :param text: The session.
    :returns: The lines, without prompts.
    """
    found = (TYPED.match(line) for line in text.splitlines())
    return [match["text"] for match in found if match]


def record(name: str) -> str:
    """
    Record a session.

    :param name: Its name.
    :returns: What is on the screen in the end.
    """
    path = os.path.join(SESSIONS, f"{name}.txt")
    with open(path, encoding="utf-8") as handle:
        lines = typed(handle.read())
    home = os.path.realpath(os.path.expanduser("~"))
    directory = os.path.join(home, name)
    files = os.path.join(SESSIONS, name)
    if os.path.isdir(files):
        shutil.copytree(files, directory)
    else:
        os.mkdir(directory)
    with clean():
        terminal = Terminal(directory)
        try:
            terminal.wait()
            for line in lines:
                terminal.type(line)
            text = render(terminal.output)
        finally:
            terminal.close()
    return tidy(text, home)


def tidy(text: str, home: str) -> str:
    """
    Take out what is of this machine only.

    :param text: What was on the screen.
    :param home: The home directory.
    :returns: The text for the documentation.
    """
    lines = text.replace(home, f"/home/{USER}").split("\n")
    kept = [line for line in lines[:-1] if not FOREIGN.fullmatch(line)]
    while kept and not kept[0].startswith("$ "):
        del kept[0]
    text = "\n".join([*kept, ""])
    for secret in (socket.gethostname(), os.path.dirname(HERE), "redock-home-"):
        if re.search(rf"(?<![\w.]){re.escape(secret)}(?![\w.])", text):
            raise SystemExit(f"record: {secret} is in the recording:\n{text}")
    return text


@contextlib.contextmanager
def clean() -> Iterator[None]:
    """Make sure that no machine is there before, and leave none behind."""
    there = machines()
    if there:
        raise SystemExit(f"record: machines of {USER} are there already: {' '.join(there)}")
    try:
        yield
    finally:
        left = machines()
        clusters = {name.split(".")[1] for name in left if name.startswith("redock:cluster.")}
        for cluster in clusters:
            redock("cluster", "down", cluster)
        alone = [name for name in left if name.startswith(f"{USER}:")]
        if alone:
            redock("kill", "--yes", *alone)
            redock("delete", "--yes", *alone)


def machines() -> list[str]:
    """
    List what sessions make.

    :returns: Names of machines, saved ones too, and of nodes of the cluster ``shop``.
    """
    listed = redock("list", "--all").split()
    return [name for name in listed if name.startswith((f"{USER}:", "redock:cluster.shop."))]


def redock(*words: str) -> str:
    """
    Run redock.

    :param words: Its arguments.
    :returns: What it printed.
    """
    done = subprocess.run(
        ["redock", "--quiet", *words], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.stdout


def put_into_readme(text: str) -> None:
    """
    Show the session ``first`` in README.rst.

    :param text: The session.
    """
    with open(README, encoding="utf-8") as handle:
        readme = handle.read()
    before, mark, rest = readme.partition(PLACE)
    _, end, behind = rest.partition("\n\n\n")
    if not mark or not end:
        raise SystemExit("record: README.rst has no place for the session 'first'")
    block = textwrap.indent(text, "   ").rstrip("\n")
    with open(README, "w", encoding="utf-8") as handle:
        handle.write(f"{before}{mark}{block}{end}{behind}")


def main() -> int:
    """
    Record sessions.

    :returns: The exit status.
    """
    names = sorted(name[:-4] for name in os.listdir(SESSIONS) if name.endswith(".txt"))
    arguments = argparse.ArgumentParser(description="Record the sessions in docs/sessions again.")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="the sessions (default: all)")
    wanted = arguments.parse_args().names or names
    programs = os.path.dirname(os.path.abspath(sys.executable))
    os.environ.update(
        PATH=f"{programs}:{os.environ['PATH']}",
        USER=USER, LOGNAME=USER, PS1="$ ", TERM="xterm", LANG="C.UTF-8", TZ="UTC",
        PYTEST_DEBUG_TEMPROOT=os.path.expanduser("~"),
    )  # fmt: skip
    for name in wanted:
        text = record(name)
        with open(os.path.join(SESSIONS, f"{name}.txt"), "w", encoding="utf-8") as handle:
            handle.write(text)
        if name == "first":
            put_into_readme(text)
        print(f"docs/sessions/{name}.txt", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
