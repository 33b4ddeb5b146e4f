"""
How long provisioning takes, against pyinfra and Ansible in the same run.

Both are installed from PyPI into a virtual environment of their own. The rounds
are interleaved, so that a machine that gets slower gets slower for all of them;
quote the ratios. Every figure is that of a whole process unless it says
otherwise, and no connection is open beforehand unless it says "warm".

Run it as installed and with a home directory of its own: ``make benchmark BENCHMARKS=provision``.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redock.bootstrap import Bootstrap

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv-bench"
PACKAGES = ("pyinfra", "ansible-core")
TEXT = "line {0} of a file that is correct already\n" * 4

REDOCK_FILES = """
def provision(host):
    for number in range(20):
        host.file(f"/srv/bench/file-{number}", (FILES / f"file-{number}").read_bytes(), mode=0o644)
"""
REDOCK_TASKS = """
def provision(host):
    host.packages("cron", "rsync")
    host.group("benchers")
    host.user("bencher", groups=["benchers"], shell="/bin/bash")
    host.directory("/srv/bench/directory", owner="bencher", mode=0o750)
    host.file("/srv/bench/one", "one\\n", mode=0o644)
    host.file("/srv/bench/two", "two\\n", mode=0o600, owner="bencher")
    host.template("/srv/bench/three", FILES / "three.j2", {"who": "bench"})
    host.line("/srv/bench/lines", "value=1", match="^value=", create=True)
    host.symlink("/srv/bench/link", "/srv/bench/one")
    host.service("cron")
"""
PYINFRA_FILES = """
from pyinfra.operations import files
for number in range(20):
    files.put(src=f"{FILES}/file-{number}", dest=f"/srv/bench/file-{number}", mode="644")
"""
PYINFRA_TASKS = """
from pyinfra.operations import apt, files, server
apt.packages(packages=["cron", "rsync"])
server.group(group="benchers")
server.user(user="bencher", groups=["benchers"], shell="/bin/bash")
files.directory(path="/srv/bench/directory", user="bencher", mode="750")
files.put(src=f"{FILES}/one", dest="/srv/bench/one", mode="644")
files.put(src=f"{FILES}/two", dest="/srv/bench/two", mode="600", user="bencher")
files.template(src=f"{FILES}/three.j2", dest="/srv/bench/three", who="bench")
files.line(path="/srv/bench/lines", line="^value=.*", replace="value=1")
files.link(path="/srv/bench/link", target="/srv/bench/one")
server.service(service="cron", running=True)
"""
ANSIBLE_FILES = """
- hosts: all
  gather_facts: false
  tasks:
    - copy: {src: "FILES/file-{{ item }}", dest: "/srv/bench/file-{{ item }}", mode: "0644"}
      loop: "{{ range(20) | list }}"
"""
ANSIBLE_TASKS = """
- hosts: all
  gather_facts: false
  vars: {who: bench}
  tasks:
    - apt: {name: [cron, rsync]}
    - group: {name: benchers}
    - user: {name: bencher, groups: [benchers], append: true, shell: /bin/bash}
    - file: {path: /srv/bench/directory, state: directory, owner: bencher, mode: "0750"}
    - copy: {content: "one\\n", dest: /srv/bench/one, mode: "0644"}
    - copy: {content: "two\\n", dest: /srv/bench/two, mode: "0600", owner: bencher}
    - template: {src: FILES/three.j2, dest: /srv/bench/three}
    - lineinfile: {path: /srv/bench/lines, regexp: "^value=", line: value=1, create: true}
    - file: {src: /srv/bench/one, dest: /srv/bench/link, state: link}
    - service: {name: cron, state: started}
