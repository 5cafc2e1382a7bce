"""What calibration costs beyond what it must: its time against that of the plain forward and of the Gram products.

    python benchmarks/speed/calibration.py [--model FOLDER] [--samples 64]

On as many windows as the default grid draws. The Gram products are counted, d (d + 1) / 2 multiply-adds a token for
each distinct input, at this machine's rate of square products; the forward is the model's own over the same batches.
Both and calibration run in turn, three times; the medians count. Prints a table and writes
benchmarks/results/calibration.json.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from prunelib.calibration.artifact import write_tokens
from prunelib.calibration.assembly import Assembly
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.whole_model import calibrate_model
from prunelib.model.structure import find_layers, load_model
from prunelib.runtime.machine import machine

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

LENGTH, BATCH, ROUNDS, SIZE = 512, 4, 3, 2048


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall seconds of some work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def product_rate() -> float:
    """Multiply-adds a second of a square float32 product, the best of five."""
    left, right = torch.randn(2, SIZE, SIZE)
    return SIZE**3 / min(seconds_of(lambda: left @ right) for _ in range(5))


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("artifacts/models/smollm2_135m"))
    parser.add_argument("--samples", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(machine().threads)
    model = load_model(arguments.model, "float32", "cpu")
    index = find_layers(model, arguments.model)
    windows = torch.randint(1000, 40_000, (arguments.samples, LENGTH), dtype=torch.int32)
    settings = CalibrationSettings(text="random", samples=arguments.samples, length=LENGTH, batch=BATCH)
    readers = [layer for block in range(index.blocks) for layer in index.readers(block)]
    products = windows.numel() * sum(layer.inputs * (layer.inputs + 1) / 2 for layer in readers)

    @torch.no_grad()
    def forward() -> None:
        for batch in windows.split(BATCH):
            model(input_ids=batch.long(), use_cache=False)

    def calibrate() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            parts, folder = (windows, windows[:0]), Path(scratch, "calibration")
            write_tokens(folder, *parts, {"model": "", "settings": settings.model_dump()})
            assembly = Assembly(folder, arguments.model, index, settings, machine().device)
            calibrate_model(model, index, parts, settings, assembly, Path(scratch), machine())
            assembly.finish()

    rounds = [
        {"forward": seconds_of(forward), "products": products / product_rate(), "calibration": seconds_of(calibrate)}
        for _ in range(ROUNDS)
    ]
    record = {name: median(each[name] for each in rounds) for name in rounds[0]}
    record["ratio"] = median(each["calibration"] / (each["forward"] + each["products"]) for each in rounds)
    table = Table("tokens", "forward, s", "Gram products, s", "calibration, s", "ratio")
    table.add_row(f"{windows.numel():,}", *(f"{value:.2f}" for value in record.values()))
    Console(width=100).print(table)
    write_results("calibration", {"tokens": windows.numel(), **record, "rounds": rounds}, device="cpu")


if __name__ == "__main__":
    main()
