"""What a ladder of losses shows of an estimator: its verdicts, and the degree that follows."""

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradlab.text import aligned, filled
from gradlab.verification.jacobian_conditions import StaticCheck
from gradlab.verification.monomials import MonomialCheck
from gradlab.verification.resemblance import Resemblance, common, listed
from gradlab.verification.rungs import Site
from gradlab.verification.verdict import BIASED, INCONCLUSIVE, NOT_APPLICABLE, UNBIASED, Verdict

__all__ = ["Ladder", "cell", "degree_text"]


@dataclass(frozen=True, eq=False, repr=False)
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
        distribution: what x is drawn from; "" for independent categorical variables. Degrees are
            then those in all coordinates of x together.
    """

    estimator: str
    order: float | None
    rungs: tuple[Any, ...]
    verdicts: tuple[Verdict, ...]
    static: StaticCheck | MonomialCheck | None
    against: str = ""
    refused: tuple[str, ...] = ()
    distribution: str = ""

    @property
    def pairs(self) -> tuple[tuple[Any, Verdict], ...]:
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

    def __str__(self) -> str:
        """Return the outcome and a short table: the least favourable verdict on each loss."""
        table = [("f", "degree", "bias", "by", "tried")]
        for kind in dict.fromkeys(r.kind for r in self.rungs):
            of = [(r, v) for r, v in self.pairs if r.kind == kind]
            worst = self.worst(kind)
            by = "proof" if worst.method == "exact" else f"{worst.draws:,} draws"
            by = "-" if worst.outcome == NOT_APPLICABLE else by
            star = "*" if worst in self.counterexamples else ""
            table.append((kind, degree_text(of[0][0].degree), cell(worst) + star, by, str(len(of))))
        key = (
            "bias: share of the gradient's length; 0 is proved; <.05 is a bound by draws; ? is not "
            "decided; - cannot be used; explain() says more."
        )
        return "\n".join([filled(self._headline()), "", aligned(table), "", filled(key, indent="")])

    def __repr__(self) -> str:
        return f"Ladder({self.estimator}: {self.outcome})"

    def _headline(self) -> str:
        """Return the outcome, and what is declared, in a sentence."""
        on = f" on {self.distribution}" if self.distribution else ""
        if self.against:
            return f"{self.estimator}{on}: {self.outcome}."
        declared = {None: "nothing", math.inf: "to be unbiased", 0: "constants only"}.get(
            self.order, f"degree {self.order:g}" if self.order is not None else ""
        )
        claim = "" if self.holds is None else ", which holds" if self.holds else ", which FAILS"
        claim += " where decided" if self.holds and self.is_open else ""
        return f"{self.estimator} is {self.outcome}{on}; it declares {declared}{claim}."

    def explain(self) -> str:
        """Return the outcome, how it was found on each rung, and if what is declared holds."""
        lines = [self._headline()]
        lines += [self.found()] if self.order is None and not self.against else []
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
        failed: dict[Site, list[tuple[Any, Verdict]]] = {}
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
            of = "in x" if self.distribution else "in each variable"
            told = [f"no bias is found up to degree {self.degree:g} {of}"]
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


def _fails(rung: Any, verdict: Verdict) -> bool:
    """Return whether a verdict ends the ladder below this rung."""
    return verdict.outcome == BIASED or (rung.site is None and verdict.outcome == INCONCLUSIVE)


def cell(verdict: Verdict) -> str:
    """Return a verdict in a few characters."""
    if verdict.outcome == NOT_APPLICABLE:
        return "-"
    if verdict.outcome == INCONCLUSIVE:
        return "?"
    bias = verdict.relative_bias.value
    if verdict.outcome == BIASED:
        return f"{bias:.0%}" if bias >= 0.0095 else f"{bias:.1g}"
    if verdict.method == "exact" or verdict.deviation == 0:
        return "0"
    return f"<{verdict.delta:.3g}".replace("<0.", "<.")


def degree_text(degree: float) -> str:
    """Return a degree in a few characters."""
    if degree < 0:
        return "none"
    return "any" if math.isinf(degree) else f"{degree:g}"
