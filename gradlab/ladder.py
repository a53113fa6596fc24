"""Up to which degree is an estimator exact? Its verdicts on a ladder of losses.

The rungs are polynomials of growing degree in each variable, then losses that are none; an
estimator without loss at hand is known by the highest rung below which it has no bias.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from gradlab.draws import Code, Draws, draws_of
from gradlab.estimators import PathwiseEstimator
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.exact.static import StaticCheck, static_check
from gradlab.gumbel_jacobian import QuadratureError
from gradlab.problems import problem, regime
from gradlab.progress import tracked
from gradlab.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED, Verdict
from gradlab.verification import verify

__all__ = ["RUNGS", "SIZES", "Ladder", "Rung", "rungs", "verify_order"]

RUNGS = {
    "constant": 0,
    "linear": 1,
    "multilinear": 1,
    "quadratic": 2,
    "multiquadratic": 2,
    "cubic": 3,
    "polynomial:4": 4,
    "mlp": math.inf,
    "table": math.inf,
}
"""The losses by their degree in each variable; a table has no gradient."""

SIZES = ((1, 4), (2, 3), (3, 2))
DRAWN_SIZE = (2, 3)
BINARY_SIZE = (3, 2)
REGIMES = ("moderate", "peaked", "masked")


@dataclass(frozen=True, eq=False)
class Rung:
    """One loss at one size and one regime of logits, enumerated once for all estimators."""

    kind: str
    regime: str
    enumeration: Enumeration

    @property
    def degree(self) -> float:
        """Degree of the loss in each variable."""
        return RUNGS[self.kind]

    @property
    def drawn(self) -> bool:
        """Whether draws are made here too: at moderate logits of one size."""
        return self.is_moderate(DRAWN_SIZE)

    def is_moderate(self, size: tuple[int, int]) -> bool:
        """Whether the logits are moderate and of this size."""
        return self.regime == "moderate" and tuple(self.enumeration.logits.shape) == size


def rungs(
    kinds: Iterable[str] = RUNGS,
    sizes: Sequence[tuple[int, int]] = SIZES,
    regimes: Sequence[str] = REGIMES,
    seed: int = 0,
) -> list[Rung]:
    """Return the rungs of these losses, each at every size and regime."""
    return [
        Rung(kind, name, Enumeration(problem(kind, *size, seed), regime(name, *size, seed)))
        for kind in kinds
        for size in sizes
        for name in regimes
    ]


@dataclass(frozen=True, eq=False)
class Ladder:
    """The verdicts on all rungs, what the estimator declares (`order`, None if nothing), and the
    check of its Jacobians alone (`static`, None if it has none).
    """

    estimator: str
    order: float | None
    rungs: tuple[Rung, ...]
    verdicts: tuple[Verdict, ...]
    static: StaticCheck | None

    @property
    def degree(self) -> float:
        """The highest degree up to which all is exact; inf for all rungs, -1 for none."""
        failed = [r.degree for r, v in zip(self.rungs, self.verdicts, strict=True) if _fails(v)]
        below = {r.degree for r in self.rungs if r.degree < min(failed, default=math.inf)}
        return max(below, default=-1) if failed else math.inf

    @property
    def holds(self) -> bool:
        """Whether all is exact up to the declared degree; where nothing is declared, True."""
        return self.order is None or self.degree >= self.order

    @property
    def outcome(self) -> str:
        """UNBIASED, EXACT TO DEGREE d, or BIASED."""
        if self.degree == math.inf:
            return UNBIASED
        if self.degree < 0:
            shown = any(v.outcome == BIASED for v in self.verdicts)
            return BIASED if shown else INCONCLUSIVE
        return f"EXACT TO DEGREE {self.degree:g}"

    def worst(self, kind: str) -> Verdict:
        """Return the least favourable verdict among the rungs of one kind of loss.

        Of equally bad ones that where draws are made too, whose size compares between estimators.
        """
        order = (NOT_APPLICABLE, UNBIASED, INCONCLUSIVE, BIASED)
        of = [(r, v) for r, v in zip(self.rungs, self.verdicts, strict=True) if r.kind == kind]
        return max(of, key=lambda rv: (order.index(rv[1].outcome), rv[0].drawn))[1]

    def explain(self) -> str:
        """Return the outcome, how it was found on each rung, and if what is declared holds."""
        declared = {None: "nothing", math.inf: "to be unbiased", 0: "constants only"}.get(
            self.order, f"degree {self.order:g}" if self.order is not None else ""
        )
        claim = "" if self.order is None else ", which holds" if self.holds else ", which FAILS"
        lines = [f"{self.estimator} is {self.outcome}; it declares {declared}{claim}."]
        if self.static is not None:
            lines.append(str(self.static))
        kinds = dict.fromkeys(r.kind for r in self.rungs)
        lines += [str(self.worst(kind)) for kind in kinds]
        return "\n".join(
            textwrap.fill(line, 98, initial_indent="  " if number else "", subsequent_indent="    ")
            for number, line in enumerate(lines)
        )

    def rows(self) -> pd.DataFrame:
        """Return one row a rung: see `Verdict.row`."""
        return pd.DataFrame(
            {"kind": r.kind, "degree": r.degree, "regime": r.regime} | v.row()
            for r, v in zip(self.rungs, self.verdicts, strict=True)
        )


def _fails(verdict: Verdict) -> bool:
    return verdict.outcome in (BIASED, INCONCLUSIVE)


def verify_order(
    code: Code,
    *,
    on: Sequence[Rung] | None = None,
    delta: float = 0.05,
    alpha: float = 1e-3,
    max_draws: int = 2**18,
    seed: int = 0,
    progress: bool = False,
) -> Ladder:
    """Return up to which degree in each variable `code` is exact, from its verdict on each rung.

    `on`: the rungs, by default `rungs()`: nine losses, three sizes, three regimes of logits. Where
    no exact mean is known only moderate logits of the size (2, 3), or (3, 2) for an estimator that
    refuses three classes, are tried, by draws, each rung at false-alarm rate `alpha`. The other
    arguments and errors are those of `gradlab.verify`.
    """
    drawn = draws_of(code)
    chosen = list(rungs(seed=seed) if on is None else on)
    size = DRAWN_SIZE if _takes(drawn, chosen, DRAWN_SIZE) else BINARY_SIZE
    judged: list[Rung] = []
    verdicts: list[Verdict] = []
    for rung in tracked(chosen, drawn.name, "rungs", shown=progress):
        try:
            verdict = verify(
                code,
                rung.enumeration.f,
                rung.enumeration.logits,
                method="auto" if rung.is_moderate(size) else "exact",
                delta=delta,
                alpha=alpha,
                max_draws=max_draws,
                seed=seed,
                enumeration=rung.enumeration,
            )
        except (NotExactError, QuadratureError):
            continue
        judged.append(rung)
        verdicts.append(verdict)
    return Ladder(
        drawn.name, drawn.order, tuple(judged), tuple(verdicts), _static(drawn, judged, size)
    )


def _takes(drawn: Draws, on: Sequence[Rung], size: tuple[int, int]) -> bool:
    """Return whether the code takes a loss on logits of this size; true where there is none."""
    there = [rung.enumeration for rung in on if rung.is_moderate(size)]
    estimator = drawn.estimator
    refused = estimator and [estimator.supports(e.f, e.logits) is not None for e in there]
    return not refused or not all(refused)


def _static(drawn: Draws, on: Sequence[Rung], size: tuple[int, int]) -> StaticCheck | None:
    """Return the check of the Jacobians at the first logits on which draws are made."""
    for rung in on:
        if rung.is_moderate(size) and isinstance(drawn.estimator, PathwiseEstimator):
            try:
                return static_check(drawn.estimator, rung.enumeration.logits)
            except NotExactError:
                return None
    return None
