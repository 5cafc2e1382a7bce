"""Does a stage that is killed at any moment end as if it had not been? A tiny model, and all stages and commands.

    nice -n 10 python benchmarks/faults/kills.py [--kills 500] [--seed 0] [--dry]

SIGKILL, SIGTERM and SIGINT, one to three in a row: before each file operation of each stage in turn and at random
moments; from nothing, over its outputs, and over those of other settings; with removal as on a local disk and as on
NFS. Then the stage runs through: every file must be that of a run that nothing disturbed, nothing else may stay, and
SIGINT must have ended with one line and status 130. Children are forked from a process that has the libraries
imported. Prints a table and adds a run to benchmarks/results/kills.json (``--dry`` adds none); ends with 1 where
anything differs or is stuck. Linux only.
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PRUNELIB_THREADS": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}
sys.path.extend(str(Path(__file__).parents[2] / folder) for folder in ("benchmarks/support", "tests/support"))

import forked
from kill_trials import COMMANDS, MODES, SIGNALS, Command, Mode, Outcome, Trials
from record import RESULTS, measured, write_results
from rich.console import Console
from rich.table import Table

NAME = "kills"
T = TypeVar("T")
COUNTS = ("kills", "different", "stuck")
KEYS = ("stage", "signal", "start", "moment", "removal")


def plan(trials: Trials, draw: random.Random) -> Iterator[tuple[Command, Mode, int, int | None]]:
    """Yield trials without end: command, mode, signal, and the operation before which to kill.

    Each command has its turn, every time in another mode and with another signal. In a mode it is killed before each
    operation once, in an order that the seed decides, before one comes again.
    """
    kinds = {command: itertools.cycle(_shuffled(draw, kinds_of(command))) for command in COMMANDS}
    left: dict[tuple[Command, Mode], Iterator[int]] = {}
    for command in itertools.cycle(_shuffled(draw, COMMANDS)):
        mode, number = next(kinds[command])
        if not mode.at_operation:
            yield command, mode, number, None
            continue
        if (command, mode) not in left:
            operations = range(1, trials.operations(command, mode) + 1)
            left[command, mode] = itertools.cycle(_shuffled(draw, operations))
        yield command, mode, number, next(left[command, mode])


def kinds_of(command: Command) -> Iterator[tuple[Mode, int]]:
    """Return the modes in which a command can be run, each with every signal."""
    return itertools.product((mode for mode in MODES if command.replaces or mode.start == "nothing"), SIGNALS)


def _shuffled(draw: random.Random, values: Iterable[T]) -> list[T]:
    found = list(values)
    draw.shuffle(found)
    return found


def counted(key: tuple[str, ...], outcome: Outcome) -> Counter:
    """Count an outcome under a key."""
    found = {"kills": outcome.kills, "different": bool(outcome.differences), "stuck": outcome.stuck}
    return Counter({(key, name): int(value) for name, value in found.items()})


def key_of(command: Command, mode: Mode, number: int) -> tuple[str, ...]:
    """Return what kills are counted by."""
    moment = "operation" if mode.at_operation else "random"
    return command.stage, signal.Signals(number).name, mode.start, moment, "nfs" if mode.refuses else "local"


def run(kills: int, seed: int) -> Counter:
    """Try until there were so many kills; counts of kills, differences and stuck runs."""
    forked.prepare(Path("stages"))
    counts: Counter = Counter()
    draw = random.Random(seed)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), draw)
        done = 0
        for command, mode, number, operation in plan(trials, draw):
            outcome = trials.trial(command, mode, number, operation)
            counts.update(counted(key_of(command, mode, number), outcome))
            for difference in outcome.differences:
                print(difference, flush=True)
            done += outcome.kills
            if done >= kills:
                return counts
    raise AssertionError("the plan has no end")


def main() -> None:
    """Kill, compare, print, and add the counts to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="leave the results as they are")
    arguments = parser.parse_args()
    counts = run(arguments.kills, arguments.seed)
    records = records_of(counts)
    Console(width=100).print(table(records))
    if not arguments.dry:
        add(arguments.seed, records)
    raise SystemExit(any(record["different"] or record["stuck"] for record in records))


def table(records: list[dict]) -> Table:
    """Sum the records by stage and signal."""
    result = Table("stage", "signal", "kills", "different", "stuck")
    for (stage, name), group in itertools.groupby(records, lambda record: (record["stage"], record["signal"])):
        of_group = list(group)
        sums = (str(sum(record[key] for record in of_group)) for key in COUNTS)
        result.add_row(stage, name, *sums)
    return result


def add(seed: int, records: list[dict]) -> None:
    """Add a run to the results, and renew the sums over all runs."""
    file = RESULTS / f"{NAME}.json"
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else []
    runs = with_run(runs, measured(None), [seed], records)
    sums = {count: sum(record[count] for each in runs for record in each["records"]) for count in COUNTS}
    write_results(NAME, {**sums, "runs": runs})


def with_run(runs: list[dict], where: dict, seeds: list[int], records: list[dict]) -> list[dict]:
    """Return the runs and one more, which is added to those of the same commit and machine."""
    same = [each for each in runs if each["measured"] == where]
    counts: Counter = Counter()
    for record in itertools.chain(records, *(each["records"] for each in same)):
        key = tuple(record[name] for name in KEYS)
        counts.update({(key, count): record[count] for count in COUNTS})
    seeds = [*(seed for each in same for seed in each["seeds"]), *seeds]
    others = [each for each in runs if each not in same]
    return [*others, {"measured": where, "seeds": seeds, "records": records_of(counts)}]


def records_of(counts: Counter) -> list[dict]:
    """Return a record for each kind of kill, in order."""
    keys = sorted({key for key, _ in counts})
    return [{**dict(zip(KEYS, key, strict=True)), **{count: counts[key, count] for count in COUNTS}} for key in keys]


if __name__ == "__main__":
    main()
