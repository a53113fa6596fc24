r"""Exact moments of a function of m samples of x: its estimate at each m-tuple of configurations.

.. math:: E \hat g = \sum_{x_1 .. x_m} P(x_1 .. x_m)\,\hat g(x_1 .. x_m)
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradlab.categorical import configurations_at, is_masked, one_hot, probabilities
from gradlab.estimators import SampledValueEstimator, ValueEstimator
from gradlab.exact.all_cores import over_all
from gradlab.exact.direct import estimates_at
from gradlab.exact.state_table import StateTable, places
from gradlab.loss import Loss, Objective, sees_parameters
from gradlab.reproducible import block_generator, single_thread

__all__ = [
    "MAX_TUPLES",
    "NotExactError",
    "TupleSums",
    "some_tuples",
    "tuple_moments",
    "tuple_seconds",
    "tuple_sums",
    "tuples_at",
]

MAX_TUPLES = 2**20
# Tuples, and elements of the one-hot x at which f is evaluated, that are held at a time.
_CHUNK = 2**14
_CHUNK_ELEMENTS = 2**22
# Seconds for each number in the samples of all tuples.
_SECONDS = 5e-8


class NotExactError(ValueError):
    """No exact moments are known for this estimator."""


@dataclass(frozen=True)
class TupleSums:
    """Sums over all m-tuples of configurations, float64.

    Args:
        mean: E g, [N, C].
        square: E |g_i|^2 of each variable, [N].
        size: E |g|.
        plain: The plain sum of |g|. An error of every probability by the same amount would be
            multiplied with it.
    """

    mean: Float[Tensor, "N C"]
    square: Float[Tensor, " N"]
    size: float
    plain: float


def tuple_moments(
    estimator: SampledValueEstimator, f: Loss, logits: Float[Tensor, "N C"]
) -> tuple[Float[Tensor, "N C"], Float[Tensor, " N"]]:
    """Return E g [N, C] and E |g_i|^2 [N] of one draw; see `tuple_sums`."""
    sums = tuple_sums(estimator, f, logits)
    return sums.mean, sums.square


@single_thread()
@torch.no_grad()
def tuple_sums(
    estimator: SampledValueEstimator, f: Loss, logits: Float[Tensor, "N C"]
) -> TupleSums:
    """Return the sums over all tuples of unmasked configurations.

    Args:
        estimator: The estimator, whose estimate is put to each tuple.
        f: The loss, which has passed the gate.
        logits: The parameters [N, C], float64.

    Returns:
        The sums, in units of f.

    Raises:
        NotExactError: Beyond `MAX_TUPLES` tuples, for logits that the estimator refuses, and where
            it draws more than samples of x.
        LossError: If f breaks its contract.
    """
    reason = estimator.refusal(logits.clone())
    if reason is not None:
        raise NotExactError(reason)
    if not estimator.enumerable:
        raise NotExactError(
            f"{estimator} draws more than samples of x, or the law of its samples is a sum of too "
            "many terms; use draws instead"
        )
    allowed = [(~row).nonzero()[:, 0] for row in is_masked(probabilities(logits))]
    m, sizes = estimator.samples, [len(a) for a in allowed]
    if m * sum(map(math.log2, sizes)) > math.log2(MAX_TUPLES):
        digits = m * sum(map(math.log10, sizes))
        raise NotExactError(
            f"{estimator} takes {m} samples of x: about 10^{digits:.1f} tuples of configurations "
            f"are more than the {MAX_TUPLES} that are enumerated; use draws instead"
        )
    count = math.prod(sizes)
    variables, classes_each = logits.shape
    points = max(m, estimator.calls(classes_each, variables))
    chunk = max(1, min(_CHUNK, _CHUNK_ELEMENTS // (points * logits.numel())))
    # A loss that sees the logits has another gradient in them at each tuple.
    whole = sees_parameters(f)
    # Each configuration is in many tuples, or a neighbour of many. A table of gradients is large.
    if whole:
        chunk = max(1, chunk // 4)
    elif m > 1 or (points > 1 and not estimator.needs_gradient):
        f = _tabled(f, allowed, logits, estimator.needs_gradient)
    starts = range(0, count**m, chunk)
    parts = [slice(start, min(start + chunk, count**m)) for start in starts]

    def sums(part: slice) -> Tensor:
        classes = tuples_at(torch.arange(part.start, part.stop), m, allowed)
        weight = estimator.tuple_probabilities(logits, classes)
        possible = weight > 0
        weight, classes = weight[possible], classes[:, possible]
        if whole:
            assert isinstance(f, Objective)
            g = estimates_at(estimator, f, logits, classes)
        else:
            g = estimator.estimate_at(f, logits, classes)[1]
        each = g.square().sum(-1)
        length = each.sum(-1).sqrt()
        found = (torch.einsum("n,nic->ic", weight, g), weight @ each, weight @ length, length.sum())
        return torch.cat([number.flatten() for number in found])

    total = torch.stack(over_all(parts, sums)).cumsum(0)[-1]
    mean, square, (size, plain) = total.split([logits.numel(), variables, 2])
    return TupleSums(mean.reshape(logits.shape), square, float(size), float(plain))


def tuple_seconds(estimator: SampledValueEstimator, logits: Float[Tensor, "N C"]) -> float:
    """Return about how long all tuples take, counted, not timed; 0 where none are enumerated.

    Args:
        estimator: The estimator.
        logits: The parameters [N, C].

    Returns:
        Seconds.
    """
    if type(estimator).variance_given_moments is not ValueEstimator.variance_given_moments:
        return 0.0  # a formula
    sizes = (probabilities(logits) > 0).sum(-1).tolist()
    if estimator.samples * sum(map(math.log2, sizes)) > math.log2(MAX_TUPLES):
        return 0.0
    variables, classes = logits.shape
    points = max(estimator.samples, estimator.calls(classes, variables))
    return _SECONDS * points * logits.numel() * float(math.prod(sizes) ** estimator.samples)


def some_tuples(
    estimator: SampledValueEstimator, logits: Float[Tensor, "N C"], most: int
) -> Int[Tensor, "m n N"]:
    """Return all tuples of positive probability where they are at most so many, or drawn ones.

    Args:
        estimator: The estimator, which declares the law of its samples.
        logits: The parameters [N, C].
        most: How many tuples at most.

    Returns:
        Class indices [m, n, N].
    """
    allowed = [(~row).nonzero()[:, 0] for row in is_masked(probabilities(logits))]
    m, count = estimator.samples, math.prod(map(len, allowed))
    if m * math.log2(max(count, 1)) > math.log2(most):
        return estimator.draw_tuples(logits, most, block_generator(0, "tuples of samples"))
    classes = tuples_at(torch.arange(count**m), m, allowed)
    return classes[:, estimator.tuple_probabilities(logits, classes) > 0]


def tuples_at(
    number: Int[Tensor, " n"], m: int, allowed: Sequence[Int[Tensor, " _"]]
) -> Int[Tensor, "m n N"]:
    """Return the classes of the m-tuples of configurations with these numbers.

    The first configuration runs fastest, and in it the first variable.

    Args:
        number: Which tuples, from 0.
        m: Configurations in a tuple.
        allowed: For each of the N variables the classes that it may have.

    Returns:
        Class indices [m, n, N].

    Example:
        >>> tuples_at(torch.arange(5), 2, [torch.arange(2)] * 2).tolist()
        [[[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]], [[0, 0], [0, 0], [0, 0], [0, 0], [1, 0]]]
    """
    # One configuration of m times as many variables, whose last one would run fastest.
    classes = configurations_at(number, [*reversed(allowed)] * m).flip(-1)
    return classes.unflatten(-1, (m, len(allowed))).movedim(1, 0).contiguous()


def _tabled(f: Loss, allowed: list[Tensor], logits: Tensor, with_gradient: bool) -> StateTable:
    """Return f as a table of its values (and gradients) at all configurations."""
    count = math.prod(map(len, allowed))

    def blocks() -> Iterator[Tensor]:
        for part in torch.arange(count).split(max(1, _CHUNK_ELEMENTS // logits.numel())):
            yield one_hot(tuples_at(part, 1, allowed)[0], logits)

    place = places(allowed, logits.shape[-1], first_fastest=True)
    return StateTable(f, place, blocks, with_gradients=with_gradient)
