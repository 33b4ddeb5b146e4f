"""Checks arguments of operations and turns them into what travels to the host."""

from __future__ import annotations

import os
import re

from redock.bootstrap._change import Secret
from redock.errors import InvalidArgument, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

__all__ = [
    "argv",
    "authorized_keys_text",
    "check_environment",
    "check_names",
    "content_bytes",
    "file_mode",
    "package_names",
    "path_bytes",
    "pattern_bytes",
    "pure_source",
    "render",
    "repository_text",
    "unified_diff",
]

#: https://www.debian.org/doc/debian-policy/ch-controlfields.html#source
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+:~-]+)?", re.ASCII)
#: How many bytes one argument of a program can have, see execve(2).
LONGEST_ARGUMENT = 128 * 1024 - 1


def encode(text: str) -> bytes:
    """
    Encode text for the host; names that are no text survive.

    :param text: Any text.
    :returns: UTF-8, or the bytes that :func:`os.fsdecode` made the text of.
    :raises InvalidArgument: The text cannot be encoded.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"text with a lone surrogate at {error.start}") from None


def path_bytes(path: str | os.PathLike[str], *, absolute: bool = True) -> bytes:
    """
    Check a path on the host.

    :param path: The path.
    :param absolute: Whether it has to be absolute (default: yes).
    :returns: The path in bytes.
    :raises InvalidArgument: No such path can exist.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InvalidArgument("a path is text")
    data = encode(text)
    if not data or b"\0" in data:
        raise InvalidArgument(f"{text[:60]!r} is not a path")
    if absolute and not data.startswith(b"/"):
        raise InvalidArgument(f"the path {text[:60]!r} is not absolute")
    return (data.rstrip(b"/") or b"/") if absolute else data


def argv(command: Sequence[str]) -> list[bytes]:
    """
    Check the words of a command.

    :param command: The words.
    :returns: The words in bytes.
    :raises InvalidArgument: One of them cannot be an argument of a program.
    """
    if not command:
        raise InvalidArgument("a command has at least one word")
    words = []
    for word in command:
        if isinstance(word, Secret):
            raise InvalidArgument(
                "a secret cannot be an argument of a command: everybody on the host could read it"
                " in the list of processes; use input= or env="
            )
        if not isinstance(word, str):
            raise InvalidArgument(f"a word of a command is text, not {type(word).__name__}")
        data = encode(word)
        if b"\0" in data:
            raise InvalidArgument("an argument of a command has no zero bytes")
        if len(data) > LONGEST_ARGUMENT:
            raise InvalidArgument("an argument of a command has at most 128 KiB")
        words.append(data)
    if not words[0]:
        raise InvalidArgument("the name of a command is not empty")
    return words


def check_environment(env: Mapping[str, str | Secret] | None) -> tuple[dict[str, str], bool]:
    """
    Check environment variables.

    :param env: The variables.
    :returns: The variables without secrets, and whether there was one.
    :raises InvalidArgument: A name or value is impossible.
    """
    result = {}
    hidden = False
    for name, value in (env or {}).items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise InvalidArgument(f"{name!r} is not the name of an environment variable")
        if isinstance(value, Secret):
            hidden, value = True, value.reveal()
        if "\0" in value:
            raise InvalidArgument(f"the environment variable {name} has a zero byte")
        result[name] = value
    return result, hidden


def content_bytes(content: str | bytes | Secret | None) -> tuple[bytes | None, bool]:
    """
    Turn content into bytes.

    :param content: Text, bytes or a secret.
    :returns: The bytes, and whether it was a secret.
    :raises InvalidArgument: It is none of these.
    """
    if content is None:
        return None, False
    if isinstance(content, Secret):
        return encode(content.reveal()), True
    if isinstance(content, str):
        return encode(content), False
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content), False
    raise InvalidArgument(f"content is text or bytes, not {type(content).__name__}")


def file_mode(mode: int | str | None) -> int | None:
    """
    Check the permissions of a file.

    :param mode: An octal number, or text such as ``"0644"``.
    :returns: The number.
    :raises InvalidArgument: It is neither.
    """
    if mode is None:
        return None
    if isinstance(mode, str) and re.fullmatch(r"(?:0o)?[0-7]{3,5}", mode):
        mode = int(mode, 8)
    if not isinstance(mode, int) or isinstance(mode, bool) or not 0 <= mode <= 0o7777:
        raise InvalidArgument(f"mode {mode!r}: write 0o644 or '0644'")
    return mode


def check_names(name: str | int | None) -> str | int | None:
    """
    Check the name or number of an owner or group.

    :param name: The name or number.
    :returns: The same.
    :raises InvalidArgument: It is neither.
    """
    if name is None or (isinstance(name, int) and 0 <= name < 2**32 - 1):
        return name
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        return name
    raise InvalidArgument(f"{name!r} is not the name or number of a user or group")


def pattern_bytes(pattern: str | None) -> bytes | None:
    """
    Check a regular expression.

    :param pattern: The regular expression.
    :returns: The same in bytes.
    :raises InvalidArgument: It is not one.
    """
    if pattern is None:
        return None
    data = encode(pattern)
    try:
        re.compile(data)
    except re.error as error:
        raise InvalidArgument(f"regular expression {pattern!r}: {error}") from None
    return data


