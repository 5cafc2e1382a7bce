"""Whether config.json and the weight files of a folder describe the same model.

Before a model is loaded its weights are counted on torch's meta device, which takes no memory, and compared with the
headers of the files: what is missing there, transformers would fill with random numbers, at any size. Then the names
are compared by what transformers itself reports on loading, after its own conversions, tied weights and exceptions.
"""

import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig
from transformers.core_model_loading import revert_weight_conversion

from prunelib.errors import ModelError
from prunelib.model.meta import build_without_values
from prunelib.model.names import found_in_files
from prunelib.model.weights import StoredTensor
from prunelib.sources.block_counts import check_block_counts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Stored = Mapping[str, StoredTensor]
"""The tensors of a folder by name."""


def check_size(folder: Path, stored: Stored) -> None:
    """Refuse a config.json that describes a larger model than the files hold, before any weight is built or read.

    Parameters
    ----------
    stored
        :func:`prunelib.model.weights.stored_tensors` of the folder.

    Raises
    ------
    ModelError
        If it has more blocks than the files have tensors, or the model has more weights than they have; the message
        names the first tensor that is missing or of another shape.
    ValueError, RuntimeError, ImportError, OSError
        As transformers raises them, if it cannot build the model.
    """
    file = folder / "config.json"
    check_block_counts(file, str(file), len(stored))
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if getattr(config, "quantization_config", None) is not None:
        return  # several weights in one element; transformers asks for the packages that unpack them
    model = build_without_values(config)
    described, held = _weights(model), sum(prod(tensor.shape) for tensor in stored.values())
    if described > held:
        raise ModelError(
            _first_misfit(folder, model, stored)
            or f"{folder}: config.json describes a model of {described:,} weights, but its files hold {held:,}"
        )


def check_names(folder: Path, model: "PreTrainedModel", report: Mapping[str, Any], stored: Stored) -> None:
    """Refuse a model that lacks tensors, has them in other shapes, or leaves weights of its files out.

    Parameters
    ----------
    report
        The loading information of ``from_pretrained``.

    Raises
    ------
    ModelError
        The message names the first such tensor.
    """
    if missing := report["missing_keys"]:
        raise ModelError(_missing(folder, missing))
    if mismatched := report["mismatched_keys"]:
        name, found, expected = min(mismatched)
        tensor = _stored_as(name, model, stored)
        raise ModelError(_mismatched(tensor.file if tensor else folder, name, found, expected))
    unknown = {name: _stored_as(name, model, stored) for name in sorted(report["unexpected_keys"])}
    left_over = {name: tensor for name, tensor in unknown.items() if tensor is None or _holds_weights(tensor)}
    if left_over:
        name, tensor = next(iter(left_over.items()))
        described = f"{name} {tensor.shape} in {tensor.file.name}" if tensor else name
        raise ModelError(
            f"{folder}: {len(left_over)} tensors of its files are no part of the model that config.json describes, "
            f"first {described}"
        )


def _weights(model: "PreTrainedModel") -> int:
    """Return the number of weights that a model needs from its files; tied ones count once."""
    given = _matching(getattr(model, "_keys_to_ignore_on_load_missing", None) or ())
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not given(name))


def _matching(patterns: Iterable[str]) -> Any:
    expression = "|".join(f"(?:{pattern})" for pattern in patterns)
    return re.compile(expression or r"(?!)").search


def _first_misfit(folder: Path, model: "PreTrainedModel", stored: Stored) -> str:
    """Describe the first tensor that transformers would save of the model and the files lack; empty: none is found."""
    try:
        saved = revert_weight_conversion(model, dict(model.named_parameters()))
    except Exception:  # a conversion that reads values
        return ""
    found = {name: _stored_as(name, model, stored) for name in saved}
    for name in sorted(saved):
        tensor = found[name]
        if tensor is not None and tensor.shape != tuple(saved[name].shape):
            return _mismatched(tensor.file, name, tensor.shape, saved[name].shape)
    missing = [name for name in saved if found[name] is None]
    return _missing(folder, missing) if missing else ""


def _missing(folder: Path, names: Iterable[str]) -> str:
    names = sorted(names)
    return f"{folder}: {len(names)} tensors of the model are missing, first {names[0]}"


def _mismatched(where: Path, name: str, found: Iterable[int], expected: Iterable[int]) -> str:
    return f"{where}: {name} has shape {tuple(found)}, but config.json says {tuple(expected)}"


def _stored_as(name: str, model: "PreTrainedModel", stored: Stored) -> StoredTensor | None:
    found = found_in_files(name, model.base_model_prefix, stored)
    return None if found is None else stored[found]


def _holds_weights(tensor: StoredTensor) -> bool:
    """Return whether a tensor may be weights, not a mask, positions or a constant, which earlier releases stored."""
    return tensor.is_floating_point and prod(tensor.shape) > 1
