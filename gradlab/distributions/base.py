r"""Distributions with finitely many states, and the gradient through their samples.

.. math:: p(x) = \exp(\theta \cdot x - A(\theta)), \qquad \mu = E\,x = \nabla A(\theta)

A structure says how to compute A and how to draw x; the mean follows by automatic differentiation.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Generator, Size, Tensor
from torch.distributions import Distribution, constraints

__all__ = ["ExponentialFamily", "FiniteDistribution", "check_natural", "straight_through_share"]

Own = TypeVar("Own", bound="FiniteDistribution")

# Elements of the buffers with which samples are drawn at once.
_ELEMENTS = 2**23

_SHARES = {"ST": 0.0, "ZGR": 1.0, "DARN": 2.0}


def straight_through_share(estimator: str) -> float:
    r"""Return alpha of the line \(1 - \alpha/2) ST + (\alpha/2) DARN on which an estimator lies.

    Args:
        estimator: "ST" (0), "ZGR" (1), "DARN" (2) or "ST-ZGR(alpha=...)"; in any case of letters.

    Returns:
        alpha, a number.

    Raises:
        ValueError: The estimator is not on this line, so it is not known for structures.

    Example:
        >>> straight_through_share("ST-ZGR(alpha=0.5)")
        0.5
    """
    name = str(estimator)
    if name.upper() in _SHARES:
        return _SHARES[name.upper()]
    from gradlab.estimators import STZGR, parse

    try:
        found = parse(name)
    except ValueError as error:
        raise ValueError(f"estimator of a distribution: {error}") from error
    if isinstance(found, STZGR):
        return float(found.alpha)
    raise ValueError(
        f"{found} is not known for samples of a structure; use ST, ZGR, DARN or ST-ZGR(alpha=...)"
    )


def check_natural(name: str, values: Tensor, ndim: int) -> Tensor:
    """Return natural parameters, after a check of what they are.

    Args:
        name: How the argument is called.
        values: Natural parameters; -inf forces a part out.
        ndim: The number of axes of one element of the batch.

    Returns:
        The same tensor.

    Raises:
        TypeError: `values` is not a floating-point tensor.
        ValueError: It has too few axes, or holds NaN or +inf.
    """
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must be a floating-point tensor, not {kind}")
    if values.ndim < ndim:
        raise ValueError(f"{name} must have at least {ndim} axes, not shape {list(values.shape)}")
    if bool(values.isnan().any()):
        raise ValueError(f"{name} holds NaN")
    if bool((values == torch.inf).any()):
        raise ValueError(
            f"{name} holds +inf; force a part in by setting what competes with it to -inf"
        )
    return values


class FiniteDistribution(Distribution):
    r"""A `torch.distributions.Distribution` with finitely many states, and a gradient of samples.

    .. math:: M(x)\,v = (1 - \alpha/2)\,(\partial\mu/\partial\theta)^T v
              + (\alpha/2)\,\bigl((x - \mu) \cdot v\bigr)\,\nabla_\theta \log p(x)

    `rsample` returns x, and this product on the way back. It is exact for f of degree 1 in x, at
    alpha = 1 (ZGR) for quadratic f, whatever the distribution: E f' = E (f(x) - f(y)) (s(x) - s(y))
    / 2 for independent x and y with scores s, and the trapezoid rule is exact on quadratics. It
    costs two backward passes. Derived here; for one categorical it is that of Shekhovtsov 2023
    (ICML, PMLR 202).

    Samples come from torch's global generator, as in torch.distributions, unless `generator` is
    given.

    Args:
        batch_shape: The shape of the batch.
        event_shape: The shape of one x.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked, as in torch.distributions.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}  # type: ignore[misc]
    has_rsample = True
    has_enumerate_support = True
    # Parameters, each with the number of axes of one element of the batch.
    parameters: ClassVar[dict[str, int]]

    def __init__(
        self,
        batch_shape: Sequence[int],
        event_shape: Sequence[int],
        estimator: str = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        self.estimator = estimator
        self._share = straight_through_share(estimator)
        super().__init__(Size(batch_shape), Size(event_shape), validate_args=validate_args)

    @abstractmethod
    def _states(self) -> Tensor:
        """Return all states [S, *event]."""

    @abstractmethod
    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        """Return n samples [n, *batch, *event] without a gradient."""

    def _numbers_per_draw(self) -> int:
        """Return about how many numbers one sample of the whole batch needs."""
        return self._extended_shape().numel()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all states [S, *batch, *event], or with batch axes of 1 where not `expand`."""
        states = self._states()
        states = states.reshape(len(states), *[1] * len(self.batch_shape), *self.event_shape)
        return states.expand(-1, *self.batch_shape, *self.event_shape) if expand else states

    def sample(
        self, sample_shape: Sequence[int] = Size(), generator: Generator | None = None
    ) -> Tensor:
        """Return samples [*sample, *batch, *event] without a gradient.

        Args:
            sample_shape: The shape of independent samples.
            generator: The source of the randomness; torch's global generator by default.
        """
        n = Size(sample_shape).numel()
        at_once = max(1, _ELEMENTS // max(1, self._numbers_per_draw()))
        with torch.no_grad():
            parts = [
                self._drawn(min(at_once, n - start), generator) for start in range(0, n, at_once)
            ]
            shape = self._extended_shape(Size(sample_shape))
            drawn = torch.cat(parts) if parts else self.enumerate_support()[:0]
            return drawn.reshape(shape)

    def rsample(
        self, sample_shape: Sequence[int] = Size(), generator: Generator | None = None
    ) -> Tensor:
        """Return samples whose backward is the displayed product; see `sample`."""
        return self.with_gradient(self.sample(sample_shape, generator))

    def with_gradient(self, x: Tensor) -> Tensor:
        """Return samples x [*sample, *batch, *event] with the displayed product as their gradient.

        Args:
            x: Samples of this distribution.

        Returns:
            The same values; their backward reaches the parameters.
        """
        mean, log_prob = self._mean_and_log_prob(x)
        if not (mean.requires_grad or log_prob.requires_grad):
            return x
        share = self._share / 2
        away = (x - mean).detach()
        score = (log_prob - log_prob.detach()).reshape(
            log_prob.shape + (1,) * len(self.event_shape)
        )
        # Both terms are 0, and exactly so; what they add is their gradient.
        return x + (1 - share) * (mean - mean.detach()) + share * away * score

    def _mean_and_log_prob(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, and log p(x) up to a number that does not depend on the parameters."""
        return self.mean, self.log_prob(x)

    def expand(self: Own, batch_shape: Sequence[int], _instance: Any = None) -> Own:
        """Return this distribution over a larger batch."""
        new = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        for name, axes in self.parameters.items():
            values = getattr(self, name)
            setattr(new, name, values.expand(Size(batch_shape) + values.shape[values.ndim - axes :]))
        FiniteDistribution.__init__(
            new, batch_shape, self.event_shape, self.estimator, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    def __repr__(self) -> str:
        shapes = [f"{name}: {list(getattr(self, name).shape)}" for name in self.parameters]
        return f"{type(self).__name__}({', '.join([*shapes, *self._arguments()])})"

    def _arguments(self) -> list[str]:
        """Return what `repr` shows beside the shapes of the parameters."""
        return [] if self.estimator == "ZGR" else [f"estimator={self.estimator!r}"]


class ExponentialFamily(FiniteDistribution):
    r"""A structure of 0 and 1 with natural parameters: p(x) = exp(theta . x - A(theta)).

    A subclass has the log-partition, as sums and products of positive numbers in the log domain:
    so A, its gradient (the mean) and its second derivative (the covariance) keep their digits.
    """

    @abstractmethod
    def _log_partition(self, *parameters: Tensor) -> Tensor:
        """Return A [*batch] of finite natural parameters."""

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor:
        """Return theta . x, -inf where x has a part that is forced out."""

    @property
    def natural(self) -> tuple[Tensor, ...]:
        """The parameters, -inf replaced by a number so low that its part has probability 0."""
        return tuple(_finite(getattr(self, name)) for name in self.parameters)

    @property
    def log_partition(self) -> Tensor:
        """A [*batch], the logarithm of the sum of exp(theta . x) over all states."""
        return self._log_partition(*self.natural)

    @property
    def mean(self) -> Tensor:
        """The marginals E x [*batch, *event], differentiable in the parameters."""
        return self._means()[0]

    @property
    def variance(self) -> Tensor:
        """The variance of each entry of x, [*batch, *event]."""
        mean = self.mean
        return mean * (1 - mean)

    def _means(self) -> list[Tensor]:
        """Return the gradient of A in each of the parameters."""
        natural = self.natural
        on_graph = torch.is_grad_enabled() and any(t.requires_grad for t in natural)
        with torch.enable_grad():
            inputs = [t if t.requires_grad else t.detach().requires_grad_() for t in natural]
            total = self._log_partition(*inputs).sum()
            means = torch.autograd.grad(total, inputs, create_graph=on_graph)
        return [m if on_graph else m.detach() for m in means]

    def _mean_and_log_prob(self, x: Tensor) -> tuple[Tensor, Tensor]:
        means = self._means()
        # The gradient of A is the mean, which is known: A need not be differentiated once more.
        return means[0], self._score(x) - self._linear([m.detach() for m in means])

    def _linear(self, means: Sequence[Tensor]) -> Tensor:
        """Return theta . mu [*batch]."""
        batch = len(self.batch_shape)
        terms = [
            (values * mean).flatten(batch).sum(-1)
            for values, mean in zip(self.natural, means, strict=True)
        ]
        return torch.stack(terms).sum(0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) [*sample, *batch]; differentiable in the parameters.

        Args:
            value: States [*sample, *batch, *event].
        """
        if self._validate_args:
            self._validate_sample(value)
        return self._score(value) - self.log_partition

    def entropy(self) -> Tensor:
        """Return -E log p(x) = A - theta . mu, [*batch], in nats."""
        return self.log_partition - self._linear(self._means())


def _finite(values: Tensor) -> Tensor:
    """Return the values with -inf replaced by a finite number of which hundreds can be summed."""
    low = -(torch.finfo(values.dtype).max ** 0.8)
    return torch.where(values == -torch.inf, low, values)
