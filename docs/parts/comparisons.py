"""The default grid, `reports/`, and the other comparisons."""

from parts.committed import PATTERNS, TEXTS, cell, dense, reported
from parts.markdown import mean, table
from parts.methods import MAIN


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
        f"The lowest perplexity measured at 60% is **{wikipedia}** on Wikipedia (dense: "
        f"{dense('recommended/results.csv', TEXTS[0]):.1f}) and {speeches} on State of the Union addresses (dense: "
        f"{dense('recommended/results.csv', TEXTS[1]):.1f}), by swaps, refit swaps and three epochs of block "
        "reconstruction, calibrated on 256 windows of 512 tokens.\n"
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
