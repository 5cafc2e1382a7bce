"""Language models: load them from a folder and find their prunable layers.

No code is specific to an architecture: decoder blocks are found through the model's module tree and config, their
matrices by module type, and shared inputs by hooks during a forward pass.
"""

import contextlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from prunelib.errors import ArtifactError, ModelError, ParamsError
from prunelib.model.experts import expert_layers, fused_parameters
from prunelib.model.layers import Layer, LayerIndex, watch_modules
from prunelib.model.weights import read_weight, tensor_files

_NAMED = 3  # how many uncovered tensors an index names


def load_model(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """Load a causal language model from a local Hugging Face folder, for inference.

    Parameters
    ----------
    dtype
        Name of a torch dtype: ``float32``, ``bfloat16``, ``float16``.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    PreTrainedModel
        In eval mode, without gradients.

    Raises
    ------
    ArtifactError
        If the folder has no config or no readable safetensors weights.
    ModelError
        If transformers cannot build the model, or the folder lacks some of its tensors (which transformers would fill
        with random numbers).
    """
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder}: no config.json, expected a Hugging Face model folder")
    tensor_files(folder)
    try:
        with _quiet_transformers():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                experts_implementation="eager",  # slice by slice, so that each expert's inputs can be hooked
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except SafetensorError as error:
        raise ArtifactError(f"{folder}: truncated or damaged safetensors file ({error})") from None
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"{folder}: not a causal language model that can be loaded ({_first_line(error)})") from None
    _refuse_incomplete(folder, report)
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local Hugging Face folder.

    Raises
    ------
    ArtifactError
        If there is none, or it cannot be read.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises plain Exception for a damaged file
        raise ArtifactError(f"{folder}: no usable tokenizer, expected tokenizer.json ({_first_line(error)})") from None


