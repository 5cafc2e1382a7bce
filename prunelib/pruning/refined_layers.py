"""Refinement of one layer by a chain of refiners, and the record of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from prunelib.masks.patterns import Pattern
from prunelib.masks.pruned import Pruned
from prunelib.methods.contract import ExtraInputs, MethodSettings, Progress, silent
from prunelib.methods.kept_weights import KeptWeights, kept_weights, the_better
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

    def with_weight(self, weight: torch.Tensor) -> "RefinedLayer":
        """Return it with the kept ones of these weights (rows, inputs) as updated, unless others already are."""
        if self.weight is not None:
            return self
        record = self.record.model_copy(update={"updated": True})
        return self._replace(weight=weight.where(self.mask, 0), record=record)


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
    *earlier, last = run_chain(*start, pattern, settings, progress, inputs.extra, compute)
    steps = [*earlier, _as_stored(last, *start)]
    updated = steps[-1].refined.weight
    return RefinedLayer(
        mask=steps[-1].refined.mask.cpu(),
        weight=None if updated is None else updated.to("cpu", weight.dtype),
        record=_record(layer, steps, inputs),
        step_seconds=[step.seconds for step in steps],
    )


def _as_stored(step: Step, weight: torch.Tensor, gram: torch.Tensor, mask: torch.Tensor) -> Step:
    """Round updated weights to the model's dtype, in which they are stored, and measure the error again.

    Rows whose error rounding takes above that of ``mask`` have that mask and the model's weights instead.
    """
    found = step.refined
    if found.weight is None or weight.dtype in {torch.float32, torch.float64}:
        return step
    stored = KeptWeights(found.mask, found.weight.to(weight.dtype).float())
    kept = the_better(weight, gram, kept_weights(weight, mask), stored, silent)
    taken = kept.loss_after < kept.loss_before
    optimal = None if found.optimal is None else found.optimal & taken.to(found.optimal.device)
    return replace(
        step,
        refined=replace(found, mask=kept.mask, weight=kept.weight, loss_after=kept.loss_after, optimal=optimal),
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
