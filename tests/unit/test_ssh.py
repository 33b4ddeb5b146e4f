"""Host entries and pinned keys."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redock import _ssh
from redock._names import hostname_for, slug
from redock.errors import SSHConfigConflict

from .conftest import use_home

pytestmark = pytest.mark.usefixtures("default_home")

KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6rK2TYAZEZ redock"


def entry(
    name: str = "me:web", instance: str = "0123456789ab", port: int = 20001
) -> _ssh.HostEntry:
    """Make a host entry."""
    return _ssh.HostEntry(name, f"{slug(name.partition(':')[2])}-container", instance, port)


def test_ssh_understands_what_is_installed(home: Path) -> None:
    _ssh.install(entry(), KEY)
    shown = _ssh.effective_options("web-container", _ssh.config_file())
    assert shown["hostname"] == "127.0.0.1"
    assert shown["port"] == "20001"
    assert shown["user"] == "root"
    assert shown["hostkeyalias"] == "redock-0123456789ab"
    assert shown["stricthostkeychecking"] in ("true", "yes")
    assert shown["forwardagent"] == "no"
    assert shown["controlpath"] == str(home / ".redock" / "ssh" / "s" / "0123456789ab")
    known = (home / ".redock" / "ssh" / "known_hosts.d" / "0123456789ab").read_bytes()
    assert known == b"redock-0123456789ab " + KEY.removesuffix(b" redock") + b"\n"
    assert _ssh.pinned_key("0123456789ab") == KEY.removesuffix(b" redock")
    assert _ssh.instance_of("me:web") == "0123456789ab"


def test_everything_is_private(home: Path) -> None:
    before = os.umask(0)
    try:
        _ssh.install(entry(), KEY)
    finally:
        os.umask(before)
    for directory, _, files in os.walk(home / ".redock"):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700, directory
        for name in files:
            assert stat.S_IMODE(os.stat(f"{directory}/{name}").st_mode) == 0o600, name


def test_removing_leaves_the_others(home: Path) -> None:
    _ssh.install(entry(), KEY)
    _ssh.install(entry("me:db", "ba9876543210", 20002), KEY)
    assert _ssh.remove("me:web", "0123456789ab")
    assert not _ssh.remove("me:web", "0123456789ab")
    config = Path(_ssh.config_file()).read_text()
    assert "Host db-container" in config and "web-container" not in config
    assert _ssh.pinned_key("0123456789ab") is None
    assert _ssh.pinned_key("ba9876543210")


def test_a_changed_entry_replaces_the_old_one(home: Path) -> None:
    _ssh.install(entry(), KEY)
    _ssh.install(entry(port=20009), KEY)
    assert Path(_ssh.config_file()).read_text().count("Host web-container") == 1
    assert _ssh.effective_options("web-container", _ssh.config_file())["port"] == "20009"


def test_what_somebody_wrote_into_redocks_file_is_replaced(home: Path) -> None:
    _ssh.install(entry(), KEY)
    Path(_ssh.config_file()).write_text("Nonsense\n")
    _ssh.install(entry("me:db", "ba9876543210", 20002), KEY)
    assert _ssh.effective_options("web-container", _ssh.config_file())["port"] == "20001"


def test_processes_side_by_side_lose_no_entry(home: Path) -> None:
    program = (
        "import sys; from redock import _ssh\n"
        "for number in range(5):\n"
        "    name = f'm{sys.argv[1]}-{number}'\n"
        "    entry = _ssh.HostEntry('me:' + name, name + '-container', name, 20001)\n"
        f"    _ssh.install(entry, {KEY!r})"
    )
    env = {**os.environ, "REDOCK_HOME": str(home / ".redock")}
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(number)], env=env)
        for number in range(8)
    ]
    assert [child.wait(timeout=60) for child in children] == [0] * 8
    assert Path(_ssh.config_file()).read_text().count("Host m") == 40


def test_a_long_home_does_without_shared_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ("x" * 90)
    home.mkdir()
    use_home(home, monkeypatch)
    assert "ControlPath" not in entry().text()
    runtime = Path("/tmp") / f"redock-unit-{os.getpid()}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    try:
        assert f'ControlPath "{runtime}/redock/0123456789ab"' in entry().text()
    finally:
        (runtime / "redock").rmdir()
        runtime.rmdir()


TAGS = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}\Z")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tag=TAGS, port=st.integers(1, 65535))
def test_every_entry_is_one_that_ssh_reads(home: Path, tag: str, port: int) -> None:
    alias = f"{slug(hostname_for(tag)) or 'redock'}-container"
    trial = home / "trial"
    trial.write_text(_ssh.HostEntry(f"me:{tag}", alias, "0123456789ab", port).text())
    assert _ssh.effective_options(alias, str(trial))["port"] == str(port)


@pytest.mark.parametrize("path", ['a"b', "a\nb", "a\\b", "${HOME}"])
def test_paths_that_ssh_cannot_read(path: str) -> None:
    with pytest.raises(SSHConfigConflict):
        _ssh.ssh_quote(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
)
def test_any_other_path_arrives_as_it_is(home: Path, name: str) -> None:
    try:
        quoted = _ssh.ssh_quote("/x/" + name)
    except SSHConfigConflict:
        return
    trial = home / "trial"
    trial.write_text(f"IdentityFile {quoted}\n")
    # "ssh -G" shows identity files before it expands them; white space at the end is its own.
    shown = _ssh.effective_options("host", str(trial)).get("identityfile", "")
    assert shown.replace("%%", "%").rstrip() == ("/x/" + name.replace("%%", "%")).rstrip()


def test_a_host_key_leaves_nothing_on_disk(home: Path) -> None:
    private, public = _ssh.HostKey().collect()
    assert b"OPENSSH PRIVATE KEY" in private
    assert public.startswith(b"ssh-ed25519 ")
    assert os.listdir(home / ".redock" / "ssh") == []


def test_abandoned_host_keys_are_collected(home: Path) -> None:
    old = home / ".redock" / "ssh" / ".new-0000"
    old.mkdir(parents=True)
    (old / "key").write_text("secret")
    young = home / ".redock" / "ssh" / ".new-1111"
    young.mkdir()
    os.utime(old, (1, 1))
    _ssh.install(entry(), KEY)
    assert not old.exists() and young.exists()
