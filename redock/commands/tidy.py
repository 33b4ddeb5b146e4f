"""
Taking away what nobody uses: ``prune``.
"""

from __future__ import annotations

from redock._arguments import add_options, add_verb
from redock.commands._output import print_json, print_table
from redock.commands._several import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from redock._arguments import Parser
    from redock._tidy import Leftover

__all__ = ["add"]


def add(verbs: argparse._SubParsersAction[Parser]) -> None:
    """
    Add the commands of this module.

    :param verbs: Where commands are added.
    """
    text = "Show what of redock's nobody uses any more, and take it away."
    verb = add_verb(verbs, "prune", prune, text)
    verb.add_argument(
        "-a", "--all", action="store_true", help="also base images and provisioned disks"
    )
    verb.add_argument("--dry-run", action="store_true", help="only show it")
    add_options(verb, "-y", "--json", again=True)


def prune(options: argparse.Namespace) -> int:
    """
    Show what nobody uses, and take it away.

    :param options: The command line.
    :returns: The exit status.
    """
    from redock import _ask, _tidy
    from redock._engine import Engine

    found = _tidy.find_leftovers(Engine(), caches=options.all)
    if options.json:
        print_json([each.values() for each in found])
    elif found:
        show(found)
    if not found:
        log().info("There is nothing that nobody uses")
        return 0
    # A program that wants a list gets one, and says "-y" where it wants more.
    if options.dry_run or (options.json and not options.yes):
        return 0
    one = len(found) == 1
    asked = not options.yes and _ask.is_somebody_there()
    if asked and not _ask.confirm("Remove it?" if one else f"Remove these {len(found)}?"):
        log().warning("Everything was left as it is")
        return 1
    failed = _tidy.take_away(found)
    for each, error in failed:
        log().warning("Left the %s %s: %s", each.kind, each.name, error)
    log().info("Removed %i of %i", len(found) - len(failed), len(found))
    return 1 if failed else 0


def show(found: Sequence[Leftover]) -> None:
    """
    Print what nobody uses.

    :param found: What was found.
    """
    from redock._table import bytes_in_words, plain

    rows = [
        [each.kind, plain(each.name), bytes_in_words(each.size), plain(each.why)] for each in found
    ]
    print_table(["KIND", "NAME", "SIZE", "WHY"], rows, right=["SIZE"])
