"""Refinement of one layer by a chain of refiners, and the record of it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from prunelib.masks.patterns import Pattern
from prunelib.masks.pruned import Pruned
from prunelib.methods.contract import ExtraInputs, MethodSettings, Progress
from prunelib.model.layers import Layer
from prunelib.pruning.chains import Step, outcome, run_chain
from prunelib.pruning.refined_blocks import RefinedBlock
from prunelib.records import LayerResult, StepResult
from prunelib.runtime.compute import AUTO, Compute
from prunelib.runtime.machine import peak_memory


class LayerInputs(NamedTuple):
    """Statistics of a layer's inputs.

    Attributes
    ----------
    gram
        (inputs, inputs) float32, sum over tokens.
    extra
        Further statistics that refiners may use.
    energy
        ||W X||^2.
    """

    gram: torch.Tensor
    extra: ExtraInputs
    energy: float


class RefinedLayer(NamedTuple):
    """One refined layer.

    ``mask`` is (rows, inputs) bool; ``weight`` is (rows, inputs) in the model's dtype, None if no weight was updated.
    """

    mask: torch.Tensor
    weight: torch.Tensor | None
    record: LayerResult
    step_seconds: list[float]


def refine_layer(
    layer: Layer,
    weight: torch.Tensor,
    inputs: LayerInputs,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: MethodSettings,
    progress: Progress,
    device: torch.device,
    compute: Compute = AUTO,
) -> RefinedLayer:
    """Refine the mask (rows, inputs) of one layer on ``device``; the result is on the CPU."""
    start = (weight.to(device), inputs.gram, mask.to(device))
    steps = run_chain(*start, pattern, settings, progress, inputs.extra, compute)
    updated = steps[-1].refined.weight
    return RefinedLayer(
        mask=steps[-1].refined.mask.cpu(),
        weight=None if updated is None else updated.to("cpu", weight.dtype),
        record=_record(layer, steps, inputs),
        step_seconds=[step.seconds for step in steps],
    )


def block_of(layers: Sequence[RefinedLayer]) -> RefinedBlock:
    """Combine the refined layers of a block."""
    masks = {layer.record.name: layer.mask for layer in layers}
    weights = {layer.record.name: layer.weight for layer in layers if layer.weight is not None}
    seconds = [layer.step_seconds for layer in layers]
    return RefinedBlock(Pruned(masks, weights), [layer.record for layer in layers], seconds, peak_memory())


def _record(layer: Layer, steps: Sequence[Step], inputs: LayerInputs) -> LayerResult:
    result = outcome(steps)
    return LayerResult(
        name=layer.name,
        kind=layer.kind,
        block=layer.block,
        rows=layer.rows,
        inputs=layer.inputs,
        kept=int(result.mask.sum()),
        loss_before=float(result.loss_before.sum()),
        loss_after=float(result.loss_after.sum()),
        energy=inputs.energy,
        tokens=None if layer.fused is None else inputs.extra.tokens,
        updated=result.weight is not None,
        steps=tuple(StepResult(method=step.method, loss_after=float(step.refined.loss_after.sum())) for step in steps),
        swaps=_total(result.swaps),
        sweeps=_total(result.sweeps),
        optimal_rows=_total(result.optimal),
        bound=result.bound,
    )


def _total(of_rows: torch.Tensor | None) -> int | None:
    return None if of_rows is None else int(of_rows.sum())
