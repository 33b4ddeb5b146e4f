"""What the parts of redock may know of each other, and what nobody may do."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import redock
from redock import api, base, utils

PACKAGE = Path(redock.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
PUBLIC = ["redock", "redock.api", "redock.base", "redock.cli", "redock.errors", "redock.utils"]
#: From the bottom up; a module may import what stands before it.
ORDER = [
    "errors", "_process", "_http", "_endpoint", "_engine", "_names", "_files", "_settings",
    "_progress", "_parallel", "_arguments", "_logging", "_recipe", "_dotdee", "_ssh",
    "_connection", "_machines", "utils", "_identity", "_include", "_distribution", "base",
    "_image", "api", "doctor", "cli", "__main__",
]  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Find the modules a file imports, those for type checkers excluded."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_go_one_way() -> None:
    for path in PACKAGE.glob("*.py"):
        if path.stem not in ORDER:
            continue
        below = ORDER[: ORDER.index(path.stem)]
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "redock" and len(parts) > 1 and parts[1] in ORDER:
                assert parts[1] in below, f"{path.name} imports {name}"


def test_only_the_engine_knows_the_sdk() -> None:
    for path in SOURCES:
        known = {name.split(".")[0] for name in imports(path)}
        if path.name != "_engine.py":
            assert not known & {"docker", "requests"}, path
        assert not known & {"pickle", "paramiko"}, path


@pytest.mark.parametrize(
    "forbidden", ["shell=True", "StrictHostKeyChecking no", "0.0.0.0", "pickle.load", "os.system"]
)
def test_nobody_does(forbidden: str) -> None:
    for path in SOURCES:
        assert forbidden not in path.read_text(), path


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_sorted_and_there(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == module.__all__
    for each in module.__all__:
        assert getattr(module, each) is not None
        assert getattr(module, each).__doc__ or not callable(getattr(module, each))


MANUAL = {
    api.Container: "image hostname timeout",
    api.Container.check_active: "",
    api.Container.commit: "message author",
    api.Container.delete: "",
    api.Container.expand_id: "short_id candidate_ids",
    api.Container.find_container: "",
    api.Container.find_image: "image_to_find",
    api.Container.get_ssh_client_command: "ip_address port_number",
    api.Container.kill: "",
    api.Container.revoke_ssh_access: "",
    api.Container.setup_ssh_access: "",
    api.Container.start: "",
    api.Container.start_supervisor: "",
    api.Image: "repository tag id",
    api.Image.coerce: "value",
    api.Session: "",
    api.Session.reset: "",
    base.create_base_image: "client",
    base.download_image: "client repository tag",
    base.find_base_image: "client",
    base.find_named_image: "client repository tag",
    utils.Config: "",
    utils.Config.load: "exists",
    utils.RemoteTerminal: "container_id",
    utils.RemoteTerminal.attach: "",
    utils.RemoteTerminal.detach: "",
    utils.create_configuration_directory: "",
    utils.find_local_ip_addresses: "",
    utils.generate_ssh_key_pair: "",
    utils.get_ssh_public_key: "",
    utils.quote_command_line: "command",
    utils.select_ubuntu_mirror: "force",
    utils.slug: "text",
    utils.summarize_id: "id",
}


@pytest.mark.parametrize("function", MANUAL, ids=lambda function: function.__qualname__)
def test_the_contract_of_2013(function: object) -> None:
    assert callable(function)
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    wanted = MANUAL[function].split()
    assert parameters[: len(wanted)] == wanted
    # What came since is optional.
    for name in parameters[len(wanted) :]:
        assert inspect.signature(function).parameters[name].default is not inspect.Parameter.empty


def test_the_properties_of_2013() -> None:
    for name in ("ssh_alias", "ssh_config_file", "ssh_endpoint"):
        assert isinstance(inspect.getattr_static(api.Container, name), property)
    for name in ("key", "name", "unique_name"):
        assert isinstance(inspect.getattr_static(api.Image, name), property)


def test_images_and_containers_without_an_engine() -> None:
    image = api.Image.coerce("me:web.1")
    assert api.Image.coerce(image) is image
    assert (image.key, image.name, image.unique_name) == (("me", "web.1"), "me:web.1", "me:web.1")
    assert api.Image("me", "x", id="sha256:00").unique_name == "sha256:00"
    container = api.Container(image)
    assert container.ssh_alias == "web-1-container"
    assert api.Container(image, hostname="other").ssh_alias == "other-container"
    assert container.get_ssh_client_command()[-1] == "web-1-container"
    assert "Port=5" in container.get_ssh_client_command("1.2.3.4", 5)
    assert container.timeout == 10


def test_short_ids_are_expanded() -> None:
    container = api.Container("me:web")
    ids = ["sha256:" + "ab" * 32, "cd" * 32]
    assert container.expand_id("ab" * 6, ids) == ids[0]
    assert container.expand_id("cd" * 6, ids) == ids[1]
    for wrong in ("ef", "", "abc"):
        with pytest.raises(LookupError):
            container.expand_id(wrong, ids)
    with pytest.raises(LookupError, match="several"):
        container.expand_id("ab", [*ids, "ab" + "00" * 31])
