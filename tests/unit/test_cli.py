"""The program: exit statuses, one line for a failure, signals, several machines."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock import __version__, cli, errors
from redock._progress import Progress
from redock._report import report
from redock.api import Container
from redock.commands import MODULES, VERBS
from redock.errors import InvalidName, NoContainerRunning, RedockError, SeveralFailed
from tests.unit.conftest import (
    PATIENCE,
    Server,
    environment,
    reply,
    run_many,
    run_python,
    run_redock,
    silence,
)

Serve = Callable[[Callable[[socket.socket, bytes], None]], Server]


def test_the_version_is_one_line_however_it_is_asked_for() -> None:
    expected = f"redock {__version__}\n"
    commands = [["--version"], ["-v", "--version"]]
    for _, done in run_many(commands):
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_command_is_described_alike_when_the_others_are_left_out(verb: str) -> None:
    def described(parser: argparse.ArgumentParser) -> str:
        (verbs,) = (each for each in parser._actions if isinstance(each.choices, dict))
        assert isinstance(verbs.choices, dict)
        return str(verbs.choices[verb].format_help())

    assert VERBS[verb] in MODULES
    assert described(cli.make_parser(verb)) == described(cli.make_parser())


@pytest.mark.parametrize(
    ("words", "meant", "program"),
    [
        (["statsu", "web"], "status", "redock"),
        (["cluster", "snapshto"], "snapshot", "redock cluster"),
    ],
)
def test_a_command_that_does_not_exist_is_answered_with_the_nearest(
    words: list[str], meant: str, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.run(words)
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("redock: there is no command ") and line.count("\n") == 1
    assert line.endswith(f", did you mean '{meant}'? (see '{program} --help')\n")


@pytest.mark.parametrize("verb", ["ssh", "shell", "exec"])
def test_of_a_session_only_the_name_is_missed(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.run([verb])
    assert "required: NAME (see" in capsys.readouterr().err


def test_help_is_there_for_every_command() -> None:
    verbs = ["start", "commit", "kill", "delete", "ssh-config", "doctor"]
    for command, done in run_many([["--help"], *([verb, "--help"] for verb in verbs)]):
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout.startswith("usage: redock")
    assert all(verb in run_redock("--help").stdout for verb in verbs)


@pytest.mark.parametrize("place", ["before", "after"])
def test_options_stand_before_or_after_the_command(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[object, ...]] = []
    real = Container.__init__

    def note(self: Container, name: str, hostname: str, timeout: float, *, base: str) -> None:
        made.append((name, hostname, timeout, base))
        real(self, name, hostname, timeout, base=base)

    monkeypatch.setattr(Container, "__init__", note)
    monkeypatch.setattr(
        Container, "commit", lambda self, message, author, squash: made.append((message,))
    )
    monkeypatch.setattr(Container, "start", lambda self: None)
    ours = {"start": ["-n", "www", "-t", "3.5", "-b", "debian:12", "-q"], "commit": ["-m", "text"]}
    for verb, options in ours.items():
        command = [verb, "web"]
        assert cli.run([*options, *command] if place == "before" else [*command, *options]) == 0
    assert made == [("web", "www", 3.5, "debian:12"), ("web", None, 10.0, None), ("text",)]


MISTAKES = [
    [],
    ["start"],
    ["reboot", "web"],
    ["start", "--nonsense", "web"],
    ["--nonsense"],
    ["start", "-t", "0", "web"],
    ["start", "-t", "-1", "web"],
    ["start", "-t", "nan", "web"],
    ["start", "-t", "inf", "web"],
    ["start", "-t", "soon", "web"],
    ["start", "--base", "A:b:c", "web"],
    ["ssh-config"],
    ["ssh-config", "destroy"],
    ["kill", "--no-connect", "web"],
]


def test_every_mistake_is_one_line_and_status_two(home: Path) -> None:
    for command, done in run_many(MISTAKES):
        assert (done.returncode, done.stdout) == (2, ""), command
        assert done.stderr.count("\n") == 1, (command, done.stderr)
        assert done.stderr.startswith("redock: "), command
    assert os.listdir(home) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RedockError, 1),
        (errors.DockerUnavailable, 1),
        (errors.InvalidName, 2),
        (errors.SettingsError, 2),
        (errors.NoContainerRunning, 3),
        (errors.NotFound, 4),
        (errors.ConnectionFailed, 6),
        (errors.SecureShellTimeout, 124),
        (errors.LockTimeout, 124),
        (errors.Timeout, 124),
    ],
)
def test_an_error_has_its_exit_status_and_one_line(
    error: type[RedockError],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(self: Container) -> None:
        raise error("what\nwent   wrong")

    monkeypatch.setattr(Container, "kill", fail)
    assert cli.run(["kill", "web"]) == status
    assert capsys.readouterr().err == "redock: what went wrong\n"


def test_the_end_of_a_log_stands_above_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: Container) -> None:
        raise errors.ContainerDied("it ended", "\n".join(map(str, range(30))))

    monkeypatch.setattr(Container, "kill", fail)
    assert cli.run(["kill", "web"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [*(f"    {number}" for number in range(10, 30)), "redock: it ended"]


def test_one_failure_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[str] = []

    def kill(self: Container) -> None:
        if self.image.tag == "bad":
            raise NoContainerRunning("there is no machine me:bad to kill")
        if self.image.tag == "worse":
            raise errors.SecureShellTimeout("too late")
        killed.append(self.image.tag)

    monkeypatch.setattr(Container, "kill", kill)
    names = ["bad", "a", "worse", "b", "c", "d", "e"]
    assert cli.run(["-q", "kill", *names]) == 124
    assert sorted(killed) == ["a", "b", "c", "d", "e"]
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines[:2]) == [
        "redock: me:worse: too late",
        "redock: there is no machine me:bad to kill",
    ]
    assert lines[2:] == ["redock: 2 of 7 failed: me:bad, me:worse"]


def test_a_name_that_is_given_twice_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []
    monkeypatch.setattr(Container, "kill", lambda self: killed.append(self.image.name))
    assert cli.run(["-q", "kill", "web", "me:web"]) == 0
    assert killed == ["me:web"]


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Container) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Container, "kill", fail)
    for names in (["a"], ["a", "b"]):
        with pytest.raises(ZeroDivisionError):
            cli.run(["kill", *names])


def test_several_failures_end_with_the_highest_status() -> None:
    failures = {"a": InvalidName("x"), "b": NoContainerRunning("y"), "c": ValueError("z")}
    error = SeveralFailed("3 of 3 failed", failures)
    assert error.exit_code == 3
    assert error.failures == failures


def test_start_without_a_terminal_prints_how_to_connect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], redock_home: Path
) -> None:
    monkeypatch.setattr(Container, "start", lambda self: None)
    monkeypatch.setattr(os, "execvp", lambda *_: pytest.fail("no terminal"))
    assert cli.run(["-q", "start", "a", "b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"ssh -F {redock_home}/ssh/config {name}-container" for name in "ab"]


class Terminal:
    """A standard stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def write(self, text: str) -> int:
        return len(text)


