"""What must not be in redock's source, and which way its imports go."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import redock

ROOT = Path(redock.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """The name of a module inside redock; a package goes by its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text()) for path in SOURCES}
#: A package is one room.
ROOMS = {name.split(".")[0] for name in TREES}

#: The modules from the ground up; each may import what stands before it, at the top of its file.
GROUND_UP = [
    "__init__",
    "_remote",
    "_result",
    "_log",
    "errors",
    "_process",
    "_progress",
    "_parallel",
    "_json_text",
    "_http",
    "_endpoint",
    "_names",
    "_recipe",
    "_files",
    "_archive",
    "_sizes",
    "_links",
    "_options",
    "_preparation",
    "_settings",
    "utils",
    "_tunnel",
    "_printed",
    "_sdk",
    "_transport",
    "_unfinished",
    "_containers",
    "_engine",
    "_frozen",
    "_exec",
    "_dial",
    "_dotdee",
    "_ssh",
    "_remembered",
    "_keeper",
    "_connection",
    "_command",
    "_copy",
    "_forward",
    "_editor",
    "_include",
    "_machines",
    "_identity",
    "_image",
    "_handle",
    "_access",
    "_commits",
    "_changes",
    "_flat",
    "_imagefile",
    "_session",
    "_distribution",
    "base",
    "_project",
    "_configuration",
    "_fitting",
    "_power",
    "_reach",
    "_history",
    "_usage",
    "_succession",
    "_transfer",
    "_listing",
    "_logs",
    "_look",
    "api",
    "bootstrap",
    "_project_state",
    "provision",
    "cluster",
    "pytest_plugin",
    "_tidy",
    "doctor",
    "_arguments",
    "_table",
    "_logging",
    "_report",
    "_ask",
    "commands",
    "cli",
    "__main__",
]
PUBLIC = ["api", "base", "bootstrap", "cli", "doctor", "errors", "provision", "utils"]


def imported_by(tree: ast.AST) -> set[str]:
    """The modules a tree imports, wherever in it, with dots."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            module = node.module or ""
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def own(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if re.match(r"redock\.\w+", name)} & ROOMS


def without_types(tree: ast.Module) -> ast.Module:
    """A tree without what only type checkers import."""
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.Module(body=body, type_ignores=[])


def test_every_module_has_its_place() -> None:
    assert set(GROUND_UP) == ROOMS


@pytest.mark.parametrize("name", sorted(TREES))
def test_imports_go_one_way(name: str) -> None:
    room = name.split(".")[0]
    below = GROUND_UP[: GROUND_UP.index(room)]
    above = own(imported_by(without_types(TREES[name]))) - set(below) - {room}
    assert above == set()


def test_only_one_module_knows_the_sdk() -> None:
    users = {
        name
        for name, tree in TREES.items()
        if any(
            each.split(".")[0] in ("docker", "requests", "urllib3")
            for each in imported_by(without_types(tree))
        )
    }
    assert users == {"_sdk"}


def test_only_one_module_knows_update_dotdee() -> None:
    users = {name for name, tree in TREES.items() if "update_dotdee" in imported_by(tree)}
    assert users == {"_dotdee"}


def test_nothing_is_unpickled_or_evaluated() -> None:
    for name, tree in TREES.items():
        forbidden = {"pickle", "marshal", "shelve", "dill"} & imported_by(tree)
        assert not forbidden, name
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names = {call.id for call in calls if isinstance(call, ast.Name)}
        # These two run what the caller wrote: that is their purpose.
        if name not in ("_remote._reading", "provision"):
            assert not names & {"eval", "exec", "__import__"}, name


def test_no_command_goes_through_a_shell() -> None:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword):
                assert node.arg != "shell", name
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in (
                    "os.system",
                    "os.popen",
                    "subprocess.getoutput",
                    "subprocess.getstatusoutput",
                ), name


@pytest.mark.parametrize(
    "words",
    [
        r"StrictHostKeyChecking[ =]+(no|off|accept-new)",
        r"0\.0\.0\.0",
        r"UserKnownHostsFile[ =]+/dev/null",
        r"ForwardAgent[ =]+yes",
    ],
)
def test_no_door_is_left_open(words: str) -> None:
    assert [path.name for path in SOURCES if re.search(words, path.read_text(), re.I)] == []


def test_every_wait_is_on_the_monotonic_clock() -> None:
    # The ages of files, processes and images are the only thing the wall clock is asked about.
    users = {
        name for name, tree in TREES.items() for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.time"
    }  # fmt: skip
    assert users <= {"_remote._packages", "_remote._services", "_tidy", "cluster._timeline"}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_sorted_and_there(name: str) -> None:
    module = importlib.import_module(f"redock.{name}")
    assert module.__all__ == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for each in module.__all__:
        assert hasattr(module, each), each


def test_the_package_itself_offers_what_it_says() -> None:
    assert sorted(redock.__all__) == redock.__all__
    for each in redock.__all__:
        assert getattr(redock, each) is not None
    with pytest.raises(AttributeError):
        getattr(redock, "nothing")  # noqa: B009


@pytest.mark.parametrize(
    "name",
    # What is sent to hosts says it once for all parts, in the package.
    sorted(name for name in TREES if not name.startswith(("__", "_remote."))),
)
def test_every_module_says_what_it_is_and_what_it_offers(name: str) -> None:
    assert ast.get_docstring(TREES[name])
    module = importlib.import_module(f"redock.{name}")
    for each in module.__all__:
        assert hasattr(module, each), each


def test_the_tests_of_a_module_have_its_name() -> None:
    names = ROOMS | {path.stem for path in SOURCES}
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert tested - {"bootstrap", "docs", "manual", "record", "static"} <= {
        name.lstrip("_") for name in names
    }
