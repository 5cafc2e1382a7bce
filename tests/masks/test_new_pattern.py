"""A new kind of pattern is one class: kinds that only this file knows run through selection, methods and drivers."""

from fractions import Fraction
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest
import torch
from strategies import problem

from prunelib import NOfM, refiners, select, sparseswaps, wanda, warmstarts
from prunelib.errors import PatternError
from prunelib.masks.checks import check_mask, patterns_of
from prunelib.masks.patterns import Groups, Pattern
from prunelib.methods import registry
from prunelib.methods.contract import ExtraInputs
from prunelib.pruning.budgets import stored_patterns
from prunelib.pruning.warm_up import warm_up


class HalfOfColumns(Pattern):
    """Keep half of every ``width`` columns: 2:4 written otherwise."""

    kind: Literal["half_of_columns"] = "half_of_columns"
    width: int

    @property
    def label(self) -> str:
        return f"half of {self.width} columns"

    @property
    def kept_share(self) -> Fraction:
        return Fraction(1, 2)

    @property
    def column_groups(self) -> Groups:
        return Groups(size=self.width, keep=self.width // 2)

    def groups(self, rows: int, inputs: int) -> Groups:
        return self.column_groups


class QuarterOfRow(Pattern):
    """Keep half of each quarter of a row: groups are columns, but not a fixed number in every matrix."""

    kind: Literal["quarter_of_row"] = "quarter_of_row"

    @property
    def label(self) -> str:
        return "half of each quarter of a row"

    @property
    def kept_share(self) -> Fraction:
        return Fraction(1, 2)

    def groups(self, rows: int, inputs: int) -> Groups:
        return Groups(size=inputs // 4, keep=inputs // 8)


class ThirdOfRow(Pattern):
    """Keep a third of every row, rounded up; there is nothing to set."""

    kind: Literal["third_of_row"] = "third_of_row"

    @property
    def label(self) -> str:
        return "a third of a row"

    @property
    def kept_share(self) -> Fraction:
        return Fraction(1, 3)

    def groups(self, rows: int, inputs: int) -> Groups:
        return Groups(size=inputs, keep=-(-inputs // 3))


class ThirdOfLayer(ThirdOfRow):
    """Keep a third of the matrix, rounded up."""

    spans_rows: ClassVar[bool] = True

    kind: Literal["third_of_layer"] = "third_of_layer"  # type: ignore[assignment]

    def groups(self, rows: int, inputs: int) -> Groups:
        if rows < 2:
            raise PatternError("one row is no layer")
        return Groups(size=rows * inputs, keep=-(-rows * inputs // 3))


PATTERNS = [HalfOfColumns(width=4), QuarterOfRow(), ThirdOfRow(), ThirdOfLayer()]
REFINERS = registry.methods(refiners)
STARTS = {name: method for name, method in registry.methods(warmstarts).items() if method.read is None}
every_pattern = pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.kind)


@every_pattern
def test_a_new_kind_is_selected_refined_and_checked(pattern):
    p = problem(1, pattern, rows=5, inputs=16, tokens=80)
    mask = select(wanda(p.weight, p.gram), pattern)
    check_mask(mask, p.weight, pattern)
    refined = sparseswaps(p.weight, p.gram, mask, pattern)
    check_mask(refined.mask, p.weight, pattern)
    assert refined.optimal.all()
    assert refined.loss_after.sum() < refined.loss_before.sum()
    with pytest.raises(PatternError, match=f"do not keep exactly .*{pattern.label}"):
        check_mask(torch.ones_like(mask), p.weight, pattern)


@every_pattern
@pytest.mark.parametrize("name", STARTS)
def test_every_warm_start_takes_it(name, pattern):
    p = problem(2, pattern, rows=5, inputs=16, tokens=80)
    method = STARTS[name]
    check_mask(method.layer_mask(p.weight, p.gram, pattern, method.settings()), p.weight, pattern)


@every_pattern
@pytest.mark.parametrize("name", REFINERS)
def test_every_refiner_takes_it_or_says_that_it_does_not(name, pattern):
    p = problem(3, pattern, rows=5, inputs=16, tokens=80)
    method, extra = REFINERS[name], ExtraInputs(input_mean=torch.zeros(16), tokens=80, windows=1)
    if method.supports(pattern):
        check_mask(method.refine(p.weight, p.gram, p.mask, pattern, extra=extra).mask, p.weight, pattern)
    else:
        with pytest.raises(PatternError, match=pattern.label):
            method.refine(p.weight, p.gram, p.mask, pattern, extra=extra)


def test_methods_choose_by_properties():
    taken = {pattern.kind: {name for name in REFINERS if REFINERS[name].supports(pattern)} for pattern in PATTERNS}
    assert set(REFINERS) - taken["half_of_columns"] == {"row_exchange"}
    assert set(REFINERS) - taken["quarter_of_row"] == {"block_moves", "row_exchange"}
    assert set(REFINERS) - taken["third_of_row"] == {"block_moves", "row_exchange"}
    assert set(REFINERS) - taken["third_of_layer"] == {"block_moves"}


def test_2_4_by_another_name_gives_the_masks_of_2_4():
    p = problem(4, HalfOfColumns(width=4), rows=5, inputs=16, tokens=80)
    assert p.pattern.semi_structured
    sparsegpt = STARTS["sparsegpt"].choose
    assert torch.equal(sparsegpt(p.weight, p.gram, p.pattern), sparsegpt(p.weight, p.gram, NOfM(keep=2, group=4)))
    admm = REFINERS["admm"].refine
    found, expected = (admm(p.weight, p.gram, p.mask, each) for each in (p.pattern, NOfM(keep=2, group=4)))
    assert torch.equal(found.mask, expected.mask)
    assert torch.equal(found.weight, expected.weight)


def test_a_pattern_that_keeps_nothing_of_a_group_is_refused():
    with pytest.raises(PatternError, match="quarter of a row: keeps 0 of the 1 weights"):
        select(torch.ones(2, 4), QuarterOfRow())


@every_pattern
def test_drivers_share_its_budget_evenly_and_warm_up_for_it(pattern, tmp_path):
    layers = [SimpleNamespace(name=name, rows=2, inputs=8) for name in ("a", "b")]
    calibration = SimpleNamespace(index=SimpleNamespace(layers=layers, blocks=1))
    assert stored_patterns(tmp_path, calibration, pattern) == {"a": pattern, "b": pattern}
    assert patterns_of({"a": torch.ones(2, 8, dtype=torch.bool)}, pattern) == {"a": pattern}
    warm_up(REFINERS["sparseswaps"].settings(), pattern, torch.device("cpu"), [16])
