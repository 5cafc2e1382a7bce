"""Results of the benchmarks."""

from collections.abc import Mapping, Sequence
from typing import Any

from parts.committed import ROOT, benchmarked, measured
from parts.markdown import table


def cost() -> str:
    """Return what `make run` takes."""
    run = benchmarked("main_run")
    return (
        f"Set-up takes {run['setup_seconds'] / 60:.0f} min with a warm pip cache; the run takes "
        f"{run['run_seconds'] / 60:.0f} min and at most {run['peak_bytes'] / 1e9:.1f} GB of memory "
        f"({measured(run)}; no GPU). Disk: {run['environment_bytes'] / 1e9:.1f} GB for the environment with torch for "
        f"CPUs alone, {run['project_bytes'] / 1e9:.1f} GB for the run.\n"
    )


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
    """Return what block reconstruction takes relative to its own passes."""
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


def dense_targets() -> str:
    """Return what inputs of the pruned model give, and weights that make up for their change; a column a refiner."""
    result = benchmarked("dense_targets")
    refiners = {
        "swaps": "swaps",
        "swaps_refit": "swaps, refit swaps",
        "alps": "ALPS",
        "swaps_refit_reconstruct": "swaps, refit swaps, blocks reconstructed",
    }
    known = {
        (record["inputs"], record["share"], record["refiner"]): record["perplexity"]
        for record in result["records"]
        if record["pattern"] == "row60"
    }
    kinds = sorted({(inputs, share) for inputs, share, _ in known}, key=lambda kind: (kind[0] != "dense", kind[1]))

    def shown(perplexity: Mapping[str, float] | None) -> str:
        return " / ".join(f"{perplexity[text]:.1f}" for text in ("wikipedia", "sotu")) if perplexity else ""

    rows = (
        [f"`{inputs}`", f"{share:g}", *(shown(known.get((inputs, share, refiner))) for refiner in refiners)]
        for inputs, share in kinds
    )
    return table(("`inputs`", "`dense_target`", *refiners.values()), rows) + f"\n{measured(result)}.\n"


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
    flat = [_flat(each) for each in records]
    keys = [key for key, value in flat[0].items() if not isinstance(value, dict | list)]
    rows = ([_figure(each.get(key)) for key in keys] for each in flat)
    return f"`{name}`\n\n" + table([f"`{key}`" for key in keys], rows)


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the entries of its mappings in their place."""
    parts = (
        {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
        for key, value in record.items()
    )
    return {key: value for part in parts for key, value in part.items()}


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "" if value is None else str(value)
