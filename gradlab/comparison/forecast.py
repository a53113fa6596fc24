"""How long a recommendation will take, before it starts: exact tables counted, draws timed.

A limit on the time of each exact moment is chosen here too. It is counted and not timed, so that
the rows are the same on every machine.
"""

import time
from typing import Any

import torch

from gradlab.comparison.draws_enough import copies, draws_for, narrowed, share_of_draws
from gradlab.comparison.measuring import PATIENCE
from gradlab.estimators import Estimator, QuadratureError
from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.mechanism import is_shipped
from gradlab.exact.moments import Enumerated, NotExactError
from gradlab.moments import Groups
from gradlab.progress import duration
from gradlab.reproducible import block_generator
from gradlab.user_code.under_test import draws_of

__all__ = ["forecast", "patience_of"]

# Seconds that all exact moments together may take, and limits of one that are tried for it.
_ALL_EXACT = 30.0
_LIMITS = (PATIENCE, 3.0, 1.0, 0.3, 0.1, 0.03)
# Exact moments of less seconds are computed to know how long the others take.
_QUICK = 0.1
# Draws, and numbers in them, by which draws are timed.
_DRAWN, _NUMBERS = (2, 256), 2**16
# Seconds after which draws are no longer timed, but counted.
_PILOT = 3.0


def patience_of(on: Enumerated, cells: list[Estimator]) -> float:
    """Return the seconds that exact moments of one cell may take, so that all take half a minute.

    What takes longer is drawn. Of the limits from 10 s down the largest one that suffices is taken,
    or the smallest one.
    """
    each = [on.seconds(cell) for cell in cells]
    for limit in _LIMITS:
        if sum(seconds for seconds in each if seconds <= limit) <= _ALL_EXACT:
            return limit
    return _LIMITS[-1]


def forecast(on: Enumerated, cells: list[Estimator], draws: int, given: dict[str, Any]) -> str:
    """Return a line on what will be measured and about how long it takes.

    One temperature of each series is timed: exact moments where they are quick, else some draws.
    Your own code is not called.

    Args:
        on: The loss at its logits.
        cells: What will be measured.
        draws: Draws of each cell that is not exact.
        given: The arguments of `compare`.

    Returns:
        A sentence.
    """
    families: dict[str, list[Estimator]] = {}
    for cell in cells:
        families.setdefault(cell.series, []).append(cell)
    far, timer = narrowed(on, cells, draws, given), _Timer(on)
    exact, by_draws, own, exactly, drawing = 0, 0, 0, 0.0, 0.0
    for family in families.values():
        middle = family[len(family) // 2]
        if not is_shipped(middle):
            own += len(family)
            continue
        tables = sum(s for cell in family if (s := on.seconds(cell)) <= given["patience"])
        seconds = _exact_seconds(on, middle) if given["method"] == "auto" else None
        if seconds is not None and on.seconds(middle) <= given["patience"]:
            exact += len(family)
            exactly += max(tables, seconds * len(family))
        else:
            by_draws += len(family)
            each = draws_for(on, middle, draws) if far else draws
            share = share_of_draws(len(family)) if far else 1.0
            drawing += len(family) * share * each * timer.seconds_of_a_draw(middle)
    if given["reference"] is not None:
        drawing += given["reference_draws"] * timer.seconds_of_a_draw(given["reference"])
    total = exactly + drawing / given["workers"]
    parts = [f"{exact} exactly"] if exact else []
    parts += [f"{by_draws} by {'up to ' if far else ''}{draws:,} draws each"] if by_draws else []
    parts += [f"{own} of your own, which are not in the estimate"] if own else []
    what = "estimator" if len(cells) == 1 else "estimators and temperatures"
    return f"{len(cells)} {what} to measure, {', '.join(parts)}: about {duration(max(total, 1.0))}"


def _exact_seconds(on: Enumerated, cell: Estimator) -> float | None:
    """Return the seconds that exact moments take, or None where none are known."""
    seconds = on.seconds(cell)
    if seconds > _QUICK:
        return seconds
    started = time.perf_counter()
    try:
        on.moments(cell)
    except (NotExactError, QuadratureError, TooLargeError):
        return None
    return time.perf_counter() - started


class _Timer:
    """Times a draw of one cell after the other, and after some seconds counts instead."""

    def __init__(self, on: Enumerated) -> None:
        self.on = on
        self.ends = time.perf_counter() + _PILOT
        self.seconds = self.numbers = 0.0

    def seconds_of_a_draw(self, cell: Estimator | str) -> float:
        """Return the seconds of one draw on one thread; 0 for what cannot be drawn."""
        drawn, logits = draws_of(cell), self.on.logits
        assert drawn.estimator is not None
        numbers = logits.numel() * copies(drawn.estimator, logits)
        if time.perf_counter() > self.ends and self.numbers:
            return numbers * self.seconds / self.numbers
        fewest, most = _DRAWN
        draws = max(fewest, min(most, _NUMBERS // logits.numel()))
        try:
            for n in (1, draws):  # the first call is slow
                started = time.perf_counter()
                g = drawn(self.on.objective, logits, n, block_generator(0, "forecast"))
                Groups.from_draws(g.to(torch.float64))
                spent = time.perf_counter() - started
        except ValueError:  # it becomes a row with its reason
            return 0.0
        self.seconds += spent
        self.numbers += draws * numbers
        return spent / draws
