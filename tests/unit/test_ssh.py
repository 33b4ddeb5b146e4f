"""Host entries: what ssh makes of them, whatever the names and the home directory."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redock import _dotdee, _ssh
from redock._files import Home
from redock.api import Container
from redock.errors import RedockError, SSHConfigConflict, StateError
from tests.unit.conftest import PATIENCE, as_nobody, run_python, ssh_options, use_home

KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIII redock\n"
INSTANCE = "0123456789ab"


def entry_of(name: str = "me:web", port: int = 20001) -> _ssh.HostEntry:
    return _ssh.HostEntry(name, Container(name).ssh_alias, INSTANCE, port)


def options_of(config: Path | str, alias: str) -> dict[str, list[str]]:
    code, options, complaint = ssh_options(config, alias)
    assert (code, complaint) == (0, "")
    return options


# Entries.


def test_ssh_understands_an_entry_as_it_is_meant(redock_home: Path) -> None:
    _ssh.install(entry_of(), KEY)
    options = options_of(_ssh.config_file(), "web-container")
    assert {name: values[0] for name, values in options.items()} | {
        "hostname": "127.0.0.1",
        "port": "20001",
        "user": "root",
        "identityfile": f"{redock_home}/ssh/id_ed25519",
        "identitiesonly": "yes",
        "preferredauthentications": "publickey",
        "hostkeyalias": f"redock-{INSTANCE}",
        "hostkeyalgorithms": "ssh-ed25519",
        "userknownhostsfile": f"{redock_home}/ssh/known_hosts.d/{INSTANCE}",
        "globalknownhostsfile": "/dev/null",
        "stricthostkeychecking": "true",
        "checkhostip": "no",
        "updatehostkeys": "false",
        "forwardagent": "no",
        "forwardx11": "no",
        "connecttimeout": "10",
        "controlmaster": "auto",
        "controlpath": f"{redock_home}/ssh/s/{INSTANCE}",
        "controlpersist": "600",
        "loglevel": "ERROR",
    } == {name: values[0] for name, values in options.items()}
    assert len(options["identityfile"]) == 1
    assert not any("sntrup761" in name for name in options["kexalgorithms"])
    assert "curve25519" in options["kexalgorithms"][0]
    assert "proxycommand" not in options


def test_the_host_key_is_pinned_under_the_name_of_the_instance(redock_home: Path) -> None:
    _ssh.install(entry_of(), KEY)
    pinned = redock_home / "ssh" / "known_hosts.d" / INSTANCE
    algorithm, key, _ = KEY.decode().split()
    assert pinned.read_text() == f"redock-{INSTANCE} {algorithm} {key}\n"
    assert _ssh.pinned_key(INSTANCE) == f"{algorithm} {key}".encode()
    assert _ssh.pinned_key("ffffffffffff") is None
    found = subprocess.run(
        ["ssh-keygen", "-F", f"redock-{INSTANCE}", "-f", str(pinned)],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 0


def test_everything_an_entry_leaves_is_private(redock_home: Path) -> None:
    before = os.umask(0)
    try:
        _ssh.install(entry_of(), KEY)
    finally:
        os.umask(before)
    for path in redock_home.rglob("*"):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


words = st.text("ab1", min_size=1, max_size=4)
odd_tags = st.text("aB1._-", min_size=1, max_size=100).filter(lambda tag: tag[0] not in ".-")


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(repository=words, tag=odd_tags, port=st.integers(1, 65535))
@example(repository="a", tag="x.bak", port=1)
@example(repository="a", tag="x.orig", port=1)
@example(repository="a", tag="_" * 128, port=1)
@example(repository="a", tag="a" * 128, port=1)
@example(repository="a" * 255, tag="a", port=65535)
@example(repository="localhost:5000/a--b/c", tag="A.b-", port=22)
def test_every_machine_can_be_found_and_no_other_host_changes(
    repository: str, tag: str, port: int, redock_home: Path
) -> None:
    unconfigured = options_of("/dev/null", "other")
    entry = entry_of(f"{repository}:{tag}", port)
    _ssh.install(entry, KEY)
    try:
        options = options_of(_ssh.config_file(), entry.alias)
        assert options["port"] == [str(port)]
        assert options["hostkeyalias"] == [entry.host_key_alias]
        assert options_of(_ssh.config_file(), "other") == unconfigured
        assert _ssh.instance_of(entry.name) == INSTANCE
    finally:
        assert _ssh.remove(entry.name, INSTANCE)
    assert "hostkeyalias" not in options_of(_ssh.config_file(), entry.alias)


# Paths.

UNREADABLE = ('"', "\\", "\n", "\r", "${")
path_names = st.text(
    st.one_of(
        st.sampled_from(" %'$~#=*?[]{}!,;:()&|<>`\t\"\\é世"),
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", ".."))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=path_names)
@example(name="two words")
@example(name=" leading and trailing ")
@example(name="100%")
@example(name="%h%%d")
@example(name="it's")
@example(name="$HOME")
@example(name="dollar$")
@example(name="größe")
@example(name="a=b#c")
@example(name="\x7f\x1b[0m")
def test_ssh_reads_a_quoted_path_as_it_is_or_it_is_refused(name: str, sandbox: Path) -> None:
    path = f"{sandbox}/{name}"
    try:
        quoted = _ssh.ssh_quote(path)
    except SSHConfigConflict:
        assert any(unreadable in path for unreadable in UNREADABLE)
        return
    assert not any(unreadable in path for unreadable in UNREADABLE)
    config = sandbox / "quoted"
    config.write_text(
        f"Host x\n  IdentityFile {quoted}\n  UserKnownHostsFile {quoted}\n  ControlPath {quoted}\n",
        newline="",
    )
    options = options_of(config, "x")
    # Whether ssh -G shows a path before or after it replaced "%%" depends on option and version.
    (sandbox / "plain").write_text("Host x\n  IdentityFile /a%%b\n  ControlPath /a%%b\n")
    shown = options_of(sandbox / "plain", "x")
    for option in ("identityfile", "controlpath"):
        raw = shown[option] == ["/a%%b"]
        assert options[option] == [path.replace("%", "%%") if raw else path]


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline", "return\r", "${HOME}"])
def test_a_path_that_ssh_cannot_read_is_refused(name: str) -> None:
    with pytest.raises(SSHConfigConflict) as caught:
        _ssh.ssh_quote(f"/home/{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["two words", "per%cent", "%h", "it's", "dollar$x", "größe", "a=b", "#x"]
)
def test_a_machine_is_found_in_a_home_directory_of_any_name(
    name: str, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = sandbox / name
    odd.mkdir()
    use_home(odd, monkeypatch)
    monkeypatch.delenv("REDOCK_HOME")
    monkeypatch.setattr(Home, "found", None)
    _ssh.install(entry_of(), KEY)
    options = options_of(_ssh.config_file(), "web-container")
    # A plain reader of the entry: ssh -G may or may not have replaced "%%".
    assert options["identityfile"][0].replace("%%", "%") == f"{odd}/.redock/ssh/id_ed25519"
    assert options["port"] == ["20001"]


# The shared connection.


def test_a_long_path_leaves_the_shared_connection_out(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDOCK_HOME", str(sandbox / ("x" * 80)))
    _ssh.install(entry_of(), KEY)
    assert _ssh.control_path(INSTANCE) is None
    options = options_of(_ssh.config_file(), "web-container")
    assert options["controlmaster"] == ["false"]
    assert "controlpath" not in options
    assert "controlpersist" not in options or options["controlpersist"] == ["no"]


def test_a_long_path_moves_the_socket_to_the_runtime_directory(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDOCK_HOME", str(sandbox / ("x" * 80)))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sandbox))
    assert _ssh.control_path(INSTANCE) == f"{sandbox}/redock/{INSTANCE}"


def test_the_path_of_a_socket_is_measured_in_bytes(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = _ssh.LONGEST_CONTROL_PATH - len(f"{sandbox}//ssh/s/{INSTANCE}")
    monkeypatch.setenv("REDOCK_HOME", f"{sandbox}/{'x' * room}")
    path = _ssh.control_path(INSTANCE)
    assert path is not None
    assert len(path) == _ssh.LONGEST_CONTROL_PATH
    monkeypatch.setenv("REDOCK_HOME", f"{sandbox}/{'x' * (room - 1)}é")
    assert _ssh.control_path(INSTANCE) is None


def test_a_file_system_without_hard_links_leaves_the_shared_connection_out(
    monkeypatch: pytest.MonkeyPatch, redock_home: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert _ssh.control_path(INSTANCE) is None
    assert "ControlMaster" not in entry_of().text()
    assert os.listdir(redock_home / "ssh" / "s") == []


# Several at once.

MANY = f"""
import os, sys
from redock import _ssh

