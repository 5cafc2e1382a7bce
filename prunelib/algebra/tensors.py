"""What a function of the library is given: a tensor with values in memory, or one line that says what it is."""

from typing import Any

import torch

from prunelib.errors import NumericalError


def values(name: str, given: Any) -> torch.Tensor:
    """Return the values of a tensor, possibly a parameter, without its gradient.

    Raises
    ------
    NumericalError
        If it is no tensor, sparse, or without data; the message begins with ``name``.
    """
    if not isinstance(given, torch.Tensor):
        raise NumericalError(f"{name}: {type(given).__name__}, expected a torch.Tensor")
    if given.layout != torch.strided or given.is_meta:
        raise NumericalError(f"{name}: {given.layout} on device {given.device}, expected a dense tensor with data")
    return given.detach()


def real(name: str, given: Any) -> torch.Tensor:
    """Return :func:`values` of a tensor of real floating point.

    Raises
    ------
    NumericalError
        As :func:`values`, or if it has another dtype.
    """
    tensor = values(name, given)
    if not tensor.is_floating_point():
        raise NumericalError(f"{name}: {tensor.dtype}, expected real floating point")
    return tensor


def real_matrix(name: str, given: Any) -> torch.Tensor:
    """Return :func:`real` of a tensor (rows, inputs) with at least one input.

    Raises
    ------
    NumericalError
        As :func:`real`, or if it has another shape.
    """
    tensor = real(name, given)
    if tensor.ndim != 2 or tensor.shape[1] == 0:
        raise NumericalError(f"{name}: shape {tuple(tensor.shape)}, expected (rows, inputs)")
    return tensor


def address(tensor: torch.Tensor) -> object:
    """Return what identifies the beginning of a tensor's memory, real or not, while the tensor is referenced."""
    return (tensor.untyped_storage()._cdata, tensor.storage_offset()) if tensor.is_meta else tensor.data_ptr()
