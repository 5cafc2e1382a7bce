"""Kernels are compiled before the work: nothing is compiled while layers are refined and timed."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, torch
from prunelib.kernels import on_compilation
from prunelib.masks.patterns import NOfM, PerLayer, PerRow
from prunelib.masks.selection import select
from prunelib.params import load_params
from prunelib.pruning.chains import run_chain, layer_steps
from prunelib.methods.contract import ExtraInputs, silent
from prunelib.kernels.interface import WIDE
from prunelib.methods import registry
from prunelib import refiners
from prunelib.pruning.warm_up import warm_up

cpu, told, late = torch.device("cpu"), [], []


def refine(settings, pattern, rows, width):
    weight, inputs = torch.randn(rows, width), torch.randn(200, width)
    gram = inputs.T @ inputs
    extra = ExtraInputs(input_mean=inputs.mean(dim=0), tokens=200, windows=1, name="layer", held_out_gram=gram)
    run_chain(weight, gram, select(weight.abs(), pattern), pattern, settings, silent, extra)


patterns = (PerRow(sparsity=0.6), NOfM(keep=2, group=4), PerLayer(sparsity=0.6))
by_steps = {layer_steps(settings): (name, settings) for name, settings in load_params().refiners.items()}
for name, settings in by_steps.values():
    if hasattr(settings, "iterations"):
        settings = settings.model_copy(update={"iterations": 3})  # the papers' 2,000 would compile nothing more
    for pattern in patterns:
        if all(registry.refiner(refiners, step).supports(pattern) for step in layer_steps(settings)):
            warm_up(settings, pattern, cpu, [96], lambda: told.append(name))
            with on_compilation(cpu, lambda: late.append((name, pattern.kind))):
                refine(settings, pattern, 40, 96)
swaps = load_params().refiners["swaps"]
warm_up(swaps, patterns[0], cpu, [96, WIDE + 8])
with on_compilation(cpu, lambda: late.append(WIDE)):
    refine(swaps, patterns[0], 2, WIDE + 8)
print(len(told) > 3, late)
"""


@pytest.mark.slow
def test_no_refiner_of_params_yaml_compiles_anything_after_its_warm_up(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", PROGRAM], text=True, capture_output=True, check=False)
    assert done.stdout == "True []\n", done.stderr
