"""Refinement of whole decoder blocks, one after another, on two streams of hidden states: dense and pruned.

The calibration windows go through the dense model, and beside it through the pruned one. Each block is changed so that
it returns for the pruned stream what the dense block returns for the dense stream.
"""

import contextlib
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
from prunelib.model.weights import apply_masks, apply_weights, weight_in
from prunelib.pruning.refinement import Blocks, RefinedBlock
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
        self._dense = stream()
        self._pruned = stream() if settings.inputs == "pruned" else None
        self._reads = self._pruned or self._dense
        self._streams = [each for each in (self._dense, self._pruned) if each]
        self._threads = threads if device.type == "cpu" else 1

    def release(self) -> None:
        """Return the model's tensors to where they were; no block is refined after."""
        for stream in reversed(self._streams):
            stream.release()

    def run(self, blocks: Sequence[RefinedBlock], finished: Blocks, folder: Path, bar: Meter) -> list[RefinedBlock]:
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
        known = [finished.find(number) for number in range(len(blocks))]
        done = known.index(None) if None in known else len(known)
        checkpoints = [Checkpoint(folder / name) for name in ("dense", "pruned")]
        for stream, checkpoint in zip(self._streams, checkpoints, strict=False):
            checkpoint.resume(stream)
            if stream.block > done:
                stream.restart()
        for number, refined in enumerate(blocks):
            if number < done:
                self._pass_through(number, finished.read(number))
                bar.advance(self._settings.gradients(len(self._dense.batches)))
            else:
                finished.write(number, self.refine(refined, bar.advance))
            for stream, checkpoint in zip(self._streams, checkpoints, strict=False):
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
            If the dense block returns NaN or infinity.
        """
        started, number = time.perf_counter(), self._dense.block
        method = registry.block_refiner(block_refiners, self._settings)
        layers = self._index.of_block(number)
        with Workers(self._threads) as workers:
            targets = self._targets(workers)
            with self._reads.resident():
                targets = self._mixed(targets, workers)
                self._apply(number, refined.pruned)
                parameters = {layer.parameter: self._model.get_parameter(layer.parameter) for layer in layers}
                problem = BlockProblem(
                    parameters=parameters,
                    kept=_kept(layers, parameters, refined.pruned.masks),
                    stored={layer.parameter: self._stored(layer) for layer in layers},
                    windows=range(len(targets)),
                    states=self._reads.run_with_gradients,
                    target=targets.__getitem__,
                    workers=workers,
                )
                with _only_trained(self._model, parameters.values()):
                    measured = method.reconstruct(problem, self._settings, partial(advance, 1, f"block {number}"))
                weights = {layer.name: weight_in(self._model, layer).to("cpu", self._stored(layer)) for layer in layers}
                if self._pruned:
                    self._run(self._pruned, workers)
        for stream in self._streams:
            _leave(stream)
        return refined._replace(
            pruned=Pruned(refined.pruned.masks, weights),
            records=[record.model_copy(update={"updated": True}) for record in refined.records],
            peak_bytes=peak_memory(),
            reconstruction=BlockResult(block=number, **measured._asdict()),
            reconstruction_seconds=time.perf_counter() - started,
        )

    def _pass_through(self, number: int, refined: RefinedBlock) -> None:
        """Run the windows through a block that is already refined, on each stream that is not beyond it."""
        with Workers(self._threads) as workers:
            for stream in self._streams:
                if stream.block == number:
                    with stream.resident():
                        if stream is self._pruned:
                            self._apply(number, refined.pruned)
                        self._run(stream, workers)
                    _leave(stream)

    def _targets(self, workers: Workers) -> list[Target]:
        """Run the windows through the dense block; what it leaves is not kept yet."""

        def target(window: int) -> Target:
            entering, leaving = self._dense.run_between(window)
            if not leaving.isfinite().all():
                raise NumericalError(f"decoder block {self._dense.block}: returns NaN or infinity")
            before = entering if entering is not None and entering.shape == leaving.shape else torch.zeros(())
            return Target(leaving, (leaving.float() - before.float()).square().sum(dim=-1))

        with self._dense.resident():
            return list(workers.map(target, range(len(self._dense.batches))))

    def _mixed(self, targets: list[Target], workers: Workers) -> list[Target]:
        """Replace a share of the targets' states by what the dense block returns for the inputs that it is to read."""
        share = self._settings.dense_target
        if share == 1 or self._reads is self._dense:
            return targets
        own = self._run(self._reads, workers)
        return [
            target._replace(states=states.lerp(target.states, share))
            for target, states in zip(targets, own, strict=True)
        ]

    def _apply(self, number: int, pruned: Pruned) -> None:
        layers = self._index.of_block(number)
        apply_masks(self._model, layers, {layer.name: pruned.masks[layer.name] for layer in layers})
        apply_weights(self._model, layers, pruned.weights)

    @staticmethod
    def _run(stream: BlockwiseForward, workers: Workers) -> list[torch.Tensor]:
        return list(workers.map(stream.run, range(len(stream.batches))))


def _leave(stream: BlockwiseForward) -> None:
    """Keep what the block has left of every window, and advance to the next block."""
    for window in range(len(stream.batches)):
        stream.keep(window)
    stream.advance()


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
