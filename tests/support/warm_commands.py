"""Commands ``python``, ``dvc`` and ``prunelib`` as forks of a process that has imported torch, transformers and DVC.

These imports are most of what a stage takes on a tiny model. What runs is the same: the script, in a process, a folder
and an environment of its own, with the library that it finds there. Not for what is killed: a signal ends the caller
alone. ``make e2e`` and the tests of kills start every command as a user does.
"""

import atexit
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

IMPORTED = (  # what lies outside of this project, and starts no thread
    "dvc.cli.parser",
    "dvc.repo.reproduce",
    "dvc_data.index",
    "dvc_task",
    "matplotlib.pyplot",
    "numba",
    "pydantic",
    "safetensors.torch",
    "torch",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys

name = os.path.basename(sys.argv[0])
words = sys.argv[1:] if name == "python" else [{folder!r} + name, *sys.argv[1:]]
if not " ".join(words).startswith(("stages/", "-m stages.", {folder!r})):
    os.execv({python!r}, [{python!r}, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"!"], [0, 1, 2])
    server.sendall(json.dumps([words, os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    status = int(server.makefile().read() or 1)
sys.exit(status if status >= 0 else 128 - status)
"""


@cache
def warm_commands() -> Path:
    """Start the process that is forked, once for all tests of this one; the folder of the commands."""
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    address = str(folder / "socket")
    scripts = f"{Path(sys.executable).parent}{os.sep}"
    for name in ("python", "dvc", "prunelib"):
        (folder / name).write_text(CLIENT.format(python=sys.executable, folder=scripts, address=address))
        (folder / name).chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        server = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno())],
            stdin=subprocess.PIPE,  # its end is that of the tests
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            pass_fds=[listener.fileno()],
        )
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    return folder


def serve(listener: socket.socket) -> None:
    """Run every caller's command in a fork, until the tests end."""
    for module in IMPORTED:
        import_module(module)
    gc.freeze()  # what is imported stays in pages that all share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            os._exit(0)
        caller, _ = listener.accept()
        if os.fork() == 0:
            break
        caller.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, *_ = socket.recv_fds(caller, 1, 3)
    request = json.loads(caller.makefile().readline())
    if command := os.fork():
        _, status = os.waitpid(command, 0)
        caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    caller.close()
    become(streams, *request)


def become(streams: list[int], words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Take over the three streams, the words, the folder and the environment of a command, and run it."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    module = words[0] == "-m"
    sys.argv[:] = words[module:]
    if Path(words[0]).name == "prunelib":
        # It looks for its environment's commands beside its Python.
        sys.executable = str(Path(environment["PATH"].partition(os.pathsep)[0]) / "python")
    folders = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [folder if module else str(Path(words[0]).parent.resolve()), *filter(None, folders)]
    if module:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
