"""The ladder of a distribution: random polynomials in the coordinates of x, then other functions.

A bias is linear in f. Where it is 0 on a random polynomial of a degree, it is 0 on all of them, but
for a chance of 0. Each is tried at the parameters given; what is enumerated also at others.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.exact.finite_states import DistributionOf, check_parameters, distribution_at
from gradlab.exact.moments import NotExactError
from gradlab.exact.sampled_structures import SampledStructure, structured_or_sampled
from gradlab.exact.structures import Structured
from gradlab.progress import tracked
from gradlab.reproducible import seeded
from gradlab.user_code.on_structures import draws_on, why_not_on
from gradlab.user_code.under_test import Code, batched
from gradlab.verification.ladder import Ladder
from gradlab.verification.monomials import MonomialCheck, monomial_check
from gradlab.verification.of_structures import verify_on

__all__ = ["STRUCTURE_RUNGS", "RandomFunction", "StructureRung", "ladder_on", "structure_rungs"]

STRUCTURE_RUNGS = {
    "constant": 0,
    "linear": 1,
    "quadratic": 2,
    "cubic": 3,
    "mlp": math.inf,
    "table": math.inf,
}
"""The losses by their degree in all coordinates of x together; a table has no gradient."""

_TERMS, _HIDDEN = 3, 8
_GIVEN = "as given"


@dataclass(frozen=True)
class RandomFunction:
    """A random function of x: polynomials of one degree and below, a small network, or a table.

    .. math:: f(x) = c_0 + \\sum_d \\sum_r \\prod_{i \\le d} a_{dri} \\cdot x

    Args:
        kind: A name in `STRUCTURE_RUNGS`.
        shape: The shape of x.
        seed: Of the coefficients.

    Example:
        >>> RandomFunction("quadratic", torch.Size([4]))(torch.zeros(2, 4)).shape
        torch.Size([2])
    """

    kind: str
    shape: torch.Size
    seed: int = 0
    weights: tuple[Tensor, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        source = seeded(f"{self.kind} of {list(self.shape)}", self.seed)
        size = self.shape.numel()

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=source, dtype=torch.float64)

        weights: tuple[Tensor, ...]
        if math.isinf(self.degree):
            weights = (normal(_HIDDEN, size), normal(_HIDDEN))
        else:
            # So long that a product of d factors is of the size of 1.
            weights = tuple(
                normal(_TERMS, d, size) / math.sqrt(max(1, size) ** 0.5)
                for d in range(1, int(self.degree) + 1)
            )
        object.__setattr__(self, "weights", weights)

    @property
    def name(self) -> str:
        """What it is called in rows and verdicts."""
        return self.kind

    @property
    def degree(self) -> float:
        """The degree in all coordinates of x together."""
        return STRUCTURE_RUNGS[self.kind]

    def __call__(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "..."]:
        """Return f(x), x [..., *shape] -> [...]."""
        z = x.reshape(*x.shape[: x.ndim - len(self.shape)], -1)
        if math.isinf(self.degree):
            first, last = (w.to(z) for w in self.weights)
            hidden = z @ first.T
            values = (torch.tanh(hidden) if self.kind == "mlp" else torch.sin(3 * hidden)) @ last
            return values if self.kind == "mlp" else values.detach()
        total = z.sum(-1) * 0 + 0.7
        for w in self.weights:
            total = total + torch.einsum("...j,rdj->...rd", z, w.to(z)).prod(-1).sum(-1)
        return total


@dataclass(frozen=True, eq=False)
class StructureRung:
    """One loss at some parameters of a distribution: a `Rung` of its ladder."""

    kind: str
    regime: str
    on: Structured
    site: None = None

    @property
    def degree(self) -> float:
        """Degree of the loss in x."""
        return STRUCTURE_RUNGS[self.kind]

    @property
    def dtype(self) -> str:
        """The dtype of the parameters."""
        return str(self.on.objective.dtype).removeprefix("torch.")

    @property
    def drawn(self) -> bool:
        """Whether draws are made here: at the parameters given."""
        return self.regime == _GIVEN


def structure_rungs(
    distribution: DistributionOf, logits: Float[Tensor, "*parameters"], seed: int = 0
) -> list[StructureRung]:
    """Return the rungs of a distribution: each loss at the parameters given, and at others.

    Args:
        distribution: From parameters to the distribution.
        logits: The parameters.
        seed: Of the losses, and of other parameters: twice normal numbers, and zeros.

    Returns:
        The rungs; those at parameters that the distribution refuses are left out.

    Raises:
        TypeError, ValueError: As `gradlab.exact.structures.Structured`.
    """
    check_parameters(logits)
    drawn = distribution_at(distribution, logits.detach())
    shape = drawn.batch_shape + drawn.event_shape
    losses = [RandomFunction(kind, shape, seed) for kind in STRUCTURE_RUNGS]
    found = [
        StructureRung(f.kind, _GIVEN, structured_or_sampled(f, logits, distribution)[0])
        for f in losses
    ]
    for regime, at in _others(logits, seed):
        with suppress(ValueError, TypeError):
            found += [
                StructureRung(f.kind, regime, Structured(f, at, distribution)) for f in losses
            ]
    return found


def _others(logits: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    source = seeded(f"parameters {list(logits.shape)}", seed)
    normal = torch.randn(logits.shape, generator=source, dtype=torch.float64)
    yield "twice normal", (2 * normal).to(logits)
    yield "zero", torch.zeros_like(logits.detach())


def ladder_on(
    code: Code,
    distribution: DistributionOf | None,
    logits: Float[Tensor, "*parameters"] | None,
    *,
    alpha: float,
    progress: bool = False,
    **options: Any,
) -> Ladder:
    """Return the ladder of code on a distribution; see `gradlab.verify_order`.

    Args:
        code: The estimator, or your own code as `draws_on` reads it.
        distribution: From parameters to the distribution.
        logits: The parameters.
        alpha: What all trials by draws share.
        progress: Whether a bar is shown.
        **options: Further options of `gradlab.verify`.

    Returns:
        The ladder.

    Raises:
        TypeError: If the distribution or its parameters are missing.
    """
    if distribution is None or logits is None:
        raise TypeError("give both distribution= and logits=, its parameters")
    rungs = structure_rungs(distribution, logits, options["seed"])
    options |= {"alpha": alpha / len(STRUCTURE_RUNGS), "draws": None, "progress": False}
    drawn = draws_on(code, rungs[0].on)
    named = drawn if options["batch"] is None else batched(drawn, options["batch"])
    pairs = []
    for rung in tracked(rungs, drawn.name, "rungs", shown=progress):
        name = rung.kind if rung.drawn else f"{rung.kind}, parameters {rung.regime}"
        method = "auto" if rung.drawn else "exact"
        with suppress(NotExactError):
            pairs.append((rung, verify_on(code, rung.on, problem=name, method=method, **options)))
    against = options["against"]
    wanted = "" if against is None else draws_on(against, rungs[0].on).name
    return Ladder(
        named.name,
        drawn.order,
        tuple(rung for rung, _ in pairs),
        tuple(verdict for _, verdict in pairs),
        _static(drawn.estimator, rungs[0].on),
        wanted,
        distribution=repr(distribution_at(distribution, logits.detach())),
    )


def _static(estimator: Any, on: Structured) -> MonomialCheck | None:
    if estimator is None or isinstance(on, SampledStructure) or why_not_on(estimator, on):
        return None
    return monomial_check(estimator, on)
