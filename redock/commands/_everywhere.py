"""
One command in many nodes: what each prints as it comes, with the name of the node in front.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading

from redock._printed import printable
from redock._process import missing_program
from redock._result import quote
from redock.errors import NoContainerRunning, RedockError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO, TextIO

    from redock.cluster import Node

__all__ = ["print_texts", "run"]


class Task:
    """
    A command that runs in a node.

    :param node: The node.
    :param command: One text for the shell there, or words that are passed as they are.
    :param width: How wide names are printed; 0: nothing is printed.
    """

    def __init__(self, node: Node, command: Sequence[str], width: int) -> None:
        self.node = node
        self.label = f"{node.name:{width}} | " if width else ""
        self.printed: dict[str, list[str]] = {"stdout": [], "stderr": []}
        text = command[0] if len(command) == 1 else quote(command)
        # On a connection of its own: the keeper of the shared one would hold our pipes.
        words = ["ssh", "-F", node.ssh_config, "-T", "-o", "BatchMode=yes", node.ssh_alias, text]
        try:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError as error:
            raise missing_program("ssh") from error
        self.threads = [
            self.begin(self.process.stdout, "stdout", sys.stdout),
            self.begin(self.process.stderr, "stderr", sys.stderr),
        ]

    def begin(self, pipe: IO[bytes] | None, name: str, target: TextIO) -> threading.Thread:
        """
        Print what comes out of a pipe, line by line, in a thread of its own.

        :param pipe: The pipe.
        :param name: ``stdout`` or ``stderr``.
        :param target: Where it is printed.
        :returns: The thread.
        """

        def work() -> None:
            assert pipe is not None
            for line in pipe:
                text = printable(line.decode("utf-8", "replace").rstrip("\r\n"))
                self.printed[name].append(text)
                if self.label:
                    # In one piece: lines of different nodes do not mix.
                    with contextlib.suppress(BrokenPipeError):
                        target.write(f"{self.label}{text}\n")
                        target.flush()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def wait(self) -> int:
        """
        Wait for the end of the command.

        :returns: Its status; 128 and the signal where it was ended by one.
        """
        status = self.process.wait()
        for thread in self.threads:
            # Something it left in the background may hold its output open.
            thread.join(timeout=1.0)
        return status if status >= 0 else 128 - status


def run(nodes: Sequence[Node], command: Sequence[str], *, as_json: bool) -> int:
    """
    Run a command in nodes, side by side.

    :param nodes: The nodes.
    :param command: One text for the shell there, or words that are passed as they are.
    :param as_json: Print one document at the end, in place of lines as they come.
    :returns: The greatest status; that of a node that does not run is 3.
    """
    from redock._report import report

    width = 0 if as_json else max(len(node.name) for node in nodes)
    tasks: list[Task] = []
    results: dict[str, dict[str, object]] = {}
    try:
        for node in nodes:
            try:
                check_up(node)
                tasks.append(Task(node, command, width))
            except RedockError as error:
                report(error, node.name)
                results[node.name] = {"status": error.exit_code, "error": str(error)}
        for task in tasks:
            results[task.node.name] = {
                "status": task.wait(),
                **{
                    name: "".join(f"{line}\n" for line in task.printed[name])
                    for name in task.printed
                },
            }
    finally:
        for task in tasks:
            if task.process.poll() is None:
                task.process.terminate()
    if as_json:
        from redock.commands._output import print_json

        print_json({node.name: results[node.name] for node in nodes})
    return max(int(str(each["status"])) for each in results.values())


def check_up(node: Node) -> None:
    """
    Make sure a node can run a command.

    :param node: The node.
    :raises NoContainerRunning: It is frozen or without power.
    """
    state = node.state
    if state == "running":
        return
    broken = any(node.name in fault.nodes for fault in node.cluster.faults if fault.kind == "kill")
    hint = {"paused": "resume", "gone": "restore", "exited": "heal" if broken else "up"}
    raise NoContainerRunning(
        f"node {node.name} of cluster {node.cluster.name} is {state}:"
        f" 'redock cluster {hint.get(state, 'up')}' brings it back"
    )


def print_texts(texts: Mapping[str, str]) -> None:
    """
    Print a text of each node, with its name in front of every line.

    :param texts: The texts by the name of the node.
    """
    width = max(map(len, texts), default=0)
    for line in lines_of(texts, width):
        print(line)


def lines_of(texts: Mapping[str, str], width: int) -> Iterable[str]:
    """
    Put the names of nodes in front of lines.

    :param texts: The texts by the name of the node.
    :param width: How wide names are printed.
    :returns: Yields the lines.
    """
    for name, text in texts.items():
        for line in text.splitlines():
            yield f"{name:{width}} | {printable(line)}"
