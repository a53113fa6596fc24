r"""The Dirichlet copula: m uniform numbers that are far apart, and samples of x made from them.

With d ~ Dirichlet(1_m) and u_j = (1 - d_j)^{m - 1} each u_j is uniform, and together

.. math:: P(u_1 < a_1, .., u_m < a_m) = \max(\textstyle\sum_j a_j^{1/(m-1)} - (m - 1), 0)^{m-1}

For m = 2 they are an antithetic pair, u_2 = 1 - u_1.
"""

import itertools
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import draw_exponentials

__all__ = [
    "box_probability",
    "count_of_orders",
    "draw_log_uniforms",
    "orders",
    "pair_probabilities",
]


def draw_log_uniforms(
    like: Float[Tensor, "*shape"], m: int, n: int, generator: Generator | None
) -> Float[Tensor, "m n *shape"]:
    """Draw n times the logarithms of m coupled uniform numbers for each entry of `like`."""
    e = draw_exponentials(like.new_empty(m, n, *like.shape), generator)
    none = torch.zeros_like(e[:1])
    before = torch.cat([none, e[:-1].cumsum(0)])
    after = torch.cat([e[1:].flip(0).cumsum(0).flip(0), none])
    others = before + after  # sums of positive numbers keep their digits, a difference does not
    return (m - 1) * (others.log() - (others + e).log())


def box_probability(
    low: Float[Tensor, "m *tuples N"], high: Float[Tensor, "m *tuples N"]
) -> Float[Tensor, "*tuples N"]:
    """Return the probability that low <= u < high for all m numbers, from the 2^m corners."""
    m = len(low)
    total = torch.zeros_like(low[0])
    bounds = [low.pow(1 / (m - 1)), high.pow(1 / (m - 1))]
    for corner in itertools.product((0, 1), repeat=m):
        sums = sum(bounds[side][j] - 1 for j, side in enumerate(corner)) + 1
        sign = (-1) ** (m - sum(corner))
        total = total + sign * torch.as_tensor(sums).clamp_min(0.0).pow(m - 1)
    return total.clamp_min(0.0)


def count_of_orders(classes: int) -> int:
    """Return how many `orders` there are, without making them."""
    return max(1, classes * (classes - 1) // 2)


@lru_cache(maxsize=16)
def orders(classes: int) -> tuple[tuple[int, ...], ...]:
    """Return C(C - 1)/2 orders of the classes such that each two classes are once the two ends."""
    if classes == 1:
        return ((0,),)
    found = []
    for i in range(classes):
        first, *rest = [(i + c) % classes for c in range(classes)]
        turned = [(first, *rest[j:], *rest[:j]) for j in range(classes - 1)]
        found += [order for order in turned if order[0] < order[-1]]
    return tuple(found)


def pair_probabilities(
    p: Float[Tensor, "*batch C"], of: Int[Tensor, "O C"], m: int
) -> Float[Tensor, "*batch C C"]:
    """Return the probability that two of m samples are of classes c and c', mean over orders.

    A sample is the class in whose interval its uniform number falls, intervals of length p laid out
    in the given order. Where rounding would leave less, it is that of the order in which c and c'
    are the ends, which is known to all its digits.
    """
    t = 1 / (m - 1)
    bounds = torch.nn.functional.pad(p[..., of].cumsum(-1), (1, 0)).clamp_max(1.0)
    bounds[..., -1] = 1.0
    root = bounds.pow(t)
    joint = (root.unsqueeze(-1) + root.unsqueeze(-2) - 1).clamp_min(0.0).pow(m - 1)
    volumes = joint.diff(dim=-1).diff(dim=-2).clamp_min(0.0)
    place = of.argsort(-1)  # place[o, c]: where class c stands in order o
    each = torch.arange(len(of), device=of.device).view(-1, 1, 1)
    pairs = volumes[..., each, place.unsqueeze(-1), place.unsqueeze(-2)].mean(-3)
    own, other = p.unsqueeze(-1), p.unsqueeze(-2)
    missing = -torch.expm1(t * torch.log1p(-other.clamp_max(1.0)))
    share = (missing / own.pow(t)).clamp(0.0, 1.0).nan_to_num(1.0)
    ends = -own * torch.expm1((m - 1) * torch.log1p(-share)) / len(of)
    ends = torch.minimum(ends, ends.transpose(-1, -2))
    same = torch.eye(p.shape[-1], dtype=torch.bool, device=p.device)
    return torch.where(same, pairs, torch.maximum(pairs, ends))
