"""
What is set and where that comes from: ``config``, and a project's own file: ``init``.
"""

from __future__ import annotations

from redock._arguments import add_verb
from redock.commands._several import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock._arguments import Parser

__all__ = ["add"]

#: What each action is given.
ACTIONS = {"show": 0, "get": 1, "set": 2, "add": 2, "unset": 1, "path": 0}


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "Show what is set and where it comes from, or change your settings."
    verb = add_verb(verbs, "config", config, text, "-n", "-b")
    verb.add_argument(
        "action", nargs="?", default="show", choices=tuple(ACTIONS),
        help="show everything (the default); get, set, add to, or unset one; path of the file",
    )  # fmt: skip
    verb.add_argument("key", nargs="?", metavar="KEY", help="the setting")
    verb.add_argument("value", nargs="?", metavar="VALUE", help="its new value, or what to add")
    verb.add_argument("--json", action="store_true", help="print everything as JSON")
    add_verb(verbs, "init", init, "Write a redock.toml to fill in into this folder.")


def config(options: argparse.Namespace) -> int:
    """
    Show what is set, or change the settings file.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import _configuration, _settings
    from redock.errors import InvalidArgument

    action = options.action
    words = [word for word in (options.key, options.value) if word is not None]
    if len(words) != ACTIONS[action]:
        usage = " ".join(["KEY", "VALUE"][: ACTIONS[action]]) or "nothing more"
        raise InvalidArgument(f"'redock config {action}' takes {usage}")
    if action == "path":
        print(_settings.settings_file())
    elif action in ("set", "add", "unset"):
        if action == "add":
            path = _configuration.add_to_list(*words)
        else:
            path = _configuration.change(words[0], words[1] if action == "set" else None)
        log().info("Changed %s", path)
    else:
        show(options)
    return 0


def show(options: argparse.Namespace) -> None:
    """
    Print all values, or one.

    :param options: The command line.
    """
    from redock import _configuration
    from redock._project import find_project

    if options.key is not None:
        _configuration.check_key(options.key)
    flags = {"base": options.base, "hostname": options.hostname}
    found = _configuration.collect(find_project(), flags)
    if options.key is not None:
        found = {options.key: found[options.key]}
    if options.json:
        from redock.commands._output import print_json

        print_json({key: value._asdict() for key, value in found.items()})
    elif options.action == "get":
        for each in found.values():
            print(in_one_line(each.value, "\n"))
    else:
        rows = [(key, in_one_line(each.value), each.origin) for key, each in found.items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for key, value, origin in rows:
            print(f"{key:{widths[0]}}  {value:{widths[1]}}  {origin}")


def in_one_line(value: object, between: str = ", ") -> str:
    """
    Write a value for people.

    :param value: The value.
    :param between: What stands between the items of a list.
    :returns: Text that is safe on a terminal.
    """
    from redock._printed import printable

    items = value if isinstance(value, list) else [value]
    words = {True: "true", False: "false"}
    return between.join(
        printable(words[each] if isinstance(each, bool) else str(each)) for each in items
    )


def init(options: argparse.Namespace) -> int:
    """
    Write a project's file to fill in.

    :param options: The command line.
    :returns: The exit status.
    """
    import os

    from redock._files import atomic_write
    from redock._project import FILE, TEMPLATE
    from redock.errors import InvalidArgument

    path = os.path.abspath(FILE)
    if os.path.lexists(path):
        raise InvalidArgument(f"{path} exists already")
    atomic_write(path, TEMPLATE.encode(), mode=0o644)
    print(path)
    return 0
