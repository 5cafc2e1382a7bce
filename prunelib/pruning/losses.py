"""The losses of finished rows, in a progress bar."""

from prunelib.pruning.refined_blocks import FinishedBlocks, RefinedBlock
from prunelib.runtime.load import Load, OnDone
from prunelib.runtime.progress import Meter


class Losses:
    """Running sums of the losses of all rows, shown in a progress bar."""

    def __init__(self, bar: Meter) -> None:
        self._bar, self._before, self._after, self._load = bar, 0.0, 0.0, ""

    def add_finished(self, block: RefinedBlock) -> None:
        """Add the layers of a finished block."""
        for layer in block.records:
            self.add(len(block.step_seconds) * layer.rows, layer.loss_before, layer.loss_after)

    def add_from(self, finished: FinishedBlocks) -> OnDone[int]:
        """Return a callback that adds a block finished by a worker, given its number."""

        def add(block: int, load: Load) -> None:
            self._load = f", {load}"
            self.add_finished(finished.read(block))

        return add

    def add(self, rows: int, loss_before: float, loss_after: float) -> None:
        """Add rows; a :data:`prunelib.methods.contract.Progress`."""
        self._before += loss_before
        self._after += loss_after
        change = self._after / self._before - 1 if self._before else 0.0
        sign = "+" if change > 0 else ""
        self._bar.advance(rows, f"error {self._before:.4g} -> {self._after:.4g} ({sign}{change:z.1%}){self._load}")
