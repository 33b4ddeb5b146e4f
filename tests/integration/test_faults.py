"""What goes wrong: machines that die, homes that refuse, users who interrupt, crowds."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redock._engine import Engine
from redock._machines import volume_name
from redock.api import Container
from redock.errors import ContainerDied, SecureShellTimeout

from .conftest import REDOCK, Home, command, new_name, redock, ssh
from .harness import (
    PATIENCE,
    ROUNDS,
    act,
    assert_exactly_one,
    assert_nothing_left,
    assert_one_line,
    containers_of,
    kill_quietly,
    make_image,
    mounted,
    replace_program,
    run_inside,
    volumes_of,
    wait_for,
)

#: Moments at which each verb is interrupted, by each signal.
MOMENTS_OF_START = 4 * ROUNDS
MOMENTS_OF_OTHERS = 2 * ROUNDS
#: Rounds of two, and processes in the one big crowd.
PAIRS = 3 * ROUNDS
CROWD = 20
#: Pages left on the disk that is nearly full, one start for each number.
PAGES = range(0, 12)

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]


@pytest.fixture(scope="module")
def broken(engine: Engine, base_image: str) -> Callable[[str], str]:
    """Make an image that is broken in some way, under a new name."""

    def make(script: str) -> str:
        name = new_name("broken")
        make_image(engine, base_image, name, script)
        return name

    return make


# Machines that do not come up.


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            replace_program("/usr/lib/redock/supervisord", "echo the manager gave up; exit 3"),
            "the manager gave up",
        ),
        ("echo NoSuchKeyword yes >>/etc/ssh/sshd_config", "NoSuchKeyword"),
        ("rm /usr/sbin/sshd", "not found"),
        (replace_program("/usr/sbin/sshd", "sleep 2; echo died late; exit 5"), "died late"),
    ],
    ids=["supervisor", "configuration", "no sshd", "late"],
)
def test_a_machine_that_dies_at_its_first_start_leaves_nothing(
    home: Home, engine: Engine, broken: Callable[[str], str], script: str, says: str
) -> None:
    name = broken(script)
    began = time.monotonic()
    done = redock("start", "--timeout", "60", name)
    # Far below the timeout: its death was seen.
    assert time.monotonic() - began < 20
    assert done.returncode == 1
    assert says in done.stderr and "while it was starting" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_left(home, engine, name)
    assert ssh(Container(name).ssh_alias, "true").returncode == 255


def test_the_end_of_the_log_is_shown_and_not_all_of_it(
    home: Home, broken: Callable[[str], str]
) -> None:
    talk = replace_program("/usr/sbin/sshd", "for n in $(seq 1 50); do echo line $n; done; exit 1")
    name = broken(talk)
    with pytest.raises(ContainerDied) as caught:
        Container(name, timeout=60).start()
    assert caught.value.log.splitlines() == [f"line {number}" for number in range(31, 51)]
    assert str(caught.value).endswith("line 50")


def test_a_stopped_machine_that_dies_at_its_start_keeps_its_disk(
    container: Container, engine: Engine, home: Home
) -> None:
    name, alias, instance = container.image.name, container.ssh_alias, container.session.instance
    broken = "echo kept >/root/file; mv /usr/sbin/sshd /usr/sbin/sshd.real"
    assert ssh(alias, broken).returncode == 0
    identity = container.session.container_id
    assert identity and instance
    act(engine, identity, "stop?t=1")
    done = redock("start", "--timeout", "60", name)
    assert done.returncode == 1 and "while it was starting" in done.stderr
    assert [each["Id"] for each in containers_of(engine, name)] == [identity]
    assert volumes_of(engine, name) == [volume_name(instance)]
    assert not Path(container.ssh_config_file).exists()
    assert ssh(alias, "true").returncode == 255
    # Whoever knows how mends it.
    bring_back(engine, identity)
    done = redock("start", name)
    assert done.returncode == 0, done.stderr
    assert ssh(alias, "cat /root/file").stdout == "kept\n"
    assert assert_exactly_one(home, engine, name) == instance


def bring_back(engine: Engine, container: str) -> None:
    """Give sshd its name back while the container does not run."""
    import io
    import tarfile

    packed = engine.get_archive(container, "/usr/sbin/sshd.real")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        member = tar.next()
        assert member is not None
        contents = tar.extractfile(member)
        assert contents is not None
        data = contents.read()
    member.name = "sshd"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(member, io.BytesIO(data))
    engine.put_archive(container, "/usr/sbin", buffer.getvalue())


# Machines that take their time.


def test_a_slow_ssh_server_is_waited_for(
    home: Home, broken: Callable[[str], str], remove_machine: Callable[[str], None]
) -> None:
    slow = 'sleep 4; mv /usr/sbin/sshd.real /usr/sbin/sshd; exec /usr/sbin/sshd "$@"'
    name = broken(replace_program("/usr/sbin/sshd", slow))
    remove_machine(name)
    assert redock("start", "--timeout", "60", name).returncode == 0
    assert ssh(Container(name).ssh_alias, "true").returncode == 0


def test_an_ssh_server_that_never_comes_ends_the_wait_in_time(
    home: Home, engine: Engine, broken: Callable[[str], str]
) -> None:
    name = broken(replace_program("/usr/sbin/sshd", "sleep 600"))
    began = time.monotonic()
    done = redock("start", "--timeout", "2", name)
    assert 2 <= time.monotonic() - began < 15
    assert done.returncode == 124
    assert_one_line(done.stderr)
    assert "still running" in done.stderr and "within 2 seconds" in done.stderr
    assert Container(name).find_container()
    with pytest.raises(SecureShellTimeout):
        Container(name, timeout=0.5).start()
    assert redock("kill", name).returncode == 0
    assert_nothing_left(home, engine, name)


def test_an_ssh_server_that_hangs_ends_the_wait_in_time(
    container: Container, engine: Engine
) -> None:
    identity = container.session.container_id
    assert identity
    run_inside(engine, identity, "pkill", "-STOP", "-x", "sshd")
    began = time.monotonic()
    done = redock("start", "--timeout", "2", container.image.name)
    assert time.monotonic() - began < 15
    assert done.returncode == 124
    assert_one_line(done.stderr)
    run_inside(engine, identity, "pkill", "-CONT", "-x", "sshd")
    assert redock("start", container.image.name).returncode == 0
    assert ssh(container.ssh_alias, "true").returncode == 0


# Behind our back. Each of these leaves the machine in another state; "runs" says whether it
# still runs, "exists" whether there is a container at all.


def removed(container: Container, engine: Engine, home: Home) -> None:
    """The container is removed, its volume stays."""
    command("docker", "rm", "-f", known_id(container), check=True)


def removed_with_volume(container: Container, engine: Engine, home: Home) -> None:
    """The container and its volume are removed."""
    removed(container, engine, home)
    assert container.session.instance
    engine.remove_volume(volume_name(container.session.instance))


def untagged(container: Container, engine: Engine, home: Home) -> None:
    """The image is removed while the machine runs."""
    container.commit()
    assert engine.remove_image(container.image.name, force=True)


def homeless(container: Container, engine: Engine, home: Home) -> None:
    """Everything redock keeps is removed."""
    shutil.rmtree(home.redock)


def renamed(container: Container, engine: Engine, home: Home) -> None:
    """The container gets another name."""
    act(engine, known_id(container), f"rename?name=redocktest-{os.urandom(4).hex()}")


def stopped(container: Container, engine: Engine, home: Home) -> None:
    """The container is stopped."""
    act(engine, known_id(container), "stop?t=1")


def paused(container: Container, engine: Engine, home: Home) -> None:
    """The container is paused."""
    act(engine, known_id(container), "pause")


def restarted(container: Container, engine: Engine, home: Home) -> None:
    """The container is restarted."""
    act(engine, known_id(container), "restart?t=1")


def identity_lost(container: Container, engine: Engine, home: Home) -> None:
    """Whoever is root inside removes host key and authorized keys; the container is stopped."""
    assert ssh(container.ssh_alias, "rm -rf /etc/redock/ssh/*").returncode == 0
    stopped(container, engine, home)


def known_id(container: Container) -> str:
    """Get the id of a started machine's container."""
    assert container.session.container_id
    return container.session.container_id


