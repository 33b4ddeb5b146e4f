"""
A project's own file: ``redock.toml`` says what machine the project needs.

Such a file comes with the project, and that may come from anybody. So what is
named in it stays in the machine and in the folder: a script runs on the
machine, directories are those of the project, and whatever reaches further
needs a word of the user, the setting ``trust``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat

from redock import _settings
from redock._files import user_home
from redock._image import Image
from redock._links import Port, Volume, is_path, read_environment
from redock._names import check_hostname, container_name, nearest, shown, slug
from redock._options import Options
from redock._process import quote
from redock.errors import InvalidArgument, InvalidName, SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["FILE", "KEYS", "TEMPLATE", "Project", "find_project", "read_project"]

FILE = "redock.toml"
#: A project's file is written by hand.
LONGEST_FILE = 1024 * 1024
#: A package as apt-get(8) takes it: a name, perhaps an architecture, a version or a release.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*(?::[a-z0-9-]+)?(?:[=/][A-Za-z0-9.+:~-]+)?", re.ASCII)

#: The keys of the file and the types their values may have.
KEYS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "base": (str,),
    "hostname": (str,),
    "packages": (list,),
    "provision": (str,),
    "user": (str, bool),
    "volumes": (list,),
    "ports": (list,),
    "env": (dict, list),
    "memory": (str, int),
    "cpus": (float, int, str),
    "network": (str, list),
    "agent": (bool,),
    "restart": (str,),
}

TEMPLATE = """\
# The machine of this project: "redock start" in this folder makes it.

