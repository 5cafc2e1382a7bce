"""What the README says works.

Its tables are held to the reports in git, not to those that this machine has just made: a run elsewhere may differ.
"""

import csv
import json
import re
import subprocess
from pathlib import Path
from statistics import fmean, stdev

from configs import LLAMA_70B
from families import save, tiny_model
from pipeline_project import LETTERS, character_tokenizer

from prunelib.masks.patterns import NOfM
from prunelib.planning.needs import Workload, disk, memory
from prunelib.planning.shapes import outline
from prunelib.reporting.tables import significant
from prunelib.runtime.machine import Machine

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def reported(name):
    """The rows of a CSV file under reports/, as git has it."""
    words = ("git", "show", f":reports/{name}")
    return list(
        csv.DictReader(subprocess.run(words, cwd=ROOT, text=True, capture_output=True, check=True).stdout.splitlines())
    )


PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_example_of_a_model_prunes_it_and_saves_the_masks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    character_tokenizer().save_pretrained(save(tiny_model("llama"), tmp_path / "model"))
    example = PYTHON[0].replace("samples=64", "samples=4").replace("length=512", "length=12")
    made = {"texts": ["".join(LETTERS[i * i % len(LETTERS)] for i in range(200))]}
    exec(compile(example, "README.md", "exec"), made)  # noqa: S102 - our own example
    assert NOfM(keep=2, group=4).holds_in(made["model"].model.layers[0].mlp.up_proj.weight)
    assert (tmp_path / "masks" / "masks.safetensors").is_file()


