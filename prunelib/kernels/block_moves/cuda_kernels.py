"""Block moves in float64, one program a row, which evaluates the moves of several groups at once.

Until one of these groups moves, c does not change. So the first group with an improving move is the one that a visit
group by group would find, and the next evaluation starts after it: the moves are those of the other backends' order.

State of a row: corr is c = G p, (inputs,) float64; order has the columns of each group, those kept before those pruned,
(inputs,) int32. A move (:mod:`prunelib.kernels.block_moves.moves`) is a list of positions in ``order``, the same in
every group, and to make it is to exchange the columns there. ``rows`` lists the indices of the rows to work on; corr
has one row for each of these, all other arrays one for each row of the chunk.
"""

import triton
import triton.language as tl

from prunelib.kernels.cuda_common import INFINITY
from prunelib.kernels.interface import LOSS_TOLERANCE, ROUNDING

_TOLERANCE = tl.constexpr(LOSS_TOLERANCE)
_ROUNDING = tl.constexpr(ROUNDING)


@triton.jit(do_not_specialize=["limit"])
def settle(
    rows, corr, weight, gram, order, positions, number, moved, sweeps, loss_before, loss_after, optimal, limit,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
    GROUPS: tl.constexpr, MOVES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Sweep over the groups of a row until none moves; it is optimal if none moved at all with the c computed anew."""
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
                start,
                loss,
                weight,
                gram,
                corr,
                order,
                positions,
                number,
                inputs,
                size,
                keep,
                moves,
                most,
                GROUPS,
                MOVES,
            )
            start += ahead
            if ahead < GROUPS:
                _move(start * size, positions + move * most, tl.load(number + move),
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
    """Compute the row's loss p^T c."""
    losses = tl.zeros((TILE,), tl.float64)
    for start in range(0, inputs, TILE):
        positions = start + tl.arange(0, TILE)
        pruned = (positions < inputs) & (positions % size >= keep)
        columns = tl.load(order + positions, mask=pruned, other=0)
        w = tl.load(weight + columns, mask=pruned, other=0.0).to(tl.float64)
        losses += w * tl.load(corr + columns, mask=pruned, other=0.0)
    return tl.maximum(tl.sum(losses, 0), 0.0)


@triton.jit
def _first_improving(
    start, loss, weight, gram, corr, order, positions, number,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
    GROUPS: tl.constexpr, MOVES: tl.constexpr,
):  # fmt: skip
    """Find how far after ``start`` the first improving group is (GROUPS: none), its best move and the move's change."""
    change, terms, move = _best_moves(
        start, weight, gram, corr, order, positions, number, inputs, size, keep, moves, most, GROUPS, MOVES
    )
    groups = tl.arange(0, GROUPS)
    ahead = tl.min(tl.where(change < -(loss * _TOLERANCE + terms * _ROUNDING), groups, GROUPS), 0)
    tl.debug_barrier()  # c and order may change only when all threads have read them
    return ahead, tl.sum(tl.where(groups == ahead, move, 0), 0), tl.sum(tl.where(groups == ahead, change, 0.0), 0)


@triton.jit
def _best_moves(
    start, weight, gram, corr, order, positions, number,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
    GROUPS: tl.constexpr, MOVES: tl.constexpr,
):  # fmt: skip
    """Find the least change of each of GROUPS groups, the magnitude of its terms, and its move (the first of equals).

    Beyond the last group and the last move, moves flip no column and change nothing.
    """
    groups = start + tl.arange(0, GROUPS)
    groups = tl.where(groups < inputs // size, groups, -1)
    # The best of every MOVES-th move in each lane; one reduction at the end finds the first of equals.
    least = tl.full((GROUPS, MOVES), INFINITY, tl.float64)
    terms, best = tl.zeros((GROUPS, MOVES), tl.float64), tl.zeros((GROUPS, MOVES), tl.int32)
    for first in range(0, moves, MOVES):
        n = first + tl.arange(0, MOVES)
        change, its_terms = _changes(
            groups, n, weight, gram, corr, order, positions, number, inputs, size, keep, moves, most
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
    groups, n, weight, gram, corr, order, positions, number,
    inputs: tl.constexpr, size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
):  # fmt: skip
    """Compute dL of moves n in groups, and the sum of the magnitudes of its terms, (groups, moves) float64 each."""
    change = tl.zeros((groups.shape[0], n.shape[0]), tl.float64)
    terms = tl.zeros((groups.shape[0], n.shape[0]), tl.float64)
    for i in range(most):
        k, vk = _column(i, groups, n, weight, order, positions, number, size, keep, moves, most)  # (groups, moves)
        row = gram + k.to(tl.int64) * inputs
        alone = vk * (2.0 * tl.load(corr + k) + vk * tl.load(row + k))
        change += alone
        terms += tl.abs(alone)
        for j in range(i):
            l, vl = _column(j, groups, n, weight, order, positions, number, size, keep, moves, most)
            pair = 2.0 * vk * vl * tl.load(row + l)
            change += pair
            terms += tl.abs(pair)
    return change, terms


@triton.jit
def _column(
    i, groups, n, weight, order, positions, number,
    size: tl.constexpr, keep: tl.constexpr, moves: tl.constexpr, most: tl.constexpr,
):  # fmt: skip
    """Find the i-th column k that moves n flip in groups, and v_k; beyond the last one, column 0 and v = 0."""
    turned = i < tl.load(number + n, mask=n < moves, other=0)
    position = tl.load(positions + n * most + i, mask=turned, other=0)
    here = (groups >= 0)[:, None] & turned[None, :]  # (groups, moves)
    k = tl.load(order + (groups * size)[:, None] + position[None, :], mask=here, other=0)
    w = tl.load(weight + k, mask=here, other=0.0).to(tl.float64)
    return k, tl.where((position < keep)[None, :], w, -w)


@triton.jit
def _move(
    start, positions, count, weight, gram, corr, order, inputs: tl.constexpr, keep: tl.constexpr, TILE: tl.constexpr
):
    """Flip the ``count`` columns of a move in the group that begins at ``start``: c += v_k G[:, k] for each."""
    for first in range(0, inputs, TILE):
        columns = first + tl.arange(0, TILE)
        inside = columns < inputs
        c = tl.load(corr + columns, mask=inside, other=0.0)
        i = 0
        while i < count:
            position = tl.load(positions + i)
            k = tl.load(order + start + position)
            w = tl.load(weight + k).to(tl.float64)
            v = tl.where(position < keep, w, -w)
            c += v * tl.load(gram + k.to(tl.int64) * inputs + columns, mask=inside, other=0.0)
            i += 1
        tl.store(corr + columns, c, mask=inside)
    tl.debug_barrier()  # all threads have read the order
    i = 0
    # The first half of a move's columns is pruned, the second restored: they exchange positions.
    while i < count // 2:
        out, back = order + start + tl.load(positions + i), order + start + tl.load(positions + count // 2 + i)
        u, j = tl.load(out), tl.load(back)
        tl.debug_barrier()
        tl.store(out, j)
        tl.store(back, u)
        i += 1
    tl.debug_barrier()
