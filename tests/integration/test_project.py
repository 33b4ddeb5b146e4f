"""A project's folder: one command makes its machine, on the real engine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from redock._engine import Engine
from redock.api import Container
from redock.errors import RedockError

from .conftest import REDOCK, Home, command, new_name, ssh
from .harness import assert_nothing_left, assert_one_line, containers_of

SCRIPT = """\
#!/bin/bash
echo "provisioning as $(id -un) with $APP_ENV"
echo once >>/srv/log
"""


class Folder:
    """A project's folder, and redock run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = new_name("project")
        self.alias = Container(self.name).ssh_alias

    def write(self, more: str = "", script: str = SCRIPT) -> None:
        """Write the project's file and its script."""
        (self.path / "redock.toml").write_text(
            f'name = "{self.name}"\nprovision = "setup/machine"\nuser = "sam:1500"\n'
            'volumes = [".:/srv/project"]\nenv = { APP_ENV = "test" }\n' + more
        )
        (self.path / "setup").mkdir(exist_ok=True)
        (self.path / "setup" / "machine").write_text(script)

    def redock(self, *arguments: str, under: str = "") -> subprocess.CompletedProcess[str]:
        """Run the program in the folder, or below it."""
        return subprocess.run(
            [*REDOCK, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=self.path / under,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )


@pytest.fixture
def folder(home: Home, tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    container = Container(made.name)
    with contextlib.suppress(RedockError):
        container.kill()
    container.delete()


def test_a_folder_has_a_machine(folder: Folder, engine: Engine, home: Home) -> None:
    folder.write()
    os.chmod(folder.path, 0o755)
    os.chown(folder.path / "setup", 1500, 1500)
    done = folder.redock("start")
    assert (done.returncode, done.stdout) == (0, f"ssh {folder.alias}\n"), done
    assert f"Provisioning {folder.name}, for the first time" in done.stderr
    assert "provisioning as root with test" in done.stderr
    # Again, and from below: nothing is done twice.
    done = folder.redock("start", under="setup")
    assert (done.returncode, done.stderr) == (0, ""), done
    done = ssh(folder.alias, "id -un; cat /srv/log; touch /srv/project/setup/mine; env")
    assert done.stdout.startswith("sam\nonce\n") and "APP_ENV=test\n" in done.stdout
    assert (folder.path / "setup" / "mine").stat().st_uid == 1500
    # What was provisioned is a part of the disk.
    assert folder.redock("commit", "-m", "provisioned").returncode == 0
    assert folder.redock("kill").returncode == 0
    assert containers_of(engine, folder.name) == []
    done = folder.redock("start")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert ssh(folder.alias, "cat /srv/log").stdout == "once\n"
    # Another script is run, and said to be.
    folder.write(script=SCRIPT.replace("once", "twice"))
    done = folder.redock("start")
    assert "its packages or its script have changed" in done.stderr
    assert ssh(folder.alias, "cat /srv/log").stdout == "once\ntwice\n"
    # Names still work, from anywhere.
    done = command(sys.executable, "-m", "redock", "kill", folder.name)
    assert done.returncode == 0, done
    assert folder.redock("delete").returncode == 0
    assert_nothing_left(home, engine, folder.name)


def test_packages_are_installed(folder: Folder) -> None:
    folder.write('packages = ["hello", "tree"]\n', script="hello >/srv/log")
    done = folder.redock("start")
    assert done.returncode == 0, done
    assert ssh(folder.alias, "cat /srv/log").stdout == "Hello, world!\n"
    assert ssh(folder.alias, "dpkg -s tree").returncode == 0


def test_a_script_that_fails_is_run_again(folder: Folder) -> None:
    folder.write(script="#!/bin/sh\necho about to fail; exit 7\n")
    done = folder.redock("start")
    assert (done.returncode, done.stdout) == (1, "")
    assert "about to fail" in done.stderr and "Traceback" not in done.stderr
    assert "status 7" in done.stderr.splitlines()[-2] + done.stderr.splitlines()[-1]
    # The machine is there to look at.
    assert ssh(folder.alias, "id -un").stdout == "sam\n"
    folder.write(script="exit 0\n")
    done = folder.redock("start")
    assert done.returncode == 0 and "for the first time" in done.stderr, done


def test_what_the_file_says_now_holds(folder: Folder, engine: Engine) -> None:
    folder.write('memory = "256m"\n')
    assert folder.redock("start").returncode == 0
    folder.write('memory = "300m"\n')
    done = folder.redock("start")
    assert done.returncode == 0 and "Changed the memory" in done.stderr
    folder.write('memory = "300m"\nports = ["[::1]:0"]\n')
    done = folder.redock("start")
    assert done.returncode == 2
    assert_one_line(done.stderr)
    folder.write('memory = "300m"\nhostname = "other"\n')
    done = folder.redock("start")
    assert done.returncode == 0 and "exists already, under the host name" in done.stderr
    folder.write()
    text = (folder.path / "redock.toml").read_text().replace('"test"', '"production"')
    (folder.path / "redock.toml").write_text(text)
    done = folder.redock("start")
    assert done.returncode == 1 and "--recreate" in done.stderr
    assert_one_line(done.stderr)
    assert folder.redock("start", "--recreate").returncode == 0
    assert "APP_ENV=production" in ssh(folder.alias, "env").stdout
    # Flags come first.
    assert folder.redock("start", "--memory", "280m").returncode == 0
    (listed,) = containers_of(engine, folder.name)
    assert engine.inspect_container(listed["Id"])["HostConfig"]["Memory"] == 280 << 20


def test_what_reaches_out_of_the_folder_starts_nothing(folder: Folder, engine: Engine) -> None:
    for more in ("agent = true\n", 'ports = ["192.0.2.1:80"]\n'):
        folder.write(more)
        done = folder.redock("start")
        assert (done.returncode, done.stdout) == (2, "")
        assert_one_line(done.stderr)
        assert "redock config add trust" in done.stderr
    assert containers_of(engine, folder.name) == []
    # The command it names is the one that helps.
    suggested = done.stderr[done.stderr.index("redock config") :].split()[1:]
    assert folder.redock(*suggested).returncode == 0
    folder.write("agent = true\n")
    assert folder.redock("start").returncode == 0
    assert folder.redock("config", "unset", "trust").returncode == 0


def test_config_tells_all_origins(folder: Folder) -> None:
    folder.write('memory = "256m"\n')
    assert folder.redock("config", "set", "cpus", "1").returncode == 0
    found = json.loads(folder.redock("--base", "debian:12", "config", "--json").stdout)
    origins = {key: each["origin"] for key, each in found.items()}
    assert origins["base"] == "--base"
    assert origins["memory"] == str(folder.path / "redock.toml")
    assert origins["cpus"].endswith("/.redock/config.toml")
    assert origins["restart"] == "built in"
    assert folder.redock("config", "unset", "cpus").returncode == 0