def test_start_on_a_terminal_becomes_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(Container, "start", lambda self: None)
    monkeypatch.setattr(os, "execvp", lambda *arguments: ran.append(arguments))
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    cli.run(["-q", "start", "web"])
    (program, command) = ran.pop()
    assert (program, command[0], command[-1]) == ("ssh", "ssh", "web-container")
    cli.run(["-q", "start", "--no-connect", "web"])
    cli.run(["-q", "start", "web", "other"])
    assert ran == []


# Signals.


@pytest.fixture
def hung(serve: Serve) -> Server:
    """An engine that never answers."""
    return serve(silence)


@pytest.fixture
def start_program(hung: Server) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the program and wait until it waits for the engine."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "redock", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(DOCKER_HOST=hung.url),
        )
        started.append(process)
        deadline = time.monotonic() + PATIENCE
        while not hung.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        assert hung.requests, process.communicate(timeout=PATIENCE)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("names", [["web"], ["a", "b", "c"]], ids=["one", "several"])
def test_a_signal_ends_the_program_with_its_status_and_one_line(
    number: signal.Signals,
    status: int,
    names: list[str],
    start_program: Callable[..., subprocess.Popen[str]],
    home: Path,
) -> None:
    process = start_program("start", *names)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert stdout == ""
    assert stderr == "redock: interrupted; run the same command again to finish\n"
    assert os.listdir(home) == []


