"""
The command ``redock provision``: run a script of :mod:`redock.bootstrap` on machines.

The script is a Python file with a function ``provision(host)``. It is called
for each host with a :class:`redock.bootstrap.Bootstrap`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from redock.bootstrap import Bootstrap, Change, ChangeList, run
from redock.bootstrap._change import mask
from redock.errors import InvalidArgument, InvalidName, RedockError, SeveralFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import TextIO

__all__ = ["find_alias", "load_script", "main", "provision"]


def main(options: argparse.Namespace) -> int:
    """
    Run the command.

    :param options: What the parser of :mod:`redock.cli` describes, and perhaps ``verbose``.
    :returns: The exit status.
    :raises RedockError: The script cannot be used, or a host failed.
    """
    if options.jobs is not None and options.jobs < 1:
        raise InvalidArgument("-j takes a number above 0")
    # Our own lines say what changes; the log would say it again.
    logging.getLogger("redock.bootstrap").setLevel(
        logging.DEBUG if getattr(options, "verbose", 0) > 1 else logging.WARNING
    )
    results = provision(
        options.names,
        options.script,
        dry_run=options.dry_run,
        diff=options.diff,
        sudo=options.sudo,
        jobs=options.jobs,
        verbose=getattr(options, "verbose", 0) > 0,
        report=None if getattr(options, "quiet", 0) else sys.stderr,
    )
    if options.json:
        import json

        print(json.dumps([history_of(result).as_dict() for result in results.values()], indent=2))
    elif options.diff:
        for result in results.values():
            for change in history_of(result):
                sys.stdout.write(change.diff)
    failures = {name: result for name, result in results.items() if isinstance(result, Exception)}
    if not failures:
        return 0
    if len(failures) == 1:
        (error,) = failures.values()
        if isinstance(error, RedockError):
            raise error
    raise SeveralFailed(
        "; ".join(f"{name}: {describe(error)}" for name, error in failures.items()), failures
    )


def provision(
    names: Sequence[str],
    script: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    diff: bool = False,
    sudo: bool = False,
    jobs: int | None = None,
    verbose: bool = False,
    report: TextIO | None = None,
) -> dict[str, ChangeList | Exception]:
    """
    Run a script's ``provision(host)`` on one or more hosts.

    :param names: Names of redock's machines, SSH aliases or ``user@host``.
    :param script: The path of the script.
    :param dry_run: Only find out what would change (default: no).
    :param diff: Compute unified diffs (default: no).
    :param sudo: Become root with sudo on the hosts (default: no).
    :param jobs: How many hosts at the same time (default: all of them, up to 16).
    :param verbose: Report operations that found nothing to change, too (default: no).
    :param report: Where to report what changes, one line each, and a summary (default: nowhere).
    :returns: For each SSH alias its changes, or the exception that ended it, see
              :func:`redock.bootstrap.run`.
    :raises InvalidName: A name can be neither a machine nor a host.
    :raises InvalidArgument: The script cannot be loaded or has no ``provision(host)``.
    """
    aliases = [find_alias(name) for name in names]
    function = load_script(script)

    def reporting(host: Bootstrap) -> None:
        # ssh is on its way while the rest of Python is loaded.
        host.start()
        load_for(function)
        host.on_change = lambda change: tell(report, change, verbose)
        function(host)

    results = run(
        reporting,
        *aliases,
        jobs=jobs,
        dry_run=dry_run,
        diff=diff,
        sudo=sudo,
        # Standard output is for results.
        output=sys.stderr,
    )
    if report is not None:
        for result in results.values():
            print(history_of(result).summary(), file=report)
    return results


def load_for(function: Callable[[Bootstrap], object]) -> None:
    """
    Load what a script is going to need, as that takes longer than most of what it does.

    :param function: Its ``provision``.
    """
    code = getattr(function, "__code__", None)
    if code is not None and "template" in code.co_names:
        # Without Jinja2 the operation says what to install.
        with contextlib.suppress(ImportError):
            import jinja2  # noqa: F401


def tell(report: TextIO | None, change: Change, verbose: bool) -> None:
    """
    Report one change.

    :param report: Where to write.
    :param change: The change.
    :param verbose: Whether to report also that nothing changed.
    """
    if report is None or (change.changed is False and not verbose):
        return
    seconds = change.seconds
    took = f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
    report.write(f"{change}   {took}\n")


def history_of(result: ChangeList | Exception) -> ChangeList:
    """
    Get the changes of a host that succeeded or failed.

    :param result: What :func:`redock.bootstrap.run` returned for it.
    :returns: The changes.
    """
    history = getattr(result, "history", result)
    assert isinstance(history, ChangeList)
    return history


def describe(error: BaseException) -> str:
    """
    Say in one line what went wrong, and for a mistake in a script also where.

    :param error: The exception.
    :returns: One line.
    """
    if isinstance(error, RedockError):
        return str(error)
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return mask(f"{type(error).__name__}: {error}{where}")


def find_alias(name: str) -> str:
    """
    Find the SSH alias of a name on the command line.

    A running machine of redock's wins over a host of the same name.

    :param name: ``TAG`` or ``REPOSITORY:TAG`` of a machine, an SSH alias or ``user@host``.
    :returns: The SSH alias.
    :raises InvalidName: It can be none of these.
    """
    from redock._names import check_ssh_alias

    if "@" in name or name.endswith("-container"):
        return check_ssh_alias(name)
    from redock.api import Container

    try:
        container = Container(name)
        if ":" in name or container._find_machine() is not None:
            return container.ssh_alias
    except InvalidName:
        if ":" in name:
            raise
    except RedockError:
        # Without an engine a name can still be a host.
        if ":" in name:
            raise
    return check_ssh_alias(name)


def load_script(script: str | os.PathLike[str]) -> Callable[[Bootstrap], object]:
    """
    Load the function ``provision`` of a script.

    The directory of the script is put in front of the module search path, as Python itself does.

    :param script: The path of the script.
    :returns: The function.
    :raises InvalidArgument: The script cannot be read, has a mistake or no such function.
    """
    path = os.fspath(script)
    try:
        with open(path, "rb") as handle:
            source = handle.read()
    except OSError as error:
        raise InvalidArgument(f"cannot read the script {path}: {error.strerror}") from error
    directory = os.path.dirname(os.path.abspath(path))
    if directory not in sys.path:
        sys.path.insert(0, directory)
    names: dict[str, object] = {"__name__": "redock_provision_script", "__file__": path}
    try:
        exec(compile(source, path, "exec"), names)  # noqa: S102
    except Exception as error:
        raise InvalidArgument(f"the script {path} cannot be loaded: {describe(error)}") from error
    function = names.get("provision")
    if not callable(function):
        raise InvalidArgument(f"the script {path} does not define provision(host)")
    import linecache

    # call() needs the source of functions that the script defines.
    linecache.cache[path] = (len(source), None, source.decode().splitlines(True), path)
    return function