def test_the_library_example_runs_and_lowers_the_error(capsys):
    _, example = PYTHON
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 - our own example
    before, after, optimal = re.match(r"([\d.e+]+) ([\d.e+]+) tensor\((\w+)\)", capsys.readouterr().out).groups()
    assert float(after) < float(before)
    assert optimal == "True"


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:\$|`)\s?make ([a-z0-9]+)", README)) <= targets


def test_the_table_of_calibration_texts_is_that_of_the_benchmark():
    records = json.loads((ROOT / "benchmarks" / "results" / "calibration_text.json").read_text())["records"]
    assert len(records) == 5
    for record in records:
        perplexities = " | ".join(f"{record['perplexity'][name]:.1f}" for name in ("dense", "wanda", "swaps"))
        assert f"| {record['windows']} | {100 * record['mean_layer_reduction']:.1f}% | {perplexities} |" in README
        assert record["rows_proven_optimal"] == 1


def test_the_backends_ratios_are_those_of_the_benchmark():
    refine = benchmarked("refine")
    records, (alone, together) = refine["records"], refine["whole_model"]

    def times(mode, *patterns, of="times_reference"):
        return [r[of] for r in records if r["mode"] == mode and r["pattern"] in patterns]

    best = times("10 best swaps", "60% per row", "2:4")
    sweeps = times("sweeps to the optimum", "60% per row")
    groups = times("best swaps to the optimum", "2:4")
    own = times("sweeps to the optimum", "60% per row", of="times_best_swaps")
    said = " ".join(README.split())
    assert f"ten best swaps a row {min(best):,.0f} to {max(best):,.0f} times faster" in said
    assert f"optimum {min(sweeps):,.0f} to {max(sweeps):,.0f} times faster" in said
    assert f"within groups {min(groups):,.0f} to {max(groups):,.0f} times" in said
    assert f"Sweeps take {min(own):.1f} to {max(own):.1f} times less than its own best swaps" in said
    ratios = f"{alone['times_best_swaps']:.1f} times less by one thread and {together['times_best_swaps']:.1f} by two"
    assert f"over all {alone['matrices']} matrices {ratios}" in said
    assert f"end at {alone['error_of_best_swaps']:.3f} of their error" in said
    assert all(r["same_masks_as_best"] for r in records if r["mode"] != "sweeps to the optimum")


def test_the_growth_of_the_backend_is_that_of_the_benchmark():
    records, said = benchmarked("growth")["records"], " ".join(README.split())
    rows = {(r["inputs"], r["threads"]): r["milliseconds_a_row"] for r in records[:8]}
    widths = (576, 1536, 4096, 14336)
    shown = (f"{rows[width, 2]:.2g}" if rows[width, 2] < 100 else f"{rows[width, 2]:.0f}" for width in widths)
    assert "A row of 576, 1,536, 4,096 and 14,336 inputs takes {}, {}, {} and {} ms at 60%".format(*shown) in said
    ratios = [record["times_reference"] for record in records if record["times_reference"]]
    gains = [rows[width, 1] / rows[width, 2] for width in widths]
    best = (f"{record['times_best_swaps']:.1f}" for record in records[:8] if record["threads"] == 1)
    assert "{}, {}, {} and {} times less than best swaps take to an optimum".format(*best) in said
    assert f"{min(ratios):,.0f} to {max(ratios):,.0f} times less than the reference needs" in said
    assert f"two threads are {min(gains):.1f} to {max(gains):.1f} times as fast as one" in said


def test_every_variable_of_the_machine_stands_in_the_table():
    for name in Machine.model_fields:
        assert f"`PRUNELIB_{name.upper()}`" in README


def test_the_results_table_is_that_of_the_committed_report():
    cells = {(row["pattern"], row["warmstart"], row["refiner"]): row for row in reported("results.csv")}

    def shown(row):
        perplexities = (float(row[f"perplexity_{text}"]) for text in ("wikipedia", "sotu"))
        return significant(100 * float(row["relative_error"])), *(
            f"{p:.{0 if p >= 1000 else 1}f}" for p in perplexities
        )

    for pattern in ("row60", "nm24"):
        for name, warmstart in (("magnitude", "magnitude"), ("Wanda", "wanda"), ("RIA", "ria")):
            pairs = zip(*(shown(cells[pattern, warmstart, refiner]) for refiner in ("none", "swaps")), strict=True)
            assert f"| {name} | {' | '.join(value for pair in pairs for value in pair)} |\n" in README
    dense = cells["", "", ""]
    assert f"| {float(dense['perplexity_wikipedia']):.2f} | | {float(dense['perplexity_sotu']):.2f} |" in README


def test_the_table_against_overfitting_is_that_of_the_committed_report():
    rows = [row for row in reported("overfitting/results.csv") if row["pattern"]]
    for pattern, label in (("row50", "50% per row"), ("row60", "60% per row"), ("nm24", "2:4")):
        shown = []
        for text in ("wikipedia", "sotu"):
            for refiner in ("swaps", "swaps_damped", "swaps_held_out"):
                cells = [row for row in rows if (row["pattern"], row["refiner"]) == (pattern, refiner)]
                values = [float(cell[f"perplexity_{text}"]) for cell in cells]
                assert len(values) == 3
                shown.append(f"{fmean(values):.1f} ± {stdev(values):.1f}")
        assert f"| {label} | {' | '.join(shown)} |\n" in README


def benchmarked(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def test_what_set_up_and_the_main_run_take_is_what_the_benchmark_found():
    found, said = benchmarked("main_run"), " ".join(README.split())
    seconds = found["refining_seconds"]
    row60, nm24 = (seconds[f"smollm2_135m-0-{pattern}-wanda-swaps"] for pattern in ("row60", "nm24"))
    assert f"on {found['measured']['machine']}, no GPU" in said
    setup, run = (f"{found[key] / 60:.0f} min" for key in ("setup_seconds", "run_seconds"))
    peak = f"{found['peak_bytes'] / 1e9:.1f} GB"
    assert f"{setup} for set-up, packages in pip's cache, and {run} for the run, no process above {peak}" in said
    assert f"from Wanda takes {row60:.0f} s at 60% per row and {nm24:.0f} s at 2:4" in said
    sizes = f"{found['environment_bytes'] / 1e9:.1f} GB of disk; the run adds {found['project_bytes'] / 1e9:.1f} GB"
    assert sizes in said


def test_what_is_said_of_workers_is_what_the_benchmarks_found():
    (record,) = benchmarked("workers-scaling")["records"]
    said = " ".join(README.split())
    assert (
        f"{record['tasks']} tasks as unequal as the matrices of Llama 3.1 8B (they only sleep) run on "
        f"{record['workers']} workers at {100 * record['of_ideal']:.0f}% of the ideal speed"
    ) in said
    identical, kills, nodes = (benchmarked(f"workers-{name}")["records"] for name in ("identical", "kills", "nodes"))
    assert all(record["same"] for record in [*identical, *kills, *nodes])
    times = [f"{record['times']:.2f}" for record in identical if record["where"] == "2 workers"]
    assert f"{times[0]} times as long for calibration in four shards, {times[1]} for refinement and {times[2]}" in said
    hits, losses = (sum(record["hit"] for record in records) for records in (kills, nodes))
    assert f"{hits} of {hits} refinements with a worker killed at a random moment, and {losses} of {losses}" in said


def test_what_calibration_costs_is_what_the_benchmark_found():
    record = benchmarked("calibration")
    said = " ".join(README.split())
    assert f"it takes {record['ratio']:.2f} times as long as the model's plain forward" in said
    assert f"`python benchmarks/speed/calibration.py`, {record['tokens']:,} tokens" in said
    assert record["ratio"] <= 1.3
    shares = [each["share"] for each in benchmarked("gram-cpu")["records"]]
    assert f"alone reach {100 * min(shares):.0f}% to {100 * max(shares):.0f}% of that rate" in said


def test_the_needs_of_70_billion_weights_are_those_of_the_plan():
    planned, work, budgets = outline(LLAMA_70B), Workload(), Machine()
    stages = {each.stage: each for each in memory(planned, work, budgets.gram_bytes, budgets.state_bytes)}
    model, grams, masks, updated, _ = (need.size for need in disk(planned, work))
    total = sum(need.size for need in disk(planned, work))
    calibrating, refining = (
        f"{stages[stage].gpu / 1e9:.1f} GB of a GPU and {stages[stage].beside_gpu / 1e9:.1f} GB beside it"
        for stage in ("calibrate", "refine")
    )
    assert f"| calibration | {calibrating} | {grams / 1e9:.1f} GB of Gram matrices;" in README
    assert f"| refinement | {refining} | {len(planned.blocks)} blocks, ten rounds;" in README
    assert f"{masks / 1e9:.1f} GB of masks, {updated / 1e9:.1f} GB of updated weights |" in README
    assert f"| evaluation | {stages['evaluate'].gpu / 1e9:.1f} GB, the whole model:" in README
    assert f"| | {total / 1e9:.0f} GB, of which {model / 1e9:.0f} GB the dense model |" in README


MASKS = {
    "random": ("random", "none"),
    "magnitude": ("magnitude", "none"),
    "Wanda": ("wanda", "none"),
    "RIA": ("ria", "none"),
    "SparseGPT's mask": ("sparsegpt", "none"),
    "DSnoT, by the rule that this project had before": ("wanda", "dsnot"),
    "SparseSwaps, T = 1": ("wanda", "swaps_t1"),
    "SparseSwaps, T = 10": ("wanda", "swaps_t10"),
    "SparseSwaps, T = 100": ("wanda", "swaps_t100"),
    "SparseSwaps, optimum": ("wanda", "swaps"),
    "block moves": ("wanda", "blocks"),
    "Frank-Wolfe, line search, 50 iterations, 90% fixed": ("wanda", "fw_line_search"),
    "Frank-Wolfe's relaxation solved, 90% fixed": ("wanda", "fw_alpha"),
    "the same, nothing fixed": ("wanda", "fw_free"),
    "SparseFW, then swaps": ("wanda", "fw_swaps"),
}
MOVED = {
    "Wanda, least squares": ("wanda", "least_squares"),
    "SparseGPT": ("sparsegpt", "sparsegpt_update"),
    "swaps, least squares": ("wanda", "swaps_least_squares"),
    "ADMM, least squares": ("wanda", "admm_least_squares"),
    "swaps, refit swaps": ("wanda", "swaps_refit"),
    "ADMM, refit swaps": ("wanda", "admm_refit"),
}
MAIN = ("Wanda", "SparseSwaps, optimum", "SparseGPT", "ADMM, least squares", "swaps, refit swaps")


def of_method(cells, pattern, method, columns):
    """What the README shows of a method at a pattern, with the spread where there are several draws; else nothing."""
    rows = [row for row in cells if (row["pattern"], row["warmstart"], row["refiner"]) == (pattern, *method)]
    for column in columns:
        values = [float(row[column]) for row in rows] or [0.0]
        digits = 3 if column == "error_vs_wanda" else 0 if column == "seconds" or fmean(values) >= 1000 else 1
        deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 and column != "seconds" else ""
        yield f"{fmean(values):.{digits}f}{deviation}" if rows else ""


def method_line(cells, label, patterns, columns):
    """A line of the README's tables of methods."""
    method = {**MASKS, **MOVED}[label]
    shown = [figure for pattern in patterns for figure in of_method(cells, pattern, method, columns)]
    return re.sub(" {2,}", " ", f"| {label} | {' | '.join(shown)} |\n")


def test_the_tables_of_methods_are_those_of_the_committed_report():
    seconds = benchmarked("method_times")["seconds"]
    cells = [row | {"seconds": seconds.get(row["cell"])} for row in reported("methods/results.csv")]
    columns = ("error_vs_wanda", "perplexity_wikipedia", "perplexity_sotu", "seconds")
    for label in (*MASKS, *MOVED):
        assert method_line(cells, label, ("row60", "nm24"), columns) in README
    for label in MAIN:
        assert method_line(cells, label, ("row50", "row70", "nm48"), columns[:2]) in README


def test_what_must_be_lower_in_the_tables_of_methods_is():
    records = {(record["pair"], record["pattern"]): record for record in benchmarked("orderings")["records"]}
    swapped, sparsegpt, admm = (
        {pattern: record for (pair, pattern), record in records.items() if pair == name}
        for name in (
            "SparseSwaps' optimum / T = 100",
            "swaps, refit swaps / SparseGPT",
            "swaps, refit swaps / ADMM, least squares",
        )
    )
    assert all(swapped[pattern]["ratio_of_totals"] <= 1 for pattern in ("row60", "nm24"))
    assert all(record["lower"] == record["matrices"] == 210 for record in sparsegpt.values())
    assert all(record["mean_ratio"] < 1 for record in admm.values())
    assert {"row60", "row70"} <= sparsegpt.keys() & admm.keys()
    said, patterns = " ".join(README.split()), ("row60", "row70", "nm24")
    below_sparsegpt, below_admm = (
        [f"{each[pattern]['mean_ratio']:.{digits}f}" for pattern in patterns]
        for each, digits in ((sparsegpt, 2), (admm, 3))
    )
    assert "at {}, {} and {} of its error on average".format(*below_sparsegpt) in said
    assert "at {}, {} and {} of ADMM's with least squares".format(*below_admm) in said
    followed = [record for (pair, _), record in records.items() if pair == "SparseFW, then swaps / swaps"]
    assert followed
    assert all(record["lower"] == record["matrices"] for record in followed)


def test_the_share_to_fix_is_that_of_the_benchmark():
    records = benchmarked("alpha")["records"]
    ways = ("alpha = 0", "alpha = 0.25", "alpha = 0.5", "alpha = 0.75", "alpha = 0.9", "tighter, led to a mask")
    for pattern in ("60% per row", "2:4"):
        errors = {record["way"]: f"{record['error']:.3f}" for record in records if record["pattern"] == pattern}
        assert f"| {pattern} | {' | '.join(errors[way] for way in ways)} |\n" in README


def test_what_updated_weights_cost_and_gain_is_what_the_benchmark_found():
    records = {(record["way"], record["pattern"]): record for record in benchmarked("updated_weights")["records"]}
    for way in dict.fromkeys(way for way, _ in records):
        both = (records[way, pattern] for pattern in ("60% per row", "2:4"))
        figures = " | ".join(f"{each['error']:.3f} | {each['times']:.1f}" for each in both)
        assert f"| {way} | {figures} |\n" in README


def test_what_is_said_of_the_stages_is_what_the_benchmarks_found():
    found, kills, said = benchmarked("stages"), benchmarked("kills"), " ".join(README.split())
    default, large = (
        max(record["peak_bytes"] for record in found["records"] if record["model"] == model) / 1e9
        for model in ("smollm2_135m", "large")
    )
    assert default < 3
    assert large < 6
    assert f"No stage of the default model takes more than {default:.1f} GB" in said
    weights = f"{found['weights'] / 1e9:.2f} billion random weights"
    assert f"a Llama of {weights} goes" in said
    assert f"through all of them with at most {large:.1f} GB" in said
    assert kills["different"] == kills["stuck"] == 0
    assert {record["signal"] for each in kills["runs"] for record in each["records"]} == {
        "SIGKILL",
        "SIGTERM",
        "SIGINT",
    }
    assert f"{kills['kills']:,} kills by SIGKILL, SIGTERM and SIGINT" in said
