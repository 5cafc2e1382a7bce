"""Block-by-block forward pass: all windows run through one decoder block before any runs through the next.

The device needs memory for one block at a time, and each block's weights are copied there once. No architecture is
rebuilt here: for every batch and block the model's own forward runs from its embedding on and makes the arguments of
the block (masks, positions, rotary tables). Earlier blocks are skipped (the last leaves what it left of the batch:
hidden states, and what :mod:`prunelib.model.outputs` hands on with them) and the forward aborts once the current
block has run.

Several threads may run batches through the same block at once. Stand-ins and hooks are on the model while any of them
does, and find what they need by thread.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunelib.errors import ArtifactError, ModelError
from prunelib.model.outputs import BlockOutput, Call, Form, build, hidden_states, take_apart
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
        On the CPU, where weights loaded from safetensors in their stored dtype are memory-mapped and take no memory, or
        on any other single device.
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
        self._left: dict[int, BlockOutput] = {}
        self._returned: list[Form] = []
        self._shared, self._thread = _SharedContext(), threading.local()
        self._outside: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._found: list[torch.Tensor] = []
        for name, tensor in chain(model.named_parameters(), model.named_buffers()):
            if not name.startswith(f"{block_list}."):
                self._outside.append((tensor, tensor.data))
                tensor.data = tensor.data.to(device)

    def release(self) -> None:
        """Return the tensors outside the blocks, such as the embedding, to where they were; no block runs after."""
        for tensor, data in self._outside:
            tensor.data = data

    @contextlib.contextmanager
    def resident(self) -> Iterator[None]:
        """Copy the next block's weights to the device while the context is open; the copies may be changed."""
        self._found = [tensor.data for tensor in self._of_block()]
        try:
            with _holding(self._of_block(), (data.to(self.device, copy=True) for data in self._found)):
                yield
        finally:
            self._found = []

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Within :meth:`resident`, have the weights that it found in place of its copies while the context is open.

        They are on the device if another forward pass of this model holds them there.
        """
        with _holding(self._of_block(), self._found):
            yield

    def run(self, batch: int) -> torch.Tensor:
        """Run the next block on a batch, and return its hidden states (batch, length, hidden) on the device.

        Raises
        ------
        ModelError
            If the model's forward does not reach the block, or the block does not return hidden states.
        """
        return self.run_between(batch)[1]

    def run_between(self, batch: int) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Run as :meth:`run`, and return the hidden states that enter the block, too; None if there are none."""
        with torch.no_grad():
            watch, call, states = self._watched(self.block, batch, skipped=self.block)
        handed_on = self._left[batch].written if batch in self._left else {}
        self._thread.latest = batch, take_apart(watch.output, states, watch.wanted, watch.written(call, handed_on))
        return call.entering(), states

    def feed(self, batch: int) -> None:
        """Run the next block on a batch for hooks on its modules, which may raise :class:`Stop`; it cannot be kept."""
        self._thread.__dict__.pop("latest", None)
        with torch.no_grad():
            self._run(self.block, batch, skipped=self.block)

    def run_with_gradients(self, batch: int) -> torch.Tensor:
        """Run as :meth:`run`, for the gradients of the block's parameters that require them; nothing can be kept."""
        with torch.enable_grad():
            return self._watched(self.block, batch, skipped=self.block)[2]

    def whole(self, batch: int) -> torch.Tensor:
        """Return the hidden states that the last block leaves when no block is skipped; raise as :meth:`run`."""
        with torch.no_grad():
            return self._watched(self.blocks - 1, batch, skipped=0)[2]

    def keep(self, batch: int) -> None:
        """Store what this batch left in this thread's latest :meth:`run`, in place of what the block before left."""
        latest, left = self._thread.__dict__.pop("latest", (None, None))
        if latest != batch or left is None:
            raise RuntimeError(f"batch {batch} is not the latest that was run")
        self._put(batch, left)
        self._returned[self.block :] = [left.returned]

    def pass_through(self, batches: Iterable[int]) -> None:
        """Run batches through the next block, and keep what it leaves of each."""
        for batch in batches:
            self.run(batch)
            self.keep(batch)

    def left(self, batch: int) -> torch.Tensor:
        """Return the hidden states (batch, length, hidden) that the previous block left, on the device."""
        return self._left[batch].tensors[0].to(self.device)

    @property
    def blocks(self) -> int:
        """Return the number of blocks."""
        return len(self._blocks)

    def advance(self) -> None:
        """Advance to the next block, once every batch has been run and kept."""
        self.block += 1

    def restart(self) -> None:
        """Return to the first block."""
        self.block, self._returned = 0, []
        self._left.clear()

    def save(self, path: Path) -> None:
        """Write what the previous block left of every batch, from which a later run can resume.

        Raises
        ------
        ArtifactError
            If the file could not be written.
        """
        tensors = {
            f"{batch}.{number}": tensor
            for batch, left in self._left.items()
            for number, tensor in enumerate(left.tensors)
        }
        forms = {batch: [left.returned, left.written, len(left.tensors)] for batch, left in self._left.items()}
        store.write_tensors(path, tensors, _KIND, {"block": self.block, "returned": self._returned, "forms": forms})

    def restore(self, path: Path) -> None:
        """Resume from the file that a run with the same model and batches saved.

        Raises
        ------
        ArtifactError
            If the file is missing or damaged.
        """
        tensors, header = store.read_tensors(path, _KIND), store.read_provenance(path, _KIND)
        self.block, self._returned = header["block"], header["returned"]
        for batch, (returned, written, count) in header["forms"].items():
            found = [tensors[f"{batch}.{number}"].to(self.device) for number in range(count)]
            self._put(int(batch), BlockOutput(found, returned, written))

    def _of_block(self) -> list[torch.Tensor]:
        """Return the parameters and buffers of the next block."""
        return [*self._blocks[self.block].parameters(), *self._blocks[self.block].buffers()]

    def _put(self, batch: int, left: BlockOutput) -> None:
        stays = left.nbytes * len(self.batches) <= self._state_bytes
        self._left[batch] = left if stays else left.map(torch.Tensor.cpu)

    def _watched(self, block: int, batch: int, *, skipped: int) -> tuple["_Watch", Call, torch.Tensor]:
        """Run the model's forward up to the end of a block; return the watch, and its call and hidden states."""
        watch, name = self._run(block, batch, skipped=skipped), f"{type(self.model).__name__}: decoder block {block}"
        if watch.call is None:
            raise ModelError(f"{name} is not called")
        states = hidden_states(watch.output, watch.call)
        if states is None:
            raise ModelError(f"{name} returns {type(watch.output).__name__}, expected hidden states")
        return watch, watch.call, states

    def _run(self, block: int, batch: int, *, skipped: int) -> "_Watch":
        """Run the model's forward up to the end of a block, or to where a hook raises :class:`Stop`."""
        tokens = self.batches[batch].to(self.device, torch.long)
        self._thread.batch, self._thread.watch = batch, _Watch()
        with self._shared.entered(lambda: self._prepared(block, skipped)), contextlib.suppress(Stop):
            self.model(input_ids=tokens, use_cache=False)
        watch: _Watch = self._thread.watch
        del self._thread.watch
        return watch

    @contextlib.contextmanager
    def _prepared(self, number: int, skipped: int) -> Iterator[None]:
        """Skip the first blocks, and watch one, while the context is open.

        The skipped blocks leave what the last of them left of the batch. The forward is aborted once the watched block
        has run, or, if it returns more than a tensor, before the next block runs.
        """
        block, following = self._blocks[number], self._blocks[number + 1 : number + 2]

        def begin(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._thread.watch.before = Call(args, kwargs).entries()

        def finish(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            self._thread.watch.call, self._thread.watch.output = Call(args, kwargs), output
            if isinstance(output, torch.Tensor) or not following:
                raise Stop

        def go_on(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._thread.watch.wanted = {id(tensor) for tensor in Call(args, kwargs).tensors()}
            raise Stop

        with contextlib.ExitStack() as stack:
            stack.callback(block.register_forward_pre_hook(begin, with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(finish, with_kwargs=True).remove)
            for each in following:
                stack.callback(each.register_forward_pre_hook(go_on, with_kwargs=True).remove)
            for passed, each in enumerate(self._blocks[:skipped]):
                stack.enter_context(_with_forward(each, partial(self._stand_in, passed)))
            yield

    def _stand_in(self, number: int, *args: Any, **kwargs: Any) -> Any:
        """Return what a skipped block returns: with hidden states, and what is handed on, of the last skipped one."""
        left = self._left[self._thread.batch]
        if number < self.block - 1:
            return build(self._returned[number], [left.tensors[0].to(self.device)])
        left = left.map(lambda tensor: tensor.to(self.device))
        left.replay(Call(args, kwargs))
        return build(left.returned, left.tensors)


class Checkpoint:
    """Hidden states between two blocks in a folder, written at most once a minute, to resume from after a kill."""

    def __init__(self, folder: Path) -> None:
        self._path, self._saved = folder / "states.safetensors", time.monotonic()

    def beside(self, name: str) -> "Checkpoint":
        """Return that of another forward pass, in a folder of this one's."""
        return Checkpoint(self._path.parent / name)

    def resume(self, forward: BlockwiseForward, finished: int) -> None:
        """Resume from the checkpoint of an earlier run with the same model and batches, if there is a readable one.

        Parameters
        ----------
        finished
            How many blocks are finished, from the first on; a checkpoint beyond them is not used.
        """
        with contextlib.suppress(ArtifactError):
            forward.restore(self._path)
        if forward.block > finished:
            forward.restart()

    def offer(self, forward: BlockwiseForward) -> None:
        """Save if at least a minute has passed since the last save."""
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
            forward.save(self._path)
            self._saved = time.monotonic()


class _Watch:
    """What one run of a block is given, returns and writes, and the tensors that the next block takes.

    Attributes
    ----------
    call, output
        Arguments and return value of the block; None if it was not called.
    before
        The entries of the mappings among the arguments before the block ran.
    wanted
        The ``id`` of every tensor among the arguments of the next block.
    """

    def __init__(self) -> None:
        self.call: Call | None = None
        self.output: Any = None
        self.before: dict[str, dict[Any, Any]] = {}
        self.wanted: set[int] = set()

    def written(self, call: Call, handed_on: Mapping[str, Sequence[tuple[Any, Any]]]) -> dict[str, dict[Any, Any]]:
        """Return the entries that the block wrote into mappings, and those that earlier blocks had written."""
        earlier = {name: {build(key, []) for key, _ in entries} for name, entries in handed_on.items()}
        return {
            name: {
                key: value
                for key, value in entries.items()
                if key in earlier.get(name, ()) or value is not self.before[name].get(key)
            }
            for name, entries in call.entries().items()
        }


class _SharedContext:
    """A context that the first of several threads enters and the last one leaves."""

    def __init__(self) -> None:
        self._lock, self._threads, self._stack = threading.Lock(), 0, contextlib.ExitStack()

    @contextlib.contextmanager
    def entered(self, make: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
        """Keep the context that ``make`` returns open while any thread is here; all threads need the same."""
        with self._lock:
            if not self._threads:
                self._stack.enter_context(make())
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    self._stack.close()


class Stop(Exception):  # noqa: N818 - control flow, no error
    """Signal of a hook that the forward need not go on; of this package, so that it hides no real error."""


@contextlib.contextmanager
def _holding(tensors: Sequence[torch.Tensor], data: Iterable[torch.Tensor]) -> Iterator[None]:
    """Give tensors other data while the context is open."""
    before = [tensor.data for tensor in tensors]
    try:
        for tensor, other in zip(tensors, data, strict=True):
            tensor.data = other
        yield
    finally:
        for tensor, own in zip(tensors, before, strict=True):
            tensor.data = own


@contextlib.contextmanager
def _with_forward(module: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another forward; afterwards it has its own, be it of its class or set by a wrapper."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
