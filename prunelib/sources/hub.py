"""Models and texts of the Hugging Face hub, at a pinned commit."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from prunelib.errors import SourceError, in_one_line
from prunelib.sources.provenance import Source

ID = r"^[\w.-]+(/[\w.-]+)?$"
"""Names of repositories."""

COMMIT = r"^[0-9a-f]{40}$"
"""Full hashes of commits."""


class Repository(Source):
    """A repository of the hub.

    Attributes
    ----------
    id
        ``owner/name``, or ``name`` for the oldest ones.
    revision
        The full commit hash, since branches and tags can change.
    """

    source: Literal["hub"] = "hub"
    id: Annotated[str, Field(pattern=ID)]
    revision: Annotated[str, Field(pattern=COMMIT)]


class Dataset(Repository):
    """A column of text in a dataset repository.

    Attributes
    ----------
    config
        The dataset's configuration, if it has several.
    data_files
        Split name -> file in the repository, to read part of a large dataset (one shard of C4).
    column
        Name of the text column.
    """

    config: str | None = None
    data_files: dict[str, str] | None = None
    column: str = "text"


def snapshot(repository: Repository, globs: Iterable[str]) -> Path:
    """Download the repository's top-level files that match any of the globs; return their folder in the hub's cache.

    Raises
    ------
    SourceError
        If the repository or revision is unknown or not accessible to this user, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - needed for hub models only

    wanted, unwanted = list(globs), ["*/*"]
    try:
        path = snapshot_download(
            repository.id, revision=repository.revision, allow_patterns=wanted, ignore_patterns=unwanted
        )
    except faults() as error:
        raise _refusal(_at(repository), error) from None
    return Path(path)


def commit_of(name: str, revision: str | None) -> str:
    """Ask the hub for the full commit hash of a model's branch, tag or commit; None: the newest. A full one is itself.

    Raises
    ------
    SourceError
        If the repository or revision is unknown or not accessible to this user, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - needed for hub models only

    if not re.fullmatch(ID, name):
        raise SourceError(f"{name}: no such folder, and no name of a repository, expected a folder or OWNER/NAME")
    if revision and re.fullmatch(COMMIT, revision):
        return revision
    try:
        return str(HfApi().model_info(name, revision=revision).sha)
    except faults() as error:
        raise _refusal(f"{name}: no folder of that name here, and as a repository it", error) from None


def file_names(repository: Repository, had: Sequence[str]) -> list[str]:
    """Ask the hub for the names of the top-level files of a repository; ``had`` are those in its cache.

    Raises
    ------
    SourceError
        If the hub cannot be reached: the others may be there, and only the hub has them.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - needed for hub models only

    try:
        names = HfApi().list_repo_files(repository.id, revision=repository.revision)
    except faults() as error:
        part = f"only a part of it is in the hub's cache here ({', '.join(had) or 'no file'})"
        raise SourceError(f"{_refusal(_at(repository), error)}; {part}") from None
    return [name for name in names if "/" not in name]


def rows(dataset: Dataset, split: str) -> list[str]:
    """Return the text column of one split, slices allowed: ``train[:1000]``.

    Raises
    ------
    SourceError
        As :func:`snapshot`, or if there is no such config, split or column of text, or a folder or file of the
        dataset's name in the working directory, which datasets would read instead.
    """
    from datasets import load_dataset  # noqa: PLC0415 - heavy, and needed for hub texts only
    from datasets.exceptions import DatasetsError  # noqa: PLC0415 - as above

    if Path(dataset.id).exists():
        raise SourceError(
            f"{dataset.id}: {Path(dataset.id).absolute()} exists and would be read instead, expected no such "
            "file or folder; rename it, or run elsewhere"
        )
    selection = {"data_files": dataset.data_files, "split": split, "revision": dataset.revision}
    try:
        table: Any = load_dataset(dataset.id, dataset.config, **selection)
    except (DatasetsError, *faults()) as error:
        raise _refusal(_at(dataset), error) from None
    if dataset.column not in table.column_names:
        raise SourceError(
            f"{dataset.id}: no column {dataset.column!r}, expected one of {', '.join(table.column_names)}"
        )
    values = list(table[dataset.column])
    if not all(isinstance(value, str) for value in values):
        raise SourceError(f"{dataset.id}: column {dataset.column!r} contains something other than text")
    return values


def unreachable() -> tuple[type[Exception], ...]:
    """Return the exceptions of the hub and of its HTTP library, which raises one of its own if a connection drops."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # noqa: PLC0415 - as above

    return HTTPError, OSError


def faults() -> tuple[type[Exception], ...]:
    """Return the exceptions of the hub's libraries."""
    return *unreachable(), ValueError


def _at(repository: Repository) -> str:
    return f"{repository.id} at {repository.revision}:"


def _refusal(subject: str, error: Exception) -> SourceError:
    """Return an error of the hub's libraries as a one-line SourceError; ``subject`` is what was asked for."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    match error:
        case errors.GatedRepoError():
            reason = "gated; accept its licence on the hub, then set HF_TOKEN or run `hf auth login`"
        case errors.RevisionNotFoundError():
            reason = "no such revision, expected a commit hash of this repository"
        case errors.RepositoryNotFoundError():
            reason = "no such repository, or a private one (set HF_TOKEN or run `hf auth login`)"
        case _:
            reason = in_one_line(error)
    return SourceError(f"{subject} could not be downloaded from the hub: {reason}")
