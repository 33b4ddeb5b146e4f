"""
What an external command did, and how its command line looks.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Result", "quote"]

#: Characters that need no quoting in a POSIX shell.
SAFE_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_"
)


class Result:
    """
    What an external command did.

    True when the command succeeded, so that ``if run(...):`` reads well.

    :param command: The command and its arguments.
    :param returncode: The exit status, negative for the signal that ended it.
    :param stdout: The standard output, empty when it was not captured.
    :param stderr: The standard error, empty when it was not captured.
    :param seconds: How long the command ran.
    """

    __slots__ = ("command", "returncode", "seconds", "stderr", "stdout")

    def __init__(
        self,
        command: Sequence[str],
        returncode: int,
        stdout: str = "",
        stderr: str = "",
        seconds: float = 0.0,
    ) -> None:
        self.command = tuple(command)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
        self.seconds = seconds

    @property
    def ok(self) -> bool:
        """True when the exit status is zero."""
        return self.returncode == 0

    @property
    def command_line(self) -> str:
        """The command as one could type it in a shell."""
        return quote(self.command)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        return f"Result({self.command_line!r}, returncode={self.returncode})"


def quote(command: Sequence[str]) -> str:
    """
    Quote the tokens of a command line for a POSIX shell.

    :param command: The command name and its arguments.
    :returns: One string a shell splits into exactly these tokens.
    """
    return " ".join(
        token
        if token and SAFE_CHARACTERS.issuperset(token)
        else "'" + token.replace("'", "'\"'\"'") + "'"
        for token in command
    )