KEY = {KEY!r}
children = []
for number in range(8):
    child = os.fork()
    if not child:
        for turn in range(6):
            instance = f"{{number:06x}}{{turn:06x}}"
            name = f"me:m{{number}}-{{turn}}"
            entry = _ssh.HostEntry(name, f"m{{number}}-{{turn}}-container", instance, 20000 + turn)
            _ssh.install(entry, KEY)
            if turn % 2:
                _ssh.remove(name, instance)
        os._exit(0)
    children.append(child)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def test_eight_processes_at_once_leave_a_complete_configuration(redock_home: Path) -> None:
    done = run_python("-c", MANY)
    assert (done.returncode, done.stderr) == (0, "")
    kept = {f"m{number}-{turn}" for number in range(8) for turn in (0, 2, 4)}
    text = (redock_home / "ssh" / "config").read_text()
    assert {line[5:-10] for line in text.splitlines() if line.startswith("Host ")} == kept
    assert options_of(redock_home / "ssh" / "config", "m7-4-container")["port"] == ["20004"]
    assert len(os.listdir(redock_home / "ssh" / "known_hosts.d")) == len(kept)
    strays = [path for path in redock_home.rglob("*") if path.name.endswith(".tmp")]
    assert strays == []


def test_removing_what_is_not_there_is_fine() -> None:
    _ssh.install(entry_of(), KEY)
    assert _ssh.remove("me:other", "ffffffffffff") is False
    assert _ssh.remove("me:web", INSTANCE) is True
    assert _ssh.remove("me:web", INSTANCE) is False


