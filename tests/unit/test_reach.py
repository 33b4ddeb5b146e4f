"""Ways into machines: command lines, places, ports, addresses, archives; no engine needed."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redock import _archive, _copy, _editor, _forward, _keeper, _session, _ssh, cli
from redock._command import remote_text, words_of
from redock._copy import landing, split_place
from redock._forward import Ports, parse_ports
from redock._reach import sync_command
from redock.api import Container
from redock.errors import InvalidArgument, NotFound, RedockError, Timeout
from tests.unit.conftest import as_nobody, run_many

# Commands.

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(WORDS, min_size=2, max_size=5))
@example(["printf", "-x", "it's", "$HOME", "a\nb"])
def test_words_arrive_as_they_are(words: list[str]) -> None:
    text = remote_text(["printf", r"%s\0", *words])
    done = subprocess.run(["sh", "-c", text], capture_output=True, check=True)
    assert done.stdout == "".join(f"{word}\0" for word in words).encode()


def test_one_word_is_text_for_the_shell() -> None:
    assert words_of(["a | b"]) == ["sh", "-c", "a | b"]
    assert words_of(["a", "| b"]) == ["a", "| b"]
    assert remote_text(["ls -l"], 2.5) == "timeout --kill-after=2 2.5 sh -c 'ls -l'"


@pytest.mark.parametrize("command", [["-x"], ["-x", "y"]])
def test_a_hyphen_in_front_is_no_option_of_the_shell(command: list[str]) -> None:
    done = subprocess.run(["sh", "-c", remote_text(command)], capture_output=True, check=False)
    assert done.returncode == 127


@pytest.mark.parametrize("command", [[], ["a\0b"], ["a", "\0"], [1]])
def test_what_no_program_can_be_given_is_refused(command: Any) -> None:
    with pytest.raises(InvalidArgument):
        words_of(command)


# The process that becomes ssh.


class Became(Exception):
    """The process became another program."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the process became, and a session for whoever asks."""
    seen: list[list[str]] = []

    def note(program: str, command: list[str]) -> None:
        seen.append(command)
        raise Became

    monkeypatch.setattr(os, "execvp", note)
    return seen


@pytest.mark.parametrize(
    ("words", "behind"),
    [
        ([], []),
        (["true"], ["--", "true"]),
        (["--", "ls | wc"], ["--", "ls | wc"]),
        (["ls", "a b"], ["--", "ls 'a b'"]),
        (["--", "--", "x"], ["--", " -- x"]),
        (["-x"], ["--", " -x"]),
    ],
)
def test_a_machine_that_is_up_is_entered_without_delay(
    words: list[str], behind: list[str], became: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_session, "find_warm", lambda engine, name: f"{name[3:]}-container")
    monkeypatch.setattr(cli, "make_parser", lambda: pytest.fail("the parser is not needed"))
    with pytest.raises(Became):
        cli.run(["ssh", "web", *words])
    assert became == [["ssh", "-F", _ssh.config_file(), "web-container", *behind]]


@pytest.mark.parametrize("verb", ["ssh", "shell"])
def test_a_machine_that_is_not_up_is_brought_up_first(
    verb: str, became: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[str] = []
    monkeypatch.setattr(_session, "find_warm", lambda engine, name: None)
    monkeypatch.setattr(Container, "bring_up", lambda self: brought.append(self.image.name))
    with pytest.raises(Became):
        cli.run([verb, "web", "--", "exit 3"])
    assert brought == ["me:web"]
    assert became[0][-3:] == ["web-container", "--", "exit 3"]


def test_a_shared_connection_answers_or_is_not_there(redock_home: Path) -> None:
    path = _ssh.control_path("abc")
    assert path is not None
    assert not _keeper.is_shared("abc")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        # Somebody who was killed left the socket behind.
        assert not _keeper.is_shared("abc")


# Places.


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("web:/srv/x", "web", "/srv/x"),
        ("web:x", "web", "x"),
        ("web:", "web", ""),
        ("sam:web:/srv/x", "sam:web", "/srv/x"),
        ("sam:web:x", "sam:web", "x"),
        ("host:5000/sam/a:web:/x:y", "host:5000/sam/a:web", "/x:y"),
        ("web:/a:/b", "web", "/a:/b"),
        ("file", None, "file"),
        ("-", None, "-"),
        ("./a:b", None, "./a:b"),
        ("../a:b", None, "../a:b"),
        ("/a:/b", None, "/a:/b"),
    ],
)
def test_a_place_is_here_or_in_a_machine(text: str, name: str | None, path: str) -> None:
    assert split_place(text) == (name, path)


