"""The base image: made once, made anew when the recipe changes, never half."""

from __future__ import annotations

import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from redock import _recipe, base
from redock._engine import KIND, Engine, label
from redock.api import Container
from redock.cluster import Cluster, NodeSpec
from redock.errors import BaseImageFailed, ImageUnavailable

from .conftest import REDOCK, Home, command, new_name, redock, ssh
from .harness import ROUNDS, assert_nothing_left, kill_quietly, make_image

#: A recipe that takes no time.
SMALL = 'set -eu\nsay() { echo "redock: $*"; }\nsay installing packages\ntouch /made\n'
#: Another release than the host's, whose SSH server punishes addresses (OpenSSH 9.8 and newer).
OTHER_RELEASE = "debian:trixie"
WRONG_KEYS = 30 * ROUNDS
AT_ONCE = 4


def base_name(source: str) -> str:
    """Name the base image that is made from an image."""
    return f"redock:{base.base_tag(base.wanted_base(source))}"


@pytest.fixture
def source(home: Home, engine: Engine, base_image: str) -> Iterator[str]:
    """An image to make base images from."""
    name = new_name("source")
    make_image(engine, base_image, name, "rm -f /made; touch /of-the-source")
    yield name
    engine.remove_image(base_name(name), force=True)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the recipe one that takes no time."""
    monkeypatch.setattr(_recipe, "SETUP", SMALL)


def building(engine: Engine, source: str) -> list[str]:
    """List the containers in which a base image is made from an image."""
    described = engine.inspect_image(source)
    assert described is not None
    listed = engine.containers({"label": [f"{KIND}=build"]})
    return [each["Id"] for each in listed if each["ImageID"] == described["Id"]]


def test_the_base_image_says_which_recipe_made_it(engine: Engine, base_image: str) -> None:
    described = engine.inspect_image(base_image)
    assert described is not None
    assert described["Config"]["Labels"][label("recipe")] == _recipe.fingerprint()


def test_a_base_image_is_made_once(engine: Engine, source: str, small: None) -> None:
    first = base.find_base_image(engine, source)
    assert base.find_base_image(engine, source) == first
    described = engine.inspect_image(base_name(source))
    assert described is not None and described["Id"] == first


def test_a_changed_recipe_makes_it_anew_and_says_so(
    engine: Engine,
    source: str,
    small: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "redock")
    first = base.find_base_image(engine, source)
    assert "made anew" not in caplog.text
    monkeypatch.setattr(_recipe, "SETUP", SMALL + "touch /newer\n")
    second = base.find_base_image(engine, source)
    assert second != first
    assert "made anew" in caplog.text
    described = engine.inspect_image(base_name(source))
    assert described is not None and described["Id"] == second


@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
def test_a_step_that_fails_is_named_and_leaves_nothing(
    engine: Engine, source: str, small: None, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    kept = base.find_base_image(engine, source) if before else None
    monkeypatch.setattr(_recipe, "SETUP", SMALL + "say fetching the moon\nfalse\n")
    with pytest.raises(BaseImageFailed, match="fetching the moon") as caught:
        base.find_base_image(engine, source)
    assert "installing packages" in caught.value.log
    assert building(engine, source) == []
    described = engine.inspect_image(base_name(source))
    assert (described["Id"] if described else None) == kept


def test_several_processes_make_one_base_image(engine: Engine, source: str) -> None:
    script = (
        "import sys; from redock import _recipe, base; from redock._engine import Engine;"
        " _recipe.SETUP = sys.argv[1]; made = base.set_up;"
        " base.set_up = lambda *a: print('making', flush=True) or made(*a);"
        " print(base.find_base_image(Engine(), sys.argv[2]))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, SMALL + "sleep 1\n", source],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    printed = [process.communicate(timeout=120)[0].split() for process in processes]
    assert sum(words.count("making") for words in printed) == 1
    assert len({words[-1] for words in printed}) == 1
    assert [process.returncode for process in processes] == [0] * 3


def test_a_node_of_a_cluster_may_have_a_base_of_its_own(engine: Engine, source: str) -> None:
    with Cluster([NodeSpec("own", base=source), "usual"]) as cluster:
        own, usual = cluster
        own.succeed("test -e /of-the-source")
        usual.fail("test -e /of-the-source")
        own.succeed("getent hosts usual")
        usual.succeed("getent hosts own")
    assert engine.inspect_image(base_name(source)) is not None


def refused(name: str, source: str, *says: str) -> None:
    """Check that no machine can be started on an image, and that the last line says why."""
    done = redock("start", "--base", source, name)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("redock: ")
    for words in says:
        assert words in last


def test_an_image_without_apt_is_refused(
    home: Home, engine: Engine, base_image: str, name: str
) -> None:
    foreign = new_name("foreign")
    make_image(engine, base_image, foreign, "rm -f /usr/bin/apt-get")
    refused(name, foreign, "neither Debian nor Ubuntu")
    assert building(engine, foreign) == []
    assert engine.inspect_image(base_name(foreign)) is None
    assert_nothing_left(home, engine, name)


def test_an_image_without_a_shell_is_refused(home: Home, engine: Engine, name: str) -> None:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("etc/motd")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    empty = new_name("empty")
    subprocess.run(
        ["docker", "import", "-", empty], input=buffer.getvalue(), capture_output=True, check=True
    )
    refused(name, empty)
    assert building(engine, empty) == []
    assert engine.inspect_image(base_name(empty)) is None
    assert_nothing_left(home, engine, name)


def test_an_image_nobody_has_is_one_line_soon(home: Home, engine: Engine, name: str) -> None:
    began = time.monotonic()
    refused(name, "registry.invalid/nothing:1", "registry.invalid/nothing:1", "not to be had")
    assert time.monotonic() - began < 25
    assert_nothing_left(home, engine, name)


def test_a_registry_that_never_answers_is_given_up(
    home: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert base.REGISTRY_PATIENCE == 10
    monkeypatch.setattr(base, "REGISTRY_PATIENCE", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/x:y"
        began = time.monotonic()
        with pytest.raises(ImageUnavailable, match="no registry answered within 2 seconds"):
            Container(new_name(), base=image).start()
        assert 2 <= time.monotonic() - began < 15


class Empty(http.server.BaseHTTPRequestHandler):
    """A registry that has nothing."""

    def do_GET(self) -> None:
        body = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        self.send_response(200 if self.path == "/v2/" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_registry_without_the_image_is_believed(home: Home, engine: Engine, name: str) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        image = f"127.0.0.1:{server.server_port}/x:y"
        refused(name, image, image, "cannot be downloaded")
        server.shutdown()
    assert_nothing_left(home, engine, name)


def test_a_bad_name_of_a_base_is_refused_before_anything(home: Home, name: str) -> None:
    for bad in ("UPPER:1", "a b", "../x:1", "x:", "-x:1", "a:b:c d"):
        done = redock("start", f"--base={bad}", name)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_machines_of_another_release(home: Home, engine: Engine) -> None:
    """Made from packages where no registry answers: once, though two ask for it."""
    names = [new_name("other") for _ in range(2)]
    processes = [
        subprocess.Popen(
            [*REDOCK, "start", "--timeout", "30", "--base", OTHER_RELEASE, name],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for name in names
    ]
    try:
        errors = [process.communicate(timeout=500)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], errors
        assert sum(error.count("is ready") for error in errors) <= 1
        alias = Container(names[0]).ssh_alias
        assert "trixie" in ssh(alias, "cat /etc/os-release").stdout
        check_penalties(home, names[0])
    finally:
        for name in names:
            kill_quietly(name)


def check_penalties(home: Home, name: str) -> None:
    """Try wrong keys, more than a server of its own mind would bear, then the right one."""
    container = Container(name)
    alias = container.ssh_alias
    version = ssh(alias, "sshd -V 2>&1").stdout
    assert "OpenSSH_1" in version or "OpenSSH_9.8" in version or "OpenSSH_9.9" in version
    wrong = home.path / f"wrong{os.getpid()}"
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(wrong), check=True)
    assert container.find_container()
    address, port = container.ssh_endpoint
    script = (
        f"for i in $(seq {WRONG_KEYS // AT_ONCE}); do ssh -F /dev/null -o BatchMode=yes"
        f" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
        f" -i {wrong} -p {port} root@{address} true 2>&1 | grep -c 'Permission denied'; done"
    )
    tries = [
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(AT_ONCE)
    ]
    # Every one was listened to and refused, none was turned away at the door.
    for each in tries:
        assert set(each.communicate(timeout=180)[0].split()) == {"1"}
    assert command("ssh", "-S", "none", alias, "true").returncode == 0
