"""
The processes of machines on the screen: once, or again and again until somebody presses q.
"""

from __future__ import annotations

import contextlib
import os
import sys

from redock import _table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from redock._usage import Process

__all__ = ["main"]

#: Seconds to watch processes for when they are shown once.
ONCE = 0.5
#: Seconds after which a key that was pressed is noticed at the latest.
NOTICE = 0.1
#: How many machines are asked at a time.
WORKERS = 8
#: Of processes that use less than a fifth of a processor nothing stands out.
BUSY, VERY_BUSY = 20.0, 80.0


class Look:
    """
    What one look at machines found.

    :param processes: The processes of each machine, by name.
    :param errors: Why others could not be looked at, by name.
    :param memory: The bytes of memory each machine uses, None where that is not known.
    """

    def __init__(
        self,
        processes: dict[str, list[Process]],
        errors: dict[str, Exception],
        memory: dict[str, int | None],
    ) -> None:
        self.processes = processes
        self.errors = errors
        self.memory = memory

    def check(self) -> None:
        """
        Complain about machines that could not be looked at.

        :raises RedockError: The only one failed.
        :raises SeveralFailed: Several were looked at, and some failed.
        """
        from redock.errors import SeveralFailed

        failed = self.errors
        if failed and len(failed) + len(self.processes) == 1:
            raise next(iter(failed.values()))
        if failed:
            reasons = "; ".join(str(error) for error in failed.values())
            raise SeveralFailed(reasons, failed)


def main(options: argparse.Namespace) -> int:
    """
    Run the command.

    :param options: The command line.
    :returns: The exit status.
    :raises RedockError: A machine that was named could not be looked at.
    """
    from redock._image import Image

    names = [Image.coerce(name).name for name in wanted(options)]
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if terminal and not options.once and not options.json:
        return watch(names, options.delay)
    found = look(names, ONCE)
    if options.json:
        from redock.commands._output import print_json

        print_json(list(as_documents(found)))
    elif found.processes or not found.errors:
        sys.stdout.write(lay_out(found, _table.width(sys.stdout)))
    sys.stdout.flush()
    found.check()
    return 0


def wanted(options: argparse.Namespace) -> list[str]:
    """
    Find out which machines to look at.

    :param options: The command line.
    :returns: The names on it, else that of the folder's machine; none for all that run.
    :raises InvalidArgument: There are names, and all are asked for.
    """
    from redock._project import find_project
    from redock.errors import InvalidArgument

    if options.all and options.names:
        raise InvalidArgument("either NAME or --all: the names are among all that run")
    if options.all or options.names:
        return list(options.names)
    project = find_project()
    return [project.name] if project else []


def look(names: Sequence[str], interval: float) -> Look:
    """
    Look at machines, side by side.

    :param names: Their names; none for all of the user's that run.
    :param interval: For how many seconds to watch.
    :returns: What was found.
    """
    from redock._listing import find_names
    from redock._parallel import run_all
    from redock._usage import find_memory
    from redock.api import Container
    from redock.errors import NoContainerRunning, NotFound, RedockError

    named = bool(names)
    engine = Container("any:name").engine
    if not named:
        names = [name for name, state in find_names(engine) if state == "running"]
    processes: dict[str, list[Process]] = {}
    memory: dict[str, int | None] = {}

    def work(name: str) -> None:
        container = Container(name, engine=engine)
        found = container.processes(interval)
        memory[name] = find_memory(engine, container.session.container_id or "")
        processes[name] = found

    errors = run_all({name: name for name in names}, work, WORKERS, lambda *_: None)
    for name, error in list(errors.items()):
        if not isinstance(error, RedockError):
            raise error
        if not named and isinstance(error, (NoContainerRunning, NotFound)):
            # It ended between the two questions.
            del errors[name]
    return Look({name: processes[name] for name in names if name in processes}, errors, memory)


def as_documents(found: Look) -> Iterator[dict[str, object]]:
    """
    Turn what was found into what JSON can say.

    :param found: What was found.
    :returns: Yields one object a machine.
    """
    for name, processes in found.processes.items():
        yield {
            "name": name,
            "cpu": round(sum(each.cpu for each in processes), 1),
            "memory": found.memory[name],
            "processes": [each.as_dict() for each in processes],
        }


