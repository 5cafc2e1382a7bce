"""Bytes that the stages need on disk and in memory.

Small files (tokens, figures, reports) are not counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from prunelib.calibration.settings import CalibrationInputs
from prunelib.methods.workspace import Workspace
from prunelib.planning.shapes import WEIGHT_BYTES, Block, Matrix, Outline
from prunelib.runtime.machine import WAITING_BYTES

_FLOAT32 = 4
_ACTIVATIONS = 2  # tensors as large as the inputs and outputs of each matrix that a backward pass needs
RUNTIME = 800_000_000
"""Memory of Python, torch and the compiled backend before any data; measured: 0.6 to 0.9 GB."""


@dataclass(frozen=True)
class Workload:
    """The work for one model; by default one cell at 50% with updated weights, on the papers' numbers of tokens.

    Attributes
    ----------
    seeds, starts
        Number of calibrations, and of warm-start files.
    cells
        Per cell: the share of weights that its pattern keeps, and whether its refiner updates them.
    workspaces
        Memory needs of the refiners, one entry per step of a chain; by default those of refit swaps.
    block_weight_bytes
        Memory of a refiner of whole blocks, in bytes per prunable weight of a block; 0: there is none.
    block_gradients
        Number of windows whose gradients it takes in each block.
    gram_sets
        2 if the calibration has held-out tokens, else 1.
    inputs
        Calibration inputs: unless all cells share them, the refine stage accumulates the Gram matrices.
    streams
        2 if the calibration runs through the dense model, too, to make up for changed inputs.
    shards
        Number of parts whose sums make up a calibration.
    calibration_tokens, calibration_batch, calibration_window
        Tokens of a calibration, including held-out ones, of one of its forward passes, and of a window.
    evaluation_tokens, evaluation_batch
        Tokens of the perplexity evaluation, summed over texts, and of one of its forward passes.
    dtype
        Dtype that the model runs in; None: that of its weights.
    """

    seeds: int = 1
    starts: int = 1
    cells: tuple[tuple[Fraction, bool], ...] = ((Fraction(1, 2), True),)
    workspaces: tuple[Workspace, ...] = (Workspace(squares=8, weight_bytes=104),)
    block_weight_bytes: int = 0
    block_gradients: int = 0
    gram_sets: int = 1
    inputs: CalibrationInputs = CalibrationInputs.DENSE
    streams: int = 1
    shards: int = 1
    calibration_tokens: int = 128 * 2048
    calibration_batch: int = 2048
    calibration_window: int = 2048
    evaluation_tokens: int = 141 * 2048
    evaluation_batch: int = 2048
    dtype: str | None = None


class Requirement(NamedTuple):
    """A named size in bytes."""

    what: str
    size: int


class StageMemory(NamedTuple):
    """Peak memory of a stage in bytes: on the GPU and on its host, or on the CPU if there is no GPU."""

    stage: str
    gpu: int
    beside_gpu: int
    without_gpu: int


def gram_bytes(block: Block) -> int:
    """Return the bytes of a block's Gram matrices, float32, one per distinct input."""
    return _FLOAT32 * sum(size**2 for size in block.inputs)


def passes(block: Block, gram_budget: int) -> int:
    """Return how often windows run through a block, as :func:`prunelib.calibration.accumulation.plan_passes` does."""
    number, free = 1, gram_budget
    for index, size in enumerate(block.inputs):
        needed = _FLOAT32 * size**2
        if index and needed > free:
            number, free = number + 1, gram_budget
        free -= needed
    return number


def calibration_disk(blocks: Sequence[Block], gram_sets: int) -> int:
    """Return the bytes of a calibration folder: Gram matrices and means of all inputs of all blocks, per Gram set."""
    means = _FLOAT32 * sum(sum(block.inputs) for block in blocks)
    return gram_sets * (sum(map(gram_bytes, blocks)) + means)


def shards_disk(blocks: Sequence[Block], gram_sets: int, shards: int) -> int:
    """Return the bytes of the shards' calibrations, kept until they are summed; a single shard is the calibration."""
    return shards * calibration_disk(blocks, gram_sets) if shards > 1 else 0


def states_bytes(outline: Outline, work: Workload) -> int:
    """Return the bytes of the hidden states of all calibration tokens between two blocks."""
    return work.calibration_tokens * outline.hidden * _running(outline, work)


