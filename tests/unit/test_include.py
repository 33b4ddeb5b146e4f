"""The one line in the user's ssh configuration: in and out without a trace."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redock import _include, _ssh
from redock.errors import SettingsError, SSHConfigConflict
from redock.utils import create_configuration_directory

from .conftest import use_home

pytestmark = pytest.mark.usefixtures("default_home")

LINES = [
    "Host other",
    "  HostName 192.0.2.7",
    "Port 2222",
    "# a comment with ümläut",
    "Host *",
    "ServerAliveInterval 30",
    "",
    "Match host example.com",
    "  User me",
    "Compression yes",
    "HostKeyAlgorithms ssh-ed25519",
    "Include config.local",
]


def write_config(home: Path, contents: bytes, mode: int = 0o600) -> Path:
    """Make the user's ssh configuration."""
    path = home / ".ssh" / "config"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(contents)
    path.chmod(mode)
    return path


def options(path: Path, host: str = "other") -> str:
    """Ask ssh what it makes of a configuration."""
    done = subprocess.run(
        ["ssh", "-G", "-F", str(path), host], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    lines=st.lists(st.sampled_from(LINES), max_size=12),
    newline=st.sampled_from(["\n", "\r\n"]),
    ends=st.booleans(),
    mode=st.sampled_from([0o600, 0o644, 0o664, 0o640]),
    link=st.sampled_from(["", "absolute", "relative"]),
)
def test_any_configuration_comes_back_as_it_was(
    home: Path, lines: list[str], newline: str, ends: bool, mode: int, link: str
) -> None:
    shutil.rmtree(home / ".ssh", ignore_errors=True)
    shutil.rmtree(home / ".redock", ignore_errors=True)
    create_configuration_directory()
    original = (newline.join(lines) + (newline if ends and lines else "")).encode()
    path = write_config(home, original, mode)
    if link:
        target = home / ".ssh" / "dotfile"
        path.rename(target)
        path.symlink_to("dotfile" if link == "relative" else target)
    before = options(path)
    assert _include.install()
    added = path.read_bytes()
    assert added.endswith(original)
    assert (
        added[: len(added) - len(original)].split()
        == (_include.COMMENT.encode() + b" " + _include.include_line().encode()).split()
    )
    assert options(path) == before
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.is_symlink() is bool(link)
    assert not _include.install()
    assert _include.remove()
    assert path.read_bytes() == original
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.is_symlink() is bool(link)
    assert not _include.remove()


def test_what_redock_created_it_removes(home: Path) -> None:
    assert _include.install()
    assert stat.S_IMODE((home / ".ssh" / "config").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / ".ssh").stat().st_mode) == 0o700
    assert _include.remove()
    assert not (home / ".ssh").exists()


def test_an_empty_file_stays_an_empty_file(home: Path) -> None:
    path = write_config(home, b"")
    _include.install()
    _include.remove()
    assert path.read_bytes() == b""


def test_what_the_user_added_meanwhile_stays(home: Path) -> None:
    _include.install()
    path = home / ".ssh" / "config"
    path.write_bytes(b"Host mine\n  Port 1\n" + path.read_bytes() + b"Host yours\n")
    assert _include.remove()
    assert path.read_bytes() == b"Host mine\n  Port 1\nHost yours\n"


def test_a_line_below_the_first_host_does_not_count(home: Path) -> None:
    path = write_config(home, b"Host a\n" + _include.added_bytes())
    assert _include.install()
    assert path.read_bytes().startswith(_include.COMMENT.encode())


def test_the_first_version_is_kept(home: Path) -> None:
    write_config(home, b"Port 2222\n")
    _include.install()
    assert (home / ".redock" / "ssh" / "config.before-redock").read_bytes() == b"Port 2222\n"


def test_a_configuration_ssh_cannot_read_is_left_alone(home: Path) -> None:
    path = write_config(home, b"Nonsense\n")
    with pytest.raises(SSHConfigConflict, match="mend it first"):
        _include.install()
    assert path.read_bytes() == b"Nonsense\n"


def test_a_read_only_configuration_is_left_alone(home: Path) -> None:
    path = write_config(home, b"Port 2222\n", 0o400)
    with pytest.raises(SSHConfigConflict, match="read-only") as caught:
        _include.install()
    assert path.read_bytes() == b"Port 2222\n"
    assert "ssh -F" in _include.explain(caught.value, "web-container")


def test_a_configuration_that_is_a_directory(home: Path) -> None:
    (home / ".ssh" / "config").mkdir(parents=True)
    with pytest.raises(SSHConfigConflict):
        _include.install()


