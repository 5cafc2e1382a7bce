"""Small reports with known numbers, for the tests of reporting."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from prunelib.cell import Cell
from prunelib.records import CellResult, LayerResult, PerplexityResult, TaskResult, Timing
from prunelib.reporting import Report
from prunelib.reporting.cells import CellReport
from prunelib.reporting.figures import Drawing, draw
from prunelib.reporting.flat import report_of

DENSE, MAGNITUDE, WANDA = 26.0, 520.0, 110.0
PROMPT, WRITTEN = "Once upon <a> time", "there was <b>markup</b> & one word: " + 400 * "a"
KINDS = {"q_proj": (8, 16), "up_proj": (24, 16), "down_proj": (8, 48)}


def layers(swaps: int | None, reduction: float, start: float = 1.0, **known: Any) -> list[LayerResult]:
    """Layers of rising error: 1, 2, ... of 10 before refinement, each cut by the same share; ``start`` scales all."""
    return [
        LayerResult(
            name=f"model.layers.{block}.{kind}",
            kind=kind,
            block=block,
            rows=rows,
            inputs=inputs,
            kept=rows * inputs // 2,
            loss_before=start * (1 + index),
            loss_after=start * (1 + index) * (1 - reduction),
            energy=10.0,
            swaps=swaps,
            optimal_rows=None if swaps is None else rows,
            **known,
        )
        for index, (block, (kind, (rows, inputs))) in enumerate(product(range(2), KINDS.items()))
    ]


def result(cell: Cell, perplexity: Mapping[str, float], **figures: float) -> CellResult:
    """A cell's result with one task whose accuracy falls with the first perplexity."""
    accuracy = 0.7 - next(iter(perplexity.values()), 0.0) / 1000
    return CellResult(
        cell=cell,
        perplexity={text: PerplexityResult(value=value, tokens=8176, windows=16) for text, value in perplexity.items()},
        tasks={"piqa": TaskResult(acc=accuracy, acc_stderr=0.048, items=100, version="1.0")},
        samples={PROMPT: WRITTEN},
        **{"sparsity": 0.0, "coverage": 1.0, **figures},
    )


def dense(model: str = "tiny", texts: Sequence[str] = ("wiki", "sotu")) -> CellReport:
    """The unpruned model."""
    return CellReport(result(Cell(model=model), dict.fromkeys(texts, DENSE)))


def pruned(
    warmstart: str = "wanda",
    refiner: str = "swaps",
    pattern: str = "row60",
    model: str = "tiny",
    texts: Sequence[str] = ("wiki", "sotu"),
    seed: int = 0,
    **known: Any,
) -> CellReport:
    """A pruned cell; a refiner other than ``none`` halves the error and makes six swaps a layer.

    Each further seed raises errors by a tenth, the perplexity by 1, and memory by a byte. ``known`` is known of all
    layers.
    """
    refined = refiner != "none"
    made = layers(6 if refined else None, 0.5 if refined else 0.0, 1 + seed / 10, **known)
    perplexity = (MAGNITUDE if warmstart == "magnitude" else WANDA) / (2 if refined else 1) + seed
    cell = Cell(model=model, seed=seed, pattern=pattern, warmstart=warmstart, refiner=refiner)
    figures = {
        "sparsity": 0.5989,
        "relative_error": sum(layer.relative_error for layer in made) / len(made),
        "error_reduction": 0.5 if refined else 0.0,
    }
    timing = Timing(
        layers_sha256="", step_seconds=(12.345678901234567,), peak_bytes=1_234_567_890 + seed, machine="one of ours"
    )
    return CellReport(result(cell, dict.fromkeys(texts, perplexity), **figures), made, timing)


def reconstructed(refiner: str = "reconstruct", error: float = 0.125) -> CellReport:
    """A cell whose blocks were reconstructed, with this error left."""
    cell = pruned(refiner=refiner, updated=True)
    figures = {"relative_error": None, "error_reduction": None, "block_error": error}
    return replace(cell, result=cell.result.model_copy(update=figures))


def report(cells: Sequence[CellReport], **changes: Any) -> Report:
    """A report of some cells."""
    given = {
        "texts": ("wiki", "sotu"),
        "tasks": ("piqa",),
        "prompts": (PROMPT,),
        "labels": {"patterns": {"row60": "60% per row", "nm24": "2:4"}},
        "settings": {
            "calibration": {"text": "wiki", "seed": 0},
            "refiners": {"none": {}, "swaps": {"max_swaps": None}},
        },
        "provenance": {"Model": "a tiny model", "Command": "dvc repro"},
    }
    return report_of(cells, **(given | changes))


def draws() -> list[CellReport]:
    """Wanda at one pattern, as it is and refined, over three draws of the calibration tokens."""
    return [dense(), *(pruned(refiner=name, seed=seed) for seed in range(3) for name in ("none", "swaps"))]


def apart() -> list[CellReport]:
    """Two masks, the second with a bound for every layer, and two cells with updated weights, listed between them."""
    updated = [pruned(start, "refit", updated=True) for start in ("magnitude", "wanda")]
    return [dense(), pruned(refiner="none"), *updated, pruned(bound=0.1)]


def grid(models: Sequence[str] = ("tiny",), refiners: Sequence[str] = ("none", "swaps")) -> Report:
    """The report of :func:`product_of`."""
    return report(product_of(models, refiners))


def product_of(models: Sequence[str] = ("tiny",), refiners: Sequence[str] = ("none", "swaps")) -> list[CellReport]:
    """Two patterns, two warm starts and the given refiners, with the dense model before them."""
    cells = []
    for model in models:
        cells.append(dense(model))
        names = product(("row60", "nm24"), ("magnitude", "wanda"), refiners)
        cells += [pruned(start, refiner, pattern, model) for pattern, start, refiner in names]
    return cells


CELLS = {
    "grid": product_of(),
    "dense only": [dense()],
    "one cell": [dense(), pruned()],
    "reconstructed": [dense(), pruned(), pruned(refiner="refit", updated=True), reconstructed()],
    "no dense": [pruned(refiner="none"), pruned()],
    "nothing refined": [dense(), pruned(refiner="none")],
    "no text": [dense(texts=()), pruned(texts=())],
    "a text in one cell only": [dense(texts=("wiki",)), pruned(texts=("wiki", "sotu"))],
    "several models": product_of(("tiny", "small")),
    "several refiners": product_of(refiners=("none", "swaps_t100", "swaps")),
    "several seeds": draws(),
    "updated weights": apart(),
}
CASES = {case: report(cells) for case, cells in CELLS.items()}


@cache
def drawn(case: str) -> dict[str, Drawing]:
    """The figures of a case by name, drawn once for all tests."""
    return {drawing.name: drawing for drawing in draw(CASES[case])}
