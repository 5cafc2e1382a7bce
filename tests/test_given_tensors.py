"""Every public function that takes tensors: as users have them, they are taken; what has no meaning is refused."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import prunelib
from prunelib import ExtraInputs, NOfM, PerLayer, PerRow, SparseSwaps, gram_matrix, select, wanda
from prunelib.errors import NumericalError, PatternError, PruneError

PATTERN = PerRow(sparsity=0.5)


def tensors():
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(100, 8, generator=generator), torch.randn(4, 8, generator=generator)
    gram = gram_matrix(inputs)
    return {"weight": weight, "gram": gram, "mask": select(wanda(weight, gram), PATTERN)}


CALLS = {  # each public function of tensors, and the arguments that it takes
    "magnitude": (("weight",), lambda t: prunelib.magnitude(t["weight"])),
    "wanda": (("weight", "gram"), lambda t: wanda(t["weight"], t["gram"])),
    "ria": (("weight", "gram"), lambda t: prunelib.ria(t["weight"], t["gram"])),
    "select": (("weight",), lambda t: select(t["weight"], PATTERN)),
    "gram_matrix": (("weight",), lambda t: gram_matrix(t["weight"])),
    "output_energy": (("weight", "gram"), lambda t: prunelib.output_energy(t["weight"], t["gram"])),
    "row_losses": (("weight", "gram", "mask"), lambda t: prunelib.row_losses(t["weight"], t["gram"], t["mask"])),
    "pruning_error": (("weight", "gram", "mask"), lambda t: prunelib.pruning_error(t["weight"], t["gram"], t["mask"])),
    "sparseswaps": (
        ("weight", "gram", "mask"),
        lambda t: prunelib.sparseswaps(t["weight"], t["gram"], t["mask"], PATTERN),
    ),
    "sparsefw": (("weight", "gram", "mask"), lambda t: prunelib.sparsefw(t["weight"], t["gram"], t["mask"], PATTERN)),
}
PATTERNS = dict.fromkeys(("admm", "alps", "least_squares", "refit_swaps", "sparsegpt_update", "dsnot"), PATTERN)
PATTERNS |= {"block_moves": NOfM(keep=4, group=8), "row_exchange": PerLayer(sparsity=0.5)}  # the mask fits these, too


def refined(name, t):
    inputs = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))  # those of the Gram matrix
    extra = ExtraInputs(input_mean=inputs.mean(dim=0), tokens=100, windows=4)
    return getattr(prunelib, name)(t["weight"], t["gram"], t["mask"], PATTERNS[name], extra=extra)


CALLS |= {name: (("weight", "gram", "mask"), partial(refined, name)) for name in PATTERNS}
CALLS |= {
    "sparsegpt": (("weight", "gram"), lambda t: prunelib.sparsegpt(t["weight"], t["gram"], PATTERN)),
    "random_scores": (("weight",), lambda t: prunelib.random_scores(t["weight"])),
}
OF_MODELS = {
    "apply_masks",
    "layer_results",
    "merge",
    "prune",
    "push_to_hub",
    "read_masks",
    "results",
    "to_semi_structured",
    "verify",
    "write_masks",
}
NO_TENSORS = {"numpy": lambda t: t.numpy(), "list": lambda t: t.tolist(), "nothing": lambda _: None}
NOT_DENSE = {"sparse": lambda t: t.to_sparse(), "without data": lambda t: t.to("meta")}
ANYTHING = {**NO_TENSORS, **NOT_DENSE, "scalar": lambda t: t[0, 0], "complex": lambda t: t + 0j}
BAD = {
    "weight": {**ANYTHING, "no inputs": lambda t: t[:, :0]},
    "gram": {
        **ANYTHING,
        "of one input": lambda t: t[:1, :1],
        "vector": lambda t: t[0],
        "not square": lambda t: t[:4],
        "three dimensions": lambda t: t[None],
        "integers": lambda t: t.int(),
        "negative": lambda t: -t,
    },
    "mask": {
        **ANYTHING,
        "of one row": lambda t: t[:1],
        "vector": lambda t: t[0],
        "transposed": lambda t: t.T,
        "floats": lambda t: t.float(),
        "bytes": lambda t: t.byte(),
        "three dimensions": lambda t: t[None],
    },
}
MATRIX = {"vector": lambda t: t[0], "three dimensions": lambda t: t[None]}
FLOATS = {"integers": lambda t: t.int()}
NUMBERS = {"truth values": lambda t: t > 0}
TAKEN = {
    "parameter": nn.Parameter,
    "bfloat16": lambda t: t.bfloat16(),
    "float16": lambda t: t.half(),
    "float64": lambda t: t.double(),
    "not contiguous": lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
}


def bad_calls():
    for function, (names, _) in CALLS.items():
        for name in names:
            bad = dict(BAD[name])
            if name == "weight":
                bad |= (
                    NUMBERS | (FLOATS if function != "select" else {}) | (MATRIX if function != "gram_matrix" else {})
                )
            for what, change in bad.items():
                yield pytest.param(function, name, change, id=f"{function}-{name} {what}")


@pytest.mark.parametrize(("function", "name", "change"), list(bad_calls()))
def test_what_has_no_meaning_is_refused_in_one_line(function, name, change):
    given = tensors()
    given[name] = change(given[name])
    with pytest.raises(PruneError) as caught:
        CALLS[function][1](given)
    assert isinstance(caught.value, NumericalError | PatternError)
    line = str(caught.value)
    assert "\n" not in line
    expected = {"select": {"scores"}, "gram_matrix": {"inputs"}}.get(function, {name, "gram", "weight"})
    assert line.split(":", maxsplit=1)[0] in expected
    tensor = given[name]
    if isinstance(tensor, torch.Tensor) and tensor.shape != tensors()[name].shape:
        assert str(tuple(tensor.shape)) in line  # the numbers, not torch's words


@pytest.mark.parametrize("form", TAKEN)
@pytest.mark.parametrize("function", sorted(CALLS.keys() - {"random_scores"}))  # each weight has a draw of its own
def test_tensors_are_taken_as_their_values(function, form):
    names, call = CALLS[function]
    plain, given = tensors(), tensors()
    plain["weight"] = TAKEN[form](plain["weight"]).detach().double() if "float" in form else plain["weight"]
    given["weight"] = TAKEN[form](given["weight"])
    if "gram" in names and form in {"parameter", "float64", "not contiguous"}:
        given["gram"] = TAKEN[form](given["gram"])
    found, expected = call(given), call(plain)
    for name in ("mask", "loss_after") if isinstance(found, prunelib.Refined) else ("",):
        one, two = (getattr(each, name, each) for each in (found, expected))
        one, two = torch.as_tensor(one), torch.as_tensor(two)
        assert not one.requires_grad
        torch.testing.assert_close(
            one, two, rtol=1e-2 if function == "gram_matrix" and "float16" in form else 1e-5, atol=1e-6
        )


@pytest.mark.parametrize("pattern", [None, "50%", 0.5])
@pytest.mark.parametrize("function", [prunelib.sparseswaps, prunelib.sparsefw])
def test_a_pattern_is_no_text(function, pattern):
    t = tensors()
    with pytest.raises(PatternError, match=r"^pattern"):
        function(t["weight"], t["gram"], t["mask"], pattern)
    with pytest.raises(PatternError, match=r"^pattern"):
        select(t["weight"], pattern)
    if not isinstance(pattern, str):
        with pytest.raises(PatternError, match=r"^pattern"):
            prunelib.parse_pattern(pattern)


@pytest.mark.parametrize("change", [lambda t: t[:1, :1], lambda t: t.numpy(), lambda t: t * np.nan])
def test_a_held_out_gram_matrix_is_looked_at_too(change):
    t = tensors()
    extra = prunelib.ExtraInputs(held_out_gram=change(t["gram"]))
    settings = SparseSwaps(early_stopping_interval=1)
    with pytest.raises(NumericalError, match=r"^gram: "):
        prunelib.sparseswaps(t["weight"], t["gram"], t["mask"], PATTERN, settings, extra=extra)


UPDATERS = ("admm", "alps", "least_squares", "refit_swaps", "sparsegpt_update")
UPDATED = {
    "of one row": lambda t: t[:1],
    "transposed": lambda t: t.T,
    "vector": lambda t: t[0],
    "integers": lambda t: t.int(),
    "NaN": lambda t: t * np.nan,
    "infinite": lambda t: t / 0,
    **{name: change for name, change in ANYTHING.items() if name != "nothing"},
}


@pytest.mark.parametrize("change", UPDATED)
@pytest.mark.parametrize("function", UPDATERS)
def test_updated_weights_are_looked_at_too(function, change):
    t = tensors()
    extra = ExtraInputs(updated_weight=UPDATED[change](t["weight"] * t["mask"]))
    with pytest.raises(NumericalError, match=r"^updated_weight: ") as caught:
        getattr(prunelib, function)(t["weight"], t["gram"], t["mask"], PATTERN, extra=extra)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("input_mean", [0.0] * 8), ("input_mean", torch.zeros(8).int()), ("tokens", -1), ("windows", 0)],
)
def test_the_statistics_of_inputs_are_looked_at_too(name, value):
    t = tensors()
    extra = ExtraInputs(input_mean=torch.zeros(8), tokens=100, windows=4)._replace(**{name: value})
    with pytest.raises(NumericalError, match=rf"^{name}: "):
        prunelib.dsnot(t["weight"], t["gram"], t["mask"], PATTERN, extra=extra)


def test_numbers_that_are_none_have_no_error():
    t = tensors()
    for name in ("weight", "gram"):
        with pytest.raises(NumericalError, match="NaN"):
            prunelib.pruning_error(**{**t, name: t[name] * torch.nan})


def test_no_public_function_is_left_out():
    functions = {name for name in prunelib.__all__ if name[0].islower()}
    assert functions == {*CALLS, *OF_MODELS, "parse_pattern"}
