"""
Makes every kind of fault of the network, and of disks, and looks whether it has an effect.

It is sent as text to a container without a network, and runs there on Python
3.8 or later: it imports nothing of redock. The faults are made on the loopback
interface. The only argument is a JSON object with what redock itself uses:
``delayer``, the text of its delayer; ``bandwidth`` and ``netem``, commands for tc;
``disk``, where a small disk is mounted. What is printed is a JSON object: for
each kind of fault what makes it, and why it cannot be made.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["main"]

#: Seconds a packet is held, and that are long enough for one that is not.
DELAY, PATIENCE = 0.03, 0.2
NO_EFFECT = "it was made, and had no effect"


class Refused(Exception):
    """Something cannot be done; says why."""


def run(*command: str, text: str = "") -> str:
    """Run a program that must succeed; get what it prints."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{command[0]}: {error}") from error
    if done.returncode:
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise Refused(f"{command[0]}: {words[0] if words else done.returncode}")
    return done.stdout


def send(
    source: str, target: str, count: int = 1, size: int = 100, most: int = 1
) -> tuple[int, float]:
    """Send packets; get how many arrived, of the most that can, and how long that took."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender, receiver:
        sender.bind((source, 0))
        receiver.bind((target, 0))
        receiver.settimeout(PATIENCE)
        began = last = time.monotonic()
        for _ in range(count):
            sender.sendto(bytes(size), receiver.getsockname())
        arrived = 0
        try:
            while arrived < most:
                receiver.recv(2000)
                arrived, last = arrived + 1, time.monotonic()
        except socket.timeout:
            pass
        return arrived, last - began


def with_rule(family: str, hook: str, rule: str) -> int:
    """Send a packet while there is a rule of nftables; get how many arrive."""
    text = "table %s redock_probe {\n chain c { %s policy accept;\n %s\n }\n}\n"
    run("nft", "-f", "-", text=text % (family, hook, rule))
    try:
        return send("127.0.0.2", "127.0.0.1", most=2)[0]
    finally:
        run("nft", "delete", "table", family, "redock_probe")


def drop(_: dict[str, str]) -> bool:
    """Lose all packets from an address."""
    hook = "type filter hook input priority -150;"
    return with_rule("inet", hook, "ip saddr { 127.0.0.2 } counter drop") == 0


def loss(_: dict[str, str]) -> bool:
    """Lose packets by chance: nearly all of them."""
    hook = "type filter hook input priority -150;"
    rule = "ip saddr { 127.0.0.2 } numgen random mod 1000 < 999 counter drop"
    return with_rule("inet", hook, rule) == 0


def duplicate(_: dict[str, str]) -> bool:
    """Get a packet twice; the mark keeps its copy from being copied."""
    hook = "type filter hook input priority 100;"
    rule = "ip saddr { 127.0.0.2 } meta mark != 7 meta mark set 7 counter dup to 127.0.0.1"
    return with_rule("ip", hook, rule) == 2


def with_tree(tree: str, count: int, size: int) -> tuple[int, float]:
    """Send packets while there are queueing disciplines."""
    run("tc", "-batch", "-", text=tree)
    try:
        return send("127.0.0.2", "127.0.0.3", count, size, count)
    finally:
        run("tc", "qdisc", "del", "dev", "lo", "root")


def bandwidth(data: dict[str, str]) -> bool:
    """Send 160 kbit at a megabit a second."""
    arrived, took = with_tree(data["bandwidth"], 20, 972)
    return arrived == 20 and took > 0.08


def netem(data: dict[str, str]) -> bool:
    """Hold a packet with netem."""
    arrived, took = with_tree(data["netem"], 1, 100)
    return arrived == 1 and took > DELAY * 0.9


def nfqueue(data: dict[str, str]) -> bool:
    """Hold a packet with a process of ours."""
    rule = ["PREROUTING", "-i", "lo", "-s", "127.0.0.2/32", "-j", "NFQUEUE"]
    rule += ["--queue-num", "7", "--queue-bypass"]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", data["delayer"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        with process.stdin:
            process.stdin.write(json.dumps({"queues": {"7": {"delay": DELAY}}}).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if b'"queues"' not in answer:
                words = (answer + process.stderr.read()).decode().strip()
                raise Refused(words.rpartition("\n")[2] or "the delayer said nothing")
            run("iptables", "-w", "-t", "raw", "-A", *rule)
            try:
                arrived, took = send("127.0.0.2", "127.0.0.1")
            finally:
                run("iptables", "-w", "-t", "raw", "-D", *rule)
        return arrived == 1 and took > DELAY * 0.9
    finally:
        process.kill()
        process.wait()


def disk_full(data: dict[str, str]) -> bool:
    """Leave no room on a disk."""
    path = data["disk"]
    if not os.path.ismount(path):
        raise Refused("the engine made no disk in memory")
    room = os.statvfs(path)
    run("fallocate", "-l", str(room.f_bavail * room.f_bsize), path + "/ballast")
    try:
        with open(path + "/file", "wb") as handle:
            handle.write(bytes(8192))
    except OSError:
        return True
    return False


def clock_skew(_: dict[str, str]) -> bool:
    """Look for the C library and the size of words that the library with the clock is for."""
    if run("getconf", "LONG_BIT").strip() != "64":
        raise Refused("the clock of a node needs a 64 bit machine")
    if "glibc" not in run("getconf", "GNU_LIBC_VERSION"):
        raise Refused("the clock of a node needs the GNU C library")
    return True


def attempt(check: Callable[[dict[str, str]], bool], data: dict[str, str]) -> str:
    """Try something, and once more where it had no effect; get why it cannot be done."""
    try:
        return "" if check(data) or check(data) else NO_EFFECT
    except Refused as reason:
        return str(reason)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return repr(error)


def main(data: dict[str, str]) -> dict[str, Any]:
    """Try everything; get what makes each kind of fault, and why it cannot be made."""
    found: dict[str, Any] = {}
    checks: list[tuple[str, str, Callable[[dict[str, str]], bool]]] = [
        ("drop", "nftables", drop),
        ("loss", "nftables", loss),
        ("duplicate", "nftables", duplicate),
        ("bandwidth", "htb", bandwidth),
        ("disk_full", "tmpfs", disk_full),
        ("clock_skew", "preload", clock_skew),
    ]
    for name, backend, check in checks:
        reason = attempt(check, data)
        found[name] = ["" if reason else backend, reason]
    found["isolate"] = found["partition"] = found["drop"]
    reasons = []
    for backend, check in (("netem", netem), ("nfqueue", nfqueue)):
        reason = attempt(check, data)
        if not reason:
            found["latency"] = [backend, ""]
            break
        reasons.append("%s: %s" % (backend, reason))
    else:
        found["latency"] = ["", "; ".join(reasons)]
    found["reorder"] = found["corrupt"] = found["latency"]
    return found


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    print(json.dumps(main(json.loads(sys.argv[1]))))
