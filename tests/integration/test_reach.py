"""Reaching into machines and switching their power, with the real engine, ssh and rsync."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import pty
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redock import _copy, _forward, _keeper, _ssh
from redock._engine import Engine
from redock._machines import find_machines
from redock.api import Container, NoContainerRunning
from redock.errors import (
    ExternalCommandFailed,
    NotFound,
    PortUnavailable,
    Timeout,
)

from .conftest import REDOCK, Home, command, redock, ssh
from .harness import PATIENCE, act, wait_for

#: Any text a program can be given.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
DUMP = ["sh", "-c", r"""printf '%s\0' "$@" | od -An -v -tx1""", "sh"]


def binary(*arguments: str, input: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run the program with bytes for standard input."""
    return subprocess.run(
        [*REDOCK, *arguments], input=input, capture_output=True, timeout=120, check=False
    )


def state_of(container: Container) -> str:
    """Ask the engine about a machine."""
    machine = container._find_machine()
    return machine.state if machine else "gone"


# Commands.


@pytest.mark.parametrize("status", [0, 1, 3, 42, 255])
def test_exit_statuses_are_passed_through(machine: Container, status: int) -> None:
    name = machine.image.name
    for verb in ("ssh", "exec"):
        done = redock(verb, name, "--", f"echo out; echo err >&2; exit {status}")
        assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n"), verb
    assert machine.run(f"exit {status}").returncode == status
    assert machine.exec(f"exit {status}").returncode == status


def test_a_session_loads_next_to_nothing(machine: Container) -> None:
    program = f"from redock import cli; cli.main(['ssh', {machine.image.name!r}, 'true'])"
    machine.run("true")
    done = command(sys.executable, "-X", "importtime", "-c", program)
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "redock._keeper" in loaded
    # They took longer than all the rest of what stands between the user and ssh.
    assert not loaded & {"argparse", "contextlib", "enum", "json", "logging", "re", "subprocess"}


def test_the_status_of_ssh_itself_is_255(container: Container) -> None:
    # The SSH server has gone for good, and the shared connection with it.
    container.exec("supervisorctl", "stop", "sshd", check=True)
    container.exec("pkill", "-x", "sshd")
    wait_for(lambda: not _keeper.is_shared(container.session.instance or ""))
    assert ssh(container.ssh_alias, "true").returncode == 255
    done = redock("exec", container.image.name, "--", "echo still here; exit 7")
    assert (done.returncode, done.stdout) == (7, "still here\n")
    container.exec("supervisorctl", "start", "sshd", check=True)
    container.wait(timeout=PATIENCE)
    assert container.run("echo back").stdout == "back\n"


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(WORDS, min_size=1, max_size=8))
@example(words=["it's", "$HOME", "`id`", "a\nb\r\n", "-x", "--", "", "*", "\\", "\x1b[0m", "ä€😀"])
def test_any_text_arrives_over_ssh(machine: Container, words: list[str]) -> None:
    done = machine.run(*DUMP, *words, check=True)
    assert bytes.fromhex(done.stdout.replace("\n", " ")) == b"".join(
        word.encode() + b"\0" for word in words
    )


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words=st.lists(WORDS, min_size=1, max_size=30))
@example(words=["it's", "$HOME", "`id`", "a\nb\r\n", "-x", "--", "", "*", "\\", "\x1b[0m", "ä€😀"])
def test_any_text_arrives_through_the_engine(machine: Container, words: list[str]) -> None:
    done = machine.exec(*DUMP, *words, check=True)
    assert bytes.fromhex(done.stdout.replace("\n", " ")) == b"".join(
        word.encode() + b"\0" for word in words
    )


