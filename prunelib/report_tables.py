"""The tables of a finished report as pandas DataFrames, for notebooks and for drawing its page again."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from prunelib.errors import ArtifactError, first_line

if TYPE_CHECKING:
    import pandas as pd

_NAMES = dict.fromkeys(("cell", "model", "pattern", "warmstart", "refiner", "name", "kind", "machine", "steps"), "str")
_COUNTS = dict.fromkeys(("seed", "tokens", "swaps", "sweeps", "optimal_rows", "peak_bytes"), "Int64")
_TYPES = {**_NAMES, "step_seconds": "str", **_COUNTS}


def results(path: str | Path = "reports") -> "pd.DataFrame":
    """Return the figures of a report, one row per cell.

    Parameters
    ----------
    path
        Folder of a report: ``reports``, or ``reports/NAME`` of a comparison.

    Returns
    -------
    pandas.DataFrame
        The columns of results.csv, then those of timing.csv: the names of the cell (``model``, ``seed``, ``pattern``,
        ``warmstart``, ``refiner``), errors and accuracies as fractions, ``perplexity_TEXT``, ``seconds``,
        ``peak_bytes``; unknown values are missing. The dense model has only its perplexities and accuracies.

    Raises
    ------
    ArtifactError
        If results.csv is missing, or a file is not a table or lacks the names of the cells.
    """
    folder = Path(path)
    cells = _read(folder / "results.csv", ("cell", "model", "seed", "pattern", "warmstart", "refiner"))
    timing = folder / "timing.csv"
    return cells.merge(_read(timing, ("cell",)), on="cell", how="left") if timing.is_file() else cells


def layer_results(path: str | Path = "reports") -> "pd.DataFrame":
    """Return the figures of a report, one row per pruned matrix of each cell: the columns of layers.csv.

    Git does not hold layers.csv: in a new clone, ``dvc pull`` or a run brings it.

    Parameters
    ----------
    path
        Folder of a report.

    Raises
    ------
    ArtifactError
        If layers.csv is missing or not a table.
    """
    return _read(Path(path) / "layers.csv", ("cell", "name"))


def _read(path: Path, needed: Iterable[str]) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - a second that only users of tables need

    try:
        table = pd.read_csv(path, dtype=_TYPES, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; the report stage or `prunelib compare` writes it") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a table of a report ({first_line(error)})") from None
    if missing := [name for name in needed if name not in table]:
        raise ArtifactError(f"{path}: not a table of a report (no column {missing[0]})")
    return table
