"""Models and texts of the Hugging Face hub, at a pinned commit."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from prunelib.errors import SourceError
from prunelib.sources.provenance import Source


class Repository(Source):
    """A repository of the hub.

    Attributes
    ----------
    id
        ``owner/name``, or ``name`` for the oldest ones.
    revision
        The full commit hash: branches and tags move.
    """

    source: Literal["hub"] = "hub"
    id: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)?$")]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Dataset(Repository):
    """A column of text in a dataset repository.

    Attributes
    ----------
    config
        The dataset's configuration, where it has several.
    data_files
        Split name -> file in the repository, to read a part of a large dataset (one shard of C4).
    column
        The column that holds text.
    """

    config: str | None = None
    data_files: dict[str, str] | None = None
    column: str = "text"


def snapshot(repository: Repository, globs: Iterable[str]) -> Path:
    """The folder in the hub's own cache that holds the repository's top-level files that match any of the globs.

    Raises
    ------
    SourceError
        If the repository or revision is unknown, not open to this user, or the hub is out of reach.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - needed for hub models only

    wanted, unwanted = list(globs), ["*/*"]
    try:
        path = snapshot_download(
            repository.id, revision=repository.revision, allow_patterns=wanted, ignore_patterns=unwanted
        )
    except _faults() as error:
        raise _refusal(repository, error) from None
    return Path(path)


def rows(dataset: Dataset, split: str) -> list[str]:
    """The text column of one split, slices allowed: ``train[:1000]``.

    Raises
    ------
    SourceError
        As :func:`snapshot`, or if there is no such config, split or column of text.
    """
    from datasets import load_dataset  # noqa: PLC0415 - heavy, and needed for hub texts only
    from datasets.exceptions import DatasetsError  # noqa: PLC0415 - as above

    selection = {"data_files": dataset.data_files, "split": split, "revision": dataset.revision}
    try:
        table: Any = load_dataset(dataset.id, dataset.config, **selection)
    except (DatasetsError, *_faults()) as error:
        raise _refusal(dataset, error) from None
    if dataset.column not in table.column_names:
        raise SourceError(
            f"{dataset.id}: no column {dataset.column!r}, expected one of {', '.join(table.column_names)}"
        )
    values = list(table[dataset.column])
    if not all(isinstance(value, str) for value in values):
        raise SourceError(f"{dataset.id}: column {dataset.column!r} holds something else than text")
    return values


def _faults() -> tuple[type[Exception], ...]:
    """What the hub's libraries raise; a connection that drops midway is an error of the HTTP library beneath them."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415 - as above

    return HTTPError, OSError, ValueError


def _refusal(repository: Repository, error: Exception) -> SourceError:
    """The hub's many errors as one line."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    where = f"{repository.id} at {repository.revision}"
    match error:
        case errors.GatedRepoError():
            reason = "gated; accept its licence on the hub, then set HF_TOKEN or run `hf auth login`"
        case errors.RevisionNotFoundError():
            reason = "no such revision, expected a commit hash of this repository"
        case errors.RepositoryNotFoundError():
            reason = "no such repository, or a private one (set HF_TOKEN or run `hf auth login`)"
        case _:
            reason = " ".join(str(error).split())
    return SourceError(f"{where}: not had from the hub: {reason}")
