"""Zero-shot tasks through the harness on made-up items, against log-likelihoods taken by hand in float64."""

# ruff: noqa: S106 - the tokens of a vocabulary are no passwords

import json
import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from families import tiny_model
from pydantic import ValidationError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Punctuation, WhitespaceSplit
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from prunelib.calibration.windows import tokenizer_identity
from prunelib.errors import ArtifactError, ModelError, NumericalError, ParamsError, SourceError
from prunelib.evaluation import harness
from prunelib.evaluation.local_tasks import TASK_NAMES, describe, local_tasks
from prunelib.evaluation.zeroshot import TasksSettings, zero_shot
from prunelib.records import TaskResult

SPECIAL = ["<bos>", "<unk>", "<eos>"]
NOUNS, VERBS = ["cat", "dog", "bird", "fish"], ["sits", "runs", "sings", "swims"]
OTHERS = ["a", "the", "on", "mat", "tree", "water", "Question", "Answer", "yes", "no", "True", "False", ":", "?", "."]


def four_choices(answer: int) -> dict[str, Any]:
    return {"choices": {"text": VERBS, "label": ["A", "B", "C", "D"]}, "answerKey": "ABCD"[answer]}


def makers() -> dict[str, Callable[[int, str], dict[str, Any]]]:
    """An item of each task, from a number and a noun."""
    return {
        "arc_challenge": lambda i, noun: {"id": str(i), "question": f"the {noun}", **four_choices(i % 4)},
        "arc_easy": lambda i, noun: {"id": str(i), "question": f"a {noun} on the mat", **four_choices((i + 1) % 4)},
        "boolq": lambda i, noun: {"passage": f"the {noun} runs", "question": f"a {noun} swims", "answer": i % 2 == 0},
        "copa": lambda i, noun: {
            "premise": f"The {noun} runs.",
            "question": ["cause", "effect"][i % 2],
            "choice1": "the dog sings.",
            "choice2": "the cat sits.",
            "label": i % 2,
            "idx": i,
        },
        "hellaswag": lambda i, noun: {
            "activity_label": noun,
            "ctx_a": f"the {noun} sits",
            "ctx_b": "the dog",
            "endings": VERBS,
            "label": str(i % 4),
        },
        "openbookqa": lambda i, noun: {"id": str(i), "question_stem": f"the {noun}", **four_choices(i % 4)},
        "piqa": lambda i, noun: {
            "goal": f"the {noun}",
            "sol1": f"a {noun} sits",
            "sol2": "swims on water",
            "label": i % 2,
        },
        "rte": lambda i, noun: {
            "sentence1": f"the {noun} runs",
            "sentence2": f"a {noun} sits",
            "label": i % 2,
            "idx": i,
        },
        "sciq": lambda i, noun: {
            "question": f"the {noun}",
            "distractor1": "tree",
            "distractor2": "mat",
            "distractor3": "water",
            "correct_answer": noun,
            "support": f"a {noun}" if i % 2 else "",
        },
        "winogrande": lambda i, noun: {
            "sentence": f"the {noun} on _ sings",
            "option1": "mat",
            "option2": "tree",
            "answer": "12"[i % 2],
        },
    }


TASKS = list(makers())


class Choice(NamedTuple):
    """An item as the papers of the tasks pose it: prompt, answers, and which is right."""

    prompt: str
    answers: Sequence[str]
    right: int


POSED: Mapping[str, Callable[[Mapping[str, Any]], Choice]] = {
    "piqa": lambda item: Choice(f"Question: {item['goal']}\nAnswer:", [item["sol1"], item["sol2"]], item["label"]),
    "arc_easy": lambda item: Choice(
        f"Question: {item['question']}\nAnswer:", item["choices"]["text"], "ABCD".index(item["answerKey"])
    ),
    "boolq": lambda item: Choice(
        f"{item['passage']}\nQuestion: {item['question']}?\nAnswer:", ["no", "yes"], int(item["answer"])
    ),
    "rte": lambda item: Choice(
        f"{item['sentence1']}\nQuestion: {item['sentence2']} True or False?\nAnswer:", ["True", "False"], item["label"]
    ),
}


def items_of(task: str, count: int) -> list[dict[str, Any]]:
    return [makers()[task](number, NOUNS[number % 4]) for number in range(count)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    for task in TASKS:
        (folder / task).mkdir()
        lines = [json.dumps(item) + "\n" for item in items_of(task, 8)]
        (folder / task / "validation.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = [*SPECIAL, *NOUNS, *VERBS, *OTHERS]
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="<unk>"))
    backend.pre_tokenizer = Steps([WhitespaceSplit(), Punctuation()])
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", unk_token="<unk>", eos_token="<eos>")


