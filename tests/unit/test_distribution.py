"""Distributions: their releases, the sources of apt, what is made where no registry answers."""

from __future__ import annotations

import io
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from redock import _distribution
from redock._distribution import (
    Release,
    apt_sources,
    choose_release,
    deb822_sources,
    find_release,
    follow,
    host_release,
    host_sources,
    import_release,
    is_locale,
    remove_tree,
)
from redock._engine import Engine
from redock.errors import BaseImageFailed, ImageUnavailable

ONE_LINE = """\
# a comment
deb http://deb.example/debian bookworm main contrib
deb [arch=amd64 signed-by=/x.gpg] https://deb.example/debian/ bookworm-updates main
deb-src http://deb.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
#deb http://off.example/debian bookworm main
"""
DEB822 = """\
Types: deb deb-src
URIs: http://deb.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 Version: x

# a comment
Enabled: no
Types: deb
URIs: http://off.example/
Suites: bookworm

Types: deb-src
URIs: http://sources.example/
Suites: bookworm

types: deb
uris: https://one.example/ file:/local http://two.example/
suites: bookworm-security
"""


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch, sandbox: Path) -> Callable[..., None]:
    """Pretend that this host runs a distribution with certain sources."""
    real_open = open

    def pretend(os_release: str, *sources: tuple[str, list[str]]) -> None:
        path = sandbox / "os-release"
        path.write_text(os_release)

        def fake_open(name: str, *arguments: object, **options: object) -> object:
            name = str(path) if name == "/etc/os-release" else name
            return real_open(name, *arguments, **options)  # type: ignore[call-overload]

        monkeypatch.setattr(_distribution, "open", fake_open, raising=False)
        monkeypatch.setattr(_distribution, "host_sources", lambda: iter(sources))

    return pretend


BOOKWORM = 'ID=debian\nVERSION_CODENAME="bookworm"\n'


def test_both_formats_of_sources_are_read(sandbox: Path) -> None:
    (sandbox / "sources.list").write_text(ONE_LINE)
    parts = sandbox / "sources.list.d"
    parts.mkdir()
    (parts / "debian.sources").write_text(DEB822)
    (parts / "other.list").write_text("deb http://third.example/x stable main\n")
    (parts / "old.list.save").write_text("deb http://old.example/x stable main\n")
    assert list(host_sources(str(sandbox))) == [
        ("http://deb.example/debian", ["bookworm"]),
        ("https://deb.example/debian", ["bookworm-updates"]),
        ("http://deb.example/debian", ["bookworm", "bookworm-updates"]),
        ("https://one.example", ["bookworm-security"]),
        ("http://two.example", ["bookworm-security"]),
        ("http://third.example/x", ["stable"]),
    ]


def test_a_host_without_apt_has_no_sources(sandbox: Path) -> None:
    assert list(host_sources(str(sandbox / "nothing"))) == []


@pytest.mark.parametrize("text", ["", "\n\n", "Types deb", ": x", "URIs:", "Types: deb\n URIs: x"])
def test_senseless_stanzas_are_no_sources(text: str) -> None:
    assert list(deb822_sources(text)) == []


def test_the_mirrors_of_the_host_are_found_among_others(on_host: Callable[..., None]) -> None:
    on_host(
        BOOKWORM,
        ("http://third.example/repository", ["bookworm"]),
        ("http://near.example/debian", ["bookworm", "bookworm-updates"]),
        ("http://near.example/security", ["bookworm-security"]),
        ("http://last.example/repository", ["bookworm"]),
    )
    release = host_release()
    assert release is not None
    assert (release.image, release.mirror) == ("debian:bookworm", "http://near.example/debian")
    assert release.security == "http://near.example/security"


def test_a_single_source_is_the_hosts_mirror(on_host: Callable[..., None]) -> None:
    on_host(BOOKWORM, ("http://near.example/debian", ["bookworm"]))
    release = host_release()
    assert release is not None
    assert release.mirror == "http://near.example/debian"


def test_a_source_of_others_alone_is_no_mirror(on_host: Callable[..., None]) -> None:
    on_host(
        BOOKWORM,
        ("http://third.example/x", ["bookworm"]),
        ("http://fourth.example/x", ["stable"]),
    )
    release = host_release()
    assert release is not None
    assert release.mirror is None


