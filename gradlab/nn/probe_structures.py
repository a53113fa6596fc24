"""What a probe measures at a layer whose x is a structure: subsets, permutations, trees, chains.

The truth is enumerated where the states of one element are few; estimators are measured by draws of
what trains, all elements of the batch together.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from gradlab.comparison.measuring import measure
from gradlab.distributions.base import FiniteDistribution, with_gradient
from gradlab.distributions.gradient import base_of
from gradlab.estimators import Estimator, LearnedBaseline
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.finite_states import (
    DistributionOf,
    all_states,
    check_parameters,
    distribution_at,
)
from gradlab.exact.fitting import samples_of
from gradlab.loss import Loss, LossShapeError, NotDifferentiableError, ParameterLoss
from gradlab.loss.contract import weighted_sum
from gradlab.loss.gate import checked_at
from gradlab.moments import Groups, Moments, Truth
from gradlab.nn._relative import relative
from gradlab.reproducible import block_generator
from gradlab.user_code.forms import Place, form_of
from gradlab.user_code.under_test import CodeEstimator

__all__ = ["StructuredLayer", "found_in"]

# States of one element, and numbers of x at all of them, up to which the truth is enumerated.
_STATES, _NUMBERS = 4096, 2**24
# Numbers of the samples of one block.
_BLOCK = 2**19


def found_in(layer: Distribution) -> tuple[Tensor, DistributionOf]:
    """Return the parameters of a distribution, and the function from them to it.

    Args:
        layer: A distribution of gradlab with one parameter, such as `KSubset(logits, k)`.

    Returns:
        The parameters, and the function.

    Raises:
        TypeError: If they cannot be found.

    Example:
        >>> from gradlab.distributions import KSubset
        >>> logits, of = found_in(KSubset(torch.zeros(8, 5), k=2))
        >>> of(logits + 1)
        KSubset(logits: [8, 5], k=2)
    """
    if not isinstance(layer, FiniteDistribution) or len(layer.parameters) != 1:
        raise TypeError(
            f"the parameters of {type(layer).__name__} cannot be found: give logits [B, ...] and "
            "distribution=, a function from them to the distribution"
        )

    ((name, axes),) = layer.parameters.items()
    known: FiniteDistribution = layer

    def of(logits: Tensor) -> Distribution:
        made = copy.copy(known)
        setattr(made, name, logits)
        batch, event = logits.shape[: logits.ndim - axes], known.event_shape
        FiniteDistribution.__init__(made, batch, event, known.estimator, validate_args=False)
        return made

    return getattr(layer, name), of


@dataclass(frozen=True)
class StructuredLayer:
    """The losses of a batch, [B, ...] parameters, and what x is drawn from.

    Args:
        f: The loss of each element, x [..., B, *shape of x] -> [..., B].
        logits: The parameters [B, ...].
        distribution: From parameters [..., B, ...] to a distribution of batch shape [..., B].

    Raises:
        ValueError: If the distribution does not take a batch, or has no finite support.
        LossError: If f breaks its contract.
    """

    f: Loss
    logits: Float[Tensor, "*shape"]
    distribution: DistributionOf

    def __post_init__(self) -> None:
        if isinstance(self.f, ParameterLoss):
            raise ValueError(
                "f(x, parameters) at a structured layer is not probed yet: take the terms that see "
                "the parameters out of f"
            )
        check_parameters(self.logits)
        drawn = distribution_at(self.distribution, self.logits.detach())
        if drawn.batch_shape != self.logits.shape[:1]:
            raise ValueError(
                "the distribution must have one element for each row of the parameters: batch "
                f"shape {list(self.logits.shape[:1])}, not {list(drawn.batch_shape)}"
            )
        x = self.sample(12, block_generator(0, "states of a layer"))
        checked_at(self._total, x.flatten(1).unsqueeze(1), self.logits)

    def _total(self, x: Tensor) -> Tensor:
        shaped = x.reshape(*x.shape[:-2], len(self.logits), *self.shape)
        values = self.f(shaped)
        wanted = [*x.shape[:-2], len(self.logits)]
        if isinstance(values, Tensor) and list(values.shape) != wanted:
            raise LossShapeError(
                f"f must return one value for each element: shape {wanted} for x of shape "
                f"{list(shaped.shape)}, not {list(values.shape)}"
            )
        return values.sum(-1)

    @cached_property
    def shape(self) -> torch.Size:
        """The shape of one x."""
        return distribution_at(self.distribution, self.logits.detach()).event_shape

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "*samples"]:
        """Return n samples of the whole batch, in the dtype of the parameters."""
        drawn = self.distribution(self.logits.detach())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return drawn.sample((n,)).to(self.logits)

    def gradient(self) -> Float[Tensor, "*shape"] | None:
        """Return the true gradient by enumeration, float64; None where states are too many."""
        one = distribution_at(self.distribution, self.logits[:1].detach())
        try:
            states = all_states(base_of(one))[:, 0]
        except TooLargeError:
            return None
        numbers = len(states) * self.logits.shape[0] * self.shape.numel()
        if len(states) > _STATES or numbers > _NUMBERS:
            return None
        x = states.unsqueeze(1).expand(-1, len(self.logits), *states.shape[1:])
        with torch.no_grad():
            values = self.f(x.to(self.logits)).to(torch.float64)
        theta = self.logits.detach().to(torch.float64).requires_grad_()
        with torch.enable_grad():
            log_prob = self.distribution(theta).log_prob(x.to(torch.float64))
            p = log_prob.detach().exp()
            weight = torch.where(p > 0, p * (values - (p * values).sum(0)), 0.0)
            (found,) = torch.autograd.grad(weighted_sum(log_prob, weight), theta)
        return found

    def why_not(self, estimator: Estimator) -> str | None:
        """Return why an estimator cannot be measured here, or None."""
        known = estimator.line_alpha is not None or self._weights(estimator, 2) is not None
        if known or isinstance(estimator, CodeEstimator):
            return None
        return (
            f"{estimator} is not known where x is drawn from a distribution; use ST, ZGR, DARN, "
            "ST-ZGR(alpha=...), REINFORCE or RF(m=...)"
        )

    def _weights(self, estimator: Estimator, m: int, values: Tensor | None = None) -> Any:
        """Return the weights of the scores of m samples, or None where they are not known."""
        values = torch.zeros(m, 1) if values is None else values
        if isinstance(estimator, LearnedBaseline):
            return None if estimator.weights else values
        return estimator.score_weights(values)

    def draws(self, estimator: Estimator, n: int, generator: Generator) -> Tensor:
        """Return n estimates [n, B, *parameters] of what trains.

        Args:
            estimator: ST, ZGR, DARN, ST-ZGR, a score function, or code of the user's.
            n: The number of draws.
            generator: The source of the randomness.

        Raises:
            NotDifferentiableError: If it needs a gradient that f does not have.
        """
        if isinstance(estimator, CodeEstimator):
            return self._of_code(estimator, n, generator)
        m = samples_of(estimator)
        x = self.sample(n * m, generator)
        leaf = self.logits.detach().expand(n, *self.logits.shape).clone().requires_grad_()
        with torch.enable_grad():
            if estimator.line_alpha is not None:
                values = self.f(with_gradient(self.distribution(leaf), x, estimator.line_alpha))
                if not values.requires_grad:
                    raise NotDifferentiableError
            else:
                with torch.no_grad():
                    of_samples = self.f(x).unflatten(0, (m, n))
                drawn = self.distribution(leaf)
                scores = torch.stack([drawn.log_prob(part) for part in x.unflatten(0, (m, n))])
                values = self._weights(estimator, m, of_samples) * scores
            (g,) = torch.autograd.grad(values.sum(), leaf)
        return g

    def _of_code(self, estimator: CodeEstimator, n: int, generator: Generator) -> Tensor:
        def some(count: int, source: Generator) -> Tensor:
            return self.sample(count, source)[:, 0]

        place = Place(self.logits.ndim - 1, self.shape, some, self.distribution, True)
        form = form_of(estimator.drawn.code, place=place)
        if form.surrogate is None:
            raise ValueError(
                f"{estimator} returns draws only; for a batch give surrogate(f, logits, generator) "
                "or sample(logits, generator)"
            )
        return form.source(self.f, self.logits.detach(), n, generator)

    def moments(self, estimator: Estimator, draws: int, seed: int, name: str) -> Moments:
        """Return the moments of what trains over so many draws.

        Args:
            estimator: The estimator.
            draws: The number of draws.
            seed: Of the draws.
            name: What the random numbers are for.

        Returns:
            The moments, of all elements together.
        """
        each = self.logits.numel() + len(self.logits) * self.shape.numel()
        size = max(1, _BLOCK // (each * samples_of(estimator)))
        total: Groups | None = None
        for start in range(0, draws, size):
            n = min(size, draws - start)
            g = self.draws(estimator, n, block_generator(seed, name, start // size))
            groups = Groups.from_draws(g.detach().to("cpu", torch.float64))
            total = groups if total is None else total.merge(groups)
        assert total is not None
        return Moments.from_groups(total)

    def rows(
        self,
        estimators: Sequence[Estimator],
        reference: Estimator,
        about: Callable[[Estimator], dict[str, Any]],
        draws: int,
        reference_draws: int,
        seed: int,
        step: int,
    ) -> Iterator[dict[str, Any]]:
        """Yield one row per estimator, all by draws.

        Args:
            estimators: What is measured.
            reference: Measures the truth where the states are too many.
            about: The columns that name an estimator and say what it costs.
            draws: Of each estimator.
            reference_draws: Of the reference.
            seed: Of the draws.
            step: The number of the optimizer step.
        """
        truth: Truth | None = self.gradient()
        source = "enumeration"
        if truth is None:
            truth = self.moments(reference, reference_draws, seed, f"probe {step} reference")
            source = f"{reference}, {reference_draws:,} draws"
        for estimator in estimators:
            row = about(estimator) | {"truth": source, "reason": None}
            started = time.perf_counter()
            try:
                reason = self.why_not(estimator)
                if reason is not None:
                    raise ValueError(reason)
                found = self.moments(estimator, draws, seed, f"probe {step} {estimator}")
                row |= {"method": "monte carlo", "draws": draws} | measure(found, truth)
                row |= relative(row)
            except ValueError as fault:
                row["reason"] = str(fault)
            yield row | {"seconds": time.perf_counter() - started}
