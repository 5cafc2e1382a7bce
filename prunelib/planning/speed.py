"""Measured speed of matrix products and swaps on this machine, and the estimated time of every stage.

Estimates are right to about a factor of two: attention, reading and writing, and zero-shot tasks are not counted.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from prunelib.calibration.settings import CalibrationInputs
from prunelib.kernels import backend
from prunelib.kernels.scaling import equilibrate
from prunelib.masks.patterns import PerRow
from prunelib.masks.selection import select
from prunelib.planning.needs import Workload
from prunelib.planning.shapes import Outline
from prunelib.runtime.compute import AUTO

SPARSITY = 0.6
SWEEPS = 7
"""Mean scans per row to the 1-swap optimum: 7.1 over the 210 layers of SmolLM2-135M at 60% from Wanda."""

_WIDTH, _ROWS = 1024, 128
_GPU_WIDTH = _GPU_ROWS = 8192  # smaller work measures how fast a GPU is launched
_SECONDS = 0.7  # duration of one measurement


class Speed(NamedTuple):
    """Per second: floating-point operations in the model's dtype and in float32, and pairs scanned or skipped."""

    forward: float
    products: float
    pairs: float


class Estimate(NamedTuple):
    """Estimated seconds of a stage, and the formula."""

    stage: str
    seconds: float
    formula: str


def measure(dtype: str, device: str, threads: int) -> Speed:
    """Measure this machine: about five seconds, plus the compilation of the swap kernels on first use."""
    torch.set_num_threads(threads)
    return Speed(
        forward=_product_rate(getattr(torch, dtype), device),
        products=_product_rate(torch.float32, device),
        pairs=_swap_rate(torch.device(device), threads),
    )


def estimates(outline: Outline, work: Workload, speed: Speed) -> list[Estimate]:
    """Estimate the seconds of calibrate, and of refine and evaluate for one cell, from the speed of this machine."""
    squares = sum(size**2 for block in outline.blocks for size in block.inputs)
    passes = _passes(outline, work)
    accumulated = work.calibration_tokens * (2 * passes * outline.prunable / speed.forward + squares / speed.products)
    accumulation = (
        f"{work.calibration_tokens:,} tokens x ({passes:.2g} x 2 x {outline.prunable:.3g} weights "
        f"/ {speed.forward:.2g} + {squares:.3g} squares of inputs / {speed.products:.2g}) a second"
    )
    shared = work.inputs.shared
    pairs = sum(m.weights * m.inputs for block in outline.blocks for m in block.matrices) * SPARSITY * (1 - SPARSITY)
    reconstructed = work.block_gradients * work.calibration_window
    trained = Estimate(
        "reconstruct, a cell",
        (3 * reconstructed + 2 * work.calibration_tokens) * 2 * outline.prunable / speed.forward,
        f"forward and backward: (3 x {reconstructed:,} + 2 x {work.calibration_tokens:,} tokens) "
        f"x 2 x {outline.prunable:.3g} weights / {speed.forward:.2g} a second",
    )
    return [
        *([Estimate("calibrate", accumulated, accumulation)] if shared else []),
        Estimate(
            "refine, a cell",
            pairs * SWEEPS / speed.pairs + (0 if shared else accumulated),
            f"swaps to the optimum at {SPARSITY:.0%} per row: {SWEEPS} sweeps x {pairs:.3g} pairs "
            f"/ {speed.pairs:.2g} a second{'' if shared else f'; and Gram matrices: {accumulation}'}",
        ),
        *([trained] if work.block_gradients else []),
        Estimate(
            "evaluate, a cell",
            2 * outline.weights * work.evaluation_tokens / speed.forward,
            f"perplexity: {work.evaluation_tokens:,} tokens x 2 x {outline.weights:.3g} weights "
            f"/ {speed.forward:.2g} a second",
        ),
    ]


def _passes(outline: Outline, work: Workload) -> float:
    """Return how often the windows run through a block, at most: with true_sequential inputs, not always to its end.

    Each group of layers that are pruned together takes a pass, and dense targets two more, dense and pruned. Then the
    windows run through the pruned block, and the dense one.
    """
    if work.inputs.shared:
        return 1
    groups = sum(len(block.inputs) for block in outline.blocks) / len(outline.blocks)
    if work.inputs is CalibrationInputs.SEQUENTIAL:
        groups = 1
    return groups * (2 * work.streams - 1) + work.streams


def _product_rate(dtype: torch.dtype, device: str) -> float:
    """Measure the operations per second of a product (tokens, inputs) x (inputs, rows)."""
    width = _WIDTH if device == "cpu" else _GPU_WIDTH
    left, right = torch.randn(2, width, width, device=device).to(dtype)

    def product() -> None:
        float((left @ right)[0, 0])  # reading the result synchronizes a GPU

    product()
    return 2 * width**3 / _seconds(product)


def _swap_rate(device: torch.device, threads: int) -> float:
    """Measure the kept x pruned pairs per second of the fastest backend, overhead included, on correlated inputs."""
    swap = backend(device, "swaps", AUTO).swap_to_optimum
    weight, gram, mask = (tensor.to(device) for tensor in _random_layer(_ROWS if device.type == "cpu" else _GPU_ROWS))
    for _ in swap(weight[:1], gram, mask[:1], _WIDTH, threads):
        pass  # compile the kernels
    kept = int(mask[0].sum())
    started = time.perf_counter()
    sweeps = sum(int(results.sweeps.sum()) for _, results in swap(weight, gram, mask, _WIDTH, threads))
    return sweeps * kept * (_WIDTH - kept) / (time.perf_counter() - started)


def _random_layer(rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weight (rows, inputs), Gram matrix and mask of a random layer at ``SPARSITY``."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(2 * _WIDTH, _WIDTH, generator=draw) + torch.randn(2 * _WIDTH, 1, generator=draw)
    weight = torch.randn(rows, _WIDTH, generator=draw)
    scaled = equilibrate(weight, inputs.T @ inputs)
    return scaled.weight, scaled.gram, select(weight.abs(), PerRow(sparsity=SPARSITY))


def _seconds(work: Callable[[], None]) -> float:
    """Measure the mean seconds of ``work``, repeated for ``_SECONDS``."""
    started, times = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < _SECONDS:
        work()
        times += 1
    return passed / times
