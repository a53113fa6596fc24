"""Where the integrals over Gumbel noise are evaluated: nodes and weights of three variables.

m is the winner's race time, s the Laplace variable, z = -log w of a loser; see gumbel_jacobian.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlab.estimators._remembered import Remembered

__all__ = ["Nodes", "place_nodes", "span"]

Array = NDArray[np.float64]

# exp(-NEGLIGIBLE) is below the rounding of one, and m < exp(-EARLIEST) has probability 1e-13.
NEGLIGIBLE, EARLIEST = 37.0, 30.0


class Nodes(NamedTuple):
    """Nodes and weights of m and s `[n]`; `growth` `[L]`, `kernel` `[4, L, n]` as z is used."""

    m: Array
    m_weight: Array
    s: Array
    s_weight: Array
    growth: Array
    kernel: Array


def place_nodes(tau: float, n: int, end: float) -> Nodes:
    """Return the nodes of the three integrals, up to v = `end` of z; the latest are remembered."""
    found = _NODES.get((tau, n, end))
    if found is None:
        found = _placed(tau, n, end)
        _NODES.put((tau, n, end), found)
    return found


# Where p is tiny and tau high, one set of nodes holds 14 MB.
_NODES: Remembered[Nodes] = Remembered(2**26, lambda nodes: sum(part.nbytes for part in nodes))


def _placed(tau: float, n: int, end: float) -> Nodes:
    """Place the nodes of the three integrals by substitutions that make the trapezoid rule exact.

    m and s by u = exp(v - exp(-v)), z = -log w by expm1(max(tau, 1) z) = exp(v - exp(-v)): far out
    uniform in z, so that it does not matter where tiny probabilities act. With a = p m,

        q_r = E[w^r exp(-s w)] = a tau int_0^inf exp((tau - r) z - s e^-z - a expm1(tau z)) dz
        q_0 = e^-s + s int_0^inf exp(-z - s e^-z - a expm1(tau z)) dz

    `growth` is expm1(tau z), and `kernel` `[4, L, n]` holds what does not depend on a in q_0 ..
    q_3 at every s. What lies outside the ends of v is below rounding.
    """
    m, m_weight = _half_line(-3.75, n)
    s, s_weight = _half_line(-3.2, n)
    scale = max(tau, 1.0)
    v, step = np.linspace(-3.6, end, math.ceil((end + 3.6) * n / 10), retstep=True)
    x = v - np.exp(-v)
    z = np.logaddexp(0, x) / scale
    dz = step * (1 + np.exp(-v)) / (1 + np.exp(-x)) / scale
    decay = np.exp(-s * np.exp(-z)[:, None])
    factors = [(dz * np.exp(-z))[:, None] * s * decay]
    factors += [(tau * dz * np.exp((tau - r) * z))[:, None] * decay for r in (1, 2, 3)]
    return Nodes(
        m, m_weight * np.exp(-m), s, s_weight * np.exp(-s), np.expm1(tau * z), np.stack(factors)
    )


def _half_line(low: float, n: int) -> tuple[Array, Array]:
    """Return n nodes and weights for (0, inf) by u = exp(v - exp(-v)), v uniform."""
    v, step = np.linspace(low, 3.75, n, retstep=True)
    u = np.exp(v - np.exp(-v))
    return u, step * u * (1 + np.exp(-v))


def span(p: Array, tau: float) -> float:
    """Return the largest v that matters: beyond it w is negligible, or the class has lost.

    The second bound moves in steps of 8, so that few sets of nodes serve all probabilities.
    """
    lost = EARLIEST + math.log(NEGLIGIBLE) - math.log(p.min(initial=1.0, where=p > 0))
    return min(NEGLIGIBLE * max(tau, 1.0), 8.0 * math.ceil(lost / 8), 700.0)
