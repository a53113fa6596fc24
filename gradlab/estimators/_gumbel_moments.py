"""Moments of the Gumbel-softmax Jacobian given the sampled class, at a fixed number of nodes.

The formulas are in `gumbel_jacobian`, which asks for more nodes until the moments settle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradlab.estimators._gumbel_nodes import Nodes, place_nodes, span

__all__ = ["fixed_moments"]

Array = NDArray[np.float64]
Winners = NDArray[np.int64]

# OpenBLAS keeps a matrix product of so few multiplications on one thread: more threads gain little
# here, cost much when the cores are busy, and change the rounding.
PRODUCT = 500_000
# A product of fewer terms in a sum is slow.
_INNER = 64

# A node of less weight than this does not change a sum in the digits that are asked for.
_NO_WEIGHT = 1e-18


def fixed_moments(
    p: Array, winners: Winners, tau: float, n: int, block: int
) -> tuple[Array, Array]:
    """Return E[J | x = k] and E[J J | x = k], both `[R, K, C, C]`, from n nodes an axis.

    Args:
        p: probabilities of the losers `[R, C]`; a class of probability 0 is masked. The winner's
            own entry is not used, so that rows need not sum to 1.
        winners: the classes k of each row `[R, K]`.
        tau: temperature.
        n: nodes of one axis.
        block: numbers in the largest temporary array.
    """
    rows, classes = p.shape
    count = winners.shape[1]
    nodes = place_nodes(tau, n, span(p, tau))
    length = len(nodes.growth)
    step = max(1, min(block // (rows * classes * max(length, 4 * n)), PRODUCT // (length * n)))
    pairs = np.zeros((2, rows, count, classes + 1, classes + 1))
    for start in range(0, n, step):
        _add_pair_moments(pairs, p, winners, nodes, slice(start, start + step), min(tau, 1.0))
    first, second = _with_winner(pairs[0], winners), _with_winner(pairs[1], winners)
    return -first / tau, second / tau / tau


def _add_pair_moments(
    pairs: Array, p: Array, winners: Winners, nodes: Nodes, part: slice, unit: float
) -> None:
    """Add the share of some nodes of m to the off-diagonal moments given each winner k.

    `pairs` `[2, R, K, C + 1, C + 1]` holds E[y_i y_j | k] and E[y_i y_j (sum_l y_l^2 - y_i - y_j) |
    k]. The last index stands for the winner, of weight 1, and the entries for i = k, j = k or i = j
    mean nothing. `unit` is the unit of the accuracy.
    """
    rows, classes = p.shape
    m, s = nodes.m[part], nodes.s
    a = p[:, :, None] * m
    survival = np.exp(-a[..., None] * nodes.growth)
    q = (survival[:, :, None] @ nodes.kernel).reshape(rows, classes, 4, -1)
    # Where a = 0 the truncated integral of q_0 misses mass at w = 0.
    q0 = q[:, :, 0] + np.tile(np.exp(-s), len(m))
    q0.reshape(*a.shape, len(s))[a == 0] = 1.0
    own = np.take_along_axis(q0, winners[..., None], axis=1)
    possible = np.take_along_axis(p, winners, axis=1)[..., None] > 0
    weight = np.outer(nodes.m_weight[part], nodes.s_weight * s).ravel()
    density = np.prod(q0, axis=1, keepdims=True) * weight * possible / own
    s = np.tile(s, len(m))
    # Weights of S^-3 and S^-4 relative to S^-2, whose weight s is in the density.
    cubed, fourth = s / 2, s**2 / 6
    largest = density.max(axis=(0, 1), initial=0.0) * np.maximum(1.0, cubed + classes * fourth)
    kept = (largest > _NO_WEIGHT * unit).nonzero()[0]
    cubed, fourth, density = cubed[kept], fourth[kept], density.take(kept, axis=-1)
    # w_r = q_r / q_0, at most 1; the winner has w = 1, all of whose ratios are 1.
    ratio = np.ones((3, rows, classes + 1, len(kept)))
    scale = a.repeat(len(nodes.s), axis=-1).take(kept, axis=-1) / q0.take(kept, axis=-1)
    for r in (1, 2, 3):
        np.multiply(q[:, :, r].take(kept, axis=-1), scale, out=ratio[r - 1, :, :classes])
    w1, w2, w3 = ratio
    half = fourth * (w1 * (w2.sum(axis=1, keepdims=True) / 2 - w2) + w3) - cubed * w2
    u_and_v = np.concatenate([w1, half], axis=1).swapaxes(1, 2)
    without_k = fourth * np.take_along_axis(w2, winners[..., None], axis=1)
    for k in range(winners.shape[1]):
        left = density[:, k, None] * w1
        products = _product(left, u_and_v)
        cross = products[..., classes + 1 :]
        left *= without_k[:, k, None]
        pairs[0, :, k] += products[..., : classes + 1]
        pairs[1, :, k] += cross + cross.swapaxes(1, 2)
        pairs[1, :, k] -= _product(left, u_and_v[..., : classes + 1])


def _product(a: Array, b: Array) -> Array:
    """Return a @ b `[R, I, J]`, cut into products that OpenBLAS keeps on one thread."""
    length, columns = b.shape[1:]
    step = max(_INNER, PRODUCT // (a.shape[1] * columns))
    rows = max(1, PRODUCT // (step * columns))
    total = np.zeros((*a.shape[:2], columns))
    for i in range(0, a.shape[1], rows):
        for at in range(0, length, step):
            some = slice(at, at + step)
            total[:, i : i + rows] += a[:, i : i + rows, some] @ b[:, some]
    return total


def _with_winner(pairs: Array, winners: Winners) -> Array:
    """Return `[R, K, C, C]`: symmetric, the winner at its place k, the diagonal from row sums."""
    classes = pairs.shape[-1] - 1
    pairs = (pairs + pairs.swapaxes(2, 3)) / 2
    table, winner = pairs[..., :classes, :classes].copy(), pairs[..., classes, :classes]
    row, column = np.ogrid[: winners.shape[0], : winners.shape[1]]
    table[row, column, winners, :] = winner
    table[row, column, :, winners] = winner
    c = np.arange(classes)
    table[..., c, c] = 0
    table[..., c, c] = -table.sum(axis=-1)
    return table
