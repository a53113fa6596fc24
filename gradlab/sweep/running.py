"""Running a sweep: the cells that a store lacks are computed, and each is stored as soon as it is.

A run may be interrupted, killed and started again at any moment; the rows are the same.
"""

import random
import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.parallel import usable_cores
from gradlab.progress import Progress
from gradlab.sweep.cells import Task, blank_row
from gradlab.sweep.crew import GONE, Crew, CrewError, cluster, local
from gradlab.sweep.grid import Grid
from gradlab.sweep.isolation import Computed, VersionError
from gradlab.sweep.size import MEMORY, refused
from gradlab.sweep.store import Store, opened, versions

__all__ = ["LIMIT", "Summary", "run_sweep"]

LIMIT = 600.0
"""Seconds that a cell may take by default."""

# Seconds that a task works before it hands in what it has: what the death of the driver loses.
_SPELL = 10.0
# A task whose worker died again and again is given up after so many tries.
_TRIES = 3


@dataclass
class Summary:
    """What a run of a sweep did.

    Args:
        cells: The cells of the grid.
        before: The cells that were in the store before.
        computed: The cells that this run computed.
        failed: Those of them that are rows with an error.
        seconds: The time of the run.
    """

    cells: int
    before: int
    computed: int = 0
    failed: int = 0
    seconds: float = 0.0


def run_sweep(
    grid: Grid,
    store: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    limit: float = LIMIT,
    memory: float = MEMORY,
    extend: bool = False,
    retry: bool = False,
    progress: bool = False,
) -> Summary:
    """Compute the cells of a grid that a store lacks.

    A cell that takes too long, needs too much memory or fails in another way is a row with the
    error. An interrupt keeps the rows that are there.

    Args:
        grid: What to compute.
        store: The file of the rows; it is made if it is not there.
        workers: The number of processes of this machine, by default one for each usable core.
        scheduler: The address of a dask scheduler whose workers compute instead, such as
            tcp://host:8786. Neither workers nor scheduler change a row.
        limit: Seconds that a cell may take.
        memory: Gigabytes that a worker may use.
        extend: Whether the grid may have more cells than the one that the store was made for.
        retry: Whether to compute the cells that failed in an earlier run again.
        progress: Whether to show a progress bar on stderr.

    Returns:
        What was done.

    Raises:
        ValueError: If an argument is out of range.
        StoreError: If the store cannot be used or written.
        CrewError: If the workers cannot be reached.

    Example:
        >>> import tempfile
        >>> from gradlab import sweep_rows
        >>> grid = Grid(["quadratic"], ["4x3"], estimators=["ST", "ZGR"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     summary = run_sweep(grid, f"{folder}/rows.db", workers=1)
        ...     rows = sweep_rows(f"{folder}/rows.db")
        >>> summary.computed, summary.failed, list(rows["cell"])
        (2, 0, ['quadratic/4x3/moderate/0/ST', 'quadratic/4x3/moderate/0/ZGR'])
    """
    for name, value in (("workers", workers), ("limit", limit), ("memory", memory)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, not {value!r}")
    if scheduler is not None and not re.fullmatch(r"\w+://\S+:\d+", scheduler):
        raise ValueError(f"scheduler must be such as tcp://host:8786, not {scheduler!r}")
    started = time.monotonic()
    with opened(Path(store), grid.settings, extend=extend) as kept:
        if retry:
            kept.remove_failed()
        done = kept.done()
        summary = Summary(len(grid), before=len(done))
        if len(done) < len(grid):
            with (
                _crew(workers, scheduler, limit, memory) as crew,
                Progress(
                    "sweep", summary.cells, "cells", shown=progress, done=summary.before
                ) as bar,
            ):
                _Run(kept, crew, bar, summary).work(_tasks(grid, done), memory)
    summary.seconds = time.monotonic() - started
    return summary


def _crew(
    workers: int | None, scheduler: str | None, limit: float, memory: float
) -> AbstractContextManager[Crew]:
    options: dict[str, Any] = {
        "versions": versions(),
        "limit": limit,
        "spell": _SPELL,
        "memory": int(memory * 2**30),
    }
    if scheduler is not None:
        return cluster(scheduler, **options)
    return local(workers or usable_cores(), **options)


def _tasks(grid: Grid, done: set[str]) -> Iterator[Task]:
    """Yield the tasks that are left, shuffled, so that the time spent predicts the time left."""
    for index in random.Random(0).sample(range(grid.tasks), grid.tasks):
        task = grid.task(index).without(done)
        if task.cells:
            yield task


@dataclass
class _Run:
    store: Store
    crew: Crew
    bar: Progress
    summary: Summary

    def __post_init__(self) -> None:
        self.at_work: dict[Future[Computed], Task] = {}
        self.again: deque[Task] = deque()
        self.tries: Counter[Task] = Counter()

    def work(self, tasks: Iterator[Task], memory: float) -> None:
        """Do the tasks. Whatever interrupts this, rows that are ready by then are stored."""
        try:
            while self.submit(tasks, memory):
                self.collect(FIRST_COMPLETED)
        except BaseException as fault:
            self.crew.stop()
            if not isinstance(fault, OSError):
                self.collect(ALL_COMPLETED)
            raise

    def submit(self, tasks: Iterator[Task], memory: float) -> bool:
        """Give each worker a task, and one ahead; return whether any is at work."""
        size = self.crew.size()
        self.bar.what = "sweep" if size else "waiting for workers"
        while len(self.at_work) < 2 * max(size, 1):
            task = self.again.popleft() if self.again else next(tasks, None)
            if task is None:
                break
            too_large = refused(task, memory)
            if too_large:
                lost = [cell for cell in task.cells if cell.id in too_large]
                self.keep([blank_row(task, cell, too_large[cell.id]) for cell in lost])
                task = task.without(set(too_large))
            if task.cells:
                self.at_work[self.crew.submit(task.message)] = task
        return bool(self.at_work)

    def collect(self, until: str) -> None:
        """Store the rows of tasks that are ready, waiting a second for them."""
        for future in wait(self.at_work, timeout=1.0, return_when=until).done:
            task = self.at_work.pop(future)
            rows = self.rows(future, task)
            self.keep(rows)
            left = task.without({row["cell"] for row in rows})
            if left.cells:
                self.again.append(left)

    def rows(self, future: Future[Computed], task: Task) -> list[dict[str, Any]]:
        """Return what came back; none where the task has to be sent again."""
        try:
            return future.result().rows
        except CancelledError:
            raise CrewError(GONE) from None
        except (OSError, VersionError) as error:
            raise CrewError(str(error)) from None
        except Exception as error:
            # Of dask: the worker died with the task, more than once.
            self.tries[task] += 1
            if self.tries[task] < _TRIES:
                return []
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return [blank_row(task, cell, reason) for cell in task.cells]

    def keep(self, rows: list[dict[str, Any]]) -> None:
        self.store.add(rows)
        self.summary.computed += len(rows)
        self.summary.failed += sum(row["error"] is not None for row in rows)
        if self.summary.failed:
            self.bar.note = f"{self.summary.failed:,} failed"
        self.bar.add(len(rows))
