"""Which data the Gram matrices describe: the section ``calibration`` of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from prunelib.settings import Settings


class CalibrationSettings(Settings):
    """Which data the Gram matrices describe.

    Attributes
    ----------
    text
        Name of the text that the windows are drawn from.
    samples, length
        Number of windows, and tokens in each.
    batch
        Windows a forward pass: part of the experiment, since it decides the order of summation.
    held_out_samples
        Further windows of the same draw, with Gram matrices of their own, for refiners that stop on them.
    draw
        ``stream``: disjoint windows of the whole text; ``documents``: each somewhere in a document that is longer, as
        SparseGPT's and Wanda's scripts draw theirs from C4.
    propagation
        Whose inputs: ``dense``, those of the stock model, which serve every method; ``block``, those that a block gets
        from the pruned blocks before it; ``sub_block``, also those that a layer gets from the pruned layers before it
        in its block. These two belong to one cell, so its refinement finds them.
    least_tokens
        An expert that fewer tokens are routed to is pruned as if its inputs were independent and of one size.
    shards
        Parts of the windows that are calibrated each alone, perhaps at once (:mod:`prunelib.runtime.tasks`), and added
        up in order: part of the experiment like ``batch``.
    """

    text: str
    samples: int = Field(ge=1)
    length: int = Field(ge=2)
    batch: int = Field(ge=1)
    held_out_samples: int = Field(default=0, ge=0)
    draw: Literal["stream", "documents"] = "stream"
    propagation: Literal["dense", "block", "sub_block"] = "dense"
    least_tokens: int = Field(default=64, ge=1)
    shards: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _held_out_windows_are_apart(self) -> "CalibrationSettings":
        if self.draw == "documents" and self.held_out_samples:
            raise ValueError(
                f"draw: documents may draw a document twice, so that the windows of held_out_samples = "
                f"{self.held_out_samples} cannot be kept apart; use draw: stream"
            )
        return self

    @model_validator(mode="after")
    def _every_shard_has_a_window(self) -> "CalibrationSettings":
        if self.shards > self.samples:
            raise ValueError(f"shards must be at most samples: {self.shards} > {self.samples}")
        return self
