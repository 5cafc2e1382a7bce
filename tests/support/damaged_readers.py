"""Every reader of files, with a file that it reads, and what came out of reading a damaged one.

Files that stages write are sealed: with checksums, or hashes in their provenance. Damage is refused there, or changes
nothing that is read. Files that users give are not: what is still a file of its kind is read as it now is.
"""

import bz2
import contextlib
import io
import json
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import datasets
import pyarrow
import torch
from families import random_windows, save, tiny_model
from file_damages import Damage
from gguf_files import METADATA, gguf_tensors, tiny_llama, write_gguf
from pipeline_project import PARAMS, character_tokenizer
from report_records import layers, result
from ruamel.yaml import YAML
from tiny_wheels import build_wheel

from prunelib.calibration.artifact import (
    Calibration,
    block_file,
    read_grams,
    read_origin,
    read_windows,
    write_grams,
    write_tokens,
)
from prunelib.calibration.artifact import write_layers as write_index
from prunelib.calibration.settings import CalibrationSettings
from prunelib.calibration.statistics import InputStatistics
from prunelib.calibration.windows import tokenize
from prunelib.cell import Cell
from prunelib.errors import PruneError
from prunelib.evaluation.local_tasks import check_items
from prunelib.masks.packed import read_masks, write_masks
from prunelib.masks.patterns import PerRow
from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.model.layers import read_index
from prunelib.model.structure import find_layers, load_model, load_tokenizer
from prunelib.model.weights import read_weight
from prunelib.params import load_params
from prunelib.records import Timing, read_cell, read_layers, read_timing, write_cell, write_layers, write_timing
from prunelib.runtime import hashing
from prunelib.runtime.resume import FinishedValues
from prunelib.sources import fetch_model, fetch_tasks, fetch_text, gguf, read_documents
from prunelib.sources.models import LocalModel
from prunelib.sources.provenance import model_identity, seal, text_identity
from prunelib.sources.tasks import LocalTasks
from prunelib.sources.texts import LocalText
from prunelib.sources.wheels import Wheel, read_members
from prunelib.warmstarts import given

Outcome = Literal["one line", "right result", "traceback", "wrong", "hang"]
ORIGIN = {"model": "m"}
LONGEST = 20  # seconds


@dataclass(frozen=True)
class Reader:
    """A file, its form (:func:`file_damages.damages`), a function that reads it, and whether its content is sealed."""

    path: Path
    form: str
    read: Callable[[], Any]
    sealed: bool


class _TooLongError(BaseException):
    pass


