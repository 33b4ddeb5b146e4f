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

import json
import os
import pathlib
import socket
import socketserver
import sys
import threading
import time

PORT = 4000
DISK = pathlib.Path("/var/lib/journal")
#: Seconds after which a node counts as not reachable.
TIMEOUT = 1.0
#: What can be wrong: who missed something never gets it; the disk is not used either.
BUGS = ("forgetful", "volatile")


def ask(host, *request, timeout=TIMEOUT):
    with socket.create_connection((host, PORT), timeout) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(connection.makefile().readline())


class Journal:
    def __init__(self, primary, replica, bug=""):
        self.replica = replica if socket.gethostname() == primary else None
        self.bug = bug
        self.lock = threading.RLock()
        self.reached = 0
        self.entries = json.loads(DISK.read_text()) if DISK.exists() else []

    def extend(self, values):
        with self.lock:
            self.entries += values
            if self.bug != "volatile":
                DISK.with_suffix(".new").write_text(json.dumps(self.entries))
                os.replace(DISK.with_suffix(".new"), DISK)

    def append(self, value):
        with self.lock:
            self.extend([value])
            try:
                if self.bug:
                    ask(self.replica, "extend", [value])
                else:
                    self.catch_up()
            except OSError:
                pass  # It will catch up.

    def catch_up(self):
        with self.lock:
            missing = self.entries[len(ask(self.replica, "read")) :]
            if missing:
                ask(self.replica, "extend", missing)

    def keep_in_touch(self):
        while True:
            try:
                if self.bug:
                    ask(self.replica, "read")
                else:
                    self.catch_up()
                self.reached += 1
            except OSError:
                pass
            time.sleep(0.05)

    def read(self):
        return self.entries

    def settle(self):
        # The first may have begun before.
        wanted = self.reached + 2
        while self.reached < wanted:
            time.sleep(0.01)


def serve(primary, *rest):
    journal = Journal(primary, *rest)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            name, *arguments = json.loads(self.rfile.readline())
            answer = getattr(journal, name)(*arguments)
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    if journal.replica:
        threading.Thread(target=journal.keep_in_touch, daemon=True).start()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    socketserver.ThreadingTCPServer(("", PORT), Handler).serve_forever()


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "serve":
        serve(*words)
    else:
        print(json.dumps(ask("localhost", verb, *words, timeout=60)))
