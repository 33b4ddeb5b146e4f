"""
Everything that is set: where each value comes from, and changing the settings file.

The file is the user's: a change is one line, and everything else, comments and
order included, stays as it is.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import NamedTuple

from redock import _settings
from redock._files import Lock, atomic_write, path_in_home, read_bytes
from redock._names import nearest
from redock._project import KEYS, Project
from redock._settings import BUILT_IN, LISTS, SETTINGS, settings_file
from redock.errors import InvalidArgument, SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Value", "add_to_list", "change", "check_key", "collect"]


class Value(NamedTuple):
    """A value and where it comes from: an option, a variable, a pathname or ``built in``."""

    #: Text, a number, true or false, or a list of texts; of variables only their names.
    value: Any
    origin: str


def collect(project: Project | None, flags: Mapping[str, object]) -> dict[str, Value]:
    """
    Find everything that is set.

    :param project: The project of the working directory, if there is one.
    :param flags: What the command line says, by key.
    :returns: The values by key.
    :raises SettingsError: The settings file makes no sense.
    """
    found: dict[str, Value] = {}
    for key in sorted({*KEYS, *SETTINGS}):
        value, origin = _settings.find_setting(key) if key in SETTINGS else ("", BUILT_IN)
        shown: object = value
        if key in LISTS:
            shown = [each for each in value.split(LISTS[key]) if each]
        from_variable = key in SETTINGS and origin == SETTINGS[key][0]
        if project is not None and key in project.values and not from_variable:
            shown, origin = project.values[key], project.path
        elif project is not None and key == "name":
            shown, origin = project.name, project.directory
        if key == "env" and shown:
            shown = sorted(str(each).partition("=")[0] for each in project_list(shown))
        if flags.get(key):
            shown, origin = flags[key], f"--{key}"
        found[key] = Value(shown, origin)
    return found


def project_list(value: object) -> list[object]:
    """
    Get the items of a list, or the keys of a table.

    :param value: The list or table.
    :returns: A list.
    """
    return list(value) if isinstance(value, (list, dict)) else [value]


def check_key(key: str, *, writing: bool = False) -> None:
    """
    Make sure there is such a key.

    :param key: The key.
    :param writing: It is to be written to the settings file (default: no).
    :raises InvalidArgument: There is none, or it does not belong there.
    """
    known = SETTINGS if writing else {**SETTINGS, **KEYS}
    if key in known:
        return
    if key in KEYS:
        raise InvalidArgument(f"{key} is for the redock.toml of a project, not for all machines")
    raise InvalidArgument(f"there is no setting {key!r}, did you mean {nearest(key, known)!r}?")


def change(key: str, value: str | None) -> str:
    """
    Change a setting in the settings file.

    :param key: The setting.
    :param value: Its value as a variable would have it; None takes it out.
    :returns: The pathname of the file.
    :raises InvalidArgument: There is no such setting, or the value makes no sense.
    :raises SettingsError: The file cannot be changed safely; it was left as it is.
    """
    check_key(key, writing=True)
    if value is not None:
        _settings.check_setting(key, value)
    with Lock(path_in_home("locks", ".config.lock"), "the settings"):
        write(key, None if value is None else literal(key, value))
    return settings_file()


def add_to_list(key: str, value: str) -> str:
    """
    Add an item to a setting that is a list.

    :param key: The setting.
    :param value: The item.
    :returns: The pathname of the file.
    :raises InvalidArgument: There is no such setting, or the value makes no sense.
    :raises SettingsError: The file cannot be changed safely; it was left as it is.
    """
    check_key(key, writing=True)
    if key not in LISTS:
        raise InvalidArgument(f"{key} is not a list: 'redock config set {key} VALUE'")
    before = _settings.read_settings(settings_file()).get(key, "").split(LISTS[key])
    items = list(dict.fromkeys(each for each in (*before, value) if each))
    return change(key, LISTS[key].join(items))


def literal(key: str, value: str) -> str:
    """
    Write a value in TOML.

    :param key: The setting.
    :param value: Its value as a variable would have it.
    :returns: The text behind the equals sign.
    """
    if key in _settings.SWITCHES and value in ("true", "false"):
        return value
    if key == "cpus" and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value, re.ASCII):
        return value
    if key in LISTS:
        items = [json.dumps(each, ensure_ascii=False) for each in value.split(LISTS[key]) if each]
        return f"[{', '.join(items)}]"
    # What JSON escapes in a string, TOML does.
    return json.dumps(value, ensure_ascii=False)


def write(key: str, text: str | None) -> None:
    """
    Change a line of the settings file; the caller holds its lock.

    :param key: The setting.
    :param text: Its value in TOML, None to take it out.
    :raises SettingsError: That cannot be done without changing something else.
    """
    # The file may be a link to where somebody keeps all such files.
    path = os.path.realpath(settings_file())
    contents = read_bytes(path)
    before = _settings.load_toml(path, contents or b"")
    wanted = {name: value for name, value in before.items() if name != key}
    if text is not None:
        wanted.update(_settings.load_toml(path, f"{key} = {text}".encode()))
    edited = edit((contents or b"").decode("utf-8"), key, text).encode()
    try:
        safe = _settings.load_toml(path, edited) == wanted
    except SettingsError:
        safe = False
    if not safe:
        raise SettingsError(
            f"{path}: {key} is written there in a way that cannot be changed safely: edit the file"
        )
    if contents is None:
        atomic_write(path, edited)
    elif edited != contents:
        found = os.stat(path)
        owner = (found.st_uid, found.st_gid)
        atomic_write(path, edited, mode=stat.S_IMODE(found.st_mode), owner=owner)


def edit(contents: str, key: str, text: str | None) -> str:
    """
    Change a line of TOML; whoever calls checks that nothing else has changed.

    :param contents: The whole text.
    :param key: The key, at the top level.
    :param text: Its value in TOML, None to take the line out.
    :returns: The new text.
    """
    end = "\r\n" if "\r\n" in contents else "\n"
    lines = re.findall(r"[^\n]*\n|[^\n]+", contents)
    for number, line in enumerate(lines):
        if key not in parsed(line):
            continue
        if text is None:
            del lines[number]
        else:
            head, value = re.fullmatch(r"([^=]*=[ \t]*)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
            lines[number] = f"{head}{text}{value[len(without_comment(value)) :]}"
        return "".join(lines)
    if text is None:
        return contents
    if any(line.lstrip().startswith("[") for line in lines):
        # Behind the head of a table it would belong to the table.
        return "".join([f"{key} = {text}{end}", *lines])
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    return "".join([*lines, f"{key} = {text}{end}"])


def without_comment(value: str) -> str:
    """
    Find where a value ends.

    :param value: The rest of a line, behind the equals sign.
    :returns: The value alone, without the blanks, the comment and the line end behind it.
    """
    for match in re.finditer("#", value):
        if parsed(f"value = {value[: match.start()]}"):
            return value[: match.start()].rstrip()
    return value.rstrip()


def parsed(line: str) -> dict[str, Any]:
    """
    Read a line of TOML by itself.

    :param line: The line.
    :returns: What it says; nothing where it makes no sense alone.
    """
    import tomllib

    try:
        return tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return {}
