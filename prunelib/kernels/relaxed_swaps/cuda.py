"""Relaxed swaps on a GPU: one launch minimises all objectives of a chunk of rows.

Device memory in addition to the weight and the Gram matrix: 20 bytes for each weight of a chunk, and a strip of the
Gram matrix in float64.
"""

from collections.abc import Iterator

import torch
import triton

from prunelib.kernels.cuda_chunks import correlate, in_chunks, row_tiles
from prunelib.kernels.relaxed_swaps import cuda_kernels as relaxed_swap_kernels
from prunelib.kernels.relaxed_swaps.reference import PAIRS, Operands


def descend(
    operands: Operands, group: int, price: float | None, tolerance: float, rounds: int, threads: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Make relaxed swaps on one objective after the other; see :mod:`prunelib.kernels.relaxed_swaps`."""
    del threads  # of the CPU
    inputs, mass = len(operands.gram), operands.mass
    gram, shifts = operands.gram.contiguous(), operands.shifts.contiguous()
    diagonal = gram.diagonal().contiguous()
    settings = {**row_tiles(inputs), **_groups(inputs, group), "PRICED": price is not None}

    def work(part: slice) -> tuple[slice, torch.Tensor]:
        w, masses = operands.weight[part].contiguous(), mass[part].clone(memory_format=torch.contiguous_format)
        relaxed_swap_kernels.descend[(len(w),)](
            weight=w,
            gram=gram,
            diagonal=diagonal,
            shifts=shifts,
            fixed=operands.fixed[part].contiguous(),
            mass=masses,
            corr=correlate((1 - masses) * w, gram),
            gradient=torch.empty_like(w),
            stages=len(shifts),
            price=price or 0.0,
            tolerance=tolerance,
            rounds=rounds,
            pairs=max(1, inputs // PAIRS),
            inputs=inputs,
            group=group,
            **settings,
        )
        return part, masses

    return in_chunks(work, operands.weight)


def _groups(inputs: int, group: int) -> dict[str, int]:
    """Launch settings of a program that has a row in registers as (GROUPS, COLUMNS)."""
    return {"GROUPS": triton.next_power_of_2(inputs // group), "COLUMNS": triton.next_power_of_2(group)}
