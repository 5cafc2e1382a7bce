"""An evaluation in parts against perplexity over all windows, and what a later run finds."""

import pytest
from families import random_windows, save, tiny_model
from pipeline_project import character_tokenizer
from runs import Bar

from prunelib.errors import ParamsError
from prunelib.evaluation import parts
from prunelib.evaluation.continuation import continuation
from prunelib.evaluation.parts import Evaluation, Prompt, SparsityCheck, WindowRange, ZeroShotTask, evaluate_parts
from prunelib.evaluation.perplexity import PerplexitySettings, perplexity
from prunelib.evaluation.samples import SamplesSettings
from prunelib.evaluation.zeroshot import TasksSettings
from prunelib.masks.pruned import Pruned, write_pruned
from prunelib.model.structure import find_layers
from prunelib.model.weights import apply_pruned

WINDOWS = {"ours": random_windows(23, 12), "theirs": random_windows(1, 12, seed=1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = save(tiny_model("llama"), tmp_path_factory.mktemp("model"))
    character_tokenizer().save_pretrained(folder)
    return folder


def evaluation(scratch, folder, pruned=None, batch=2, length=12, tasks=(), prompts=()):
    scratch.mkdir(exist_ok=True)
    return Evaluation(
        scratch=scratch,
        folder=folder,
        dtype="float32",
        pruned=pruned,
        made_from={"model": "abc"},
        perplexity=PerplexitySettings(length=length, tokens=1000, batch=batch),
        tasks=TasksSettings(names=tasks, limit=2, batch=2),
        items=None,
        samples=SamplesSettings(prompts=prompts, tokens=5),
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_parts_add_up_to_the_whole(tmp_path, folder, batch):
    bar = Bar()
    figures = evaluate_parts(evaluation(tmp_path / "scratch", folder, batch=batch), WINDOWS, bar)
    model = tiny_model("llama")
    assert figures["perplexity"] == {text: perplexity(model, windows, batch) for text, windows in WINDOWS.items()}
    assert figures["sparsity"] == 0
    assert figures["coverage"] == 1
    assert figures["tasks"] == {}
    assert bar.done == 24


def test_a_cell_is_measured_pruned(tmp_path, folder):
    model = tiny_model("llama")
    index = find_layers(model, folder)
    masks = {layer.name: layer.weight(model).abs() > 0.1 for layer in index.layers}
    write_pruned(tmp_path / "pruned", Pruned(masks, {}), {"model": "abc"})
    figures = evaluate_parts(evaluation(tmp_path / "scratch", folder, tmp_path / "pruned"), WINDOWS, Bar())
    apply_pruned(model, index.layers, Pruned(masks, {}))
    assert figures["perplexity"]["ours"] == perplexity(model, WINDOWS["ours"], 2)
    assert 0.2 < figures["sparsity"] < 0.6


def test_prompts_are_continued_pruned_and_once(tmp_path, folder, monkeypatch):
    model, tokenizer = tiny_model("llama"), character_tokenizer()
    index = find_layers(model, folder)
    masks = {layer.name: layer.weight(model).abs() > 0.1 for layer in index.layers}
    write_pruned(tmp_path / "pruned", Pruned(masks, {}), {"model": "abc"})
    apply_pruned(model, index.layers, Pruned(masks, {}))
    given = evaluation(tmp_path / "scratch", folder, tmp_path / "pruned", prompts=("the cat", "a"))
    expected = {prompt: continuation(model, tokenizer, prompt, 5) for prompt in ("the cat", "a")}
    assert evaluate_parts(given, WINDOWS, Bar())["samples"] == expected
    monkeypatch.setattr(parts, "continuation", None)
    assert evaluate_parts(given, WINDOWS, Bar())["samples"] == expected


def test_what_has_been_measured_is_not_measured_again(tmp_path, folder, monkeypatch):
    measure, scratch = parts.window_losses, tmp_path / "scratch"

    def stop_at_the_ninth(model, windows, first):
        if first == 18:
            raise KeyboardInterrupt
        return measure(model, windows, first)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "window_losses", stop_at_the_ninth)
        with pytest.raises(KeyboardInterrupt):
            evaluate_parts(evaluation(scratch, folder), WINDOWS, Bar())
    measured = []
    monkeypatch.setattr(parts, "window_losses", lambda *given: measured.append(given[2]) or measure(*given))
    figures = evaluate_parts(evaluation(scratch, folder), WINDOWS, Bar())
    assert measured == [18, 20, 22, 0]
    assert figures["perplexity"]["ours"] == perplexity(tiny_model("llama"), WINDOWS["ours"], 2)


def test_windows_run_alone_where_a_model_needs_it(tmp_path, folder, monkeypatch):
    sizes, measure = [], parts.window_losses
    monkeypatch.setattr(parts, "window_losses", lambda *given: sizes.append(len(given[1])) or measure(*given))
    monkeypatch.setattr(parts, "windows_run_alone", lambda _model, _windows, batch: batch == 3)
    figures = evaluate_parts(evaluation(tmp_path / "scratch", folder, batch=3), WINDOWS, Bar())
    assert sizes == [1] * 24
    assert figures["perplexity"]["ours"] == perplexity(tiny_model("llama"), WINDOWS["ours"], 1)


def test_windows_longer_than_the_model_takes_are_refused(tmp_path, folder):
    windows = {"ours": random_windows(1, 65)}
    with pytest.raises(ParamsError, match=r"^evaluation\.perplexity\.length = 65 tokens, but"):
        evaluate_parts(evaluation(tmp_path / "scratch", folder, length=65), windows, Bar())


def test_tasks_begin_first_and_the_count_of_zeros_last(tmp_path, folder):
    given = evaluation(tmp_path / "scratch", folder)
    costs = [given.cost(part) for part in (ZeroShotTask("piqa"), WindowRange("ours", 4, 8), Prompt(0), SparsityCheck())]
    assert costs == [float("inf"), 4, 1, 0]
