"""The user's ssh configuration: a line goes in, every other byte stays, and it comes out again."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redock import _include, _ssh
from redock.errors import AliasTaken, SettingsError, SSHConfigConflict
from tests.unit.conftest import PATIENCE, as_nobody, run_redock, ssh_options, use_home

PLAIN = b"# mine\nHost other\n  HostName 192.0.2.1\n  User peter\n\nHost *\n  Compression yes\n"
KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIII redock\n"


@pytest.fixture
def config(home: Path) -> Path:
    (home / ".ssh").mkdir(mode=0o700)
    return home / ".ssh" / "config"


@pytest.fixture
def entry() -> _ssh.HostEntry:
    """A machine whose entry ssh can find once our line is there."""
    entry = _ssh.HostEntry("me:web", "web-container", "0123456789ab", 20001)
    _ssh.install(entry, KEY)
    return entry


def port_of(config: Path, host: str) -> str:
    code, options, complaint = ssh_options(config, host)
    assert code == 0, complaint
    return options["port"][0]


# One line in, one line out.


def test_the_line_goes_to_the_top_and_comes_out_again(
    config: Path, entry: _ssh.HostEntry, redock_home: Path
) -> None:
    config.write_bytes(PLAIN)
    before = ssh_options(config, "other")
    assert _include.install() is True
    added = f"{_include.COMMENT}\nInclude {redock_home}/ssh/config\n".encode()
    assert config.read_bytes() == added + PLAIN
    assert port_of(config, entry.alias) == "20001"
    assert ssh_options(config, "other") == before
    assert _include.install() is False
    assert config.read_bytes() == added + PLAIN
    assert _include.remove() is True
    assert config.read_bytes() == PLAIN
    assert _include.remove() is False


def test_the_users_catch_all_does_not_beat_a_machine(config: Path, entry: _ssh.HostEntry) -> None:
    config.write_bytes(b"Host *\n  Port 2222\n  User peter\n  ProxyJump gate\n  ForwardAgent yes\n")
    _include.install()
    _, options, _ = ssh_options(config, entry.alias)
    assert options["port"] == ["20001"]
    assert options["user"] == ["root"]
    assert options["forwardagent"] == ["no"]
    assert "proxyjump" not in options
    assert port_of(config, "other") == "2222"


def test_the_users_settings_for_all_hosts_stay_settings_for_all(
    config: Path, entry: _ssh.HostEntry
) -> None:
    config.write_bytes(b"Port 2222\nHost other\n  User peter\n")
    _include.install()
    assert port_of(config, "other") == port_of(config, "third") == "2222"
    assert port_of(config, entry.alias) == "20001"


blocks = st.sampled_from(
    [
        b"# a comment\n",
        b"\n",
        b"   \t\n",
        b"HostKeyAlgorithms +ssh-rsa\n",
        b"User someone\n",
        b"Host other\n  HostName 192.0.2.1\n",
        b"host=other\n\tport = 2222\n",
        b'Host "other" !third\n  User peter\n',
        "# Grüße, 世界\nHost ünï\n  User é\n".encode(),
        b"# latin \xe9\xff\n",
        b"Match host other\n  Port 99\n",
        b"Match all\n  Compression yes\n",
        b"Host *\n  ServerAliveInterval 60\n",
        b"Include /nonexistent/*\n",
        b"  IdentityFile ~/.ssh/id_%h\n",
        b"#Include config.d/redock\n",
        b"SendEnv LANG LC_*\n",
    ]
)


@st.composite
def configurations(draw: st.DrawFn) -> bytes:
    contents = b"".join(draw(st.lists(blocks, max_size=8)))
    if draw(st.booleans()):
        contents = contents.replace(b"\n", b"\r\n")
    if draw(st.booleans()):
        contents = contents.rstrip(b"\r\n")
    return contents


modes = st.sampled_from([0o600, 0o644, 0o664])
links = st.sampled_from(["file", "absolute", "relative", "chain"])


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=configurations(), mode=modes, link=links)
@example(contents=b"", mode=0o644, link="relative")
@example(contents=b"\n", mode=0o600, link="file")
@example(contents=b"\r\n", mode=0o600, link="file")
def test_every_byte_of_any_configuration_is_sacred(
    contents: bytes, mode: int, link: str, config: Path, sandbox: Path
) -> None:
    target = config
    if link != "file":
        target = sandbox / "dotfiles" / "ssh_config"
        target.parent.mkdir(exist_ok=True)
        first = os.path.relpath(target, config.parent) if link == "relative" else str(target)
        if link == "chain":
            (sandbox / "dotfiles" / "second").symlink_to("ssh_config")
            first = "../../dotfiles/second"
        config.symlink_to(first)
    try:
        target.write_bytes(contents)
        target.chmod(mode)
        owner = (12345, 12346) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        # As root, ssh -F reads the files of anybody; ours has to stay theirs.
        os.chown(target, *owner)
        is_link = config.is_symlink()
        before = [ssh_options(config, host) for host in ("other", "third")]
        assert all(code == 0 for code, _, _ in before), before
        installed = _include.install()
        assert installed
        newline = b"\r\n" if b"\r\n" in contents else b"\n"
        assert target.read_bytes() == _include.added_bytes(newline) + contents
        assert [ssh_options(config, host) for host in ("other", "third")] == before
        assert not _include.install()
        assert _include.remove()
        assert target.read_bytes() == contents
        found = target.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, *owner)
        assert config.is_symlink() == is_link
        if is_link:
            assert str(config.readlink()) == first
    finally:
        for path in (config, *sandbox.glob("dotfiles/*")):
            path.unlink(missing_ok=True)


def test_a_megabyte_is_as_sacred(config: Path) -> None:
    contents = PLAIN + b"# much to say\n" * (1024 * 1024 // 14)
    config.write_bytes(contents)
    _include.install()
    assert config.read_bytes() == _include.added_bytes() + contents
    assert port_of(config, "other") == "22"
    _include.remove()
    assert config.read_bytes() == contents


def test_the_property_above_is_about_configurations_ssh_can_read(config: Path) -> None:
    config.write_bytes(b"Nonsense yes\n")
    assert ssh_options(config, "other")[0] != 0


def test_a_file_and_a_directory_that_redock_made_are_gone_afterwards(home: Path) -> None:
    assert _include.install() is True
    config = home / ".ssh" / "config"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert config.read_bytes() == _include.added_bytes()
    assert _include.remove() is True
    assert os.listdir(home) == []


def test_a_directory_of_the_users_stays(config: Path) -> None:
    _include.install()
    _include.remove()
    assert config.parent.is_dir()
    assert not config.exists()


def test_a_directory_that_was_used_meanwhile_stays(home: Path) -> None:
    _include.install()
    (home / ".ssh" / "id_ed25519").touch()
    _include.remove()
    assert os.listdir(home / ".ssh") == ["id_ed25519"]


def test_what_the_user_wrote_meanwhile_stays(home: Path) -> None:
    _include.install()
    config = home / ".ssh" / "config"
    with config.open("ab") as handle:
        handle.write(PLAIN)
    _include.remove()
    assert config.read_bytes() == PLAIN


def test_an_empty_file_of_the_users_stays(config: Path) -> None:
    config.touch(mode=0o600)
    _include.install()
    _include.remove()
    assert config.read_bytes() == b""


def test_an_empty_file_made_after_redocks_was_deleted_is_the_users(config: Path) -> None:
    _include.install()
    config.unlink()
    config.touch(mode=0o600)
    _include.install()
    _include.remove()
    assert config.read_bytes() == b""


def test_the_target_of_a_dangling_link_is_made_and_removed(config: Path, sandbox: Path) -> None:
    config.symlink_to("../../dotfiles/config")
    _include.install()
    assert (sandbox / "dotfiles" / "config").read_bytes() == _include.added_bytes()
    _include.remove()
    assert config.is_symlink()
    assert not (sandbox / "dotfiles").exists()


def test_a_line_the_user_moved_is_found_and_removed(config: Path) -> None:
    _include.install()
    line = _include.include_line().encode()
    config.write_bytes(b"User peter\n  " + line + b"\nHost other\n")
    assert _include.install() is False
    _include.remove()
    assert config.read_bytes() == b"User peter\nHost other\n"


@pytest.mark.parametrize("keyword", ["Host other", "host\tother", "HOST=other", "Match all"])
def test_a_line_that_belongs_to_a_host_does_not_count(
    keyword: str, config: Path, entry: _ssh.HostEntry
) -> None:
    config.write_text(f"{keyword}\n{_include.include_line()}\n")
    assert _include.install() is True
    assert port_of(config, entry.alias) == "20001"


def test_a_keyword_that_begins_like_host_is_no_host(config: Path) -> None:
    config.write_text(f"HostKeyAlgorithms +ssh-rsa\n{_include.include_line()}\n")
    assert _include.install() is False


def test_a_copy_from_before_is_kept_and_not_overwritten(config: Path, redock_home: Path) -> None:
    config.write_bytes(PLAIN)
    _include.install()
    _include.remove()
    config.write_bytes(b"# changed\n")
    _include.install()
    backup = redock_home / "ssh" / "config.before-redock"
    assert backup.read_bytes() == PLAIN
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_nothing_but_the_configuration_is_left_beside_it(config: Path) -> None:
    config.write_bytes(PLAIN)
    _include.install()
    assert os.listdir(config.parent) == ["config"]


# What must not be touched.


def assert_left_alone(config: Path, contents: bytes, words: str) -> None:
    before = config.lstat()
    with pytest.raises(SSHConfigConflict, match=words) as caught:
        _include.install()
    assert "\n" not in str(caught.value)
    after = config.lstat()
    assert config.read_bytes() == contents
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    explained = _include.explain(caught.value, "web-container")
    assert f"connect with: ssh -F {_ssh.config_file()} web-container" in explained


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444])
def test_a_read_only_configuration_is_left_alone_also_by_root(mode: int, config: Path) -> None:
    config.write_bytes(PLAIN)
    config.chmod(mode)
    assert_left_alone(config, PLAIN, "read-only|Permission denied")
    assert stat.S_IMODE(config.stat().st_mode) == mode


def test_a_configuration_in_a_read_only_directory_is_left_alone(
    config: Path, sandbox: Path
) -> None:
    config.write_bytes(PLAIN)

    def install() -> None:
        config.parent.chmod(0o500)
        assert_left_alone(config, PLAIN, "Permission denied")

    sandbox.chmod(0o755)
    as_nobody(sandbox, install)


def test_an_unreadable_configuration_is_not_taken_for_an_empty_one(
    config: Path, sandbox: Path
) -> None:
    config.write_bytes(PLAIN)

    def install() -> None:
        config.chmod(0o200)
        with pytest.raises(SSHConfigConflict, match="Permission denied"):
            _include.install()
        config.chmod(0o600)
        assert config.read_bytes() == PLAIN

    sandbox.chmod(0o755)
    as_nobody(sandbox, install)


def test_a_configuration_that_is_a_directory_is_left_alone(config: Path) -> None:
    config.mkdir()
    with pytest.raises(SSHConfigConflict):
        _include.install()
    assert config.is_dir()


@pytest.mark.parametrize("contents", [b"\xef\xbb\xbfHost other\n", b"Nonsense yes\n"])
def test_a_configuration_ssh_cannot_read_is_left_alone(contents: bytes, config: Path) -> None:
    config.write_bytes(contents)
    assert_left_alone(config, contents, "ssh cannot read")


def test_a_configuration_that_somebody_changes_meanwhile_is_left_alone(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_bytes(PLAIN)
    real = _include.check_readable

    def check(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        config.write_bytes(b"# theirs\n")

    monkeypatch.setattr(_include, "check_readable", check)
    with pytest.raises(SSHConfigConflict, match="run the command again"):
        _include.install()
    assert config.read_bytes() == b"# theirs\n"


def test_a_line_that_ssh_would_choke_on_never_gets_in(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_bytes(PLAIN)
    monkeypatch.setattr(_include, "include_line", lambda: "Inclood /nonexistent")
    assert_left_alone(config, PLAIN, "could not read .* with redock's line")


@pytest.mark.parametrize("name", ["per%cent", "dollar$x", "st*r", "qu?stion", "br[acket"])
def test_a_path_that_ssh_versions_read_differently_is_not_included(
    name: str, sandbox: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_bytes(PLAIN)
    (sandbox / name).mkdir()
    monkeypatch.setenv("REDOCK_HOME", str(sandbox / name))
    assert_left_alone_or_quoted(config)


def assert_left_alone_or_quoted(config: Path) -> None:
    with pytest.raises(SSHConfigConflict, match="cannot include"):
        _include.install()
    assert config.read_bytes() == PLAIN


def test_a_path_with_a_blank_is_quoted(
    sandbox: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDOCK_HOME", str(sandbox / "two words"))
    entry = _ssh.HostEntry("me:web", "web-container", "0123456789ab", 20001)
    _ssh.install(entry, KEY)
    _include.install()
    assert port_of(config, entry.alias) == "20001"


@pytest.mark.parametrize("name", ["plain", "two words", "per%cent", "dollar$x", "it's", "größe"])
def test_below_the_home_directory_the_line_begins_with_a_tilde(
    name: str, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = sandbox / name
    odd.mkdir()
    use_home(odd, monkeypatch)
    monkeypatch.delenv("REDOCK_HOME")
    assert _include.include_line() == "Include ~/.redock/ssh/config"


def test_another_home_variable_is_warned_about(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", "/elsewhere")
    _include.install()
    assert str(config.parent.parent) in caplog.text


# Modes.


def test_by_default_a_line_is_added(config: Path) -> None:
    assert _include.find_mode() == "include"


def test_users_of_update_dotdee_are_recognised(config: Path) -> None:
    make_dotdee_user(config)
    assert _include.find_mode() == "merge"


def test_a_directory_of_that_name_alone_makes_nobody_its_user(config: Path) -> None:
    (config.parent / "config.d").mkdir()
    (config.parent / "config.d" / "mine").write_bytes(PLAIN)
    assert _include.find_mode() == "include"


@pytest.mark.parametrize("mode", ["include", "merge", "none"])
def test_a_setting_decides(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", mode)
    assert _include.find_mode() == mode


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "never")
    with pytest.raises(SettingsError, match="choose from auto, include, merge, none"):
        _include.find_mode()


def test_mode_none_touches_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "none")
    assert _include.install() is False
    assert os.listdir(home) == []


# Mode merge: users of update-dotdee.


def make_dotdee_user(config: Path, **fragments: bytes) -> bytes:
    """Let the real update-dotdee, with its own context, assemble the user's configuration."""
    directory = Path(f"{config}.d")
    directory.mkdir(mode=0o700)
    for name, contents in (fragments or {"local": PLAIN, "work": b"Host work\n  Port 7\n"}).items():
        (directory / name).write_bytes(contents)
    program = (
        "import sys, types, warnings; warnings.simplefilter('ignore')\n"
        "import update_dotdee\n"
        "update_dotdee.UpdateDotDee(filename=sys.argv[1]).update_file()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (directory / ".checksum").is_file()
    return config.read_bytes()


def test_a_user_of_update_dotdee_gets_a_fragment_that_comes_first(
    config: Path, entry: _ssh.HostEntry
) -> None:
    before = make_dotdee_user(config)
    assert _include.install() is True
    assert port_of(config, entry.alias) == "20001"
    assert port_of(config, "work") == "7"
    assert config.read_bytes().endswith(before)
    assert _include.install() is False
    assert _include.remove() is True
    assert config.read_bytes() == before
    assert sorted(os.listdir(f"{config}.d")) == [".checksum", "local", "work"]


def test_the_real_update_dotdee_goes_on_working_afterwards(config: Path) -> None:
    make_dotdee_user(config)
    _include.install()
    installed = config.read_bytes()
    program = (
        "import sys, warnings; warnings.simplefilter('ignore'); import update_dotdee\n"
        "update_dotdee.UpdateDotDee(filename=sys.argv[1]).update_file()"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(config)],
        check=True,
        timeout=PATIENCE,
    )
    assert config.read_bytes() == installed


