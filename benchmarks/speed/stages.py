"""Seconds, those spent on checksums, and peak memory of every stage.

    python benchmarks/speed/stages.py [--hidden 2048] [--blocks 16]

For the default model, and for one of 1B shape with random weights.
Needs ``dvc repro`` to have run: texts, tasks and the tokenizer are what it fetched. Works in scratch/stages, on one
cell: the default settings and swaps to the optimum for the default model; for the large one, a Llama with SmolLM2's
vocabulary in bfloat16, 16 windows of 512 tokens and one best swap a row. Also the seconds that ``plan`` takes for the
large one, the median of five. Prints a table and writes benchmarks/results/stages.json.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

PROJECT = Path.cwd()
COPY = PROJECT / "scratch" / "stages"
TIMED = Path(__file__).resolve().parents[1] / "support" / "timed_checksums.py"
DEFAULT, LARGE = "smollm2_135m", "large"
REFINERS = {DEFAULT: "swaps", LARGE: "swaps_t1"}


def stages(model: str) -> dict[str, tuple[str, ...]]:
    """The command of every stage, in order; texts and tasks are there."""
    drawn = ("--model", model, "--seed", "0")
    started = (*drawn, "--pattern", "row60", "--warmstart", "wanda")
    return {
        "download": ("stages/download.py", *drawn[:2]),
        "calibrate": ("stages/calibrate.py", *drawn),
        "warmstart": ("stages/warmstart.py", *started),
        "refine": ("stages/refine.py", *started, "--refiner", REFINERS[model]),
        "evaluate, dense": ("stages/evaluate.py", *drawn[:2]),
        "evaluate": ("stages/evaluate.py", *started, "--refiner", REFINERS[model]),
        "report": ("stages/report.py",),
    }


def prepare(hidden: int, blocks: int) -> int:
    """A copy of the project with the large model in its params; that model's number of weights."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in ("stages", "prunelib"):
        shutil.copytree(PROJECT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "dvc.yaml", COPY)
    for name in ("texts", "tasks"):
        shutil.copytree(PROJECT / "artifacts" / name, COPY / "artifacts" / name, copy_function=os.link)
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # a process passes its own peak on to its children
        return apart.submit(write_model, hidden, blocks, COPY / "dense").result()


def write_params(model: str) -> None:
    """The project's params with a grid of one cell, and less text for the large model."""
    yaml = YAML()
    params: Any = yaml.load((PROJECT / "params.yaml").read_text())
    one = {"models": [model], "patterns": ["row60"], "warmstarts": ["wanda"], "refiners": [REFINERS[model]]}
    params["grid"] |= one
    if model == LARGE:
        params["models"][LARGE] = {"source": "local", "path": "dense", "dtype": "bfloat16"}
        params["calibration"] |= {"samples": 16, "batch": 2}
        params["evaluation"]["perplexity"] |= {"tokens": 2048, "batch": 1}
        params["evaluation"]["tasks"] |= {"names": []}
    with (COPY / "params.yaml").open("w") as stream:
        yaml.dump(params, stream)


def write_model(hidden: int, blocks: int, folder: Path) -> int:
    """A Llama of these sizes with random weights, and SmolLM2's tokenizer."""
    default = PROJECT / "artifacts" / "models" / DEFAULT
    config = AutoConfig.from_pretrained(default)
    config.hidden_size, config.num_hidden_layers, config.intermediate_size = hidden, blocks, 4 * hidden
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = hidden // 64, hidden // 256, 64
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for file in default.glob("*token*"):
        shutil.copy(file, folder)
    return sum(weight.numel() for weight in model.parameters())


def run(*words: str) -> dict[str, float]:
    """A command's wall seconds and peak memory."""
    started = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(COPY)}
    process = subprocess.Popen((sys.executable, *words), cwd=COPY, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    return {"seconds": time.perf_counter() - started, "peak_bytes": 1024 * usage.ru_maxrss}


def run_stage(*words: str) -> dict[str, float]:
    """As :func:`run`, and the seconds spent on checksums."""
    spent = COPY / "checksums.txt"
    figures = run(str(TIMED), str(spent), *words)
    return {**figures, "checksum_seconds": float(spent.read_text())}


def main() -> None:
    """Run, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=16)
    arguments = parser.parse_args()
    weights = prepare(arguments.hidden, arguments.blocks)
    plan = ("-m", "prunelib", "plan", "--config", "dense/config.json")
    plan_seconds = median(run(*plan)["seconds"] for _ in range(5))
    records = []
    for model in (DEFAULT, LARGE):
        write_params(model)
        records += [{"model": model, "stage": stage, **run_stage(*words)} for stage, words in stages(model).items()]
    table = Table("model", "stage", "seconds", "checksums, s", "peak, GB")
    for record in records:
        figures = (f"{record['seconds']:.0f}", f"{record['checksum_seconds']:.2f}", f"{record['peak_bytes'] / 1e9:.2f}")
        table.add_row(record["model"], record["stage"], *figures)
    console = Console(width=100)
    console.print(table, f"large: {weights / 1e9:.2f} billion weights, planned in {plan_seconds:.2f} s", sep="\n")
    figures = {**vars(arguments), "weights": weights, "plan_seconds": plan_seconds, "records": records}
    write_results("stages", figures)


if __name__ == "__main__":
    main()
