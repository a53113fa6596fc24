r"""Distributions with finitely many states, and the gradient through their samples.

.. math:: p(x) = \exp(\theta \cdot x - A(\theta)), \qquad \mu = E\,x = \nabla A(\theta)

A structure says how to compute A and how to draw x; the mean follows by automatic differentiation.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Generator, Size, Tensor
from torch.distributions import Distribution, Independent, constraints

from gradlab.estimators import Estimator, parse

__all__ = [
    "ExponentialFamily",
    "FiniteDistribution",
    "alpha_of",
    "check_natural",
    "lowest",
    "mean_and_log_prob",
    "with_gradient",
]

Own = TypeVar("Own", bound="FiniteDistribution")

# Elements of the buffers with which samples are drawn at once.
_ELEMENTS = 2**23


def alpha_of(estimator: str | Estimator) -> float:
    r"""Return alpha of the line (1 - alpha/2) ST + (alpha/2) DARN on which an estimator lies.

    Args:
        estimator: ST (0), ZGR (1), DARN (2) or ST-ZGR(alpha=...), or its text.

    Returns:
        alpha, a number.

    Raises:
        ValueError: The estimator is not on this line, so its product is not known for structures.

    Example:
        >>> alpha_of("ST-ZGR(alpha=0.5)")
        0.5
    """
    found = parse(estimator) if isinstance(estimator, str) else estimator
    if found.line_alpha is None:
        raise ValueError(
            f"{found} is not known for samples of a structure; use ST, ZGR, DARN or "
            "ST-ZGR(alpha=...)"
        )
    return found.line_alpha


def with_gradient(distribution: Distribution, x: Tensor, alpha: float = 1.0) -> Tensor:
    r"""Return samples x whose backward is the product of ST, ZGR or DARN for this distribution.

    .. math:: M(x)\,v = (1 - \alpha/2)\,(\partial\mu/\partial\theta)^T v
              + (\alpha/2)\,\bigl((x - \mu) \cdot v\bigr)\,\nabla_\theta \log p(x)

    Exact for f of degree 1 in x, and for quadratic f at alpha = 1 (ZGR), whatever the distribution.
    For independent x and y with scores s the gradient of E f is E (f(x) - f(y)) (s(x) - s(y)) / 2,
    and the trapezoid rule for f(x) - f(y) is exact on quadratics. Elements of the batch are
    independent, each with its own product. Costs two backward passes.

    Args:
        distribution: A distribution with differentiable `log_prob` and `mean`.
        x: Samples [*sample, *batch, *event].
        alpha: Place on the line: 0 is ST, 1 ZGR, 2 DARN.

    Returns:
        The same values; their backward reaches the parameters.

    Example:
        >>> logits = torch.zeros(3, requires_grad=True)
        >>> family = torch.distributions.OneHotCategorical(logits=logits)
        >>> with_gradient(family, torch.tensor([1.0, 0.0, 0.0]))[0].backward()
        >>> logits.grad
        tensor([ 0.3333, -0.1667, -0.1667])
    """
    mean, log_prob = mean_and_log_prob(distribution, x)
    if not (mean.requires_grad or log_prob.requires_grad):
        return x
    away = (x - mean).detach()
    score = log_prob - log_prob.detach()
    score = score.reshape(score.shape + (1,) * (x.ndim - score.ndim))
    # Both terms are 0, and exactly so; what they add is their gradient.
    return x + (1 - alpha / 2) * (mean - mean.detach()) + alpha / 2 * away * score


def mean_and_log_prob(distribution: Distribution, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean, and log p(x) up to a number that does not depend on the parameters.

    Args:
        distribution: A distribution with finitely many states.
        x: Samples [*sample, *batch, *event].

    Returns:
        The mean [*batch, *event] and the log-probabilities, one for each independent element:
        those that `torch.distributions.Independent` adds up are kept apart.

    Raises:
        ValueError: The states are not vectors, as those of `torch.distributions.Categorical`.
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    if isinstance(distribution, ExponentialFamily):
        return distribution.mean_and_log_weight(x)
    try:
        mean = distribution.mean
    except NotImplementedError:
        states = distribution.enumerate_support()
        p = distribution.log_prob(states).exp()
        mean = (p.reshape(p.shape + (1,) * len(distribution.event_shape)) * states).sum(0)
    if bool(mean.isnan().any()):
        raise ValueError(
            f"{type(distribution).__name__} has no mean, so a gradient through x means nothing; "
            "use OneHotCategorical, or a score-function estimator such as RF(m=4)"
        )
    return mean, distribution.log_prob(x)


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

    `rsample` returns x whose backward is the product that `with_gradient` displays.

    Samples come from torch's global generator, as in torch.distributions, unless `generator` is
    given.

    Args:
        batch_shape: The shape of the batch.
        event_shape: The shape of one x.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked, as in torch.distributions.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
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
        self._alpha = alpha_of(estimator)
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
        """Return samples whose backward is that of `with_gradient`; see `sample`."""
        return with_gradient(self, self.sample(sample_shape, generator), self._alpha)

    def expand(self: Own, batch_shape: Sequence[int], _instance: Any = None) -> Own:
        """Return this distribution over a larger batch."""
        new = self._get_checked_instance(type(self), _instance)
        vars(new).update(vars(self))
        for name, axes in self.parameters.items():
            values = getattr(self, name)
            own = values.shape[values.ndim - axes :]
            setattr(new, name, values.expand(Size(batch_shape) + own))
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

    def mean_and_log_weight(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, and log p(x) up to a number that does not depend on the parameters."""
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
    return torch.where(values == -torch.inf, lowest(values.dtype), values)


def lowest(dtype: torch.dtype) -> float:
    """Return what stands for -inf in sums: finite, so that gradients are 0 and not NaN.

    Args:
        dtype: A floating-point dtype.

    Returns:
        A number of which hundreds can be added.

    Example:
        >>> lowest(torch.float64) < -1e200
        True
    """
    return -(torch.finfo(dtype).max ** 0.8)
