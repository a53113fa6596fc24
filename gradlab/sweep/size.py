"""Which cells are too large to begin: judged by their size alone, before anything is allocated.

Bytes are the largest arrays that enumeration, tables and blocks of draws make, as measured.
"""

import math

from gradlab.estimators import Estimator, PathwiseEstimator
from gradlab.exact.enumeration import MAX_CONFIGURATIONS
from gradlab.montecarlo import block_size
from gradlab.problems import regime
from gradlab.sweep.cells import Task, estimator_of

__all__ = ["MEMORY", "needed_bytes", "refused"]

MEMORY = 4.0
"""Gigabytes that a worker may use by default."""

_GB = 2**30
# A process with torch, and the buffer of an enumeration with its gradients.
_PROCESS = 0.5 * _GB
# Arrays of the size of a block of draws, and of the second moments of a gradient, held at once.
_BLOCKS, _TABLES = 6, 8


def refused(task: Task, memory: float = MEMORY) -> dict[str, str]:
    """Return why cells of a task cannot be computed, by their ids.

    Args:
        task: The task.
        memory: Gigabytes that a worker may use.

    Returns:
        The reasons; empty if all cells fit.
    """
    log10 = _log10_configurations(task)
    if log10 > math.log10(MAX_CONFIGURATIONS) + 1e-9:
        count = f"{10**log10:,.0f}" if log10 < 12 else f"about 10^{log10:.1f}"
        why = (
            f"TooLargeError: {count} configurations of {task.N} variables of {task.C} classes are "
            f"more than the {MAX_CONFIGURATIONS:,} that are enumerated; take a smaller size, or "
            "gradlab.compare(..., reference=...)"
        )
        return {cell.id: why for cell in task.cells}
    found = {}
    for cell in task.cells:
        needed = needed_bytes(estimator_of(task, cell), task.N, task.C, task.method) / _GB
        if needed > memory:
            found[cell.id] = (
                f"TooLargeError: it needs about {needed:.1f} GB, more than the {memory:g} GB of a "
                "worker (--memory)"
            )
    return found


def needed_bytes(estimator: Estimator, N: int, C: int, method: str = "auto") -> float:
    """Return about how many bytes a worker needs for one cell.

    Args:
        estimator: The estimator.
        N: The number of variables.
        C: The number of classes.
        method: "exact", "monte-carlo" or "auto".

    Returns:
        The number of bytes.

    Example:
        >>> from gradlab import parse
        >>> f"{needed_bytes(parse('ST'), 4, 3) / 2**30:.2f} GB"
        '0.51 GB'
    """
    block = block_size(estimator, N, C) * estimator.calls(C, N) * N * C
    # Larger tables than these are refused by the enumeration itself.
    tables = min(N * C**3, 2**25) if isinstance(estimator, PathwiseEstimator) else 0
    if method == "monte-carlo":
        tables = 0
    return _PROCESS + 8 * (_BLOCKS * block + _TABLES * tables)


def _log10_configurations(task: Task) -> float:
    if task.regime != "masked":
        return task.N * math.log10(task.C)
    allowed = regime("masked", task.N, task.C, task.seed).isfinite().sum(-1)
    return sum(math.log10(int(count)) for count in allowed)
