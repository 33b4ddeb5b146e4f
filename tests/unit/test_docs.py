"""The documentation says what the program does, all of it, and its examples work."""

from __future__ import annotations

import argparse
import ast
import doctest
import importlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import redock
from redock import _recipe, cli, errors, utils
from redock._settings import SETTINGS
from redock.cli import make_parser
from redock.errors import RedockError

ROOT = Path(redock.__file__).parent.parent
DOCS = ROOT / "docs"
PUBLIC_MODULES = [
    "redock.api",
    "redock.base",
    "redock.cluster",
    "redock.doctor",
    "redock.errors",
    "redock.utils",
]
#: The first line of an example that is compiled but not run.
NOT_RUN = "# Needs an engine."


def page(name: str) -> str:
    """Read a page."""
    return (DOCS / f"{name}.rst").read_text(encoding="utf-8")


def commands() -> dict[str, list[str]]:
    """Find the commands and the options that each understands; of the program itself under ""."""
    found: dict[str, list[str]] = {}

    def look(parser: argparse.ArgumentParser, name: str) -> None:
        found[name] = [option for each in parser._actions for option in each.option_strings]
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for choice in action._choices_actions:
                    look(action.choices[choice.dest], f"{name} {choice.dest}".strip())
                if name:
                    # It only chooses another command.
                    del found[name]

    look(make_parser(), "")
    return found


def aliases() -> dict[str, set[str]]:
    """Find the other names of commands."""
    (verbs,) = (each for each in make_parser()._actions if isinstance(each.choices, dict))
    assert isinstance(verbs, argparse._SubParsersAction)
    names = {id(verbs.choices[each.dest]): each.dest for each in verbs._choices_actions}
    found: dict[str, set[str]] = {}
    for alias, command in verbs.choices.items():
        if alias != names[id(command)]:
            found.setdefault(names[id(command)], set()).add(alias)
    return found


def examples(text: str) -> list[str]:
    """Find the examples in Python."""
    pattern = re.compile(r"^\.\. code-block:: python\n\n((?:(?:   .*)?\n)+)", re.MULTILINE)
    return [textwrap.dedent(match[1]) for match in pattern.finditer(text)]


