"""The inner loops: one interface (:mod:`.interface`), several engines, chosen by where the tensors are."""

import importlib
import warnings
from types import ModuleType

import torch


def engine(device: torch.device) -> ModuleType:
    """The fastest engine for tensors on this device: the compiled one for processors, else the plain one."""
    if device.type == "cpu":
        try:
            return importlib.import_module("prunelib.kernels.cpu")
        except (ImportError, RuntimeError) as error:  # RuntimeError: numba finds no folder to cache in
            warnings.warn(
                f"numba cannot be used ({error}): swaps run in plain torch, hundreds of times slower", stacklevel=2
            )
    return importlib.import_module("prunelib.kernels.reference")
