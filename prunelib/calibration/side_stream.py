"""Reading what passes through a model while the model goes on: on a GPU on a stream of its own.

On a processor it is read at once, before the model goes on.
"""

from collections import deque
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch

from prunelib.errors import ModelError
from prunelib.runtime.machine import WAITING_BYTES


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for the whole process: every stream that multiplies matrices keeps memory of its own for that."""
    return torch.cuda.Stream(device)


class _Read(NamedTuple):
    """Inputs that a stream reads, how often they had been changed in place before, and what is reached once it has."""

    name: str
    inputs: torch.Tensor
    version: int
    done: torch.cuda.Event


class SideStreamReader:
    """Reads inputs beside the forward that makes them, which waits where too many are behind.

    Inputs are held until they have been read, so that their memory is not used for anything else. As a context manager
    it is left, also on failure, when nothing is read any more.

    Parameters
    ----------
    device
        Where the inputs are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _side_stream(device) if device.type == "cuda" else None
        self._reads: deque[_Read] = deque()
        self._waiting_bytes = 0

    def __enter__(self) -> "SideStreamReader":
        return self

    def __exit__(self, *_failure: object) -> None:
        if self._stream is not None:
            self._stream.synchronize()

    def read(self, name: str, inputs: torch.Tensor, work: Callable[[torch.Tensor], None]) -> None:
        """Do work that reads the inputs of the layer of this name; calls do theirs one after another.

        Raises
        ------
        ModelError
            If the model changed earlier inputs in place that may not have been read yet.
        """
        if self._stream is None:
            work(inputs)
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work(inputs)
        self._reads.append(_Read(name, inputs, inputs._version, self._stream.record_event()))
        self._waiting_bytes += inputs.nbytes
        while len(self._reads) > 1 and self._waiting_bytes > WAITING_BYTES:
            self._release_first()

    def finish(self) -> None:
        """Let the forward go on once everything has been read.

        Raises
        ------
        ModelError
            As :meth:`read`.
        """
        while self._reads:
            self._release_first()

    def _release_first(self) -> None:
        """Let the forward wait until the first inputs have been read, and hold them no longer."""
        name, inputs, version, done = self._reads.popleft()
        self._waiting_bytes -= inputs.nbytes
        torch.cuda.current_stream(self._device).wait_event(done)
        if inputs._version != version:
            raise ModelError(
                f"{name}: the model changes its inputs in place while they are read on the GPU; calibrate it on the "
                "processor, PRUNELIB_DEVICE=cpu"
            )
