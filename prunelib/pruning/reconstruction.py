"""Refinement of whole decoder blocks, one after another, on two streams of hidden states.

The calibration windows go through the dense model and through the pruned one. Each block is trained to
return, on inputs from the pruned model, what the dense block returns on inputs from the dense one.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunelib import block_refiners
from prunelib.errors import NumericalError
from prunelib.masks.pruned import Pruned
from prunelib.methods import registry
from prunelib.methods.block_contract import BlockProblem, BlockSettings, Target
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.layers import Layer, LayerIndex
from prunelib.model.weights import apply_pruned, weight_in
from prunelib.pruning.refined_blocks import BlockStore, RefinedBlock
from prunelib.records import BlockResult
from prunelib.runtime.machine import peak_memory
from prunelib.runtime.progress import Meter
from prunelib.runtime.threads import Workers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ModelReconstruction:
    """The blocks of a model, to be refined in order.

    Parameters
    ----------
    model
        The dense model, in eval mode; blocks that have been refined may be pruned already.
    index
        Its layers.
    windows
        Calibration windows (samples, length).
    settings
        Those of a method in :mod:`prunelib.block_refiners`.
    stored
        Returns the dtype in which the weight of a layer is stored.
    device, state_bytes
        As in :class:`prunelib.model.blockwise.BlockwiseForward`.
    threads
        Threads on the CPU, each of which runs a window.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        index: LayerIndex,
        windows: torch.Tensor,
        settings: BlockSettings,
        stored: Callable[[Layer], torch.dtype],
        device: torch.device,
        state_bytes: int,
        threads: int,
    ) -> None:
        self._model, self._index, self._settings, self._stored = model, index, settings, stored
        stream = partial(BlockwiseForward, model, index.block_list, windows.split(1), device, state_bytes)
        self._dense, self._inputs = stream(), stream()
        self._windows = range(len(windows))
        self._threads = threads if device.type == "cpu" else 1

    def release(self) -> None:
        """Return the model's tensors to where they were; no block is refined after."""
        self._inputs.release()
        self._dense.release()

    def run(self, blocks: Sequence[RefinedBlock], finished: BlockStore, folder: Path, bar: Meter) -> list[RefinedBlock]:
        """Refine all blocks, and return them in the order of the model.

        Parameters
        ----------
        blocks
            Their masks and weights so far.
        finished
            Blocks that an earlier run with the same arguments has refined; new ones are written there.
        folder
            Where hidden states between two blocks are saved, at most once a minute.
        bar
            Counts windows whose gradients are computed.
        """
        known: list[RefinedBlock] = []
        while len(known) < len(blocks) and (found := finished.find(len(known))):
            known.append(found)
        saved = {self._dense: Checkpoint(folder / "dense"), self._inputs: Checkpoint(folder / "read")}
        for stream, checkpoint in saved.items():
            checkpoint.resume(stream, finished=len(known))
        for number, refined in enumerate(blocks):
            if number < len(known):
                self._pass_through(number, known[number])
                bar.advance(self._settings.gradients(len(self._windows)))
            else:
                finished.write(number, self.refine(refined, bar.advance))
            for stream, checkpoint in saved.items():
                checkpoint.offer(stream)
        return [finished.read(number) for number in range(len(blocks))]

    def refine(
        self, refined: RefinedBlock, advance: Callable[[int, str], None] = lambda _windows, _status: None
    ) -> RefinedBlock:
        """Refine the next block, which is dense in the model, from its masks and weights so far.

        Parameters
        ----------
        advance
            Called with the number of windows whose gradients have been computed, and what to show beside it.

        Raises
        ------
        NumericalError
            If the dense or the pruned block returns NaN or infinity.
        """
        started, number = time.perf_counter(), self._inputs.block
        method = registry.block_refiner(block_refiners, self._settings)
        layers = self._index.of_block(number)
        stored = {layer.parameter: self._stored(layer) for layer in layers}
        with Workers(self._threads) as workers:
            updates = self._through_dense_block(workers)
            with self._inputs.resident():
                target = self._target(updates, workers)
                self._apply(number, refined.pruned)
                parameters = {layer.parameter: self._model.get_parameter(layer.parameter) for layer in layers}
                problem = BlockProblem(
                    parameters=parameters,
                    kept=_kept(layers, parameters, refined.pruned.masks),
                    stored=stored,
                    windows=self._windows,
                    states=self._inputs.run_with_gradients,
                    target=target,
                    workers=workers,
                )
                with _only_trained(self._model, parameters.values()):
                    measured = method.reconstruct(problem, self._settings, partial(advance, 1, f"block {number}"))
                if not math.isfinite(measured.error_before):
                    raise NumericalError(f"decoder block {number}: returns NaN or infinity once it is pruned")
                weights = {
                    layer.name: weight_in(self._model, layer).to("cpu", stored[layer.parameter]) for layer in layers
                }
            pruned = Pruned(refined.pruned.masks, weights)
            self._through_read_block(pruned, workers)
        return refined._replace(
            pruned=pruned,
            records=[record.model_copy(update={"updated": True}) for record in refined.records],
            peak_bytes=peak_memory(),
            reconstruction=BlockResult(block=number, **measured._asdict()),
            reconstruction_seconds=time.perf_counter() - started,
        )

    def _pass_through(self, number: int, refined: RefinedBlock) -> None:
        """Run the windows through a block that is already refined, on each stream that is not beyond it."""
        with Workers(self._threads) as workers:
            if self._dense.block == number:
                self._through_dense_block(workers)
            if self._inputs.block == number:
                self._through_read_block(refined.pruned, workers)

    def _through_dense_block(self, workers: Workers) -> list[torch.Tensor]:
        """Run the dense stream through its next block; return the squared norm (1, length) of each token's update."""

        def run(window: int) -> torch.Tensor:
            entering, leaving = self._dense.run_between(window)
            self._dense.keep(window)
            if not leaving.isfinite().all():
                raise NumericalError(f"decoder block {self._dense.block}: returns NaN or infinity")
            before = entering if entering is not None and entering.shape == leaving.shape else torch.zeros_like(leaving)
            return (leaving.float() - before.float()).square().sum(dim=-1)

        with self._dense.resident():
            updates = list(workers.map(run, self._windows))
        self._dense.advance()
        return updates

    def _through_read_block(self, pruned: Pruned, workers: Workers) -> None:
        """Run the other stream through its next block: pruned, unless blocks read what the dense ones leave."""

        def run(window: int) -> None:
            self._inputs.run(window)
            self._inputs.keep(window)

        with self._inputs.resident():
            if self._settings.inputs == "pruned":
                self._apply(self._inputs.block, pruned)
            list(workers.map(run, self._windows))
        self._inputs.advance()

    def _target(self, updates: Sequence[torch.Tensor], workers: Workers) -> Callable[[int], Target]:
        """Return the targets of the windows; the block on the device is still dense."""
        share = self._settings.dense_target
        if share == 1:
            return lambda window: Target(self._dense.left(window), updates[window])
        own = list(workers.map(self._inputs.run, self._windows))
        return lambda window: Target(own[window].lerp(self._dense.left(window), share), updates[window])

    def _apply(self, number: int, pruned: Pruned) -> None:
        layers = self._index.of_block(number)
        masks = {layer.name: pruned.masks[layer.name] for layer in layers}
        apply_pruned(self._model, layers, pruned._replace(masks=masks))


def _kept(
    layers: Sequence[Layer], parameters: Mapping[str, torch.nn.Parameter], masks: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return where each parameter's weights are kept and prunable; bool of its shape, on its device."""
    kept = {name: torch.zeros_like(parameter, dtype=torch.bool) for name, parameter in parameters.items()}
    for layer in layers:
        mask = masks[layer.name]
        layer.within(kept[layer.parameter]).copy_(mask.T if layer.transposed else mask)
    return kept


@contextlib.contextmanager
def _only_trained(model: torch.nn.Module, parameters: Iterable[torch.nn.Parameter]) -> Iterator[None]:
    """Have gradients of these parameters alone while the context is open."""
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    trained = set(parameters)
    for parameter in flags:
        parameter.requires_grad_(parameter in trained)
    try:
        yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
