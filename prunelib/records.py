"""The records of a cell that the stages refine and evaluate write and the report reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from prunelib.cell import Cell
from prunelib.errors import ArtifactError
from prunelib.runtime import hashing, store
from prunelib.settings import Settings

T = TypeVar("T")
_LAYERS, _BLOCKS, _CELL, _TIMING, _MADE_FROM = "layers", "blocks", "cell", "timing", "made_from"

BOS_SUFFIX = "_bos_per_window"
"""Suffix of a text's name if every window began with a BOS token: not comparable with other perplexities."""


class PerplexityResult(Settings):
    """Perplexity of one held-out text: exp of the mean negative log-likelihood over ``tokens`` predictions."""

    value: float
    tokens: int
    windows: int


class TaskResult(Settings):
    """A zero-shot task of lm-eval: accuracy as a fraction, its standard error, number of items, task version.

    Attributes
    ----------
    truncated_items, truncated_tokens
        Number of items whose prompt exceeds the model's maximum input length and lost its beginning, and the most
        tokens that one lost; None: all prompts are whole.
    """

    acc: float
    acc_stderr: float
    items: int
    version: str
    truncated_items: int | None = None
    truncated_tokens: int | None = None

    @property
    def items_measured(self) -> str:
        """``50 items``, and how many of them had a prompt that was truncated, by how much."""
        counted = f"{self.items:,} items"
        if self.truncated_items is None:
            return counted
        cut = f"cut on the left by up to {self.truncated_tokens:,} tokens"
        return f"{counted}, the prompts of {self.truncated_items:,} {cut}"


class CellResult(Settings):
    """The figures of a cell, and samples of its text.

    Attributes
    ----------
    samples
        What the model wrote after each prompt, by prompt.
    sparsity
        Share of zeros among the prunable block weights that were evaluated; 0 for the dense model.
    coverage
        Share of the blocks' matrix weights that are prunable.
    relative_error
        Mean over layers of L(mask) / ||W X||^2; None for the dense model.
    error_reduction
        Mean over layers of 1 - L(mask) / L(warm start); None for the dense model.
    block_error
        Mean over blocks of the error that block reconstruction left; None if there was none. With it, the errors of
        single matrices are None: they are not what was reduced.
    optimality_gap, optimality_gap_total
        Optimality gap from the bounds of the cell's own refiner: :func:`optimality_gap`, and the same of the sums over
        all layers; None if the refiner certifies no bound or updates weights.
    """

    cell: Cell
    perplexity: dict[str, PerplexityResult]
    tasks: dict[str, TaskResult]
    samples: dict[str, str] = Field(default_factory=dict)
    sparsity: float
    coverage: float
    relative_error: float | None = None
    error_reduction: float | None = None
    block_error: float | None = None
    optimality_gap: float | None = None
    optimality_gap_total: float | None = None


class StepResult(Settings):
    """A layer's pruning error after one refiner of a chain."""

    method: str
    loss_after: float = Field(ge=0)


class LayerResult(Settings):
    """One pruned matrix of a cell.

    Attributes
    ----------
    name, kind, block
        ``model.layers.0.mlp.up_proj``, ``up_proj``, 0.
    rows, inputs, kept
        Shape, and the number of weights kept.
    loss_before, loss_after
        Pruning error of the warm start, and after the refiners of single matrices.
    tokens
        Number of calibration tokens routed to an expert's matrix; ``None``: all.
    updated
        Whether kept weights were updated: the error is then not comparable with that of masks alone.
    steps
        One entry per refiner: several for a chain.
    energy
        ||W X||^2 of the dense layer.
    swaps, sweeps
        Number of swaps, and of scans over all pairs, summed over rows; ``None`` if the refiner makes none.
    optimal_rows
        Number of rows proven to be at a 1-swap optimum; ``None`` if the refiner proves none.
    bound
        Certified lower bound on the pruning error of any mask of the pattern; ``None`` if the refiner certifies none.
    """

    name: str
    kind: str
    block: int
    rows: int
    inputs: int
    kept: int
    loss_before: float = Field(ge=0)
    loss_after: float = Field(ge=0)
    energy: float = Field(ge=0)
    tokens: int | None = None
    updated: bool = False
    steps: tuple[StepResult, ...] = ()
    swaps: int | None = None
    sweeps: int | None = None
    optimal_rows: int | None = None
    bound: float | None = Field(default=None, ge=0)

    @property
    def relative_error(self) -> float:
        """L(mask) / ||W X||^2; 0 if the layer's output is 0."""
        return self.loss_after / self.energy if self.energy else 0.0

    @property
    def error_reduction(self) -> float:
        """1 - L(refined) / L(warm start); 0 if the warm start has no error."""
        return 1 - self.loss_after / self.loss_before if self.loss_before else 0.0


