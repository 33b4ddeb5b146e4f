"""
The identity of a machine: its host key and who may log in, in a volume of its own.

Volumes are not part of a commit, so images can be handed on and every machine
made from one has a host key of its own.
"""

from __future__ import annotations

import io
import logging

from redock import _recipe, _ssh
from redock._machines import Machine, archive
from redock.errors import NotFound
from redock.utils import get_ssh_public_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock._engine import Engine

__all__ = ["adopt", "files", "recall_public_key"]

logger = logging.getLogger(__name__)


def files(
    instance: str, private_key: bytes, public_key: bytes, authorized_keys: str
) -> dict[str, tuple[int, bytes]]:
    """
    Put together what makes a container that very machine.

    :param instance: The id of the container.
    :param private_key: The private host key.
    :param public_key: The public host key.
    :param authorized_keys: Who may log in, lines of sshd(8).
    :returns: Permissions and contents, by name in the identity's directory.
    """
    return {
        "ssh_host_ed25519_key": (0o600, private_key),
        "ssh_host_ed25519_key.pub": (0o644, public_key),
        "authorized_keys": (0o644, authorized_keys.encode() + b"\n"),
        "instance": (0o644, instance.encode() + b"\n"),
    }


def recall_public_key(engine: Engine, machine: Machine) -> bytes:
    """
    Get the public host key of a container that exists.

    :param engine: The engine.
    :param machine: The container.
    :returns: The pinned key; the key the engine has in the container's volume where nothing
              is pinned (redock's directory was lost).
    """
    return _ssh.pinned_key(machine.instance) or adopt(engine, machine)


def adopt(engine: Engine, machine: Machine) -> bytes:
    """
    Take over a machine whose keys this home directory does not know.

    Whoever controls the engine controls the machine, so the engine is asked
    for the host key and told who may log in from now on.

    :param engine: The engine.
    :param machine: The container; one without an identity gets a new one.
    :returns: The public host key.
    """
    directory = _recipe.IDENTITY_DIRECTORY
    logger.info("Taking over %s, whose keys are not known here", machine.name)
    try:
        public_key = read_file(engine, machine, f"{directory}/ssh_host_ed25519_key.pub")
        allowed = read_file(engine, machine, f"{directory}/authorized_keys").decode()
    except NotFound:
        # It was interrupted before its identity arrived.
        private_key, public_key = _ssh.HostKey().collect()
        made = files(machine.instance, private_key, public_key, get_ssh_public_key())
    else:
        keys = dict.fromkeys([*allowed.splitlines(), get_ssh_public_key()])
        made = {"authorized_keys": (0o644, "\n".join([*keys, ""]).encode())}
    engine.put_archive(machine.id, directory, archive(made))
    return public_key


def read_file(engine: Engine, machine: Machine, path: str) -> bytes:
    """
    Read a small file of a container, whether it runs or not.

    :param engine: The engine.
    :param machine: The container.
    :param path: The pathname inside.
    :returns: The contents.
    :raises NotFound: There is no such file.
    """
    import tarfile

    packed = engine.get_archive(machine.id, path)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        member = tar.extractfile(tar.next() or "")
        return member.read() if member else b""
