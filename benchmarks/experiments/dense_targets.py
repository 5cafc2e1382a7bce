"""Which model should calibration inputs come from, and do dense targets help? The default model at 60% per row.

    dvc repro download_model@smollm2_135m download_text
    python benchmarks/experiments/dense_targets.py [--pattern nm24] [--refiners swaps alps] [--inputs true_sequential]

A share of 0 prunes each matrix W by the inputs X_s that it has in the pruned model (or, with dense inputs, in the dense
one, X_d); with a higher share, it is moved first towards what returns W X_d for them
(:mod:`prunelib.calibration.dense_targets`). Perplexity is measured on the held-out part of every text. Four to fifteen
minutes per row on two cores. Prints a table, and writes
benchmarks/results/dense_targets.json after every row; those that it has are not measured again.
"""

import argparse
import json
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from prunelib import prune
from prunelib.calibration.settings import CalibrationInputs
from prunelib.calibration.windows import draw_windows, tokenize
from prunelib.evaluation.held_out import held_out_texts, held_out_windows
from prunelib.evaluation.perplexity import perplexity
from prunelib.model.structure import load_model, load_tokenizer
from prunelib.params import load_params
from prunelib.runtime.machine import machine
from prunelib.sources.documents import read_documents
from prunelib.workflow.paths import model_folder, text_folder

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import RESULTS, write_results

NAME, MODEL = "dense_targets", "smollm2_135m"
REFINERS = ["swaps", "swaps_refit", "alps", "swaps_refit_reconstruct"]  # of params.yaml


def main() -> None:
    """Measure what has not been measured, print and write."""
    params, folder = load_params(), model_folder(MODEL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pattern", choices=list(params.patterns), default="row60", metavar="NAME")
    parser.add_argument("--refiners", nargs="+", choices=list(params.refiners), default=REFINERS, metavar="NAME")
    parser.add_argument("--inputs", nargs="+", choices=list(CalibrationInputs), default=["dense", "true_sequential"])
    parser.add_argument(
        "--shares", nargs="+", type=float, default=[0.0, 0.5, 1.0], help="Above 0 with true_sequential inputs alone"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(machine().threads)
    tokenizer, settings, text = load_tokenizer(folder), params.calibration, params.calibration.text
    tokens = tokenize([each.text for each in read_documents(text_folder(text), "calibration")], tokenizer)
    windows = draw_windows(tokens, settings.samples, settings.length, seed=0)
    texts = held_out_texts({name: text_folder(name) for name in params.grid.texts}, text)
    held_out = held_out_windows(texts, tokenizer, params.evaluation.perplexity)
    file = RESULTS / f"{NAME}.json"
    records: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["records"] if file.exists() else []
    for refiner, inputs, share in product(arguments.refiners, arguments.inputs, arguments.shares):
        row = {"pattern": arguments.pattern, "refiner": refiner, "inputs": str(inputs), "share": share}
        if (share and inputs != CalibrationInputs.TRUE_SEQUENTIAL) or any(
            row.items() <= record.items() for record in records
        ):
            continue
        model, started = load_model(folder, "float32", "cpu"), time.perf_counter()
        prune(
            model,
            None,
            windows,
            params.patterns[arguments.pattern],
            refiner=params.refiners[refiner],
            batch=settings.batch,
            calibration_inputs=inputs,
            dense_target=share,
        )
        row["seconds"] = time.perf_counter() - started
        row["perplexity"] = {name: perplexity(model, each, 2).value for name, each in held_out.items()}
        records.append(row)
        write_results(NAME, {"records": records}, device="cpu")
    table = Table("pattern", "refiner", "inputs", "share", *(f"perplexity, {name}" for name in held_out), "s")
    for record in records:
        values = (f"{value:.2f}" for value in record["perplexity"].values())
        names = (record["pattern"], record["refiner"], record["inputs"], f"{record['share']:g}")
        table.add_row(*names, *values, f"{record['seconds']:.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
