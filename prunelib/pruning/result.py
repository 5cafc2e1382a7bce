"""The result of pruning a model in memory: its masks and the records of its layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunelib.masks.packed import write_masks
from prunelib.masks.pruned import MASKS_FILE
from prunelib.model.layers import LayerIndex
from prunelib.model.masked import apply_masks
from prunelib.records import BlockResult, LayerResult, write_layers
from prunelib.runtime.atomic import replacing_folder, require_new

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

_RECORDS = "layers.json"
_SHAPES = ["name", "kind", "block", "rows", "inputs", "kept"]
_FIGURES = ["energy", "swaps", "optimal_rows", "bound", "updated"]


@dataclass(frozen=True, repr=False)
class PruningResult:
    """What :func:`prunelib.prune` did to a model; printed, it is a table of the kinds of layers.

    Attributes
    ----------
    masks
        Layer name to (rows, inputs) bool, True = kept; a bit per weight in memory, unpacked on access. Layers are named
        as transformers saves their weights.
    records
        The figures of each layer, in the order of the model.
    seconds
        The refinement time of each layer.
    reconstructions
        The error of each block before and after block reconstruction; empty without it.
    index
        Where the layers are in the model, and what of its blocks stayed dense.
    provenance
        What the masks were made from: the hash of the calibration tokens, and the settings of pattern, warm start and
        refiner.
    """

    masks: Mapping[str, torch.Tensor]
    records: Sequence[LayerResult]
    seconds: Sequence[float]
    reconstructions: Sequence[BlockResult]
    index: LayerIndex
    provenance: Mapping[str, Any]

    @property
    def layers(self) -> "pd.DataFrame":
        """A row per layer: shape, kept weights, pruning error before and after refinement, swaps, bound, seconds.

        ``error_before`` and ``error_after`` are ||W X - (M*W) X||^2 over the calibration tokens, ``energy`` is
        ||W X||^2. A figure that the refiner does not have is empty.
        """
        import pandas as pd  # noqa: PLC0415 - a heavy import, needed here alone

        records = pd.DataFrame([record.model_dump(exclude={"steps"}) for record in self.records])
        errors = records[["loss_before", "loss_after"]].set_axis(["error_before", "error_after"], axis=1)
        return pd.concat([records[_SHAPES], errors, records[_FIGURES]], axis=1).assign(seconds=self.seconds)

    def save(self, folder: Path | str) -> None:
        """Write ``masks.safetensors`` and ``layers.json`` to a new or empty folder.

        ``prunelib apply`` and :func:`prunelib.read_masks` read it. Weights that a refiner updated are in the model, not
        in the result: save the model, too.

        Raises
        ------
        ArtifactError
            If the folder is not empty, or a file cannot be written.
        """
        with replacing_folder(require_new(Path(folder))) as target:
            write_masks(target / MASKS_FILE, self.masks, self.provenance)
            write_layers(target / _RECORDS, self.records, self.provenance, self.reconstructions)

    def apply(self, model: "PreTrainedModel") -> None:
        """Set the pruned weights of another model of this architecture to exactly +0.0; raise as ``apply_masks``."""
        apply_masks(model, self.masks)

    def __repr__(self) -> str:
        """Return a line on the settings, and a table of sums over each kind of layer."""
        layers = self.layers
        layers["weights"] = layers["rows"] * layers["inputs"]
        sums = layers.groupby("kind", sort=False)[["weights", "kept", "error_before", "error_after", "seconds"]].sum()
        sums.loc["all"] = sums.sum()
        sums["reduction"] = 1 - sums["error_after"] / sums["error_before"]
        formats = {"weights": "{:,.0f}", "kept": "{:,.0f}", "reduction": "{:.1%}", "seconds": "{:.1f}"}
        formatters = {name: form.format for name, form in formats.items()}
        return f"{len(layers)} layers\n{sums.to_string(formatters=formatters, float_format='{:.4g}'.format)}"
