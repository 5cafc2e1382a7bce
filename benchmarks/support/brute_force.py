"""Pruning of a model folder held against brute force, which knows nothing of the library's ways.

Brute force runs transformers' own model in float32, watches every product of torch with a matrix whose rows are those
of the files, sums x x^T in float64, sets weights to zero in the files, and computes perplexities from the logits.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import BlockStatistics, InputStatistics
from prunelib.calibration.whole_model import calibrate_model
from prunelib.errors import ModelError
from prunelib.evaluation.perplexity import perplexity
from prunelib.evaluation.pruned import apply_and_check
from prunelib.export.folder import export_model
from prunelib.masks.patterns import PerRow
from prunelib.masks.pruned import Pruned
from prunelib.masks.selection import select
from prunelib.model.agreement import check_blockwise
from prunelib.model.layers import DenseMatrix, Layer, LayerIndex
from prunelib.model.structure import find_layers, load_model
from prunelib.planning.outline import outline
from prunelib.runtime.machine import machine
from prunelib.sources.models import LocalModel, fetch_model
from prunelib.sources.provenance import computed_identity, model_identity
from prunelib.warmstarts import wanda

TOLERANCE = 1e-5  # relative: float32 sums of a few dozen tokens
WINDOWS, LENGTH, BATCH = 4, 24, 2
PATTERN = PerRow(sparsity=0.5)


class WrongError(Exception):
    """A figure of the library that differs from that of brute force."""


def random_windows(words: int, seed: int = 0) -> torch.Tensor:
    """Return token ids (windows, length) int32."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(3, words, (WINDOWS, LENGTH), generator=draw, dtype=torch.int32)


def save_random(model: PreTrainedModel, folder: Path, words: int) -> PreTrainedModel:
    """Write a model with random weights and a tokenizer of as many words, and return it as transformers reloads it.

    Weights are normal, biases and norms included; if the model's outputs are then no numbers, those of its own start.
    """
    start = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2).add_(float(weight.ndim == 1) / 2)
        if not math.isfinite(plain_perplexity(model, random_windows(words))):
            for name, weight in model.named_parameters():
                weight.copy_(start[name])
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    again = plain_model(folder)
    expected, found = (plain_perplexity(each, random_windows(words)) for each in (model, again))
    if not math.isclose(expected, found, rel_tol=TOLERANCE):
        raise RuntimeError(f"saved and loaded again, perplexity {found} instead of {expected}")
    return again