def test_a_foreign_edit_is_reported_with_its_remedy_and_kept(config: Path) -> None:
    edited = make_dotdee_user(config) + b"Host new\n"
    config.write_bytes(edited)
    with pytest.raises(SSHConfigConflict, match=r"changed by hand .*\.checksum"):
        _include.install()
    assert config.read_bytes() == edited
    assert sorted(os.listdir(f"{config}.d")) == [".checksum", "local", "work"]


def test_the_mode_and_the_links_of_a_generated_configuration_stay(
    config: Path, sandbox: Path, entry: _ssh.HostEntry
) -> None:
    make_dotdee_user(config)
    target = sandbox / "dotfiles" / "config"
    target.parent.mkdir()
    config.rename(target)
    config.symlink_to("../../dotfiles/config")
    target.chmod(0o640)
    before = target.read_bytes()
    _include.install()
    assert config.is_symlink()
    assert port_of(target, entry.alias) == "20001"
    _include.remove()
    assert config.is_symlink()
    assert target.read_bytes() == before
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_read_only_directory_of_fragments_is_a_warning_not_an_error(
    config: Path, sandbox: Path
) -> None:
    before = make_dotdee_user(config)

    def install() -> None:
        Path(f"{config}.d").chmod(0o500)
        assert_left_alone(config, before, "Permission denied")

    sandbox.chmod(0o755)
    as_nobody(sandbox, install)


