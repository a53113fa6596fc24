"""One categorical variable with any pathwise estimator behind `rsample`."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Size, Tensor
from torch.distributions import OneHotCategorical as _OneHotCategorical

from gradlab.categorical import probabilities
from gradlab.estimators import Estimator, PathwiseEstimator, parse
from gradlab.samples import draw_one_hot

__all__ = ["OneHotCategorical"]


class OneHotCategorical(_OneHotCategorical):
    r"""One-hot x ~ Categorical(softmax(logits)) whose `rsample` has the gradient of an estimator.

    .. math:: x \sim p = softmax(logits), \qquad x.backward(v) = M(x)\,v

    It stands wherever code asks for `rsample`. `log_prob` is linear in x, so that an ELBO which
    differentiates it through x has its whole gradient; torch's own looks the class up, and has
    none. In a Pyro guide it takes Pyro's mixin, see docs/how-to/structures.md.

    Args:
        logits: Unnormalized log-probabilities [*batch, C]; -inf masks a class.
        estimator: A pathwise estimator, or its text: "ZGR", "GR(tau=0.5, k=10)", ...
        validate_args: Whether values given to `log_prob` are checked.

    Raises:
        TypeError: The estimator does not back-propagate through x.
        ValueError: The estimator is not known, or cannot have logits of this shape.

    Example:
        >>> OneHotCategorical(torch.zeros(3), "GS-ST(tau=0.5)").rsample().sum()
        tensor(1.)
    """

    has_rsample = True

    def __init__(
        self,
        logits: Float[Tensor, "*batch C"],
        estimator: str | Estimator = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        found = parse(estimator) if isinstance(estimator, str) else estimator
        if not isinstance(found, PathwiseEstimator):
            raise TypeError(
                f"{found} has no gradient through x, which rsample needs; use a pathwise estimator "
                "such as ZGR, or its surrogate"
            )
        found.accepted(logits)
        self.estimator = found
        # torch's own class normalizes by log_softmax and refuses -inf in its check of logits.
        super().__init__(logits=logits, validate_args=False)
        if validate_args is not None:
            self._validate_args = validate_args

    def sample(
        self, sample_shape: Sequence[int] = Size(), generator: Generator | None = None
    ) -> Tensor:
        """Return samples [*sample, *batch, C] without a gradient.

        Args:
            sample_shape: The shape of independent samples.
            generator: The source of the randomness; torch's global generator by default.
        """
        with torch.no_grad():
            p = probabilities(self.logits)
            n = Size(sample_shape).numel()
            return draw_one_hot(p, generator, n).reshape(self._extended_shape(Size(sample_shape)))

    def rsample(
        self, sample_shape: Sequence[int] = Size(), generator: Generator | None = None
    ) -> Tensor:
        """Return samples with the gradient of the estimator; see `sample`."""
        logits = self.logits.expand(self._extended_shape(Size(sample_shape)))
        return self.estimator.sample(logits, generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) [*sample, *batch] = sum_c x_c log p_c, differentiable in x and logits.

        Args:
            value: One-hot x [*sample, *batch, C].
        """
        if self._validate_args:
            self._validate_sample(value)
        masked = self.logits.isneginf()  # the logits are normalized by torch's class
        found = (value * self.logits.masked_fill(masked, 0.0)).sum(-1)
        return found.masked_fill(((value != 0) & masked).any(-1), -torch.inf)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "OneHotCategorical":
        """Return this distribution over a larger batch."""
        new = self._get_checked_instance(OneHotCategorical, _instance)
        new.estimator = self.estimator
        return super().expand(Size(batch_shape), _instance=new)

    def __repr__(self) -> str:
        return f"OneHotCategorical(logits: {list(self.logits.shape)}, estimator={self.estimator})"
