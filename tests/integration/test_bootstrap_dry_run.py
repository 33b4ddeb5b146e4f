"""Dry runs of redock.bootstrap: they change nothing and tell the truth."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from redock.api import Container
from redock.bootstrap import Bootstrap, Change
from redock.errors import OperationFailed

from .conftest import command


def snapshot(machine: Container) -> list[str]:
    """Everything that makes up the file system of a machine, with times and contents."""
    found = machine._find_machine()
    assert found is not None
    script = (
        "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune"
        " -o -printf '%p %y %m %U:%G %s %T@ %C@ %l\\n'"
        " | grep -v '^/var/log/supervisor/\\|^/run ' | sort"
    )
    done = command("docker", "exec", found.id, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def host(machine: Container) -> Iterator[Bootstrap]:
    with Bootstrap(machine.ssh_alias) as host:
        yield host


@pytest.fixture
def dry(machine: Container) -> Iterator[Bootstrap]:
    with Bootstrap(machine.ssh_alias, dry_run=True, diff=True) as host:
        yield host


def everything(host: Bootstrap) -> list[Change]:
    """One of each operation, each of which has something to do on a new machine."""
    return [
        host.packages("tree"),
        host.group("dry"),
        host.user("dry", group="dry", password_hash="*", authorized_keys=["ssh-ed25519 AAAA"]),
        host.directory("/srv/dry/below", owner="dry", mode=0o750),
        host.file("/srv/dry/below/file", "one\n", owner="dry", mode=0o600),
        host.line("/srv/dry/below/file", "two"),
        host.file("/srv/dry/below/file", "one\ntwo\n", mode=0o600),
        host.template("/srv/dry/template", "{{ a }}\n", {"a": 1}),
        host.upload_file("/srv/dry/deep/er/file", "x"),
        host.symlink("/srv/dry/link", "below"),
        host.file("/srv/dry/link", "x"),
        host.file("/etc/motd", "new\n"),
        host.directory("/srv/dry/deep", state="absent", recurse=True),
        host.file("/srv/dry/large", b"x" * 1_000_000),
        host.file(
            "/etc/supervisor/conf.d/dry.conf",
            "[program:dry]\ncommand = sleep 1000\nstartsecs = 0\n",
        ),
        host.service("dry"),
        host.command("touch", "/srv/touched", creates="/srv/touched"),
        host.service("sshd"),
    ]


def test_a_dry_run_changes_nothing_and_predicts_everything(
    machine: Container, dry: Bootstrap
) -> None:
    dry.facts  # noqa: B018
    before = snapshot(machine)
    predicted = everything(dry)
    dry.execute("touch /srv/executed")
    dry.update_system_packages()
    dry.rsync("/etc/ssh", "/srv/rsynced")
    assert sorted(set(snapshot(machine)) ^ set(before)) == []
    with Bootstrap(machine.ssh_alias) as host:
        real = everything(host)
        for guess, fact in zip(predicted, real, strict=True):
            assert guess.dry_run
            if guess.changed is not None:
                assert guess.changed == fact.changed, guess
                if guess.op not in ("service", "command"):
                    assert guess.changes == fact.changes, guess
        # The package might create the file; everything else can be known.
        assert [guess.op for guess in predicted if guess.changed is None] == ["command"]
        assert not any(everything_again(host))
    with Bootstrap(machine.ssh_alias, dry_run=True) as again:
        assert not any(everything_again(again))


def everything_again(host: Bootstrap) -> list[Change]:
    """The operations of everything() that do not undo each other."""
    return [
        host.packages("tree"),
        host.group("dry"),
        host.user("dry", group="dry", password_hash="*", authorized_keys=["ssh-ed25519 AAAA"]),
        host.directory("/srv/dry/below", owner="dry", mode=0o750),
        host.line("/srv/dry/below/file", "two"),
        host.file("/srv/dry/below/file", "one\ntwo\n", mode=0o600),
        host.template("/srv/dry/template", "{{ a }}\n", {"a": 1}),
        host.file("/srv/dry/large", b"x" * 1_000_000),
        host.service("dry"),
        host.command("touch", "/srv/touched", creates="/srv/touched"),
        host.service("sshd"),
    ]


def test_diffs(host: Bootstrap, dry: Bootstrap) -> None:
    host.file("/srv/text", "one\ntwo\n")
    change = dry.file("/srv/text", "one\nthree")
    assert change.diff == (
        "--- /srv/text\n+++ /srv/text\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
        "\\ No newline at end of file\n"
    )
    assert dry.file("/srv/binary", b"\0\xff").diff == ""
    assert dry.file("/srv/hidden", "password", sensitive=True).diff == ""
    assert host.file("/srv/text", "three").diff == ""


def test_what_depends_on_a_package_is_unknown(dry: Bootstrap) -> None:
    with pytest.raises(OperationFailed, match="does not exist"):
        dry.file("/etc/nginx/nginx.conf", "x")
    with pytest.raises(OperationFailed, match="no user"):
        dry.file("/srv/x", owner="no-such-user")
    assert dry.packages("nginx-light").changed is True
    for change in (
        dry.file("/etc/nginx/nginx.conf", "x"),
        dry.file("/etc/nginx/sites-enabled/default", state="absent"),
        dry.service("nginx"),
        dry.file("/srv/x", owner="no-such-user"),
        dry.line("/etc/nginx/nginx.conf", "x"),
        dry.symlink("/etc/nginx/link", "x"),
        dry.command("true", unless="true"),
        dry.command("true", creates="/etc/nginx/made"),
    ):
        assert change.changed is None, change
        assert change.reason, change
        assert bool(change)
    assert dry.file("/etc/hostname").changed is False
    assert dry.history.summary().endswith("in 0.0 s")
    assert len(dry.history.unknown) == 8


def test_a_package_that_is_not_in_the_lists(machine: Container, dry: Bootstrap) -> None:
    change = dry.packages("not-a-package-of-debian")
    assert change.changed is True
    assert "not known" in change.reason


def random_program(seed: int) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """A program of file operations that meet each other."""
    chance = random.Random(seed)
    paths = ["/srv/r/a", "/srv/r/b", "/srv/r/a/c", "/srv/r/d"]
    steps: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    for _ in range(8):
        path = chance.choice(paths)
        kind = chance.choice(["file", "absent", "directory", "gone", "symlink", "line", "upload"])
        mode = chance.choice([None, 0o600, 0o755])
        owner = chance.choice([None, "nobody"])
        if kind == "file":
            content = chance.choice([None, "", "x\n", "x\ny\n"])
            steps.append(("file", (path, content), {"mode": mode, "owner": owner}))
        elif kind == "absent":
            steps.append(("file", (path,), {"state": "absent"}))
        elif kind == "directory":
            steps.append(("directory", (path,), {"mode": mode, "owner": owner}))
        elif kind == "gone":
            steps.append(("directory", (path,), {"state": "absent", "recurse": True}))
        elif kind == "symlink":
            force = chance.random() < 0.5
            steps.append(("symlink", (path, chance.choice(paths)), {"force": force}))
        elif kind == "line":
            steps.append(("line", (path, chance.choice(["x", "z"])), {"create": True}))
        else:
            steps.append(("upload_file", (path, chance.choice(["x\n", "u"])), {}))
    return steps


def follow(
    host: Bootstrap, steps: list[tuple[str, tuple[Any, ...], dict[str, Any]]]
) -> list[object]:
    """Do the steps up to the first that fails."""
    results: list[object] = []
    for op, arguments, options in steps:
        try:
            change = getattr(host, op)(*arguments, **options)
        except OperationFailed:
            results.append("failed")
            break
        results.append((change.changed, dict(change.changes)))
    return results


def test_predictions_of_random_programs(machine: Container, host: Bootstrap) -> None:
    for seed in range(int(os.environ.get("REDOCK_TEST_EXAMPLES", "60"))):
        steps = random_program(seed)
        host.execute("rm -rf /srv/r; mkdir /srv/r")
        for op, arguments, options in random_program(seed + 1000)[:4]:
            follow(host, [(op, arguments, options)])
        with Bootstrap(machine.ssh_alias, dry_run=True) as dry:
            predicted = follow(dry, steps)
        real = follow(host, steps)
        for guess, fact in zip(predicted, real, strict=False):
            assert guess == fact, (seed, steps, predicted, real)
        assert len(predicted) == len(real), (seed, steps, predicted, real)
        if real[-1] != "failed":
            for op, arguments, options in steps:
                getattr(host, op)(*arguments, **options) if follow(
                    host, [(op, arguments, options)]
                ) != ["failed"] else None