def test_an_entry_that_did_not_change_is_not_written_again() -> None:
    _ssh.install(entry_of(), KEY)
    paths = [_ssh.config_file(), _ssh.fragment_file("me:web"), _ssh.known_hosts_file(INSTANCE)]
    before = [os.stat(path).st_ino for path in paths]
    _ssh.install(entry_of(), KEY)
    assert [os.stat(path).st_ino for path in paths] == before
    _ssh.install(entry_of(port=20002), KEY)
    assert options_of(_ssh.config_file(), "web-container")["port"] == ["20002"]


def test_what_somebody_wrote_into_redocks_own_file_is_overwritten_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # So it looks when redock was killed between the file and its checksum.
    _ssh.install(entry_of(), KEY)
    Path(_ssh.config_file()).write_text("Host nonsense\n")
    _ssh.install(entry_of(port=20002), KEY)
    assert options_of(_ssh.config_file(), "web-container")["port"] == ["20002"]
    assert capfd.readouterr().err == ""


def test_a_senseless_checksum_is_an_error_of_ours() -> None:
    _ssh.install(entry_of(), KEY)
    Path(_ssh.fragment_file("x")).with_name(".checksum").write_bytes(b"\xff")
    with pytest.raises(SSHConfigConflict, match="cannot be updated"):
        _ssh.install(entry_of(port=20002), KEY)