GONE = [removed, removed_with_volume]
DOWN = [stopped, identity_lost]
UP = [untagged, homeless, renamed, paused, restarted]

Deed = Callable[[Container, Engine, Home], None]


@pytest.mark.parametrize("deed", [*GONE, *DOWN, *UP], ids=lambda deed: deed.__name__)
def test_start_mends_what_was_done_behind_our_back(
    container: Container, engine: Engine, home: Home, deed: Deed
) -> None:
    name, alias = container.image.name, container.ssh_alias
    assert ssh(alias, "echo kept >/root/file").returncode == 0
    deed(container, engine, home)
    done = redock("start", name)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_exactly_one(home, engine, name)
    expected = "" if deed in GONE else "kept\n"
    assert ssh(alias, "cat /root/file 2>/dev/null").stdout == expected


@pytest.mark.parametrize("deed", [*GONE, *DOWN, *UP], ids=lambda deed: deed.__name__)
def test_kill_removes_what_is_left_behind_our_back(
    container: Container, engine: Engine, home: Home, deed: Deed
) -> None:
    deed(container, engine, home)
    done = redock("kill", container.image.name)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_left(home, engine, container.image.name)
    again = redock("kill", container.image.name)
    assert again.returncode == 3
    assert_one_line(again.stderr)


