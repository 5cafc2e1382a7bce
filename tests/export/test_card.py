"""The model card: the figures as they were measured, readable by the hub's own library."""

import re

from huggingface_hub import ModelCard

from prunelib.cell import Cell
from prunelib.export.card import model_card
from prunelib.export.origin import Origin
from prunelib.records import CellResult, PerplexityResult, TaskResult

MADE_FROM = {
    "pattern": {"kind": "n_of_m", "keep": 2, "group": 4},
    "calibration": {"inputs": "dense"},
    "warmstart": {"method": "wanda"},
    "refiner": {"method": "sparseswaps", "max_swaps": None},
}


def measured(perplexity, accuracy, **figures):
    return CellResult(
        cell=Cell(model="tiny"),
        perplexity={"wikipedia": PerplexityResult(value=perplexity, tokens=8176, windows=16)},
        tasks={"piqa": TaskResult(acc=accuracy, acc_stderr=0.0321, items=50, version="1.0")},
        coverage=1.0,
        **figures,
    )


def test_the_card_has_the_figures_and_the_settings():
    dense, pruned = measured(21.32, 0.7, sparsity=0.0), measured(102.84, 0.6, sparsity=0.5, relative_error=0.0444)
    card = ModelCard(model_card("tiny", MADE_FROM, dense, pruned))
    assert "| perplexity, wikipedia (8,176 tokens in 16 windows) | 21.32 | 102.84 |" in card.text
    assert "| accuracy, piqa (50 items, version 1.0) | 0.700 | 0.600 ± 0.032 |" in card.text
    assert "| relative error of a layer, mean | 0 | 0.0444 |" in card.text
    assert '"method": "sparseswaps"' in card.text
    results = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert results == {("wikipedia", "perplexity"): 102.84, ("piqa", "accuracy"): 0.6}
    assert card.data.tags == ["pruning", "sparsity", "sparseswaps"]


def test_without_figures_the_card_says_so():
    card = ModelCard(model_card("tiny", MADE_FROM, None, None))
    assert "No figures were measured." in card.text
    assert card.data.eval_results is None


def test_the_card_counts_the_prompts_that_were_cut():
    pruned = measured(102.84, 0.6, sparsity=0.5)
    cut = pruned.tasks["piqa"].model_copy(update={"truncated_items": 7, "truncated_tokens": 1234})
    text = ModelCard(model_card("tiny", MADE_FROM, None, pruned.model_copy(update={"tasks": {"piqa": cut}}))).text
    (line,) = (line for line in text.splitlines() if "piqa" in line)
    assert "50 items" in line
    assert " 7 " in line
    assert "1,234 tokens" in line


def test_the_card_names_the_base_model_and_its_licence():
    origin = Origin("owner/dense", {"license": "other", "license_name": "llama3", "license_link": "LICENSE"})
    card = ModelCard(model_card("tiny", MADE_FROM, None, None, origin))
    assert card.data.base_model == "owner/dense"
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "llama3", "LICENSE")
    (line,) = (line for line in card.text.splitlines() if "owner/dense" in line)
    assert "llama3" in line
    plain = ModelCard(model_card("tiny", MADE_FROM, None, None))
    assert plain.data.base_model is plain.data.license is None


MARKUP = "<img src=x> [here](javascript:a) `b` *c* _d_ |e\n\n# A heading"


def test_names_are_no_markup():
    found = measured(1.0, 0.5, sparsity=0.5)
    named = {"perplexity": {MARKUP: found.perplexity["wikipedia"]}, "tasks": {MARKUP: found.tasks["piqa"]}}
    origin = Origin(None, {"license": "other", "license_name": MARKUP})
    text = model_card(MARKUP, MADE_FROM, None, found.model_copy(update=named), origin)
    body = ModelCard(text).text
    assert "\n# A heading" not in body
    assert not re.search(r"<img|\]\(|(?<!\\)(\[here|`b|\*c|\|e)|(?<![\\\w])_d", body)
    assert body.count("here") == 4
