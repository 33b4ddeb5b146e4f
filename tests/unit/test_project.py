"""A project's own file: where it is found, what it may say and what needs trust."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redock import cli
from redock._links import Volume
from redock._options import Options
from redock._project import FILE, KEYS, TEMPLATE, Project, find_project, read_project
from redock.api import Container
from redock.commands import _top
from redock.errors import SettingsError
from tests.unit.conftest import as_nobody, run_many, run_redock

Write = Callable[[str], Project]


@pytest.fixture
def folder(home: Path) -> Path:
    path = Path(os.path.realpath(home)) / "web"
    path.mkdir(mode=0o755)
    return path


@pytest.fixture
def write(folder: Path) -> Write:
    """Write the project's file and read it."""

    def write(text: str) -> Project:
        (folder / FILE).write_text(text)
        return read_project(str(folder / FILE))

    return write


def trust(redock_home: Path, *folders: Path) -> None:
    redock_home.mkdir(mode=0o700, exist_ok=True)
    (redock_home / "config.toml").write_text(f"trust = {[str(each) for each in folders]}\n")


# Finding it.


def test_the_search_goes_up_to_the_home_directory(folder: Path, home: Path, sandbox: Path) -> None:
    deep = folder / "src" / "lib"
    deep.mkdir(parents=True)
    assert find_project(str(deep)) is None
    (home / FILE).write_text('name = "home"')
    found = find_project(str(deep))
    assert found is not None and found.name == "home"
    (folder / FILE).write_text("")
    found = find_project(str(deep))
    assert found is not None and (found.name, found.directory) == ("web", str(folder))
    (folder / FILE).unlink()
    (home / FILE).unlink()
    # Above the home directory it is not the user's.
    (sandbox / FILE).write_text('name = "above"')
    assert find_project(str(deep)) is None
    other = sandbox / "elsewhere"
    other.mkdir()
    found = find_project(str(other))
    assert found is not None and found.name == "above"


def test_the_search_ends_at_the_border_of_the_file_system(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / FILE).write_text("")
    real = os.stat

    def stat(path: Any, *more: Any, **options: Any) -> Any:
        found = real(path, *more, **options)
        if path != os.path.realpath(home):
            return found
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:10]))

    assert find_project(str(folder)) is not None
    monkeypatch.setattr(os, "stat", stat)
    assert find_project(str(folder)) is None


def test_without_a_working_directory_there_is_no_project(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert find_project() is None


@pytest.mark.parametrize("what", [".", FILE])
def test_a_file_of_somebody_else_is_refused(what: str, folder: Path, write: Write) -> None:
    write("")
    if os.getuid() == 0:
        os.chown(folder / what, 1234, 1234)
    else:
        pytest.skip("only root can give a file away; that others are refused is tested as root")
    with pytest.raises(SettingsError, match="belongs to user id 1234, not to you"):
        find_project(str(folder))


@pytest.mark.parametrize("what", [".", FILE])
def test_a_file_that_anybody_can_change_is_refused(what: str, folder: Path, write: Write) -> None:
    write("")
    (folder / what).chmod(0o777)
    with pytest.raises(SettingsError, match="can be changed by anybody"):
        find_project(str(folder))


def test_roots_file_is_good_for_everybody(folder: Path, write: Write, sandbox: Path) -> None:
    write("")
    os.chmod(sandbox, 0o755)
    os.chmod(sandbox / "home", 0o755)
    if os.getuid() == 0:
        nothing = sandbox / "nothing"
        nothing.mkdir()
        as_nobody(nothing, lambda: read_project(str(folder / FILE)))


def test_strange_files_are_refused(folder: Path) -> None:
    path = folder / FILE
    path.mkdir()
    with pytest.raises(SettingsError, match=r"redock\.toml"):
        find_project(str(folder))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(SettingsError, match="is not a file of TOML"):
        find_project(str(folder))
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(SettingsError, match="cannot read"):
        find_project(str(folder))


# Reading it.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memmory = '1g'", "unknown key 'memmory', did you mean 'memory'"),
        ("Ports = []", "did you mean 'ports'"),
        ("name = 7", "name is text"),
        ("ports = '80'", "ports is a list"),
        ("agent = 1", "agent is true or false"),
        ("env = 'A=1'", "env is a table or a list"),
        ("cpus = true", "cpus is a number or text"),
        ("name =", "is not a TOML file"),
        ("\x00", "is not a TOML file"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(text: str, words: str, write: Write) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        write(text)
    assert FILE in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memory = 'much'", "not a size"),
        ("cpus = -1", "number of processors"),
        ("restart = 'never'", "no restart policy"),
        ("ports = ['x']", "is no port"),
        ("ports = [80]", "list of texts"),
        ("volumes = ['data:etc']", "directory of its own"),
        ("volumes = ['./nothing:/srv']", "no directory"),
        ("network = ['host']", "not attached"),
        ("network = [7]", "list of texts"),
        ("user = 'Sam'", "cannot be a user"),
        ("env = { A = 1 }", "table of texts"),
        ("env = { A-B = 'x' }", "cannot be the name"),
        ('env = { A = "x\\ny" }', "one line"),
    ],
)
def test_values_that_make_no_sense_are_named(text: str, words: str, write: Write) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        write(text).options()
    assert FILE in str(caught.value)


