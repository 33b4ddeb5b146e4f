#!/usr/bin/env python3
"""
A toy: a replicated journal, with two bugs to choose from.

The primary writes an entry to its disk, offers it to the replica, and confirms it; when the replica
cannot be reached it confirms all the same, and lets it catch up later. Runs inside the nodes:

    journal.py serve PRIMARY REPLICA [BUG]    the service
    journal.py append VALUE                   all others talk to the service of this node
    journal.py read
    journal.py settle                         wait until the replica was reached twice, from now on
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import socketserver
import sys
import threading
import time
from typing import Any

PORT = 4000
DISK = pathlib.Path("/var/lib/journal")
#: Seconds after which a node counts as not reachable.
TIMEOUT = 10.0
#: What can be wrong: the replica never gets what it missed; the disk is not used.
BUGS = ("forgetful", "volatile")


def ask(host: str, *request: Any, timeout: float = TIMEOUT) -> Any:
    with socket.create_connection((host, PORT), timeout) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(connection.makefile().readline())


class Journal:
    def __init__(self, primary: str, replica: str, bug: str = "") -> None:
        self.replica = replica
        self.is_primary = socket.gethostname() == primary
        self.bug = bug
        self.lock = threading.RLock()
        self.reached = 0
        self.entries: list[str] = json.loads(DISK.read_text()) if DISK.exists() else []

    def extend(self, values: list[str]) -> None:
        with self.lock:
            self.entries += values
            if self.bug != "volatile":
                DISK.with_suffix(".new").write_text(json.dumps(self.entries))
                os.replace(DISK.with_suffix(".new"), DISK)

    def append(self, value: str) -> None:
        with self.lock:
            self.extend([value])
            try:
                if self.bug == "forgetful":
                    ask(self.replica, "extend", [value])
                else:
                    self.catch_up()
            except OSError:
                pass  # It will catch up.

    def catch_up(self) -> None:
        with self.lock:
            missing = self.entries[len(ask(self.replica, "read")) :]
            if missing:
                ask(self.replica, "extend", missing)

    def keep_in_touch(self) -> None:
        while True:
            try:
                if self.bug == "forgetful":
                    ask(self.replica, "read")
                else:
                    self.catch_up()
                self.reached += 1
            except OSError:
                pass
            time.sleep(0.05)

    def read(self) -> list[str]:
        return self.entries

    def settle(self) -> None:
        # The first may have begun before.
        wanted = self.reached + 2
        while self.reached < wanted:
            time.sleep(0.01)


def serve(*words: str) -> None:
    journal = Journal(*words)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            name, *arguments = json.loads(self.rfile.readline())
            answer = getattr(journal, name)(*arguments)
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    if journal.is_primary:
        threading.Thread(target=journal.keep_in_touch, daemon=True).start()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("", PORT), Handler).serve_forever()


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "serve":
        serve(*words)
    else:
        print(json.dumps(ask("localhost", verb, *words, timeout=60)))
