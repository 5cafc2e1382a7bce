"""What refiners say that they hold, against the memory of a process that runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prunelib import refiners
from prunelib.methods import registry

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to count a peak anew")

RUN = """
import gc
import sys

import torch

from prunelib import refiners, select
from prunelib.masks.patterns import EXAMPLES
from prunelib.methods import registry
from prunelib.methods.contract import ExtraInputs, silent

name, rows, inputs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
method = registry.methods(refiners)[name]
pattern = next(filter(method.supports, EXAMPLES))
settings = method.settings(**{"damping": 0.01} if "damping" in method.settings.model_fields else {})


def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))


def refine(rows, inputs):
    x, weight = torch.randn(inputs + 100, inputs), torch.randn(rows, inputs)
    gram, mask = x.T @ x, select(weight.abs(), pattern)
    extra = ExtraInputs(input_mean=x.mean(dim=0), tokens=len(x), windows=1)
    del x
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = peak()
    method.refine(weight, gram, mask, pattern, settings, silent, extra)
    return peak() - before


refine(32, 16)
print(refine(rows, inputs))
"""


@pytest.mark.parametrize(("rows", "inputs"), [(32, 2048), pytest.param(6144, 512, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", registry.methods(refiners))
def test_a_refiner_holds_what_it_says(name, rows, inputs):
    method = registry.methods(refiners)[name]
    said = 4 * method.workspace.squares * inputs**2 + method.workspace.weight_bytes * rows * inputs
    command = [sys.executable, "-c", RUN, name, str(rows), str(inputs)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
    held = int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    assert said / 4 - 20_000_000 < held < said + 20_000_000
