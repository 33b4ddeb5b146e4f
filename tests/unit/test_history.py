"""Commits, changes and names of machines, as far as no engine is needed for them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redock._changes import LIST, Change, Disk, Entry, compare, compare_texts, escape, fold, parse
from redock._commits import Commit, History, choose, moment
from redock._engine import KIND, Engine, label
from redock._image import Image
from redock._machines import Machine, saved_changes, settle, successor, successor_name
from redock._names import (
    REPOSITORY,
    container_name,
    history_repository,
    is_reserved,
    split_container_name,
    split_image_name,
)
from redock._progress import Progress, busy, counted, size
from redock.api import Container
from redock.commands._loss import describe_loss
from redock.errors import EngineError, InvalidArgument, NotFound, RedockError
from tests.unit.test_api import INSTANCE, summary


class Images(Engine):
    """An engine with images."""

    def __init__(self, **names: str) -> None:
        super().__init__()
        self.names = {name.replace("__", ":"): image for name, image in names.items()}
        self.kind = "image"
        #: The images that were looked at.
        self.inspected: list[str] = []

    def images(self, filters: object) -> list[dict[str, Any]]:
        ids = sorted(set(self.names.values()))
        return [
            {
                "Id": each,
                "RepoTags": [name for name, image in self.names.items() if image == each],
                "Labels": {KIND: self.kind},
            }
            for each in ids
        ]

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        self.inspected.append(image)
        if image not in self.names.values():
            return None
        return {
            "Id": image,
            "Created": "2026-11-25T02:54:44.893283678Z",
            "Comment": image,
            "Author": None,
            "Config": {"Labels": {label("squashed"): "old"} if image == "flat" else None},
            "RootFS": {"Layers": ["1", "2"]},
        }

    def image_history(self, image: str) -> list[dict[str, Any]]:
        return [{"Size": 1}, {"Size": 20}, {"Size": 300}]

    def tag_image(self, image: str, repository: str, tag: str) -> None:
        self.names[f"{repository}:{tag}"] = image


OURS = history_repository("me:web")


def test_commits_have_numbers_that_are_given_once() -> None:
    engine = Images(**{f"{OURS}__1": "a", f"{OURS}__9": "b", "me:web": "c", "other:x": "d"})
    history = History(engine, Image("me", "web"))
    assert (history.numbers, history.latest) == ({1: "a", 9: "b"}, "c")
    history.adopt()
    history.adopt()
    assert history.numbers == {1: "a", 9: "b", 10: "c"}
    assert history.add("e") == 11 and history.number_of("e") == 11 and not history.number_of("x")
    assert history.names() == [f"{OURS}:{number}" for number in (1, 9, 10, 11)] + ["me:web"]
    assert [(each.number, each.latest) for each in history.read()] == [
        (11, False),
        (10, True),
        (9, False),
        (1, False),
    ]


def test_what_redock_did_not_save_is_not_taken_for_a_commit() -> None:
    engine = Images(**{"me:web": "c"})
    engine.kind = "base"
    history = History(engine, Image("me", "web"))
    history.adopt()
    assert history.numbers == {} and history.read() == [] and history.names() == ["me:web"]


def test_finding_a_commit_looks_at_no_other() -> None:
    engine = Images(**{f"{OURS}__{number}": f"{number:012}" for number in range(1, 60)})
    engine.names["me:web"] = f"{7:012}"
    history = History(engine, Image("me", "web"))
    found = [history.find(wanted) for wanted in (None, "40", "#3", "000000000012")]
    assert [commit.number for commit in found] == [7, 40, 3, 12]
    assert found == [each for n in (7, 40, 3, 12) for each in history.read() if each.number == n]
    assert engine.inspected[:4] == [commit.id for commit in found]
    with pytest.raises(NotFound):
        history.find("60")


def test_a_commit_says_what_it_takes_itself() -> None:
    engine = Images(**{f"{OURS}__1": "a", f"{OURS}__2": "flat"})
    flat, plain = History(engine, Image("me", "web")).read("old")
    assert (plain.size, flat.size, plain.layers) == (1, 21, 2)
    assert flat.running and not plain.running
    assert plain.author == "" and plain.created == datetime(2026, 11, 25, 2, 54, 44, 893283, UTC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.number = 3  # type: ignore[misc]


def commit(number: int, id: str, latest: bool = False) -> Commit:
    """A commit of which only this matters."""
    return Commit(number, f"sha256:{id}", moment(""), "", "", 0, 1, False, latest)


def test_a_commit_is_found_by_its_number_or_the_beginning_of_its_id() -> None:
    commits = [commit(12, "12ab34"), commit(3, "cdef56"), commit(2, "1234ff", latest=True)]
    assert choose(commits, None, "me:web").number == 2
    assert choose(commits, "12", "me:web").number == 12
    assert choose(commits, "#3", "me:web").number == 3
    assert choose(commits, "CDEF", "me:web").number == 3
    assert choose(commits, "sha256:1234", "me:web").number == 2
    for wrong in ("4", "", "12a", "\x1b[31m", "0", "-1", "03"):
        with pytest.raises(NotFound, match="redock log me:web"):
            choose(commits, wrong, "me:web")
    with pytest.raises(NotFound, match="nothing of me:web was saved"):
        choose([], None, "me:web")


@pytest.mark.parametrize("name", ["me:web", "me:Web", "localhost:5000/a/b:c_D.e", "a" * 255 + ":b"])
def test_the_repository_of_commits_is_one_and_reserved(name: str) -> None:
    found = history_repository(name)
    assert REPOSITORY.fits(found) and len(found) < 128
    assert is_reserved(found, "1") and not is_reserved("redock-history2", "x")
    assert len({history_repository(each) for each in (name, name.upper(), name + "1")}) == 3


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z"])
def test_a_moment_that_cannot_be_read_is_the_beginning_of_time(text: str) -> None:
    assert moment(text).timestamp() == 0
    assert (
        moment("2026-11-25T02:54:44.5Z").timestamp() == moment("2026-11-25T02:54:44.5").timestamp()
    )


# Names of containers.


@given(
    st.from_regex(REPOSITORY.expression, fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_][\w.-]{0,9}\Z"),
)
def test_a_machine_is_found_by_the_name_of_its_container(repository: str, tag: str) -> None:
    try:
        key = split_image_name(f"{repository}:{tag}")
    except RedockError:
        return
    assert split_container_name(container_name(*key)) == key


@pytest.mark.parametrize(
    "name", ["", "redock-", "redock-a", "web", "redock-..b", "redock-A..b", "redock-scan-1", "a..b"]
)
def test_other_containers_are_no_machines(name: str) -> None:
    assert split_container_name(name) is None


def test_a_container_that_was_renamed_is_another_machine() -> None:
    same = Machine(summary(Names=["/redock-me..web"]))
    assert (same.name, same.alias, same.next_hostname) == ("me:web", "web-container", "web")
    other = Machine(summary(Names=["/redock-me..db"]))
    assert (other.name, other.first_name, other.alias) == ("me:db", "me:web", "db-container")
    # The one inside cannot change while it runs.
    assert (other.hostname, other.next_hostname) == ("web", "db")
    asked = summary(Names=["/redock-me..db"], alias="www-container")
    asked["Labels"][label("hostname")] = "www"
    assert (Machine(asked).alias, Machine(asked).next_hostname) == ("www-container", "www")
    # By hand, to something else: the labels still say what it is.
    assert Machine(summary(Names=["/other"])).name == "me:web"


def test_of_two_containers_with_one_identity_one_is_the_machine() -> None:
    machine = Machine(summary(Names=["/redock-me..web"], Id="old"))
    waiting = Machine(summary(Names=[f"/{successor_name(INSTANCE)}"], Id="new"))
    for found in ([machine, waiting], [waiting, machine]):
        machine.successors.clear()
        (only,) = settle(found)
        assert (only.id, only.successors) == ("old", ["new"])
    (only,) = settle([waiting])
    assert (only.id, only.name, only.waiting) == ("new", "me:web", True)


def test_a_successor_is_the_same_machine_with_another_disk() -> None:
    listed = summary(Names=["/redock-me..db"])
    config = {
        "Labels": {**listed["Labels"], label("recipe"): "old", "mine": "kept"},
        "Image": "old",
        "Env": ["A=B"],
        "Hostname": "web",
    }
    described = {"Config": config, "HostConfig": {"Memory": 5}}
    made = successor(Machine(listed), described, "new")
    assert (made["Image"], made["Env"], made["HostConfig"]) == ("new", ["A=B"], {"Memory": 5})
    assert (made["Hostname"], made["Domainname"]) == ("db", "")
    labels = made["Labels"]
    assert labels["mine"] == "kept" and label("recipe") not in labels
    assert (labels[label("name")], labels[label("alias")]) == ("me:db", "db-container")
    assert labels[label("instance")] == INSTANCE and config["Image"] == "old"


def test_an_image_says_whose_it_is_and_not_which_machine_it_was() -> None:
    *marks, command = saved_changes("me:db", "db", '{"user": "$me"}')
    # One a line, and without quotes: Podman 4 knows no others.
    assert f"LABEL {label('name')}=me:db" in marks and f'LABEL {label("instance")}=""' in marks
    assert f"LABEL {label('options')}=%7B%22user%22%3A%20%22%24me%22%7D" in marks
    assert command.startswith("CMD ")


# Changes.


def entry(
    kind: str = "f", size: int = 1, moment: str = "5.5", owner: str = "0", to: str = ""
) -> Entry:
    """A file in a list."""
    return Entry([kind, "644", owner, "0", str(size), moment], to)


class Listed(Disk):
    """A disk whose files are known."""

    def __init__(self, running: bool = False, saved: int = 0, **files: Entry) -> None:
        super().__init__(Engine(), "x", running=running, saved=saved)
        self.files = {name.replace("_", "/"): file for name, file in files.items()}
        self.contents: dict[str, str] = {}
        self.asked: list[int] = []

    def entries(self, skip: object = ()) -> dict[str, Entry]:
        return self.files

    def digests(self, skip: object, seconds: Iterable[int]) -> dict[str, str]:
        self.asked.extend(seconds)
        return self.contents


def test_every_way_to_change_is_told_from_the_others() -> None:
    before = Listed(
        _same=entry(), _gone=entry(size=7), _size=entry(), _time=entry(), _owner=entry(),
        _type=entry(), _link=entry("l", to="a"), _dir=entry("d"), _dirmode=entry("d"),
    )  # fmt: skip
    after = Listed(
        _same=entry(moment="5.9"), _new=entry(size=9), _size=entry(size=3),
        _time=entry(moment="6.0"), _owner=entry(owner="1"), _type=entry("d"),
        _link=entry("l", to="b"), _dir=entry("d", moment="9.0"),
        _dirmode=entry("d", owner="1"), _run_x=entry(),
    )  # fmt: skip
    found = {each.path: each for each in compare(before, after)}
    assert {path: each.change for path, each in found.items()} == {
        "/gone": "D", "/size": "M", "/time": "M", "/owner": "C", "/type": "M", "/link": "M",
        "/dirmode": "C", "/new": "A", "/run/x": "A",
    }  # fmt: skip
    assert (found["/gone"].size, found["/size"].before, found["/new"].before) == (7, 1, None)
    assert [path for path, each in found.items() if each.noise] == ["/run/x"]


@pytest.mark.parametrize(("written", "changed"), [("5.6", True), ("5.4", False), ("9.9", False)])
def test_in_the_second_of_a_commit_fractions_decide(written: str, changed: bool) -> None:
    old = entry(moment=f"{written[0]}.0")
    before = Listed(saved=5_500_000_000, _f=old)
    assert bool(compare(before, Listed(running=True, _f=entry(moment=written)))) is changed


def test_in_the_second_of_a_commit_contents_of_images_decide() -> None:
    def listed(saved: int) -> Listed:
        now = entry(moment="5.0")
        return Listed(saved=saved, _f=now, _g=now, _h=entry(moment="4.0"))

    before, after = listed(5_500_000_000), listed(9_000_000_000)
    before.contents, after.contents = {"/f": "1", "/g": "1"}, {"/f": "2", "/g": "1"}
    assert [(each.path, each.change) for each in compare(before, after)] == [("/f", "M")]
    assert before.asked == after.asked == [5, 9]
    # Nobody reads files that cannot have changed.
    later = listed(6_500_000_000)
    assert compare(later, listed(0)) == [] and not later.asked


def test_a_list_is_read_in_whatever_pieces_it_comes() -> None:
    text = (
        b"f 644 0 0 3 5.5000000000 /a b\nc\xff\0\0l 777 0 0 1 6.5 /l\0/a\0d 755 0 0 4096 7.5 /\0\0"
    )
    for length in range(1, 30):
        pieces = [text[at : at + length] for at in range(0, len(text), length)]
        found = parse([*pieces, b"end\0\0"])
        assert list(found) == ["/a b\nc\udcff", "/l", "/"]
        assert (found["/l"].target, found["/a b\nc\udcff"].size, found["/"].size) == ("/a", 3, 0)


@pytest.mark.parametrize("text", [b"", b"f 644 0 0 3 5.5 /a\0\0", b"en", b"end"])
def test_a_list_without_its_end_is_not_believed(text: bytes) -> None:
    with pytest.raises(EngineError, match="early"):
        parse([text])


@pytest.mark.parametrize(
    "text", [b"hello\0\0", b"x 1 1 1 1 1 /\0\0", b"f 1 1 1 x 1 /\0\0", b"\0\0"]
)
def test_what_is_no_list_is_refused(text: bytes) -> None:
    with pytest.raises(RedockError, match="no list"):
        parse([text, b"end\0\0"])


def change(letter: str, path: str, kind: str = "file", size: int = 1) -> Change:
    """A change of which only this matters."""
    return Change(letter, path, kind, size, None, False)


def test_directories_stand_for_what_is_in_them() -> None:
    folded = fold(
        [
            change("A", "/opt", "directory", 0),
            change("A", "/opt-file"),
            change("A", "/opt/a", "directory", 0),
            change("A", "/opt/a/b"),
            change("A", "/opt/a/c", size=5),
            change("D", "/opt/gone"),
            change("D", "/srv", "directory", 0),
            change("D", "/srv/x"),
            change("C", "/usr", "directory", 0),
            change("A", "/usr/x"),
        ]
    )
    assert [(each.change, each.path, each.files, each.size) for each in folded] == [
        ("A", "/opt", 2, 6),
        ("A", "/opt-file", 1, 1),
        ("D", "/opt/gone", 1, 1),
        ("D", "/srv", 1, 1),
        ("C", "/usr", 0, 0),
        ("A", "/usr/x", 1, 1),
    ]


def test_texts_are_compared_and_nothing_else() -> None:
    assert compare_texts(b"a\n", b"a\n", "/x") == ""
    assert compare_texts(None, b"a", "/x").splitlines() == [
        "--- /dev/null",
        "+++ b/x",
        "@@ -0,0 +1 @@",
        "+a",
        "\\ No newline at end of file",
    ]
    with pytest.raises(InvalidArgument, match="not a text file"):
        compare_texts(b"\0", b"", "/x")


def test_the_list_leaves_out_what_is_to_be_left_out(tmp_path: os.PathLike[str]) -> None:
    import subprocess

    here = os.fspath(tmp_path)
    for name in ("a*", "ab", "c"):
        os.mkdir(os.path.join(here, name))
    script = LIST.replace("find / ", f"find {here} ")
    command = ["sh", "-fc", script, "sh", " ".join(map(escape, [f"{here}/a*", f"{here}/c"]))]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert sorted(parse([done.stdout])) == [here, f"{here}/ab"]


# Progress.


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_600, "100 kB"), (1_234_567, "1.2 MB"),
     (999_999_999, "1.0 GB"), (10**15, "1000 TB")],
)  # fmt: skip
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text


def test_bytes_that_go_by_are_counted_and_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    hidden: list[bool] = []
    monkeypatch.setattr(Progress, "show", shown.append)
    monkeypatch.setattr(Progress, "hide", lambda: hidden.append(True))
    assert list(counted([b"ab", b"c"], "Moving", 3)) == [b"ab", b"c"]
    assert shown == ["Moving: 2 B of about 3 B", "Moving: 3 B of about 3 B"] and hidden == [True]


def test_somebody_who_waits_sees_that_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    seen = threading.Event()
    monkeypatch.setattr(Progress, "show", lambda line: seen.set())
    with busy("Working"):
        assert seen.wait(60)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([], ""),
        ([("directory", "C")], ""),
        ([("directory", "D"), ("file", "D")], "1 file changed"),
        ([("file", "M"), ("symlink", "A"), ("directory", "C")], "2 files changed"),
        ([("directory", "A")], "1 directory changed"),
        ([("directory", "A"), ("directory", "D")], "2 directories changed"),
    ],
)
def test_a_loss_is_counted_as_a_difference_is(kinds: list[tuple[str, str]], words: str) -> None:
    class Machine:
        """One whose disk differs."""

        def diff(self) -> list[Any]:
            return [SimpleNamespace(kind=kind, change=change) for kind, change in kinds]

    assert describe_loss(cast("Container", Machine())).startswith(words)
    assert bool(describe_loss(cast("Container", Machine()))) == bool(words)
