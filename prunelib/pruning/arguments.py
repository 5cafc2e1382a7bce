"""The arguments of :func:`prunelib.prune`, checked before any work: an invalid one is refused in one line."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel

from prunelib import block_refiners, refiners, warmstarts
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.windows import bos_of, draw
from prunelib.errors import ModelError, ParamsError
from prunelib.masks.allocation import Allocation
from prunelib.masks.patterns import Pattern, parse_pattern
from prunelib.methods import registry
from prunelib.methods.contract import Method, MethodSettings
from prunelib.model.adapters import require_no_adapters
from prunelib.model.structure import check_length
from prunelib.pruning.chains import Chain, layer_steps, needs_held_out
from prunelib.runtime.machine import usable_device
from prunelib.settings import Seed, Settings, among

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

S = TypeVar("S", bound=Settings)

_RENAMED = {"inputs": "calibration_inputs"}
"""Names of arguments that differ from those of the settings."""

Chosen = MethodSettings | Mapping[str, Any] | str
"""A method: its settings, their mapping as in params.yaml, or its name."""


@dataclass(frozen=True)
class Arguments:
    """The settings that decide what :func:`prunelib.prune` does, as :func:`checked` makes them.

    Attributes
    ----------
    device
        Where blocks run and masks are refined; None: where the model is.
    """

    pattern: Pattern
    warmstart: MethodSettings
    refiner: MethodSettings
    calibration: CalibrationSettings
    seed: int
    bos_per_window: bool
    allow_uncovered: bool
    device: torch.device | None


def checked(
    *,
    pattern: Pattern | str,
    allocation: Allocation | Mapping[str, Any] | None,
    warmstart: Chosen,
    refiner: Chosen | Sequence[Chosen] | None,
    seed: int,
    bos_per_window: bool,
    allow_uncovered: bool,
    device: torch.device | str | None,
    **calibration: Any,
) -> Arguments:
    """Return the arguments of :func:`prunelib.prune` as settings, without a model or text.

    Parameters
    ----------
    calibration
        Values of :class:`CalibrationSettings`.

    Raises
    ------
    ParamsError, PatternError
        If one is invalid, or two do not go together.
    """
    arguments = Arguments(
        pattern=pattern_of(pattern, allocation),
        warmstart=_settings("warmstart", warmstart, warmstarts),
        refiner=_refiner(refiner),
        calibration=_validated("calibration", lambda: CalibrationSettings(text="texts", **calibration)),
        seed=seed,
        bos_per_window=bos_per_window,
        allow_uncovered=allow_uncovered,
        device=None if device is None else _device(device),
    )
    _check_together(arguments)
    _check_seed(seed)
    return arguments


def pattern_of(pattern: Pattern | str, allocation: Allocation | Mapping[str, Any] | None) -> Pattern:
    """Return the pattern of an argument, with its allocation."""
    wanted = parse_pattern(pattern) if isinstance(pattern, str) else pattern
    if not isinstance(wanted, Pattern):
        raise ParamsError(f"pattern = {pattern!r}: expected text such as '2:4', or PerRow, PerLayer or NOfM")
    if allocation is None:
        return wanted
    if "allocation" not in type(wanted).model_fields:
        raise ParamsError(
            f"allocation: every group of {wanted.label} keeps the same count; expected PerRow or PerLayer"
        )
    return _validated("pattern", lambda: type(wanted).model_validate({**dict(wanted), "allocation": allocation}))


def _refiner(given: Chosen | Sequence[Chosen] | None) -> MethodSettings:
    """Return the settings of a refiner, or of a chain given several; None: no refinement."""
    if given is None:
        return _settings("refiner", "none", refiners)
    if isinstance(given, Chain):
        return given
    if isinstance(given, Mapping) and "chain" in given:
        return _validated("refiner", lambda: Chain.model_validate(given))
    if isinstance(given, MethodSettings | Mapping | str):
        return _settings("refiner", given, refiners, block_refiners)
    if not isinstance(given, Sequence) or not given:
        raise ParamsError(f"refiner = {given!r}: expected a method, a sequence of at least one, or None")
    if len(given) == 1:
        return _refiner(given[0])
    steps = [_settings("refiner", step, refiners, block_refiners) for step in given]
    return _validated("refiner", lambda: Chain(chain=tuple(steps)))


def _settings(key: str, given: Chosen, *packages: ModuleType) -> MethodSettings:
    known: dict[str, type[MethodSettings]] = {
        name: method.settings for package in packages for name, method in registry.methods(package).items()
    }
    if isinstance(given, MethodSettings) and isinstance(given, tuple(known.values())):
        return given
    name, values = (given.get("method"), given) if isinstance(given, Mapping) else (given, {})
    if isinstance(name, str) and name in known:
        settings = known[name]
        return _validated(key, lambda: settings.model_validate(values))
    raise ParamsError(f"{key} = {given!r}: expected settings, or one of {among(str(name), known)}")


def _validated(key: str, make: Callable[[], S]) -> S:
    """Make settings; an invalid value is refused in one line with the name of its argument."""
    try:
        return make()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or key
        name = _RENAMED.get(name, name)
        value = "" if isinstance(first["input"], Mapping) else f" = {first['input']!r}"
        raise ParamsError(f"{name}{value}: {first['msg'].removeprefix('Value error, ')}") from None


def _device(given: torch.device | str) -> torch.device:
    """Return a device of this machine."""
    try:
        return torch.device(usable_device(str(given)))
    except ValueError as error:
        raise ParamsError(f"device = {str(given)!r}: {error}") from None


def _check_together(arguments: Arguments) -> None:
    """Refuse settings that do not go together."""
    pattern, calibration = arguments.pattern, arguments.calibration
    warmstart, refiner = arguments.warmstart, arguments.refiner
    methods: list[Method[Any]] = [registry.warmstart(warmstarts, warmstart)]
    methods += [registry.refiner(refiners, step) for step in layer_steps(refiner)]
    for settings, method in zip((warmstart, *layer_steps(refiner)), methods, strict=True):
        if not method.supports(pattern):
            raise ParamsError(f"{settings.method} does not support the pattern {pattern.label}: {method.limits}")
    if (measured := pattern.measured_allocation) and not calibration.inputs.shared:
        raise ParamsError(
            f"calibration_inputs = {calibration.inputs}: {measured.title} needs the inputs of all blocks before any is "
            "pruned, expected dense"
        )
    if needs_held_out(refiner) and not calibration.held_out_samples:
        raise ParamsError("held_out_samples = 0: early_stopping_interval needs held-out windows, expected at least 1")


def _check_seed(seed: int) -> None:
    """Refuse a seed that not every generator takes."""
    try:
        TypeAdapter(Seed).validate_python(seed)
    except ValidationError as error:
        raise ParamsError(f"seed = {seed!r}: {error.errors()[0]['msg']}") from None


def check_model(model: PreTrainedModel) -> None:
    """Refuse what is no transformers model on one device, before anything is run."""
    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"model: {type(model).__name__}, expected a transformers PreTrainedModel; merge adapters into it first"
        )
    require_no_adapters(model)
    if getattr(model, "is_quantized", False):
        raise ModelError(f"model: {type(model).__name__} is quantised, expected float weights; prune before quantising")
    if len(devices := {str(tensor.device) for tensor in model.parameters()}) > 1 or "meta" in devices:
        raise ModelError(
            f"model: its weights are on {', '.join(sorted(devices))}, expected one device; load it on the CPU and pass "
            "device='cuda', which holds one block at a time"
        )
    if torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in model.parameters()):
        raise ModelError(
            "model: weights of torch.inference_mode() cannot be changed; load and prune it outside (torch.no_grad() is "
            "allowed)"
        )
    _device(model.device)


def windows_of(
    model: PreTrainedModel,
    tokenizer: "PreTrainedTokenizerBase | None",
    texts: Any,
    arguments: Arguments,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return windows and held-out windows, both (samples, length) int32."""
    settings = arguments.calibration
    given = isinstance(texts, torch.Tensor) and texts.ndim == 2
    check_length(model, texts.shape[1] if given else settings.length, "length")
    if isinstance(texts, torch.Tensor):
        windows = _given_windows(texts, settings.held_out_samples)
    elif tokenizer is None:
        raise ParamsError("tokenizer = None: expected the tokenizer of the model, or texts that are token windows")
    else:
        documents, bos = _documents(texts), bos_of(tokenizer) if arguments.bos_per_window else None
        samples = settings.samples + settings.held_out_samples
        try:
            windows = draw(settings.draw, documents, tokenizer, samples, settings.length, arguments.seed, bos)
        except ParamsError as error:
            raise ParamsError(_by_arguments(str(error), settings)) from None
    rows = model.get_input_embeddings().weight.shape[0]
    if wrong := [int(each) for each in (windows.min(), windows.max()) if not 0 <= each < rows]:
        raise ParamsError(f"texts: token id {wrong[0]}, but the model's embedding has {rows} rows")
    windows = windows.to(torch.int32)
    held_out = len(windows) - settings.held_out_samples
    return windows[:held_out], windows[held_out:]


