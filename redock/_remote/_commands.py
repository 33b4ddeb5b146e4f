"""Running commands: with time limits, live output and guards."""

import os
import pwd
import subprocess
import time

from redock._remote._world import LONGEST_CAPTURE, LONGEST_TAIL, Failure, Hung, text


def decode_words(words):
    return [word if isinstance(word, bytes) else word.encode() for word in words]


def run(world, words, input=b"", env=None, timeout=None, live=False, capture=False):
    """Run a command; its output is sent while it runs, kept, or its end is kept."""
    import selectors

    started = time.monotonic()
    ends = [started + timeout] if timeout is not None else []
    if world.deadline is not None:
        ends.append(world.deadline)
    deadline = min(ends) if ends else float("inf")
    environment = dict(os.environb)
    for name, value in (env or {}).items():
        environment[os.fsencode(name)] = os.fsencode(value)
    process = subprocess.Popen(
        decode_words(words),
        stdin=subprocess.PIPE if input else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        cwd=home_directory(),
    )
    limit = LONGEST_CAPTURE if capture else LONGEST_TAIL
    kept = {"out": bytearray(), "err": bytearray()}
    try:
        with selectors.DefaultSelector() as selector:
            watch(selector, process, input)
            pump(world, selector, process, kept, deadline, live, limit, capture)
        process.wait(max(0.01, deadline - time.monotonic()) if deadline < 1e300 else None)
    except (Hung, subprocess.TimeoutExpired):
        kill_group(process)
        return outcome(process, kept, started, hung=True)
    except BaseException:
        kill_group(process)
        raise
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                try:
                    stream.close()
                except OSError:
                    pass
    return outcome(process, kept, started)


def outcome(process, kept, started, hung=False):
    return {
        "returncode": process.returncode,
        "stdout": bytes(kept["out"]),
        "stderr": bytes(kept["err"]),
        "seconds": time.monotonic() - started,
        "hung": hung,
    }


def home_directory():
    for directory in (os.environ.get("HOME"), "/"):
        if directory and os.path.isdir(directory):
            return directory
    return None


def kill_group(process):
    import signal

    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def watch(selector, process, input):
    import selectors

    for stream, name in ((process.stdout, "out"), (process.stderr, "err")):
        os.set_blocking(stream.fileno(), False)
        selector.register(stream, selectors.EVENT_READ, name)
    if input:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE, memoryview(input))


def pump(world, selector, process, kept, deadline, live, limit, capture):
    """Move bytes until all pipes are closed, or the command ended and left them to a daemon."""
    ended = None
    while selector.get_map():
        now = time.monotonic()
        if now >= deadline:
            raise Hung
        if ended is not None and now > ended + 0.2:
            return
        for key, _ in selector.select(min(0.1, deadline - now)):
            if isinstance(key.data, memoryview):
                feed(selector, key)
                continue
            data = os.read(key.fileobj.fileno(), 65536)
            if not data:
                selector.unregister(key.fileobj)
                continue
            if live:
                world.channel.send((key.data, data))
            buffer = kept[key.data]
            buffer += data
            if len(buffer) > limit:
                if capture:
                    raise Failure("the command printed more than %d MiB" % (limit >> 20))
                del buffer[:-limit]
        if ended is None and process.poll() is not None:
            ended = time.monotonic()


def feed(selector, key):
    try:
        count = os.write(key.fileobj.fileno(), key.data[:65536])
    except BlockingIOError:
        return
    except BrokenPipeError:
        count = len(key.data)
    selector.unregister(key.fileobj)
    if count < len(key.data):
        import selectors

        selector.register(key.fileobj, selectors.EVENT_WRITE, key.data[count:])
    else:
        key.fileobj.close()


def checked(world, words, what, env=None, input=b""):
    """Run a command of an operation; its failure is the operation's."""
    try:
        done = run(world, words, env=env, input=input)
    except FileNotFoundError:
        raise Failure("%s: the program %s is not installed" % (what, words[0])) from None
    if done["returncode"]:
        done["command"] = [os.fsdecode(word) for word in words]
        raise Failure(what, result=done)
    return done


def shell():
    try:
        found = pwd.getpwuid(os.geteuid()).pw_shell
    except KeyError:
        found = ""
    return found or "/bin/sh"


def op_execute(world, words=None, script=None, input=b"", env=None, timeout=None, capture=False):
    words = words if script is None else [shell(), b"-c", script]
    try:
        return run(world, words, input, env, timeout, live=not capture, capture=capture)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        # The statuses a shell gives: found but not executable, not found.
        code = 126 if isinstance(error, PermissionError) else 127
        message = "%s: %s" % (text(decode_words(words)[0]), error.strerror)
        return {
            "returncode": code,
            "stdout": b"",
            "stderr": message.encode(),
            "seconds": 0.0,
            "hung": False,
        }


def op_command(
    world,
    words=None,
    script=None,
    creates=None,
    unless=None,
    only_if=None,
    input=b"",
    env=None,
    timeout=None,
    title="",
):
    """Run a command unless its effect is there; the escape hatch."""
    shown = "the command " + title
    if creates is not None:
        if world.look(creates, follow=True) is not None:
            return {"changed": False}
        if world.dry_run and world.opaque:
            reason = "depends on " + world.opaque[-1]
            world.opaque.append(shown)
            return {"changed": None, "reason": reason}
    for guard, skip_when in ((unless, True), (only_if, False)):
        if guard is None:
            continue
        if world.dry_run and world.opaque:
            reason = "depends on " + world.opaque[-1]
            world.opaque.append(shown)
            return {"changed": None, "reason": reason}
        if world.dry_run:
            # Nobody can promise that a check changes nothing, so a dry run does not run it.
            world.opaque.append(shown)
            return {"changed": None, "reason": "a dry run does not run the check"}
        done = op_execute(world, **guard, timeout=timeout, capture=True)
        if done["hung"]:
            raise Failure("the check before the command", result=done)
        if (done["returncode"] == 0) == skip_when:
            return {"changed": False}
    if world.dry_run:
        world.opaque.append(shown)
        return {"changed": True, "changes": {"command": (None, "would run")}}
    done = op_execute(world, words, script, input, env, timeout, capture=True)
    answer = {"changed": True, "changes": {"command": (None, "ran")}, "result": done}
    if done["hung"] or done["returncode"]:
        raise Failure("", result=done)
    if creates is not None and world.look(creates, follow=True) is None:
        raise Failure("the command succeeded but did not create " + text(creates), result=done)
    return answer
