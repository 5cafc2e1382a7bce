"""The share of this machine's rate of matrix products that Gram accumulation reaches.

    python benchmarks/speed/gram.py [--device cuda]

Counts d (d + 1) / 2 multiply-adds a token: the matrix is symmetric. The rate is that of one square product of torch in
the same dtype, measured in the same run. The last column: a square layer runs on the same inputs in batches while their
Gram matrix accumulates as in calibration, on a GPU beside it; seconds relative to those of both alone. Prints a table
and writes benchmarks/results/gram-DEVICE.json.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from prunelib.calibration.gram import GramSum, gram_matrix
from prunelib.calibration.side_stream import SideStreamReader
from prunelib.runtime.machine import machine

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

CASES = {
    "cpu": ((576, 4096, torch.float32), (1536, 4096, torch.float32), (4096, 2048, torch.float32)),
    "cuda": (
        (4096, 65536, torch.bfloat16),
        (14336, 65536, torch.bfloat16),
        (4096, 65536, torch.float32),
        (14336, 65536, torch.float32),
    ),
}
PRODUCT = {"cpu": 2048, "cuda": 8192}
BATCHES = 8
FORWARD, GRAM = {"forward": True, "gram": False}, {"forward": False, "gram": True}


def seconds_of(run: Callable[[], torch.Tensor]) -> float:
    """The best of five runs, until the result is on the processor, after one to warm up."""
    run()
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run()[0, 0].item()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def with_forward(x: torch.Tensor) -> float:
    """Seconds of a layer on inputs (tokens, d) and of their Gram matrix together, relative to the sum of both alone."""
    weight, batches = torch.randn(x.shape[1], x.shape[1], device=x.device).to(x.dtype), x.split(len(x) // BATCHES)
    total = GramSum(x.shape[1], x.device)

    def run(*, forward: bool, gram: bool) -> torch.Tensor:
        outputs = x
        with SideStreamReader(x.device) as beside:
            for batch in batches:
                if gram:
                    beside.read("layer", batch, total.add)
                if forward:
                    outputs = batch @ weight
            beside.finish()
        return total.gram[:1] + outputs[:1].float()

    together = seconds_of(lambda: run(forward=True, gram=True))
    return together / sum(seconds_of(lambda each=each: run(**each)) for each in (FORWARD, GRAM))


def measure(inputs: int, tokens: int, dtype: torch.dtype, device: torch.device) -> dict:
    """One record: the rates of a square product and of the Gram matrix, in multiply-adds a second."""
    size = PRODUCT[device.type]
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    product = size**3 / seconds_of(lambda: left @ right)
    x = torch.randn(tokens, inputs, device=device).to(dtype)
    gram = tokens * inputs * (inputs + 1) / 2 / seconds_of(lambda: gram_matrix(x))
    exact = x[:1024].double().T @ x[:1024].double()
    error = ((gram_matrix(x[:1024]).double() - exact).abs().max() / exact.diagonal().mean()).item()
    return {
        "inputs": inputs,
        "tokens": tokens,
        "dtype": str(dtype).removeprefix("torch."),
        "product_rate": product,
        "gram_rate": gram,
        "share": gram / product,
        "with_forward": with_forward(x),
        "largest_error": error,
    }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default=machine().device)
    device = torch.device(parser.parse_args().device)
    torch.set_num_threads(machine().threads)
    records = [measure(*case, device) for case in CASES[device.type]]
    table = Table("inputs", "tokens", "dtype", "product / s", "Gram / s", "share", "largest error", "with forward")
    for r in records:
        rates = (f"{r['product_rate']:.3g}", f"{r['gram_rate']:.3g}", f"{r['share']:.0%}", f"{r['largest_error']:.1e}")
        table.add_row(str(r["inputs"]), str(r["tokens"]), r["dtype"], *rates, f"{r['with_forward']:.2f}")
    Console(width=120).print(table)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    write_results(f"gram-{device.type}", {"device": name, "records": records}, device=str(device))


if __name__ == "__main__":
    main()
