"""How many weights each layer keeps: the same share of all, or more where an allocation says so, the total kept exact.

A layer keeps a whole number of weights in every row (in the whole matrix, where rows compete). These numbers are near
to the allocation, and all layers together keep as many as with the same share of each.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean

import torch

from prunelib.calibration.artifact import Calibration
from prunelib.errors import PatternError
from prunelib.masks.allocation import Owl, Table
from prunelib.masks.patterns import Pattern
from prunelib.model.layers import Layer
from prunelib.model.weights import read_weight
from prunelib.warmstarts.wanda import saliency

Shares = Mapping[str, float]
"""Layer name to the share of its weights that is kept."""


def layer_patterns(folder: Path, calibration: Calibration, pattern: Pattern) -> dict[str, Pattern]:
    """The pattern of every layer, by name.

    Parameters
    ----------
    folder
        The model.
    pattern
        Of the whole model.

    Raises
    ------
    PatternError
        If the allocation cannot be had with the total kept exact.
    """
    layers = calibration.index.layers
    allocation = pattern.layer_allocation
    if allocation is None:
        return {layer.name: pattern for layer in layers}
    if isinstance(allocation, Table):
        return tabled(layers, pattern, allocation)
    outliers = [outlier_share(folder, calibration, block, allocation) for block in range(calibration.index.blocks)]
    return balanced(layers, pattern, owl_shares(layers, outliers, pattern.mean_sparsity, allocation))


def patterns_of(masks: Mapping[str, torch.Tensor], pattern: Pattern) -> dict[str, Pattern]:
    """The pattern of every layer, by name, as it is found in masks (rows, inputs) bool of this pattern."""
    if pattern.layer_allocation is None:
        return dict.fromkeys(masks, pattern)
    found: dict[str, Pattern] = {}
    for name in masks:
        mask = masks[name]
        size, _ = pattern.groups(*mask.shape)
        found[name] = pattern.keeping(int(mask.flatten()[:size].sum()), size)
    return found


def outlier_share(folder: Path, calibration: Calibration, block: int, settings: Owl) -> float:
    """The share of a block's weights whose Wanda score is more than ``settings.outlier`` times their mean."""
    layers = calibration.index.of_block(block)
    scores = [saliency(read_weight(folder, layer), calibration.gram(layer)).flatten() for layer in layers]
    of_block = torch.cat(scores)
    return float((of_block > settings.outlier * of_block.double().mean()).double().mean())


def owl_shares(layers: Iterable[Layer], outliers: Sequence[float], sparsity: float, settings: Owl) -> dict[str, float]:
    """What each layer keeps where blocks have these shares of outliers (OWL, 2310.05175, section 3.2)."""
    least, span = min(outliers), max(outliers) - min(outliers)
    raised = [2 * settings.spread * (share - least) / span if span else 0.0 for share in outliers]
    return {layer.name: 1 - sparsity + raised[layer.block] - fmean(raised) for layer in layers}


def tabled(layers: Sequence[Layer], pattern: Pattern, table: Table) -> dict[str, Pattern]:
    """The layers' patterns with the sparsities of a table; layers that are not in it share what is left.

    Raises
    ------
    PatternError
        If an entry fits no layer, or what is left is not a share of the others.
    """
    fitting = {layer.name: [key for key in table.sparsities if fnmatchcase(layer.name, key)] for layer in layers}
    if unused := table.sparsities.keys() - {key for keys in fitting.values() for key in keys}:
        raise PatternError(f"allocation.sparsities: {min(unused)!r} fits no layer, such as {layers[0].name}")
    named = {name: pattern.with_sparsity(table.sparsities[keys[0]]) for name, keys in fitting.items() if keys}
    others = [layer for layer in layers if layer.name not in named]
    kept = sum(_kept(layer, named[layer.name]) for layer in layers if layer.name in named)
    left = _total(layers, pattern) - kept
    if not others and left:
        raise PatternError(
            f"allocation.sparsities: it keeps {kept:,} weights, but sparsity = {pattern.mean_sparsity} keeps "
            f"{kept + left:,}; leave a layer out, which then makes up for it"
        )
    size = sum(layer.rows * layer.inputs for layer in others)
    if others and not 0 < left < size:
        raise PatternError(f"allocation.sparsities: leaves {left:,} weights to keep for the {size:,} of other layers")
    return {**named, **balanced(others, pattern, {layer.name: left / size for layer in others}, left)}


def balanced(layers: Sequence[Layer], pattern: Pattern, shares: Shares, total: int | None = None) -> dict[str, Pattern]:
    """Patterns as near to these shares as they can be, that together keep a total.

    Parameters
    ----------
    shares
        What each layer should keep; all are moved by the same amount where that does not make up the total.
    total
        Number of weights to keep; None: as many as with the same share of each layer.

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


def _total(layers: Iterable[Layer], pattern: Pattern) -> int:
    return sum(_kept(layer, pattern) for layer in layers)


def _kept(layer: Layer, pattern: Pattern) -> int:
    size, keep = pattern.groups(layer.rows, layer.inputs)
    return layer.rows * layer.inputs // size * keep


def _settled(groups: Sequence[int], sizes: Sequence[int], wanted: Sequence[float], total: int) -> list[int]:
    """Whole numbers near ``wanted``, between 1 and ``sizes`` - 1, with sum(groups * numbers) = total."""
    kept = [min(max(round(number), 1), size - 1) for number, size in zip(wanted, sizes, strict=True)]
    rest = total - sum(number * keep for number, keep in zip(groups, kept, strict=True))
    for step in _steps(rest, sorted(set(groups))):
        sign = 1 if step > 0 else -1
        able = [i for i, number in enumerate(groups) if number == abs(step) and 1 <= kept[i] + sign < sizes[i]]
        if not able:
            raise PatternError("allocation: some layers would have to keep all or none of their weights")
        kept[max(able, key=lambda i: sign * (wanted[i] - kept[i]))] += sign
    return kept


def _steps(rest: int, units: Sequence[int]) -> list[int]:
    """Units, each added or taken away, that make up the rest: few but for the least of them."""
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
