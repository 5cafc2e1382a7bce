"""Relaxed swaps on a GPU: :mod:`.relaxed_swap_kernels` take a row through all objectives, many rows at once.

Beside the weight and the Gram matrix, the device holds 20 bytes for each weight of a chunk, and a strip of the Gram
matrix in float64.
"""

from collections.abc import Iterator

import torch
import triton

from prunelib.kernels.cuda_chunks import correlate, in_chunks, row_tiles
from prunelib.kernels.relaxed_swaps import cuda_kernels as relaxed_swap_kernels
from prunelib.kernels.relaxed_swaps.reference import PAIRS


def descend(
    weight: torch.Tensor,
    gram: torch.Tensor,
    shifts: torch.Tensor,
    mass: torch.Tensor,
    fixed: torch.Tensor,
    group: int,
    price: float | None,
    tolerance: float,
    rounds: int,
    threads: int,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Make relaxed swaps on one objective after the other; see :mod:`prunelib.kernels.relaxed_swaps.reference`."""
    del threads  # of the processor
    inputs = len(gram)
    gram, diagonal, shifts = gram.contiguous(), gram.diagonal().contiguous(), shifts.contiguous()
    settings = {**row_tiles(inputs), **_groups(inputs, group), "PRICED": price is not None}

    def work(part: slice) -> tuple[slice, torch.Tensor]:
        w, locked = weight[part].contiguous(), fixed[part].contiguous()
        masses = mass[part].clone(memory_format=torch.contiguous_format)
        corr = correlate((1 - masses) * w, gram)
        state = (w, gram, diagonal, shifts, locked, masses, corr, torch.empty_like(w))
        relaxed_swap_kernels.descend[(len(w),)](
            *state, len(shifts), price or 0.0, tolerance, rounds, max(1, inputs // PAIRS), inputs, group, **settings
        )
        return part, masses

    return in_chunks(work, weight)


def _groups(inputs: int, group: int) -> dict[str, int]:
    """How a program holds the groups of a row."""
    return {"GROUPS": triton.next_power_of_2(inputs // group), "PLACES": triton.next_power_of_2(group)}