def outcome(reader: Reader, expected: Any, damage: Damage) -> tuple[Outcome, str]:
    """Read a damaged file and put the whole one back; return what came out, and the line or the error."""
    whole = reader.path.read_bytes()
    reader.path.write_bytes(damage.content)
    try:
        with warnings.catch_warnings(), _at_most(LONGEST):
            warnings.simplefilter("ignore")  # of libraries, about what they find
            found = plain(reader.read())
    except _TooLongError:
        return "hang", f"no end within {LONGEST} s"
    except (PruneError, OSError) as error:
        line = str(error)
        names = {reader.path.name, reader.path.parent.name, *(damage.key or "").split(".")} - {""}
        named = any(name in line for name in names)
        return ("one line" if named and "\n" not in line else "wrong"), line
    except Exception as error:  # whatever the reader did not expect
        return "traceback", f"{type(error).__name__}: {error}"
    finally:
        reader.path.write_bytes(whole)
    return ("wrong", "read as something else") if reader.sealed and found != expected else ("right result", "")


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def plain(value: Any) -> Any:
    """Return a value as nested lists, which compare."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, Pruned | tuple | list):
        return [plain(part) for part in value]
    if hasattr(value, "items"):
        return {name: plain(value[name]) for name in value}
    return value


def readers(folder: Path) -> dict[str, Reader]:
    """Return a reader for each kind of file, over files in a folder."""
    return {**_sealed(folder / "artifacts"), **_given(folder / "given")}


def _sealed(folder: Path) -> dict[str, Reader]:
    """Return the readers of what stages write."""
    folder.mkdir(parents=True)
    model = save(tiny_model("llama"), folder / "model")
    seal(model, "model", {})
    index = find_layers(tiny_model("llama"), model)
    settings = CalibrationSettings(text="t", samples=2, length=8, batch=2, held_out_samples=1).model_dump()
    write_tokens(folder, *random_windows(3, 8).split([2, 1]), ORIGIN | {"settings": settings})
    grams = {
        layer.gram: InputStatistics(torch.eye(layer.inputs), torch.zeros(layer.inputs), 16)
        for layer in index.readers(0)
    }
    origin = read_origin(folder)
    write_grams(folder, 0, (grams,), origin | {"count": 16, "held_out_count": 0})
    write_index(folder, index, {layer.name: 1.5 for layer in index.layers}, origin)
    masks = {"a": torch.eye(4, 12).bool(), "b": torch.ones(2, 3).bool()}
    write_masks(folder / "masks", masks, ORIGIN)
    write_pruned(folder / "pruned", Pruned(masks, {"a": torch.eye(4, 12)}), ORIGIN)
    cell, records = Cell(model="tiny"), layers(3, 0.5, bound=0.25)
    write_layers(folder / "records.json", records, ORIGIN)
    write_cell(folder / "cell.json", result(cell, {"wiki": 21.5}), ORIGIN)
    of_records = hashing.sha256_file(folder / "records.json")
    timing = folder / "timing.json"
    write_timing(timing, Timing(layers_sha256=of_records, step_seconds=(1.5,), peak_bytes=7, machine="c"))
    FinishedValues(folder).write("value", {"a": [1.5]})
    text = folder / "text"
    text.mkdir()
    documents = [{"id": str(number), "text": f"text {number}"} for number in range(3)]
    for split, part in (("calibration", documents[:2]), ("held_out", documents[2:])):
        (text / f"{split}.jsonl").write_text("".join(f"{json.dumps(document)}\n" for document in part))
    seal(text, "text", {})

    def calibration() -> list[Any]:
        found = Calibration.open(folder, "m")
        return [found.energies, found.provenance, found.settings]

    def split(name: Literal["calibration", "held_out"]) -> list[Any]:
        return [text_identity(text), [vars(document) for document in read_documents(text, name)]]

    pruned = folder / "pruned"
    made: dict[str, tuple[Path, str, Callable[[], Any]]] = {
        "model": (model / "model.safetensors", "safetensors", lambda: model_identity(model)),
        "config": (model / "config.json", "json", lambda: model_identity(model)),
        "provenance": (model / "provenance.json", "json", lambda: model_identity(model)),
        "tokens": (folder / "tokens.safetensors", "safetensors", lambda: [calibration(), read_windows(folder)]),
        "energies": (folder / "energies.json", "json", calibration),
        "index": (folder / "layers.json", "json", lambda: read_index(folder / "layers.json", "m").model_dump()),
        "gram": (block_file(folder, 0), "safetensors", lambda: read_grams(folder, 0)),
        "masks": (folder / "masks", "safetensors", lambda: read_masks(folder / "masks", ORIGIN)),
        "pruned masks": (pruned / "masks.safetensors", "safetensors", lambda: read_pruned(pruned, ORIGIN)),
        "weights": (pruned / "weights.safetensors", "safetensors", lambda: read_pruned(pruned, ORIGIN)),
        "records": (folder / "records.json", "json", lambda: read_layers(folder / "records.json", ORIGIN)),
        "cell": (folder / "cell.json", "json", lambda: read_cell(folder / "cell.json", ORIGIN)),
        "timing": (
            folder / "timing.json",
            "json",
            lambda: read_timing(folder / "timing.json", folder / "records.json"),
        ),
        "value": (folder / "value.json", "json", lambda: FinishedValues(folder).read("value")),
        "calibration text": (text / "calibration.jsonl", "lines", lambda: split("calibration")),
        "held-out text": (text / "held_out.jsonl", "lines", lambda: split("held_out")),
    }
    return {name: Reader(*parts, sealed=True) for name, parts in made.items()}


def _given(folder: Path) -> dict[str, Reader]:
    """Return the readers of what users give."""
    folder.mkdir(parents=True)
    model = save(tiny_model("llama"), folder / "tiny_model", "50KB")
    character_tokenizer().save_pretrained(model)
    (shard, *_) = sorted(model.glob("*.safetensors"))
    index = find_layers(load_model(model, "float32", "cpu"), model)
    text = folder / "text.txt"
    text.write_text("".join(f"Some words of speech {number}.\n" for number in range(9)), encoding="utf-8")
    (folder / "other.txt").write_text("Another text, which is whole.", encoding="utf-8")
    dump = folder / "dump.xml"
    pages = (f"<page><title>P {n}</title><ns>0</ns><revision><text>Some '''words''' {n}.</text></revision></page>"
             for n in range(4))  # fmt: skip
    dump.write_text(f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">{"".join(pages)}</mediawiki>')
    packed = folder / "dump.xml.bz2"
    packed.write_bytes(bz2.compress(dump.read_bytes()))
    items = [{"goal": f"goal {n}", "sol1": "a", "sol2": "b", "label": n % 2} for n in range(6)]
    own = folder / "piqa" / "validation.jsonl"
    own.parent.mkdir()
    own.write_text("".join(f"{json.dumps(item)}\n" for item in items))
    arrow = folder / "items.arrow"
    arrow.write_bytes(_arrow(items))
    whole = folder / "model.gguf"
    write_gguf(whole, METADATA, gguf_tensors(tiny_llama(tied=True)))
    build_wheel(folder)
    (wheel,) = folder.glob("*.whl")
    masks = folder / "masks.safetensors"
    write_masks(masks, {"a": torch.eye(4).bool()}, {"model": "m"})
    params = folder / "params.yaml"
    with params.open("w") as stream:
        YAML().dump(PARAMS, stream)
    return {
        name: Reader(path, form, read, sealed=False)
        for name, (path, form, read) in {
            "given config": (model / "config.json", "json", lambda: _loaded(model)),
            "given shard": (shard, "safetensors", lambda: _weights(model, index)),
            "given index": (model / "model.safetensors.index.json", "json", lambda: _weights(model, index)),
            "given tokenizer": (model / "tokenizer.json", "json", lambda: _tokenized(model)),
            "given tokenizer settings": (model / "tokenizer_config.json", "json", lambda: _tokenized(model)),
            "given text": (text, "bytes", lambda: _text(text, folder / "other.txt")),
            "given rows": (text, "bytes", lambda: _text(text, rows="documents")),
            "given dump": (dump, "bytes", lambda: _text(dump, format="mediawiki")),
            "given packed dump": (packed, "bytes", lambda: _text(packed, format="mediawiki")),
            "given items": (own, "lines", lambda: _tasks(own)),
            "items of a task": (own, "lines", lambda: check_items("piqa", folder, None)),
            "given arrow": (arrow, "bytes", lambda: _tasks(arrow)),
            "given gguf": (whole, "bytes", lambda: _converted(whole)),
            "given wheel": (wheel, "bytes", lambda: _members(wheel)),
            "given masks": (masks, "safetensors", lambda: _masks(masks)),
            "params": (params, "yaml", lambda: load_params(params).model_dump(mode="json")),
        }.items()
    }


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _loaded(folder: Path) -> list[str]:
    """The names of the layers of a model that is fetched from a folder and built."""
    with _scratch() as target:
        fetch_model(LocalModel(path=folder), target)
        try:
            return [layer.name for layer in find_layers(load_model(target, "float32", "cpu"), target).layers]
        except PruneError as error:
            raise type(error)(str(error).replace(str(target), str(folder))) from None


def _weights(folder: Path, index: Any) -> list[torch.Tensor]:
    with _scratch() as target:
        fetch_model(LocalModel(path=folder), target)
        try:
            return [read_weight(target, layer) for layer in index.layers]
        except PruneError as error:
            raise type(error)(str(error).replace(str(target), str(folder))) from None


def _tokenized(folder: Path) -> torch.Tensor:
    return tokenize(["some words", "and more"], load_tokenizer(folder))


def _text(*paths: Path, **settings: Any) -> Any:
    with _scratch() as target:
        fetch_text(LocalText(members=tuple(map(str, paths)), held_out_every_nth=2, **settings), target)
        return [document.text for document in read_documents(target, "calibration")]


def _tasks(path: Path) -> str:
    with _scratch() as target:
        fetch_tasks(LocalTasks(files={"piqa": path}), target)
        return (target / "piqa" / "validation.jsonl").read_text(encoding="utf-8")


def _converted(path: Path) -> str:
    with _scratch() as target:
        gguf.convert(path, target)
        return (target / "config.json").read_text(encoding="utf-8")


def _members(path: Path) -> list[str]:
    def download(_wheel: Wheel, folder: Path) -> Path:
        return Path(shutil.copy(path, folder))

    wheel = Wheel(requirement="tinydata==1.0", sha256="0" * 64)
    with mock.patch("prunelib.sources.wheels._download", download):
        try:
            return [content.hex() for content in read_members(wheel, ["tiny/*"]).values()]
        except PruneError as error:
            raise type(error)(str(error).replace("tinydata==1.0", path.name)) from None


def _masks(path: Path) -> Any:
    settings = given.GivenMasks(path=str(path), sha256=hashing.sha256_file(path))
    return plain(given.given_masks(settings, {"a": (4, 4)}, {"a": PerRow(sparsity=0.75)}, "m"))


def _arrow(items: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    table = datasets.Dataset.from_list(items).data.table
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
