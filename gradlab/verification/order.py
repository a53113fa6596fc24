"""Up to which degree is an estimator exact? Its verdicts on a ladder of losses.

The rungs are polynomials of growing degree in each variable, then losses that are none; an
estimator without loss at hand is known by the highest rung below which it has no bias. Code that is
known by its draws alone is also tried at other sizes, logits and dtypes (see rungs.py).
"""

import math
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from gradlab.estimators import PathwiseEstimator, QuadratureError
from gradlab.exact.moments import NotExactError
from gradlab.loss import LossError
from gradlab.progress import tracked
from gradlab.user_code.replicates import NO_REPLICATES
from gradlab.user_code.under_test import (
    Code,
    Draws,
    EstimatorDtypeError,
    EstimatorError,
    batched,
    draws_of,
)
from gradlab.verification.jacobian_conditions import StaticCheck, static_check
from gradlab.verification.resemblance import Resemblance, common, listed
from gradlab.verification.rungs import DRAWN_SIZE, RUNGS, SITES, SIZES, Rung, Site, binary, rungs
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED, Verdict
from gradlab.verification.verifying import verify

__all__ = ["RUNGS", "SIZES", "Ladder", "Rung", "rungs", "verify_order"]

BINARY_SIZE = (3, 2)
# Tried at a site, the losses of the highest degree that is left, in turn: their trials are short.
_STRONG: dict[float, tuple[str, ...]] = {
    math.inf: ("mlp", "table"),
    4: ("polynomial:4",),
    3: ("cubic",),
    2: ("quadratic", "multiquadratic"),
    1: ("linear", "multilinear"),
    0: ("constant",),
}
# At a site a bias below so many times delta counts as none.
_COARSER = 2


