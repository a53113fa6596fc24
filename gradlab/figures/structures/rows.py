"""Estimators on subsets, permutations, trees and chains: bias by degree, and bias with noise.

Losses are random polynomials of degree 1 to 4 in all entries of x. Three laws occur, and each row
names its target. ST, DARN, ZGR and RF are measured against the law of the structure, an exponential
family. I-MLE samples perturb-and-MAP: it is measured against the gradient of that law, and against
that of the exponential family, which it stands in for. Relaxed top-k is measured against sampling
without replacement.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Distribution

from gradlab.comparison.measuring import measure
from gradlab.distributions import Chain, KSubset, Permutation, SpanningTree, WithoutReplacement
from gradlab.estimators import parse
from gradlab.exact.structures import DistributionOf, Structured
from gradlab.figures.structures.own_law import OwnLaw
from gradlab.moments import Truth
from gradlab.montecarlo import monte_carlo
from gradlab.reproducible import block_generator, single_thread

__all__ = ["DEGREES", "STRUCTURES", "polynomial", "rows"]

DEGREES = (1, 2, 3, 4)
EXACT = ("ST", "DARN", "ZGR", "RF(m=4)")
IMLE = "I-MLE(lam=0.3)"
TOP_K = "TopK(tau=0.5)"
GIBBS, OWN, REPLACED = "exponential family", "perturb-and-MAP", "sampling without replacement"
_RIDGES = 48


def _chain(theta: Tensor) -> Chain:
    return Chain(theta[:12].view(4, 3), theta[12:].view(3, 3, 3))


@dataclass(frozen=True)
class Structure:
    """One structure: the shape of its parameters and of x, and how many ones x has."""

    law: Callable[[Tensor], Distribution]
    parameters: tuple[int, ...]
    x: tuple[int, ...]
    ones: int


STRUCTURES = {
    "3-subsets of 6": Structure(lambda p: KSubset(p, 3), (6,), (6,), 3),
    "permutations of 4": Structure(Permutation, (4, 4), (4, 4), 4),
    "spanning trees of K4": Structure(lambda p: SpanningTree(p, 4), (6,), (6,), 3),
    "chain, 4 of 3 classes": Structure(_chain, (39,), (4, 3), 4),
}
"""The structures by their names."""


def polynomial(degree: int, structure: Structure, number: int) -> Callable[[Tensor], Tensor]:
    """Return a random polynomial in all entries of x; each degree adds terms to the one below.

    f is a sum of powers (a . x)^j, j up to the degree, with random directions a.

    Args:
        degree: The highest power.
        structure: Where x lives.
        number: The number of the polynomial.
    """
    axes = len(structure.x)
    source = torch.Generator().manual_seed(number)
    size = torch.Size(structure.x).numel()
    shape = (size, _RIDGES)
    slopes = torch.randn(shape, generator=source, dtype=torch.float64) / structure.ones**0.5
    weights = torch.randn(len(DEGREES), _RIDGES, generator=source, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        along = x.flatten(-axes) @ slopes.to(x)
        powers = (along**j @ weights[j - 1].to(x) for j in range(1, degree + 1))
        return sum(powers, torch.zeros((), dtype=x.dtype)) / _RIDGES**0.5

    return f


@single_thread()
def rows(
    seed: int = 0,
    *,
    seeds: int = 8,
    degrees: Sequence[int] = DEGREES,
    draws: int = 2**16,
    own_draws: int = 2**18,
    structures: Sequence[str] = tuple(STRUCTURES),
    estimators: Sequence[str] = (*EXACT, IMLE, TOP_K),
) -> pd.DataFrame:
    """Return rows of `seeds` random polynomials of each degree on each structure."""
    found = []
    for name in structures:
        structure = STRUCTURES[name]
        for number in range(seeds * seed, seeds * (seed + 1)):
            generator = block_generator(seed, f"{name}|parameters", number)
            parameters = torch.randn(structure.parameters, generator=generator, dtype=torch.float64)
            own = None
            if IMLE in estimators:
                drawn = structure.law(parameters)
                own = OwnLaw(drawn, own_draws, seed, f"{name}|{number}")
            for degree in degrees:
                f = polynomial(degree, structure, number)
                shared = {"structure": name, "degree": degree, "logits_seed": number, "seed": seed}
                on = Structured(f, parameters, structure.law)
                # In units of the spread of f: one step of I-MLE means the same everywhere.
                spread = float((on.p @ (on.values - on.value).square()).sqrt())
                scaled = Structured(_Scaled(f, spread), parameters, structure.law)
                table = _of_polynomial(scaled, own, estimators, draws, seed, f"{name}|{number}")
                found += [shared | row for row in table]
    return pd.DataFrame(found)


@dataclass(frozen=True)
class _Scaled:
    """f divided by a number."""

    f: Callable[[Tensor], Tensor]
    by: float

    def __call__(self, x: Tensor) -> Tensor:
        return self.f(x) / self.by


def _of_polynomial(
    on: Structured,
    own: OwnLaw | None,
    estimators: Sequence[str],
    draws: int,
    seed: int,
    row: str,
) -> list[dict[str, Any]]:
    """Return the rows of one polynomial, one for each estimator and target."""
    found: list[dict[str, Any]] = []
    for text in estimators:
        estimator = parse(text)
        targets: dict[str, Truth] = {GIBBS: on.gradient}
        law: DistributionOf = on.distribution
        if text == TOP_K:
            here = law(on.parameters)
            if not isinstance(here, KSubset):
                continue
            law = partial(WithoutReplacement, k=here.k)
            targets = {REPLACED: Structured(on.f, on.parameters, law).gradient}
        if text == IMLE:
            assert own is not None
            targets = {
                OWN: own.gradient(on.f, float(on.value), on.parameters.shape),
                GIBBS: on.gradient,
            }
        is_exact = text in EXACT
        if is_exact:
            moments = on.moments(estimator)
        else:
            given = (on.f, on.parameters, draws, seed)
            moments = monte_carlo(estimator, *given, distribution=law, row=row)
        how = {
            "method": "exact" if is_exact else "monte carlo",
            "draws": None if is_exact else draws,
        }
        named = {"estimator": text, "series": estimator.series, "tau": estimator.temperature_value}
        for target, truth in targets.items():
            measured = measure(moments, truth)
            kept = ("truth2", "bias2", "variance")
            numbers = {k: measured[k] for name in kept for k in (name, f"{name}_se")}
            found.append(named | how | {"target": target} | numbers)
    return found
