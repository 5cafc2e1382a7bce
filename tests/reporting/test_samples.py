"""Samples of text: which models wrote them, in which order, and their file."""

import json
from dataclasses import replace

import pytest
from report_records import CASES, PROMPT, WRITTEN, dense, pruned, report

from prunelib.errors import ArtifactError
from prunelib.reporting.samples import printable, read_samples, samples_json, samples_of


def writing(cell, **samples):
    return replace(cell, result=cell.result.model_copy(update={"samples": samples}))


def test_the_dense_model_comes_first():
    (sample,) = samples_of(report([pruned(), dense(), pruned(refiner="none")]))
    assert sample.prompt == PROMPT
    assert [each.name for each in sample.written] == ["dense", "wanda + swaps", "wanda"]
    assert [each.text for each in sample.written] == 3 * [WRITTEN]


def test_pattern_and_perplexity_stand_beside_a_name():
    (sample,) = samples_of(CASES["one cell"])
    assert [each.about for each in sample.written] == ["perplexity 26.0", "60% per row, perplexity 55.0"]


def test_models_are_named_where_there_are_several():
    (sample,) = samples_of(CASES["several models"])
    assert [each.about for each in sample.written[:2]] == [
        f"{name}: dense, perplexity 26.0" for name in ("tiny", "small")
    ]


def test_prompts_keep_their_order_and_each_has_those_who_continued_it():
    cells = [writing(dense(), b="1", a="2"), writing(pruned(), a="3"), writing(pruned(refiner="none"))]
    known = report(cells, prompts=("b", "a", "not continued"))
    assert [(each.prompt, [one.text for one in each.written]) for each in samples_of(known)] == [
        ("b", ["1"]),
        ("a", ["2", "3"]),
    ]


def test_of_several_draws_the_first_is_shown():
    cells = [writing(pruned(seed=seed), a=f"draw {seed}") for seed in (0, 1, 2)]
    (sample,) = samples_of(report(cells, prompts=("a",)))
    assert [each.text for each in sample.written] == ["draw 0"]


def test_characters_that_a_page_may_not_have_are_replaced():
    assert printable("a\x00b\x1b\n\tc\x85 é\U0001f600") == "a\ufffdb\ufffd\n\tc\x85 é\U0001f600"


def test_the_file_is_read_as_it_was_written(tmp_path):
    known, path = CASES["grid"], tmp_path / "samples.json"
    assert read_samples(path) == {}
    path.write_text(samples_json(known), encoding="utf-8")
    assert read_samples(path) == known.samples
    path.write_text(json.dumps({"cell": ["text"]}))
    with pytest.raises(ArtifactError, match=r"samples\.json"):
        read_samples(path)
