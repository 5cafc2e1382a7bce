"""Training of kept weights alone, in float64: a leaf of their number in place of each masked parameter."""

import torch
from families import random_windows, tiny_model
from torch import nn

from prunelib.masks.patterns import NOfM
from prunelib.masks.selection import select
from prunelib.model.structure import find_layers

RATE, DECAY, CLIP, ACCUMULATED = 1e-2, 0.1, 0.1, 2


def masks_of(model) -> dict[str, torch.Tensor]:
    """2:4 masks by magnitude."""
    weights = {layer.name: (layer, layer.weight(model)) for layer in find_layers(model).layers}
    return {
        name: select((weight.T if layer.transposed else weight).abs(), NOfM(keep=2, group=4))
        for name, (layer, weight) in weights.items()
    }


def trainable(family, dtype=torch.float64, attention="eager"):
    """A tiny model to train, and its masks."""
    model = tiny_model(family, attention, dtype)
    return model.requires_grad_(True), masks_of(model)


def batches(count=6):
    """Windows to train on, one at a time."""
    return [window[None].long() for window in random_windows(samples=count, length=12, seed=3)]


def kept_positions(model, masks) -> dict[str, torch.Tensor]:
    """Where masked parameters keep weights, by the parameter's name."""
    kept = {}
    for layer in find_layers(model).layers:
        whole = kept.setdefault(layer.parameter, torch.ones(model.get_parameter(layer.parameter).shape, dtype=bool))
        mask = masks[layer.name].T if layer.transposed else masks[layer.name]
        if layer.fused is None:
            whole[:] = mask
        else:
            whole[layer.fused.expert, layer.fused.first_row : layer.fused.first_row + layer.rows] = mask
    return kept


class KeptAlone(nn.Module):
    """A model whose masked parameters have their kept weights alone as leaves.

    ``leaves`` has all parameters by name; those of masked parameters are vectors.
    """

    def __init__(self, model, masks):
        super().__init__()
        self._kept, self._model = kept_positions(model, masks), [model]
        self.leaves = {
            name: nn.Parameter((weight[self._kept[name]] if name in self._kept else weight).detach().clone())
            for name, weight in model.named_parameters()
        }

    def loss(self, tokens):
        """The mean loss of next-token prediction."""
        weights = dict(self.leaves)
        for name, kept in self._kept.items():
            zeros = torch.zeros(kept.shape, dtype=self.leaves[name].dtype)
            weights[name] = zeros.index_put(tuple(kept.nonzero().T), self.leaves[name])
        called = {"input_ids": tokens, "labels": tokens, "use_cache": False}
        return torch.func.functional_call(self._model[0], weights, kwargs=called).loss

    def check(self, model):
        """Assert that a trained model has these kept weights, and +0.0 elsewhere."""
        for name, weight in model.named_parameters():
            kept = self._kept.get(name, torch.ones(weight.shape, dtype=bool))
            pruned = weight[~kept]
            assert not pruned.count_nonzero()
            assert not pruned.signbit().any()
            expected = self.leaves[name].reshape(-1)
            torch.testing.assert_close(weight[kept].double(), expected.detach().double(), rtol=1e-7, atol=1e-10)


def train(parameters, loss, optimizer, clip=CLIP, data=None):
    """A loop of one's own: accumulation, clipping, steps; the norms before clipping."""
    norms = []
    for number, tokens in enumerate(batches() if data is None else data):
        (loss(tokens) / ACCUMULATED).backward()
        if number % ACCUMULATED == ACCUMULATED - 1:
            norms.append(float(nn.utils.clip_grad_norm_(parameters, clip)))
            optimizer.step()
            optimizer.zero_grad()
    return norms
