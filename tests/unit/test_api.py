"""The API without an engine, and with one that a test plays."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import redock.bootstrap
import redock.cluster
from redock import _machines, _ssh, api
from redock._engine import Engine, label
from redock._machines import Machine
from redock.api import Container, Image, Session
from redock.errors import (
    AliasTaken,
    ContainerDied,
    EngineError,
    InvalidName,
    NoContainerRunning,
    NotFound,
    RedockError,
)
from redock.utils import Config
from tests.unit.conftest import run_python, run_redock

KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIIII redock\n"
INSTANCE = "0123456789ab"


def summary(name: str = "me:web", **more: object) -> dict[str, Any]:
    """What an engine says about a machine."""
    instance = more.pop("instance", INSTANCE)
    labels = {
        label("kind"): "container",
        label("name"): name,
        label("instance"): instance,
        label("alias"): more.pop("alias", Container(name).ssh_alias),
        label("hostname"): "web",
        label("port"): "20001",
        label("user"): more.pop("user", str(os.getuid())),
    }
    return {
        "Id": "a" * 64,
        "State": "running",
        "Labels": labels,
        "Ports": [{"IP": "127.0.0.1", "PrivatePort": 22, "PublicPort": 20001, "Type": "tcp"}],
        "Mounts": [{"Destination": "/etc/redock/ssh", "Name": f"redock-{instance}"}],
        **more,
    }


class FakeEngine(Engine):
    """An engine with some containers."""

    def __init__(self, *listed: dict[str, Any]) -> None:
        super().__init__()
        self.listed = list(listed)
        self.did: list[str] = []
        self.state: dict[str, Any] = {"Status": "running", "ExitCode": 0}
        self.log = ""

    def containers(self, filters: object, *, size: bool = False) -> list[dict[str, Any]]:
        return self.listed

    def volumes(self, filters: object) -> list[dict[str, Any]]:
        return []

    def inspect_container(self, container: str, *, size: bool = False) -> dict[str, Any]:
        return {"State": self.state}

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        return {"Id": "sha256:1", "Config": {"Labels": None}} if image == "me:web" else None

    def images(self, filters: object) -> list[dict[str, Any]]:
        return [{"Id": "sha256:1", "RepoTags": ["me:web"], "Labels": None}]

    def logs(self, container: str, tail: int = 20) -> str:
        return self.log

    def remove_image(self, image: str, *, force: bool = False) -> bool:
        self.did.append(f"remove image {image}")
        return True


def container(*listed: dict[str, Any], name: str = "me:web") -> Container:
    return Container(name, engine=FakeEngine(*listed))


# Cheap things.


def test_a_container_connects_to_nothing_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, sandbox: Path
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("connected"))
    made = Container("web", hostname="www", timeout=3)
    assert (made.image.name, made.hostname, made.timeout) == ("me:web", "www", 3)
    assert repr(made) == "Container('me:web')"
    assert os.listdir(sandbox) == ["home"]


def test_the_package_has_what_programs_begin_with() -> None:
    assert redock.__all__ == sorted(redock.__all__)
    assert redock.Container is Container
    assert redock.Cluster is redock.cluster.Cluster
    assert redock.NodeSpec is redock.cluster.NodeSpec
    assert redock.Bootstrap is redock.bootstrap.Bootstrap
    with pytest.raises(AttributeError, match="no attribute 'Klaster'"):
        _ = redock.Klaster
    for name in redock.__all__:
        assert hasattr(redock, name)


@pytest.mark.parametrize(
    "program",
    [
        "import redock",
        "import redock.api",
        "import redock.cli",
        "import redock; redock.Container('a:b')",
        "import redock.base, redock.doctor, redock.utils",
    ],
)
def test_the_sdk_and_other_heavy_things_are_not_loaded(program: str) -> None:
    heavy = ("docker", "requests", "urllib3", "update_dotdee", "executor", "coloredlogs")
    check = f"; import sys; print(sorted(set(sys.modules) & set({heavy!r})))"
    done = run_python("-c", program + check)
    assert done.stdout == "[]\n", done


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_program_loads_little_to_answer_a_question(option: str) -> None:
    done = run_python("-X", "importtime", "-m", "redock", option)
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"docker", "requests", "coloredlogs", "subprocess", "redock.api", "json"}
    assert ("argparse" in loaded) is (option == "--help")


def test_an_unknown_container_is_refused_at_once() -> None:
    for name, hostname in (("a:b:c", None), ("a:b", "_")):
        with pytest.raises(InvalidName):
            Container(name, hostname)


# Images and sessions.


def test_an_image_is_made_of_text() -> None:
    image = Image.coerce("me:web")
    assert image.key == ("me", "web")
    assert image.name == image.unique_name == "me:web"
    assert Image.coerce(image) is image
    assert image == Image("me", "web")
    assert hash(image) == hash(Image("me", "web"))
    assert image != Image("me", "web", id="1")
    assert image != "me:web"
    assert repr(image) == "Image('me', 'web', id=None)"


def test_an_image_with_an_id_is_known_by_it() -> None:
    assert Image("me", "web", id="sha256:1").unique_name == "sha256:1"


@pytest.mark.parametrize("value", [None, 1, b"me:web", ["me:web"]])
def test_an_image_is_made_of_nothing_else(value: Any) -> None:
    with pytest.raises(ValueError, match="must be text"):
        Image.coerce(value)


def test_a_session_forgets_everything() -> None:
    session = Session()
    assert set(vars(session).values()) == {None}
    for name in vars(session):
        setattr(session, name, "x")
    session.reset()
    assert set(vars(session).values()) == {None}


# Names.


@pytest.mark.parametrize(
    ("name", "hostname", "alias"),
    [
        ("me:web", None, "web-container"),
        ("me:Web_1.x", None, "web-1-x-container"),
        ("me:web", "www.example", "www-example-container"),
        ("me:___", None, "redock-container"),
    ],
)
def test_the_alias_is_the_name_of_the_manual(name: str, hostname: str | None, alias: str) -> None:
    assert Container(name, hostname).ssh_alias == alias


def test_the_configuration_of_a_container_is_a_file_of_its_own(redock_home: Path) -> None:
    assert Container("me:web").ssh_config_file == f"{redock_home}/ssh/config.d/me%3Aweb"


def test_the_command_line_needs_no_configuration_of_the_users(redock_home: Path) -> None:
    made = Container("me:web")
    config = f"{redock_home}/ssh/config"
    assert made.get_ssh_client_command() == ["ssh", "-F", config, "web-container"]
    command = made.get_ssh_client_command("192.0.2.1", 22)
    assert command[-1] == "web-container"
    assert {"HostName=192.0.2.1", "Port=22", "ControlPath=none"} <= set(command)


def test_an_id_is_expanded_when_it_is_the_only_one() -> None:
    made = Container("me:web")
    ids = ["sha256:" + "ab" * 32, "ac" * 32]
    assert made.expand_id("abab", ids) == ids[0]
    assert made.expand_id("sha256:ab", ids) == ids[0]
    assert made.expand_id("ac", [*ids, ids[1]]) == ids[1]


@pytest.mark.parametrize("short", ["a", "ff", "", "sha256:"])
def test_an_id_that_is_none_or_several_is_an_error(short: str) -> None:
    with pytest.raises(LookupError):
        Container("me:web").expand_id(short, ["ab" * 32, "ac" * 32])


def test_an_image_is_found_with_its_id() -> None:
    made = container()
    found = made.find_image(Image("me", "web"))
    assert found is not None
    assert found.unique_name == "sha256:1"
    assert made.find_image(Image("me", "other")) is None


# Containers.


def test_a_container_that_runs_is_found() -> None:
    made = container(summary())
    assert made.find_container() is True
    assert made.session.port == 20001
    assert made.session.instance == INSTANCE


@pytest.mark.parametrize("state", ["exited", "created", "dead", "removing"])
def test_a_container_that_does_not_run_is_not_active(state: str) -> None:
    made = container(summary(State=state))
    assert made.find_container() is False
    with pytest.raises(NoContainerRunning, match="redock start me:web") as caught:
        made.check_active()
    assert caught.value.exit_code == 3
    for method in (made.commit, made.setup_ssh_access):
        with pytest.raises(NoContainerRunning):
            method()


@pytest.mark.parametrize(
    "change",
    [
        {"Mounts": []},
        {"Mounts": [{"Destination": "/etc/redock/ssh", "Name": "redock-other"}]},
        {"Mounts": [{"Destination": "/elsewhere", "Name": f"redock-{INSTANCE}"}]},
        {"Labels": {label("kind"): "container", label("name"): "me:web", label("instance"): ""}},
        {"Labels": None},
    ],
)
def test_a_container_that_only_looks_like_ours_is_not(change: dict[str, Any]) -> None:
    assert container({**summary(), **change}).find_container() is False


def test_a_foreign_container_is_never_killed() -> None:
    with pytest.raises(NoContainerRunning):
        container(summary(Mounts=[])).kill()


@pytest.mark.parametrize(
    "ports",
    [
        [{"IP": "0.0.0.0", "PrivatePort": 22, "PublicPort": 20001}],
        [{"IP": "::", "PrivatePort": 22, "PublicPort": 20001}],
        [{"IP": "192.0.2.1", "PrivatePort": 22, "PublicPort": 20001}],
        [
            {"IP": "192.0.2.1", "PrivatePort": 22, "PublicPort": 20002},
            {"IP": "127.0.0.1", "PrivatePort": 22, "PublicPort": 20001},
        ],
        [{"IP": "127.0.0.1\n  ProxyCommand id", "PrivatePort": 22, "PublicPort": 20001}],
        [{"IP": "127.0.0.1", "PrivatePort": 22, "PublicPort": 70000}],
    ],
)
def test_a_port_on_the_network_is_never_written_down(
    ports: list[dict[str, Any]], redock_home: Path
) -> None:
    made = container(summary(Ports=ports))
    made.public_key = KEY
    with pytest.raises(EngineError, match="publishes") as caught:
        made.setup_ssh_access()
    assert str(caught.value).isprintable()
    assert not Path(made.ssh_config_file).exists()


def test_without_published_ports_the_chosen_one_is_used() -> None:
    made = container(summary(Ports=[]))
    assert made._host_entry.port == 20001


@pytest.mark.parametrize("port", ["", "x", "0", "70000"])
def test_without_any_port_there_is_one_line(port: str) -> None:
    listed = summary(Ports=[])
    listed["Labels"][label("port")] = port
    with pytest.raises(EngineError, match="publishes"):
        container(listed)._host_entry  # noqa: B018


def test_an_alias_from_the_engine_is_checked() -> None:
    made = container(summary(alias="web\n  ProxyCommand id"))
    made.public_key = KEY
    with pytest.raises(InvalidName):
        made.setup_ssh_access()


def test_access_is_set_up_and_revoked(home: Path, redock_home: Path) -> None:
    made = container(summary())
    made.public_key = KEY
    made.setup_ssh_access()
    assert (home / ".ssh" / "config").exists()
    assert Config().load()["containers"]["me:web"]["port"] == 20001
    assert "HostKeyAlias" in Path(made.ssh_config_file).read_text()
    assert api.connect_hint(made) == "ssh web-container"
    made.revoke_ssh_access()
    assert Config().load()["containers"] == {}
    assert not Path(made.ssh_config_file).exists()
    assert os.listdir(redock_home / "ssh" / "known_hosts.d") == []


def test_a_configuration_that_cannot_be_changed_is_a_warning_with_the_command(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text("Nonsense yes\n")
    made = container(summary())
    made.public_key = KEY
    made.setup_ssh_access()
    assert f"connect with: ssh -F {_ssh.config_file()} web-container" in caplog.text
    assert api.connect_command(made) == made.get_ssh_client_command()


def test_an_alias_of_another_machine_is_named() -> None:
    with pytest.raises(AliasTaken, match=r"belongs to other:web: .*me:web .*--hostname"):
        container(summary("other:web"))._check_alias()


@pytest.mark.parametrize("tag", ["web.1", "web-1", "WEB_1"])
def test_tags_that_slug_alike_collide_in_the_open(tag: str) -> None:
    with pytest.raises(AliasTaken):
        container(summary("me:web--1"), name=f"me:{tag}")._check_alias()


def test_an_alias_of_another_user_is_free() -> None:
    container(summary("other:web", user="99999"))._check_alias()
    container(summary("me:web"))._check_alias()


def test_a_container_that_ended_is_quoted() -> None:
    made = container(summary())
    made.find_container()
    engine = made.engine
    assert isinstance(engine, FakeEngine)
    made._check_alive()
    engine.state = {"Status": "exited", "ExitCode": 78}
    engine.log = "one\ntwo\n\n"
    with pytest.raises(ContainerDied, match=r"ended with status 78 .*: two$") as caught:
        made._check_alive()
    assert (caught.value.log, caught.value.status) == ("one\ntwo\n\n", 78)


def test_an_image_with_a_machine_is_not_deleted() -> None:
    made = container(summary())
    with pytest.raises(RedockError, match="'redock kill me:web' first"):
        made.delete()
    assert made.engine.did == []  # type: ignore[attr-defined]


def test_an_image_is_deleted() -> None:
    made = container()
    made.delete()
    assert made.engine.did == ["remove image me:web"]  # type: ignore[attr-defined]


def test_an_image_of_others_is_not_started() -> None:
    with pytest.raises(RedockError, match="was not made by redock"):
        container()._find_image_id()


@pytest.mark.parametrize("message", ["x" * 4097, "é" * 2049, "a\0b"])
def test_a_message_that_is_too_long_or_has_a_nul_is_refused(message: str) -> None:
    for options in ((message,), (None, message)):
        with pytest.raises(InvalidName):
            container(summary()).commit(*options)


def test_a_context_manager_kills_what_it_created(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    monkeypatch.setattr(Container, "start", lambda self: did.append("start"))
    monkeypatch.setattr(Container, "kill", lambda self: did.append("kill"))
    with container():
        pass
    assert did == ["start"]
    with pytest.raises(ZeroDivisionError), container() as made:
        made.created = True
        raise ZeroDivisionError
    assert did == ["start", "start", "kill"]


@pytest.mark.parametrize(
    ("error", "taken"),
    [
        (
            EngineError("Bind for 127.0.0.1:1 failed: port is already allocated"),
            True,
        ),
        (EngineError("listen tcp4 127.0.0.1:1: bind: address already in use"), True),
        (EngineError("no such image"), False),
        (NotFound("x"), False),
        (OSError("address already in use"), False),
    ],
)
def test_a_taken_port_is_told_from_other_failures(error: Exception, taken: bool) -> None:
    assert _machines.port_was_taken(error) is taken


# Machines as the engine sees them.


def test_a_port_is_free_stable_and_nobody_elses() -> None:
    first = _machines.pick_port("me:web", ())
    assert first is not None
    assert _machines.pick_port("me:web", ()) == first
    second = _machines.pick_port("me:web", [first])
    assert second not in (first, None)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first))
        squatter.listen()
        assert _machines.pick_port("me:web", ()) not in (first, None)
    assert _machines.pick_port("me:web", _machines.PORTS) is None


def test_a_machine_is_published_on_the_loopback_interface_only() -> None:
    body = _machines.configuration(
        name="me:web",
        image="sha256:1",
        hostname="web.example.org",
        alias="web-container",
        instance=INSTANCE,
        port=20001,
        version="1",
    )
    assert (body["Hostname"], body["Domainname"]) == ("web", "example.org")
    host = body["HostConfig"]
    assert host["PortBindings"] == {"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}]}
    # What stands here would become part of the image at a commit.
    assert "Volumes" not in body
    assert "Env" not in body
    assert host["Mounts"][0]["VolumeOptions"]["NoCopy"] is True
    json.dumps(body)


def test_a_commit_blanks_what_made_the_container_ours() -> None:
    labels = Machine(summary())
    assert labels.genuine
    blanked = {**summary()["Labels"], **{label(name): "" for name in _machines.BLANKED_LABELS}}
    assert not Machine({**summary(), "Labels": blanked}).genuine


def test_instances_are_never_the_same() -> None:
    assert len({_machines.new_instance() for _ in range(100)}) == 100
    assert all(character in "0123456789abcdef" for character in _machines.new_instance())


def test_an_archive_belongs_to_root() -> None:
    import io
    import tarfile

    packed = _machines.archive({"/etc/x": (0o600, b"secret")})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        (member,) = tar.getmembers()
    assert (member.name, member.mode, member.uid, member.gid) == ("etc/x", 0o600, 0, 0)


# No engine at all.


@pytest.mark.parametrize("verb", ["start", "commit", "kill", "delete"])
def test_without_an_engine_there_is_one_line(verb: str, home: Path) -> None:
    done = run_redock(verb, "web")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert "no Docker engine answers" in done.stderr
    assert os.listdir(home) == []


def test_private_things_stay_private(redock_home: Path) -> None:
    made = container(summary())
    made.public_key = KEY
    made.setup_ssh_access()
    for path in redock_home.rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_the_fake_engine_has_the_methods_it_plays() -> None:
    for name, member in vars(FakeEngine).items():
        if isinstance(member, Callable) and not name.startswith("_"):  # type: ignore[arg-type]
            assert hasattr(Engine, name), name
