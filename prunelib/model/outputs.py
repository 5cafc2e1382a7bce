"""What a decoder block leaves for the rest of a forward pass: hidden states, and what it hands on with them.

A block returns its hidden states alone or among others, such as attention weights or a state that the next block takes,
and may write into mappings that it was given, such as keys and values for later blocks. All of it is taken apart into
tensors and a *form*, nested JSON that has the number of a tensor in its place, and put together again to stand in for a
block that is skipped.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

Form = Any
"""``{"tensor": number}``, ``{"tuple": [forms]}``, ``{"list": [forms]}``, or ``{"value": JSON}`` for a plain value."""

_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {"tuple": tuple, "list": list}


@dataclass(frozen=True)
class BlockOutput:
    """What a block leaves of one batch.

    Attributes
    ----------
    tensors
        The hidden states, then the others.
    returned
        Form of the return value; its hidden states are tensor 0.
    written
        Entries of mappings that were written by this or an earlier block: name of the argument to pairs of forms, of
        key and value.
    """

    tensors: list[torch.Tensor]
    returned: Form
    written: dict[str, list[tuple[Form, Form]]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Return the size of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "BlockOutput":
        """Return the same with a function applied to every tensor."""
        return BlockOutput([function(tensor) for tensor in self.tensors], self.returned, self.written)

    def replay(self, call: "Call") -> None:
        """Write the entries of earlier blocks into the mappings of a call."""
        for name, mapping in call.mappings():
            for key, form in self.written.get(name, ()):
                mapping[build(key, [])] = build(form, self.tensors)


class Call(NamedTuple):
    """Arguments of a block."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield all tensors among the arguments, nested ones included."""
        yield from leaves([*self.args, *self.kwargs.values()])

    def entering(self) -> torch.Tensor | None:
        """Return the hidden states among the arguments: the first floating tensor."""
        return next((tensor for tensor in self.tensors() if tensor.is_floating_point()), None)

    def mappings(self) -> Iterator[tuple[str, MutableMapping[Any, Any]]]:
        """Yield the mappings among the arguments that a block may write into, by position or keyword."""
        for name, value in (*((str(number), value) for number, value in enumerate(self.args)), *self.kwargs.items()):
            if isinstance(value, MutableMapping):
                yield name, value

    def entries(self) -> dict[str, dict[Any, Any]]:
        """Return a shallow copy of these mappings."""
        return {name: dict(mapping) for name, mapping in self.mappings()}


def hidden_states(output: Any, call: Call) -> torch.Tensor | None:
    """Return the hidden states in the return value of a block, or None.

    They are the return value itself, or the first floating tensor in it with the shape of those that enter the block.
    """
    if isinstance(output, torch.Tensor):
        return output
    entering = call.entering()
    shape = None if entering is None else entering.shape
    return next((tensor for tensor in leaves(output) if tensor.is_floating_point() and tensor.shape == shape), None)


def take_apart(
    output: Any, states: torch.Tensor, wanted: set[int], written: Mapping[str, Mapping[Any, Any]]
) -> BlockOutput:
    """Take apart what a block leaves.

    Parameters
    ----------
    output, states
        Its return value, and the hidden states in it.
    wanted
        The ``id`` of every tensor that the next block takes; others, such as attention weights, become None.
    written
        Entries of the mappings among its arguments, by name of the argument.
    """
    tensors = [states]
    returned = _form(output, tensors, wanted)
    entries = {
        name: [(_form(key, tensors, None), _form(value, tensors, None)) for key, value in mapping.items()]
        for name, mapping in written.items()
        if mapping
    }
    return BlockOutput(tensors, returned, entries)


def build(form: Form, tensors: list[torch.Tensor]) -> Any:
    """Put a value together from its form; tensors beyond the list become None."""
    ((kind, content),) = form.items()
    if kind == "tensor":
        return tensors[content] if content < len(tensors) else None
    if kind in _SEQUENCES:
        return _SEQUENCES[kind]([build(part, tensors) for part in content])
    return content


def leaves(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, Mapping):
        yield from leaves(list(value.values()))


def _form(value: Any, tensors: list[torch.Tensor], wanted: set[int] | None) -> Form:
    """Return the form of a value, and append its wanted tensors to the list; with None, all are wanted."""
    if isinstance(value, torch.Tensor):
        if known := [number for number, tensor in enumerate(tensors) if tensor is value]:
            return {"tensor": known[0]}
        if wanted is not None and id(value) not in wanted:
            return {"value": None}
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    for kind, make in _SEQUENCES.items():
        if isinstance(value, make):  # type: ignore[arg-type]
            return {kind: [_form(part, tensors, wanted) for part in value]}
    return {"value": value if isinstance(value, bool | int | float | str) else None}
