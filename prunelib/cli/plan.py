"""Print what a model needs before anything runs: shapes, Gram matrices, passes, disk, memory, and whether they fit.

For the config.json of any model, one cell at 50% with updated weights, on the papers' numbers of tokens; for a model of
params.yaml (--model), its share of the whole grid; for a comparison (--comparison), each of its models with all grids.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prunelib.errors import ArtifactError, ModelError, ParamsError
from prunelib.params import Params, known_name, load_params
from prunelib.planning import speed, tables
from prunelib.planning.capacity import Free, free_disk, free_gpu_memory, free_memory
from prunelib.planning.grid import workload
from prunelib.planning.needs import Workload
from prunelib.planning.outline import outline
from prunelib.planning.shapes import Outline
from prunelib.runtime.machine import budgets, machine
from prunelib.sources import ModelSource, hub
from prunelib.sources.block_counts import MOST_BLOCKS, block_counts
from prunelib.sources.models import HubModel, LocalModel
from prunelib.workflow import paths


def plan(config: Path | None, model: str | None, comparison: str | None, *, measure: bool) -> None:
    """Print the plan of one of these: the config.json of a model, a model or a comparison of params.yaml.

    Parameters
    ----------
    measure
        Whether to measure for a few seconds how long each stage will take.

    Raises
    ------
    PruneError
        If not exactly one is given, a name is unknown, or the file is no configuration of a model.
    """
    if sum(given is not None for given in (config, model, comparison)) != 1:
        raise ParamsError("plan: expected exactly one of --config, --model and --comparison")
    for of_model, work in _asked(config, model, comparison):
        planned = outline(of_model)
        _print(tables.plan(planned, work, budgets(), _free()))
        if measure:
            _print(_times(planned, work))


def _asked(
    config: Path | None, model: str | None, comparison: str | None
) -> Iterable[tuple[Mapping[str, Any], Workload]]:
    """Return the configuration and the workload of each requested model."""
    if config:
        return [(_read(config), Workload())]

    params = load_params()
    if model:
        known_name("--model", model, params.models)
        return [_of_params([params], model)]
    runs = params.compared(known_name("--comparison", str(comparison), params.comparisons))
    models = dict.fromkeys(name for run in runs for name in run.grid.models)
    return (_of_params([run for run in runs if name in run.grid.models], name) for name in models)


def _free() -> Free:
    """Return this machine's free disk and memory, and free GPU memory unless PRUNELIB_DEVICE is the CPU."""
    kind, _, number = os.environ.get("PRUNELIB_DEVICE", "cuda").partition(":")
    on_gpu = kind == "cuda" and (not number or number.isdecimal())
    return Free(free_disk(Path()), free_memory(), free_gpu_memory(int(number or 0)) if on_gpu else None)


def _times(planned: Outline, work: Workload) -> Iterable[str | Table]:
    measured = speed.measure(work.dtype or planned.dtype, machine().device, machine().threads)
    return tables.times(speed.estimates(planned, work, measured))


def _print(parts: Iterable[str | Table]) -> None:
    console = Console(highlight=False, markup=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def _of_params(runs: Sequence[Params], model: str) -> tuple[Mapping[str, Any], Workload]:
    downloaded = paths.model_folder(model) / "config.json"
    file = downloaded if downloaded.is_file() else _config_file(runs[0].models[model], model)
    return _read(file), workload(runs, model)


def _config_file(source: ModelSource, name: str) -> Path:
    """Fetch the config.json, without the weights, of a model that is not downloaded yet."""
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
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file, expected the config.json of a model") from None
    except (OSError, ValueError, RecursionError):
        raise ArtifactError(f"{path}: damaged or not JSON, expected the config.json of a model") from None
    if not isinstance(config, dict):
        raise ArtifactError(f"{path}: expected the config.json of a model")
    for key, count in block_counts(config):
        if count > MOST_BLOCKS:
            raise ModelError(f"{path}: {key} = {count}, expected at most {MOST_BLOCKS:,} blocks")
    return config
