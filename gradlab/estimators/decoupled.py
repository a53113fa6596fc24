"""Straight-through Gumbel-softmax with one temperature for the sample and one for the gradient."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.categorical import (
    check_logits,
    check_one_hot,
    check_tau,
    draw_exponentials,
    draw_one_hot,
    log_noise_ratio,
    log_probabilities,
    masked_logits,
)
from gradlab.estimators._gumbel_product import GumbelEstimator
from gradlab.loss import Loss, gradient

__all__ = ["DecoupledGumbelSoftmaxST"]


@dataclass(frozen=True, repr=False)
class DecoupledGumbelSoftmaxST(GumbelEstimator):
    r"""DGS-ST(forward, tau), straight-through Gumbel-softmax with decoupled temperatures.

    With Gumbel noise G, one for both, added *after* the division:

    .. math:: x = \arg\max (logits / forward + G), \quad y = softmax(logits / \tau + G), \quad
              \hat g = V(y)\,\nabla f(x) / \tau

    where V(y) v = y (v - y.v). forward = tau = 1 is GS-ST(1). Exact for constants only. With
    forward other than 1 the samples follow softmax(logits / forward): the value and the gradient
    are those of another model. (Added before the division, as usual, the noise would leave a hard
    sample without any temperature.) One evaluation. Shah, Yan, Mozer & Liu 2024 (2410.13331).

    Args:
        forward: Temperature of the samples, positive.
        tau: Temperature, positive.

    Example:
        >>> DecoupledGumbelSoftmaxST(forward=1.0, tau=0.5)
        DGS-ST(forward=1, tau=0.5)
    """

    forward: float = 1.0
    tau: float = 0.5

    name: ClassVar[str] = "DGS-ST"
    aliases: ClassVar[tuple[str, ...]] = ("Decoupled-ST-GS",)
    family: ClassVar[str] = "Gumbel noise"
    temperature_field: ClassVar[str | None] = "tau"
    reference: ClassVar[str] = "Shah et al. 2024, arXiv 2410.13331"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.forward, int | float) or not 0 < self.forward < math.inf:
            raise ValueError(f"forward must be a positive finite number, not {self.forward!r}")

    def draw(
        self, f: Loss, logits: Tensor, n: int, generator: Generator | None = None
    ) -> Float[Tensor, "n N C"]:
        """Return n independent estimates; see `Estimator.draw`."""
        x, y = self._pair(check_logits(logits, ndim=2), generator, n, None)
        v = gradient(f, x.to(logits.dtype)).to(x.dtype)
        return self.product(v, [y]).to(logits.dtype)

    def sample(
        self, logits: Tensor, generator: Generator | None = None, x: Tensor | None = None
    ) -> Float[Tensor, "*batch C"]:
        """Return a one-hot x with that backward; see `PathwiseEstimator.sample`."""
        x, y = self._pair(check_logits(logits), generator, None, x)
        return self.attach(x, logits, [y])

    def _pair(
        self, logits: Tensor, generator: Generator | None, n: int | None, x: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return x, drawn where it is not given, and y given x, [1, *x.shape]."""
        raw = log_probabilities(logits.detach())
        log_p = log_probabilities(masked_logits(logits.detach()))
        check_tau(self.tau, log_p.dtype)
        log_of_x = torch.log_softmax(log_p / self.forward, -1)
        of_x = log_of_x.exp()
        given = draw_one_hot(of_x, generator, n) if x is None else check_one_hot(x, logits)
        x = given.to(of_x.dtype)
        # A given x may be of a class whose probability underflows.
        log_p = torch.where(x > 0, raw, log_p)
        log_of_x = torch.where(x > 0, torch.log_softmax(raw / self.forward, -1), log_of_x)
        own, own_of_x = (
            torch.where(x > 0, t, 0.0).sum(-1, keepdim=True) for t in (log_p, log_of_x)
        )
        # Given x. The law of x is left out of the ratio: where forward is small,
        # softmax(logits / forward) underflows though softmax(logits / tau) does not.
        ratio = log_noise_ratio(0.0, x, draw_exponentials(x, generator).log())
        ahead = log_p - own
        noise = torch.logaddexp(ahead / self.forward, ratio - own_of_x)
        ahead = torch.where(x > 0, 0.0, ahead / self.tau - noise)
        return x, torch.softmax(ahead, -1).unsqueeze(0)
