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

from gradlab.distributions.gradient import alpha_of, with_gradient
from gradlab.distributions.natural import finite_log
from gradlab.estimators import Estimator, parse
from gradlab.estimators.structured import NoisyEstimator, StructureEstimator

__all__ = ["ExponentialFamily", "FiniteDistribution"]

Own = TypeVar("Own", bound="FiniteDistribution")

# Elements of the buffers with which samples are drawn at once.
_ELEMENTS = 2**23


class FiniteDistribution(Distribution):
    r"""A `torch.distributions.Distribution` with finitely many states, and a gradient of samples.

    `rsample` returns x whose backward is the product that `with_gradient` displays.

    Samples come from torch's global generator, as in torch.distributions, unless `generator` is
    given. I-MLE, and on `WithoutReplacement` TopK and TopK-ST, bring samples of their own.

    Args:
        batch_shape: The shape of the batch.
        event_shape: The shape of one x.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked, as in torch.distributions.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True
    has_enumerate_support = True
    # What the law of x is called, for estimators that know one law only.
    law: ClassVar[str] = "a table of states"
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
        self._rule = _rule_of(estimator, self)
        super().__init__(Size(batch_shape), Size(event_shape), validate_args=validate_args)

    def _check_detached(self, value: Tensor) -> None:
        """Raise ValueError if x carries a gradient where log_prob looks it up."""
        if value.requires_grad:
            raise ValueError(
                f"log_prob of {type(self).__name__} has no derivative in x, so a loss that holds "
                "it would lose a part of its gradient: give x.detach(), and take entropy() for "
                "what is averaged"
            )

    @abstractmethod
    def _states(self) -> Tensor:
        """Return all states [S, *event]."""

    @abstractmethod
    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        """Return n samples [n, *batch, *event] without a gradient."""

    def _numbers_per_draw(self) -> int:
        """Return about how many numbers one sample of the whole batch needs."""
        return self._extended_shape().numel()

    @property
    def natural(self) -> tuple[Tensor, ...]:
        """The parameters, -inf replaced by a number so low that its part has probability 0."""
        return tuple(finite_log(getattr(self, name)) for name in self.parameters)

    def statistics(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what each of the parameters multiplies in theta . phi(x); x is the first."""
        return (x,)

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
        """Return samples whose backward is the product of `estimator`; see `sample`.

        That of ST, ZGR and DARN is in `with_gradient`. I-MLE, TopK and TopK-ST draw from their own
        noise, so from the law that they declare.
        """
        if isinstance(self._rule, NoisyEstimator):
            natural = [t.expand(Size(sample_shape) + t.shape) for t in self.natural]
            return self._rule.sample_structure(self, natural, generator)  # type: ignore[arg-type]
        assert self._rule.line_alpha is not None
        return with_gradient(self, self.sample(sample_shape, generator), self._rule.line_alpha)

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


def _rule_of(estimator: str, distribution: Distribution) -> Estimator:
    """Return the estimator of `rsample`, or raise ValueError with the reason why it cannot be."""
    found = parse(estimator) if isinstance(estimator, str) else estimator
    if isinstance(found, StructureEstimator | NoisyEstimator):
        reason = found.structure_refusal(distribution)
        if reason is not None:
            raise ValueError(reason)
    else:
        alpha_of(found)
    return found


class ExponentialFamily(FiniteDistribution):
    r"""A structure of 0 and 1 with natural parameters: p(x) = exp(theta . x - A(theta)).

    A subclass has the log-partition, as sums and products of positive numbers in the log domain:
    so A, its gradient (the mean) and its second derivative (the covariance) keep their digits.
    """

    law: ClassVar[str] = "exponential family"

    @abstractmethod
    def _log_partition(self, *parameters: Tensor) -> Tensor:
        """Return A [*batch] of finite natural parameters."""

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor:
        """Return theta . x, -inf where x has a part that is forced out."""

    @abstractmethod
    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the x [..., *event] with the largest sum of weights, one tensor per parameter."""

    @property
    def mode(self) -> Tensor:
        """The most probable x, [*batch, *event]."""
        return self.maximizer(*(t.detach() for t in self.natural))

    @property
    def log_partition(self) -> Tensor:
        """A [*batch], the logarithm of the sum of exp(theta . x) over all states."""
        return self._log_partition(*self.natural)

    @property
    def mean(self) -> Tensor:
        """The marginals E x [*batch, *event], differentiable in the parameters."""
        return self.means()[0]

    @property
    def variance(self) -> Tensor:
        """The variance of each entry of x, [*batch, *event]."""
        mean = self.mean
        return mean * (1 - mean)

    def means(self) -> list[Tensor]:
        """Return the gradient of A in each of the parameters."""
        natural = self.natural
        on_graph = torch.is_grad_enabled() and any(t.requires_grad for t in natural)
        with torch.enable_grad():
            inputs = [t if t.requires_grad else t.detach().requires_grad_() for t in natural]
            total = self._log_partition(*inputs).sum()
            means = torch.autograd.grad(
                total, inputs, create_graph=on_graph, materialize_grads=True
            )
        return [m if on_graph else m.detach() for m in means]

    def mean_and_log_weight(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, and log p(x) up to a number that does not depend on the parameters."""
        means = self.means()
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
        return self.log_partition - self._linear(self.means())