@pytest.mark.parametrize("text", ["", "ID=fedora\nVERSION_CODENAME=x\n", "ID=debian\n"])
def test_other_hosts_have_no_release(text: str, on_host: Callable[..., None]) -> None:
    on_host(text)
    assert host_release() is None


def test_the_setting_comes_before_the_hosts_mirror(
    on_host: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host(BOOKWORM, ("http://near.example/debian", ["bookworm", "bookworm-updates"]))
    monkeypatch.setenv("REDOCK_MIRROR", "http://mine.example/debian")
    release = host_release()
    assert release is not None
    assert release.mirror == "http://mine.example/debian"


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("debian:12", "debian:bookworm"),
        ("debian:12-slim", "debian:bookworm"),
        ("debian:12.5", "debian:bookworm"),
        ("debian:bookworm-20240101", "debian:bookworm"),
        ("docker.io/library/debian:trixie-slim", "debian:trixie"),
        ("debian:sid", "debian:sid"),
        ("ubuntu:24.04", "ubuntu:noble"),
        ("ubuntu:jammy", "ubuntu:jammy"),
        ("ubuntu:26.04", "ubuntu:resolute"),
        ("debian:99", None),
        ("ubuntu:12.5", None),
        ("fedora:40", None),
        ("me/debian:12", None),
        ("x", None),
    ],
)
def test_the_release_in_an_official_image_is_known(
    image: str, found: str | None, on_host: Callable[..., None]
) -> None:
    on_host("")
    release = find_release(image)
    assert (release.image if release else None) == found


def test_the_release_the_host_runs_comes_with_its_mirrors(on_host: Callable[..., None]) -> None:
    on_host(BOOKWORM, ("http://near.example/debian", ["bookworm"]))
    for image, mirror in (("debian:12", "http://near.example/debian"), ("debian:13", None)):
        release = find_release(image)
        assert release is not None
        assert release.mirror == mirror


def test_the_sources_of_a_near_mirror_have_updates_and_security() -> None:
    release = Release("debian", "bookworm", "http://near.example/debian")
    assert apt_sources(release).splitlines() == [
        "deb http://near.example/debian bookworm main",
        "deb http://near.example/debian bookworm-updates main",
        f"deb {_distribution.DEBIAN_SECURITY} bookworm-security main",
    ]


def test_the_security_archive_of_the_host_is_used() -> None:
    release = Release("debian", "bookworm", "http://a.example", "http://s.example")
    assert "deb http://s.example bookworm-security main" in apt_sources(release)


def test_a_release_without_updates_has_one_line() -> None:
    assert apt_sources(Release("debian", "sid", "http://a.example")) == (
        "deb http://a.example sid main\n"
    )


def test_sources_of_the_image_stay_where_nothing_is_better() -> None:
    assert apt_sources(Release("debian", "bookworm")) == ""
    assert apt_sources(Release("debian", "bookworm", "https://near.example")) == ""


def test_a_mirror_that_was_asked_for_is_used_over_https_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDOCK_MIRROR", "https://mine.example/debian/")
    assert "deb https://mine.example/debian bookworm main" in apt_sources(
        Release("debian", "bookworm")
    )


def test_ubuntu_uses_the_mirror_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_distribution, "select_ubuntu_mirror", lambda: "http://near.example/ubuntu")
    sources = apt_sources(Release("ubuntu", "noble"))
    assert "deb http://near.example/ubuntu noble main restricted universe multiverse" in sources
    assert _distribution.UBUNTU_SECURITY in sources


# Where no registry answers.


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch, sandbox: Path) -> set[str]:
    """The mirrors that answer, by what their address contains."""
    answering: set[str] = set()

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        assert timeout <= 10
        if any(part in url for part in answering):
            return io.BytesIO(b"-----BEGIN PGP SIGNED MESSAGE-----\n")
        if "portal" in url:
            return io.BytesIO(b"<html>log in</html>")
        raise urllib.error.URLError("no route to host")

    keyring = sandbox / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(_distribution, "KEYRINGS", {"debian": str(keyring), "ubuntu": str(keyring)})
    return answering


HOST = (BOOKWORM, ("http://near.example/debian", ["bookworm"]))


def test_what_was_asked_for_is_made_where_its_mirror_answers(
    mirrors: set[str], on_host: Callable[..., None]
) -> None:
    on_host(*HOST)
    mirrors.add("deb.debian.org/debian/dists/trixie/")
    assert choose_release("debian:13", True, "silence").image == "debian:trixie"


