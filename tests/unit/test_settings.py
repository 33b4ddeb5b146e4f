"""Settings: the environment before the file, the file before the built-in value."""

from __future__ import annotations

from pathlib import Path

import pytest

from redock._files import ensure_directory
from redock._settings import SETTINGS, find_setting, setting
from redock.errors import SettingsError


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


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_can_be_in_the_file(name: str, settings_file: Path) -> None:
    settings_file.write_text(f'{name} = "none"\n')
    assert setting(name) == "none"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bsae = 'x'", "unknown setting 'bsae', did you mean 'base'"),
        ("base = 1", 'write base = "..."'),
        ("base", "is not a TOML file"),
        ("ssh_config = 'never'", "choose from"),
        ("\x00", "is not a TOML file"),
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
