"""Shared by the CUDA backends: chunks of rows, c = G p, and launch settings for a row."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
import triton

T = TypeVar("T")

# Limits of device memory, which tests/kernels/test_cuda_memory.py counts: the float64 state of a chunk of rows, and the
# float64 copy of a strip of G.
CHUNK_ROWS = 2048
STRIP_ROWS = 128

_COLUMNS_PER_WARP = 512
_TILE_COLUMNS_PER_WARP = 128


def in_chunks(work: Callable[[slice], T], weight: torch.Tensor) -> Iterator[T]:
    """Call ``work`` on chunks of the rows of a weight, on its device; yield the results in order."""
    # A quarter of the rows at most, so that a GPU needs less than the Gram matrix and four times the weight in all.
    chunk = min(CHUNK_ROWS, len(weight) // 4 + 1)
    for start in range(0, len(weight), chunk):
        with torch.cuda.device_of(weight):
            finished = work(slice(start, min(start + chunk, len(weight))))
        yield finished


def correlate(p: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Compute G p for each row of p (rows, inputs) in float64, a strip of the rows of G (inputs, inputs) at a time."""
    corr = torch.zeros(p.shape, dtype=torch.float64, device=p.device)
    for start in range(0, len(gram), STRIP_ROWS):
        strip = slice(start, start + STRIP_ROWS)
        corr.addmm_(p[:, strip].double(), gram[strip].double())  # (rows, strip) @ (strip, inputs)
    return corr


def row_block(inputs: int) -> dict[str, int]:
    """Launch settings of a program that keeps a row in registers as one block, with few columns for each thread."""
    block = triton.next_power_of_2(inputs)
    return {"BLOCK": block, "num_warps": min(16, max(1, block // _COLUMNS_PER_WARP))}


def row_tiles(inputs: int) -> dict[str, int]:
    """Launch settings of a program that reads a row in float64, a tile at a time."""
    block, warps = row_block(inputs).values()
    return {"TILE": min(block, _TILE_COLUMNS_PER_WARP * warps), "num_warps": warps, "maxnreg": 128}


def whole_row(inputs: int) -> dict[str, int]:
    """Launch settings of a program that reads a row in float32 as one block and in float64 in tiles."""
    return {**row_block(inputs), **row_tiles(inputs)}