def _by_arguments(message: str, settings: CalibrationSettings) -> str:
    """Return a message on params.yaml with the arguments' names: they are in no section, and held-out windows apart."""
    held_out, message = settings.held_out_samples, message.replace("calibration.", "")
    if not held_out:
        return message
    both = f"samples + held_out_samples = {settings.samples} + {held_out}"
    return message.replace(f"samples = {settings.samples + held_out}", both)


def _given_windows(windows: torch.Tensor, held_out: int) -> torch.Tensor:
    if windows.ndim != 2 or windows.is_floating_point() or windows.is_complex() or windows.dtype == torch.bool:
        raise ParamsError(
            f"texts: {windows.dtype} of shape {tuple(windows.shape)}, expected token ids (windows, length)"
        )
    if len(windows) <= held_out or not windows.shape[1]:
        raise ParamsError(
            f"texts: shape {tuple(windows.shape)}, expected more windows than held_out_samples = {held_out}"
        )
    return windows.to("cpu", torch.int64)


def _documents(texts: Any) -> list[str]:
    """Return the documents of strings, or of the column ``text`` of a data set."""
    if isinstance(texts, str):
        return [texts]
    if (columns := getattr(texts, "column_names", None)) is not None:
        if "text" not in columns:
            raise ParamsError(f"texts: has {columns}, expected a data set with a column 'text'")
        texts = texts["text"]
    if not isinstance(texts, Iterable):
        raise ParamsError(f"texts: {type(texts).__name__}, expected strings, a data set or token windows")
    documents = list(texts)
    if other := [document for document in documents if not isinstance(document, str)]:
        raise ParamsError(f"texts: contains {type(other[0]).__name__}, expected strings")
    if not documents:
        raise ParamsError("texts: empty, expected at least one document")
    return documents
