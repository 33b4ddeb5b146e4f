"""The names of the manual of 2013 are still there, and take what they took."""

from __future__ import annotations

import importlib
import inspect

import pytest

from redock.api import NoContainerRunning, SecureShellTimeout

#: Parameters, with the text of their defaults; None: a property or an exception.
MANUAL: dict[str, list[str] | None] = {
    "redock.api.Container": ["image", "hostname=None", "timeout=10"],
    "redock.api.Container.check_active": [],
    "redock.api.Container.commit": ["message=None", "author=None"],
    "redock.api.Container.delete": [],
    "redock.api.Container.expand_id": ["short_id", "candidate_ids"],
    "redock.api.Container.find_container": [],
    "redock.api.Container.find_image": ["image_to_find"],
    "redock.api.Container.get_ssh_client_command": ["ip_address=None", "port_number=None"],
    "redock.api.Container.kill": [],
    "redock.api.Container.revoke_ssh_access": [],
    "redock.api.Container.setup_ssh_access": [],
    "redock.api.Container.ssh_alias": None,
    "redock.api.Container.ssh_config_file": None,
    "redock.api.Container.ssh_endpoint": None,
    "redock.api.Container.start": [],
    "redock.api.Container.start_supervisor": [],
    "redock.api.Image": ["repository", "tag", "id=None"],
    "redock.api.Image.coerce": ["value"],
    "redock.api.Image.key": None,
    "redock.api.Image.name": None,
    "redock.api.Image.unique_name": None,
    "redock.api.NoContainerRunning": None,
    "redock.api.SecureShellTimeout": None,
    "redock.api.Session": [],
    "redock.api.Session.reset": [],
    "redock.base.create_base_image": ["client"],
    "redock.base.download_image": ["client", "repository", "tag"],
    "redock.base.find_base_image": ["client"],
    "redock.base.find_named_image": ["client", "repository", "tag"],
    "redock.utils.Config": [],
    "redock.utils.Config.load": ["exists=True"],
    "redock.utils.RemoteTerminal": ["container_id"],
    "redock.utils.RemoteTerminal.attach": [],
    "redock.utils.RemoteTerminal.detach": [],
    "redock.utils.apt_get_install": ["*packages"],
    "redock.utils.create_configuration_directory": [],
    "redock.utils.find_local_ip_addresses": [],
    "redock.utils.generate_ssh_key_pair": [],
    "redock.utils.get_ssh_public_key": [],
    "redock.utils.quote_command_line": ["command"],
    "redock.utils.select_ubuntu_mirror": ["force=False"],
    "redock.utils.slug": ["text"],
    "redock.utils.summarize_id": ["id"],
}


def find(name: str) -> tuple[object, object]:
    """The owner of a name and what the name stands for."""
    parts = name.split(".")
    owner: object = importlib.import_module(".".join(parts[:2]))
    for part in parts[2:-1]:
        owner = getattr(owner, part)
    return owner, inspect.getattr_static(owner, parts[-1])


@pytest.mark.parametrize("name", MANUAL)
def test_the_name_is_there_and_takes_what_it_took(name: str) -> None:
    owner, found = find(name)
    expected = MANUAL[name]
    if expected is None:
        assert isinstance(found, property) or issubclass(found, Exception)  # type: ignore[arg-type]
        return
    function = getattr(owner, name.rpartition(".")[2])
    parameters = [
        str(parameter.replace(annotation=inspect.Parameter.empty)).replace(" ", "")
        for parameter in inspect.signature(function).parameters.values()
    ]
    if inspect.isclass(owner) and not isinstance(found, staticmethod):
        assert parameters.pop(0) == "self"
    assert parameters[: len(expected)] == expected
    for added in inspect.signature(function).parameters.values():
        if added.name not in {each.partition("=")[0].lstrip("*") for each in expected}:
            assert added.name == "self" or added.default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", MANUAL)
def test_the_name_is_public(name: str) -> None:
    parts = name.split(".")
    assert parts[2] in importlib.import_module(".".join(parts[:2])).__all__


def test_errors_are_the_builtins_a_program_of_2013_may_catch() -> None:
    assert issubclass(NoContainerRunning, LookupError)
    assert issubclass(SecureShellTimeout, TimeoutError)
