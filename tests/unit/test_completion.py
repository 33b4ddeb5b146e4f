"""Completion: what may stand next, and that shells show it."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock import _listing
from redock.cli import make_parser
from redock.commands import _completion
from redock.commands._completion import FILES, SCRIPTS, find_candidates
from tests.unit.conftest import PATIENCE, Server, environment, run_redock, silence

Serve = Callable[[Callable[[socket.socket, bytes], None]], Server]


def shown(*words: str) -> list[str]:
    """What is offered for the last word, without descriptions."""
    return [line.partition("\t")[0] for line in find_candidates(list(words), make_parser())]


@pytest.fixture(autouse=True)
def machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some machines and something that was saved."""
    there = [("me:web", "running"), ("me:db", "stopped"), ("team:web", "running")]
    saved = {"Labels": {"io.redock.name": "me:old"}, "RepoTags": ["me:old"]}
    monkeypatch.setattr(_listing, "find_names", lambda engine: there)
    monkeypatch.setattr(_listing.Engine, "images", lambda self, filters: [saved])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("st", ["start", "status"]),
        ("-q st", ["start", "status"]),
        ("--timeout 5 comm", ["commit"]),
        ("status ", ["db", "team:web", "web"]),
        ("status w", ["web"]),
        ("status team:", ["team:web"]),
        ("status me:", ["me:db", "me:web"]),
        ("status web ", []),
        ("start ", ["db", "old", "team:web", "web"]),
        ("delete ", ["old"]),
        ("kill web ", ["db", "team:web"]),
        ("kill me:web ", ["db", "team:web"]),
        ("kill -q ", ["db", "team:web", "web"]),
        ("start --hostname w", []),
        ("start --hostname x w", ["web"]),
        ("start --no-con", ["--no-connect"]),
        ("start -- --no-con", []),
        ("list --j", ["--json"]),
        ("logs --f", ["--follow"]),
        ("completion ", ["bash", "fish", "zsh"]),
        ("ssh-config in", ["install"]),
        ("provision ", ["db", "team:web", "web"]),
        ("provision web ", ["db", "team:web", FILES]),
        ("nonsense ", []),
        ("nonsense --no-", ["--no-color"]),
    ],
)
def test_what_may_stand_next_is_offered(line: str, expected: list[str]) -> None:
    assert shown(*line.split(" "))[: len(expected) or None] == expected


def test_candidates_have_descriptions() -> None:
    (line,) = find_candidates(["statu"], make_parser())
    assert line == "status\tshow everything about a machine"
    assert find_candidates(["status", "d"], make_parser()) == ["db\tstopped"]


def test_commands_of_commands_are_found() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers().add_parser("cluster").add_subparsers()
    verbs.add_parser("up", help="boot").add_argument("names", nargs="*", metavar="NAME")
    verbs.add_parser("down", help="end").add_argument("--now", action="store_true", help="at once")
    assert find_candidates(["cluster", ""], parser) == ["down\tend", "up\tboot"]
    assert find_candidates(["cluster", "down", "--n"], parser) == ["--now\tat once"]
    assert find_candidates(["cluster", "up", "w"], parser) == ["web\trunning"]


# The program.


def test_an_absent_engine_is_no_error() -> None:
    for words in ([], [""], ["kill", ""], ["\ud800", "x"], ["kill", "\x00"[:0] + "a" * 5000]):
        done = run_redock(
            "--complete", *[word.encode("utf-8", "replace").decode() for word in words]
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert "start\t" in run_redock("--complete", "sta").stdout


def test_a_hung_engine_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = serve(silence)
    done = run_redock("--complete", "kill", "", DOCKER_HOST=hung.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert hung.requests
    assert _completion.PATIENCE <= 1.0


def test_the_hidden_option_is_not_in_the_help() -> None:
    assert "--complete" not in run_redock("--help").stdout


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_the_script_is_printed(shell: str) -> None:
    assert run_redock("completion", shell).stdout == SCRIPTS[shell]


# Real shells.


class Shell:
    """
    An interactive shell on a terminal of its own.

    :param command: The shell.
    :param variables: Its environment.
    :param calls: Where the program notes how it was called.
    """

    def __init__(self, command: list[str], variables: dict[str, str], calls: Path) -> None:
        self.calls = calls
        self.process, self.terminal = pty.fork()
        if not self.process:
            os.execvpe(command[0], command, variables)

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self.terminal, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until something is on the screen."""
        output = b""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in output:
            assert time.monotonic() < deadline, output
            ready, _, _ = select.select([self.terminal], [], [], 0.1)
            if ready:
                output += os.read(self.terminal, 65536)

    def run(self, keys: str) -> list[str]:
        """Type something and press Enter; get the arguments the program was called with."""
        self.calls.unlink(missing_ok=True)
        self.type(f"{keys}\n")
        deadline = time.monotonic() + PATIENCE
        while not self.calls.exists() or not self.calls.read_text().endswith("\n.\n"):
            assert time.monotonic() < deadline, os.read(self.terminal, 65536)
            time.sleep(0.05)
        return self.calls.read_text().splitlines()[:-1]

    def close(self) -> None:
        """End the shell."""
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.terminal)


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(redock completion bash)"'),
    "fish": (["fish", "--no-config"], "redock completion fish | source"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u -D; source <(redock completion zsh)",
    ),
}


@pytest.fixture(params=sorted(SHELLS))
def shell(
    request: pytest.FixtureRequest, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """Each shell there is, with redock's completion."""
    command, setup = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: scripts/prepare-host --tests")
    calls, program = sandbox / "calls", sandbox / "bin" / "redock"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
if [ "$1" != --complete ] && [ -e {sandbox}/ready ]; then
    printf '%s\\n' "$@" . >{calls}
    exit
fi
exec {sys.executable} -m redock "$@"
"""
    )
    program.chmod(0o755)
    (sandbox / "home" / "unique script.py").touch()
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.chdir(sandbox / "home")
    opened = Shell(command, environment(PATH=path, TERM="xterm", COLUMNS="80"), calls)
    try:
        opened.type(f"{setup}\n")
        # What is typed is echoed: wait for what the command makes of it.
        opened.type("echo ready | tr a-z A-Z\n")
        opened.wait_for("READY")
        (sandbox / "ready").touch()
        yield opened
    finally:
        opened.close()


def test_a_real_shell_completes_commands_choices_options_and_files(shell: Shell) -> None:
    assert shell.run("redock comp\tba\t") == ["completion", "bash"]
    assert shell.run("redock provision --dry\tmachine uniq\t") == [
        "provision",
        "--dry-run",
        "machine",
        "unique script.py",
    ]
