"""Inputs that begin alike, run as one sequence: the shared tokens once, then the rest of each input.

A token attends to the shared ones and to those of its own input before it, and has the position that it has there: the
model computes for each input what it computes for it alone. The answers to one question share most of their tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from prunelib.evaluation.batching import equal_but_for_rounding, last_states, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tokens = tuple[int, ...]
_LEAST_SHARED = 4  # an input joins a group if that saves at least one of so many of its tokens


class Group(NamedTuple):
    """Inputs whose first ``shared`` tokens are equal; a single input shares all of its tokens."""

    inputs: tuple[Tokens, ...]
    shared: int

    @classmethod
    def of_one(cls, ids: Tokens) -> "Group":
        """Return a group of one input."""
        return cls((ids,), len(ids))

    def joined(self, ids: Tokens) -> "Group":
        """Return the group with one more input."""
        return Group((*self.inputs, ids), _equal_tokens(self.inputs[0][: self.shared], ids))

    @property
    def tokens(self) -> Tokens:
        """The shared tokens, then the rest of each input."""
        return (*self.inputs[0][: self.shared], *(token for ids in self.inputs for token in ids[self.shared :]))

    @property
    def positions(self) -> Tokens:
        """The position of each of :attr:`tokens` in its input."""
        return (*range(self.shared), *(at for ids in self.inputs for at in range(self.shared, len(ids))))

    @property
    def owners(self) -> Tokens:
        """The input that each of :attr:`tokens` belongs to, counted from 1; 0: all of them."""
        rest = (number for number, ids in enumerate(self.inputs, start=1) for _ in ids[self.shared :])
        return (*[0] * self.shared, *rest)

    def places(self, number: int) -> list[int]:
        """Return where the tokens of an input, counted from 0, are in :attr:`tokens`."""
        return [place for place, owner in enumerate(self.owners) if owner in (0, number + 1)]


def grouped(inputs: Iterable[Tokens], most: int) -> list[Group]:
    """Gather inputs, all different, into groups of at most ``most`` that begin alike."""
    groups: list[Group] = []
    for ids in sorted(inputs):  # those that begin alike are neighbours
        if groups and len(groups[-1].inputs) < most:
            group = groups[-1].joined(ids)
            saved = len(groups[-1].tokens) + len(ids) - len(group.tokens)
            if _LEAST_SHARED * saved >= len(ids):
                groups[-1] = group
                continue
        groups.append(Group.of_one(ids))
    return groups


def batches(groups: Iterable[Group], most: int) -> Iterator[list[Group]]:
    """Yield groups of similar length together, with at most ``most`` inputs in all."""
    batch: list[Group] = []
    for group in sorted(groups, key=lambda each: len(each.tokens)):
        if batch and sum(len(each.inputs) for each in (*batch, group)) > most:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def model_inputs(model: "PreTrainedModel", batch: Sequence[Group]) -> dict[str, torch.Tensor]:
    """Return the arguments of a model's forward pass for a batch of groups, each a row, padded on the right.

    Returns
    -------
    dict
        ``input_ids`` (groups, L). If a group has several inputs, ``position_ids`` (groups, L) and ``attention_mask``
        (groups, 1, L, L), too: what is added to the scores of attention, in the model's dtype.
    """
    tokens = padded([group.tokens for group in batch], model.device)
    if all(len(group.inputs) == 1 for group in batch):
        return {"input_ids": tokens}
    owners = padded([group.owners for group in batch], model.device, -1)
    allowed = (owners[:, None, :] == 0) | (owners[:, None, :] == owners[:, :, None])  # (groups, L, L)
    mask = torch.full(allowed.shape, torch.finfo(model.dtype).min, dtype=model.dtype, device=model.device)
    mask.masked_fill_(allowed.tril(), 0)
    positions = padded([group.positions for group in batch], model.device)
    return {"input_ids": tokens, "position_ids": positions, "attention_mask": mask[:, None]}


@torch.inference_mode()
def runs_as_alone(model: "PreTrainedModel", group: Group) -> bool:
    """Return whether a model's last hidden states for each input of a group are those that it has alone.

    They are others in models that take no such mask, or attend to fewer tokens than an input has.
    """
    try:
        (together,) = last_states(model, **model_inputs(model, [group]))
    except Exception:  # models that take no positions or no such mask fail in many ways
        return False
    for number, ids in enumerate(group.inputs):
        (alone,) = last_states(model, **model_inputs(model, [Group.of_one(ids)]))
        if not equal_but_for_rounding(alone, together[group.places(number)]):
            return False
    return True


def _equal_tokens(first: Tokens, second: Tokens) -> int:
    """Return how many tokens two inputs share at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))
