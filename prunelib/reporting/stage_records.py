"""The records that the stages wrote of a cell, read together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunelib.cell import Cell
from prunelib.params import Params
from prunelib.records import (
    BlockResult,
    CellResult,
    LayerResult,
    Timing,
    read_cell,
    read_layers,
    read_timing,
)
from prunelib.reporting.cells import CellReport
from prunelib.workflow import identities, paths


@dataclass(frozen=True)
class StageRecords:
    """The records of a cell, and the identities and settings that they were made from; the dense model has no layers.

    ``timing`` is None if it is unknown, :func:`prunelib.records.read_timing`.
    """

    result: CellResult
    made_from: Mapping[str, Any]
    layers: Sequence[LayerResult] = ()
    blocks: Sequence[BlockResult] = ()
    timing: Timing | None = None

    @property
    def report(self) -> CellReport:
        """What a report shows of them."""
        return CellReport(self.result, self.layers, self.timing)


def read_stage_records(params: Params, cell: Cell, project: Path = Path()) -> StageRecords:
    """Read the records of a cell, which must be of the settings in ``params``; the artifacts may be elsewhere.

    Parameters
    ----------
    project
        The folder of the project that the stages ran in.

    Raises
    ------
    ArtifactError
        If a record is missing, damaged or not of ``params``.
    """
    methods = identities.methods(params, cell)
    expected = {**methods, **identities.evaluation_of(params, cell.model)}
    result, made_from = read_cell(project / paths.result_file(cell), expected)
    if cell.pattern is None:
        return StageRecords(result, made_from)
    path = project / paths.layers_file(cell)
    origin = {**methods, **{key: made_from.get(key) for key in ("model", "tokens", "calibration")}}
    records = read_layers(path, origin)
    return StageRecords(
        result,
        {**records.made_from, **made_from},
        layers=records.layers,
        blocks=records.blocks,
        timing=read_timing(project / paths.timing_file(cell), path),
    )
