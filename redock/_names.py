"""
The grammar of names: images, host names, SSH aliases.

Every name that reaches an engine, a file name or an SSH configuration passes
through here first. All patterns are ASCII and match the whole text.
"""

from __future__ import annotations

import os

from redock.errors import InvalidName

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

__all__ = [
    "HISTORY",
    "alias_for",
    "check_hostname",
    "check_ssh_alias",
    "container_name",
    "default_repository",
    "familiar",
    "history_repository",
    "hostname_for",
    "image_slug",
    "is_reserved",
    "nearest",
    "slug",
    "split_container_name",
    "split_image_name",
]


#: The characters of names that need no look at the grammar, with hyphens inside.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
#: RFC 1123, section 2.1: as long as a label may be.
LONGEST_LABEL = 63


class Pattern:
    """
    What a whole text must look like.

    :param expression: A regular expression; its classes of characters are those of ASCII. It
                       matches at least every label of a host name in lower case.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.compiled: re.Pattern[str] | None = None

    def fits(self, text: str) -> bool:
        """
        Check a text.

        :param text: The text.
        :returns: True when all of it matches.
        """
        if (
            PLAIN.issuperset(text)
            and 0 < len(text) <= LONGEST_LABEL
            and not text.startswith("-")
            and not text.endswith("-")
        ):
            return True
        if self.compiled is None:
            # Regular expressions take longer to load than a list of machines.
            import re

            self.compiled = re.compile(self.expression, re.ASCII)
        return self.compiled.fullmatch(text) is not None


#: Docker's grammar of repository names: https://pkg.go.dev/github.com/distribution/reference
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
DOMAIN_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
DOMAIN = rf"(?:{DOMAIN_LABEL}(?:\.{DOMAIN_LABEL})*(?::[0-9]{{1,5}})?/)?"
REPOSITORY = Pattern(DOMAIN + COMPONENT + "(?:/" + COMPONENT + ")*")
TAG = Pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
#: Names of users as directories and domains have them; anything else is a mistake or an attack.
USER = Pattern(r"[A-Za-z0-9_][A-Za-z0-9_.$@\\ -]*")
#: RFC 1123, section 2.1: letters, digits and hyphens.
LABEL = Pattern(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
SSH_ALIAS = Pattern(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9._-]*")

#: Where the base images are: ``redock:base`` and ``redock:base-DISTRIBUTION``.
BASE_REPOSITORY = "redock"
BASE_TAG = "base"
#: Where older commits are: repositories below this one.
HISTORY = "redock-history"

LONGEST_REPOSITORY = 255
#: Linux: HOST_NAME_MAX, see gethostname(2).
LONGEST_HOSTNAME = 64


def shown(value: object) -> str:
    """
    Show text in a message in a form that is safe on a terminal and not endless.

    :param value: What somebody gave as a name.
    :returns: The quoted text, cut after 60 characters, without control characters.
    """
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """
    Find what somebody may have meant.

    :param word: What they wrote.
    :param known: What there is.
    :returns: The most similar of these; empty when there is nothing at all.
    """
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0)), "")


def slug(text: str) -> str:
    """
    Convert text to a "slug": lower case words joined by hyphens.

    >>> slug("Some Random Text!")
    'some-random-text'

    :param text: The original text.
    :returns: The slug; empty if the text has no ASCII letter or digit.
    """
    import re

    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def default_repository() -> str:
    """
    Find the repository of names that mention none: the name of the user.

    The environment variable ``$USER`` decides, as it did in 2013; where it is
    not set the name in the password database is used. What does not fit the
    grammar of repositories (upper case, ``DOMAIN\\user``) is mapped to it.

    :returns: A valid repository name.
    :raises InvalidName: Nothing of the user's name can be used.
    """
    user = os.environ.get("USER") or passwd_name()
    if REPOSITORY.fits(user) and len(user) <= LONGEST_REPOSITORY and "/" not in user:
        return user
    # The domain of DOMAIN\user and of user@domain says nothing about the machine's owner here.
    mapped = slug(user.rpartition("\\")[2].partition("@")[0])
    if not mapped or not USER.fits(user):
        raise InvalidName(
            f"the user name {shown(user)} cannot be used as a repository:"
            " give names as REPOSITORY:TAG or set $USER"
        )
    return mapped


def passwd_name() -> str:
    """
    Get the name of the user from the password database.

    :returns: The login name, or ``uid-N`` for a user without an entry.
    """
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def split_image_name(value: str) -> tuple[str, str]:
    """
    Split the name of an image into its repository and tag.

    :param value: ``REPOSITORY:TAG``, or just ``TAG`` for an image of the user's.
    :returns: The repository and the tag.
    :raises InvalidName: The name is outside the grammar.
    """
    head, slash, tail = value.rpartition("/")
    before, colon, tag = tail.rpartition(":")
    repository = head + slash + before
    if not colon:
        if slash:
            raise InvalidName(
                f"invalid name {shown(value)}: the tag is missing, write REPOSITORY:TAG"
            )
        repository, tag = default_repository(), value
    if not TAG.fits(tag):
        raise InvalidName(
            f"invalid name {shown(value)}: a tag is 1 to 128 letters, digits, '_', '.' and '-',"
            " not starting with '.' or '-'"
        )
    if len(repository) > LONGEST_REPOSITORY or not REPOSITORY.fits(repository):
        raise InvalidName(
            f"invalid name {shown(value)}: a repository is lower case letters and digits,"
            " separated by '.', '_', '-' or '/', at most 255 characters"
        )
    return repository, tag


def check_hostname(value: str) -> str:
    """
    Check a host name.

    :param value: The host name.
    :returns: The same host name.
    :raises InvalidName: It is not a name of letters, digits and hyphens (RFC 1123) that
                         Linux accepts.
    """
    labels = value.split(".")
    if (
        len(value) > LONGEST_HOSTNAME
        or not all(LABEL.fits(label) for label in labels)
        or value.replace(".", "").isdigit()
    ):
        raise InvalidName(
            f"invalid host name {shown(value)}: letters, digits and '-' (not only digits),"
            " at most 64 characters"
        )
    return value


def hostname_for(tag: str) -> str:
    """
    Find the host name of a machine when none was asked for: its tag.

    :param tag: A valid tag.
    :returns: The tag where it is a host name, else the host name that comes closest.
    """
    try:
        return check_hostname(tag)
    except InvalidName:
        name = slug(tag)[:LONGEST_LABEL].strip("-")
        if not name or name.isdigit():
            name = f"redock-{name}"[:LONGEST_LABEL].strip("-")
        return name


def alias_for(tag: str, hostname: str) -> str:
    """
    Find the name to give to ``ssh`` for a machine.

    :param tag: Its tag.
    :param hostname: Its host name; one that was asked for is the alias, too.
    :returns: ``NAME-container``.
    """
    name = slug(hostname if hostname != hostname_for(tag) else tag)
    return f"{name or 'redock'}-container"


def container_name(repository: str, tag: str) -> str:
    """
    Name the container of an image, differently for every image.

    The engine accepts neither ``/`` nor ``:`` in the names of containers.
    The replacements contain pairs of separators, which no repository has, so
    two images never get the same name.

    :param repository: A valid repository.
    :param tag: A valid tag.
    :returns: A name for the engine.
    """
    return f"redock-{repository.replace('/', '._').replace(':', '.-')}..{tag}"


def split_container_name(name: str) -> tuple[str, str] | None:
    """
    Find out which machine a container is by its name.

    :param name: The name the engine has for it.
    :returns: The repository and the tag; None when no machine has such a container.
    """
    kept, dots, tag = name.removeprefix("redock-").partition("..")
    repository = kept.replace("._", "/").replace(".-", ":")
    if not dots or not TAG.fits(tag) or not REPOSITORY.fits(repository):
        return None
    return (repository, tag) if container_name(repository, tag) == name else None


def is_reserved(repository: str, tag: str) -> bool:
    """
    Check whether a name belongs to a base image, a node of a cluster or an older commit.

    :param repository: The repository.
    :param tag: The tag.
    :returns: True when no machine may have it.
    """
    return repository.partition("/")[0] == HISTORY or (
        repository == BASE_REPOSITORY
        and (tag.partition("-")[0] == BASE_TAG or tag.startswith("cluster."))
    )


def familiar(name: str) -> str:
    """
    Shorten the name of an image to what Docker calls it.

    :param name: A name as Podman has it, for instance ``docker.io/library/debian:12`` or
                 ``localhost/redock:base``.
    :returns: The name without the registry where that is Docker's, or none.
    """
    name = name.removeprefix("localhost/")
    return name.removeprefix("docker.io/").removeprefix("library/")


def image_slug(name: str) -> str:
    """
    Turn the name of an image into a tag.

    :param name: For example ``ubuntu:24.04``.
    :returns: For example ``ubuntu-24.04``.
    """
    import re

    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-")[:100]


def history_repository(name: str) -> str:
    """
    Get the repository of the commits of a machine.

    :param name: The name of the machine, ``REPOSITORY:TAG``.
    :returns: A repository that differs for every name; names may be longer than it, and have
              letters in upper case, which repositories have not.
    """
    import hashlib

    number = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{HISTORY}/{slug(name)[:80].strip('-')}-{number}"


def check_ssh_alias(value: str) -> str:
    """
    Check the name of a host before it is given to ``ssh``.

    A name that starts with a hyphen would be an option of ``ssh`` and may run
    a local command (``-oProxyCommand=...``).

    :param value: An alias or host name, with ``USER@`` before it or not.
    :returns: The same name.
    :raises InvalidName: The name could be taken for something else.
    """
    if not SSH_ALIAS.fits(value) or len(value) > 255:
        raise InvalidName(
            f"invalid SSH alias {shown(value)}: letters, digits, '.', '_' and '-',"
            " optionally with USER@ in front"
        )
    return value