def test_the_next_command_is_not_blocked_by_a_killed_one(
    start_program: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start_program("start", "web")
    process.kill()
    process.wait(PATIENCE)
    done = run_redock("kill", "web")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert "no Docker engine answers" in done.stderr


def test_an_engine_that_talks_nonsense_is_one_line(serve: Serve) -> None:
    for data in (b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"):
        server = serve(reply(data))
        done = run_redock("kill", "web", DOCKER_HOST=server.url)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"DOCKER_HOST": "tcp://192.0.2.1:2375"},
        {"DOCKER_HOST": "ssh://me@192.0.2.1"},
        {"DOCKER_HOST": "nonsense://"},
        {"DOCKER_HOST": "", "DOCKER_CONTEXT": "gone"},
    ],
)
def test_an_engine_out_of_reach_is_one_line_without_a_wait(variables: dict[str, str]) -> None:
    started = time.monotonic()
    done = run_redock("start", "web", **variables)
    assert time.monotonic() - started < 10
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done


def test_an_absent_engine_is_noticed_at_once() -> None:
    started = time.monotonic()
    done = run_redock("start", "web")
    assert done.returncode == 1
    # Within a second on a machine that has nothing else to do.
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ssh-config", "show"]])
def test_a_reader_that_has_seen_enough_gets_no_traceback(arguments: list[str]) -> None:
    program = (
        "import os, runpy, sys\n"
        "read, write = os.pipe(); os.dup2(write, 1); os.close(read); sys.argv[0] = 'redock'\n"
        "runpy.run_module('redock', run_name='__main__')"
    )
    assert run_python("-c", program, *arguments).stderr == ""


# Talking.


def test_messages_are_as_many_as_asked_for() -> None:
    quiet, normal, verbose = (
        run_redock(*flags, "ssh-config", "install") for flags in (["-q"], [], ["-vv"])
    )
    assert quiet.stderr == ""
    assert "nothing to change" in normal.stderr
    assert len(verbose.stderr.splitlines()) >= len(normal.stderr.splitlines())
    assert quiet.stdout == normal.stdout == verbose.stdout == ""


def test_the_doctor_explains_a_missing_engine(home: Path) -> None:
    done = run_redock("doctor")
    assert done.returncode == 1
    assert "[!!] engine: no Docker engine answers" in done.stdout
    assert "[ok] ssh: " in done.stdout
    assert "Traceback" not in done.stderr
    assert os.listdir(home) == []


def test_the_doctor_is_content_with_an_engine(serve: Serve) -> None:

    def answer(connection: socket.socket, request: bytes) -> None:
        body = b'{"Version": "20.10.24", "Id": "x", "Config": {"Labels": {}}}'
        if b"/containers/json" in request or b"/images/json" in request or b"/networks" in request:
            body = b"[]"
        reply(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))(
            connection, request
        )

    server = serve(answer)
    done = run_redock("doctor", DOCKER_HOST=server.url)
    assert done.returncode == 0, done
    assert "20.10.24" in done.stdout
    assert "28.3.3" in done.stdout


def test_the_doctor_asks_an_engine_that_fails_only_once(serve: Serve) -> None:
    server = serve(reply(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}"))
    done = run_redock("doctor", DOCKER_HOST=server.url)
    assert done.returncode == 1
    assert done.stdout.count("[!!]") == 1 and "[!!] engine: " in done.stdout
    assert "leftovers" not in done.stdout
    assert len(server.requests) == 1


def test_the_doctor_names_the_group(sandbox: Path) -> None:
    done = run_redock("doctor", PATH="/nonexistent")
    assert done.returncode == 1
    assert "apt-get install openssh-client" in done.stdout


def test_progress_makes_way_for_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    hidden: list[bool] = []
    Progress.hide = lambda: hidden.append(True)
    try:
        report(RedockError("x"))
    finally:
        Progress.hide = None
    assert hidden == [True]
    assert capsys.readouterr().err == "redock: x\n"
