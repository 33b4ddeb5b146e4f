"""
Settings: what the user wants to be different.

The environment comes before the settings file ``~/.redock/config.toml``,
which comes before the built-in value.
"""

from __future__ import annotations

import os

from redock._files import path_in_home, read_bytes
from redock.errors import SettingsError

__all__ = ["SETTINGS", "find_setting", "setting"]

#: The settings: the environment variable of each and the built-in value.
SETTINGS: dict[str, tuple[str, str]] = {
    "base": ("REDOCK_BASE", ""),
    "mirror": ("REDOCK_MIRROR", ""),
    "ssh_config": ("REDOCK_SSH_CONFIG", "auto"),
}

CHOICES: dict[str, tuple[str, ...]] = {"ssh_config": ("auto", "include", "merge", "none")}


def setting(name: str) -> str:
    """
    Get the value of a setting.

    :param name: A key of :data:`SETTINGS`.
    :returns: The value.
    :raises SettingsError: The settings file or the value makes no sense.
    """
    return find_setting(name)[0]


def find_setting(name: str) -> tuple[str, str]:
    """
    Get the value of a setting and where it comes from.

    :param name: A key of :data:`SETTINGS`.
    :returns: The value and its origin: a variable, a pathname or ``built in``.
    :raises SettingsError: The settings file or the value makes no sense.
    """
    variable, value = SETTINGS[name]
    origin = "built in"
    path = path_in_home("config.toml")
    configured = read_settings(path)
    if name in configured:
        value, origin = configured[name], path
    if os.environ.get(variable):
        value, origin = os.environ[variable], variable
    if name in CHOICES and value not in CHOICES[name]:
        raise SettingsError(
            f"{origin}: {name} cannot be {value!r}, choose from {', '.join(CHOICES[name])}"
        )
    return value, origin


def read_settings(path: str) -> dict[str, str]:
    """
    Read a settings file.

    :param path: Its pathname.
    :returns: The settings in it, none when there is no such file.
    :raises SettingsError: It is not TOML, or has a key or value redock does not know.
    """
    contents = read_bytes(path)
    if contents is None:
        return {}
    import tomllib

    try:
        loaded = tomllib.loads(contents.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not a TOML file: {error}") from error
    for key, value in loaded.items():
        if key not in SETTINGS:
            raise SettingsError(f"{path}: unknown setting {key!r}{nearest(key)}")
        if not isinstance(value, str):
            raise SettingsError(f'{path}: {key} must be text, write {key} = "..."')
    return loaded


def nearest(key: str) -> str:
    """
    Find the setting somebody may have meant.

    :param key: What they wrote.
    :returns: A question to put behind the message.
    """
    import difflib

    found = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0)
    return f", did you mean {found[0]!r}?" if found else ""
