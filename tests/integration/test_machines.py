"""The main job: machines one can SSH into, from start to delete."""

from __future__ import annotations

import os
import pty
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redock._engine import Engine, label
from redock._recipe import NO_IDENTITY
from redock.api import Container, NoContainerRunning
from redock.errors import AliasTaken, SecureShellTimeout
from redock.utils import RemoteTerminal

from .conftest import REDOCK, Home, command, new_name, redock, ssh


def test_start_commit_kill_start_keeps_the_disk(home: Home, name: str) -> None:
    container = Container(name)
    alias = container.ssh_alias
    started = redock("start", name)
    assert started.returncode == 0, started.stderr
    assert started.stdout == f"ssh {alias}\n"
    assert ssh(alias, "echo kept >/root/file; touch /etc/also").returncode == 0
    assert redock("commit", name, "-m", "a file").returncode == 0
    assert ssh(alias, "touch /root/lost").returncode == 0
    assert redock("kill", name).returncode == 0
    assert ssh(alias, "true").returncode == 255
    assert redock("start", name).returncode == 0
    assert ssh(alias, "cat /root/file; ls /etc/also /root/lost").stdout == "kept\n/etc/also\n"
    assert redock("kill", name).returncode == 0
    assert redock("delete", name).returncode == 0
    assert Container(name).find_image(container.image) is None


