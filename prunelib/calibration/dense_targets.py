"""Dense targets in closed form: weights that make up for what pruning has changed in their inputs.

The calibration windows go through the dense model, where the inputs of a layer are X_d, beside the pruned one, where
they are X_s. Before the layer is pruned by what X_s are, its weight W becomes

    W + share * W (X_d - X_s) X_s^T (X_s X_s^T + damping)^-1

which, with a share of 1, returns for X_s what W returns for X_d as closely as a linear layer can (QEP, 2504.09629;
GPTAQ, 2504.02692).
"""

from collections import deque
from collections.abc import Mapping, Sequence

import torch

from prunelib.algebra.linalg import inverse, product
from prunelib.calibration.accumulation import feed_watched, plan_passes
from prunelib.errors import NumericalError
from prunelib.model.blockwise import BlockwiseForward
from prunelib.model.layers import Layer

DAMPING = 0.01
"""Relative to the mean of the Gram matrix's diagonal, to which it is added; GPTQ's."""


def correction(gram: torch.Tensor, difference: torch.Tensor, share: float) -> torch.Tensor:
    """Return what a weight is multiplied by for its change: share * (X_d - X_s) X_s^T (X_s X_s^T + damping)^-1.

    Parameters
    ----------
    gram, difference
        X_s X_s^T and (X_d - X_s) X_s^T, both (inputs, inputs) float32.

    Returns
    -------
    torch.Tensor
        (inputs, inputs) float32; zeros if all inputs are.
    """
    damped = gram.double()
    damping = DAMPING * damped.diagonal().mean()
    if not damping:
        return torch.zeros_like(gram)
    damped.diagonal().add_(damping)
    return (share * product(difference.double(), inverse(damped))).to(gram.dtype)


def corrected(name: str, weight: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Return a weight (rows, inputs) plus its product with a :func:`correction`, in its dtype.

    Raises
    ------
    NumericalError
        If it is not finite in this dtype; the message has the ``name`` of the layer.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    moved = (wide + product(wide, by)).to(weight.dtype)
    if not moved.isfinite().all():
        raise NumericalError(f"{name}: its weight for dense targets is not finite in {weight.dtype}; use bfloat16")
    return moved


class DenseTargets:
    """The calibration windows in the dense model, beside those in the pruned one.

    Experts are left as they are: the tokens routed to one differ between the two.

    Parameters
    ----------
    forward
        The forward pass of the dense model, at the first block.
    batches
        The numbers of the batches to sum over.
    share
        :attr:`prunelib.calibration.settings.CalibrationSettings.dense_target`.
    """

    def __init__(self, forward: BlockwiseForward, batches: Sequence[int], share: float) -> None:
        self.forward, self._batches, self._share = forward, batches, share

    def corrections(
        self,
        pruned: BlockwiseForward,
        layers: Sequence[Layer],
        grams: Mapping[str, torch.Tensor],
        gram_bytes: int,
        device: torch.device,
    ) -> dict[str, torch.Tensor]:
        """Return the correction of each input of the next block by the name of its reader, on ``device``.

        Parameters
        ----------
        pruned
            The forward pass of the pruned model, at the same block, which is resident.
        layers
            Readers of distinct inputs; those of experts have no correction.
        grams
            Their Gram matrices over the batches, in the pruned model.
        gram_bytes
            Memory for the sums, in bytes, on the device of the forward passes.

        Raises
        ------
        NumericalError
            If inputs in the dense model are NaN or infinite; the message names the layer.
        """
        found: dict[str, torch.Tensor] = {}
        separate = [layer for layer in layers if layer.fused is None]
        for together in plan_passes(separate, gram_bytes) if separate else ():
            for name, difference in self._differences(pruned, together).items():
                found[name] = correction(grams[name].to(device), difference.to(device), self._share)
        return found

    def advance(self) -> None:
        """Run the windows through the next block, which is dense in the model."""
        with self.forward.resident():
            self.forward.pass_through(self._batches)
        self.forward.advance()

    def _differences(self, pruned: BlockwiseForward, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
        """Return (X_d - X_s) X_s^T of some layers by name."""
        sums = {layer.name: torch.zeros(layer.inputs, layer.inputs, device=pruned.device) for layer in layers}
        dense: dict[str, deque[torch.Tensor]] = {layer.name: deque() for layer in layers}

        def remember(name: str, inputs: torch.Tensor) -> None:
            dense[name].append(inputs.clone())  # models may change them in place

        def add(name: str, inputs: torch.Tensor) -> None:
            add_difference(sums[name], dense[name].popleft(), inputs)

        for batch in self._batches:
            with pruned.unchanged():
                feed_watched(self.forward, batch, layers, remember)
            feed_watched(pruned, batch, layers, add)
        for name, total in sums.items():
            if not total.isfinite().all():
                raise NumericalError(f"{name}: NaN or infinity in its inputs in the dense model, expected finite ones")
        return sums


def add_difference(total: torch.Tensor, dense: torch.Tensor, pruned: torch.Tensor) -> None:
    """Add (X_d - X_s) X_s^T of inputs (..., d) to a sum (d, d)."""
    x_d, x_s = (each.flatten(0, -2).float() for each in (dense, pruned))  # (tokens, d)
    total += product((x_d - x_s).T, x_s)
