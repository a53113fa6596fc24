"""Moments of an estimator from its draws, in blocks that fix the result however it is run.

A block is the unit of computation and of randomness: its size depends on the problem alone, its
generator is seeded from (seed, row, block index), and block sums are merged in index order. So
chunk size, worker count and other rows never change a bit of the result.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from gradlab.checks import check_int
from gradlab.estimators import Estimator
from gradlab.loss import Loss
from gradlab.loss.gate import checked
from gradlab.moments import GROUPS, Groups, Moments
from gradlab.progress import Progress
from gradlab.reproducible import block_generator, check_seed, single_thread
from gradlab.user_code.under_test import Code, draws_of, estimator_of

__all__ = ["block_size", "monte_carlo"]

# Elements of a block: large enough to amortize dispatch, small enough for the cache.
_BLOCK_ELEMENTS = 2**17


def block_size(estimator: Estimator, variables: int, classes: int) -> int:
    """Return the number of draws in one block: a function of the estimator and [N, C] alone."""
    elements = variables * classes * estimator.calls(classes, variables)
    return max(GROUPS, min(_BLOCK_ELEMENTS // elements // GROUPS * GROUPS, 2**15))


def monte_carlo(
    estimator: Code,
    f: Loss,
    logits: Float[Tensor, "*batch N C"],
    draws: int,
    seed: int = 0,
    *,
    row: str = "",
    workers: int = 1,
    chunk: int = 8,
    progress: bool = False,
) -> Moments:
    """Return the moments of `estimator` from `draws` independent draws, with standard errors.

    `estimator`: an Estimator, its text, or code of another form (see `gradlab.user_code.draws_of`).
    For logits [B, N, C] f maps x [..., B, N, C] to [..., B], and what trains is drawn, an estimate
    for each element. f is given x in the dtype of the logits; sums are of float64. `row` names the
    row that the draws are for and separates its random numbers from those of other rows; `workers`
    threads work on tasks of `chunk` blocks; none of these last two changes the result. Memory does
    not grow with `draws`.

    Raises ValueError for bad arguments, LossError for an f that breaks its contract, EstimatorError
    for code that breaks its own, as by draws that are not independent replicates.
    """
    estimator, f = estimator_of(estimator), checked(f, logits)
    for name, value, least in (
        ("draws", draws, 2 * GROUPS),
        ("workers", workers, 1),
        ("chunk", chunk, 1),
    ):
        check_int(name, value, least)
    check_seed(seed)
    drawn = draws_of(estimator)
    # Code of the user's is run in the precision that it trains in.
    at = drawn.at(logits.detach().to(f.device, f.dtype))
    if not drawn.is_shipped:
        # Code that uses its whole call, or keeps something, has no law of one draw.
        drawn.check_randomness(f, at, seed)
    draw = estimator.draw if drawn.is_shipped and at.ndim == 2 else drawn
    size = block_size(estimator, at[..., 0].numel(), at.shape[-1])
    row = f"{row}|{estimator}"

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
