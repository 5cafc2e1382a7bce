"""EleutherAI's lm-evaluation-harness with our scoring of a model in memory; it makes prompts and computes metrics."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lm_eval
from datasets.exceptions import DatasetsError
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks.manager import TaskDict

from prunelib.errors import ModelError, ParamsError, SourceError
from prunelib.evaluation.labels import RULES_FAULTS, as_reason, check_labels
from prunelib.evaluation.likelihood import Pair, log_likelihoods, truncated_tokens
from prunelib.model.prompts import prompt_ids
from prunelib.model.vocabulary import check_ids
from prunelib.records import TaskResult
from prunelib.sources import hub

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Scorer(TemplateLM):
    """Adapter of a model and its tokenizer to the harness, which itself splits contexts and answers.

    The harness's own ``HFLM`` computes logits and their log-softmax at every position: with a vocabulary of 49,152 that
    takes twice the time and several gigabytes. It also keeps a token that the tokenizer puts after each text (EOS): in
    the context, and in place of the answer's first token.

    Attributes
    ----------
    truncated
        Of the task evaluated last, the items whose prompt exceeds the model's input, by number, and the most tokens
        that one of an item's prompts lost at its beginning.
    """

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch: int) -> None:
        super().__init__()
        self._model, self.tokenizer, self._batch = model, tokenizer, batch
        self.truncated: dict[int, int] = {}

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that precedes an answer without a context: BOS, or EOS if there is none.

        Raises
        ------
        ModelError
            If the tokenizer has neither.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ModelError(
            "model: its tokenizer has neither BOS nor EOS, expected one to come before an answer without a prompt"
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return token ids, with the special tokens that the tokenizer puts before a text, never those after it.

        With ``add_special_tokens=False`` there are none.
        """
        if add_special_tokens is not False:
            return prompt_ids(self.tokenizer, string)
        tokens = list(self.tokenizer.encode(string, add_special_tokens=False))
        check_ids(tokens, self.tokenizer)
        return tokens

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """Score the answers of a task, each after its context, and count what is cut: :attr:`truncated`."""
        pairs = [self._pair(*request.args) for request in requests]
        self.truncated = {}
        for request, pair in zip(requests, pairs, strict=True):
            if cut := truncated_tokens(self._model, pair):
                self.truncated[request.doc_id] = max(cut, self.truncated.get(request.doc_id, 0))
        return self._loglikelihood_tokens([((), *pair) for pair in pairs])

    def _pair(self, context: str, continuation: str) -> Pair:
        """Return the tokens of a context and of what follows it; of a blank context, the token that begins a text."""
        if not context.strip():
            return Pair([self.prefix_token_id], self.tok_encode(context + continuation, add_special_tokens=False))
        return Pair(*self._encode_pair(context, continuation))

    def _loglikelihood_tokens(self, requests: Sequence[tuple], **_: Any) -> list[tuple[float, bool]]:
        pairs = [Pair(context, continuation) for _, context, continuation in requests]
        return [(score.log_likelihood, score.greedy) for score in log_likelihoods(self._model, pairs, self._batch)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Refuse: word-level perplexity is not supported; ours is per token (:mod:`prunelib.evaluation.perplexity`)."""
        raise NotImplementedError

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Refuse: tasks scored on generated text are not supported."""
        raise NotImplementedError


class Catalogue(NamedTuple):
    """The harness's own tasks: their description files, and the tasks of each group or tag, by name.

    A task that is described within a group has no file, and is left out.
    """

    tasks: Mapping[str, Path]
    groups: Mapping[str, Sequence[str]]


@cache
def catalogue() -> Catalogue:
    """Return the harness's own tasks; the search takes about ten seconds."""
    manager = TaskManager()
    index = manager.task_index
    tasks = {name: Path(index[name].yaml_path) for name in manager.all_subtasks}
    named = (*manager.all_groups, *manager.all_tags)
    groups = {name: sorted(_tasks_of(index, name, ()) & tasks.keys()) for name in named}
    return Catalogue(tasks, groups)


def _tasks_of(index: Mapping[str, Any], part: Any, above: tuple[str, ...]) -> set[str]:
    """Return the tasks of a part of a group: a name, or a description in place; ``above``: the groups around it."""
    if isinstance(part, Mapping):
        parts = part.get("task", [])
    elif part not in index or part in above:
        return set()
    elif index[part].yaml_path is None:  # a tag
        return set(index[part].tags)
    else:
        parts, above = index[part].cfg.get("task", []), (*above, part)
    if isinstance(parts, str):
        return {parts}
    return {task for inner in parts for task in _tasks_of(index, inner, above)}


def run_task(scorer: Scorer, description: Path, limit: int | None) -> TaskResult:
    """Evaluate a task zero-shot on its first ``limit`` items, without output; the result is deterministic.

    Parameters
    ----------
    scorer
        The model.
    description
        The task's YAML file.
    limit
        ``None``: all items.

    Returns
    -------
    TaskResult
        Accuracy ``acc`` (not ``acc_norm``) with its closed-form standard error, and how many prompts were truncated.
        Its ``version`` includes the split of the items and the harness's version; results are comparable only if both
        agree.

    Raises
    ------
    ParamsError
        If the task is not scored by log-likelihoods, or reports no accuracy.
    SourceError
        If its data could not be loaded, or the label of an item names none of its choices.
    """
    with _silence():
        loaded = _load(description)
        ((name, task),) = loaded["tasks"].items()
        check_labels(task, limit)
        # bootstrap_iters=0 would omit standard errors; that of a mean is never bootstrapped
        found = lm_eval.evaluate(scorer, loaded, limit=limit, bootstrap_iters=1, log_samples=False)
    return _result(task, found["results"][name], scorer.truncated)


def _load(description: Path) -> TaskDict:
    try:
        loaded = TaskManager(include_defaults=False).load([str(description)])
    except (DatasetsError, *hub.unreachable()) as error:
        raise SourceError(f"evaluation.tasks.names: no data for a task: {' '.join(str(error).split())}") from None
    except RULES_FAULTS as error:  # the first item is tried while a task is loaded
        raise SourceError(f"evaluation.tasks.names: {description.stem}: {as_reason(error)}") from None
    ((name, task),) = loaded["tasks"].items()
    if task.OUTPUT_TYPE not in {"multiple_choice", "loglikelihood"} or "acc" not in task.aggregation():
        raise ParamsError(f"evaluation.tasks.names: {name} reports no accuracy by log-likelihood; choose another")
    task.set_config(key="num_fewshot", value=0)
    return loaded


def _result(task: Task, figures: Mapping[str, Any], truncated: Mapping[int, int]) -> TaskResult:
    split = task.config.test_split or task.config.validation_split
    return TaskResult(
        acc=figures["acc,none"],
        acc_stderr=figures["acc_stderr,none"],
        items=figures["sample_len"],
        version=f"{task.VERSION}, {split} split, lm-eval {version('lm_eval')}",
        truncated_items=len(truncated) or None,
        truncated_tokens=max(truncated.values(), default=None),
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress progress bars and log messages up to warnings, of the harness and the libraries that it uses."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
