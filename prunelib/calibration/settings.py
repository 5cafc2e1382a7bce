"""The section ``calibration`` of params.yaml: the data that the Gram matrices are computed from."""

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from prunelib.settings import Count, Length, Settings


class CalibrationInputs(StrEnum):
    """The forward pass that a layer's calibration inputs come from.

    ``dense``: that of the dense model; ``sequential``: through the already pruned blocks, as in the scripts of Wanda
    and SparseGPT; ``true_sequential``: also through the already pruned layers of the same block.
    """

    DENSE = "dense"
    SEQUENTIAL = "sequential"
    TRUE_SEQUENTIAL = "true_sequential"

    @property
    def shared(self) -> bool:
        """Whether all cells share the inputs: then the calibrate stage stores their Gram matrices.

        Otherwise the refine stage accumulates those of each cell, which depend on its masks.
        """
        return self is CalibrationInputs.DENSE


ACCUMULATION = ("inputs", "batch", "shards", "min_tokens", "dense_target")
"""The settings that determine the Gram matrices of a model over given tokens; all others determine the tokens."""


class CalibrationSettings(Settings):
    """The data that the Gram matrices are computed from.

    Attributes
    ----------
    text
        Name of the text that the windows are drawn from.
    samples, length
        Number of windows, and tokens in each.
    batch
        Windows per forward pass; part of the experiment, since it decides the order of summation.
    held_out_samples
        Further windows of the same draw, with separate Gram matrices, for refiners with early stopping.
    draw
        ``stream``: disjoint windows of the whole text; ``documents``: each at a random position in a longer document,
        as SparseGPT's and Wanda's scripts draw theirs from C4.
    inputs
        The forward pass that calibration inputs come from.
    dense_target
        How much of what pruning has changed in a layer's inputs its weight makes up for before it is pruned, from 0 to
        1 (:mod:`prunelib.calibration.dense_targets`). Above 0, all refiners update kept weights; only with
        ``true_sequential`` inputs. Left out of records if 0.
    min_tokens
        Experts that get fewer tokens are pruned as if their inputs were independent with equal second moments.
    shards
        Number of parts of the windows; they are calibrated independently, possibly in parallel
        (:mod:`prunelib.runtime.tasks`), and summed in order. Part of the experiment, like ``batch``.
    """

    text: str
    samples: Count
    length: Length
    batch: Count
    held_out_samples: int = Field(default=0, ge=0, le=10**9)
    draw: Literal["stream", "documents"] = "stream"
    inputs: CalibrationInputs = CalibrationInputs.DENSE
    dense_target: float = Field(default=0.0, ge=0, le=1, exclude_if=lambda share: share == 0)
    min_tokens: Count = 64
    shards: Count = 1

    @property
    def gram_sets(self) -> int:
        """Number of Gram matrices of each input: one, and one over the held-out windows if there are any."""
        return 2 if self.held_out_samples else 1

    @property
    def streams(self) -> int:
        """Number of models that the windows run through: one, or the pruned and the dense one."""
        return 2 if self.dense_target else 1

    @model_validator(mode="after")
    def _held_out_windows_are_apart(self) -> "CalibrationSettings":
        if self.draw == "documents" and self.held_out_samples:
            raise ValueError(
                f"draw: documents may draw a document twice, so that held-out windows (held_out_samples = "
                f"{self.held_out_samples}) could overlap with the others; use draw: stream"
            )
        return self

    @model_validator(mode="after")
    def _targets_are_of_other_inputs(self) -> "CalibrationSettings":
        if self.dense_target and self.inputs is not CalibrationInputs.TRUE_SEQUENTIAL:
            raise ValueError(
                f"dense_target = {self.dense_target:g}: expected inputs = true_sequential, found {self.inputs}; with "
                "others nothing changes, or several matrices of a block make up for the same change"
            )
        return self

    @model_validator(mode="after")
    def _every_shard_has_a_window(self) -> "CalibrationSettings":
        if self.shards > self.samples:
            raise ValueError(f"shards must be at most samples: {self.shards} > {self.samples}")
        return self
