"""The report of evaluated cells: their records as the rows of the CSV files."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prunelib.records import LayerResult
from prunelib.reporting.baselines import Baselines
from prunelib.reporting.cells import CellReport
from prunelib.reporting.digits import significant
from prunelib.reporting.report import Record, Report


def report_of(
    cells: Sequence[CellReport], texts: Sequence[str], tasks: Sequence[str], *, shared_inputs: bool = True, **shown: Any
) -> Report:
    """Return the report of evaluated cells.

    Parameters
    ----------
    shared_inputs
        Whether cells that differ in warm start or refiner alone have the same Gram matrices.
    shown
        The labels, settings and provenance of :class:`Report`.
    """
    baselines = Baselines(cells, shared=shared_inputs)
    return Report(
        cells=[{**_cell_record(baselines, cell, texts, tasks), **_timing_record(cell)} for cell in cells],
        layers=[_layer_record(cell, layer) for cell in cells for layer in cell.layers],
        texts=texts,
        tasks=tasks,
        measured={**_windows(cells, texts), **_items(cells, tasks)},
        samples={cell.cell.key: cell.result.samples for cell in cells if cell.result.samples},
        **shown,
    )


def _cell_record(baselines: Baselines, cell: CellReport, texts: Sequence[str], tasks: Sequence[str]) -> Record:
    """Return a row of results.csv: fractions, not percent."""
    result = cell.result
    return {
        **_names(cell),
        "updated": cell.updated,
        "sparsity": result.sparsity,
        "coverage": result.coverage,
        "relative_error": result.relative_error,
        "error_reduction": result.error_reduction,
        "block_error": result.block_error,
        "error_vs_wanda": baselines.error_vs_wanda(cell),
        "optimality_gap": baselines.optimality_gap(cell),
        "optimality_gap_total": baselines.optimality_gap_total(cell),
        **_evaluation(cell, texts, tasks),
        "swaps_per_row": cell.swaps_per_row,
        "optimal_share": cell.optimal_share,
        "steps": _steps(cell),
    }


def _timing_record(cell: CellReport) -> Record:
    """Return a row of timing.csv: refinement time (total and per step), memory, machine."""
    timing = cell.timing
    return {
        "cell": cell.cell.key,
        "seconds": timing.seconds if timing else None,
        "step_seconds": " > ".join(f"{seconds:.2f}" for seconds in timing.step_seconds) if timing else None,
        "peak_bytes": timing.peak_bytes if timing else None,
        "machine": timing.machine if timing else None,
    }


def _evaluation(cell: CellReport, texts: Sequence[str], tasks: Sequence[str]) -> Record:
    record: dict[str, float | None] = {}
    for text in texts:
        perplexity = cell.result.perplexity.get(text)
        record[f"perplexity_{text}"] = perplexity.value if perplexity else None
    for name in tasks:
        task = cell.result.tasks.get(name)
        record[f"acc_{name}"] = task.acc if task else None
        record[f"acc_stderr_{name}"] = task.acc_stderr if task else None
    return record


def _steps(cell: CellReport) -> str | None:
    """Return ``sparsefw 0.830 > sparseswaps 0.710``: the error after each step, relative to the warm start's.

    Errors are summed over all layers. None if the refiner is not a chain.
    """
    chains = list(zip(*(layer.steps for layer in cell.layers), strict=True))
    if len(chains) < 2:
        return None
    start = sum(layer.loss_before for layer in cell.layers) or 1.0
    left = (sum(step.loss_after for step in of_layers) / start for of_layers in chains)
    return " > ".join(f"{of[0].method} {significant(share)}" for of, share in zip(chains, left, strict=True))


def _layer_record(cell: CellReport, layer: LayerResult) -> Record:
    """Return a row of layers.csv: the layer's record without the steps of a chain, and derived values.

    Those of the error are None if blocks were reconstructed afterwards.
    """
    return {
        **_names(cell),
        **layer.model_dump(exclude={"steps"}),
        "relative_error": None if cell.reconstructed else layer.relative_error,
        "error_reduction": None if cell.reconstructed else layer.error_reduction,
        "swaps_per_row": None if layer.swaps is None else layer.swaps / layer.rows,
    }


def _names(cell: CellReport) -> Record:
    return {"cell": cell.cell.key, **cell.cell.model_dump()}


def _windows(cells: Sequence[CellReport], texts: Sequence[str]) -> Mapping[str, str]:
    """Return ``4,088 predicted tokens in 8 windows`` by text."""
    found = {text: [cell.result.perplexity[text] for cell in cells if text in cell.result.perplexity] for text in texts}
    return {
        text: f"{_either(each.tokens for each in results)} predicted tokens in "
        f"{_either(each.windows for each in results)} windows of held-out text"
        for text, results in found.items()
        if results
    }


def _items(cells: Sequence[CellReport], tasks: Sequence[str]) -> Mapping[str, str]:
    """Return ``version 1.0, 50 items`` by task."""
    found = {task: [cell.result.tasks[task] for cell in cells if task in cell.result.tasks] for task in tasks}
    return {
        task: f"version {' or '.join(sorted({each.version for each in results}))}, "
        f"{' or '.join(sorted({each.items_measured for each in results}))}"
        for task, results in found.items()
        if results
    }


def _either(counts: Iterable[int]) -> str:
    return " or ".join(f"{count:,}" for count in sorted(set(counts)))
