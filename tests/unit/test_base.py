"""The base image: its recipe, its names, and registries that refuse or say nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from redock import _distribution, _recipe, base
from redock._engine import Engine, label
from redock._names import is_reserved
from redock.base import (
    base_tag,
    create_base_image,
    download_image,
    find_base_image,
    find_named_image,
    find_ready_base,
    lines_of,
    refuse_pull,
    wanted_base,
)
from redock.errors import BaseImageFailed, EngineError, ImageUnavailable, InvalidName
from tests.unit.conftest import PATIENCE

# The recipe.


def test_the_hash_of_the_recipe_is_stable() -> None:
    assert _recipe.fingerprint() == _recipe.fingerprint()
    assert len(_recipe.fingerprint()) == 16


@pytest.mark.parametrize("path", sorted(_recipe.files()))
@pytest.mark.parametrize("change", ["contents", "mode", "name"])
def test_any_change_of_any_file_changes_the_hash(
    path: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _recipe.fingerprint()
    files = _recipe.files()
    mode, contents = files.pop(path)
    if change == "contents":
        files[path] = (mode, contents + "#")
    elif change == "mode":
        files[path] = (mode ^ 0o100, contents)
    else:
        files[path + "x"] = (mode, contents)
    monkeypatch.setattr(_recipe, "files", lambda: files)
    assert _recipe.fingerprint() != before


@pytest.mark.parametrize("name", ["SETUP", "PACKAGES", "HELD", "IDENTITY_DIRECTORY"])
def test_any_change_of_the_script_changes_the_hash(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _recipe.fingerprint()
    value = getattr(_recipe, name)
    monkeypatch.setattr(_recipe, name, (*value, "x") if isinstance(value, tuple) else value + "x")
    assert _recipe.fingerprint() != before


def test_the_script_installs_what_the_manual_lists() -> None:
    script = _recipe.setup_script()
    for package in ("openssh-server", "supervisor", "python3", "rsync", "iproute2"):
        assert package in script
    for package in ("initscripts", "upstart"):
        assert package in script
    assert "@PACKAGES@" not in script
    assert "@HELD@" not in script
    assert "rm -f /etc/ssh/ssh_host_*" in script


def test_the_ssh_server_takes_keys_only() -> None:
    lines = _recipe.SSHD_CONFIG.splitlines()
    for line in (
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitEmptyPasswords no",
        "PermitRootLogin prohibit-password",
    ):
        assert line in lines
    assert not any(line.startswith("Subsystem") for line in lines)


# Names.


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("debian:12", "debian:12"),
        ("debian", "debian:latest"),
        ("localhost:5000/debian", "localhost:5000/debian:latest"),
        ("localhost:5000/debian:12", "localhost:5000/debian:12"),
        ("me/image:Tag", "me/image:Tag"),
    ],
)
def test_a_base_is_the_name_of_an_image(asked: str, wanted: str) -> None:
    assert wanted_base(asked) == wanted


@pytest.mark.parametrize(
    "asked", ["A:b", "a:b:c", ":", "a b", "-x", "a:", "../x", "a@sha256:0", "a\n"]
)
def test_a_base_outside_the_grammar_is_refused(asked: str) -> None:
    with pytest.raises(InvalidName, match="invalid base image"):
        wanted_base(asked)


def test_what_is_asked_for_comes_before_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted_base(None) is None
    monkeypatch.setenv("REDOCK_BASE", "debian:13")
    assert wanted_base(None) == "debian:13"
    assert wanted_base("debian:12") == "debian:12"


def test_each_base_has_a_reserved_name_of_its_own() -> None:
    tags = [base_tag(wanted) for wanted in (None, "debian:12", "debian:13", "me/image:x")]
    assert tags == ["base", "base-debian-12", "base-debian-13", "base-me-image-x"]
    assert all(is_reserved("redock", tag) for tag in tags)


# Registries.


@pytest.mark.parametrize(
    "reason",
    [
        "manifest for debian:99 not found: manifest unknown",
        "pull access denied for x, repository does not exist",
        "unauthorized: authentication required",
        "no matching manifest for linux/arm64",
    ],
)
def test_a_registry_that_refuses_has_no_such_image(reason: str) -> None:
    with pytest.raises(ImageUnavailable, match="cannot be downloaded") as caught:
        refuse_pull("debian:99", reason, 500)
    assert not isinstance(caught.value, _distribution.RegistrySilent)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ('Get "https://x/v2/": dial tcp: lookup x on 127.0.0.1:53: no such host', 500),
        ('Get "https://x/v2/": dial tcp: lookup x: no such host', 404),
        ("net/http: request canceled while waiting for connection", 500),
        ("connection\nrefused", 0),
    ],
)
def test_a_registry_out_of_reach_is_silent(reason: str, status: int) -> None:
    with pytest.raises(_distribution.RegistrySilent) as caught:
        refuse_pull("debian:12", reason, status)
    assert "\n" not in str(caught.value)


class Registry:
    """A connection of the SDK whose pulls do what a test says."""

    def __init__(self, pull: Callable[[], Iterator[dict[str, object]]]) -> None:
        self.do_pull = pull

    def pull(self, *_: object, **__: object) -> Iterator[dict[str, object]]:
        return self.do_pull()


class FakeEngine(Engine):
    """An engine with a registry, that has the images it was told."""

    def __init__(self, pull: Callable[[], Iterator[dict[str, object]]]) -> None:
        super().__init__()
        self.here: dict[str, dict[str, Any]] = {}
        self._client = Registry(pull)  # type: ignore[assignment]

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        return self.here.get(image)


def test_an_image_that_is_here_is_not_downloaded() -> None:
    engine = FakeEngine(lambda: pytest.fail("not asked for"))
    engine.here["debian:12"] = {"Id": "sha256:1"}
    download_image(engine, "debian", "12")
    assert find_named_image(engine, "debian", "12") == "sha256:1"
    assert find_named_image(engine, "debian", "13") is None


def test_an_image_is_downloaded() -> None:
    def pull() -> Iterator[dict[str, object]]:
        yield {"status": "Pulling", "id": "12"}
        engine.here["debian:12"] = {"Id": "sha256:1"}
        yield {"status": "Done"}

    engine = FakeEngine(pull)
    download_image(engine, "debian", "12")


def test_a_registry_that_says_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def pull() -> Iterator[dict[str, object]]:
        released.wait(PATIENCE)
        yield {}

    monkeypatch.setattr(base, "REGISTRY_PATIENCE", 0.05)
    try:
        with pytest.raises(_distribution.RegistrySilent, match=r"within 0\.05 seconds"):
            download_image(FakeEngine(pull), "debian", "12")
    finally:
        released.set()


def test_a_registry_has_ten_seconds() -> None:
    assert base.REGISTRY_PATIENCE <= 10


def test_a_download_may_pause_longer_than_a_registry_may_be_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pull() -> Iterator[dict[str, object]]:
        yield {"status": "Pulling"}
        threading.Event().wait(0.2)
        engine.here["debian:12"] = {"Id": "sha256:1"}
        yield {"status": "Done"}

    monkeypatch.setattr(base, "REGISTRY_PATIENCE", 0.1)
    engine = FakeEngine(pull)
    download_image(engine, "debian", "12")


def test_an_error_in_the_middle_of_a_download_is_classified() -> None:
    def pull() -> Iterator[dict[str, object]]:
        yield {"error": "manifest unknown"}

    with pytest.raises(ImageUnavailable, match="manifest unknown"):
        download_image(FakeEngine(pull), "debian", "12")


def test_an_error_of_the_sdk_is_classified() -> None:
    def pull() -> Iterator[dict[str, object]]:
        raise docker.errors.APIError("x", explanation="dial tcp: lookup x: no such host")
        yield {}

    with pytest.raises(_distribution.RegistrySilent, match="no such host"):
        download_image(FakeEngine(pull), "debian", "12")


def test_a_mistake_of_ours_is_not_taken_for_a_silent_registry() -> None:
    def pull() -> Iterator[dict[str, object]]:
        raise ZeroDivisionError
        yield {}

    with pytest.raises(ZeroDivisionError):
        download_image(FakeEngine(pull), "debian", "12")


def test_an_image_that_vanished_is_one_line() -> None:
    with pytest.raises(ImageUnavailable, match="is not there"):
        download_image(FakeEngine(lambda: iter([{"status": "Done"}])), "debian", "12")


def test_a_name_the_engine_does_not_take_is_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FakeEngine, image: str) -> None:
        raise EngineError("invalid reference", 400)

    monkeypatch.setattr(FakeEngine, "inspect_image", refuse)
    assert find_named_image(FakeEngine(lambda: iter(())), "X", "y") is None


# Finding.


def described(recipe: str) -> dict[str, Any]:
    return {"Id": "sha256:2", "Config": {"Labels": {label("recipe"): recipe}}}


def test_a_base_of_this_recipe_is_ready() -> None:
    engine = FakeEngine(lambda: iter(()))
    assert find_ready_base(engine) is None
    engine.here["redock:base"] = described(_recipe.fingerprint())
    assert find_ready_base(engine) == find_base_image(engine) == "sha256:2"
    assert create_base_image(engine) == "sha256:2"
    assert find_ready_base(engine, "debian:12") is None


@pytest.mark.parametrize("labels", [None, {}, {label("recipe"): "0123456789abcdef"}])
def test_a_base_of_another_recipe_is_not(labels: dict[str, str] | None) -> None:
    engine = FakeEngine(lambda: iter(()))
    engine.here["redock:base"] = {"Id": "sha256:2", "Config": {"Labels": labels}}
    assert find_ready_base(engine) is None


def test_a_base_nobody_can_make_is_one_line(
    monkeypatch: pytest.MonkeyPatch, redock_home: Path
) -> None:
    def refuse(*_: object) -> None:
        raise BaseImageFailed("a step failed", "the log")

    monkeypatch.setattr(base, "build", refuse)
    with pytest.raises(BaseImageFailed) as caught:
        find_base_image(FakeEngine(lambda: iter(())))
    assert caught.value.log == "the log"
    # The lock is free again.
    monkeypatch.setattr(base, "build", lambda *_: "sha256:3")
    assert find_base_image(FakeEngine(lambda: iter(()))) == "sha256:3"


# Output.


def piece(data: bytes) -> bytes:
    return b"\x01\0\0\0" + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_output_is_split_into_lines_however_it_arrives(size: int) -> None:
    raw = piece(b"one\ntw") + piece(b"o\r\n\x1b[31mthree\r50%\r100%\n\n") + piece(b"end")
    chunks = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert list(lines_of(iter(chunks))) == ["one", "two", "three", "50%", "100%", "end"]


def test_a_letter_may_be_split_between_two_pieces() -> None:
    raw = piece("größe".encode()[:3]) + piece("größe".encode()[3:] + b"\n")
    assert list(lines_of(iter([raw]))) == ["größe"]
