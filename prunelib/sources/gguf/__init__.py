"""Conversion of GGUF files to a standard Hugging Face folder: float32 safetensors, configuration, tokenizer.

Read are the architectures ``llama`` and ``qwen2``. A key that changes what the model computes is honoured or refused,
never ignored (``metadata``). Quantised tensors are dequantised by llama.cpp's own ``gguf`` package (``tensors``).
"""

from pathlib import Path

from safetensors.numpy import save_file

from prunelib.runtime import atomic, store
from prunelib.sources.gguf.configuration import configuration
from prunelib.sources.gguf.metadata import read
from prunelib.sources.gguf.tensors import EMBEDDING, HEAD, weights
from prunelib.sources.gguf.tokenizer import tokenizer, tokenizer_settings

__all__ = ["convert"]


def convert(path: Path, folder: Path, embedding: str = EMBEDDING) -> None:
    """Write the model in ``path`` as a Hugging Face folder.

    Parameters
    ----------
    path
        A GGUF file, version 2 or 3, little-endian.
    folder
        Existing folder for ``model.safetensors`` (float32), ``config.json``, ``tokenizer.json``,
        ``tokenizer_config.json`` and, if the file has a chat template, ``chat_template.jinja``. The tokenizer adds no
        special tokens.
    embedding
        The tensor with the embedding; ``output.weight`` ties embedding and head, for a file that holds both although
        the model is tied.

    Raises
    ------
    SourceError
        If the file is truncated or not GGUF, or its architecture, a key, its tokenizer or a tensor is not supported.
        Nothing is written then.
    ArtifactError
        If a file could not be written.
    """
    metadata, tensors = read(path)
    config = configuration(metadata, tied=embedding == HEAD or HEAD not in tensors)
    encoder = tokenizer(metadata)
    settings = tokenizer_settings(metadata)
    template = metadata.text("tokenizer.chat_template", default="")
    arrays = weights(metadata, tensors, config, embedding)
    with atomic.replacing(folder / "model.safetensors") as temporary:
        save_file(arrays, temporary, metadata={"format": "pt"})
    store.write_json(folder / "config.json", config)
    store.write_text(folder / "tokenizer.json", encoder.to_str(pretty=True))
    store.write_json(folder / "tokenizer_config.json", settings)
    if template:
        store.write_text(folder / "chat_template.jinja", template)
