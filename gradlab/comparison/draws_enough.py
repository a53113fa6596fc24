"""How many draws the cells of a recommendation get: fewer far from the best, more where rare.

What is drawn is counted, not timed, so that the rows are the same on every machine.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gradlab.comparison.comparing import compare
from gradlab.comparison.ranking import is_unmet, progress_at
from gradlab.estimators import Estimator
from gradlab.exact.moments import Enumerated
from gradlab.moments import GROUPS

__all__ = ["copies", "draws_for", "measured_cells", "narrowed", "share_of_draws", "with_more_draws"]

# Numbers that all draws may make before fewer are made of some, what share then, and how many
# temperatures on each side of the best are measured by all.
_WORK, _FEWER, _NEAR = 2**29, 16, 1
# Numbers that all draws of one cell may make: of what makes more fewer draws are made.
_CELL = 2**24
# Numbers that draws may make in all beyond those asked for, to meet rare states: half a minute.
_EXTRA = 2**26


def measured_cells(
    on: Enumerated,
    cells: list[Estimator],
    draws: int,
    settings: dict[str, Any],
    evaluations: int,
    costs: dict[str, float],
) -> tuple[pd.DataFrame, str | None]:
    """Return the rows of all cells; large ones with few draws where the temperature is far off.

    Where all draws of all temperatures are too many numbers, a sixteenth of them shows which
    temperatures of a series may be the best; only these are measured by all. Counted, not timed, so
    that the rows are the same on every machine.
    """
    far = narrowed(on, cells, draws, settings)
    if not far:
        return compare(on, estimators=cells, draws=draws, **settings), None
    first = _compared(on, far, lambda cell: _few(draws_for(on, cell, draws)), settings)
    near: set[str] = set()
    for series, part in first[first["reason"].isna()].groupby("series", sort=False):
        part = part.sort_values("tau")
        draws_each = max(1, int(evaluations // costs[series]))
        value, noise = progress_at(part, draws_each * settings["averaged"])
        error = -value
        best = int(np.nanargmin(error)) if np.isfinite(error).any() else 0
        alike = error - error[best] <= 2 * np.hypot(noise, noise[best])
        alike[max(0, best - 1) : best + 2] = True
        # Of many that noise makes alike the ones around the best are enough.
        alike[: max(0, best - _NEAR)] = alike[best + _NEAR + 1 :] = False
        near |= set(part["estimator"][alike])
    again = [cell for cell in cells if cell not in far or str(cell) in near]
    second = _compared(on, again, lambda cell: draws_for(on, cell, draws), settings)
    rows = pd.concat([second, first[~first["estimator"].isin(near)]])
    told = (
        "Temperatures far from the best of their series were measured by a sixteenth of the draws."
    )
    if any(draws_for(on, cell, draws) < draws for cell in far):
        told += (
            f" Estimators with many numbers in a draw were measured by less than {draws:,} draws."
        )
    return _in_order(rows, cells), told


def draws_for(on: Enumerated, cell: Estimator, draws: int) -> int:
    """Return how many of the draws are made of a cell where there are too many numbers."""
    numbers = on.logits.numel() * copies(cell, on.logits)
    return max(2 * GROUPS, min(draws, _CELL // numbers))


def _compared(
    on: Enumerated,
    cells: list[Estimator],
    draws: Callable[[Estimator], int],
    settings: dict[str, Any],
) -> pd.DataFrame:
    """Return the rows of cells, each by its own number of draws."""
    alike: dict[int, list[Estimator]] = {}
    for cell in cells:
        alike.setdefault(draws(cell), []).append(cell)
    parts = [compare(on, estimators=some, draws=n, **settings) for n, some in alike.items()]
    return pd.concat(parts, ignore_index=True)


def narrowed(
    on: Enumerated, cells: list[Estimator], draws: int, settings: dict[str, Any]
) -> list[Estimator]:
    """Return the cells of which most temperatures get a sixteenth of the draws.

    All that are drawn, where their draws are too many numbers; none where not.
    """
    drawn = cells
    if settings["method"] == "auto":
        drawn = [cell for cell in cells if on.seconds(cell) > settings["patience"]]
    work = sum(on.logits.numel() * draws * copies(cell, on.logits) for cell in drawn)
    return drawn if work > _WORK and _few(draws) < draws else []


def share_of_draws(temperatures: int) -> float:
    """Return about which share of all draws is made where they are narrowed."""
    return 1 / _FEWER + min(1.0, (2 * _NEAR + 1) / temperatures)


def _few(draws: int) -> int:
    return max(2 * GROUPS, draws // _FEWER)


def with_more_draws(
    rows: pd.DataFrame,
    on: Enumerated,
    cells: list[Estimator],
    settings: dict[str, Any],
) -> pd.DataFrame:
    """Return the rows, those of too few draws measured by as many as are needed.

    As far as `_EXTRA` numbers last: the cheapest series first, all its temperatures or none.
    """
    if not is_unmet(rows).any():
        return rows
    needed = rows[is_unmet(rows)].set_index("estimator")["draws_needed"]
    waiting: dict[str, list[Estimator]] = {}
    for cell in cells:
        if str(cell) in needed.index:
            waiting.setdefault(cell.series, []).append(cell)

    def work(some: list[Estimator]) -> float:
        numbers = (needed[str(cell)] * copies(cell, on.logits) for cell in some)
        return on.logits.numel() * float(sum(numbers))

    left, parts = float(_EXTRA), []
    for some in sorted(waiting.values(), key=work):
        left -= work(some)
        if left < 0:
            break
        draws = int(max(needed[str(cell)] for cell in some))
        parts.append(compare(on, estimators=some, draws=draws, **settings))
    if not parts:
        return rows
    again = pd.concat(parts)
    rows = pd.concat([again, rows[~rows["estimator"].isin(again["estimator"])]])
    return _in_order(rows, cells)


def _in_order(rows: pd.DataFrame, cells: list[Estimator]) -> pd.DataFrame:
    order = {str(cell): place for place, cell in enumerate(cells)}
    ordered = rows.sort_values("estimator", key=lambda names: names.map(order), kind="stable")
    return ordered.reset_index(drop=True)


def copies(cell: Estimator, logits: Tensor) -> int:
    """Return how many numbers a draw makes for each logit."""
    variables, classes = logits.shape[-2:]
    return cell.footprint(variables, classes) // (variables * classes)
