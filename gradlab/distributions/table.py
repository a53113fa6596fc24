"""Any distribution over a table of finitely many states."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import constraints

from gradlab.distributions.base import FiniteDistribution
from gradlab.samples import draw_classes

__all__ = ["Finite"]


class _InTable(constraints.Constraint):
    """The states of a table."""

    is_discrete = True

    def __init__(self, states: Tensor) -> None:
        self.states = states
        self.event_dim = states.ndim - 1

    def check(self, value: Tensor) -> Tensor:
        """Return where the value is in the set."""
        return _matches(value, self.states).any(-1)


class Finite(FiniteDistribution):
    r"""Finitely many states x_1 ... x_S, each with its log-probability.

    .. math:: p(x) = \sum_s \exp(\ell_s)\,[x = x_s], \qquad \mu = \sum_s \exp(\ell_s)\,x_s

    Hierarchies, autoregressive codes and tied parameters: whatever gives a differentiable table.

    Args:
        states: The states [S, *event], all different; S at most 2^20.
        log_prob: Their log-probabilities [*batch, S]; -inf for a state that does not occur.
        estimator: What `rsample` back-propagates: "ZGR", "ST", "DARN" or "ST-ZGR(alpha=...)".
        validate_args: Whether values given to `log_prob` are checked.

    Raises:
        TypeError: The table is not floating-point.
        ValueError: Numbers do not fit, two states are equal, or probabilities do not sum to 1.

    Example:
        >>> from math import log
        >>> states, table = torch.eye(2), torch.tensor([0.25, 0.75]).log()
        >>> Finite(states, table).mean
        tensor([0.2500, 0.7500])
    """

    parameters: ClassVar[dict[str, int]] = {"table": 1}

    def __init__(
        self,
        states: Float[Tensor, " S *event"],
        log_prob: Float[Tensor, "*batch S"],
        estimator: str = "ZGR",
        validate_args: bool | None = None,
    ) -> None:
        for name, values in (("states", states), ("log_prob", log_prob)):
            if not isinstance(values, Tensor) or not values.is_floating_point():
                raise TypeError(f"{name} must be a floating-point tensor")
        if states.ndim == 0 or log_prob.ndim == 0 or len(states) != log_prob.shape[-1]:
            raise ValueError(
                f"states {list(states.shape)} and log_prob {list(log_prob.shape)} do not have one "
                "log-probability for each state"
            )
        if len(states) > 2**20:
            raise ValueError(f"a table may have {2**20} states, not {len(states)}")
        if len(states.flatten(1).unique(dim=0)) < len(states):
            raise ValueError("two states of the table are equal; add their probabilities")
        total = log_prob.detach().double().logsumexp(-1).exp()
        off = float((total - 1).abs().max()) if total.numel() else 0.0
        # Constants of float32 may have gone into a table of float64.
        if not off < max(1e3 * torch.finfo(log_prob.dtype).eps, 1e-6):
            raise ValueError(
                f"probabilities must sum to 1, but are {off:.2g} off; subtract "
                "log_prob.logsumexp(-1, keepdim=True)"
            )
        self.states, self.table = states, log_prob
        super().__init__(log_prob.shape[:-1], states.shape[1:], estimator, validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The states of the table."""
        return _InTable(self.states)

    @property
    def mean(self) -> Tensor:
        """The mean E x [*batch, *event], differentiable in the table."""
        return torch.tensordot(self.table.exp(), self.states.to(self.table), 1)

    @property
    def variance(self) -> Tensor:
        """The variance of each entry of x, [*batch, *event]."""
        away = self.states.to(self.table) - self.mean.unsqueeze(len(self.batch_shape))
        weight = self.table.exp().reshape(*self.table.shape, *[1] * len(self.event_shape))
        return (weight * away.square()).sum(len(self.batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) [*sample, *batch]; differentiable in the table.

        Args:
            value: States [*sample, *batch, *event].

        Raises:
            ValueError: The value carries a gradient, which has no way through a look-up.
        """
        self._check_detached(value)
        if self._validate_args:
            self._validate_sample(value)
        found = _matches(value, self.states)
        table = self.table.expand(found.shape)
        return table.gather(-1, found.int().argmax(-1, keepdim=True)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return -E log p(x), [*batch], in nats."""
        return torch.special.entr(self.table.exp()).sum(-1)

    def _drawn(self, n: int, generator: Generator | None) -> Tensor:
        return self.states[draw_classes(self.table.exp(), generator, n)]

    def _states(self) -> Tensor:
        return self.states


def _matches(value: Tensor, states: Tensor) -> Tensor:
    """Return which state each value is, as [..., S] of bool."""
    event = states.ndim - 1
    flat = value.reshape(*value.shape[: value.ndim - event], 1, -1)
    return (flat == states.reshape(len(states), -1).to(value)).all(-1)