# name = "web"                      # default: the name of this folder
# base = "debian:13"                # a Debian or Ubuntu image
# packages = ["nginx", "php-fpm"]   # installed once, and again when this list changes
# provision = "setup.sh"            # runs on the machine, as root, under the same rule
# user = true                       # you, with your number, instead of root
# volumes = [".:/srv/project"]      # directories of this folder, or names of volumes
# ports = ["8080:80"]               # on 127.0.0.1
# env = { APP_ENV = "development" }
# memory = "512m"
# cpus = 1.5
# network = "backend"
# restart = "unless-stopped"
# hostname = "web.example.org"
"""


@dataclasses.dataclass(frozen=True)
class Project:
    """
    A project's folder and what its file says.

    :param path: The pathname of the file.
    :param values: What is in it, by key; the types are right.
    """

    path: str
    values: dict[str, Any]

    @property
    def directory(self) -> str:
        """The folder."""
        return os.path.dirname(self.path)

    @property
    def name(self) -> str:
        """The name of the machine, as on a command line: what the file says, else the folder."""
        name = self.values.get("name") or slug(os.path.basename(self.directory))[:100]
        try:
            Image.coerce(name)
        except InvalidName as error:
            raise SettingsError(f"{self.path}: name: {error}") from error
        return str(name)

    @property
    def hostname(self) -> str | None:
        """The host name that is asked for."""
        if "hostname" not in self.values:
            return None
        try:
            return check_hostname(self.values["hostname"])
        except InvalidName as error:
            raise SettingsError(f"{self.path}: {error}") from error

    @property
    def base(self) -> str | None:
        """What the base image is made from; the environment comes first."""
        return None if os.environ.get("REDOCK_BASE") else self.values.get("base")

    @property
    def packages(self) -> list[str]:
        """The packages to install."""
        for package in self._texts("packages"):
            if not PACKAGE.fullmatch(package):
                raise SettingsError(f"{self.path}: packages: {shown(package)} is no package")
        return self._texts("packages")

    @property
    def script(self) -> bytes | None:
        """The program that is run on the machine."""
        if "provision" not in self.values:
            return None
        path = os.path.realpath(os.path.join(self.directory, self.values["provision"]))
        self._check_inside(path, "provision")
        try:
            with open(path, "rb") as handle:
                return handle.read()
        except OSError as error:
            raise SettingsError(f"{self.path}: cannot read {path}: {error.strerror}") from error

    @property
    def trusted(self) -> bool:
        """Whether the user lets the file reach out of its folder."""
        folders = _settings.setting("trust").split(os.pathsep)
        return any(
            is_inside(self.directory, os.path.realpath(os.path.expanduser(each)))
            for each in folders
            if each
        )

    def options(self) -> Options:
        """
        Get what the machine is to be started with.

        :returns: The options; settings in the environment come before what the file says.
        :raises SettingsError: A value makes no sense, or needs trust.
        """
        given: dict[str, Any] = {}
        for key in ("memory", "cpus", "restart", "user", "agent"):
            if key in self.values:
                given[key] = self.values[key]
        if "user" in given and isinstance(given["user"], bool):
            given["user"] = "true" if given["user"] else "root"
        if "network" in self.values:
            network = self.values["network"]
            given["networks"] = [network] if isinstance(network, str) else self._texts("network")
        try:
            if "env" in self.values:
                given["env"] = self._environment()
            if "ports" in self.values:
                given["ports"] = [self._port(each) for each in self._texts("ports")]
            if "volumes" in self.values:
                given["volumes"] = [self._volume(each) for each in self._texts("volumes")]
            if given.get("agent"):
                self._need_trust("agent: your SSH agent is for whoever is root in the machine")
            options = Options(**given)
        except InvalidArgument as error:
            raise SettingsError(f"{self.path}: {error}") from error
        variables = _settings.configured(*_settings.OPTIONS, variables_only=True)
        return _settings.as_options(variables).over(options)

    def _texts(self, key: str) -> list[str]:
        """
        Get a list of texts.

        :param key: Its key.
        :returns: The list.
        """
        found = self.values.get(key, [])
        if not all(isinstance(each, str) for each in found):
            raise SettingsError(f'{self.path}: {key} is a list of texts, ["...", "..."]')
        return list(found)

    def _environment(self) -> dict[str, str]:
        """
        Get the environment variables.

        :returns: The values by name.
        """
        if isinstance(self.values["env"], dict):
            given = self.values["env"]
            if not all(isinstance(value, str) for value in given.values()):
                raise SettingsError(f'{self.path}: env is a table of texts, {{ KEY = "..." }}')
            return dict(given)
        for each in self._texts("env"):
            if "=" not in each:
                self._need_trust(
                    f"env: {shown(each)} of your environment would go into the machine"
                )
        return read_environment(self._texts("env"))

    def _port(self, text: str) -> Port:
        """
        Get a port.

        :param text: What the file says.
        :returns: The port.
        """
        port = Port.of(text)
        if not port.is_local:
            self._need_trust(f"ports: {text} would be open to the network")
        return port

    def _volume(self, text: str) -> Volume:
        """
        Get a volume; one with a name is the project's own.

        :param text: What the file says.
        :returns: The volume.
        """
        source, colon, rest = text.partition(":")
        if is_path(source):
            path = os.path.realpath(os.path.join(self.directory, os.path.expanduser(source)))
            self._check_inside(path, "volumes")
            return Volume.of(f"{path}{colon}{rest}")
        volume = Volume.of(text)
        machine = container_name(*Image.coerce(self.name).key)
        return dataclasses.replace(volume, source=f"{machine}.{volume.source}"[:255])

    def _check_inside(self, path: str, key: str) -> None:
        """
        Make sure a pathname is in the folder.

        :param path: The real pathname.
        :param key: Where it was found.
        """
        if not is_inside(path, self.directory):
            self._need_trust(f"{key}: {shown(path)} is outside of the project's folder")

    def _need_trust(self, what: str) -> None:
        """
        Make sure the user trusts the folder.

        :param what: What for.
        :raises SettingsError: They do not.
        """
        if not self.trusted:
            raise SettingsError(
                f"{self.path}: {what}; if you trust whoever wrote this:"
                f" {quote(['redock', 'config', 'add', 'trust', self.directory])}"
            )


def is_inside(path: str, directory: str) -> bool:
    """
    Check whether a pathname is in a directory.

    :param path: A real pathname.
    :param directory: The real pathname of the directory.
    :returns: True when it is, or is that directory.
    """
    return os.path.commonpath([path, directory]) == directory


def find_project(start: str | None = None) -> Project | None:
    """
    Find the project of a directory.

    The search goes up and ends at the home directory, or at the border of the file system.

    :param start: The directory (default: the working directory).
    :returns: The project, None when there is none.
    :raises SettingsError: There is a file, but of somebody else, or it makes no sense.
    """
    try:
        directory = os.path.realpath(start or os.getcwd())
        device = os.stat(directory).st_dev
    except OSError:
        # The working directory was removed.
        return None
    home = os.path.realpath(user_home())
    while True:
        path = os.path.join(directory, FILE)
        if os.path.lexists(path):
            return read_project(path)
        parent = os.path.dirname(directory)
        if directory in (home, parent) or os.stat(parent).st_dev != device:
            return None
        directory = parent


def read_project(path: str) -> Project:
    """
    Read a project's file.

    :param path: Its real pathname.
    :returns: The project.
    :raises SettingsError: It belongs to somebody else, cannot be read or makes no sense.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for what, found in ((path, os.fstat(handle)), (os.path.dirname(path), None)):
                check_owner(what, found or os.stat(what))
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LONGEST_FILE:
                raise SettingsError(f"{path} is not a file of TOML")
            with os.fdopen(os.dup(handle), "rb") as stream:
                contents = stream.read(LONGEST_FILE)
        finally:
            os.close(handle)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    values = _settings.load_toml(path, contents)
    for key, value in values.items():
        if key not in KEYS:
            raise SettingsError(
                f"{path}: unknown key {key!r}, did you mean {nearest(key, KEYS)!r}?"
            )
        kinds = KEYS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = {str: "text", bool: "true or false", list: "a list", dict: "a table"}
            wanted = " or ".join(dict.fromkeys(names.get(kind, "a number") for kind in kinds))
            raise SettingsError(f"{path}: {key} is {wanted}")
    return Project(path, values)


def check_owner(path: str, found: os.stat_result) -> None:
    """
    Make sure that only the user, or root, decides what is in a file or directory.

    :param path: Its pathname.
    :param found: What the system says about it.
    :raises SettingsError: Somebody else does.
    """
    if found.st_uid not in (os.getuid(), 0):
        raise SettingsError(
            f"{path} belongs to user id {found.st_uid}, not to you: {FILE} is not used; give the"
            " NAME of a machine"
        )
    if found.st_mode & stat.S_IWOTH:
        raise SettingsError(
            f"{path} can be changed by anybody: {FILE} is not used; give the NAME of a machine, or"
            f" 'chmod o-w {path}'"
        )