def check_length(model: PreTrainedModel, length: int, key: str) -> None:
    """Refuse windows that are longer than the model's positions.

    Raises
    ------
    ParamsError
        If ``length`` exceeds the positions; the message gives both numbers, and ``key`` of params.yaml.
    """
    longest = getattr(_text_config(model), "max_position_embeddings", None) or length
    if length > longest:
        raise ParamsError(f"{key} = {length} tokens a window, but the model accepts at most {longest}")


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the decoder blocks: of all module lists with ``num_hidden_layers`` entries, the one with most weights.

    Returns
    -------
    tuple
        Name of the list in the model (``model.layers``), and the list.

    Raises
    ------
    ModelError
        If there is no such list.
    """
    count = getattr(_text_config(model), "num_hidden_layers", None)
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    }
    if not lists:
        raise ModelError(f"{type(model).__name__}: found no ModuleList of num_hidden_layers = {count} decoder blocks")
    return max(lists.items(), key=lambda item: sum(parameter.numel() for parameter in item[1].parameters()))


def find_layers(model: PreTrainedModel, folder: Path) -> LayerIndex:
    """Find the prunable matrices of a model, which of them share an input, and their weights in its folder.

    Parameters
    ----------
    model
        As loaded from ``folder``, in any dtype.

    Raises
    ------
    ModelError
        If no decoder blocks are found, a matrix is not used in a forward pass, or its weight is not in the folder.
    ArtifactError, NumericalError
        As :func:`prunelib.model.weights.read_weight`.
    """
    block_list, blocks = decoder_blocks(model)
    fused = fused_parameters(model, block_list, _two_tokens(model))
    gates = _gates(blocks.named_parameters(block_list), fused)
    matrices = [matrix for number in range(len(blocks)) for matrix in _matrices(block_list, number, blocks[number])]
    matrices = [matrix for matrix in matrices if f"{matrix.name}.weight" not in gates]
    grams, stored = _shared_inputs(model, matrices), tensor_files(folder)
    found = [_describe(matrix, f"{matrix.name}.weight", grams[matrix.name]) for matrix in matrices]
    for name, parameter in fused.items():
        found += expert_layers(model, name, parameter, block=int(name.removeprefix(f"{block_list}.").partition(".")[0]))
    layers = []
    for layer in sorted(found, key=lambda layer: layer.block):
        tensor = _stored_name(layer.tensor, model.base_model_prefix, stored)
        layers.append(layer.model_copy(update={"tensor": tensor}))
        _check_stored(model, folder, layers[-1])
    coverage = _coverage(blocks.named_parameters(block_list), layers, gates)
    return LayerIndex(layers=tuple(layers), block_list=block_list, blocks=len(blocks), **coverage)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Suppress the progress bar and the report table of loading; their findings are raised as errors."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].strip() or type(error).__name__


def _refuse_incomplete(folder: Path, report: Mapping[str, Any]) -> None:
    if missing := report["missing_keys"]:
        raise ModelError(f"{folder}: {len(missing)} tensors of the model are missing, first {min(missing)}")
    if mismatched := report["mismatched_keys"]:
        name, found, expected = min(mismatched)
        raise ModelError(f"{folder}: {name} has shape {tuple(found)}, but config.json says {tuple(expected)}")


def _text_config(model: PreTrainedModel) -> Any:
    return model.config.get_text_config(decoder=True)


class _Matrix(NamedTuple):
    name: str
    kind: str
    block: int
    module: nn.Linear | Conv1D


def _matrices(block_list: str, number: int, block: nn.Module) -> list[_Matrix]:
    found = {path: module for path, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    last = {path: path.rpartition(".")[2] for path in found}
    count = Counter(last.values())
    return [
        _Matrix(f"{block_list}.{number}.{path}", last[path] if count[last[path]] == 1 else path, number, module)
        for path, module in found.items()
    ]


def _describe(matrix: _Matrix, tensor: str, gram: str) -> Layer:
    transposed = isinstance(matrix.module, Conv1D)
    rows, inputs = reversed(matrix.module.weight.shape) if transposed else matrix.module.weight.shape
    return Layer(
        name=matrix.name,
        kind=matrix.kind,
        block=matrix.block,
        tensor=tensor,
        transposed=transposed,
        rows=rows,
        inputs=inputs,
        gram=gram,
    )


@torch.no_grad()
def _shared_inputs(model: PreTrainedModel, matrices: Iterable[_Matrix]) -> dict[str, str]:
    """Map each layer name to the first layer of its block with the same input, by a forward pass over two tokens."""
    seen: dict[str, tuple[int, ...]] = {matrix.name: () for matrix in matrices}
    alive = []  # while an input is referenced, no other can take its address

    def note(name: str, inputs: torch.Tensor) -> None:
        alive.append(inputs)
        seen[name] += (inputs.data_ptr(), inputs.numel(), inputs._version)  # an in-place write increments the version

    with watch_modules(model, seen, note):
        model(input_ids=_two_tokens(model), use_cache=False)
    if unused := [name for name, inputs in seen.items() if not inputs]:
        raise ModelError(f"{unused[0]}: not called in the model's forward pass, so it has no inputs to calibrate on")
    first: dict[tuple[int, ...], str] = {}
    return {name: first.setdefault((block, *seen[name]), name) for name, _, block, _ in matrices}


def _stored_name(name: str, prefix: str, stored: Mapping[str, Path]) -> str:
    """Return the name in the folder's files: as in the model, or without the base model's prefix (GPT-2 on the hub)."""
    for candidate in (name, name.removeprefix(f"{prefix}.")):
        if candidate in stored:
            return candidate
    raise ModelError(f"{name}: no tensor of that name in the model's safetensors files")


def _two_tokens(model: PreTrainedModel) -> torch.Tensor:
    return torch.tensor([[0, 1]], device=model.device)


def _gates(parameters: Iterable[tuple[str, nn.Parameter]], fused: Mapping[str, nn.Parameter]) -> set[str]:
    """Return the names of gate matrices in a model with experts: routers, and gates of shared experts.

    They have one row per expert, or a single row, and stay dense.
    """
    rows = {1} | {len(weight) for weight in fused.values()} if fused else set()
    return {name for name, weight in parameters if weight.ndim == 2 and len(weight) in rows}


def _check_stored(model: PreTrainedModel, folder: Path, layer: Layer) -> None:
    stored, weight = read_weight(folder, layer), layer.weight(model)
    if not torch.equal(weight.T if layer.transposed else weight, stored.to(weight)):
        raise ModelError(f"{layer.name}: its weight in the model is not the tensor {layer.tensor} of {folder}")


def _coverage(
    parameters: Iterable[tuple[str, nn.Parameter]], layers: Iterable[Layer], gates: Container[str]
) -> dict[str, Any]:
    """Return the share of the blocks' matrix weights, gates excluded, that is in layers, and the largest others."""
    weights = {name: weight for name, weight in parameters if weight.ndim >= 2 and name not in gates}
    left = weights.keys() - {layer.parameter for layer in layers}
    largest = sorted(left, key=lambda name: (-weights[name].numel(), name))[:_NAMED]
    share = sum(weights[name].numel() for name in left) / sum(weight.numel() for weight in weights.values())
    return {"coverage": 1 - share, "uncovered": tuple(f"{name} {tuple(weights[name].shape)}" for name in largest)}
