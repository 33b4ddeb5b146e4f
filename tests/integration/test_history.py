"""Keeping states of a machine and going back to them; copies, other names, files to hand on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import random
import select
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redock._engine import KIND, Engine, label
from redock._machines import find_machines, volume_name
from redock._names import history_repository
from redock._tidy import find_leftovers, real_names
from redock.api import Commit, Container
from redock.errors import EngineError, InvalidArgument, NoContainerRunning, NotFound, RedockError
from redock.utils import get_ssh_public_key

from .conftest import REDOCK, REPOSITORY, Home, command, new_name, redock, ssh
from .harness import (
    PATIENCE,
    ROUNDS,
    act,
    assert_exactly_one,
    assert_nothing_left,
    assert_one_line,
    containers_of,
    stale_files,
)
from .test_security import search_archive

#: How often each verb is killed at a moment of its own.
KILLS = 3 * ROUNDS


@pytest.fixture
def keep(home: Home, engine: Engine) -> Iterator[Callable[..., Container]]:
    """Make machines for a test; they and all that was saved of them go with it."""
    made: list[Container] = []

    def make(stem: str = "k", start: bool = True) -> Container:
        container = Container(new_name(stem), timeout=PATIENCE)
        made.append(container)
        if start:
            container.start()
        return container

    yield make
    for container in made:
        with contextlib.suppress(NoContainerRunning):
            container.kill()
        container.delete()


def run(container: Container, script: str) -> str:
    """Run a script on a machine."""
    done = ssh(container.ssh_alias, script)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def host_key(container: Container) -> str:
    """Get the host key a machine has."""
    return run(container, "cat /etc/redock/ssh/ssh_host_ed25519_key.pub")


def letters(container: Container, *commits: int) -> dict[str, str]:
    """Get what changed, the letters by pathname."""
    return {change.path: change.change for change in container.diff(*commits)}


# Listing.


def test_every_commit_is_kept_and_has_a_name(
    keep: Callable[..., Container], engine: Engine
) -> None:
    machine = keep()
    assert machine.history() == []
    base = machine._find_machine().image  # type: ignore[union-attr]
    for number in (1, 2):
        run(machine, f"echo {number} >/root/file")
        machine.commit(f"number {number}", "sam")
    first = machine.history()
    assert [(each.number, each.message, each.author) for each in first] == [
        (2, "number 2", "sam"),
        (1, "number 1", "sam"),
    ]
    assert [each.latest for each in first] == [True, False]
    # Both were made of a machine that started from the base image.
    assert not any(each.running for each in first) and first[0].layers == first[1].layers
    machine.kill()
    machine.start()
    machine.commit("on top")
    third, second, _ = machine.history()
    assert (third.latest, second.running) == (True, True)
    assert third.layers == second.layers + 1
    assert third.created > second.created > first[1].created
    for commit in (third, second, first[1]):
        described = engine.inspect_image(commit.id)
        # What has a name is not dangling: "docker image prune" leaves it alone.
        assert (
            described
            and f"{history_repository(machine.image.name)}:{commit.number}"
            in (described["RepoTags"])
        )
        assert described["Config"]["Labels"][label("squashed")] == ""
    assert base not in {each.id for each in machine.history()}


def test_a_disk_that_an_older_redock_saved_is_the_first_commit(
    keep: Callable[..., Container], engine: Engine
) -> None:
    machine = keep()
    assert machine.session.container_id
    changes = [f"LABEL {KIND}=image"]
    old = engine.commit(
        machine.session.container_id, *machine.image.key, message="before", changes=changes
    )
    (only,) = machine.history()
    assert (only.number, only.id, only.message, only.latest) == (1, old, "before", True)
    machine.commit("after")
    assert [each.message for each in machine.history()] == ["after", "before"]
    assert machine.find_commit(1).id == old


def test_the_log_for_people_and_for_programs(keep: Callable[..., Container]) -> None:
    machine = keep()
    name = machine.image.name
    nothing = redock("log", name)
    assert nothing.returncode == 4
    assert_one_line(nothing.stderr)
    machine.commit("before")
    assert "AUTHOR" not in redock("log", name).stdout
    done = redock("commit", "-m", "a \x1b[31mred\x1b[0m word", "--author", "Sam", name)
    assert done.returncode == 0 and "commit 2, " in done.stderr, done.stderr
    shown = redock("log", name).stdout
    assert "AUTHOR" in shown
    assert "\x1b" not in shown and "Sam" in shown and "next start" in shown
    fields, _ = json.loads(redock("log", "--json", name).stdout)
    assert fields["number"] == 2 and fields["message"].startswith("a ") and fields["latest"]
    newest, _ = redock("history", "-q", name).stdout.splitlines()
    assert newest == machine.find_commit().short_id


# Comparing.


def test_a_new_machine_has_not_changed(keep: Callable[..., Container]) -> None:
    machine = keep()
    assert machine.diff() == []
    noise = machine.diff(everything=True)
    assert noise and all(change.noise for change in noise)
    assert not [change for change in noise if "/etc/redock/ssh/" in change.path]


def test_what_changed_since_a_commit_and_not_since_the_start(
    keep: Callable[..., Container],
) -> None:
    machine = keep()
    run(
        machine,
        "echo 1234 >/root/same-size; echo x >/root/gone; mkdir -p /opt/app/lib; touch /opt/app/a;"
        " echo 123 >/opt/app/lib/b; chmod 600 /etc/motd; rm /etc/issue.net; ln -s /etc /root/link",
    )
    assert letters(machine) == {
        "/etc/issue.net": "D",
        "/etc/motd": "C",
        "/opt/app": "A",
        "/opt/app/a": "A",
        "/opt/app/lib": "A",
        "/opt/app/lib/b": "A",
        "/root/gone": "A",
        "/root/link": "A",
        "/root/same-size": "A",
    }
    machine.commit()
    assert letters(machine) == {}
    # Perhaps in the same second, with the same size.
    run(machine, "echo 4321 >/root/same-size; rm /root/gone; chown 1:1 /opt/app/a")
    since = {"/opt/app/a": "C", "/root/gone": "D", "/root/same-size": "M"}
    assert letters(machine) == since
    machine.commit()
    assert letters(machine) == {}
    assert letters(machine, 1).items() >= since.items()
    assert letters(machine, 1, 2).keys() >= {"/opt/app/a", "/root/gone"}
    # The other way round, what was deleted is added.
    assert letters(machine, 2, 1)["/root/gone"] == "A"
    assert machine.session.container_id
    act(machine.engine, machine.session.container_id, "stop?t=1")
    assert letters(machine) == {}
    assert letters(machine, 1).items() >= since.items()


def test_what_was_written_in_the_second_of_a_commit_is_seen(
    keep: Callable[..., Container],
) -> None:
    machine = keep()
    for _ in range(10):
        time.sleep(1 - time.time() % 1)
        run(machine, "cd /root; echo 1 >'other one'; touch same 'other one'")
        written = int(time.time())
        machine.commit()
        before = machine.find_commit()
        if written == int(before.created.timestamp()):
            break
    else:
        pytest.fail("a commit takes more than a second here")
    run(machine, f"cd /root; echo 2 >'other one'; touch -d @{written} same 'other one'")
    machine.commit()
    number = before.number
    assert letters(machine, number, number + 1) == {"/root/other one": "M"}
    assert letters(machine, number + 1, number) == {"/root/other one": "M"}
    assert letters(machine, number + 1) == {}
    # The disk of what does not run is copied to be looked at.
    act(machine.engine, str(machine.session.container_id), "stop?t=1")
    assert letters(machine, number) == {"/root/other one": "M"}


def test_the_difference_for_people_and_for_programs(
    keep: Callable[..., Container], engine: Engine
) -> None:
    machine = keep()
    name = machine.image.name
    script = (
        "mkdir -p /srv/site/a; for i in 1 2 3; do echo $i >/srv/site/a/$i; done; echo a >/root/f"
    )
    run(machine, script + r"; printf x >$(printf '/root/\033[31m\377')")
    done = redock("diff", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "A /root/\\xff  (1 B)",
        "A /root/f  (2 B)",
        "A /srv/site/  (3 files, 6 B)",
    ]
    assert "A /srv/site/a/2  (2 B)" in redock("diff", "--all", name).stdout.splitlines()
    assert "/run/sshd.pid" in redock("diff", "--all", "-q", name).stdout.splitlines()
    fields = json.loads(redock("diff", "--json", name).stdout)
    assert {each["path"] for each in fields if each["kind"] == "file"} >= {"/root/f"}
    assert redock("commit", name).returncode == 0
    run(machine, "echo b >/root/f")
    text = redock("diff", "--content", "/root/f", name)
    assert text.stdout == "--- a/root/f\n+++ b/root/f\n@@ -1 +1 @@\n-a\n+b\n"
    assert redock("diff", "--content", "/root/none", name).returncode == 4
    assert redock("diff", "--content", "/root", name).returncode == 2
    assert redock("diff", name, "99").returncode == 4
    assert redock("diff", name, "1", "1", "1").returncode == 2
    # Nothing that was made to look at a disk is left.
    marks = {"label": [f"{KIND}=scan"]}
    ours = [each for each in engine.containers(marks) if name in str(each["Labels"])]
    assert ours == []


# Going back.


def test_going_back_changes_the_disk_and_nothing_else(
    keep: Callable[..., Container], engine: Engine, home: Home
) -> None:
    machine = keep()
    name = machine.image.name
    for number in (1, 2):
        run(machine, f"echo {number} >/root/file")
        machine.commit(str(number))
    run(machine, "echo lost >/root/file; touch /root/new")
    port, instance, key = machine.session.port, machine.session.instance, host_key(machine)
    done = redock("rollback", name)
    assert done.returncode == 0, done.stderr
    assert run(machine, "cat /root/file; ls /root") == "2\nfile\n"
    assert redock("rollback", name, "1").returncode == 0
    assert run(machine, "cat /root/file; hostname") == f"1\n{machine.image.tag}\n"
    assert (host_key(machine), assert_exactly_one(home, engine, name)) == (key, instance)
    again = Container(name, timeout=PATIENCE)
    assert again.find_container() and again.session.port == port
    one, two = again.find_commit(1), again.find_commit(2)
    assert (one.running, one.latest, two.running, two.latest) == (True, True, False, False)
    # The next start begins there, and the later one is still to be had.
    again.kill()
    again.start()
    assert run(again, "cat /root/file") == "1\n"
    again.rollback(two.short_id)
    assert run(again, "cat /root/file") == "2\n"
    again.commit("3")
    assert [each.number for each in again.history()] == [3, 2, 1]


def test_settings_of_the_container_survive(keep: Callable[..., Container], engine: Engine) -> None:
    machine = keep()
    machine.commit()
    identity = machine.session.container_id
    assert identity
    limit = {"Memory": 256 << 20, "MemorySwap": 512 << 20}
    engine.request("POST", f"/containers/{identity}/update", "limit", body=limit)
    network = f"redock-test-{os.urandom(4).hex()}"
    engine.create_network(network, {})
    try:
        engine.connect_network(network, identity, ["other"])
        before = engine.inspect_container(identity)
        engine.pause(identity)
        machine.rollback()
        assert machine.session.container_id
        after = engine.inspect_container(machine.session.container_id)
        place = after["NetworkSettings"]["Networks"][network]
        assert "other" in place["Aliases"] and place["IPAddress"]
        machine.kill()
    finally:
        engine.remove_network(network)
    assert after["Id"] != before["Id"] and after["Name"] == before["Name"]
    assert after["HostConfig"] == before["HostConfig"]
    # This one comes with the image, and says nothing.
    before["Config"]["Labels"][label("squashed")] = ""
    same = ("Hostname", "Labels", "Env", "ExposedPorts", "StdinOnce")
    assert [after["Config"][key] for key in same] == [before["Config"][key] for key in same]


def test_a_disk_that_does_not_boot_leaves_the_machine_as_it_was(
    keep: Callable[..., Container], engine: Engine, home: Home
) -> None:
    machine = keep()
    name = machine.image.name
    run(machine, "mv /usr/sbin/sshd /usr/sbin/sshd.real")
    machine.commit("broken")
    run(machine, "mv /usr/sbin/sshd.real /usr/sbin/sshd; echo precious >/root/file")
    done = redock("rollback", "--timeout", "60", name)
    assert done.returncode == 1 and "going back" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert redock("start", name).returncode == 0
    assert run(machine, "cat /root/file") == "precious\n"
    assert_exactly_one(home, engine, name)


def test_going_back_without_a_machine_is_about_the_next_start(
    keep: Callable[..., Container],
) -> None:
    machine = keep()
    with pytest.raises(NotFound, match="nothing"):
        machine.rollback()
    for number in (1, 2):
        run(machine, f"echo {number} >/root/file")
        machine.commit(str(number))
    machine.kill()
    machine.rollback(1)
    machine.start()
    assert run(machine, "cat /root/file") == "1\n"


# Copies and other names.


def test_a_copy_has_the_disk_and_an_identity_of_its_own(
    keep: Callable[..., Container],
) -> None:
    machine = keep()
    run(machine, "echo saved >/root/file")
    machine.commit()
    run(machine, "echo now >/root/file; sleep 600 >/dev/null 2>&1 & echo $! >/run/sleep")
    of_now, of_commit = keep("copy", start=False), keep("copy", start=False)
    done = redock("clone", machine.image.name, of_now.image.name)
    assert (done.returncode, done.stdout) == (0, f"ssh {of_now.ssh_alias}\n"), done.stderr
    machine.clone(of_commit.image.name, 1)
    assert run(of_now, "cat /root/file; hostname") == f"now\n{of_now.image.tag}\n"
    assert run(of_commit, "cat /root/file; hostname") == f"saved\n{of_commit.image.tag}\n"
    # The first one goes on with what it does.
    run(machine, "kill -0 $(cat /run/sleep)")
    machines = [machine, of_now, of_commit]
    assert all(each.find_container() for each in machines)
    assert len({host_key(each) for each in machines}) == 3
    assert len({each.session.port for each in machines}) == 3
    assert len({each.session.instance for each in machines}) == 3
    assert "Copy of commit 1" in of_commit.find_commit().message
    with pytest.raises(RedockError, match="already"):
        machine.clone(of_now.image.name)
    # What it was asked to be called is its own, not that of its origin.
    of_now.kill()
    of_now.start()
    assert run(of_now, "hostname") == f"{of_now.image.tag}\n"


def test_another_name_and_the_machine_does_not_notice(
    keep: Callable[..., Container], engine: Engine, home: Home
) -> None:
    machine = keep()
    run(machine, "echo here >/root/file; sleep 600 >/dev/null 2>&1 & echo $! >/run/sleep")
    machine.commit("one")
    machine.commit("two")
    before, key = machine.history(), host_key(machine)
    port, old_alias = machine.session.port, machine.ssh_alias
    instance = machine.session.instance
    assert instance
    other = keep("new", start=False)
    done = redock("rename", machine.image.name, other.image.name)
    assert (done.returncode, done.stdout) == (0, f"ssh {other.ssh_alias}\n"), done.stderr
    assert run(other, "cat /root/file; kill -0 $(cat /run/sleep)") == "here\n"
    assert other.find_container()
    assert (host_key(other), other.session.port) == (key, port)
    assert other.history() == before
    assert ssh(old_alias, "true").returncode == 255
    assert machine.history() == [] and machine._find_machine() is None
    assert redock("rename", machine.image.name, other.image.name).returncode == 0
    # Somebody else may have the old name; whoever goes first does not take the other along.
    machine.start()
    assert [each["Name"] for each in engine.volumes({"label": [KIND]})].count(
        volume_name(instance)
    ) == 1
    assert run(other, "cat /root/file") == "here\n"
    machine.kill()
    assert run(other, "cat /root/file") == "here\n"
    # It is the same machine for all that follows.
    other.commit("three")
    assert engine.inspect_image(other.image.name)["Config"]["Labels"][label("name")] == (  # type: ignore[index]
        other.image.name
    )
    other.rollback(1)
    assert run(other, "cat /root/file; hostname") == f"here\n{other.image.tag}\n"
    assert host_key(other) == key
    assert redock("kill", other.image.name).returncode == 0
    other.delete()
    assert_nothing_left(home, engine, other.image.name)
    assert volume_name(instance) not in [each["Name"] for each in engine.volumes({})]


def test_a_name_that_is_taken_is_refused(keep: Callable[..., Container]) -> None:
    machine, other = keep(), keep()
    machine.commit()
    for wanted in (other.image.name, machine.image.name, "redock:base"):
        done = redock("rename", machine.image.name, wanted)
        assert done.returncode in (1, 2)
        assert_one_line(done.stderr)
    other.commit()
    other.kill()
    with pytest.raises(RedockError, match="already"):
        machine.rename(other.image)
    with pytest.raises(NotFound):
        Container(new_name("none")).rename(new_name("none"))
    assert run(machine, "hostname") == f"{machine.image.tag}\n"


# Handing on.


@pytest.fixture(scope="module")
def exported(
    home: Home, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Container, Path, list[bytes]]]:
    """A machine, a file with what was saved of it, and the secrets that must not be in it."""
    machine = Container(new_name("exported"), timeout=PATIENCE)
    machine.start()
    run(machine, "echo one >/root/file")
    machine.commit("one", "sam")
    # Not as long as the other: all of this may happen within a second.
    run(machine, "echo second >/root/file")
    machine.commit("two")
    assert machine.session.instance
    secrets = [
        get_ssh_public_key().split()[1].encode(),
        host_key(machine).split()[1].encode(),
        machine.session.instance.encode(),
    ]
    file = tmp_path_factory.mktemp("exported") / "machine.tar"
    done = redock("export", machine.image.name, str(file), "--history")
    assert done.returncode == 0, done.stderr
    yield machine, file, secrets
    machine.kill()
    machine.delete()


def test_a_file_carries_no_secret(exported: tuple[Container, Path, list[bytes]]) -> None:
    _, file, secrets = exported
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with file.open("rb") as handle:
        assert search_archive(handle, *secrets) == []


def test_what_was_exported_is_imported_under_another_name(
    keep: Callable[..., Container], exported: tuple[Container, Path, list[bytes]]
) -> None:
    machine, file, _ = exported
    other = keep("in", start=False)
    done = redock("import", str(file), other.image.name)
    assert done.returncode == 0, done.stderr
    fields = [(each.number, each.message, each.author) for each in other.history()]
    assert fields == [(each.number, each.message, each.author) for each in machine.history()]
    assert other.find_commit().message == "two"
    other.start()
    assert run(other, "cat /root/file; hostname") == f"second\n{other.image.tag}\n"
    assert host_key(other) != host_key(machine)
    assert letters(other, 1) == {"/root/file": "M"}
    # Under its own name it would replace what is there.
    for arguments in ([str(file)], [str(file), other.image.name]):
        refused = redock("import", *arguments)
        assert refused.returncode == 1
        assert_one_line(refused.stderr)
    assert len(other.history()) == 2
    assert redock("import", "--force", str(file), other.image.name).returncode == 0
    assert [each.number for each in other.history()] == [4, 3, 2, 1]


def test_a_file_is_one_that_docker_loads(
    exported: tuple[Container, Path, list[bytes]], engine: Engine, tmp_path: Path
) -> None:
    machine, _, _ = exported
    file = tmp_path / "one.tar.gz"
    done = redock("export", "--from", "1", machine.image.name, str(file))
    assert done.returncode == 0, done.stderr
    assert file.read_bytes()[:2] == b"\x1f\x8b" and file.stat().st_mode & 0o777 == 0o600
    kept = engine.inspect_image(machine.image.name)
    assert kept is not None
    try:
        loaded = command("docker", "load", "--input", str(file))
        assert f"Loaded image: {machine.image.name}" in loaded.stdout, loaded.stderr
        described = engine.inspect_image(machine.image.name)
        assert described is not None
        assert (described["Comment"], described["Author"]) == ("one", "sam")
    finally:
        engine.tag_image(kept["Id"], *machine.image.key)


def images(engine: Engine) -> set[str]:
    """List the ids of all images that say they are of this run of the tests, named or not."""
    listed = engine.images({"label": [label("name")]})
    return {each["Id"] for each in listed if each["Labels"][label("name")].startswith(REPOSITORY)}


def broken_files(file: Path, directory: Path) -> Iterator[tuple[str, str]]:
    """Make files that are not what they should be, and say what they are refused with."""
    whole = file.read_bytes()
    (directory / "cut").write_bytes(whole[: len(whole) // 2])
    yield "cut", "not a complete archive"
    with tarfile.open(file) as tar:
        end = max(member.offset for member in tar if member.name.endswith("layer.tar"))
    (directory / "endless").write_bytes(whole[:end])
    yield "endless", "end is missing"
    (directory / "text").write_text("hello")
    yield "text", "not a complete archive"
    (directory / "empty").write_bytes(b"")
    yield "empty", "not a complete archive"
    for name, target in (("../../etc/passwd", ""), ("/etc/passwd", ""), ("a" * 64, "/etc")):
        with tarfile.open(directory / "hostile", "w") as tar:
            member = tarfile.TarInfo(name if not target else f"{name}/layer.tar")
            member.type = tarfile.SYMTYPE if target else tarfile.REGTYPE
            member.linkname = target
            tar.addfile(member)
        yield "hostile", "not an archive of images"
    with tarfile.open(file) as tar, tarfile.open(directory / "foreign", "w") as changed:
        for member in tar:
            handle = tar.extractfile(member)
            data = handle.read() if handle else b""
            if member.name.endswith(".json"):
                data = data.replace(label("recipe").encode(), b"io.other.thing")
            member.size = len(data)
            changed.addfile(member, io.BytesIO(data))
    yield "foreign", "not made by redock"


def test_files_of_others_leave_one_line_and_nothing_else(
    exported: tuple[Container, Path, list[bytes]], engine: Engine, tmp_path: Path
) -> None:
    name = new_name("never")
    before = images(engine)
    for kind, says in broken_files(exported[1], tmp_path):
        done = redock("import", "-q", str(tmp_path / kind), name)
        assert done.returncode == 1 and says in done.stderr, (kind, done.stderr)
        assert_one_line(done.stderr)
    assert redock("import", str(tmp_path / "none"), name).returncode == 1
    assert redock("import", "-", name).returncode == 1
    assert images(engine) <= before and Container(name).history() == []


def test_names_in_a_file_are_not_believed(
    keep: Callable[..., Container],
    exported: tuple[Container, Path, list[bytes]],
    engine: Engine,
    tmp_path: Path,
) -> None:
    victim = exported[0].image.name
    before = engine.inspect_image(victim)
    with tarfile.open(exported[1]) as tar, tarfile.open(tmp_path / "x", "w") as changed:
        for member in tar:
            handle = tar.extractfile(member)
            assert handle is not None
            data = handle.read()
            if member.name == "manifest.json":
                (first, *_) = json.loads(data)
                data = json.dumps([{**first, "RepoTags": [victim, "redock:base"]}]).encode()
            member.size = len(data)
            changed.addfile(member, io.BytesIO(data))
    base = engine.inspect_image("redock:base")
    other = keep("in", start=False)
    with (tmp_path / "x").open("rb") as handle:
        other.import_(handle)
    assert engine.inspect_image(victim) == before
    assert engine.inspect_image("redock:base") == base


def test_exports_that_fail_or_are_interrupted_leave_no_file(
    exported: tuple[Container, Path, list[bytes]], tmp_path: Path
) -> None:
    name = exported[0].image.name
    (tmp_path / "kept.tar").write_text("as it was")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            ["env", "--default-signal", *REDOCK, "export", name, str(tmp_path / "kept.tar")],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + PATIENCE
        while len(list(tmp_path.iterdir())) < 2 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode in (128 + number, 0), stderr
        if process.returncode:
            assert (tmp_path / "kept.tar").read_text() == "as it was"
        assert [path.name for path in tmp_path.iterdir()] == ["kept.tar"]
    for file in (tmp_path / "none" / "x.tar", tmp_path, tmp_path / "x.tar.xz"):
        done = redock("export", "-q", name, str(file))
        assert done.returncode in (1, 2)
        assert_one_line(done.stderr)
    with pytest.raises(InvalidArgument):
        exported[0].export(str(tmp_path / "x.zst"))


# One layer.


def nameless(engine: Engine, machine: Container) -> list[str]:
    """The images of a machine that nobody can start from any more."""
    marks = [f"{label('name')}={machine.image.name}"]
    return [each["Id"] for each in engine.images({"label": marks}) if not real_names(each)]


def test_one_layer_of_many_is_the_same_machine(
    keep: Callable[..., Container],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = keep()
    for number in range(3):
        # Of another size each time: all of this may happen within a second.
        run(machine, f"echo {'x' * number} >/root/file; chown 1:1 /root/file")
        machine.commit(f"number {number}", "sam")
        machine.kill()
        machine.start()
    before = machine.find_commit()
    old = engine.inspect_image(before.id)
    made = machine.squash()
    new = engine.inspect_image(made.id)
    assert old and new
    assert (made.number, made.message, made.author) == (3, before.message, before.author)
    assert before.layers > 3 and made.layers == 1 and made.size > 100 << 20
    # The machine's disk is the same, so it is still where it was.
    assert (made.running, made.latest) == (True, True)
    assert [each.number for each in machine.history()] == [3, 2, 1]
    assert letters(machine) == {} and letters(machine, 2, 3) == {"/root/file": "M"}
    old["Config"]["Labels"][label("squashed")] = before.id
    kept = ("Cmd", "Labels", "Env", "User", "WorkingDir", "ExposedPorts")
    assert [old["Config"][key] for key in kept] == [new["Config"][key] for key in kept]
    assert machine.squash() == made
    # What the machine runs on cannot go yet.
    assert nameless(engine, machine) == [before.id]
    machine.kill()
    machine.start()
    assert run(machine, "stat -c %u /root/file; cat /root/file") == "1\nxx\n"
    machine.commit("on it")
    assert machine.find_commit().layers == 2
    monkeypatch.setattr("redock._commits.NEARLY_DEEPEST", 2)
    machine.commit("near the limit")
    assert "redock squash" in caplog.text
    assert redock("commit", "--squash", machine.image.name).returncode == 0
    assert nameless(engine, machine) == [before.id]
    monkeypatch.setattr("redock._tidy.YOUNG", 0)
    (left,) = [each for each in find_leftovers(engine) if each.name == before.short_id]
    left.remove()
    assert nameless(engine, machine) == []
    assert machine.find_commit().layers == 1


def test_a_machine_with_as_many_layers_as_there_may_be(
    keep: Callable[..., Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = keep()
    run(machine, "echo kept >/root/file")
    real = Engine.commit

    def refuse(self: Engine, container: str, *arguments: str, **options: object) -> str:
        if container == machine.session.container_id:
            raise EngineError("the engine could not commit: max depth exceeded", 500)
        return real(self, container, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "commit", refuse)
    with pytest.raises(RedockError, match="commit --squash"):
        machine.commit()
    assert machine.history() == []
    machine.commit("flat", "sam", squash=True)
    monkeypatch.undo()
    commit = machine.find_commit()
    assert (commit.message, commit.author, commit.layers) == ("flat", "sam", 1)
    machine.kill()
    machine.start()
    assert run(machine, "cat /root/file") == "kept\n"


# Forgetting, and asking before it.


def test_deleting_is_about_all_commits_and_not_while_there_is_a_machine(
    keep: Callable[..., Container], engine: Engine
) -> None:
    machine = keep()
    name = machine.image.name
    machine.commit()
    machine.commit()
    ids = {each.id for each in machine.history()}
    refused = redock("delete", name)
    assert refused.returncode == 1 and len(machine.history()) == 2
    machine.kill()
    done = redock("delete", name)
    assert done.returncode == 0 and "2 commits" in done.stderr
    assert machine.history() == []
    assert [each for each in ids if engine.inspect_image(each)] == []


def on_terminal(answer: bytes, *arguments: str) -> tuple[bytes, int]:
    """Run redock on a terminal and type an answer when it asks."""
    child, terminal = pty.fork()
    if not child:
        os.execvp(REDOCK[0], [*REDOCK, *arguments])
    output, asked, deadline = b"", False, time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([terminal], [], [], 0.5)
            try:
                data = os.read(terminal, 65536) if ready else b"-"
            except OSError:
                break
            output += data if ready else b""
            if b"[y/N]" in output and not asked:
                os.write(terminal, answer)
                asked = True
    finally:
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    return output, os.waitstatus_to_exitcode(status)


def test_people_are_asked_before_work_is_lost(keep: Callable[..., Container]) -> None:
    machine = keep()
    name = machine.image.name
    machine.commit()
    run(machine, "echo work >/root/work")
    for verb in ("kill", "rollback"):
        for answer in (b"\n", b"n\n", b"\x03", b"\x04"):
            output, status = on_terminal(answer, verb, name)
            assert status == 1 and b"1 file changed" in output, output
            assert b"Traceback" not in output
    assert run(machine, "cat /root/work") == "work\n"
    output, status = on_terminal(b"y\n", "rollback", name)
    assert status == 0, output
    assert run(machine, "ls /root") == ""
    # Nothing would be lost, so nobody is asked.
    output, status = on_terminal(b"n\n", "kill", name)
    assert status == 0 and b"[y/N]" not in output, output
    machine.start()
    run(machine, "echo work >/root/work")
    output, status = on_terminal(b"n\n", "kill", "-y", name)
    assert status == 0 and b"[y/N]" not in output, output
    output, status = on_terminal(b"n\n", "delete", name)
    assert status == 1 and b"its only commit" in output and len(machine.history()) == 1
    output, status = on_terminal(b"yes\n", "delete", name)
    assert status == 0 and machine.history() == []


# Killed half-way.


def killed(moment: float, *arguments: str) -> int:
    """Run redock and kill it after some time; return its exit status."""
    process = subprocess.Popen(
        [*REDOCK, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def duration(*arguments: str) -> float:
    """Measure how long a command takes."""
    began = time.monotonic()
    done = redock(*arguments)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def test_going_back_that_is_killed_leaves_one_machine(
    keep: Callable[..., Container], engine: Engine, home: Home
) -> None:
    machine = keep()
    name, alias = machine.image.name, machine.ssh_alias
    for number in (1, 2):
        run(machine, f"echo {number} >/root/file")
        machine.commit()
    key = host_key(machine)
    whole = duration("rollback", name, "1")
    at = 1
    for _ in range(KILLS):
        wanted = 3 - at
        killed(random.uniform(0.2, 1.0) * whole, "rollback", name, str(wanted))
        # There is one machine, whoever looks, with the old disk or the new.
        (found,) = [each for each in find_machines(engine) if each.name == name]
        assert found.image in {machine.find_commit(number).id for number in (1, 2)}
        if random.random() < 0.5:
            assert redock("start", "--timeout", "60", name).returncode == 0
            assert ssh(alias, "cat /root/file").stdout in ("1\n", "2\n")
            assert len(containers_of(engine, name)) == 1
        done = redock("rollback", "--timeout", "60", name, str(wanted))
        assert done.returncode == 0, done.stderr
        assert ssh(alias, "cat /root/file").stdout == f"{wanted}\n"
        assert_exactly_one(home, engine, name)
        assert machine.find_commit().number == wanted
        at = wanted
    assert host_key(machine) == key


def test_a_renaming_that_is_killed_is_finished_by_the_next(
    keep: Callable[..., Container], engine: Engine, home: Home
) -> None:
    machine, other = keep(), keep("other", start=False)
    run(machine, "echo here >/root/file")
    machine.commit("one")
    machine.commit("two")
    ids = [each.id for each in machine.history()]
    old, new = machine, other
    whole = duration("rename", old.image.name, new.image.name)
    for _ in range(KILLS):
        old, new = new, old
        killed(random.uniform(0.2, 1.0) * whole, "rename", old.image.name, new.image.name)
        names = {machine.image.name, other.image.name}
        assert len([each for each in find_machines(engine) if each.name in names]) == 1
        done = redock("rename", old.image.name, new.image.name)
        # 4: it was done, all of it.
        assert done.returncode in (0, 4), done.stderr
        assert ssh(new.ssh_alias, "cat /root/file").stdout == "here\n"
        assert ssh(old.ssh_alias, "true").returncode == 255
        assert [each.id for each in new.history()] == ids and old.history() == []
        assert stale_files(home, engine) == []


def test_the_values_are_frozen() -> None:
    commit = Commit(1, "sha256:" + "a" * 64, None, "", "", 0, 1, False, True)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        commit.number = 2  # type: ignore[misc]
