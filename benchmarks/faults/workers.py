"""The stages on Ray against the same in this process: bits, time, workers and nodes that are lost, and 16 workers.

    python benchmarks/faults/workers.py identical|kills|nodes|scaling     (needs prunelib[ray])

``identical`` runs calibration in four shards, refinement and evaluation of one cell of the default model in this
process, and on a cluster with 2 and 4 workers of one thread, and compares all files and the times. ``kills`` refines a
cell 20 times on two workers, one of which is killed at a random moment, ``nodes`` five times on two nodes, one of which
is lost; what comes out is compared. ``scaling`` has 16 workers sleep as long as the matrices of Llama-3.1-8B differ.
All but the last need ``dvc repro`` to have run, and work in scratch/workers. Writes benchmarks/results/workers-*.json.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}  # loopback alone, no reports

import ray
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML

from prunelib.runtime.tasks import run_tasks

sys.path.append(str(Path(__file__).parents[1] / "support"))
from record import write_results

PROJECT = Path.cwd()
COPY = PROJECT / "scratch" / "workers"
START = ("--model", "smollm2_135m", "--seed", "0", "--pattern", "nm24", "--warmstart", "wanda")
REFINER = "swaps_t10"
STAGES = {"calibrate": START[:4], "refine": (*START, "--refiner", REFINER), "evaluate": (*START, "--refiner", REFINER)}
OUTPUTS = {
    "calibrate": ("artifacts/calibration",),
    "refine": (f"artifacts/refined/smollm2_135m/0/nm24-wanda-{REFINER}", "results/layers"),
    "evaluate": ("results/cells",),
}
# rows x inputs^2 of the matrices of a block, in billions: seconds of sleep once divided
MATRICES = {"q, o": (69, 2), "k, v": (17, 2), "gate, up": (240, 2), "down": (842, 1)}
BLOCKS, WORKERS, SLEEP = 32, 16, 500.0


def prepare() -> None:
    """A copy of the project with what the stages read, linked; calibration is in four shards."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in ("stages", "prunelib"):
        shutil.copytree(PROJECT / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("models", "texts", "tasks", "calibration", "warmstarts"):
        shutil.copytree(PROJECT / "artifacts" / name, COPY / "artifacts" / name, copy_function=os.link)
    yaml = YAML()
    params = yaml.load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    params["calibration"]["shards"] = 4
    with (COPY / "params.yaml").open("w", encoding="utf-8") as stream:
        yaml.dump(params, stream)


def run(stage: str, address: str = "") -> float:
    """Run a stage, on Ray where there is an address; its seconds."""
    environment = {**os.environ, "PYTHONPATH": str(COPY), "RAY_ADDRESS": address, "PRUNELIB_TASK_THREADS": "1"}
    started = time.perf_counter()
    words = (sys.executable, f"stages/{stage}.py", *STAGES[stage])
    subprocess.run(words, cwd=COPY, env=environment, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def files(stage: str) -> dict[str, bytes]:
    """Contents of all files that a stage has made."""
    found = (path for folder in OUTPUTS[stage] for path in (COPY / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(COPY)): path.read_bytes() for path in found}


def identical() -> dict[str, Any]:
    """All stages in this process and on clusters."""
    records = []
    addresses: list[tuple[str, Callable[[], Cluster | None]]] = [
        ("in process", lambda: None),
        *((f"{workers} workers", lambda workers=workers: cluster(workers)) for workers in (2, 4)),
    ]
    for stage in STAGES:
        expected: dict[str, bytes] = {}
        for name, begin in addresses:
            nodes = begin()
            seconds = run(stage, nodes.address if nodes else "")
            expected = expected or files(stage)
            records.append({"stage": stage, "where": name, "seconds": seconds, "same": files(stage) == expected})
            if nodes:
                nodes.shutdown()
    first = {record["stage"]: record["seconds"] for record in records if record["where"] == "in process"}
    return {"records": [{**record, "times": record["seconds"] / first[record["stage"]]} for record in records]}


def cluster(*cores: int) -> Cluster:
    """Nodes on this machine, with so many workers of one thread each."""
    first, *others = cores
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": first, "include_dashboard": False})
    for number in others:
        nodes.add_node(num_cpus=number)
    return nodes


def lose(runs: int, cores: tuple[int, ...], strike: Callable[[Cluster], bool], seed: int = 0) -> dict[str, Any]:
    """Refine with a strike at a random moment of the work until so many have hit, and compare what comes out."""
    run("refine")
    expected, draw, records = files("refine"), random.Random(seed), []  # noqa: S311 - no secret
    undisturbed = struck("refine", cores, lambda _nodes: False, 0)["seconds_of_work"]
    while sum(record["hit"] for record in records) < runs:
        record = struck("refine", cores, strike, draw.uniform(0, undisturbed))
        records.append({**record, "same": files("refine") == expected})
    return {"undisturbed": undisturbed, "records": records}


def struck(stage: str, cores: tuple[int, ...], strike: Callable[[Cluster], bool], after: float) -> dict[str, Any]:
    """Run a stage on a cluster, with a strike so long after its first worker has begun; say whether it hit."""
    nodes, begun, hits = cluster(*cores), [], []

    def wait_and_strike() -> None:
        while not working():
            time.sleep(0.05)
        begun.append(time.perf_counter())
        time.sleep(after)
        hits.append(strike(nodes))

    thread = threading.Thread(target=wait_and_strike, daemon=True)
    thread.start()
    run(stage, nodes.address)
    ended = time.perf_counter()
    thread.join()
    nodes.shutdown()
    return {"after": after, "seconds_of_work": ended - begun[0], "hit": hits[0]}


def working() -> list[psutil.Process]:
    """The workers that run a task."""
    known = psutil.process_iter(["cmdline"])
    return [process for process in known if (process.info["cmdline"] or [""])[0].startswith("ray::_call")]


def kill_a_worker(_nodes: Cluster) -> bool:
    """Kill one of the workers, if the work is not over."""
    workers = working()
    if workers:
        random.choice(workers).kill()  # noqa: S311 - no secret
    return bool(workers)


def lose_a_node(nodes: Cluster) -> bool:
    """Take the second node away without notice, if the work is not over."""
    hit = bool(working())
    nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
    return hit


def scaling() -> dict[str, Any]:
    """Sleeping tasks on many workers, against the best that any schedule could do."""
    costs = [float(cost) for _ in range(BLOCKS) for cost, copies in MATRICES.values() for _ in range(copies)]
    seconds = [SLEEP * cost / sum(costs) for cost in costs]
    nodes = cluster(WORKERS)
    os.environ["RAY_ADDRESS"] = nodes.address
    ray.init(address=nodes.address, log_to_driver=False)
    shared = PROJECT / "scratch"
    run_tasks(time.sleep, [3.0] * WORKERS, float, shared)
    started = time.perf_counter()
    run_tasks(time.sleep, seconds, float, shared)
    taken = time.perf_counter() - started
    ray.shutdown()
    nodes.shutdown()
    best = max(sum(seconds) / WORKERS, *seconds)
    record = {"tasks": len(seconds), "workers": WORKERS, "seconds": taken, "best": best, "of_ideal": best / taken}
    return {"records": [record]}


def main() -> None:
    """Measure, print, and write the results."""
    measures = {
        "identical": identical,
        "kills": lambda: lose(20, (2,), kill_a_worker),
        "nodes": lambda: lose(5, (1, 1), lose_a_node),
        "scaling": scaling,
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measure", choices=measures)
    measure = parser.parse_args().measure
    if measure != "scaling":
        prepare()
    found = measures[measure]()
    table = Table(*found["records"][0])
    for record in found["records"]:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in record.values()))
    Console(width=100).print(table)
    write_results(f"workers-{measure}", found)
    raise SystemExit(not all(record.get("same", True) for record in found["records"]))


if __name__ == "__main__":
    main()