class BlockResult(Settings):
    """A decoder block that was refined as a whole.

    Attributes
    ----------
    block
        Its number, from 0.
    error_before, error_after
        Error of its hidden states over calibration windows, as the refiner measures it: relative.
    epoch
        The epoch whose weights were kept; 0: none was better than what came in.
    """

    block: int
    error_before: float = Field(ge=0)
    error_after: float = Field(ge=0)
    epoch: int = Field(ge=0)


class Timing(Settings):
    """Time and memory of a refinement on one machine; not a stage's output, because repeated runs differ in it.

    Attributes
    ----------
    layers_sha256
        SHA-256 of the layer records written by this refinement; the cost of any other records is unknown.
    step_seconds
        Wall-clock seconds of each step, without the compilation of kernels; last those of block reconstruction.
    peak_bytes
        Largest peak memory of its processes.
    machine
        Human-readable name of the CPU or GPU.
    """

    layers_sha256: str
    step_seconds: tuple[float, ...]
    peak_bytes: int
    machine: str

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all steps."""
        return sum(self.step_seconds)


def optimality_gap(losses: Sequence[float], bounds: Sequence[float]) -> float:
    """Return the mean optimality gap over layers, 1 - bound / L(mask): no mask of the pattern lowers the error by more.

    A layer with L(mask) = 0 counts as 0.
    """
    return fmean(1 - bound / loss if loss else 0.0 for bound, loss in zip(bounds, losses, strict=True))


def write_layers(
    path: Path, layers: Sequence[LayerResult], made_from: Mapping[str, Any], blocks: Sequence[BlockResult] = ()
) -> None:
    """Write the records of a cell's layers, of its reconstructed blocks, and what they were made from, as JSON.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    value = {_MADE_FROM: made_from, _LAYERS: [layer.model_dump() for layer in layers]}
    if blocks:
        value[_BLOCKS] = [block.model_dump() for block in blocks]
    store.write_record(path, _LAYERS, value)


class LayerRecords(NamedTuple):
    """The records of a cell's layers and of its reconstructed blocks, and what they were made from."""

    layers: list[LayerResult]
    blocks: list[BlockResult]
    made_from: Mapping[str, Any]


def read_layers(path: Path, expected: Mapping[str, Any]) -> LayerRecords:
    """Read the records that :func:`write_layers` wrote.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged or of another kind, or was not made from what is ``expected``.
    """
    value = store.read_record(path, _LAYERS)
    made_from = value.get(_MADE_FROM, {})
    store.expect_provenance(path, made_from, expected)
    return LayerRecords(
        layers=_parsed(path, value.get(_LAYERS), TypeAdapter(list[LayerResult])),
        blocks=_parsed(path, value.get(_BLOCKS, []), TypeAdapter(list[BlockResult])),
        made_from=made_from,
    )


def write_cell(path: Path, record: CellResult, made_from: Mapping[str, Any]) -> None:
    """Write the figures of a cell without its None fields, and what they were made from, as JSON.

    The latter is in a list, which ``dvc metrics`` does not show.

    Raises
    ------
    ArtifactError
        If the file could not be written.
    """
    store.write_record(path, _CELL, {**record.model_dump(exclude_none=True), _MADE_FROM: [made_from]})


def read_cell(path: Path, expected: Mapping[str, Any]) -> tuple[CellResult, dict[str, Any]]:
    """Read the figures of a cell, and what they were made from.

    Raises
    ------
    ArtifactError
        If the file is missing, damaged or of another kind, or was not made from what is ``expected``.
    """
    value = store.read_record(path, _CELL)
    made_from: dict[str, Any] = dict(*value.pop(_MADE_FROM, ()))
    store.expect_provenance(path, made_from, expected)
    return _parsed(path, value, TypeAdapter(CellResult)), made_from


def write_timing(path: Path, record: Timing) -> None:
    """Write the time and memory of a refinement as JSON; raises ArtifactError if the file could not be written."""
    store.write_record(path, _TIMING, record.model_dump())


def read_timing(path: Path, layers: Path) -> Timing | None:
    """Read the time and memory of the refinement that wrote a file of layer records.

    None if unknown: DVC restored the records from its cache, or other settings have run since.

    Raises
    ------
    ArtifactError
        If a file is damaged, or there are no layer records.
    """
    if not path.is_file():
        return None
    timing = _parsed(path, store.read_record(path, _TIMING), TypeAdapter(Timing))
    return timing if timing.layers_sha256 == hashing.sha256_file(layers) else None


def _parsed(path: Path, value: Any, form: TypeAdapter[T]) -> T:
    try:
        return form.validate_python(value)
    except ValidationError as error:
        raise ArtifactError(f"{path}: not the record that was expected ({error.errors()[0]['msg']})") from None
