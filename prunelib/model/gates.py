"""Gates of mixtures of experts, which stay dense: found by what the model's forward pass does with their outputs.

A gate is a matrix whose output, after elementwise functions at most, is the input of a top-k, or of a softmax over
experts; or one whose single output scales what other layers give, as the gate of a shared expert does. A matrix beside
experts that is called gate or router is a gate in any case.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_CHOICES = {"topk", "argmax", "argsort", "sort", "kthvalue", "multinomial"}
_SOFTMAX = {"softmax", "log_softmax", "max"}
_CASTS = {"to", "type", "type_as", "float", "half", "bfloat16", "double", "contiguous", "clone", "detach"}
_TRANSPOSES = {"t", "transpose", "mT", "T"}
_SHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem"}
_ELEMENTWISE = {"sigmoid", "softmax", "log_softmax", "relu", "tanh", "softplus", "sqrt", "exp", "clamp", "masked_fill"}
_ARITHMETIC = {"add", "sub", "mul", "div", "truediv", "radd", "rmul"}
_FOLLOWED = _CASTS | _SHAPES | _ELEMENTWISE | _ARITHMETIC
_NAMES = {"gate", "router", "wg", "shared_expert_gate"}


def find_gates(model: nn.Module, parameters: Mapping[str, nn.Parameter], forward: Callable[[], object]) -> set[str]:
    """Return the names of the gates among the matrices of decoder blocks.

    Parameters
    ----------
    model
        The model.
    parameters
        Parameters of its decoder blocks by name; those of two dimensions may be gates.
    forward
        Runs the model over a few tokens.
    """
    experts = _counts_of_experts(model, parameters)
    follow = _FollowOutputs({name: weight for name, weight in parameters.items() if weight.ndim == 2}, experts)
    with follow:
        forward()
    return follow.gates | {name for name in follow.names if _is_called_gate(name, experts)}


def _counts_of_experts(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, int]:
    """Map each module that has experts, fused or in a list, to their number; names end with a dot."""
    counts = {
        name.rpartition(".")[0].rpartition(".")[0] + ".": len(weight)
        for name, weight in parameters.items()
        if weight.ndim == 3 and "expert" in name
    }
    for name, module in model.named_modules():
        parent, _, last = name.rpartition(".")
        if isinstance(module, nn.ModuleList) and "expert" in last:
            counts[f"{parent}."] = len(module)
    return counts


def _is_called_gate(name: str, experts: Iterable[str]) -> bool:
    path = name.removesuffix(".weight")
    return path.rpartition(".")[2] in _NAMES and any(path.rpartition(".")[0] + "." == parent for parent in experts)


class _FollowOutputs(TorchFunctionMode):
    """Follow the outputs of matrices through elementwise functions.

    Attributes
    ----------
    names
        The matrices by name.
    gates
        Names of those found to be gates.
    """

    def __init__(self, matrices: Mapping[str, nn.Parameter], experts: Mapping[str, int]) -> None:
        super().__init__()
        self.names, self.gates = matrices, set[str]()
        self._experts = experts
        self._weights = {id(weight): name for name, weight in matrices.items()}
        self._outputs: dict[int, str] = {}
        self._alive: list[Any] = []  # while a tensor is referenced, no other can take its id

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        given = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, torch.Tensor)]
        if name == "__get__":  # of an attribute, such as the transposed
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        self._note(name.strip("_"), given, result)
        return result

    def _note(self, function: str, given: list[torch.Tensor], result: Any) -> None:
        """Mark the result of a function as what it was given is marked, and note gates."""
        for tensor in given:
            if (matrix := self._outputs.get(id(tensor))) is not None:
                if self._chooses(function, tensor, matrix) or self._scales(function, tensor, matrix, given):
                    self.gates.add(matrix)
                elif function in _FOLLOWED and all(
                    other.numel() <= tensor.shape[-1] for other in given if other is not tensor
                ):
                    self._mark(self._outputs, result, matrix)
            if (matrix := self._weights.get(id(tensor))) is not None:
                if function in _CASTS | _TRANSPOSES:
                    self._mark(self._weights, result, matrix)
                elif function in {"linear", "matmul", "mm", "addmm"}:
                    self._mark(self._outputs, result, matrix)

    def _mark(self, marks: dict[int, str], result: Any, matrix: str) -> None:
        if isinstance(result, torch.Tensor):
            self._alive.append(result)
            marks[id(result)] = matrix

    def _chooses(self, function: str, tensor: torch.Tensor, matrix: str) -> bool:
        """Return whether a function of a matrix's output chooses experts."""
        of_parents = {count for parent, count in self._experts.items() if matrix.startswith(parent)}
        return function in _CHOICES or (function in _SOFTMAX and tensor.shape[-1] in of_parents)

    def _scales(self, function: str, tensor: torch.Tensor, matrix: str, given: list[torch.Tensor]) -> bool:
        """Return whether the only output of a matrix multiplies vectors."""
        one = len(self.names[matrix]) == 1 and tensor.shape[-1] == 1
        return one and function in {"mul", "rmul"} and any(other.shape[-1:] > (1,) for other in given)
