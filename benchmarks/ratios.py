"""Ratios of CPU times, measured in turns so that a drifting machine affects both sides alike."""

import statistics
from dataclasses import dataclass

from gradlab.nn.clocks import Work, in_turns

__all__ = ["Ratio", "Work", "measure", "measure_all"]


@dataclass(frozen=True)
class Ratio:
    """One line of the report: what was measured, in units of `unit`, and the target for it."""

    what: str
    value: float
    target: float | None = None
    unit: str = "x"
    at_least: bool = False

    def __str__(self) -> str:
        line = f"{self.what:<74}{self.value:>10.3g} {self.unit:<3}"
        if self.target is None:
            return line
        met = self.value >= self.target if self.at_least else self.value <= self.target
        sign = ">=" if self.at_least else "<="
        return f"{line} {sign} {self.target:<6g} {'ok' if met else 'MISSED'}"


def measure_all(works: dict[str, Work], seconds: float = 1.5) -> dict[str, float]:
    """Return the median CPU seconds of each piece of work, the pieces run in turns."""
    times = in_turns(works, seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(
    what: str, work: Work, limit: Work, target: float | None, seconds: float = 1.5
) -> Ratio:
    """Return the time of `work` over that of `limit`."""
    times = measure_all({"work": work, "limit": limit}, seconds)
    return Ratio(what, times["work"] / times["limit"], target)
