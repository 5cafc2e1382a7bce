"""Whether a model, or a folder, is still pruned by its masks: after fine-tuning, quantisation, conversion."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel

from prunelib.errors import ArtifactError, ModelError, PatternError
from prunelib.masks.checks import bool_mask, patterns_of
from prunelib.masks.packed import read_masks
from prunelib.masks.patterns import AnyPattern, Pattern, as_pattern
from prunelib.masks.pruned import MASKS_FILE
from prunelib.model.adapters import require_no_adapters
from prunelib.model.masked import masked_layers
from prunelib.model.weights import open_shard, stored_tensors
from prunelib.runtime import store

if TYPE_CHECKING:
    from os import PathLike

_LISTED = 20  # how many broken layers the text names
_READABLE = {  # dtypes whose zero is the number 0
    *(torch.float64, torch.float32, torch.bfloat16, torch.float16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.int8),
}


@dataclass(frozen=True)
class LayerCheck:
    """One layer under its mask.

    Attributes
    ----------
    name
        Of its mask.
    pruned, nonzero
        Number of pruned weights, and of those among them that are not zero. -0.0 counts as zero, NaN does not.
    groups, overfull
        Number of groups of the pattern, and of those with more non-zeros than it keeps; 0 if the pattern is unknown.
    """

    name: str
    pruned: int
    nonzero: int
    groups: int
    overfull: int

    @property
    def intact(self) -> bool:
        """Whether all pruned weights are zero and no group has too many others."""
        return not self.nonzero and not self.overfull

    def __str__(self) -> str:
        line = f"{self.name}: {self.nonzero:,} of {self.pruned:,} pruned weights are not zero"
        return line + (f", {self.overfull:,} of {self.groups:,} groups keep too many" if self.groups else "")


@dataclass(frozen=True, repr=False)
class Verification:
    """What :func:`verify` found; printed, it is a line, and one for each broken layer.

    Attributes
    ----------
    layers
        Every masked layer, in the order of the masks.
    pattern
        The pattern whose groups were counted; None: unknown.
    """

    layers: tuple[LayerCheck, ...]
    pattern: Pattern | None

    @property
    def broken(self) -> tuple[LayerCheck, ...]:
        """The layers with a pruned weight that is not zero, or a group with too many non-zeros."""
        return tuple(layer for layer in self.layers if not layer.intact)

    @property
    def intact(self) -> bool:
        """Whether no layer is broken."""
        return not self.broken

    def __repr__(self) -> str:
        pruned = sum(layer.pruned for layer in self.layers)
        groups = sum(layer.groups for layer in self.layers)
        counted = f", {groups:,} groups of {self.pattern.label}" if self.pattern else ""
        broken = self.broken
        lines = [f"{len(broken)} of {len(self.layers)} layers broken; {pruned:,} pruned weights{counted}"]
        lines += [str(layer) for layer in broken[:_LISTED]]
        return "\n".join(lines + [f"and {len(broken) - _LISTED} more"] * (len(broken) > _LISTED))


def verify(
    model: "PreTrainedModel | PathLike[str] | str",
    masks: "Mapping[str, torch.Tensor] | PathLike[str] | str",
    pattern: Pattern | str | None = None,
) -> Verification:
    """Check that every pruned weight is zero, and that no group of the pattern has more non-zeros than it keeps.

    Parameters
    ----------
    model
        A model in memory, or a Hugging Face folder, which is read tensor by tensor from its safetensors files: no model
        is built. Weights may be floats, or float8 or int8 with symmetric scales, whose zero is 0.
    masks
        Layer name to (rows, inputs) bool, True = kept; or a file of masks, or a folder with ``masks.safetensors``.
    pattern
        ``"2:4"``, ``"60%"``, or a pattern; None: the one in the provenance of the masks' file, if there is one.

    Raises
    ------
    ArtifactError
        If a file is missing or damaged, or the folder lacks a masked weight.
    ModelError
        If weights are packed or quantised in a form whose zeros cannot be read, or adapters are not merged.
    PatternError
        If a mask matches no layer of the model, has another shape or is not bool, or the pattern is none.
    """
    if not isinstance(masks, Mapping):
        file = Path(masks) / MASKS_FILE if Path(masks).is_dir() else Path(masks)
        pattern = _recorded_pattern(file) if pattern is None else pattern
        masks = read_masks(file, {})
    chosen = None if pattern is None else as_pattern(pattern)
    weights = _in_memory(model, masks) if isinstance(model, PreTrainedModel) else _in_folder(_folder(model), masks)
    checks = {name: _check(name, weight, masks[name], chosen) for name, weight in weights}
    return Verification(tuple(checks[name] for name in masks), chosen)


def _recorded_pattern(file: Path) -> Pattern | None:
    recorded = store.read_provenance(file, "mask").get("pattern")
    try:
        found: Pattern | None = TypeAdapter(AnyPattern | None).validate_python(recorded)
    except ValidationError:
        raise ArtifactError(f"{file}: pattern {recorded!r} in its provenance, expected a known pattern") from None
    return found


def _folder(model: Any) -> Path:
    try:
        return Path(model)
    except TypeError:
        raise ModelError(
            f"model: {type(model).__name__}, expected a transformers PreTrainedModel or a folder; merge adapters first"
        ) from None


@torch.no_grad()
def _check(name: str, weight: torch.Tensor, mask: torch.Tensor, pattern: Pattern | None) -> LayerCheck:
    """Check the weight (rows, inputs) of a layer under its mask."""
    nonzero, pruned = weight != 0, ~mask.to(weight.device)
    groups = overfull = 0
    if pattern:
        size, keep = patterns_of({name: mask}, pattern)[name].groups(*mask.shape)
        counts = nonzero.reshape(-1, size).sum(dim=-1)
        groups, overfull = len(counts), int((counts > keep).sum())
    return LayerCheck(name, int(pruned.sum()), int((nonzero & pruned).sum()), groups, overfull)


def _in_memory(model: PreTrainedModel, masks: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weight (rows, inputs) of each masked layer."""
    if getattr(model, "is_quantized", False):
        raise ModelError(f"model: {type(model).__name__} is quantised, expected float weights; call its dequantize()")
    require_no_adapters(model)
    for name, layer in masked_layers(model, masks).items():
        weight = _readable(f"model: {name}", layer.weight(model))
        yield name, weight.T if layer.transposed else weight


