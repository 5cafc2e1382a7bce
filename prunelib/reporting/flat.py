"""The rows of the CSV files: one flat record per cell and seed, and one per pruned matrix."""

from prunelib.reporting.comparisons import Comparisons
from prunelib.reporting.digits import significant
from prunelib.reporting.records import CellReport, Report, as_text
from prunelib.results import LayerResult

Record = dict[str, str | float | None]


def cell_records(report: Report) -> list[Record]:
    """Return the rows of results.csv: fractions, not percent; None for unknown values."""
    comparisons = Comparisons(report.cells)
    return [_cell_record(report, comparisons, cell) for cell in report.cells]


def _cell_record(report: Report, comparisons: Comparisons, cell: CellReport) -> Record:
    result = cell.result
    return {
        **_names(cell),
        "updated": as_text(cell.updated),
        "sparsity": result.sparsity,
        "coverage": result.coverage,
        "relative_error": result.relative_error,
        "error_reduction": result.error_reduction,
        "error_vs_wanda": comparisons.error_vs_wanda(cell),
        "optimality_gap": comparisons.optimality_gap(cell),
        "optimality_gap_total": comparisons.optimality_gap_total(cell),
        **_evaluation(report, cell),
        "swaps_per_row": cell.swaps_per_row,
        "optimal_share": cell.optimal_share,
        "steps": steps(cell),
    }


def timing_record(cell: CellReport) -> Record:
    """Return a cell's row of timing.csv: refinement time (total and per step), memory, machine; None if unknown."""
    timing = cell.timing
    return {
        "cell": cell.key,
        "seconds": timing.seconds if timing else None,
        "step_seconds": " > ".join(f"{seconds:.2f}" for seconds in timing.step_seconds) if timing else None,
        "peak_bytes": timing.peak_bytes if timing else None,
        "machine": timing.machine if timing else None,
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
    """Return ``sparsefw 0.830 > sparseswaps 0.710``: the error after each step, relative to the warm start's.

    Errors are summed over all layers. None if the refiner is not a chain.
    """
    chains = list(zip(*(layer.steps for layer in cell.layers), strict=True))
    if len(chains) < 2:
        return None
    start = sum(layer.loss_before for layer in cell.layers) or 1.0
    left = (sum(step.loss_after for step in of_layers) / start for of_layers in chains)
    return " > ".join(f"{of[0].method} {significant(share)}" for of, share in zip(chains, left, strict=True))


def layer_record(cell: CellReport, layer: LayerResult) -> Record:
    """Return one row of layers.csv: the layer's record without the steps of a chain, and derived values."""
    return {
        **_names(cell),
        **layer.model_dump(exclude={"steps"}),
        "updated": as_text(layer.updated),
        "relative_error": layer.relative_error,
        "error_reduction": layer.error_reduction,
        "swaps_per_row": None if layer.swaps is None else layer.swaps / layer.rows,
    }


def _names(cell: CellReport) -> Record:
    return {"cell": cell.key, **cell.cell.model_dump()}
