"""
What is sent to a host so that it can answer: execnet's remote half and redock's.

Modules travel as text, which every Python from 3.8 on reads, and beside it as
what Python here has compiled from that text already, which a Python of the same
kind over there loads without compiling: forty milliseconds a host.
"""

from __future__ import annotations

import os

from redock import _remote

__all__ = ["FIRST_WORDS", "MARK", "compose"]

#: What the remote side says before it turns into an execnet gateway.
MARK = b"\x1eredock-bootstrap "
#: Read without look-ahead, because what follows belongs to others; runs on Python 2 and 3 alike.
FIRST_WORDS = 'import io;exec(eval(io.open(0,"rb",0,closefd=False).readline()))'

#: Reads the rest, which is a list of modules and then their contents. The first is executed in
#: this name space; it is execnet's, which expects to be the program.
FIRST_STAGE = """
import os, sys
def say(*words):
    os.write(1, (%(mark)r + " ".join(words) + "\\n").encode("ascii", "replace"))
    if words[0] != "ready":
        sys.exit(0)
version = "%%d.%%d" %% sys.version_info[:2]
if sys.version_info < (3, 8):
    say("old-python", version)
try:
    import fcntl, grp, json, marshal, pwd, queue, selectors, shutil, subprocess, traceback, zlib
    from importlib._bootstrap_external import MAGIC_NUMBER
except ImportError as error:
    say("incomplete-python", str(error))
data = b""
while len(data) < %(size)d:
    piece = os.read(0, %(size)d - len(data))
    if not piece:
        sys.exit(0)
    data += piece
sys.dont_write_bytecode = True
say("ready", version)
def unpack(data):
    head, _, rest = zlib.decompress(data).partition(b"\\n")
    for name, text, compiled in eval(head):
        source, code, rest = rest[:text], rest[text:text + compiled], rest[text + compiled:]
        if code and %(magic)r == MAGIC_NUMBER:
            yield name, marshal.loads(code)
        else:
            yield name, compile(source, name.replace(".", "/") + ".py", "exec")
for name in ("redock", "redock._remote"):
    sys.modules[name] = type(sys)(name)
for name, code in unpack(data):
    if name == "execnet.gateway_base":
        exec(code, globals())
    else:
        sys.modules[name] = type(sys)(name)
        exec(code, sys.modules[name].__dict__)
execmodel = get_execmodel("thread")
serve(init_popen_io(execmodel), id="redock-worker")
"""


def compose() -> tuple[bytes, bytes]:
    """
    Compose what is sent to the remote interpreter.

    :returns: A line to evaluate, and the compressed modules that line makes it read.
    """
    import importlib.util
    import zlib

    found = importlib.util.find_spec("execnet")
    assert found and found.origin
    paths = {"execnet.gateway_base": os.path.join(os.path.dirname(found.origin), "gateway_base.py")}
    paths |= _remote.paths()
    head, contents = [], []
    for name, path in paths.items():
        with open(path, "rb") as handle:
            source = handle.read()
        code = compiled(path)
        head.append((name, len(source), len(code)))
        contents += [source, code]
    packed = zlib.compress(repr(head).encode() + b"\n" + b"".join(contents), 4)
    first = FIRST_STAGE % {
        "mark": MARK.decode(),
        "size": len(packed),
        "magic": importlib.util.MAGIC_NUMBER,
    }
    return repr(first).encode() + b"\n", packed


def compiled(path: str) -> bytes:
    """
    Find what Python has compiled from a module.

    :param path: The pathname of its source.
    :returns: The code in the format of :mod:`marshal`; empty where there is none that is up to
              date (PEP 552 describes the file).
    """
    import importlib.util

    try:
        with open(importlib.util.cache_from_source(path), "rb") as handle:
            cached = handle.read()
        status = os.stat(path)
    except (OSError, NotImplementedError):
        return b""
    stamp = (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    expected = importlib.util.MAGIC_NUMBER + bytes(4)
    expected += b"".join(number.to_bytes(4, "little") for number in stamp)
    return cached[16:] if cached[:16] == expected else b""
