r"""The check of a rule on every monomial in the coordinates of x, on the states of a distribution.

.. math:: \sum_x p(x)\,M(x)\,\nabla f(x) = \sum_x p(x)\,f(x)\,s(x),
          \qquad f(x) = x_{i_1} \cdots x_{i_d}

Both sides are linear in f: a rule that is exact on all monomials of a degree is exact on every
polynomial of it.
"""

import itertools
import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gradlab.distributions.base import with_gradient
from gradlab.estimators import Estimator
from gradlab.exact.gradient_rows import gradients
from gradlab.exact.structures import Structured
from gradlab.reproducible import single_thread

__all__ = ["MonomialCheck", "monomial_check"]

_DEGREES = 4
# Monomials of one degree, numbers of the products at all states, and those held at a time.
_MOST, _TABLE, _HELD = 2**14, 2**24, 2**22
_ROUNDING = 1e-11


@dataclass(frozen=True)
class MonomialCheck:
    """The largest violations over all monomials of each degree, relative to the longest gradient.

    `counts`: how many monomials are not 0, with their gradient, at all states.
    """

    counts: tuple[int, ...]
    violations: tuple[float, ...]
    tolerance: float = _ROUNDING

    @property
    def degree(self) -> int:
        """The degree up to which the rule is exact on every monomial, as far as they were tried."""
        exact = itertools.takewhile(lambda v: v <= self.tolerance, self.violations)
        return len(list(exact)) - 1

    def __str__(self) -> str:
        told = ", ".join(
            f"{d}: {count} monomials, {violation:.1e}"
            for d, (count, violation) in enumerate(zip(self.counts, self.violations, strict=True))
        )
        reached = "every" if self.degree == len(self.counts) - 1 else "each"
        return (
            f"By {reached} monomial in x alone exact to degree {self.degree} (largest violation of "
            f"degree {told})."
        )


@single_thread()
def monomial_check(estimator: Estimator, on: Structured) -> MonomialCheck | None:
    """Return the check of a rule of x alone, or None where it is none, or the tables are large.

    Args:
        estimator: The estimator.
        on: The parameters and the distribution; its loss plays no part.

    Returns:
        The violations up to degree 3, fewer where the monomials are too many.
    """
    size, numbers, states = on.shape.numel(), on.parameters.numel(), len(on.p)
    if estimator.line_alpha is None or states * numbers * size > _TABLE:
        return None
    x = on.states[:, 0]
    products = _products(on, estimator.line_alpha) * on.p[:, None, None]
    scores = on.scores(on.states) * on.p[:, None]
    counts, violations = [], []
    for degree in range(_DEGREES):
        number = math.comb(size + degree - 1, degree)
        if number > _MOST:
            break
        every = torch.tensor(
            list(itertools.combinations_with_replacement(range(size), degree)), dtype=torch.long
        ).reshape(number, degree)
        worst, longest, count = 0.0, 0.0, 0
        for part in every.split(max(1, _HELD // (states * size))):
            values, slopes = _monomials(x, part)
            count += int(((values != 0).any(0) | (slopes != 0).flatten(2).any(-1).any(0)).sum())
            mean = torch.einsum("spj,skj->kp", products, slopes)
            away = values - on.p @ values
            truth = away.T @ scores
            worst = max(worst, float(torch.linalg.vector_norm(mean - truth, dim=1).max()))
            longest = max(longest, float(torch.linalg.vector_norm(truth, dim=1).max()))
        counts.append(count)
        # A constant has no gradient to compare with.
        violations.append(worst / longest if longest > _ROUNDING else worst)
    return MonomialCheck(tuple(counts), tuple(violations))


def _products(on: Structured, alpha: float) -> Tensor:
    """Return the matrix M(x) of a rule at every state [S, P, D], as its code gives it."""
    states = on.states.reshape(-1, *on.shape)

    def along(theta: Tensor, j: int) -> Tensor:
        return with_gradient(on.distribution(theta), states, alpha).flatten(1)[:, j]

    size = on.shape.numel()
    columns = [gradients(partial(along, j=j), on.parameters, len(states)) for j in range(size)]
    return torch.stack(columns, -1)


def _monomials(x: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return values [S, K] and gradients [S, K, D] of the products of these coordinates [K, d]."""
    degree = factors.shape[1]
    of_factor = x[:, factors]
    slopes = x.new_zeros(len(x), len(factors), x.shape[1])
    for i in range(degree):
        others = torch.cat([of_factor[..., :i], of_factor[..., i + 1 :]], -1).prod(-1)
        at = factors[:, i].expand(len(x), -1).unsqueeze(-1)
        slopes.scatter_add_(-1, at, others.unsqueeze(-1))
    return of_factor.prod(-1), slopes