@pytest.mark.parametrize("verb", ["ssh", "exec"])
def test_bytes_go_both_ways_unchanged(machine: Container, verb: str) -> None:
    data = os.urandom(10_000_000)
    done = binary(verb, machine.image.name, "--", "cat", input=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("verb", ["ssh", "exec"])
def test_words_are_not_text(machine: Container, verb: str) -> None:
    name = machine.image.name
    assert redock(verb, name, "--", "printf", "%s|", "a  b", "$HOME", "it's", "-x").stdout == (
        "a  b|$HOME|it's|-x|"
    )
    assert redock(verb, name, "echo a | tr a b").stdout == "b\n"
    assert redock(verb, name, "--", "-x").returncode == 127


def test_results_of_the_api(machine: Container) -> None:
    for method in (machine.run, machine.exec):
        done = method("cat; echo err >&2", input="ä\n")
        assert (done.stdout, done.stderr, done.returncode) == ("ä\n", "err\n", 0)
        assert done.command == ("cat; echo err >&2",)
        with pytest.raises(ExternalCommandFailed, match="status 5"):
            method("exit 5", check=True)
        started = time.monotonic()
        with pytest.raises(Timeout, match="within 1 seconds"):
            method("sleep 60", timeout=1)
        assert time.monotonic() - started < PATIENCE
    # What is killed does not go on inside.
    wait_for(lambda: not machine.exec("pgrep -x sleep"))
    assert machine.exec("id", "-un", user="nobody").stdout == "nobody\n"
    assert machine.exec("nosuchprogram", "x").returncode in (126, 127)


def test_an_interrupted_command_does_not_go_on(machine: Container) -> None:
    running = subprocess.Popen(
        [*REDOCK, "exec", machine.image.name, "--", "echo up; exec sleep 4321"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert running.stdout
    assert running.stdout.readline() == b"up\n"
    running.send_signal(signal.SIGTERM)
    assert running.wait(PATIENCE) == 143
    running.stdout.close()
    wait_for(lambda: not machine.exec("pgrep -f '[s]leep 4321'"))


class Terminal:
    """
    A program on a terminal.

    :param arguments: The program and its arguments.
    """

    def __init__(self, *arguments: str) -> None:
        self.output = b""
        self.pid, self.master = pty.fork()
        if not self.pid:
            self.resize(31, 97, 0)
            os.execvp(arguments[0], arguments)

    def resize(self, rows: int, columns: int, handle: int | None = None) -> None:
        """Make the window another size."""
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.master if handle is None else handle, termios.TIOCSWINSZ, size)

    def expect(self, text: bytes) -> None:
        """Read until something was printed."""
        os.set_blocking(self.master, False)

        def seen() -> bool:
            with contextlib.suppress(BlockingIOError, OSError):
                self.output += os.read(self.master, 65536)
            return text in self.output

        try:
            wait_for(seen)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in {self.output!r}") from None
        self.output = self.output.partition(text)[2]

    def type(self, text: bytes) -> None:
        """Press keys."""
        os.write(self.master, text)

    def end(self) -> int:
        """Wait for its end and return its exit status."""
        wait_for(lambda: self.poll() is not None)
        os.close(self.master)
        return os.waitstatus_to_exitcode(self.status)

    def poll(self) -> int | None:
        """Look whether it has ended, and let it print."""
        with contextlib.suppress(BlockingIOError, OSError):
            self.output += os.read(self.master, 65536)
        pid, self.status = os.waitpid(self.pid, os.WNOHANG)
        return self.status if pid else None


@pytest.mark.parametrize("verb", ["ssh", "exec"])
def test_a_terminal_goes_all_the_way(machine: Container, verb: str) -> None:
    terminal = Terminal(*REDOCK, verb, machine.image.name)
    terminal.type(b"stty size; tty; echo do''ne\r")
    terminal.expect(b"31 97")
    terminal.expect(b"/dev/pts/")
    terminal.expect(b"done")
    terminal.resize(20, 55)
    terminal.type(b"sleep 1; stty size\r")
    terminal.expect(b"20 55")
    # Keys are for the program inside, the one that interrupts as well.
    terminal.type(b"sleep 4322 || echo inter''rupted\r")
    wait_for(lambda: machine.exec("pgrep -f '[s]leep 4322'"))
    terminal.type(b"\x03")
    wait_for(lambda: not machine.exec("pgrep -f '[s]leep 4322'"))
    terminal.type(b"exit 9\r")
    assert terminal.end() == 9


def test_a_command_on_a_terminal_has_one(machine: Container) -> None:
    for verb in ("ssh", "exec"):
        terminal = Terminal(*REDOCK, verb, machine.image.name, "test -t 0 && test -t 1; exit $?")
        assert terminal.end() == 0


# Starting where it is needed.


def test_a_typo_makes_no_machine(home: Home, name: str, engine: Engine) -> None:
    before = {machine.name for machine in find_machines(engine)}
    for arguments in (["ssh", name, "true"], ["sync", ".", f"{name}:/x"], ["forward", name, "80"]):
        done = redock(*arguments)
        assert done.returncode == 4, arguments
        assert f"'redock start {name}'" in done.stderr
        assert done.stderr.count("\n") == 1
    assert redock("exec", name, "true").returncode == 4
    assert redock("cp", f"{name}:/etc/passwd", "-").returncode == 4
    assert redock("open", "--print", name).returncode == 4
    after = {machine.name for machine in find_machines(engine)}
    assert name not in after - before


def test_ssh_comes_back_from_everywhere(container: Container, engine: Engine) -> None:
    name, alias = container.image.name, container.ssh_alias
    assert container.session.container_id
    port = container.session.port

    def works() -> None:
        done = redock("ssh", name, "echo here; exit 42")
        assert (done.returncode, done.stdout) == (42, "here\n"), done.stderr

    works()
    engine.pause(container.session.container_id)
    works()
    act(engine, container.session.container_id, "stop")
    works()
    assert redock("stop", name).returncode == 0
    # At once, whatever the connection was before.
    assert ssh(alias, "true").returncode == 255
    works()
    assert container._find_machine().port == port  # type: ignore[union-attr]
    # A saved disk is enough, and it is another container then.
    container.run("touch", "/saved", check=True)
    container.commit()
    container.kill()
    assert redock("ssh", name, "test -e /saved").returncode == 0
    before = _ssh.instance_of(name)
    container.kill()
    container.start()
    assert _ssh.instance_of(name) != before
    assert redock("ssh", name, "cat /etc/redock/ssh/instance").stdout == (
        f"{_ssh.instance_of(name)}\n"
    )


def test_a_connection_whose_keeper_was_killed_is_made_anew(machine: Container) -> None:
    machine.run("true", check=True)
    path = _ssh.control_path(machine.session.instance or "")
    done = command("ssh", "-O", "check", machine.ssh_alias)
    os.kill(int(re.search(r"pid=(\d+)", done.stderr)[1]), signal.SIGKILL)  # type: ignore[index]
    assert path and os.path.exists(path)
    assert machine.run("echo one").stdout == "one\n"
    assert redock("ssh", machine.image.name, "echo two").stdout == "two\n"


# Power.


def test_power_is_switched_and_stays_so(container: Container, engine: Engine) -> None:
    name = container.image.name
    assert container.session.container_id
    container.run("echo kept >/root/kept", check=True)
    port = container.session.port
    for verb, state in (
        ("pause", "paused"),
        ("resume", "running"),
        ("pause", "paused"),
        ("stop", "exited"),
    ):
        for _ in range(2):
            done = redock(verb, name)
            assert (done.returncode, state_of(container)) == (0, state), done.stderr
    described = engine.inspect_container(container.session.container_id)
    # In order, not killed.
    assert described["State"]["ExitCode"] == 0
    assert redock("pause", name).returncode == redock("resume", name).returncode == 3
    for verb in ("exec", "wait"):
        assert redock(verb, "-q", name, *(["-t", "0.3"] if verb == "wait" else [])).returncode in (
            3,
            124,
        )
    with pytest.raises(NoContainerRunning):
        container.run("true")
    assert redock("restart", name).returncode == 0
    assert redock("restart", "-t", "5", name).returncode == 0
    assert (state_of(container), container._find_machine().port) == ("running", port)  # type: ignore[union-attr]
    assert ssh(container.ssh_alias, "cat /root/kept").stdout == "kept\n"


def test_what_does_not_end_is_killed_when_patience_is_over(container: Container) -> None:
    container.exec(
        'printf \'[program:deaf]\\ncommand=/bin/sh -c "trap : TERM; while :; do sleep 0.2; done"\\n'
        "stopwaitsecs=600\\n' >/etc/supervisor/conf.d/deaf.conf; supervisorctl update",
        check=True,
    )
    started = time.monotonic()
    container.stop(1)
    assert state_of(container) == "exited"
    assert time.monotonic() - started < PATIENCE


def test_several_are_switched_side_by_side(make_machine: Callable[[str], Container]) -> None:
    two = [make_machine("power") for _ in range(2)]
    names = [each.image.name for each in two]
    assert redock("stop", *names).returncode == 0
    assert {state_of(each) for each in two} == {"exited"}
    done = redock("restart", *names, f"{names[0]}x")
    assert done.returncode == 4
    assert {state_of(each) for each in two} == {"running"}


# Copying.


def listing(root: Path) -> dict[str, tuple[int, int, object]]:
    """Describe a tree: permissions, whole seconds, contents."""
    found: dict[str, tuple[int, int, object]] = {}
    for path in sorted([root, *root.rglob("*")]):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = (0, 0, os.readlink(path))
        else:
            about = path.stat()
            what = path.read_bytes() if path.is_file() else None
            found[name] = (about.st_mode & 0o777, int(about.st_mtime), what)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with all kinds of names, permissions and links."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for name in ("-dash", "new\nline", "ä ö", "x" * 200, "--", "a:b", os.fsdecode(b"latin-\xe4")):
        (root / "sub" / name).write_text(name, errors="surrogateescape")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o751)
    os.utime(root / "run", (1e9, 1e9))
    (root / "link").symlink_to("sub/-dash")
    os.link(root / "run", root / "hard")
    (root / "empty").mkdir(mode=0o700)
    (root / "big").write_bytes(os.urandom(3_000_000))
    return root


def test_a_tree_goes_in_and_comes_out_as_it_was(
    machine: Container, tree: Path, tmp_path: Path
) -> None:
    name = machine.image.name
    assert redock("cp", str(tree), f"{name}:/srv/in").returncode == 0
    owners = machine.exec("find /srv/in -printf '%u:%g\\n' | sort -u").stdout
    assert owners == "root:root\n"
    assert machine.exec("stat", "-c", "%h %Y %a", "/srv/in/hard").stdout == "2 1000000000 751\n"
    assert redock("cp", f"{name}:/srv/in", str(tmp_path / "out")).returncode == 0
    assert listing(tmp_path / "out") == listing(tree)
    assert {path.lstat().st_uid for path in (tmp_path / "out").rglob("*")} == {os.getuid()}
    assert (tmp_path / "out" / "hard").stat().st_nlink == 2
    # From machine to machine, the same one even, and from one that is stopped.
    assert redock("cp", f"{name}:/srv/in", f"{name}:/srv/again").returncode == 0
    machine.copy_out("/srv/again", tmp_path / "again")
    assert listing(tmp_path / "again") == listing(tree)


def test_copies_land_as_with_docker(machine: Container, tree: Path, tmp_path: Path) -> None:
    name = machine.image.name
    machine.exec("mkdir -p /srv/d && echo old >/srv/f && ln -s /srv/d /srv/l", check=True)
    for source, target, expected in (
        (str(tree), "/srv/d", "/srv/d/tree/run"),
        (f"{tree}/.", "/srv/d", "/srv/d/run"),
        (str(tree), "/srv/l/", "/srv/d/tree/run"),
        (str(tree / "run"), "/srv/f", "/srv/f"),
        (str(tree / "run"), "renamed", "/root/renamed"),
        (str(tree / "run"), "", "/root/run"),
    ):
        machine.exec("rm", "-rf", "/srv/d/tree", "/srv/d/run")
        done = redock("cp", source, f"{name}:{target}")
        assert done.returncode == 0, (source, target, done.stderr)
        assert machine.exec("cat", expected).stdout == "#!/bin/sh\n", (source, target)
    for source, target in (
        (str(tree), "/srv/f"),
        (str(tree / "run"), "/nowhere/"),
        (str(tree / "run"), "/nowhere/x"),
        (str(tmp_path / "missing"), "/srv/d"),
    ):
        done = redock("cp", source, f"{name}:{target}")
        assert done.returncode == 1, (source, target)
        assert done.stderr.count("\n") == 1, done.stderr
    here = tmp_path / "here"
    (here / "d").mkdir(parents=True)
    # The same on the way out; a link that is named is followed.
    for source, target, expected in (
        ("/srv/l", f"{here}/", "l/run"),
        ("/srv/d/.", f"{here}/d", "d/run"),
        ("/srv/f", f"{here}/new", "new"),
        ("/srv/f", f"{here}/d/", "d/f"),
    ):
        machine.exec("cp", "/srv/f", "/srv/d/run")
        done = redock("cp", f"{name}:{source}", target)
        assert done.returncode == 0, (source, target, done.stderr)
        assert (here / expected).read_text() == "#!/bin/sh\n"
    for source, target, status in (
        ("/nosuch", str(here), 4),
        ("/srv/f/", str(here), 4),
        ("/srv/f", f"{here}/nowhere/", 1),
        ("/srv/d", f"{here}/new", 1),
        ("/", str(here), 2),
    ):
        done = redock("cp", f"{name}:{source}", target)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1), (source, done.stderr)


