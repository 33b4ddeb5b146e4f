"""redock.bootstrap without any host: arguments, changes, secrets."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock import bootstrap
from redock.bootstrap import Bootstrap, Change, ChangeList, Secret, _session
from redock.bootstrap._change import MASK, mask, reveal
from redock.bootstrap._requests import (
    argv,
    authorized_keys_text,
    file_mode,
    package_names,
    path_bytes,
    repository_text,
    unified_diff,
)
from redock.errors import (
    ConnectionFailed,
    ExternalCommandFailed,
    InvalidArgument,
    InvalidName,
    OperationFailed,
    OperationTimeout,
    RedockError,
    Timeout,
)


def test_what_is_exported() -> None:
    assert sorted(bootstrap.__all__) == bootstrap.__all__
    for name in bootstrap.__all__:
        assert getattr(bootstrap, name)
    assert bootstrap.ExternalCommandFailed is ExternalCommandFailed


def test_importing_is_cheap() -> None:
    program = (
        "import sys, redock.bootstrap;"
        "print([m for m in ('execnet', 'inspect', 'dataclasses', 'docker', 'jinja2', 'json',"
        " 'concurrent.futures', 'hashlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(bootstrap.__file__).parents[2],
        timeout=30,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_constructor_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with Bootstrap("web-container", sudo=True) as host:
        assert repr(host) == "Bootstrap('web-container')"


@pytest.mark.parametrize("alias", ["", "-x", "a b", "a//b", "a\nb", "-oProxyCommand=id", "a@-b"])
def test_aliases_that_are_refused(alias: str) -> None:
    with pytest.raises(InvalidName):
        Bootstrap(alias)


@pytest.mark.parametrize("python", ["", "python3; id", "$(id)", "-x", "python3'", "a\nb"])
def test_interpreters_that_are_refused(python: str) -> None:
    with pytest.raises(InvalidArgument):
        Bootstrap("web", python=python)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Bootstrap:
    """A host that must not be connected to."""

    def connect(self: Bootstrap) -> None:
        pytest.fail("it connected")

    monkeypatch.setattr(Bootstrap, "_connect", connect)
    return Bootstrap("web")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda host: host.file("relative", "x"),
        lambda host: host.file("", "x"),
        lambda host: host.file("/a\0b", "x"),
        lambda host: host.file(b"/bytes", "x"),
        lambda host: host.file("/a", 5),
        lambda host: host.file("/a", "\ud800"),
        lambda host: host.file("/a", "x", source="/b"),
        lambda host: host.file("/a", mode="rwx"),
        lambda host: host.file("/a", mode=-1),
        lambda host: host.file("/a", mode=0o10000),
        lambda host: host.file("/a", mode=True),
        lambda host: host.file("/a", owner="-x"),
        lambda host: host.file("/a", owner=-1),
        lambda host: host.file("/a", group="a:b"),
        lambda host: host.file("/a", state="gone"),
        lambda host: host.file("/a", "x", validate="true"),
        lambda host: host.directory("/", state="absent", recurse=True),
        lambda host: host.directory("//", recurse=True, owner="x"),
        lambda host: host.symlink("/a"),
        lambda host: host.line("/a", "x\ny"),
        lambda host: host.line("/a", "x", match="("),
        lambda host: host.packages(),
        lambda host: host.packages("-o=x"),
        lambda host: host.packages("a b"),
        lambda host: host.packages("A"),
        lambda host: host.packages("nginx\n"),
        lambda host: host.packages("nginx/bookworm"),
        lambda host: host.group("-g"),
        lambda host: host.user("a:b"),
        lambda host: host.user("a", groups=["-x"]),
        lambda host: host.user("a", password_hash="x:y"),
        lambda host: host.user("a", password_hash="x\ny"),
        lambda host: host.service("-x"),
        lambda host: host.service("../x"),
        lambda host: host.service("x", "up"),
        lambda host: host.command(),
        lambda host: host.command(""),
        lambda host: host.command("a\0b"),
        lambda host: host.command("a", Secret("b")),
        lambda host: host.execute("a", "x" * 200_000),
        lambda host: host.execute("a", env={"A=B": "x"}),
        lambda host: host.execute("a", env={"A": "x\0"}),
        lambda host: host.apt_repository("a/b", uris="x", suites="y"),
        lambda host: host.apt_repository("a", uris="x y", suites="y"),
        lambda host: host.apt_repository("a", uris="x"),
        lambda host: host.apt_repository("a", uris="x", suites="y", signed_by="a\n/b"),
        lambda host: host.template("/a", "{{ x }}"),
        lambda host: host.template("/a", "{% x"),
        lambda host: host.template("/a", Path("/no/such/template")),
        lambda host: host.rsync("/no/such/directory", "/x"),
        lambda host: host.call(len),
        lambda host: host.call(lambda: 1),
    ],
)
def test_wrong_arguments_are_refused_before_anything_happens(
    host: Bootstrap, wrong: Callable[[Bootstrap], object]
) -> None:
    with pytest.raises(InvalidArgument):
        wrong(host)


def test_modes() -> None:
    assert file_mode(0o644) == file_mode("644") == file_mode("0644") == file_mode("0o644")
    assert file_mode(None) is None


def test_paths() -> None:
    assert path_bytes("/a/b/") == b"/a/b"
    assert path_bytes("/") == b"/"
    assert path_bytes(Path("/ü")) == "/ü".encode()


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1)
)
def test_words_survive(words: list[str]) -> None:
    words[0] = words[0] or "x"
    assert [word.decode() for word in argv(words)] == words


def test_packages_are_named_once() -> None:
    assert package_names(["a1", "b1:amd64", "a1", "c1=1:2.0~rc1-1"]) == [
        "a1",
        "b1:amd64",
        "c1=1:2.0~rc1-1",
    ]


def test_repositories() -> None:
    key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
    text = repository_text("x", "https://e.org/", ["a", "b"], ["main"], key, "present")
    assert text.decode() == (
        "Types: deb\nURIs: https://e.org/\nSuites: a b\nComponents: main\nSigned-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )


def test_authorized_keys() -> None:
    assert authorized_keys_text("a\nb") == authorized_keys_text(["a", "b\n"]) == b"a\nb\n"
    assert authorized_keys_text([]) == b""
    assert authorized_keys_text(None) is None


@given(st.text(st.sampled_from("ab\n")), st.text(st.sampled_from("ab\n")))
def test_a_diff_is_empty_only_for_equal_texts(before: str, after: str) -> None:
    diff = unified_diff("/x", before.encode(), after.encode())
    assert bool(diff) == (before != after)
    assert diff.endswith("\n") or not diff


def test_binary_content_has_no_diff() -> None:
    assert unified_diff("/x", b"\xff", b"a\n") == ""
    assert unified_diff("/x", b"a\n", b"\0\n") == ""


# Changes ----------------------------------------------------------------------------------------


def test_truth_of_changes() -> None:
    assert Change("h", "file", "/x", True)
    assert not Change("h", "file", "/x", False)
    assert Change("h", "file", "/x", None, reason="why")


def test_texts_of_changes() -> None:
    change = Change(
        "web",
        "file",
        "/etc/motd",
        True,
        {"content": ("1", "2"), "mode": ("0644", "0600"), "owner": (None, "root")},
        diff="--- a\n+++ b\n@@ -1 +1,2 @@\n-x\n+y\n+++z\n",
    )
    assert str(change) == (
        "[web] file /etc/motd: content changed (+2 -1), mode 0644 -> 0600, owner root"
    )
    assert (
        str(Change("web", "user", "x", None, reason="because")) == "[web] user x: unknown (because)"
    )
    assert repr(Change("web", "user", "x", False)) == "<Change [web] user x: unchanged>"


def test_lists_of_changes() -> None:
    changes = ChangeList("web", [Change("web", "a", "b", value) for value in (True, False, None)])
    changes.failed.append(ValueError("x"))
    assert changes.summary() == "[web] 1 unchanged, 1 changed, 1 failed, 1 unknown in 0.0 s"
    data = json.loads(changes.to_json())
    assert (data["ok"], data["errors"], len(data["changes"])) == (False, ["x"], 3)
    assert len(changes) == len(list(changes)) == 3
    assert changes[0].changed


# Secrets ----------------------------------------------------------------------------------------


def test_secrets_do_not_show() -> None:
    secret = Secret("opensesame")
    for text in (
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>20}",
        str([secret]),
    ):
        assert "sesame" not in text
    assert secret.reveal() == "opensesame"
    assert secret == Secret("opensesame")
    assert len({secret, Secret("opensesame")}) == 1
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_masking() -> None:
    Secret("abc")
    assert mask("abc") == "abc"
    Secret("first-secret")
    Secret("first-secret-and-more")
    Secret("multi\nline-one\nline-two")
    assert mask("a first-secret-and-more b") == f"a {MASK} b"
    assert mask("x line-one y") == f"x {MASK} y"
    change = Change(
        "h", "x", "first-secret", True, {"a": (None, "first-secret")}, reason="first-secret"
    )
    assert "first-secret" not in str(change) + repr(change) + json.dumps(change.as_dict())


def test_revealing() -> None:
    value, found = reveal({"a": [Secret("x"), 1], "b": ("y",)})
    assert (value, found) == ({"a": ["x", 1], "b": ("y",)}, True)
    assert reveal({"a": 1}) == ({"a": 1}, False)


# Errors -----------------------------------------------------------------------------------------


def test_errors_are_of_the_tree() -> None:
    assert issubclass(OperationFailed, ExternalCommandFailed)
    assert issubclass(OperationTimeout, Timeout)
    assert issubclass(ConnectionFailed, ConnectionError)
    for kind in (
        "FileNotFoundError",
        "KeyError",
        "ValueError",
        "OSError",
        "TypeError",
        "MemoryError",
    ):
        error = _session.operation_failed_as(kind)("message", "host", "file /x", remote_type=kind)
        assert isinstance(error, OperationFailed)
        assert kind in [base.__name__ for base in type(error).__mro__]
        assert str(error) == "file /x on host failed: message"
    for kind in (
        "UnicodeDecodeError",
        "ExceptionGroup",
        "SystemExit",
        "NoSuchName",
        "SyntaxError",
        "",
    ):
        assert _session.operation_failed_as(kind) is OperationFailed
    assert issubclass(InvalidArgument, RedockError)


def test_everything_of_execnet_is_mapped() -> None:
    import execnet

    from redock.bootstrap._connection import Connection

    connection = Connection("web", "python3", False, 1.0, lambda process: None)
    for error in (
        execnet.RemoteError("x"),
        execnet.TimeoutError("x"),
        EOFError("x"),
        OSError("cannot send"),
    ):
        assert isinstance(connection.lost(error, 1.0, "file /x"), ConnectionFailed)
