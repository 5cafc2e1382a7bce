"""How many weights each layer keeps: the same share of every layer, or the share that an allocation gives it.

A layer keeps a whole number of weights in every row (in the whole matrix, where rows compete). These numbers are
close to the allocation, and their total over all layers is exactly that of a uniform allocation.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch

from prunelib.calibration.artifact import Calibration
from prunelib.errors import PatternError
from prunelib.masks.allocation import Atp, BlockAllocation, MeasuredAllocation, SparsityTable
from prunelib.masks.patterns import Pattern
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight
from prunelib.warmstarts.wanda import wanda

Shares = Mapping[str, float]
"""The share of its weights that each layer keeps, by layer name."""


def stored_patterns(folder: Path, calibration: Calibration, pattern: Pattern) -> dict[str, Pattern]:
    """Return the pattern of every layer, by name, from weights and Gram matrices on disk.

    Parameters and errors: :func:`layer_patterns`; ``folder`` is the model.
    """
    index, weight = calibration.index, partial(read_weight, folder)

    def importances(allocation: MeasuredAllocation) -> dict[int, float]:
        return {
            block: block_importance(index.of_block(block), weight, calibration.gram, allocation, calibration.supports)
            for block in _blocks(index.layers)
        }

    return layer_patterns(index.layers, pattern, importances)


def layer_patterns(
    layers: Sequence[Layer], pattern: Pattern, importances: Callable[[MeasuredAllocation], Mapping[int, float]]
) -> dict[str, Pattern]:
    """Return the pattern of every layer, by name.

    Parameters
    ----------
    pattern
        The pattern of the whole model.
    importances
        Returns the importance of each block that has layers (:func:`block_importance`), by block number.

    Raises
    ------
    PatternError
        If the pattern does not fit a layer or prunes none, or no pattern per layer meets the allocation with the exact
        total.
    """
    allocation = pattern.measured_allocation
    if allocation is None:
        return patterns_by_shape(layers, pattern)
    return by_importance(layers, pattern, allocation, importances(allocation))


def patterns_by_shape(layers: Sequence[Layer], pattern: Pattern) -> dict[str, Pattern]:
    """Return the pattern of every layer, by name, as far as the layers alone decide it.

    A measured allocation is not applied: each layer has the pattern itself.

    Raises
    ------
    PatternError
        If the pattern does not fit a layer or prunes none, or no pattern per layer meets the allocation with the exact
        total.
    """
    for layer in layers:
        try:
            pattern.groups(layer.rows, layer.inputs)
        except PatternError as error:
            raise PatternError(f"{layer.name}: {error}") from None
    _check_some_pruned(layers, pattern)
    match pattern.layer_allocation:
        case SparsityTable() as table:
            return tabled(layers, pattern, table)
        case Atp() as progression:
            return by_importance(layers, pattern, progression, progression.importances(_blocks(layers)))
        case _:
            return {layer.name: pattern for layer in layers}


def _check_some_pruned(layers: Sequence[Layer], pattern: Pattern) -> None:
    """Refuse a sparsity that is too low to prune a weight of any layer; warn if it is for some."""
    groups = {layer.name: pattern.groups(layer.rows, layer.inputs) for layer in layers}
    dense = [name for name, each in groups.items() if each.keep == each.size]
    if dense and len(dense) == len(layers):
        raise PatternError(f"pattern {pattern.label}: prunes no weight of any layer, expected a higher sparsity")
    if dense:
        warnings.warn(
            f"pattern {pattern.label}: prunes no weight of {len(dense)} of {len(layers)} layers, first {dense[0]}",
            stacklevel=4,
        )


def block_importance(
    layers: Sequence[Layer],
    weight: Callable[[Layer], torch.Tensor],
    gram: Callable[[Layer], torch.Tensor],
    allocation: MeasuredAllocation,
    supports: Callable[[Layer], bool],
) -> float:
    """Return the importance of a block from the Wanda scores of its weights.

    Experts with too few tokens for a Gram matrix do not count, unless there are no other layers: the scale of the
    matrix in its place is not that of inputs.

    Parameters
    ----------
    layers
        Those of the block, at least one.
    weight, gram
        Return the weight (rows, inputs) and the Gram matrix (inputs, inputs) of a layer.
    supports
        Returns whether a layer's input had enough tokens (:func:`prunelib.calibration.statistics.has_enough_tokens`).
    """
    counted = [layer for layer in layers if supports(layer)] or layers
    scores = [wanda(weight(layer), gram(layer)).flatten() for layer in counted]
    return allocation.importance(torch.cat(scores))


def by_importance(
    layers: Sequence[Layer], pattern: Pattern, allocation: BlockAllocation, importances: Mapping[int, float]
) -> dict[str, Pattern]:
    """Return the layers' patterns with the sparsities of their blocks.

    Parameters
    ----------
    importances
        Importance of each block that has layers, by block number.

    Raises
    ------
    PatternError
        If a block would keep all or none of its weights, or no pattern per layer keeps the exact total.
    """
    shares = allocation.kept_shares(importances, pattern.mean_sparsity)
    return balanced(layers, pattern, {layer.name: shares[layer.block] for layer in layers})


def tabled(layers: Sequence[Layer], pattern: Pattern, table: SparsityTable) -> dict[str, Pattern]:
    """Return the layers' patterns with the sparsities of a table; layers not in it share the remaining budget.

    Raises
    ------
    PatternError
        If an entry matches no layer, or the remaining budget is not between none and all of the other weights.
    """
    fitting = {layer.name: [key for key in table.sparsities if fnmatchcase(layer.name, key)] for layer in layers}
    if unused := table.sparsities.keys() - {key for keys in fitting.values() for key in keys}:
        raise PatternError(f"allocation.sparsities: {min(unused)!r} matches no layer, such as {layers[0].name}")
    named = {
        layer.name: _in_whole_weights(layer, pattern.with_sparsity(table.sparsities[keys[0]]))
        for layer in layers
        if (keys := fitting[layer.name])
    }
    others = [layer for layer in layers if layer.name not in named]
    kept = sum(_kept(layer, named[layer.name]) for layer in layers if layer.name in named)
    left = _total(layers, pattern) - kept
    if not others and left:
        raise PatternError(
            f"allocation.sparsities: it keeps {kept:,} weights, but sparsity = {pattern.mean_sparsity} keeps "
            f"{kept + left:,}; leave a layer out of the table, to absorb the difference"
        )
    size = sum(layer.rows * layer.inputs for layer in others)
    if others and not 0 < left < size:
        raise PatternError(f"allocation.sparsities: leaves {left:,} of {size:,} weights to the other layers")
    return {**named, **balanced(others, pattern, {layer.name: left / size for layer in others}, left)}


def balanced(layers: Sequence[Layer], pattern: Pattern, shares: Shares, total: int | None = None) -> dict[str, Pattern]:
    """Return patterns close to these shares that keep exactly ``total`` weights.

    Parameters
    ----------
    shares
        The wanted share of each layer; all shares are shifted by the same amount to match the total.
    total
        Number of weights to keep; None: that of a uniform allocation.

    Raises
    ------
    PatternError
        If there are no such patterns.
    """
    if not layers:
        return {}
    total = _total(layers, pattern) if total is None else total
    weights = [layer.rows * layer.inputs for layer in layers]
    sizes = [pattern.groups(layer.rows, layer.inputs).size for layer in layers]
    groups = [weight // size for weight, size in zip(weights, sizes, strict=True)]
    found = sum(shares[layer.name] * weight for layer, weight in zip(layers, weights, strict=True))
    off = (total - found) / sum(weights)
    wanted = [(shares[layer.name] + off) * size for layer, size in zip(layers, sizes, strict=True)]
    kept = _settled(groups, sizes, wanted, total)
    return {layer.name: pattern.keeping(*both) for layer, *both in zip(layers, kept, sizes, strict=True)}


def _in_whole_weights(layer: Layer, pattern: Pattern) -> Pattern:
    """Return the pattern as the counts of a layer's mask give it, which are all that later stages know."""
    size, keep = pattern.groups(layer.rows, layer.inputs)
    return pattern.keeping(keep, size)


