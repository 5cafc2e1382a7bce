"""A calibration in shards: parts of its windows, whose Gram matrices are accumulated apart and then added in order.

Each shard is a task (:mod:`prunelib.runtime.tasks`). How many there are is part of the experiment, since it decides the
order of summation; how many workers share them is not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prunelib.calibration.accumulation import Blocks, calibrate_model
from prunelib.calibration.artifact import read_grams, read_windows, write_tokens
from prunelib.calibration.assembly import Assembly, Shard
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import InputStatistics
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import load_model
from prunelib.runtime.load import Load
from prunelib.runtime.progress import Meter
from prunelib.runtime.tasks import run_tasks

Windows = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class ShardCalibration:
    """The calibration of a model in shards, each a task.

    Attributes
    ----------
    folder, dtype, index
        The model, what it is loaded in, and its layers.
    settings
        Of the calibration, with the number of shards.
    scratch
        What an earlier run has finished (:mod:`prunelib.runtime.resume`).
    on_windows
        Told, once a block, how many windows have left it.
    """

    folder: Path
    dtype: str
    index: LayerIndex
    settings: CalibrationSettings
    scratch: Path
    on_windows: Callable[[int], None] = lambda _windows: None

    def __call__(self, shard: int) -> int:
        """Calibrate a shard, and return its number; the only one is the whole calibration."""
        model, scratch = load_model(self.folder, self.dtype, "cpu"), self.shard_folder(shard)
        windows, held_out = self.windows(shard)
        tokens = (windows.numel(), held_out.numel())
        blocks: Blocks = Shard(scratch, tokens) if self.settings.shards > 1 else self.assembly()
        calibrate_model(model, self.index, (windows, held_out), self.settings, blocks, scratch, self.on_windows)
        return shard

    @property
    def whole(self) -> Path:
        """The folder of the calibration over all windows."""
        return self.scratch / "calibration"

    def shard_folder(self, shard: int) -> Path:
        """Where a shard is calibrated."""
        return self.scratch / f"shard_{shard:03d}"

    def assembly(self) -> Assembly:
        """The calibration over all windows, once it has its tokens."""
        return Assembly(self.whole, self.folder, self.index, self.settings)

    def windows(self, shard: int) -> Windows:
        """The windows of a shard, consecutive ones, and those held out, of which there may be none."""
        windows, held_out = (part.tensor_split(self.settings.shards)[shard] for part in read_windows(self.whole))
        return windows, held_out

    def cost(self, shard: int) -> int:
        """How many windows leave the blocks of a shard."""
        return sum(map(len, self.windows(shard))) * self.index.blocks


def calibrate_in_shards(
    calibration: ShardCalibration, windows: Windows, drawn_from: Mapping[str, Any], bar: Meter
) -> Path:
    """Calibrate all shards, and add them up; where inputs depend on what is pruned, refinement finds them instead.

    Parameters
    ----------
    windows
        Those of the calibration and those held out, both (samples, length) int32; the second may have none.
    drawn_from
        What all windows were drawn from and how, the model's identity as ``model``.
    bar
        Counts windows once a block.

    Returns
    -------
    Path
        The folder of a whole calibration (:mod:`prunelib.calibration.artifact`), in ``calibration.scratch``.
    """
    write_tokens(calibration.whole, *windows, drawn_from)
    assembly = calibration.assembly()
    if calibration.settings.propagation == "dense":
        _accumulate(calibration, assembly, bar)
    assembly.finish()
    return calibration.whole


def _accumulate(calibration: ShardCalibration, assembly: Assembly, bar: Meter) -> None:
    """Write all blocks of the whole calibration."""

    def on_done(shard: int, load: Load) -> None:
        bar.advance(calibration.cost(shard), str(load))

    shards, here = range(calibration.settings.shards), replace(calibration, on_windows=bar.advance)
    run_tasks(calibration, shards, calibration.cost, calibration.scratch, on_done, here)
    folders = [calibration.shard_folder(shard) for shard in shards]
    for block in range(calibration.index.blocks):
        if block not in assembly:
            assembly.write(block, *_sums(read_grams(folder, block) for folder in folders))


def _sums(parts: Iterable[Sequence[Mapping[str, InputStatistics]]]) -> tuple[dict[str, InputStatistics], ...]:
    """The statistics of windows, and of those held out, over all parts."""
    sums: tuple[dict[str, InputStatistics], ...] = ({}, {})
    for part in parts:
        for total, more in zip(sums, part, strict=True):
            for name, statistics in more.items():
                total[name] = total[name].joined(statistics) if name in total else statistics
    return sums