KINDS = {"/d": "directory", "/": "directory", "/f": "file", ".": "directory", "/d/": "directory"}


@pytest.mark.parametrize(
    ("target", "name", "directory", "expected"),
    [
        ("/new", "f", False, ("/", "new")),
        ("/d", "f", False, ("/d", "f")),
        ("/d/", "f", False, ("/d/", "f")),
        ("/f", "g", False, ("/", "f")),
        ("/new/", "f", False, None),
        ("/missing/new", "f", False, None),
        ("new", "f", False, (".", "new")),
        ("/new", "t", True, ("/", "new")),
        ("/new/", "t", True, ("/", "new")),
        ("/d", "t", True, ("/d", "t")),
        ("/d", ".", True, ("/d", "")),
        ("/new", ".", True, ("/", "new")),
        ("/f", "t", True, None),
    ],
)
def test_copies_land_as_with_docker(
    target: str, name: str, directory: bool, expected: tuple[str, str] | None
) -> None:
    if expected is None:
        with pytest.raises(RedockError):
            landing(target, name, directory, KINDS.get)
    else:
        assert landing(target, name, directory, KINDS.get) == expected


def test_copying_needs_a_machine_on_one_side() -> None:
    mistakes = [["cp", "a", "b"], ["cp", "-", "-"], ["sync", "a", "b"], ["sync", "a:/x", "b:/y"]]
    for command, done in run_many(mistakes):
        assert (done.returncode, done.stdout) == (2, ""), command
        assert done.stderr.startswith("redock: ") and done.stderr.count("\n") == 1


# Archives.


def make_tree(root: Path) -> None:
    """Make files with all kinds of names, permissions and links."""
    (root / "sub").mkdir(parents=True)
    for name in ("-dash", "new\nline", "ä ö", "x" * 200, os.fsdecode(b"latin-\xe4")):
        (root / "sub" / name).write_text(name, errors="surrogateescape")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o4751)
    (root / "link").symlink_to("sub/-dash")
    os.link(root / "run", root / "hard")
    (root / "empty").mkdir(mode=0o700)
    (root / "sealed").mkdir()
    (root / "sealed" / "file").write_bytes(bytes(1000))
    os.utime(root / "sealed" / "file", (1e9, 1e9))
    (root / "sealed").chmod(0o555)


def listing(root: Path) -> dict[str, tuple[int, float, object]]:
    """Describe a tree."""
    found: dict[str, tuple[int, float, object]] = {}
    for path in sorted([root, *root.rglob("*")]):
        about = path.lstat()
        what: object = None
        if path.is_symlink():
            found[str(path.relative_to(root))] = (0, 0.0, os.readlink(path))
            continue
        if path.is_file():
            what = path.read_bytes()
        found[str(path.relative_to(root))] = (about.st_mode & 0o777, about.st_mtime, what)
    return found


@pytest.mark.parametrize("again", [False, True])
def test_a_tree_is_packed_and_unpacked(again: bool, tmp_path: Path) -> None:
    make_tree(tmp_path / "a")
    pieces = _archive.pack(str(tmp_path / "a"), "called")
    if again:
        pieces = _archive.repack(pieces, "other")
    _archive.unpack(pieces, str(tmp_path), str(tmp_path / "b"))
    assert listing(tmp_path / "b") == listing(tmp_path / "a")
    assert (tmp_path / "b" / "hard").stat().st_nlink == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_directories_nobody_may_write_to_are_unpacked_without_privileges(sandbox: Path) -> None:
    make_tree(sandbox / "a")

    def copy() -> None:
        pieces = _archive.pack(str(sandbox / "a"), "a")
        _archive.unpack(pieces, str(sandbox), str(sandbox / "b"))
        assert listing(sandbox / "b") == listing(sandbox / "a")
        assert sorted(os.listdir(sandbox)) == ["a", "b"]

    (sandbox / "home").rmdir()
    as_nobody(sandbox, copy)


def test_everything_in_an_archive_belongs_to_root(tmp_path: Path) -> None:
    make_tree(tmp_path / "a")
    if os.geteuid() == 0:
        os.chown(tmp_path / "a" / "run", 1234, 1234)
    packed = io.BytesIO(b"".join(_archive.pack(str(tmp_path / "a"), "a")))
    with tarfile.open(fileobj=packed) as tar:
        owners = {(each.uid, each.gid, each.uname) for each in tar}
    assert owners == {(0, 0, "root")}


