"""
The recipe of the base image, as text: what is put into it and what is run to make it.

The recipe is hashed and the hash is a label of the image, so that a change of
anything here makes redock build the image anew.
"""

from __future__ import annotations

__all__ = [
    "BOOT",
    "IDENTITY_DIRECTORY",
    "NOT_WOKEN",
    "NO_IDENTITY",
    "PACKAGES",
    "STANDBY",
    "files",
    "fingerprint",
]

#: Where the volume with a container's identity is mounted: its host key and who may log in.
IDENTITY_DIRECTORY = "/etc/redock/ssh"
#: The program every container of redock's runs first.
BOOT = "/usr/lib/redock/boot"
#: The exit status of the boot program when the container has no identity (sysexits.h: EX_CONFIG).
NO_IDENTITY = 78
#: The exit status of a standby whose owner went away (sysexits.h: EX_TEMPFAIL).
NOT_WOKEN = 75

PACKAGES = (
    "ca-certificates",
    "iproute2",
    "iptables",
    "locales",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "rsync",
    "sudo",
    "supervisor",
)

#: What starts or boots a real machine; upgrading it inside a container fails or does harm.
HELD = (
    "grub-common",
    "grub-pc",
    "init",
    "initramfs-tools",
    "initscripts",
    "systemd",
    "systemd-sysv",
    "udev",
    "upstart",
)

#: The first argument of :data:`BOOT` for a machine that waits for a word before it comes up; the
#: second is a name of its own, so that a copy of its disk waits as well.
STANDBY = "--standby"

#: Started as PID 1. sshd does not wait for Supervisor, whose first look at its programs comes a
#: second after its own start; Supervisor's program for sshd adopts the one that runs already.
BOOT_SCRIPT = f"""\
#!/bin/sh
# Made by redock. Start of a machine: sshd at once, then Supervisor, which looks after it.
set -u
identity={IDENTITY_DIRECTORY}
umask 022
if [ "${{1-}}" = {STANDBY} ] && [ "$(cat /run/redock-woken 2>/dev/null)" != "$2" ]; then
    # Ready to take somebody's place: a line on standard input says when.
    read -r _ || exit {NOT_WOKEN}
    echo "$2" >/run/redock-woken
fi
if [ ! -s $identity/instance ]; then
    # A new machine: its host key and who may log in arrive on standard input, once.
    new=$identity/.new
    mkdir -p $identity && rm -rf $new && mkdir -m 0700 $new
    timeout 60 tar -xf - -C $new 2>/dev/null
    if [ ! -s $new/instance ]; then
        echo "redock: this container has no identity; start it with 'redock start'" >&2
        exit {NO_IDENTITY}
    fi
    mv $new/ssh_host_ed25519_key $new/ssh_host_ed25519_key.pub $new/authorized_keys $identity/ &&
        mv $new/instance $identity/ && rmdir $new
fi
exec </dev/null
mkdir -p /run/sshd
rm -f /run/sshd.pid /run/supervisord.pid /run/supervisor.sock
/usr/sbin/sshd || exit
/usr/lib/redock/wake &
exec /usr/lib/redock/supervisord --nodaemon --configuration /etc/supervisor/supervisord.conf
"""

#: supervisord sleeps in its first poll for a second; a connection to its socket ends that.
WAKE_SCRIPT = """\
#!/usr/bin/perl
# Made by redock. Wakes Supervisor from its first sleep, so that it starts its programs at once.
use strict;
use Socket;
for (1 .. 500) {
    select undef, undef, undef, 0.02;
    socket my $wake, AF_UNIX, SOCK_STREAM, 0 or exit 1;
    last if connect $wake, pack_sockaddr_un "/run/supervisor.sock";
}
"""

#: Importing pkg_resources is half of what it costs to start supervisord.
SUPERVISORD_SCRIPT = """\
#!/usr/bin/python3
# Made by redock. Starts supervisord in half the time: of pkg_resources, whose import takes as
# long as all the rest, it uses one function, to find "package.module:function".
import importlib
import sys
import types


class EntryPoint:
    def __init__(self, reference):
        self.reference = reference

    @classmethod
    def parse(cls, text):
        return cls(text.partition("=")[2].strip())

    def resolve(self):
        module, _, names = self.reference.partition(":")
        found = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
        return found


class Light(types.ModuleType):
    def __getattr__(self, name):
        # A plug-in wants more of it: load the real one.
        if name.startswith("__"):
            raise AttributeError(name)
        del sys.modules["pkg_resources"]
        return getattr(importlib.import_module("pkg_resources"), name)


light = Light("pkg_resources")
light.EntryPoint = EntryPoint
sys.modules["pkg_resources"] = light

from supervisor.supervisord import main

main()
"""

#: Waits while an sshd runs; when it has gone, becomes sshd.
SSHD_SCRIPT = """\
#!/bin/sh
# Made by redock. Supervisor's program "sshd": watches the sshd that the boot program started and
# takes its place when it has gone. Stopping this stops that sshd.
sshd=/usr/sbin/sshd
pid=$(cat /run/sshd.pid 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/exe")" = "$sshd" ]; then
    trap 'kill "$pid" 2>/dev/null; exit 0' TERM INT
    tail --pid="$pid" --sleep-interval=0.5 -f /dev/null &
    wait $!
fi
mkdir -p /run/sshd
exec "$sshd" -D
"""

