"""How the success probability p of a prompt scales its gradient: the factor c(p)."""

import math

import torch

from gradlab.sequences.policy_gradient import PolicyGradient

__all__ = ["success_factor"]


def success_factor(estimator: PolicyGradient, p: float) -> float:
    r"""Return c, where the mean of the estimate is c grad p.

    Rewards are 1 with probability p, else 0. With K correct samples of G, whose advantage is A+,
    while that of others is A-:

    .. math:: c(p) = \sum_K \mathrm{Bin}(K; G, p)
        \Big[ \frac{K A^+_K}{G p} - \frac{(G - K) A^-_K}{G (1 - p)} \Big]

    It holds on policy, with SUM, without a KL term, and for every model. Where the advantage
    depends on lengths, all are taken to be equal. With `resample`, K is neither 0 nor G.

    Args:
        estimator: Its advantage, group size and resampling count.
        p: The probability of success, between 0 and 1.

    Returns:
        c(p): 1 for RLOO, c_G(p) for GRPO.

    Raises:
        ValueError: p is not between 0 and 1.

    Example:
        >>> from gradlab.sequences import parse
        >>> [round(success_factor(parse("GRPO(g=2)"), p), 6) for p in (0.01, 0.5)]
        [0.707107, 0.707107]
    """
    if not 0 < p < 1:
        raise ValueError(f"p must be between 0 and 1, not {p}")
    g, total, kept = estimator.g, 0.0, 0.0
    for k in range(g + 1):
        if estimator.resample and k in (0, g):
            continue
        rewards = torch.zeros(1, g, dtype=torch.float64)
        rewards[0, :k] = 1
        lengths = torch.ones(1, g, dtype=torch.int64)
        # The greedy sequence of ReMax is taken to fail; its reward does not change the mean.
        a = estimator.advantage.of_rewards(rewards, lengths, torch.zeros(1, dtype=torch.float64))[0]
        chance = math.comb(g, k) * p**k * (1 - p) ** (g - k)
        total += chance * float(a[:k].sum() / p - a[k:].sum() / (1 - p)) / g
        kept += chance
    return total / kept
