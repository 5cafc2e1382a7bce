"""Block moves in float64, one program for a row: of the groups looked at ahead, the first that gains by a move moves.

A program values the moves of several groups at once under the current c. Until one of them moves c stays as it is, so
the first group with an improving move is the one that a visit group by group would find; the next look starts after it.

State of a row: corr is c = G p; order holds the columns of each group, those kept before those pruned, so that a move
(:mod:`prunelib.kernels.block_moves.moves`) names the same places of it in every group, and to make it is to exchange
them. v_k is w_k for a kept, -w_k for a pruned column k. Rows are named by a list; corr holds those of the list alone.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import INFINITY
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING

_TOLERANCE = tl.constexpr(LOSS_TOLERANCE)
_ROUNDING = tl.constexpr(ROUNDING)


@triton.jit(do_not_specialize=["limit"])
def settle(
    rows, corr, weight, gram, order, places, number, moved, sweeps, loss_before, loss_after, optimal, limit,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
    GROUPS: tl.constexpr, MOVES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Sweep over the groups of a row until none moves; it is optimal if none moved at all under the c that came in."""
    r = tl.load(rows + tl.program_id(0))
    weight, order, corr = weight + r * inputs, order + r * inputs, corr + tl.program_id(0).to(tl.int64) * inputs
    loss = _loss(weight, corr, order, inputs, size, keep, TILE)
    sweep = tl.load(sweeps + r)
    if sweep == 0:
        tl.store(loss_before + r, loss)
    made, changed = 0, 1
    while (changed > 0) & (sweep < limit):
        changed, start = 0, 0
        while start < inputs // size:
            ahead, move, change = _first_improving(
                start, loss, weight, gram, corr, order, places, number, inputs, size, keep, moves, most, GROUPS, MOVES
            )
            start += ahead
            if ahead < GROUPS:
                _move(start * size, places + move * most, tl.load(number + move),
                      weight, gram, corr, order, inputs, keep, TILE)  # fmt: skip
                loss = tl.maximum(loss + change, 0.0)
                changed += 1
                start += 1
        made += changed
        sweep += 1
        loss = _loss(weight, corr, order, inputs, size, keep, TILE)
    tl.store(moved + r, tl.load(moved + r) + made)
    tl.store(sweeps + r, sweep)
    tl.store(loss_after + r, loss)
    tl.store(optimal + r, made == 0)


@triton.jit
def _loss(weight, corr, order, inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, TILE: tl.constexpr):
    """The row's loss p^T c."""
    losses = tl.zeros((TILE,), tl.float64)
    for start in range(0, inputs, TILE):
        places = start + tl.arange(0, TILE)
        pruned = (places < inputs) & (places % size >= keep)
        columns = tl.load(order + places, mask=pruned, other=0)
        w = tl.load(weight + columns, mask=pruned, other=0.0).to(tl.float64)
        losses += w * tl.load(corr + columns, mask=pruned, other=0.0)
    return tl.maximum(tl.sum(losses, 0), 0.0)


@triton.jit
def _first_improving(
    start, loss, weight, gram, corr, order, places, number,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
    GROUPS: tl.constexpr, MOVES: tl.constexpr,
):  # fmt: skip
    """How far ahead of ``start`` a group's best move improves (GROUPS: none), the move and the change it brings."""
    change, terms, move = _best_moves(
        start, weight, gram, corr, order, places, number, inputs, size, keep, moves, most, GROUPS, MOVES
    )
    groups = tl.arange(0, GROUPS)
    ahead = tl.min(tl.where(change < -(loss * _TOLERANCE + terms * _ROUNDING), groups, GROUPS), 0)
    tl.debug_barrier()  # c and order may change only when all threads have read them
    return ahead, tl.sum(tl.where(groups == ahead, move, 0), 0), tl.sum(tl.where(groups == ahead, change, 0.0), 0)