@pytest.mark.parametrize("deed", [*GONE, *DOWN, *UP], ids=lambda deed: deed.__name__)
def test_commit_saves_what_runs_and_says_so_where_nothing_does(
    container: Container, engine: Engine, home: Home, deed: Deed
) -> None:
    deed(container, engine, home)
    done = redock("commit", container.image.name)
    if deed in UP:
        assert done.returncode == 0, done.stderr
        assert container.find_image(container.image) is not None
        (found,) = containers_of(engine, container.image.name)
        assert found["State"] == ("paused" if deed is paused else "running")
    else:
        assert done.returncode == 3
        assert_one_line(done.stderr)
        assert container.find_image(container.image) is None
    kill_quietly(container.image.name)


@pytest.mark.parametrize("deed", [*GONE, stopped, renamed], ids=lambda deed: deed.__name__)
def test_delete_needs_the_machine_gone(
    container: Container, engine: Engine, home: Home, deed: Deed
) -> None:
    container.commit()
    deed(container, engine, home)
    done = redock("delete", container.image.name)
    if deed in GONE:
        assert done.returncode == 0, done.stderr
        assert container.find_image(container.image) is None
    else:
        assert done.returncode == 1
        assert_one_line(done.stderr)
        assert container.find_image(container.image) is not None
    kill_quietly(container.image.name)


def test_a_stranger_under_the_containers_name_is_left_alone(
    home: Home, engine: Engine, base_image: str, name: str
) -> None:
    from redock._names import container_name

    taken = container_name(*Container(name).image.key)
    stranger = engine.create_container(taken, {"Image": base_image, "Cmd": ["sleep", "600"]})
    try:
        done = redock("start", name)
        assert done.returncode == 1
        assert_one_line(done.stderr)
        assert taken in done.stderr
        assert engine.inspect_container(taken)["Id"] == stranger
        assert redock("kill", name).returncode == 3
        assert engine.inspect_container(taken)["Id"] == stranger
    finally:
        engine.remove_container(stranger)
    assert_nothing_left(home, engine, name)


# Homes.


def start_by_hand(
    home: Home, name: str, run: Callable[..., subprocess.CompletedProcess[str]]
) -> subprocess.CompletedProcess[str]:
    """Start a machine and connect with the very command that was printed."""
    runtime = home.path.parent / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    env = {"XDG_RUNTIME_DIR": str(runtime)}
    started = run(*REDOCK, "start", name, env=env)
    assert started.returncode == 0, started.stderr
    assert "Traceback" not in started.stderr
    said = run(*shlex.split(started.stdout), "echo reached", env=env)
    assert (said.stdout, said.stderr, said.returncode) == ("reached\n", "", 0)
    killed = run(*REDOCK, "kill", name, env=env)
    assert killed.returncode == 0, killed.stderr
    return started


