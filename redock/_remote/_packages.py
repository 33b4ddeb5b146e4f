"""Packages and where they come from."""

import os
import re
import subprocess
import time

from redock._remote._commands import checked, run
from redock._remote._files import op_file
from redock._remote._world import Failure, Unknown, text

APT_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "NEEDRESTART_MODE": "a",
    "UCF_FORCE_CONFFOLD": "1",
}
APT = ("apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0")
#: Nobody is there to answer questions; configuration files of the administrator stay.
APT_CHANGE = (
    "-o", "DPkg::Lock::Timeout=120",
    "-o", "Dpkg::Options::=--force-confdef",
    "-o", "Dpkg::Options::=--force-confold",
)  # fmt: skip
#: A simulation must not even refresh apt's own caches, or log what it was asked.
APT_SIMULATE = (
    "-s",
    "-o", "Dir::Cache::pkgcache=",
    "-o", "Dir::Cache::srcpkgcache=",
    "-o", "Dir::Log::Planner=/dev/null",
)  # fmt: skip


NOT_FOUND = (b"Unable to locate package", b"has no installation candidate", b"was not found")
DPKG_STATUS = "/var/lib/dpkg/status"


def need_apt():
    import shutil

    if not shutil.which("apt-get"):
        raise Failure("there is no apt-get: only Debian and its derivatives are supported")


class PackageDatabase:
    """dpkg's status file, read without starting a process and kept while it does not change."""

    def __init__(self):
        self.stamp = None
        self.data = b""

    def installed(self, name):
        """Find the installed versions of a package: {architecture: version}."""
        if os.path.exists("/var/lib/dpkg/updates") and os.listdir("/var/lib/dpkg/updates"):
            return self.ask_dpkg(name)
        try:
            status = os.stat(DPKG_STATUS)
        except FileNotFoundError:
            return {}
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self.stamp:
            with open(DPKG_STATUS, "rb") as handle:
                self.data = b"\n" + handle.read()
            self.stamp = stamp
        found = {}
        start = self.data.find(b"\nPackage: %s\n" % name.encode())
        while start >= 0:
            end = self.data.find(b"\n\n", start)
            paragraph = self.data[start : end if end >= 0 else len(self.data)]
            if re.search(rb"\nStatus: \S+ \S+ installed(?=\n|$)", paragraph):
                fields = dict(re.findall(rb"\n(Version|Architecture): (.*)", paragraph))
                found[fields[b"Architecture"].decode()] = fields[b"Version"].decode()
            start = self.data.find(b"\nPackage: %s\n" % name.encode(), start + 1)
        return found

    def ask_dpkg(self, name):
        # A dpkg that was killed left a journal which only dpkg can read.
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Architecture} ${Version}\n", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        rows = [line.split() for line in done.stdout.decode().splitlines()]
        return {row[1]: row[2] for row in rows if row and row[0] == "installed"}


database = PackageDatabase()


def split_package(name):
    rest, _, version = name.partition("=")
    bare, _, architecture = rest.partition(":")
    return bare, architecture, version


def installed_version(world, name):
    """Get the version of a package, None when it is not installed (as asked for)."""
    bare, architecture, _ = split_package(name)
    if bare in world.packages:
        return world.packages[bare]
    versions = database.installed(bare)
    if architecture:
        return versions.get(architecture, versions.get("all"))
    return next(iter(versions.values()), None)


def cache_is_old(seconds):
    lists = "/var/lib/apt/lists"
    try:
        if not any(name.endswith(("Packages", "Packages.lz4")) for name in os.listdir(lists)):
            return True
        newest = max(
            os.stat(path).st_mtime
            for path in (lists, lists + "/partial", "/var/lib/apt/periodic/update-success-stamp")
            if os.path.exists(path)
        )
    except FileNotFoundError:
        return True
    return seconds is not None and abs(time.time() - newest) > seconds


def update_cache(world):
    checked(
        world,
        [*APT, *APT_CHANGE, "-o", "APT::Update::Error-Mode=any", "update"],
        "apt-get update failed",
        APT_ENVIRONMENT,
    )


def simulate(world, *arguments):
    """Let apt say what it would do: {package: (version before, version after)}, or None."""
    done = run(world, [*APT, *APT_SIMULATE, *arguments], env=APT_ENVIRONMENT)
    if done["returncode"]:
        if any(phrase in done["stderr"] + done["stdout"] for phrase in NOT_FOUND):
            return None
        done["command"] = ["apt-get", *arguments]
        raise Failure("apt cannot find a way", result=done)
    plan = {}
    for line in text(done["stdout"]).splitlines():
        match = re.match(r"Inst (\S+)(?: \[([^]]+)\])? \((\S+)", line)
        if match:
            plan[match.group(1)] = (match.group(2), match.group(3))
        match = re.match(r"(?:Remv|Purg) (\S+)(?: \[([^]]+)\])?", line)
        if match:
            plan[match.group(1)] = (match.group(2) or "installed", None)
    return plan


