"""Users and groups."""

import grp
import os
import pwd

from redock._remote._commands import checked
from redock._remote._files import op_directory, op_file
from redock._remote._world import PENDING, Failure, Unknown, group_name, text


def find_group(world, name):
    if name in world.groups:
        return world.groups[name]
    try:
        found = grp.getgrnam(name)
    except KeyError:
        return None
    return {"gid": found.gr_gid, "members": list(found.gr_mem)}


def op_group(world, name, gid=None, system=False, state="present"):
    def compare():
        found = find_group(world, name)
        if state == "absent":
            return {} if found is None else {"state": ("present", "absent")}
        if found is None:
            return {
                "state": ("absent", "present"),
                **({"gid": (None, gid)} if gid is not None else {}),
            }
        return {} if gid in (None, found["gid"]) else {"gid": (found["gid"], gid)}

    changes = compare()
    if not changes:
        if state == "absent" and world.dry_run and world.opaque:
            raise Unknown("depends on " + world.opaque[-1])
        return {"changed": False}
    if world.dry_run:
        world.groups[name] = None if state == "absent" else {"gid": gid or PENDING, "members": []}
        return {"changed": True, "changes": changes}
    if state == "absent":
        words = ["groupdel", name]
    else:
        words = ["groupadd" if "state" in changes else "groupmod"]
        words += ["--gid", str(gid)] if gid is not None else []
        words += ["--system"] if system and "state" in changes else []
        words.append(name)
    checked(world, words, words[0] + " failed")
    if compare():
        raise Failure("after the change it still differs in " + ", ".join(compare()))
    return {"changed": True, "changes": changes}


def password_of(name):
    try:
        with open("/etc/shadow", encoding="utf-8", errors="surrogateescape") as handle:
            for line in handle:
                fields = line.split(":")
                if fields[0] == name:
                    return fields[1]
    except FileNotFoundError:
        pass
    return None


def find_user(world, name):
    if name in world.users:
        return world.users[name]
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return {
        "uid": found.pw_uid,
        "gid": found.pw_gid,
        "home": found.pw_dir,
        "shell": found.pw_shell,
        "groups": [group.gr_name for group in grp.getgrall() if name in group.gr_mem],
    }


def op_user(
    world,
    name,
    uid=None,
    group=None,
    groups=(),
    home=None,
    shell=None,
    system=False,
    password_hash=None,
    authorized_keys=None,
    state="present",
):
    wanted = {"uid": uid, "home": home, "shell": shell}

    def compare():
        found = find_user(world, name)
        if state == "absent":
            return {} if found is None else {"state": ("present", "absent")}
        changes: dict = {}
        if found is None:
            changes["state"] = ("absent", "present")
        for key, value in wanted.items():
            if value is not None and (found is None or found[key] != value):
                changes[key] = (found and found[key], value)
        if group is not None and (found is None or found["gid"] != world.gid(group)):
            changes["group"] = (found and group_name(found["gid"]), group)
        present = found["groups"] if found else []
        missing = [item for item in groups if item not in present]
        if missing:
            for item in missing:
                world.gid(item)
            changes["groups"] = (None, "+" + ",".join(missing))
        if password_hash is not None and (
            found is None or current_password(found) != password_hash
        ):
            changes["password"] = (None, "changed")
        return changes

    def current_password(found):
        return found["password"] if "password" in found else password_of(name)

    changes = compare()
    if state == "absent" and not changes and world.dry_run and world.opaque:
        raise Unknown("depends on " + world.opaque[-1])
    keys_changed = False
    if changes and world.dry_run:
        pretend_user(world, name, state, wanted, groups, password_hash, system)
    elif changes:
        change_user(world, name, changes, wanted, group, system, password_hash)
        if compare():
            raise Failure("after the change it still differs in " + ", ".join(compare()))
    if authorized_keys is not None and state == "present":
        keys_changed = authorize(world, name, authorized_keys)
        if keys_changed:
            changes["authorized_keys"] = (None, "%d lines" % len(authorized_keys.splitlines()))
    return {"changed": bool(changes), "changes": changes}


def pretend_user(world, name, state, wanted, groups, password_hash, system):
    if state == "absent":
        world.users[name] = None
        return
    new = find_user(world, name) is None
    found = find_user(world, name) or {
        "uid": PENDING,
        "gid": PENDING,
        "home": "/home/" + name,
        "shell": "",
        "groups": [],
    }
    if password_hash is not None:
        found["password"] = password_hash
    found = {**found, **{key: value for key, value in wanted.items() if value is not None}}
    found["groups"] = sorted({*found["groups"], *groups})
    world.users[name] = found
    home = os.fsencode(found["home"])
    if new and not system and world.look(home) is None:
        world.homes[home] = name
    # Whoever creates a user creates a group of that name, unless another one was asked for.
    world.groups.setdefault(name, {"gid": PENDING, "members": []})


def change_user(world, name, changes, wanted, group, system, password_hash):
    if changes.get("state") == ("present", "absent"):
        checked(world, ["userdel", name], "userdel failed")
        return
    new = "state" in changes
    words = ["useradd"] if new else ["usermod"]
    for option, key in (("--uid", "uid"), ("--shell", "shell")):
        if key in changes:
            words += [option, str(wanted[key])]
    if "home" in changes:
        words += ["--home-dir" if new else "--home", wanted["home"]]
    if "group" in changes:
        words += ["--gid", str(group)]
    elif new and find_group(world, name):
        words += ["--gid", name]
    if "groups" in changes:
        words += [*([] if new else ["--append"]), "--groups", changes["groups"][1][1:]]
    if new:
        words += ["--system"] if system else []
        words += ["--no-create-home"] if system else ["--create-home"]
    if len(words) > 1:
        checked(world, [*words, name], words[0] + " failed")
    if "password" in changes:
        # Not an argument of useradd: everybody could read it there.
        line = "%s:%s\n" % (name, password_hash)
        checked(world, ["chpasswd", "--encrypted"], "chpasswd failed", input=line.encode())


def authorize(world, name, content):
    """Write a user's authorized_keys without trusting what the user made of the directory."""
    found = find_user(world, name)
    home = os.fsencode(found["home"])
    directory = os.path.join(home, b".ssh")
    path = os.path.join(directory, b"authorized_keys")
    pending = world.dry_run and found["uid"] == PENDING
    if pending and home in world.homes:
        return True
    if world.look(home, follow=True) is None:
        raise Failure("the home directory %s does not exist" % text(home))
    for place, kind in ((directory, "directory"), (path, "file")):
        node = world.look(place)
        if node is not None and node.kind != kind:
            raise Failure("%s is a %s" % (text(place), node.kind))
    owner, group = (name, None) if pending else (found["uid"], found["gid"])
    changed = op_directory(world, directory, owner, group, 0o700)["changed"]
    answer = op_file(world, path, content, owner=owner, group=group, mode=0o600)
    return changed or answer["changed"]
