"""Tasks of the lm-evaluation-harness with items from files, ``TASK/validation.jsonl``, instead of the hub."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prunelib.errors import ArtifactError


class _Task(NamedTuple):
    """A task of the harness: its description file, the fields of an item, and changes to the description."""

    description: str
    fields: frozenset[str]
    changes: Mapping[str, str] = {}


_ARC = frozenset({"question", "choices", "answerKey"})
_HELLASWAG = frozenset({"activity_label", "ctx_a", "ctx_b", "endings", "label"})
_SCIQ = frozenset({"support", "question", "correct_answer", "distractor1", "distractor2", "distractor3"})
_TASKS = {
    "arc_challenge": _Task("arc/arc_challenge.yaml", _ARC),
    "arc_easy": _Task("arc/arc_easy.yaml", _ARC),
    "boolq": _Task(
        "super_glue/boolq/default.yaml",
        frozenset({"passage", "question", "answer"}),
        changes={"doc_to_target": "{{answer|int}}"},  # true or false in BoolQ's own files, a label in SuperGLUE's
    ),
    "copa": _Task("super_glue/copa/default.yaml", frozenset({"premise", "question", "choice1", "choice2", "label"})),
    "hellaswag": _Task("hellaswag/hellaswag.yaml", _HELLASWAG),
    "openbookqa": _Task("openbookqa/openbookqa.yaml", frozenset({"question_stem", "choices", "answerKey"})),
    "piqa": _Task("piqa/piqa.yaml", frozenset({"goal", "sol1", "sol2", "label"})),
    "rte": _Task("glue/rte/default.yaml", frozenset({"sentence1", "sentence2", "label"})),
    "sciq": _Task("sciq/sciq.yaml", _SCIQ),
    "winogrande": _Task("winogrande/default.yaml", frozenset({"sentence", "option1", "option2", "answer"})),
}

TASK_NAMES = tuple(_TASKS)
"""The tasks that can be evaluated on items from files."""


def local_tasks(data: Path) -> list[str]:
    """Return the tasks that have a file of items in a folder."""
    return [name for name in _TASKS if _items_file(data, name).is_file()]


def describe(name: str, data: Path, limit: int | None, folder: Path) -> Path:
    """Write a task description for the harness: its own task, with our first ``limit`` items as the only data.

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
        If the file of items is damaged, not of this task, or has fewer than two items.
    """
    import lm_eval  # noqa: PLC0415 - only to find its files

    task = _TASKS[name]
    items = folder / f"{name}.jsonl"
    items.write_bytes(b"".join(_first_items(_items_file(data, name), task.fields, limit)))
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


def _first_items(path: Path, fields: frozenset[str], limit: int | None) -> list[bytes]:
    """Return the first lines of a file of items; each must be a JSON object with at least these fields."""
    with path.open("rb") as stream:
        lines = list(itertools.islice(stream, limit))
    if len(lines) < 2:
        raise ArtifactError(f"{path}: {len(lines)} items, expected at least 2 (one has no standard error)")
    for number, line in enumerate(lines, start=1):
        missing = fields - _keys(line)
        if missing:
            raise ArtifactError(f"{path}: line {number} is no item of this task, it lacks {', '.join(sorted(missing))}")
    return lines


def _keys(line: bytes) -> frozenset[str]:
    """Return the keys of a JSON object, or the empty set for anything else."""
    try:
        return frozenset(dict(json.loads(line)))
    except (ValueError, TypeError):
        return frozenset()
