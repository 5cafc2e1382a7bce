"""Pruned weights that stay +0.0 through training, in transformers' Trainer or in a loop of one's own.

Two things hold them. The gradient of a pruned weight is set to zero as soon as backward has accumulated it, before
anything reads it: clipping, the gradient scaler, the optimiser. What an optimiser derives from gradients (momentum, the
moments of AdamW) is then zero from the first step, and so are its updates, with weight decay too, which multiplies the
weight by 1 - lr * decay. After each step of an optimiser the pruned weights are set to +0.0 once more, for optimisers
that update weights without a gradient: momentum of an earlier dense training, Muon, which mixes the entries of a
matrix, a decay with lr * decay > 1, which makes +0.0 a -0.0.
"""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import TrainerCallback

from prunelib.model.masked import pruned_parameters

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class KeepMasks(TrainerCallback):
    """Keep the pruned weights of a model at exactly +0.0 while it is trained.

    The kept weights train as if the pruned ones were not there: SGD, Adam and AdamW take the same steps as over the
    kept weights alone. Optimisers that look at whole matrices (Muon, Adafactor) see zeros.

    - Momentum and AdamW's moments of pruned weights are zero from the first step on. Those of an optimiser that comes
      with a state from before the masks decay as in that optimiser; the weights stay +0.0.
    - Weight decay leaves +0.0 as it is, decoupled or in the gradient.
    - Gradient clipping and logged gradient norms do not count pruned weights.
    - Gradients may be accumulated over any number of backward passes.
    - Under AMP the gradient is cleared in the parameter's own dtype, scaled or not; infinity or NaN at a pruned weight
      does not make the scaler skip the step. Models in bfloat16 and float16 are trained as they are.

    It costs a byte of memory for each weight of a masked parameter, on its device, and two passes over these
    parameters for each optimiser step.

    Parameters
    ----------
    masks
        Layer name to (rows, inputs) bool, True = kept: those of a result, or of :func:`prunelib.read_masks`.

    Notes
    -----
    Parameters that are frozen when training begins are not watched. With adapters (LoRA) all masked ones are: there is
    nothing to hold during training, and :func:`prunelib.merge` keeps the zeros afterwards.

    Sharded parameters (FSDP, DeepSpeed ZeRO-3) are refused. Under DistributedDataParallel give the model within it.

    Examples
    --------
    >>> keep = prunelib.KeepMasks(result.masks)
    >>> Trainer(model, arguments, train_dataset=texts, callbacks=[keep]).train()  # doctest: +SKIP
    >>> with keep.on(model):
    ...     for batch in batches:
    ...         model(**batch).loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    """

    def __init__(self, masks: Mapping[str, torch.Tensor]) -> None:
        self._masks = masks
        self._training = contextlib.ExitStack()

    @contextlib.contextmanager
    def on(self, model: "PreTrainedModel | PeftModel") -> Iterator[None]:
        """Keep the pruned weights of a model at +0.0 in this context, from its beginning on.

        Raises
        ------
        ModelError
            If it is no model of transformers, or a masked parameter is sharded or quantised.
        PatternError
            If a mask matches no layer of the model, or has another shape.
        """
        pruned = pruned_parameters(model, self._masks)
        _clear_weights(pruned)
        with contextlib.ExitStack() as hooks:
            for parameter, positions in pruned.items():
                _clear_gradient(positions, parameter)
                hook = parameter.register_post_accumulate_grad_hook(partial(_clear_gradient, positions))
                hooks.callback(hook.remove)
            hooks.callback(register_optimizer_step_post_hook(partial(_after_step, pruned)).remove)
            yield

    def on_train_begin(self, *_: Any, model: "PreTrainedModel | PeftModel", **__: Any) -> None:
        """Begin to keep the pruned weights; those of an earlier training that failed are no longer watched."""
        self._training.close()
        self._training.enter_context(self.on(model))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """End it: the weights are free, and +0.0."""
        self._training.close()


def _clear_gradient(positions: torch.Tensor, parameter: torch.Tensor) -> None:
    if parameter.grad is not None:
        parameter.grad.masked_fill_(positions.to(parameter.grad.device), 0.0)


@torch.no_grad()
def _clear_weights(pruned: Mapping[nn.Parameter, torch.Tensor]) -> None:
    for parameter, positions in pruned.items():
        parameter.masked_fill_(positions.to(parameter.device), 0.0)


def _after_step(pruned: Mapping[nn.Parameter, torch.Tensor], optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Clear the weights that an optimiser has updated, and no others: some loops have one for each parameter."""
    updated = [each for group in optimizer.param_groups for each in group["params"] if each in pruned]
    _clear_weights({parameter: pruned[parameter] for parameter in updated})
