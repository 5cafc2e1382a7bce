"""A calibration in shards: parts of its windows, calibrated each alone, whose Gram matrices are then added in order.

Each shard is a task (:mod:`prunelib.engine`). How many there are is part of the experiment, since it decides the order
of summation; how many workers share them is not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prunelib import store
from prunelib.calibration.accumulation import calibrate_model
from prunelib.calibration.artifact import read_grams
from prunelib.calibration.assembly import Assembly
from prunelib.calibration.gram import CalibrationSettings
from prunelib.calibration.statistics import InputStatistics
from prunelib.engine import distributed, run_tasks
from prunelib.model.layers import LayerIndex
from prunelib.model.structure import load_model
from prunelib.progress import Meter

Windows = tuple[torch.Tensor, torch.Tensor]
_WINDOWS, _KIND = "windows.safetensors", "windows"


@dataclass(frozen=True)
class ShardCalibration:
    """The calibration of a model in shards, each a task.

    Attributes
    ----------
    folder, dtype, index
        The model, what it is loaded in, and its layers.
    settings
        Of the calibration, with the number of shards.
    drawn_from
        What all windows were drawn from and how, the model's identity as ``model``.
    scratch
        What an earlier run has finished (:mod:`prunelib.resume`).
    on_windows
        Told, once a block, how many windows have left it.
    """

    folder: Path
    dtype: str
    index: LayerIndex
    settings: CalibrationSettings
    drawn_from: Mapping[str, Any]
    scratch: Path
    on_windows: Callable[[int], None] = lambda _windows: None

    def __call__(self, shard: int) -> int:
        """Calibrate a shard, and return its number."""
        model, settings = load_model(self.folder, self.dtype, "cpu"), self.settings
        if settings.shards > 1:  # an expert may see few tokens in each and enough in all
            settings = settings.model_copy(update={"least_tokens": 0})
        windows, scratch = self.windows(shard), self.shard_folder(shard)
        calibrate_model(model, self.folder, self.index, windows, settings, self.drawn_from, scratch, self.on_windows)
        return shard

    def shard_folder(self, shard: int) -> Path:
        """Where a shard is calibrated."""
        return self.scratch / f"shard_{shard:03d}"

    def windows(self, shard: int) -> Windows:
        """The windows of a shard, consecutive ones, and those held out, of which there may be none."""
        given = store.read_tensors(self.scratch / _WINDOWS, _KIND)
        windows, held_out = (given[part].tensor_split(self.settings.shards)[shard] for part in ("seen", "held_out"))
        return windows, held_out

    def cost(self, shard: int) -> int:
        """How many windows leave the blocks of a shard."""
        return sum(map(len, self.windows(shard))) * self.index.blocks


def calibrate_in_shards(calibration: ShardCalibration, windows: Windows, bar: Meter) -> Path:
    """Calibrate all shards, and add them up.

    Parameters
    ----------
    windows
        Those of the calibration and those held out, both (samples, length) int32; the second may have none.
    bar
        Counts windows once a block.

    Returns
    -------
    Path
        The folder of a whole calibration (:mod:`prunelib.calibration.artifact`), in ``calibration.scratch``.
    """
    scratch, shards = calibration.scratch, range(calibration.settings.shards)
    store.write_tensors(scratch / _WINDOWS, dict(zip(("seen", "held_out"), windows, strict=True)), _KIND, {})
    if distributed():
        run_tasks(
            calibration,
            shards,
            calibration.cost,
            scratch,
            lambda shard, load: bar.advance(calibration.cost(shard), str(load)),
        )
    else:
        run_tasks(replace(calibration, on_windows=bar.advance), shards, calibration.cost, scratch)
    folders = [calibration.shard_folder(shard) / "calibration" for shard in shards]
    return folders[0] if len(folders) == 1 else _added(calibration, windows, folders)


def _added(calibration: ShardCalibration, windows: Windows, folders: Sequence[Path]) -> Path:
    index, settings = calibration.index, calibration.settings
    assembly = Assembly(calibration.scratch, calibration.folder, index, windows, settings, calibration.drawn_from)
    for block in range(index.blocks) if settings.propagation == "dense" else ():
        if block not in assembly:
            assembly.write(block, _sums(read_grams(folder, block) for folder in folders))
    return assembly.finish()


def _sums(parts: Iterable[Sequence[Mapping[str, InputStatistics]]]) -> tuple[dict[str, InputStatistics], ...]:
    """The statistics of windows, and of those held out, over all parts."""
    sums: tuple[dict[str, InputStatistics], ...] = ({}, {})
    for part in parts:
        for total, more in zip(sums, part, strict=True):
            for name, statistics in more.items():
                total[name] = total[name].joined(statistics) if name in total else statistics
    return sums
