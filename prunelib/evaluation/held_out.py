"""Text that perplexity is measured on: held-out documents, none of which is a calibration document."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from prunelib.calibration.windows import spread_windows, tokenize
from prunelib.errors import ParamsError
from prunelib.evaluation.perplexity import PerplexitySettings
from prunelib.records import BOS_SUFFIX
from prunelib.sources.documents import read_documents, shared_document

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def held_out_texts(folders: Mapping[str, Path], calibration: str) -> dict[str, list[str]]:
    """Return the held-out documents of each text.

    Parameters
    ----------
    folders
        Folder of each text's documents, by the text's name.
    calibration
        The name of the text that calibration windows are drawn from, one of ``folders``.

    Raises
    ------
    ParamsError
        If a held-out document is also a calibration document, possibly of another text.
    ArtifactError
        If a file of documents is missing or damaged.
    """
    calibrated = read_documents(folders[calibration], "calibration")
    texts = {}
    for text, folder in folders.items():
        documents = read_documents(folder, "held_out")
        if shared := shared_document(calibrated, documents):
            seen, twin = shared
            raise ParamsError(
                f"grid.texts: held-out document {seen.id!r} of {text} is {twin.id!r} among the calibration documents "
                f"of {calibration}; evaluate on another text"
            )
        texts[text] = [document.text for document in documents]
    return texts


def held_out_windows(
    texts: Mapping[str, list[str]],
    tokenizer: "PreTrainedTokenizerBase",
    settings: PerplexitySettings,
    bos: int | None = None,
) -> dict[str, "torch.Tensor"]:
    """Return the token windows (n, L) int32 of each text, L tokens long and evenly spread over it.

    With ``bos``, every window begins with that token, and the text's name ends in ``_bos_per_window``, since
    perplexities on such windows are not comparable with the others.

    Raises
    ------
    ParamsError
        If a text has no window of this length.
    """
    streams = {text: tokenize(documents, tokenizer) for text, documents in texts.items()}
    suffix = "" if bos is None else BOS_SUFFIX
    return {
        f"{text}{suffix}": spread_windows(stream, settings.length, settings.tokens, bos)
        for text, stream in streams.items()
    }
