"""Items in every form that can mean one thing only, and in forms that cannot be scored."""

import json
from pathlib import Path
from typing import Any

import pytest
from families import tiny_model
from pipeline_project import character_tokenizer

from prunelib.errors import ArtifactError
from prunelib.evaluation.items import (
    Form,
    index_below,
    index_into,
    label_among,
    labelled_choices,
    non_blank,
    one_of,
    text,
    text_with,
    texts,
    truth,
)
from prunelib.evaluation.zeroshot import TasksSettings, check_tasks, zero_shot

ARC = Form({"choices": labelled_choices, "answerKey": label_among("choices")})
AB = {"text": ["a", "b"], "label": ["A", "B"]}
PIQA = [("ab", "cd", "ef"), ("gh", "ij", "kl"), ("mn", "op", "qr"), ("st", "uv", "wx")]


def read(reader: Any, value: Any, **others: Any) -> Any:
    return Form({"x": reader}).read(json.dumps({"x": value, **others}).encode())["x"]


@pytest.mark.parametrize(
    ("reader", "value", "meant"),
    [
        (text, "", ""),
        (non_blank, " a", " a"),
        (text_with("_"), "a _ b", "a _ b"),
        (texts, ["a", ""], ["a", ""]),
        (index_below(2), 1, 1),
        (index_below(2), "1", 1),
        (index_below(2), " 0 ", 0),
        (index_below(2), 1.0, 1),
        (one_of("1", "2"), "2", "2"),
        (one_of("1", "2"), 2, "2"),
        (truth, True, True),
        (truth, "False", False),
        (truth, "true", True),
        (truth, 0, False),
        (truth, "1", True),
        (labelled_choices, {"text": ["a", "b"], "label": [1, 2]}, {"text": ["a", "b"], "label": ["1", "2"]}),
    ],
)
def test_a_value_that_can_mean_one_thing_only_is_read(reader: Any, value: Any, meant: Any) -> None:
    found = read(reader, value)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        *((text, value) for value in (3, None, ["a"])),
        *((non_blank, value) for value in ("", " ", 1)),
        (text_with("_"), "no gap"),
        *((texts, value) for value in ("ab", ["a"], ["a", 1], [], {"text": ["a", "b"]})),
        *((index_below(2), value) for value in (2, -1, "2", "one", "", None, True, 0.5, [0])),
        *((one_of("cause", "effect"), value) for value in ("because", 0, None)),
        *((truth, value) for value in (2, "yes", "", None, 1.0, [True])),
        *((labelled_choices, value) for value in (["a", "b"], {"text": ["a", "b"]}, {**AB, "label": ["A"]})),
        *((labelled_choices, {**AB, "label": labels}) for labels in (["A", "A"], ["A", None], "AB")),
    ],
)
def test_another_value_is_refused_with_its_field(reader: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x") as refused:
        read(reader, value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["B", " B", "B "])
def test_a_key_is_one_of_the_labels(key: str) -> None:
    assert ARC.read(json.dumps({"choices": AB, "answerKey": key, "more": 1}).encode()) == {
        "choices": AB,
        "answerKey": "B",
    }


@pytest.mark.parametrize("key", ["D", "1", 1, "", None, "b"])
def test_a_key_that_is_no_label_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match=r"answerKey = .*A, B"):
        ARC.read(json.dumps({"choices": AB, "answerKey": key}).encode())


def test_labels_may_be_digits_and_keys_numbers() -> None:
    line = json.dumps({"choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": 2}).encode()
    assert ARC.read(line)["answerKey"] == "2"


@pytest.mark.parametrize(("label", "fits"), [("2", True), (0, True), (3, False), ("-1", False), ("", False)])
def test_an_index_counts_the_texts_of_its_item(label: Any, fits: bool) -> None:
    form = Form({"endings": texts, "label": index_into("endings")})
    line = json.dumps({"endings": ["a", "b", "c"], "label": label}).encode()
    if fits:
        assert form.read(line)["label"] == int(label)
    else:
        with pytest.raises(ValueError, match=r"label = .*0 to 2"):
            form.read(line)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match=r"\.\.\.") as refused:
        read(index_below(2), "a" * 1000)
    assert len(str(refused.value)) < 200


