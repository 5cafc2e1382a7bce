"""Tables and sentences of README.md and of the site, from the figures that git has.

    python docs/tables.py        # puts them between the markers of the FILLED files

A block NAME is between ``<!-- NAME -->`` and ``<!-- /NAME -->`` there; other pages of the site have ``{{ NAME }}``.
Figures of reports/ are read from git, since a run on this machine may have changed the files.
"""

from parts import benchmarks, comparisons, families, methods
from parts.committed import ROOT

TABLES = {
    "headline": methods.headline,
    "cost": benchmarks.cost,
    "families": families.sentence,
    "families_listed": families.listed,
    "families_in_table": families.in_table,
    "default_grid": comparisons.default_grid,
    "methods_compared": methods.methods,
    "other_patterns": methods.other_patterns,
    "choose": methods.choose,
    "recommended": comparisons.recommended,
    "recipe": comparisons.recipe,
    "overfitting": comparisons.overfitting,
    "budgets": methods.budgets,
    "calibration_text": benchmarks.calibration_text,
    "updated_weights": benchmarks.updated_weights,
    "dense_targets": benchmarks.dense_targets,
    "reconstruction": benchmarks.reconstruction,
    "reconstruction_settings": benchmarks.reconstruction_settings,
    "speed": benchmarks.speed,
    "kills": benchmarks.kills,
    "damages": benchmarks.damages,
    "benchmarks": benchmarks.benchmarks,
}

PAGES = ("results", "choose", "reliability", "how-to/model")
FILLED = tuple(
    ROOT / name for name in ("README.md", "benchmarks/README.md", *(f"docs/pages/{page}.md" for page in PAGES))
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