SUPERVISOR_CONFIG = """\
; Made by redock: Supervisor looks after the SSH server.
[program:sshd]
command = /usr/lib/redock/sshd
autorestart = true
startsecs = 0
stopsignal = TERM
"""

SSHD_CONFIG = f"""\
# Made by redock. The first value of an option wins, so this stands before the rest.
HostKey {IDENTITY_DIRECTORY}/ssh_host_ed25519_key
AuthorizedKeysFile {IDENTITY_DIRECTORY}/authorized_keys .ssh/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PermitRootLogin prohibit-password
StrictModes yes
UseDNS no
GSSAPIAuthentication no
AllowTcpForwarding yes
# Many commands share one connection, many connections come from one address: the host's.
MaxSessions 100
MaxStartups 100:30:200
PrintMotd no
PrintLastLog no
"""

APT_CONFIG = """\
// Made by redock.
APT::Install-Recommends "false";
APT::Install-Suggests "false";
Acquire::Retries "3";
"""

POLICY = """\
#!/bin/sh
# Made by redock. There is no init system here: packages do not start services, Supervisor does.
exit 101
"""

#: Run inside a container of the distribution's own image; /redock-files.tar: the files above,
#: /redock-sources: the sources for apt, where they are replaced; $1: another locale, or nothing.
SETUP = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
say() { echo "redock: $*"; }
if ! command -v apt-get >/dev/null; then
    say "this image is neither Debian nor Ubuntu: it has no apt-get" >&2
    exit 65
fi
say "unpacking redock's files"
tar -xf /redock-files.tar -C / --no-same-owner
rm -f /redock-files.tar
if [ -s /redock-sources ]; then
    say "using the nearby package mirror"
    mv /redock-sources /etc/apt/sources.list
    chmod 644 /etc/apt/sources.list
    rm -f /etc/apt/sources.list.d/ubuntu.sources /etc/apt/sources.list.d/debian.sources
fi
rm -f /redock-sources
say "fetching the package lists"
apt-get -q update -o APT::Update::Error-Mode=any
say "installing packages"
apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-confold install @PACKAGES@
say "generating the locales"
for locale in en_US.UTF-8 ${1-}; do
    localedef -i "${locale%.*}" -f UTF-8 "$locale" || say "there is no locale $locale"
done
printf 'LANG=C.UTF-8\n' >/etc/default/locale
say "configuring the SSH server"
if ! grep -qi '^[[:space:]]*include[[:space:]].*sshd_config\.d' /etc/ssh/sshd_config; then
    sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' /etc/ssh/sshd_config
fi
mkdir -p /run/sshd -m 0755
# OpenSSH 9.8 locks out whole addresses, and everybody comes from the host's.
ssh-keygen -q -t ed25519 -N '' -f /tmp/probe
if /usr/sbin/sshd -T -f /dev/null -h /tmp/probe -o PerSourcePenalties=no >/dev/null 2>&1; then
    echo 'PerSourcePenalties no' >>/etc/ssh/sshd_config.d/00-redock.conf
fi
/usr/sbin/sshd -t -h /tmp/probe
rm -f /tmp/probe /tmp/probe.pub
# "!" would lock the account for keys as well (sshd(8), AUTHENTICATION).
usermod -p '*' root
say "holding packages that have no business in a container"
for package in @HELD@; do
    if dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
        apt-mark hold "$package"
    fi
done
say "cleaning up"
rm -f /etc/ssh/ssh_host_*
rm -rf /root/.ssh
apt-get clean
rm -rf /var/cache/apt/archives/*.deb /var/cache/apt/*.bin /tmp/* /var/tmp/*
find /var/log -type f -exec truncate -s 0 {} +
rm -f /var/lib/dbus/machine-id /run/sshd.pid
: >/etc/machine-id
say "done"
"""


def files() -> dict[str, tuple[int, str]]:
    """
    Get the files that redock puts into the base image.

    :returns: The permissions and the contents of each, by pathname.
    """
    return {
        "/etc/apt/apt.conf.d/90redock": (0o644, APT_CONFIG),
        "/etc/ssh/sshd_config.d/00-redock.conf": (0o644, SSHD_CONFIG),
        "/etc/supervisor/conf.d/redock.conf": (0o644, SUPERVISOR_CONFIG),
        "/usr/lib/redock/boot": (0o755, BOOT_SCRIPT),
        "/usr/lib/redock/sshd": (0o755, SSHD_SCRIPT),
        "/usr/lib/redock/supervisord": (0o755, SUPERVISORD_SCRIPT),
        "/usr/lib/redock/wake": (0o755, WAKE_SCRIPT),
        "/usr/sbin/policy-rc.d": (0o755, POLICY),
    }


def setup_script() -> str:
    """
    Get the script that turns a distribution's own image into the base image.

    :returns: Text for ``sh``.
    """
    return SETUP.replace("@PACKAGES@", " ".join(PACKAGES)).replace("@HELD@", " ".join(HELD))


def fingerprint() -> str:
    """
    Get the hash of the recipe.

    :returns: Sixteen hexadecimal digits.
    """
    import hashlib

    recipe = repr((sorted(files().items()), setup_script(), IDENTITY_DIRECTORY))
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]