def written(folder: Path, task: str, items: list[dict[str, Any]]) -> Path:
    path = folder / task / "validation.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def piqa_of(labels: list[Any]) -> list[dict[str, Any]]:
    return [{"goal": a, "sol1": b, "sol2": c, "label": label} for (a, b, c), label in zip(PIQA, labels, strict=True)]


@pytest.mark.parametrize(
    ("labels", "accuracy"),
    [
        ([0] * 4, 0.25),
        (["0"] * 4, 0.25),
        (["0", 0, "0", 0.0], 0.25),
        ([1] * 4, 0.75),
        (["1"] * 4, 0.75),
    ],
)
def test_the_form_of_labels_changes_no_accuracy(labels: list[Any], accuracy: float, tmp_path: Path) -> None:
    written(tmp_path, "piqa", piqa_of(labels))
    settings = TasksSettings(names=("piqa",), limit=None, batch=2)
    assert zero_shot(tiny_model("llama"), character_tokenizer(), tmp_path, settings)["piqa"].acc == accuracy


def test_a_label_of_text_is_no_second_choice(tmp_path: Path) -> None:
    """The harness itself takes each label of COPA that is not 0 for the second choice."""
    item = {"premise": "ab.", "question": "cause", "choice1": "cd", "choice2": "ef", "idx": 1}
    found = []
    for number, labels in enumerate(([0, 1], ["0", "1"])):
        folder = tmp_path / str(number)
        written(folder, "copa", [{**item, "label": label} for label in labels])
        settings = TasksSettings(names=("copa",), limit=None, batch=2)
        found.append(zero_shot(tiny_model("llama"), character_tokenizer(), folder, settings)["copa"])
    assert found[0] == found[1]
    assert found[0].acc == 0.5


def test_other_fields_may_differ_from_line_to_line(tmp_path: Path) -> None:
    items = piqa_of([0, 1, 0, 1])
    written(tmp_path / "mixed", "piqa", [{**item, "id": item["label"] or "none"} for item in items])
    written(tmp_path / "plain", "piqa", items)
    settings = TasksSettings(names=("piqa",), limit=None, batch=2)
    mixed, plain = (
        zero_shot(tiny_model("llama"), character_tokenizer(), tmp_path / name, settings) for name in ("mixed", "plain")
    )
    assert mixed == plain


def test_items_are_checked_before_any_work_up_to_the_limit(tmp_path: Path) -> None:
    path = written(tmp_path, "piqa", piqa_of([0, 1, 2, 0]))
    check_tasks(tmp_path, TasksSettings(names=("piqa",), limit=2, batch=1))
    check_tasks(None, TasksSettings(names=("piqa",), limit=None, batch=1))
    with pytest.raises(ArtifactError, match=r"line 3: label = 2") as refused:
        check_tasks(tmp_path, TasksSettings(names=("piqa",), limit=None, batch=1))
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize("task", ["arc_challenge", "arc_easy", "openbookqa"])
def test_a_key_among_no_labels_is_refused_by_file_and_line(task: str, tmp_path: Path) -> None:
    question = {"openbookqa": "question_stem"}.get(task, "question")
    items = [{question: "q", "choices": AB, "answerKey": key} for key in "AD"]
    path = written(tmp_path, task, items)
    with pytest.raises(ArtifactError, match=r'line 2: answerKey = "D".*A, B') as refused:
        zero_shot(
            tiny_model("llama"), character_tokenizer(), tmp_path, TasksSettings(names=(task,), limit=None, batch=2)
        )
    assert str(refused.value).startswith(f"{path}: ")
