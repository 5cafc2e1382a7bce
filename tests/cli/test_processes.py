"""The processes that a command begins end with it."""

import signal
import subprocess
import sys
import time

import psutil

from prunelib.cli.processes import ended_by_sigterm

COMMAND = """
import subprocess, sys
from prunelib.cli.processes import ended_by_sigterm
CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', GRANDCHILD])"
GRANDCHILD = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
with ended_by_sigterm():
    subprocess.run([sys.executable, "-c", CHILD.replace("GRANDCHILD", repr(GRANDCHILD))])
"""


def test_sigterm_ends_what_the_command_began():
    with subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, text=True) as command:
        grandchild = psutil.Process(int(command.stdout.readline()))
        command.send_signal(signal.SIGTERM)
        assert command.wait(timeout=60) == 128 + signal.SIGTERM
        last = time.monotonic() + 60
        while not ended(grandchild) and time.monotonic() < last:
            time.sleep(0.05)
    assert ended(grandchild)


def ended(process):
    """Whether a process has ended; nobody may have collected it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_sigterm_is_as_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
