"""Who computes a sweep's tasks: processes of this machine, or the workers of a dask cluster.

Both are a concurrent.futures executor; a task runs in a process of its own on either.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradlab.sweep.isolation import Computed, compute

__all__ = ["GONE", "Crew", "CrewError", "cluster", "local"]

GONE = "the scheduler is gone; start it, and repeat the command to continue"


class CrewError(OSError):
    """The workers cannot be reached, or are gone."""


@dataclass(frozen=True)
class Crew:
    """Workers that compute tasks.

    Args:
        executor: The executor of tasks.
        size: Returns how many tasks run at once now.
        stop: Makes the workers return early.
        compute: What a worker does with a task.
    """

    executor: Executor
    size: Callable[[], int]
    stop: Callable[[], None]
    compute: Callable[..., Computed]

    def submit(self, message: dict[str, Any]) -> "Future[Computed]":
        """Return the future of the rows of a task's first cells.

        Args:
            message: The task, as `Task.message` returns it.

        Returns:
            The future.
        """
        return self.executor.submit(self.compute, message)


@contextmanager
def local(workers: int, **options: Any) -> Iterator[Crew]:
    """Yield workers that are processes of this machine, each waited for by a thread of this one.

    Args:
        workers: The number of processes.
        options: Keyword arguments of `gradlab.sweep.isolation.compute`.

    Yields:
        The workers.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="cells") as pool:
        try:
            yield Crew(pool, lambda: workers, stop.set, partial(compute, stop=stop, **options))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def cluster(address: str, **options: Any) -> Iterator[Crew]:
    """Yield the workers of a dask scheduler.

    Args:
        address: The address of the scheduler, such as tcp://host:8786.
        options: Keyword arguments of `gradlab.sweep.isolation.compute`.

    Yields:
        The workers.

    Raises:
        CrewError: If dask is not installed, or the scheduler does not answer.
    """
    try:
        from distributed import Client
    except ImportError:
        raise CrewError(
            "a scheduler needs dask: install the extra, pip install 'gradlab[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise CrewError(f"no dask scheduler answers at {address}: {error}") from None

    def threads() -> int:
        try:
            return sum(client.nthreads().values())
        except Exception as error:  # dask has several for a lost connection
            raise CrewError(f"{GONE} ({address}: {error})") from None

    with client:
        executor = client.get_executor(pure=False)
        try:
            yield Crew(
                executor,
                threads,
                lambda: None,
                partial(compute, **options),
            )
        finally:
            executor.shutdown(wait=False)
