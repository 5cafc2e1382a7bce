"""The inner loops: one folder an operation, one interface (:mod:`.interface`), backends chosen by the tensors' device.

reference   plain torch on any device, the specification of the others
cpu         compiled by numba
cuda        compiled by Triton
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from prunelib.errors import StageError
from prunelib.runtime.compute import Compute

_COMPILERS = {"cpu": "numba", "cuda": "triton"}


def backend(device: torch.device, operation: str, compute: Compute) -> ModuleType:
    """Import the backend of an operation: the one compiled for the kind of device; the reference on other devices.

    ``compute.reference`` selects the reference on every device.

    Raises
    ------
    ImportError
        If a module of this project is missing or broken.
    StageError
        If the compiler cannot be used. The reference would take hundreds of times longer, and give other results.
    """
    compiler = _COMPILERS.get(device.type)
    if compiler is None or compute.reference:
        return importlib.import_module(f"prunelib.kernels.{operation}.reference")
    try:
        return importlib.import_module(f"prunelib.kernels.{operation}.{device.type}")
    except ImportError as error:
        if (getattr(error, "name", None) or "").startswith("prunelib"):
            raise
        raise StageError(
            f"{compiler} cannot be used ({error}): install it, or choose plain torch, hundreds of times slower, with "
            f"PRUNELIB_BACKEND=reference"
        ) from None


@contextmanager
def on_compilation(device: torch.device, notify: Callable[[], None]) -> Iterator[None]:
    """Call ``notify`` once when a kernel begins to compile; on a GPU at once, as Triton has no such event."""
    if device.type == "cuda":
        notify()
    try:
        from numba.core import event  # noqa: PLC0415 - without numba there is nothing to compile on a CPU
    except ImportError:
        yield
        return

    class Listener(event.Listener):
        notified = False

        def on_start(self, _event: event.Event) -> None:
            if not self.notified:
                self.notified = True
                notify()

        def on_end(self, _event: event.Event) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield
