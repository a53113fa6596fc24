r"""Leave-one-out estimators with m samples that are coupled by the Dirichlet copula.

Samples that differ more often leave less noise in f(x_j) - f(x_l); each pair is weighted by how
much more often its classes would meet if they were independent.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from gradlab.categorical import probabilities
from gradlab.checks import check_int
from gradlab.estimators._copula import (
    box_probability,
    count_of_orders,
    draw_log_uniforms,
    orders,
    pair_probabilities,
)
from gradlab.estimators._two_classes import BinaryEstimator, log_odds, pair_row
from gradlab.estimators.values import Batch, Estimates, SampledValueEstimator, Tuples, values_of
from gradlab.loss import Loss

__all__ = ["ARMS", "CARMS"]

_LARGEST, _MOST_ENUMERATED = 2**22, 10


class _CoupledEstimator(SampledValueEstimator):
    """What the family shares: m samples, all of them in the mean of f."""

    m: int
    family: ClassVar[str] = "coupled samples"

    def __post_init__(self) -> None:
        check_int("m", self.m, 2, 64)

    @property
    def samples(self) -> int:
        """How many samples of x one draw is made of: m."""
        return self.m

    @property
    def enumerable(self) -> bool:
        """Whether the law of the samples, a sum of 2^m terms, is at hand."""
        return self.m <= _MOST_ENUMERATED


@dataclass(frozen=True, repr=False)
class ARMS(BinaryEstimator, _CoupledEstimator):
    r"""Antithetic REINFORCE multi-sample, ARMS(m), for two classes: m coupled samples.

    The rarer class, of probability q, is met where u_j < q, and C_2(q) is the probability that two
    samples both meet it. With b_j = 1 for class 1:

    .. math:: \hat g_\phi = \frac{\rho}{m-1} \sum_j (f_j - \bar f)(b_j - p), \quad
              \rho = \frac{q (1 - q)}{q - C_2(q)}

    Unbiased for every f; m >= 2 evaluations; ARMS(2) is DisARM. Published code adds 1e-6 to q -
    C_2. Dimitriev & Zhou 2021 (ICML; 2105.14141).

    Args:
        m: Number of samples of one draw, from 2 to 64.

    Example:
        >>> ARMS(m=2)
        ARMS(m=2)
    """

    m: int = 2

    name: ClassVar[str] = "ARMS"
    reference: ClassVar[str] = "Dimitriev & Zhou 2021, arXiv 2105.14141"
    instead: ClassVar[str] = "CARMS"

    def draw_tuples(self, logits: Batch, n: int, generator: Generator | None) -> Tuples:
        """Return the classes of n times m coupled samples."""
        odds = log_odds(logits)
        is_rarer = draw_log_uniforms(odds, self.m, n, generator) < logsigmoid(-odds.abs())
        return (is_rarer == (odds < 0)).long()

    def tuple_probabilities(
        self, logits: Float[Tensor, "N C"], classes: Int[Tensor, "m n N"]
    ) -> Float[Tensor, " n"]:
        """Return the probability of each tuple: that of a box a variable."""
        odds = log_odds(logits)
        q = torch.sigmoid(-odds.abs()).expand(classes.shape)
        is_rarer = classes == (odds < 0).long()
        low, high = torch.where(is_rarer, 0.0, q), torch.where(is_rarer, q, 1.0)
        return box_probability(low, high).prod(-1)

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of the mean of f(x_j) and of the estimate."""
        odds = log_odds(logits)
        q = torch.sigmoid(-odds.abs())
        both = (2 * q.pow(1 / (self.m - 1)) - 1).clamp_min(0.0).pow(self.m - 1)
        rho = (1 - q) / (1 - torch.where(q > 0, both / q, 0.0))
        values = _values(f, logits, classes)
        centred = (values.detach() - values.detach().mean(0)).to(torch.float64).unsqueeze(-1)
        g = rho / (self.m - 1) * (centred * classes).sum(0)
        return values.mean(0), pair_row(g, logits, odds.isfinite())


