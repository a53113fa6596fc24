"""Mean and second moment of the Gumbel-softmax Jacobian given the sampled class, by quadrature.

These two tables are all that the Gumbel-Rao and straight-through Gumbel-softmax estimators and
their exact moments need to know about the Gumbel noise, for any number of classes.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from gradlab.estimators._gumbel_moments import fixed_moments
from gradlab.estimators._gumbel_nodes import span
from gradlab.estimators._remembered import Remembered

__all__ = ["QuadratureError", "conditional_jacobians", "seconds_of_tables", "tables_too_large"]

Array = NDArray[np.float64]

# Nodes of one axis at each level; 24 nodes give about 1e-10, 32 about 1e-13, and the later ones
# serve many classes at high temperature.
LEVELS = (24, 32, 48, 72, 108)

# The distance between two levels is the error of the coarser one. That of the finer one was below
# a hundredth of it in every case that was tried, and a tenth is counted.
GAIN = 0.1

# GS-ST and Gumbel-Rao at every k, and each block of draws, ask for the same tables. 128 MB hold
# those of 11 temperatures for one variable of 64 classes, twice.
_TABLES: Remembered[tuple[Array, Array]] = Remembered(
    2**27, lambda tables: tables[0].nbytes + tables[1].nbytes
)

# Numbers in the largest table that is made: 256 MB.
LARGEST = 2**25

# Numbers in the largest temporary array: 4 MB, and about ten such arrays are alive at once.
BLOCK = 2**19


class QuadratureError(ArithmeticError):
    """The asked accuracy was not reached at the largest number of quadrature nodes."""


def conditional_jacobians(
    p: Float[Tensor, "*rows C"],
    tau: float,
    *,
    accuracy: float = 1e-10,
    lean: float = 0.0,
    given: Int[Tensor, "*rows"] | None = None,
) -> tuple[Float[Tensor, "*tables"], Float[Tensor, "*tables"]]:
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
        lean: slice k is that of the probabilities (1 - lean) p + lean e_k, in [0, 1). It costs no
            more than at lean = 0, as slice k does not depend on the probability of k.
        given: a class for each row. Only its slice is made: C times less memory, and less time.

    Returns:
        first, second, both float64 `[*rows, C, C, C]`; entry `[..., k, :, :]` belongs to x = k.
        With `given`, `[*rows, C, C]`. Every matrix is symmetric and its rows sum to 0.

    Raises:
        ValueError: p is not a table of probabilities, tau or accuracy is not positive and finite,
            lean is not in [0, 1), or a given class is not one of C.
        QuadratureError: the accuracy was not reached; use Monte Carlo there.

    Jang, Gu & Poole 2017 (arXiv:1611.01144) and Maddison, Mnih & Teh 2017 (arXiv:1611.00712); the
    conditional expectation: Paulus, Maddison & Krause 2021 (arXiv:2010.04838).
    """
    rows = _checked_probabilities(p)
    _check_positive("tau", tau)
    _check_positive("accuracy", accuracy)
    if not 0 <= lean < 1:
        raise ValueError(f"lean must be a number in [0, 1), got {lean}")
    reason = tables_too_large(*rows.shape, slices=given is not None)
    if reason is not None:
        raise QuadratureError(reason)
    shape = (*p.shape, p.shape[-1])
    if given is not None:
        winners = _checked_classes(given, p)
        # A batch often has one row of logits many times: each is made once.
        both = np.concatenate([rows, winners], axis=1)
        _, first, again = np.unique(both, axis=0, return_index=True, return_inverse=True)
        made = _in_blocks(rows[first], winners[first], float(tau), accuracy, lean)
        mean, square = (torch.from_numpy(part[again.reshape(-1)]).reshape(shape) for part in made)
        return mean, square
    key = rows.tobytes(), rows.shape, float(tau), accuracy, lean
    found = _TABLES.get(key)
    if found is None:
        winners = np.broadcast_to(np.arange(p.shape[-1]), rows.shape)
        found = _in_blocks(rows, winners, float(tau), accuracy, lean)
        _TABLES.put(key, found)
    shape = (*shape, p.shape[-1])
    return torch.tensor(found[0]).reshape(shape), torch.tensor(found[1]).reshape(shape)


