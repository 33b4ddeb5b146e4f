"""Services, under Supervisor, systemd or the scripts of System V."""

import os
import re
import subprocess
import time

from redock._remote._commands import checked
from redock._remote._world import Failure, text


class Supervisor:
    """The services of a running supervisord, asked over its socket."""

    name = "supervisor"
    configurations = ("/etc/supervisor/supervisord.conf", "/etc/supervisord.conf")

    def __init__(self):
        self.socket, self.login = "/var/run/supervisor.sock", None
        for path in self.configurations:
            if os.path.exists(path):
                self.configure(path)
                break

    def configure(self, path):
        with open(path, encoding="utf-8", errors="replace") as handle:
            section = re.search(
                r"^\[unix_http_server\]\n((?:(?!\[).*(?:\n|$))*)", handle.read(), re.MULTILINE
            )
        options = (
            dict(re.findall(r"^(\w+)\s*=\s*([^;\n]*?)\s*(?:;.*)?$", section.group(1), re.M))
            if section
            else {}
        )
        self.socket = options.get("file", self.socket)
        if "username" in options:
            self.login = "%s:%s" % (options["username"], options.get("password", ""))

    def present(self):
        deadline = time.monotonic() + 20
        while not self.answers():
            if not self.is_coming() or time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def answers(self):
        import socket

        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(5)
                probe.connect(self.socket)
            return True
        except OSError:
            return False

    def is_coming(self):
        """Whether the first process is supervisord or will be: sshd is up before it."""
        with open("/proc/1/cmdline", "rb") as handle:
            return re.search(rb"/supervisord\b|/redock/boot\b", handle.read()) is not None

    def call(self, method, *arguments, timeout=60):
        """Call a method; XML-RPC by hand, as the standard library's costs 25 ms to import."""
        from html import escape
        from xml.etree import ElementTree

        values = "".join(
            "<param><value>%s</value></param>"
            % (
                "<boolean>%d</boolean>" % a
                if isinstance(a, bool)
                else "<int>%d</int>" % a
                if isinstance(a, int)
                else "<string>%s</string>" % escape(a, quote=False)
            )
            for a in arguments
        )
        body = "<methodCall><methodName>%s</methodName><params>%s</params></methodCall>"
        answer = self.post(("<?xml version='1.0'?>" + body % (method, values)).encode(), timeout)
        answer = ElementTree.fromstring(answer)  # noqa: S314 - from root's own socket
        fault = answer.find("fault/value")
        if fault is not None:
            raise SupervisorFault(decode_xml(fault))
        return decode_xml(answer.find("params/param/value"))

    def post(self, body, timeout):
        import socket

        head = "POST /RPC2 HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/xml\r\n"
        if self.login:
            import base64

            head += "Authorization: Basic %s\r\n" % base64.b64encode(self.login.encode()).decode()
        head += "Content-Length: %d\r\n\r\n" % len(body)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self.socket)
            connection.sendall(head.encode() + body)
            data = b""
            length = None
            while length is None or len(data) < length:
                piece = connection.recv(65536)
                if not piece:
                    break
                data += piece
                if length is None and b"\r\n\r\n" in data:
                    found = re.search(rb"(?i)content-length: (\d+)", data)
                    length = (
                        data.index(b"\r\n\r\n") + 4 + (int(found.group(1)) if found else 1 << 40)
                    )
        status = data.split(b"\r\n", 1)[0]
        if b" 200 " not in status + b" ":
            raise Failure("supervisord answers: " + text(status))
        return data.partition(b"\r\n\r\n")[2]

    def info(self, name):
        try:
            return self.call("supervisor.getProcessInfo", name)
        except SupervisorFault as fault:
            if fault.code == 10:
                return None
            raise

    def knows(self, name):
        return self.info(name) is not None or self.configured(name)

    def configured(self, name):
        """Whether a file that supervisord has not read yet describes the program."""
        wanted = re.compile(
            rb"^\[(?:program|group|fcgi-program|eventlistener):%s\]" % re.escape(name.encode()),
            re.M,
        )
        import glob

        for path in glob.glob("/etc/supervisor/conf.d/*.conf"):
            with open(path, "rb") as handle:
                if wanted.search(handle.read()):
                    return True
        return False

    def running(self, name):
        info = self.info(name)
        return info is not None and info["statename"] in ("RUNNING", "STARTING")

    def undecided(self, name):
        """Whether supervisord still waits to see if the program stays."""
        info = self.info(name)
        return info is not None and info["statename"] in ("STARTING", "STOPPING", "BACKOFF")

    def gave_up(self, name):
        info = self.info(name)
        return info is None or info["statename"] in ("FATAL", "EXITED", "STOPPED")

    def pid(self, name):
        info = self.info(name)
        return (info or {}).get("pid") or None

    def reread(self, name):
        """Let supervisord take in its files; true when that (re)started the program."""
        added, changed, _ = self.call("supervisor.reloadConfig")[0]
        if name in changed:
            self.call("supervisor.stopProcessGroup", name, True)
            self.call("supervisor.removeProcessGroup", name)
        if name in added or name in changed:
            self.call("supervisor.addProcessGroup", name)
            return True
        return False

    def start(self, world, name):
        if self.info(name) is None:
            self.reread(name)
        if self.info(name) is None:
            raise Failure("supervisord does not know the program")
        self.attempt(name, "supervisor.startProcess", 60)

    def stop(self, world, name):
        self.attempt(name, "supervisor.stopProcess", 70)

    def restart(self, world, name):
        self.reread(name)
        if self.running(name):
            self.stop(world, name)
        self.start(world, name)

    def reload(self, world, name):
        self.call("supervisor.signalProcess", name, "HUP")

    def attempt(self, name, method, done):
        try:
            self.call(method, name, True, timeout=120)
        except SupervisorFault as fault:
            if fault.code != done:
                raise Failure("supervisord says %s%s" % (fault, self.log(name))) from None

    def log(self, name):
        """Get the end of what a program printed."""
        for method in ("supervisor.readProcessStderrLog", "supervisor.readProcessStdoutLog"):
            try:
                said = self.call(method, name, -2000, 0).strip()
            except SupervisorFault:
                continue
            if said:
                return ": " + said
        return ""

    def enabled(self, name):
        if self.info(name) is None:
            return True
        for entry in self.call("supervisor.getAllConfigInfo"):
            if entry["name"] == name:
                return bool(entry["autostart"])
        return True

    def enable(self, world, name, on):
        raise Failure(
            "Supervisor reads autostart from the program's configuration: change it there"
        )