def test_a_read_only_home_does_not_keep_a_machine_from_starting(
    fresh_home: Home, engine: Engine, name: str
) -> None:
    fresh_home.ssh_config.parent.mkdir(mode=0o700)
    fresh_home.ssh_config.write_text("Host other\n  Port 2222\n")
    read_only = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"'
    with mounted(read_only, fresh_home.path) as frozen:
        assert frozen.run("touch", str(fresh_home.path / "file")).returncode != 0
        started = start_by_hand(fresh_home, name, frozen.run)
    assert started.stdout.startswith("ssh -F ")
    assert "read-only" in started.stderr.lower()
    assert fresh_home.ssh_config.read_text() == "Host other\n  Port 2222\n"
    assert containers_of(engine, name) == [] and volumes_of(engine, name) == []


def test_a_read_only_configuration_does_not_keep_a_machine_from_starting(
    fresh_home: Home, name: str
) -> None:
    fresh_home.ssh_config.parent.mkdir(mode=0o700)
    fresh_home.ssh_config.write_text("Host other\n")
    fresh_home.ssh_config.chmod(0o400)
    started = start_by_hand(fresh_home, name, command)
    assert started.stdout.startswith("ssh -F ")
    assert "read-only" in started.stderr
    assert fresh_home.ssh_config.read_text() == "Host other\n"
    assert fresh_home.ssh_config.stat().st_mode & 0o777 == 0o400


#: With these, plain ssh works.
READABLE = ["a b", "50%h", "o'clock", "ü", "$HOME", "#1"]
#: With these ssh fails for every host, or cannot be led to redock's files: the printed command
#: works all the same.
UNREADABLE = ["100%", "[ab]", 'say "hi"', "back\\slash"]


@pytest.mark.parametrize("odd", READABLE + UNREADABLE)
def test_odd_names_of_home_directories(
    fresh_home: Home, engine: Engine, name: str, odd: str
) -> None:
    inner = Home(fresh_home.path / odd)
    inner.path.mkdir(mode=0o700)
    inner.use()
    started = start_by_hand(inner, name, command)
    if odd in READABLE:
        assert started.stdout == f"ssh {Container(name).ssh_alias}\n"
        assert redock("ssh-config", "remove").returncode == 0
        assert not inner.ssh_config.exists()
    assert containers_of(engine, name) == [] and volumes_of(engine, name) == []


def test_a_full_disk_is_named_and_nothing_is_left(
    fresh_home: Home, engine: Engine, name: str
) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    small = f'mount -t tmpfs -o size={64 * page},mode=700 none "$1"'
    full = str(fresh_home.path / "full")
    codes = set()
    with mounted(small, fresh_home.path) as tight:
        for pages in PAGES:
            free = int(tight.run("stat", "-f", "-c", "%a", str(fresh_home.path)).stdout)
            fill = f'head -c {(free - pages) * page} /dev/zero >"$1"'
            tight.run("sh", "-c", fill, "sh", full)
            done = tight.run(*REDOCK, "start", name)
            codes.add(done.returncode)
            if done.returncode:
                assert done.returncode == 1
                assert "Traceback" not in done.stderr
                assert "No space left" in done.stderr and str(fresh_home.path) in done.stderr
                assert containers_of(engine, name) == [] and volumes_of(engine, name) == []
            else:
                assert tight.run(*REDOCK, "kill", name).returncode == 0
            tight.run("rm", "-f", full)
        assert codes == {0, 1}
        done = tight.run(*REDOCK, "start", name)
        assert done.returncode == 0, done.stderr
        assert tight.run("ssh", Container(name).ssh_alias, "true").returncode == 0
        hidden = tight.run("find", str(fresh_home.path / ".redock"), "-name", ".redock-*")
        assert hidden.stdout == ""
        assert tight.run(*REDOCK, "kill", name).returncode == 0


# Interruptions.


