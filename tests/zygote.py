"""
The process that forks commands: it has imported all of the runner, each child is ``python -m MODULE`` from there.

    python zygote.py SOCKET

It reads requests from the descriptor SOCKET, and is gone when that closes. It has one thread, and did nothing but
import. Its standard streams are of the kinds that a child gets: nothing, and two pipes. How a child becomes the asker's
own is told in `forked`, which is the other end.
"""

import gc
import importlib
import importlib.util
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import threading
from pathlib import Path

LENGTH_BYTES = 4
_UNWANTED = {"runner.__main__", "runner.inputs.arrow"}  # a program; a library with threads of its own
_BESIDE = (
    "asyncio",
    "difflib",
    "importlib.metadata",
    "linecache",
    "traceback",
    "uvloop",
)


def main(number: int) -> None:
    """Serve until nobody can ask any more; in a child, be the command."""
    del sys.path[0]  # our own folder
    with socket.socket(fileno=number) as asker:
        _import()
        while request := _request(asker):
            asked, descriptors = request
            if _is_child(asker, asked, descriptors):
                break
            for one in descriptors:
                os.close(one)
        else:
            return
    runpy.run_module(str(asked["module"]), run_name="__main__", alter_sys=True)


def _import() -> None:
    import runner

    for found in pkgutil.walk_packages(runner.__path__, "runner."):
        if found.name not in _UNWANTED:
            importlib.import_module(found.name)
    for name in _BESIDE:
        if importlib.util.find_spec(name):  # uvloop is an extra
            importlib.import_module(name)
    assert threading.active_count() == len(list(Path("/proc/self/task").iterdir())) == 1
    gc.collect()
    gc.freeze()


def _request(asker: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    head, descriptors, _, _ = socket.recv_fds(asker, LENGTH_BYTES, 3)
    if not head:
        return None
    body = b""
    length = int.from_bytes(head, "big")
    while len(body) < length:
        part = asker.recv(length - len(body))
        if not part:  # who asks was killed while it did
            return None
        body += part
    return json.loads(body), descriptors


def _is_child(asker: socket.socket, asked: dict[str, object], descriptors: list[int]) -> bool:
    """Fork twice: the one between goes when the asker says so, and then the child is the asker's."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        asker.sendall(b".")
        return False
    child = os.fork()
    if child:
        asker.recv(1)
        os._exit(0)
    _become(asked, descriptors)
    asker.sendall(os.getpid().to_bytes(LENGTH_BYTES, "big"))
    return True


def _become(asked: dict[str, object], descriptors: list[int]) -> None:
    """Take on all that a process of its own starts with; what Python made of its signals is as in a new one."""
    words, cwd, env = asked["words"], asked["cwd"], asked["env"]
    assert isinstance(words, list)
    assert isinstance(cwd, str)
    assert isinstance(env, dict)
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, given in enumerate(descriptors):
        os.dup2(given, number)
        os.close(given)
    sys.argv = ["-m", *words]
    sys.path.insert(0, cwd)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


if __name__ == "__main__":
    main(int(sys.argv[1]))
