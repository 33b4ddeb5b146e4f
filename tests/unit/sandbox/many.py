"""
Runs the program many times: command lines come in as JSON, results go out the same way.

Each run is a process of its own that ends the way the program ends; only what all
of them import is imported once.
"""

import json
import os
import sys
import tempfile

import redock.api
import redock.cli


def run(arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if not child:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            sys.stdout.flush()
            redock.cli.main(arguments)
        _, status = os.waitpid(child, 0)
        for stream in (stdout, stderr):
            stream.seek(0)
        return os.waitstatus_to_exitcode(status), stdout.read().decode(), stderr.read().decode()


json.dump([run(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