def op_packages(world, names, state="present", update_cache_after=3600, recommends=False):
    def wrong(name):
        version = installed_version(world, name)
        wanted = split_package(name)[2]
        if state == "absent":
            return version is not None
        return version is None or bool(wanted and version != wanted)

    before = {name: installed_version(world, name) for name in names}
    pending = [name for name in names if wrong(name)]
    if state == "latest":
        pending = list(names)
    if not pending:
        return {"changed": False}
    need_apt()
    verb = "remove" if state == "absent" else "install"
    options = (
        []
        if state == "absent"
        else ["--install-recommends" if recommends else "--no-install-recommends"]
    )
    allow = ["--allow-downgrades"] if any("=" in name for name in pending) else []
    arguments = [*options, *allow, verb, "--", *pending]
    if world.dry_run:
        return predict_packages(world, names, state, pending, arguments)
    if state != "absent" and cache_is_old(update_cache_after):
        update_cache(world)
    if state == "latest" and not simulate(world, *arguments):
        return {"changed": False}
    done = run(world, [*APT, *APT_CHANGE, *arguments], env=APT_ENVIRONMENT)
    if done["returncode"] and any(p in done["stderr"] + done["stdout"] for p in NOT_FOUND):
        update_cache(world)
        done = run(world, [*APT, *APT_CHANGE, *arguments], env=APT_ENVIRONMENT)
    if done["returncode"]:
        done["command"] = ["apt-get", *arguments]
        raise Failure("apt-get failed", result=done)
    after = {name: installed_version(world, name) for name in names}
    left = [name for name in names if wrong(name)]
    if left:
        raise Failure(
            "apt-get succeeded, but %s still %s as wanted (a virtual package? name a real one)"
            % (", ".join(left), "is not" if len(left) == 1 else "are not")
        )
    changes = {name: (before[name], after[name]) for name in names if before[name] != after[name]}
    return {"changed": bool(changes), "changes": changes}


def predict_packages(world, names, state, pending, arguments):
    # What an unmade change adds (a repository, a package list) is not known to apt.
    blind = any(item.startswith("the repository") for item in world.opaque)
    plan = None if blind else simulate(world, *arguments)
    if state == "latest" and plan is not None and not plan:
        return {"changed": False}
    reason = ""
    if plan is None:
        if blind and state == "latest":
            raise Unknown("depends on " + world.opaque[-1])
        plan, reason = {}, "the version is not known before the package lists are refreshed"
    changes: dict = {}
    for name in pending:
        bare = split_package(name)[0]
        old, new = plan.get(bare, (installed_version(world, name), "?"))
        if state == "absent":
            new = None
        changes[name] = (old, new)
        world.packages[bare] = new
    world.opaque.append("packages %s, which a dry run does not touch" % " ".join(pending))
    others = sorted(set(plan) - {split_package(name)[0] for name in pending})
    answer = {"changed": True, "changes": changes, "reason": reason}
    if others:
        answer["reason"] = "together with " + " ".join(others)
    return answer


def op_update_system_packages(world):
    need_apt()
    if not world.dry_run:
        update_cache(world)
    plan = simulate(world, "dist-upgrade")
    if not plan:
        answer: dict = {"changed": False}
        if world.dry_run:
            answer["reason"] = "as far as the present package lists say"
        return answer
    if world.dry_run:
        world.opaque.append("the upgrade of packages")
    else:
        checked(
            world,
            [*APT, *APT_CHANGE, "dist-upgrade"],
            "apt-get dist-upgrade failed",
            APT_ENVIRONMENT,
        )
        left = simulate(world, "dist-upgrade")
        if left:
            raise Failure("apt-get succeeded, but would still upgrade " + " ".join(sorted(left)))
    return {"changed": True, "changes": plan}


def op_apt_repository(world, name, content, state="present"):
    path = b"/etc/apt/sources.list.d/" + name.encode() + b".sources"
    need_apt()
    validate = [
        *(word.encode() for word in (*APT, *APT_CHANGE)),
        b"-o", b"APT::Update::Error-Mode=any",
        b"-o", b"APT::Get::List-Cleanup=0",
        b"-o", b"Dir::Etc::sourceparts=-",
        b"-o", b"Dir::Etc::sourcelist=%s",
        b"update",
    ]  # fmt: skip
    answer = op_file(world, path, content, state=state, mode=0o644, validate=validate)
    if answer["changed"] and world.dry_run:
        world.opaque.append("the repository " + name)
    return answer
