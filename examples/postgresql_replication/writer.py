"""
A client that inserts one row after another, and reports each that was committed.

Runs inside a node, with Debian's python3-psycopg2. It reports None when its connection is lost.
"""

import itertools


def main(channel, server):
    import psycopg2  # which this host need not have

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
    main(channel, channel.receive())  # noqa: F821
