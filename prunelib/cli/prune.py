"""Prune a model in a folder or of the hub, and write the pruned model to a folder; no project is needed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from transformers import PreTrainedModel

from prunelib.errors import ParamsError, in_one_line
from prunelib.export.card import model_card
from prunelib.export.folder import check_groups, export_model
from prunelib.export.origin import origin_of
from prunelib.masks.pruned import Pruned
from prunelib.model.structure import dtype_of, load_model, load_tokenizer
from prunelib.model.weights import weight_in
from prunelib.planning.capacity import require_disk
from prunelib.pruning.arguments import checked
from prunelib.pruning.in_memory import prune_checked
from prunelib.pruning.result import PruningResult
from prunelib.runtime.atomic import require_new
from prunelib.runtime.progress import note
from prunelib.sources import hub
from prunelib.sources.documents import Rows
from prunelib.sources.model_files import CARD, SMALL_FILES, WEIGHTS, weight_files
from prunelib.sources.provenance import computed_identity
from prunelib.sources.texts import plain_documents


def prune_folder(
    model: str,
    texts: Sequence[str],
    out: Path,
    *,
    pattern: str,
    allocation: str | None,
    warmstart: str,
    refiners: Sequence[str],
    revision: str | None,
    rows: Rows | None,
    dtype: str | None,
    **options: Any,
) -> PruningResult:
    """Prune a model and write it to a new or empty folder that ``AutoModelForCausalLM.from_pretrained`` loads.

    Parameters
    ----------
    model, revision
        A folder, or a repository of the hub and the commit, branch or tag in it; None: its newest commit.
    texts, rows
        Globs of plain UTF-8 files, and what their lines are (:func:`prunelib.sources.documents.documents_of`).
    pattern, allocation, warmstart, refiners
        In their text forms: names of methods, or YAML mappings of their settings.
    dtype
        Dtype that the model runs in; None: that of its config.
    options
        Further arguments of :func:`prunelib.prune`.

    Raises
    ------
    PruneError
        As :func:`prunelib.prune` and :func:`prunelib.export.folder.export_model`.
    """
    out = require_new(out)
    given = _from_text("allocation", allocation) if allocation else None
    arguments = checked(
        pattern=pattern,
        allocation={"method": given} if isinstance(given, str) else given,
        warmstart=_from_text("warmstart", warmstart),
        refiner=[_from_text("refiner", refiner) for refiner in refiners],
        inputs=options.pop("calibration_inputs"),
        **options,
    )
    documents = [document.text for document in plain_documents(texts, rows)]
    folder = _folder(model, revision)
    require_disk(out, _disk_of(folder), "the pruned model")
    tokenizer = load_tokenizer(folder)
    loaded = load_model(folder, dtype or dtype_of(folder), "cpu")
    result = prune_checked(loaded, tokenizer, documents, arguments, folder)
    provenance = {"model": computed_identity(folder), **result.provenance}
    card = model_card(Path(model).resolve().name, provenance, None, None, origin_of(folder))
    updated = _Updated(loaded, result)
    export_model(folder, out, result.index, Pruned(result.masks, updated), provenance, card)
    if arguments.pattern.column_groups:
        note(check_groups(out, result.index.layers, arguments.pattern))
    return result


def _disk_of(folder: Path) -> int:
    """Return the bytes of a model's weights, and of their masks: a bit each, which have 16 at least."""
    files = (folder / name for name in weight_files(folder))
    size = sum(file.stat().st_size for file in files if file.is_file())  # that one is missing is said on loading
    return size + size // 16


class _Updated(Mapping[str, torch.Tensor]):
    """The updated weights (rows, inputs) of a pruned model by layer name, read from the model on access."""

    def __init__(self, model: PreTrainedModel, result: PruningResult) -> None:
        names = {record.name for record in result.records if record.updated}
        self._model, self._layers = model, {layer.name: layer for layer in result.index.layers if layer.name in names}

    def __getitem__(self, name: str) -> torch.Tensor:
        return weight_in(self._model, self._layers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def _from_text(key: str, text: str) -> Any:
    """Return the name of a method, or the settings in a YAML mapping."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise ParamsError(f"{key} = {text}: not YAML: {in_one_line(error)}") from None


def _folder(model: str, revision: str | None) -> Path:
    """Return the folder of a model: itself, or that in the hub's cache of a repository at a commit."""
    if Path(model).is_dir():
        if revision:
            raise ParamsError(f"revision = {revision}: {model} is a folder, which has no revisions")
        return Path(model)
    commit = hub.commit_of(model, revision)
    note(f"{model} at commit {commit}")
    return hub.snapshot(hub.Repository(id=model, revision=commit), (WEIGHTS, *SMALL_FILES, CARD))
