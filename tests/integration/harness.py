"""
What the tests of faults and security share: looking for what is left, breaking images.

Rounds are few, so that the whole suite stays short; ``REDOCK_TEST_ROUNDS``
multiplies them for a longer hunt.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redock import _recipe
from redock._engine import KIND, Engine, label
from redock._machines import find_machines, volume_name
from redock.api import Container
from redock.errors import RedockError

from .conftest import Home, command, ssh

#: How many times the usual number of rounds to run.
ROUNDS = int(os.environ.get("REDOCK_TEST_ROUNDS", "1"))
#: Seconds that nothing here may take; reaching them is a failure, not a measurement.
PATIENCE = 60.0


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something is so, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} seconds"
        time.sleep(0.02)


def containers_of(engine: Engine, name: str) -> list[dict[str, Any]]:
    """List every container that says it is the machine, running or not."""
    return engine.containers({"label": [f"{label('name')}={name}", f"{KIND}=container"]})


def volumes_of(engine: Engine, name: str) -> list[str]:
    """List the volumes that were made for a machine."""
    return [volume["Name"] for volume in engine.volumes({"label": [f"{label('name')}={name}"]})]


def stale_files(home: Home, engine: Engine) -> list[Path]:
    """List what is in redock's directory and belongs to no machine."""
    instances = {machine.instance for machine in find_machines(engine)}
    ssh_directory = home.redock / "ssh"
    found = [
        path
        for directory in ("known_hosts.d", "s")
        for path in sorted((ssh_directory / directory).glob("*"))
        # The way to an engine elsewhere stays open for a while.
        if path.name not in instances and not path.name.startswith("engine-")
    ]
    hidden = [path for path in home.redock.rglob(".*") if path.suffix != ".lock"]
    found += [path for path in hidden if path.name != ".checksum"]
    for path in found:
        # Once is enough to hear of it.
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return found


def assert_nothing_left(home: Home, engine: Engine, name: str) -> None:
    """Check that no trace of a machine is left, on the engine or in the home directory."""
    container = Container(name)
    assert containers_of(engine, name) == []
    assert volumes_of(engine, name) == []
    assert not Path(container.ssh_config_file).exists()
    state = home.redock / "state.json"
    assert not state.exists() or name not in state.read_text()
    config = home.redock / "ssh" / "config"
    assert not config.exists() or f"Host {container.ssh_alias}\n" not in config.read_text()
    assert stale_files(home, engine) == []


def assert_exactly_one(home: Home, engine: Engine, name: str) -> str:
    """Check that one machine runs under a name and its alias leads into it; return its id."""
    (found,) = containers_of(engine, name)
    assert found["State"] == "running"
    instance = found["Labels"][label("instance")]
    assert volumes_of(engine, name) == [volume_name(instance)]
    done = ssh(found["Labels"][label("alias")], "cat /etc/redock/ssh/instance")
    assert (done.stdout, done.stderr) == (f"{instance}\n", "")
    assert stale_files(home, engine) == []
    return str(instance)


def assert_one_line(stderr: str) -> None:
    """Check that a failure was explained in one line."""
    assert "Traceback" not in stderr, stderr
    lines = stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("redock: "), stderr


def make_image(engine: Engine, start_from: str, name: str, script: str) -> None:
    """Change the base image with a shell script and save the result under a machine's name."""
    builder = f"redock-test-{os.urandom(4).hex()}"
    repository, _, tag = name.rpartition(":")
    engine.create_container(builder, {"Image": start_from, "Cmd": ["sh", "-ec", script]})
    try:
        engine.begin_start(builder).result()
        wait_for(lambda: not engine.inspect_container(builder)["State"]["Running"])
        assert engine.inspect_container(builder)["State"]["ExitCode"] == 0, engine.logs(builder)
        changes = [f'CMD ["{_recipe.BOOT}"]', f"LABEL {KIND}=image"]
        engine.commit(builder, repository, tag, changes=changes)
    finally:
        engine.remove_container(builder)


def replace_program(path: str, script: str) -> str:
    """Write a shell script that puts another one in the place of a program, kept as .real."""
    return f"mv {path} {path}.real; cat >{path} <<'END'\n#!/bin/sh\n{script}\nEND\nchmod 755 {path}"


def run_inside(engine: Engine, container: str, *arguments: str) -> None:
    """Run a command in a container without ssh and wait for its end."""
    made = engine.request(
        "POST", f"/containers/{container}/exec", "prepare", body={"Cmd": list(arguments)}
    )
    engine.request("POST", f"/exec/{made['Id']}/start", "run", body={"Detach": True})
    wait_for(lambda: not engine.request("GET", f"/exec/{made['Id']}/json", "look")["Running"], 30)


def act(engine: Engine, container: str, verb: str) -> None:
    """Do something to a container behind redock's back: stop, restart, pause, ..."""
    engine.request("POST", f"/containers/{container}/{verb}", verb)


class MountedHome:
    """
    A home directory that a private mount namespace shows differently.

    :param mount: A shell command that mounts something, with the directory as ``$1``.
    :param path: The directory.
    """

    def __init__(self, mount: str, path: Path) -> None:
        # Whoever is not root is, for these mounts, in a namespace of his own.
        user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        self.path = path
        self.holder = subprocess.Popen(
            [
                *("unshare", *user, "--mount", "--propagation", "private", "sh", "-ec"),
                *(f"{mount}\necho ready\nexec sleep 3600", "sh", str(path)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"
        self.enter = ["nsenter", "--target", str(self.holder.pid), "--mount"]
        if user:
            self.enter += ["--user", "--preserve-credentials"]

    def run(
        self, *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that sees the home directory so."""
        return command(*self.enter, "--", *arguments, env=env)

    def close(self) -> None:
        """Give the namespace up, and with it what is mounted."""
        self.holder.kill()
        self.holder.communicate()


@contextlib.contextmanager
def mounted(mount: str, path: Path) -> Iterator[MountedHome]:
    """Show a directory differently to the commands that are run through this."""
    home = MountedHome(mount, path)
    try:
        yield home
    finally:
        home.close()


def kill_quietly(name: str) -> None:
    """Remove a machine if there is one."""
    with contextlib.suppress(RedockError):
        Container(name).kill()
