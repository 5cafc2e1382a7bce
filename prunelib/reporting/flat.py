"""The report's cells as flat records, one a cell and seed, and one a pruned matrix: the rows of the CSV files."""

from collections.abc import Sequence

from prunelib.reporting.comparisons import Comparisons
from prunelib.reporting.digits import significant
from prunelib.reporting.records import CellReport, Report, as_text
from prunelib.results import LayerResult, StepResult

Record = dict[str, str | float | None]


def cell_records(report: Report) -> list[Record]:
    """The rows of results.csv: fractions as fractions, ``seconds``, ``peak_bytes``; None where nothing is known."""
    comparisons = Comparisons(report.cells)
    return [_cell_record(report, comparisons, cell) for cell in report.cells]


def _cell_record(report: Report, comparisons: Comparisons, cell: CellReport) -> Record:
    result, timing = cell.result, cell.timing
    return {
        **_names(cell),
        "moved": as_text(cell.moved),
        "sparsity": result.sparsity,
        "coverage": result.coverage,
        "relative_error": result.relative_error,
        "error_reduction": result.error_reduction,
        "error_vs_wanda": comparisons.error_vs_wanda(cell),
        "certified_room": comparisons.certified_room(cell),
        "certified_room_total": comparisons.certified_room_total(cell),
        **_evaluation(report, cell),
        "swaps_per_row": cell.swaps_per_row,
        "optimal_share": cell.optimal_share,
        "seconds": timing.seconds if timing else None,
        "peak_bytes": timing.peak_bytes if timing else None,
        "steps": steps(cell),
    }


def _evaluation(report: Report, cell: CellReport) -> Record:
    record: Record = {}
    for text in report.texts:
        perplexity = cell.result.perplexity.get(text)
        record[f"perplexity_{text}"] = perplexity.value if perplexity else None
    for name in report.tasks:
        task = cell.result.tasks.get(name)
        record[f"acc_{name}"] = task.acc if task else None
        record[f"acc_stderr_{name}"] = task.acc_stderr if task else None
    return record


def steps(cell: CellReport) -> str | None:
    """``sparsefw 0.830 (12 s) > sparseswaps 0.710 (40 s)``: error left of the warm start's, over all layers, and time.

    None for a refiner that is no chain.
    """
    chains = list(zip(*(layer.steps for layer in cell.layers), strict=True))
    if len(chains) < 2:
        return None
    start = sum(layer.loss_before for layer in cell.layers) or 1.0
    seconds = cell.timing.step_seconds if cell.timing else (None,) * len(chains)
    return " > ".join(_step(step, start, cost) for step, cost in zip(chains, seconds, strict=True))


def _step(of_layers: Sequence[StepResult], start: float, seconds: float | None) -> str:
    left = significant(sum(step.loss_after for step in of_layers) / start)
    return f"{of_layers[0].method} {left}" + ("" if seconds is None else f" ({significant(seconds, 2)} s)")


def layer_record(cell: CellReport, layer: LayerResult) -> Record:
    """One row of layers.csv: the layer's record without the steps of a chain, and what follows from it."""
    return {
        **_names(cell),
        **layer.model_dump(exclude={"steps"}),
        "moved": as_text(layer.moved),
        "relative_error": layer.relative_error,
        "error_reduction": layer.error_reduction,
        "swaps_per_row": None if layer.swaps is None else layer.swaps / layer.rows,
    }


def _names(cell: CellReport) -> Record:
    return {"cell": cell.key, **cell.cell.model_dump()}
