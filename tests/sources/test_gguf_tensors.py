"""Quantised tensors against float64 values computed from the block formats as ggml-common.h states them."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf_files import METADATA, gguf_tensors, tiny_llama, write_gguf

from prunelib.errors import SourceError
from prunelib.sources.gguf import convert
from prunelib.sources.gguf.header import GGUFTensor
from prunelib.sources.gguf.tensors import _dequantised

BYTES = {Kind.Q8_0: (32, 34), Kind.Q4_K: (256, 144), Kind.Q5_K: (256, 176), Kind.Q6_K: (256, 210)}
SCALES = {Kind.Q8_0: [0], Kind.Q4_K: [0, 2], Kind.Q5_K: [0, 2], Kind.Q6_K: [208]}  # where float16 scales are


def half(block, place):
    return float(block[place : place + 2].copy().view(np.float16)[0])


def six_bits(packed, group):
    """Scale and minimum of a group of 32: six bits each, eight of both in twelve bytes."""
    low = [int(value) for value in packed]
    if group < 4:
        return low[group] & 63, low[group + 4] & 63
    return (low[group + 4] & 15) | (low[group - 4] >> 6) << 4, (low[group + 4] >> 4) | (low[group] >> 6) << 4


def q8_0(block):
    return half(block, 0) * block[2:].view(np.int8).astype(np.float64)


def q4_or_q5(block, high, quants):
    """Groups of 32 in pairs: low nibbles, then high ones; Q5 has a fifth bit in ``high``, one place a group."""
    values = []
    for group in range(8):
        scale, minimum = six_bits(block[4:16], group)
        nibbles = quants[32 * (group // 2) : 32 * (group // 2 + 1)] >> (4 * (group % 2)) & 15
        fifth = (high >> group & 1) * 16 if high is not None else 0
        values.append(half(block, 0) * scale * (nibbles.astype(float) + fifth) - half(block, 2) * minimum)
    return np.concatenate(values)


def q6(block):
    low, high, scales = block[:128], block[128:192], block[192:208].view(np.int8)
    values = np.zeros(256)
    for index in range(256):
        part, quarter, place = index // 128, index % 128 // 32, index % 32
        nibble = int(low[64 * part + 32 * (quarter % 2) + place]) >> (4 * (quarter // 2)) & 15
        bits = int(high[32 * part + place]) >> (2 * quarter) & 3
        values[index] = half(block, 208) * float(scales[index // 16]) * ((nibble | bits << 4) - 32)
    return values


ORACLES = {
    Kind.Q8_0: q8_0,
    Kind.Q4_K: lambda block: q4_or_q5(block, None, block[16:]),
    Kind.Q5_K: lambda block: q4_or_q5(block, block[16:48], block[48:]),
    Kind.Q6_K: q6,
}


@pytest.mark.parametrize("kind", ORACLES)
def test_blocks_are_dequantised_as_their_format_says(kind):
    generator = np.random.default_rng(0)
    values, size = BYTES[kind]
    data = generator.integers(0, 256, (3, 2 * size), dtype=np.uint8)
    for block in data.reshape(-1, size):
        for place in SCALES[kind]:
            block[place : place + 2] = generator.uniform(-0.1, 0.1, 1).astype(np.float16).view(np.uint8)
    expected = [np.concatenate([ORACLES[kind](block) for block in row.reshape(-1, size)]) for row in data]
    found = _dequantised("file", "name", GGUFTensor((3, 2 * values), kind, data))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_by_tensor(tmp_path, value):
    tensors = {name: (array.copy(), kind) for name, (array, kind) in gguf_tensors(tiny_llama(tied=True)).items()}
    tensors["blk.1.ffn_up.weight"][0][3, 5] = value
    path = write_gguf(tmp_path / "tiny.gguf", METADATA, tensors)
    with pytest.raises(SourceError, match=r"^tiny\.gguf: blk\.1\.ffn_up\.weight "):
        convert(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_stored_type_without_values_is_refused_by_tensor(tmp_path):
    tensors = gguf_tensors(tiny_llama(tied=True))
    whole = tensors["blk.1.ffn_up.weight"][0].astype(np.int32)
    path = write_gguf(
        tmp_path / "tiny.gguf", METADATA, tensors | {"blk.1.ffn_up.weight": (whole, gguf.GGMLQuantizationType.I32)}
    )
    with pytest.raises(SourceError, match=r"^tiny\.gguf: blk\.1\.ffn_up\.weight .*I32"):
        convert(path, tmp_path)
