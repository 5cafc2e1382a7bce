"""Pruned models on the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard

from prunelib.errors import ArtifactError
from prunelib.export.folder import PROVENANCE_FILE
from prunelib.masks.pruned import MASKS_FILE
from prunelib.model.weights import tensor_files
from prunelib.sources.hub import faults
from prunelib.sources.model_files import CARD, is_small_file

if TYPE_CHECKING:
    from os import PathLike

_REQUIRED = ("base_model", "license")


def push_to_hub(
    folder: "PathLike[str] | str",
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload an exported folder to a model repository of the hub, in one commit, by ``HfApi.upload_folder``.

    The repository is made if there is none. Uploaded are the weights, their index, configuration, tokenizer, licence,
    masks, provenance and card; no other file of the folder. The card is the one that the export wrote: base model,
    licence, pattern, method, and the figures with their texts, tokens and windows.

    Parameters
    ----------
    folder
        Written by ``prunelib export`` or ``prunelib apply``.
    repo_id
        ``owner/name``.
    private, revision, commit_message, token
        As ``HfApi.create_repo`` and ``HfApi.upload_folder`` have them; None: their defaults.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    ArtifactError
        If the folder is no exported model, its card names no base model or licence, or the upload fails.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - as a test replaces it

    folder = Path(folder)
    files = _files(folder)
    _check_card(folder / CARD)
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            repo_type="model",
            revision=revision,
            commit_message=commit_message or "Upload pruned model",
            allow_patterns=files,
        )
    except faults() as error:
        raise ArtifactError(f"{folder}: could not be uploaded to {repo_id}: {' '.join(str(error).split())}") from None
    return str(commit.commit_url)


def _files(folder: Path) -> list[str]:
    """Return the names of the files that make an exported model."""
    names = {file.name for file in folder.iterdir() if file.is_file()} if folder.is_dir() else set()
    for needed in (CARD, MASKS_FILE, "config.json"):
        if needed not in names:
            raise ArtifactError(f"{folder}: no {needed}, expected a folder written by `prunelib export` or `apply`")
    weights = {file.name for file in tensor_files(folder).values()}
    return sorted(
        weights | {CARD, MASKS_FILE, PROVENANCE_FILE} & names | {name for name in names if is_small_file(name)}
    )


def _check_card(file: Path) -> None:
    """Refuse a card without what a derived model owes to its base: its name and its licence."""
    try:
        metadata = ModelCard(file.read_text(encoding="utf-8")).data.to_dict()
    except Exception as error:  # of the YAML parser that the hub's client has
        raise ArtifactError(f"{file}: damaged metadata ({' '.join(str(error).split())})") from None
    if missing := [key for key in _REQUIRED if not metadata.get(key)]:
        raise ArtifactError(
            f"{file}: no {' and no '.join(missing)} in its metadata, expected both; write them between its first two "
            "lines of ---, as in `base_model: owner/name`, `license: apache-2.0`"
        )