def test_plain_ssh_says_nothing_and_asks_nothing(container: Container) -> None:
    done = ssh(container.ssh_alias, "printf out; printf err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("out", "err", 3)


def test_hostname_and_login(container: Container) -> None:
    done = ssh(container.ssh_alias, "hostname; id -un; locale charmap")
    assert done.stdout.split() == [container.image.tag, "root", "UTF-8"]


def test_copying_works_as_with_any_host(container: Container, tmp_path: Path) -> None:
    alias = container.ssh_alias
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a b").write_text("one")
    command("scp", "-q", str(tmp_path / "tree" / "a b"), f"{alias}:/root/copied", check=True)
    command("rsync", "-a", str(tmp_path / "tree"), f"{alias}:/srv/", check=True)
    batch = tmp_path / "batch"
    batch.write_text("get /root/copied " + str(tmp_path / "back") + "\n")
    done = command("sftp", "-b", str(batch), alias)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back").read_text() == "one"
    assert ssh(alias, "cat '/srv/tree/a b'").stdout == "one"


def test_ssh_knows_the_machine_as_editors_ask(container: Container) -> None:
    options = dict(
        line.split(" ", 1) for line in command("ssh", "-G", container.ssh_alias).stdout.splitlines()
    )
    assert options["hostname"] == "127.0.0.1"
    assert options["stricthostkeychecking"] in ("yes", "true")
    assert options["user"] == "root"
    assert options["forwardagent"] == "no"


def test_thirty_sessions_at_once(container: Container) -> None:
    sessions = [
        subprocess.Popen(
            ["ssh", container.ssh_alias, "sleep 2; echo done"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(30)
    ]
    outcomes = [session.communicate(timeout=120) for session in sessions]
    assert outcomes == [("done\n", "")] * 30


def test_starting_a_running_machine_connects_to_it(container: Container) -> None:
    before = container.session.container_id
    again = Container(container.image)
    again.start()
    assert again.session.container_id == before
    assert not again.created


def test_an_interactive_start_opens_a_session_and_returns_its_status(
    home: Home, name: str, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    output, status = on_terminal([*REDOCK, "start", name], b"tty && exit 7\n")
    assert b"/dev/pts/" in output
    assert status == 7
    assert Container(name).find_container()


def on_terminal(arguments: list[str], typed: bytes) -> tuple[bytes, int]:
    """Run a program on a terminal and type something when it is quiet."""
    child, terminal = pty.fork()
    if not child:
        os.execvp(arguments[0], arguments)
    output, sent, deadline = b"", False, time.monotonic() + 90
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([terminal], [], [], 0.5)
            if ready:
                try:
                    data = os.read(terminal, 65536)
                except OSError:
                    break
                if not data:
                    break
                output += data
            elif not sent and b"#" in output:
                os.write(terminal, typed)
                sent = True
    finally:
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    return output, os.waitstatus_to_exitcode(status)


def test_several_names_side_by_side_and_one_failure_stops_nobody(home: Home) -> None:
    names = [new_name("several") for _ in range(3)]
    # Its alias is that of the first: one of the two gets it.
    twin = names[0].replace(":", "x:")
    done = redock("start", *names, twin)
    try:
        assert done.returncode == 1
        assert "1 of 4 failed" in done.stderr and "--hostname" in done.stderr
        assert "Traceback" not in done.stderr
        running = [name for name in (*names, twin) if Container(name).find_container()]
        assert len(running) == 3 and set(names[1:]) < set(running)
        for each in running:
            assert ssh(Container(each).ssh_alias, "true").returncode == 0
    finally:
        killed = redock("kill", *running)
    assert killed.returncode == 0, killed.stderr


def test_a_stopped_machine_comes_back_with_its_disk(container: Container, engine: Engine) -> None:
    alias, port = container.ssh_alias, container.session.port
    assert ssh(alias, "echo here >/root/file").returncode == 0
    engine.request("POST", f"/containers/{container.session.container_id}/stop", "stop")
    assert not Container(container.image).find_container()
    again = Container(container.image)
    again.start()
    assert again.session.port == port
    assert ssh(alias, "cat /root/file").stdout == "here\n"


def test_a_restart_by_the_engine_keeps_the_way_in(container: Container, engine: Engine) -> None:
    alias = container.ssh_alias
    engine.request("POST", f"/containers/{container.session.container_id}/restart", "restart")
    assert container.ssh_endpoint == ("127.0.0.1", container.session.port)
    done = ssh(alias, "echo in")
    assert (done.stdout, done.stderr) == ("in\n", "")


def test_a_paused_machine_is_resumed(container: Container, engine: Engine) -> None:
    assert container.session.container_id
    engine.pause(container.session.container_id)
    Container(container.image).start()
    assert ssh(container.ssh_alias, "true").returncode == 0


@pytest.mark.parametrize("busy", [False, True])
def test_a_machine_that_turns_out_to_be_paused_is_resumed_unless_somebody_works_on_it(
    container: Container, engine: Engine, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    again = Container(container.image, timeout=2 if busy else 60)
    launch, lock = again._launch, again._lock

    def launch_and_pause(*args: object) -> None:
        # So does an engine that was killed during a commit, a moment after its start.
        launch(*args)  # type: ignore[arg-type]
        assert container.session.container_id
        engine.pause(container.session.container_id)
        if busy:
            lock.acquire()

    monkeypatch.setattr(again, "_launch", launch_and_pause)
    if busy:
        with pytest.raises(SecureShellTimeout):
            again.start()
        lock.release()
        assert container.status().state == "paused"
        container.resume()
    else:
        again.start()
    assert ssh(container.ssh_alias, "true").returncode == 0


def test_commit_of_nothing_running(home: Home, name: str) -> None:
    with pytest.raises(NoContainerRunning):
        Container(name).commit()
    done = redock("commit", name)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1


def test_the_context_manager_removes_what_it_made(home: Home, name: str) -> None:
    with Container(name) as container:
        assert ssh(container.ssh_alias, "true").returncode == 0
    assert container._find_machine() is None


def test_the_context_manager_leaves_what_was_there(container: Container) -> None:
    with Container(container.image):
        pass
    assert container.find_container()


def test_the_same_alias_is_never_given_twice(container: Container) -> None:
    twin = container.image.name.replace(":", "x:")
    with pytest.raises(AliasTaken, match=container.image.name):
        Container(twin).start()
    with Container(twin, hostname="other-name") as other:
        assert other.ssh_alias == "other-name-container"
        assert ssh(other.ssh_alias, "hostname").stdout == "other-name\n"


def test_an_alias_of_the_users_own_is_respected(fresh_home: Home, name: str) -> None:
    alias = Container(name).ssh_alias
    fresh_home.ssh_config.parent.mkdir(mode=0o700)
    fresh_home.ssh_config.write_text(f"Host {alias}\n  HostName 192.0.2.1\n")
    with pytest.raises(AliasTaken, match=r"192\.0\.2\.1"):
        Container(name).start()
    assert Container(name)._find_machine() is None


def test_the_client_command_works_by_itself(container: Container) -> None:
    done = command(*container.get_ssh_client_command(), "echo in")
    assert done.stdout == "in\n"
    _, port = container.ssh_endpoint
    done = command(*container.get_ssh_client_command("localhost", port), "echo in")
    assert done.stdout == "in\n", done.stderr


def test_after_the_last_kill_the_configuration_is_as_it_was(fresh_home: Home, name: str) -> None:
    original = b"# mine\r\nHost other\r\n  Port 2222"
    fresh_home.ssh_config.parent.mkdir(mode=0o700)
    target = fresh_home.path / "dotfiles"
    target.write_bytes(original)
    target.chmod(0o640)
    fresh_home.ssh_config.symlink_to(target)
    assert redock("start", name).returncode == 0
    assert ssh(Container(name).ssh_alias, "true").returncode == 0
    assert target.read_bytes() != original
    assert redock("kill", name).returncode == 0
    assert redock("ssh-config", "remove").returncode == 0
    assert fresh_home.ssh_config.is_symlink()
    assert target.read_bytes() == original
    assert target.stat().st_mode & 0o777 == 0o640
    assert not list((fresh_home.redock / "ssh" / "known_hosts.d").iterdir())
    assert not list((fresh_home.redock / "ssh" / "s").iterdir())


def test_supervisor_looks_after_sshd(container: Container) -> None:
    alias = container.ssh_alias
    status = ssh(alias, "supervisorctl status sshd")
    assert "RUNNING" in status.stdout, status.stdout + status.stderr
    listener = "cat /run/sshd.pid"
    first = ssh(alias, listener).stdout
    ssh(alias, f"kill -9 {first}")
    deadline = time.monotonic() + 10
    while (second := ssh(alias, listener).stdout) == first and time.monotonic() < deadline:
        time.sleep(0.1)
    assert second != first
    assert command("ssh", "-S", "none", alias, "true").returncode == 0
    ssh(alias, "supervisorctl restart sshd")
    third = ssh(alias, listener).stdout
    assert third not in (first, second)
    assert command("ssh", "-S", "none", alias, "true").returncode == 0


def test_dist_upgrade_and_install_work_inside(container: Container) -> None:
    upgraded = ssh(container.ssh_alias, "apt-get -y dist-upgrade", timeout=300)
    assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
    installed = ssh(container.ssh_alias, "apt-get -y install tree && tree --version", timeout=300)
    assert installed.returncode == 0, installed.stdout + installed.stderr


def test_hostname_is_remembered_by_the_image(home: Home, name: str) -> None:
    with Container(name, hostname="special") as container:
        container.commit()
    with Container(name) as again:
        assert again.ssh_alias == "special-container"
        assert ssh(again.ssh_alias, "hostname").stdout == "special\n"
    again.delete()


def test_an_engine_on_a_loopback_port_works_as_well(home: Home, name: str) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=forward_all, args=(server,), daemon=True).start()
    env = {"DOCKER_HOST": f"tcp://127.0.0.1:{server.getsockname()[1]}"}
    try:
        started = redock("start", name, env=env)
        assert started.returncode == 0, started.stderr
        assert ssh(Container(name).ssh_alias, "true").returncode == 0
        assert redock("commit", name, env=env).returncode == 0
        assert redock("kill", name, env=env).returncode == 0
        assert redock("delete", name, env=env).returncode == 0
    finally:
        server.close()


def forward_all(server: socket.socket) -> None:
    """Pass every connection on to the engine's socket."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=forward, args=(client,), daemon=True).start()


def forward(client: socket.socket) -> None:
    """Pass one connection on."""
    with client, socket.socket(socket.AF_UNIX) as engine:
        engine.connect("/var/run/docker.sock")
        back = threading.Thread(target=pump, args=(engine, client), daemon=True)
        back.start()
        pump(client, engine)
        back.join(timeout=300)


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes, and that nothing more comes."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_a_machine_that_never_got_its_identity_gets_one(
    home: Home, name: str, base_image: str, engine: Engine, remove_machine: Callable[[str], None]
) -> None:
    """What is left when the first start is killed before it hands over the keys."""
    remove_machine(name)
    killed = Container(name)
    container = killed._create_container(base_image, "0123456789ab", 31999)
    stream = engine.attach(container, "stdin")
    engine.begin_start(container).result()
    stream.close()
    deadline = time.monotonic() + 30
    while engine.inspect_container(container)["State"]["Running"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.inspect_container(container)["State"]["ExitCode"] == NO_IDENTITY
    done = redock("start", name)
    assert done.returncode == 0, done.stderr
    assert ssh(killed.ssh_alias, "cat /etc/redock/ssh/instance").stdout == "0123456789ab\n"


def test_a_lost_directory_of_redocks_is_made_anew(container: Container, home: Home) -> None:
    shutil.rmtree(home.redock)
    done = redock("start", container.image.name)
    assert done.returncode == 0, done.stderr
    assert ssh(container.ssh_alias, "true").returncode == 0


def test_the_output_of_a_machine_can_be_watched(
    container: Container, capfd: pytest.CaptureFixture[str]
) -> None:
    assert container.session.container_id
    with RemoteTerminal(container.session.container_id):
        deadline = time.monotonic() + 30
        seen = ""
        while "shown on the terminal" not in seen and time.monotonic() < deadline:
            # Again and again: what is printed before it is attached is not shown.
            ssh(container.ssh_alias, "echo shown on the terminal >/proc/1/fd/1")
            time.sleep(0.2)
            seen += capfd.readouterr().out
    assert "shown on the terminal" in seen
    assert container.find_container()


def test_what_went_behind_our_back_leaves_nothing(
    home: Home, name: str, engine: Engine, remove_machine: Callable[[str], None]
) -> None:
    remove_machine(name)
    gone = Container(name)
    gone.start()
    first = gone.session.instance
    assert gone.session.container_id
    engine.remove_container(gone.session.container_id)
    assert redock("kill", name).returncode == 0
    assert redock("kill", name).returncode == 3
    gone.start()
    assert gone.session.container_id
    engine.remove_container(gone.session.container_id)
    again = Container(name)
    again.start()
    assert ssh(again.ssh_alias, "true").returncode == 0
    volumes = engine.volumes({"label": [f"{label('name')}={name}"]})
    assert [volume["Labels"][label("instance")] for volume in volumes] == [again.session.instance]
    known = {path.name for path in (home.redock / "ssh" / "known_hosts.d").iterdir()}
    assert again.session.instance in known and first not in known
