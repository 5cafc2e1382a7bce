"""The comparison of methods, `reports/methods`: all methods, the main ones, and what to choose."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from parts.committed import PATTERNS, TEXTS, benchmarked, cell, dense, measured, reported
from parts.markdown import mean, table

MAIN = ("row60", "nm24")
FIGURES = {"error_vs_wanda": "error / Wanda's", "perplexity_wikipedia": "perplexity", "seconds": "seconds"}
MASKS = {  # label: warm start and refiner in params.yaml
    "random": ("random", "none"),
    "magnitude": ("magnitude", "none"),
    "Wanda": ("wanda", "none"),
    "RIA": ("ria", "none"),
    "SparseGPT's mask": ("sparsegpt", "none"),
    "SparseSwaps, T = 1": ("wanda", "swaps_t1"),
    "SparseSwaps, T = 10": ("wanda", "swaps_t10"),
    "SparseSwaps, T = 100": ("wanda", "swaps_t100"),
    "SparseSwaps, optimum": ("wanda", "swaps"),
    "block moves": ("wanda", "blocks"),
    "DSnoT, all layers": ("wanda", "dsnot"),
    "DSnoT, MLPs skipped, as in its script": ("wanda", "dsnot_attention"),
    "DSnoT, all layers, same sign": ("wanda", "dsnot_same_sign"),
    "Frank-Wolfe, line search, 50 iterations, alpha 0.9": ("wanda", "fw_line_search"),
    "Frank-Wolfe's relaxation solved, alpha 0.9": ("wanda", "fw_alpha"),
    "Frank-Wolfe's relaxation solved, alpha 0": ("wanda", "fw_free"),
    "SparseFW, then swaps": ("wanda", "fw_swaps"),
}
UPDATED = {
    "Wanda, least squares": ("wanda", "least_squares"),
    "SparseGPT": ("sparsegpt", "sparsegpt_update"),
    "swaps, least squares": ("wanda", "swaps_least_squares"),
    "ADMM, least squares": ("wanda", "admm_least_squares"),
    "swaps, refit swaps": ("wanda", "swaps_refit"),
    "ALPS": ("wanda", "alps"),
    "ALPS, refit swaps": ("wanda", "alps_refit"),
    "ADMM, refit swaps": ("wanda", "admm_refit"),
}
RECONSTRUCTED = {
    "swaps, refit swaps, blocks reconstructed": ("wanda", "swaps_refit_reconstruct"),
}
METHODS = MASKS | UPDATED | RECONSTRUCTED
"""The methods that keep the model's weights, those that update them by matrices, and those that do by blocks."""


def of_method(label: str, pattern: str, column: str) -> list[float]:
    """Return a method's values in the comparison of methods, one a calibration draw."""
    wanted = (pattern, *METHODS[label])
    rows = [row for row in reported("methods/results.csv") if cell(row) == wanted]
    if column == "seconds":
        seconds = benchmarked("method_times")["seconds"]  # of some cells
        found = [seconds[row["cell"]] for row in rows if row["cell"] in seconds]
        return [fmean(found)] if found else []
    return [float(row[column]) for row in rows if row[column]]


def shown(label: str, pattern: str, column: str) -> str:
    """Return an entry of a table of methods."""
    values = of_method(label, pattern, column)
    large = column == "seconds" or (bool(values) and fmean(values) >= 1000)
    return mean(values, 3 if column == "error_vs_wanda" else 0 if large else 1)


def compared(labels: Iterable[str], patterns: Sequence[str], columns: Mapping[str, str]) -> list[list[str]]:
    """Return a table of methods: the headings, then a row for each; ``columns`` have their names in the headings."""
    headings = ["", *(f"{PATTERNS[pattern]}: {name}" for pattern in patterns for name in columns.values())]
    rows = ([label, *(shown(label, pattern, each) for pattern in patterns for each in columns)] for label in labels)
    return [headings, *rows]


def times() -> str:
    """Return the line below a table with seconds."""
    return (
        f"\nSeconds: refinement alone, of 210 matrices; {measured(benchmarked('method_times'))}. Where there are none, "
        "reports/methods/timing.csv has those of a machine under load.\n"
    )


def headline() -> str:
    """Return the result of README.md's first screen: a table and the sentence that reads it."""
    rows = {
        "Wanda": "Wanda",
        "+ SparseSwaps": "SparseSwaps, optimum",
        "+ refit swaps": "swaps, refit swaps",
        "+ block reconstruction": "swaps, refit swaps, blocks reconstructed",
    }
    error, perplexity, seconds = ("error_vs_wanda", 2), ("perplexity_wikipedia", 1), ("seconds", 0)
    shown = [("row60", error), ("row60", perplexity), ("row60", seconds), ("nm24", error), ("nm24", perplexity)]
    before = f"{dense('methods/results.csv', perplexity[0]):.1f}"
    entries = [["dense", "", "", before, "", "", before]]
    for name, label in rows.items():
        figures = (
            mean([fmean(found)] if (found := of_method(label, pattern, each)) else [], digits)
            for pattern, (each, digits) in shown
        )
        entries.append([name, "the model's" if label in MASKS else "updated", *figures])
    headings = (
        "",
        "kept weights",
        "60%: error / Wanda's",
        "perplexity",
        "seconds",
        "2:4: error / Wanda's",
        "perplexity",
    )
    cut = 100 * (1 - float(entries[2][2]))
    return table(headings, entries, left=2) + (
        f"\nAt 60%, swaps remove {cut:.0f}% of the error of Wanda's mask and cut perplexity from {entries[1][3]} to "
        f"{entries[2][3]}. Updating the kept weights brings it to {entries[3][3]}, block reconstruction to "
        f"{entries[4][3]}; the dense model's is {before}. {reconstruction_time()}\n"
    )


