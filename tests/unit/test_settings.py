"""Settings: the environment before the file, the file before the built-in value."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from redock import _links
from redock._configuration import add_to_list, change
from redock._files import ensure_directory
from redock._links import User
from redock._options import Options
from redock._project import KEYS
from redock._settings import OPTIONS, SETTINGS, as_options, configured, find_setting, setting
from redock.errors import InvalidArgument, SettingsError
from tests.unit.conftest import run_many, run_redock


@pytest.fixture
def settings_file(redock_home: Path) -> Path:
    ensure_directory(str(redock_home))
    return redock_home / "config.toml"


def test_the_order_is_environment_file_built_in(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_setting("base") == ("", "built in")
    settings_file.write_text('base = "debian:12"\n')
    assert find_setting("base") == ("debian:12", str(settings_file))
    monkeypatch.setenv("REDOCK_BASE", "debian:13")
    assert find_setting("base") == ("debian:13", "REDOCK_BASE")
    monkeypatch.setenv("REDOCK_BASE", "")
    assert setting("base") == "debian:12"


#: What stands in the file, and what is read.
IN_THE_FILE = [
    ("agent", "true", "true"),
    ("agent", '"false"', "false"),
    ("base", '"none"', "none"),
    ("cpus", "1.5", "1.5"),
    ("cpus", "2", "2"),
    ("memory", '"512m"', "512m"),
    ("memory", "536870912", "536870912"),
    ("mirror", '"none"', "none"),
    ("network", '"back"', "back"),
    ("network", '["back", "front"]', "back front"),
    ("restart", '"always"', "always"),
    ("ssh_config", '"none"', "none"),
    ("trust", '["/srv/a", "~/b"]', "/srv/a:~/b"),
    ("user", '"sam:1500"', "sam:1500"),
    ("user", "false", "root"),
]


@pytest.mark.parametrize(("name", "text", "value"), IN_THE_FILE)
def test_every_setting_can_be_in_the_file(
    name: str, text: str, value: str, settings_file: Path
) -> None:
    settings_file.write_text(f"{name} = {text}\n")
    assert setting(name) == value


def test_no_setting_was_forgotten() -> None:
    assert {name for name, _, _ in IN_THE_FILE} == set(SETTINGS)
    assert all(variable == f"REDOCK_{name.upper()}" for name, (variable, _) in SETTINGS.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bsae = 'x'", "unknown setting 'bsae', did you mean 'base'"),
        ("base = 1", 'write base = "..."'),
        ("base", "is not a TOML file"),
        ("ssh_config = 'never'", "choose from"),
        ("\x00", "is not a TOML file"),
        ("memory = true", 'write memory = "..."'),
        ("trust = [1]", 'write trust = "..."'),
    ],
)
def test_a_file_that_makes_no_sense_is_named(text: str, words: str, settings_file: Path) -> None:
    settings_file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        setting("ssh_config")
    assert words in str(caught.value)
    assert str(settings_file) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_in_another_encoding_is_named(settings_file: Path) -> None:
    settings_file.write_bytes(b"base = '\xe9'")
    with pytest.raises(SettingsError, match="is not a TOML file"):
        setting("base")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("memory", "much", "not a size"),
        ("cpus", "-1", "number of processors"),
        ("restart", "never", "choose from"),
        ("agent", "yes", "choose from"),
        ("network", "host", "not attached"),
        ("user", "Sam", "cannot be a user"),
        ("trust", "work", "not an absolute path"),
    ],
)
def test_options_in_the_environment_are_checked(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = SETTINGS[name][0]
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable}: .*{words}"):
        setting(name)


def test_only_what_is_set_is_an_option(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured(*OPTIONS) == {}
    monkeypatch.setenv("REDOCK_NETWORK", "back front")
    settings_file.write_text("agent = true\ncpus = 2\n")
    assert configured(*OPTIONS) == {"agent": "true", "cpus": "2", "network": "back front"}
    assert configured(*OPTIONS, variables_only=True) == {"network": "back front"}
    asked = as_options(configured(*OPTIONS))
    assert asked == Options(agent=True, cpus=2, networks=["back", "front"])


# Changing the file.

TEXT = """\
# What I want everywhere.

base = "debian:12"   # the stable one, "bookworm"
ssh_config="none"
  memory   =  "512m"
# The end.
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_change_is_one_line(end: str, settings_file: Path) -> None:
    text = TEXT.replace("\n", end)
    settings_file.write_bytes(text.encode())
    change("base", "debian:13")
    text = text.replace('"debian:12"', '"debian:13"')
    assert settings_file.read_bytes() == text.encode()
    change("memory", "1g")
    text = text.replace('"512m"', '"1g"')
    assert settings_file.read_bytes() == text.encode()
    change("agent", "true")
    text += f"agent = true{end}"
    assert settings_file.read_bytes() == text.encode()
    change("ssh_config", None)
    text = text.replace(f'ssh_config="none"{end}', "")
    assert settings_file.read_bytes() == text.encode()
    change("ssh_config", None)
    assert settings_file.read_bytes() == text.encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'base = "x#y"\n'),
        ("# no line end", '# no line end\nbase = "x#y"\n'),
        ('base = "a" # b # c\n', 'base = "x#y" # b # c\n'),
        ("base = 'a#b'#c", 'base = "x#y"#c'),
        ('"base" = "a"\n', '"base" = "x#y"\n'),
    ],
)
def test_what_stands_around_a_value_stays(before: str, after: str, settings_file: Path) -> None:
    settings_file.write_text(before)
    change("base", "x#y")
    assert settings_file.read_text() == after
    assert setting("base") == "x#y"


