r"""Samples x with two relaxed ones: y, which makes x, and y', an independent one given x.

Let E be Exp(1), k the class with the largest z = log p - log E, x its one-hot form, y = softmax(z /
tau), and y' a draw of y given x, from other noise E', which moves with the logits. The gradients of
a function c at them, with V(y) a = y (a - y.a) per variable:

.. math:: \nabla c(y) = V(y)\,\nabla_y c / \tau, \quad
          \nabla c(y') = \omega \circ v - p\,(\omega \cdot v), \quad v = V(y')\,\nabla_{y'} c / \tau

.. math:: \omega_c = \sigma(\log E'_c - \log p_c - \log E'_k), \quad \omega_k = 0
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from gradlab.categorical import (
    check_tau,
    draw_exponentials,
    log_noise_ratio,
    log_probabilities,
    masked_logits,
    one_hot,
    softmax_vjp,
)
from gradlab.estimators._control_network import ControlNetwork

__all__ = ["RelaxedPair"]


@dataclass(frozen=True)
class RelaxedPair:
    """Samples x, y, y' given x and omega, [n, *batch, N, C], and p [*batch, N, C]."""

    p: Tensor
    x: Tensor
    y: Tensor
    given: Tensor
    omega: Tensor
    tau: float

    @staticmethod
    def draw(logits: Tensor, tau: float, n: int, generator: Generator | None) -> "RelaxedPair":
        """Draw n times x, y and y' at these logits [*batch, N, C]."""
        log_p = log_probabilities(masked_logits(logits.detach()))
        check_tau(tau, log_p.dtype)
        noise = draw_exponentials(log_p.new_empty(2, n, *log_p.shape), generator).log()
        z = log_p - noise[0]
        x = one_hot(z.argmax(-1), log_p)
        # The ratio form keeps its digits at small tau; masked classes have ratio inf, weight 0.
        ratio = log_noise_ratio(log_p, x, noise[1])
        log_weight = torch.where(x > 0, 0.0, -softplus(ratio) / tau)
        given = torch.softmax(log_weight, -1)
        omega = torch.where(x > 0, 0.0, torch.sigmoid(ratio))
        return RelaxedPair(log_p.exp(), x, torch.softmax(z / tau, -1), given, omega, tau)

    def of(self, index: Tensor) -> "RelaxedPair":
        """Return the draws with these indices."""
        x, y, given, omega = (t[index] for t in (self.x, self.y, self.given, self.omega))
        return RelaxedPair(self.p, x, y, given, omega, self.tau)

    def controlled(self, level: Tensor, network: ControlNetwork) -> Tensor:
        """Return the estimate from f(x) with a network for c."""
        at_y, at_given = network.slope(self.y), network.slope(self.given)
        return self.estimate(level, network.value(self.given), at_y, at_given)

    def estimate(self, level: Tensor, at: Tensor, slope: Tensor, slope_given: Tensor) -> Tensor:
        """Return the estimate from f(x), c(y'), and the gradients of c at y and y'."""
        v = self.omega * softmax_vjp(self.given, slope_given) / self.tau
        through = v - self.p * v.sum(-1, keepdim=True)
        score = (level - at)[..., None, None] * (self.x - self.p)
        return score + softmax_vjp(self.y, slope) / self.tau - through
