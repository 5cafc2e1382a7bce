"""Compilation of kernels before the work, so that no layer's time includes it.

numba compiles a kernel once for all sizes, or once for wide rows, and caches it on disk; Triton compiles it for each
number of inputs.
"""

from collections.abc import Callable, Collection
from functools import cache

import torch

from prunelib.kernels import on_compilation
from prunelib.kernels.interface import WIDE
from prunelib.masks.patterns import Pattern
from prunelib.masks.selection import select
from prunelib.methods.contract import ExtraInputs, MethodSettings, silent
from prunelib.pruning.chains import run_chain
from prunelib.runtime.compute import AUTO, Compute

_ROWS, _INPUTS, _TOKENS = 16, 16, 64


def warm_up(
    settings: MethodSettings,
    pattern: Pattern,
    device: torch.device,
    widths: Collection[int],
    notify: Callable[[], None] = lambda: None,
    compute: Compute = AUTO,
) -> None:
    """Refine a few random rows with the method and groups of the work, once per process.

    Parameters
    ----------
    settings
        Those of one method, or a :class:`prunelib.pruning.chains.Chain`.
    pattern
        The pattern of the work; its sparsity and budget are not used.
    device
        The device that will refine the layers.
    widths
        The numbers of inputs of the layers.
    notify
        Called when a kernel begins to compile.
    compute
        Threads and kernels of the work.
    """
    group = pattern.column_groups.size if pattern.column_groups else 1
    on_cpu = {_INPUTS, WIDE} if max(widths, default=0) >= WIDE else {_INPUTS}
    chosen = set(widths) if device.type == "cuda" else {group * -(-inputs // group) for inputs in on_cpu}
    sample = pattern if pattern.column_groups else pattern.with_sparsity(0.5)
    with on_compilation(device, notify):
        for width in sorted(chosen):
            _refine_random_rows(settings, sample, device, width, compute)


@cache
def _refine_random_rows(
    settings: MethodSettings, pattern: Pattern, device: torch.device, inputs: int, compute: Compute
) -> None:
    generator = torch.Generator(device).manual_seed(0)
    weight = torch.randn(_ROWS, inputs, device=device, generator=generator)
    read = torch.randn(_TOKENS, inputs, device=device, generator=generator)
    gram = read.T @ read
    gram.diagonal().add_(1.0)
    mask = select(weight.abs(), pattern)
    extra = ExtraInputs(
        input_mean=read.mean(dim=0).cpu(), tokens=_TOKENS, windows=1, name="random", held_out_gram=gram.cpu()
    )
    run_chain(weight, gram.cpu(), mask, pattern, settings, silent, extra, compute)