@dataclass(frozen=True, eq=False)
class Ladder:
    """What `verify_order` finds: the verdicts on all rungs, beside what the estimator declares.

    Attributes:
        estimator: text of the code.
        order: degree up to which it declares to be exact; None if it declares nothing.
        rungs: the losses, with `verdicts` in the same order.
        verdicts: one for each rung.
        static: the check of its Jacobians alone; None if it has none.
        against: the estimator with whose mean the code is compared; "" for the gradient.
        refused: the sites at which the code cannot be used, each with the reason.
    """

    estimator: str
    order: float | None
    rungs: tuple[Rung, ...]
    verdicts: tuple[Verdict, ...]
    static: StaticCheck | None
    against: str = ""
    refused: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[tuple[Rung, Verdict], ...]:
        """The rungs with their verdicts."""
        return tuple(zip(self.rungs, self.verdicts, strict=True))

    @property
    def elsewhere(self) -> tuple[Verdict, ...]:
        """The verdicts at the sites: other sizes, logits and dtypes than those of the ladder."""
        return tuple(v for r, v in self.pairs if r.site is not None)

    @property
    def counterexamples(self) -> tuple[Verdict, ...]:
        """The verdicts at the sites that show a bias."""
        return tuple(v for v in self.elsewhere if v.outcome == BIASED)

    @property
    def undecided(self) -> tuple[Verdict, ...]:
        """The verdicts at the sites where so many draws do not decide."""
        return tuple(v for v in self.elsewhere if v.outcome == INCONCLUSIVE)

    def decides(self, kind: str) -> bool:
        """Return whether the code can be used on losses of this kind, and no bias is found."""
        found = [v.outcome for r, v in self.pairs if r.kind == kind and r.site is None]
        return UNBIASED in found and BIASED not in found

    @property
    def degree(self) -> float:
        """The highest degree up to which the means are those wanted; inf: on all rungs, -1: none.

        Of rungs on which the estimator can be used. A trial at a site that does not decide is not a
        failure (see `undecided`): the loss of that degree is decided on the ladder.
        """
        failed = [r.degree for r, v in self.pairs if _fails(r, v)]
        below = {r.degree for r in self.rungs if r.degree < min(failed, default=math.inf)}
        return max(below, default=-1) if failed else math.inf

    @property
    def holds(self) -> bool | None:
        """Whether all is exact up to the declared degree, None where nothing is declared.

        With `against` whether the mean is that of the other estimator on every rung; None where no
        rung could be judged. True says that nothing speaks against it: see `undecided`.
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
        here = [v for r, v in self.pairs if r.site is None and v.outcome == BIASED]
        of = here or self.counterexamples
        return common([v.resembles for v in of if v.resembles is not None])

    @property
    def outcome(self) -> str:
        """UNBIASED, EXACT TO DEGREE d, BIASED or INCONCLUSIVE.

        With `against` AGREES WITH it, DIFFERS FROM it, INCONCLUSIVE or NOT APPLICABLE. The words
        WHERE DECIDED are added if no site shows a counterexample but some do not decide.
        """
        found = self._found()
        good = found.startswith((UNBIASED, "EXACT", "AGREES"))
        return f"{found} WHERE DECIDED" if good and self.is_open else found

    @property
    def is_open(self) -> bool:
        """Whether a trial at a site does not decide what is said to hold."""
        return any(r.degree <= self.degree for r, v in self.pairs if v in self.undecided)

    def _found(self) -> str:
        if self.against:
            outcomes = {v.outcome for r, v in self.pairs if r.site is None or v.outcome == BIASED}
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
        Of those at sites only a counterexample counts.
        """
        order = (NOT_APPLICABLE, UNBIASED, INCONCLUSIVE, BIASED)
        of = [
            (r, v)
            for r, v in self.pairs
            if r.kind == kind and (r.site is None or v.outcome == BIASED)
        ]
        return max(of, key=lambda rv: (order.index(rv[1].outcome), rv[0].drawn))[1]

    def explain(self) -> str:
        """Return the outcome, how it was found on each rung, and if what is declared holds."""
        declared = {None: "nothing", math.inf: "to be unbiased", 0: "constants only"}.get(
            self.order, f"degree {self.order:g}" if self.order is not None else ""
        )
        claim = "" if self.holds is None else ", which holds" if self.holds else ", which FAILS"
        claim += " where decided" if self.holds and self.is_open else ""
        if self.against:
            lines = [f"{self.estimator}: {self.outcome}."]
        else:
            lines = [f"{self.estimator} is {self.outcome}; it declares {declared}{claim}."]
            lines += [self.found()] if self.order is None else []
        if self.static is not None:
            lines.append(str(self.static))
        kinds = dict.fromkeys(r.kind for r in self.rungs if r.site is None)
        lines += self.sites()
        lines += [str(v) for v in map(self.worst, kinds) if v not in self.counterexamples]
        return "\n".join(
            textwrap.fill(line, 98, initial_indent="  " if number else "", subsequent_indent="    ")
            for number, line in enumerate(lines)
        )

    def sites(self) -> list[str]:
        """Return what is found at the sites, in plain words: first what speaks against the code."""
        failed: dict[Site, list[tuple[Rung, Verdict]]] = {}
        for rung, verdict in self.pairs:
            if rung.site is not None and verdict.outcome == BIASED:
                failed.setdefault(rung.site, []).append((rung, verdict))
        lines = []
        for (_, first), *more in failed.values():
            also = f"; there also on {listed(r.kind for r, _ in more)}" if more else ""
            lines.append(f"Counterexample: {first}{also}.")
        tried = len(self.elsewhere)
        if tried:
            shown = len(self.counterexamples)
            among = f"{shown or 'No'} counterexample{'s' if shown > 1 else ''}"
            trials = f"{tried} trial{'s' if tried > 1 else ''} elsewhere"
            told = (
                f"{among} to {self.estimator} in {trials}: other sizes, logits, dtypes, values of f"
            )
            told += f"; not decided: {len(self.undecided)}" if self.undecided else ""
            lines.append(f"{told}.")
        for verdict in self.undecided:
            needed = f"; about {verdict.needed:,} draws are needed" if verdict.needed else ""
            lines.append(f"Not decided: {verdict}{needed}.")
        return lines + [f"Cannot be used: {reason}." for reason in self.refused]

    def found(self) -> str:
        """Return what code that declares nothing is found to be, in plain words."""
        if self.degree == math.inf:
            told = ["no bias is found on any of these losses"]
        elif self.degree < 0:
            told = ["even on constants it is biased or not decided"]
        else:
            told = [f"no bias is found up to degree {self.degree:g} in each variable"]
        kinds = dict.fromkeys(r.kind for r in self.rungs)
        worst = {kind: self.worst(kind) for kind in kinds}
        only = [kind for kind in kinds if worst[kind] in self.counterexamples]
        here = {kind: v.outcome for kind, v in worst.items() if kind not in only}
        for outcome, what in ((BIASED, "biased on"), (INCONCLUSIVE, "not decided on")):
            named = [kind for kind in here if here[kind] == outcome]
            told += [f"{what} {listed(named)}"] if named else []
        told += [f"biased at other sizes or logits on {listed(only)}"] if only else []
        lines = [f"{self.estimator} declares nothing: {', '.join(told)}."]
        if self.resembles is not None:
            said = self.resembles.sentences()
            lines += said or ["Where it is biased it is not one known estimator on all losses."]
        return " ".join(lines)

    def rows(self) -> pd.DataFrame:
        """Return one row a rung: see `Verdict.row`."""
        return pd.DataFrame(
            {"kind": r.kind, "degree": r.degree, "regime": r.regime, "dtype": r.dtype} | v.row()
            for r, v in self.pairs
        )


def _fails(rung: Rung, verdict: Verdict) -> bool:
    """Return whether a verdict ends the ladder below this rung."""
    return verdict.outcome == BIASED or (rung.site is None and verdict.outcome == INCONCLUSIVE)


