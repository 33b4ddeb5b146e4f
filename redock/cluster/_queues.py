"""
Packets held back by a program in the network namespace of the node that receives them.

For kernels without netem: rules of iptables hand the packets from each node to
a queue, and a process of ours, :mod:`redock.cluster._delayer`, says when they
may go on. It ends with this process, and then all packets pass.

They are held before anything else of the kernel has seen them (the table raw):
later, those of a connection that is not known yet would get in each other's
way. They are held where they arrive: what waits at the sender's end counts as
not sent yet, and TCP would stop at five megabits a second.
"""

from __future__ import annotations

import json

from redock._process import Deadline
from redock.cluster._netfault import in_owner
from redock.cluster._shell import Program, text_of
from redock.errors import EngineError, NotFound, RedockError, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from redock._engine import Engine
    from redock.cluster._effect import Effect
    from redock.cluster._node import Node

__all__ = ["CHAIN", "Delayer", "hold"]

#: The chain with our rules; no other program's has this name.
CHAIN = "REDOCK"
JUMP = f"PREROUTING -i eth0 -j {CHAIN}"
#: The number of the first queue; small numbers are what other programs take.
FIRST = 7000


class Delayer(Program):
    """
    The process that holds packets back in one network namespace.

    Lifecycle: started by the first change, and again when it has ended; it ends
    with :meth:`close` or with this process.

    Thread safety: one change at a time; others wait.

    :param engine: The engine.
    :param container: The id of the container with the network namespace.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        super().__init__(engine, container, ["python3", "-I", "-S", "-c", text_of("_delayer")])
        self.forget()

    def forget(self) -> None:
        """Know nothing of what is in place."""
        #: What the process was told.
        self.queues: dict[int, dict[str, float]] = {}
        #: The rules that are in place; None when that is not known.
        self.rules: list[str] | None = None

    def tell(self, queues: dict[int, dict[str, float]], timeout: float = 30.0) -> dict[str, Any]:
        """
        Tell the process which queues there are to be.

        :param queues: What is to happen to the packets of each, by number.
        :param timeout: Seconds to wait at most (default: 30).
        :returns: How many packets each has seen.
        :raises EOFError: The process has ended.
        :raises RedockError: It could not do it.
        """
        deadline = Deadline(timeout)
        self.open().write(json.dumps({"queues": queues}).encode() + b"\n")
        output = b""
        while not output.endswith(b"\n") or not output.startswith(b"{"):
            try:
                output += self.read(deadline)
            except EOFError as error:
                # What Python says when it cannot even start.
                words = output.decode("utf-8", "replace").strip().rpartition("\n")[2]
                raise EOFError(words or "it said nothing") from error
        answer = json.loads(output)
        if "error" in answer:
            raise RedockError(f"the packets cannot be held: {answer['error']}")
        self.queues = queues
        return dict(answer["queues"])


def hold(node: Node, wanted: Mapping[str, Effect], what: str) -> None:
    """
    Hold packets back, and look whether the rules are as they should be.

    :param node: The node that receives.
    :param wanted: What is to happen to packets, by the address of the sender; nothing ends it.
    :param what: What it is for, to complete "could not ...".
    :raises NotFound: The owner of the node has gone.
    :raises RedockError: It failed.
    """
    delayer = node.delayer
    numbers = {each.ip: FIRST + number for number, each in enumerate(node.cluster.nodes)}
    queues = {numbers[address]: describe(effect) for address, effect in wanted.items()}
    rules = [
        f"-A {CHAIN} -s {address}/32 -j NFQUEUE --queue-num {numbers[address]} --queue-bypass"
        for address in sorted(wanted)
    ]
    with delayer.lock:
        for attempt in (1, 2):
            try:
                change(node, delayer, queues, rules, what)
                return
            except (ConnectionError, EOFError) as error:
                # The container was restarted, or the process ended: once more with a new one.
                delayer.close()
                delayer.forget()
                if attempt == 2:
                    raise EngineError(f"could not {what}: its delayer ended: {error}") from error
            except BaseException as error:
                delayer.forget()
                if isinstance(error, Timeout) or not isinstance(error, RedockError):
                    # What it answers now would be taken for the answer to the next line.
                    delayer.close()
                elif not node.has_network():
                    raise NotFound(f"could not {what}: its network has gone", 404) from error
                raise


def describe(effect: Effect) -> dict[str, float]:
    """
    Describe an effect to the process.

    :param effect: The effect.
    :returns: What is not zero.
    """
    names = ("delay", "jitter", "reorder", "gap", "corrupt")
    return {name: getattr(effect, name) for name in names if getattr(effect, name)}


def change(
    node: Node,
    delayer: Delayer,
    queues: dict[int, dict[str, float]],
    rules: list[str],
    what: str,
) -> None:
    """
    Change what is held back: a queue is there before a rule leads to it, and goes after that.

    :param node: The node.
    :param delayer: Its process.
    :param queues: What is to happen to the packets of each queue.
    :param rules: The rules that lead to them.
    :param what: What it is for, to complete "could not ...".
    """
    if queues.keys() - delayer.queues.keys():
        delayer.tell({**delayer.queues, **queues})
    if rules != delayer.rules:
        known, delayer.rules = delayer.rules, None
        try:
            in_owner(node, script_for(rules, known), what)
        except NotFound:
            raise
        except RedockError:
            if known is None:
                raise
            # They are not what we left: another process was here.
            in_owner(node, script_for(rules, None), what)
        delayer.rules = rules
    if queues != delayer.queues:
        delayer.tell(queues)


def script_for(rules: list[str], known: list[str] | None) -> str:
    """
    Write a script that replaces the rules, all at once, and looks whether that has worked.

    :param rules: The rules that are to be; nothing is left of the chain when there are none.
    :param known: The rules that there are; None when that is not known, because a process that was
                  killed may have left some.
    :returns: Text for ``sh``.
    """
    raw = "iptables -w -t raw"
    script = ""
    if known is None:
        script = (
            f"while {raw} -D {JUMP} 2>/dev/null; do :; done\n"
            f"{raw} -F {CHAIN} 2>/dev/null && {raw} -X {CHAIN}\n"
        )
    change: list[str] = []
    if rules:
        change = [f":{CHAIN} - [0:0]", *rules, *([] if known else [f"-A {JUMP}"])]
    elif known:
        change = [f"-D {JUMP}", f"-F {CHAIN}", f"-X {CHAIN}"]
    if change:
        lines = "\n".join(["*raw", *change, "COMMIT"])
        script += f"iptables-restore -w --noflush <<'RULES' || exit\n{lines}\nRULES\n"
    script += f"found=$({raw} -S) || exit\ncase $found in\n"
    if rules:
        listed = "\n".join(rules)
        # The chain once, led to once, and nothing else in it.
        script += f"*'-A {JUMP}'*'-A {JUMP}'*) false ;;\n"
        script += f"*'-N {CHAIN}'*'-A {JUMP}'*'\n{listed}') ;;\n*) false ;;\n"
    else:
        # The table goes as well when nothing is in it: it came with the first rule.
        script += f"*{CHAIN}*) false ;;\n*-A\\ *) ;;\n"
        script += "*) nft delete table ip raw 2>/dev/null || true ;;\n"
    return f'{script}esac || {{ echo "its rules are $found"; exit 1; }}'
