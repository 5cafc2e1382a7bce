"""A model's forward, block by block: all windows go through one decoder block before any goes through the next.

A device needs room for one block at a time, and each block's weights are moved there once. No architecture is rebuilt
here: for every batch and block the model's own forward runs from its embedding on and makes what the block is
called with (masks, positions, rotary tables). The blocks before are passed over, the last of them with the states that
it left of this batch, and once the block has run the forward is left.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunelib.errors import ModelError
from prunelib.runtime import store

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SECONDS_BETWEEN_SAVES = 60.0
_KIND = "states"


class BlockwiseForward:
    """Batches of windows on their way through a model.

    Parameters
    ----------
    model
        On the processor. Weights read from safetensors in their own dtype take no memory there: the system pages them
        in.
    block_list
        Name of its list of decoder blocks: ``model.layers``.
    batches
        Token ids, each (batch, length).
    device
        Where it runs.
    state_bytes
        States of all batches stay on the device if they take no more than this, else they wait on the processor.

    Attributes
    ----------
    model, batches, device
        As given.
    block
        Number of the block that comes next; after the last block, the number of blocks.
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
        """While open, the next block has its weights on the device, in copies that may be changed."""
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
        """What the next block leaves of a batch: states (batch, length, hidden) on the device.

        Raises
        ------
        ModelError
            If the model's forward does not reach the block, or the block returns anything but states.
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
            found = f"returns {type(left[0]).__name__}, expected states" if left else "is not reached by the forward"
            raise ModelError(f"{type(self.model).__name__}: decoder block {self.block} {found}")
        return left[0]

    def keep(self, batch: int, states: torch.Tensor) -> None:
        """Keep what :meth:`run` gave for a batch, in the place of what the block before left."""
        stays = states.nbytes * len(self.batches) <= self._state_bytes
        self._states[batch] = states if stays else states.cpu()

    def advance(self) -> None:
        """Go on to the next block; every batch has been run and kept."""
        self.block += 1

    def save(self, path: Path) -> None:
        """Write the states between two blocks, for a later run to go on from here.

        Raises
        ------
        ArtifactError
            If the file could not be written.
        """
        states = {str(batch): states for batch, states in self._states.items()}
        store.write_tensors(path, states, _KIND, {"block": self.block})

    def restore(self, path: Path) -> None:
        """Go on from where a run with the same model and batches was saved.

        Raises
        ------
        ArtifactError
            If the file is missing or damaged.
        """
        self.block = store.read_provenance(path, _KIND)["block"]
        for batch, states in store.read_tensors(path, _KIND).items():
            self.keep(int(batch), states.to(self.device))

    @torch.no_grad()
    def _forward(self, batch: int) -> None:
        tokens = self.batches[batch].to(self.device, torch.long)
        with self._passed_over(batch):
            self.model(input_ids=tokens, use_cache=False)

    @contextlib.contextmanager
    def _passed_over(self, batch: int) -> Iterator[None]:
        """While open, the blocks before the next one compute nothing; the last of them gives the states it left."""
        before = self._blocks[: self.block]
        for block in before:
            block.forward = lambda *_args, **_kwargs: self._states[batch].to(self.device)
        try:
            yield
        finally:
            for block in before:
                del block.forward


class Checkpoint:
    """The states between two blocks in a folder, written once a minute, where a run that is killed can go on from."""

    def __init__(self, folder: Path) -> None:
        self._path, self._saved = folder / "states.safetensors", time.monotonic()

    def resume(self, forward: BlockwiseForward) -> None:
        """Go on from where an earlier run with the same model and batches was saved, if it was."""
        if self._path.exists():
            forward.restore(self._path)

    def offer(self, forward: BlockwiseForward) -> None:
        """Save if a minute has passed since that was last done."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            forward.save(self._path)
            self._saved = time.monotonic()


class _Stop(Exception):  # noqa: N818 - control flow, no error
    """Leaves the forward once the block has run; private, so that it hides no real fault."""
