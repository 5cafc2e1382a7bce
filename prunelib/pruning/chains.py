"""Refiners one after another: each step starts from the mask, and the weights, that the step before left."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator

from prunelib import refiners
from prunelib import settings as base
from prunelib.masks.patterns import Pattern
from prunelib.methods import registry
from prunelib.methods.refined import Progress, Refined


def _with_defaults(step: Any) -> Any:
    return {"method": step} if isinstance(step, str) else step


_Step: Any = Annotated[registry.any_settings(refiners), BeforeValidator(_with_defaults)]


class Chain(base.Settings):
    """Several refiners in a row, at least two: the settings of each, or the name of a method with its defaults.

    Settings stand in the chain itself, not in other entries of params.yaml: DVC would not notice that those change.
    """

    method: Literal["chain"] = "chain"
    chain: Annotated[tuple[_Step, ...], Field(min_length=2)]  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _masks_before_weights(self) -> "Chain":
        moved_by = None
        for step in self.chain:
            if moved_by and not registry.about(refiners, step).moves_weights:
                raise ValueError(
                    f"{step.method} after {moved_by}: it decides on the model's own weights, which {moved_by} has "
                    f"moved; put it before"
                )
            moved_by = step.method if registry.about(refiners, step).moves_weights else moved_by
        return self


@dataclass(frozen=True)
class Step:
    """What one refiner of a chain did to a layer: its method, what came out of it, and how long it took."""

    method: str
    refined: Refined
    seconds: float


def steps_of(settings: Any) -> tuple[Any, ...]:
    """The settings of a refiner's steps: those of its chain, or itself alone."""
    return settings.chain if isinstance(settings, Chain) else (settings,)


def run_chain(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: Any,
    progress: Progress,
    statistics: Mapping[str, Any],
) -> list[Step]:
    """Refine one layer by every step in turn.

    Parameters
    ----------
    weight, gram, mask
        (rows, inputs), (inputs, inputs) float32 and (rows, inputs) bool; the first and the last where the work is done.
    settings
        Of one method, or a :class:`Chain`.
    progress
        Told about every row once a step.
    statistics
        What methods may take beyond these, by keyword (:attr:`prunelib.methods.registry.About.extras`).
    """
    done: list[Step] = []
    moved = None
    for step in steps_of(settings):
        known = {**statistics, "moved": moved}
        about = registry.about(refiners, step)
        extras = {name: known[name] for name in about.extras}
        refine = registry.methods(refiners)[step.method].refine
        started = time.perf_counter()
        inputs = gram if about.streams else gram.to(weight.device)
        refined = refine(weight, inputs, mask, pattern, step, progress, **extras)
        done.append(Step(step.method, refined, time.perf_counter() - started))
        mask, moved = refined.mask, refined.weight
    return done


def outcome(steps: Sequence[Step]) -> Refined:
    """A chain as one refiner: from the first step's start to the last one's end, counts summed, the best bound."""
    first, last = steps[0].refined, steps[-1].refined
    bounds = [step.refined.bound for step in steps if step.refined.bound is not None]
    return replace(
        last,
        loss_before=first.loss_before,
        swaps=_sum([step.refined.swaps for step in steps]),
        sweeps=_sum([step.refined.sweeps for step in steps]),
        bound=max(bounds, default=None),
    )


def _sum(counts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    known = [count for count in counts if count is not None]
    return torch.stack(known).sum(dim=0) if known else None
