"""The operations of redock.bootstrap on a real machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redock.api import Container
from redock.bootstrap import Bootstrap, Change, ExternalCommandFailed, Secret, run
from redock.errors import InvalidArgument, OperationFailed, OperationTimeout

from .conftest import ssh

#: Everything that can be an argument or part of a path.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
PROPERTY = settings(
    max_examples=int(os.environ.get("REDOCK_TEST_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def host(machine: Container) -> Iterator[Bootstrap]:
    with Bootstrap(machine.ssh_alias, diff=True) as host:
        yield host


def twice(host: Bootstrap, op: str, *arguments: object, **options: object) -> Change:
    """Do an operation twice: the second one has to find everything as it should be."""
    first: Change = getattr(host, op)(*arguments, **options)
    second: Change = getattr(host, op)(*arguments, **options)
    assert second.changed is False, second
    assert second.changes == {}
    return first


# The interface of 2013 ------------------------------------------------------------------------


def test_one_argument_is_text_for_the_shell(host: Bootstrap) -> None:
    result = host.execute("echo one; echo two >&2; exit 0", capture=True)
    assert (result.stdout, result.stderr, result.returncode) == ("one\n", "two\n", 0)


def test_two_arguments_are_exactly_two_words(host: Bootstrap) -> None:
    host.execute("touch", "/srv/a b")
    assert host.stat("/srv/a b") is not None
    assert host.execute("echo", "$(id)", capture=True).stdout == "$(id)\n"


def test_output_is_visible_while_the_command_runs(
    host: Bootstrap, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[float, str]] = []

    class Stream:
        def write(self, text: str) -> None:
            seen.append((time.monotonic(), text))

        def flush(self) -> None:
            pass

    with Bootstrap(host.ssh_alias, output=Stream()) as live:  # type: ignore[arg-type]
        live.execute("echo first; sleep 0.5; echo second")
    assert [text for _, text in seen] == ["first\n", "second\n"]
    assert seen[1][0] - seen[0][0] > 0.3
    host.execute("echo to stdout; echo to stderr >&2")
    assert capfd.readouterr() == ("to stdout\n", "to stderr\n")


def test_a_failing_command_says_everything(host: Bootstrap) -> None:
    with pytest.raises(ExternalCommandFailed) as caught:
        host.execute("echo out; echo it broke >&2; exit 3")
    error = caught.value
    assert error.returncode == 3
    assert error.host == host.ssh_alias
    assert host.ssh_alias in str(error)
    assert "it broke" in str(error)
    assert "exit 3" in str(error)
    assert host.execute("exit 3", check=False).returncode == 3


def test_input_reaches_the_command(host: Bootstrap) -> None:
    data = "".join(f"{number}\n" for number in range(200_000))
    result = host.execute("cat", "-", input=data, capture=True)
    assert result.stdout == data
    assert host.execute("cat", capture=True).stdout == ""


def test_environment_reaches_the_command(host: Bootstrap) -> None:
    result = host.execute("echo $GREETING", env={"GREETING": "it's ; me"}, capture=True)
    assert result.stdout == "it's ; me\n"


def test_a_daemon_that_keeps_the_pipes_does_not_block(host: Bootstrap) -> None:
    started = time.monotonic()
    host.execute("sleep 300 & echo started", capture=True)
    assert time.monotonic() - started < 5


def test_a_pseudo_terminal_when_local_input_is_one(machine: Container, tmp_path: Path) -> None:
    program = (
        "from redock.bootstrap import Bootstrap\n"
        f"with Bootstrap({machine.ssh_alias!r}) as host:\n"
        "    host.execute('test -t 0 && test -t 1 && echo terminal')\n"
        "    host.execute('test -t 0 || echo plain', input='x')\n"
        "    assert host.execute('exit 7', check=False).returncode == 7\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    shown = subprocess.run(
        ["script", "-qec", f"{sys.executable} {script}", "/dev/null"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "SHELL": "/bin/bash"},
        check=False,
    )
    assert "terminal" in shown.stdout, shown
    assert "plain" in shown.stdout, shown
    assert shown.returncode == 0, shown


def test_upload_file_creates_directories(host: Bootstrap) -> None:
    twice(host, "upload_file", "/srv/up/load/file", "grüße\n")
    assert host.read_file("/srv/up/load/file") == "grüße\n".encode()
    found = host.stat("/srv/up/load")
    assert found is not None
    assert found.mode == 0o755
    host.upload_file("/srv/up/load/file", b"\0\xff")
    assert host.read_file("/srv/up/load/file") == b"\0\xff"


def test_upload_of_large_files(host: Bootstrap) -> None:
    data = os.urandom(3_000_000)
    assert host.upload_file("/srv/large", data).changed
    assert host.read_file("/srv/large") == data
    assert host.upload_file("/srv/large", data).changed is False
    other = data[:-1] + bytes([data[-1] ^ 1])
    assert host.upload_file("/srv/large", other).changed
    assert host.read_file("/srv/large") == other


def test_source_is_a_local_file(host: Bootstrap, tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"small")
    large.write_bytes(os.urandom(1_000_000))
    twice(host, "file", "/srv/small", source=small)
    twice(host, "file", "/srv/large", source=str(large))
    assert host.read_file("/srv/large") == large.read_bytes()
    with pytest.raises(InvalidArgument, match="cannot read"):
        host.file("/srv/none", source=tmp_path / "none")


def test_rsync_copies_excludes_and_deletes(host: Bootstrap, tmp_path: Path) -> None:
    source = tmp_path / "a b"
    (source / ".git").mkdir(parents=True)
    (source / ".git/config").write_text("secret")
    (source / "sub").mkdir()
    (source / "sub/file").write_text("content")
    target = "/srv/copy of it"
    change = host.rsync(source, target)
    assert change.changed
    assert "sub/file" in change.changes
    assert host.read_file(target + "/sub/file") == b"content"
    assert host.stat(target + "/.git") is None
    assert host.rsync(source, target).changed is False
    host.execute("touch", target + "/extra")
    host.execute("touch", "-d", "@1000", target, target + "/sub")
    assert host.rsync(source, target, delete=False).changed is False
    assert host.stat(target + "/extra") is not None
    assert host.rsync(source, target).changes == {"extra": ("present", None)}
    assert host.stat(target + "/extra") is None
    host.rsync(source, target, False, False)
    assert host.read_file(target + "/.git/config") == b"secret"


def test_rsync_failure_is_the_promised_error(host: Bootstrap, tmp_path: Path) -> None:
    host.file("/srv/in-the-way", "x")
    with pytest.raises((ExternalCommandFailed, OperationFailed), match=host.ssh_alias):
        host.rsync(tmp_path, "/srv/in-the-way/below")


def test_packages_that_are_there_cost_nothing(host: Bootstrap) -> None:
    assert host.install_packages("python3", "rsync", "openssh-server").changed is False
    assert host.packages("no-such-package-at-all", state="absent").changed is False


def test_packages_are_installed_and_removed(host: Bootstrap) -> None:
    change = twice(host, "packages", "tree")
    assert change.changed
    before, after = change.changes["tree"]
    assert before is None
    assert isinstance(after, str)
    assert after in host.execute("dpkg-query -W tree", capture=True).stdout
    assert ssh(host.ssh_alias, "tree --version").returncode == 0
    removed = twice(host, "packages", "tree", state="absent")
    assert removed.changes == {"tree": (after, None)}


def test_a_package_that_does_not_exist(host: Bootstrap) -> None:
    with pytest.raises(OperationFailed, match="no-such-package") as caught:
        host.packages("no-such-package-at-all")
    assert caught.value.returncode == 100
    assert "packages no-such-package-at-all" in str(caught.value)


def test_update_system_packages(host: Bootstrap) -> None:
    host.update_system_packages()
    assert host.update_system_packages().changed is False


# Files ----------------------------------------------------------------------------------------


def test_file_content_owner_group_and_mode(host: Bootstrap) -> None:
    options = {"owner": "nobody", "group": "daemon", "mode": 0o640}
    change = twice(host, "file", "/srv/file", "one\n", **options)
    assert change.changes["mode"] == (None, "0640")
    found = host.stat("/srv/file")
    assert found is not None
    assert (found.kind, found.owner, found.group, found.mode) == ("file", "nobody", "daemon", 0o640)
    change = host.file("/srv/file", "two\n")
    assert change.summary() == "content changed (+1 -1)"
    assert change.diff.splitlines()[-2:] == ["-one", "+two"]
    found = host.stat("/srv/file")
    assert found is not None
    assert (found.owner, found.group, found.mode) == ("nobody", "daemon", 0o640)
    change = host.file("/srv/file", mode="0600", owner=0)
    assert change.changes == {"mode": ("0640", "0600"), "owner": ("nobody", "0")}
    assert host.read_file("/srv/file") == b"two\n"


def test_special_bits_survive_the_owner(host: Bootstrap) -> None:
    twice(host, "file", "/srv/suid", "x", owner="nobody", mode=0o4755)
    found = host.stat("/srv/suid")
    assert found is not None
    assert found.mode == 0o4755


def test_file_absent(host: Bootstrap) -> None:
    host.file("/srv/gone", "x")
    assert twice(host, "file", "/srv/gone", state="absent").changed
    assert host.stat("/srv/gone") is None


def test_an_unchanged_file_is_not_touched(host: Bootstrap) -> None:
    host.file("/srv/still", "x", mode=0o644)
    before = host.execute("stat -c '%i %z' /srv/still", capture=True).stdout
    host.file("/srv/still", "x", mode=0o644)
    assert host.execute("stat -c '%i %z' /srv/still", capture=True).stdout == before


def test_symbolic_links_are_not_followed(host: Bootstrap) -> None:
    host.file("/srv/target", "precious")
    host.symlink("/srv/pointer", "/srv/target")
    change = host.file("/srv/pointer", "new", mode=0o600)
    assert change.changes["type"] == ("symlink", "file")
    assert host.read_file("/srv/target") == b"precious"
    found = host.stat("/srv/pointer")
    assert found is not None
    assert found.kind == "file"


def test_symbolic_links_are_followed_when_asked(host: Bootstrap) -> None:
    host.file("/srv/target2", "old")
    host.symlink("/srv/pointer2", "target2")
    twice(host, "file", "/srv/pointer2", "new", follow=True)
    assert host.read_file("/srv/target2") == b"new"
    found = host.stat("/srv/pointer2")
    assert found is not None
    assert (found.kind, found.target) == ("symlink", "target2")


def test_files_the_engine_mounted(host: Bootstrap) -> None:
    before = host.read_file("/etc/hosts")
    assert before is not None
    change = twice(host, "file", "/etc/hosts", before + b"127.0.0.2 other\n")
    assert "in place" in change.reason
    assert host.execute("getent hosts other", capture=True).stdout.startswith("127.0.0.2")
    assert host.execute("ls -A /etc | grep redock-", check=False, capture=True).stdout == ""


def test_validate_stands_before_the_replacement(host: Bootstrap) -> None:
    host.file("/etc/sudoers.d-test", "old")
    with pytest.raises(OperationFailed, match="refused") as caught:
        host.file("/etc/sudoers.d-test", "new", validate="grep -q old %s")
    assert "grep -q old /etc/.redock-" in str(caught.value)
    assert host.read_file("/etc/sudoers.d-test") == b"old"
    assert host.file("/etc/sudoers.d-test", "new", validate=["grep", "-q", "new", "%s"]).changed
    assert host.execute("ls -A /etc", capture=True).stdout.count(".redock-") == 0


def test_backup_keeps_what_was_there(host: Bootstrap) -> None:
    host.file("/srv/backed", "old", mode=0o600)
    host.file("/srv/backed", "new", backup=True)
    assert host.read_file("/srv/.backed.bak") == b"old"
    found = host.stat("/srv/.backed.bak")
    assert found is not None
    assert found.mode == 0o600


def test_a_missing_directory_is_an_error(host: Bootstrap) -> None:
    with pytest.raises(OperationFailed, match="/srv/nowhere does not exist"):
        host.file("/srv/nowhere/file", "x")
    with pytest.raises(OperationFailed, match="it is a directory"):
        host.file("/srv", "x")


def test_a_liar_is_caught(host: Bootstrap) -> None:
    host.file("/usr/local/bin/apt-get", "#!/bin/sh\nexit 0\n", mode=0o755)
    try:
        with pytest.raises(OperationFailed, match="succeeded, but tree still is not as wanted"):
            host.packages("tree")
    finally:
        host.file("/usr/local/bin/apt-get", state="absent")
    host.file("/usr/local/sbin/usermod", "#!/bin/sh\nexit 0\n", mode=0o755)
    try:
        with pytest.raises(OperationFailed, match="still differs in shell"):
            host.user("games", shell="/bin/bash")
    finally:
        host.file("/usr/local/sbin/usermod", state="absent")


def test_what_cannot_be_written_fails_and_leaves_nothing(host: Bootstrap) -> None:
    with pytest.raises(OperationFailed) as caught:
        host.file("/proc/sys/new", "x")
    assert "file /proc/sys/new" in str(caught.value)
    assert host.ssh_alias in str(caught.value)
    host.execute("mkdir -p /srv/full; mount -t tmpfs -o size=64k none /srv/full", check=False)
    if host.execute("mountpoint -q /srv/full", check=False):
        with pytest.raises(OSError, match="No space left"):
            host.file("/srv/full/large", b"x" * 2_000_000)
        assert host.execute("ls -A /srv/full", capture=True).stdout == ""
        assert host.file("/srv/full/small", "x").changed


def test_directory(host: Bootstrap) -> None:
    change = twice(host, "directory", "/srv/d/e/f", owner="nobody", mode=0o750)
    assert change.changes["state"] == ("absent", "directory")
    host.file("/srv/d/e/f/file", "x")
    twice(host, "directory", "/srv/d", owner="daemon", group="daemon", recurse=True)
    found = host.stat("/srv/d/e/f/file")
    assert found is not None
    assert (found.owner, found.group) == ("daemon", "daemon")
    with pytest.raises(OperationFailed, match="not empty"):
        host.directory("/srv/d", state="absent")
    assert twice(host, "directory", "/srv/d", state="absent", recurse=True).changed


def test_symlink(host: Bootstrap) -> None:
    twice(host, "symlink", "/srv/link", "one")
    change = twice(host, "symlink", "/srv/link", "two words")
    assert change.changes == {"target": ("one", "two words")}
    host.file("/srv/plain", "x")
    with pytest.raises(OperationFailed, match="not a symbolic link"):
        host.symlink("/srv/plain", "two")
    twice(host, "symlink", "/srv/plain", "two", force=True)
    assert twice(host, "symlink", "/srv/plain", "two", state="absent").changed


def test_line(host: Bootstrap) -> None:
    host.file("/srv/lines", "a=1\nb=2\nc=3")
    twice(host, "line", "/srv/lines", "b=5", match="^b=")
    twice(host, "line", "/srv/lines", "a2=1", after="^a=")
    twice(host, "line", "/srv/lines", "d=4")
    assert host.read_file("/srv/lines") == b"a=1\na2=1\nb=5\nc=3\nd=4\n"
    assert twice(host, "line", "/srv/lines", "", match="^[ac]", state="absent").changed
    assert host.read_file("/srv/lines") == b"b=5\nd=4\n"
    with pytest.raises(OperationFailed, match="does not exist"):
        host.line("/srv/no-lines", "x")
    twice(host, "line", "/srv/no-lines", "x", create=True)


def test_template(host: Bootstrap, tmp_path: Path) -> None:
    source = tmp_path / "greeting.j2"
    source.write_text(
        "{% for name in names %}Hello {{ name }}!\n{% endfor %}{{ host.facts.os_id }}\n"
    )
    twice(host, "template", "/srv/greeting", source, {"names": ["A", "B"]}, mode=0o600)
    assert host.read_file("/srv/greeting") == b"Hello A!\nHello B!\ndebian\n"
    with pytest.raises(InvalidArgument, match="'who' is undefined"):
        host.template("/srv/greeting", "{{ who }}")


# Users, groups, repositories --------------------------------------------------------------------


def test_group(host: Bootstrap) -> None:
    twice(host, "group", "makers", gid=4321)
    assert ssh(host.ssh_alias, "getent group makers").stdout == "makers:x:4321:\n"
    twice(host, "group", "makers", gid=4322)
    assert twice(host, "group", "makers", state="absent").changed


def test_user(host: Bootstrap) -> None:
    host.group("helpers")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== someone"
    options = {
        "uid": 3210,
        "groups": ["helpers"],
        "shell": "/bin/bash",
        "password_hash": "$6$salt$hash",
        "authorized_keys": [key],
    }
    change = twice(host, "user", "helper", **options)
    assert change.changes["password"] == (None, "changed")
    assert host.read_file("/home/helper/.ssh/authorized_keys") == key.encode() + b"\n"
    found = host.stat("/home/helper/.ssh/authorized_keys")
    assert found is not None
    assert (found.owner, found.mode) == ("helper", 0o600)
    assert "helpers" in ssh(host.ssh_alias, "id -Gn helper").stdout
    assert "$6$salt$hash" in ssh(host.ssh_alias, "grep helper: /etc/shadow").stdout
    change = twice(host, "user", "helper", shell="/bin/sh")
    assert change.changes == {"shell": ("/bin/bash", "/bin/sh")}
    assert twice(host, "user", "helper", state="absent").changed


def test_keys_are_not_written_through_links(host: Bootstrap) -> None:
    host.user("trickster")
    host.execute("ln -s /root/.ssh /home/trickster/.ssh")
    before = host.read_file("/root/.ssh/authorized_keys")
    with pytest.raises(OperationFailed, match="symlink"):
        host.user("trickster", authorized_keys=["ssh-ed25519 AAAA"])
    assert host.read_file("/root/.ssh/authorized_keys") == before


def test_apt_repository(host: Bootstrap) -> None:
    host.execute(
        "mkdir -p /srv/repo && : > /srv/repo/Packages"
        " && printf 'Date: %s\\n' \"$(date -Ru)\" > /srv/repo/Release"
        " && printf 'MD5Sum:\\n %s 0 Packages\\n'"
        " d41d8cd98f00b204e9800998ecf8427e >> /srv/repo/Release"
        " && printf 'SHA256:\\n %s 0 Packages\\n'"
        " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 >> /srv/repo/Release"
    )
    options = {"suites": "./", "components": ()}
    with pytest.raises(OperationFailed, match="refused") as caught:
        host.apt_repository("local", uris="file:/srv/nowhere", **options)  # type: ignore[arg-type]
    assert "/srv/nowhere" in str(caught.value)
    assert host.stat("/etc/apt/sources.list.d/local.sources") is None
    host.execute(
        "echo 'APT::Get::AllowUnauthenticated true;"
        " Acquire::AllowInsecureRepositories true;' > /etc/apt/apt.conf.d/99insecure"
    )
    try:
        twice(host, "apt_repository", "local", uris="file:/srv/repo", **options)
        content = host.read_file("/etc/apt/sources.list.d/local.sources")
        assert content == b"Types: deb\nURIs: file:/srv/repo\nSuites: ./\n"
    finally:
        host.file("/etc/apt/apt.conf.d/99insecure", state="absent")
        assert twice(host, "apt_repository", "local", state="absent").changed


# Commands ---------------------------------------------------------------------------------------


def test_command_guards(host: Bootstrap) -> None:
    assert twice(host, "command", "touch", "/srv/made", creates="/srv/made").changed
    assert host.command("true", unless="true").changed is False
    assert host.command("true", unless=["test", "-e", "/no such"]).changed
    assert host.command("true", only_if="false").changed is False
    assert host.command("true", only_if="true").changed
    with pytest.raises(OperationFailed, match="did not create"):
        host.command("true", creates="/srv/never-made")


def test_command_failure_and_retries(host: Bootstrap) -> None:
    with pytest.raises(OperationFailed, match="no luck") as caught:
        host.command("echo no luck >&2; exit 9")
    assert caught.value.returncode == 9
    change = host.command("echo x >> /srv/tries; test $(wc -l < /srv/tries) -ge 2", retries=2)
    assert change.attempts == 2
    change = host.command(
        "echo x >> /srv/more; wc -l < /srv/more", retries=2, until=lambda r: r.stdout == "2\n"
    )
    assert change.attempts == 2


def test_command_timeout(host: Bootstrap) -> None:
    started = time.monotonic()
    with pytest.raises(OperationTimeout, match="did not end within 0\\.5 seconds"):
        host.command("echo begun; sleep 73", timeout=0.5)
    with pytest.raises(OperationTimeout, match="begun"):
        host.execute("echo begun; sleep 73", timeout=0.5)
    assert time.monotonic() - started < 4
    assert ssh(host.ssh_alias, "pgrep -f '[s]leep 73'").stdout == ""
    assert host.execute("echo alive", capture=True).stdout == "alive\n"


# Reading ----------------------------------------------------------------------------------------


def test_facts(host: Bootstrap, machine: Container) -> None:
    facts = host.facts
    assert facts is host.facts
    assert facts.is_container
    assert facts.init == "supervisor"
    assert facts.hostname == machine.hostname
    assert facts.memory > 2**28
    assert facts.cpus >= 1


def test_read_file_and_stat_of_nothing(host: Bootstrap) -> None:
    assert host.read_file("/nothing") is None
    assert host.stat("/nothing") is None
    with pytest.raises(OperationFailed):
        host.read_file("/etc")


def double(values: list[int]) -> dict[str, list[int]]:
    import os

    return {os.uname().nodename: [2 * value for value in values]}


def lose() -> None:
    open("/no/such/file").close()


def test_call(host: Bootstrap, machine: Container) -> None:
    assert host.call(double, values=[1, 2]) == {machine.hostname: [2, 4]}
    with pytest.raises(FileNotFoundError) as caught:
        host.call(lose)
    error = caught.value
    assert isinstance(error, OperationFailed)
    assert error.remote_type == "FileNotFoundError"
    assert "in lose" in error.traceback
    assert "call lose" in str(error)


def test_call_refuses_what_cannot_travel(host: Bootstrap) -> None:
    local = 3

    def closure() -> int:
        return local

    def module_names() -> object:
        return Path

    def returns_object() -> object:
        return object()

    for function, message in ((closure, "local"), (module_names, "Path"), (lambda: 1, "def")):
        with pytest.raises(InvalidArgument, match=message):
            host.call(function)
    with pytest.raises(OperationFailed, match="cannot be sent"):
        host.call(returns_object)
    with pytest.raises(InvalidArgument, match="serialize"):
        host.call(double, values=object())
    assert host.call(double, values=[]) is not None


# Batches ----------------------------------------------------------------------------------------


def test_batch(host: Bootstrap) -> None:
    with host.batch():
        changes = [host.file(f"/srv/batch-{n}", str(n)) for n in range(50)]
        assert changes[3].changed
        changes += [host.file(f"/srv/batch-{n}", str(n)) for n in range(50)]
    assert [bool(change) for change in changes] == [True] * 50 + [False] * 50
    assert host.read_file("/srv/batch-49") == b"49"


def test_a_failure_ends_a_batch(host: Bootstrap) -> None:
    with pytest.raises(OperationFailed, match="/srv/none"), host.batch():
        host.file("/srv/before", "x")
        host.file("/srv/none/x", "x")
        host.file("/srv/after", "x")
    assert host.read_file("/srv/before") == b"x"
    assert host.stat("/srv/after") is None
    assert host.file("/srv/after", "x").changed


# Several hosts ----------------------------------------------------------------------------------


def test_run_collects_results_and_errors(
    machine: Container, make_machine: object, capfd: pytest.CaptureFixture[str]
) -> None:
    other: Container = make_machine("other")  # type: ignore[operator]

    def provision(host: Bootstrap) -> None:
        host.execute("echo greetings; printf unfinished")
        host.file("/srv/several", "x")
        if host.ssh_alias == other.ssh_alias:
            raise RuntimeError("on one only")

    results = run(provision, machine.ssh_alias, other.ssh_alias, jobs=2)
    assert list(results) == [machine.ssh_alias, other.ssh_alias]
    good, bad = results.values()
    assert not isinstance(good, Exception)
    assert good.summary().startswith(f"[{machine.ssh_alias}] 0 unchanged, 1 changed, 0 failed")
    assert isinstance(bad, RuntimeError)
    assert len(bad.history) == 1  # type: ignore[attr-defined]
    lines = capfd.readouterr().out.splitlines()
    for alias in (machine.ssh_alias, other.ssh_alias):
        assert f"[{alias}] greetings" in lines
        assert f"[{alias}] unfinished" in lines


def test_two_programs_do_not_mix(host: Bootstrap, machine: Container) -> None:
    aliases = [machine.ssh_alias] * 1
    host.file("/srv/counted", "")

    def provision(host: Bootstrap) -> None:
        for number in range(30):
            host.line("/srv/counted", f"{id(host)}-{number}")

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: run(provision, *aliases), range(3)))
    content = host.read_file("/srv/counted")
    assert content is not None
    assert len(set(content.splitlines())) == 90


# Arbitrary text ---------------------------------------------------------------------------------


@PROPERTY
@given(words=st.lists(TEXT, min_size=1, max_size=4))
def test_arguments_round_trip(host: Bootstrap, words: list[str]) -> None:
    result = host.execute("printf", "%s\\0", *words, capture=True)
    assert result.stdout.split("\0")[:-1] == words


@PROPERTY
@given(name=TEXT, content=TEXT)
def test_paths_and_contents_round_trip(host: Bootstrap, name: str, content: str) -> None:
    name = name.replace("/", "")
    if name in ("", ".", "..") or len(name.encode()) > 255:
        return
    path = "/srv/any/" + name
    host.directory("/srv/any")
    assert host.file(path, content).changed
    assert host.file(path, content).changed is False
    assert host.read_file(path) == content.encode()
    assert host.call(listing) == [name]
    assert host.file(path, state="absent").changed


def listing() -> list[str]:
    import os

    return os.listdir("/srv/any")


def test_bytes_that_are_no_text_survive(host: Bootstrap) -> None:
    path = "/srv/" + os.fsdecode(b"\xff\xfe")
    host.file(path, os.fsdecode(b"\x80"))
    assert host.read_file(path) == b"\x80"
    assert host.execute("ls", path, capture=True, check=False).returncode == 0


# Secrets ----------------------------------------------------------------------------------------


def test_secrets_are_nowhere_to_be_seen(
    machine: Container, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    import traceback

    sentinel = "s3ntinel-of-$ecrecy"
    secret = Secret(sentinel)
    texts: list[str] = [repr(secret), str(secret), f"{secret}"]
    caplog.set_level(0)
    with Bootstrap(machine.ssh_alias, diff=True) as host:
        changes = [
            host.file("/srv/secret", secret),
            host.template("/srv/secret2", "password={{ p }}\n", {"p": secret}),
            host.line("/srv/secret2", secret),
            host.user("keeper", password_hash=Secret(sentinel + "hash")),
            host.command('test -n "$P"; cat', input=secret, env={"P": secret}),
            host.file("/srv/secret2", "something else\n"),
        ]
        assert host.read_file("/srv/secret") == sentinel.encode()
        host.execute("echo $P", env={"P": secret})
        captured = host.execute("cat", input=secret, capture=True)
        assert captured.stdout == sentinel
        texts.append(repr(captured))
        for failing in (
            lambda: host.command("cat >&2; exit 1", input=secret),
            lambda: host.execute("cat >&2; exit 1", input=secret),
            lambda: host.file("/nowhere/x", secret),
            lambda: host.file("/srv/x", secret, validate="cat %s /nowhere"),
            lambda: host.call(raise_it, value=secret),
            lambda: host.user("keeper", home="/" + sentinel, shell="/bin/sh", uid=0),
        ):
            try:
                failing()
            except Exception:
                texts.append(traceback.format_exc().replace("sentinel", ""))
            else:
                pytest.fail("it did not fail")
        texts += [str(change) + repr(change) + change.diff for change in changes]
        texts.append(host.history.to_json())
        with pytest.raises(InvalidArgument, match="list of processes"):
            host.execute("echo", secret)  # type: ignore[arg-type]
        # A process that got a secret, seen from outside while it runs.
        from threading import Thread

        thread = Thread(
            target=host.command,
            args=("sleep 1; cat",),
            kwargs={"input": secret, "env": {"P": secret}},
        )
        thread.start()
        time.sleep(0.4)
        texts.append(ssh(machine.ssh_alias, "ps auxww").stdout)
        texts.append(subprocess.run(["ps", "auxww"], capture_output=True, text=True).stdout)
        thread.join()
    output = capfd.readouterr()
    texts += [output.out, output.err, caplog.text]
    for text in texts:
        assert sentinel not in text
    assert "********" in caplog.text + output.out


def raise_it(value: str) -> None:
    raise ValueError(value)
