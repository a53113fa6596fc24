"""Mean and second moment of the Gumbel-softmax Jacobian given the sampled class, by quadrature.

These two tables are all that the Gumbel-Rao and straight-through Gumbel-softmax estimators and
their exact moments need to know about the Gumbel noise, for any number of classes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from gradlab.gumbel_nodes import Nodes, place_nodes, span

__all__ = ["QuadratureError", "conditional_jacobians"]

Array = NDArray[np.float64]

# Nodes of one axis at each level; 24 nodes give about 1e-10, 32 about 1e-13, and the later ones
# serve many classes at high temperature.
LEVELS = (24, 32, 48, 72, 108)

# Numbers in a table that is small enough to be remembered.
REMEMBERED = 2**16

# Numbers in the largest table that is made: 256 MB.
LARGEST = 2**25

# Numbers in the largest temporary array: 4 MB, and about ten such arrays are alive at once.
BLOCK = 2**19

# OpenBLAS keeps a matrix product of so few multiplications on one thread: more threads gain little
# here, cost much when the cores are busy, and change the rounding.
PRODUCT = 500_000


class QuadratureError(ArithmeticError):
    """The asked accuracy was not reached at the largest number of quadrature nodes."""


def conditional_jacobians(
    p: Float[Tensor, "*rows C"], tau: float, *, accuracy: float = 1e-10
) -> tuple[Float[Tensor, "*rows C C C"], Float[Tensor, "*rows C C C"]]:
    """Return E[J | x = k] and E[J J | x = k] for every class k and every row of probabilities.

    J = (diag(y) - y y^T) / tau is the Jacobian of y = softmax((logits + G) / tau) with respect to
    the logits, and x = k says that logits + G is largest at k. Given x = k,

        y = w / sum_i w_i,   w_k = 1,   w_i = (1 + E_i / (p_i m))^(-1 / tau),   E_i, m ~ Exp(1),

    so that by S^-n = int_0^inf s^(n-1) / (n-1)! exp(-s S) ds, S = sum_i w_i, every moment of y is
    a double integral over (m, s) of products of one-class integrals.

    Args:
        p: probabilities, any leading shape; a class of probability 0 is masked: its rows, columns
            and its own slice k are 0. Rows must sum to 1 within 1e-6 and are normalised.
        tau: temperature, positive; tested from 1e-3 to 10.
        accuracy: bound on the estimated error of every entry, absolute for the first table and
            relative to max(1, 1 / tau) for the second, whose entries grow so. Not below 3e-14.

    Returns:
        first, second, both float64 `[*rows, C, C, C]`; entry `[..., k, :, :]` belongs to x = k.
        Every matrix is symmetric and its rows sum to 0.

    Raises:
        ValueError: p is no table of probabilities, or tau or accuracy is not positive and finite.
        QuadratureError: the accuracy was not reached; use Monte Carlo there.

    Jang, Gu & Poole 2017 (arXiv:1611.01144) and Maddison, Mnih & Teh 2017 (arXiv:1611.00712); the
    conditional expectation: Paulus, Maddison & Krause 2021 (arXiv:2010.04838).
    """
    rows = _checked_probabilities(p)
    _check_positive("tau", tau)
    _check_positive("accuracy", accuracy)
    numbers = rows.size * rows.shape[-1] ** 2
    if numbers > LARGEST:
        raise QuadratureError(
            f"tables for {len(rows)} rows of {rows.shape[-1]} classes hold {numbers} numbers, more "
            f"than {LARGEST}; use Monte Carlo, such as Gumbel-Rao with a finite k"
        )
    small = numbers <= REMEMBERED
    tables = _cached_tables if small else _cached_tables.__wrapped__
    first, second = tables(rows.tobytes(), rows.shape, float(tau), accuracy)
    shape = (*p.shape, p.shape[-1], p.shape[-1])
    return torch.tensor(first).reshape(shape), torch.tensor(second).reshape(shape)


# GS-ST, Gumbel-Rao at every k and each block of draws ask for the same tables one after another.
@lru_cache(maxsize=64)
def _cached_tables(
    data: bytes, shape: tuple[int, int], tau: float, accuracy: float
) -> tuple[Array, Array]:
    """Return both tables of the rows in `data`, some rows at a time."""
    rows = np.frombuffer(data).reshape(shape)
    classes = rows.shape[-1]
    first = np.empty((len(rows), classes, classes, classes))
    second = np.empty_like(first)
    step = max(1, BLOCK // (classes * max(4 * LEVELS[1] ** 2, classes**2)))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        first[part], second[part] = _refined(rows[part], tau, accuracy)
    return first, second


def _checked_probabilities(p: Tensor) -> Array:
    """Return p as normalised float64 rows `[R, C]`."""
    if not isinstance(p, Tensor) or not p.is_floating_point() or p.ndim < 1 or p.shape[-1] < 1:
        raise ValueError("p must be a floating-point tensor [..., C] with C >= 1")
    rows = p.detach().to("cpu", torch.float64).reshape(-1, p.shape[-1]).numpy()
    if not np.isfinite(rows).all() or (rows < 0).any():
        raise ValueError("p must hold finite probabilities >= 0, got a negative or non-finite one")
    total = rows.sum(axis=-1, keepdims=True)
    worst = np.abs(total - 1).max(initial=0.0)
    if worst > 1e-6:
        raise ValueError(f"every row of p must sum to 1 within 1e-6, one is off by {worst:.1e}")
    return rows / total


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0 and math.isfinite(1 / value)):
        raise ValueError(f"{name} must be a positive finite number, got {value}")


def _refined(p: Array, tau: float, accuracy: float) -> tuple[Array, Array]:
    """Return both tables of the rows p `[R, C]`, each row at the first level that settles it."""
    coarse = _tables(p, tau, LEVELS[0])
    first, second = np.empty_like(coarse[0]), np.empty_like(coarse[1])
    unsettled = np.arange(len(p))
    for level in LEVELS[1:]:
        fine = _tables(p[unsettled], tau, level)
        first[unsettled], second[unsettled] = fine
        error = np.maximum(
            np.abs(fine[0] - coarse[0]).max(axis=(1, 2, 3)),
            np.abs(fine[1] - coarse[1]).max(axis=(1, 2, 3)) * min(1.0, tau),
        )
        # Written so that an error of NaN counts as too large.
        missed = ~(error <= accuracy)
        unsettled = unsettled[missed]
        if not len(unsettled):
            return first, second
        coarse = fine[0][missed], fine[1][missed]
    left = p[unsettled]
    raise QuadratureError(
        f"conditional Jacobians at tau={tau:g}: error {error[missed].max():.1e} after "
        f"{LEVELS[-1]} nodes an axis, above accuracy={accuracy:g} (smallest probability "
        f"{left.min(where=left > 0, initial=1.0):.1e}, {p.shape[-1]} classes); "
        "ask for less accuracy or use Monte Carlo"
    )


def _tables(p: Array, tau: float, n: int) -> tuple[Array, Array]:
    """Return both tables of the rows p `[R, C]` at one number of nodes."""
    rows, classes = p.shape
    nodes = place_nodes(tau, n, span(p, tau))
    length = len(nodes.growth)
    step = max(1, min(BLOCK // (rows * classes * max(length, 4 * n)), PRODUCT // (length * n)))
    pairs = np.zeros((2, rows, classes, classes + 1, classes + 1))
    for start in range(0, n, step):
        _add_pair_moments(pairs, p, nodes, slice(start, start + step))
    return -_with_winner(pairs[0]) / tau, _with_winner(pairs[1]) / tau / tau


def _add_pair_moments(pairs: Array, p: Array, nodes: Nodes, part: slice) -> None:
    """Add the share of some nodes of m to the off-diagonal moments given every class k.

    `pairs` `[2, R, C, C + 1, C + 1]` holds, above the diagonal of its last two axes, E[y_i y_j | k]
    and E[y_i y_j (sum_l y_l^2 - y_i - y_j) | k]. The last index stands for the winner, of weight 1,
    and the entries for i = k or j = k mean nothing.
    """
    rows, classes = p.shape
    m, s = nodes.m[part], nodes.s
    a = p[:, :, None] * m
    survival = np.exp(-a[..., None] * nodes.growth)
    q = survival[:, :, None] @ nodes.kernel
    # Where p = 0 the truncated integral of q_0 misses mass at w = 0.
    q0 = np.where(a[..., None] > 0, np.exp(-s) + q[:, :, 0], 1.0)
    # ratio[r - 1] = q_r / q_0, at most 1; the winner has w = 1, all of whose ratios are 1.
    ratio = np.ones((3, rows, classes + 1, len(m), len(s)))
    for r in (1, 2, 3):
        ratio[r - 1, :, :classes] = a[..., None] * q[:, :, r] / q0
    w1, w2, w3 = ratio.reshape(3, rows, classes + 1, -1)

    q0 = q0.reshape(rows, classes, -1)
    others = np.prod(q0, axis=1, keepdims=True) / q0 * (p > 0)[..., None]
    density = others * np.outer(nodes.m_weight[part], nodes.s_weight * s).ravel()
    s = np.tile(s, len(m))
    # Weights of S^-3 and S^-4 relative to S^-2, whose weight s is in the density.
    cubed, fourth = s / 2, s**2 / 6
    half = fourth * (w1 * (w2.sum(axis=1, keepdims=True) / 2 - w2) + w3) - cubed * w2
    without_k = np.concatenate([density, density * fourth * w2[:, :classes]], axis=1)
    for i in range(classes):
        step = max(1, PRODUCT // (2 * classes * (classes - i)))
        for start in range(0, len(s), step):
            at = slice(start, start + step)
            u, v, given = w1[..., at], half[..., at], density[..., at]
            one = u[:, i, None] * u[:, i + 1 :]
            two = u[:, i, None] * v[:, i + 1 :] + v[:, i, None] * u[:, i + 1 :]
            both = without_k[..., at] @ one.swapaxes(1, 2)
            pairs[0, :, :, i, i + 1 :] += both[:, :classes]
            pairs[1, :, :, i, i + 1 :] += given @ two.swapaxes(1, 2) - both[:, classes:]


def _with_winner(pairs: Array) -> Array:
    """Return `[R, C, C, C]`: symmetric, the winner at its place k, the diagonal from row sums."""
    classes = pairs.shape[1]
    pairs = pairs + pairs.swapaxes(2, 3)
    table, winner = pairs[:, :, :classes, :classes], pairs[:, :, classes, :classes]
    k = np.arange(classes)
    table[:, k, k, :] = winner
    table[:, k, :, k] = winner.swapaxes(0, 1)
    table[:, :, k, k] = 0
    table[:, :, k, k] = -table.sum(axis=-1)
    return table
