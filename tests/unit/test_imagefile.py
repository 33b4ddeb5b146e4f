"""Files with saved machines: what passes through and what does not."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from redock import _imagefile
from redock._engine import Engine, label
from redock._imagefile import Inflow, Saved, compress, find_name, rewrite
from redock.errors import EngineError, InvalidArgument, RedockError

LAYER = "1" * 64
CONFIG = {
    "container": "x",
    "container_config": {"Labels": {label("instance"): "secret"}},
    "config": {"Labels": {label("recipe"): "r", label("name"): "me:web"}},
}


def archive(files: dict[str, bytes | str], **more: Any) -> bytes:
    """Make an archive; text is where a symbolic link leads."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                tar.addfile(member)
            else:
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def saved(
    names: list[str] | None = None, config: Any = CONFIG, layer: str = f"{LAYER}/layer.tar"
) -> dict[str, bytes | str]:
    """The files of an archive of one image."""
    manifest = [{"Config": "c.json", "RepoTags": names or ["me:web"], "Layers": [layer]}]
    return {
        f"{LAYER}/VERSION": b"1.0",
        f"{LAYER}/json": b'{"container_config": "secret"}',
        layer: b"layer" * 300,
        "c.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        "repositories": b"{}",
    }


def passed(data: bytes, names: list[str] | None = None) -> dict[str, bytes]:
    """What comes out of an archive."""
    seen: list[list[Saved]] = []
    pieces = rewrite(Inflow([data[:700], data[700:]]), seen.append, lambda image: names or [])
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        found = {}
        for member in tar:
            handle = tar.extractfile(member)
            found[member.name] = handle.read() if handle else b""
    assert len(seen) == 1
    return found


@pytest.mark.parametrize("layer", [f"{LAYER}/layer.tar", f"blobs/sha256/{LAYER}"])
def test_layers_pass_and_descriptions_are_made_anew(layer: str) -> None:
    found = passed(archive(saved(layer=layer)), ["me:other"])
    assert found.pop(layer) == b"layer" * 300
    (manifest,) = json.loads(found.pop("manifest.json"))
    assert manifest["RepoTags"] == ["me:other"] and manifest["Layers"] == [layer]
    config = json.loads(found.pop(manifest["Config"]))
    assert config == {"config": CONFIG["config"]}
    assert found == {}


def test_names_go_where_none_are_wanted() -> None:
    (manifest,) = json.loads(passed(archive(saved(["victim:x"])))["manifest.json"])
    assert manifest["RepoTags"] is None


def test_compressed_archives_are_read_too() -> None:
    assert passed(gzip.compress(archive(saved()))) == passed(archive(saved()))
    whole = archive(saved())
    packed = b"".join(compress([whole[:100], whole[100:]]))
    assert gzip.decompress(packed) == whole


def test_layers_that_are_there_twice_are_links() -> None:
    files = saved()
    files["2" * 64 + "/layer.tar"] = f"../{LAYER}/layer.tar"
    assert "2" * 64 + "/layer.tar" in passed(archive(files))


@pytest.mark.parametrize(
    "files",
    [
        {"../x": b"1"},
        {"/etc/passwd": b"1"},
        {f"{LAYER}/layer.tar": "/etc/passwd"},
        {f"{LAYER}/layer.tar": "../../x"},
        {"x.json": b"not json"},
        {"a/b.json": b"{}"},
        {"manifest.json": b"[" * 100_000},
        {"manifest.json": b"{}"},
        {"manifest.json": b"[]"},
        {"manifest.json": b"[1]"},
        {"manifest.json": b'[{"Config": 5}]'},
        {"manifest.json": b'[{"Config": "c.json", "Layers": ["gone"]}]', "c.json": b"{}"},
        {"manifest.json": b'[{"Config": "c.json", "Layers": []}]', "c.json": b"[]"},
        {"manifest.json": b'[{"Config": "c.json", "Layers": []}]', "c.json": b'{"config": 1}'},
        {},
    ],
)
def test_what_is_something_else_is_refused_before_its_end(files: dict[str, bytes | str]) -> None:
    sent = b""
    with pytest.raises(RedockError, match="archive") as caught:
        for piece in rewrite(Inflow([archive(files)]), lambda saved: None, lambda image: []):
            sent += piece
    assert "\n" not in str(caught.value)
    assert not sent.endswith(bytes(1024))


