"""
The remote half of redock.bootstrap, and the whole of it over a pipe.

A program named ssh that runs the command here stands in for the connection;
everything else is real: the interpreter, execnet, the operations.
"""

from __future__ import annotations

import ast
import glob
import importlib.util
import io
import marshal
import os
import py_compile
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redock import _remote
from redock.bootstrap import Bootstrap, _connection, _payload
from redock.bootstrap._payload import FIRST_WORDS, MARK, compose
from redock.errors import ConnectionFailed, InvalidArgument, OperationFailed

FAKE_SSH = '#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n'
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
PROPERTY = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def interpreters() -> list[str]:
    """Python interpreters that happen to be installed, oldest first."""
    home = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    return sorted(glob.glob(f"{home}/versions/*/bin/python"))


@pytest.fixture(scope="module")
def fake_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("bin")
    (directory / "ssh").write_text(FAKE_SSH)
    (directory / "ssh").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{directory}:{before}"
    yield directory
    os.environ["PATH"] = before


@pytest.fixture(scope="module")
def host(fake_ssh: Path) -> Iterator[Bootstrap]:
    with Bootstrap("here", python=sys.executable) as host:
        yield host


# What is sent -----------------------------------------------------------------------------------


def test_nothing_of_redock_is_imported_and_the_syntax_is_old() -> None:
    sent: set[str] = set()
    for module, path in _remote.paths().items():
        for node in ast.walk(ast.parse(Path(path).read_text(), feature_version=(3, 8))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                # What the package itself has must have been loaded before.
                assert name in sent or name.partition(".")[0] in sys.stdlib_module_names, name
        sent.add(module)
    assert len(sent) == len(list(Path(_remote.__file__).parent.glob("_[a-z]*.py")))


@pytest.mark.parametrize("python", interpreters())
def test_every_interpreter_gets_along_or_says_why(
    python: str, fake_ssh: Path, tmp_path: Path
) -> None:
    probe = "import sys; print('%d %d' % sys.version_info[:2])"
    version = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=True)
    number = tuple(map(int, version.stdout.split()))
    with Bootstrap("here", python=python) as host:
        if number < (3, 8):
            with pytest.raises(ConnectionFailed, match=r"has Python (2|3)") as caught:
                host.read_file("/etc/hostname")
            assert caught.value.cause == "old-python"
            return
        path = str(tmp_path / "file")
        assert host.file(path, "x").changed
        assert host.file(path, "x").changed is False
        assert host.facts.python.startswith(version.stdout.strip().replace(" ", "."))
        assert host.execute("echo hello", capture=True).stdout == "hello\n"
        with host.batch():
            for index in range(20):
                host.file(f"{path}{index}", "x")
        assert host.read_file(f"{path}19") == b"x"


