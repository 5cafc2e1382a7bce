"""Language models: load them from a folder and find their prunable layers.

No code is specific to an architecture: decoder blocks are found through the model's module tree and config, their
matrices by module type, and shared inputs by hooks during a forward pass.
"""

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from prunelib.errors import ArtifactError, ModelError, ParamsError, PruneError, first_line
from prunelib.model.experts import expert_layers, fused_parameters, place_in_blocks
from prunelib.model.fit import check_names, check_size
from prunelib.model.gates import find_gates
from prunelib.model.layers import Layer, LayerIndex
from prunelib.model.matrices import Inputs, Matrix, block_matrices, coverage, unprunable
from prunelib.model.names import name_in_files, renamed, stored_names
from prunelib.model.probe import TOKENS, probe
from prunelib.model.vocabulary import embedding_rows, limit_ids
from prunelib.model.weights import check_stored_types, read_weight, stored_tensors, tensor_files

_PROBE = "A text, 1 \N{SNOWMAN}\n"  # a tokenizer without its token for unknown characters fails at the first of them
_DTYPES = ("float32", "bfloat16", "float16")


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
        If a tensor is stored in a type that cannot be pruned, transformers cannot build the model, or config.json and
        the files do not fit (:mod:`prunelib.model.fit`).
    """
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"{folder}: no config.json, expected a Hugging Face model folder")
    stored = stored_tensors(folder)
    check_stored_types(stored)
    try:
        with quiet_transformers():
            check_size(folder, stored)
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
    except PruneError:
        raise
    except SafetensorError as error:
        raise ArtifactError(f"{folder}: truncated or damaged safetensors file ({error})") from None
    except Exception as error:  # a family's own code, given numbers or types that it does not expect
        raise ModelError(f"{folder}: not a causal language model that can be loaded ({first_line(error)})") from None
    check_names(folder, model, report, stored)
    return model.to(device).eval().requires_grad_(False)


def dtype_of(folder: Path) -> str:
    """Return the dtype in the config of a model folder, as :func:`load_model` takes it; ``float32`` if it names none.

    Raises
    ------
    ModelError
        If there is no readable config, or it names another dtype.
    """
    try:
        dtype = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).dtype
    except Exception as error:  # as in load_model
        raise ModelError(f"{folder}: no usable config.json ({first_line(error)})") from None
    name = str(dtype or "float32").removeprefix("torch.")
    if name not in _DTYPES:
        raise ModelError(f"{folder}/config.json: dtype = {name}, expected one of {', '.join(_DTYPES)}")
    return name


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local Hugging Face folder; ids beyond the model's embedding are refused when they occur.

    Raises
    ------
    ArtifactError
        If there is none, or it cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer(_PROBE)
    except Exception as error:  # the tokenizers library raises plain Exception for a damaged file
        raise ArtifactError(f"{folder}: no usable tokenizer, expected tokenizer.json ({first_line(error)})") from None
    limit_ids(tokenizer, embedding_rows(folder))
    return tokenizer


def check_length(model: PreTrainedModel, length: int, key: str) -> None:
    """Refuse inputs that are longer than the model's positions.

    Raises
    ------
    ParamsError
        If ``length`` exceeds the positions; the message gives both numbers, and ``key`` of params.yaml.
    """
    longest = getattr(_text_config(model), "max_position_embeddings", None) or length
    if length > longest:
        raise ParamsError(f"{key} = {length} tokens, but the model accepts at most {longest}")


def decoder_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """Return the decoder blocks: the module list with ``num_hidden_layers`` entries that the head follows.

    If there is none, it is one with ``decoder_layers`` entries (Blenderbot's other number counts its encoder's), or
    with ``num_layers`` (blocks of LongCat-Flash are two layers each). If several lists have that length, as in a model
    with a vision tower, it is the one whose blocks all run on text alone, and the last of these to finish.

    Returns
    -------
    tuple
        Name of the list in the model (``model.layers``), and the list.

    Raises
    ------
    ModelError
        If there is no such list, several take turns, or the model cannot be run over token ids alone.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and any(w.ndim > 1 for w in module.parameters())
    }
    counts = [getattr(_text_config(model), key, None) for key in ("num_hidden_layers", "decoder_layers", "num_layers")]
    of_counts = ({name: each for name, each in found.items() if len(each) == count} for count in counts)
    if not (lists := next(filter(None, of_counts), {})):
        there = ", ".join(f"{name} of {len(module)}" for name, module in found.items())
        raise ModelError(
            f"{type(model).__name__}: found no ModuleList of num_hidden_layers = {counts[0]} decoder "
            f"blocks among {there or 'none'}"
        )
    name = next(iter(lists)) if len(lists) == 1 else _last_to_finish(model, lists)
    return name, lists[name]


