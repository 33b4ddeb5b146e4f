"""
JSON as text, without the module ``json``.

That one brings regular expressions along, and both together take longer to load than an engine
takes to say what machines there are. The parts that do the work are in C and can be had alone.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "indented", "loads"]

#: What may stand around a value: RFC 8259, section 2.
BLANKS = " \t\n\r"


class Defaults:
    """How :class:`json.JSONDecoder` decodes when nothing else was asked for."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    # Engines say no NaN; whoever does gets what json.loads makes of it.
    parse_constant = None


def refuse(value: object) -> object:
    """
    Complain about what JSON cannot say, as :func:`json.dumps` does.

    :param value: The value.
    :raises TypeError: Always.
    """
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


scan: Any = None
encode: Any = None
try:
    import _json as accelerator

    defaults: Any = Defaults
    quote = accelerator.encode_basestring_ascii
    # Without the look for circles: its memory would be shared between threads.
    encode = accelerator.make_encoder(None, refuse, quote, None, ": ", ", ", False, False, True)
    scan = accelerator.make_scanner(defaults)
except (ImportError, AttributeError, TypeError):
    # They are CPython's own, and no promise of its library. Without them it takes longer, no more.
    scan = encode = None


def loads(text: str | bytes) -> Any:
    """
    Decode JSON, as :func:`json.loads` does.

    :param text: The text; bytes are in UTF-8.
    :returns: The value.
    :raises ValueError: The text is not JSON.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if scan is not None:
        bare = text.strip(BLANKS)
        try:
            value, end = scan(bare, 0)
        except (StopIteration, ValueError, TypeError):
            end = -1
        if end == len(bare):
            return value
    import json

    # It says best what is wrong.
    return json.loads(text)


def dumps(value: object) -> str:
    """
    Encode a value, as :func:`json.dumps` does.

    :param value: What JSON can say: dictionaries, lists, text, numbers, True, False, None.
    :returns: The text, in ASCII.
    :raises TypeError: There is something else in it.
    """
    if encode is not None:
        return "".join(encode(value, 0))
    import json

    return json.dumps(value)


def indented(value: object, margin: str = "\n") -> str:
    """
    Encode a value for people to read, as :func:`json.dumps` does with an indent of two.

    :param value: What JSON can say, with texts as the keys of its dictionaries.
    :param margin: What a line begins with, its break before (default: nothing).
    :returns: The text, in ASCII, without a break at its end.
    :raises TypeError: There is something else in it.
    """
    inner = f"{margin}  "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{dumps(name)}: {indented(each, inner)}" for name, each in value.items()]
        return f"{{{','.join(lines)}{margin}}}"
    if isinstance(value, (list, tuple)) and value:
        return f"[{','.join(inner + indented(each, inner) for each in value)}{margin}]"
    return dumps(value)