def merge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_SSH_CONFIG", "merge")


@pytest.mark.parametrize("mode", [0o400, 0o444])
def test_a_read_only_generated_configuration_is_left_alone(mode: int, config: Path) -> None:
    before = make_dotdee_user(config)
    config.chmod(mode)
    assert_left_alone(config, before, "read-only")
    assert sorted(os.listdir(f"{config}.d")) == [".checksum", "local", "work"]


def test_a_hand_written_configuration_beside_fragments_is_not_lost(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stock update-dotdee: overwritten by the concatenation of the fragments, without a copy.
    merge(monkeypatch)
    config.write_bytes(PLAIN)
    Path(f"{config}.d").mkdir()
    Path(f"{config}.d", "work").write_bytes(b"Host work\n  Port 7\n")
    _include.install()
    assert PLAIN.strip() in config.read_bytes()
    assert Path(f"{config}.d", "local").read_bytes() == PLAIN


def test_a_hand_written_configuration_that_would_be_lost_is_left_alone(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(monkeypatch)
    config.write_bytes(PLAIN)
    Path(f"{config}.d").mkdir()
    Path(f"{config}.d", "local").write_bytes(b"Host different\n")
    assert_left_alone(config, PLAIN, "would lose one of them")


def test_a_configuration_that_includes_the_fragments_is_left_alone(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stock update-dotdee: the configuration includes itself, ssh is dead for all hosts.
    merge(monkeypatch)
    contents = b"Include config.d/*\n" + PLAIN
    config.write_bytes(contents)
    assert_left_alone(config, contents, "would include it twice")
    assert not Path(f"{config}.d").exists()


def test_a_relative_link_stays_one(
    config: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stock update-dotdee: the link is moved, dangles, and the configuration is gone.
    merge(monkeypatch)
    target = sandbox / "dotfiles" / "config"
    target.parent.mkdir()
    target.write_bytes(PLAIN)
    config.symlink_to("../../dotfiles/config")
    _include.install()
    assert str(config.readlink()) == "../../dotfiles/config"
    assert target.read_bytes().endswith(PLAIN)


def test_without_a_configuration_one_is_made(
    config: Path, monkeypatch: pytest.MonkeyPatch, entry: _ssh.HostEntry
) -> None:
    # Stock update-dotdee: mv fails.
    merge(monkeypatch)
    _include.install()
    assert port_of(config, entry.alias) == "20001"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


def test_the_first_merge_can_be_taken_back(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge(monkeypatch)
    config.write_bytes(PLAIN)
    config.chmod(0o644)
    _include.install()
    _include.remove()
    assert config.read_bytes() == PLAIN
    assert stat.S_IMODE(config.stat().st_mode) == 0o644


def test_fragments_with_an_executable_bit_are_never_run(
    config: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dotdee_user(config)
    fragment = Path(f"{config}.d", "local")
    fragment.write_text(f"#!/bin/sh\ntouch {sandbox}/executed\n")
    fragment.chmod(0o755)
    _include.install()
    assert not (sandbox / "executed").exists()


# Looking first.


def test_a_preview_shows_the_change_and_makes_none(config: Path) -> None:
    config.write_bytes(PLAIN)
    shown = _include.preview()
    assert f"+{_include.include_line()}\n" in shown
    assert config.read_bytes() == PLAIN
    _include.install()
    assert _include.preview() == ""
    installed = config.read_bytes()
    assert f"-{_include.include_line()}\n" in _include.preview(removing=True)
    assert config.read_bytes() == installed


def test_the_program_installs_shows_and_removes(
    config: Path, entry: _ssh.HostEntry, redock_home: Path
) -> None:
    config.write_bytes(PLAIN)
    done = run_redock("ssh-config", "install", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("---")
    assert config.read_bytes() == PLAIN
    assert run_redock("-q", "ssh-config", "install").returncode == 0
    assert config.read_bytes() == _include.added_bytes() + PLAIN
    shown = run_redock("ssh-config", "show")
    assert shown.stdout == (redock_home / "ssh" / "config").read_text()
    assert run_redock("ssh-config", "remove", "--dry-run").stdout.startswith("---")
    assert run_redock("-q", "ssh-config", "remove").returncode == 0
    assert config.read_bytes() == PLAIN


# Aliases the user has already.


@pytest.fixture
def ask_with_config(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask ssh about the test's configuration: by itself it would read the real one."""
    real: Callable[..., subprocess.Popen[bytes] | None] = _ssh.begin_options
    monkeypatch.setattr(_ssh, "begin_options", lambda alias, file=config: real(alias, str(file)))


@pytest.mark.usefixtures("ask_with_config")
def test_an_alias_that_leads_elsewhere_is_taken(config: Path) -> None:
    config.write_bytes(b"Host web-container\n  HostName 192.0.2.1\n")
    with pytest.raises(AliasTaken, match=re.escape("web-container to 192.0.2.1")):
        _include.AliasProbe("web-container").check()


@pytest.mark.usefixtures("ask_with_config")
def test_an_alias_nobody_uses_is_free(config: Path) -> None:
    config.write_bytes(PLAIN)
    probe = _include.AliasProbe("web-container")
    probe.check()
    probe.check()
    probe.discard()


@pytest.mark.usefixtures("ask_with_config")
def test_an_alias_of_redocks_own_is_free(config: Path, entry: _ssh.HostEntry) -> None:
    _include.install()
    _include.AliasProbe(entry.alias).check()


def test_a_user_whose_configuration_hangs_is_not_waited_for(sandbox: Path) -> None:
    process = subprocess.Popen(["sleep", "120"], stdout=subprocess.PIPE)
    assert _ssh.finish_options(process, timeout=0.05) == {}
    assert process.returncode is not None


def test_a_question_can_be_given_up(config: Path) -> None:
    probe = _include.AliasProbe("web-container")
    assert probe.process is None
    probe.process = subprocess.Popen(["sleep", "120"], stdout=subprocess.PIPE)
    probe.discard()
    assert probe.process.returncode is not None
