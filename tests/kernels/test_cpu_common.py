"""c = G p as the compiled kernels work it out, against float64."""

import numpy as np
import pytest

from prunelib.kernels.cpu_common import correlate, correlate_rows

SEED = 0


def gram_of(inputs):
    x = np.random.default_rng(SEED).standard_normal((inputs, 2 * inputs), dtype=np.float32)
    return x @ x.T


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "inputs", "share"), [(1, 1, 1.0), (3, 63, 0.5), (2, 65, 0.0), (5, 130, 0.01)])
def test_rows_of_awkward_sizes_correlate_alone_as_together(rows, inputs, share, kind):
    random, gram = np.random.default_rng(SEED), gram_of(inputs)
    p = (random.standard_normal((rows, inputs)) * (random.random((rows, inputs)) < share)).astype(kind)
    together, alone = np.full((2, rows, inputs), np.nan)
    correlate_rows(p, np.arange(rows), gram, together)
    for r in range(rows):
        correlate(p[r], np.flatnonzero(p[r]), gram, alone[r])
    exact = p.astype(np.float64) @ gram.astype(np.float64)
    scale = np.abs(p).astype(np.float64) @ np.abs(gram).astype(np.float64)
    assert (np.abs(together - exact) <= 1e-14 * scale).all()
    assert (np.abs(alone - exact) <= 1e-14 * scale).all()


def test_rows_correlate_over_tiles_the_chosen_ones_only():
    inputs = 2 * 2048 + 17
    random = np.random.default_rng(SEED)
    gram = random.standard_normal((inputs, inputs), dtype=np.float32)
    p, corr = random.standard_normal((3, inputs)), np.full((3, inputs), 7.0)
    correlate_rows(p, np.array([2, 0]), gram, corr)
    exact = p @ gram.astype(np.float64)
    np.testing.assert_allclose(corr[[0, 2]], exact[[0, 2]], atol=1e-10)
    assert (corr[1] == 7).all()
