"""
A client that inserts one row after another, and reports each that was committed.

Runs inside a node, with Debian's python3-psycopg2. It reports None when its connection is lost.
"""

from __future__ import annotations

import itertools
from typing import Any


def main(channel: Any, server: str) -> None:
    import psycopg2  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        connection = psycopg2.connect(host=server, user="postgres", connect_timeout=20)
        connection.autocommit = True
        cursor = connection.cursor()
        for number in itertools.count(1):
            cursor.execute("INSERT INTO journal VALUES (%s)", [number])
            channel.send(number)
    except psycopg2.Error:
        channel.send(None)


if __name__ == "__channelexec__":
    channel = globals()["channel"]
    main(channel, channel.receive())