@triton.jit
def _best_moves(
    start, weight, gram, corr, order, places, number,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
    GROUPS: tl.constexpr, MOVES: tl.constexpr,
):  # fmt: skip
    """The least change that each of GROUPS groups can have, the size of its terms, and its move (the first of equals).

    Groups and moves that there are not count as moves of no place, which change nothing.
    """
    groups = start + tl.arange(0, GROUPS)
    groups = tl.where(groups < inputs // size, groups, -1)
    least = tl.full((GROUPS, MOVES), INFINITY, tl.float64)
    terms, best = tl.zeros((GROUPS, MOVES), tl.float64), tl.zeros((GROUPS, MOVES), tl.int32)
    for first in range(0, moves, MOVES):
        n = first + tl.arange(0, MOVES)
        change, its_terms = _changes(
            groups, n, weight, gram, corr, order, places, number, inputs, size, keep, moves, most
        )
        better = change < least
        least = tl.where(better, change, least)
        terms = tl.where(better, its_terms, terms)
        best = tl.where(better, n[None, :], best)
    change = tl.min(least, 1)
    move = tl.min(tl.where(least == change[:, None], best, moves), 1)
    return change, tl.sum(tl.where(best == move[:, None], terms, 0.0), 1), move


@triton.jit
def _changes(
    groups, n, weight, gram, corr, order, places, number,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
):  # fmt: skip
    """The change of the loss by moves n in groups, and the sum of the magnitudes of its terms, (groups, moves) each.

    sum over the places k of a move of v_k (2 c_k + v_k G_kk), and over pairs of them of 2 v_k v_l G_kl.
    """
    change = tl.zeros((groups.shape[0], n.shape[0]), tl.float64)
    terms = tl.zeros((groups.shape[0], n.shape[0]), tl.float64)
    for i in range(most):
        k, vk = _column(i, groups, n, weight, order, places, number, size, keep, moves, most)
        row = gram + k.to(tl.int64) * inputs
        alone = vk * (2.0 * tl.load(corr + k) + vk * tl.load(row + k))
        change += alone
        terms += tl.abs(alone)
        for j in range(i):
            l, vl = _column(j, groups, n, weight, order, places, number, size, keep, moves, most)
            pair = 2.0 * vk * vl * tl.load(row + l)
            change += pair
            terms += tl.abs(pair)
    return change, terms


@triton.jit
def _column(
    i, groups, n, weight, order, places, number,
    size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
):  # fmt: skip
    """The column k of the i-th place of moves n in groups, and v_k; beyond a move's places, column 0 and v = 0."""
    turned = i < tl.load(number + n, mask=n < moves, other=0)
    place = tl.load(places + n * most + i, mask=turned, other=0)
    here = (groups >= 0)[:, None] & turned[None, :]
    k = tl.load(order + (groups * size)[:, None] + place[None, :], mask=here, other=0)
    w = tl.load(weight + k, mask=here, other=0.0).to(tl.float64)
    return k, tl.where((place < keep)[None, :], w, -w)


@triton.jit
def _move(
    start, places, count, weight, gram, corr, order, inputs: tl.constexpr, keep: tl.constexpr, TILE: tl.constexpr
):
    """Turn over the ``count`` places of a move in the group that begins at ``start``: c += v_k G[:, k] for each."""
    for first in range(0, inputs, TILE):
        columns = first + tl.arange(0, TILE)
        inside = columns < inputs
        c = tl.load(corr + columns, mask=inside, other=0.0)
        i = 0
        while i < count:
            place = tl.load(places + i)
            k = tl.load(order + start + place)
            w = tl.load(weight + k).to(tl.float64)
            v = tl.where(place < keep, w, -w)
            c += v * tl.load(gram + k.to(tl.int64) * inputs + columns, mask=inside, other=0.0)
            i += 1
        tl.store(corr + columns, c, mask=inside)
    tl.debug_barrier()
    i = 0
    while i < count // 2:
        out, back = order + start + tl.load(places + i), order + start + tl.load(places + count // 2 + i)
        u, j = tl.load(out), tl.load(back)
        tl.debug_barrier()
        tl.store(out, j)
        tl.store(back, u)
        i += 1
    tl.debug_barrier()