def plain_model(folder: Path) -> PreTrainedModel:
    """Return a model as transformers loads it, with its plain implementation of experts."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager")
    return model.eval().requires_grad_(False)


@torch.no_grad()
def plain_perplexity(model: PreTrainedModel, windows: torch.Tensor) -> float:
    """Return the perplexity from the logits of each window by itself, in float64."""
    losses = []
    for window in windows.long():
        logits = model.eval()(input_ids=window[None], use_cache=False).logits[0]
        losses.append(functional.cross_entropy(logits[:-1].double(), window[1:], reduction="sum").item())
    mean = sum(losses) / windows[:, 1:].numel()
    return math.exp(mean) if mean < math.log(1e300) else math.inf


def check_model(folder: Path, scratch: Path, words: int) -> dict[str, Any]:
    """Download, plan, calibrate, prune, evaluate and export a model, and compare each with brute force.

    Returns
    -------
    dict
        The figures: blocks, layers, coverage, what stays dense and why, the largest relative difference of a Gram
        matrix, and perplexities.

    Raises
    ------
    WrongError
        If something differs.
    PruneError
        If the library refuses the model.
    """
    home = scratch / "downloaded"
    home.mkdir()
    fetch_model(LocalModel(path=folder, dtype="float32"), home)
    _equal("identity", model_identity(home), computed_identity(folder))
    model = load_model(home, "float32", "cpu")
    index = find_layers(model, home)
    check_blockwise(model, index.block_list)
    windows, held_out = random_windows(words), random_windows(words, seed=1)
    _check_coverage(model, index)
    _check_plan(folder, model, index)
    statistics = _calibrate(model, index, windows, scratch)
    difference = _compare_grams(plain_model(folder), folder, index, windows, statistics)
    tensors = load_file(folder / "model.safetensors")
    masks = {
        layer.name: select(wanda.wanda(layer_weight(tensors, layer), statistics[layer.gram].gram), PATTERN)
        for layer in index.layers
    }
    _check_counts(index, masks)
    dense = _same("dense perplexity", perplexity(model, held_out, BATCH).value, plain_model(folder), held_out)
    zeroed = plain_model(_zeroed(folder, scratch / "zeroed", index, masks))
    apply_and_check(model, index.layers, Pruned(masks, {}), home)
    pruned = _same("pruned perplexity", perplexity(model, held_out, BATCH).value, zeroed, held_out)
    export_model(home, scratch / "exported", index, Pruned(masks, {}), {"model": ""}, "")
    _same("perplexity of the exported model", pruned, plain_model(scratch / "exported"), held_out)
    if math.isclose(dense, pruned, rel_tol=TOLERANCE):
        raise WrongError(f"pruning leaves the perplexity {dense}")
    left = [matrix for matrix in index.uncovered if matrix.reason != DenseMatrix.GATE]
    return {
        "blocks": index.blocks,
        "layers": len(index.layers),
        "coverage": round(index.coverage, 4),
        "allow_uncovered": bool(left),
        "stays_dense": sorted({f"{_kind(matrix)}: {matrix.reason}" for matrix in left}),
        "gram_difference": difference,
        "perplexity": dense,
        "pruned_perplexity": pruned,
    }


def layer_weight(tensors: Mapping[str, torch.Tensor], layer: Layer) -> torch.Tensor:
    """Return a view of the weight (rows, inputs) of a layer in the tensors of a file."""
    stored = tensors[layer.tensor]
    if layer.fused is not None and layer.fused.stored_expert is not None:
        stored = stored[layer.fused.stored_expert]
    return stored.T if layer.transposed else stored


_MATMULS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


class _Products(TorchFunctionMode):
    """Sum x x^T in float64 over all products with matrices that have the first row of a layer's weight."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._by_row = {_bytes(weight[0]): name for name, weight in weights.items()}
        self.grams = {name: torch.zeros(weight.shape[1], weight.shape[1]).double() for name, weight in weights.items()}
        self.tokens = dict.fromkeys(weights, 0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.linear:
            self._add(args[0], args[1])
        elif func is torch.addmm:
            self._add(args[1], args[2].T)
        elif func in _MATMULS and args[1].ndim == 2:
            self._add(args[0], args[1].T)
        return func(*args, **(kwargs or {}))

    def _add(self, inputs: torch.Tensor, weight: torch.Tensor) -> None:
        if weight.ndim != 2:
            return
        with torch._C.DisableTorchFunction():
            names = [self._by_row[row] for row in map(_bytes, weight) if row in self._by_row]
            x = inputs.reshape(-1, inputs.shape[-1]).double()
            for name in names:
                self.grams[name] += x.T @ x
                self.tokens[name] += len(x)


def _bytes(row: torch.Tensor) -> bytes:
    return row.detach().contiguous().numpy().tobytes()


class _Kept(dict[int, BlockStatistics]):
    """Statistics of blocks in memory."""

    def write(self, block: int, parts: BlockStatistics) -> None:
        self[block] = parts


def _calibrate(
    model: PreTrainedModel, index: LayerIndex, windows: torch.Tensor, scratch: Path
) -> dict[str, InputStatistics]:
    settings = CalibrationSettings(text="", samples=WINDOWS, length=LENGTH, batch=BATCH)
    blocks = _Kept()
    calibrate_model(model, index, (windows, windows[:0]), settings, blocks, scratch, machine())
    return {name: found for parts in blocks.values() for name, found in parts[0].items()}


def _compare_grams(
    model: PreTrainedModel,
    folder: Path,
    index: LayerIndex,
    windows: torch.Tensor,
    statistics: Mapping[str, InputStatistics],
) -> float:
    """Return the largest relative difference of a layer's Gram matrix from brute force."""
    tensors = load_file(folder / "model.safetensors")
    products = _Products({layer.name: layer_weight(tensors, layer) for layer in index.layers})
    with torch.no_grad(), products:
        for window in windows.long():
            model(input_ids=window[None], use_cache=False)
    largest = 0.0
    for layer in index.layers:
        expected, found = products.grams[layer.name], statistics[layer.gram].gram.double()
        _equal(f"tokens of {layer.name}", statistics[layer.gram].tokens, products.tokens[layer.name])
        difference = float((found - expected).norm() / expected.norm().clamp(min=1e-30))
        if not difference <= TOLERANCE:
            raise WrongError(f"Gram matrix of {layer.name}: {difference:.1e} of it differs from brute force")
        largest = max(largest, difference)
    return largest


def _check_coverage(model: PreTrainedModel, index: LayerIndex) -> None:
    """Every parameter with two large dimensions in the blocks is counted, as pruned or as dense."""
    blocks = model.get_submodule(index.block_list)
    counted = {id(model.get_parameter(name)) for name in [layer.parameter for layer in index.layers]}
    counted |= {id(model.get_parameter(matrix.name)) for matrix in index.uncovered}
    for name, weight in blocks.named_parameters():
        if sum(size > 1 for size in weight.shape) > 1 and id(weight) not in counted:
            raise WrongError(f"{name} is neither pruned nor said to stay dense")


def _check_plan(folder: Path, model: PreTrainedModel, index: LayerIndex) -> None:
    """The plan, from the configuration alone, has the sizes of the model itself."""
    try:
        planned = outline(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except ModelError as error:
        raise WrongError(f"plan refuses it: {error}") from None
    _equal("planned parameters", planned.weights, model.num_parameters())
    _equal("planned blocks", len(planned.blocks), index.blocks)
    for number, block in enumerate(planned.blocks):
        matrices = [(matrix.kind, matrix.rows, matrix.inputs) for matrix in block.matrices]
        layers = [(layer.kind, layer.rows, layer.inputs) for layer in index.of_block(number)]
        _equal(f"planned matrices of block {number}", matrices, layers)
        _equal(f"planned inputs of block {number}", block.inputs, [each.inputs for each in index.readers(number)])


def _check_counts(index: LayerIndex, masks: Mapping[str, torch.Tensor]) -> None:
    """Every row keeps just half of its inputs."""
    for layer in index.layers:
        kept = masks[layer.name].sum(dim=1)
        _equal(f"kept weights of {layer.name}", set(kept.tolist()), {layer.inputs - round(layer.inputs / 2)})


def _zeroed(folder: Path, target: Path, index: LayerIndex, masks: Mapping[str, torch.Tensor]) -> Path:
    """Write a copy of a folder in whose file the pruned weights are zero."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    for layer in index.layers:
        layer_weight(tensors, layer)[~masks[layer.name]] = 0.0
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    return target


def _same(what: str, found: float, model: PreTrainedModel, windows: torch.Tensor) -> float:
    expected = plain_perplexity(model, windows)
    if not math.isclose(found, expected, rel_tol=TOLERANCE):
        raise WrongError(f"{what}: {found}, by brute force {expected}")
    return found


def _equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise WrongError(f"{what}: {found}, by brute force {expected}")


def _kind(matrix: DenseMatrix) -> str:
    """Return the name of a parameter without its block."""
    return ".".join(part for part in matrix.name.split(".") if not part.isdecimal())
