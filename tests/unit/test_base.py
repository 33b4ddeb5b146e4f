"""The base image and the distributions it is made from, without an engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock import _distribution, _recipe, base
from redock._distribution import RegistrySilent, Release
from redock._engine import Engine
from redock.errors import ImageUnavailable, InvalidName

DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main

Types: deb
URIs: https://third.example/node
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example
Suites: bookworm-updates
"""


def test_the_fingerprint_changes_with_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {_recipe.fingerprint()}
    for name in ("BOOT_SCRIPT", "SSHD_CONFIG", "SETUP", "PACKAGES", "HELD", "POLICY"):
        value = getattr(_recipe, name)
        more = (*value, "more") if isinstance(value, tuple) else value + "# more\n"
        monkeypatch.setattr(_recipe, name, more)
        seen.add(_recipe.fingerprint())
    assert len(seen) == 7


def test_the_recipe_mentions_no_unreplaced_part() -> None:
    assert "@" not in _recipe.setup_script().replace("$@", "")
    assert "openssh-server" in _recipe.setup_script()


@pytest.mark.parametrize("wrong", ["Ubuntu:24.04", "a b", "a:b:c", "-x", "ubuntu@sha256:00", "x:"])
def test_base_images_that_are_no_names(wrong: str) -> None:
    with pytest.raises(InvalidName):
        base.wanted_base(wrong)


def test_base_images(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.wanted_base(None) is None
    assert base.wanted_base("debian") == "debian:latest"
    assert base.wanted_base("localhost:5000/me/x") == "localhost:5000/me/x:latest"
    monkeypatch.setenv("REDOCK_BASE", "debian:12")
    assert base.wanted_base(None) == "debian:12"
    assert base.wanted_base("ubuntu:22.04") == "ubuntu:22.04"
    assert base.base_tag(None) == "base"
    assert base.base_tag("localhost:5000/me/x:1") == "base-localhost-5000-me-x-1"


@pytest.mark.parametrize(
    ("reason", "status", "kind"),
    [
        ("pull access denied for x, repository does not exist", 404, ImageUnavailable),
        ("manifest for x:y not found: manifest unknown", 404, ImageUnavailable),
        ('Get "https://r/v2/": dial tcp: lookup r: no such host', 500, RegistrySilent),
        ("dial tcp 192.0.2.1:443: connect: connection refused", 500, RegistrySilent),
        ("net/http: request canceled (Client.Timeout exceeded)", 500, RegistrySilent),
    ],
)
def test_a_silent_registry_is_not_one_that_refuses(
    reason: str, status: int, kind: type[ImageUnavailable]
) -> None:
    with pytest.raises(ImageUnavailable) as caught:
        base.refuse_pull("x:y", reason, status)
    assert type(caught.value) is kind


def test_a_registry_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def pull(self, *_: object, **__: object) -> Iterator[object]:
            time.sleep(3)
            yield {}

    engine = Engine()
    monkeypatch.setattr(engine, "_client", Client())
    monkeypatch.setattr(base, "REGISTRY_PATIENCE", 0.1)
    with pytest.raises(RegistrySilent, match=r"within 0\.1 seconds"):
        list(base.pull_events(engine, "x", "y"))


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("debian:12", "debian:bookworm"),
        ("debian:12.5-slim", "debian:bookworm"),
        ("debian:trixie-slim", "debian:trixie"),
        ("ubuntu:24.04", "ubuntu:noble"),
        ("docker.io/library/ubuntu:jammy", "ubuntu:jammy"),
        ("debian:sid", "debian:sid"),
    ],
)
def test_known_releases(image: str, release: str) -> None:
    found = _distribution.find_release(image)
    assert found is not None
    assert found.image == release


@pytest.mark.parametrize("image", ["alpine:3", "me/debian:12", "ubuntu:latest", "debian:potato"])
def test_unknown_releases(image: str) -> None:
    assert _distribution.find_release(image) is None


def test_the_hosts_sources_in_both_formats(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(DEB822)
    (parts / "old.list").write_text("deb [arch=amd64] http://old.example/x jammy main\n# deb no\n")
    (parts / "ignored.save").write_text("deb http://no.example x main\n")
    (tmp_path / "sources.list").write_text("deb cdrom:[x]/ x main\ndeb http://a.example/u x main\n")
    assert list(_distribution.host_sources(str(tmp_path))) == [
        ("http://a.example/u", ["x"]),
        ("http://mirror.example/debian", ["bookworm", "bookworm-updates"]),
        ("http://mirror.example/debian-security", ["bookworm-security"]),
        ("https://third.example/node", ["nodistro"]),
        ("http://old.example/x", ["jammy"]),
    ]


def test_sources_for_apt_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    near = Release("debian", "bookworm", "http://m.example/d", "http://m.example/s")
    assert _distribution.apt_sources(near).splitlines() == [
        "deb http://m.example/d bookworm main",
        "deb http://m.example/d bookworm-updates main",
        "deb http://m.example/s bookworm-security main",
    ]
    assert _distribution.apt_sources(Release("debian", "trixie")) == ""
    assert _distribution.apt_sources(Release("debian", "trixie", "https://m.example/d")) == ""
    monkeypatch.setenv("REDOCK_MIRROR", "http://mine.example/d")
    assert "http://mine.example/d sid" in _distribution.apt_sources(Release("debian", "sid"))


def test_what_is_made_when_no_registry_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Release("debian", "bookworm", "http://m.example/d")
    monkeypatch.setattr(_distribution, "host_release", lambda: host)
    problems = {"ubuntu:noble": "no mirror answers", "debian:bookworm": "", "debian:trixie": ""}
    monkeypatch.setattr(_distribution, "find_problem", lambda release: problems[release.image])
    choose = _distribution.choose_release
    assert choose("debian:trixie", True, "silence").image == "debian:trixie"
    assert choose("ubuntu:24.04", False, "silence") is host
    with pytest.raises(ImageUnavailable, match="silence; no mirror answers"):
        choose("ubuntu:24.04", True, "silence")
    with pytest.raises(ImageUnavailable, match="does not know its release"):
        choose("alpine:3", True, "silence")
    problems["debian:bookworm"] = "no mirror here"
    with pytest.raises(ImageUnavailable, match="no mirror here"):
        choose("ubuntu:24.04", False, "silence")


def test_packages_that_cannot_be_verified_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_distribution.KEYRINGS, "debian", str(tmp_path / "none"))
    problem = _distribution.find_problem(Release("debian", "bookworm", "http://m.example"))
    assert "cannot be verified" in problem


def test_locales() -> None:
    assert _distribution.is_locale("nl_NL.UTF-8")
    for other in ("C.UTF-8", "en_US.UTF-8", "nl_NL", "x; id", "", "nl_NL.UTF-8\n"):
        assert not _distribution.is_locale(other)


def test_lines_of_a_container() -> None:
    def frame(text: bytes) -> bytes:
        return b"\1\0\0\0" + len(text).to_bytes(4, "big") + text

    packed = frame(b"one\ntw") + frame(b"o\r50%\r\x1b[1mdone")
    pieces = [packed[start : start + 5] for start in range(0, len(packed), 5)]
    assert list(base.lines_of(pieces)) == ["one", "two", "50%", "[1mdone"]
