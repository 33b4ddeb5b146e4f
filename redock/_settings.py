"""
Settings: what the user wants to be different.

The environment comes before the settings file ``~/.redock/config.toml``,
which comes before the built-in value. What a project wants comes in between,
see ``redock._project``.
"""

from __future__ import annotations

import os

from redock._files import path_in_home, read_bytes
from redock._names import nearest
from redock.errors import InvalidArgument, SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from redock._options import Options

__all__ = [
    "BUILT_IN",
    "OPTIONS",
    "SETTINGS",
    "as_options",
    "check_setting",
    "configured",
    "find_setting",
    "setting",
    "settings_file",
]

BUILT_IN = "built in"
#: The settings: the environment variable of each and the built-in value.
SETTINGS: dict[str, tuple[str, str]] = {
    "agent": ("REDOCK_AGENT", "false"),
    "base": ("REDOCK_BASE", ""),
    "cpus": ("REDOCK_CPUS", ""),
    "memory": ("REDOCK_MEMORY", ""),
    "mirror": ("REDOCK_MIRROR", ""),
    "network": ("REDOCK_NETWORK", ""),
    "restart": ("REDOCK_RESTART", "no"),
    "ssh_config": ("REDOCK_SSH_CONFIG", "auto"),
    "trust": ("REDOCK_TRUST", ""),
    "user": ("REDOCK_USER", ""),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "agent": ("true", "false"),
    "ssh_config": ("auto", "include", "merge", "none"),
}
#: Settings that may be a list in the file, and what stands between its items in a variable.
LISTS = {"network": " ", "trust": os.pathsep}
SWITCHES = ("agent", "user")
NUMBERS = ("cpus", "memory")
#: Settings that are options of machines.
OPTIONS = ("agent", "cpus", "memory", "network", "restart", "user")


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
    origin = BUILT_IN
    path = settings_file()
    found = read_settings(path)
    if name in found:
        value, origin = found[name], path
    if os.environ.get(variable):
        value, origin = os.environ[variable], variable
    if origin != BUILT_IN:
        try:
            check_setting(name, value)
        except InvalidArgument as error:
            raise SettingsError(f"{origin}: {error}") from error
    return value, origin


def settings_file() -> str:
    """
    Get the pathname of the settings file.

    :returns: A pathname.
    """
    return path_in_home("config.toml")


def configured(*names: str, variables_only: bool = False) -> dict[str, str]:
    """
    Get the settings that somebody has set.

    :param names: Keys of :data:`SETTINGS`.
    :param variables_only: Only those in the environment (default: in the file as well).
    :returns: Their values by name.
    :raises SettingsError: The settings file or a value makes no sense.
    """
    if variables_only or read_bytes(settings_file()) is None:
        names = tuple(name for name in names if os.environ.get(SETTINGS[name][0]))
    found = ((name, *find_setting(name)) for name in names)
    return {name: value for name, value, origin in found if value and origin != BUILT_IN}


def check_setting(name: str, value: str) -> None:
    """
    Check the value of a setting.

    :param name: A key of :data:`SETTINGS`.
    :param value: The value, as an environment variable has it.
    :raises InvalidArgument: The value makes no sense.
    """
    if name in CHOICES and value not in CHOICES[name]:
        raise InvalidArgument(f"{name} cannot be {value!r}, choose from {', '.join(CHOICES[name])}")
    if name in OPTIONS and value:
        as_options({name: value})
    for path in value.split(os.pathsep) if name == "trust" else ():
        if path and not os.path.isabs(os.path.expanduser(path)):
            raise InvalidArgument(f"trust: {path!r} is not an absolute path")


def as_options(values: Mapping[str, str]) -> Options:
    """
    Turn settings into options of machines.

    :param values: Texts by setting.
    :returns: The options.
    :raises InvalidArgument: A value makes no sense.
    """
    from redock._options import Options

    given: dict[str, Any] = {name: value for name, value in values.items() if name in OPTIONS}
    if "agent" in given:
        given["agent"] = given["agent"] == "true"
    if "network" in given:
        given["networks"] = given.pop("network").split()
    return Options(**given)


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
    return {key: as_text(path, key, value) for key, value in load_toml(path, contents).items()}


def load_toml(path: str, contents: bytes) -> dict[str, Any]:
    """
    Read TOML.

    :param path: The pathname of the file, for the message.
    :param contents: What is in it.
    :returns: The values by key.
    :raises SettingsError: It is not TOML.
    """
    import tomllib

    try:
        return tomllib.loads(contents.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not a TOML file: {error}") from error


def as_text(path: str, key: str, value: object) -> str:
    """
    Turn a value of the settings file into what an environment variable would have.

    :param path: The pathname of the file.
    :param key: The key.
    :param value: The value.
    :returns: Text.
    :raises SettingsError: There is no such setting, or the value has the wrong type.
    """
    if key not in SETTINGS:
        raise SettingsError(
            f"{path}: unknown setting {key!r}, did you mean {nearest(key, SETTINGS)!r}?"
        )
    if isinstance(value, str):
        return value
    if isinstance(value, bool) and key in SWITCHES:
        nobody = "root" if key == "user" else "false"
        return "true" if value else nobody
    if isinstance(value, (int, float)) and not isinstance(value, bool) and key in NUMBERS:
        return str(value)
    if isinstance(value, list) and key in LISTS and all(isinstance(each, str) for each in value):
        return LISTS[key].join(value)
    raise SettingsError(f'{path}: {key} must be text, write {key} = "..."')