def tables_too_large(rows: int, classes: int, *, slices: bool = False) -> str | None:
    """Return why no tables are made for so many rows of so many classes, or None."""
    numbers = rows * classes ** (2 if slices else 3)
    if numbers <= LARGEST:
        return None
    return (
        f"tables for {rows} rows of {classes} classes hold {numbers} numbers, more than {LARGEST}; "
        "use Monte Carlo, such as Gumbel-Rao with a finite k"
    )


def seconds_of_tables(rows: int, classes: int, *, tau: float = 1.0, slices: bool = False) -> float:
    """Return about how long `conditional_jacobians` takes for such tables, in seconds on one core.

    It counts operations and multiplies them by fixed times, so that what is decided by it does not
    depend on the load of the machine. The times are those of a 2020s server core. Rows of extreme
    probabilities may take three times as long. `slices`: the time of one `given` class a row.
    """
    winners = 1 if slices else classes
    end = span(np.full((1, classes), 1 / classes), tau)
    seconds = _START
    levels = LEVELS[: 3 if classes * max(tau, 1.0) > _EASY else 2]
    for n in levels:
        length = math.ceil((end + 3.6) * n / 10)
        integrals = classes * n * length * (_EXPONENTIAL + 8 * n * _MULTIPLICATION)
        ratios = (classes + 1) * n**2 * _RATIOS
        square = winners * (classes + 1) ** 2
        products = square * n**2 * (6 * _MULTIPLICATION + 2 * _PASS / (classes + 1))
        seconds += rows * (integrals + ratios + products + 12 * square * _PASS)
    return seconds


# Seconds that an operation takes, and the classes, times tau, that two levels settle.
_START, _EXPONENTIAL, _MULTIPLICATION, _PASS, _RATIOS = 7e-4, 8e-9, 3e-11, 1e-9, 4e-8
_EASY = 128.0


def _in_blocks(
    rows: Array, winners: NDArray[np.int64], tau: float, accuracy: float, lean: float
) -> tuple[Array, Array]:
    """Return both tables `[R, K, C, C]`, some rows and some winners at a time."""
    count, classes = winners.shape[1], rows.shape[-1]
    first = np.empty((len(rows), count, classes, classes))
    second = np.empty_like(first)
    step = max(1, BLOCK // (classes * max(4 * LEVELS[1] ** 2, count * classes)))
    width = max(1, 4 * BLOCK // classes**2)
    for start, left in itertools.product(range(0, len(rows), step), range(0, count, width)):
        part = slice(start, start + step), slice(left, left + width)
        losers = rows[part[0]] * (1 - lean)
        first[part], second[part] = _refined(losers, winners[part], tau, accuracy)
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


def _checked_classes(given: Tensor, p: Tensor) -> NDArray[np.int64]:
    """Return the given classes as a column `[R, 1]`."""
    classes = given.detach().to("cpu", torch.int64)
    if classes.shape != p.shape[:-1]:
        raise ValueError(f"given must have shape {list(p.shape[:-1])}, got {list(classes.shape)}")
    if ((classes < 0) | (classes >= p.shape[-1])).any():
        raise ValueError(f"given must hold classes from 0 to {p.shape[-1] - 1}")
    return classes.reshape(-1, 1).numpy()


def _refined(
    p: Array, winners: NDArray[np.int64], tau: float, accuracy: float
) -> tuple[Array, Array]:
    """Return both tables of the rows p `[R, C]`, each row at the first level that settles it."""
    coarse = fixed_moments(p, winners, tau, LEVELS[0], BLOCK)
    first, second = np.empty_like(coarse[0]), np.empty_like(coarse[1])
    unsettled = np.arange(len(p))
    for level in LEVELS[1:]:
        fine = fixed_moments(p[unsettled], winners[unsettled], tau, level, BLOCK)
        first[unsettled], second[unsettled] = fine
        error = np.maximum(
            np.abs(fine[0] - coarse[0]).max(axis=(1, 2, 3)),
            np.abs(fine[1] - coarse[1]).max(axis=(1, 2, 3)) * min(1.0, tau),
        )
        error *= GAIN
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
