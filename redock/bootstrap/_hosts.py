"""Provisioning many hosts at once."""

from __future__ import annotations

import time

from redock.bootstrap._change import ChangeList

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from redock.bootstrap import Bootstrap

__all__ = ["run"]

#: More hosts at the same time than this gain nothing: this side is busy, too.
MOST_JOBS = 16
#: Seconds that hosts have to end what they do after an interrupt.
GRACE = 5.0


def run(
    function: Callable[[Bootstrap], object],
    *aliases: str,
    jobs: int | None = None,
    **bootstrap_options: Any,
) -> dict[str, ChangeList | Exception]:
    """
    Call a function for each of several hosts, some at the same time.

    Each host has its own thread and connection. Lines that commands print get
    the name of the host in front. An error on one host does not stop the
    others. An interrupt closes all connections, and no other host is begun.

    >>> def provision(host):
    ...     host.file("/srv/by-run", "Hello!\\n")
    >>> results = run(provision, alias, jobs=4)
    >>> results[alias].summary()
    '[...] 0 unchanged, 1 changed, 0 failed, 0 unknown in ... s'

    :param function: Gets a connected :class:`Bootstrap` as its only argument.
    :param aliases: The names of the hosts, as for :class:`Bootstrap`.
    :param jobs: How many hosts at the same time (default: all of them, up to 16).
    :param bootstrap_options: Keyword arguments of :class:`Bootstrap`.
    :returns: For each alias its changes, or the exception that ended it. A host whose
              operations failed is an exception; its ``history`` attribute has the changes.
    :raises InvalidName: One of the aliases cannot be a host; nothing was done on any.
    """
    from redock._names import check_ssh_alias

    for alias in aliases:
        check_ssh_alias(alias)
    hosts = list(dict.fromkeys(aliases))
    from redock.bootstrap import Bootstrap

    made = {alias: Bootstrap(alias, **{"prefix": True, **bootstrap_options}) for alias in hosts}
    count = max(1, min(jobs or MOST_JOBS, len(hosts)))
    if count == 1:
        return {alias: run_one(function, host) for alias, host in made.items()}
    from redock._parallel import call_all

    def give_up() -> None:
        for host in made.values():
            host._give_up()

    return call_all(
        made, lambda host: run_one(function, host), count, grace=GRACE, on_interrupt=give_up
    )


def run_one(function: Callable[[Bootstrap], object], host: Bootstrap) -> ChangeList | Exception:
    """
    Provision one host.

    :param function: What to do.
    :param host: The host.
    :returns: The changes, or the exception that ended it, with the changes as ``history``.
    """
    started = time.monotonic()
    try:
        with host:
            function(host)
        return host.history
    except Exception as error:
        if error not in host.history.failed:
            host.history.failed.append(error)
        error.history = host.history  # type: ignore[attr-defined]
        return error
    finally:
        host.history.seconds = time.monotonic() - started
