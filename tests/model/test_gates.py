"""Gates, told by what a forward pass does with their outputs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunelib.model.gates import find_gates

EXPERTS, WIDTH = 4, 8
ROUTERS = {
    "top-k of a softmax": lambda logits: functional.softmax(logits, dim=-1, dtype=torch.float32).topk(2, dim=-1)[1],
    "top-k of groups": lambda logits: (logits.sigmoid() + torch.ones(4)).view(-1, 2, 2).topk(1, dim=-1)[0],
    "sigmoid of the top": lambda logits: torch.topk(logits.float().squeeze(0), 1)[0].sigmoid(),
    "argmax": lambda logits: torch.argmax(logits, -1),
    "sort": lambda logits: torch.sort(logits)[1],
    "mixture of all": lambda logits: logits.softmax(-1),
    "scores less a mask": lambda logits: logits.masked_fill(torch.tensor([False, True] * 2), -torch.inf).argsort(),
}
OTHERS = {
    "activation": functional.silu,
    "softmax over others": lambda logits: logits.view(2, 2, 2).softmax(-1),
    "top-k of products": lambda logits: (logits @ logits.T).topk(2),
    "top-k of a mixture with another": lambda logits: (logits * torch.ones(2, 4)).topk(2),
}


class Mixture(nn.Module):
    """A linear layer called without a hint, beside experts."""

    def __init__(self, use, name="layer", rows=EXPERTS, experts="experts"):
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.add_module(name, nn.Linear(WIDTH, rows, bias=False))
        self.mlp.add_module(experts, nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(EXPERTS)))
        self.use, self.name = use, name

    def gates(self):
        def forward():
            self.use(self.mlp.get_submodule(self.name)(torch.randn(2, WIDTH)))

        return find_gates(self, dict(self.named_parameters()), forward)


@pytest.mark.parametrize("use", ROUTERS)
def test_what_chooses_experts_is_a_gate(use):
    assert Mixture(ROUTERS[use]).gates() == {"mlp.layer.weight"}


@pytest.mark.parametrize("use", OTHERS)
def test_what_does_not_choose_is_none_whatever_its_rows(use):
    assert Mixture(OTHERS[use]).gates() == set()


def test_any_number_of_rows_may_choose():
    assert Mixture(lambda logits: logits.topk(2), rows=7).gates() == {"mlp.layer.weight"}


def test_softmax_is_of_a_gate_only_over_the_experts_beside_it():
    assert Mixture(lambda logits: logits.softmax(-1), rows=7).gates() == set()
    assert Mixture(lambda logits: logits.softmax(-1), experts="heads").gates() == set()


@pytest.mark.parametrize(("rows", "gates"), [(1, {"mlp.layer.weight"}), (WIDTH, set())])
def test_one_output_that_scales_others_is_a_gate(rows, gates):
    assert Mixture(lambda logits: logits.sigmoid() * torch.ones(2, WIDTH), rows=rows).gates() == gates


def test_names_are_the_fallback_beside_experts_only():
    def hidden(logits):
        return torch.from_numpy(logits.detach().numpy().argsort())

    assert Mixture(hidden, name="gate").gates() == {"mlp.gate.weight"}
    assert Mixture(hidden, name="gate_proj").gates() == set()
    assert Mixture(hidden, name="gate", experts="heads").gates() == set()


def test_a_weight_that_is_cast_or_transposed_is_followed():
    weight = nn.Parameter(torch.randn(EXPERTS, WIDTH, dtype=torch.bfloat16))
    inputs = torch.randn(2, WIDTH)
    for product in (
        lambda: functional.linear(inputs, weight.float()),
        lambda: inputs @ weight.T.float(),
        lambda: torch.matmul(inputs, weight.to(torch.float32).t()),
    ):
        assert find_gates(nn.Module(), {"weight": weight}, lambda product=product: product().topk(2)) == {"weight"}
