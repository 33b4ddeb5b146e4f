"""
What happens in a machine before its boot program: its user and its environment.

The values of environment variables are in the volume with the machine's
identity, which is not part of a commit. The configuration of a container is:
an engine copies the variables it knows of into every image.
"""

from __future__ import annotations

import posixpath
import shlex

from redock import _recipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from redock._options import Options

__all__ = ["command", "environment_files"]

DIRECTORY = _recipe.IDENTITY_DIRECTORY
#: Sorts before redock's own file: the first value of an option wins, and these are new ones.
SSHD_CONFIG = "/etc/ssh/sshd_config.d/00-redock-environment.conf"

#: Arguments: name, number, number of the group, home directory and shell of the user (an empty
#: name for none), then directories of that user's that the engine made as places to mount to.
SCRIPT = f"""\
# Made by redock. Before the machine boots: the user and the environment it was started with.
set -u
fail() {{
    echo "redock: $*" >&2
    exit 65
}}
add_user() {{
    holder=$(getent passwd "$uid" | cut -d: -f1)
    getent group "$gid" >/dev/null || groupadd --gid "$gid" "$name" ||
        groupadd --gid "$gid" "$name-$gid" || fail "cannot make the group $gid"
    if [ -z "$holder" ]; then
        useradd --no-log-init --no-create-home --home-dir "$home" --shell "$shell" \\
            --uid "$uid" --gid "$gid" "$name" || fail "cannot make the user $name"
    elif [ "$uid" -ge 1000 ]; then
        # The user that comes with some images has the number: from now on it has this name.
        [ "$(getent group "$gid" | cut -d: -f1)" != "$holder" ] ||
            groupmod --new-name "$name" "$holder"
        usermod --login "$name" --home "$home" --shell "$shell" --gid "$gid" "$holder" ||
            fail "cannot make $holder the user $name"
    else
        fail "the number $uid of the user $name belongs to $holder here"
    fi
    # "!" would lock the account for keys as well (sshd(8), AUTHENTICATION).
    usermod --password '*' "$name"
}}
name=$1 uid=$2 gid=$3 home=$4 shell=$5
shift 5
if [ -n "$name" ]; then
    [ -x "$shell" ] || shell=/bin/bash
    found=$(getent passwd "$name" | cut -d: -f3)
    [ -n "$found" ] || add_user
    [ "${{found:-$uid}}" = "$uid" ] || fail "there is a user $name here, whose number is $found"
    for directory in "$@"; do
        mkdir -p "$directory" && chown "$uid:$gid" "$directory"
        [ "$directory" != "$home" ] || for file in /etc/skel/.[!.]*; do
            [ -e "$home/${{file##*/}}" ] || ! [ -e "$file" ] ||
                {{ cp -R "$file" "$home/" && chown -R "$uid:$gid" "$home/${{file##*/}}"; }}
        done
    done
    if [ -d /etc/sudoers.d ]; then
        echo "$name ALL=(ALL:ALL) NOPASSWD: ALL" >/etc/sudoers.d/redock
        chmod 0440 /etc/sudoers.d/redock
    fi
fi
if [ -s {DIRECTORY}/environment ]; then
    echo "Include {DIRECTORY}/sshd_config" >{SSHD_CONFIG}
    . {DIRECTORY}/environment
else
    rm -f {SSHD_CONFIG}
fi
exec {_recipe.BOOT}
"""


def command(options: Options) -> list[str]:
    """
    Choose the first process of a machine.

    :param options: What it is started with.
    :returns: The boot program, behind a shell that prepares the machine where that is needed.
    """
    user = options.account
    if user is None and not options.env:
        return [_recipe.BOOT]
    arguments = ["", "", "", "", ""]
    if user is not None:
        arguments = [user.name, str(user.uid), str(user.gid), user.home, user.shell]
        arguments += own_directories(user.home, [each.target for each in options.mounts])
    return ["/bin/sh", "-c", SCRIPT, "redock", *arguments]


def own_directories(home: str, targets: list[str]) -> list[str]:
    """
    Find the directories a user is to own: the home directory, and on the way to what is mounted.

    The engine makes the latter for root. What is mounted belongs to the host and is left alone.

    :param home: The home directory.
    :param targets: Where volumes are mounted.
    :returns: Pathnames, from the top down.
    """
    found = {home}
    for target in targets:
        parent = posixpath.dirname(target)
        while parent.startswith(f"{home}/"):
            found.add(parent)
            parent = posixpath.dirname(parent)
    return sorted(
        each for each in found if not any(f"{each}/".startswith(f"{target}/") for target in targets)
    )


def environment_files(options: Options) -> dict[str, tuple[int, bytes]]:
    """
    Write down the environment for the shell above and for the SSH server.

    :param options: What the machine is started with.
    :returns: Permissions and contents, by pathname; empty contents for no environment.
    """
    known = options.values
    shell = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in known.items())
    pairs = " ".join(quote_for_sshd(f"{name}={value}") for name, value in known.items())
    return {
        "environment": (0o600, shell.encode()),
        "sshd_config": (0o600, f"SetEnv {pairs}\n".encode() if known else b""),
    }


def quote_for_sshd(text: str) -> str:
    """
    Quote a word for sshd_config(5).

    :param text: The word, one line.
    :returns: The word in double quotes.
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