def test_an_archive_that_is_cut_anywhere_is_refused() -> None:
    whole = archive(saved())
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        end = tar.getmember("manifest.json").offset_data
    for length in [*range(0, end, 97), end + 10]:
        with pytest.raises(RedockError):
            list(rewrite(Inflow([whole[:length]]), lambda saved: None, lambda image: []))


def test_images_of_others_are_refused() -> None:
    with pytest.raises(RedockError, match=r"not made by redock.*--base"):
        passed(archive(saved(config={"config": {"Labels": None}})))


def test_too_much_text_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_imagefile, "LARGEST_TEXTS", 100)
    with pytest.raises(RedockError, match="endless"):
        passed(archive({f"{n}.json": b"{}" + b" " * 30 for n in range(9)}))


def test_what_the_caller_refuses_is_never_complete() -> None:
    def refuse(saved: list[Saved]) -> None:
        raise EngineError("no")

    sent = []
    with pytest.raises(EngineError):
        for piece in rewrite(Inflow([archive(saved())]), refuse, lambda image: []):
            sent.append(piece)
    assert b"manifest.json" not in b"".join(sent)


def test_the_name_of_the_machine_is_found(tmp_path: Any) -> None:
    file = str(tmp_path / "x.tar")
    with open(file, "wb") as handle:
        handle.write(archive(saved(["redock-history/me-web-1:3", "me:web"])))
    assert find_name(file) == "me:web"
    with open(file, "wb") as handle:
        handle.write(archive(saved(["redock-history/me-web-1:3"])))
    with pytest.raises(InvalidArgument, match="NAME"):
        find_name(file)
    with pytest.raises(RedockError, match="cannot read"):
        find_name(str(tmp_path / "none"))


class Loader(Engine):
    """An engine that loads archives."""

    def __init__(self, said: str, config: Any) -> None:
        super().__init__()
        self.said = said
        self.config = config
        self.removed: list[str] = []

    def upload(self, path: str, what: str, pieces: Any, query: Any) -> list[dict[str, Any]]:
        assert b"".join(pieces)
        return [{"stream": self.said}]

    def images(self, filters: object) -> list[dict[str, Any]]:
        return [{"Id": "sha256:" + "b" * 64}]

    def inspect_image(self, image: str) -> dict[str, Any] | None:
        return {"Config": self.config}

    def remove_image(self, image: str, *, force: bool = False) -> bool:
        self.removed.append(image)
        return True


@pytest.mark.parametrize(
    ("loaded", "config", "removed"),
    [
        (["a"], {"Labels": None}, ["a"]),
        (["b"], {"Labels": None}, []),
        (["a", "c"], CONFIG["config"], ["a", "c"]),
        ([], CONFIG["config"], []),
        (["a"], {"Labels": {label("recipe"): "r", label("hostname"): "a b\n"}}, ["a"]),
    ],
)
def test_what_the_engine_made_of_it_is_looked_at(
    loaded: list[str], config: Any, removed: list[str]
) -> None:
    said = "".join(f"Loaded image ID: sha256:{letter * 64}\n" for letter in loaded)
    engine = Loader(said, config)
    with pytest.raises(RedockError):
        _imagefile.load(engine, Inflow([archive(saved())]), "Importing")
    # What was there before stays.
    assert sorted(engine.removed) == [f"sha256:{letter * 64}" for letter in removed]


def test_an_archive_is_loaded() -> None:
    engine = Loader(f"Loaded image ID: sha256:{'a' * 64}\n", CONFIG["config"])
    ids, last = _imagefile.load(engine, Inflow([archive(saved())]), "Importing")
    assert ids == [last] == ["sha256:" + "a" * 64] and engine.removed == []


def test_an_inflow_reads_what_it_is_asked_for() -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b"ab", b"cdef", b"g")

    inflow = Inflow(pieces())
    assert [inflow.read(3), inflow.read(3), inflow.read(3), inflow.read(3)] == [
        b"abc",
        b"def",
        b"g",
        b"",
    ]
