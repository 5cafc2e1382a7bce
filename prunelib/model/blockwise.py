"""Block-by-block forward pass: all windows run through one decoder block before any runs through the next.

The device needs memory for one block at a time, and each block's weights are copied there once. No architecture is
rebuilt here: for every batch and block the model's own forward runs from its embedding on and makes the arguments of
the block (masks, positions, rotary tables). Earlier blocks are skipped (the last returns its cached hidden states) and
the forward aborts once the current block has run.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunelib.errors import ArtifactError, ModelError
from prunelib.runtime import store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SECONDS_BETWEEN_SAVES = 60.0
_KIND = "states"


class BlockwiseForward:
    """Forward pass of batches of windows through a model, block by block.

    Parameters
    ----------
    model
        On the CPU. Weights loaded from safetensors in their stored dtype are memory-mapped and take no memory there.
    block_list
        Name of the model's list of decoder blocks: ``model.layers``.
    batches
        Token ids, each (batch, length).
    device
        Device that the blocks run on.
    state_bytes
        The hidden states of all batches stay on the device if they take at most this many bytes, else on the CPU.

    Attributes
    ----------
    model, batches, device
        As given.
    block
        Number of the next block; after the last block, the number of blocks.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        block_list: str,
        batches: Sequence[torch.Tensor],
        device: torch.device,
        state_bytes: int,
    ) -> None:
        self.model, self.batches, self.device, self.block = model, batches, device, 0
        self._blocks, self._state_bytes = list(model.get_submodule(block_list).children()), state_bytes
        self._states: dict[int, torch.Tensor] = {}
        for name, tensor in chain(model.named_parameters(), model.named_buffers()):
            if not name.startswith(f"{block_list}."):
                tensor.data = tensor.data.to(device)

    @contextlib.contextmanager
    def resident(self) -> Iterator[None]:
        """Copy the next block's weights to the device while the context is open; the copies may be changed."""
        tensors = [*self._blocks[self.block].parameters(), *self._blocks[self.block].buffers()]
        home = [tensor.data for tensor in tensors]
        try:
            for tensor in tensors:
                tensor.data = tensor.data.to(self.device, copy=True)
            yield
        finally:
            for tensor, data in zip(tensors, home, strict=True):
                tensor.data = data

    def run(self, batch: int) -> torch.Tensor:
        """Run the next block on a batch, and return its hidden states (batch, length, hidden) on the device.

        Raises
        ------
        ModelError
            If the model's forward does not reach the block, or the block does not return a tensor.
        """
        left: list[Any] = []

        def stop(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            left.append(output)
            raise _Stop

        handle = self._blocks[self.block].register_forward_hook(stop)
        try:
            with contextlib.suppress(_Stop):
                self._forward(batch)
        finally:
            handle.remove()
        if not left or not isinstance(left[0], torch.Tensor):
            found = f"returns {type(left[0]).__name__}, expected hidden states" if left else "is not called"
            raise ModelError(f"{type(self.model).__name__}: decoder block {self.block} {found}")
        return left[0]

    def keep(self, batch: int, states: torch.Tensor) -> None:
        """Store the result of :meth:`run` for a batch, in place of the previous block's hidden states."""
        stays = states.nbytes * len(self.batches) <= self._state_bytes
        self._states[batch] = states if stays else states.cpu()

    def advance(self) -> None:
        """Advance to the next block, once every batch has been run and kept."""
        self.block += 1

    def save(self, path: Path) -> None:
        """Write the hidden states between two blocks, from which a later run can resume.

        Raises
        ------
        ArtifactError
            If the file could not be written.
        """
        states = {str(batch): states for batch, states in self._states.items()}
        store.write_tensors(path, states, _KIND, {"block": self.block})

    def restore(self, path: Path) -> None:
        """Resume from the file that a run with the same model and batches saved.

        Raises
        ------
        ArtifactError
            If the file is missing or damaged.
        """
        found = store.read_tensors(path, _KIND)
        self.block = store.read_provenance(path, _KIND)["block"]
        for batch, states in found.items():
            self.keep(int(batch), states.to(self.device))

    @torch.no_grad()
    def _forward(self, batch: int) -> None:
        tokens = self.batches[batch].to(self.device, torch.long)
        with self._passed_over(batch):
            self.model(input_ids=tokens, use_cache=False)

    @contextlib.contextmanager
    def _passed_over(self, batch: int) -> Iterator[None]:
        """Skip the earlier blocks while the context is open; they return the cached hidden states of the batch."""
        before = self._blocks[: self.block]
        for block in before:
            block.forward = lambda *_args, **_kwargs: self._states[batch].to(self.device)
        try:
            yield
        finally:
            for block in before:
                del block.forward


class Checkpoint:
    """Hidden states between two blocks in a folder, written at most once a minute, to resume from after a kill."""

    def __init__(self, folder: Path) -> None:
        self._path, self._saved = folder / "states.safetensors", time.monotonic()

    def resume(self, forward: BlockwiseForward) -> None:
        """Resume from the checkpoint of an earlier run with the same model and batches, if there is a readable one."""
        with contextlib.suppress(ArtifactError):
            forward.restore(self._path)

    def offer(self, forward: BlockwiseForward) -> None:
        """Save if at least a minute has passed since the last save."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            forward.save(self._path)
            self._saved = time.monotonic()


class _Stop(Exception):  # noqa: N818 - control flow, no error
    """Signal that aborts the forward once the block has run; private, so that it hides no real error."""