def test_a_project_says_everything(folder: Path, write: Write) -> None:
    (folder / "setup.sh").write_text("true")
    (folder / "data").mkdir()
    project = write(
        """
        name = "shop:web"
        base = "debian:13"
        hostname = "web.example.org"
        packages = ["nginx", "php-fpm:amd64", "redis=5:7.0-1~deb12u1", "curl/stable"]
        provision = "setup.sh"
        user = "sam:1500"
        volumes = [".:/srv/project", "data:/var/lib/data", "./data:/data:ro"]
        ports = ["8080:80"]
        env = { APP_ENV = "test" }
        memory = "512m"
        cpus = 1
        network = "back"
        agent = false
        restart = "always"
        """
    )
    assert set(project.values) == set(KEYS)
    assert (project.name, project.base, project.hostname) == (
        "shop:web", "debian:13", "web.example.org",
    )  # fmt: skip
    assert project.packages == ["nginx", "php-fpm:amd64", "redis=5:7.0-1~deb12u1", "curl/stable"]
    assert project.script == b"true"
    assert project.options() == Options(
        user="sam:1500",
        volumes=[
            Volume(str(folder), "/srv/project"),
            # A name in a project's file must not reach the volume of another program.
            Volume("redock-shop..web.data", "/var/lib/data"),
            Volume(f"{folder}/data", "/data", True),
        ],
        ports=["8080:80"], env={"APP_ENV": "test"}, memory="512m", cpus=1, networks=["back"],
        agent=False, restart="always",
    )  # fmt: skip


def test_the_template_is_a_project_and_names_every_key(write: Write, folder: Path) -> None:
    assert write(TEMPLATE).values == {}
    uncommented = "".join(
        line.removeprefix("# ") if " = " in line else line
        for line in TEMPLATE.splitlines(keepends=True)
    )
    project = write(uncommented)
    # What needs trust is better not suggested.
    assert set(project.values) == set(KEYS) - {"agent"}


@pytest.mark.parametrize(
    ("folder_name", "name"), [("Web Shop", "web-shop"), ("x_1", "x-1"), ("a" * 200, "a" * 100)]
)
def test_the_folder_gives_its_name(folder_name: str, name: str, home: Path) -> None:
    folder = home / folder_name
    folder.mkdir()
    (folder / FILE).write_text("")
    project = find_project(str(folder))
    assert project is not None and project.name == name


def test_names_that_are_none_are_refused(write: Write, home: Path) -> None:
    for text in ("name = 'A:b'", "name = '-x'", "hostname = 'a b'", "packages = ['-x']"):
        project = write(text)
        with pytest.raises(SettingsError, match=FILE):
            assert [project.name, project.hostname, project.packages]
    folder = home / "öäü"
    folder.mkdir()
    (folder / FILE).write_text("")
    project = read_project(str(folder / FILE))
    with pytest.raises(SettingsError, match="name: invalid name"):
        assert project.name


