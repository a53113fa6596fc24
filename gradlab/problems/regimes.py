"""The logits at which problems are looked at: named regimes from uniform to masked.

How much an estimator errs depends on the probabilities as much as on the loss.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_known
from gradlab.problems.base import check_size, normal
from gradlab.reproducible import seeded

__all__ = ["REGIMES", "regime"]

REGIMES = ("uniform", "moderate", "peaked", "masked")

PEAK = 5.0


def regime(name: str, N: int, C: int, seed: int = 0) -> Float[Tensor, "N C"]:
    """Return logits [N, C], float64, of a named regime.

    - `uniform`: all zero;
    - `moderate`: N(0, 1);
    - `peaked`: N(0, 25), half of the variables with a probability above 0.96 (at three classes);
    - `masked`: moderate, with -inf at one class or more of every variable. The first variable loses
      exactly one class, others up to C - 1, so that some are left with a single class. With two
      classes only the first variable is masked; with one class nothing is.

    `moderate` and `masked` agree where not masked.

    Args:
        name: one of `REGIMES`.
        N: the number of variables.
        C: the number of classes.
        seed: fixes the numbers; they are independent of those of a problem with the same seed.

    Returns:
        The logits [N, C], float64.

    Raises:
        ValueError: the name is unknown, or N or C is not positive.

    Example:
        >>> regime("uniform", N=2, C=3)
        tensor([[0., 0., 0.],
                [0., 0., 0.]], dtype=torch.float64)
    """
    check_size(N, C)
    check_known("regime", name, REGIMES)
    if name == "uniform":
        return torch.zeros(N, C, dtype=torch.float64)
    logits = normal(seeded("logits", seed), N, C)
    if name == "peaked":
        return PEAK * logits
    return _masked(logits, seed) if name == "masked" else logits


def _masked(logits: Float[Tensor, "N C"], seed: int) -> Float[Tensor, "N C"]:
    N, C = logits.shape
    generator = seeded("mask", seed)
    rank = torch.rand(N, C, generator=generator, dtype=torch.float64).argsort(-1)
    lost = torch.randint(1, max(C, 2), (N,), generator=generator)
    lost[0] = 1
    if C == 2:
        lost[1:] = 0
    elif C == 1:
        lost[:] = 0
    return logits.masked_fill(rank < lost[:, None], -math.inf)
