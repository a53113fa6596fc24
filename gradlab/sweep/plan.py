"""The estimated cost of a sweep, measured on a few of its cells that are chosen at random.

A task costs what its cells share, plus the mean cost of its sampled cells times their number. The
sweep costs the mean of the measured tasks times their number; their spread gives the standard
error.
"""

import math
import random
import time
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from gradlab.sweep.grid import Grid
from gradlab.sweep.isolation import compute, end_process
from gradlab.sweep.size import MEMORY, refused
from gradlab.sweep.store import versions

__all__ = ["Plan", "plan"]

# Cells measured of each task in the sample.
_CELLS = 16


@dataclass(frozen=True)
class Plan:
    """The estimated cost of a sweep.

    Args:
        cells: The number of cells.
        tasks: The number of tasks.
        refused: Why a cell is too large, by its id, for the tasks that were looked at.
        seconds: Seconds of one core for the whole sweep.
        seconds_se: The standard error of the seconds.
        cut_off: Whether a measured cell was cut off, which makes `seconds` a lower bound.
    """

    cells: int
    tasks: int
    refused: dict[str, str]
    seconds: float
    seconds_se: float
    cut_off: bool

    def __str__(self) -> str:
        text = f"{self.cells:,} cells in {self.tasks:,} tasks"
        low, high = (_duration(self.seconds + k * self.seconds_se) for k in (-1, 1))
        span = low if low == high else f"{low} to {high}"
        return f"{text}: {'more than ' if self.cut_off else 'about '}{span} of one core"


def plan(grid: Grid, *, seconds: float = 4.0, memory: float = MEMORY) -> Plan:
    """Measure a random sample of the cells of a grid, and return what the whole sweep will cost.

    Args:
        grid: The grid.
        seconds: About how long to measure. At least two tasks are measured, if there are two. A
            cell is cut off after 10 times as long.
        memory: Gigabytes that a worker may use.

    Returns:
        The estimate.

    Example:
        >>> estimate = plan(Grid(["quadratic"], ["4x3"], estimators=["ST", "ZGR"]), seconds=0.1)
        >>> estimate.cells, estimate.tasks, estimate.refused
        (2, 1, {})
    """
    found: list[float] = []
    why: dict[str, str] = {}
    cut_off = False
    chance, warm = random.Random(0), False
    options: dict[str, Any] = {
        "limit": 10 * seconds,
        "spell": math.inf,
        "memory": int(memory * 2**30),
    }
    here = versions()
    ends = time.monotonic() + seconds
    try:
        for index in chance.sample(range(grid.tasks), grid.tasks):
            task = grid.task(index)
            too_large = refused(task, memory)
            why |= too_large
            cells = task.without(set(too_large)).cells
            if cells:
                if not warm:  # torch is slow at first
                    compute(replace(task, cells=cells[:1]).message, here, **options)
                    warm, ends = True, time.monotonic() + seconds
                some = tuple(chance.sample(cells, min(len(cells), _CELLS)))
                begun = time.monotonic()
                done = compute(replace(task, cells=some).message, here, **options)
                spent = time.monotonic() - begun
                cut_off |= any((row["error"] or "").startswith("TimeoutError") for row in done.rows)
                found.append(done.shared + (spent - done.shared) * len(cells) / len(some))
            else:
                found.append(0.0)
            if time.monotonic() > ends and len(found) > 1:
                break
    finally:
        end_process()
    spread = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else 0.0
    if len(found) == grid.tasks:
        spread = 0.0
    total = grid.tasks * fmean(found)
    return Plan(len(grid), grid.tasks, why, total, grid.tasks * spread, cut_off)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
