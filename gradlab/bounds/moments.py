"""Mean and variance of an estimator of a bound: exact, over all tuples of samples, or from draws.

The estimate's own randomness counts: fresh samples beside the K are averaged over exactly too.
"""

from collections.abc import Iterator
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.bounds.base import BoundEstimator
from gradlab.bounds.registry import bound_estimator
from gradlab.bounds.states import WeightedStates, passed, restored
from gradlab.bounds.truth import check_finite_weights
from gradlab.categorical import check_logits
from gradlab.checks import check_int
from gradlab.draw_sums import GROUPS, Groups
from gradlab.exact.tuples import NotExactError
from gradlab.loss import Loss, NotFiniteError
from gradlab.moments import Moments
from gradlab.reproducible import block_generator, check_seed, single_thread

__all__ = ["exact_moments", "moments_of", "monte_carlo"]

# Numbers in one block of draws.
_BLOCK = 2**17


@single_thread()
def exact_moments(
    estimator: BoundEstimator | str,
    log_joint: Loss,
    logits: Float[Tensor, "N C"],
    k: int,
    *,
    route: str = "multisets",
) -> Moments:
    """Return mean and variance of one draw of an estimator of a bound, without sampling.

    Args:
        estimator: An estimator of `gradlab.bounds`, or its text.
        log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...].
        logits: Of q, [N, C].
        k: K, the number of samples.
        route: "multisets" of samples, or all ordered "tuples", which is slower; both agree.

    Returns:
        The moments, float64.

    Raises:
        NotExactError: The class overrides `draw` or `surrogate`, so that its formula proves
            nothing about what it draws.
        NotFiniteError: The bound is -inf.
        NotDifferentiableError: The estimator needs a gradient that log_joint does not have.
        TooLargeError: There are too many states or tuples; the message counts them.
        ValueError: The estimator cannot be used with this k.

    Example:
        >>> from gradlab import bounds
        >>> log_joint = lambda z: (z[..., 0, :] @ torch.tensor([0.1, 0.3])).log()
        >>> moments = bounds.exact_moments("VIMCO", log_joint, torch.zeros(1, 2), k=3)
        >>> moments.bias2(bounds.exact_gradient(log_joint, torch.zeros(1, 2), k=3)) < 1e-28
        True
    """
    return moments_of(bound_estimator(estimator), WeightedStates(log_joint, logits), k, route)


@torch.no_grad()
def moments_of(
    estimator: BoundEstimator, on: WeightedStates, k: int, route: str = "multisets"
) -> Moments:
    """Return the exact moments of one draw; see `exact_moments`.

    Args:
        estimator: The estimator.
        on: All states with their weights.
        k: K.
        route: "multisets" or "tuples".

    Returns:
        The moments, float64.

    Raises:
        NotExactError: As of `exact_moments`.

    Example:
        >>> from gradlab.bounds import parse
        >>> on = WeightedStates(lambda z: z[..., 0, 0], torch.zeros(1, 2))
        >>> moments_of(parse("LE"), on, 1).variance
        Measured(0.0, se=0.0)
    """
    _check_mechanism(estimator)
    estimator.accepted(on.logits, k)
    check_finite_weights(on, k)
    mean = torch.zeros_like(on.p)
    square = torch.zeros_like(on.p)
    # Deviations from one estimate: a constant estimate has variance 0 exactly.
    offset: Tensor | None = None
    for p, first, second in _blocks(estimator, on, k, route):
        offset = first[0].clone() if offset is None else offset
        away = first - offset
        mean += torch.einsum("n,nic->ic", p, away)
        square += torch.einsum("n,nic->ic", p, away.square() + second)
    assert offset is not None
    variance = (square - mean.square()).clamp_min(0.0)
    return Moments(mean + offset, variance.sum(-1))


