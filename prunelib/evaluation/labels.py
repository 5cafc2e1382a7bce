"""A check of the labels of any task of the harness: each must name a choice of its item, by the task's own rules.

The harness counts an item whose label names no choice as answered wrongly, without a message.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.task import ConfigurableTask, Task

from prunelib.errors import SourceError

RULES_FAULTS = (ValueError, LookupError, TypeError, AttributeError, ImportError, SyntaxError, TemplateError)
"""What a task's own rules raise on an item that they do not fit: rules are templates and functions of the harness."""


def check_labels(task: Task, limit: int | None) -> None:
    """Check the labels of the first ``limit`` items of a task; ``None``: all items.

    Raises
    ------
    SourceError
        If a label names no choice of its item; the message names the item, counted from 1, and the label.
    """
    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE != "multiple_choice" or task.config.process_results:
        return  # no label, or a label that the task itself compares
    for number, item in enumerate(itertools.islice(task.eval_docs, limit), start=1):
        where = f"evaluation.tasks.names: {task.config.task}, item {number}"
        try:
            choices, label = task.doc_to_choice(item), _label(task, item)
        except RULES_FAULTS as error:
            raise SourceError(f"{where}: {as_reason(error)}") from None
        if not all(_names_a_choice(part, choices) for part in (label if isinstance(label, list) else [label])):
            raise SourceError(
                f"{where}: its label is {label!r}, expected a number from 0 to {len(choices) - 1} or one of its choices"
            )


def as_reason(error: Exception) -> str:
    """Return an error of a task's rules as one line."""
    return f"its rules do not fit the item ({type(error).__name__}: {' '.join(str(error).split())})"


def _label(task: ConfigurableTask, item: Mapping[str, Any]) -> Any:
    """Return an item's label; a task with several contexts and one answer, such as Winogrande, has it in the text."""
    return task.doc_to_text(item) if task.multiple_input else task.doc_to_target(item)


def _names_a_choice(label: Any, choices: list[str]) -> bool:
    return label in choices if isinstance(label, str) else isinstance(label, int) and 0 <= label < len(choices)
