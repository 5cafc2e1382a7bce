"""What holds for every test, said before any kernel is imported.

Where there is no GPU, what is written in Triton runs in its interpreter; where there is one, only the tests that say so
run models on it. Ray keeps to the loopback interface, reports to nobody, and writes no token into the home folder. Its
workers have the priority of other processes: with the least, as Ray would have it, they take minutes to start on a busy
machine. Examples of hypothesis have no deadline: a busy
machine is no fault. Settings of the machine that a test reads are that test's. A product of small tensors takes one
thread: with two workers on two cores, waiting for a second one took half of the suite's time.
"""

import os
import secrets

import pytest
import torch
from hypothesis import settings

from prunelib.runtime.machine import budgets, machine

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
os.environ.setdefault("PRUNELIB_DEVICE", "cpu")
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex()
torch.set_num_threads(1)
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def fresh_settings():
    """No settings of the machine stay from one test to the next, nor the threads that they set."""
    for settings_of in (machine, budgets):
        settings_of.cache_clear()
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for settings_of in (machine, budgets):
        settings_of.cache_clear()


@pytest.fixture
def precision():
    """The global precision of products, which a test may change."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