def archive(*members: tuple[str, bytes, dict[str, Any]]) -> list[bytes]:
    """Make an archive nobody should have made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, contents, more in members:
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            for key, value in more.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(contents))
    return [buffer.getvalue()]


DIRECTORY = {"type": tarfile.DIRTYPE, "mode": 0o755}


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> dict[str, Any]:
    """What makes a member a link."""
    return {"type": kind, "linkname": target}


HOSTILE: dict[str, list[tuple[str, bytes, dict[str, Any]]]] = {
    "a link and a file through it": [
        ("t", b"", DIRECTORY),
        ("t/x", b"", link("..")),
        ("t/x/victim", b"evil", {}),
    ],
    "an absolute link": [("t", b"", DIRECTORY), ("t/x", b"", link("/etc/passwd"))],
    "a link through a link": [
        ("t", b"", DIRECTORY),
        ("t/b", b"", link(".")),
        ("t/c", b"", link("b/../..")),
    ],
    "a chain that loses its middle": [
        ("t", b"", DIRECTORY),
        ("t/a", b"", link("b/etc")),
        ("t/b", b"", link("/")),
    ],
    "a device": [("t", b"", DIRECTORY), ("t/x", b"", {"type": tarfile.CHRTYPE})],
    "a fifo": [("t", b"", DIRECTORY), ("t/x", b"", {"type": tarfile.FIFOTYPE})],
    "a hard link to a device": [
        ("t", b"", DIRECTORY),
        ("t/x", b"", {"type": tarfile.CHRTYPE}),
        ("t/y", b"", link("t/x", tarfile.LNKTYPE)),
    ],
    "a hard link outwards": [("t", b"", DIRECTORY), ("t/x", b"", link("/etc/passwd", b"1"))],
    "a name with dots": [("t", b"", DIRECTORY), ("t/../../victim", b"evil", {})],
    "an absolute name": [("t", b"", DIRECTORY), ("/victim", b"evil", {})],
    "a link alone": [("t", b"", link("/etc/passwd"))],
    "a link alone, upwards": [("t", b"", link(".."))],
    "another root": [("t", b"", DIRECTORY), ("other", b"evil", {})],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_gets_out_of_the_directory(
    members: list[tuple[str, bytes, dict[str, Any]]], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "in").mkdir()
    try:
        _archive.unpack(archive(*members), str(tmp_path / "in"), str(tmp_path / "in" / "copy"))
    except RedockError:
        assert os.listdir(tmp_path / "in") == []
    else:
        inside = os.path.realpath(tmp_path / "in" / "copy")
        for path in (tmp_path / "in").rglob("*"):
            assert os.path.realpath(path).startswith(inside)
            assert path.is_file() or path.is_dir() or path.is_symlink()
    assert victim.read_text() == "untouched"
    assert sorted(os.listdir(tmp_path)) == ["in", "victim"]


def test_what_is_cut_off_leaves_nothing_behind(tmp_path: Path) -> None:
    make_tree(tmp_path / "a")
    whole = b"".join(_archive.pack(str(tmp_path / "a"), "a"))

    def broken() -> Any:
        yield whole[: len(whole) // 2]
        raise RedockError("the connection broke")

    for pieces in (broken(), iter([whole[:2000]]), iter([whole[:-1024]])):
        with pytest.raises(RedockError):
            _archive.unpack(pieces, str(tmp_path), str(tmp_path / "b"))
        assert os.listdir(tmp_path) == ["a"]


def test_directories_that_exist_take_up_what_is_new(tmp_path: Path) -> None:
    make_tree(tmp_path / "a")
    (tmp_path / "b" / "sub").mkdir(parents=True)
    (tmp_path / "b" / "sub" / "kept").write_text("kept")
    (tmp_path / "b" / "run").write_text("old")
    pieces = _archive.pack(str(tmp_path / "a"), "a")
    _archive.unpack(pieces, str(tmp_path), str(tmp_path / "b"), merge=True)
    assert (tmp_path / "b" / "sub" / "kept").read_text() == "kept"
    assert (tmp_path / "b" / "run").read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize("way", ["a file for a directory", "a directory for a file", "a link"])
def test_what_is_in_the_way_is_left_alone(way: str, tmp_path: Path) -> None:
    make_tree(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "elsewhere").mkdir()
    if way == "a link":
        (tmp_path / "b" / "sub").symlink_to(tmp_path / "elsewhere")
    elif way == "a file for a directory":
        (tmp_path / "b" / "sub").write_text("mine")
    else:
        (tmp_path / "b" / "run").mkdir()
    pieces = _archive.pack(str(tmp_path / "a"), "a")
    with pytest.raises(RedockError, match="in the way"):
        _archive.unpack(pieces, str(tmp_path), str(tmp_path / "b"), merge=True)
    assert os.listdir(tmp_path / "elsewhere") == []


@given(st.binary(max_size=3000))
def test_a_stream_becomes_a_file(data: bytes) -> None:
    pieces = _archive.pack_stream(io.BytesIO(data), "name")
    assert b"".join(_archive.contents(pieces)) == data


def test_only_a_file_has_contents() -> None:
    with pytest.raises(RedockError, match="single file"):
        list(_archive.contents(archive(("t", b"", DIRECTORY))))


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(RedockError, match="shorter"):
        list(_archive.body(io.BytesIO(b"abc"), 10, "file"))


def test_a_place_in_a_machine_follows_links() -> None:
    class Engine:
        def stat_path(self, container: str, path: str) -> dict[str, Any] | None:
            modes = {"/l": (1 << 27, "/m"), "/m": (1 << 27, "d"), "/d": (1 << 31, "")}
            mode, target = modes.get(path, (0, ""))
            if path == "/loop":
                mode, target = 1 << 27, "/loop"
            return {"mode": mode, "linkTarget": target} if path != "/none" else None

    files = _copy.Files(Engine(), "id", "web", True)  # type: ignore[arg-type]
    assert files.resolve("/l") == ("/d", "directory")
    assert files.resolve("x") == ("/root/x", "file")
    assert files.kind("/none") is None
    with pytest.raises(RedockError, match="too many links"):
        files.resolve("/loop")
    with pytest.raises(NotFound):
        files.source("/none")
    with pytest.raises(InvalidArgument):
        files.source("/x\0")


# rsync.


def test_rsync_gets_no_name_it_could_misunderstand() -> None:
    command = sync_command("web-container", "-a:b", "x y", True, ["--delete"])
    assert command[-3:] == ["--", "./-a:b", "web-container:./x y"]
    assert "--delete" in command and "--protect-args" in command
    command = sync_command("web-container", "/srv/", "-o", False, [])
    assert command[-3:] == ["--", "web-container:/srv/", "./-o"]
    assert "--safe-links" in command


# Ports.


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("8080", "127.0.0.1:8080:localhost:8080"),
        ("8080:80", "127.0.0.1:8080:localhost:80"),
        ("0:80", "127.0.0.1:0:localhost:80"),
        ("localhost:1:2", "127.0.0.1:1:localhost:2"),
        ("192.0.2.1:1:2", "192.0.2.1:1:localhost:2"),
        ("[::1]:1:2", "[::1]:1:localhost:2"),
    ],
)
def test_ports_are_on_the_loopback_interface_unless_an_address_is_given(
    text: str, option: str
) -> None:
    ports = parse_ports(text)
    assert ports.option == ["-L", option]
    assert _forward.parse_option(option, reverse=False) == ports
    assert parse_ports(8080, reverse=True).option == ["-R", "127.0.0.1:8080:localhost:8080"]


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "80:0", "65536", "80:65536", "1:2:3", "999.1.1.1:1:2", "host:1:2", "-1", "1:2 x",
     "1.2:3", "[x]:1:2", "8080:80\n", "²"],
)  # fmt: skip
def test_what_is_no_forwarding_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_ports(text)
    assert "\n" not in str(caught.value)


def test_a_machine_listens_on_its_loopback_interface_only() -> None:
    with pytest.raises(InvalidArgument, match="loopback"):
        parse_ports("192.0.2.1:1:2", reverse=True)


def test_keepers_are_found_in_the_list_of_processes(tmp_path: Path) -> None:
    # What a keeper looks like, without the machine.
    fake = tmp_path / "ssh"
    fake.symlink_to("/bin/sleep")
    ports = Ports(8080, 80)
    text = " ".join([_forward.MARK, "instance", *ports.option]) + "; exec sleep infinity"
    program = "import os, sys; os.execv('/bin/sh', ['ssh', '-c', 'read x', 'alias', sys.argv[1]])"
    keeper = subprocess.Popen(["python3", "-c", program, text], stdin=subprocess.PIPE)
    try:
        found: list[tuple[int, str, Ports]] = []
        for _ in range(600):
            found = [each for each in _forward.find_forwards() if each[0] == keeper.pid]
            if found:
                break
            keeper.poll()
            time.sleep(0.1)
        assert found == [(keeper.pid, "instance", ports)]
    finally:
        keeper.communicate(b"\n", timeout=60)


def test_a_port_in_use_is_noticed_and_another_one_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not _forward.can_listen(Ports(port, 80))
        assert _forward.free_port(Ports(0, 80)) != port


@pytest.mark.parametrize(
    "arguments", [["8080:80", "--background"], ["--background", "8080:80"], ["-R", "1", "2"]]
)
def test_options_of_forward_stand_anywhere(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[object, ...]] = []

    class Made:
        def __init__(self, text: str, reverse: bool) -> None:
            self.ports = parse_ports(text, reverse=reverse)

        def wait(self, seconds: float) -> bool:
            raise KeyboardInterrupt

        def close(self) -> None:
            made.append(("closed",))

    def make(self: Container, text: str, *, reverse: bool, background: bool) -> Made:
        made.append((text, reverse, background))
        return Made(text, reverse)

    monkeypatch.setattr(Container, "bring_up", lambda self: None)
    monkeypatch.setattr(Container, "forward", make)
    assert cli.run(["forward", "web", *arguments]) == 0
    if "-R" in arguments:
        assert made == [("1", True, False), ("2", True, False), ("closed",), ("closed",)]
        assert capsys.readouterr().out.startswith("web-container:1 -> localhost:1\n")
    else:
        assert made == [("8080:80", False, True)]
        assert capsys.readouterr().out == "127.0.0.1:8080 -> web-container:80\n"


# Editors.


def test_addresses_are_those_the_programs_understand() -> None:
    assert _editor.urls("web-container", "/srv/a b#c") == [
        "ssh://web-container",
        "vscode://vscode-remote/ssh-remote+web-container/srv/a%20b%23c",
    ]
    assert _editor.urls("w-container", "app")[1].endswith("+w-container/root/app")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all there is to find programs in."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def install(directory: Path, *names: str) -> None:
    """Put programs there."""
    for name in names:
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)


def test_the_first_editor_there_is_is_taken(programs: Path) -> None:
    container = Container("web")
    with pytest.raises(RedockError, match="--editor"):
        container.open_command()
    install(programs, "cursor", "codium", "emacs", "zed")
    assert container.open_command("/srv/app") == [
        "codium", "--remote", "ssh-remote+web-container", "/srv/app",
    ]  # fmt: skip
    install(programs, "code")
    assert container.open_command()[0] == "code"
    assert container.open_command("a b", "zed") == ["zed", "ssh://web-container/root/a%20b"]
    assert container.open_command("/x", "emacs") == ["emacs", "/ssh:web-container:/x"]


def test_an_editor_has_to_be_known_and_installed(programs: Path) -> None:
    with pytest.raises(InvalidArgument, match="choose from"):
        Container("web").open_command("/", "ed; rm")
    with pytest.raises(RedockError, match="no program 'code'"):
        Container("web").open_command("/", "code")
    install(programs, "code")
    with pytest.raises(InvalidArgument):
        Container("web").open_command("/a\nb", "code")


def test_braces_in_a_pathname_stay(programs: Path) -> None:
    install(programs, "code", "ssh")
    assert Container("web").open_command("/{alias}", "code")[-1] == "/{alias}"
    assert Container("web").open_command("/it's", "ssh")[:3] == ["ssh", "-t", "web-container"]


# Waiting.


@pytest.mark.parametrize(
    "condition", ["", "http", "port", "port:", "port:x", "port:0", "port:99999"]
)
def test_a_condition_has_to_be_known(condition: str) -> None:
    with pytest.raises(InvalidArgument):
        Container("web").wait(condition)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("ssh", "nobody could log in within 0.05 seconds; the machine is not there"),
        ("port:80", "nothing listened on port 80 within 0.05 seconds; the machine is not there"),
    ],
)
def test_a_wait_in_vain_says_for_what(
    condition: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Container, "_find_machine", lambda self: None)
    with pytest.raises(Timeout, match=f"^me:web: {words}$"):
        Container("me:web").wait(condition, 0.05)
