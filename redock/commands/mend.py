"""
Keeping the house in order: ``ssh-config``, ``doctor``.
"""

from __future__ import annotations

import sys

from redock._arguments import add_verb
from redock.commands._several import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from redock._arguments import Parser

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "Show, install or remove redock's line in your SSH configuration."
    verb = add_verb(verbs, "ssh-config", ssh_config, text)
    verb.add_argument("action", choices=("show", "install", "remove"))
    verb.add_argument("--dry-run", action="store_true", help="print the change, do not make it")
    add_verb(verbs, "doctor", examine, "Explain what is missing and how to mend it.", "--json")


def ssh_config(options: argparse.Namespace) -> int:
    """
    Show, install or remove redock's line in the user's SSH configuration.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import _include, _ssh
    from redock._files import read_bytes

    if options.action == "show":
        sys.stdout.write((read_bytes(_ssh.config_file()) or b"").decode("utf-8", "replace"))
    elif options.dry_run:
        sys.stdout.write(_include.preview(removing=options.action == "remove"))
    else:
        change = _include.remove if options.action == "remove" else _include.install
        changed = change()
        log().info("%s: %s", _ssh.home_config_file(), "changed" if changed else "nothing to change")
    return 0


def examine(options: argparse.Namespace) -> int:
    """
    Explain what is missing and how to mend it.

    :param options: The command line.
    :returns: 0 when nothing is missing, else 1.
    """
    from redock import doctor

    findings = doctor.examine()
    if options.json:
        from redock.commands._output import print_json

        print_json([each.values() for each in findings])
    else:
        for finding in findings:
            print(finding)
    return 0 if all(finding.good for finding in findings) else 1