def tasks(*names: str, limit: int | None = None, batch: int = 3) -> TasksSettings:
    return TasksSettings(names=names, limit=limit, batch=batch)


def chosen(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, choice: Choice) -> int:
    """The answer of highest log-likelihood, each answer run alone in float64."""
    context = tokenizer(choice.prompt)["input_ids"]
    scores = []
    for answer in choice.answers:
        ids = tokenizer(f"{choice.prompt} {answer}")["input_ids"]
        log_probabilities = model.double()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(log_probabilities[at - 1, ids[at]].item() for at in range(len(context), len(ids))))
    return scores.index(max(scores))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("task", POSED)
def test_accuracy_is_that_of_the_likeliest_answers(
    task: str, family: str, data: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    choices = [POSED[task](item) for item in items_of(task, 8)]
    double = tiny_model(family)
    hits = torch.tensor([chosen(double, tokenizer, choice) == choice.right for choice in choices]).double()
    result = zero_shot(tiny_model(family), tokenizer, data, tasks(task))[task]
    assert result.acc == hits.mean().item()
    assert result.acc_stderr == pytest.approx(hits.std().item() / 8**0.5)
    assert result.items == 8


def test_every_task_runs_without_network_or_noise(
    data: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*address: Any) -> None:
        raise AssertionError(f"the network was asked for: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    results = zero_shot(tiny_model("llama"), tokenizer, data, tasks(*TASKS, limit=2))
    assert list(results) == TASKS
    assert {result.items for result in results.values()} == {2}
    assert {result.acc for result in results.values()} <= {0.0, 0.5, 1.0}
    assert capfd.readouterr() == ("", "")


def test_results_say_version_split_and_harness(data: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    result = zero_shot(tiny_model("llama"), tokenizer, data, tasks("boolq"))["boolq"]
    assert result.version.startswith("2.0, validation split, lm-eval 0.")
    assert TaskResult.model_validate_json(result.model_dump_json()) == result


def test_neither_the_batch_nor_another_run_changes_a_result(data: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model, identity = tiny_model("llama"), tokenizer_identity(tokenizer)
    first, second, third = (
        zero_shot(model, tokenizer, data, tasks("piqa", "sciq", batch=batch)) for batch in (1, 3, 3)
    )
    assert first == second == third
    assert tokenizer_identity(tokenizer) == identity


def test_a_limit_takes_the_first_items(data: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "piqa").mkdir()
    lines = (data / "piqa" / "validation.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "piqa" / "validation.jsonl").write_text("".join(lines[:3]), encoding="utf-8")
    model = tiny_model("llama")
    limited = zero_shot(model, tokenizer, data, tasks("piqa", limit=3))
    assert limited == zero_shot(model, tokenizer, tmp_path, tasks("piqa"))
    assert limited == zero_shot(model, tokenizer, tmp_path, tasks("piqa", limit=100))


def test_all_is_within_the_scratch_folder(
    data: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    expected = zero_shot(model, tokenizer, data, tasks("piqa"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    Path("scratch").mkdir()
    assert zero_shot(model, tokenizer, data, tasks("piqa"), Path("scratch")) == expected
    assert not any(Path("scratch").iterdir())


def test_what_cannot_be_removed_meanwhile_is_no_fault(
    data: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: object, **__: object) -> None:
        raise OSError(39, "Directory not empty", path)

    monkeypatch.setattr(os, "rmdir", refuse)
    assert zero_shot(tiny_model("llama"), tokenizer, data, tasks("piqa"), tmp_path)


def test_no_tasks_cost_nothing(data: Path) -> None:
    assert zero_shot(None, None, data, tasks()) == {}


def test_an_unknown_task_is_refused_with_those_that_are_there(data: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ParamsError) as refused:
        zero_shot(tiny_model("llama"), tokenizer, data, tasks("piqa", "piqua"))
    assert str(refused.value).startswith("evaluation.tasks.names: unknown task 'piqua'; available are piqa, ")
    assert set(TASKS) <= set(str(refused.value).replace(",", "").split())


def test_a_task_without_a_file_is_not_available(data: Path, tmp_path: Path) -> None:
    assert local_tasks(data) == list(TASK_NAMES) == TASKS
    assert local_tasks(tmp_path) == []
    with pytest.raises(ParamsError, match=r"available are none$"):
        zero_shot(tiny_model("llama"), None, tmp_path, tasks("piqa"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "0 items, expected at least 2"),
        ("{}\n", "1 items, expected at least 2"),
        (
            json.dumps(items_of("piqa", 1)[0]) + "\n{\n",
            "line 2: no item of this task, it lacks goal, label, sol1, sol2",
        ),
        ("\udcff\n\n", "line 1: no item of this task, it lacks goal, label, sol1, sol2"),
        ("[]\n1\n", "line 1: no item of this task, it lacks goal, label, sol1, sol2"),
        (
            "".join(json.dumps(item) + "\n" for item in items_of("rte", 2)),
            "line 1: no item of this task, it lacks goal",
        ),
    ],
)
def test_damaged_or_foreign_items_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "piqa" / "validation.jsonl"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ArtifactError, match=message) as refused:
        describe("piqa", tmp_path, None, tmp_path)
    assert str(refused.value).startswith(f"{path}: ")


def test_a_broken_model_is_refused(data: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("llama")
    model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(NumericalError, match=r"^zero-shot"):
        zero_shot(model, tokenizer, data, tasks("piqa"))


def test_without_data_the_harness_brings_its_own(
    data: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = {"piqa": describe("piqa", data, None, tmp_path)}
    monkeypatch.setattr(harness, "catalogue", lambda: harness.Catalogue(dense, {}))
    model = tiny_model("llama")
    assert zero_shot(model, tokenizer, None, tasks("piqa")) == zero_shot(model, tokenizer, data, tasks("piqa"))
    with pytest.raises(ParamsError, match=r"unknown task 'sciq'; available are piqa$"):
        zero_shot(model, tokenizer, None, tasks("sciq"))


@pytest.fixture(scope="module")
def catalogue() -> harness.Catalogue:
    return harness.catalogue()


@pytest.mark.parametrize(
    ("group", "count", "some"),
    [
        ("mmlu", 57, {"mmlu_anatomy", "mmlu_formal_logic", "mmlu_college_physics"}),
        ("ai2_arc", 2, {"arc_easy", "arc_challenge"}),  # a tag
        ("glue", 9, {"rte", "sst2"}),
        ("blimp_nl", 84, {"blimp_nl__adpositional_phrases__argument_scrambling"}),  # groups described in place
    ],
)
def test_a_group_has_the_tasks_of_all_groups_in_it(
    group: str, count: int, some: set[str], catalogue: harness.Catalogue
) -> None:
    assert some <= set(catalogue.groups[group]) <= set(catalogue.tasks)
    assert len(catalogue.groups[group]) == count


def test_no_group_is_a_task_and_hardly_one_is_empty(catalogue: harness.Catalogue) -> None:
    assert not set(catalogue.groups) & set(catalogue.tasks)
    assert sum(not members for members in catalogue.groups.values()) < 20
    assert all(set(members) <= set(catalogue.tasks) for members in catalogue.groups.values())


def test_a_group_is_refused_with_its_tasks(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {"few": ["boolq", "rte"], "many": [f"task_{number}" for number in range(100)]}
    monkeypatch.setattr(harness, "catalogue", lambda: harness.Catalogue({"piqa": Path("piqa.yaml")}, groups))
    for name, listed in (("few", ["few", "2", "boolq", "rte"]), ("many", ["many", "100", "task_0", "task_19", "80"])):
        with pytest.raises(ParamsError, match=rf"^evaluation\.tasks\.names: {name} ") as refused:
            zero_shot(tiny_model("llama"), tokenizer, None, tasks("piqa", name))
        assert set(listed) <= set(str(refused.value).replace(",", "").split())
        assert "unknown" not in str(refused.value)
        assert len(str(refused.value)) < 400


def changed(description: Path, **changes: Any) -> Path:
    """A task's description with some of it replaced."""
    path = description.with_name("changed.yaml")
    path.write_text(json.dumps({**json.loads(description.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return path


def test_data_that_cannot_be_had_is_a_fault_of_the_source(data: Path, tmp_path: Path) -> None:
    description = changed(describe("piqa", data, None, tmp_path), dataset_path=str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match=r"^evaluation.tasks.names: no data for a task: "):
        harness.run_task(harness.Scorer(None, None, 1), description, None)


def test_a_task_of_writing_text_is_refused(data: Path, tmp_path: Path) -> None:
    description = changed(
        describe("piqa", data, None, tmp_path),
        output_type="generate_until",
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    with pytest.raises(ParamsError, match=r"^evaluation.tasks.names: piqa reports no accuracy by log-likelihood"):
        harness.run_task(harness.Scorer(None, None, 1), description, None)


@pytest.mark.parametrize("target", ["{{label + 1}}", "{{label - 1}}", "none of them", "{{nowhere.index(label)}}"])
def test_a_label_of_the_harness_own_data_that_names_no_choice_is_refused(
    target: str, data: Path, tmp_path: Path
) -> None:
    """Two items, labels 0 and 1: the first of each rule that fits no choice is refused, never counted as wrong."""
    description = changed(describe("piqa", data, 2, tmp_path), doc_to_target=target)
    with pytest.raises(SourceError, match=r"^evaluation\.tasks\.names: (piqa, item [12]|changed): ") as refused:
        harness.run_task(harness.Scorer(None, None, 1), description, None)
    assert "\n" not in str(refused.value)


def test_an_answer_without_context_follows_the_first_token(tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = harness.Scorer(tiny_model("llama"), tokenizer, 1)
    assert (scorer.prefix_token_id, scorer.eot_token_id) == (0, 2)
    assert scorer.tok_encode("the cat") == [0, *scorer.tok_encode("the cat", add_special_tokens=False)]


def with_specials(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    """The same tokenizer with another template of special tokens around a text."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    special = [(token, number) for number, token in enumerate(SPECIAL) if token in template]
    backend.post_processor = TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", unk_token="<unk>", eos_token="<eos>")


@pytest.mark.parametrize("after", ["<eos>", "<eos> <eos>", "<bos>"])
@pytest.mark.parametrize("before", ["", "<bos> "])
def test_what_a_tokenizer_puts_after_a_text_is_in_no_prompt(
    before: str, after: str, data: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    plain, ending = (with_specials(tokenizer, f"{before}{rest}") for rest in ("$A", f"$A {after}"))
    scorers = [harness.Scorer(tiny_model("llama"), made, 1) for made in (plain, ending)]
    pairs = [("the cat", " sits on"), ("the cat ", "sits"), ("", "a cat"), ("  ", "a cat")]
    first, second = ([scorer._pair(*pair) for pair in pairs] for scorer in scorers)
    assert first == second
    begin = [0] if before else []
    ids = {word: number for number, word in enumerate([*SPECIAL, *NOUNS, *VERBS, *OTHERS])}
    assert first[0] == ([*begin, ids["the"], ids["cat"]], [ids["sits"], ids["on"]])
    assert first[2] == first[3] == ([0], [ids["a"], ids["cat"]])
    assert zero_shot(tiny_model("llama"), ending, data, tasks("piqa", "openbookqa")) == zero_shot(
        tiny_model("llama"), plain, data, tasks("piqa", "openbookqa")
    )


def test_no_prompt_needs_a_token_to_begin_with(tokenizer: PreTrainedTokenizerFast) -> None:
    backend = tokenizer.backend_tokenizer
    plain = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    with pytest.raises(ModelError, match="neither BOS nor EOS"):
        harness.Scorer(tiny_model("llama"), plain, 1)._pair("", "a cat")


def test_prompts_that_a_model_cannot_take_whole_are_counted(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    lengths = [3, 70, 3, 90]
    items = [{"goal": "cat " * length, "sol1": "dog", "sol2": "dog sits on", "label": 0} for length in lengths]
    (tmp_path / "piqa").mkdir()
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (tmp_path / "piqa" / "validation.jsonl").write_text(lines, encoding="utf-8")
    found = zero_shot(tiny_model("llama"), tokenizer, tmp_path, tasks("piqa"))["piqa"]
    # BOS, Question, :, 90 words, Answer, :, three words of which the last is only predicted; 64 positions
    assert (found.truncated_items, found.truncated_tokens) == (2, 1 + 2 + 90 + 2 + 2 - 64)
    items = [item for item in items if len(item["goal"]) < 20]
    (tmp_path / "piqa" / "validation.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    whole = zero_shot(tiny_model("llama"), tokenizer, tmp_path, tasks("piqa"))["piqa"]
    assert whole.truncated_items is whole.truncated_tokens is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["piqa", "piqa"]}, "duplicate name"),
        ({"limit": 1}, "greater than or equal to 2"),
        ({"batch": 0}, "greater than or equal to 1"),
        ({"shots": 5}, "unknown key 'shots'"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    assert TasksSettings(names=[], limit=None, batch=1).names == ()
    with pytest.raises(ValidationError, match=message):
        TasksSettings(**{"names": ["piqa"], "limit": None, "batch": 1, **changes})
