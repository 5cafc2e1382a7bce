"""Tasks of the lm-evaluation-harness with items from files, ``TASK/validation.jsonl``, instead of the hub."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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


class _Task(NamedTuple):
    """A task of the harness: its description file, the form of an item, and changes to the description."""

    description: str
    form: Form
    changes: Mapping[str, str] = {}


_ARC = Form({"question": text, "choices": labelled_choices, "answerKey": label_among("choices")})
_TASKS = {
    "arc_challenge": _Task("arc/arc_challenge.yaml", _ARC),
    "arc_easy": _Task("arc/arc_easy.yaml", _ARC),
    "boolq": _Task(
        "super_glue/boolq/default.yaml",
        Form({"passage": text, "question": text, "answer": truth}),
        changes={"doc_to_target": "{{answer|int}}"},  # true or false in BoolQ's own files, a label in SuperGLUE's
    ),
    "copa": _Task(
        "super_glue/copa/default.yaml",
        Form(
            {
                "premise": text,
                "question": one_of("cause", "effect"),
                "choice1": non_blank,
                "choice2": non_blank,
                "label": index_below(2),
            }
        ),
    ),
    "hellaswag": _Task(
        "hellaswag/hellaswag.yaml",
        Form({"activity_label": text, "ctx_a": text, "ctx_b": text, "endings": texts, "label": index_into("endings")}),
    ),
    "openbookqa": _Task(
        "openbookqa/openbookqa.yaml",
        Form({"question_stem": text, "choices": labelled_choices, "answerKey": label_among("choices")}),
    ),
    "piqa": _Task("piqa/piqa.yaml", Form({"goal": text, "sol1": text, "sol2": text, "label": index_below(2)})),
    "rte": _Task("glue/rte/default.yaml", Form({"sentence1": text, "sentence2": text, "label": index_below(2)})),
    "sciq": _Task(
        "sciq/sciq.yaml",
        Form(
            dict.fromkeys(("support", "question", "correct_answer", "distractor1", "distractor2", "distractor3"), text)
        ),
    ),
    "winogrande": _Task(
        "winogrande/default.yaml",
        Form({"sentence": text_with("_"), "option1": text, "option2": text, "answer": one_of("1", "2")}),
    ),
}

TASK_NAMES = tuple(_TASKS)
"""The tasks that can be evaluated on items from files."""


def local_tasks(data: Path) -> list[str]:
    """Return the tasks that have a file of items in a folder."""
    return [name for name in _TASKS if _items_file(data, name).is_file()]


def check_items(name: str, data: Path, limit: int | None) -> None:
    """Check the first ``limit`` items of a task, one of ``local_tasks(data)``; ``None``: all items.

    Raises
    ------
    ArtifactError
        If the file of items is damaged or has fewer than two items, or an item is not of this task: a field is missing
        or of another type, or its label names none of its choices. The message names line, field and value.
    """
    _first_items(_items_file(data, name), _TASKS[name].form, limit)


def describe(name: str, data: Path, limit: int | None, folder: Path) -> Path:
    """Write a task description for the harness: its own task, with our first ``limit`` items as the only data.

    The items are written with the fields that the task reads and with labels in its own form, so that the same items
    give the same result however their file wrote them.

    Parameters
    ----------
    name, data
        Task, one of ``local_tasks(data)``, and the folder of items.
    limit
        At least 2; ``None``: all items.
    folder
        Folder for the description, the items and the harness's cache of them.

    Returns
    -------
    Path
        The YAML file.

    Raises
    ------
    ArtifactError
        As :func:`check_items`.
    """
    import lm_eval  # noqa: PLC0415 - only to find its files

    task = _TASKS[name]
    items = folder / f"{name}.jsonl"
    lines = (json.dumps(item) for item in _first_items(_items_file(data, name), task.form, limit))
    items.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    description: dict[str, Any] = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / task.description),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"validation": str(items)}, "cache_dir": str(folder / "cache")},
        "training_split": None,
        "validation_split": "validation",
        "test_split": None,
        **task.changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(description), encoding="utf-8")  # JSON is YAML
    return path


def _items_file(data: Path, name: str) -> Path:
    return data / name / "validation.jsonl"


def _first_items(path: Path, form: Form, limit: int | None) -> list[dict[str, Any]]:
    """Return the first items of a file, each in the form of its task."""
    with path.open("rb") as stream:
        lines = list(itertools.islice(stream, limit))
    if len(lines) < 2:
        raise ArtifactError(f"{path}: {len(lines)} items, expected at least 2 (one has no standard error)")
    return [_item(path, number, form, line) for number, line in enumerate(lines, start=1)]


def _item(path: Path, number: int, form: Form, line: bytes) -> dict[str, Any]:
    try:
        return form.read(line)
    except ValueError as error:
        raise ArtifactError(f"{path}: line {number}: {error}") from None