def test_a_hostile_tree_stays_in_its_directory(machine: Container, tmp_path: Path) -> None:
    machine.exec(
        "mkdir -p /srv/evil/sub && cd /srv/evil && ln -s /etc/passwd absolute && ln -s ../.. up"
        " && ln -s . here && ln -s here/../.. through && mknod device c 1 3 && mkfifo fifo"
        " && echo good >file && ln -s file fine && chmod 4755 file",
        check=True,
    )
    done = redock("cp", f"{machine.image.name}:/srv/evil", str(tmp_path / "copy"))
    assert done.returncode == 0
    assert "Left out 5" in done.stderr
    copied = tmp_path / "copy"
    assert sorted(os.listdir(copied)) == ["file", "fine", "here", "sub"]
    assert (copied / "fine").read_text() == "good\n"
    assert (copied / "file").stat().st_mode & 0o7777 == 0o755
    assert os.listdir(tmp_path) == ["copy"]


def test_standard_input_and_output_are_files(machine: Container, tmp_path: Path) -> None:
    name = machine.image.name
    data = os.urandom(2_000_000)
    assert binary("cp", "-", f"{name}:/srv/data", input=data).returncode == 0
    assert machine.exec("stat", "-c", "%U %a %s", "/srv/data").stdout == "root 644 2000000\n"
    assert binary("cp", f"{name}:/srv/data", "-", input=b"").stdout == data
    (tmp_path / "file").write_bytes(data[:1000])
    with open(tmp_path / "file", "rb") as stream:
        stream.seek(10)
        subprocess.run([*REDOCK, "cp", "-", f"{name}:/srv/part"], stdin=stream, check=True)
    machine.copy_in(b"bytes", "/srv/bytes")
    assert machine.exec("cat", "/srv/bytes").stdout == "bytes"
    assert machine.exec("stat", "-c", "%s", "/srv/part").stdout == "990\n"
    assert redock("cp", "-", f"{name}:/srv/").returncode == 2
    assert redock("cp", f"{name}:/srv", "-").returncode == 2