def test_an_incomplete_interpreter_says_so(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise ImportError('No module named queue')")
    first, packed = compose()
    done = subprocess.run(
        [sys.executable, "-c", FIRST_WORDS],
        input=first + packed,
        capture_output=True,
        env={"PYTHONPATH": str(tmp_path)},
        timeout=30,
        check=False,
    )
    assert done.stdout == MARK + b"incomplete-python No module named queue\n"


def test_what_was_compiled_is_sent_as_long_as_it_is_up_to_date(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("value = 1\n")
    assert _payload.compiled(str(source)) == b""
    py_compile.compile(str(source))
    assert marshal.loads(_payload.compiled(str(source))).co_names == ("value",)
    source.write_text("value = 12\n")
    assert _payload.compiled(str(source)) == b""


@pytest.mark.parametrize("magic", [importlib.util.MAGIC_NUMBER, b"\0\0\0\0"])
def test_text_is_there_for_any_other_python(
    fake_ssh: Path, monkeypatch: pytest.MonkeyPatch, magic: bytes
) -> None:
    for path in _remote.paths().values():
        py_compile.compile(path)
    if magic == importlib.util.MAGIC_NUMBER:
        # Where what was compiled is taken, the text is not looked at.
        def broken(path: str, read: Any = open) -> Any:
            real = "gateway" in path or not path.endswith(".py")
            return read(path, "rb") if real else io.BytesIO(b"not Python")

        monkeypatch.setattr(_payload, "open", lambda path, mode: broken(path), raising=False)
    else:
        monkeypatch.setattr(importlib.util, "MAGIC_NUMBER", magic)
    payload = compose()
    monkeypatch.undo()
    monkeypatch.setattr(_connection, "payloads", [payload])
    with Bootstrap("here", python=sys.executable) as host:
        assert host.facts.python


def test_what_is_sent_is_small() -> None:
    assert sum(map(len, compose())) < 160_000


# Over the pipe ----------------------------------------------------------------------------------


def test_noise_before_and_after(fake_ssh: Path, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho noise\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    with (
        pytest.raises(ConnectionFailed, match="'noise'") as caught,
        Bootstrap("here", python=str(program)) as host,
    ):
        host.read_file("/etc/hostname")
    assert caught.value.cause == "noisy-shell"


def test_nothing_is_left_running(fake_ssh: Path) -> None:
    with Bootstrap("here", python=sys.executable) as host:
        pid = host.call(own_pid)
        assert os.path.exists(f"/proc/{pid}")
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def own_pid() -> int:
    import os

    return os.getpid()


def test_started_early_or_closed_twice(fake_ssh: Path) -> None:
    host = Bootstrap("here", python=sys.executable)
    host.start()
    host.start()
    assert host.call(own_pid)
    host.close()
    host.close()
    assert host.call(own_pid)
    host.close()
    host.start()
    host.close()


@PROPERTY
@given(words=st.lists(TEXT, min_size=1, max_size=3))
def test_arguments_round_trip(host: Bootstrap, words: list[str]) -> None:
    result = host.execute("printf", "%s\\0", *words, capture=True)
    assert result.stdout.split("\0")[:-1] == words


@PROPERTY
@given(content=st.one_of(TEXT, st.binary(max_size=100)), name=TEXT)
def test_contents_and_names_round_trip(
    host: Bootstrap, tmp_path_factory: pytest.TempPathFactory, content: str | bytes, name: str
) -> None:
    name = name.replace("/", "") + "x"
    directory = tmp_path_factory.getbasetemp() / "names"
    path = directory / name
    if len(name.encode()) > 255:
        return
    host.upload_file(path, content)
    assert host.upload_file(path, content).changed is False
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert host.read_file(path) == expected
    assert os.listdir(directory) == [name]
    assert host.file(path, state="absent").changed


@PROPERTY
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**31))
        | st.floats(allow_nan=False)
        | TEXT
        | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    )
)
def test_values_round_trip(host: Bootstrap, value: Any) -> None:
    assert host.call(identity, value=value) == value


def identity(value: object) -> object:
    return value