@pytest.mark.parametrize(
    "text",
    [
        b'base = """\ndebian:12"""\n',
        b"trust = [\n  '/a',\n]\nbase = '''\nx'''\n",
        b'mirror = """\nbase = "x"\n"""\n',
        b"base = 'a'\nbase = 'b'\n",
        b"base",
        b"\xff",
    ],
)
def test_what_cannot_be_changed_safely_is_refused(text: bytes, settings_file: Path) -> None:
    settings_file.write_bytes(text)
    with pytest.raises(SettingsError, match=str(settings_file)):
        change("base", "debian:13")
    assert settings_file.read_bytes() == text


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\tb", "ü", "a'b", "\x01"])
def test_any_text_can_be_written(value: str, settings_file: Path) -> None:
    change("mirror", value)
    assert setting("mirror") == value


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("cpus", "1.5", "cpus = 1.5"),
        ("cpus", "1e0", 'cpus = "1e0"'),
        ("agent", "false", "agent = false"),
        ("user", "true", "user = true"),
        ("user", "sam:7", 'user = "sam:7"'),
        ("network", "a1 b2", 'network = ["a1", "b2"]'),
        ("trust", "/a:/b", 'trust = ["/a", "/b"]'),
        ("trust", "", "trust = []"),
    ],
)
def test_values_are_written_as_one_would(
    name: str, value: str, line: str, settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = User("sam", 1500, 1500, "/home/sam", "/bin/bash")
    monkeypatch.setattr(_links, "find_account", lambda wanted: me)
    change(name, value)
    assert settings_file.read_text() == f"{line}\n"
    assert setting(name) == value


def test_a_list_grows(settings_file: Path) -> None:
    add_to_list("trust", "/srv/a")
    add_to_list("trust", "/srv/b")
    add_to_list("trust", "/srv/a")
    assert settings_file.read_text() == 'trust = ["/srv/a", "/srv/b"]\n'
    with pytest.raises(InvalidArgument, match="is not a list"):
        add_to_list("base", "x")


def test_a_value_that_makes_no_sense_is_not_written(settings_file: Path) -> None:
    for name, value in (("memory", "much"), ("ssh_config", "never"), ("agent", "1")):
        with pytest.raises(InvalidArgument):
            change(name, value)
    with pytest.raises(InvalidArgument, match="did you mean 'memory'"):
        change("memmory", "1g")
    with pytest.raises(InvalidArgument, match=r"for the redock\.toml of a project"):
        change("ports", "80")
    assert not settings_file.exists()


def test_the_file_keeps_its_mode_and_may_be_a_link(settings_file: Path, sandbox: Path) -> None:
    real = sandbox / "dotfiles"
    real.write_text(TEXT)
    real.chmod(0o640)
    settings_file.symlink_to(real)
    change("base", "debian:13")
    assert settings_file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert 'base = "debian:13"' in real.read_text()


# The command.


def test_the_command_shows_values_and_origins(settings_file: Path) -> None:
    settings_file.write_text('memory = "512m"\n')
    done = run_redock("config", "--base", "debian:13", REDOCK_CPUS="1.5")
    assert done.returncode == 0, done
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert rows["base"] == ["debian:13", "--base"]
    assert rows["cpus"] == ["1.5", "REDOCK_CPUS"]
    assert rows["memory"] == ["512m", str(settings_file)]
    assert rows["ssh_config"] == ["auto", "built", "in"]
    found = json.loads(run_redock("config", "--json").stdout)
    assert found["memory"] == {"value": "512m", "origin": str(settings_file)}
    assert set(found) == {*SETTINGS, *KEYS}


def test_the_command_changes_the_file(settings_file: Path) -> None:
    assert run_redock("config", "path").stdout == f"{settings_file}\n"
    assert run_redock("config", "set", "memory", "1g").returncode == 0
    assert run_redock("config", "get", "memory").stdout == "1g\n"
    assert run_redock("config", "add", "trust", "/srv/a").returncode == 0
    assert run_redock("config", "add", "trust", "/srv/b").returncode == 0
    assert run_redock("config", "get", "trust").stdout == "/srv/a\n/srv/b\n"
    assert run_redock("config", "unset", "memory").returncode == 0
    assert settings_file.read_text() == 'trust = ["/srv/a", "/srv/b"]\n'


def test_every_mistake_with_the_command_is_one_line() -> None:
    mistakes = [
        ["config", "get"],
        ["config", "get", "nonsense"],
        ["config", "set", "base"],
        ["config", "set", "nonsense", "x"],
        ["config", "set", "cpus", "many"],
        ["config", "add", "base", "x"],
        ["config", "unset", "base", "x"],
        ["config", "path", "x"],
        ["config", "show", "x"],
        ["config", "destroy"],
    ]
    for mistake, done in run_many(mistakes):
        assert (done.returncode, done.stdout) == (2, ""), mistake
        assert done.stderr.count("\n") == 1, (mistake, done.stderr)
