"""The one place where statistical tests get their thresholds.

All comparisons with random draws together are allowed to fail by chance once in a million runs; the
seeds are fixed, so that a run that passes once passes always.
"""

import math

import scipy
import torch

__all__ = ["ALPHA", "COMPARISONS", "P_VALUE", "limit", "scores"]

ALPHA = 1e-6

# More than all statistical tests make together; tests/comparison/test_montecarlo.py counts its own.
COMPARISONS = 30_000

# What a single p-value must exceed.
P_VALUE = ALPHA / COMPARISONS


def limit(dof: float = math.inf) -> float:
    """Return the bound on |z| of one comparison, `dof` the degrees of freedom of its error."""
    return float(scipy.stats.t.isf(P_VALUE / 2, dof))


def scores(measured: object, expected: object, error: object) -> torch.Tensor:
    """Return (measured - expected) / error; errors below rounding count as rounding."""
    measured, expected, error = (
        torch.as_tensor(value, dtype=torch.float64) for value in (measured, expected, error)
    )
    rounding = 1e-12 * (1 + expected.abs())
    return (measured - expected) / torch.maximum(error, rounding)