def verify_order(
    code: Code,
    *,
    on: Sequence[Rung] | None = None,
    sites: Sequence[Site] | None = None,
    against: Code | None = None,
    judge: str = "both",
    batch: int | None = None,
    delta: float = 0.05,
    alpha: float = 1e-3,
    max_draws: int = 2**20,
    seed: int = 0,
    progress: bool = False,
) -> Ladder:
    """Return up to which degree in each variable `code` is exact, from its verdict on each rung.

    All trials by draws share `alpha`: each has an equal part of it, so that any right code is
    called biased anywhere at a rate of at most `alpha`, as far as each trial keeps its level.

    Args:
        code: as in `gradlab.verify`. It may refuse masked logits, by raising or by NaN, and one of
            the dtypes.
        on: the rungs; by default `rungs()`: nine losses, three sizes, three regimes of logits.
            Where no exact mean is known, draws are made at moderate logits of the size (2, 3), or
            (3, 2) for an estimator that refuses three classes.
        sites: other sizes, logits, dtypes and sizes of f where code is tried besides, unless it is
            an estimator of gradlab whose means are all known; by default `SITES`, and none if `on`
            is given. At each a loss of the highest degree that is left is tried, and where that is
            biased one of each lower degree, so that `degree` holds there too. A bias below twice
            `delta` counts as none there.
        against: an estimator whose mean is compared instead of the gradient.
        judge: as in `gradlab.verify`, and so are the following.
        batch: samples of the batch that one estimate uses.
        delta: largest bias that counts as none, in lengths of the gradient.
        alpha: rate at which right code may be called biased anywhere.
        max_draws: stop a trial without a decision after so many draws.
        seed: of the losses, logits and draws.
        progress: show a bar on stderr.

    Returns:
        A `Ladder` with the verdicts.

    Raises:
        EstimatorError: if the code is faulty; the message names the site.
        ValueError, TypeError: as in `gradlab.verify`.

    Example:
        >>> import gradlab
        >>> gradlab.verify_order("ZGR").outcome
        'EXACT TO DEGREE 2'
    """
    drawn = draws_of(code)
    named = drawn if batch is None else batched(drawn, batch)
    other = None if against is None else draws_of(against)
    chosen = list(rungs(seed=seed) if on is None else on)
    also = list((SITES if on is None else ()) if sites is None else sites)
    takes = all(_takes(one, chosen, DRAWN_SIZE) for one in (drawn, other) if one is not None)
    size = DRAWN_SIZE if takes else BINARY_SIZE
    if not takes:
        also = list(dict.fromkeys(map(binary, also)))
    # A site can end with a counterexample at most once for each degree: the rest of the trials are
    # one for each site.
    trials = sum(rung.is_moderate(size) for rung in chosen) + len(also)
    trials += len(_STRONG) if also else 0
    options = {"against": against, "judge": judge, "batch": batch, "delta": delta, "seed": seed}
    options |= {"alpha": alpha / max(trials, 1), "max_draws": max_draws}
    pairs: list[tuple[Rung, Verdict]] = []
    for rung in tracked(chosen, drawn.name, "rungs", shown=progress):
        method = "auto" if rung.is_moderate(size) else "exact"
        with suppress(NotExactError, QuadratureError):
            pairs.append((rung, _verdict(code, rung, method=method, **options)))
    static = _static(drawn, [rung for rung, _ in pairs], size)
    wanted = "" if other is None else other.name
    ladder = Ladder(named.name, drawn.order, *_columns(pairs), static, wanted)
    if drawn.is_shipped and not any(v.method == "monte carlo" for v in ladder.verdicts):
        return ladder
    options["delta"] = min(_COARSER * delta, 0.5)
    for number, site in enumerate(tracked(also, drawn.name, "sites", shown=progress)):
        ladder = _tried(ladder, code, site, number, options)
    return ladder


def _verdict(code: Code, rung: Rung, **options: Any) -> Verdict:
    return verify(code, rung.enumeration, problem=rung.name, **options)


def _columns(pairs: Sequence[tuple[Rung, Verdict]]) -> tuple[Any, Any]:
    return tuple(rung for rung, _ in pairs), tuple(verdict for _, verdict in pairs)


def _tried(ladder: Ladder, code: Code, site: Site, number: int, options: dict[str, Any]) -> Ladder:
    """Return the ladder with verdicts at one site: from the degree that is left downwards.

    Raises EstimatorError or LossError, with the site, if the code fails there.
    """
    for degree, strong in _STRONG.items():
        kinds = [k for k in strong if degree <= ladder.degree and ladder.decides(k)]
        if not kinds:
            continue
        rung = site.rung(kinds[number % len(kinds)], options["seed"])
        try:
            verdict = _verdict(code, rung, **options)
        except (EstimatorError, LossError) as error:
            refuses = site.masks and not isinstance(error, NO_REPLICATES)
            if refuses or isinstance(error, EstimatorDtypeError):
                return replace(ladder, refused=(*ladder.refused, f"at {site} ({error})"))
            told = "; give on=rungs(...) to try the code elsewhere"
            raise type(error)(f"{error}, at {site}{told}") from error
        pairs = (*ladder.pairs, (rung, verdict))
        ladder = replace(ladder, rungs=_columns(pairs)[0], verdicts=_columns(pairs)[1])
        if verdict.outcome != BIASED:
            return ladder
    return ladder


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