def _blocks(
    estimator: BoundEstimator, on: WeightedStates, k: int, route: str
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield probabilities of tuples, and mean and variance of the estimate given each."""
    none = torch.zeros(0, 1, dtype=torch.float64)
    every, share = on.log_w[:, None], on.q[:, None]
    fresh = estimator.fresh
    numbers = on.p.numel() * (len(on.q) if fresh is None or fresh else 1)
    for index, p in on.tuples(k, route, numbers):
        if fresh is None:
            first = estimator.estimate(on.on(index, every, share))
            yield p, first, torch.zeros_like(first)
        elif fresh == 0:
            first = estimator.estimate(on.on(index, none, none))
            yield p, first, torch.zeros_like(first)
        else:
            one = torch.ones(1, 1, dtype=torch.float64)
            each = [estimator.estimate(on.on(index, w[None], one)) for w in every]
            given = torch.stack(each)  # [S, n, N, C]: one fresh sample at each state
            first = torch.einsum("s,snic->nic", on.q, given)
            second = torch.einsum("s,snic->nic", on.q, (given - first).square())
            yield p, first, second / fresh


def _check_mechanism(estimator: BoundEstimator) -> None:
    """Raise NotExactError if what is drawn is not the formula that is enumerated."""
    for name in ("draw", "surrogate"):
        if getattr(type(estimator), name) is not getattr(BoundEstimator, name):
            raise NotExactError(
                f"{type(estimator).__name__} overrides {name}: its formula, which would be "
                "enumerated, says nothing about what it draws; use gradlab.bounds.monte_carlo"
            )


@single_thread()
def monte_carlo(
    estimator: BoundEstimator | str,
    log_joint: Loss,
    logits: Float[Tensor, "N C"],
    k: int,
    draws: int,
    seed: int = 0,
    *,
    row: str = "",
) -> Moments:
    """Return the moments of an estimator of a bound from independent draws, with standard errors.

    Args:
        estimator: An estimator of `gradlab.bounds`, or its text.
        log_joint: log p(x, z) of one-hot z, [..., N, C] -> [...].
        logits: Of q, [N, C].
        k: K, the number of samples in the bound.
        draws: The number of draws, at least 32.
        seed: The seed of all draws, an int in [0, 2^63).
        row: The name of the row that the draws are for; other rows have other random numbers.

    Returns:
        The moments of one draw. Memory does not grow with the draws.

    Raises:
        LossError: log_joint breaks the contract of a loss.
        ValueError: An argument is out of range.

    Example:
        >>> from gradlab import bounds
        >>> log_joint = lambda z: (z[..., 0, :] @ torch.tensor([0.1, 0.3])).log()
        >>> found = bounds.monte_carlo("VIMCO", log_joint, torch.zeros(1, 2), k=3, draws=10_000)
        >>> exact = bounds.exact_moments("VIMCO", log_joint, torch.zeros(1, 2), k=3)
        >>> abs(found.variance - exact.variance) < 4 * found.variance.se
        True
    """
    chosen = bound_estimator(estimator)
    check_logits(logits, ndim=2)
    chosen.accepted(logits, k)
    check_int("draws", draws, 2 * GROUPS)
    check_seed(seed)
    log_joint = restored(passed(log_joint, logits))
    at = logits.detach().to("cpu", torch.float64)
    numbers = at.numel() * chosen.calls(k, *at.shape)
    size = max(GROUPS, min(_BLOCK // numbers // GROUPS * GROUPS, 2**15))
    name = f"{row}|{chosen}|{k}"

    def sums(start: int) -> Groups:
        generator = block_generator(seed, name, start // size)
        drawn = chosen.draw(log_joint, at, k, min(size, draws - start), generator)
        if not bool(drawn.isfinite().all()):
            raise NotFiniteError(
                f"a draw of {chosen} is not finite: samples of it have p(x, z) = 0, so that the "
                "bound is -inf. Mask such classes in the logits by -inf"
            )
        return Groups.from_draws(drawn)

    return Moments.from_groups(reduce(Groups.merge, map(sums, range(0, draws, size))))
