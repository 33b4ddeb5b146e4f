"""
A small configuration management system: bring a machine into a state, over SSH.

:class:`Bootstrap` is a connection to one host. Its methods are operations that
look at the host, change only what is not as wanted, look again and return a
:class:`Change`. Programs are plain Python and run from top to bottom::

    from redock.bootstrap import Bootstrap

    with Bootstrap("web-container") as host:
        host.packages("nginx")
        page = host.file("/var/www/html/index.html", "Hello!\\n")
        host.service("nginx", restart_if=[page])

Any host that ``ssh`` reaches will do: an alias of the SSH client configuration,
a host name, ``user@host``; keys, agents and jump hosts are as configured there.
The host needs Debian or a derivative for packages, and Python 3.8, which is
installed when it is missing.
"""

from __future__ import annotations

from redock.bootstrap._accounts import Accounts
from redock.bootstrap._change import Change, ChangeList, Secret
from redock.bootstrap._copies import Copies
from redock.bootstrap._hosts import run
from redock.bootstrap._services import Services
from redock.errors import ExternalCommandFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock.bootstrap._facts import Facts, Stat

__all__ = [
    "Bootstrap",
    "Change",
    "ChangeList",
    "ExternalCommandFailed",
    "Facts",
    "Secret",
    "Stat",
    "run",
]


class Bootstrap(Copies, Accounts, Services):
    """
    One host, reached over SSH, and the operations on it.

    **Basics.** Each operation compares the host with what is wanted and changes
    it only where it differs. The result is a :class:`Change`, which is true
    when something was changed::

        if host.file("/etc/motd", "Welcome!\\n"):
            print("there is a new message of the day")

    **Lifecycle.** Creating the object starts nothing. The connection is made by
    the first operation and lives until :meth:`close`, or the end of the
    ``with`` block; it is one ``ssh`` process and one Python process on the
    host. Nothing is installed there, and nothing stays.

    **Dry run.** With ``dry_run=True`` operations say what they would do and
    change nothing at all. A result that depends on a change that was not made
    is None ("unknown").

    **Threads.** One object belongs to one thread; :func:`run` uses one for each
    host.

    :param ssh_alias: The name of the host in the SSH client configuration, a
                      host name or ``user@host``.
    :param sudo: Become root with ``sudo``, which must not ask for a password
                 (default: no).
    :param dry_run: Only say what would change (default: no).
    :param diff: Compute unified diffs of changed text files (default: no).
    :param python: The command that starts Python on the host (default: ``python3``).
    :param timeout: Seconds for connecting, and for each operation that has no
                    timeout of its own (default: 60).
    :param retries: How often to try again when connecting fails for a reason that may
                    pass, or a package cannot be downloaded (default: 0).
    :param output: A text stream for the output of :meth:`execute`, in place of
                   this process's own (default: none).
    :param prefix: Put ``[alias]`` in front of each line of that output (default:
                   no; :func:`run` does).
    :raises InvalidName: The alias could be taken for something else by ``ssh``.
    """


def __getattr__(name: str) -> object:
    # Loading the module typing takes longer than most operations do (PEP 562).
    if name in ("Facts", "Stat"):
        from redock.bootstrap import _facts

        return getattr(_facts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