def test_strays_of_killed_processes_are_collected(redock_home: Path) -> None:
    _ssh.install(entry_of(), KEY)
    strays = [
        redock_home / "ssh" / name
        for name in (
            ".redock-config-1-00.tmp",
            "config.d/.redock-x-1-00.tmp",
            "known_hosts.d/.redock-x-1-00.tmp",
        )
    ]
    # Under another lock somebody may be writing this one at the moment.
    foreign = redock_home / "ssh" / ".redock-trial-1.tmp"
    foreign.touch()
    for stray in strays:
        stray.write_text("Host stray\n")
    _ssh.install(entry_of("me:other"), KEY)
    assert not any(stray.exists() for stray in strays)
    assert foreign.exists()


# Host keys.


def test_a_host_key_leaves_nothing_on_disk(redock_home: Path) -> None:
    private, public = _ssh.HostKey().collect()
    assert private.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert public.startswith(b"ssh-ed25519 AAAA")
    assert os.listdir(redock_home / "ssh") == []


def test_every_host_key_is_another() -> None:
    keys = [_ssh.HostKey() for _ in range(4)]
    assert len({key.collect()[1] for key in keys}) == 4


def test_a_host_key_can_be_given_up(redock_home: Path) -> None:
    key = _ssh.HostKey()
    key.discard()
    key.discard()
    assert key.process.returncode is not None
    assert os.listdir(redock_home / "ssh") == []


def test_a_failing_ssh_keygen_is_quoted(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = sandbox / "ssh-keygen"
    program.write_text("#!/bin/sh\necho 'no entropy today' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sandbox}:{os.environ['PATH']}")
    with pytest.raises(StateError, match="no entropy today"):
        _ssh.HostKey().collect()


def test_without_ssh_keygen_nothing_is_left(
    redock_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RedockError, match="apt-get install openssh-client"):
        _ssh.HostKey()
    assert os.listdir(redock_home / "ssh") == []


def test_only_abandoned_host_keys_are_collected(redock_home: Path) -> None:
    _ssh.install(entry_of(), KEY)
    # Process numbers end below this one (proc(5), pid_max).
    names = (".new-4194305-00", f".new-{os.getpid()}-00")
    abandoned, fresh = (redock_home / "ssh" / name for name in names)
    for directory in (abandoned, fresh):
        directory.mkdir()
        (directory / "key").touch()
    _ssh.install(entry_of("me:other"), KEY)
    assert not abandoned.exists()
    assert fresh.exists()


def test_a_read_only_directory_is_one_line(sandbox: Path, redock_home: Path) -> None:
    _ssh.install(entry_of(), KEY)

    def install() -> None:
        (redock_home / "ssh" / "config.d").chmod(0o500)
        with pytest.raises(StateError, match="Permission denied") as caught:
            _ssh.install(entry_of("me:other"), KEY)
        assert "\n" not in str(caught.value)

    sandbox.chmod(0o755)
    as_nobody(sandbox, install)
    assert options_of(_ssh.config_file(), "web-container")["port"] == ["20001"]


# update-dotdee.


def test_update_dotdee_is_loaded_without_executor() -> None:
    program = (
        "import sys; from redock import _dotdee; _dotdee.load()\n"
        "print(sorted(name for name in sys.modules if name.startswith(('executor', 'pipes'))))\n"
        "import warnings; warnings.simplefilter('ignore'); import executor; print(executor.execute)"
    )
    done = run_python("-c", program)
    assert done.stdout.startswith("[]\n<function execute"), done


def test_without_update_dotdee_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "update_dotdee", None)
    with pytest.raises(SSHConfigConflict, match="update-dotdee cannot be loaded"):
        _ssh.install(entry_of(), KEY)


def test_editors_leftovers_among_the_users_fragments_do_not_count(sandbox: Path) -> None:
    for name in ("a", "b~", "c.orig", "d.bak"):
        (sandbox / name).touch()
    assert sorted(_dotdee.PlainFiles().list_entries(str(sandbox))) == ["a"]
