"""Calibration in shards: Gram matrices of each part of the windows, accumulated separately and summed in order.

Each shard is a task (:mod:`prunelib.runtime.tasks`). The number of shards is part of the experiment, since it decides
the order of summation; the number of workers is not.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prunelib.calibration.artifact import read_grams, read_windows, write_tokens
from prunelib.calibration.assembly import Assembly, GramFiles, token_counts
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import BlockStatistics, InputStatistics
from prunelib.calibration.whole_model import Blocks, calibrate_model
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import load_model
from prunelib.runtime.load import Load
from prunelib.runtime.machine import machine
from prunelib.runtime.progress import Meter
from prunelib.runtime.tasks import run_tasks

Windows = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class ShardCalibration:
    """The calibration of a model in shards, each a task.

    Attributes
    ----------
    folder, dtype, index
        The model's folder, the dtype it is loaded in, and its layers.
    settings
        Calibration settings, including the number of shards.
    scratch
        Folder of finished work, from which a later run resumes (:mod:`prunelib.runtime.resume`).
    on_windows
        Callback: receives the number of windows that have passed through a block.
    """

    folder: Path
    dtype: str
    index: LayerIndex
    settings: CalibrationSettings
    scratch: Path
    on_windows: Callable[[int], None] = lambda _windows: None

    def __call__(self, shard: int) -> int:
        """Calibrate a shard, and return its number; a single shard is written as the whole calibration."""
        model, scratch = load_model(self.folder, self.dtype, "cpu"), self.shard_folder(shard)
        windows = self.windows(shard)
        blocks: Blocks = GramFiles(scratch, token_counts(windows)) if self.settings.shards > 1 else self.assembly()
        calibrate_model(model, self.index, windows, self.settings, blocks, scratch, machine(), self.on_windows)
        return shard

    @property
    def whole(self) -> Path:
        """The folder of the calibration over all windows."""
        return self.scratch / "calibration"

    def shard_folder(self, shard: int) -> Path:
        """Return the scratch folder of a shard."""
        return self.scratch / f"shard_{shard:03d}"

    def assembly(self) -> Assembly:
        """Return the calibration over all windows; its tokens must have been written."""
        return Assembly(self.whole, self.folder, self.index, self.settings, machine().device)

    def windows(self, shard: int) -> Windows:
        """Return the windows of a shard, which are consecutive, and its held-out windows, possibly none."""
        windows, held_out = (part.tensor_split(self.settings.shards)[shard] for part in read_windows(self.whole))
        return windows, held_out

    def cost(self, shard: int) -> int:
        """Return the cost of a shard: its number of windows times the number of blocks."""
        return sum(map(len, self.windows(shard))) * self.index.blocks


def calibrate_in_shards(
    calibration: ShardCalibration, windows: Windows, drawn_from: Mapping[str, Any], bar: Meter
) -> Path:
    """Calibrate all shards and sum them; with sequential calibration inputs, write no Gram matrices.

    Parameters
    ----------
    windows
        Calibration and held-out windows, both (samples, length) int32; the second may be empty.
    drawn_from
        Provenance of the windows, with the model's identity as ``model``.
    bar
        Progress bar; counts each window once per block.

    Returns
    -------
    Path
        The finished calibration folder (:mod:`prunelib.calibration.artifact`), in ``calibration.scratch``.
    """
    write_tokens(calibration.whole, *windows, drawn_from)
    assembly = calibration.assembly()
    if calibration.settings.inputs.shared:
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
            assembly.write(block, _sums(read_grams(folder, block) for folder in folders))


def _sums(parts: Iterable[BlockStatistics]) -> BlockStatistics:
    """Sum the statistics of windows and of held-out windows over all parts."""
    sums: tuple[dict[str, InputStatistics], ...] = ({}, {})
    for part in parts:
        for total, more in zip(sums, part, strict=True):
            for name, statistics in more.items():
                total[name] = total[name].joined(statistics) if name in total else statistics
    return sums
