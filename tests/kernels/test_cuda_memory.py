"""Device memory of the CUDA backends: their tensors are counted on the CPU, with kernels that do nothing."""

import pytest
from strategies import problem
from torch.profiler import ProfilerActivity, profile

pytest.importorskip("triton", reason="triton is not installed")

from prunelib import NOfM, PerRow
from prunelib.kernels import cuda_chunks as chunks
from prunelib.kernels import scaling
from prunelib.kernels.block_moves import cuda as block_moves
from prunelib.kernels.block_moves import cuda_kernels as block_move_kernels
from prunelib.kernels.swaps import cuda as swaps
from prunelib.kernels.swaps import cuda_kernels as swap_kernels
from prunelib.kernels.swaps import cuda_scan as scan_kernels
from prunelib.kernels.swaps import cuda_sweeps as sweep_kernels
from prunelib.kernels.swaps import reach

pytestmark = pytest.mark.triton

INPUTS, MATRIX = 512, 4096  # of the layer that is counted, and of the one that it stands for
ROW60, NM24 = PerRow(sparsity=0.6), NOfM(keep=2, group=4)


class Kernel:
    """Takes launches and does nothing, except to set the operand ``flags`` so that rows end."""

    def __init__(self, flags=None, ended=True):
        self.flags, self.ended = flags, ended

    def __getitem__(self, grid):
        return self.launch

    def launch(self, **operands):
        if self.flags is not None:
            operands[self.flags].fill_(self.ended)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Chunks and strips as much smaller as the layer is, and no kernels."""
    for module, name in ((chunks, "CHUNK_ROWS"), (chunks, "STRIP_ROWS"), (scaling, "_STRIP"), (reach, "_STRIP")):
        monkeypatch.setattr(module, name, getattr(module, name) * INPUTS // MATRIX)
    for module, name in ((swap_kernels, "begin"), (scan_kernels, "scan_rows")):
        monkeypatch.setattr(module, name, Kernel())
    monkeypatch.setattr(sweep_kernels, "visit", Kernel("active", ended=False))
    for name in ("best_swaps", "best_swaps_in_groups"):
        monkeypatch.setattr(swaps, name, Kernel())
    monkeypatch.setattr(block_move_kernels, "settle", Kernel("optimal"))


def peak_bytes(run):
    """The most that tensors take at once, of those that are made."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    held = most = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.parametrize("rows", [INPUTS, 4 * INPUTS, INPUTS // 4, INPUTS // 8])
@pytest.mark.parametrize(
    ("pattern", "backend"),
    [(ROW60, swaps.swap_to_optimum), (ROW60, swaps.swap_best), (NM24, swaps.swap_best), (NM24, block_moves)],
    ids=["sweeps", "best swaps", "best swaps within groups", "block moves"],
)
def test_refinement_stays_below_the_gram_matrix_and_four_times_the_matrix(backend, pattern, rows):
    p = problem(0, pattern, rows, INPUTS, 2 * INPUTS)

    def refine():
        scaled = scaling.equilibrate(p.weight, p.gram)
        layer = (scaled.weight, scaled.gram, p.mask)
        if backend is block_moves:
            parts = backend.move_to_optimum(*layer, pattern.groups(*p.mask.shape), 1)
        else:
            parts = backend(*layer, p.group, **{"max_swaps": 100} if backend is swaps.swap_best else {}, threads=1)
        assert sum(len(results.mask) for _, results in parts) == rows

    held = p.weight.nbytes + p.mask.nbytes + peak_bytes(refine)
    assert p.gram.nbytes < held < p.gram.nbytes + 4 * p.weight.nbytes