def _in_folder(folder: Path, masks: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weight (rows, inputs) of each masked layer, one at a time, file by file."""
    stored = _Stored(folder)
    shapes = {name: tuple(bool_mask(name, masks[name]).shape) for name in masks}
    places = {name: stored.place(name) for name in masks}
    turned = {place.shape == shapes[name][::-1] for name, place in places.items() if not place.square}
    by_file = sorted(places, key=lambda name: places[name].file)
    for file, names in groupby(by_file, key=lambda name: places[name].file):
        with open_shard(file) as stream:
            for name in names:
                place = places[name]
                transposed = turned == {True} if place.square else place.shape == shapes[name][::-1]
                if (place.shape[::-1] if transposed else place.shape) != shapes[name]:
                    raise PatternError(
                        f"mask of {name}: shape {shapes[name]}, but {place.tensor} of {folder} has {place.shape}"
                    )
                tensor = stream.get_slice(place.tensor)
                weight = tensor[:] if place.expert is None else tensor[place.expert]
                weight = _readable(f"{file}: {place.tensor}", weight)
                yield name, weight.T if transposed else weight


@dataclass(frozen=True)
class _Place:
    """A matrix in a folder: its tensor, the index in it if that holds all experts, and the matrix's shape there."""

    file: Path
    tensor: str
    expert: int | None
    shape: tuple[int, ...]

    @property
    def square(self) -> bool:
        """Whether its shape does not show in which layout it is stored; then the other layers' do."""
        return self.shape[0] == self.shape[-1]


class _Stored:
    """The tensors of a folder by the names of masks, which may have one component more or less in front."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._tensors = folder, stored_tensors(folder)
        uses = Counter(_shorter(tensor) for tensor in self._tensors)
        self._names = {_shorter(tensor): tensor for tensor in self._tensors if uses[_shorter(tensor)] == 1}
        self._names |= {tensor: tensor for tensor in self._tensors}

    def place(self, name: str) -> _Place:
        """Return where the matrix of a mask is.

        Raises
        ------
        ArtifactError
            If the folder has no such tensor.
        ModelError
            If it is no matrix, or its zeros have an offset.
        """
        stem, _, last = name.rpartition(".")
        wanted = [(name, None), (stem, int(last))] if last.isdecimal() else [(name, None)]
        for base, expert in wanted:
            for tensor in (f"{base}.weight", base, _shorter(f"{base}.weight"), _shorter(base)):
                if found := self._names.get(tensor):
                    return self._described(found, expert)
        raise ArtifactError(f"{self._folder}: no tensor {name}.weight{self._others(name)}")

    def _described(self, tensor: str, expert: int | None) -> _Place:
        file, shape, _ = self._tensors[tensor]
        if (offset := f"{tensor.removesuffix('.weight')}.weight_zero_point") in self._tensors:
            raise ModelError(f"{file}: {offset}: zeros of asymmetric quantisation; dequantise the model first")
        if len(shape) != (2 if expert is None else 3) or (expert is not None and expert >= shape[0]):
            raise ModelError(f"{file}: {tensor} has shape {shape}, expected a matrix; packed weights?")
        return _Place(file, tensor, expert, shape if expert is None else shape[1:])

    def _others(self, name: str) -> str:
        others = sorted(tensor for tensor in self._tensors if tensor.startswith(f"{name}."))
        return f", but {others[0]}; packed weights? dequantise the model first" if others else ", which a mask is for"


def _shorter(name: str) -> str:
    return name.partition(".")[2] or name


def _readable(where: str, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as numbers that compare with 0."""
    if type(weight) not in {torch.Tensor, torch.nn.Parameter} or weight.dtype not in _READABLE:
        expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in sorted(_READABLE, key=str))
        raise ModelError(f"{where} is {weight.dtype}, expected one of {expected}; dequantise the model first")
    return weight.float() if weight.dtype.itemsize == 1 else weight
