"""Which model families are pruned right? Every decoder of transformers, tiny, against brute force.

    python benchmarks/correctness/families.py [FAMILY ...]

For each model type that ``AutoModelForCausalLM`` maps: a tiny configuration, random weights, and the library's
download, calibration, warm start, evaluation and export, each compared with brute force (``support/brute_force.py``).
A child process each. Prints a line a family; for all of them, writes benchmarks/results/families.json, from which
``python docs/tables.py`` makes the list in docs/pages/how-to/model.md and the table in benchmarks/README.md.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.utils import logging

sys.path.append(str(Path(__file__).parents[1] / "support"))
from brute_force import WrongError, check_model, save_random
from record import write_results
from tiny_configs import FAMILIES, WORDS, tiny_config

from prunelib.errors import PruneError

TIMEOUT = 120.0  # seconds
PARAMETERS = 10_000_000


def main() -> None:
    """Check the families, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    chosen = parser.parse_args().families
    torch.set_num_threads(1)
    records = []
    for family in chosen or FAMILIES:
        record = _in_child(family)
        records.append(record)
        print(f"{family}: {record['outcome']}, {record['seconds']} s {record.get('line', '')}", flush=True)
    print(dict(Counter(record["outcome"] for record in records)))
    if not chosen:
        results = {"transformers": transformers.__version__, "families": records}
        write_results("families", results, device="cpu")


def check(family: str, folder: Path) -> dict[str, Any]:
    """Return the record of a family: its outcome, and the figures or the line that explains it.

    Outcomes are ``right``, ``refused``, ``wrong``, ``traceback``, and ``not built`` where transformers cannot build,
    run, save or reload a tiny model.
    """
    try:
        built = AutoModelForCausalLM.from_config(_small(family), experts_implementation="eager").eval()
        (folder / "model").mkdir()
        save_random(built, folder / "model", WORDS)
    except Exception as error:
        return {"outcome": "not built", "line": _line(error)}
    try:
        return {"outcome": "right", **check_model(folder / "model", folder, WORDS)}
    except PruneError as error:
        return {"outcome": "refused", "line": str(error).replace(str(folder), "")}
    except WrongError as error:
        return {"outcome": "wrong", "line": str(error)}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"outcome": "traceback", "line": f"{_line(error)} ({Path(where.filename).name}, line {where.lineno})"}


def _small(family: str) -> transformers.PreTrainedConfig:
    """Return a tiny configuration; refuse one that is none."""
    config = tiny_config(family)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if (count := sum(weight.numel() for weight in model.parameters())) > PARAMETERS:
        raise ValueError(f"{count:,} parameters are left after every size was made small")
    return config


def _in_child(family: str) -> dict[str, Any]:
    started = time.monotonic()
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_send, args=(family, theirs))
    child.start()
    theirs.close()
    try:
        record = ours.recv() if ours.poll(TIMEOUT) else {"outcome": "traceback", "line": f"not done in {TIMEOUT:g} s"}
    except EOFError:
        record = {"outcome": "traceback", "line": "the process ended"}
    child.kill()
    child.join()
    return {"family": family, **record, "seconds": round(time.monotonic() - started, 1)}


def _send(family: str, result: Connection) -> None:
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        result.send(check(family, Path(folder)))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".replace("\n", " ")[:200]


if __name__ == "__main__":
    main()
