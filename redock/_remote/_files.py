"""Files, directories, links, and lines of files."""

import errno
import os
import re
import stat

from redock._remote._commands import run
from redock._remote._world import (
    INLINE,
    LONGEST_DIFF,
    NOT_KEPT,
    TEMPORARY,
    Failure,
    Node,
    Unknown,
    group_name,
    octal,
    text,
    user_name,
)


def attribute_changes(world, node, owner, group, mode):
    """Compare owner, group and mode of a Node (None: nothing there) with what is wanted."""
    changes: dict = {}
    if owner is not None and (node is None or node.uid != world.uid(owner)):
        changes["owner"] = (node and user_name(node.uid), str(owner))
    if group is not None and (node is None or node.gid != world.gid(group)):
        changes["group"] = (node and group_name(node.gid), str(group))
    if mode is not None and (node is None or node.mode != mode):
        changes["mode"] = (node and octal(node.mode), octal(mode))
    return changes


def mend_attributes(world, path, owner, group, mode):
    """Set owner, group and mode of what is there, never through a symbolic link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        own(world, descriptor, owner, group)
        if mode is not None:
            os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def own(world, descriptor, owner, group):
    uid = -1 if owner is None else world.uid(owner)
    gid = -1 if group is None else world.gid(group)
    if uid != -1 or gid != -1:
        os.fchown(descriptor, uid, gid)


def pretend(world, path, kind, node, owner, group, mode, content=None, target=None):
    """Note in a dry run what the path would be from now on."""
    world.nodes[world.place(path)] = Node(
        kind,
        mode if mode is not None else node.mode if node else 0o644,
        world.uid(owner) if owner is not None else node.uid if node else os.geteuid(),
        world.gid(group) if group is not None else node.gid if node else os.getegid(),
        content,
        target,
    )


def make_parents(world, path):
    """Create the directories above a path that are missing, for everybody to read."""
    parent = os.path.dirname(path)
    node = world.look(parent, follow=True)
    if node is None:
        make_parents(world, parent)
        if world.dry_run:
            pretend(world, parent, "directory", None, None, None, 0o755)
        else:
            os.mkdir(parent)
            os.chmod(parent, 0o755)  # noqa: S103 - for everybody to read
    elif node.kind != "directory":
        raise Failure("%s is not a directory" % text(parent))
    else:
        return node
    return world.look(parent, follow=True)


def need_parent(world, path):
    node = world.look(os.path.dirname(path), follow=True)
    if node is None:
        world.missing("the directory %s does not exist" % text(os.path.dirname(path)))
    elif node.kind != "directory":
        raise Failure("%s is not a directory" % text(os.path.dirname(path)))
    return node


def resolved(world, path):
    """Follow symbolic links to the path that is to be written."""
    for _ in range(40):
        node = world.look(path)
        if node is None or node.kind != "symlink":
            return path
        path = os.path.normpath(os.path.join(os.path.dirname(path), node.target))
    raise Failure("too many levels of symbolic links")


def open_directory(path):
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def collect_temporaries(world, directory, name):
    """Remove what killed runs left in a directory; the lock of the host keeps living ones out."""
    if name in world.cleaned:
        return
    world.cleaned.add(name)
    for entry in os.listdir(directory):
        entry = os.fsencode(entry)
        if entry.startswith(TEMPORARY):
            os.unlink(entry, dir_fd=directory)


def temporary_name(path):
    # The extension is kept because programs that validate a file look at it.
    extension = os.path.splitext(os.path.basename(path))[1]
    return TEMPORARY + os.urandom(8).hex().encode() + extension[:32]


def write_all(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_temporary(world, directory, path, pieces, owner, group, mode, sync=True):
    """Write the new content beside a file, complete with owner and mode; the name of it."""
    collect_temporaries(world, directory, os.path.dirname(path))
    temporary = temporary_name(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        for piece in pieces:
            write_all(descriptor, piece)
        own(world, descriptor, owner, group)
        os.fchmod(descriptor, mode)
        if sync:
            os.fsync(descriptor)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)
    return temporary


def replace_file(world, path, pieces, owner, group, mode, validate=None):
    """Write a file whole or not at all; say so when only writing in place was possible."""
    directory = open_directory(os.path.dirname(path))
    try:
        temporary = write_temporary(world, directory, path, pieces, owner, group, mode)
        try:
            if validate:
                parent = os.path.dirname(path)
                validate_file(world, validate, os.path.join(parent, temporary))
            note = move_over(directory, temporary, path)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)
        return note
    finally:
        os.close(directory)


def move_over(directory, temporary, path):
    name = os.path.basename(path)
    try:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return ""
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
    # A file that a container engine mounted (/etc/hosts) can be written but not replaced.
    source = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    wanted = os.fstat(source)
    target = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with open(source, "rb") as reader, open(target, "wb") as writer:
        os.ftruncate(target, 0)
        for piece in iter(lambda: reader.read(1 << 20), b""):
            writer.write(piece)
        writer.flush()
        os.fchown(target, wanted.st_uid, wanted.st_gid)
        os.fchmod(target, stat.S_IMODE(wanted.st_mode))
        os.fsync(target)
    os.unlink(temporary, dir_fd=directory)
    return "written in place because it is a mount point"


def validate_file(world, command, path):
    words = [path if word == b"%s" else word.replace(b"%s", path) for word in command]
    done = run(world, words)
    if done["returncode"]:
        done["command"] = [os.fsdecode(word) for word in words]
        raise Failure("the new content was refused, nothing was replaced", result=done)


def checksum(world, path):
    import zlib

    value = 0
    with open(path, "rb") as handle:
        for piece in iter(lambda: handle.read(1 << 20), b""):
            value = zlib.crc32(piece, value)
    return value


def digest(path):
    import hashlib

    value = hashlib.sha256()
    with open(path, "rb") as handle:
        for piece in iter(lambda: handle.read(1 << 20), b""):
            value.update(piece)
    return value.digest()


def op_file(
    world,
    path,
    content=None,
    size=None,
    owner=None,
    group=None,
    mode=None,
    state="present",
    validate=None,
    backup=False,
    follow=False,
    parents=False,
    hide=False,
):
    """Bring a file into a state; ``size`` without content: it is sent when it is needed."""
    if follow:
        path = resolved(world, path)
    delayed = world.delayed
    if delayed is not None and delayed.touches(path):
        delayed.commit(keep_lock=True)
    node = world.look(path)
    if node is not None and node.kind == "directory":
        raise Failure("it is a directory")
    if state == "absent":
        return remove_file(world, path, node)
    if node is not None and node.kind not in ("file", "symlink"):
        raise Failure("it is a " + node.kind)
    if delayed is None or os.path.dirname(path) not in delayed.directories:
        (make_parents if parents else need_parent)(world, path)
    there = node if node is not None and node.kind == "file" else None
    before = None
    if content is None and size is None and there is None:
        content = b""
    if content is not None:
        size = len(content)
    differs = there is None
    if there is not None and size is not None:
        if content is not None and there.size <= max(size, LONGEST_DIFF):
            before = world.read(path)
            differs = before != content
        else:
            differs = there.size != size or not world.same_content(lambda: digest(path))
    changes = attribute_changes(world, there, owner, group, mode)
    if node is not None and there is None:
        changes["type"] = (node.kind, "file")
    if differs:
        changes["content"] = (None if there is None else "%d bytes" % there.size, "%d bytes" % size)
    if not changes:
        return {"changed": False}
    if there is None:
        mode = 0o644 if mode is None else mode
    answer = {"changed": True, "changes": changes}
    if world.diff and differs and not hide and content is not None:
        answer["before"], answer["after"] = before or b"", content
    if world.dry_run:
        new = content
        if content is None:
            new = NOT_KEPT if differs or there is None else there.content
        pretend(world, path, "file", there, owner, group, mode, new)
        return answer
    if not differs:
        mend_attributes(world, path, owner, group, mode)
    else:
        if there is not None:
            owner = there.uid if owner is None else owner
            group = there.gid if group is None else group
            mode = there.mode if mode is None else mode
            if backup:
                keep_backup(world, path, there)
                changes["backup"] = (None, text(backup_name(path)))
        if delayed is not None and content is not None and validate is None:
            delayed.add(path, content, owner, group, mode, answer)
            return answer
        if delayed is not None:
            delayed.commit(keep_lock=True)
        pieces = [content] if content is not None else world.incoming(size)
        answer["reason"] = replace_file(
            world, path, counted(pieces, answer), owner, group, mode, validate
        )
    verify_file(world, path, content, answer.pop("crc", None), owner, group, mode)
    return answer


def counted(pieces, answer):
    """Pass pieces on and keep their checksum for the moment when the file is read again."""
    import zlib

    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
        yield piece
    answer["crc"] = value


def verify_file(world, path, content, crc, owner, group, mode):
    node = world.look(path)
    if node is None or node.kind != "file":
        raise Failure("it was written and is gone again")
    changes = attribute_changes(world, node, owner, group, mode)
    if content is not None and len(content) <= INLINE:
        same = node.size == len(content) and world.read(path) == content
    else:
        same = crc is None or checksum(world, path) == crc
    if changes or not same:
        raise Failure(
            "after the change it still differs in "
            + ", ".join([*changes, *([] if same else ["content"])])
        )


def backup_name(path):
    return os.path.join(os.path.dirname(path), b"." + os.path.basename(path) + b".bak")


def keep_backup(world, path, node):
    with open(path, "rb") as handle:
        pieces = iter(lambda: handle.read(1 << 20), b"")
        replace_file(world, backup_name(path), pieces, node.uid, node.gid, node.mode)


def remove_file(world, path, node):
    if node is None:
        if world.dry_run and world.opaque:
            raise Unknown("depends on " + world.opaque[-1])
        return {"changed": False}
    if world.dry_run:
        world.nodes[world.place(path)] = None
    else:
        os.unlink(path)
        if world.look(path) is not None:
            raise Failure("it was removed and is there again")
    return {"changed": True, "changes": {"state": ("present", "absent")}}


def op_directory(world, path, owner=None, group=None, mode=None, state="present", recurse=False):
    node = world.look(path)
    if state == "absent":
        return remove_directory(world, path, node, recurse)
    if node is not None and node.kind == "symlink":
        node = world.look(path, follow=True)
        if node is None or node.kind != "directory":
            raise Failure("it is a symbolic link, and not to a directory")
        path = world.place(path, follow=True)
    elif node is not None and node.kind != "directory":
        raise Failure("it is a " + node.kind)
    changes = attribute_changes(world, node, owner, group, mode)
    if node is None:
        changes = {"state": ("absent", "directory"), **changes}
        mode = 0o755 if mode is None else mode
    below = []
    if recurse and node is not None and (owner is not None or group is not None):
        below = foreign_entries(world, path, owner, group)
        if below:
            changes["below"] = (None, "%d entries" % len(below))
    if not changes:
        return {"changed": False}
    if world.dry_run:
        make_parents(world, path)
        pretend(world, path, "directory", node, owner, group, mode)
        return {"changed": True, "changes": changes}
    if node is None:
        make_parents(world, path)
        os.mkdir(path)
    mend_attributes(world, path, owner, group, mode)
    for entry in below:
        os.chown(
            entry,
            -1 if owner is None else world.uid(owner),
            -1 if group is None else world.gid(group),
            follow_symlinks=False,
        )
    left = attribute_changes(world, world.look(path), owner, group, mode)
    if left or (below and foreign_entries(world, path, owner, group)):
        raise Failure(
            "after the change it still differs in " + ", ".join(left or ["what is below"])
        )
    return {"changed": True, "changes": changes}


def foreign_entries(world, path, owner, group):
    uid = None if owner is None else world.uid(owner)
    gid = None if group is None else world.gid(group)
    found = []
    for parent, directories, files in os.walk(path):
        for name in directories + files:
            entry = os.path.join(parent, name)
            status = os.lstat(entry)
            if (uid is not None and status.st_uid != uid) or (
                gid is not None and status.st_gid != gid
            ):
                found.append(entry)
    return found


def remove_directory(world, path, node, recurse):
    if node is None:
        if world.dry_run and world.opaque:
            raise Unknown("depends on " + world.opaque[-1])
        return {"changed": False}
    if node.kind != "directory":
        raise Failure("it is a " + node.kind)
    if not recurse and (world.nodes or os.listdir(path)) and not empty(world, path):
        raise Failure("it is not empty; recurse=True removes what is in it, too")
    if world.dry_run:
        path = world.place(path)
        world.nodes = {
            name: value for name, value in world.nodes.items() if not name.startswith(path + b"/")
        }
        world.nodes[path] = None
    elif recurse:
        import shutil

        shutil.rmtree(path)
    else:
        os.rmdir(path)
    if world.look(path) is not None:
        raise Failure("it was removed and is there again")
    return {"changed": True, "changes": {"state": ("directory", "absent")}}


def empty(world, path):
    path = world.place(path)
    entries: set = set()
    if os.path.isdir(path):
        entries.update(os.path.join(path, name) for name in os.listdir(path))
    for name, node in world.nodes.items():
        if os.path.dirname(name) == path:
            (entries.discard if node is None else entries.add)(name)
    return not entries


def op_symlink(world, path, target, state="present", force=False):
    node = world.look(path)
    if node is not None and node.kind != "symlink" and (state == "absent" or not force):
        raise Failure("it is a %s, not a symbolic link" % node.kind)
    if state == "absent":
        return remove_file(world, path, node)
    if node is not None and node.kind == "directory":
        raise Failure("it is a directory")
    need_parent(world, path)
    if node is not None and node.kind == "symlink" and node.target == target:
        return {"changed": False}
    before = None if node is None else text(node.target) if node.target else node.kind
    answer = {"changed": True, "changes": {"target": (before, text(target))}}
    if world.dry_run:
        pretend(world, path, "symlink", None, None, None, 0o777, target=target)
        return answer
    directory = open_directory(os.path.dirname(path))
    try:
        collect_temporaries(world, directory, os.path.dirname(path))
        temporary = temporary_name(path)
        os.symlink(target, temporary, dir_fd=directory)
        try:
            os.rename(temporary, os.path.basename(path), src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(temporary, dir_fd=directory)
            raise
        os.fsync(directory)
    finally:
        os.close(directory)
    if os.readlink(path) != target:
        raise Failure("after the change it points to %s" % text(os.readlink(path)))
    return answer


def op_line(
    world,
    path,
    line,
    match=None,
    after=None,
    state="present",
    create=False,
    follow=False,
    hide=False,
):
    if follow:
        path = resolved(world, path)
    node = world.look(path)
    if node is None:
        if state == "absent":
            return remove_file(world, path, None)
        if not create:
            world.missing("the file does not exist; create=True creates it")
        content = b""
    elif node.kind != "file":
        raise Failure("it is a " + node.kind)
    else:
        content = world.read(path)
    ends = content.endswith(b"\n") or not content
    lines = content.split(b"\n")
    if ends:
        lines.pop()
    if state == "absent":
        kept = [item for item in lines if item != line and not (match and re.search(match, item))]
    else:
        kept = with_line(lines, line, match, after)
    if kept == lines:
        return {"changed": False} if node is not None else op_file(world, path, b"")
    new = b"\n".join(kept) + (b"\n" if kept and (ends or kept[-1] == line) else b"")
    answer = op_file(world, path, new, hide=hide)
    answer["changes"].pop("content", None)
    shown = "********" if hide else text(line)
    answer["changes"]["line"] = (shown, None) if state == "absent" else (None, shown)
    return answer


def with_line(lines, line, match, after):
    """Replace the last line that matches, else insert the line where it belongs."""
    matching = [i for i, item in enumerate(lines) if match and re.search(match, item)]
    if matching:
        return [*lines[: matching[-1]], line, *lines[matching[-1] + 1 :]]
    if line in lines:
        return lines
    places = [i for i, item in enumerate(lines) if after and re.search(after, item)]
    place = places[-1] + 1 if places else len(lines)
    return [*lines[:place], line, *lines[place:]]
