"""Running commands: what they said, what they ended with, and no endless wait."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from redock._parallel import call_all, run_all
from redock._process import Result, run
from redock.errors import ExternalCommandFailed, RedockError, Timeout, last_lines
from tests.unit.conftest import PATIENCE


def python(program: str, **options: object) -> Result:
    return run([sys.executable, "-c", program], timeout=PATIENCE, **options)  # type: ignore[arg-type]


def test_a_command_says_what_it_did() -> None:
    result = python("import sys; print(input()); print('é', file=sys.stderr)", input="in")
    assert result
    assert (result.returncode, result.stdout, result.stderr) == (0, "in\n", "é\n")
    assert result.seconds > 0
    assert result.command_line.endswith("file=sys.stderr)'") or "é" in result.command_line


def test_without_input_there_is_nothing_to_read() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"


def test_variables_are_added_to_the_environment() -> None:
    program = "import os; print(os.environ['ADDED'], 'HOME' in os.environ)"
    assert python(program, env={"ADDED": "x"}).stdout == "x True\n"


def test_output_in_no_encoding_is_no_error() -> None:
    assert "\ufffd" in python("import os; os.write(1, b'\\xff')").stdout


def test_a_failure_is_an_error_with_the_end_of_the_output() -> None:
    program = "import sys; [print(n, file=sys.stderr) for n in range(30)]; sys.exit(3)"
    with pytest.raises(ExternalCommandFailed) as caught:
        python(program)
    error = caught.value
    assert (error.returncode, error.stdout) == (3, "")
    assert error.command[0] == sys.executable
    assert error.stderr.startswith("0\n")
    assert "exited with status 3: 20\n" in str(error)
    assert str(error).endswith("\n29")


def test_a_failure_can_be_looked_at_instead() -> None:
    result = python("raise SystemExit(3)", check=False)
    assert not result
    assert result.returncode == 3
    assert "returncode=3" in repr(result)


def test_a_command_without_end_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(Timeout, match=r"sleep 120 did not end within 0\.1 seconds"):
        run(["sleep", "120"], timeout=0.1)
    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize(
    ("program", "package"), [("ssh-keygen", "openssh-client"), ("rsync", "rsync")]
)
def test_a_missing_program_is_named_with_its_package(
    program: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RedockError, match=f"{program}.*apt-get install {package}"):
        run([program])


def test_the_host_and_the_reason_are_in_the_message() -> None:
    result = Result(["apt-get", "update"], 100, stderr="no network\n")
    message = str(ExternalCommandFailed(result, "web-container", "did not like it"))
    assert message == "command apt-get update on web-container did not like it: no network"


def test_the_last_lines_are_the_last_that_say_something() -> None:
    assert last_lines("one\n\ntwo\n  \nthree\n\n", 2) == "two\nthree"
    assert last_lines("", 2) == ""


# Side by side.


def test_all_are_done_and_failures_come_in_order() -> None:
    reported: list[str] = []

    def work(item: int) -> None:
        if item % 2:
            raise ValueError(item)

    items = {str(number): number for number in range(20)}
    failed = run_all(items, work, 4, lambda name, error: reported.append(name))
    assert list(failed) == [name for name, number in items.items() if number % 2]
    assert sorted(reported) == sorted(failed)


def test_there_are_never_more_at_a_time_than_asked_for() -> None:
    lock, busy, most = threading.Lock(), [0], [0]

    def work(item: int) -> None:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.005)
        with lock:
            busy[0] -= 1

    run_all({str(number): number for number in range(12)}, work, 3, lambda *_: None)
    assert 1 < most[0] <= 3


def test_after_an_interrupt_nothing_begins_and_what_is_under_way_is_waited_for() -> None:
    begun, ended = [], []

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        ended.append(item)

    with pytest.raises(KeyboardInterrupt):
        call_all({str(number): number for number in range(9)}, work, 3)
    assert 1 <= len(begun) <= 3
    assert sorted(begun) == sorted(ended)
    time.sleep(0.3)
    assert len(begun) <= 3


def test_an_interrupt_is_heard_that_does_not_end_the_wait() -> None:
    free = threading.Event()

    def work(item: int) -> None:
        time.sleep(0.2)
        # The wait goes on, as it does when one comes the moment before it begins.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        free.wait(PATIENCE)

    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_all({"only": 1}, work, 1, lambda *_: None)
        assert time.monotonic() - started < PATIENCE / 2
    finally:
        free.set()


def test_what_ends_a_program_does_so_after_the_others() -> None:
    ended = []

    def work(item: int) -> None:
        if item == 0:
            sys.exit("enough")
        time.sleep(0.1)
        ended.append(item)

    with pytest.raises(SystemExit, match="enough"):
        call_all({str(number): number for number in range(4)}, work, 2)
    assert sorted(ended) == [1, 2, 3]


def test_a_second_interrupt_ends_the_wait_for_the_end() -> None:
    free = threading.Event()

    def work(item: int) -> None:
        for _ in (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        free.wait(PATIENCE)

    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            call_all({"only": 1}, work, grace=2 * PATIENCE)
        assert isinstance(caught.value.__context__, KeyboardInterrupt)
    finally:
        free.set()


def test_nothing_to_do_is_done() -> None:
    assert run_all({}, lambda item: None, 4, lambda *_: None) == {}
