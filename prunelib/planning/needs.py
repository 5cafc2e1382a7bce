"""Bytes on disk and in memory that the stages take.

Small files (tokens, figures, reports), norms and biases are left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from prunelib.methods.workspace import Workspace
from prunelib.planning.shapes import WEIGHT_BYTES, Block, Matrix, Outline
from prunelib.runtime.machine import WAITING_BYTES

_FLOAT32 = 4
RUNTIME = 800_000_000
"""What Python, torch and the compiled backend take before any data, measured: 0.6 to 0.9 GB."""


@dataclass(frozen=True)
class Workload:
    """What runs for one model; by default one cell at 50% that moves weights, on the papers' numbers of tokens.

    Attributes
    ----------
    seeds, starts
        Number of calibrations, and of files of warm starts.
    cells
        Of each: the share of weights that its pattern keeps, and whether its refiner moves them.
    workspaces
        What its refiners need in memory, each step of a chain for itself; by default refit swaps.
    gram_sets
        1, or 2 where calibration keeps tokens apart.
    propagation
        Whose inputs are seen: with ``block`` and ``sub_block``, refinement finds its Gram matrices itself.
    shards
        Parts that a calibration is added up from.
    calibration_tokens, calibration_batch
        Tokens of a calibration, held-out ones counted, and of one of its forward passes.
    evaluation_tokens, evaluation_batch
        The same of perplexity, all texts together.
    dtype
        That the model runs in; None: that of its weights.
    """

    seeds: int = 1
    starts: int = 1
    cells: tuple[tuple[Fraction, bool], ...] = ((Fraction(1, 2), True),)
    workspaces: tuple[Workspace, ...] = (Workspace(squares=8, weight_bytes=104),)
    gram_sets: int = 1
    propagation: str = "dense"
    shards: int = 1
    calibration_tokens: int = 128 * 2048
    calibration_batch: int = 2048
    evaluation_tokens: int = 141 * 2048
    evaluation_batch: int = 2048
    dtype: str | None = None


class Requirement(NamedTuple):
    """So many bytes for something."""

    what: str
    size: int


class StageMemory(NamedTuple):
    """The most that a stage holds: on a GPU and on the processor beside it, or on the processor alone."""

    stage: str
    gpu: int
    beside_gpu: int
    without_gpu: int


def gram_bytes(block: Block) -> int:
    """The Gram matrices of a block, float32, one for each distinct input."""
    return _FLOAT32 * sum(size**2 for size in block.inputs)


def passes(block: Block, gram_budget: int) -> int:
    """How often windows run through a block, as :func:`prunelib.calibration.whole_model.plan_passes` plans it."""
    number, free = 1, gram_budget
    for index, size in enumerate(block.inputs):
        needed = _FLOAT32 * size**2
        if index and needed > free:
            number, free = number + 1, gram_budget
        free -= needed
    return number


def calibration_disk(blocks: Sequence[Block], gram_sets: int) -> int:
    """A calibration folder: the Gram matrices and means of all inputs of all blocks, once more for held-out tokens."""
    means = _FLOAT32 * sum(sum(block.inputs) for block in blocks)
    return gram_sets * (sum(map(gram_bytes, blocks)) + means)


def shards_disk(blocks: Sequence[Block], gram_sets: int, shards: int) -> int:
    """The calibrations of shards, which stay until they are added; one alone is the calibration itself."""
    return shards * calibration_disk(blocks, gram_sets) if shards > 1 else 0


def states_bytes(outline: Outline, work: Workload) -> int:
    """The states of all tokens between two blocks."""
    return work.calibration_tokens * outline.hidden * _running(outline, work)


def masks_disk(blocks: Sequence[Block]) -> int:
    """A file of masks: one bit a weight, rows padded to bytes."""
    return sum(matrix.copies * matrix.rows * -(-matrix.inputs // 8) for matrix in _matrices(blocks))


def moved_disk(outline: Outline, kept: Fraction) -> int:
    """The kept weights of a cell that has moved them."""
    return int(kept * outline.prunable) * WEIGHT_BYTES[outline.dtype]


def disk(outline: Outline, work: Workload) -> list[Requirement]:
    """What all that runs for a model leaves on disk, and what it takes there meanwhile."""
    masks, cells = masks_disk(outline.blocks), len(work.cells)
    moved = [moved_disk(outline, kept) for kept, moves in work.cells if moves]
    states, refined = states_bytes(outline, work), masks + max(moved, default=0)
    if work.propagation == "dense":
        calibrations = work.seeds * calibration_disk(outline.blocks, work.gram_sets)
        grams = [Requirement(f"Gram matrices, seeds: {work.seeds}", calibrations)]
        scratch = max(states + shards_disk(outline.blocks, work.gram_sets, work.shards), refined)
    else:
        grams, scratch = [], states + refined
    return [
        Requirement("model", outline.weights * WEIGHT_BYTES[outline.dtype]),
        *grams,
        Requirement(f"masks, warm starts: {work.starts}, cells: {cells}", (work.starts + cells) * masks),
        *([Requirement(f"moved weights, cells: {len(moved)}", sum(moved))] if moved else []),
        Requirement("scratch, for a while", scratch),
    ]


def memory(outline: Outline, work: Workload, gram_budget: int, state_budget: int) -> list[StageMemory]:
    """The most that each stage holds.

    A model that runs in the dtype of its files is paged in from them, but for experts that are merged; in another, it
    is converted as a whole.

    Parameters
    ----------
    gram_budget, state_budget
        :attr:`prunelib.runtime.machine.Budgets.gram_bytes` and ``state_bytes``.
    """
    running = _running(outline, work)
    converted = running * (outline.merged if running == WEIGHT_BYTES[outline.dtype] else outline.weights)
    states, token = states_bytes(outline, work), _token_bytes(outline, running)
    stays = states if states <= state_budget else 0
    accumulating = _accumulating(outline, work, running, gram_budget, stays, converted)
    refining, ahead = refining_bytes(outline.blocks, work.gram_sets, work.workspaces), _read_ahead_bytes(outline, work)
    if work.propagation == "dense":
        calibrate = StageMemory("calibrate", *accumulating)
        refine = StageMemory("refine", refining, ahead + RUNTIME, refining + ahead + RUNTIME)
    else:
        gpu, beside_gpu, without_gpu = accumulating
        calibrate = StageMemory("calibrate", 0, converted + RUNTIME, converted + RUNTIME)
        refine = StageMemory("refine", gpu + refining, beside_gpu, without_gpu + refining)
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
    """The Gram matrices of a block, and a copy of the largest one while it is mirrored."""
    return gram_sets * max(map(gram_bytes, blocks)) + _largest_gram(blocks)


def refining_bytes(blocks: Sequence[Block], gram_sets: int, workspaces: Iterable[Workspace]) -> int:
    """The work on the largest layer: its Gram matrices, and the largest workspace of a refiner."""
    return max(
        _FLOAT32 * (gram_sets + each.squares) * matrix.inputs**2 + each.weight_bytes * matrix.rows * matrix.inputs
        for matrix in _matrices(blocks)
        for each in workspaces
    )


def _accumulating(
    outline: Outline, work: Workload, running: int, gram_budget: int, stays: int, converted: int
) -> tuple[int, int, int]:
    """All Gram matrices of a block while they come about, on a GPU, beside it and without; so many states stay there.

    Those are on the processor too while they are saved. On a GPU inputs wait there to be read.

    The numbers are those of :class:`StageMemory`.
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


def _read_ahead_bytes(outline: Outline, work: Workload) -> int:
    """The Gram matrices and the weight of the layer that comes next."""
    sets, stored = work.gram_sets, WEIGHT_BYTES[outline.dtype]
    return max(_FLOAT32 * sets * m.inputs**2 + stored * m.rows * m.inputs for m in _matrices(outline.blocks))


def _token_bytes(outline: Outline, running: int) -> int:
    """What a token takes in the model: the widest state in float32 and four in the dtype, and its logits."""
    widest = max(max(matrix.rows, matrix.inputs) for matrix in _matrices(outline.blocks))
    return widest * (_FLOAT32 + 4 * running) + outline.vocabulary * (_FLOAT32 + running)


def _largest_gram(blocks: Sequence[Block]) -> int:
    return _FLOAT32 * max(size for block in blocks for size in block.inputs) ** 2


def _matrices(blocks: Sequence[Block]) -> list[Matrix]:
    return [matrix for block in blocks for matrix in block.matrices]


def _running(outline: Outline, work: Workload) -> int:
    """Bytes of a weight, and of a number of a state, in the dtype that the model runs in."""
    return WEIGHT_BYTES[work.dtype or outline.dtype]
