"""Accumulate input statistics on a side CUDA stream, overlapped with the forward pass.

On the CPU they are accumulated synchronously.
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
    """Return the side stream, one per process: each stream that multiplies matrices allocates its own workspace."""
    return torch.cuda.Stream(device)


class _Read(NamedTuple):
    """A pending read: inputs, their version counter when queued, and the event recorded when the read is done."""

    name: str
    inputs: torch.Tensor
    version: int
    done: torch.cuda.Event


class SideStreamReader:
    """Reader of inputs on a side stream, overlapped with the forward pass that produces them.

    The forward pass's stream blocks while more than ``WAITING_BYTES`` of inputs are unread. Inputs are referenced until
    they have been read, so that their memory is not reused. Leaving the context, also on an error, synchronises the
    stream.

    Parameters
    ----------
    device
        Device of the inputs.
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
        """Run ``work`` on the inputs of the layer of this name; successive calls run in order.

        Raises
        ------
        ModelError
            If the model changed earlier inputs in place while they were possibly unread.
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
        """Block the forward pass's stream until all inputs have been read.

        Raises
        ------
        ModelError
            As :meth:`read`.
        """
        while self._reads:
            self._release_first()

    def _release_first(self) -> None:
        """Block the forward pass's stream until the oldest inputs have been read, then drop the reference to them."""
        name, inputs, version, done = self._reads.popleft()
        self._waiting_bytes -= inputs.nbytes
        torch.cuda.current_stream(self._device).wait_event(done)
        if inputs._version != version:
            raise ModelError(
                f"{name}: the model changes its inputs in place while they are read on the GPU; calibrate it on the "
                "CPU (PRUNELIB_DEVICE=cpu)"
            )
