"""Apply masks, and updated weights if there are any, to a dense model and write a pruned Hugging Face folder.

The masks are those of a refined cell (artifacts/refined/...), of an exported folder or of ``PruningResult.save``, and
must belong to this exact model; those of a model in memory do not know its files. Only the folder of a cell has updated
weights: the others provide masks alone, and the dense model's weights are kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from prunelib.errors import ArtifactError, ParamsError
from prunelib.export.card import model_card
from prunelib.export.folder import export_model
from prunelib.export.origin import origin_of
from prunelib.masks.pruned import MASKS_FILE, Pruned, read_pruned
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import dtype_of, find_layers, load_model
from prunelib.pruning.chains import AnyRefiner, updates_weights
from prunelib.runtime import atomic, store
from prunelib.runtime.progress import note
from prunelib.sources.provenance import computed_identity

_MADE_FROM = ("tokens", "calibration", "pattern", "warmstart", "refiner")


def apply(folder: Path, masks: Path, target: Path) -> None:
    """Write the model in ``folder``, pruned by the masks in the folder ``masks``, to ``target``.

    Raises
    ------
    ArtifactError, ModelError, PatternError
        If a folder is invalid, or the masks do not belong to this model.
    """
    target = atomic.require_new(target)
    masks = masks.parent if masks.name == MASKS_FILE else masks
    model, made_from = {"model": computed_identity(folder)}, _made_from(masks / MASKS_FILE)
    pruned = read_pruned(masks, model if "model" in made_from else {})
    methods = {**model, **made_from}
    if not pruned.weights and _updates_weights(made_from):
        note(f"{masks}: the updated weights of these masks are not here: the dense model's are kept")
        methods["kept_weights"] = "of the dense model"
    index = find_layers(load_model(folder, dtype_of(folder), "cpu"), folder)
    card = model_card(folder.resolve().name, methods, None, None, origin_of(folder))
    export_model(folder, target, index, Pruned(_by_name_in_files(pruned.masks, index), pruned.weights), methods, card)


def _updates_weights(made_from: Mapping[str, Any]) -> bool:
    if made_from["calibration"].get("dense_target"):
        return True
    try:
        settings = TypeAdapter(AnyRefiner).validate_python(made_from["refiner"])
    except (ParamsError, ValidationError):
        return False  # not a method of this version
    return updates_weights(settings)


def _by_name_in_files(masks: Mapping[str, torch.Tensor], index: LayerIndex) -> Mapping[str, torch.Tensor]:
    """Return masks by the names that layers have in the files: a model in memory may have others (GPT-2)."""
    names = {layer.module: layer.name for layer in index.layers if layer.module}
    return {names.get(name, name): mask for name, mask in masks.items()} if names.keys() & masks.keys() else masks


def _made_from(path: Path) -> dict[str, Any]:
    """Return what masks were made from and by; those of a model in memory do not know the model's files."""
    made_from = store.read_provenance(path, "mask")
    if missing := [key for key in _MADE_FROM if key not in made_from]:
        raise ArtifactError(
            f"{path}: its provenance has no {', '.join(missing)}, expected the masks of a refined cell "
            "(artifacts/refined/...), of an exported folder or of PruningResult.save"
        )
    return {key: made_from[key] for key in ("model", *_MADE_FROM) if key in made_from}