@pytest.mark.parametrize("package", ["-y", "a b", "A", "x;id", "./x.deb", "", "../x", "a\nb"])
def test_packages_are_names(package: str, write: Write, folder: Path) -> None:
    project = Project(str(folder / FILE), {"packages": [package]})
    with pytest.raises(SettingsError, match="is no package"):
        assert project.packages


def test_the_environment_comes_first(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write('base = "debian:13"\nmemory = "1g"\ncpus = 2\n')
    monkeypatch.setenv("REDOCK_MEMORY", "512m")
    monkeypatch.setenv("REDOCK_BASE", "debian:12")
    assert project.options() == Options(memory="512m", cpus=2)
    assert project.base is None


# Trust.


REACHING = [
    "volumes = ['/etc:/srv/etc']",
    "volumes = ['..:/srv/up']",
    "volumes = ['~:/srv/home']",
    "volumes = ['./link:/srv/link']",
    "ports = ['192.0.2.7:8080:80']",
    "env = ['HOME']",
    "agent = true",
    "provision = '../outside.sh'",
    "provision = '/etc/hostname'",
    "provision = 'script-link'",
]


@pytest.mark.parametrize("text", REACHING)
def test_what_reaches_out_of_the_folder_needs_trust(
    text: str, write: Write, folder: Path, home: Path, redock_home: Path
) -> None:
    (folder / "link").symlink_to("/etc")
    (folder / "script-link").symlink_to(home / "outside.sh")
    (home / "outside.sh").write_text("true")
    # Beside it, not in it.
    (home / "we").mkdir()
    project = write(text)

    def use() -> None:
        assert project.options() is not None
        assert project.script is not None or "provision" not in text

    with pytest.raises(SettingsError, match="redock config add trust") as caught:
        use()
    assert str(folder) in str(caught.value)
    trust(redock_home, home / "we", home / "web" / "sub")
    with pytest.raises(SettingsError, match="if you trust"):
        use()
    trust(redock_home, home / "we", home / "web")
    use()
    trust(redock_home, home)
    use()


def test_what_stays_inside_needs_none(write: Write, folder: Path) -> None:
    (folder / "data").mkdir()
    options = write(
        "volumes = ['.:/srv/a', './data:/srv/b', 'data:/srv/c']\n"
        "ports = ['80', '[::1]:81']\nenv = ['A=1']\nagent = false\n"
    ).options()
    assert len(options.mounts) == 3
    assert options.values == {"A": "1"}


# Commands.


def test_commands_without_a_name_are_about_the_folders_machine(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str, object]] = []
    for verb in ("commit", "kill", "delete", "start"):
        monkeypatch.setattr(
            Container,
            verb,
            lambda self, *_, verb=verb, **__: done.append((verb, self.image.name, self.options)),
        )
    monkeypatch.setattr("redock._project_state.provision_project", lambda *_: False)
    write('name = "shop:web"\nhostname = "www"\nmemory = "1g"\n')
    monkeypatch.chdir(folder)
    for verb in ("commit", "kill", "delete"):
        assert cli.run(["-q", verb]) == 0
    assert cli.run(["-q", "start", "--cpus", "1", "--memory", "0"]) == 0
    assert cli.run(["-q", "start", "web"]) == 0
    asked = Options(memory=0, cpus=1)
    assert done == [
        ("commit", "shop:web", None), ("kill", "shop:web", None), ("delete", "shop:web", None),
        ("start", "shop:web", asked), ("start", "me:web", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "method"),
    [
        ("status --json", "status"),
        ("log --json", "history"),
        ("logs -n 3", "logs"),
        ("diff", "diff"),
        ("diff --content /etc/hosts", "diff_file"),
        ("export", "export"),
        ("squash", "squash"),
        ("stop", "stop"),
        ("restart", "restart"),
        ("pause", "pause"),
        ("resume", "resume"),
        ("wait --for stopped", "wait"),
        ("open --print", "_present"),
        ("open --print /srv", "_present"),
    ],
)
def test_whatever_is_about_one_machine_is_about_the_folders(
    words: str, method: str, write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def ask(self: Container, *_: object, **__: object) -> None:
        asked.append((self.image.name, self.hostname))
        raise Asked

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(Container, method, ask)
    monkeypatch.setattr("redock.commands.keep.warn_of_changes", lambda *_: None)
    write('name = "shop:web"\nhostname = "www"\n')
    monkeypatch.chdir(folder)
    for name, expected in ([], ("shop:web", "www")), (["db"], ("me:db", "db")):
        verb, *rest = words.split()
        with pytest.raises(Asked):
            cli.run(["-q", verb, *name, *rest])
        assert asked.pop() == expected


def test_a_path_to_open_is_no_name(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Container, "_present", lambda self: None)
    write("")
    monkeypatch.chdir(folder)
    for words in (["/srv"], ["web", "/srv"]):
        assert cli.run(["open", "--print", *words]) == 0
        assert capsys.readouterr().out.endswith("ssh-remote+web-container/srv\n")


@pytest.mark.parametrize(
    "words", ["rollback", "ssh", "exec", "clone new", "rename new", "forward", "cp a"]
)
def test_what_would_be_ambiguous_wants_a_name(
    words: str, write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("")
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as caught:
        cli.run(words.split())
    assert caught.value.code == 2


def test_an_empty_name_is_none_of_the_folders(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes "$MACHINE", and the variable is not set."""
    write("")
    monkeypatch.chdir(folder)
    for verb in ("status", "log", "logs", "diff", "wait", "open", "kill", "stop"):
        assert cli.run(["-q", verb, ""]) == 2


def test_top_shows_all_where_there_is_no_project_or_they_are_asked_for(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[list[str]] = []

    def look(names: list[str], interval: float) -> Any:
        looked.append(list(names))
        return _top.Look({}, {}, {})

    monkeypatch.setattr(_top, "look", look)
    monkeypatch.chdir(folder)
    assert cli.run(["top", "--json"]) == 0
    write("")
    for words in ([], ["-a"], ["db", "cache"]):
        assert cli.run(["top", "--json", *words]) == 0
    assert looked == [[], ["me:web"], [], ["me:db", "me:cache"]]
    assert cli.run(["top", "--all", "db"]) == 2


def test_variables_are_added_one_by_one(
    write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Options | None] = []
    monkeypatch.setattr(Container, "start", lambda self: asked.append(self.options))
    write('env = { A = "1", B = "2" }\n')
    monkeypatch.chdir(folder)
    assert cli.run(["-q", "start", "-e", "B=3"]) == 0
    assert cli.run(["-q", "start", "-e", "none"]) == 0
    assert asked == [Options(env={"A": "1", "B": "3"}), Options(env={})]


def test_without_a_project_a_name_is_missed(home: Path) -> None:
    for command, done in run_many(
        [[verb] for verb in ("start", "kill", "status", "log", "diff", "export", "wait", "open")]
    ):
        assert (done.returncode, done.stdout) == (2, ""), command
        assert done.stderr.startswith("redock: which machine? Give a NAME"), command
        assert done.stderr.count("\n") == 1
    assert os.listdir(home) == []


def test_a_strangers_file_is_in_nobodys_way_who_gives_a_name(home: Path) -> None:
    (home / FILE).write_text("nonsense")
    done = run_redock("start")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not a TOML file" in done.stderr
    done = run_redock("kill", "web")
    assert done.returncode == 1 and "no Docker engine" in done.stderr


def test_config_shows_what_a_project_says(home: Path) -> None:
    (home / FILE).write_text('memory = "1g"\nenv = { TOKEN = "secret" }\nports = ["80"]\n')
    done = run_redock("config", REDOCK_MEMORY="2g")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    path = os.path.realpath(home / FILE)
    assert rows["ports"] == ["80", path]
    assert rows["env"] == ["TOKEN", path]
    assert rows["memory"] == ["2g", "REDOCK_MEMORY"]
    assert rows["name"] == ["home", os.path.dirname(path)]
    assert "secret" not in done.stdout + run_redock("config", "--json").stdout


def test_init_writes_a_file_once(home: Path) -> None:
    done = run_redock("init")
    assert (done.returncode, done.stdout) == (0, f"{os.path.realpath(home / FILE)}\n")
    assert (home / FILE).read_text() == TEMPLATE
    done = run_redock("init")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