def _blocks(layers: Iterable[Layer]) -> list[int]:
    """Return the numbers of the blocks that have layers, in order."""
    return sorted({layer.block for layer in layers})


def _total(layers: Iterable[Layer], pattern: Pattern) -> int:
    return sum(_kept(layer, pattern) for layer in layers)


def _kept(layer: Layer, pattern: Pattern) -> int:
    size, keep = pattern.groups(layer.rows, layer.inputs)
    return layer.rows * layer.inputs // size * keep


def _settled(groups: Sequence[int], sizes: Sequence[int], wanted: Sequence[float], total: int) -> list[int]:
    """Return whole numbers near ``wanted``, between 1 and ``sizes`` - 1, with sum(groups * numbers) = total."""
    if min(sizes) < 2:
        raise PatternError("allocation: a layer whose rows have one weight cannot keep a part of it")
    kept, carried = [0] * len(groups), 0.0
    for i in sorted(range(len(groups)), key=lambda i: -groups[i]):  # finer steps make up for what coarser ones miss
        exact = wanted[i] + carried / groups[i]
        kept[i] = min(max(round(exact), 1), sizes[i] - 1)
        carried = (exact - kept[i]) * groups[i]
    rest = total - sum(number * keep for number, keep in zip(groups, kept, strict=True))
    for step in _steps(rest, sorted(set(groups))):
        sign = 1 if step > 0 else -1
        able = [i for i, number in enumerate(groups) if number == abs(step) and 1 <= kept[i] + sign < sizes[i]]
        if not able:
            raise PatternError("allocation: some layers would have to keep all or none of their weights")
        kept[max(able, key=lambda i: sign * (wanted[i] - kept[i]))] += sign
    return kept


def _steps(rest: int, units: Sequence[int]) -> list[int]:
    """Return signed units that sum to ``rest``, using as few as possible of any but the smallest unit."""
    if not rest:
        return []
    least, *others = units
    signed = [sign * unit for unit in others for sign in (1, -1)]
    found: dict[int, list[int]] = {rest % least: []}
    waiting = deque(found)
    while 0 not in found and waiting:
        left = waiting.popleft()
        for step in signed:
            if (after := (left - step) % least) not in found:
                found[after] = [*found[left], step]
                waiting.append(after)
    if 0 not in found:
        raise PatternError(f"allocation: {rest:,} weights are left over, and rows come in {', '.join(map(str, units))}")
    rest -= sum(found[0])
    return found[0] + [least if rest > 0 else -least] * (abs(rest) // least)
