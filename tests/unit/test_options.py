"""What a machine is started with: how it is written, checked, compared and remembered."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from redock import _links, _machines, _recipe, _remembered, cli
from redock._engine import label, label_changes
from redock._links import MYSELF, Port, User, Volume, read_environment
from redock._options import LIVE, REACHING, Options, describe
from redock._preparation import command, environment_files, own_directories
from redock._sizes import brief_size, parse_cpus, parse_size
from redock._ssh import HostEntry
from redock.api import Container
from redock.errors import EngineError, InvalidArgument, PortUnavailable, RedockError
from tests.unit.conftest import run_many, run_python, ssh_options
from tests.unit.test_api import FakeEngine, summary

SAM = "sam:1500:1500:/home/sam:/bin/bash"


# Amounts.


@pytest.mark.parametrize(
    ("text", "size"), [("64m", 64 << 20), ("1 GiB", 1 << 30), ("512k", 512 << 10), ("7", 7), (9, 9)]
)
def test_sizes_are_bytes_or_powers_of_1024(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "1.5g", "64mm", "0", 0, -3, True, None, 1.5])
def test_other_sizes_are_refused(text: Any) -> None:
    with pytest.raises(InvalidArgument, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(("text", "number"), [("1.5", 1.5), (2, 2.0), ("0.01", 0.01)])
def test_processors_are_a_number(text: str | float, number: float) -> None:
    assert parse_cpus(text) == number


@pytest.mark.parametrize("text", ["", "two", 0, "0", -1, "nan", "inf", 5000, True, None, [1]])
def test_other_numbers_of_processors_are_refused(text: Any) -> None:
    with pytest.raises(InvalidArgument, match="number of processors"):
        parse_cpus(text)


# Ports.


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("8080", "127.0.0.1:8080:8080/tcp"),
        ("8080:80", "127.0.0.1:8080:80/tcp"),
        ("53:5353/udp", "127.0.0.1:53:5353/udp"),
        ("192.0.2.7:8080:80", "192.0.2.7:8080:80/tcp"),
        ("192.0.2.7:8080", "192.0.2.7:8080:8080/tcp"),
        ("[::1]:8080:80", "[::1]:8080:80/tcp"),
        ("22/udp", "127.0.0.1:22:22/udp"),
    ],
)
def test_ports_are_read_and_written(text: str, full: str) -> None:
    port = Port.of(text)
    assert str(port) == full
    assert Port.of(full) == port


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "65536", "99999:1", "1:0", ":80", "80:", "a:80", "localhost:80", "80/sctp"),
        *("1.2.3:80", "1.2.3.4.5:80", "[::1:80", "::1:80", "8080:80/tcp/udp", "80 ", "8080\n"),
        *("-1", "8080:80:70", "٣:٣"),
    ],
)
def test_other_ports_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Options(ports=[text])


def test_the_port_of_the_ssh_server_is_not_for_the_network() -> None:
    with pytest.raises(InvalidArgument, match="way in"):
        Options(ports=["2222:22"])


def test_a_port_leads_to_one_place() -> None:
    assert len(Options(ports=["80:80", "80:80/tcp", "80:80/udp"]).published) == 2
    with pytest.raises(InvalidArgument, match="two places"):
        Options(ports=["8080:80", "8080:81"])


@pytest.mark.parametrize(
    ("text", "local"),
    [("80", True), ("[::1]:80", True), ("127.0.0.2:80", True), ("192.0.2.7:80", False)],
)
def test_it_is_known_who_reaches_a_port(text: str, local: bool) -> None:
    assert Port.of(text).is_local is local


# Volumes.


def test_directories_are_found_from_here_and_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (home / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    here = os.path.realpath(tmp_path)
    assert Volume.of("./link:/srv/x") == Volume(f"{here}/real", "/srv/x")
    assert Volume.of(".:/srv/x/:ro") == Volume(here, "/srv/x", True)
    assert Volume.of(f"{tmp_path}/real:/data:rw").source == f"{here}/real"
    assert Volume.of("~/notes:/notes").source == os.path.realpath(home / "notes")
    named = Volume.of("data:/var/lib/data")
    assert (named.source, named.is_bind, str(named)) == ("data", False, "data:/var/lib/data")


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "/tmp", "data:", ":/srv", "data:srv", "data:/srv:rx", "a:b:c:d", "-x:/srv"),
        *("./nothing:/srv", "data:/", "data:/etc", "data:/proc", "data:/proc/1", "data:/sys/fs"),
        *("data:/etc/redock", "data:/etc/redock/ssh", "data:/usr/lib/redock/boot", "data:/run"),
        *("data:/srv/../etc", "data://etc", "data:/srv//x", "data:/a\nb", "redock-0a1b2c:/srv"),
        *("d:/srv", "da ta:/srv"),
    ],
)
def test_other_volumes_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Options(volumes=[text])


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="no directory"):
        Options(volumes=[f"{tmp_path}/file:/srv/file"])


def test_one_place_has_one_volume() -> None:
    with pytest.raises(InvalidArgument, match="both be mounted"):
        Options(volumes=["aa:/srv", "bb:/srv/"])


# Users.


def account(name: str, uid: int, home: str = "/home/x", shell: str = "/bin/sh") -> Any:
    return pwd.struct_passwd((name, "x", uid, uid + 1, "", home, shell))


def test_the_user_who_runs_redock_has_the_same_numbers_home_and_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = account("sam", 1500, "/data/home/sam", "/bin/zsh")
    monkeypatch.setattr(os, "getuid", lambda: 1500)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: found)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: found if name == "sam" else {}[name])
    expected = User("sam", 1500, 1501, "/data/home/sam", "/bin/zsh")
    assert User.of(MYSELF) == User.of("sam") == expected
    monkeypatch.setattr(os, "getgid", lambda: 1501)
    assert User.of("dev") == User("dev", 1500, 1501, "/home/dev", "/bin/bash")


def test_root_has_to_say_who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: account("root", 0, "/root"))
    with pytest.raises(InvalidArgument, match="you are root"):
        User.of(MYSELF)
    with pytest.raises(InvalidArgument, match="give a number as well, nosuchuser:UID"):
        User.of("nosuchuser")
    assert User.of("root").uid == 0


def test_numbers_can_be_given() -> None:
    assert User.of("sam:1500") == User.of("sam:1500:1500") == User.of(SAM)
    assert User.of("sam:1500:100").gid == 100
    assert str(User.of("sam:1500")) == SAM


@pytest.mark.parametrize(
    "text",
    [
        *("", "Sam:1500", "sam smith:1", "sam:", "sam:x", "sam:-1", "sam:0", "sam:4294967295"),
        *("root:1500", "sam:1500:x", "-x:1500", "sam;id:1500", "s" * 33 + ":1500", "a\nb:1500"),
        *("sam:٣", 7, True),
    ],
)
def test_other_users_are_refused(text: Any) -> None:
    with pytest.raises(InvalidArgument):
        Options(user=text)


@pytest.mark.parametrize(
    ("home", "shell", "inside"),
    [
        ("/root", "/bin/sh", ("/home/sam", "/bin/sh")),
        ("/nonexistent", "/usr/sbin/nologin", ("/home/sam", "/bin/bash")),
        ("/etc", "/bin/false", ("/home/sam", "/bin/bash")),
        ("/a:b", "/a:b", ("/home/sam", "/bin/bash")),
        ("/proc/self", "sh", ("/home/sam", "/bin/bash")),
    ],
)
def test_a_home_that_cannot_be_is_replaced(
    home: str, shell: str, inside: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: account("sam", 1500, home, shell))
    found = User.of("sam")
    assert (found.home, found.shell) == inside


def test_what_is_mounted_is_never_given_away() -> None:
    home = "/home/sam"
    assert own_directories(home, []) == [home]
    assert own_directories(home, ["/srv/x"]) == [home]
    assert own_directories(home, [f"{home}/src/web"]) == [home, f"{home}/src"]
    assert own_directories(home, [home]) == []
    assert own_directories(home, ["/home"]) == []
    assert own_directories(home, [f"{home}/a", f"{home}/a/b/c"]) == [home]
    assert own_directories(home, [f"{home}x/y"]) == [home]


# The environment.


def test_variables_are_given_or_taken_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "a=b")
    assert read_environment(["A=1", "B=", "HERE", "C=x=y"]) == {
        "A": "1", "B": "", "HERE": "a=b", "C": "x=y",
    }  # fmt: skip
    with pytest.raises(InvalidArgument, match="NOT_THERE' is not set here"):
        read_environment(["NOT_THERE"])


@pytest.mark.parametrize(
    "env",
    [{"": "x"}, {"1A": "x"}, {"A-B": "x"}, {"A B": "x"}, {"A": "x\ny"}, {"A": "x\0"}, {"A": "x\r"},
     {"A": 7}, {"ü": "x"}, {"A": "\udc80"}, {"A": "x" * 200_000}],
)  # fmt: skip
def test_other_variables_are_refused(env: Any) -> None:
    with pytest.raises(InvalidArgument):
        Options(env=env)


@pytest.mark.parametrize("value", ["it's", 'a "b"', "$HOME `id`", "\\", "ü %s", " x ", "#x", ""])
def test_a_shell_reads_the_variables_as_they_are(value: str, tmp_path: Path) -> None:
    mode, contents = environment_files(Options(env={"A": value}))["environment"]
    assert mode == 0o600
    (tmp_path / "environment").write_bytes(contents)
    script = f". {tmp_path}/environment; exec env -0"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env={})
    assert f"A={value}".encode() in done.stdout.split(b"\0")


def test_without_variables_the_files_are_empty() -> None:
    for options in (Options(), Options(env={}), Options(env={"A": None})):
        assert {contents for _, contents in environment_files(options).values()} == {b""}


# Together.


def everything(**more: Any) -> Options:
    given: dict[str, Any] = {
        "ports": ["8080:80"], "volumes": ["data:/srv/data:ro"], "user": SAM,
        "env": {"TOKEN": "secret"}, "memory": "512m", "cpus": 1.5, "networks": ["back"],
        "agent": True, "restart": "always",
    }  # fmt: skip
    return Options(**{**given, **more})


def test_a_label_has_everything_but_the_values_of_variables() -> None:
    options = everything()
    text = options.text()
    assert "secret" not in text
    assert json.loads(text)["env"] == ["TOKEN"]
    assert Options.parse(text) == everything(env={"TOKEN": None})
    assert Options.parse(Options.parse(text).text()) == Options.parse(text)
    assert Options().text() == Options(ports=[], memory=0, agent=False).text() == ""


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", '{"ports":7}', '{"ports":["x"]}', '{"nonsense":1}', '"x"',
     '{"user":"Sam:1"}', '{"volumes":["/etc:/etc"]}', '{"env":7}'],
)  # fmt: skip
def test_a_label_that_makes_no_sense_says_nothing(text: str) -> None:
    assert Options.parse(text) == Options()


def test_a_label_outlives_the_directory_it_names(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    text = Options(volumes=[f"{tmp_path}/x:/srv/x"]).text()
    (tmp_path / "x").rmdir()
    assert Options.parse(text).mounts[0].target == "/srv/x"


def test_plain_values_are_for_programs_and_words_for_people() -> None:
    plain = everything().as_dict()
    json.dumps(plain)
    assert plain["env"] == ["TOKEN"]
    assert plain["ports"] == ["127.0.0.1:8080:80/tcp"]
    words = describe(plain)
    assert words["memory"] == "512 MiB"
    assert (words["cpus"], words["agent"], words["networks"]) == ("1.5", "yes", "back")


def test_what_is_asked_for_stands_above_what_is_remembered() -> None:
    both = Options(ports=[], memory="1g").over(everything())
    assert (both.ports, both.memory, both.cpus) == ((), 1 << 30, 1.5)
    assert not Options()
    assert Options(ports=[])


@pytest.mark.parametrize(
    ("asked", "has", "differs"),
    [
        (Options(), everything(), []),
        (everything(), everything(), []),
        (Options(ports=[], memory=0, user="root", agent=False, restart="no"), Options(), []),
        (Options(ports=[]), everything(), ["ports"]),
        (Options(user="root"), everything(), ["user"]),
        (Options(env={"TOKEN": "other"}), everything(), ["env"]),
        (Options(env={"TOKEN": "secret"}), everything(env={"TOKEN": None}), ["env"]),
        (Options(restart="no", memory="1g"), everything(), ["memory", "restart"]),
    ],
)
def test_only_real_differences_count(asked: Options, has: Options, differs: list[str]) -> None:
    assert asked.differences(has) == differs


@pytest.mark.parametrize(
    "wrong",
    [{"ports": "8080"}, {"agent": "yes"}, {"restart": "never"}, {"memory": "5m"}, {"memory": "9e"},
     {"cpus": -1}, {"networks": ["host"]}, {"networks": ["a b"]}, {"networks": "x"},
     {"memory": True}, {"volumes": [7]}],
)  # fmt: skip
def test_values_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Options(**wrong)


# What the engine and ssh are told.


def body(options: Options | None) -> dict[str, Any]:
    return _machines.configuration(
        name="me:web", image="sha256:1", hostname="web", alias="web-container",
        instance="0123456789ab", port=20001, version="1", options=options,
    )  # fmt: skip


def test_nothing_asked_for_leaves_nothing_behind() -> None:
    plain = body(None)
    assert plain["Cmd"] == [_recipe.BOOT]
    # Or what was saved with the image would be taken for this container's.
    assert plain["Labels"][label("options")] == ""
    assert set(plain["HostConfig"]) == {"PortBindings", "Mounts"}
    assert body(Options()) == plain


def test_the_engine_is_told_everything_but_the_environment(tmp_path: Path) -> None:
    options = everything(volumes=["data:/srv/data:ro", f"{tmp_path}:/srv/here"])
    told = body(options)
    host = told["HostConfig"]
    assert host["PortBindings"] == {
        "22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}],
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
    }
    assert [each["Type"] for each in host["Mounts"]] == ["volume", "volume", "bind"]
    assert [each.get("ReadOnly") for each in host["Mounts"]] == [None, True, False]
    assert host["Memory"] == host["MemorySwap"] == 512 << 20
    assert host["NanoCpus"] == 1_500_000_000
    assert host["RestartPolicy"]["Name"] == "always"
    # A commit would copy these into the image.
    assert "Env" not in told and "Volumes" not in told
    assert "secret" not in json.dumps(told)


def test_the_first_process_prepares_only_what_is_asked_for() -> None:
    assert command(Options(ports=["80"])) == [_recipe.BOOT]
    assert command(Options(user="root")) == [_recipe.BOOT]
    assert command(Options(env={"A": "1"}))[4:] == ["", "", "", "", ""]
    made = command(Options(user=SAM, volumes=["data:/home/sam/src/web"]))
    assert made[4:9] == ["sam", "1500", "1500", "/home/sam", "/bin/bash"]
    assert made[9:] == ["/home/sam", "/home/sam/src"]
    done = subprocess.run(["sh", "-n", "-c", made[2]], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_options_survive_an_image_without_quotes(tmp_path: Path) -> None:
    source = tmp_path / 'it\'s $x "y" \\n'
    source.mkdir()
    options = Options(volumes=[f"{source}:/srv/ä"], ports=["8080:80"], memory="1g")
    marks = _machines.saved_marks("me:web", "web", options.text())
    assert "%7B" in marks[label("options")]
    assert len(label_changes(marks)) == len(marks)
    assert _machines.saved_options(marks) == options.text()
    # Images of before, and those of others.
    for text in (options.text(), "", "nonsense"):
        assert _machines.saved_options({label("options"): text}) == text
    assert _machines.saved_options({}) == ""


def test_a_label_that_needs_quotes_is_a_mistake_of_ours() -> None:
    assert label_changes({"a": "", "b": "me:web"}) == ['LABEL a=""', "LABEL b=me:web"]
    for value in ("a b", "$x", '"', "a\\"):
        with pytest.raises(AssertionError):
            label_changes({"a": value})


def entry(**more: Any) -> HostEntry:
    return HostEntry("me:web", "web-container", "0123456789ab", 20001, **more)


@pytest.mark.parametrize("user", ["root", "sam"])
def test_only_the_machines_user_shares_its_connection(user: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    # What the user says about all hosts must not bring sharing back for the others.
    config.write_text(entry(user=user).text() + "Host *\n  ControlPath /tmp/%r@%h:%p\n")
    for who, host in ((user, "web-container"), (user, f"{user}@web-container")):
        status, options, _ = ssh_options(config, host)
        assert (status, options["user"]) == (0, [who])
        assert options["controlpath"][0].endswith("/0123456789ab")
        assert options["controlmaster"] == ["auto"]
    _, options, _ = ssh_options(config, "other@web-container")
    assert options["user"] == ["other"]
    assert options.get("controlpath", ["none"]) == ["none"]
    _, options, _ = ssh_options(config, "elsewhere")
    assert options["controlpath"] != ["none"]


def test_the_agent_goes_along_only_where_it_is_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "config"
    for agent in (False, True):
        config.write_text(entry(agent=agent).text() + "Host *\n  ForwardAgent yes\n")
        _, options, _ = ssh_options(config, "web-container")
        assert options["forwardagent"] == ["yes" if agent else "no"]
        # A shared connection keeps to the agent of whoever opened it.
        assert (options.get("controlpath", ["none"]) == ["none"]) is agent


# What a machine has, and what is remembered of it.


def described(**host: Any) -> dict[str, Any]:
    networks: dict[str, Any] = {"bridge": {}, "back": {}}
    return {
        "Config": {"Labels": {label("options"): everything(networks=["old"]).text()}},
        "HostConfig": host,
        "NetworkSettings": {"Networks": networks},
    }


def test_what_can_be_changed_while_it_runs_is_what_the_engine_says() -> None:
    host = {"Memory": 1 << 30, "NanoCpus": 2 * 10**9, "RestartPolicy": {"Name": "no"}}
    options = _machines.options_of(described(**host))
    assert (options.memory, options.cpus, options.restart) == (1 << 30, 2.0, None)
    assert options.networks == ("back",)
    assert options.login == "sam"
    assert not _machines.options_of({"Config": {"Labels": None}})


def test_what_is_remembered_is_private_and_goes_again(redock_home: Path) -> None:
    name = "me:web"
    assert (_remembered.recall(name), _remembered.exists(name)) == ({}, False)
    _remembered.remember(name, env={"TOKEN": "secret"}, saved=["a"], agent=True)
    (path,) = (redock_home / "options").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    _remembered.remember(name, env=None, saved=["a", "b", "a"])
    assert _remembered.recall(name) == {"saved": ["a", "b"], "agent": True}
    _remembered.move(name, "me:other")
    assert _remembered.recall("me:other")["agent"] is True
    _remembered.remember("me:other", saved=None, agent=None)
    assert list((redock_home / "options").iterdir()) == []
    _remembered.forget(name)


@pytest.mark.parametrize("contents", ["", "[]", "7", "{", '{"env": 7, "agent": "x"}', "\x00"])
def test_a_file_that_makes_no_sense_is_left_aside(contents: str, redock_home: Path) -> None:
    _remembered.remember("me:web", agent=True)
    (path,) = (redock_home / "options").iterdir()
    path.write_text(contents)
    assert _remembered.recall("me:web") == {}
    _remembered.remember("me:web", agent=False)
    assert _remembered.recall("me:web") == {"agent": False}


class OptionsEngine(FakeEngine):
    """An engine that notes what it is told."""

    def __init__(self, *listed: dict[str, Any]) -> None:
        super().__init__(*listed)
        self.container = described(Memory=512 << 20, NanoCpus=1_500_000_000)

    def inspect_container(self, container: str, *, size: bool = False) -> dict[str, Any]:
        return {**self.container, "State": self.state}

    def networks(self, filters: Any) -> list[dict[str, Any]]:
        return [{"Name": "back"}, {"Name": "backup"}]

    def update_container(self, container: str, limits: Any) -> None:
        self.did.append(f"update {json.dumps(limits, sort_keys=True)}")

    def connect_network(self, name: str, container: str, aliases: Any = ()) -> None:
        self.did.append(f"connect {name} as {', '.join(aliases)}")

    def disconnect_network(self, name: str, container: str) -> None:
        self.did.append(f"disconnect {name}")


def fit(options: Options) -> list[str]:
    machine = summary()
    engine = OptionsEngine(machine)
    container = Container("me:web", engine=engine, options=options)
    assert container._fit(_machines.Machine(machine), False, lambda: None) is False
    return engine.did


def test_limits_networks_and_agent_are_changed_as_it_is() -> None:
    assert fit(Options()) == fit(Options(memory="512m", networks=["back"])) == []
    assert fit(Options(memory="1g", restart="always")) == [
        'update {"Memory": 1073741824, "MemorySwap": 1073741824, "RestartPolicy":'
        ' {"MaximumRetryCount": 0, "Name": "always"}}'
    ]
    assert fit(Options(networks=["backup"])) == [
        "connect backup as web, web-container",
        "disconnect back",
    ]
    assert fit(Options(agent=False)) == []
    assert _remembered.recall("me:web")["agent"] is False


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Options(ports=["9090"]), "other ports:"),
        (Options(ports=[], user="root", memory="1g"), "other ports and user:"),
        (Options(env={"TOKEN": "x"}), "other environment variables:"),
        (Options(memory=0), "other memory:"),
        (Options(volumes=[], ports=[], user="root"), "other ports, volumes and user:"),
    ],
)
def test_what_needs_a_new_container_says_so_and_changes_nothing(asked: Options, words: str) -> None:
    machine = summary()
    engine = OptionsEngine(machine)
    container = Container("me:web", engine=engine, options=asked)
    with pytest.raises(RedockError, match="--recreate") as caught:
        container._fit(_machines.Machine(machine), False, lambda: None)
    assert words in str(caught.value)
    assert engine.did == []
    assert not _remembered.exists("me:web")


def test_unknown_networks_and_too_many_processors_are_noticed_before() -> None:
    for asked, words in (
        (Options(networks=["bac"]), "docker network create bac"),
        (Options(cpus=4096), "this host has"),
    ):
        container = Container("me:new", engine=OptionsEngine(), options=asked)
        with pytest.raises(InvalidArgument, match=words):
            container._launch(lambda: None)


def test_a_label_of_somebody_else_opens_no_door(caplog: pytest.LogCaptureFixture) -> None:
    container = Container("me:web", engine=OptionsEngine())
    saved = everything().text()
    _remembered.remember("me:web", env={"TOKEN": "mine"})
    decided = container._decide(saved)
    assert decided is not None
    assert decided.given().keys() == {"user", "env", "memory", "cpus"}
    assert decided.env == {"TOKEN": None}
    assert (
        "its ports, volumes, networks, agent forwarding and restart policy are not" in caplog.text
    )
    assert "TOKEN are not known here" in caplog.text
    # The same label, saved by this user under this name.
    _remembered.remember("me:web", saved=[saved])
    decided = container._decide(saved)
    assert decided == everything(env={"TOKEN": "mine"})
    # Not under another one.
    other = Container("me:other", engine=OptionsEngine())._decide(saved)
    assert other is not None and not other.ports


def test_settings_hold_where_nobody_says_more(
    redock_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OptionsEngine()
    assert Container("me:web", engine=engine)._decide("") is None
    redock_home.mkdir(mode=0o700, exist_ok=True)
    (redock_home / "config.toml").write_text('memory = "256m"\nuser = "sam:1500"\nagent = true\n')
    monkeypatch.setenv("REDOCK_CPUS", "1")
    decided = Container("me:web", engine=engine)._decide("")
    assert decided == Options(memory="256m", user="sam:1500", agent=True, cpus=1)
    asked = Options(user="root", agent=False, memory=0, cpus=0)
    assert Container("me:web", engine=engine, options=asked)._decide("") is None


def test_a_published_port_that_is_taken_is_told_from_the_port_for_ssh() -> None:
    container = Container("me:web", engine=OptionsEngine())
    container.effective = Options(ports=["8080:80"])
    error = EngineError("Bind for 127.0.0.1:8080 failed: port is already allocated")
    assert isinstance(container._explain_port(error), PortUnavailable)
    error = EngineError("Bind for 127.0.0.1:20001 failed: port is already allocated")
    assert container._explain_port(error) is None


def test_doors_to_the_outside_are_warned_of(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = Container("me:web", engine=OptionsEngine())
    monkeypatch.setattr(os, "getuid", lambda: 1500)
    container._warn(Options(ports=["8080"], volumes=[f"{tmp_path}:/srv/x:ro", "data:/srv/y"]))
    assert caplog.text == ""
    container._warn(Options(ports=["192.0.2.7:8080"], volumes=[f"{tmp_path}:/srv/x"]))
    assert "open to everybody who can reach 192.0.2.7" in caplog.text
    assert "with --user you work there as yourself" in caplog.text


def test_what_reaches_out_and_what_can_be_changed_are_fields() -> None:
    assert {*LIVE, *REACHING} <= set(everything().given())


# The command line.


MISTAKES = [
    ["start", *options, "web"]
    for options in (
        ["-p", "x"], ["-p", "2222:22"], ["-V", "nothing"], ["-V", "./nowhere:/srv"],
        ["--user=Sam"], ["-e", "NOT_SET_ANYWHERE"], ["-e", "A B=1"], ["--memory", "lots"],
        ["--memory", "1m"], ["--cpus", "none"], ["--cpus", "4000"], ["--network", "host"],
        ["--restart", "never"], ["-p", "80", "db"], ["--agent=yes"],
    )
]  # fmt: skip


def test_every_mistake_is_one_line_and_nothing_is_made(home: Path) -> None:
    for mistake, done in run_many(MISTAKES):
        assert (done.returncode, done.stdout) == (2, ""), mistake
        assert done.stderr.count("\n") == 1, (mistake, done.stderr)
        assert done.stderr.startswith("redock: "), mistake
    assert os.listdir(home) == []


def test_the_value_of_user_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, Options | None]] = []
    monkeypatch.setattr(
        Container, "start", lambda self: made.append((self.image.tag, self.options))
    )
    me = User("sam", 1500, 1500, "/home/sam", "/bin/bash")
    monkeypatch.setattr(_links, "find_account", lambda wanted: me)
    assert cli.run(["-q", "start", "--user", "web"]) == 0
    assert cli.run(["-q", "start", "--user=dev:7", "web", "--", "other"]) == 0
    assert [(name, str(asked and asked.login)) for name, asked in made] == [
        ("web", "sam"), ("web", "dev"), ("other", "dev"),
    ]  # fmt: skip


def test_everything_on_the_command_line_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Options | None] = []
    monkeypatch.setattr(Container, "start", lambda self, recreate: made.append(self.options))
    line = "-p 8080:80 -V data:/srv/data:ro -e TOKEN=secret --memory 512m --cpus 1.5 --agent"
    more = ["--network", "back", "--restart", "always", f"--user={SAM}", "--recreate", "web"]
    assert cli.run(["-q", "start", *line.split(), *more]) == 0
    assert made == [everything()]
    line = "-p none -V none -e none --network none --no-agent --recreate --memory 0 --cpus 0 web"
    assert cli.run(["-q", "start", *line.split()]) == 0
    nothing = Options(ports=[], volumes=[], env={}, networks=[], agent=False, memory=0, cpus=0)
    assert made[1] == nothing


def test_what_nobody_asks_for_is_not_loaded() -> None:
    program = (
        "import sys; from redock import cli; from redock.api import Container;"
        " Container.start = lambda self: None; cli.run(['-q', 'start', 'web']);"
        " print(sorted(set(sys.modules) & {'dataclasses', 'redock._options', 'redock._project'}))"
    )
    done = run_python("-c", program)
    assert done.stdout.splitlines()[-1] == "[]", done


def test_the_api_has_the_class() -> None:
    import redock.api

    assert redock.api.Options is Options
    with pytest.raises(AttributeError):
        redock.api.Nothing  # noqa: B018


@pytest.mark.parametrize(
    ("size", "text"),
    [(512 << 20, "512m"), (1 << 30, "1g"), (1536 << 20, "1536m"), (2048, "2k"), (1000, "1000")],
)
def test_sizes_are_written_as_they_are_read(size: int, text: str) -> None:
    assert brief_size(size) == text
    assert parse_size(text) == size
