"""Moments of an estimator from its draws, in blocks that fix the result however it is run.

A block is the unit of computation and of randomness: its size depends on the problem alone, its
generator is seeded from (seed, row, block index), and block sums are merged in index order. So
chunk size, worker count and other rows never change a bit of the result.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from gradlab.checks import check_int
from gradlab.estimators import Estimator
from gradlab.exact.for_draws import tabled
from gradlab.exact.interruption import bears_interruption, is_own
from gradlab.exact.mechanism import is_shipped
from gradlab.exact.sampled_structures import structured_or_sampled
from gradlab.exact.state_table import StateTable
from gradlab.exact.structures import DistributionOf, Structured
from gradlab.exact.truth import NEEDS_DISTRIBUTION
from gradlab.loss import Loss
from gradlab.loss.gate import Objective, checked
from gradlab.moments import GROUPS, Groups, Moments
from gradlab.progress import Progress
from gradlab.reproducible import block_generator, check_seed, single_thread
from gradlab.user_code.on_structures import draws_on
from gradlab.user_code.under_test import Code, draws_of, estimator_of

__all__ = ["block_size", "drawn_moments", "monte_carlo"]

# Elements of a block: large enough to amortize dispatch, small enough for the cache.
_BLOCK_ELEMENTS = 2**17


def block_size(estimator: Estimator, variables: int, classes: int) -> int:
    """Return the number of draws in one block: a function of the estimator and [N, C] alone.

    Args:
        estimator: The estimator that is drawn from.
        variables: N, the number of variables.
        classes: C, the number of classes of each.

    Returns:
        The number of draws, a multiple of the number of groups, at most 2^15.

    Example:
        >>> from gradlab import parse
        >>> block_size(parse("ZGR"), 4, 3), block_size(parse("RF(m=4)"), 100, 10)
        (10912, 32)
    """
    elements = variables * classes * estimator.calls(classes, variables)
    return max(GROUPS, min(_BLOCK_ELEMENTS // elements // GROUPS * GROUPS, 2**15))


def monte_carlo(
    estimator: Code,
    f: Loss,
    logits: Float[Tensor, "*shape"] | tuple[Tensor, ...],
    draws: int,
    seed: int = 0,
    *,
    distribution: DistributionOf | None = None,
    row: str = "",
    workers: int = 1,
    chunk: int = 8,
    progress: bool = False,
) -> Moments:
    """Return the moments of an estimator from independent draws, with standard errors.

    f sees x in the dtype of the logits. Where its states are not more than the evaluations that the
    draws ask for, it is evaluated once at each of them, and the draws read its values and gradients
    from a table: they differ from those of other calls at most by the rounding of f in a batch of
    another size. At relaxed x, as of GS, and by your own code, f is called at each draw.

    All sums are float64. Memory does not grow with `draws`.
    For a batch of logits [B, N, C], f maps x [..., B, N, C] to values [..., B]. The draws are then
    of the gradient that trains: one estimate for each element.

    Args:
        estimator: An Estimator, its text such as "GR(tau=0.1, k=10)", or your own code in a form
            that `gradlab.user_code.draws_of` accepts.
        f: The loss, x [..., N, C] -> values [...], or f(x, logits) marked by
            `gradlab.with_parameters`; its draws are the backward of surrogates.
        logits: Logits [N, C], or [B, N, C] for a batch.
        draws: The number n of independent draws, at least 32.
        seed: The seed of all draws, an int in [0, 2^63).
        distribution: What x is drawn from instead of independent categorical variables, a function
            of the parameters; see `gradlab.exact.structures.Structured`.
        row: The name of the row that the draws are for. Rows of other names have other random
            numbers.
        workers: The number of threads; it does not change the result. It is 1 where f, or code of
            your own, cannot bear calls from several threads at once.
        chunk: The number of blocks in the task of one thread; it does not change the result.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The moments of one draw, with standard errors of everything that is derived from them.

    Raises:
        ValueError: If an argument is out of range.
        LossError: If f breaks its contract.
        EstimatorError: If your own code breaks its contract, for example where its draws are not
            independent.

    Example:
        >>> from gradlab import exact_gradient
        >>> from gradlab.problems import problem, regime
        >>> f, logits = problem("quadratic", 4, 3), regime("moderate", 4, 3)
        >>> found = monte_carlo("RF(m=4)", f, logits, draws=20_000)
        >>> bias2 = found.bias2(exact_gradient(f, logits))
        >>> abs(bias2.value) < 4 * bias2.se
        True
    """
    estimator = estimator_of(estimator)
    structured, table = None, None
    if distribution is not None or isinstance(f, Structured):
        structured = structured_or_sampled(f, logits, distribution)[0]
    if structured is not None:
        f, logits = structured.objective, structured.parameters
    elif isinstance(logits, tuple):
        raise TypeError(NEEDS_DISTRIBUTION)
    else:
        table = f if isinstance(f, StateTable) else None
        f = checked(f if table is None else table.f, logits)
    for name, value, least in (
        ("draws", draws, 2 * GROUPS),
        ("workers", workers, 1),
        ("chunk", chunk, 1),
    ):
        check_int(name, value, least)
    check_seed(seed)
    at, draw, size = _drawing(estimator, f, logits, seed, structured)
    row = f"{row}|{estimator}"
    if workers > 1 and not _bears_threads(estimator, f, at, draw, size):
        workers = 1
    if structured is None and is_shipped(estimator):
        # From here on, f is evaluated at each of its states at most once.
        evaluations = draws * estimator.calls(at.shape[-1], at.shape[-2])
        f = tabled(f, at, evaluations) if table is None else table
    return _summed(f, at, draw, size, draws, seed, row, workers, chunk, progress)


def drawn_moments(
    estimator: Estimator, on: Structured, draws: int, seed: int, row: str = ""
) -> Moments:
    """Return the moments of an estimator from draws where x is drawn from a distribution.

    Args:
        estimator: The estimator, or code of the user's as one.
        on: The loss, the parameters and the distribution.
        draws: The number of draws, at least 32.
        seed: The seed of all draws.
        row: The name of the row that the draws are for.

    Returns:
        The moments of one draw, with standard errors.

    Raises:
        EstimatorError: If code breaks its contract.

    Example:
        >>> import gradlab
        >>> from gradlab.distributions import KSubset
        >>> on = Structured(lambda x: x[..., 0], torch.zeros(4), lambda p: KSubset(p, 2))
        >>> found = drawn_moments(gradlab.ZGR(), on, 4000, seed=0)
        >>> abs(float(found.mean[1]) + 1 / 12) < 4 * float(found.mean_se[1])
        True
    """
    check_int("draws", draws, 2 * GROUPS)
    at, draw, size = _drawing(estimator, on.objective, on.parameters, seed, on)
    return _summed(on.objective, at, draw, size, draws, seed, f"{row}|{estimator}", 1, 8, False)


def _summed(
    f: Objective | StateTable,
    at: Tensor,
    draw: "Draw",
    size: int,
    draws: int,
    seed: int,
    row: str,
    workers: int,
    chunk: int,
    progress: bool,
) -> Moments:
    """Return the moments of draws in blocks of this size."""

    def sums(first: int) -> list[Groups]:
        last = min(first + chunk * size, draws)
        return [
            Groups.from_draws(
                draw(f, at, min(size, last - start), block_generator(seed, row, start // size)).to(
                    torch.float64
                )
            )
            for start in range(first, last, size)
        ]

    starts = range(0, draws, chunk * size)
    with single_thread(), Progress("Monte Carlo", draws, "draws", shown=progress) as bar:
        total: Groups | None = None
        for blocks in _in_order(sums, starts, workers):
            total = (
                reduce(Groups.merge, blocks)
                if total is None
                else reduce(Groups.merge, blocks, total)
            )
            bar.add(min(chunk * size, draws - bar.done))
    assert total is not None
    return Moments.from_groups(total)


def _bears_threads(estimator: Estimator, f: Objective, at: Tensor, draw: "Draw", size: int) -> bool:
    """Return whether several threads may draw: not with code that keeps something."""
    if is_shipped(estimator) and is_own(f):
        return True

    def some(number: int, n: int = 2) -> Tensor:
        return draw(f, at, n, block_generator(0, "threads", number))

    with single_thread():
        return bears_interruption(lambda: some(0), lambda: some(1), lambda: some(2, size))


Draw = Callable[[Objective | StateTable, Tensor, int, Generator], Tensor]


def _drawing(
    estimator: Estimator, f: Objective, logits: Tensor, seed: int, structured: Structured | None
) -> tuple[Tensor, Draw, int]:
    """Return where to draw, the function that draws, and how many draws make a block."""
    if structured is not None:
        numbers = structured.parameters.numel() + structured.shape.numel()
        on = draws_on(estimator, structured)
        at = on.at(structured.given_parameters)
        if not on.is_shipped:
            on.check_randomness(structured.f, at, seed)

        def draw(_: Objective | StateTable, at: Tensor, n: int, generator: Generator) -> Tensor:
            return on(structured.f, at, n, generator)

        return at, draw, block_size(estimator, 1, numbers)
    drawn = draws_of(estimator)
    # Code of the user's is run in the precision that it trains in.
    at = drawn.at(logits.detach().to(f.device, f.dtype))
    if not drawn.is_shipped:
        # Code that uses its whole call, or keeps something, has no law of one draw.
        drawn.check_randomness(f, at, seed)
    draw_one = estimator.draw if drawn.is_shipped and at.ndim == 2 else drawn
    return at, draw_one, block_size(estimator, at[..., 0].numel(), at.shape[-1])


def _in_order(task, starts: Iterable[int], workers: int) -> Iterator[list[Groups]]:  # type: ignore[no-untyped-def]
    """Yield task(start) in order, at most a few ahead, so that memory stays bounded."""
    if workers == 1:
        yield from map(task, starts)
        return
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[list[Groups]]] = deque()
        for start in starts:
            waiting.append(pool.submit(task, start))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
