"""What the mean of code that declares nothing resembles: a known estimator, or the gradient scaled.

Each statement is a test with a stated confidence: what agrees, what is excluded, and what so many
draws leave open.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

__all__ = ["Resemblance", "Scaled", "common", "listed"]


@dataclass(frozen=True)
class Scaled:
    """The mean as `factor` times the gradient, between `low` and `high`.

    `rest`: what the mean is off that at most, relative to the gradient; `alone`: whether that is
    shown to be little beside the bias, and nothing speaks for another direction.
    """

    factor: float
    low: float
    high: float
    rest: float
    alone: bool

    def is_sharp(self, share: float) -> bool:
        """Return whether the rest is below this share of the mean or of the bias."""
        return self.alone and self.rest <= share * max(abs(self.factor), abs(1 - self.factor))

    def __contains__(self, factor: float | Fraction) -> bool:
        slack = 1e-9 * max(1.0, abs(self.factor))
        return self.low - slack <= float(factor) <= self.high + slack

    def __str__(self) -> str:
        best, low, high = (_number(v, self) for v in (self.factor, self.low, self.high))
        return f"{best} ({low} to {high})" if low != high else best


def _number(value: float, scaled: Scaled) -> str:
    """Return a number with one digit more than the interval makes sure of."""
    width = scaled.high - scaled.low
    digits = 1
    while digits < 6 and width < 10.0 ** (1 - digits):
        digits += 1
    return f"{value:.{digits}f}" if width > 0 else f"{value:.6g}"


@dataclass(frozen=True)
class Resemblance:
    """What is found of the mean of code by `draws` of its own, made for this alone.

    `agrees`: known estimators whose exact mean it is, each with the distance that is left,
    relative to that mean; `excluded`: those whose mean it is not; `undecided`: the others.
    `scaled`: the mean along the gradient, None where that is 0. All at one confidence. `losses`: on
    how many this holds (see `common`).
    """

    draws: int
    confidence: float
    agrees: dict[str, float] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    scaled: Scaled | None = None
    losses: int = 1

    @property
    def nearest(self) -> str | None:
        """The known estimator that is agreed with most closely, None if with none."""
        return min(self.agrees, key=self.agrees.__getitem__) if self.agrees else None

    def sentences(self) -> tuple[str, ...]:
        """Return what is found, in plain words."""
        drawn = f"{self.draws:,} more draws" + (" on each loss" if self.losses > 1 else "")
        drawn = f"up to {drawn}" if self.losses > 1 else drawn
        by = f"by {drawn}, with confidence {self.confidence:.10g}"
        lines = []
        if self.scaled is not None and self.scaled.alone:
            lines.append(
                f"This factor explains the bias: the mean is {self.scaled} times the gradient, "
                f"to within {self.scaled.rest:.1%} of it, {by}."
            )
        if self.agrees:
            lines.append(
                f"Its mean agrees with that of {listed(self.agrees)}, within "
                f"{max(self.agrees.values()):.1%} of its length, {by}. Whether it is coded right "
                f'as {self.nearest} is the question against="{self.nearest}" (--against).'
            )
        elif self.excluded and not self.undecided:
            lines.append(f"Its mean is that of none of {listed(self.excluded)}: all excluded {by}.")
        elif self.undecided:
            sentence = f" It is that of none of {listed(self.excluded)}." if self.excluded else ""
            lines.append(
                f"Whether its mean is that of {listed(self.undecided, 'or')} is not decided by "
                f"{drawn}.{sentence}"
            )
        return tuple(lines)


def common(found: Sequence[Resemblance]) -> Resemblance | None:
    """Return what holds on all of several losses: the largest distances, None of no losses.

    An estimator that is excluded on one of them is excluded. A factor is kept where the intervals
    on all losses have a number in common.
    """
    if not found:
        return None
    names = dict.fromkeys(n for one in found for n in (*one.agrees, *one.excluded, *one.undecided))
    excluded = tuple(n for n in names if any(n in one.excluded for one in found))
    agrees = {
        n: max(one.agrees[n] for one in found)
        for n in names
        if all(n in one.agrees for one in found)
    }
    undecided = tuple(n for n in names if n not in agrees and n not in excluded)
    scaled = None
    factors = [one.scaled for one in found if one.scaled is not None and one.scaled.alone]
    if len(factors) == len(found):
        low, high = max(s.low for s in factors), min(s.high for s in factors)
        if low <= high:
            rest = max(s.rest for s in factors)
            scaled = Scaled((low + high) / 2, low, high, rest, True)
    draws = max(one.draws for one in found)
    confidence = found[0].confidence
    return Resemblance(draws, confidence, agrees, excluded, undecided, scaled, len(found))


def listed(names: Iterable[str], last: str = "and") -> str:
    """Return the names as a list in words, several temperatures of one estimator together."""
    merged: dict[str, list[str]] = {}
    for name in names:
        kind, _, tau = name.partition("(tau=")
        merged.setdefault(kind, []).extend([tau.rstrip(")")] if tau else [])
    *first, end = (f"{kind}(tau={', '.join(t)})" if t else kind for kind, t in merged.items())
    return f"{', '.join(first)} {last} {end}" if first else end
