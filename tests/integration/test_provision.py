"""The command redock provision, with the example and with scripts that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from redock import provision
from redock.api import Container
from redock.bootstrap import ChangeList
from redock.cli import make_parser
from redock.errors import ConnectionFailed, InvalidArgument, OperationFailed, SeveralFailed

from .conftest import command, ssh

EXAMPLE = Path(__file__).parents[2] / "examples" / "provision_nginx.py"


def main(*arguments: str) -> int:
    """Run the command as the program does."""
    return provision.main(make_parser().parse_args(["provision", *arguments]))


def snapshot(machine: Container) -> set[str]:
    """The file system of a machine, but for what running programs write."""
    found = machine._find_machine()
    assert found is not None
    script = (
        "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log"
    )
    script += " \\) -prune -o -printf '%p %y %m %U:%G %s %T@ %C@ %l\\n'"
    return set(
        command("docker", "exec", found.id, "sh", "-c", script, check=True).stdout.splitlines()
    )


def history(results: dict[str, ChangeList | Exception]) -> ChangeList:
    """The changes of the only host."""
    (result,) = results.values()
    assert isinstance(result, ChangeList), result
    return result


def test_the_example_provisions_a_real_service(machine: Container) -> None:
    name = machine.image.name
    # Not part of what is predicted: package lists age by themselves.
    assert ssh(machine.ssh_alias, "apt-get -q update", timeout=120).returncode == 0
    before = snapshot(machine)
    predicted = history(provision.provision([name], EXAMPLE, dry_run=True, diff=True))
    assert snapshot(machine) == before
    first = history(provision.provision([name], EXAMPLE, diff=True))
    for guess, fact in zip(predicted, first, strict=True):
        assert (guess.op, guess.target) == (fact.op, fact.target)
        assert guess.dry_run
        if guess.changed is None:
            # Below directories that the package creates; or removing what it creates.
            assert "nginx-light" in guess.reason
            continue
        assert guess.changed == fact.changed, guess
        if guess.op != "service":
            assert guess.changes == fact.changes, guess
            assert guess.diff == fact.diff
    assert {guess.target for guess in predicted.unknown} <= {
        "/etc/nginx/sites-available/site",
        "/etc/nginx/sites-enabled/site",
        "/etc/nginx/sites-enabled/default",
        "nginx",
    }
    assert len(first.changed) == len(first)
    page = ssh(
        machine.ssh_alias,
        "python3 -c 'import urllib.request as u;"
        ' r = u.urlopen("http://127.0.0.1:8080/"); print(r.headers["X-Provisioned-By"],'
        " r.read().decode())'",
    ).stdout
    assert "redock" in page
    assert f"This is {machine.hostname}." in page
    before = snapshot(machine)
    pid = ssh(machine.ssh_alias, "supervisorctl pid nginx").stdout
    second = history(provision.provision([name], EXAMPLE, diff=True))
    assert [str(change) for change in second if change] == []
    assert snapshot(machine) == before
    assert ssh(machine.ssh_alias, "supervisorctl pid nginx").stdout == pid
    again = history(provision.provision([name], EXAMPLE, dry_run=True))
    assert [str(change) for change in again if change] == []


def test_a_change_of_the_configuration_restarts(machine: Container) -> None:
    pid = ssh(machine.ssh_alias, "supervisorctl pid nginx").stdout
    ssh(machine.ssh_alias, "echo '# by hand' >> /etc/nginx/sites-available/site")
    changes = history(provision.provision([machine.ssh_alias], EXAMPLE))
    assert [change.op for change in changes if change] == ["template", "service"]
    assert ssh(machine.ssh_alias, "supervisorctl pid nginx").stdout != pid


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Write a script."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(text)
        return str(path)

    return write


GREETING = """
def provision(host):
    host.file("/srv/greeting", "hello\\n")
    host.execute("echo from the command")
    host.file("/srv/greeting", "hello\\n")
"""


def test_what_is_printed(
    machine: Container, script: Callable[[str], str], capfd: pytest.CaptureFixture[str]
) -> None:
    alias = machine.ssh_alias
    path = script(GREETING)
    assert main(alias, path, "--dry-run", "--diff") == 0
    shown = capfd.readouterr()
    assert shown.out == "--- /srv/greeting\n+++ /srv/greeting\n@@ -0,0 +1 @@\n+hello\n"
    lines = shown.err.splitlines()
    assert lines[0].startswith(f"[{alias}] file /srv/greeting: content changed (+1 -0)")
    assert lines[-1].startswith(f"[{alias}] 1 unchanged, 1 changed, 0 failed, 0 unknown in ")
    assert main(alias, path, "--json") == 0
    shown = capfd.readouterr()
    assert f"[{alias}] from the command\n" in shown.err
    (result,) = json.loads(shown.out)
    assert (result["host"], result["ok"], result["changed"]) == (alias, True, 1)
    assert [change["changed"] for change in result["changes"]] == [True, False]


def test_several_hosts_and_failures(
    machine: Container,
    make_machine: Callable[[str], Container],
    script: Callable[[str], str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    other = make_machine("other")
    path = script(
        "def provision(host):\n"
        "    host.file('/srv/before', 'x')\n"
        f"    if host.ssh_alias == {other.ssh_alias!r}:\n"
        "        host.file('/srv/none/file', 'x')\n"
    )
    with pytest.raises(OperationFailed, match="/srv/none"):
        main(machine.image.name, other.image.name, path, "-j", "2", "--json")
    shown = capfd.readouterr()
    good, bad = json.loads(shown.out)
    assert (good["ok"], bad["ok"], bad["changed"]) == (True, False, 1)
    assert "/srv/none" in bad["errors"][0]
    assert "0 unchanged, 1 changed, 1 failed" in shown.err
    path = script("def provision(host):\n    host.facts\n    1 / 0\n")
    with pytest.raises(SeveralFailed, match=r"ZeroDivisionError: division by zero .*line 3"):
        main(machine.ssh_alias, other.ssh_alias, path)


def test_a_host_that_is_not_there(script: Callable[[str], str]) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        main("root@127.0.0.1", script("def provision(host):\n    host.facts\n"))
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def provision(host:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("x = 1\n", "does not define provision"),
        ("provision = 1\n", "does not define provision"),
    ],
)
def test_scripts_that_cannot_be_used(
    machine: Container, script: Callable[[str], str], text: str, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        main(machine.ssh_alias, script(text))
    with pytest.raises(InvalidArgument, match="cannot read the script"):
        main(machine.ssh_alias, "/no/such/script.py")
