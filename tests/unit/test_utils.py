"""redock's state, its key pair, quoting, mirrors."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock import utils
from redock.errors import SettingsError, StateError
from redock.utils import Config


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def state_file(home: Path) -> Path:
    """Get the state file, its directory made."""
    utils.create_configuration_directory()
    return home / ".redock" / "state.json"


def test_an_empty_state_without_a_file() -> None:
    assert Config().load() == {"version": 2, "containers": {}}


def test_what_is_put_in_is_found_again(home: Path) -> None:
    with Config() as state:
        state["containers"]["a:b"] = {"port": 1}
    assert Config().load()["containers"] == {"a:b": {"port": 1}}
    assert stat.S_IMODE(state_file(home).stat().st_mode) == 0o600


def test_an_error_inside_saves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), Config() as state:
        state["containers"]["a:b"] = 1 / 0
    assert Config().load()["containers"] == {}


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"{",
        b'{"version": 2, "containers": {"a',
        b"\x80\x04\x95\xff\xfe",
        b"[]",
        b'{"version": "2", "containers": {}}',
        b'{"version": 2, "containers": []}',
        b'{"version": 2, "version": 2, "containers": {}}',
        b"[" * 100_000,
    ],
)
def test_a_state_that_makes_no_sense_is_set_aside(home: Path, contents: bytes) -> None:
    path = state_file(home)
    path.write_bytes(contents)
    assert Config().load()["containers"] == {}
    assert not path.exists()
    assert (home / ".redock" / "state.json.corrupt-1").read_bytes() == contents
    path.write_bytes(contents)
    with Config() as state:
        state["containers"]["new"] = {}
    assert (home / ".redock" / "state.json.corrupt-2").exists()
    assert list(Config().load()["containers"]) == ["new"]


def test_the_pickle_of_2013_is_never_executed(home: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    state_file(home).write_bytes(pickle.dumps(Payload(str(made))))
    Config().load()
    assert not made.exists()


def test_other_things_in_its_place(home: Path, tmp_path: Path) -> None:
    path = state_file(home)
    target = tmp_path / "target"
    target.write_text("{}")
    path.symlink_to(target)
    assert Config().load()["containers"] == {}
    assert target.read_text() == "{}"
    path.mkdir()
    assert Config().load()["containers"] == {}
    os.mkfifo(path)
    assert Config().load()["containers"] == {}
    with path.open("wb") as handle:
        handle.truncate(100 * 1024 * 1024)
    assert Config().load()["containers"] == {}


def test_a_newer_state_is_left_alone(home: Path) -> None:
    path = state_file(home)
    contents = b'{"version": 99, "containers": {}}'
    path.write_bytes(contents)
    with pytest.raises(StateError, match="newer"):
        Config().load()
    with pytest.raises(StateError), Config():
        pass
    assert path.read_bytes() == contents


@given(st.binary(max_size=200))
def test_any_bytes_are_a_state_or_set_aside(contents: bytes) -> None:
    path = Path(Config().path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(contents)
    try:
        assert isinstance(Config().load()["containers"], dict)
    except StateError as error:
        assert "newer" in str(error)
    for each in path.parent.glob("state.json*"):
        each.unlink()


def test_no_update_is_lost_between_processes(home: Path) -> None:
    utils.create_configuration_directory()
    program = (
        "import sys; from redock.utils import Config\n"
        "for number in range(5):\n"
        "    with Config() as state: state['containers'][f'{sys.argv[1]}-{number}'] = {}"
    )
    env = {**os.environ, "REDOCK_HOME": str(home / ".redock")}
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(number)], env=env)
        for number in range(10)
    ]
    assert [child.wait(timeout=60) for child in children] == [0] * 10
    assert len(Config().load()["containers"]) == 50


def test_the_key_pair_is_made_once(home: Path) -> None:
    public = utils.get_ssh_public_key()
    assert public.startswith("ssh-ed25519 ")
    assert utils.get_ssh_public_key() == public
    private = home / ".redock" / "ssh" / "id_ed25519"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    (home / ".redock" / "ssh" / "id_ed25519.pub").unlink()
    assert utils.get_ssh_public_key().split()[:2] == public.split()[:2]


def test_an_interrupted_key_generation_is_repeated(home: Path) -> None:
    directory = home / ".redock" / "ssh"
    directory.mkdir(parents=True)
    (directory / "id_ed25519.new").write_text("half of a key")
    assert utils.get_ssh_public_key().startswith("ssh-ed25519 ")
    assert sorted(path.name for path in directory.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_quoting_is_undone_by_a_shell(command: list[str]) -> None:
    assert shlex.split(utils.quote_command_line(command)) == command


def test_small_helpers() -> None:
    assert utils.summarize_id("sha256:" + "ab" * 32) == "ab" * 6
    assert "install --yes" in utils.apt_get_install("nginx")
    assert not any(address.startswith("127.") for address in utils.find_local_ip_addresses())


def test_a_mirror_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDOCK_MIRROR", "http://mirror.example/ubuntu/")
    assert utils.select_ubuntu_mirror() == "http://mirror.example/ubuntu"
    for wrong in ("mirror.example", "ftp://x/y", "http://a b", "http://", "http://x\nfoo"):
        monkeypatch.setenv("REDOCK_MIRROR", wrong)
        with pytest.raises(SettingsError):
            utils.select_ubuntu_mirror()


def test_the_mirror_is_remembered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "find_fastest_mirror", lambda: "http://near.example/ubuntu")
    assert utils.select_ubuntu_mirror() == "http://near.example/ubuntu"
    monkeypatch.setattr(utils, "find_fastest_mirror", lambda: "http://nearer.example/ubuntu")
    assert utils.select_ubuntu_mirror() == "http://near.example/ubuntu"
    assert utils.select_ubuntu_mirror(force=True) == "http://nearer.example/ubuntu"


def test_the_state_is_json(home: Path) -> None:
    with Config() as state:
        state["containers"]["a:b"] = {"alias": "b-container"}
    assert json.loads(state_file(home).read_text())["version"] == 2
