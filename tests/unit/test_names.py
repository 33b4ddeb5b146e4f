"""The grammar of names: what passes, what must not, and that nothing collides."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redock import _names
from redock._names import (
    REPOSITORY,
    TAG,
    check_hostname,
    check_ssh_alias,
    container_name,
    default_repository,
    hostname_for,
    image_slug,
    is_reserved,
    shown,
    slug,
    split_image_name,
)
from redock._ssh import fragment_file
from redock.errors import InvalidName
from tests.unit.conftest import run_many, run_redock

INVALID_NAMES = [
    "",
    ":",
    "a:",
    ":b",
    "a:b:c",
    "A:b",
    "a:b\n",
    "a:-x",
    "a:.x",
    "../x",
    "a/../b:c",
    "a:" + "b" * 129,
    "a" * 256 + ":b",
    "ü",
    "а",  # noqa: RUF001 - a Cyrillic letter that looks like a Latin one
    "a\tb",
    "a b",
    "a;id",
    "$(id)",
    "a:b@sha256:0123456789abcdef",
    "a/b",
    "a..b/c:d",
    "a.-b/c:d",
    "-oProxyCommand=id",
    "*",
    "%h",
    "a\x1b[31m",
    "\udcff",
]
INVALID_HOSTNAMES = [
    "a b",
    "a" * 65,
    "a" * 64,
    "_",
    "a_b",
    "a-",
    "-a",
    "1234",
    "12.34",
    "a..b",
    "a\n",
    "ü",
    "a;id",
    "a.",
]
INVALID_USERS = ["../../x", "root; id", "a/b", "..", "$(id)", "a\nb", "ü"]
VALID_NAMES = ["a:b", "a/b:c", "localhost:5000/a:b", "ghcr.io/a/b:c", "a__b:_", "a:" + "B" * 128]

#: Few letters: what could collide shall have the chance to.
words = st.text("ab1", min_size=1, max_size=3)
separators = st.sampled_from([".", "_", "__", "-", "--", "/"])
rest = st.lists(st.tuples(separators, words).map("".join), max_size=4).map("".join)
domains = st.sampled_from(["", "", "a.b/", "a-b/", "a:1/", "a.b:11/", "a--b.a/"])
repositories = st.tuples(domains, words, rest).map("".join)
tags = st.one_of(
    st.text("aB1._-", min_size=1, max_size=8),
    st.text("aB1._-", min_size=4, max_size=4).map(lambda text: text * 32),
).filter(TAG.fits)


@pytest.mark.parametrize("name", [*INVALID_NAMES, "a\0b", "a:b\0"])
def test_a_name_outside_the_grammar_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        split_image_name(name)
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", VALID_NAMES)
def test_a_name_of_dockers_grammar_is_taken(name: str) -> None:
    repository, tag = split_image_name(name)
    assert f"{repository}:{tag}" == name


def test_a_name_without_a_repository_is_one_of_the_users() -> None:
    assert split_image_name("web") == ("me", "web")


def assert_refused_before_anything_was_made(
    *commands: list[str], sandbox: Path, **more: str
) -> None:
    before = sorted(sandbox.rglob("*"))
    for command, done in run_many(list(commands), **more):
        assert done.returncode == 2, (command, done)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, (command, done.stderr)
        assert done.stderr.startswith("redock: ")
        assert "Traceback" not in done.stderr
    assert sorted(sandbox.rglob("*")) == before


def test_the_program_refuses_such_names(sandbox: Path) -> None:
    commands = [["start", "--", name] for name in INVALID_NAMES]
    assert_refused_before_anything_was_made(*commands, sandbox=sandbox)


def test_the_program_started_by_itself_refuses_a_name_too(sandbox: Path) -> None:
    done = run_redock("start", "a:b:c")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert os.listdir(sandbox) == ["home"]


def test_the_program_takes_no_name_for_an_option(sandbox: Path) -> None:
    assert_refused_before_anything_was_made(["start", "-oProxyCommand=id"], sandbox=sandbox)


def test_one_bad_name_of_several_stops_all(sandbox: Path) -> None:
    assert_refused_before_anything_was_made(["start", "good", "a:b:c"], sandbox=sandbox)


def test_every_verb_checks_names(sandbox: Path) -> None:
    commands = [[verb, "../x"] for verb in ("commit", "kill", "delete")]
    assert_refused_before_anything_was_made(*commands, sandbox=sandbox)


@pytest.mark.parametrize("hostname", INVALID_HOSTNAMES)
def test_a_host_name_outside_the_grammar_is_refused(hostname: str) -> None:
    with pytest.raises(InvalidName):
        check_hostname(hostname)


def test_the_program_refuses_such_host_names(sandbox: Path) -> None:
    commands = [["start", f"--hostname={hostname}", "a:b"] for hostname in INVALID_HOSTNAMES]
    assert_refused_before_anything_was_made(*commands, sandbox=sandbox)


def test_the_program_refuses_one_host_name_for_several(sandbox: Path) -> None:
    assert_refused_before_anything_was_made(["start", "-n", "x", "a:b", "a:c"], sandbox=sandbox)


@pytest.mark.parametrize("hostname", ["a", "web-1", "web.example.org", "A1", "1a", "a" * 63])
def test_a_host_name_of_rfc_1123_is_taken(hostname: str) -> None:
    assert check_hostname(hostname) == hostname


@pytest.mark.parametrize("user", INVALID_USERS)
def test_a_user_name_that_means_mischief_is_refused(
    user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", user)
    with pytest.raises(InvalidName):
        default_repository()


@pytest.mark.parametrize("user", ["../../x", "root; id"])
def test_the_program_refuses_such_a_user_name(user: str, sandbox: Path) -> None:
    assert_refused_before_anything_was_made(["start", "web"], sandbox=sandbox, USER=user)


@pytest.mark.parametrize(
    ("user", "repository"),
    [("Peter", "peter"), ("DOMAIN\\user", "user"), ("a.b@c", "a-b"), ("me", "me"), ("x_y", "x_y")],
)
def test_a_user_name_of_another_grammar_is_mapped(
    user: str, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", user)
    assert default_repository() == repository


def test_without_a_variable_the_password_database_names_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("USER")
    entry = pwd.struct_passwd(("peter", "x", 1000, 1000, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    assert default_repository() == "peter"


def test_a_user_without_an_entry_has_a_repository_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.delenv("USER")
    monkeypatch.setattr(pwd, "getpwuid", missing)
    assert default_repository().startswith("uid-")


@pytest.mark.parametrize(
    "alias",
    ["-oProxyCommand=id", "a b", "a//b", "a\n", "", "@a", "me@", "-l@a", "a" * 256, "a%h", "a\0"],
)
def test_an_alias_that_ssh_could_misread_is_refused(alias: str) -> None:
    with pytest.raises(InvalidName):
        check_ssh_alias(alias)


@pytest.mark.parametrize("alias", ["web-container", "me@10.0.0.1", "a_b.c"])
def test_an_ordinary_alias_is_taken(alias: str) -> None:
    assert check_ssh_alias(alias) == alias


@pytest.mark.parametrize(
    ("name", "reserved"),
    [
        (("redock", "base"), True),
        (("redock", "base-debian-12"), True),
        (("redock", "basement"), False),
        (("redock", "web"), False),
        (("me", "base"), False),
    ],
)
def test_the_names_of_base_images_are_reserved(name: tuple[str, str], reserved: bool) -> None:
    assert is_reserved(*name) is reserved


def test_the_base_image_is_not_deleted_by_mistake(sandbox: Path) -> None:
    assert_refused_before_anything_was_made(["delete", "redock:base"], sandbox=sandbox)


def test_no_machine_gets_the_name_of_the_base_image(sandbox: Path) -> None:
    assert_refused_before_anything_was_made(["start", "redock:base"], sandbox=sandbox)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.text("aA0:./_-@\n\0é", max_size=40)))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidName):
        repository, tag = split_image_name(text)
        assert REPOSITORY.fits(repository)
        assert TAG.fits(tag)
        assert split_image_name(f"{repository}:{tag}") == (repository, tag)
        assert not fragment_file(f"{repository}:{tag}").endswith("/")


@settings(max_examples=100, deadline=None)
@given(tags)
@example("1" * 100)
@example("_")
@example("1.2")
@example("1" * 63 + "a")
@example("a" * 63 + "-b")
def test_every_tag_has_a_host_name(tag: str) -> None:
    assert check_hostname(hostname_for(tag))


@pytest.mark.parametrize("tag", ["web", "web-1", "web.example"])
def test_a_tag_that_is_a_host_name_stays_one(tag: str) -> None:
    assert hostname_for(tag) == tag


names = st.tuples(repositories, tags)


@settings(max_examples=200, deadline=None)
@given(names, names)
@example(("a..b/c", "t"), ("a", "b._c..t"))
@example(("a", "b"), ("a", "B"))
@example(("a/b", "c"), ("a_b", "c"))
@example(("a:1/b", "c"), ("a-1/b", "c"))
def test_two_images_never_share_a_container_or_a_file(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    valid = []
    for repository, tag in (one, other):
        with contextlib.suppress(InvalidName):
            valid.append(split_image_name(f"{repository}:{tag}"))
    if len(set(valid)) == 2:
        assert container_name(*valid[0]) != container_name(*valid[1])
        first, second = (fragment_file(f"{repository}:{tag}") for repository, tag in valid)
        assert first != second


@settings(max_examples=100, deadline=None)
@given(names)
def test_a_container_name_tells_the_image(name: tuple[str, str]) -> None:
    encoded, _, tag = container_name(*name).removeprefix("redock-").partition("..")
    assert (encoded.replace("._", "/").replace(".-", ":"), tag) == name


@settings(max_examples=100, deadline=None)
@given(names)
def test_the_file_of_an_entry_fits_into_a_directory(name: tuple[str, str]) -> None:
    path = Path(fragment_file(":".join(name)))
    assert path.parent.name == "config.d"
    # The temporary file and the lock have longer names.
    assert len(path.name) <= 220
    assert not path.name.startswith(".")


@given(st.text())
def test_a_slug_is_lower_case_words(text: str) -> None:
    made = slug(text)
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not made.startswith("-")
    assert not made.endswith("-")
    assert slug(made) == made


def test_the_slug_of_the_manual() -> None:
    assert slug("Some Random Text!") == "some-random-text"


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
@example("a" * 63)
@example("0--9")
def test_what_needs_no_look_at_the_grammar_is_in_all_of_it(text: str) -> None:
    for pattern in (REPOSITORY, TAG, _names.USER, _names.LABEL, _names.SSH_ALIAS):
        assert re.fullmatch(pattern.expression, text, re.ASCII)
        assert pattern.fits(text)


@given(st.text("ab0-:/._A", max_size=70))
@example("-a")
@example("a-")
@example("a" * 64)
@example("")
def test_a_pattern_is_what_its_expression_says(text: str) -> None:
    for pattern in (REPOSITORY, TAG, _names.USER, _names.LABEL, _names.SSH_ALIAS):
        assert pattern.fits(text) is bool(re.fullmatch(pattern.expression, text, re.ASCII))


@given(st.text())
def test_what_is_shown_of_a_name_cannot_steer_a_terminal(text: str) -> None:
    assert shown(text).isascii()
    assert shown(text).isprintable()
    assert len(shown(text)) <= 60


@given(repositories, tags)
def test_the_slug_of_an_image_is_a_tag(repository: str, tag: str) -> None:
    assert TAG.fits(f"base-{image_slug(f'{repository}:{tag}')}")


def test_every_public_name_exists() -> None:
    assert all(hasattr(_names, name) for name in _names.__all__)