@dataclass(frozen=True, repr=False)
class CARMS(_CoupledEstimator):
    r"""Categorical ARMS, CARMS(m): m coupled samples, by inverting the cumulated probabilities.

    The classes of each variable are laid out in an order that is drawn for all its m samples: one
    of C (C - 1)/2, in which every two classes are once the ends. With P_i the mean over orders of
    the probability that two samples are of the classes k_j and k_l:

    .. math:: \hat g_i = \frac1{2 m (m-1)} \sum_{j \ne l} \frac{p_{i k_j} p_{i k_l}}{P_i(k_j, k_l)}
              (f_j - f_l)(x_{ji} - x_{li})

    Unbiased for every f; m >= 2 evaluations; CARMS(2) of two classes is DisARM. Published code
    clips the ratio to [0.01, 10] and adds 1e-3 to both of its sides: a relative bias of 5e-4 to
    3e-3. Dimitriev & Zhou 2021 (NeurIPS; 2110.14002).

    Args:
        m: Number of samples of one draw, from 2 to 64.

    Example:
        >>> CARMS(m=2)
        CARMS(m=2)
    """

    m: int = 2

    name: ClassVar[str] = "CARMS"
    reference: ClassVar[str] = "Dimitriev & Zhou 2021, arXiv 2110.14002"

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why there are too many orders, or None."""
        variables, classes = logits.shape[-2:]
        numbers = variables * (count := count_of_orders(classes)) * (classes + 1) ** 2
        if numbers <= _LARGEST:
            return None
        return (
            f"CARMS lays out {classes} classes in {count} orders: its table of "
            f"pairs holds {numbers} numbers, more than {_LARGEST}; use RF(m=4) instead"
        )

    def draw_tuples(self, logits: Batch, n: int, generator: Generator | None) -> Tuples:
        """Return the classes of n times m coupled samples."""
        p = _p(logits)
        of = torch.tensor(orders(p.shape[-1]), device=p.device)
        shape = n, *p.shape[:-1]
        order = of[torch.randint(len(of), shape, generator=generator, device=p.device)]
        bounds = p.expand(n, *p.shape).gather(-1, order).cumsum(-1)
        u = draw_log_uniforms(p[..., 0], self.m, n, generator).exp()
        # Below 1, so that the last class is not met where it is masked.
        u = u.clamp_max(1 - torch.finfo(u.dtype).eps / 2) * bounds[..., -1]
        place = (bounds <= u.unsqueeze(-1)).sum(-1)
        return order.expand(self.m, *order.shape).gather(-1, place.unsqueeze(-1)).squeeze(-1)

    def tuple_probabilities(
        self, logits: Float[Tensor, "N C"], classes: Int[Tensor, "m n N"]
    ) -> Float[Tensor, " n"]:
        """Return the probability of each tuple: that of a box a variable, mean over orders."""
        p = _p(logits)
        of = torch.tensor(orders(p.shape[-1]), device=p.device)
        index = torch.arange(len(p), device=p.device)
        law = p.new_zeros(classes.shape[1:])
        for order in of:
            high = p[:, order].cumsum(-1)
            high[:, -1] = 1.0
            low = torch.nn.functional.pad(high[:, :-1], (1, 0))
            place = order.argsort()[classes]
            law += box_probability(low[index, place], high[index, place])
        return (law / len(of)).prod(-1)

    def estimate_at(self, f: Loss, logits: Batch, classes: Tuples) -> Estimates:
        """Return n replicates of the mean of f(x_j) and of the estimate."""
        p = _p(logits)
        of = torch.tensor(orders(p.shape[-1]), device=p.device)
        pairs = pair_probabilities(p, of, self.m)
        ratio = torch.where(pairs > 0, p.unsqueeze(-1) * p.unsqueeze(-2) / pairs, 0.0)
        values = _values(f, logits, classes)
        at = classes.movedim(0, -1)  # [n, *batch, N, m]
        rows = ratio.expand(*at.shape[:-1], *ratio.shape[-2:])
        rows = rows.gather(-2, at.unsqueeze(-1).expand(*at.shape, rows.shape[-1]))
        between = rows.gather(-1, at.unsqueeze(-2).expand(*at.shape, self.m))
        level = values.detach().to(torch.float64).movedim(0, -1).unsqueeze(-2)
        weight = (between * (level.unsqueeze(-1) - level.unsqueeze(-2))).sum(-1)
        weight = weight / (self.m * (self.m - 1))
        estimate = p.new_zeros(classes.shape[1], *p.shape).scatter_add(-1, at, weight)
        return values.mean(0), estimate.to(logits.dtype)


def _p(logits: Tensor) -> Tensor:
    return probabilities(logits.detach()).to(torch.float64)


def _values(f: Loss, logits: Tensor, classes: Tuples) -> Tensor:
    return values_of(f, classes.flatten(0, 1), logits.detach()).unflatten(0, classes.shape[:2])