def _last_to_finish(model: PreTrainedModel, lists: Mapping[str, nn.ModuleList]) -> str:
    """Return the name of the list whose blocks all run, after those of other such lists but any within them."""
    finished: list[tuple[str, nn.Module]] = []
    with contextlib.ExitStack() as stack:
        for name, blocks in lists.items():
            for block in blocks:
                hook = block.register_forward_hook(lambda module, *_, name=name: finished.append((name, module)))
                stack.callback(hook.remove)
        probe(model)
    ran = {name: {id(module) for of, module in finished if of == name} for name in lists}
    whole = [name for name, _ in finished if len(ran[name]) == len({id(block) for block in lists[name]})]
    if not whole:
        raise ModelError(f"{type(model).__name__}: of the lists {', '.join(lists)} none runs on token ids alone")
    last = whole[-1]
    if between := {name for name in whole[whole.index(last) :] if not f"{name}.".startswith(f"{last}.")}:
        raise ModelError(
            f"{type(model).__name__}: {last} and {min(between)} run in turns, expected one list of decoder blocks"
        )
    return last


def find_layers(model: PreTrainedModel, folder: Path | None = None) -> LayerIndex:
    """Find the prunable matrices of a model, which of them share an input, and their weights in its folder.

    Parameters
    ----------
    model
        On any device, in any dtype; the meta device without a folder.
    folder
        The folder that the model was loaded from, which names the layers and whose weights it must have. None: names
        are those under which transformers saves the model.

    Raises
    ------
    ModelError
        If no decoder blocks or prunable layers are found, or a weight is not in the folder.
    ArtifactError, NumericalError
        As :func:`prunelib.model.weights.read_weight`.
    """
    if folder is None:
        return _located(model, stored=None)
    index = _located(model, tensor_files(folder))
    for layer in index.layers:
        _check_stored(model, folder, layer)
    return index


def _located(model: PreTrainedModel, stored: Container[str] | None) -> LayerIndex:
    """Return the layers of a model, named as ``stored``, the tensors in its files, or as transformers saves it."""
    block_list, blocks = decoder_blocks(model)
    parameters, fused = dict(blocks.named_parameters(block_list)), fused_parameters(model, block_list)
    matrices = [each for number, block in enumerate(blocks) for each in block_matrices(block_list, number, block)]
    inputs = Inputs(model, matrices)
    gates = find_gates(model, parameters, lambda: inputs.watch(lambda: probe(model)))
    reasons = unprunable(matrices, gates, inputs, TOKENS)
    layers, of_files = _modules(
        model, [matrix for matrix in matrices if matrix.parameter not in reasons], inputs, stored
    )
    experts, of_experts = _experts(model, block_list, fused, stored)
    layers = sorted([*layers, *experts], key=lambda layer: layer.block)
    reasons |= of_files | of_experts
    covered = coverage(parameters, layers, reasons)
    if not layers:
        first = covered["uncovered"][0]
        raise ModelError(f"{type(model).__name__}: no matrix in its blocks can be pruned, e.g. {first}: {first.reason}")
    return LayerIndex(layers=tuple(layers), block_list=block_list, blocks=len(blocks), **covered)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
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


def _text_config(model: PreTrainedModel) -> Any:
    return model.config.get_text_config(decoder=True)


def _modules(
    model: PreTrainedModel, matrices: Sequence[Matrix], inputs: Inputs, stored: Container[str] | None
) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers that are modules, named as in the files, and reasons for those that no tensor holds."""
    names: dict[str, str | None] = {}
    for _, of_block in groupby(matrices, key=lambda matrix: matrix.block):
        names |= stored_names(model, {matrix.parameter: matrix.module.weight for matrix in of_block})
    prefix, found = model.base_model_prefix, [matrix for matrix in matrices if names[matrix.parameter]]
    tensors = {matrix.name: name_in_files(str(names[matrix.parameter]), prefix, stored) for matrix in found}
    grams = inputs.grams(found)
    layers = renamed([matrix.layer(grams[matrix.name]) for matrix in found], tensors)
    return layers, {name: "its files hold it in another layout" for name, tensor in names.items() if tensor is None}


def _experts(
    model: PreTrainedModel, block_list: str, fused: Mapping[str, nn.Parameter], stored: Container[str] | None
) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers that are slices of fused parameters, and reasons for parameters that have none."""
    layers: list[Layer] = []
    reasons = {}
    for name, parameter in fused.items():
        block, _ = place_in_blocks(name, block_list)
        try:
            of_parameter = expert_layers(model, name, parameter, block)
        except ModelError as error:
            reasons[name] = str(error).removeprefix(f"{name}: ")
            continue
        for layer in of_parameter:
            tensor = name_in_files(layer.tensor, model.base_model_prefix, stored)
            layers.append(layer.model_copy(update={"tensor": tensor}))
    return layers, reasons


def _check_stored(model: PreTrainedModel, folder: Path, layer: Layer) -> None:
    stored, weight = read_weight(folder, layer), layer.weight(model)
    if not torch.equal(weight.T if layer.transposed else weight, stored.to(weight)):
        raise ModelError(f"{layer.name}: its weight in the model is not the tensor {layer.tensor} of {folder}")
