"""Engines that refuse, lie, hang, restart or are killed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock import _http
from redock._endpoint import Endpoint
from redock._engine import Engine
from redock.api import Container
from redock.errors import RedockError

from .conftest import REDOCK, Home, command, new_name, redock, ssh
from .engines import FaultProxy, PrivateEngine
from .harness import (
    PATIENCE,
    ROUNDS,
    act,
    assert_exactly_one,
    assert_nothing_left,
    assert_one_line,
    wait_for,
)

#: Every how many requests fail: 1 for each of them.
STRIDE = 1 if ROUNDS > 1 else 4
#: Moments at which the engine is killed, over a start and over a commit.
MOMENTS = 2 * ROUNDS

ACTIONS = ["reset", "lose", "cut", "500", "409", "404", "hang"]


@pytest.fixture
def proxy(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of the engine, which redock is not patient with."""
    monkeypatch.setattr(_http, "PATIENCE", 2.0)
    target = Engine().endpoint.socket_path
    assert target
    made = FaultProxy(home.path / f"p{os.urandom(3).hex()}", target)
    yield made
    made.close()


def attempt(action: str, name: str, endpoint: Endpoint) -> RedockError | None:
    """Do something that may fail, but only in one line."""
    container = Container(name, timeout=30, engine=Engine(endpoint))
    try:
        container.kill() if action == "kill" else container.start()
    except RedockError as error:
        assert "\n" not in str(error).strip()
        return error
    return None


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_request_fails_the_next_run_converges(
    home: Home, engine: Engine, proxy: FaultProxy, action: str
) -> None:
    failures = 0
    for verb in ("start", "kill"):
        number = 1 + ACTIONS.index(action) % STRIDE
        reached = True
        while reached:
            name = new_name("fault")
            if verb == "kill":
                Container(name, timeout=30).start()
            proxy.fail(action, lambda count, number=number: count == number)  # type: ignore[misc]
            began = time.monotonic()
            failures += attempt(verb, name, proxy.endpoint) is not None
            assert time.monotonic() - began < 30
            reached = proxy.count >= number
            if verb == "start":
                Container(name, timeout=30).start()
                assert_exactly_one(home, engine, name)
            attempt("kill", name, engine.endpoint)
            assert_nothing_left(home, engine, name)
            number += STRIDE
    # A fault that nobody notices would be none.
    assert failures
    # Whatever was left open is a warning now, and warnings are errors.
    gc.collect()


@pytest.mark.parametrize("verb", ["start", "kill"])
def test_an_engine_that_goes_in_the_middle_is_explained(
    home: Home, engine: Engine, proxy: FaultProxy, verb: str
) -> None:
    number = 1
    while True:
        name = new_name("gone")
        if verb == "kill":
            Container(name, timeout=30).start()
        proxy.fail("reset", lambda count, number=number: count >= number)  # type: ignore[misc]
        error = attempt(verb, name, proxy.endpoint)
        reached = proxy.count >= number
        assert (error is not None) == reached
        if error is not None:
            assert "engine" in str(error)
        if verb == "start":
            Container(name, timeout=30).start()
            assert_exactly_one(home, engine, name)
        attempt("kill", name, engine.endpoint)
        assert_nothing_left(home, engine, name)
        if not reached:
            break
        number += STRIDE


def test_an_engine_that_never_answers_is_given_up(home: Home, proxy: FaultProxy, name: str) -> None:
    proxy.fail("hang", lambda count: True)
    began = time.monotonic()
    error = attempt("start", name, proxy.endpoint)
    assert error is not None and "did not answer in time" in str(error)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"DOCKER_HOST": "unix:///nonexistent/sock"}, "there is no socket"),
        ({"DOCKER_HOST": "unix://{home}/stale"}, "nobody listens"),
        ({"DOCKER_HOST": "tcp://192.0.2.1:2375"}, "another machine"),
        ({"DOCKER_HOST": "nonsense"}, "engine"),
        ({"DOCKER_CONTEXT": "missing"}, "does not exist"),
    ],
    ids=["no socket", "stale", "remote", "nonsense", "context"],
)
def test_no_engine_is_one_line_at_once(
    home: Home, name: str, env: dict[str, str], says: str
) -> None:
    import socket

    stale = home.path / "stale"
    if not stale.exists():
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(stale))
    given = {key: value.replace("{home}", str(home.path)) for key, value in env.items()}
    if "DOCKER_CONTEXT" in env:
        given["DOCKER_HOST"] = ""
    for verb in ("start", "commit", "kill", "delete"):
        began = time.monotonic()
        done = redock(verb, name, env=given)
        # Most of it is Python's own start on a busy machine.
        assert time.monotonic() - began < 5
        assert done.returncode == 1
        assert_one_line(done.stderr)
        assert says in done.stderr


# An engine of our own.


