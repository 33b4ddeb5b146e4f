"""
What containers print: taken out of the engine's streams, and made safe for a terminal.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["demultiplex", "join_frames", "printable"]


def demultiplex(raw: bytes) -> Iterator[bytes]:
    """
    Split a container's log into the pieces it printed.

    The format is that of the API's attach: eight bytes of header, of which the
    last four are the length, before each piece.

    :param raw: The log as the engine sends it.
    :returns: Yields the pieces.
    """
    position = 0
    while position + 8 <= len(raw):
        if raw[position] > 2 or raw[position + 1 : position + 4] != b"\0\0\0":
            break
        size = int.from_bytes(raw[position + 4 : position + 8], "big")
        yield raw[position + 8 : position + 8 + size]
        position += 8 + size
    yield raw[position:]


def join_frames(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """
    Get what a container prints out of a stream, as it comes.

    As :func:`demultiplex`, for a stream that arrives in pieces of any size.

    :param pieces: The stream.
    :returns: Yields what was printed.
    """
    buffer, missing = b"", 0
    for piece in pieces:
        buffer += piece
        while buffer:
            if missing:
                part, buffer = buffer[:missing], buffer[missing:]
                missing -= len(part)
                yield part
            elif len(buffer) < 8:
                break
            else:
                missing, buffer = int.from_bytes(buffer[4:8], "big"), buffer[8:]


def printable(text: str) -> str:
    """
    Remove what could steer a terminal from the output of a container.

    :param text: Any text.
    :returns: The text without escape sequences (ECMA-48) and other control characters, except
              newlines and tabs.
    """
    import re

    kept = "\n\t"
    # Sequences with parameters, strings up to their end, and the rest: two characters.
    text = re.sub(
        r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
        r"|(?:\x1b[PX^_\]]|[\x90\x98\x9d-\x9f])[^\x07\x1b\n]*(?:\x07|\x1b\\)?"
        r"|\x1b[ -~]",
        "",
        text,
    )
    return "".join(c for c in text if c in kept or (c.isprintable() and c != "\x7f"))
