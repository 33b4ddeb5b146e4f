"""
What the integration tests share: a home directory of their own, machines, tidying up.

The tests run under ``tests/with-home``: ssh takes the home directory from the
password database, and nss_wrapper puts another one in front. A test module has
one home directory; a test that wants another asks for ``fresh_home``.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock._engine import KIND, Engine, label
from redock.api import Container
from redock.base import find_base_image

#: The repository of everything the tests make; what is removed is found by it.
REPOSITORY = f"redocktest{os.getpid()}"
REDOCK = [sys.executable, "-m", "redock"]

clock = itertools.count(1_000_000_000)
numbers = itertools.count(1)


class Home:
    """
    A home directory that ssh, redock and the tests agree on.

    :param path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def ssh_config(self) -> Path:
        """The user's ssh configuration."""
        return self.path / ".ssh" / "config"

    @property
    def redock(self) -> Path:
        """redock's directory."""
        return self.path / ".redock"

    def use(self) -> None:
        """Make it the home directory in the password database."""
        passwd = Path(os.environ["NSS_WRAPPER_PASSWD"])
        lines = passwd.read_text().splitlines()
        uid = str(os.getuid())
        fields = [line.split(":") for line in lines]
        for entry in fields:
            if entry[2] == uid:
                entry[5] = str(self.path)
        passwd.write_text("".join(":".join(entry) + "\n" for entry in fields))
        # nss_wrapper looks at the seconds of the time stamp, and two tests may share one.
        moment = next(clock)
        os.utime(passwd, (moment, moment))
        os.environ["HOME"] = str(self.path)


def command(
    *arguments: str,
    timeout: float = 120,
    check: bool = False,
    env: dict[str, str] | None = None,
    input: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program without a terminal and capture what it prints."""
    return subprocess.run(
        arguments,
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=check,
        env={**os.environ, **env} if env else None,
    )


def redock(
    *arguments: str, timeout: float = 300, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does, without a terminal."""
    return command(*REDOCK, *arguments, timeout=timeout, env=env)


def ssh(alias: str, *remote: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command over plain ssh: no option that a user would not give."""
    return command("ssh", alias, *remote, timeout=timeout)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs an engine."""
    for item in items:
        item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session", autouse=True)
def isolated() -> Iterator[None]:
    """Make sure the user's own home directory is out of reach, and tidy up afterwards."""
    if "NSS_WRAPPER_PASSWD" not in os.environ:
        pytest.exit("run these tests as: tests/with-home pytest tests/integration", returncode=2)
    # A run that was killed could not tidy up, and its aliases would be in our way.
    tidy_up(Engine())
    yield
    tidy_up(Engine())


def is_ours(name: str) -> bool:
    """Check whether a machine was made by this run of the tests, or by one that is dead."""
    found = re.match(r"redocktest(\d+)", name)
    return bool(found) and (
        name.startswith(REPOSITORY) or not os.path.exists(f"/proc/{found[1]}")  # type: ignore[index]
    )


def tidy_up(engine: Engine) -> None:
    """Remove, by label, what the tests made."""
    for listed in engine.containers({"label": [label("name")]}):
        if is_ours(listed["Labels"][label("name")]):
            engine.remove_container(listed["Id"])
    for volume in engine.volumes({"label": [f"{KIND}=volume"]}):
        if is_ours(volume["Labels"][label("name")]):
            engine.remove_volume(volume["Name"])
    for image in engine.images({"reference": [f"{REPOSITORY}*"]}):
        for name in image["RepoTags"] or ():
            engine.remove_image(name, force=True)
    # What was committed again has no name any more.
    for image in engine.images({"dangling": ["true"], "label": [label("name")]}):
        if image["Labels"][label("name")].startswith(REPOSITORY):
            engine.remove_image(image["Id"], force=True)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The container engine."""
    return Engine()


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """The base image, made if it is missing."""
    return find_base_image(engine)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Home]:
    """An empty home directory for the tests of a module."""
    yield from provide_home(tmp_path_factory)


def provide_home(factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Make a home directory, use it, and go back to the one before."""
    before = Home(Path(os.environ["HOME"]))
    # The names of pytest's directories would make the sockets of shared connections too long.
    path = Path(os.environ["NSS_WRAPPER_PASSWD"]).parent / f"h{next(numbers)}"
    path.mkdir(mode=0o700)
    home = Home(path)
    home.use()
    try:
        yield home
    finally:
        for socket in (home.redock / "ssh" / "s").glob("*"):
            command("ssh", "-S", str(socket), "-O", "exit", "redock")
        before.use()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def fresh_home(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Home]:
    """An empty home directory for one test."""
    yield from provide_home(tmp_path_factory)


@pytest.fixture
def name() -> str:
    """A name for a machine that no other test uses."""
    return new_name()


def new_name(stem: str = "m") -> str:
    """Make a name for a machine that no other test uses."""
    return f"{REPOSITORY}:{stem}{next(numbers)}"


@pytest.fixture
def remove_machine(engine: Engine) -> Iterator[Callable[[str], None]]:
    """Remove a machine after the test, whatever became of it."""
    names: list[str] = []
    yield names.append
    for each in names:
        container = Container(each)
        machine = container._find_machine()
        if machine is not None:
            container.kill()


@pytest.fixture
def container(home: Home, name: str) -> Iterator[Container]:
    """A started machine for one test."""
    made = Container(name, timeout=30)
    made.start()
    yield made
    if made._find_machine() is not None:
        made.kill()


@pytest.fixture(scope="module")
def make_machine(home: Home) -> Iterator[Callable[[str], Container]]:
    """Start machines for the tests of a module."""
    made: list[Container] = []

    def make(stem: str) -> Container:
        container = Container(new_name(stem), timeout=30)
        container.start()
        made.append(container)
        return container

    yield make
    for container in made:
        if container._find_machine() is not None:
            container.kill()


@pytest.fixture(scope="module")
def machine(make_machine: Callable[[str], Container]) -> Container:
    """One machine for all tests of a module."""
    return make_machine("machine")
