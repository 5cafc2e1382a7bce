"""Pruning of a loaded model in place: calibration, warm start and refinement, block by block, without files."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import PreTrainedModel

from prunelib.calibration.accumulation import accumulate_grams
from prunelib.calibration.artifact import tokens_identity
from prunelib.calibration.dense_targets import DenseTargets
from prunelib.calibration.settings import ACCUMULATION, CalibrationSettings
from prunelib.calibration.statistics import InputStatistics, has_enough_tokens, or_identity
from prunelib.calibration.windows import in_batches
from prunelib.masks.allocation import Allocation, MeasuredAllocation
from prunelib.masks.checks import check_counts
from prunelib.masks.packed import PackedMasks
from prunelib.masks.patterns import Pattern
from prunelib.masks.pruned import Pruned
from prunelib.model.agreement import check_blockwise
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.layers import Layer, LayerIndex, require_coverage
from prunelib.model.modes import in_eval_mode
from prunelib.model.structure import find_layers
from prunelib.model.weights import apply_pruned, weight_in
from prunelib.pruning.arguments import Arguments, Chosen, check_model, checked, windows_of
from prunelib.pruning.budgets import block_importance, layer_patterns
from prunelib.pruning.chains import block_step, check_skipped, layer_steps
from prunelib.pruning.on_the_fly import OnTheFlyRefinement
from prunelib.pruning.reconstruction import ModelReconstruction
from prunelib.pruning.refined_blocks import RefinedBlock, reconstructions
from prunelib.pruning.result import PruningResult
from prunelib.pruning.warm_up import warm_up
from prunelib.pruning.warmstart import chooser
from prunelib.runtime.machine import GRAM_BYTES, STATE_BYTES
from prunelib.runtime.progress import meter, note

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def prune(
    model: PreTrainedModel,
    tokenizer: "PreTrainedTokenizerBase | None",
    texts: "Sequence[str] | Dataset | torch.Tensor",
    pattern: Pattern | str = "2:4",
    warmstart: Chosen = "wanda",
    refiner: Chosen | Sequence[Chosen] | None = "sparseswaps",
    *,
    samples: int = 128,
    length: int = 2048,
    seed: int = 0,
    batch: int = 1,
    held_out_samples: int = 0,
    draw: Literal["stream", "documents"] = "stream",
    bos_per_window: bool = False,
    calibration_inputs: Literal["dense", "sequential", "true_sequential"] = "dense",
    dense_target: float = 0.0,
    min_tokens: int = 64,
    allocation: Allocation | Mapping[str, Any] | None = None,
    allow_uncovered: bool = False,
    device: torch.device | str | None = None,
    folder: Path | str | None = None,
    progress: bool = True,
) -> PruningResult:
    """Prune a loaded language model in place: set the weights that matter least to exactly +0.0.

    Calibration, warm start and refinement run block by block. With the same settings, and a model in the dtype of its
    files, the masks are those of the stages of the workflow, bit for bit. In addition to the model, memory holds the
    hidden states of the windows and the Gram matrices of one block.

    Parameters
    ----------
    model
        A causal language model, on one device; it may be in training mode. Its blocks are pruned one after another.
    tokenizer
        Its tokenizer; None if ``texts`` are token windows.
    texts
        Documents that the calibration windows are drawn from: strings, or a ``datasets.Dataset`` with a column
        ``text``; or the windows themselves, token ids (windows, length) of any integer dtype, the last
        ``held_out_samples`` of them held out.
    pattern
        ``"2:4"``, ``"60%"`` (of each row), ``"60% per layer"``, or one of ``prunelib.PerRow``, ``PerLayer``, ``NOfM``.
    warmstart, refiner
        The name of a method (``prunelib methods`` lists them), its settings, or their mapping as in params.yaml. A
        sequence of refiners is a chain, whose last may refine whole blocks (``block_reconstruction``); None keeps the
        masks of the warm start.
    samples, length, seed, batch, held_out_samples, draw, min_tokens
        As in the section ``calibration`` of params.yaml (:class:`prunelib.calibration.settings.CalibrationSettings`).
    bos_per_window
        Whether each window begins with the tokenizer's BOS token, without which Gemma models produce nonsense.
    calibration_inputs
        The forward pass that inputs come from: of the dense model, through the already pruned blocks, or also through
        the already pruned layers of the same block.
    dense_target
        How much of what pruning has changed in a layer's inputs its weight makes up for before it is pruned, from 0 to
        1: 0.5 is best so far. Above 0, kept weights are updated; only with ``true_sequential`` inputs.
    allocation
        How the kept weights are allocated to layers: ``prunelib.Owl``, ``Dlp``, ``Atp``, ``SparsityTable``, or the
        mapping of one as in params.yaml; None: the same share of each.
    allow_uncovered
        Whether matrices that are not in prunable layers may stay dense; otherwise such a model is refused.
    device
        Where blocks run and masks are refined, one block at a time; None: where the model is.
    folder
        The folder that the model was loaded from, which names the layers and whose weights it must have; None: layers
        are named as transformers saves them.
    progress
        Whether to show the progress on standard error.

    Returns
    -------
    PruningResult
        The masks, and the figures of each layer.

    Raises
    ------
    ParamsError, PatternError
        If an argument is invalid, or the settings do not go together; the model is unchanged then.
    ModelError, NumericalError
        If the model cannot be pruned.

    Notes
    -----
    The lowest perplexity measured so far has ``refiner=["sparseswaps", "refit_swaps", {"method":
    "block_reconstruction", "epochs": 3}]`` on 256 windows of 512 tokens (``samples``, ``length``); ``refit_swaps`` last
    is many times faster, and ``sparseswaps`` alone keeps the model's own weights. Without gradients, the lowest has
    ``refiner="alps", calibration_inputs="true_sequential", dense_target=0.5``.

    Whatever stops the work (Ctrl-C, memory), the exception has a note that says which blocks are pruned; the others are
    unchanged.

    Examples
    --------
    >>> refiner = ["sparseswaps", "refit_swaps"]
    >>> result = prunelib.prune(model, tokenizer, texts, "2:4", refiner=refiner, samples=64, length=64)
    >>> bool((result.layers["error_after"] <= result.layers["error_before"]).all())
    True
    """
    arguments = checked(
        pattern=pattern,
        allocation=allocation,
        warmstart=warmstart,
        refiner=refiner,
        seed=seed,
        bos_per_window=bos_per_window,
        allow_uncovered=allow_uncovered,
        device=device,
        samples=samples,
        length=length,
        batch=batch,
        held_out_samples=held_out_samples,
        draw=draw,
        inputs=calibration_inputs,
        dense_target=dense_target,
        min_tokens=min_tokens,
    )
    files = None if folder is None else Path(folder)
    return prune_checked(model, tokenizer, texts, arguments, files, progress=progress)


def prune_checked(
    model: PreTrainedModel,
    tokenizer: "PreTrainedTokenizerBase | None",
    texts: "Sequence[str] | Dataset | torch.Tensor",
    arguments: Arguments,
    folder: Path | None,
    *,
    progress: bool = True,
) -> PruningResult:
    """Prune a loaded language model in place, as :func:`prune` does, by arguments that have been checked."""
    check_model(model)
    with in_eval_mode(model):
        windows = windows_of(model, tokenizer, texts, arguments)
        index = find_layers(model, folder)
        if not arguments.allow_uncovered:
            require_coverage(index)
        check_skipped(arguments.refiner, [layer.name for layer in index.layers])
        for layer in index.layers:
            weight_in(model, layer)
        check_blockwise(model, index.block_list)
        blocks = list(_Pruning(model, index, windows, arguments).run(quiet=not progress))
    provenance = {
        "tokens": tokens_identity(*windows),
        "calibration": arguments.calibration.model_dump(mode="json", include=set(ACCUMULATION)),
        "pattern": arguments.pattern.model_dump(mode="json"),
        "warmstart": arguments.warmstart.model_dump(mode="json"),
        "refiner": arguments.refiner.model_dump(mode="json"),
    }
    return PruningResult(
        masks=PackedMasks.joined(PackedMasks.of(block.pruned.masks) for block in blocks),
        records=[record for block in blocks for record in block.records],
        seconds=[sum(of_layer) for block in blocks for of_layer in block.seconds],
        reconstructions=reconstructions(blocks),
        index=index,
        provenance=provenance,
    )


@dataclass(frozen=True)
class _Pruning:
    """A model to be pruned, with all settings checked."""

    model: PreTrainedModel
    index: LayerIndex
    windows: tuple[torch.Tensor, torch.Tensor]
    arguments: Arguments

    @property
    def device(self) -> torch.device:
        """Where blocks run and masks are refined."""
        return self.arguments.device or self.model.device

    @property
    def calibration(self) -> CalibrationSettings:
        """The settings of the calibration."""
        return self.arguments.calibration

    def run(self, *, quiet: bool) -> Iterator[RefinedBlock]:
        """Prune block after block; the yielded blocks have masks, but no weights."""
        layers, done = self.index.layers, 0
        pattern, refiner = self.arguments.pattern, self.arguments.refiner
        compiling = (lambda: None) if quiet else partial(note, "compiling kernels, once on this machine")
        warm_up(refiner, pattern, self.device, {layer.inputs for layer in layers}, compiling)
        patterns = layer_patterns(layers, pattern, self._importances)
        rows = sum(layer.rows for layer in layers) * len(layer_steps(refiner))
        batches, parts = in_batches(self.windows, self.calibration.batch)
        with (
            self._forward(batches) as forward,
            self._targets(batches, parts[0]) as targets,
            self._reconstruction() as reconstruction,
            meter("prune", rows, "rows", quiet=quiet) as bar,
        ):
            refinement = OnTheFlyRefinement(
                forward=forward,
                index=self.index,
                weight=self._weight,
                parts=parts,
                choose=chooser(layers, patterns, self.arguments.warmstart, self.device, model=None),
                patterns=patterns,
                settings=refiner,
                inputs=self.calibration.inputs,
                gram_bytes=GRAM_BYTES,
                min_tokens=self.calibration.min_tokens,
                device=self.device,
                targets=targets,
            )

            def shown(_windows: int, status: str) -> None:
                bar.advance(0, f"reconstruct {status}")

            try:
                for refined in refinement.refine(_Latest(), bar):
                    check_counts(refined.pruned.masks, pattern)
                    block = reconstruction.refine(refined, shown) if reconstruction else refined
                    apply_pruned(self.model, self.index.of_block(done), block.pruned)
                    done += 1
                    yield block._replace(pruned=Pruned(PackedMasks.of(block.pruned.masks), {}))
            except BaseException as error:
                error.add_note(f"prunelib.prune: {done} of {self.index.blocks} blocks are pruned, the others unchanged")
                raise

    @contextlib.contextmanager
    def _targets(self, batches: Sequence[torch.Tensor], summed: Sequence[int]) -> Iterator[DenseTargets | None]:
        """Yield the windows in the dense model, at the first block, if weights make up for changed inputs."""
        if not self.calibration.dense_target:
            yield None
            return
        with self._forward(batches) as forward:
            yield DenseTargets(forward, summed, self.calibration.dense_target)

    @contextlib.contextmanager
    def _reconstruction(self) -> Iterator[ModelReconstruction | None]:
        """Yield the refiner of whole blocks, at the first block, if there is one."""
        settings = block_step(self.arguments.refiner)
        if settings is None:
            yield None
            return
        windows, threads = self.windows[0], torch.get_num_threads()
        reconstruction = ModelReconstruction(
            self.model, self.index, windows, settings, self._stored, self.device, STATE_BYTES, threads
        )
        try:
            yield reconstruction
        finally:
            reconstruction.release()

    def _stored(self, layer: Layer) -> torch.dtype:
        return layer.weight(self.model).dtype

    @contextlib.contextmanager
    def _forward(self, batches: Sequence[torch.Tensor]) -> Iterator[BlockwiseForward]:
        """Yield a forward pass at the first block; afterwards the model's tensors are where they were."""
        forward = BlockwiseForward(self.model, self.index.block_list, batches, self.device, STATE_BYTES)
        try:
            yield forward
        finally:
            forward.release()

    def _weight(self, layer: Layer) -> torch.Tensor:
        return weight_in(self.model, layer).cpu()

    def _importances(self, allocation: MeasuredAllocation) -> dict[int, float]:
        """Return the importance of each block that has layers, by a forward pass of its own."""
        batches, (numbers, *_) = in_batches(self.windows, self.calibration.batch)
        found = {}
        with self._forward(batches) as forward:
            for block, (known, *_) in accumulate_grams(forward, self.index, [numbers], gram_bytes=GRAM_BYTES):
                if of_block := self.index.of_block(block):
                    gram, enough = partial(self._gram, known), partial(self._supports, known)
                    found[block] = block_importance(of_block, self._weight, gram, allocation, enough)
        return found

    def _gram(self, known: Mapping[str, InputStatistics], layer: Layer) -> torch.Tensor:
        return or_identity(layer, [known[layer.gram]], self.calibration.min_tokens)[0].gram

    def _supports(self, known: Mapping[str, InputStatistics], layer: Layer) -> bool:
        return has_enough_tokens(layer, known[layer.gram].tokens, self.calibration.min_tokens)


class _Latest:
    """The latest refined block alone; the destination of blocks that are applied at once."""

    def find(self, part: int) -> RefinedBlock | None:  # noqa: ARG002 - as the protocol has it
        """Return None: no earlier run is known."""
        return None

    def write(self, part: int, value: RefinedBlock) -> None:  # noqa: ARG002 - as the protocol has it
        """Keep the block in place of the one before."""
        self._block = value

    def read(self, part: int) -> RefinedBlock:  # noqa: ARG002 - as the protocol has it
        """Return the block."""
        return self._block
