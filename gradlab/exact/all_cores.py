"""A sweep over all states on all threads that torch may use, with the same bits for any number.

Threads call f at blocks of states; the caller sums what comes back, in the order of the blocks. So
there is nothing that the number of threads could change, as long as f bears calls from several
threads at once. One that does not, such as a module that keeps its last activations, is found out
(`gradlab.exact.interruption`) and swept on one thread.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from gradlab.exact.interruption import bears_interruption, is_own
from gradlab.loss.gate import Objective
from gradlab.reproducible import allowed_threads

if TYPE_CHECKING:
    from gradlab.exact.enumeration import Space

__all__ = ["RaceError", "in_groups", "on_all_cores", "over_all", "shared", "swept"]

A = TypeVar("A")
T = TypeVar("T")

# Blocks below which one thread does it; of the user's own loss more, for its trials cost time.
_FEWEST, _FEWEST_OWN = 4, 32
# Parts below which one thread does it: they are larger than blocks.
_FEWEST_PARTS = 8
# Calls for each thread that may be made before the first of them is summed; numbers in a group.
_AHEAD, _GROUP = 4, 16
# States in a call that is tried.
_TRIED = 16
# One block in so many is asked for again by the caller's thread, and must have the same bits.
_ASKED_AGAIN = 64


class RaceError(Exception):
    """A loss gave other bits beside a call in another thread than alone, or failed there."""


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
    written: bool = False,
) -> Iterator[tuple[float, tuple[int, ...], Tensor]]:
    """Yield for each block of states: probability and classes of its prefix, and work(block).

    Args:
        space: The states.
        f: The loss that `work` calls: some may not be called by several threads.
        work: From a block [block, N, C] to a tensor, which is used before the next is asked for.
        threads: How many threads work, at most.
        shipped: Whether all that `work` calls beside f is gradlab's own.
        written: Whether `space.block` must hold the prefix that is yielded.

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

    # As many buffers as calls at a time: one that was just used is still in the cache.
    buffers = [_Buffer(space) for _ in range(threads + 1)]

    def task(prefix: tuple[int, ...]) -> Tensor:
        buffer = buffers.pop()
        try:
            found = work(buffer.at(space, prefix))
            # f may return a part of x, which the next call overwrites.
            inside = found.untyped_storage().data_ptr() == buffer.block.untyped_storage().data_ptr()
            return found.clone() if inside else found
        finally:
            buffers.append(buffer)

    in_order = _in_order(task, space.prefix_classes(), threads)
    for (prefix_p, prefix), found in zip(space.prefixes(written), in_order, strict=True):
        yield prefix_p, prefix, found


def shared(
    parts: Sequence[slice], work: Callable[[slice], Tensor], threads: int
) -> Iterator[Tensor]:
    """Yield work(part) for each slice of states, in their order.

    Args:
        parts: Slices of states that are kept, or numbered.
        work: From a slice to a tensor. What it calls of the user's is tried with small slices.
        threads: How many threads work, at most.

    Yields:
        The results in the order of the parts.

    Raises:
        RaceError: If the work turns out to depend on calls in other threads after all.

    Example:
        >>> x = torch.arange(4.0)
        >>> parts = [slice(0, 2), slice(2, 4)]
        >>> [float(found) for found in shared(parts, lambda part: x[part].sum(), threads=1)]
        [1.0, 5.0]
    """
    if threads == 1 or len(parts) < _FEWEST_PARTS or torch.is_autocast_enabled("cpu"):
        yield from map(work, parts)
        return
    ends = parts[0], parts[-1]
    small = [slice(part.start, min(part.stop, part.start + _TRIED)) for part in ends]
    work(small[0])  # what is computed once and kept is not tried
    if not _tried(work, *small, *ends):
        yield from map(work, parts)
        return
    yield from _in_order(work, parts, threads)


def over_all(parts: Sequence[slice], work: Callable[[slice], Tensor]) -> list[Tensor]:
    """Return work(part) for each slice of states, on all threads that torch may use.

    Args:
        parts: Slices of states that are kept, or numbered.
        work: From a slice to a tensor.

    Returns:
        The results in the order of the parts, the same for any number of threads.

    Example:
        >>> over_all([slice(0, 2), slice(2, 4)], lambda part: torch.tensor(part.start))
        [tensor(0), tensor(2)]
    """
    return on_all_cores(lambda threads: list(shared(parts, work, threads)))


def in_groups(count: int, work: Callable[[range], Tensor], threads: int) -> Iterator[Tensor]:
    """Yield the rows of work(some numbers) for the numbers from 0 on, in their order.

    Args:
        count: How many numbers there are.
        work: From some numbers to a tensor with a row for each; all of it gradlab's own code.
        threads: How many threads work, at most.

    Yields:
        One row for each number.

    Example:
        >>> rows = in_groups(3, lambda some: torch.tensor([[2 * n] for n in some]), threads=1)
        >>> [row.tolist() for row in rows]
        [[0], [2], [4]]
    """
    groups = [range(start, min(start + _GROUP, count)) for start in range(0, count, _GROUP)]
    alone = threads == 1 or len(groups) < _FEWEST
    for rows in map(work, groups) if alone else _in_order(work, groups, threads):
        yield from rows


def _in_order(
    work: Callable[[A], Tensor], arguments: Iterable[A], threads: int
) -> Iterator[Tensor]:
    """Yield work(argument) of several threads in the order of the arguments.

    More calls are made ahead than there are threads: one that lost its core would make the others
    wait.
    """
    grad = torch.is_grad_enabled()

    def call(argument: A) -> Tensor:
        with torch.set_grad_enabled(grad):
            return work(argument)

    ahead = iter(arguments)
    waiting: deque[tuple[Future[Tensor], A]] = deque()
    with _pool(threads) as pool:
        for index in itertools.count():
            for argument in itertools.islice(ahead, _AHEAD * threads - len(waiting)):
                waiting.append((pool.submit(call, argument), argument))
            if not waiting:
                return
            future, argument = waiting.popleft()
            try:
                found = future.result()
            except Exception as error:  # what fails alone too is raised there
                raise RaceError from error
            if index % _ASKED_AGAIN == 0 and not torch.equal(found, call(argument)):
                raise RaceError
            yield found


class _Buffer:
    """A copy of the block of a space, and the prefix that stands in it."""

    def __init__(self, space: "Space") -> None:
        self.block, self.prefix = space.block.clone(), space.first

    def at(self, space: "Space", prefix: tuple[int, ...]) -> Tensor:
        """Return the block with this prefix."""
        before, self.prefix = self.prefix, prefix
        return space.move(self.block, before, prefix)


def _tried(work: Callable[[A], Tensor], *arguments: A) -> bool:
    """Return whether the first two calls bear each other, and the others go the same way."""
    grad = torch.is_grad_enabled()

    def call(argument: A) -> Tensor:
        with torch.set_grad_enabled(grad):
            return work(argument).clone()  # it may use the same memory at each call

    return bears_interruption(*(partial(call, argument) for argument in arguments))


def _bears_threads(
    space: "Space", f: Objective, work: Callable[[Tensor], Tensor], shipped: bool
) -> bool:
    """Return whether several threads may do the work: gradlab's own code may, other by a trial."""
    own = shipped and is_own(f)
    if space.prefix_count < (_FEWEST if own else _FEWEST_OWN) or torch.is_autocast_enabled("cpu"):
        return False
    if own:
        return True
    ends = [space.write(prefix, space.block.clone()) for prefix in space.ends()]
    first, last = (block[:_TRIED].clone() for block in ends)
    return _tried(work, first, last, *ends)


def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
