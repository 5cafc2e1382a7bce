"""Tables and sentences of README.md and of the site, from the figures that git has.

    python docs/tables.py        # puts them between the markers of README.md and of three pages

A block NAME is between ``<!-- NAME -->`` and ``<!-- /NAME -->`` there; other pages of the site have ``{{ NAME }}``.
Figures of reports/ are read from git, since a run on this machine may have changed the files.
"""

import csv
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
TEXTS = ("perplexity_wikipedia", "perplexity_sotu")
PATTERNS = {
    "row50": "50% per row",
    "row60": "60% per row",
    "row70": "70% per row",
    "nm24": "2:4",
    "nm48": "4:8",
    "nm68": "6:8",
}
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

Rows = list[dict[str, str]]


@cache
def reported(name: str) -> Rows:
    """Return the rows of a CSV file under reports/, as git has it."""
    words = ("git", "show", f":reports/{name}")
    return list(csv.DictReader(subprocess.check_output(words, cwd=ROOT, text=True).splitlines()))


def benchmarked(name: str) -> dict[str, Any]:
    """Return a file under benchmarks/results/."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def measured(record: Mapping[str, Any]) -> str:
    """Return machine, date and commit of a measurement, for the line below its table."""
    found = record["measured"]
    return f"{found['machine']}; {found['date']}, commit {found['commit']}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table: the first ``left`` columns aligned to the left, the others to the right."""
    lines = [headings, ["---" if column < left else "---:" for column in range(len(headings))], *rows]
    return "".join(f"| {' | '.join(entry.replace('|', chr(92) + '|') for entry in line)} |\n" for line in lines)


def mean(values: Sequence[float], digits: int) -> str:
    """Return the mean, with the standard deviation where there are several values; empty for none."""
    if not values:
        return ""
    shown = f"{fmean(values):,.{digits}f}"
    return f"{shown} ± {stdev(values):.{digits}f}" if len(values) > 1 else shown


def of_method(label: str, pattern: str, column: str) -> list[float]:
    """Return a method's values in the comparison of methods, one a calibration draw."""
    wanted = (pattern, *METHODS[label])
    rows = [row for row in reported("methods/results.csv") if cell(row) == wanted]
    if column == "seconds":
        seconds = benchmarked("method_times")["seconds"]  # of some cells
        found = [seconds[row["cell"]] for row in rows if row["cell"] in seconds]
        return [fmean(found)] if found else []
    return [float(row[column]) for row in rows if row[column]]


