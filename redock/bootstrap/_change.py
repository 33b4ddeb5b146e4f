"""What an operation did: changes, lists of changes, and values nobody may see."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

__all__ = ["Change", "ChangeList", "Secret", "mask", "reveal"]

MASK = "********"

#: Every text that was ever wrapped in a Secret by this process, to keep it out of messages.
known_secrets: set[str] = set()


class Secret:
    """
    A value that is used but never shown.

    A secret can be the content of a file, a variable of a template, the input
    or an environment variable of a command and the password hash of a user.
    Logs, differences, error messages and tracebacks show asterisks in its
    place. A secret cannot be an argument of a command, because everybody on a
    machine can read the arguments of its processes.

    >>> Secret("hunter2")
    Secret('********')

    :param value: The text to hide.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        known_secrets.update(text for text in (value, *value.splitlines()) if len(text.strip()) > 3)
        if value:
            known_secrets.add(value)

    def reveal(self) -> str:
        """
        Get the value.

        :returns: The text that was given.
        """
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, specification: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not written anywhere")


def mask(text: str) -> str:
    """
    Hide every known secret in a text that somebody is going to read.

    :param text: A message, a difference or output of a command.
    :returns: The text with asterisks in place of secrets.
    """
    # The longest first, so that a secret that contains another one is hidden entirely.
    for secret in sorted(known_secrets, key=len, reverse=True):
        if secret in text:
            text = text.replace(secret, MASK)
    return text


def reveal(value: Any) -> tuple[Any, bool]:
    """
    Replace secrets by their values, also inside of dictionaries and lists.

    :param value: Any value.
    :returns: The value without secrets, and whether there was one.
    """
    if isinstance(value, Secret):
        return value.reveal(), True
    if isinstance(value, dict):
        pairs = {key: reveal(item) for key, item in value.items()}
        return {key: item for key, (item, _) in pairs.items()}, any(s for _, s in pairs.values())
    if isinstance(value, (list, tuple)):
        items = [reveal(item) for item in value]
        return type(value)(item for item, _ in items), any(s for _, s in items)
    return value, False


class Change:
    """
    What one operation changed on one host, or would change in a dry run.

    A change is true when something changed, and in a dry run also when nobody
    can know yet, so that ``if host.file(...):`` takes the branch that the real
    run may take. Inside of :meth:`Bootstrap.batch()
    <redock.bootstrap.Bootstrap.batch>` the first look at a change waits for it.

    Changes cannot be modified.
    """

    __slots__ = (
        "_settle",
        "attempts",
        "changed",
        "changes",
        "diff",
        "dry_run",
        "host",
        "op",
        "reason",
        "seconds",
        "target",
    )

    #: The name of the host, as given to Bootstrap.
    host: str
    #: The name of the operation, for example ``file``.
    op: str
    #: What the operation is about: a path, the names of packages, a user, a command.
    target: str
    #: True, False, or None: unknown, because it depends on a change that a dry run did not make.
    changed: bool | None
    #: What changed: for each property its value before and after.
    changes: Mapping[str, tuple[object, object]]
    #: A unified diff of the content; empty without ``diff=True``, and for binary or secret content.
    diff: str
    #: Why it is unknown, or what else is worth knowing.
    reason: str
    #: How long the operation took on the host.
    seconds: float
    #: How often it was tried.
    attempts: int
    #: True when nothing was really changed.
    dry_run: bool

    def __init__(
        self,
        host: str,
        op: str,
        target: str,
        changed: bool | None = None,
        changes: Mapping[str, tuple[object, object]] | None = None,
        *,
        diff: str = "",
        reason: str = "",
        seconds: float = 0.0,
        attempts: int = 1,
        dry_run: bool = False,
        settle: Callable[[], None] | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "host", host)
        put(self, "op", op)
        put(self, "target", target)
        put(self, "dry_run", dry_run)
        put(self, "_settle", settle)
        if settle is None:
            self._fill(changed, changes or {}, diff, reason, seconds, attempts)

    def _fill(
        self,
        changed: bool | None,
        changes: Mapping[str, tuple[object, object]],
        diff: str = "",
        reason: str = "",
        seconds: float = 0.0,
        attempts: int = 1,
    ) -> None:
        put = object.__setattr__
        put(self, "changed", changed)
        put(self, "changes", changes)
        put(self, "diff", diff)
        put(self, "reason", reason)
        put(self, "seconds", seconds)
        put(self, "attempts", attempts)
        put(self, "_settle", None)

    def __getattr__(self, name: str) -> Any:
        # Python calls this for a slot without a value: the answer has not been read yet.
        settle = object.__getattribute__(self, "_settle") if name in Change.__slots__ else None
        if settle is None:
            raise AttributeError(f"'Change' object has no attribute {name!r}")
        settle()
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Change cannot be modified")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Change cannot be modified")

    def __bool__(self) -> bool:
        return self.changed is not False

    def __repr__(self) -> str:
        return f"<Change {self}>"

    def __str__(self) -> str:
        return mask(f"[{self.host}] {self.op} {self.target}: {self.summary()}")

    def summary(self) -> str:
        """
        Say in a few words what changed.

        :returns: For example ``content changed (+1 -0), mode 0644 -> 0600``.
        """
        if self.changed is None:
            return f"unknown ({self.reason})"
        if not self.changed:
            return "unchanged"
        words = [self._phrase(*item) for item in self.changes.items()] or ["changed"]
        if self.reason:
            words.append(self.reason)
        return mask(", ".join(words))

    def _phrase(self, name: str, values: tuple[object, object]) -> str:
        before, after = values
        if name == "content":
            lines = self.diff.splitlines()[2:]
            added = sum(line.startswith("+") for line in lines)
            removed = sum(line.startswith("-") for line in lines)
            return "content changed" + (f" (+{added} -{removed})" if lines else "")
        if before is None:
            return f"{name} {after}"
        if after is None:
            return f"{name} {before} removed"
        return f"{name} {before} -> {after}"

    def as_dict(self) -> dict[str, object]:
        """
        Convert the change to values that JSON knows.

        :returns: A dictionary with the attributes of the change, without secrets.
        """
        return {
            "host": self.host,
            "op": self.op,
            "target": mask(self.target),
            "changed": self.changed,
            "changes": {
                name: [v if v is None else mask(str(v)) for v in values]
                for name, values in self.changes.items()
            },
            "diff": self.diff,
            "reason": mask(self.reason),
            "seconds": round(self.seconds, 6),
            "attempts": self.attempts,
            "dry_run": self.dry_run,
        }