"""


def run(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a command that has to succeed."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def timed(function: Callable[[], object]) -> float:
    """Measure the seconds a function takes."""
    started = time.monotonic()
    function()
    return time.monotonic() - started


class Bench:
    """
    The machines, the files and the three tools.

    :param directory: Where everything is written.
    :param hosts: How many machines.
    """

    def __init__(self, directory: Path, hosts: int) -> None:
        from redock.api import Container

        self.directory = directory
        self.machines = [Container(f"bench-provision{n}", timeout=30) for n in range(hosts)]
        self.aliases = [machine.ssh_alias for machine in self.machines]
        self.files = directory / "files"

    def prepare(self) -> None:
        """Start the machines, install the tools."""
        for machine in self.machines:
            machine.start()
        self.write_files()
        self.install_tools()
        for alias in self.aliases:
            # What Ansible's own tasks need over there, and a service that all three know.
            run("ssh", alias, "mkdir -p /srv/bench; apt-get -qq update")
            run("ssh", alias, "apt-get -qq install -y python3-apt cron >&2")

    def write_files(self) -> None:
        """Write the scripts of each tool and what they copy."""
        self.files.mkdir()
        for number in range(20):
            (self.files / f"file-{number}").write_text(TEXT.format(number))
        (self.files / "one").write_text("one\n")
        (self.files / "two").write_text("two\n")
        (self.files / "three.j2").write_text("Hello {{ who }}!\n")
        for name, redock, pyinfra, ansible in (
            ("files", REDOCK_FILES, PYINFRA_FILES, ANSIBLE_FILES),
            ("tasks", REDOCK_TASKS, PYINFRA_TASKS, ANSIBLE_TASKS),
        ):
            head = f"from pathlib import Path\nFILES = Path({str(self.files)!r})\n"
            (self.directory / f"redock_{name}.py").write_text(head + redock)
            (self.directory / f"pyinfra_{name}.py").write_text(head + pyinfra)
            playbook = ansible.replace("FILES", str(self.files))
            (self.directory / f"ansible_{name}.yml").write_text(playbook)
        self.write_inventories()

    def write_inventories(self) -> None:
        """Tell pyinfra and Ansible where the machines are."""
        from redock._files import path_in_home

        key = path_in_home("ssh", "id_ed25519")
        for count in (1, len(self.machines)):
            machines = self.machines[:count]
            entries = []
            for machine in machines:
                host, port = machine.ssh_endpoint
                data = {"ssh_hostname": host, "ssh_port": port, "ssh_user": "root", "ssh_key": key}
                data["ssh_strict_host_key_checking"] = "off"
                entries.append((machine.ssh_alias, data))
            (self.directory / f"inventory{count}.py").write_text(f"hosts = {entries!r}\n")
            names = "".join(f"{machine.ssh_alias}\n" for machine in machines)
            (self.directory / f"inventory{count}.ini").write_text(names)

    def install_tools(self) -> None:
        """Install pyinfra and Ansible into an environment of their own."""
        if not (VENV / "bin" / "ansible-playbook").exists():
            run(sys.executable, "-m", "venv", str(VENV))
            run(str(VENV / "bin" / "pip"), "install", "-q", *PACKAGES)

    def disconnect(self) -> None:
        """Close the shared connections, so that each tool has to open its own."""
        for alias in self.aliases:
            subprocess.run(
                ["ssh", "-O", "exit", alias], capture_output=True, timeout=30, check=False
            )
        shutil.rmtree(self.directory / "cp", ignore_errors=True)

    def redock(self, name: str, count: int) -> None:
        """Provision with redock."""
        script = str(self.directory / f"redock_{name}.py")
        run(sys.executable, "-m", "redock", "provision", *self.aliases[:count], script)

    def pyinfra(self, name: str, count: int) -> None:
        """Provision with pyinfra."""
        inventory = str(self.directory / f"inventory{count}.py")
        script = str(self.directory / f"pyinfra_{name}.py")
        run(str(VENV / "bin" / "pyinfra"), "-y", inventory, script)

    def ansible(self, name: str, count: int) -> None:
        """Provision with Ansible, pipelining on."""
        run(
            str(VENV / "bin" / "ansible-playbook"),
            "-i",
            str(self.directory / f"inventory{count}.ini"),
            str(self.directory / f"ansible_{name}.yml"),
            env={
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.directory / "cp"),
                "ANSIBLE_HOME": str(self.directory / "ansible"),
                "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}",
            },
        )

    def close(self) -> None:
        """Remove the machines."""
        for machine in self.machines:
            machine.kill()


def compare(bench: Bench, rounds: int) -> None:
    """Measure the three tools on the same work, on one host and on all of them."""
    tools = {
        "redock": bench.redock,
        "redock, warm": bench.redock,
        "pyinfra": bench.pyinfra,
        "ansible": bench.ansible,
    }
    print(f"{'seconds, median of ' + str(rounds):40}" + "".join(f"{name:>14}" for name in tools))
    for name, title in (("files", "20 files, correct"), ("tasks", "10 tasks, converged")):
        for count in sorted({1, len(bench.machines)}):
            # The first round of each tool makes everything converge.
            for tool in (bench.redock, bench.pyinfra, bench.ansible):
                tool(name, count)
            results: dict[str, list[float]] = {tool: [] for tool in tools}
            for _ in range(rounds):
                for label, function in tools.items():
                    if label != "redock, warm":
                        bench.disconnect()
                    results[label].append(timed(partial(function, name, count)))
            medians = {label: statistics.median(times) for label, times in results.items()}
            row = "".join(f"{value:14.2f}" for value in medians.values())
            print(f"{title + ', ' + str(count) + ' host(s)':40}{row}")
            ratios = "".join(f"{value / medians['redock']:13.1f}x" for value in medians.values())
            print(f"{'':40}{ratios}", flush=True)


def operations(bench: Bench) -> None:
    """Measure single converged operations over an open connection."""
    from redock.bootstrap import Bootstrap

    with Bootstrap(bench.aliases[0]) as host:
        work: dict[str, Callable[[], object]] = {
            "file": lambda: host.file("/srv/bench/one", "one\n", mode=0o644),
            "directory": lambda: host.directory("/srv/bench/directory", mode=0o750),
            "line": lambda: host.line("/srv/bench/lines", "value=1", match="^value="),
            "symlink": lambda: host.symlink("/srv/bench/link", "/srv/bench/one"),
            "packages": lambda: host.packages("cron", "rsync"),
            "user": lambda: host.user("bencher", shell="/bin/bash"),
            "group": lambda: host.group("benchers"),
            "command, creates": lambda: host.command("true", creates="/srv/bench/one"),
            "service (Supervisor)": lambda: host.service("sshd"),
            "service (sysv)": lambda: host.service("cron"),
        }
        print("\nmilliseconds of one converged operation   median       p99")
        for name, function in work.items():
            function()
            times = sorted(timed(function) for _ in range(1000 if name == "file" else 200))
            p99 = 1000 * times[int(0.99 * len(times))]
            print(f"{name:40}{1000 * statistics.median(times):9.2f} {p99:9.2f}", flush=True)


def many(host: Bootstrap, contents: dict[str, bytes], directory: str) -> None:
    """Upload many files without waiting for each."""
    with host.batch():
        for name, content in contents.items():
            host.upload_file(f"{directory}/{name}", content)


def uploads(bench: Bench, rounds: int) -> None:
    """Measure upload_file against rsync over the same shared connection."""
    from redock.bootstrap import Bootstrap

    large, small = bench.directory / "large", bench.directory / "small"
    large.mkdir()
    small.mkdir()
    for number in range(1000):
        (small / f"{number}").write_bytes(os.urandom(2000))
    alias = bench.aliases[0]
    results: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        # Fresh every time: rsync would find the blocks of the file before.
        (large / "file").write_bytes(os.urandom(200_000_000))
        data = (large / "file").read_bytes()
        contents = {path.name: path.read_bytes() for path in small.iterdir()}
        run("ssh", alias, f"rm -rf /srv/up; mkdir -p /srv/up/a{number} /srv/up/b{number}; sync")
        with Bootstrap(alias) as host:
            host.read_file("/etc/hostname")

            def mirror(source: Path, *options: str, number: int = number) -> None:
                target = f"{alias}:/srv/up/b{number}/{source.name}{'-'.join(options)}/"
                run("rsync", "-rlpt", *options, "-e", "ssh", f"{source}/", target)

            steps: dict[str, Callable[[], object]] = {
                "1000 files, rsync": partial(mirror, small),
                "1000 files, rsync --fsync": partial(mirror, small, "--fsync"),
                "1000 files, upload_file": partial(many, host, contents, f"/srv/up/a{number}"),
                "200 MB, rsync": partial(mirror, large),
                "200 MB, rsync --fsync": partial(mirror, large, "--fsync"),
                "200 MB, upload_file": partial(host.upload_file, f"/srv/up/a{number}/l", data),
            }
            for name, function in steps.items():
                taken = timed(function)
                if number:
                    # The first round warms up the file systems of both sides.
                    results.setdefault(name, []).append(taken)
    print(f"\n{'seconds over an open connection':40}   median")
    medians = {name: statistics.median(times) for name, times in results.items()}
    for name, value in medians.items():
        ratio = value / medians[name.partition(",")[0] + ", rsync"]
        print(f"{name:40}{value:9.2f}   {ratio:5.2f}x", flush=True)


def memory(bench: Bench, hosts: int = 50) -> None:
    """Hold connections to many hosts at the same time, in a process of its own, and look."""
    config = Path(os.path.expanduser("~/.ssh/config"))
    before = config.read_text()
    blocks = []
    for number in range(hosts):
        alias = bench.aliases[number % len(bench.aliases)]
        shown = run("ssh", "-G", alias).splitlines()
        wanted = ("hostname", "port", "user", "identityfile", "hostkeyalias", "userknownhostsfile")
        lines = [f"  {line}" for line in shown if line.split()[0] in wanted]
        blocks.append("\n".join([f"Host many{number}", *lines, "  ControlPath none", ""]))
    config.write_text(before + "\n" + "\n".join(blocks))
    print(f"\n{run(sys.executable, __file__, '--hold', str(hosts)).strip()}")
    config.write_text(before)


def hold(hosts: int) -> None:
    """Connect to many hosts and provision twenty files while all connections are open."""
    from redock.bootstrap import ChangeList
    from redock.bootstrap import run as run_hosts

    barrier = threading.Barrier(hosts, timeout=300)

    def provision(host: Bootstrap) -> None:
        for number in range(20):
            host.file(f"/srv/bench/file-{number}", TEXT.format(number), mode=0o644)
        barrier.wait()

    started = time.monotonic()
    results = run_hosts(provision, *(f"many{n}" for n in range(hosts)), jobs=hosts, timeout=300.0)
    failed = [result for result in results.values() if not isinstance(result, ChangeList)]
    if failed:
        sys.exit(f"{len(failed)} of {hosts} failed: {failed[0]}")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.monotonic() - started
    print(f"{hosts} hosts at once, 20 files each: {used:.0f} MB, {seconds:.1f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    parser.add_argument("--hosts", type=int, default=4, help="how many machines (default: 4)")
    parser.add_argument("--only", choices=("compare", "operations", "uploads", "memory"))
    parser.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        hold(options.hold)
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rb") as directory:
        bench = Bench(Path(directory), options.hosts)
        try:
            bench.prepare()
            wanted = (
                (options.only,) if options.only else ("compare", "operations", "uploads", "memory")
            )
            if "compare" in wanted:
                compare(bench, options.rounds)
            else:
                bench.redock("files", options.hosts)
                bench.redock("tasks", options.hosts)
            if "operations" in wanted:
                operations(bench)
            if "uploads" in wanted:
                uploads(bench, options.rounds)
            if "memory" in wanted:
                memory(bench)
        finally:
            bench.disconnect()
            bench.close()


if __name__ == "__main__":
    main()
