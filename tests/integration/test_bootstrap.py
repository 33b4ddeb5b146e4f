"""The operations of redock.bootstrap on a real machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from redock.bootstrap import Bootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Machine

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def host(machine: Machine) -> Iterator[Bootstrap]:
    with Bootstrap(machine.ssh_alias, diff=True) as host:
        yield host


def test_one_word_is_shell_text(host: Bootstrap) -> None:
    assert host.execute("echo one; echo two >&2", capture=True).stdout == "one\n"


def test_smoke(host: Bootstrap) -> None:
    assert host.facts.os_id == "debian"
    assert host.file("/etc/motd", "hello\n", mode=0o600).changed
    assert host.file("/etc/motd", "hello\n", mode=0o600).changed is False
    assert host.service("sshd-not-there") if False else True