class ChangeList:
    """
    The changes of one host in the order in which they were made.

    :param host: The name of the host.
    :param changes: The changes (default: none yet).
    """

    __slots__ = ("_changes", "failed", "host", "seconds")

    def __init__(self, host: str, changes: Iterable[Change] = ()) -> None:
        #: The name of the host.
        self.host = host
        #: The errors of operations that failed, in order.
        self.failed: list[Exception] = []
        #: How long the host took altogether, connecting included; 0 until it is known.
        self.seconds = 0.0
        self._changes = list(changes)

    def _add(self, change: Change) -> None:
        self._changes.append(change)

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)

    def __len__(self) -> int:
        return len(self._changes)

    def __getitem__(self, index: int) -> Change:
        return self._changes[index]

    @property
    def changed(self) -> list[Change]:
        """The operations that changed something, or would."""
        return [change for change in self._changes if change.changed]

    @property
    def unchanged(self) -> list[Change]:
        """The operations that found everything as it should be."""
        return [change for change in self._changes if change.changed is False]

    @property
    def unknown(self) -> list[Change]:
        """The operations of a dry run that depend on a change that was not made."""
        return [change for change in self._changes if change.changed is None]

    def summary(self) -> str:
        """
        Count what happened.

        :returns: For example ``[web] 14 unchanged, 2 changed, 0 failed, 0 unknown in 5.0 s``.
        """
        return (
            f"[{self.host}] {len(self.unchanged)} unchanged, {len(self.changed)} changed,"
            f" {len(self.failed)} failed, {len(self.unknown)} unknown in {self.seconds:.1f} s"
        )

    def as_dict(self) -> dict[str, object]:
        """
        Convert the list to values that JSON knows.

        :returns: A dictionary with the host, the counts and every change.
        """
        return {
            "host": self.host,
            "ok": not self.failed,
            "changed": len(self.changed),
            "unchanged": len(self.unchanged),
            "unknown": len(self.unknown),
            "errors": [mask(str(error)) for error in self.failed],
            "seconds": round(self.seconds, 3),
            "changes": [change.as_dict() for change in self._changes],
        }

    def to_json(self) -> str:
        """
        Convert the list to JSON.

        :returns: The text of one JSON object.
        """
        import json

        return json.dumps(self.as_dict(), indent=2)
