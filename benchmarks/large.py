"""A model of 1B shape with random weights through the whole pipeline: seconds and peak memory of every stage.

    python benchmarks/large.py [--hidden 2048] [--blocks 16]

Needs ``dvc repro`` to have run: tokenizer and text are those of the default model. Works in scratch/large: a Llama with
SmolLM2's vocabulary, in bfloat16, on 16 windows of 512 tokens; 60% per row from Wanda, one best swap a row. Prints a
table and writes benchmarks/results/large.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from transformers import AutoConfig, AutoModelForCausalLM

PROJECT = Path.cwd()
COPY = PROJECT / "scratch" / "large"
DEFAULT = Path("artifacts/models/smollm2_135m")
CELL = ("--model", "large", "--seed", "0", "--pattern", "row60", "--warmstart", "wanda", "--refiner", "swaps_t1")
STAGES = {"download": 2, "calibrate": 4, "warmstart": 8, "refine": 10, "evaluate": 10}


def prepare(hidden: int, blocks: int) -> int:
    """A copy of the project with a random model and small settings; the model's number of weights."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in ("stages", "prunelib"):
        shutil.copytree(PROJECT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PROJECT / "artifacts" / "texts", COPY / "artifacts" / "texts", copy_function=os.link)
    shutil.copytree(PROJECT / "artifacts" / "tasks", COPY / "artifacts" / "tasks", copy_function=os.link)
    weights = write_model(hidden, blocks, COPY / "stock")
    yaml = YAML()
    params = yaml.load((PROJECT / "params.yaml").read_text())
    params["models"]["large"] = {"source": "local", "path": "stock", "dtype": "bfloat16"}
    params["grid"] |= {"models": ["large"], "patterns": ["row60"], "warmstarts": ["wanda"], "refiners": ["swaps_t1"]}
    params["calibration"] |= {"samples": 16, "batch": 2}
    params["evaluation"]["perplexity"] |= {"tokens": 2048, "batch": 1}
    params["evaluation"]["tasks"] |= {"names": []}
    with (COPY / "params.yaml").open("w") as stream:
        yaml.dump(params, stream)
    return weights


def write_model(hidden: int, blocks: int, folder: Path) -> int:
    """A Llama of these sizes with random weights, and SmolLM2's tokenizer."""
    config = AutoConfig.from_pretrained(PROJECT / DEFAULT)
    config.hidden_size, config.num_hidden_layers, config.intermediate_size = hidden, blocks, 4 * hidden
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = hidden // 64, hidden // 256, 64
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for file in (PROJECT / DEFAULT).glob("*token*"):
        shutil.copy(file, folder)
    return sum(weight.numel() for weight in model.parameters())


def run(stage: str, words: tuple[str, ...]) -> dict:
    """One record: a stage's wall seconds and peak memory."""
    started = time.perf_counter()
    command = (sys.executable, f"stages/{stage}.py", *words)
    process = subprocess.Popen(command, cwd=COPY, env={**os.environ, "PYTHONPATH": str(COPY)})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{stage} failed")
    return {"stage": stage, "seconds": time.perf_counter() - started, "peak_bytes": 1024 * usage.ru_maxrss}


def main() -> None:
    """Run, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=16)
    arguments = parser.parse_args()
    weights = prepare(arguments.hidden, arguments.blocks)
    records = [run(stage, CELL[:count]) for stage, count in STAGES.items()]
    table = Table("stage", "seconds", "peak, GB")
    for record in records:
        table.add_row(record["stage"], f"{record['seconds']:.0f}", f"{record['peak_bytes'] / 1e9:.2f}")
    Console(width=100).print(f"{weights / 1e9:.2f} billion weights", table)
    target = PROJECT / "benchmarks" / "results" / "large.json"
    target.write_text(json.dumps({**vars(arguments), "weights": weights, "records": records}, indent=2) + "\n")


if __name__ == "__main__":
    main()
