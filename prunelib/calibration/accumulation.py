"""A whole model through calibration: its Gram matrices into a folder, where a run that was killed goes on."""

import warnings
from collections import ChainMap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunelib.algebra.objective import output_energy
from prunelib.calibration.artifact import tokens_seen, write_grams, write_layers, write_tokens
from prunelib.calibration.gram import CalibrationSettings, accumulate_grams, in_batches, supported
from prunelib.calibration.statistics import InputStatistics
from prunelib.machine import machine
from prunelib.model.blockwise import BlockwiseForward, Checkpoint
from prunelib.model.layers import Layer, LayerIndex
from prunelib.model.weights import read_weight
from prunelib.progress import Meter
from prunelib.resume import FinishedValues

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
        The folder of a whole calibration (:mod:`prunelib.calibration.artifact`), in ``scratch``.
    """
    target = scratch / "calibration"
    provenance = {"model": drawn_from["model"], "tokens": write_tokens(target, *windows, drawn_from)}
    if settings.propagation != "dense":
        write_layers(target, index, {}, provenance)
        return target
    batches, parts = in_batches(windows, settings.batch)
    device, blocks = torch.device(machine().device), range(index.blocks)
    forward = BlockwiseForward(model, index.block_list, batches, device, machine().state_bytes)
    energies, checkpoint = FinishedValues(scratch / "energies"), Checkpoint(scratch)
    checkpoint.resume(forward)
    bar.advance(forward.block * sum(map(len, windows)))
    for block, statistics in accumulate_grams(
        forward,
        index,
        parts,
        gram_bytes=machine().gram_bytes,
        finished={block for block in blocks if str(block) in energies},
        on_batch=lambda number: bar.advance(len(batches[number])),
    ):
        readers = {layer.name: layer for layer in index.readers(block)}
        inputs, held_out = (
            {name: supported(readers[name], each, settings.least_tokens) for name, each in part.items()}
            for part in (*statistics, {})[:2]
        )
        write_grams(target, block, inputs, held_out, {**provenance, "count": windows[0].numel()})
        energies.write(str(block), _energies(folder, index.of_block(block), inputs))
        checkpoint.offer(forward)
    write_layers(target, index, dict(ChainMap(*(energies.read(str(block)) for block in blocks))), provenance)
    _warn_of_few(tokens_seen(target, index), settings.least_tokens)
    return target


def _energies(folder: Path, layers: Iterable[Layer], inputs: Mapping[str, InputStatistics]) -> dict[str, float]:
    """||W X||^2 of layers by name."""
    return {layer.name: output_energy(read_weight(folder, layer), inputs[layer.gram].gram) for layer in layers}


def _warn_of_few(seen: Mapping[str, int], least_tokens: int) -> None:
    if few := [name for name, tokens in seen.items() if tokens < least_tokens]:
        warnings.warn(
            f"{len(few)} of {len(seen)} inputs of experts saw fewer than calibration.least_tokens = {least_tokens} "
            f"tokens, first {few[0]} ({seen[few[0]]}): pruned as if they were independent",
            stacklevel=3,
        )