def cell(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Return pattern, warm start and refiner."""
    return row["pattern"], row["warmstart"], row["refiner"]


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
        "reports/methods/timing.csv has those of a busier machine.\n"
    )


def dense(name: str, column: str) -> float:
    """Return a perplexity of the dense model."""
    return next(float(row[column]) for row in reported(name) if not row["pattern"])


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
        f"\nAt 60%, swaps remove {cut:.0f}% of Wanda's error and bring perplexity from {entries[1][3]} to "
        f"{entries[2][3]}; with updated weights it is {entries[3][3]}, and {entries[4][3]} with blocks reconstructed; "
        f"the dense model has {before}. {reconstruction_time()}\n"
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
    return f"Block reconstruction adds {' and '.join(minutes[pattern] for pattern in MAIN)}, on a busy machine."


def cost() -> str:
    """Return what `make run` takes."""
    run = benchmarked("main_run")
    return (
        f"Set-up takes {run['setup_seconds'] / 60:.0f} min with the packages in pip's cache, the run "
        f"{run['run_seconds'] / 60:.0f} min and at most {run['peak_bytes'] / 1e9:.1f} GB of memory "
        f"({measured(run)}; no GPU). With torch for CPUs the environment fills {run['environment_bytes'] / 1e9:.1f} GB "
        f"of disk and the run {run['project_bytes'] / 1e9:.1f} GB.\n"
    )


def default_grid() -> str:
    """Return the results of params.yaml's own grid."""
    cells = {cell(row): row for row in reported("results.csv")}
    wikipedia, speeches = (f"{dense('results.csv', text):.2f}" for text in TEXTS)
    rows = [["", "dense", "", "", wikipedia, "", speeches, ""]]
    for pattern in MAIN:
        for name, start in (("magnitude", "magnitude"), ("Wanda", "wanda"), ("RIA", "ria")):
            pair = [cells[pattern, start, refiner] for refiner in ("none", "swaps")]
            errors = [f"{100 * float(each['relative_error']):.3g}" for each in pair]
            texts = [f"{float(each[text]):,.1f}" for text in TEXTS for each in pair]
            rows.append([PATTERNS[pattern], name, *errors, *texts])
    return table(
        (
            "pattern",
            "warm start",
            "error, %",
            "refined",
            "perplexity, Wikipedia",
            "refined",
            "perplexity, speeches",
            "refined",
        ),
        rows,
        left=2,
    )


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


def recommended() -> str:
    """Return what the recommended recipe gives at the patterns that have been run, and the dense model beside it."""
    rows = sorted(reported("recommended/results.csv"), key=lambda row: float(row["sparsity"]))
    minutes = {
        row["cell"]: sum(map(float, row["step_seconds"].split(" > "))) / 60
        for row in reported("recommended/timing.csv")
    }
    tasks = {"PIQA": "piqa", "ARC easy": "arc_easy"}
    entries = (
        [
            PATTERNS[row["pattern"]] if row["pattern"] else "dense",
            *(f"{float(row[text]):.1f}" for text in TEXTS),
            *(
                f"{100 * float(row[f'acc_{task}']):.0f} ± {100 * float(row[f'acc_stderr_{task}']):.0f}"
                for task in tasks.values()
            ),
            f"{minutes[row['cell']]:.0f}" if row["cell"] in minutes else "",
        ]
        for row in rows
    )
    return table(("", "Wikipedia", "speeches", *(f"{name}, %" for name in tasks), "minutes"), entries)


def recipe() -> str:
    """Return the sentence on the recommended recipe, at 60% per row."""
    [row] = [each for each in reported("recommended/results.csv") if each["pattern"] == "row60"]
    wikipedia, speeches = (f"{float(row[text]):.1f}" for text in TEXTS)
    return (
        f"The lowest perplexity measured at 60% is **{wikipedia}** on Wikipedia, {speeches} on the speeches (dense "
        f"{dense('recommended/results.csv', TEXTS[0]):.1f}, {dense('recommended/results.csv', TEXTS[1]):.1f}): swaps, "
        "refit swaps and three epochs of block reconstruction, all on 256 windows of 512 tokens.\n"
    )


def overfitting() -> str:
    """Return plain swaps beside damping and early stopping."""
    refiners = {"plain": "swaps", "damping 0.1": "swaps_damped", "early stopping": "swaps_held_out"}
    rows = []
    for pattern in ("row50", "row60", "nm24"):
        found = (
            [
                float(row[text])
                for row in reported("overfitting/results.csv")
                if cell(row) == (pattern, "wanda", refiner)
            ]
            for text in TEXTS
            for refiner in refiners.values()
        )
        rows.append([PATTERNS[pattern], *(mean(values, 1) for values in found)])
    return table(("", *(f"{text}: {name}" for text in ("Wikipedia", "speeches") for name in refiners)), rows)


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


def calibration_text() -> str:
    """Return how much the calibration text matters."""
    result = benchmarked("calibration_text")
    rows = (
        [
            each["text"],
            each["windows"],
            f"{100 * each['mean_layer_reduction']:.1f}%",
            *(f"{each['perplexity'][name]:.1f}" for name in ("dense", "wanda", "swaps")),
        ]
        for each in result["records"]
    )
    headings = ("calibration text", "windows", "Wanda's error removed", "perplexity, dense", "Wanda", "refined")
    return table(headings, rows, left=2) + f"\n{measured(result)}.\n"


def reconstruction() -> str:
    """Return what block reconstruction takes beside its own passes."""
    result = benchmarked("reconstruction")
    return (
        f"A block takes {result['median_ratio']:.2f} times the forward and backward passes that it needs "
        f"({measured(result)}).\n"
    )


def reconstruction_settings() -> str:
    """Return perplexities of the default model with its first blocks pruned, and reconstructed by other settings."""
    result = benchmarked("reconstruction_settings")
    texts = {"Wikipedia": "wikipedia", "speeches": "sotu"}
    rows = (
        [record["variation"], *(f"{record['perplexity'][text]:.2f}" for text in texts.values())]
        for record in result["records"]
        if (record["pattern"], record["start"], record["blocks"]) == ("row60", "swaps_refit", 6)
    )
    return table(("", *texts), rows) + f"\n{measured(result)}.\n"


def updated_weights() -> str:
    """Return what lowers the error further once weights are updated."""
    result = benchmarked("updated_weights")
    records = {(each["way"], each["pattern"]): each for each in result["records"]}
    patterns = ("60% per row", "2:4")
    rows = (
        [
            way,
            *(
                f"{records[way, pattern][key]:.{digits}f}"
                for pattern in patterns
                for key, digits in (("error", 3), ("times", 1))
            ),
        ]
        for way in dict.fromkeys(way for way, _ in records)
    )
    headings = ("", *(f"{pattern}: {name}" for pattern in patterns for name in ("error / Wanda's", "time, x")))
    return table(headings, rows) + f"\n{measured(result)}.\n"


def speed() -> str:
    """Return the ranges of the compiled kernels' speed."""
    result = benchmarked("refine")

    def between(mode: str, *patterns: str) -> str:
        found = [e["times_reference"] for e in result["records"] if e["mode"] == mode and e["pattern"] in patterns]
        return f"{min(found):,.0f} to {max(found):,.0f}"

    rows = (
        ("ten best swaps a row", "60% per row, 2:4", between("10 best swaps", "60% per row", "2:4")),
        ("to a verified optimum, by sweeps", "60% per row", between("sweeps to the optimum", "60% per row")),
        ("to a verified optimum, by best swaps", "2:4", between("best swaps to the optimum", "2:4")),
    )
    return (
        table(("CPU kernels against the plain reference", "pattern", "times as fast"), rows, left=2)
        + f"\n{measured(result)}.\n"
    )


def kills() -> str:
    """Return how many interrupted stages went on, and how many differed."""
    result = benchmarked("kills")
    return table(
        ("stages killed", "results that differ", "stages stuck"),
        [[f"{result[key]:,}" for key in ("kills", "different", "stuck")]],
    )


def damages() -> str:
    """Return what became of damaged input files."""
    result = benchmarked("damages")
    keys = ("damages", "one line", "right result", "traceback", "wrong", "hang")
    return table(keys, [[f"{result[key]:,}" for key in keys]]) + f"\n{measured(result)}.\n"


def families() -> str:
    """Return how many model types are pruned as by brute force."""
    result = benchmarked("families")
    right = [each for each in result["families"] if each["outcome"] == "right"]
    return (
        f"Of the {len(result['families'])} causal model types of transformers {result['transformers']}, "
        f"{len(right)} are right: tiny ones with random weights are pruned exactly as by a brute-force reference.\n"
    )


def benchmarks() -> str:
    """Return every file of benchmarks/results as tables, with machine, date and versions."""
    parts = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = benchmarked(path.stem)
        versions = ", ".join(f"{key} {value}" for key, value in result["measured"].items())
        parts.append(f"## {path.stem}\n\n{versions}\n\n{_scalars(result)}")
        parts += [_records(key, value) for key, value in result.items() if _is_records(value) and key != "families"]
    return "\n".join(parts)


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _scalars(result: Mapping[str, Any]) -> str:
    rows = [[f"`{key}`", _figure(value)] for key, value in result.items() if isinstance(value, int | float | str)]
    return table(("", "value"), rows) if rows else ""


def _records(name: str, records: Sequence[Mapping[str, Any]]) -> str:
    keys = [key for key, value in records[0].items() if not isinstance(value, dict | list)]
    rows = ([_figure(each.get(key)) for key in keys] for each in records)
    return f"`{name}`\n\n" + table([f"`{key}`" for key in keys], rows)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "" if value is None else str(value)


TABLES = {
    "headline": headline,
    "cost": cost,
    "families": families,
    "default_grid": default_grid,
    "methods_compared": methods,
    "other_patterns": other_patterns,
    "choose": choose,
    "recommended": recommended,
    "recipe": recipe,
    "overfitting": overfitting,
    "budgets": budgets,
    "calibration_text": calibration_text,
    "updated_weights": updated_weights,
    "reconstruction": reconstruction,
    "reconstruction_settings": reconstruction_settings,
    "speed": speed,
    "kills": kills,
    "damages": damages,
    "benchmarks": benchmarks,
}
FILLED = tuple(
    ROOT / name for name in ("README.md", *(f"docs/pages/{page}.md" for page in ("results", "choose", "reliability")))
)
"""Files with tables between markers, so that they can be read without the site."""


def filled(text: str) -> str:
    """Return a text with the present figures between its markers."""
    for name, block in TABLES.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        if start:
            _, end, after = rest.partition(f"<!-- /{name} -->")
            text = f"{before}{start}{block()}{end}{after}"
    return text


if __name__ == "__main__":
    for path in FILLED:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
