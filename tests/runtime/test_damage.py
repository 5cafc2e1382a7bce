"""Every file that is read, damaged in every way, is refused in one line or read as it was written."""

import json

import pytest
from damaged_readers import ORIGIN, outcome, plain, readers
from file_damages import Damage, damages, of_bytes, of_field
from hypothesis import given, settings
from hypothesis import strategies as st
from report_records import result

from prunelib.cell import Cell
from prunelib.errors import ArtifactError
from prunelib.records import read_cell, write_cell

SEALED = [
    "model", "config", "provenance", "tokens", "energies", "index", "gram", "masks", "pruned masks", "weights",
    "records", "cell", "timing", "value", "calibration text", "held-out text",
]  # fmt: skip
GIVEN = [
    "given config", "given shard", "given index", "given tokenizer", "given tokenizer settings", "given text",
    "given rows", "given dump", "given packed dump", "given items", "items of a task", "given arrow", "given gguf",
    "given wheel", "given masks", "params",
]  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A reader for each kind of file, and what it reads from the whole file."""
    found = readers(tmp_path_factory.mktemp("files") / "all")
    return {kind: (reader, plain(reader.read())) for kind, reader in found.items()}


def assert_refused_or_right(reader, expected, damage):
    came, line = outcome(reader, expected, damage)
    assert came in {"one line", "right result"}, f"{damage.name}: {came}: {line}"


def test_every_reader_is_tried(known):
    assert set(known) == {*SEALED, *GIVEN}


@pytest.mark.parametrize("kind", SEALED)
@settings(max_examples=60)
@given(draw=st.randoms(use_true_random=False))
def test_what_stages_write_is_read_as_it_was_written_or_refused(known, kind, draw):
    reader, expected = known[kind]
    content = reader.path.read_bytes()
    damage = of_field(content, reader.form, draw) if draw.random() < 0.5 else of_bytes(content, draw)
    assert_refused_or_right(reader, expected, damage)


@pytest.mark.parametrize("kind", GIVEN)
def test_what_users_give_is_read_or_refused(known, kind):
    reader, expected = known[kind]
    for damage in damages(reader.path.read_bytes(), reader.form, seed=1, number=16):
        assert_refused_or_right(reader, expected, damage)


NAMED = [  # found by benchmarks/faults/damages.py
    ("given tokenizer", ("model", "vocab", "<unk>"), None),
    ("given tokenizer settings", ("model_max_length",), "many"),
    ("given config", ("num_key_value_heads",), 0),
    ("given config", ("hidden_size",), "32"),
    ("given config", ("num_hidden_layers",), -2),
    ("given config", ("num_attention_heads",), 0.5),
]


@pytest.mark.parametrize(("kind", "way", "value"), NAMED)
def test_a_field_that_stopped_a_reader_is_one_line(known, kind, way, value):
    reader, expected = known[kind]
    whole = json.loads(reader.path.read_bytes())
    holder = whole
    for key in way[:-1]:
        holder = holder[key]
    holder.pop(way[-1]) if value is None else holder.update({way[-1]: value})
    damage = Damage(".".join(way), json.dumps(whole).encode(), ".".join(way))
    assert outcome(reader, expected, damage)[0] == "one line"


@pytest.mark.parametrize("content", [b"", b" \n" * 9])
def test_a_text_without_text_is_named(known, content):
    reader, expected = known["given rows"]
    came, line = outcome(reader, expected, Damage("emptied", content))
    assert (came, reader.path.name in line) == ("one line", True)


def test_files_of_the_same_kind_are_told_apart_by_what_they_were_made_from(tmp_path):
    for name, origin in (("one", ORIGIN), ("two", {"model": "2"})):
        write_cell(tmp_path / name, result(Cell(model="tiny"), {"wiki": 21.5}), origin)
    (tmp_path / "one").write_bytes((tmp_path / "two").read_bytes())
    with pytest.raises(ArtifactError, match="its model is '2'"):
        read_cell(tmp_path / "one", ORIGIN)
