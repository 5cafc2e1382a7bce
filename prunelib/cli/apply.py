"""Apply masks, and updated weights if there are any, to a dense model and write a pruned Hugging Face folder.

The masks are those of a refined cell (artifacts/refined/...) or of an exported folder, and must belong to this exact
model. Only the folder of a cell has updated weights: an exported one provides masks alone.
"""

import argparse
from pathlib import Path
from typing import Any

from prunelib.errors import ArtifactError
from prunelib.export.card import model_card
from prunelib.export.folder import export_model
from prunelib.export.origin import origin_of
from prunelib.masks.pruned import MASKS_FILE, read_pruned
from prunelib.model.structure import dtype_of, find_layers, load_model
from prunelib.runtime import store
from prunelib.runtime.console import one_line
from prunelib.sources.provenance import computed_identity

_MADE_FROM = ("model", "tokens", "pattern", "warmstart", "refiner")


def main() -> None:
    """Run the command line; a user error prints one line and exits with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", metavar="FOLDER", type=Path, required=True, help="the dense model, safetensors")
    parser.add_argument("--masks", metavar="FOLDER", type=Path, required=True, help=f"the folder with {MASKS_FILE}")
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="new or empty")
    arguments = parser.parse_args()
    with one_line():
        apply(arguments.model, arguments.masks, arguments.to)


def apply(folder: Path, masks: Path, target: Path) -> None:
    """Write the model in ``folder``, pruned by the masks in the folder ``masks``, to ``target``.

    Raises
    ------
    ArtifactError, ModelError, PatternError
        If a folder is invalid, or the masks do not belong to this model.
    """
    pruned = read_pruned(masks, {"model": computed_identity(folder)})
    methods = _methods(masks / MASKS_FILE)
    index = find_layers(load_model(folder, dtype_of(folder), "cpu"), folder)
    card = model_card(folder.absolute().name, methods, None, None, origin_of(folder))
    export_model(folder, target, index, pruned, methods, card)


def _methods(path: Path) -> dict[str, Any]:
    """Return what the masks of a refined cell were made from and by."""
    made_from = store.read_provenance(path, "mask")
    if missing := [key for key in _MADE_FROM if key not in made_from]:
        raise ArtifactError(
            f"{path}: its provenance has no {', '.join(missing)}, expected the masks of a refined cell "
            "(artifacts/refined/...) or of an exported folder"
        )
    return {key: made_from[key] for key in _MADE_FROM}


if __name__ == "__main__":
    main()