def reconstruction_time() -> str:
    """Return a sentence on what block reconstruction takes, of the comparison's own run."""
    steps = {row["cell"]: row["step_seconds"].split(" > ") for row in reported("methods/timing.csv")}
    [method] = RECONSTRUCTED.values()
    minutes = {
        row["pattern"]: f"{float(steps[row['cell']][-1]) / 60:.0f} min at {PATTERNS[row['pattern']]}"
        for row in reported("methods/results.csv")
        if cell(row)[1:] == method
    }
    return f"Block reconstruction adds {' and '.join(minutes[pattern] for pattern in MAIN)}, on a machine under load."


def methods() -> str:
    """Return the comparison of all methods."""
    names = ("error / Wanda's", "Wikipedia", "speeches", "seconds")
    columns = dict(zip(("error_vs_wanda", *TEXTS, "seconds"), names, strict=True))
    headings, *rows = compared(METHODS, MAIN, columns)
    empty = [""] * (len(headings) - 1)
    rows.insert(len(METHODS) - len(RECONSTRUCTED), ["*kept weights updated, block by block:*", *empty])
    rows.insert(len(MASKS), ["*kept weights updated, matrix by matrix:*", *empty])
    return table(headings, rows) + times()


def other_patterns() -> str:
    """Return the main methods at further patterns."""
    labels = ("Wanda", "SparseSwaps, optimum", "SparseGPT", "ADMM, least squares", "swaps, refit swaps")
    columns = {"error_vs_wanda": "error / Wanda's", "perplexity_wikipedia": "Wikipedia"}
    headings, *rows = compared(labels, ("row50", "row70", "nm48"), columns)
    return table(headings, rows)


def choose() -> str:
    """Return the decision table: what is wanted, what to run, what it costs and gives."""
    wishes = {
        "the cheapest mask": ("Wanda", "`--refiner none`"),
        "a good mask for the model's own weights": ("SparseSwaps, optimum", "`--refiner sparseswaps`"),
        "a slightly better mask, and certified bounds": (
            "SparseFW, then swaps",
            "`--refiner sparsefw --refiner sparseswaps`",
        ),
        "updated weights, fast": ("SparseGPT", "`--warmstart sparsegpt --refiner sparsegpt_update`"),
        "updated weights, lower error": ("swaps, least squares", "`--refiner sparseswaps --refiner least_squares`"),
        "updated weights, lower error still": ("swaps, refit swaps", "`--refiner sparseswaps --refiner refit_swaps`"),
        "updated weights, lowest error": ("ALPS, refit swaps", "`--refiner alps --refiner refit_swaps`"),
        "the lowest perplexity": (
            "swaps, refit swaps, blocks reconstructed",
            "`--refiner sparseswaps --refiner refit_swaps --refiner block_reconstruction`",
        ),
    }
    headings, *rows = compared((label for label, _ in wishes.values()), MAIN, FIGURES)
    options = [[wish, words, *row[1:]] for (wish, (_, words)), row in zip(wishes.items(), rows, strict=True)]
    return table(["you want", "options of `prunelib prune`", *headings[1:]], options, left=2) + times()


def figures(labels: str) -> str:
    """Return the measured rows of some methods, separated by semicolons, beside Wanda's."""
    headings, *rows = compared(dict.fromkeys(["Wanda", *map(str.strip, labels.split(";"))]), MAIN, FIGURES)
    return table(headings, rows) + times()


def budgets() -> str:
    """Return what sparsity that differs by block gives: methods at 70%, and block reconstruction at 60%."""
    allocations = {"the same in all blocks": "", "OWL": "_owl", "DLP": "_dlp", "ATP": "_atp"}
    matrices = ("Wanda", "SparseSwaps, optimum", "SparseGPT", "swaps, refit swaps")
    shown = [("row70", label) for label in matrices] + [("row60", label) for label in RECONSTRUCTED]
    found = {cell(row): row for name in ("methods", "budgets") for row in reported(f"{name}/results.csv")}

    def perplexities(pattern: str, label: str) -> str:
        row = found.get((pattern, *METHODS[label]))
        return " / ".join(f"{float(row[text]):.1f}" for text in TEXTS) if row else ""

    headings = ("", *(f"{PATTERNS[pattern].removesuffix(' per row')}: {label}" for pattern, label in shown))
    rows = (
        [name, *(perplexities(f"{pattern}{suffix}", label) for pattern, label in shown)]
        for name, suffix in allocations.items()
    )
    return table(headings, rows)
