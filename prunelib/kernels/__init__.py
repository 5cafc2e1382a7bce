"""The inner loops: one interface (:mod:`.interface`), several engines, chosen by where the tensors are."""

import importlib
import warnings
from types import ModuleType

import torch


def engine(device: torch.device, operation: str) -> ModuleType:
    """The fastest engine's module of an operation: the compiled one for tensors on processors, else the plain one."""
    if device.type == "cpu":
        try:
            return importlib.import_module(f"prunelib.kernels.cpu.{operation}")
        except (ImportError, RuntimeError) as error:  # RuntimeError: numba finds no folder to cache in
            warnings.warn(
                f"numba cannot be used ({error}): {operation} run in plain torch, hundreds of times slower",
                stacklevel=2,
            )
    return importlib.import_module(f"prunelib.kernels.reference.{operation}")