class SupervisorFault(Exception):
    def __init__(self, fault):
        super().__init__(fault["faultString"])
        self.code = fault["faultCode"]


def decode_xml(value):
    item = value[0] if len(value) else None
    if item is None:
        return value.text or ""
    if item.tag in ("int", "i4"):
        return int(item.text)
    if item.tag == "boolean":
        return item.text == "1"
    if item.tag == "array":
        return [decode_xml(element) for element in item.findall("data/value")]
    if item.tag == "struct":
        return {m.find("name").text: decode_xml(m.find("value")) for m in item.findall("member")}
    return item.text or ""


class Systemd:
    """The units of systemd."""

    name = "systemd"

    def undecided(self, name):
        return self.show(name).get("ActiveState") in ("activating", "deactivating")

    def gave_up(self, name):
        return self.show(name).get("ActiveState") == "failed"

    def log(self, name):
        done = subprocess.run(
            ["systemctl", "status", "--lines=5", "--no-pager", "--", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return ": " + text(done.stdout).strip()

    def present(self):
        return os.path.isdir("/run/systemd/system")

    def show(self, name):
        done = subprocess.run(
            [
                "systemctl",
                "show",
                "--property=LoadState,ActiveState,MainPID,UnitFileState,NeedDaemonReload",
                "--",
                name,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return dict(line.partition("=")[::2] for line in text(done.stdout).splitlines())

    def knows(self, name):
        return self.show(name).get("LoadState") not in (None, "not-found")

    def running(self, name):
        return self.show(name).get("ActiveState") in ("active", "activating", "reloading")

    def pid(self, name):
        return int(self.show(name).get("MainPID") or 0) or None

    def systemctl(self, world, verb, name):
        if self.show(name).get("NeedDaemonReload") == "yes":
            # Its files are not what systemd has read, and it would go by that.
            checked(world, ["systemctl", "daemon-reload"], "systemctl daemon-reload failed")
        try:
            checked(world, ["systemctl", verb, "--", name], "systemctl %s failed" % verb)
        except Failure as failure:
            raise Failure("%s%s" % (failure, self.log(name)), **failure.details) from None

    def start(self, world, name):
        self.systemctl(world, "start", name)

    def stop(self, world, name):
        self.systemctl(world, "stop", name)

    def restart(self, world, name):
        self.systemctl(world, "restart", name)

    def reload(self, world, name):
        self.systemctl(world, "reload-or-restart", name)

    def enabled(self, name):
        return self.show(name).get("UnitFileState") not in ("disabled", "masked")

    def enable(self, world, name, on):
        self.systemctl(world, "enable" if on else "disable", name)


class SysV:
    """The scripts in /etc/init.d."""

    name = "sysv"

    def undecided(self, name):
        return False

    def gave_up(self, name):
        return False

    def log(self, name):
        return ""

    def present(self):
        return os.path.isdir("/etc/init.d")

    def knows(self, name):
        return os.access("/etc/init.d/" + name, os.X_OK)

    def running(self, name):
        if not self.knows(name):
            return False
        if self.evident(name):
            return True
        done = subprocess.run(
            ["/etc/init.d/" + name, "status"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return done.returncode == 0

    def settings(self, name):
        # What stands in the script as such; Debian's scripts name their daemon and its pid file.
        found = {"NAME": name}
        try:
            with open("/etc/init.d/" + name, errors="replace") as handle:
                for line in handle:
                    match = re.match(r"(NAME|DAEMON|PIDFILE)=([\"']?)([\w./${}+-]+)\2\s*$", line)
                    if match:
                        value = re.sub(r"\$(NAME\b|\{NAME\})", found["NAME"], match.group(3))
                        found.setdefault(match.group(1), value)
                        if match.group(1) == "NAME":
                            found["NAME"] = value
        except OSError:
            pass
        return found

    def evident(self, name):
        # The script would look whether the process in the pid file is the daemon, and take
        # thirty times as long; only if that is not so is it asked.
        settings = self.settings(name)
        try:
            with open(settings["PIDFILE"]) as handle:
                running = os.readlink("/proc/%d/exe" % int(handle.read()))
            return running == os.path.realpath(settings["DAEMON"])
        except (KeyError, OSError, ValueError):
            return False

    def pid(self, name):
        declared = self.settings(name).get("PIDFILE", "")
        for path in (declared, "/run/%s.pid" % name, "/run/%s/%s.pid" % (name, name)):
            try:
                with open(path) as handle:
                    return int(handle.read().split()[0])
            except (OSError, ValueError, IndexError):
                pass
        # Without a pid file: the oldest process of that name.
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open("/proc/%s/comm" % entry) as handle:
                        if handle.read().strip() == name[:15]:
                            found.append((process_start(int(entry)), int(entry)))
                except (OSError, TypeError):
                    pass
        return min(found)[1] if found else None

    def script(self, world, name, verb):
        checked(world, ["/etc/init.d/" + name, verb], "/etc/init.d/%s %s failed" % (name, verb))

    def start(self, world, name):
        self.script(world, name, "start")

    def stop(self, world, name):
        self.script(world, name, "stop")

    def restart(self, world, name):
        self.script(world, name, "restart")

    def reload(self, world, name):
        self.script(world, name, "reload")

    def enabled(self, name):
        import glob

        return bool(glob.glob("/etc/rc[2345].d/S[0-9][0-9]" + glob.escape(name)))

    def enable(self, world, name, on):
        for verb in ("defaults", "enable") if on else ("disable",):
            checked(world, ["update-rc.d", name, verb], "update-rc.d failed")


MANAGERS = (Supervisor(), Systemd(), SysV())


def manager_of(name):
    """Find who looks after a service: Supervisor where it knows it, else the init system."""
    for manager in MANAGERS:
        if manager.present() and manager.knows(name):
            return manager
    return None


def process_start(pid):
    """Find when a process started, on the clock that files are stamped with; None: no process."""
    try:
        with open("/proc/%d/stat" % pid) as handle:
            ticks = int(handle.read().rpartition(")")[2].split()[19])
    except OSError:
        return None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def stamp_of(name):
    return "/run/redock-started-" + name.replace("/", "-")


def newest(world, watch):
    """Find the newest of the things a service depends on: (time, path); pretended: infinity."""
    import glob

    found = (0.0, "")
    for path in watch:
        if path.startswith(b"package:"):
            name = glob.escape(path[8:].decode())
            places = [
                os.fsencode(p)
                for pattern in ("%s.list", "%s:*.list")
                for p in glob.glob("/var/lib/dpkg/info/" + pattern % name)
            ]
        else:
            places = [path]
        for place in places:
            for follow in (False, True):
                node = world.look(place, follow)
                if node is not None:
                    moment = node.ctime or float("inf")
                    found = max(found, (moment, text(place)))
    return found


def owed(world, name, pid, watch):
    """Say which file a running service has not seen yet, by the time it was last changed."""
    started = noted_start(name, pid) if pid and watch else None
    if started is None and pid and watch:
        started = process_start(pid)
        if started is not None:
            # It is counted in ticks of a hundredth of a second, and so may be the times of files.
            started += 0.02
    if started is None:
        return ""
    moment, path = newest(world, watch)
    return path if moment > started else ""


def op_service(world, name, state="running", enabled=None, watch=(), changed=False, reload=False):
    manager = manager_of(name)
    if manager is None:
        if world.dry_run and pretended_program(world, name):
            return {"changed": True, "changes": {"state": ("absent", state)}}
        world.missing("neither Supervisor nor the init system knows this service")
    running = manager.running(name)
    pid = manager.pid(name) if running else None
    changes: dict = {}
    action = None
    if state in ("restarted", "reloaded"):
        action = ("reload" if state == "reloaded" else "restart") if running else "start"
    elif state == "running" and not running:
        action = "start"
    elif state == "stopped" and running:
        action = "stop"
    elif state == "running" and (changed or watch):
        why = "a change before" if changed else owed(world, name, pid, watch)
        if why:
            action = "reload" if reload else "restart"
            changes[action] = (None, "because of " + why)
    if action in ("start", "stop"):
        changes["state"] = ("running", "stopped") if running else ("stopped", "running")
    elif action and action not in changes:
        changes[action] = (None, "done" if not world.dry_run else "would be done")
    if enabled is not None and manager.enabled(name) != enabled:
        changes["enabled"] = (not enabled, enabled)
    if not changes:
        return {"changed": False}
    if not world.dry_run:
        if "enabled" in changes:
            manager.enable(world, name, enabled)
        if action:
            moment = time.time()
            getattr(manager, action)(world, name)
            verify_service(manager, name, state, action, pid)
            if action != "stop":
                note_start(name, manager.pid(name), moment)
        if "enabled" in changes and manager.enabled(name) != enabled:
            raise Failure("after the change it still differs in enabled")
    return {"changed": True, "changes": changes, "reason": ""}


def pretended_program(world, name):
    wanted = b"[program:%s]" % name.encode()
    return any(
        node is not None and wanted in (node.content or b"") for node in world.nodes.values()
    )


def note_start(name, pid, moment):
    """Keep the moment since which a process knows its files; one that reloads is older."""
    try:
        with open(stamp_of(name), "w") as handle:
            handle.write("%d" % (pid or 0))
        os.utime(stamp_of(name), (moment, moment))
    except OSError:
        # Then the start of the process has to do.
        pass


def noted_start(name, pid):
    """Find the moment that was kept for a process; None: it was started by somebody else."""
    try:
        with open(stamp_of(name)) as handle:
            same = handle.read() == "%d" % pid
            return os.fstat(handle.fileno()).st_mtime if same else None
    except OSError:
        return None


def verify_service(manager, name, state, action, pid):
    wanted = state != "stopped"
    deadline = time.monotonic() + 60
    # In this order: one that was starting a moment ago may have failed since.
    while manager.undecided(name) or manager.running(name) != wanted:
        if time.monotonic() > deadline or (wanted and manager.gave_up(name)):
            words = "running" if not wanted else "not running"
            raise Failure("after %s it is %s%s" % (action, words, manager.log(name)))
        time.sleep(0.05)
    if action == "restart" and pid and manager.pid(name) == pid:
        raise Failure("after the restart the same process is running")
