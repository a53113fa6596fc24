"""What f with its gradient costs in evaluations of f, measured on this machine."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.categorical import draw_one_hot, probabilities
from gradlab.comparison.eligibility import GRADIENT_COST
from gradlab.exact.moments import Enumerated
from gradlab.exact.structures import Structured
from gradlab.loss import NotDifferentiableError, gradient
from gradlab.moments import Measured
from gradlab.reproducible import block_generator

__all__ = ["MEASURED", "measured_gradient_cost"]

MEASURED = "measured"
"""What is given in place of a number to have it measured."""

# Seconds to measure for, and the fewest and most repeats.
_SECONDS, _FEWEST, _MOST = 1.0, 15, 201
# How much wider the error of a median is than that of a mean, for normal noise.
_MEDIAN = 1.2533
# Quartiles of normal noise are so many standard deviations apart.
_QUARTILES = 1.349


def measured_gradient_cost(on: Enumerated | Structured, points: int) -> Measured:
    """Return the time of f with its gradient at some points over that of f alone.

    The two are timed in turn, at the same `points` samples x, in the dtype and on the device of the
    logits, for a second. The ratio is the median of the ratios of neighbours. It depends on the
    machine, its load and the number of points.

    Args:
        on: f at its logits; a batch counts whole.
        points: How many x f is given in one call, for a batch for each element.

    Returns:
        The ratio, at least 1, with the standard error of its median: 0 and the default 3 where f
        has no gradient.
    """
    source = block_generator(0, "gradient cost")
    if isinstance(on, Structured):
        logits = on.given_parameters
        x = on.sample(points, source).to(logits.device, logits.dtype)
    else:
        logits = on.caller_logits
        x = draw_one_hot(probabilities(on.logits), source, points).to(logits.device, logits.dtype)

    def forward() -> None:
        with torch.no_grad():
            on.objective(x)

    def backward() -> None:
        gradient(on.objective, x)

    try:
        for call in (forward, backward) * 2:  # the first calls are slow
            call()
    except NotDifferentiableError:
        return Measured(GRADIENT_COST, 0.0)
    found: list[float] = []
    ends = time.perf_counter() + _SECONDS
    while len(found) < _FEWEST or (len(found) < _MOST and time.perf_counter() < ends):
        alone = _timed(forward, logits)
        found.append(_timed(backward, logits) / alone)
    ratios = torch.tensor(found, dtype=torch.float64)
    low, middle, high = ratios.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    se = _MEDIAN * float(high - low) / _QUARTILES / len(found) ** 0.5
    return Measured(max(1.0, float(middle)), se)


def _timed(call: Callable[[], None], logits: Tensor) -> float:
    if logits.is_cuda:
        torch.cuda.synchronize(logits.device)
    started = time.perf_counter()
    call()
    if logits.is_cuda:
        torch.cuda.synchronize(logits.device)
    return max(time.perf_counter() - started, 1e-9)
