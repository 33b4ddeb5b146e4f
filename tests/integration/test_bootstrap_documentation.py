"""Every public name is documented, and every example in its documentation works."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import redock.bootstrap
from redock.api import Container
from redock.bootstrap import Bootstrap, run

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
OPERATIONS = [
    "execute",
    "install_packages",
    "update_system_packages",
    "upload_file",
    "rsync",
    "file",
    "template",
    "directory",
    "symlink",
    "line",
    "packages",
    "apt_repository",
    "group",
    "user",
    "service",
    "command",
    "facts",
    "read_file",
    "stat",
    "call",
    "batch",
]


def examples() -> list[doctest.DocTest]:
    """The examples in the documentation of public names."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for info in pkgutil.iter_modules(redock.bootstrap.__path__, "redock.bootstrap."):
        module = importlib.import_module(info.name)
        found += [test for test in finder.find(module, module.__name__) if test.examples]
    return found


def test_every_operation_has_an_example() -> None:
    names = {test.name.rpartition(".")[2] for test in examples()}
    assert set(OPERATIONS) <= names
    public = {
        name
        for part in Bootstrap.__mro__
        for name, value in vars(part).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property))
    }
    assert public - set(OPERATIONS) == {"start", "close", "gateway"}
    for name in public:
        assert inspect.getdoc(getattr(Bootstrap, name))


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_examples(machine: Container, test: doctest.DocTest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    output: list[str] = []
    with Bootstrap(machine.ssh_alias) as host:
        host.packages("cron")
        host.user("deploy", state="absent")
        host.group("deployers", state="absent")
        names = {"host": host, "alias": machine.ssh_alias, "local_directory": tmp_path, "run": run}
        test.globs = {**test.globs, **names}
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        runner.run(test, out=output.append)
    assert runner.failures == 0, "".join(output)
    assert runner.tries > 0
