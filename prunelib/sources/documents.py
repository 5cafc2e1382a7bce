"""The text artifact: a folder with the documents of two splits that share no text.

``calibration.jsonl`` and ``held_out.jsonl`` contain one document per line, ``{"id": ..., "text": ...}``, in order.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunelib.errors import ArtifactError, SourceError
from prunelib.runtime import store

Split = Literal["calibration", "held_out"]
Rows = Literal["documents", "lines"]
"""What the rows of a text are: documents, or lines of one document."""


@dataclass(frozen=True)
class Document:
    """One article, speech or file: ``id`` is its title or file name."""

    id: str
    text: str


def with_newlines(text: str) -> str:
    """Return a text with a newline at each line's end: CRLF becomes one, and a CR where there is no other line end."""
    plain = text.replace("\r\n", "\n")
    return plain if "\n" in plain else plain.replace("\r", "\n")


def documents_of(name: str, text: str, rows: Rows | None) -> list[Document]:
    """Return the documents of a plain file.

    Parameters
    ----------
    name, text
        The file's name, and its contents with newlines as line ends.
    rows
        ``documents``: every line that is not blank is a document, ``NAME:1``; ``lines``: the file is one document, its
        lines with their ends :func:`joined_rows`, blank ones as empty rows; None: the file is one document.
    """
    match rows:
        case "documents":
            lines = enumerate(text.split("\n"), start=1)
            return [Document(f"{name}:{number}", line) for number, line in lines if line.strip()]
        case "lines":
            found = io.StringIO(text, newline="\n")
            return [Document(name, joined_rows(line if line.strip() else "" for line in found))]
    return [Document(name, text)]


def joined_rows(rows: Iterable[str]) -> str:
    """Return rows as one document, joined as the scripts of GPTQ, SparseGPT and Wanda join those of WikiText."""
    return "\n\n".join(rows)


def split_documents(documents: Iterable[Document], held_out_every_nth: int) -> dict[Split, list[Document]]:
    """Split documents by position: index i is held out if ``i % held_out_every_nth == 0``."""
    splits: dict[Split, list[Document]] = {"calibration": [], "held_out": []}
    for index, document in enumerate(documents):
        splits["calibration" if index % held_out_every_nth else "held_out"].append(document)
    return splits


def write_documents(splits: Mapping[Split, Sequence[Document]], folder: Path) -> None:
    """Write both splits, omitting documents that contain only white space.

    Raises
    ------
    SourceError
        If a split is empty, or both contain the same text (white space folded).
    ArtifactError
        If a file could not be written.
    """
    filled = {
        split: [document for document in documents if document.text.strip()] for split, documents in splits.items()
    }
    for split, documents in filled.items():
        if not documents:
            raise SourceError(f"the {split} split is empty, expected at least one document with text in each split")
    _refuse_overlap(filled["calibration"], filled["held_out"])
    for split, documents in filled.items():
        lines = (json.dumps({"id": document.id, "text": document.text}, ensure_ascii=False) for document in documents)
        store.write_text(_file(folder, split), "".join(f"{line}\n" for line in lines))


def read_documents(folder: Path, split: Split) -> list[Document]:
    """Return the documents of one split, in the source's order.

    Raises
    ------
    ArtifactError
        If the file is missing or damaged.
    """
    return list(_read(_file(folder, split)))


def shared_document(calibration: Sequence[Document], held_out: Sequence[Document]) -> tuple[Document, Document] | None:
    """Return the first held-out document whose folded text equals a calibration document's, and that document."""
    seen = {folded(document.text): document for document in calibration}
    return next(((document, seen[text]) for document in held_out if (text := folded(document.text)) in seen), None)


def folded(text: str) -> str:
    """Return the text with each run of white space as one space, for comparing documents."""
    return " ".join(text.split())


def _read(path: Path) -> Iterator[Document]:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; run the stage that makes it (dvc repro)")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield _document(line)
            except ValueError as error:
                raise ArtifactError(
                    f"{path}, line {number}: damaged, expected an id and a text, both strings ({error})"
                ) from None


def _document(line: bytes) -> Document:
    match json.loads(line.decode()):
        case {"id": str(name), "text": str(text), **more} if not more:
            return Document(name, text)
        case _:
            raise ValueError("found something else")


def _file(folder: Path, split: Split) -> Path:
    return folder / f"{split}.jsonl"


def _refuse_overlap(calibration: Sequence[Document], held_out: Sequence[Document]) -> None:
    shared = shared_document(calibration, held_out)
    if shared:
        document, twin = shared
        raise SourceError(
            f"held-out document {document.id!r} has the same text as calibration document {twin.id!r}; "
            "remove one, or nothing measured on it is held out"
        )
