"""Check, before any work, that a model gives the same when it is run block by block as in its own forward."""

from typing import TYPE_CHECKING

import torch

from prunelib.errors import ModelError, NumericalError, PruneError
from prunelib.model.blockwise import BlockwiseForward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKENS = 8


def check_blockwise(model: "PreTrainedModel", block_list: str) -> None:
    """Refuse a model whose blocks share state that :mod:`prunelib.model.outputs` does not hand on.

    Two windows of a few tokens pass through the model twice: by its own forward, and both through one block before any
    through the next.

    Parameters
    ----------
    model
        On one device.
    block_list
        Name of its list of decoder blocks.

    Raises
    ------
    ModelError
        If the hidden states after the last block differ by more than the square root of the precision, or the model
        fails block by block; the message names the block list.
    NumericalError
        If the model itself gives NaN or infinity.
    """
    words = model.get_input_embeddings().weight.shape[0]
    windows = (torch.arange(2 * _TOKENS) % words).view(2, 1, _TOKENS)
    forward = BlockwiseForward(model, block_list, windows.unbind(), model.device, 2**40)
    name = f"{type(model).__name__}: {block_list}"
    try:
        expected, found = torch.stack([forward.whole(0), forward.whole(1)]), _one_by_one(forward)
    except PruneError:
        raise
    except Exception as error:  # whatever the model's code raises where it misses state of an earlier block
        raise ModelError(
            f"{name}.{forward.block} fails without the earlier blocks ({error!r}): the model shares state between "
            "blocks, expected blocks that depend only on their arguments"
        ) from None
    if not expected.isfinite().all():
        dtype = str(expected.dtype).removeprefix("torch.")
        raise NumericalError(
            f"{name}: hidden states are NaN or infinite in {dtype}, expected finite ones; load the model in another "
            "dtype, or mend its weights"
        )
    difference = float((found.double() - expected.double()).norm() / expected.double().norm())
    if not difference <= torch.finfo(expected.dtype).eps ** 0.5:
        raise ModelError(
            f"{name}: hidden states differ by {difference:.1%} when run block by block: the model shares state between "
            "blocks, expected blocks that depend only on their arguments"
        )


def _one_by_one(forward: BlockwiseForward) -> torch.Tensor:
    """Return the hidden states that the last block leaves of both windows when each block is run alone."""
    for _ in range(forward.blocks - 1):
        for window in range(2):
            forward.run(window)
            forward.keep(window)
        forward.advance()
    return torch.stack([forward.run(0), forward.run(1)])
