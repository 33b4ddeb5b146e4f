"""Where the engine is: the environment, contexts, sockets, other machines."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import pytest

from redock import _endpoint
from redock._endpoint import Endpoint, check, find_endpoint
from redock._engine import Engine
from redock._tunnel import Tunnel
from redock.errors import DockerUnavailable


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr(_endpoint, "DEFAULT_SOCKET", "/nonexistent/docker.sock")


def make_context(directory: Path, name: str, host: str) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    path = directory / "contexts" / "meta" / digest / "meta.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


def test_the_default_is_the_usual_socket() -> None:
    found = find_endpoint()
    assert (found.url, found.source) == ("unix:///nonexistent/docker.sock", "default")
    assert str(found) == found.url


def test_the_variable_comes_first(
    monkeypatch: pytest.MonkeyPatch, home: Path, sandbox: Path
) -> None:
    make_context(home / ".docker", "mine", "unix:///context.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    monkeypatch.setenv("DOCKER_HOST", " unix:///variable.sock ")
    found = find_endpoint()
    assert (found.url, found.source) == ("unix:///variable.sock", "DOCKER_HOST")
    assert str(found) == "unix:///variable.sock (from DOCKER_HOST)"


def test_an_address_without_a_scheme_is_tcp_as_docker_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "localhost:2375")
    assert find_endpoint().url == "tcp://localhost:2375"
    assert find_endpoint().socket_path is None


def test_a_context_can_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    make_context(home / ".docker", "mine", "unix:///context.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    found = find_endpoint()
    assert (found.url, found.source) == ("unix:///context.sock", "context mine")


def test_the_current_context_is_in_the_configuration(
    monkeypatch: pytest.MonkeyPatch, sandbox: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(sandbox))
    make_context(sandbox, "mine", "unix:///context.sock")
    (sandbox / "config.json").write_text('{"currentContext": "mine"}')
    assert find_endpoint().socket_path == "/context.sock"


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"currentContext": ""}', '"x"'])
def test_a_configuration_without_a_context_means_the_default(contents: str, home: Path) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text(contents)
    assert find_endpoint().source == "default"


def test_the_default_context_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert find_endpoint().source == "default"


def test_a_context_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(
        DockerUnavailable, match=r"context 'gone' \(from DOCKER_CONTEXT\)"
    ) as caught:
        find_endpoint()
    assert "docker context use" in str(caught.value)


@pytest.mark.parametrize(
    "metadata",
    ["[]", "{}", '{"Endpoints": null}', '{"Endpoints": {"docker": null}}', '{"Endpoints": []}'],
)
def test_a_damaged_context_does_not_exist(
    metadata: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    make_context(home / ".docker", "mine", "x")
    (path,) = (home / ".docker").rglob("meta.json")
    path.write_text(metadata)
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    with pytest.raises(DockerUnavailable, match="does not exist"):
        find_endpoint()


def test_a_rootless_engine_is_found_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch, sandbox: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sandbox))
    assert find_endpoint().source == "default"
    (sandbox / "docker.sock").touch()
    assert find_endpoint().url == f"unix://{sandbox}/docker.sock"
    (sandbox / "usual.sock").touch()
    monkeypatch.setattr(_endpoint, "DEFAULT_SOCKET", str(sandbox / "usual.sock"))
    assert find_endpoint().url == f"unix://{sandbox}/usual.sock"


@pytest.mark.parametrize(
    "url",
    [
        "unix:///var/run/docker.sock",
        "tcp://localhost:2375",
        "tcp://127.0.0.1:2376",
        "http://[::1]:2375",
        "https://localhost",
    ],
)
def test_an_engine_on_this_machine_is_taken(url: str) -> None:
    check(Endpoint(url, "DOCKER_HOST"))
    assert Endpoint(url, "DOCKER_HOST").is_local


@pytest.mark.parametrize(
    ("url", "tls"),
    [
        ("ssh://me@elsewhere:2222", None),
        ("tcp://192.0.2.1:2376", "/x"),
        ("https://a.example", "/x"),
    ],
)
def test_an_engine_elsewhere_is_taken_when_the_way_is_protected(url: str, tls: str | None) -> None:
    check(Endpoint(url, "DOCKER_HOST", tls))
    assert not Endpoint(url, "DOCKER_HOST", tls).is_local


@pytest.mark.parametrize(
    "url",
    [
        "tcp://192.0.2.1:2375",
        "https://engine.example",
        "tcp://localhost.example:1",
        "tcp://127.0.0.1.example:1",
    ],
)
def test_an_engine_that_anybody_could_use_is_refused(url: str) -> None:
    with pytest.raises(DockerUnavailable, match="ssh://USER@HOST"):
        check(Endpoint(url, "DOCKER_HOST"))


@pytest.mark.parametrize(
    "url", ["unix://relative", "unix://", "npipe:////./pipe", "tcp://", "x://y"]
)
def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(DockerUnavailable, match="cannot make sense"):
        check(Endpoint(url, "DOCKER_HOST"))


def test_certificates_are_where_docker_has_them(
    monkeypatch: pytest.MonkeyPatch, home: Path, sandbox: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.example:2376")
    assert find_endpoint().tls is None
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert find_endpoint().tls == str(home / ".docker")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(sandbox))
    assert find_endpoint().tls == str(sandbox)
    monkeypatch.delenv("DOCKER_HOST")
    make_context(home / ".docker", "mine", "tcp://engine.example:2376")
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert find_endpoint().tls is None
    digest = hashlib.sha256(b"mine").hexdigest()
    certificates = home / ".docker" / "contexts" / "tls" / digest / "docker"
    certificates.mkdir(parents=True)
    assert find_endpoint().tls == str(certificates)


def test_podman_is_found_where_there_is_no_docker(
    monkeypatch: pytest.MonkeyPatch, sandbox: Path
) -> None:
    monkeypatch.setattr(_endpoint, "PODMAN_SOCKET", str(sandbox / "podman.sock"))
    (sandbox / "podman.sock").touch()
    assert find_endpoint().url == f"unix://{sandbox}/podman.sock"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sandbox))
    (sandbox / "podman").mkdir()
    (sandbox / "podman" / "podman.sock").touch()
    assert find_endpoint().url == f"unix://{sandbox}/podman/podman.sock"


def test_the_engine_is_looked_for_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    engine = Engine()
    with pytest.raises(DockerUnavailable, match="another machine"):
        engine.version()


# Over SSH.


@pytest.mark.parametrize(
    ("url", "destination", "port", "socket"),
    [
        ("ssh://host", "host", None, "/var/run/docker.sock"),
        ("ssh://me@host.example:2222", "me@host.example", 2222, "/var/run/docker.sock"),
        ("ssh://me@host/run/user/1000/podman/podman.sock", "me@host", None,
         "/run/user/1000/podman/podman.sock"),
    ],
)  # fmt: skip
def test_where_a_tunnel_leads(url: str, destination: str, port: int | None, socket: str) -> None:
    tunnel = Tunnel(Endpoint(url, "DOCKER_HOST"))
    assert (tunnel.destination, tunnel.port, tunnel.remote_socket) == (destination, port, socket)
    assert tunnel.ssh()[-2:] == ["--", destination]


@pytest.mark.parametrize(
    "url",
    [
        "ssh://",
        "ssh://-oProxyCommand=id",
        "ssh://a b",
        "ssh://$(id)",
        "ssh://host:port",
        "ssh://host:99999",
        "ssh://a@b@c",
        "ssh://host/so ck",
        "ssh://host/a:b",
        "ssh://host\nx",
    ],
)
def test_what_could_be_something_else_is_refused(url: str) -> None:
    with pytest.raises(DockerUnavailable, match="cannot make sense"):
        Tunnel(Endpoint(url, "DOCKER_HOST"))


def test_the_proxy_command_is_for_a_shell_and_for_ssh(
    monkeypatch: pytest.MonkeyPatch, sandbox: Path
) -> None:
    (sandbox / "50% of it").mkdir()
    monkeypatch.setenv("REDOCK_HOME", str(sandbox / "50% of it"))
    command = Tunnel(Endpoint("ssh://me@host", "DOCKER_HOST")).proxy_command
    # ssh_config(5): tokens are replaced first, then a shell reads it.
    words = shlex.split(command.replace("%%", "\0").replace("%h", "h").replace("%p", "22"))
    assert words[words.index("-W") + 1] == "h:22"
    assert "%" not in "".join(words)
    (control,) = (word for word in words if word.startswith("ControlPath="))
    # ssh reads this one once more, as a ControlPath.
    assert (
        control.replace("\0", "%")
        .replace("%%", "%")
        .startswith(f"ControlPath={sandbox}/50% of it/")
    )
