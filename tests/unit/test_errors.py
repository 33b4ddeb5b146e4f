"""The tree of errors."""

from __future__ import annotations

import builtins
import inspect
import re

import pytest

from redock import errors
from redock.errors import RedockError

CLASSES = [getattr(errors, name) for name in errors.__all__]
TREE = re.findall(
    r"^(?P<lead>[ │├└─]+)(?P<name>[A-Z]\w+) +(?:\((?P<builtin>\w+)\))?",
    inspect.getdoc(errors) or "",
    re.M,
)


def test_everything_is_in_the_tree_and_in_the_list() -> None:
    drawn = {name for _, name, _ in TREE}
    defined = {
        name
        for name, member in vars(errors).items()
        if inspect.isclass(member) and issubclass(member, Exception)
    }
    assert drawn == defined == set(errors.__all__)


@pytest.mark.parametrize("error", CLASSES)
def test_everything_is_a_redock_error_with_a_documented_cause(error: type[RedockError]) -> None:
    assert issubclass(error, RedockError)
    assert inspect.getdoc(error)
    assert 1 <= error.exit_code <= 124


@pytest.mark.parametrize(
    ("name", "builtin"), [(name, builtin) for _, name, builtin in TREE if builtin]
)
def test_an_error_is_the_builtin_that_the_tree_says(name: str, builtin: str) -> None:
    known = {**vars(builtins), **vars(errors)}
    assert issubclass(getattr(errors, name), known[builtin])