def lay_out(found: Look, columns: int | None, lines: int | None = None) -> str:
    """
    Lay out what was found as a table.

    :param found: What was found.
    :param columns: How long a line may be (None: as long as it takes).
    :param lines: How many lines there may be (default: as many as it takes).
    :returns: Lines.
    """
    several = len(found.processes) + len(found.errors) > 1
    listed = [(name, each) for name, some in found.processes.items() for each in some]
    listed.sort(key=lambda item: (-item[1].cpu, -item[1].memory, item[0], item[1].pid))
    rows: list[list[str | _table.Cell]] = []
    for name, each in listed[: None if lines is None else max(0, lines - 1)]:
        color = "red" if each.cpu >= VERY_BUSY else "yellow" if each.cpu >= BUSY else ""
        rows.append(
            [
                *([name] if several else []),
                str(each.pid),
                each.user,
                _table.Cell(f"{each.cpu:.1f}", color),
                _table.bytes_in_words(each.memory),
                _table.time_in_words(each.seconds),
                each.command,
            ]
        )
    header = ["PID", "USER", "CPU%", "MEMORY", "TIME", "COMMAND"]
    return _table.render(
        [*(["NAME"] if several else []), *header],
        rows,
        right=("PID", "CPU%", "MEMORY", "TIME"),
        color=_table.use_color(sys.stdout),
        columns=columns,
    )


def watch(names: Sequence[str], delay: float) -> int:
    """
    Show processes again and again.

    :param names: The names of machines; none for all of the user's that run.
    :param delay: Seconds between two looks.
    :returns: The exit status.
    :raises RedockError: None of the machines that were named can be looked at any more.
    """
    import queue
    import threading

    found: queue.SimpleQueue[Look | BaseException] = queue.SimpleQueue()

    def work() -> None:
        # The first look is a short one: nobody likes to wait for an empty screen.
        interval = min(ONCE, delay)
        while True:
            try:
                found.put(look(names, interval))
            except BaseException as error:
                # It belongs to the thread that waits.
                found.put(error)
                return
            interval = delay

    threading.Thread(target=work, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt), screen():
        while not key_pressed("q", NOTICE):
            with contextlib.suppress(queue.Empty):
                seen = found.get_nowait()
                if isinstance(seen, BaseException):
                    raise seen
                if names and not seen.processes:
                    seen.check()
                draw(seen)
    return 0


def draw(found: Look) -> None:
    """
    Draw what was found on the screen.

    :param found: What was found.
    """
    import shutil

    columns, lines = shutil.get_terminal_size()
    cpu = sum(each.cpu for some in found.processes.values() for each in some)
    known = [each for each in found.memory.values() if each is not None]
    count = len(found.processes)
    title = f"{count} machine{'s' if count != 1 else ''}, CPU {cpu:.1f}%"
    if known:
        title += f", memory {_table.bytes_in_words(sum(known))}"
    head = [f"{title}  (q: quit)", *(str(error) for error in found.errors.values())]
    text = "".join(f"{_table.cut(line, columns)}\n" for line in head)
    text += lay_out(found, columns, lines - len(head) - 1)
    # Home, every line to its end, and what was below the last one.
    text = text.replace("\n", "\x1b[K\r\n")
    sys.stdout.write(f"\x1b[H{text}\x1b[J")
    sys.stdout.flush()


@contextlib.contextmanager
def screen() -> Iterator[None]:
    """Take the whole screen and single keys, and give the terminal back as it was."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[H\x1b[J")
        sys.stdout.flush()
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def key_pressed(wanted: str, patience: float) -> bool:
    """
    Wait a moment for a key.

    :param wanted: The key.
    :param patience: Seconds to wait.
    :returns: True when it was pressed, or when nobody is there to press it any more.
    """
    import select

    ready, _, _ = select.select([sys.stdin], [], [], patience)
    if not ready:
        return False
    pressed = os.read(sys.stdin.fileno(), 64)
    return not pressed or wanted.encode() in pressed.lower()
