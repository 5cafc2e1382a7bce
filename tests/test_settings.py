"""Every number of params.yaml has an upper bound, so that a mistake ends before any work."""

import re
from typing import Annotated, get_args, get_origin

import pytest
import torch
from annotated_types import Le, Lt
from pipeline_project import PARAMS
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from prunelib import PerRow, gram_matrix, refiners, select, wanda
from prunelib.errors import NumericalError, ParamsError
from prunelib.methods import registry
from prunelib.params import Params, load_params
from prunelib.runtime.machine import Machine
from prunelib.settings import MOST_DAMPING, among

BOUNDED_BY_THE_DATA = {
    ("NOfM", "keep"),  # the layers' inputs, before calibration
    ("NOfM", "group"),
    ("WheelsModel", "size"),  # the disk
    ("WheelsModel", "parameters"),
    ("dsnot", "max_cycles"),  # its loop ends once no row changes
}


def parts(annotation):
    """An annotation and all that it is made of, each with its metadata."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        yield inner, metadata
        yield from parts(inner)
    else:
        yield annotation, []
        for part in get_args(annotation):
            yield from parts(part)


def numbers(model, seen):
    """All fields for numbers in a settings class and those within: (class or method, field, bounded)."""
    seen.add(model)
    for name, field in model.model_fields.items():
        found = list(parts(field.annotation))
        if any(part in {int, float} for part, _ in found):
            metadata = [*field.metadata, *(each for _, part in found for each in part)]
            metadata += [each for inner in metadata if isinstance(inner, FieldInfo) for each in inner.metadata]
            label = model.model_fields["method"].default if "method" in model.model_fields else model.__name__
            yield label, name, any(isinstance(bound, Le | Lt) for bound in metadata)
        for part, _ in found:
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in seen:
                yield from numbers(part, seen)


def test_every_number_has_an_upper_bound():
    found = {(label, name): bounded for label, name, bounded in numbers(Params, set())}
    assert ("CalibrationSettings", "samples") in found
    assert {("sparseswaps", "max_swaps"), ("dsnot", "update_threshold"), ("owl", "outlier")} <= found.keys()
    assert {field for field, bounded in found.items() if not bounded} <= BOUNDED_BY_THE_DATA


@pytest.mark.parametrize(
    "key",
    [
        *(f"calibration.{name}" for name in ("samples", "length", "batch", "held_out_samples", "min_tokens", "shards")),
        *(f"evaluation.perplexity.{name}" for name in ("length", "tokens", "batch")),
        *(f"evaluation.tasks.{name}" for name in ("limit", "batch")),
        *(f"refiners.sparseswaps.{name}" for name in ("max_swaps", "damping", "early_stopping_interval")),
        *(f"refiners.sparsefw.{name}" for name in ("iterations", "damping")),
        *(f"refiners.admm.{name}" for name in ("iterations", "schedule", "rho", "damping")),
        *(f"refiners.alps.{name}" for name in ("iterations", "rho", "damping", "refit_iterations")),
        *(f"refiners.least_squares.{name}" for name in ("iterations", "damping")),
        "refiners.refit_swaps.damping",
        "refiners.sparsegpt_update.damping",
        *(f"warmstarts.sparsegpt.{name}" for name in ("block", "damping")),
        "warmstarts.ria.exponent",
        "warmstarts.random.seed",
        "texts.ours.held_out_every_nth",
    ],
)
@pytest.mark.parametrize("value", [10**12, 10**30])
def test_numbers_that_nobody_means_are_refused(key, value, tmp_path):
    if (key, value) == ("evaluation.perplexity.tokens", 10**12):
        pytest.skip("a corpus")
    raw = {section: dict(PARAMS[section]) for section in PARAMS}
    *path, last = key.split(".")
    section = raw
    for part in path:
        section[part] = dict(section.get(part, {}))
        section = section[part]
    section[last] = value
    file = tmp_path / "params.yaml"
    with file.open("w") as stream:
        YAML().dump(raw, stream)
    with pytest.raises(ParamsError, match=rf"{re.escape(path[-1])}\S*\.{last} = {value}") as caught:
        load_params(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("threads", 10**9), ("task_threads", 10**9), ("task_gpus", 10**9), ("task_gpus", 1.5)]
)
def test_the_machine_has_bounds_too(name, value):
    with pytest.raises(ValidationError, match=name):
        Machine(**{name: value})


DAMPED = {
    name: method for name, method in registry.methods(refiners).items() if "damping" in method.settings.model_fields
}


def problem():
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(500, 64, generator=draw) @ torch.randn(64, 64, generator=draw)
    return torch.randn(2, 64, generator=draw), gram_matrix(inputs), PerRow(sparsity=0.5)


@pytest.mark.parametrize("name", DAMPED)
def test_refiners_end_at_the_highest_damping(name):
    weight, gram, pattern = problem()
    settings = DAMPED[name].settings(damping=MOST_DAMPING)
    refined = DAMPED[name].refine(weight, gram, select(wanda(weight, gram), pattern), pattern, settings)
    assert refined.loss_after.isfinite().all()


@pytest.mark.parametrize("name", sorted(set(DAMPED) - {"admm", "alps", "sparsegpt_update"}))  # all in float64
def test_damping_that_float32_cannot_hold_is_refused(name):
    weight, gram, pattern = problem()
    mask, gram = select(wanda(weight, gram), pattern), gram * (1e33 / gram.diagonal().mean())
    settings = DAMPED[name].settings(damping=MOST_DAMPING)
    with pytest.raises(NumericalError, match=r"^damping = "):
        DAMPED[name].refine(weight, gram, mask, pattern, settings)


@pytest.mark.parametrize(
    ("name", "near"),
    [("swaps", "sparseswaps"), ("apls", "alps"), ("sparse", "sparseswaps"), ("zzz", None), ("", None)],
)
def test_a_name_that_contains_the_unknown_one_is_nearest(name, near):
    assert among(name, ["alps", "sparseswaps"]) == "alps, sparseswaps" + (f"; did you mean {near}?" if near else "")
