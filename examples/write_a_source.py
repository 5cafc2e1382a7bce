"""A source of texts of one's own: settings, documents, and the two splits that calibration and evaluation read.

    python examples/write_a_source.py

It reads a column of a CSV file. In the project its class joins `TextSource` in prunelib/sources/texts.py, told from the
others by its `source`, and `fetch_text` calls its function; the stage then seals the folder with its provenance.

Prints:

    8 documents to calibrate on, 2 held out
    first: notes.csv:2 'Note number 1.'
"""

import csv
import tempfile
from pathlib import Path
from typing import Literal

from prunelib.settings import Settings
from prunelib.sources.documents import Document, read_documents, split_documents, write_documents


class CsvText(Settings):
    """A column of a CSV file; each row is a document.

    Attributes
    ----------
    path, column
        The file, UTF-8 with a heading, and the column's name there.
    held_out_every_nth
        Document i is held out if i is a multiple of this.
    """

    source: Literal["csv"] = "csv"
    path: Path
    column: str
    held_out_every_nth: int = 5


def fetch(settings: CsvText, folder: Path) -> None:
    """Fill an empty folder with the documents of both splits."""
    with settings.path.open(encoding="utf-8", newline="") as stream:
        texts = [row[settings.column] for row in csv.DictReader(stream)]
    documents = [Document(f"{settings.path.name}:{line}", text) for line, text in enumerate(texts, start=1)]
    write_documents(split_documents(documents, settings.held_out_every_nth), folder)


with tempfile.TemporaryDirectory() as name:
    file, folder = Path(name) / "notes.csv", Path(name) / "text"
    file.write_text("note\n" + "".join(f"Note number {number}.\n" for number in range(10)), encoding="utf-8")
    folder.mkdir()
    fetch(CsvText(path=file, column="note"), folder)
    calibration, held_out = read_documents(folder, "calibration"), read_documents(folder, "held_out")

print(f"{len(calibration)} documents to calibrate on, {len(held_out)} held out")
print(f"first: {calibration[0].id} {calibration[0].text!r}")
