"""The grammar of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock._names import (
    check_hostname,
    check_ssh_alias,
    container_name,
    default_repository,
    hostname_for,
    is_reserved,
    slug,
    split_image_name,
)
from redock._ssh import fragment_file
from redock.api import Image
from redock.errors import InvalidName

BAD_NAMES = [
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
    "a:" + "x" * 129,
    "a" * 256 + ":b",
    "ü",
    "\u0430",
    "a\0b",
    "a\tb",
    "a b",
    "a;id",
    "$(id)",
    "a:b@sha256:" + "0" * 64,
    "-x",
    "--force",
    "a/b",
    "a//b:c",
    "a__b___c:d",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        Image.coerce(name)
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a:b", ("a", "b")),
        ("b", ("peter", "b")),
        ("localhost:5000/a/b:c", ("localhost:5000/a/b", "c")),
        ("reg.example.com/x:1.0", ("reg.example.com/x", "1.0")),
        ("a-b__c.d:_T-1", ("a-b__c.d", "_T-1")),
    ],
)
def test_good_names(name: str, key: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "peter")
    assert split_image_name(name) == key


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        repository, tag = split_image_name(text)
    except InvalidName:
        return
    assert split_image_name(f"{repository}:{tag}") == (repository, tag)
    assert f"{repository}:{tag}".isascii()


NAMES = st.from_regex(
    r"\A[a-z0-9]+([._-]|__)?[a-z0-9]+(/[a-z0-9]+)?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}\Z"
)


@given(NAMES, NAMES)
def test_different_names_never_share_a_container_or_a_file(one: str, other: str) -> None:
    same = one == other
    keys = [split_image_name(name) for name in (one, other)]
    assert (container_name(*keys[0]) == container_name(*keys[1])) is same
    assert (fragment_file(one) == fragment_file(other)) is same


def test_names_that_look_alike_stay_apart() -> None:
    assert container_name("a.b", "c") != container_name("a", "b.c")
    assert container_name("a", "b..c") != container_name("a/b", "c")
    assert container_name("x:5/a", "b") != container_name("x/5/a", "b")


@pytest.mark.parametrize(
    ("user", "repository"),
    [("peter", "peter"), ("Peter", "peter"), ("CORP\\Jane.Doe", "jane-doe"), ("a.b@c", "a-b")],
)
def test_users_become_repositories(
    user: str, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", user)
    assert default_repository() == repository


@pytest.mark.parametrize("user", ["../../x", "root; id", "ü", "---", "a/b"])
def test_users_that_are_no_names_are_refused(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", user)
    with pytest.raises(InvalidName):
        default_repository()


@pytest.mark.parametrize(
    "name", ["a b", "x" * 64 + "y", "a_b", "-a", "a-", "123", "1.2", "", "a..b", "ü"]
)
def test_bad_host_names(name: str) -> None:
    with pytest.raises(InvalidName):
        check_hostname(name)


@pytest.mark.parametrize("tag", ["web", "Web_1", "24.04", "1", "_", "x" * 128, "a.b"])
def test_every_tag_has_a_host_name(tag: str) -> None:
    assert check_hostname(hostname_for(tag))


def test_slugs() -> None:
    assert slug("Some Random Text!") == "some-random-text"
    assert slug("web.1") == slug("WEB_1") == "web-1"
    assert slug("!?") == ""


@pytest.mark.parametrize(
    "alias", ["-oProxyCommand=id", "a b", "a//b", "a\nb", "", "user@", "@host", "a;b", "-"]
)
def test_aliases_that_could_be_something_else(alias: str) -> None:
    with pytest.raises(InvalidName):
        check_ssh_alias(alias)


def test_good_aliases() -> None:
    for alias in ("web-container", "user@host", "10.0.0.1", "a_b.c"):
        assert check_ssh_alias(alias) == alias


def test_the_base_images_names_are_reserved() -> None:
    assert is_reserved("redock", "base")
    assert is_reserved("redock", "base-debian-12")
    assert not is_reserved("redock", "baseball")
    assert not is_reserved("me", "base")
