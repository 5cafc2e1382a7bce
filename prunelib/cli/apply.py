"""Apply masks, and updated weights if there are any, to a dense model and write a pruned Hugging Face folder.

The masks are those of a refined cell (artifacts/refined/...), of an exported folder or of ``PruningResult.save``, and
must belong to this exact model; those of a model in memory do not know its files. Only the folder of a cell has updated
weights: the others provide masks alone.
"""

from pathlib import Path
from typing import Any

from prunelib.errors import ArtifactError
from prunelib.export.card import model_card
from prunelib.export.folder import export_model
from prunelib.export.origin import origin_of
from prunelib.masks.pruned import MASKS_FILE, read_pruned
from prunelib.model.structure import dtype_of, find_layers, load_model
from prunelib.runtime import store
from prunelib.sources.provenance import computed_identity

_MADE_FROM = ("tokens", "calibration", "pattern", "warmstart", "refiner")


def apply(folder: Path, masks: Path, target: Path) -> None:
    """Write the model in ``folder``, pruned by the masks in the folder ``masks``, to ``target``.

    Raises
    ------
    ArtifactError, ModelError, PatternError
        If a folder is invalid, or the masks do not belong to this model.
    """
    model, made_from = {"model": computed_identity(folder)}, _made_from(masks / MASKS_FILE)
    pruned = read_pruned(masks, model if "model" in made_from else {})
    methods = {**model, **made_from}
    index = find_layers(load_model(folder, dtype_of(folder), "cpu"), folder)
    card = model_card(folder.absolute().name, methods, None, None, origin_of(folder))
    export_model(folder, target, index, pruned, methods, card)


def _made_from(path: Path) -> dict[str, Any]:
    """Return what masks were made from and by; those of a model in memory do not know the model's files."""
    made_from = store.read_provenance(path, "mask")
    if missing := [key for key in _MADE_FROM if key not in made_from]:
        raise ArtifactError(
            f"{path}: its provenance has no {', '.join(missing)}, expected the masks of a refined cell "
            "(artifacts/refined/...), of an exported folder or of PruningResult.save"
        )
    return {key: made_from[key] for key in ("model", *_MADE_FROM) if key in made_from}
