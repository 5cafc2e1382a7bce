"""Apply masks, and updated weights if there are any, to a dense model and write a pruned Hugging Face folder.

The masks are those of a refined cell (artifacts/refined/...) or of an exported folder, and must belong to this exact
model. Only the folder of a cell has updated weights: an exported one provides masks alone.
"""

from pathlib import Path

from transformers import AutoConfig

from prunelib.export.card import model_card
from prunelib.export.folder import export_model
from prunelib.export.origin import origin_of
from prunelib.masks.pruned import MASKS_FILE, read_pruned
from prunelib.model.structure import find_layers, load_model
from prunelib.runtime import store
from prunelib.sources.provenance import computed_identity


def apply(folder: Path, masks: Path, target: Path) -> None:
    """Write the model in ``folder``, pruned by the masks in the folder ``masks``, to ``target``.

    Raises
    ------
    ArtifactError, ModelError, PatternError
        If a folder is invalid, or the masks do not belong to this model.
    """
    pruned = read_pruned(masks, {"model": computed_identity(folder)})
    made_from = store.read_provenance(masks / MASKS_FILE, "mask")
    dtype = AutoConfig.from_pretrained(folder, local_files_only=True).dtype
    index = find_layers(load_model(folder, str(dtype or "float32").removeprefix("torch."), "cpu"), folder)
    methods = {key: made_from[key] for key in ("model", "tokens", "pattern", "warmstart", "refiner")}
    card = model_card(folder.absolute().name, methods, None, None, origin_of(folder))
    export_model(folder, target, index, pruned, methods, card)