def test_nothing_else_is_made_when_something_was_asked_for(
    mirrors: set[str], on_host: Callable[..., None]
) -> None:
    on_host(*HOST)
    mirrors.add("near.example")
    with pytest.raises(ImageUnavailable, match="silence; no mirror of debian:trixie") as caught:
        choose_release("debian:13", True, "silence")
    assert "\n" not in str(caught.value)
    assert "--base" in str(caught.value)


def test_the_hosts_own_distribution_is_made_when_nothing_was_asked_for(
    mirrors: set[str], on_host: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    on_host(*HOST)
    mirrors.add("near.example/debian/dists/bookworm/")
    caplog.set_level("INFO", "redock")
    assert choose_release("ubuntu:24.04", False, "silence").image == "debian:bookworm"
    # Which path was taken, and why.
    assert "silence" in caplog.text
    assert "no mirror of ubuntu:noble answers" in caplog.text
    assert "which this host runs" in caplog.text


def test_the_default_is_made_where_its_mirror_answers(
    mirrors: set[str], on_host: Callable[..., None]
) -> None:
    on_host(*HOST)
    mirrors.update({"near.example", "dists/noble/"})
    assert choose_release("ubuntu:24.04", False, "silence").image == "ubuntu:noble"


def test_where_nothing_answers_the_message_says_all_of_it(
    mirrors: set[str], on_host: Callable[..., None]
) -> None:
    on_host(*HOST)
    with pytest.raises(ImageUnavailable) as caught:
        choose_release("ubuntu:24.04", False, "silence")
    for words in ("silence", "ubuntu:noble", "debian:bookworm", "docker load"):
        assert words in str(caught.value)


def test_a_host_of_another_kind_cannot_help(
    mirrors: set[str], on_host: Callable[..., None]
) -> None:
    on_host("ID=fedora\n")
    with pytest.raises(ImageUnavailable, match="neither Debian nor Ubuntu"):
        choose_release("ubuntu:24.04", False, "silence")


def test_a_page_that_asks_to_log_in_is_no_mirror(
    mirrors: set[str], on_host: Callable[..., None]
) -> None:
    on_host(BOOKWORM, ("http://portal.example/debian", ["bookworm"]))
    with pytest.raises(ImageUnavailable):
        choose_release("debian:12", True, "silence")


def test_packages_that_cannot_be_verified_are_not_used(
    mirrors: set[str], on_host: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_host(*HOST)
    mirrors.add("near.example")
    monkeypatch.setattr(_distribution, "KEYRINGS", {"debian": "/none.gpg", "ubuntu": "/none.gpg"})
    with pytest.raises(ImageUnavailable, match="cannot be verified"):
        choose_release("debian:12", True, "silence")


def test_an_unknown_image_cannot_be_made(mirrors: set[str], on_host: Callable[..., None]) -> None:
    on_host(*HOST)
    with pytest.raises(ImageUnavailable, match="does not know its release"):
        choose_release("me/image:x", True, "silence")


def test_without_a_tool_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ImageUnavailable, match="apt-get install mmdebstrap"):
        import_release(Engine(), Release("debian", "bookworm"))


def test_a_command_that_fails_is_quoted_with_its_last_line() -> None:
    script = "import sys; print('one'); print('\\x1b[31mtwo', file=sys.stderr); sys.exit(3)"
    with pytest.raises(BaseImageFailed, match="failed with status 3") as caught:
        follow([sys.executable, "-c", script])
    assert sorted(caught.value.log.splitlines()) == ["one", "two"]


def test_a_command_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_distribution, "BOOTSTRAP_PATIENCE", 0.05)
    with pytest.raises(BaseImageFailed):
        follow(["sleep", "120"])


def test_a_directory_is_removed_with_all_in_it(sandbox: Path) -> None:
    (sandbox / "tree" / "x").mkdir(parents=True)
    remove_tree(str(sandbox / "tree"))
    assert not (sandbox / "tree").exists()


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("nl_NL.UTF-8", True),
        ("de_DE.utf8", True),
        ("en_US.UTF-8", False),
        ("C.UTF-8", False),
        ("nl_NL", False),
        ("nl_NL.UTF-8; id", False),
        ("", False),
    ],
)
def test_only_locales_that_have_to_be_made_are_locales(name: str, right: bool) -> None:
    assert is_locale(name) is right
