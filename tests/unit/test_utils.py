"""The helpers of the manual: state that survives anything, keys, mirrors, quoting."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import pickle
import shlex
import stat
import subprocess
import urllib.request
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redock import utils
from redock.errors import RedockError, SettingsError, StateError
from redock.utils import (
    Config,
    RemoteTerminal,
    apt_get_install,
    check_mirror,
    create_configuration_directory,
    find_local_ip_addresses,
    generate_ssh_key_pair,
    get_ssh_public_key,
    private_key_file,
    quote_command_line,
    select_ubuntu_mirror,
    summarize_id,
)
from tests.unit.conftest import PATIENCE, run_redock

EMPTY = {"version": 2, "containers": {}}


@pytest.fixture
def state_file() -> Path:
    create_configuration_directory()
    return Path(Config().path)


# State.


def test_state_is_kept_between_runs(state_file: Path) -> None:
    with Config() as state:
        state["containers"]["a:b"] = {"port": 1}
    assert Config().load()["containers"] == {"a:b": {"port": 1}}
    assert json.loads(state_file.read_bytes())["version"] == 2


def test_without_a_file_the_state_is_empty(state_file: Path) -> None:
    assert Config().load() == EMPTY
    assert not state_file.exists()


def test_an_existing_file_need_not_be_looked_at(state_file: Path) -> None:
    with Config() as state:
        state["containers"]["a:b"] = {}
    assert Config().load(exists=False) == EMPTY


def test_a_block_that_fails_saves_nothing(state_file: Path) -> None:
    with pytest.raises(ZeroDivisionError), Config() as state:
        state["containers"]["a:b"] = {}
        raise ZeroDivisionError
    assert Config().load() == EMPTY
    with Config() as state:
        pass


def test_keys_of_an_unknown_redock_of_the_same_format_stay(state_file: Path) -> None:
    state_file.write_text('{"version": 2, "containers": {}, "more": 1}')
    with Config() as state:
        state["containers"]["a:b"] = {}
    assert json.loads(state_file.read_text())["more"] == 1


SENSELESS = {
    "empty": b"",
    "cut off": b'{"version": 2, "contai',
    "binary": bytes(range(256)),
    "duplicate keys": b'{"version": 2, "containers": {}, "containers": {}}',
    "a list": b"[]",
    "a number": b"1",
    "no version": b'{"containers": {}}',
    "no containers": b'{"version": 2}',
    "a version of text": b'{"version": "2", "containers": {}}',
    "containers in a list": b'{"version": 2, "containers": []}',
    "no version at all": b'{"version": null, "containers": {}}',
    "nested without end": b'{"version":' + b"[" * 100_000,
    "a number without end": b'{"version": ' + b"9" * 5000 + b', "containers": {}}',
    "another encoding": '{"version": 2, "containers": {"é": 1}}'.encode("latin-1"),
}


@pytest.mark.parametrize("contents", SENSELESS.values(), ids=SENSELESS.keys())
def test_a_file_that_makes_no_sense_is_set_aside(
    contents: bytes, state_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state_file.write_bytes(contents)
    assert Config().load() == EMPTY
    aside = state_file.with_name("state.json.corrupt-1")
    assert aside.read_bytes() == contents
    assert not state_file.exists()
    assert str(aside) in caplog.text
    with Config() as state:
        state["containers"]["a:b"] = {}
    assert "a:b" in Config().load()["containers"]


def test_what_was_set_aside_before_is_kept(state_file: Path) -> None:
    for number in range(3):
        state_file.write_text(str(number))
        Config().load()
    kept = sorted(path.read_text() for path in state_file.parent.glob("state.json.corrupt-*"))
    assert kept == ["0", "1", "2"]


def test_a_huge_file_is_set_aside_unread(state_file: Path) -> None:
    with state_file.open("wb") as handle:
        handle.truncate(100 * 1024 * 1024)
    assert Config().load() == EMPTY
    assert state_file.with_name("state.json.corrupt-1").stat().st_size == 100 * 1024 * 1024


def test_a_file_that_is_too_large_is_set_aside_even_if_it_made_sense(state_file: Path) -> None:
    contents = b'{"version": 2, "containers": {"a:b": {}}}'
    state_file.write_bytes(contents + b" " * Config.size_limit)
    assert Config().load() == EMPTY


def test_a_directory_is_set_aside(state_file: Path) -> None:
    state_file.mkdir()
    assert Config().load() == EMPTY
    assert state_file.with_name("state.json.corrupt-1").is_dir()


def test_a_link_is_set_aside_and_not_followed(state_file: Path, sandbox: Path) -> None:
    victim = sandbox / "victim"
    victim.write_text('{"version": 2, "containers": {"a:b": {}}}')
    state_file.symlink_to(victim)
    with Config() as state:
        assert state == EMPTY
        state["containers"]["c:d"] = {}
    assert "a:b" in victim.read_text()
    assert not state_file.is_symlink()
    assert state_file.with_name("state.json.corrupt-1").is_symlink()


def test_a_pipe_is_set_aside_without_waiting_for_a_writer(state_file: Path) -> None:
    os.mkfifo(state_file)
    assert Config().load() == EMPTY
    assert stat.S_ISFIFO(state_file.with_name("state.json.corrupt-1").stat().st_mode)


def test_a_file_that_cannot_be_read_is_an_error_of_ours(
    state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StateError, match=r"cannot read .*Permission denied"):
        Config().load()


NEWER = b'{"version": 3, "containers": {"a:b": {}}, "future": true}'


def test_the_file_of_a_newer_redock_is_left_alone(state_file: Path) -> None:
    state_file.write_bytes(NEWER)
    with pytest.raises(StateError, match="newer redock"):
        Config().load()
    with pytest.raises(StateError, match="newer redock"), Config():
        pytest.fail("nothing may be changed")
    assert state_file.read_bytes() == NEWER
    assert [path.name for path in state_file.parent.glob("state*")] == ["state.json"]


@pytest.mark.parametrize("verb", ["start", "kill"])
def test_the_program_says_so_before_it_asks_the_engine(verb: str, state_file: Path) -> None:
    state_file.write_bytes(NEWER)
    done = run_redock(verb, "web")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert "newer redock" in done.stderr
    assert state_file.read_bytes() == NEWER


class Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_2013_is_never_executed(protocol: int, state_file: Path, sandbox: Path) -> None:
    proof = sandbox / "executed"
    contents = pickle.dumps({"version": 1, "containers": Payload(str(proof))}, protocol)
    # The payload works: this is what redock must not do.
    pickle.loads(contents)["containers"].close()
    assert proof.exists()
    proof.unlink()
    for name in ("state.json", "config.pickle"):
        (state_file.parent / name).write_bytes(contents)
    assert Config().load() == EMPTY
    assert not proof.exists()
    assert state_file.with_name("state.json.corrupt-1").read_bytes() == contents


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.dictionaries(st.sampled_from(["version", "containers", "x"]), children, max_size=3),
    ),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=st.one_of(st.binary(max_size=200), json_values.map(json.dumps).map(str.encode)))
@example(contents=b'{"version": true, "containers": {}}')
@example(contents=b'{"version": -1, "containers": {"\\ud800": NaN}}')
def test_any_contents_can_be_loaded_and_saved_after(contents: bytes, state_file: Path) -> None:
    logging.getLogger("redock").setLevel(logging.ERROR)
    try:
        state_file.write_bytes(contents)
        with contextlib.suppress(StateError), Config() as state:
            state["containers"]["a:b"] = {}
        with contextlib.suppress(StateError):
            assert "a:b" in Config().load()["containers"]
    finally:
        logging.getLogger("redock").setLevel(logging.NOTSET)
        for path in state_file.parent.glob("state.json*"):
            path.unlink()


# Keys.


def test_a_key_pair_is_made_once_and_is_private() -> None:
    generate_ssh_key_pair()
    private = Path(private_key_file())
    first = private.read_bytes()
    generate_ssh_key_pair()
    assert private.read_bytes() == first
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert get_ssh_public_key().startswith("ssh-ed25519 AAAA")
    assert sorted(os.listdir(private.parent)) == ["id_ed25519", "id_ed25519.pub"]


def test_a_lost_public_key_is_computed_from_the_private_one() -> None:
    before = get_ssh_public_key()
    os.unlink(private_key_file() + ".pub")
    assert get_ssh_public_key().split()[:2] == before.split()[:2]


def test_a_lost_private_key_makes_a_new_pair() -> None:
    before = get_ssh_public_key()
    os.unlink(private_key_file())
    after = get_ssh_public_key()
    assert after != before
    computed = subprocess.run(
        ["ssh-keygen", "-y", "-f", private_key_file()],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert computed.stdout.split()[:2] == after.split()[:2]


def test_what_an_interrupted_generation_left_is_no_obstacle() -> None:
    create_configuration_directory()
    private = Path(private_key_file())
    private.parent.mkdir()
    for name in (".new", ".new.pub", ".pub"):
        Path(f"{private}{name}").write_text("half")
    assert get_ssh_public_key().startswith("ssh-ed25519 ")


def test_without_ssh_keygen_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RedockError, match="apt-get install openssh-client"):
        generate_ssh_key_pair()


# Mirrors.


def test_a_mirror_that_was_chosen_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = iter(["http://one.example/ubuntu", "http://two.example/ubuntu"])
    monkeypatch.setattr(utils, "find_fastest_mirror", lambda: next(chosen))
    assert select_ubuntu_mirror() == "http://one.example/ubuntu"
    assert select_ubuntu_mirror() == "http://one.example/ubuntu"
    assert select_ubuntu_mirror(force=True) == "http://two.example/ubuntu"
    assert select_ubuntu_mirror() == "http://two.example/ubuntu"


def test_where_no_list_is_to_be_had_the_archive_itself_is_used_and_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert select_ubuntu_mirror() == utils.UBUNTU_ARCHIVE
    monkeypatch.setattr(utils, "find_fastest_mirror", lambda: "http://one.example/ubuntu")
    assert select_ubuntu_mirror() == "http://one.example/ubuntu"


def test_a_mirror_that_was_asked_for_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "find_fastest_mirror", lambda: pytest.fail("not asked for"))
    monkeypatch.setenv("REDOCK_MIRROR", "http://mine.example/ubuntu/")
    assert select_ubuntu_mirror() == "http://mine.example/ubuntu"


@pytest.mark.parametrize(
    "url",
    ["mine", "ftp://x/y", "http://", "http://x/ y", "http://x/\nx", "http://é/", "file:/"],
)
def test_a_mirror_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        check_mirror(url)


# The rest.


def test_the_command_to_install_packages_asks_nothing() -> None:
    assert apt_get_install("nginx", "a b") == (
        "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends nginx 'a b'"
    )


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_shell_splits_a_quoted_command_into_the_same_words(command: list[str]) -> None:
    assert shlex.split(quote_command_line(command)) == command


def test_a_real_shell_agrees() -> None:
    words = ["", "a b", "$HOME", "`id`", "it's", '"', "\\", "*", "~", "\n", "é", "-n", "a=b", "#"]
    done = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {quote_command_line(words)}"],
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout.decode().split("\0")[:-1] == words


@pytest.mark.parametrize("id", ["0123456789abcdef" * 4, "sha256:" + "0123456789abcdef" * 4])
def test_an_id_is_shortened_as_docker_does(id: str) -> None:
    assert summarize_id(id) == "0123456789ab"


def test_local_addresses_are_addresses_and_not_loopback() -> None:
    for address in find_local_ip_addresses():
        assert not ipaddress.IPv4Address(address).is_loopback


def test_a_terminal_shows_the_output_of_a_container_until_it_is_detached(
    sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = sandbox / "docker"
    program.write_text(f'#!/bin/sh\necho "$@" >{sandbox}/arguments\nexec sleep 120\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sandbox}:{os.environ['PATH']}")
    with RemoteTerminal("abc") as terminal:
        process = terminal.process
        assert process is not None
        assert process.poll() is None
        terminal.attach()
        assert terminal.process is process
    assert process.returncode is not None
    assert terminal.process is None
    terminal.detach()


def test_without_the_docker_program_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RedockError, match="apt-get install"):
        RemoteTerminal("abc").attach()