def test_an_interrupted_copy_leaves_no_half_file(machine: Container, tmp_path: Path) -> None:
    machine.exec("head -c 400000000 /dev/zero >/srv/large; sync", check=True, timeout=PATIENCE)
    target = tmp_path / "large"
    running = subprocess.Popen(
        [*REDOCK, "cp", f"{machine.image.name}:/srv/large", str(target)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def begun() -> bool:
        return any(each.stat().st_size > 1_000_000 for each in tmp_path.glob(".redock-*/copy"))

    wait_for(begun)
    assert not target.exists()
    running.send_signal(signal.SIGTERM)
    assert running.wait(PATIENCE) == 143
    assert os.listdir(tmp_path) == []
    machine.exec("rm", "/srv/large", check=True)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("large", "new"),
        ("large", "old"),
        ("-", "old"),
        ("tree", "new"),
        ("tree", "directory"),
        ("tree/.", "directory"),
    ],
)
def test_an_interrupted_copy_into_a_machine_leaves_what_was_there(
    source: str, target: str, machine: Container, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("new")
    for large in (tmp_path / "large", tmp_path / "tree" / "z"):
        large.write_bytes(bytes(8_000_000))
    # Stops in the middle of the large file.
    program = (
        "import time; from redock import _archive, cli; tally = _archive.Tally;"
        "count = tally.count; tally.count = lambda self, piece:"
        " self.bytes < 4e6 and count(self, piece) or time.sleep(99);"
        f"cli.main(['cp', {source if source == '-' else str(tmp_path / source)!r},"
        f" '{machine.image.name}:/srv/int/{target}'])"
    )
    machine.exec(
        "rm -rf /srv/int && mkdir -p /srv/int/directory/tree && cd /srv/int && echo old >old"
        " && echo old >directory/a && echo old >directory/tree/a",
        check=True,
    )
    look = "cd /srv/int && find . -type f -exec head -c 9 {} + && find . -printf '%p %y %s\\n'"
    before = machine.exec(look, check=True).stdout
    with (tmp_path / "large").open("rb") as stdin:
        running = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=stdin,
            stderr=subprocess.PIPE,
            text=True,
        )

        def begun() -> bool:
            # Not through the engine: it starts nothing in a container while it unpacks there.
            found = machine.run("find /srv/int -size +1000k -path '*/.redock-*.tmp*'").stdout
            return len(found.splitlines()) == 1

        try:
            wait_for(begun)
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    assert (running.returncode, errors.count("\n")) == (130, 1), errors
    assert machine.exec(look, check=True).stdout == before


