"""A sweep over all states on all threads that torch may use, with the same bits for any number.

Threads call f at blocks of states; the caller sums what comes back, in the order of the blocks. So
there is nothing that the number of threads could change, as long as f bears calls from several
threads at once. One that does not, such as a module that keeps its last activations, is found out
(`gradlab.exact.interruption`) and swept on one thread.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from gradlab.exact.interruption import bears_interruption, is_own
from gradlab.loss.gate import Objective
from gradlab.reproducible import allowed_threads

if TYPE_CHECKING:
    from gradlab.exact.enumeration import Space

__all__ = ["RaceError", "on_all_cores", "swept"]

T = TypeVar("T")

# Blocks below which one thread does it; of the user's own loss more, for its trials cost time.
_FEWEST, _FEWEST_OWN = 4, 32
# States in a call that is tried.
_TRIED = 16
# One block in so many is asked for again by the caller's thread, and must have the same bits.
_ASKED_AGAIN = 64


class RaceError(Exception):
    """A loss gave other bits beside a call in another thread than alone."""


def on_all_cores(compute: Callable[[int], T]) -> T:
    """Return compute(threads) for the threads that torch may use, or for one where f bears no more.

    Args:
        compute: What sweeps the states with so many threads, by `swept`.

    Returns:
        Its result, the same for any number of threads.

    Example:
        >>> on_all_cores(lambda threads: threads >= 1)
        True
    """
    threads = allowed_threads()
    if threads > 1:
        try:
            return compute(threads)
        except RaceError:
            pass
    return compute(1)


def swept(
    space: "Space",
    f: Objective,
    work: Callable[[Tensor], Tensor],
    threads: int,
    shipped: bool = True,
) -> Iterator[tuple[float, tuple[int, ...], Tensor]]:
    """Yield for each block of states: probability and classes of its prefix, and work(block).

    Args:
        space: The states.
        f: The loss that `work` calls: some may not be called by several threads.
        work: From a block [block, N, C] to a tensor, which is used before the next is asked for.
        threads: How many threads work, at most.
        shipped: Whether all that `work` calls beside f is gradlab's own.

    Yields:
        In the order of the prefixes.

    Raises:
        RaceError: If f turns out to depend on calls in other threads after all.

    Example:
        >>> from gradlab.exact.enumeration import Space
        >>> from gradlab.loss.gate import checked
        >>> logits = torch.zeros(2, 2, dtype=torch.float64)
        >>> f = checked(lambda x: x[..., 0, 1], logits)
        >>> [part.tolist() for _, _, part in swept(Space(logits), f, f, threads=1)]
        [[0.0, 0.0, 1.0, 1.0]]
    """
    if threads == 1 or not _bears_threads(space, f, work, shipped):
        for prefix_p, prefix in space.prefixes():
            yield prefix_p, prefix, work(space.block)
        return
    grad, mine = torch.is_grad_enabled(), space.block.clone()

    def task(prefix: tuple[int, ...], buffer: Tensor) -> Tensor:
        with torch.set_grad_enabled(grad):
            return work(space.write(prefix, buffer))

    # A buffer serves one call at a time: as many as there are threads, and they go round.
    buffers = deque(space.block.clone() for _ in range(threads))
    waiting: deque[tuple[Future[Tensor], Tensor]] = deque()
    ahead = space.prefix_classes()
    with _pool(threads) as pool:
        for index, (prefix_p, prefix) in enumerate(space.prefixes()):
            while buffers and (following := next(ahead, None)) is not None:
                buffer = buffers.popleft()
                waiting.append((pool.submit(task, following, buffer), buffer))
            call, buffer = waiting.popleft()
            found = call.result()
            buffers.append(buffer)
            if index % _ASKED_AGAIN == 0 and not torch.equal(found, task(prefix, mine)):
                raise RaceError
            yield prefix_p, prefix, found


def _bears_threads(
    space: "Space", f: Objective, work: Callable[[Tensor], Tensor], shipped: bool
) -> bool:
    """Return whether several threads may do the work: gradlab's own code may, other by a trial."""
    own = shipped and is_own(f)
    if space.prefix_count < (_FEWEST if own else _FEWEST_OWN) or torch.is_autocast_enabled("cpu"):
        return False
    if own:
        return True
    grad = torch.is_grad_enabled()
    first, last = (space.write(prefix, space.block[:_TRIED].clone()) for prefix in space.ends())

    def task(block: Tensor) -> Tensor:
        with torch.set_grad_enabled(grad):
            return work(block).clone()

    return bears_interruption(lambda: task(first), lambda: task(last))


def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
