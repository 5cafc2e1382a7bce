"""Accuracy on zero-shot tasks of the lm-evaluation-harness, with items from files or from the hub."""

import difflib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from prunelib.errors import ParamsError
from prunelib.evaluation.local_tasks import check_items, describe, local_tasks
from prunelib.records import TaskResult
from prunelib.settings import Count, Settings, distinct

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LISTED = 20  # names in a message, out of the 13,000 of the harness


class TasksSettings(Settings):
    """The tasks to evaluate, and the number of items of each.

    Attributes
    ----------
    names
        Tasks of the harness; may be empty.
    limit
        Number of first items of each task; at least 2, since one has no standard error. ``None``: all.
    batch
        Sequences per forward pass; bounds memory, and changes the result only by rounding.
    """

    names: Annotated[tuple[str, ...], AfterValidator(distinct)]
    limit: Annotated[int, Field(ge=2, le=10**9)] | None
    batch: Count


def check_tasks(data: Path | None, settings: TasksSettings) -> None:
    """Check the tasks and their items before any work; those of the hub are checked when they are evaluated.

    Raises
    ------
    ParamsError
        If a task has no items in ``data``.
    ArtifactError
        If a file of items is damaged or not of its task, or a label names no choice of its item.
    """
    if data is not None:
        _check_known(settings.names, local_tasks(data))
        for name in settings.names:
            check_items(name, data, settings.limit)


def zero_shot(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    data: Path | None,
    settings: TasksSettings,
    scratch: Path | None = None,
) -> dict[str, TaskResult]:
    """Measure zero-shot accuracy of a model on multiple-choice tasks, as Wanda and SparseSwaps report it.

    Parameters
    ----------
    model, tokenizer
        The model is put into evaluation mode (no dropout).
    data
        Folder of items, ``TASK/validation.jsonl``, used without network access; ``None``: the harness's data sets from
        the hub, on its default splits.
    settings
        Tasks, item limit and batch size.
    scratch
        Existing folder for the harness's copy of the items, which is removed again; None: the system's.

    Returns
    -------
    dict
        A :class:`prunelib.records.TaskResult` for each task, in the order of ``settings.names``.

    Raises
    ------
    ParamsError
        If a task is unknown or a group of tasks, has no items in ``data``, or is not scored by log-likelihood accuracy.
    ArtifactError
        If a file of items is damaged or not of its task, or a label names no choice of its item.
    SourceError
        If the hub's data could not be loaded, or a label in it names no choice of its item.
    ModelError
        If an answer exceeds the model's maximum input length.
    NumericalError
        If a log-likelihood is NaN or infinite.
    """
    if not settings.names:
        return {}
    from prunelib.evaluation.harness import Scorer, catalogue, run_task  # noqa: PLC0415 - heavy, and tasks are optional

    scorer = Scorer(model, tokenizer, settings.batch)
    if data is None:
        known = catalogue()
        _check_known(settings.names, sorted(known.tasks), known.groups)
        return {name: run_task(scorer, known.tasks[name], settings.limit) for name in settings.names}
    _check_known(settings.names, local_tasks(data))
    within = scratch and scratch.absolute()
    with tempfile.TemporaryDirectory(dir=within, ignore_cleanup_errors=True) as folder:  # datasets maps the items
        descriptions = {name: describe(name, data, settings.limit, Path(folder)) for name in settings.names}
        return {name: run_task(scorer, file, settings.limit) for name, file in descriptions.items()}


def _check_known(
    names: Sequence[str], available: Sequence[str], groups: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> None:
    for name in names:
        if name not in available and name in groups:
            listed, others = groups[name][:_LISTED], groups[name][_LISTED:]
            raise ParamsError(
                f"evaluation.tasks.names: {name} is a group of {len(groups[name])} tasks, expected the names of tasks: "
                f"{', '.join(listed) or 'none have one'}{f' and {len(others)} more' if others else ''}"
            )
        if name not in available:
            nearest = difflib.get_close_matches(name, available, n=_LISTED, cutoff=0)
            raise ParamsError(
                f"evaluation.tasks.names: unknown task {name!r}; available are {', '.join(nearest) or 'none'}"
            )
