"""Ratios of CPU times, measured in turns so that a drifting machine affects both sides alike."""

import math
import os
import statistics
from dataclasses import dataclass

from gradlab.nn.clocks import Work, in_turns

__all__ = ["QUICK", "Ratio", "Work", "effort", "faster", "measure", "measure_all", "time_text"]

QUICK = "GRADLAB_BENCH_QUICK"
"""The variable of the environment that asks for few repeats; processes of a part inherit it."""


@dataclass(frozen=True)
class Ratio:
    """One line of the report: what was measured, in units of `unit`, and the target for it.

    `value` is NaN where nothing could be measured; `note` then says why. `ours` and `theirs` are
    the seconds of gradlab and of what it is compared with, where the value is made of the two.
    """

    what: str
    value: float
    target: float | None = None
    unit: str = "x"
    at_least: bool = False
    note: str = ""
    ours: float = math.nan
    theirs: float = math.nan

    @property
    def met(self) -> bool | None:
        """Whether the target is reached, None without a target or a value."""
        if self.target is None or math.isnan(self.value):
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def wanted(self) -> str:
        """The target as a text, such as <= 2."""
        return "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:g}"

    def __str__(self) -> str:
        found = f"{_digits(self.value)} {self.unit}" if self.value == self.value else ""
        line = f"{self.what:<74}{found:>12} {self.wanted:<9}"
        verdict = {None: "", True: "ok", False: "MISSED"}[self.met]
        both = "" if math.isnan(self.ours) else f"{time_text(self.theirs)} : {time_text(self.ours)}"
        return "  ".join(filter(None, (line.rstrip(), verdict, both, self.note)))

    def row(self) -> dict[str, object]:
        """Return the columns of results.csv that the line fills."""
        own = {"what": self.what, "value": _digits(self.value), "unit": self.unit}
        wanted = {"target": self.wanted, "met": "" if self.met is None else self.met}
        times = {"ours": _digits(self.ours), "theirs": _digits(self.theirs)}
        return own | wanted | times | {"note": self.note}


def faster(what: str, theirs: float, ours: float, note: str = "") -> Ratio:
    """Return how many times as fast as another code ours is; the target is not to be slower."""
    return Ratio(what, theirs / ours, 1.0, at_least=True, note=note, ours=ours, theirs=theirs)


def time_text(seconds: float) -> str:
    """Return a time with its unit, such as 1.2 ms."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= 0.9995 * scale:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _digits(value: float) -> str:
    """Return three digits, without an exponent for large numbers; an empty text for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def effort(full: float, quick: float) -> float:
    """Return how much to measure: `quick` where few repeats are asked for, else `full`."""
    return quick if os.environ.get(QUICK) else full


def measure_all(works: dict[str, Work], seconds: float = 1.5) -> dict[str, float]:
    """Return the median CPU seconds of each piece of work, the pieces run in turns."""
    times = in_turns(works, effort(seconds, 0.0))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(
    what: str, work: Work, limit: Work, target: float | None, seconds: float = 1.5
) -> Ratio:
    """Return the time of `work` over that of `limit`."""
    times = measure_all({"work": work, "limit": limit}, seconds)
    return Ratio(what, times["work"] / times["limit"], target)
