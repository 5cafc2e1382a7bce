"""Headers of GGUF files, against llama.cpp's own reader; damaged counts end at once."""

import functools
import struct

import gguf
import numpy as np
import pytest
from gguf_files import METADATA, gguf_tensors, tiny_llama, write_gguf

from prunelib.sources.gguf.header import read_header


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    extra = {"general.tags": ["a", "b"], "general.parts": [1, 2, 3], "general.ratio": 0.5}
    folder = tmp_path_factory.mktemp("header")
    return write_gguf(folder / "tiny.gguf", METADATA | extra, gguf_tensors(tiny_llama(tied=True)))


def test_metadata_and_tensors_are_those_of_ggufs_own_reader(path):
    metadata, tensors = read_header(path)
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert metadata == fields
    assert {name: type(value) for name, value in metadata.items()} == {
        name: type(value) for name, value in fields.items()
    }
    assert list(tensors) == [tensor.name for tensor in reader.tensors]
    for tensor in reader.tensors:
        found = tensors[tensor.name]
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        assert found.kind == tensor.tensor_type
        np.testing.assert_array_equal(found.data, tensor.data.view(np.uint8))


def test_the_other_byte_order_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "GGUFWriter", functools.partial(gguf.GGUFWriter, endianess=gguf.GGUFEndian.BIG))
    tensors = {name: (value.copy(), kind) for name, (value, kind) in gguf_tensors(tiny_llama(tied=True)).items()}
    with pytest.raises(ValueError, match="big-endian"):
        read_header(write_gguf(tmp_path / "tiny.gguf", METADATA, tensors))


@pytest.mark.parametrize(
    ("place", "form", "value"),
    [
        (4, "I", 1),  # version
        (8, "Q", 2**62),  # tensors
        (16, "Q", 2**62),  # keys
        (24, "Q", 2**62),  # length of the first key
    ],
)
def test_a_damaged_count_ends_at_once(path, tmp_path, place, form, value):
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", content, place, value)
    (tmp_path / "damaged.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"\d"):
        read_header(tmp_path / "damaged.gguf")


@pytest.mark.parametrize("key", ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type"])
def test_a_damaged_length_of_an_array_ends_at_once(path, tmp_path, key):
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, content.index(key.encode()) + len(key) + 8, 2**60)
    (tmp_path / "damaged.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"\d{16}"):
        read_header(tmp_path / "damaged.gguf")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"PK\x03\x04 a wheel"])
def test_another_file_is_refused(tmp_path, content):
    (tmp_path / "other.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_header(tmp_path / "other.gguf")


@pytest.mark.parametrize("alignment", [0, 3, "32"])
def test_an_impossible_alignment_is_refused(tmp_path, alignment):
    metadata = METADATA | {"general.alignment": alignment}
    with pytest.raises(ValueError, match="alignment"):
        read_header(write_gguf(tmp_path / "tiny.gguf", metadata, gguf_tensors(tiny_llama(tied=True))))
