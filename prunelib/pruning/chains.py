"""Chains of refiners: each step starts from the mask and the weights of the previous step."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, model_validator

from prunelib import block_refiners, refiners
from prunelib.errors import ParamsError
from prunelib.masks.patterns import Pattern
from prunelib.methods import registry
from prunelib.methods.block_contract import BlockSettings
from prunelib.methods.contract import ExtraInputs, MethodSettings, Progress, Refined
from prunelib.refiners.none import NoRefinement
from prunelib.runtime.compute import AUTO, Compute


def _with_defaults(step: Any) -> Any:
    return {"method": step} if isinstance(step, str) else step


if TYPE_CHECKING:  # the members of this union are discovered at run time
    AnyStep = MethodSettings
else:
    AnyStep = Annotated[registry.any_settings(refiners, block_refiners), BeforeValidator(_with_defaults)]


class Chain(MethodSettings):
    """At least two refiners in order: the settings of each, or the name of a method with its defaults.

    The last one may refine whole blocks.
    The settings are part of the chain itself: DVC would not detect changes in other entries of params.yaml.
    """

    method: Literal["chain"] = "chain"
    chain: Annotated[tuple[AnyStep, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _order_is_possible(self) -> "Chain":
        if early := [step.method for step in self.chain[:-1] if isinstance(step, BlockSettings)]:
            raise ValueError(f"{early[0]}: refines whole blocks, expected as the last of the chain")
        updated_by = None
        for step in layer_steps(self):
            updates = registry.refiner(refiners, step).updates_weights
            if updated_by and not updates:
                raise ValueError(
                    f"{step.method} after {updated_by}: it expects the model's own weights, which {updated_by} "
                    f"updates; put {step.method} first"
                )
            updated_by = step.method if updates else updated_by
        return self


@dataclass(frozen=True)
class Step:
    """The result of one refiner of a chain on one layer: its method, the refined mask, and its time in seconds."""

    method: str
    refined: Refined
    seconds: float


if TYPE_CHECKING:
    AnyRefiner = MethodSettings
else:
    AnyRefiner = Annotated[registry.any_settings(refiners, block_refiners) | Chain, Field(discriminator="method")]


def updates_weights(settings: MethodSettings) -> bool:
    """Return whether a refiner or a step of a chain updates the kept weights."""
    steps = (registry.refiner(refiners, step) for step in layer_steps(settings))
    return block_step(settings) is not None or any(step.updates_weights for step in steps)


def needs_held_out(settings: MethodSettings) -> bool:
    """Return whether a refiner or a step of a chain stops early, for which it needs held-out calibration tokens."""
    return any(step.needs_held_out for step in layer_steps(settings))


def layer_steps(settings: MethodSettings) -> tuple[MethodSettings, ...]:
    """Return the settings of each step that refines single layers; a block refiner alone has ``none`` before it."""
    steps = settings.chain if isinstance(settings, Chain) else (settings,)
    return tuple(step for step in steps if not isinstance(step, BlockSettings)) or (NoRefinement(),)


def block_step(settings: MethodSettings) -> BlockSettings | None:
    """Return the settings of the last step if it refines whole blocks."""
    last = settings.chain[-1] if isinstance(settings, Chain) else settings
    return last if isinstance(last, BlockSettings) else None


def check_skipped(settings: MethodSettings, names: Iterable[str]) -> None:
    """Check that every layer name, or pattern of names, that a refiner is to skip is that of a layer.

    Raises
    ------
    ParamsError
        If one matches none of ``names``.
    """
    names = list(names)
    for step in layer_steps(settings):
        for skipped in step.skipped_layers:
            if not any(fnmatchcase(name, skipped) for name in names):
                raise ParamsError(f"refiners: {step.method}.skip: {skipped!r} matches no layer, such as {names[0]}")


def run_chain(
    weight: torch.Tensor,
    gram: torch.Tensor,
    mask: torch.Tensor,
    pattern: Pattern,
    settings: MethodSettings,
    progress: Progress,
    extra: ExtraInputs,
    compute: Compute = AUTO,
) -> list[Step]:
    """Refine one layer by each step in turn.

    Parameters
    ----------
    weight, gram, mask
        (rows, inputs), (inputs, inputs) float32 and (rows, inputs) bool; ``weight`` and ``mask`` on the device that
        refines.
    settings
        Those of one method, or a :class:`Chain`.
    progress
        Called for every row once per step: with its losses by the first, with their changes by the others, so that sums
        are those of the chain.
    extra
        Further statistics of the layer's inputs. ``updated_weight`` is set after each step for the next.
    compute
        Threads and kernels.
    """
    done: list[Step] = []
    for step in layer_steps(settings):
        method = registry.refiner(refiners, step)
        started = time.perf_counter()
        inputs = gram if method.accepts_cpu_gram else gram.to(weight.device)
        refined = method.refine(weight, inputs, mask, pattern, step, progress, extra, compute)
        done.append(Step(step.method, refined, time.perf_counter() - started))
        mask, extra = refined.mask, extra._replace(updated_weight=refined.weight)
        progress = _changes(progress) if len(done) == 1 else progress
    return done


def _changes(progress: Progress) -> Progress:
    """Return a callback that reports how the losses change, of rows whose losses have been reported."""
    return lambda rows, loss_before, loss_after: progress(rows, 0.0, loss_after - loss_before)


def outcome(steps: Sequence[Step]) -> Refined:
    """Return the result of a chain as one refiner: first loss before, last result, summed counts, highest bound."""
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
    known = [count.cpu() for count in counts if count is not None]  # DSnoT's are where it ran
    return torch.stack(known).sum(dim=0) if known else None
