"""What a distribution of x must be: finitely many states, log-probabilities that sum to 1.

Faults are named here, whichever verb meets them.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from gradlab.distributions.base import FiniteDistribution
from gradlab.distributions.gradient import base_of
from gradlab.exact.enumeration import TooLargeError
from gradlab.loss.contract import weighted_sum
from gradlab.samples import configurations_at

__all__ = [
    "DistributionOf",
    "all_states",
    "check_parameters",
    "check_sums",
    "distribution_at",
    "log_prob_at",
    "samples_at",
]

DistributionOf = Callable[[Any], Distribution]
"""From the parameters to what x is drawn from."""

_ELEMENTS = 2**27
_MAX_STATES = 2**20
# How far a sum of probabilities may be from 1: float32 constants may have gone into it.
_OFF = 1e-6


def check_parameters(parameters: Tensor) -> None:
    """Raise ValueError where parameters hold NaN or +inf; -inf forces a part out.

    Args:
        parameters: What the distribution depends on.

    Raises:
        ValueError: If one of them is NaN or +inf.

    Example:
        >>> check_parameters(torch.tensor([0.0, -torch.inf]))
    """
    if bool(parameters.isnan().any()):
        raise ValueError("the parameters hold NaN")
    if bool((parameters == torch.inf).any()):
        raise ValueError(
            "the parameters hold +inf; force a part in by setting what competes with it to -inf"
        )


def distribution_at(of: DistributionOf, parameters: Tensor) -> Distribution:
    """Return the distribution at some parameters, after a check of its kind.

    Args:
        of: From the parameters to the distribution.
        parameters: The parameters.

    Returns:
        The distribution.

    Raises:
        TypeError: If it is no distribution.
        ValueError: If it has no finite support.

    Example:
        >>> distribution_at(lambda p: torch.distributions.Bernoulli(logits=p), torch.zeros(2))
        Bernoulli(logits: torch.Size([2]))
    """
    _check_function(of, parameters)
    found = of(parameters)
    if not isinstance(found, Distribution):
        raise TypeError(
            "distribution must return a torch.distributions.Distribution, not "
            f"{type(found).__name__}"
        )
    if not base_of(found).has_enumerate_support:
        raise ValueError(
            f"{type(base_of(found)).__name__} has no finite support that can be enumerated; "
            "use a distribution with enumerate_support, or gradlab.distributions.Finite"
        )
    return found


def _check_function(of: DistributionOf, parameters: Any) -> None:
    """Raise TypeError unless `of` can be called with the parameters alone."""
    form = "distribution must be a function from the parameters to a torch Distribution, such as "
    if isinstance(of, Distribution):
        raise TypeError(f"{form}lambda p: {type(of).__name__}(p, ...), not a {type(of).__name__}")
    if not callable(of):
        raise TypeError(f"{form}lambda p: KSubset(p, 3), not {of!r}")
    try:
        inspect.signature(of).bind(parameters)
    except TypeError as error:
        name = getattr(of, "__name__", type(of).__name__)
        raise TypeError(
            f"{form}lambda p: KSubset(p, 3); {name} cannot be called with the parameters alone "
            f"({error}). Several tensors come as one tuple: lambda p: Chain(*p)"
        ) from None
    except ValueError:  # it has no signature
        pass


def log_prob_at(distribution: Distribution, x: Tensor) -> Tensor:
    """Return log p of each x [n], all elements of the batch together.

    Args:
        distribution: The distribution.
        x: Samples [n, *batch, *event].

    Returns:
        The log-probabilities [n], float64.

    Example:
        >>> bits = torch.distributions.Bernoulli(logits=torch.zeros(3))
        >>> log_prob_at(bits, torch.ones(2, 3)).exp()
        tensor([0.1250, 0.1250], dtype=torch.float64)
    """
    return base_of(distribution).log_prob(x).to(torch.float64).reshape(len(x), -1).sum(-1)


def samples_at(distribution: Distribution, n: int, generator: Generator) -> Tensor:
    """Return n samples [n, *batch, *event] of a distribution.

    Args:
        distribution: The distribution.
        n: The number of samples.
        generator: The source of the randomness.

    Returns:
        The samples.

    Example:
        >>> bits = torch.distributions.Bernoulli(logits=torch.zeros(3))
        >>> samples_at(bits, 2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3])
    """
    if isinstance(distribution, FiniteDistribution):
        return distribution.sample((n,), generator)
    # torch's own distributions draw from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        return distribution.sample((n,))


def all_states(distribution: Distribution) -> Tensor:
    """Return all states [S, *batch, *event], of which elements of the batch are independent.

    Args:
        distribution: The distribution.

    Returns:
        The states.

    Raises:
        TooLargeError: If there are more than 2^20, or they do not fit in memory.

    Example:
        >>> all_states(torch.distributions.Bernoulli(logits=torch.zeros(3))).shape
        torch.Size([8, 3])
    """
    base = base_of(distribution)
    try:
        support = base.enumerate_support(expand=False)
    except ValueError as error:
        if not isinstance(base, FiniteDistribution):
            raise
        raise TooLargeError(str(error)) from None
    elements = base.batch_shape.numel()
    event = support.reshape(len(support), *base.event_shape)
    count = len(support) ** elements if elements * math.log(len(support)) < 100 else math.inf
    numbers = count * elements * max(1, base.event_shape.numel())
    if count > _MAX_STATES or numbers > _ELEMENTS:
        raise TooLargeError(
            f"{elements} independent elements of {len(support)} states have about {count:.2g} "
            f"states together, more than the {_MAX_STATES} that are enumerated; draw instead"
        )
    every = [torch.arange(len(support))] * elements
    index = configurations_at(torch.arange(int(count)), every)
    return event[index].reshape(int(count), *base.batch_shape, *base.event_shape)


def check_sums(p: Tensor, parameters: Tensor, log_prob: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError unless probabilities sum to 1, also near these parameters.

    Args:
        p: The probabilities of all states, in the dtype in which they are computed.
        parameters: The parameters.
        log_prob: From parameters to the log-probabilities of all states.

    Raises:
        ValueError: If they do not sum to 1, or log_prob is not differentiable.

    Example:
        >>> theta = torch.tensor([0.0, 1.0])
        >>> check_sums(theta.softmax(-1), theta, lambda theta: theta.log_softmax(-1))
    """
    allowed = max(_OFF, 1e3 * torch.finfo(p.dtype).eps)
    if not abs(float(p.sum()) - 1) < allowed:
        raise ValueError(
            f"the probabilities of all states sum to {float(p.sum()):.6g}, not 1: log_prob is not "
            "normalized over enumerate_support()"
        )
    with torch.enable_grad():
        theta = parameters.detach().requires_grad_()
        found = log_prob(theta)
        if not found.requires_grad:
            raise ValueError(
                "log_prob is not differentiable in the parameters: does the distribution detach "
                "them, or not use them?"
            )
        (mean_score,) = torch.autograd.grad(weighted_sum(found, p.to(found.dtype)), theta)
    if not float(mean_score.abs().max()) < allowed:
        raise ValueError(
            "the probabilities sum to 1 at these parameters only: the mean of the score is "
            f"{float(mean_score.abs().max()):.2g}, not 0. Normalize log_prob by torch operations "
            "on the parameters"
        )
