"""EleutherAI's lm-evaluation-harness, driven with a model in memory: it makes the prompts and counts, we score."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks.manager import TaskDict

from prunelib.errors import ParamsError, SourceError
from prunelib.evaluation.likelihood import Pair, log_likelihoods
from prunelib.results import TaskResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Scorer(TemplateLM):
    """A model and its tokenizer as the harness wants them; contexts and answers are split by the harness itself.

    The harness's own ``HFLM`` makes logits, and their log-softmax, at every position: with a vocabulary of 49,152 that
    takes twice the time and several gigabytes.
    """

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", batch: int) -> None:
        super().__init__()
        self._model, self.tokenizer, self._batch = model, tokenizer, batch

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that an answer without a context follows."""
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids, with the tokenizer's default special tokens unless told otherwise."""
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens is not False))

    def _loglikelihood_tokens(self, requests: Sequence[tuple], **_: Any) -> list[tuple[float, bool]]:
        pairs = [Pair(context, continuation) for _, context, continuation in requests]
        return [(score.log_likelihood, score.greedy) for score in log_likelihoods(self._model, pairs, self._batch)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Not needed: word-level perplexity is another number than ours (see prunelib.evaluation.perplexity)."""
        raise NotImplementedError

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Not needed: no task that is decided by generated text."""
        raise NotImplementedError


@cache
def stock_tasks() -> dict[str, Path]:
    """The description file of every task that comes with the harness, by name; its search takes some ten seconds."""
    manager = TaskManager()
    return {name: Path(manager.task_index[name].yaml_path) for name in manager.all_subtasks}


def run_task(scorer: Scorer, description: Path, limit: int | None) -> TaskResult:
    """Evaluate a task zero-shot on its first ``limit`` items, silently; nothing in it is random.

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
        Accuracy ``acc`` (not ``acc_norm``) with its closed-form standard error. The version also says which split the
        items are of, and the harness's own version: results compare only within both.

    Raises
    ------
    ParamsError
        If the task is not decided by log-likelihoods, or reports no accuracy.
    SourceError
        If its data could not be had.
    """
    with _silence():
        loaded = _load(description)
        # bootstrap_iters: 0 would leave out standard errors; that of a mean is never bootstrapped
        found = lm_eval.evaluate(scorer, loaded, limit=limit, bootstrap_iters=1, log_samples=False)
    ((name, task),) = loaded["tasks"].items()
    return _result(task, found["results"][name])


def _load(description: Path) -> TaskDict:
    try:
        loaded = TaskManager(include_defaults=False).load([str(description)])
    except OSError as error:  # of which the hub's and the datasets library's refusals are kinds
        raise SourceError(f"evaluation.tasks.names: no data for a task: {' '.join(str(error).split())}") from None
    ((name, task),) = loaded["tasks"].items()
    if task.OUTPUT_TYPE not in {"multiple_choice", "loglikelihood"} or "acc" not in task.aggregation():
        raise ParamsError(f"evaluation.tasks.names: {name} reports no accuracy by log-likelihood; choose another")
    task.set_config(key="num_fewshot", value=0)
    return loaded


def _result(task: Task, figures: Mapping[str, Any]) -> TaskResult:
    split = task.config.test_split or task.config.validation_split
    return TaskResult(
        acc=figures["acc,none"],
        acc_stderr=figures["acc_stderr,none"],
        items=figures["sample_len"],
        version=f"{task.VERSION}, {split} split, lm-eval {version('lm_eval')}",
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Hold back progress bars and log messages up to warnings, of the harness and the libraries that it uses."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
