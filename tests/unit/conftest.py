"""Unit tests need no engine and no network, and never see the user's home directory."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock._files import Home


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, in the password database as well."""
    directory = tmp_path_factory.mktemp("h")
    use_home(directory, monkeypatch)
    return directory


def use_home(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a directory the home directory of the process."""
    real = pwd.getpwuid(os.getuid())
    fields = list(real)
    fields[5] = str(directory)
    entry = pwd.struct_passwd(fields)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    for name in ("REDOCK_HOME", "REDOCK_BASE", "REDOCK_MIRROR", "REDOCK_SSH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(Home, "found", None)


@pytest.fixture(autouse=True, scope="session")
def real_home_untouched() -> Iterator[None]:
    """Fail when a test changes the real home directory."""
    real = Path(pwd.getpwuid(os.getuid()).pw_dir)
    watched = [real / ".ssh" / "config", real / ".redock", real / ".ssh" / "known_hosts"]

    def stamps() -> list[float | None]:
        return [path.stat().st_mtime if path.exists() else None for path in watched]

    before = stamps()
    yield
    assert stamps() == before