@pytest.mark.parametrize("name", ["a b", "50%", "it's", "ü", "$HOME", "~"])
def test_homes_with_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    use_home(home, monkeypatch)
    entry = _ssh.HostEntry("a:b", "b-container", "0123456789ab", 20001)
    _ssh.install(entry, b"ssh-ed25519 AAAA redock")
    assert _include.install()
    wanted = {
        "hostname": "127.0.0.1",
        "identityfile": str(home / ".redock" / "ssh" / "id_ed25519"),
        "userknownhostsfile": str(home / ".redock" / "ssh" / "known_hosts.d" / "0123456789ab"),
    }
    shown = _ssh.effective_options("b-container", _ssh.config_file())
    # "ssh -G" shows identity files before it expands them.
    assert {key: shown[key].replace("%%", "%") for key in wanted} == wanted


def test_a_home_in_which_include_would_be_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a[b]"
    home.mkdir()
    use_home(home, monkeypatch)
    with pytest.raises(SSHConfigConflict, match="include"):
        _include.install()


def test_mode_none_touches_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "none")
    assert not _include.install()
    assert not (home / ".ssh").exists()


def test_modes_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "nonsense")
    with pytest.raises(SettingsError, match="include, merge, none"):
        _include.install()


def test_a_preview_changes_nothing(home: Path) -> None:
    path = write_config(home, b"Port 2222\n")
    assert f"+{_include.include_line()}\n" in _include.preview()
    assert path.read_bytes() == b"Port 2222\n"
    _include.install()
    assert f"-{_include.include_line()}\n" in _include.preview(removing=True)
    assert _include.preview() == ""


# Users of update-dotdee.


def make_dotdee_user(home: Path) -> bytes:
    """Make a home directory that update-dotdee assembles the configuration of."""
    directory = home / ".ssh" / "config.d"
    directory.mkdir(parents=True)
    (directory / "work").write_text("Host work\n  Port 1\n")
    (directory / "home").write_text("Host home\n  Port 2\n")
    from redock import _dotdee

    _dotdee.assemble(str(home / ".ssh" / "config"), str(directory), force=False)
    return (home / ".ssh" / "config").read_bytes()


def test_a_user_of_update_dotdee_gets_a_fragment(home: Path) -> None:
    original = make_dotdee_user(home)
    assert _include.find_mode() == "merge"
    assert _include.install()
    config = home / ".ssh" / "config"
    assert config.read_bytes().startswith(_include.added_bytes())
    assert options(config, "work").count("port 1\n") == 1
    assert not _include.install()
    assert _include.remove()
    assert config.read_bytes() == original


def test_a_change_by_hand_is_not_overwritten(home: Path) -> None:
    make_dotdee_user(home)
    config = home / ".ssh" / "config"
    config.write_bytes(config.read_bytes() + b"Host by-hand\n")
    with pytest.raises(SSHConfigConflict, match="changed by hand"):
        _include.install()
    assert config.read_bytes().endswith(b"Host by-hand\n")
    assert not (home / ".ssh" / "config.d" / "00-redock").exists()


def test_merging_keeps_a_configuration_update_dotdee_would_lose(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "merge")
    config = write_config(home, b"Host precious\n  Port 3\n")
    (home / ".ssh" / "config.d").mkdir()
    (home / ".ssh" / "config.d" / "other").write_text("Host other\n")
    assert _include.install()
    assert "port 3\n" in options(config, "precious")


def test_merging_refuses_a_configuration_that_includes_its_own_parts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "merge")
    config = write_config(home, b"Include config.d/*\n")
    with pytest.raises(SSHConfigConflict):
        _include.install()
    assert config.read_bytes() == b"Include config.d/*\n"
    assert not (home / ".ssh" / "config.d").exists()


def test_merging_without_a_configuration(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "merge")
    (home / ".ssh").mkdir(mode=0o700)
    assert _include.install()
    assert _include.is_installed((home / ".ssh" / "config").read_bytes())


def test_a_home_that_is_not_the_users_is_mentioned(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", "/elsewhere")
    with caplog.at_level(logging.WARNING, "redock"):
        _include.install()
    assert str(home) in caplog.text


def test_an_alias_of_the_users_own_is_found(home: Path) -> None:
    probe = _include.AliasProbe("b-container")
    probe.check()
    write_config(home, b"Host b-container\n  HostName 192.0.2.1\n")
    # ssh reads the configuration of the real user; what counts is that somebody asks.
    probe = _include.AliasProbe("b-container")
    assert probe.process is not None
    probe.discard()
    assert os.path.exists(_ssh.home_config_file())