def masks_disk(blocks: Sequence[Block]) -> int:
    """Return the bytes of a mask file: one bit per weight, rows padded to whole bytes."""
    return sum(matrix.rows * -(-matrix.inputs // 8) for matrix in _matrices(blocks))


def updated_disk(outline: Outline, kept: Fraction) -> int:
    """Return the bytes of a cell's updated weights: only kept weights are stored."""
    return int(kept * outline.prunable) * WEIGHT_BYTES[outline.dtype]


def disk(outline: Outline, work: Workload) -> list[Requirement]:
    """Return the disk use of a workload: artifacts kept, and peak scratch."""
    masks, cells = masks_disk(outline.blocks), len(work.cells)
    updated = [updated_disk(outline, kept) for kept, updates in work.cells if updates]
    states, refined = states_bytes(outline, work), masks + max(updated, default=0)
    if work.inputs.shared:
        calibrations = work.seeds * calibration_disk(outline.blocks, work.gram_sets)
        grams = [Requirement(f"Gram matrices, seeds: {work.seeds}", calibrations)]
        scratch = max(states + shards_disk(outline.blocks, work.gram_sets, work.shards), refined)
    else:
        grams, scratch = [], work.streams * states + refined
    if work.block_weight_bytes:
        accumulated = 0 if work.inputs.shared else work.streams * states
        scratch = max(scratch, accumulated + 2 * (states + refined))
    return [
        Requirement("model", outline.weights * WEIGHT_BYTES[outline.dtype]),
        *grams,
        Requirement(f"masks, warm starts: {work.starts}, cells: {cells}", (work.starts + cells) * masks),
        *([Requirement(f"updated weights, cells: {len(updated)}", sum(updated))] if updated else []),
        Requirement("scratch (temporary)", scratch),
    ]


def memory(
    outline: Outline, work: Workload, gram_budget: int, state_budget: int, threads: int = 1
) -> list[StageMemory]:
    """Return the peak memory of each stage.

    A model that runs in the dtype of its files is memory-mapped, except for experts that are merged at load time; in
    another dtype, the whole model is converted in memory.

    Parameters
    ----------
    gram_budget, state_budget
        :attr:`prunelib.runtime.machine.Budgets.gram_bytes` and ``state_bytes``.
    threads
        Of a machine without a GPU, where each runs a window through a block that is refined whole.
    """
    running = _running(outline, work)
    converted = running * (outline.merged if running == WEIGHT_BYTES[outline.dtype] else outline.weights)
    states, token = states_bytes(outline, work), _token_bytes(outline, running)
    stays = states if states <= state_budget else 0
    accumulating = _accumulating(outline, work, running, gram_budget, stays, converted)
    refining, ahead = refining_bytes(outline.blocks, work.gram_sets, work.workspaces), _read_ahead_bytes(outline, work)
    if work.inputs.shared:
        calibrate = StageMemory("calibrate", *accumulating)
        refine = StageMemory("refine", refining, ahead + RUNTIME, refining + ahead + RUNTIME)
    else:
        correcting = _correcting(outline, work, running, stays) if work.streams > 1 else (0, 0, 0)
        gpu, beside_gpu, without_gpu = map(sum, zip(accumulating, correcting, strict=True))
        calibrate = StageMemory("calibrate", 0, converted + RUNTIME, converted + RUNTIME)
        refine = StageMemory("refine", gpu + refining, beside_gpu, without_gpu + refining)
    if work.block_weight_bytes:
        reconstructing = _reconstructing(outline, work, running, stays, converted, threads)
        refine = StageMemory("refine", *map(max, zip(refine[1:], reconstructing, strict=True)))
    return [
        calibrate,
        refine,
        StageMemory(
            "evaluate",
            gpu=outline.weights * running + work.evaluation_batch * token,
            beside_gpu=converted + RUNTIME,
            without_gpu=outline.weights * running + work.evaluation_batch * token + RUNTIME,
        ),
    ]


def accumulating_bytes(blocks: Sequence[Block], gram_sets: int) -> int:
    """Return the bytes of the largest block's Gram matrices, and of a copy of the largest Gram while it is mirrored."""
    return gram_sets * max(map(gram_bytes, blocks)) + _largest_gram(blocks)


def refining_bytes(blocks: Sequence[Block], gram_sets: int, workspaces: Iterable[Workspace]) -> int:
    """Return the memory to refine the most demanding layer: weights, Gram matrices and a refiner's workspace."""
    return max(
        _FLOAT32 * (gram_sets + each.squares) * matrix.inputs**2 + each.weight_bytes * matrix.rows * matrix.inputs
        for matrix in _matrices(blocks)
        for each in workspaces
    )


def _accumulating(
    outline: Outline, work: Workload, running: int, gram_budget: int, stays: int, converted: int
) -> tuple[int, int, int]:
    """Return the three sizes of :class:`StageMemory` while the Gram matrices of a block accumulate.

    ``stays`` bytes of hidden states are kept on the GPU; they are also on the CPU while they are saved. The GPU also
    queues up to ``WAITING_BYTES`` of inputs for accumulation.
    """
    block = running * max(block.prunable + block.dense for block in outline.blocks)
    grams = max(map(gram_bytes, outline.blocks))
    mirrored = _largest_gram(outline.blocks)
    batch, states = work.calibration_batch * _token_bytes(outline, running), states_bytes(outline, work)
    waiting = min(WAITING_BYTES, work.calibration_tokens * running * max(sum(block.inputs) for block in outline.blocks))
    return (
        running * outline.other + block + max(min(grams, gram_budget), mirrored) + mirrored + stays + batch + waiting,
        converted + work.gram_sets * grams + states + RUNTIME,
        converted + block + work.gram_sets * grams + mirrored + states + batch + RUNTIME,
    )


def correcting_bytes(blocks: Sequence[Block]) -> int:
    """Return the bytes of a block's corrections, one per distinct input, and of the work on the largest in float64."""
    return max(map(gram_bytes, blocks)) + 9 * _largest_gram(blocks)


def _correcting(outline: Outline, work: Workload, running: int, stays: int) -> tuple[int, int, int]:
    """Return the three sizes of :class:`StageMemory` that weights add which make up for changed inputs.

    These are the dense model's hidden states, a second copy of a block, and :func:`correcting_bytes`.
    """
    block = running * max(block.prunable + block.dense for block in outline.blocks)
    squares = correcting_bytes(outline.blocks)
    states = states_bytes(outline, work)
    return stays + block + squares, states, states + block + squares


def reconstructing_bytes(block: Block, running: int, weight_bytes: int, window: int, windows: int = 1) -> int:
    """Return the memory to reconstruct a block: its weights, the refiner's, and activations.

    Parameters
    ----------
    running
        Bytes of one weight or activation in the dtype that the model runs in.
    window
        Tokens of a window.
    windows
        Number of windows that run through the block at the same time, one a thread.
    """
    activations = _ACTIVATIONS * running * sum(matrix.rows + matrix.inputs for matrix in block.matrices)
    return running * (block.prunable + block.dense) + weight_bytes * block.prunable + windows * window * activations


def _reconstructing(
    outline: Outline, work: Workload, running: int, stays: int, converted: int, threads: int
) -> tuple[int, int, int]:
    """Return the three sizes of :class:`StageMemory` while whole blocks are refined, on two streams."""
    window, of_weight = work.calibration_window, work.block_weight_bytes
    on_gpu, on_cpu = (
        max(reconstructing_bytes(block, running, of_weight, window, windows) for block in outline.blocks)
        for windows in (1, min(threads, work.calibration_tokens // window))
    )
    states = 2 * states_bytes(outline, work)
    return (
        running * outline.other + on_gpu + 2 * stays,
        converted + states + RUNTIME,
        converted + on_cpu + states + RUNTIME,
    )


def _read_ahead_bytes(outline: Outline, work: Workload) -> int:
    """Return the bytes of the prefetched next layer: its Gram matrices and its weight."""
    sets, stored = work.gram_sets, WEIGHT_BYTES[outline.dtype]
    return max(_FLOAT32 * sets * m.inputs**2 + stored * m.rows * m.inputs for m in _matrices(outline.blocks))


def _token_bytes(outline: Outline, running: int) -> int:
    """Return a token's bytes in a forward pass: the widest activation in float32 and four in the dtype, and logits."""
    widest = max(max(matrix.rows, matrix.inputs) for matrix in _matrices(outline.blocks))
    return widest * (_FLOAT32 + 4 * running) + outline.vocabulary * (_FLOAT32 + running)


def _largest_gram(blocks: Sequence[Block]) -> int:
    return _FLOAT32 * max(size for block in blocks for size in block.inputs) ** 2


def _matrices(blocks: Sequence[Block]) -> list[Matrix]:
    return [matrix for block in blocks for matrix in block.matrices]


def _running(outline: Outline, work: Workload) -> int:
    """Return the bytes of one weight or activation in the dtype that the model runs in."""
    return WEIGHT_BYTES[work.dtype or outline.dtype]