@pytest.fixture(scope="module")
def private(home: Home) -> Iterator[PrivateEngine]:
    """An engine that the tests may stop and kill, with the base image in it."""
    # In /var/tmp: in memory there may not be room for it; and its name is short.
    directory = Path(tempfile.mkdtemp(prefix="rdk", dir="/var/tmp"))
    made = PrivateEngine(directory)
    try:
        made.prepare()
        made.start()
        made.load("redock:base")
        yield made
    finally:
        made.close()
    assert not directory.exists()
    assert str(directory) not in command("ps", "-ef").stdout
    assert made.bridge not in command("ip", "link").stdout


@pytest.fixture(params=["", "--live-restore"], ids=["plain", "live-restore"])
def our_own(
    private: PrivateEngine, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> PrivateEngine:
    """Make it, with these options, the engine of this test."""
    options = list(filter(None, [request.param]))
    if private.options != options:
        private.end()
        private.options = options
        private.start()
    for key, value in private.env.items():
        monkeypatch.setenv(key, value)
    return private


def test_a_restart_of_the_engine_keeps_disk_port_alias_and_identity(
    home: Home, our_own: PrivateEngine
) -> None:
    name = new_name("engine")
    container = Container(name, timeout=30)
    container.start()
    alias, port, identity = (
        container.ssh_alias,
        container.session.port,
        container.session.container_id,
    )
    assert identity
    instance = assert_exactly_one(home, our_own.engine, name)
    key = ssh(alias, "echo kept >/root/file; cat /etc/redock/ssh/*.pub").stdout
    act(our_own.engine, identity, "restart?t=1")
    wait_for(lambda: ssh(alias, "true").returncode == 0)
    our_own.end()
    assert_one_line(redock("start", name).stderr)
    our_own.start()
    done = redock("start", "--timeout", "30", name)
    assert done.returncode == 0, done.stderr
    assert assert_exactly_one(home, our_own.engine, name) == instance
    assert Container(name).ssh_alias == alias
    again = Container(name)
    assert again.find_container() and again.session.port == port
    after = ssh(alias, "cat /etc/redock/ssh/*.pub /root/file")
    assert (after.stdout, after.stderr) == (key + "kept\n", "")
    assert redock("kill", name).returncode == 0
    assert_nothing_left(home, our_own.engine, name)


def test_a_machine_outlives_an_engine_where_engines_restore_alive(
    home: Home, our_own: PrivateEngine
) -> None:
    name = new_name("live")
    container = Container(name, timeout=30)
    container.start()
    identity = container.session.container_id
    assert identity
    before = our_own.engine.inspect_container(identity)["State"]["StartedAt"]
    our_own.end()
    our_own.start()
    assert redock("start", "--timeout", "30", name).returncode == 0
    after = our_own.engine.inspect_container(identity)["State"]["StartedAt"]
    assert (before == after) == ("--live-restore" in our_own.options)
    assert_exactly_one(home, our_own.engine, name)
    assert redock("kill", name).returncode == 0
    assert_nothing_left(home, our_own.engine, name)


def begin(*arguments: str) -> subprocess.Popen[str]:
    """Start redock without waiting for it."""
    return subprocess.Popen(
        [*REDOCK, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_engine_killed_during_a_start(home: Home, our_own: PrivateEngine) -> None:
    for number in range(MOMENTS):
        name = new_name("killed")
        process = begin("start", name)
        time.sleep(0.15 + 0.6 * number / MOMENTS)
        our_own.end(signal.SIGKILL)
        _, stderr = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in stderr
        if process.returncode:
            assert stderr.splitlines()[-1].startswith("redock: ")
        our_own.start()
        done = redock("start", "--timeout", "30", name)
        assert done.returncode == 0, done.stderr
        assert_exactly_one(home, our_own.engine, name)
        assert redock("kill", name).returncode == 0
        assert_nothing_left(home, our_own.engine, name)


def test_an_engine_killed_during_a_commit(home: Home, our_own: PrivateEngine) -> None:
    name = new_name("commit")
    container = Container(name, timeout=30)
    container.start()
    assert ssh(container.ssh_alias, "head -c 60M /dev/urandom >/root/large").returncode == 0
    for number in range(MOMENTS):
        process = begin("commit", name)
        time.sleep(0.15 + 0.6 * number / MOMENTS)
        our_own.end(signal.SIGKILL)
        _, stderr = process.communicate(timeout=PATIENCE)
        assert "Traceback" not in stderr
        if process.returncode:
            assert_one_line(stderr.splitlines()[-1])
        our_own.start()
        done = redock("start", "--timeout", "30", name)
        assert done.returncode == 0, done.stderr
        assert_exactly_one(home, our_own.engine, name)
    assert redock("commit", name).returncode == 0
    assert redock("kill", name).returncode == 0
    assert_nothing_left(home, our_own.engine, name)
    with Container(name, timeout=30) as again:
        assert ssh(again.ssh_alias, "stat -c %s /root/large").stdout == f"{60 << 20}\n"
    again.delete()