@PROPERTY
@given(
    lines=st.lists(st.sampled_from(["a", "b", "a=1", "", "c"]), max_size=5),
    end=st.sampled_from(["", "\n"]),
    line=st.sampled_from(["a", "new", ""]),
    match=st.sampled_from([None, "^a", "^b$"]),
    state=st.sampled_from(["present", "absent"]),
)
def test_a_line_is_there_or_not_and_the_rest_stays(
    host: Bootstrap,
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    end: str,
    line: str,
    match: str | None,
    state: Any,
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    path.write_text("\n".join(lines) + (end if lines else ""))
    before = path.read_text().split("\n")
    host.line(path, line, match=match, state=state)
    after = path.read_text().split("\n")
    if state == "present":
        assert line in after
        assert [x for x in before if x in ("c",)] == [x for x in after if x == "c"]
    else:
        assert line not in after[:-1]
    assert host.line(path, line, match=match, state=state).changed is False


def test_large_answers_are_refused(host: Bootstrap, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as handle:
        handle.truncate(60 << 20)
    with pytest.raises(OperationFailed, match="more than 48 MiB"):
        host.read_file(tmp_path / "large")
    with pytest.raises(OperationFailed, match="more than 48 MiB"):
        host.execute("cat", str(tmp_path / "large"), capture=True)
    assert host.read_file(tmp_path / "none") is None


def test_temporaries_of_killed_runs_are_collected(host: Bootstrap, tmp_path: Path) -> None:
    (tmp_path / ".redock-0123").write_text("half")
    (tmp_path / ".redock").write_text("not ours")
    host.file(tmp_path / "file", "x")
    assert sorted(os.listdir(tmp_path)) == [".redock", "file"]


def test_a_source_that_shrinks(host: Bootstrap, tmp_path: Path, monkeypatch: Any) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 1_000_000)
    from redock.bootstrap import _files

    original = _files.pieces_of_file

    def shrink(path: Any, size: int) -> Any:
        source.write_bytes(b"x" * 600_000)
        return original(path, size)

    monkeypatch.setattr(_files, "pieces_of_file", shrink)
    with pytest.raises(OperationFailed, match="shorter"):
        host.file(tmp_path / "target", source=source)
    assert os.listdir(tmp_path) == ["source"]
    assert host.file(tmp_path / "small", "x").changed


def test_an_overlapping_batch(host: Bootstrap, tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with host.batch():
        for content in "ab", "bc", "cd":
            host.file(path, content)
        host.file(tmp_path / "real/x", "1")
        same = host.file(tmp_path / "link/x", "1")
        host.file(tmp_path / "link/x", "2")
        with_line = host.line(path, "e")
    assert path.read_text() == "cd\ne\n"
    assert (same.changed, with_line.changed) == (False, True)
    assert (tmp_path / "real/x").read_text() == "2"
    with pytest.raises(OperationFailed), host.batch():
        host.file(path, "kept")
        host.file(path / "below", "x")
        host.file(tmp_path / "never", "x")
    assert path.read_text() == "kept"
    assert not (tmp_path / "never").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".redock-")]


def test_a_batch_that_pauses_does_not_block_others(fake_ssh: Path, tmp_path: Path) -> None:
    with (
        Bootstrap("one", python=sys.executable) as one,
        Bootstrap("two", python=sys.executable, timeout=5) as two,
        one.batch(),
    ):
        one.file(tmp_path / "one", "x")
        assert two.file(tmp_path / "two", "x").changed
        assert (tmp_path / "one").exists()


def test_an_error_inside_of_a_batch_is_not_hidden(host: Bootstrap, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), host.batch():
        host.file(tmp_path / "file", "x")
        raise ZeroDivisionError
    assert (tmp_path / "file").exists()
    with pytest.raises(InvalidArgument, match="inside"), host.batch(), host.batch():
        pass
    assert host.file(tmp_path / "other", "x").changed


def test_changes_cannot_be_modified(host: Bootstrap, tmp_path: Path) -> None:
    change = host.file(tmp_path / "file", "x")
    for name in ("changed", "other"):
        with pytest.raises(AttributeError):
            setattr(change, name, False)
    with pytest.raises(AttributeError):
        del change.changed
    with pytest.raises(AttributeError):
        change.nothing  # noqa: B018


class Fading:
    """A service that is starting when it is looked at first, and has failed ever after."""

    def __init__(self) -> None:
        self.states = iter(["STARTING"])

    def state(self) -> str:
        return next(self.states, "FATAL")

    def running(self, name: str) -> bool:
        return self.state() in ("RUNNING", "STARTING")

    def undecided(self, name: str) -> bool:
        return self.state() == "STARTING"

    def gave_up(self, name: str) -> bool:
        return self.state() == "FATAL"

    def log(self, name: str) -> str:
        return ": the reason"


def test_a_service_that_fails_while_it_is_looked_at_has_failed() -> None:
    from redock._remote._services import verify_service
    from redock._remote._world import Failure

    with pytest.raises(Failure, match="after start it is not running: the reason"):
        verify_service(Fading(), "web", "running", "start", None)  # type: ignore[no-untyped-call]
