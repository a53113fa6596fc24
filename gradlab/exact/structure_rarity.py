"""How rare the states of a distribution are that carry the gradient, as `gradlab.exact.rarity`."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.exact.rarity import Rarity
from gradlab.exact.structures import Structured

__all__ = ["deviations", "rarity_on", "score_lengths"]

# Deviations from E f of so many rounding units are none.
_ULPS = 8
# Numbers that are held at a time.
_BLOCK = 2**20


def deviations(on: Structured) -> Float[Tensor, " S"]:
    """Return |f - E f| at each state; 0 where it is rounding.

    Args:
        on: The loss, the parameters and the distribution.

    Returns:
        One number for each state, in units of f.
    """
    away = (on.values - on.value).abs()
    rounding = _ULPS * on.objective.eps * (on.values.abs() + on.value.abs())
    return torch.where(away > rounding, away, 0.0)


def score_lengths(on: Structured) -> Float[Tensor, " S"]:
    """Return the length of the score at each state.

    Args:
        on: The loss, the parameters and the distribution.

    Returns:
        One number for each state.
    """
    size = max(1, _BLOCK // (on.states.shape[-1] + on.parameters.numel()))
    return torch.cat([torch.linalg.vector_norm(on.scores(x), dim=1) for x in on.states.split(size)])


def rarity_on(on: Structured) -> Rarity:
    """Return how rare the states are that carry the gradient, see `gradlab.exact.rarity`.

    Args:
        on: The loss, the parameters and the distribution.

    Returns:
        What the largest events carry, by their rate.
    """
    t = deviations(on) * score_lengths(on)
    order = t.argsort(descending=True)
    met = order[(t[order] > 0) & (on.p[order] > 0)]
    p, sizes = on.p[met].numpy(), t[met].numpy()
    return Rarity(*(np.concatenate([[0.0], np.cumsum(p * sizes**k)]) for k in range(3)))
