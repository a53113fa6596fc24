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

    @property
    def met(self) -> bool | None:
        """Whether the target is reached, None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def wanted(self) -> str:
        """The target as a text, such as <= 2."""
        return "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:g}"

    def __str__(self) -> str:
        line = f"{self.what:<74}{self.value:>10.3g} {self.unit:<3}"
        if self.target is None:
            return line
        return f"{line} {self.wanted:<9} {'ok' if self.met else 'MISSED'}"

    def row(self) -> dict[str, object]:
        """Return the columns of results.csv that the line fills."""
        value = float(f"{self.value:.3g}")
        own = {"what": self.what, "value": value, "unit": self.unit.strip()}
        return own | {"target": self.wanted, "met": self.met}


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
