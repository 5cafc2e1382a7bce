"""The examples in the docstrings of public names run, and give what they show."""

import doctest

import pytest
import torch
from families import tiny_model
from pipeline_project import LETTERS, character_tokenizer

import prunelib

FOUND = {
    name: [test for test in doctest.DocTestFinder().find(getattr(prunelib, name), name) if test.examples]
    for name in prunelib.__all__
}


@pytest.fixture
def names():
    """What examples may use: a tiny model, its tokenizer, texts, batches, an optimizer, and masks of its own."""
    model = tiny_model("llama").requires_grad_()
    layer = "model.layers.0.mlp.up_proj"
    windows = torch.arange(24).view(2, 12)
    return {
        "prunelib": prunelib,
        "torch": torch,
        "model": model,
        "tokenizer": character_tokenizer(),
        "texts": ["".join(LETTERS[i * i % len(LETTERS)] for i in range(20_000))],
        "result": type("Result", (), {"masks": {layer: model.get_submodule(layer).weight > 0}}),
        "batches": [{"input_ids": windows % 16, "labels": windows % 16}],
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }


@pytest.mark.parametrize("name", [name for name, tests in FOUND.items() if tests])
def test_the_examples_of_a_docstring_give_what_they_show(name, names, capsys):
    runner = doctest.DocTestRunner(verbose=False)
    for test in FOUND[name]:
        test.globs = dict(names)
        assert runner.run(test).failed == 0, capsys.readouterr().out
