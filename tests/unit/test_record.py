"""What the documentation types exists: recorded sessions, and commands in examples."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from redock.cli import make_parser
from tests.unit.conftest import ROOT

DOCS = ROOT / "docs"
SESSIONS = sorted((DOCS / "sessions").glob("*.txt"))
#: The reference is generated, and its usage lines are none that one could type.
PAGES = [*sorted(set(DOCS.glob("*.rst")) - {DOCS / "cli.rst"}), ROOT / "README.rst"]
#: What ends a command of a shell.
ENDS = re.compile(r"[|&;<>()]+")


def load_recorder() -> ModuleType:
    """Load what records sessions."""
    spec = importlib.util.spec_from_file_location("record", DOCS / "record.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


record = load_recorder()


def redock_commands(line: str) -> Iterator[list[str]]:
    """Find the commands of redock in a line of a shell, without the program's name."""
    lexer = shlex.shlex(re.sub(r"\s#.*", "", line), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for token in [*lexer, ";"]:
        if ENDS.fullmatch(token):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                del words[0]
            if words[:1] and words[0].rpartition("/")[2] == "redock":
                yield words[1:]
            words = []
        else:
            words.append(token)


def check(line: str) -> int:
    """Let the parser read the commands of a line, and count them."""
    found = list(redock_commands(line))
    for words in found:
        try:
            make_parser().parse_args(words)
        except SystemExit as error:
            # --help and --version end the program as well.
            assert error.code == 0, line
    return len(found)


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_sessions_use_commands_that_exist(path: Path) -> None:
    lines = record.typed(path.read_text(encoding="utf-8"))
    assert lines
    assert sum(map(check, lines)) or path.stem == "pytest"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_examples_use_commands_that_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", "")
    for line in re.findall(r"^ +\$ (.*\bredock .*)$", text, re.MULTILINE):
        check(line)


@pytest.mark.parametrize(
    "line", ["redock stat web", "redock log --jsn web", "A=1 redock", "x | redock y"]
)
def test_commands_that_do_not_exist_are_found(line: str) -> None:
    with pytest.raises(AssertionError):
        check(line)


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_sessions_are_shown_and_tell_nothing_of_where_they_were_recorded(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = f".. literalinclude:: sessions/{path.name}\n" in pages
    assert shown or path.stem == "first"
    assert text.startswith("$ ") and text.endswith("\n")
    assert "\x1b" not in text and "\r" not in text
    for word in ("redock-home", "/work", "/root/.", "Traceback", "command not found", "://mirror"):
        assert word not in text, word
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)


def test_the_readme_shows_the_first_session() -> None:
    session = (DOCS / "sessions" / "first.txt").read_text(encoding="utf-8")
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    assert record.PLACE in readme
    shown = readme.partition(record.PLACE)[2].partition("\n\n\n")[0]
    assert re.sub(r"^   ", "", shown, flags=re.MULTILINE) == session.rstrip("\n")


@pytest.mark.parametrize(
    ("output", "screen"),
    [
        ("$ ls\r\nfile\r\n$ ", "$ ls\nfile\n$ "),
        ("\x1b[?2004h$ ls\x1b[?2004l\r\r\n\x1b[31mred\x1b[0m\r\n$ ", "$ ls\nred\n$ "),
        ("Building 1\r\x1b[KBuilding 2\r\x1b[Kdone\r\n$ ", "done\n$ "),
        ("abc\b\bX\r\nroot@web:~# ", "aXc\nroot@web:~# "),
        ("\x1b]0;root@web: ~\x07root@web:~# ", "root@web:~# "),
    ],
)
def test_the_recorder_knows_what_is_on_the_screen(output: str, screen: str) -> None:
    assert record.render(output) == screen


def test_the_recorder_finds_what_is_typed() -> None:
    text = (
        "$ redock start web\nConnecting\nroot@web:~# echo 5\n5\nroot@web:~# exit\n"
        "Lost. Go back? [y/N] y\nback\n"
    )
    assert record.typed(text) == ["redock start web", "echo 5", "exit", "y"]


def test_the_recorder_leaves_out_what_is_of_others() -> None:
    text = "$ redock list\nNAME\nother:db  running  2 days\nsam:web  running  1 day\n$ "
    assert record.tidy(text, "/nowhere") == "$ redock list\nNAME\nsam:web  running  1 day\n"