def package_names(names: Sequence[str]) -> list[str]:
    """
    Check the names of packages.

    :param names: The names.
    :returns: The names, each once.
    :raises InvalidArgument: One is not the name of a package, or there is none.
    """
    if not names:
        raise InvalidArgument("no package was named")
    for name in names:
        if not PACKAGE.fullmatch(name):
            raise InvalidArgument(f"{name!r} is not the name of a package")
    return list(dict.fromkeys(names))


def repository_text(
    name: str,
    uris: str | Iterable[str],
    suites: str | Iterable[str],
    components: str | Iterable[str],
    signed_by: str | None,
    state: str,
) -> bytes:
    """
    Compose the description of a repository, see :manpage:`sources.list(5)`.

    :param name: The name of the file.
    :param uris: The addresses.
    :param suites: The suites.
    :param components: The components; none for a suite that ends in a slash.
    :param signed_by: The path of a keyring or an ASCII armored key.
    :param state: ``present`` or ``absent``.
    :returns: The content of the file.
    :raises InvalidArgument: A value does not fit into it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise InvalidArgument(
            f"{name!r}: letters, digits, '_' and '-' make the name of a repository"
        )
    if state == "absent":
        return b""
    fields = [("Types", ["deb"])]
    for field, values in (("URIs", uris), ("Suites", suites), ("Components", components)):
        words = [values] if isinstance(values, str) else list(values)
        if not words and field != "Components":
            raise InvalidArgument(f"a repository has {field}")
        if not all(re.fullmatch(r"\S+", word) for word in words):
            raise InvalidArgument(f"{field} without blanks, please")
        fields.append((field, words))
    lines = [f"{field}: {' '.join(words)}" for field, words in fields if words]
    if signed_by is not None and signed_by.lstrip().startswith("-----BEGIN PGP"):
        key = [" " + (line.strip() or ".") for line in signed_by.strip().splitlines()]
        lines += ["Signed-By:", *key]
    elif signed_by is not None:
        lines.append("Signed-By: " + os.fsdecode(path_bytes(signed_by)))
    if any("\n" in line for line in lines):
        raise InvalidArgument("a line break in the description of a repository")
    return encode("\n".join(lines) + "\n")


def authorized_keys_text(keys: str | Iterable[str] | None) -> bytes | None:
    """
    Compose a file of keys.

    :param keys: The text or the lines.
    :returns: The content.
    """
    if keys is None:
        return None
    lines = keys.splitlines() if isinstance(keys, str) else [key.strip("\n") for key in keys]
    return encode("".join(line + "\n" for line in lines))


def render(template: str | os.PathLike[str], variables: Mapping[str, Any]) -> str:
    """
    Render a Jinja2 template.

    :param template: The text, or the path of a local file.
    :param variables: The values of the variables.
    :returns: The text.
    :raises InvalidArgument: The template is wrong, or a variable is missing.
    """
    try:
        import jinja2
    except ImportError as error:
        raise RedockError("templates need Jinja2: pip install 'redock[templates]'") from error
    name = "template"
    if not isinstance(template, str):
        name = os.fspath(template)
        try:
            with open(template, encoding="utf-8") as handle:
                template = handle.read()
        except OSError as error:
            raise InvalidArgument(f"cannot read {name}: {error.strerror}") from error
    # Configuration files are not HTML.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    try:
        return environment.from_string(template).render(variables)
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f"{name}:{line}" if line else name
        raise InvalidArgument(f"{where}: {error.message}") from None


def unified_diff(path: str, before: bytes, after: bytes) -> str:
    """
    Compare two contents.

    :param path: Where they are.
    :param before: The content that is there.
    :param after: The content that is wanted.
    :returns: A unified diff; empty when one of them is not text.
    """
    import difflib

    try:
        old, new = before.decode().splitlines(True), after.decode().splitlines(True)
    except UnicodeDecodeError:
        return ""
    if "\0" in "".join(old[:1] + new[:1]):
        return ""
    lines = []
    for line in difflib.unified_diff(old, new, path, path):
        lines.append(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
    return "".join(lines)


def pure_source(function: Callable[..., Any]) -> tuple[str, str]:
    """
    Get the source of a function that can run elsewhere.

    :param function: The function.
    :returns: Its source and its name.
    :raises InvalidArgument: It is not a function that stands for itself.
    """
    import builtins
    import inspect
    import textwrap
    import types

    if not isinstance(function, types.FunctionType) or function.__name__ == "<lambda>":
        raise InvalidArgument("call() takes a function that was defined with def")
    name = function.__name__
    if function.__closure__:
        names = ", ".join(function.__code__.co_freevars)
        raise InvalidArgument(f"{name}() uses variables of the function around it: {names}")
    foreign = sorted(
        item
        for item in global_names(function.__code__)
        if not hasattr(builtins, item) and item != name
    )
    if foreign:
        raise InvalidArgument(
            f"{name}() uses names of its module: {', '.join(foreign)}; import or define them inside"
        )
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise InvalidArgument(f"the source of {name}() cannot be found") from None
    if not source.startswith("def "):
        raise InvalidArgument(f"{name}() is decorated or asynchronous")
    return source, name


def global_names(code: Any) -> set[str]:
    """Find the global names a function and the functions inside of it use."""
    import dis

    names = {
        str(instruction.argval)
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
    }
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            names |= global_names(constant)
    return names


def check_state(state: str, *known: str) -> None:
    """
    Check the state an operation is asked for.

    :param state: The state.
    :param known: The states the operation knows.
    :raises InvalidArgument: It is none of them.
    """
    if state not in known:
        raise InvalidArgument(f"the state {state!r} is none of {', '.join(known)}")
