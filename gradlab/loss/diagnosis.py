"""What is wrong with a loss whose values at one x differ? Found by experiments, not by guesses."""

import random

import numpy as np
import torch
from torch import Tensor

from gradlab.loss.contract import (
    BatchDependentError,
    GradientModeError,
    Loss,
    LossError,
    RandomLossError,
    StatefulLossError,
    evaluate,
)
from gradlab.loss.held import training_layers

__all__ = ["BATCH_ULPS", "agree", "check_random", "fault_of", "layers_of"]

BATCH_ULPS = 2**7
"""Values at one x may differ between batches by so many units in the last place of the largest."""

# Calls of an f that draws random numbers.
_REPEATED = 32


def agree(a: Tensor, b: Tensor, eps: float) -> bool:
    """Return whether two sets of values of f are the same up to rounding of this unit."""
    size = torch.maximum(a.abs().max(), b.abs().max())
    return bool((a - b).abs().max() <= BATCH_ULPS * eps * size)


def fault_of(f: Loss, states: Tensor, values: Tensor, apart: Tensor, eps: float) -> LossError:
    """Return the error for an f whose values at the same x differ, after experiments why.

    `values` are those of a first call at the states, while gradients were recorded; `apart` what
    later calls were off by, `eps` the rounding unit of f.
    """

    def at_states(seed: int, record: bool = False) -> Tensor:
        for seeded in (torch.manual_seed, random.seed, np.random.seed):
            seeded(seed)
        with torch.set_grad_enabled(record):
            return evaluate(f, states.clone().requires_grad_(record).clone()).detach()

    kept = random.getstate(), np.random.get_state()  # noqa: NPY002 users draw from it
    try:
        first, same, other = at_states(1), at_states(1), at_states(2)
        recorded, again = at_states(1, record=True), at_states(2, record=True)
        # A shape that was not used before: a cache by shape is right at its first use.
        with torch.no_grad():
            fresh, later = (
                evaluate(f, part) for part in states[:10].view(2, 1, 5, *states.shape[1:])
            )
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
    size = float(apart.abs().max())
    if not agree(first, same, 0.0):
        return _stateful(first, same)
    for one, another in ((first, other), (recorded, again)):
        if not agree(one, another, 0.0):
            return _random(f, one, another)
    if not agree(recorded, values, eps):
        return _stateful(recorded, values)
    as_before = torch.equal(fresh, later) and not torch.equal(first[:5], first[5:10])
    if as_before and agree(fresh[0], first[:5], eps):
        return _stateful(later[0], first[5:10])
    if not agree(first, recorded, eps):
        return GradientModeError(
            "f gives other values while torch records gradients than under torch.no_grad(), by "
            f"{float((first - recorded).abs().max()):.2g}; let its values not depend on that"
        )
    coarse = size < 1e-2 * float(values.abs().max())
    return BatchDependentError(
        f"f depends on the batch: at the same x its value differs by {size:.2g} with the other "
        "points of the call, their order, their number or the shape of the batch; it must be a "
        f"function of each x alone{layers_of(f)}"
        + (
            f". If it is not meant to, its arithmetic is coarser than the {eps:.0e} of its dtype"
            if coarse
            else ""
        )
    )


def check_random(f: Loss, states: Tensor) -> None:
    """Raise RandomLossError if the random numbers that f draws change its values, even rarely."""
    with torch.no_grad():
        first, *others = (evaluate(f, states) for _ in range(_REPEATED))
    for other in others:
        if not agree(first, other, 0.0):
            raise _random(f, first, other)


def _random(f: Loss, one: Tensor, other: Tensor) -> LossError:
    return RandomLossError(
        "f is random: two calls at the same x differ by "
        f"{float((one - other).abs().max()):.2g}; give a fixed f, for a module in eval mode "
        f"(f.eval()), or draw its noise once and for all{layers_of(f)}"
    )


def _stateful(one: Tensor, other: Tensor) -> LossError:
    return StatefulLossError(
        f"f changes from call to call, by {float((one - other).abs().max()):.2g} at the same x and "
        "with the same random seeds: it keeps something between calls (a counter, a cache, running "
        "statistics), or draws from a generator of its own; give a fixed f"
    )


def layers_of(f: Loss) -> str:
    """Return what may be the reason among the layers that f holds, for the end of a message."""
    layers = training_layers(f)
    if not layers:
        return ""
    return (
        f". It holds {', '.join(layers[:4])}: call .eval() on the module, or gradlab.as_loss(f), "
        "which evaluates a copy; gradlab.verify(..., batch=B) judges code that uses a whole batch"
    )
