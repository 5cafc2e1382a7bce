"""A whole model through calibration: its Gram matrices into a folder, where a run that was killed goes on."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunelib import store
from prunelib.blockwise import BlockwiseForward, Checkpoint
from prunelib.calibration import tokens_seen, write_grams, write_layers, write_tokens
from prunelib.gram import CalibrationSettings, accumulate_grams, in_batches, supported
from prunelib.layers import LayerIndex
from prunelib.machine import machine
from prunelib.objective import output_energy
from prunelib.progress import Meter
from prunelib.weights import read_weight

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def calibrate_model(
    model: "PreTrainedModel",
    folder: Path,
    index: LayerIndex,
    windows: tuple[torch.Tensor, torch.Tensor],
    settings: CalibrationSettings,
    drawn_from: Mapping[str, Any],
    scratch: Path,
    bar: Meter,
) -> Path:
    """Accumulate the Gram matrices of a model over token windows.

    Blocks that ``scratch`` has from an earlier run stay. The states between two blocks are written once a minute, so
    that a run which goes on repeats at most a minute's forward.

    Parameters
    ----------
    model, folder
        The model on the processor, and where it was read from.
    windows
        Those of the calibration and those held out, both (samples, length) int32; the second may have none.
    settings
        How many windows a forward pass takes, and whose inputs are asked for: but for ``dense``, refinement finds them.
    drawn_from
        What the windows were drawn from and how, the model's identity as ``model``.
    scratch
        What an earlier run with the same arguments has finished (:mod:`prunelib.resume`).
    bar
        Counts windows once a block.

    Returns
    -------
    Path
        The folder of a whole calibration (:mod:`prunelib.calibration`), in ``scratch``.
    """
    target = scratch / "calibration"
    provenance = {"model": drawn_from["model"], "tokens": write_tokens(target, *windows, drawn_from)}
    if settings.propagation != "dense":
        write_layers(target, index, {}, provenance)
        return target
    batches, parts = in_batches(windows, settings.batch)
    device, energies = torch.device(machine().device), _Energies(scratch, folder, index)
    forward = BlockwiseForward(model, index.block_list, batches, device, machine().state_bytes)
    checkpoint = Checkpoint(scratch / "states.safetensors")
    checkpoint.resume(forward)
    bar.advance(forward.block * sum(map(len, windows)))
    for block, statistics in accumulate_grams(
        forward,
        index,
        parts,
        gram_bytes=machine().gram_bytes,
        finished=energies.blocks(),
        on_batch=lambda number: bar.advance(len(batches[number])),
    ):
        readers = {layer.name: layer for layer in index.readers(block)}
        inputs, held_out = (
            {name: supported(readers[name], each, settings.least_tokens) for name, each in part.items()}
            for part in (*statistics, {})[:2]
        )
        write_grams(target, block, inputs, held_out, {**provenance, "count": windows[0].numel()})
        energies.add(block, {name: each.gram for name, each in inputs.items()})
        checkpoint.offer(forward)
    write_layers(target, index, energies.all(), provenance)
    seen = tokens_seen(target, index)
    if few := [name for name, tokens in seen.items() if tokens < settings.least_tokens]:
        warnings.warn(
            f"{len(few)} of {len(seen)} inputs of experts saw fewer than calibration.least_tokens = "
            f"{settings.least_tokens} tokens, first {few[0]} ({seen[few[0]]}): pruned as if they were independent",
            stacklevel=2,
        )
    return target


class _Energies:
    """||W X||^2 of the layers of each finished block; a block's are written after its Gram matrices."""

    def __init__(self, scratch: Path, folder: Path, index: LayerIndex) -> None:
        self._scratch, self._folder, self._index = scratch, folder, index

    def _file(self, block: int) -> Path:
        return self._scratch / f"energies_{block:03d}.json"

    def blocks(self) -> set[int]:
        """The blocks that are finished."""
        return {block for block in range(self._index.blocks) if self._file(block).exists()}

    def add(self, block: int, grams: Mapping[str, torch.Tensor]) -> None:
        """Write the energies of a block's layers from its Gram matrices, by :attr:`Layer.gram`."""
        layers = self._index.of_block(block)
        energies = {layer.name: output_energy(read_weight(self._folder, layer), grams[layer.gram]) for layer in layers}
        store.write_json(self._file(block), energies)

    def all(self) -> dict[str, float]:
        """The energies of all layers by name."""
        blocks = [store.read_json(self._file(block)) for block in range(self._index.blocks)]
        return {name: energy for energies in blocks for name, energy in energies.items()}
