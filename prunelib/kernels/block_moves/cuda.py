"""Block moves on a GPU, in float64 throughout.

Device memory in addition to the weight and the Gram matrix: at most 24 bytes for each weight of a chunk (at most a
quarter of the rows), and a strip of the Gram matrix in float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton

from prunelib.kernels.block_moves import cuda_kernels as block_move_kernels
from prunelib.kernels.block_moves.moves import moves_of
from prunelib.kernels.cuda_chunks import correlate, in_chunks
from prunelib.kernels.interface import MAX_SWEEPS, RowResults
from prunelib.masks.patterns import Groups

_AT_ONCE = 256
"""Pairs of a group and a move that a program evaluates at once: with few moves, several groups."""

_TILE = {"TILE": 512, "num_warps": 4}


def move_to_optimum(
    weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor, groups: Groups, threads: int
) -> Iterator[tuple[slice, RowResults]]:
    """Give each group of each row in turn its best pattern; see :mod:`prunelib.kernels.block_moves`."""
    del threads  # of the CPU
    gram = gram.contiguous()
    positions, number = (torch.from_numpy(array).to(weight.device, torch.int32) for array in moves_of(groups))

    def work(part: slice) -> tuple[slice, RowResults]:
        rows = _begin(weight[part].contiguous(), gram, _order(mask[part], groups), positions, number)
        return part, _finish(rows, groups)

    return in_chunks(work, weight)


class Rows(NamedTuple):
    """A chunk of rows and their state; a field has the name of the kernel's parameter.

    weight (rows, inputs) and gram (inputs, inputs) are float32; order (rows, inputs) int32 is described in
    :mod:`.cuda_kernels`; positions (moves, most) and number (moves,) int32 are the moves; the others are (rows,).
    """

    weight: torch.Tensor
    gram: torch.Tensor
    order: torch.Tensor
    positions: torch.Tensor
    number: torch.Tensor
    moved: torch.Tensor
    sweeps: torch.Tensor
    loss_before: torch.Tensor
    loss_after: torch.Tensor
    optimal: torch.Tensor


def _begin(
    weight: torch.Tensor, gram: torch.Tensor, order: torch.Tensor, positions: torch.Tensor, number: torch.Tensor
) -> Rows:
    """Set up the state of all rows before the first sweep."""
    moved, sweeps = torch.zeros((2, len(weight)), dtype=torch.int64, device=weight.device)
    loss_before, loss_after = torch.zeros((2, len(weight)), dtype=torch.float64, device=weight.device)
    optimal = torch.zeros_like(moved, dtype=torch.bool)
    return Rows(
        weight=weight,
        gram=gram,
        order=order,
        positions=positions,
        number=number,
        moved=moved,
        sweeps=sweeps,
        loss_before=loss_before,
        loss_after=loss_after,
        optimal=optimal,
    )


def _finish(state: Rows, groups: Groups) -> RowResults:
    """Launch the kernel, each time with a c computed anew, until it moves no group of any row."""
    rows = torch.arange(len(state.weight), device=state.weight.device)
    moves, most = state.positions.shape
    sizes = {"inputs": len(state.gram), "size": groups.size, "keep": groups.keep, "moves": moves, "most": most}
    while len(rows):
        corr = correlate(state.weight[rows].masked_fill_(_mask(state.order[rows], groups), 0), state.gram)
        block_move_kernels.settle[(len(rows),)](
            rows=rows, corr=corr, **state._asdict(), limit=MAX_SWEEPS, **sizes, **_looks(moves), **_TILE
        )
        rows = rows[~state.optimal[rows] & (state.sweeps[rows] < MAX_SWEEPS)]
    return RowResults(
        mask=_mask(state.order, groups),
        swaps=state.moved,
        sweeps=state.sweeps,
        loss_before=state.loss_before,
        loss_after=state.loss_after,
        optimal=state.optimal,
    ).cpu()


def _looks(moves: int) -> dict[str, int]:
    """Return the numbers of groups and of moves that a program evaluates at once."""
    at_once = min(_AT_ONCE, triton.next_power_of_2(moves))
    return {"GROUPS": _AT_ONCE // at_once, "MOVES": at_once}


def _order(mask: torch.Tensor, groups: Groups) -> torch.Tensor:
    """Compute the columns of each group, those kept before those pruned, (rows, inputs) int32."""
    # (rows, groups, size); stable, so that kept and pruned columns are each in ascending order
    positions = mask.logical_not().byte().reshape(len(mask), -1, groups.size).argsort(dim=2, stable=True)
    starts = torch.arange(0, mask.shape[1], groups.size, device=mask.device)  # (groups,)
    return (positions + starts[:, None]).flatten(1).int()


def _mask(order: torch.Tensor, groups: Groups) -> torch.Tensor:
    """Compute the mask (rows, inputs) bool of an order."""
    kept = order.view(len(order), -1, groups.size)[:, :, : groups.keep].flatten(1)  # (rows, groups * keep)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, kept.long(), value=True)