def test_a_copy_that_was_put_aside_is_the_same(
    machine: Container, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [tree, *tree.rglob("*")]:
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    described = []
    for at_once in (0, 1 << 30):
        monkeypatch.setattr(_copy, "AT_ONCE", at_once)
        machine.exec(
            "rm -rf /srv/same && mkdir -p /srv/same && cd /srv/same"
            " && mkdir -m 0711 -p old/tree/sub"
            " && mkdir inside && echo old >old/tree/run && echo old >inside/run && echo old >file"
            " && echo kept >old/tree/kept && ln -s /etc/passwd inside/big && ln -s file link"
            " && ln file other && touch -d @5 old old/tree inside && ln -s old led",
            check=True,
        )
        machine.copy_in(tree, "/srv/same/new")
        machine.copy_in(tree, "/srv/same/old")
        machine.copy_in(f"{tree}/.", "/srv/same/inside")
        machine.copy_in(tree / "run", "/srv/same/link")
        machine.copy_in(tree / "big", "/srv/same/old/tree/sub/-dash")
        machine.copy_in(b"contents", "/srv/same/contents")
        machine.copy_in(tree / "sub", "/srv/same/led/")
        look = (
            "cd /srv/same; find . -printf '%p %y %m %n %l %u %g\\n' | sort;"
            # Other times are those of this moment.
            " find . ! -newermt 2002-01-01 -printf '%p %T@\\n' | sort;"
            " find . -type f -exec md5sum {} + | sort"
        )
        described.append(machine.exec(look, check=True).stdout)
    assert described[0] == described[1]
    assert "./inside/sub/ä ö" in described[0]
    assert described[0].count(" 1000000000.") > 20
    assert "redock-" not in described[0]


def test_a_large_copy_goes_into_a_machine_that_does_not_run(
    container: Container, tree: Path, tmp_path: Path
) -> None:
    container.stop()
    container.copy_in(tree, "/srv/in")
    container.copy_in(tree, "/srv/in")
    container.copy_in(f"{tree}/.", "/srv/in/tree/empty")
    container.copy_out("/srv/in/tree/empty", tmp_path / "out")
    assert {**listing(tmp_path / "out"), ".": ()} == {**listing(tree), ".": ()}
    container.start()
    assert container.exec("find /srv -name '.redock*'").stdout == ""


def test_a_large_file_is_never_in_memory(machine: Container, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(150_000_000)
    program = (
        # Not getrusage(2): its maximum is also that of the process this one was forked from.
        "import re, sys; from redock.cli import run; status = run(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]);"
        "sys.exit(status)"
    )
    name = machine.image.name
    for arguments in (
        ("cp", str(large), f"{name}:/srv/zeros"),
        ("cp", f"{name}:/srv/zeros", str(tmp_path / "back")),
    ):
        done = command(sys.executable, "-c", program, *arguments)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 100_000, "kilobytes"
    assert (tmp_path / "back").stat().st_size == 150_000_000
    machine.exec("rm", "/srv/zeros", check=True)


def test_an_engine_that_refuses_says_why(machine: Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5_000_000))
    (tmp_path / "directory").mkdir()
    machine.exec("mkdir -p /srv/way/file; touch /srv/way/directory", check=True)
    for name in ("file", "directory"):
        done = redock("cp", str(tmp_path / name), f"{machine.image.name}:/srv/way")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "is in the way" in done.stderr
    assert machine.exec("stat -c %F /srv/way/*").stdout == "regular empty file\ndirectory\n"
    # Deeper down it is the engine that says so, or cp.
    machine.exec("mkdir -p /srv/deep/directory/file/x", check=True)
    inside = tmp_path / "directory" / "file"
    for contents in (b"small", bytes(5_000_000)):
        inside.write_bytes(contents)
        done = redock("cp", str(inside.parent), f"{machine.image.name}:/srv/deep")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert "directory" in done.stderr
        found = machine.exec("cd /srv/deep; find .").stdout.split()
        assert found == [".", "./directory", "./directory/file", "./directory/file/x"]


def test_directories_are_synchronised_both_ways(
    machine: Container, tree: Path, tmp_path: Path
) -> None:
    name = machine.image.name
    done = redock("sync", f"{tree}/", f"{name}:/srv/sync dir")
    assert done.returncode == 0, done.stderr
    assert machine.exec("find '/srv/sync dir' -printf '%u\\n' | sort -u").stdout == "root\n"
    machine.exec("echo new >'/srv/sync dir/new'; ln -s /etc/passwd '/srv/sync dir/out'")
    dry = redock("sync", "-n", "--delete", f"{tree}/", f"{name}:/srv/sync dir")
    assert re.search(r"^\*deleting +new$", dry.stdout, re.MULTILINE)
    assert machine.exec("cat", "/srv/sync dir/new").stdout == "new\n"
    back = tmp_path / "back"
    assert redock("sync", "--exclude", "big", f"{name}:/srv/sync dir/", str(back)).returncode == 0
    assert (back / "new").read_text() == "new\n"
    assert not (back / "big").exists()
    # What leads out of the directory is not taken along.
    assert not (back / "out").is_symlink()
    assert (back / "link").is_symlink()
    machine.sync_in(f"{tree}/", "/srv/sync dir", delete=True)
    assert not machine.exec("test", "-e", "/srv/sync dir/new")
    machine.sync_out("/srv/sync dir/", back, exclude=["sub"], delete=True)
    assert not (back / "new").exists()
    assert redock("sync", str(tmp_path / "missing"), f"{name}:/srv/x").returncode == 23
    done = redock("sync", f"{tree}/", f"{name}:/x", env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "apt-get install rsync" in done.stderr


# Ports.


@pytest.fixture
def server(machine: Container) -> Iterator[int]:
    """A web server in the machine; its port."""
    machine.exec("mkdir -p /srv/www && echo inside >/srv/www/page", check=True)
    machine.exec(
        "cd /srv/www && (setsid python3 -m http.server --bind 127.0.0.1 8123 >/dev/null 2>&1 &)",
        check=True,
    )
    machine.wait("port:8123", timeout=PATIENCE)
    yield 8123
    machine.exec("pkill", "-f", "http.server")


def fetch(port: int) -> bytes:
    """Get a page over a port of this host."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/page")
        return connection.getresponse().read()
    finally:
        connection.close()


def refused(port: int) -> bool:
    """Check that nobody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_leads_in_while_it_is_forwarded(machine: Container, server: int) -> None:
    with machine.forward(f"0:{server}") as forward:
        port = forward.port
        assert fetch(port) == b"inside\n"
        assert forward.alive
        # Not taken by a second one, which would end it for the first.
        with pytest.raises(PortUnavailable, match="already"):
            machine.forward(f"{port}:{server}")
        assert fetch(port) == b"inside\n"
    assert refused(port)
    assert _forward.find_forwards() == []


def test_forward_stays_until_it_is_interrupted(machine: Container, server: int) -> None:
    name = machine.image.name
    for number in (signal.SIGINT, signal.SIGTERM):
        running = subprocess.Popen(
            [*REDOCK, "forward", name, f"0:{server}", f"0:{server}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert running.stdout
        ports = []
        for _ in range(2):
            found = re.fullmatch(
                rf"127\.0\.0\.1:(\d+) -> {machine.ssh_alias}:{server}\n", running.stdout.readline()
            )
            assert found
            ports.append(int(found[1]))
        assert [fetch(port) for port in ports] == [b"inside\n"] * 2
        assert len(redock("forward", name, "--list").stdout.splitlines()) == 2
        running.send_signal(number)
        assert running.wait(PATIENCE) == (0 if number == signal.SIGINT else 143)
        running.stdout.close()
        assert all(refused(port) for port in ports)
        assert redock("forward", name, "--list").stdout == ""


def test_forward_in_the_background_stays_until_it_is_cancelled(
    machine: Container, server: int
) -> None:
    name = machine.image.name
    done = redock("forward", name, "--background", f"0:{server}", f"0:{server}")
    assert done.returncode == 0
    ports = [int(port) for port in re.findall(r":(\d+) ->", done.stdout)]
    assert [fetch(port) for port in ports] == [b"inside\n"] * 2
    assert redock("forward", name, "--list").stdout == done.stdout
    assert redock("forward", name, "--cancel", str(ports[0])).returncode == 0
    assert refused(ports[0])
    assert fetch(ports[1]) == b"inside\n"
    assert redock("forward", name, "--cancel", str(ports[0])).returncode == 1
    assert redock("forward", name, "--cancel").returncode == 0
    assert refused(ports[1])
    assert redock("forward", name, "--list").stdout == ""


def test_a_port_that_is_taken_is_one_line(machine: Container, server: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = redock("forward", machine.image.name, f"{port}:{server}")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert f"127.0.0.1:{port}" in done.stderr
    assert _forward.find_forwards() == []
    with pytest.raises(PortUnavailable):
        machine.forward("22", reverse=True)


def test_a_port_of_a_killed_redock_can_be_taken_again(machine: Container, server: int) -> None:
    running = subprocess.Popen(
        [*REDOCK, "forward", machine.image.name, f"0:{server}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    port = int(re.search(r":(\d+) ->", running.stdout.readline())[1])  # type: ignore[index]
    running.kill()
    running.communicate()
    wait_for(lambda: _forward.find_forwards() == [])
    with machine.forward(f"{port}:{server}"):
        assert fetch(port) == b"inside\n"
    assert refused(port)


def test_a_machine_reaches_this_host(machine: Container) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"outside")

        threading.Thread(target=answer, daemon=True).start()
        with machine.forward(f"9123:{listener.getsockname()[1]}", reverse=True):
            program = "import socket; print(socket.create_connection(('127.0.0.1', 9123)).recv(99))"
            assert machine.exec("python3", "-c", program).stdout == "b'outside'\n"
        assert not machine.exec('ss -Hltn "sport = :9123" | grep .')


def test_forwardings_end_with_the_machine(container: Container) -> None:
    name = container.image.name
    assert redock("forward", name, "--background", "0:22").returncode == 0
    running = subprocess.Popen(
        [*REDOCK, "forward", name, "0:22"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert running.stdout
    running.stdout.readline()
    container.stop()
    assert running.wait(PATIENCE) == 3
    running.stdout.close()
    wait_for(lambda: _forward.find_forwards() == [])
    assert redock("forward", name, "--list").stdout == ""


# Editors.


def test_an_editor_is_started_with_the_machine_up(container: Container, tmp_path: Path) -> None:
    (tmp_path / "code").write_text('#!/bin/sh\nfor each; do printf "<%s>" "$each"; done\nexit 6\n')
    (tmp_path / "code").chmod(0o755)
    container.stop()
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = redock("open", container.image.name, "/srv/a b", env={"PATH": path})
    alias = container.ssh_alias
    assert (done.returncode, done.stdout) == (6, f"<--remote><ssh-remote+{alias}></srv/a b>")
    assert state_of(container) == "running"
    done = redock("open", container.image.name, "--print", "/srv/a b", env={"PATH": path})
    assert done.stdout == (f"ssh://{alias}\nvscode://vscode-remote/ssh-remote+{alias}/srv/a%20b\n")
    # The address is one that ssh understands.
    assert command("ssh", done.stdout.split()[0], "echo yes").stdout == "yes\n"
    assert redock("open", container.image.name, "--editor", "nano").returncode == 2


# Waiting.


def test_waiting_ends_when_it_is_so(container: Container) -> None:
    name = container.image.name
    assert redock("wait", name).returncode == 0
    assert redock("wait", name, "--for", "port:22").returncode == 0
    for condition in ("port:4444", "stopped"):
        done = redock("wait", "-t", "0.5", name, "--for", condition)
        assert (done.returncode, done.stderr.count("\n")) == (124, 1)
    timer = threading.Timer(0.5, lambda: redock("stop", name))
    timer.start()
    assert redock("wait", "-t", "60", name, "--for", "stopped").returncode == 0
    timer.join()
    timer = threading.Timer(0.5, lambda: redock("start", name))
    timer.start()
    assert redock("wait", "-t", "60", name).returncode == 0
    timer.join()
    with pytest.raises(Timeout, match="not there"):
        Container(f"{name}x").wait(timeout=0.1)
    with pytest.raises(NotFound):
        Container(f"{name}x").copy_out("/x", "/tmp")


def test_lines_of_forward_can_be_read_by_a_shell(machine: Container) -> None:
    # Standard output has results only, so that scripts can use them.
    done = redock("forward", "-q", machine.image.name, "--background", "0:22")
    port = shlex.split(done.stdout)[0].rpartition(":")[2]
    assert port.isdigit()
    assert redock("forward", machine.image.name, "--cancel", port).stdout == done.stdout
