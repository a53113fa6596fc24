r"""A chain of categorical variables, each of which depends on its neighbours.

.. math:: p(x) \propto \exp\Bigl(\sum_t u_t \cdot x_t + \sum_t x_t^T W_t x_{t+1}\Bigr)

The log-partition is the forward recursion; the marginals are its gradient.
"""

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import constraints

from gradlab.distributions.base import ExponentialFamily
from gradlab.distributions.natural import check_natural
from gradlab.samples import configurations, draw_exponentials, one_hot

__all__ = ["Chain"]

_MAX_STATES = 2**20
# Lower than what all sequences together can add, and a number from which digits do not matter.
_FORBIDDEN = -1e9


class _OneHotRows(constraints.Constraint):
    """Matrices of 0 and 1 with a single 1 in each row."""

    is_discrete = True
    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        """Return where the value is in the set."""
        bits = ((value == 0) | (value == 1)).flatten(-2).all(-1)
        return bits & (value.sum(-1) == 1).all(-1)


class Chain(ExponentialFamily):
    r"""A linear chain (conditional random field): T variables of C classes, x [T, C] one-hot rows.

    .. math:: p(x) \propto \exp\Bigl(\sum_t u_t \cdot x_t + \sum_t x_t^T W_t x_{t+1}\Bigr)

    The gradient of `rsample` reaches both parameters. Log-partition, marginals and samples cost
    O(T C^2).

    Args:
        unary: u [*batch, T, C]; -inf forbids a class.
        pairwise: W [*batch, T - 1, C, C]; -inf forbids a transition.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked.

    Raises:
        TypeError: A parameter is not a floating-point tensor.
        ValueError: The shapes do not fit together, or no sequence is left.

    Example:
        >>> Chain(torch.zeros(2, 2), torch.tensor([[[9.0, 0.0], [0.0, 9.0]]])).sample().shape
        torch.Size([2, 2])
    """

    parameters: ClassVar[dict[str, int]] = {"unary": 2, "pairwise": 3}
    support = _OneHotRows()

    def __init__(
        self,
        unary: Float[Tensor, "*batch T C"],
        pairwise: Float[Tensor, "*batch T-1 C C"],
        estimator: str = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        check_natural("unary", unary, 2)
        check_natural("pairwise", pairwise, 3)
        length, classes = unary.shape[-2:]
        if pairwise.shape[-3:] != (length - 1, classes, classes):
            raise ValueError(
                f"pairwise must end in [T - 1, C, C] = {[length - 1, classes, classes]} beside "
                f"unary of shape {list(unary.shape)}, not have shape {list(pairwise.shape)}"
            )
        batch = torch.broadcast_shapes(unary.shape[:-2], pairwise.shape[:-3])
        self.unary = unary.expand(*batch, length, classes)
        self.pairwise = pairwise.expand(*batch, length - 1, classes, classes)
        low = [torch.where(t.detach() > -torch.inf, 0.0, _FORBIDDEN) for t in (unary, pairwise)]
        if bool((_forward(*low)[1] < _FORBIDDEN / 2).any()):
            raise ValueError("-inf in unary and pairwise leaves no sequence")
        super().__init__(batch, (length, classes), estimator, validate_args)

    @property
    def pairwise_mean(self) -> Tensor:
        """The marginals E x_t x_(t+1)^T of neighbours, [*batch, T - 1, C, C]."""
        return self.means()[1]

    def _score(self, x: Tensor) -> Tensor:
        alone = torch.where(x != 0, self.unary, 0.0).mul(x).flatten(-2).sum(-1)
        both = self.statistics(x)[1]
        together = torch.where(both != 0, self.pairwise, 0.0).mul(both)
        return alone + together.flatten(-3).sum(-1)

    def _log_partition(self, *parameters: Tensor) -> Tensor:
        return _forward(*parameters)[1]

    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        unary, pairwise = self.natural
        alphas, _ = _forward(unary, pairwise)
        weight = alphas[-1].expand(n, *alphas[-1].shape)
        chosen = [(weight - draw_exponentials(weight, generator).log()).argmax(-1)]
        for t in reversed(range(len(alphas) - 1)):
            into = pairwise[..., t, :, :].transpose(-1, -2)
            into = into.expand(n, *into.shape)
            at = chosen[-1][..., None, None].expand(*chosen[-1].shape, 1, into.shape[-1])
            weight = alphas[t] + into.gather(-2, at).squeeze(-2)
            chosen.append((weight - draw_exponentials(weight, generator).log()).argmax(-1))
        return one_hot(torch.stack(chosen[::-1], -1), unary)

    def statistics(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return x and the products of neighbours, x_t x_(t+1)^T [..., T - 1, C, C]."""
        return x, x[..., :-1, :, None] * x[..., 1:, None, :]

    def maximizer(self, *weights: Tensor) -> Tensor:
        """Return the sequence with the largest sum of weights, as x [..., T, C] (Viterbi)."""
        unary, pairwise = weights
        best, back = unary[..., 0, :], []
        for t in range(1, unary.shape[-2]):
            found = (best.unsqueeze(-1) + pairwise[..., t - 1, :, :]).max(-2)
            best = unary[..., t, :] + found.values
            back.append(found.indices)
        chosen = [best.argmax(-1, keepdim=True)]
        for indices in reversed(back):
            chosen.append(indices.gather(-1, chosen[-1]))
        return one_hot(torch.cat(chosen[::-1], -1), unary)

    def _numbers_per_draw(self) -> int:
        return self.unary.numel() * 2

    def _states(self) -> Tensor:
        length, classes = self.event_shape
        if length * math.log(classes) > math.log(_MAX_STATES):
            raise ValueError(
                f"{length} variables of {classes} classes have {classes}^{length} sequences, more "
                f"than the {_MAX_STATES} that are enumerated; draw samples instead"
            )
        return one_hot(configurations(length, classes), self.unary)


def _forward(unary: Tensor, pairwise: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return log-probabilities of each beginning's last class, [*batch, C], and the log-partition.

    What the beginnings sum to is taken off at each place: a long chain keeps its digits.
    """
    alphas: list[Tensor] = []
    total = unary.new_zeros(())
    for t in range(unary.shape[-2]):
        alpha = unary[..., t, :]
        if alphas:
            alpha = alpha + (alphas[-1].unsqueeze(-1) + pairwise[..., t - 1, :, :]).logsumexp(-2)
        size = alpha.logsumexp(-1)
        alphas.append(alpha - size.unsqueeze(-1))
        total = total + size
    return alphas, total
