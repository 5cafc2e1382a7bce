"""Terms of a swap's change that the scans over whole rows share, in numba; :mod:`prunelib.kernels.swaps` has them."""

import numpy as np

from prunelib.kernels.cpu_common import BLOCKED, compiled, inlined, lesser
from prunelib.kernels.interface import FLOAT32_ROUNDING


@inlined
def prune_term(wu, guu, cu):
    """Compute the change from pruning u alone, a_u = 2 w_u c_u + w_u^2 G_uu, in float64."""
    return np.float64(wu) * (np.float64(wu) * guu + 2.0 * cu)


@inlined
def rounding_of(prune, wu, norm, largest, heaviest):
    """Bound the error of a change computed in float32, by the magnitudes of its three terms."""
    return np.float32(FLOAT32_ROUNDING) * (abs(prune) + largest + np.float32(2.0) * abs(wu) * norm * heaviest)


@compiled
def least_restores(chosen, w, gram, restore, gain):
    """Set gain[u] = min_j (b_j - 2 w_u w_j G_uj) of each chosen u."""
    whole = chosen.size - chosen.size % 4
    # Four u at a time: w_j and b_j are loaded once for four pairs. All j are read, with b_j = BLOCKED for the kept, so
    # that the loop is contiguous and becomes SIMD.
    for k in range(0, whole, 4):
        u0, u1, u2, u3 = chosen[k], chosen[k + 1], chosen[k + 2], chosen[k + 3]
        g0, g1, g2, g3 = gram[u0], gram[u1], gram[u2], gram[u3]
        w0, w1, w2, w3 = w[u0], w[u1], w[u2], w[u3]
        m0 = m1 = m2 = m3 = np.float32(BLOCKED)
        for j in range(w.size):
            twice, b = np.float32(-2.0) * w[j], restore[j]
            m0 = lesser(b + twice * (w0 * g0[j]), m0)
            m1 = lesser(b + twice * (w1 * g1[j]), m1)
            m2 = lesser(b + twice * (w2 * g2[j]), m2)
            m3 = lesser(b + twice * (w3 * g3[j]), m3)
        gain[u0], gain[u1], gain[u2], gain[u3] = m0, m1, m2, m3
    for u in chosen[whole:]:
        gain[u] = least_restore(w[u], w, gram[u], restore)


@inlined
def least_restore(wu, w, row, restore):
    """Compute min_j (b_j - 2 w_u w_j G_uj) in float32."""
    least = np.float32(BLOCKED)
    for j in range(w.size):
        least = lesser(restore[j] + np.float32(-2.0) * w[j] * (wu * row[j]), least)
    return least


@inlined
def move(w, m, diag, corr, restore, gu, pu, gj, pj):
    """Add p_u G[:, u] + p_j G[:, j] to c; set b_j = w_j^2 G_jj - 2 w_j c_j of the pruned j, BLOCKED where kept."""
    # One pass over the row for c and b.
    for i in range(w.size):
        wi = np.float64(w[i])
        ci = corr[i] + (pu * gu[i] + pj * gj[i])
        corr[i] = ci
        restore[i] = BLOCKED if m[i] else wi * (wi * diag[i] - 2.0 * ci)


@inlined
def candidates(gain, margin):
    """Return the u whose pruning may improve the row, the most promising first."""
    found = np.flatnonzero(gain < margin)
    # Mergesort is stable: of equal gains the lower u comes first.
    return found[np.argsort(gain[found], kind="mergesort")]
