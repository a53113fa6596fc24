"""Up to which degree is an estimator exact? Its verdicts on a ladder of losses.

The rungs are polynomials of growing degree in each variable, then losses that are none; an
estimator without loss at hand is known by the highest rung below which it has no bias.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from gradlab.draws import Code, Draws, batched, draws_of
from gradlab.estimators import PathwiseEstimator
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.exact.static import StaticCheck, static_check
from gradlab.gumbel_jacobian import QuadratureError
from gradlab.problems import problem, regime
from gradlab.progress import tracked
from gradlab.resemblance import Resemblance, common, listed
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
    dtype: torch.dtype = torch.float64,
) -> list[Rung]:
    """Return the rungs of these losses, each at every size and regime, the logits in `dtype`."""

    def enumeration(kind: str, name: str, size: tuple[int, int]) -> Enumeration:
        return Enumeration(problem(kind, *size, seed), regime(name, *size, seed).to(dtype))

    return [
        Rung(kind, name, enumeration(kind, name, size))
        for kind in kinds
        for size in sizes
        for name in regimes
    ]


@dataclass(frozen=True, eq=False)
class Ladder:
    """The verdicts on all rungs, what the estimator declares (`order`, None if nothing), and the
    check of its Jacobians alone (`static`, None if it has none).

    `against`: the estimator with whose mean the code is compared on all rungs, instead of with the
    gradient.
    """

    estimator: str
    order: float | None
    rungs: tuple[Rung, ...]
    verdicts: tuple[Verdict, ...]
    static: StaticCheck | None
    against: str = ""

    @property
    def degree(self) -> float:
        """The highest degree up to which the means are those wanted; inf: on all rungs, -1: none.

        Of rungs on which the estimator can be used.
        """
        failed = [r.degree for r, v in zip(self.rungs, self.verdicts, strict=True) if _fails(v)]
        below = {r.degree for r in self.rungs if r.degree < min(failed, default=math.inf)}
        return max(below, default=-1) if failed else math.inf

    @property
    def holds(self) -> bool | None:
        """Whether all is exact up to the declared degree, None where nothing is declared.

        With `against` whether the mean is that of the other estimator on every rung; None where no
        rung could be judged.
        """
        if self.against:
            judged = any(v.outcome != NOT_APPLICABLE for v in self.verdicts)
            return self.degree == math.inf if judged else None
        return None if self.order is None else self.degree >= self.order

    @property
    def nearest(self) -> str | None:
        """The known estimator whose mean undeclared code has on all rungs where it is biased."""
        found = self.resembles
        return None if found is None else found.nearest

    @property
    def resembles(self) -> Resemblance | None:
        """What undeclared code resembles on all rungs where it is biased; None where it is not."""
        return common([v.resembles for v in self.verdicts if v.resembles is not None])

    @property
    def outcome(self) -> str:
        """UNBIASED, EXACT TO DEGREE d, BIASED or INCONCLUSIVE.

        With `against` AGREES WITH it, DIFFERS FROM it, INCONCLUSIVE or NOT APPLICABLE.
        """
        if self.against:
            outcomes = {v.outcome for v in self.verdicts}
            if BIASED in outcomes:
                return f"DIFFERS FROM {self.against}"
            if INCONCLUSIVE in outcomes:
                return INCONCLUSIVE
            return f"AGREES WITH {self.against}" if UNBIASED in outcomes else NOT_APPLICABLE
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
        claim = "" if self.holds is None else ", which holds" if self.holds else ", which FAILS"
        if self.against:
            lines = [f"{self.estimator}: {self.outcome}."]
        else:
            lines = [f"{self.estimator} is {self.outcome}; it declares {declared}{claim}."]
            lines += [self.found()] if self.order is None else []
        if self.static is not None:
            lines.append(str(self.static))
        kinds = dict.fromkeys(r.kind for r in self.rungs)
        lines += [str(self.worst(kind)) for kind in kinds]
        return "\n".join(
            textwrap.fill(line, 98, initial_indent="  " if number else "", subsequent_indent="    ")
            for number, line in enumerate(lines)
        )

    def found(self) -> str:
        """Return what code that declares nothing is found to be, in plain words."""
        if self.degree == math.inf:
            told = ["no bias is found on any of these losses"]
        elif self.degree < 0:
            told = ["it is biased or not decided already on constants"]
        else:
            told = [f"no bias is found up to degree {self.degree:g} in each variable"]
        kinds = dict.fromkeys(r.kind for r in self.rungs)
        worst = {kind: self.worst(kind).outcome for kind in kinds}
        for outcome, what in ((BIASED, "biased on"), (INCONCLUSIVE, "not decided on")):
            named = [kind for kind in kinds if worst[kind] == outcome]
            told += [f"{what} {listed(named)}"] if named else []
        lines = [f"{self.estimator} declares nothing: {', '.join(told)}."]
        if self.resembles is not None:
            said = self.resembles.sentences()
            lines += said or ["Where it is biased it is not one known estimator on all losses."]
        return " ".join(lines)

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
    against: Code | None = None,
    judge: str = "both",
    batch: int | None = None,
    delta: float = 0.05,
    alpha: float = 1e-3,
    max_draws: int = 2**18,
    seed: int = 0,
    progress: bool = False,
) -> Ladder:
    """Return up to which degree in each variable `code` is exact, from its verdict on each rung.

    `on`: the rungs, by default `rungs()`: nine losses, three sizes, three regimes of logits. Where
    no exact mean is known only moderate logits of the size (2, 3), or (3, 2) for an estimator that
    refuses three classes, are tried, by draws, each rung at false-alarm rate `alpha`. `against`: an
    estimator whose mean is compared instead of the gradient, at these logits too. The other
    arguments and errors are those of `gradlab.verify`.
    """
    drawn = draws_of(code)
    named = drawn if batch is None else batched(drawn, batch)
    other = None if against is None else draws_of(against)
    chosen = list(rungs(seed=seed) if on is None else on)
    takes = all(_takes(one, chosen, DRAWN_SIZE) for one in (drawn, other) if one is not None)
    size = DRAWN_SIZE if takes else BINARY_SIZE
    judged: list[Rung] = []
    verdicts: list[Verdict] = []
    for rung in tracked(chosen, drawn.name, "rungs", shown=progress):
        try:
            verdict = verify(
                code,
                rung.enumeration.f,
                rung.enumeration.logits.to(rung.enumeration.objective.dtype),
                against=against,
                judge=judge,
                batch=batch,
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
    static = _static(drawn, judged, size)
    wanted = "" if other is None else other.name
    return Ladder(named.name, drawn.order, tuple(judged), tuple(verdicts), static, wanted)


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