class Interrupted:
    """
    A redock that was interrupted.

    :param arguments: Its command line.
    :param number: The signal.
    :param moment: Seconds after it is ready to be interrupted.
    """

    def __init__(self, arguments: list[str], number: signal.Signals, moment: float) -> None:
        self.number = number
        process = subprocess.Popen(
            ["env", "--default-signal", *REDOCK, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_for(lambda: process.poll() is not None or catches(process.pid, signal.SIGTERM))
        time.sleep(moment)
        # A terminal sends its signals to everybody, a supervisor sends them to the program.
        send = os.killpg if number in (signal.SIGINT, signal.SIGHUP) else os.kill
        # Only one that has not been waited for: its number may be another's by then.
        if process.poll() is None:
            send(process.pid, number)
        _, self.stderr = process.communicate(timeout=PATIENCE)
        self.status = process.returncode

    def check(self, *others: int) -> None:
        """Check that it ended as it should, or had ended before."""
        expected = -9 if self.number == signal.SIGKILL else 128 + self.number
        assert self.status in (0, expected, *others), self.stderr
        assert "Traceback" not in self.stderr and "Exception" not in self.stderr, self.stderr


def catches(process: int, number: signal.Signals) -> bool:
    """Check whether a process has a handler for a signal."""
    with contextlib.suppress(FileNotFoundError):
        status = Path(f"/proc/{process}/status").read_text()
        (caught,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
        return bool(int(caught, 16) >> (number - 1) & 1)
    return False


def moments(count: int, duration: float) -> list[float]:
    """Spread moments over the time something takes."""
    return [duration * number / count for number in range(count)]


@pytest.fixture(scope="module")
def durations(home: Home) -> dict[str, float]:
    """Measure how long each verb takes here, without Python's own start."""
    name = new_name("timed")
    measured = {}
    began = time.monotonic()
    redock("--version")
    nothing = time.monotonic() - began
    for verb in ("start", "commit", "kill"):
        began = time.monotonic()
        assert redock(verb, name).returncode == 0
        measured[verb] = max(0.1, time.monotonic() - began - nothing)
    return measured


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_an_interrupted_start_is_finished_by_the_next(
    home: Home, engine: Engine, durations: dict[str, float], number: signal.Signals
) -> None:
    for moment in moments(MOMENTS_OF_START, durations["start"]):
        name = new_name("cut")
        Interrupted(["start", name], number, moment).check()
        done = redock("start", name)
        assert done.returncode == 0, done.stderr
        assert_exactly_one(home, engine, name)
        assert redock("kill", name).returncode == 0
        assert_nothing_left(home, engine, name)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_what_an_interrupted_start_left_is_removed_by_kill(
    home: Home, engine: Engine, durations: dict[str, float], number: signal.Signals
) -> None:
    for moment in moments(MOMENTS_OF_OTHERS, durations["start"]):
        name = new_name("cut")
        Interrupted(["start", name], number, moment).check()
        # Nothing may have been made yet.
        assert redock("kill", name).returncode in (0, 3)
        assert_nothing_left(home, engine, name)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_an_interrupted_kill_is_finished_by_the_next(
    home: Home, engine: Engine, durations: dict[str, float], number: signal.Signals
) -> None:
    for moment in moments(MOMENTS_OF_OTHERS, durations["kill"]):
        name = new_name("cut")
        Container(name, timeout=30).start()
        Interrupted(["kill", name], number, moment).check()
        # All may have been done already.
        assert redock("kill", name).returncode in (0, 3)
        assert_nothing_left(home, engine, name)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_after_an_interrupted_kill_a_start_makes_a_new_machine(
    home: Home, engine: Engine, durations: dict[str, float], number: signal.Signals
) -> None:
    for moment in moments(MOMENTS_OF_OTHERS, durations["kill"]):
        name = new_name("cut")
        Container(name, timeout=30).start()
        Interrupted(["kill", name], number, moment).check()
        done = redock("start", name)
        assert done.returncode == 0, done.stderr
        assert_exactly_one(home, engine, name)
        kill_quietly(name)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_an_interrupted_commit_leaves_the_machine_running_and_is_repeated(
    home: Home,
    engine: Engine,
    container: Container,
    durations: dict[str, float],
    number: signal.Signals,
) -> None:
    name = container.image.name
    assert ssh(container.ssh_alias, "head -c 60M /dev/urandom >/root/large").returncode == 0
    for round_number, moment in enumerate(moments(MOMENTS_OF_OTHERS, durations["commit"] + 1)):
        ssh(container.ssh_alias, f"echo {round_number} >/root/round")
        Interrupted(["commit", name], number, moment).check()
        if number != signal.SIGKILL:
            (found,) = containers_of(engine, name)
            assert found["State"] == "running"
        ssh(container.ssh_alias, f"echo {round_number} again >/root/round")
        assert redock("commit", name).returncode == 0
        assert_exactly_one(home, engine, name)
    saved = container.find_image(container.image)
    time.sleep(3)
    # No commit that was interrupted comes last and takes the name.
    assert container.find_image(container.image) == saved
    (found,) = containers_of(engine, name)
    assert found["State"] == "running"
    container.kill()
    with Container(name) as again:
        assert ssh(again.ssh_alias, "cat /root/round").stdout == f"{round_number} again\n"


# Crowds.


def run_all(commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """Run several redocks at the same time."""
    processes = [
        subprocess.Popen(
            [*REDOCK, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in commands
    ]
    done = [process.communicate(timeout=3 * PATIENCE) for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, done, strict=True)]


@pytest.mark.parametrize("size", [2] * PAIRS + [CROWD])
def test_many_processes_start_one_machine(
    home: Home, engine: Engine, name: str, size: int, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    done = run_all([["start", "--timeout", "60", name]] * size)
    assert [status for status, _, _ in done] == [0] * size, done
    assert {stdout for _, stdout, _ in done} == {f"ssh {Container(name).ssh_alias}\n"}
    assert_exactly_one(home, engine, name)


def test_the_first_start_of_all_in_a_crowd(fresh_home: Home, engine: Engine, name: str) -> None:
    """Nothing exists yet: no directory, no key pair, no line in the configuration."""
    done = run_all([["start", "--timeout", "60", name]] * 5)
    assert [status for status, _, _ in done] == [0] * 5, done
    assert fresh_home.ssh_config.read_text().count("Include") == 1
    assert_exactly_one(fresh_home, engine, name)
    assert redock("kill", name).returncode == 0
    assert_nothing_left(fresh_home, engine, name)


def test_several_processes_start_the_same_machines_in_different_orders(
    home: Home, engine: Engine
) -> None:
    names = [new_name("crowd") for _ in range(5)]
    orders = [names, names[::-1], names[2:] + names[:2]]
    done = run_all([["start", "--timeout", "60", *order] for order in orders])
    try:
        assert [status for status, _, _ in done] == [0] * 3, done
        for name in names:
            assert_exactly_one(home, engine, name)
    finally:
        killed = run_all([["kill", *order] for order in orders])
    # Each machine is killed by one of them; whoever finds it gone says so.
    assert {status for status, _, _ in killed} <= {0, 3}, killed
    for name in names:
        assert_nothing_left(home, engine, name)


def test_starts_and_kills_at_the_same_time_end_in_one_of_the_two(
    home: Home, engine: Engine
) -> None:
    for _ in range(PAIRS):
        name = new_name("both")
        done = run_all([["start", "--timeout", "60", name], ["kill", name]] * 2)
        for status, _, stderr in done:
            assert status in (0, 1, 3), done
            assert "Traceback" not in stderr
        if containers_of(engine, name):
            assert redock("start", name).returncode == 0
            assert_exactly_one(home, engine, name)
            assert redock("kill", name).returncode == 0
        assert_nothing_left(home, engine, name)


def test_whoever_waits_is_told_for_whom_and_goes_on_when_that_one_is_killed(
    home: Home, engine: Engine, name: str, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    lock = Path(Container(name)._lock.path)
    holder = subprocess.Popen([*REDOCK, "start", name], stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: lock.exists() and lock.read_text() == str(holder.pid))
        holder.send_signal(signal.SIGSTOP)
        waiting = subprocess.Popen(
            [*REDOCK, "start", name], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert waiting.stderr is not None
        assert f"process {holder.pid}" in waiting.stderr.readline()
        assert waiting.poll() is None
    finally:
        holder.kill()
        holder.wait()
    waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 0
    assert_exactly_one(home, engine, name)


def test_programs_that_stay_do_not_hold_the_lock(container: Container) -> None:
    """The shared connection lives on after start; the next command does not wait for it."""
    assert command("ssh", "-O", "check", container.ssh_alias).returncode == 0
    began = time.monotonic()
    assert redock("commit", container.image.name).returncode == 0
    assert time.monotonic() - began < 30
