"""Every artifact, damaged in every way, is refused in one line or read as it was written."""

import json

import pytest
import torch
from families import random_windows, save, tiny_model
from hypothesis import given
from hypothesis import strategies as st
from report_records import layers, result

from prunelib.calibration.artifact import (
    Calibration,
    block_file,
    read_grams,
    read_windows,
    write_grams,
    write_layers,
    write_tokens,
)
from prunelib.calibration.statistics import InputStatistics
from prunelib.cell import Cell
from prunelib.errors import ArtifactError, NumericalError
from prunelib.masks.packed import read_masks, write_masks
from prunelib.masks.pruned import Pruned, read_pruned, write_pruned
from prunelib.model.layers import read_index
from prunelib.model.structure import find_layers
from prunelib.results import Timing, read_cell, read_layers, read_timing, write_cell, write_timing
from prunelib.results import write_layers as write_records
from prunelib.runtime import store
from prunelib.runtime.resume import FinishedValues
from prunelib.sources.provenance import model_identity, seal

ORIGIN = {"model": "m"}
GARBAGE = [None, True, -1, 1e308, 10**30, "", "NaN", [], {}, [[]], {"": None}]


def plain(value):
    """A value as nested lists, which compare."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, Pruned | tuple | list):
        return [plain(part) for part in value]
    if hasattr(value, "items"):
        return {name: plain(value[name]) for name in value}
    return value


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """For each kind of artifact: a file of it, and a function that reads it."""
    folder = tmp_path_factory.mktemp("artifacts")
    model = save(tiny_model("llama"), folder / "model")
    seal(model, "model", {})
    index = find_layers(tiny_model("llama"), model)
    tokens = write_tokens(folder, *random_windows(3, 8).split([2, 1]), ORIGIN | {"settings": {"inputs": "dense"}})
    grams = {
        layer.gram: InputStatistics(torch.eye(layer.inputs), torch.zeros(layer.inputs), 16)
        for layer in index.readers(0)
    }
    origin = ORIGIN | {"tokens": tokens}
    write_grams(folder, 0, (grams,), origin | {"count": 16, "held_out_count": 0})
    write_layers(folder, index, {layer.name: 1.5 for layer in index.layers}, origin)
    masks = {"a": torch.eye(4, 12).bool(), "b": torch.ones(2, 3).bool()}
    write_masks(folder / "masks", masks, ORIGIN)
    write_pruned(folder / "pruned", Pruned(masks, {"a": torch.eye(4, 12)}), ORIGIN)
    cell, records = Cell(model="tiny"), layers(3, 0.5, bound=0.25)
    write_records(folder / "records.json", records, ORIGIN)
    write_cell(folder / "cell.json", result(cell, {"wiki": 21.5}), ORIGIN)
    of_records = store.sha256_file(folder / "records.json")
    timing = Timing(layers_sha256=of_records, step_seconds=(1.5,), peak_bytes=7, machine="c")
    write_timing(folder / "timing.json", timing)
    FinishedValues(folder).write("value", {"a": [1.5]})

    def calibration():
        found = Calibration.open(folder, "m")
        return [found.energies, found.provenance, found.settings]

    return {
        "model": (model / "model.safetensors", lambda: model_identity(model)),
        "provenance": (model / "provenance.json", lambda: model_identity(model)),
        "tokens": (folder / "tokens.safetensors", lambda: [calibration(), read_windows(folder)]),
        "energies": (folder / "energies.json", calibration),
        "index": (folder / "layers.json", lambda: read_index(folder / "layers.json", "m").model_dump()),
        "gram": (block_file(folder, 0), lambda: read_grams(folder, 0)),
        "masks": (folder / "masks", lambda: read_masks(folder / "masks", ORIGIN)),
        "pruned masks": (folder / "pruned" / "masks.safetensors", lambda: read_pruned(folder / "pruned", ORIGIN)),
        "weights": (folder / "pruned" / "weights.safetensors", lambda: read_pruned(folder / "pruned", ORIGIN)),
        "records": (folder / "records.json", lambda: read_layers(folder / "records.json", ORIGIN)),
        "cell": (folder / "cell.json", lambda: read_cell(folder / "cell.json", ORIGIN)),
        "timing": (folder / "timing.json", lambda: read_timing(folder / "timing.json", folder / "records.json")),
        "value": (folder / "value.json", lambda: FinishedValues(folder).read("value")),
    }


JSON = ["provenance", "energies", "index", "records", "cell", "timing", "value"]
KINDS = ["model", "tokens", "gram", "masks", "pruned masks", "weights", *JSON]


def assert_refused_or_the_same(path, read, damaged):
    before, expected, refusal = path.read_bytes(), plain(read()), None
    try:
        path.write_bytes(damaged)
        found = plain(read())
    except (ArtifactError, NumericalError) as error:
        refusal = str(error)
    finally:
        path.write_bytes(before)
    if refusal is None:
        assert found == expected
    else:
        assert "\n" not in refusal
        assert path.name in refusal or path.parent.name in refusal


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_bytes_that_are_flipped_cut_or_added(readers, kind, data):
    path, read = readers[kind]
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(600, len(content) - 1)))
    match data.draw(st.sampled_from(["flip", "cut", "add", "swap"])):
        case "flip":
            content[where] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del content[where:]
        case "add":
            content[where:where] = data.draw(st.binary(min_size=1, max_size=9))
        case "swap":
            content[where:], content[:where] = content[:where], content[where:]
    assert_refused_or_the_same(path, read, bytes(content))


def paths_of(value, path=()):
    """The way to every key and item of a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield (*path, key)
        yield from paths_of(part, (*path, key))


@pytest.mark.parametrize("kind", JSON)
@given(data=st.data())
def test_fields_that_are_removed_or_of_another_type(readers, kind, data):
    path, read = readers[kind]
    value = json.loads(path.read_text())
    *way, last = data.draw(st.sampled_from(list(paths_of(value))))
    holder = value
    for key in way:
        holder = holder[key]
    if data.draw(st.booleans()):
        del holder[last]
    else:
        holder[last] = data.draw(st.sampled_from(GARBAGE))
    assert_refused_or_the_same(path, read, json.dumps(value).encode())


def test_files_of_the_same_kind_are_told_apart_by_what_they_were_made_from(tmp_path):
    for name, origin in (("one", {"model": "1"}), ("two", {"model": "2"})):
        write_cell(tmp_path / name, result(Cell(model="tiny"), {"wiki": 21.5}), origin)
    (tmp_path / "one").write_bytes((tmp_path / "two").read_bytes())
    with pytest.raises(ArtifactError, match="its model is '2'"):
        read_cell(tmp_path / "one", {"model": "1"})