def documented() -> set[str]:
    """Find the names that the pages about the API describe."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("api*.rst"))
    directive = r"^\.\. auto(?:class|data|exception|function):: ([\w.]+)$"
    return set(re.findall(directive, text, re.MULTILINE))


def test_command_line_reference_is_up_to_date() -> None:
    command = [sys.executable, str(DOCS / "generate_cli.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_and_option_is_in_the_reference() -> None:
    text = page("cli")
    for name, options in commands().items():
        assert not name or f"\nredock {name}\n----" in text
        for option in options:
            assert re.search(rf"``{option}[` \[]", text), f"{name}: {option}"
    for others in aliases().values():
        for alias in others:
            assert f"``redock {alias}``" in text


def test_every_command_and_option_is_in_the_manual_page() -> None:
    text = (DOCS / "redock.1").read_text(encoding="utf-8").replace("\\-", "-")
    for name, options in commands().items():
        assert not name or re.search(rf"^\.SS redock {name}( |$)", text, re.MULTILINE), name
        for option in options:
            assert re.search(rf"^\.B .*{option}\b", text, re.MULTILINE), f"{name}: {option}"


def test_the_manual_page_names_what_the_other_pages_do() -> None:
    text = (DOCS / "redock.1").read_text(encoding="utf-8")
    for section, where in (("ENVIRONMENT", "settings"), ("EXIT STATUS", "errors")):
        entries = re.findall(
            r"^\.B (.*)$", text.partition(f".SH {section}")[2].partition(".SH ")[0], re.MULTILINE
        )
        assert entries
        for entry in entries:
            for word in entry.replace("\\", "").split(", "):
                assert word in page(where), word


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_the_manual_page_is_one() -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(DOCS / "redock.1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_manual_page_is_installed() -> None:
    assert "docs/redock.1" in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_every_command_is_in_the_guide_and_in_the_readme() -> None:
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    # The commands of a command have pages of their own.
    for name in {name.partition(" ")[0] for name in commands() if name}:
        assert f"redock {name}" in page("usage") or name == "doctor"
        assert f"redock {name}" in readme


def test_every_command_and_argument_has_help() -> None:
    parser = make_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action.choices, dict))
    assert isinstance(verbs, argparse._SubParsersAction)
    assert all(choice.help for choice in verbs._choices_actions)
    todo = list(verbs.choices.values())
    for command in todo:
        for action in command._actions:
            assert action.help or action.choices, f"{command.prog}: {action.dest}"
            if isinstance(action, argparse._SubParsersAction):
                assert all(choice.help for choice in action._choices_actions)
                todo.extend(action.choices.values())


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_is_in_the_api_documentation(module: str) -> None:
    names = documented()
    loaded = importlib.import_module(module)
    assert loaded.__all__ == sorted(loaded.__all__)
    for name in loaded.__all__:
        # Some names can be imported from two modules and are described once.
        home = getattr(getattr(loaded, name), "__module__", module)
        assert {f"{module}.{name}", f"{home}.{name}"} & names, f"{module}.{name}"


def test_the_api_documentation_describes_nothing_that_is_not_there() -> None:
    for name in documented():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_public_member_has_a_docstring() -> None:
    for name in documented():
        module, _, attribute = name.rpartition(".")
        thing = getattr(importlib.import_module(module), attribute)
        if not isinstance(thing, type):
            continue
        for member, value in vars(thing).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"


def test_every_error_is_in_the_tree() -> None:
    assert errors.__doc__
    for name in errors.__all__:
        assert re.search(rf"^[ │├└─]*{name}  ", page("errors"), re.MULTILINE), name
        assert re.search(rf"^[ │├└─]*{name}  ", errors.__doc__, re.MULTILINE), name


def test_every_exit_status_is_explained() -> None:
    for name in errors.__all__:
        status = getattr(errors, name).exit_code
        if isinstance(status, int):
            assert re.search(rf"^{status}  ", page("errors"), re.MULTILINE), name
    assert RedockError.exit_code == 1


def test_exit_statuses_are_the_same_everywhere() -> None:
    known = {getattr(errors, name).exit_code for name in errors.__all__}
    # That of several failures is the greatest of theirs.
    statuses = {status for status in known if isinstance(status, int)}
    statuses |= {0} | {128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    table = page("errors").partition("Exit statuses\n")[2].partition("Special cases")[0]
    assert {int(each) for each in re.findall(r"^(\d+)  ", table, re.MULTILINE)} == statuses
    manual = (DOCS / "redock.1").read_text(encoding="utf-8")
    section = manual.partition(".SH EXIT STATUS")[2].partition(".SH ")[0]
    entries = ", ".join(re.findall(r"^\.B (.*)$", section, re.MULTILINE))
    assert {int(each) for each in entries.split(", ")} == statuses
    epilog = cli.EPILOG.partition("Exit status:")[2]
    assert {int(each) for each in re.findall(r"\d+", epilog)} == statuses


def test_every_setting_is_explained() -> None:
    text = page("settings")
    for name, (variable, _) in SETTINGS.items():
        assert f"``{variable}``" in text
        assert re.search(rf"^   {name} = ", text, re.MULTILINE)


def test_every_environment_variable_is_explained() -> None:
    text = page("settings")
    read = re.compile(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"")
    for path in (ROOT / "redock").glob("*.py"):
        for variable in read.findall(path.read_text(encoding="utf-8")):
            assert f"``{variable}``" in text, f"{path.name}: {variable}"


def test_every_label_is_explained() -> None:
    text = page("files")
    used = re.compile(r"\blabel\(\"([a-z]+)\"\)")
    for path in (ROOT / "redock").rglob("*.py"):
        for name in used.findall(path.read_text(encoding="utf-8")):
            assert f"``io.redock.{name}``" in text, f"{path.name}: {name}"


def test_every_module_is_in_the_plan_of_the_house() -> None:
    rooms = re.findall(r"^   \* - ``(\w+)``$", page("design"), re.MULTILINE)
    modules = {path.stem for path in (ROOT / "redock").glob("*.py")}
    modules |= {path.parent.name for path in (ROOT / "redock").glob("*/__init__.py")}
    assert modules - {"__init__", "__main__"} == set(rooms)
    # Imports go down the table, never up.
    for number, room in enumerate(rooms):
        above = set(rooms[: number + 1])
        assert not imports_of(room) & above, f"{room} imports {imports_of(room) & above}"


def imports_of(module: str) -> set[str]:
    """Find the modules of redock that a module imports when it runs."""
    house = ROOT / "redock"
    files = sorted((house / module).glob("*.py")) or [house / f"{module}.py"]
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "redock":
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("redock."):
            found.add(str(node.module).split(".")[1])
        todo.extend(ast.iter_child_nodes(node))
    return found - {module}


def test_packages_of_the_base_image_are_told() -> None:
    readme_and_guide = (page("usage") + (DOCS.parent / "README.rst").read_text("utf-8")).lower()
    told = {"openssh-server": "ssh server", "python3": "python"}
    for package in ("openssh-server", "python3", "rsync", "supervisor"):
        assert package in _recipe.PACKAGES
        assert told.get(package, package) in readme_and_guide


@pytest.mark.parametrize("name", sorted(path.stem for path in DOCS.glob("*.rst")))
def test_examples_compile_and_those_without_an_engine_run(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDOCK_HOME", str(tmp_path))
    monkeypatch.setenv("USER", "sam")
    for example in examples(page(name)):
        code = compile(example, f"docs/{name}.rst", "exec")
        if not example.startswith(NOT_RUN):
            exec(code, {"__name__": "example"})


def test_examples_in_the_guide_are_found() -> None:
    found = examples(page("usage"))
    assert len(found) >= 3
    assert any(not example.startswith(NOT_RUN) for example in found)


def test_examples_in_the_readme_compile() -> None:
    found = examples((ROOT / "README.rst").read_text(encoding="utf-8"))
    assert found
    for example in found:
        compile(example, "README.rst", "exec")


@pytest.mark.parametrize("name", ["apt_get_install", "quote_command_line", "slug"])
def test_examples_in_docstrings_work(name: str) -> None:
    runner = doctest.DocTestRunner()
    (found,) = doctest.DocTestFinder().find(
        getattr(utils, name), name, globs={name: getattr(utils, name)}
    )
    assert found.examples
    assert runner.run(found).failed == 0


def test_readme_and_changelog_render_without_sphinx() -> None:
    docutils_core = pytest.importorskip("docutils.core")
    for name in ("README.rst", "CHANGELOG.rst"):
        docutils_core.publish_string(
            (ROOT / name).read_text(encoding="utf-8"),
            writer="html5",
            settings_overrides={"report_level": 1, "halt_level": 2, "output_encoding": "unicode"},
        )


def test_version_is_one_the_changelog_knows() -> None:
    text = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")
    released = redock.__version__.partition(".dev")[0]
    assert "Unreleased" in text if ".dev" in redock.__version__ else released in text
