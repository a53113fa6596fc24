r"""All joint configurations of a small model, as estimators use them that meet each at most once.

Configurations are numbered row by row. Their probabilities are enumerated, f is not.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from gradlab.categorical import (
    configurations_at,
    draw_exponentials,
    joint_of_all,
    log_probabilities,
    masked_logits,
    one_hot,
    probabilities,
)
from gradlab.estimators.values import SampledValueEstimator
from gradlab.loss import Loss, evaluate

__all__ = ["MAX_STATES", "StatesEstimator", "classes_of", "race", "states_of", "values_at"]

MAX_STATES = 2**12
# Random numbers that are held at a time, one a draw and configuration.
_CHUNK_ELEMENTS = 2**22


class StatesEstimator(SampledValueEstimator):
    """A value estimator that needs the probabilities of all configurations, of which f is not."""

    def refusal(self, logits: Float[Tensor, "*batch N C"]) -> str | None:
        """Return the reason why there are too many configurations, or None."""
        variables, classes = logits.shape[-2:]
        if variables * math.log2(classes) <= math.log2(MAX_STATES):
            return None
        return (
            f"{self.name} enumerates the probabilities of all configurations: {classes}^{variables}"
            f" are more than {MAX_STATES}; use RF(m=4) instead"
        )

    def log_joint(self, logits: Float[Tensor, "*batch N C"]) -> Float[Tensor, "*batch S"]:
        """Return log p(x) of all configurations, float64."""
        log_p = log_probabilities(masked_logits(logits.detach())).to(torch.float64)
        return joint_of_all(log_p, logs=True)


def race(
    log_p: Float[Tensor, "*batch S"], k: int, n: int, generator: Generator | None
) -> Int[Tensor, "k n *batch"]:
    """Draw n times k indices without replacement, the first one again where p > 0 is used up."""
    several = min(k, log_p.shape[-1])
    chunk = max(1, _CHUNK_ELEMENTS // max(1, log_p.numel()))
    parts = [log_p.new_zeros(0, *log_p.shape[:-1], several, dtype=torch.long)]
    for start in range(0, n, chunk):
        noise = draw_exponentials(log_p.new_empty(min(chunk, n - start), *log_p.shape), generator)
        best, index = (log_p - noise.log()).topk(several, -1)
        parts.append(torch.where(best > -torch.inf, index, index[..., :1]))
    drawn = torch.cat(parts)
    again = drawn[..., :1].expand(*drawn.shape[:-1], k - several)
    return torch.cat([drawn, again], -1).movedim(-1, 0)


def classes_of(states: Int[Tensor, "*shape"], logits: Tensor) -> Int[Tensor, "*shape N"]:
    """Return the classes of the configurations with these indices."""
    variables, classes = logits.shape[-2:]
    return configurations_at(states, [torch.arange(classes, device=states.device)] * variables)


def states_of(classes: Int[Tensor, "*shape N"], logits: Tensor) -> Int[Tensor, "*shape"]:
    """Return the indices of configurations."""
    variables, count = logits.shape[-2:]
    place = count ** torch.arange(variables - 1, -1, -1, device=classes.device)
    return (classes * place).sum(-1)


def values_at(
    f: Loss, logits: Tensor, classes: Int[Tensor, "k n *batch N"]
) -> tuple[Tensor, Tensor]:
    """Return f and x at each configuration."""
    x = one_hot(classes.flatten(0, 1), probabilities(logits.detach()))
    several = classes.shape[:2]
    return evaluate(f, x.to(logits.dtype)).unflatten(0, several), x.unflatten(0, several)
