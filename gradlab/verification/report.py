"""Tables of verdicts to read in a terminal: estimators against losses, and their relations."""

import math
from collections.abc import Sequence

import pandas as pd

from gradlab.text import aligned, filled
from gradlab.verification.ladder import Ladder, cell, degree_text
from gradlab.verification.verdict import BIASED, UNBIASED

__all__ = ["cell", "ladder_text", "planted_text", "relation_text"]

KEY = """\
0: no bias at any size and logits tried, proved by enumeration (of your own code: each draw was the
gradient).  19%: biased, by this share of the gradient's length (at N = 2, C = 3, moderate logits).
<.05: by draws, a bias above this share is excluded.  ?: draws do not decide.  -: cannot be used.
degree: of f in each variable, up to which no bias is found (any: on no loss).  holds: whether that
is what it declares (-: it declares nothing; yes?: nothing speaks against it, but some trial at
another size or other logits does not decide).  19%*: biased only there, where code that is not
proved is tried too.\
"""
KEY_ON = """\
x is drawn from {distribution}.  0: no bias at any parameters tried, proved by enumeration.  19%:
biased, by this share of the gradient's length (at the parameters given).  <.05: by draws, a bias
above this share is excluded.  ?: draws do not decide.  -: cannot be used.  degree: of f in all
coordinates of x together, up to which no bias is found (any: on no loss).  holds: whether that is
what it declares (-: it declares nothing).\
"""
KEY_AGAINST = """\
Compared is the mean with that of {against}, not with the gradient.  0: the same, exactly.  19%: off
by this share of its length.  <.05: by draws, a larger difference is excluded.  ?: draws do not
decide.  -: cannot be used.  degree: of f in each variable, up to which the means are the same;
holds: whether they are the same on all losses (yes?: as far as is decided elsewhere).  19%*: off
only elsewhere, at another size or other logits.\
"""


def ladder_text(ladders: Sequence[Ladder]) -> str:
    """Return the table of estimators against losses, and what is declared and found."""
    kinds = list(dict.fromkeys(rung.kind for ladder in ladders for rung in ladder.rungs))
    table = [["", *map(_short, kinds), "degree", "holds"]]
    for ladder in ladders:
        shown = {rung.kind for rung in ladder.rungs}
        cells = [_cell_of(ladder, kind) if kind in shown else "" for kind in kinds]
        holds = {None: "-", True: "yes", False: "NO"}[ladder.holds]
        holds += "?" if ladder.holds and ladder.is_open else ""
        degree = degree_text(ladder.degree)
        if ladder.holds is False and not ladder.against:
            degree += f", not {degree_text(ladder.order or 0)}"
        table.append([ladder.estimator, *cells, degree, holds])
    against = ladders[0].against
    distribution = ladders[0].distribution
    key = KEY_ON.format(distribution=distribution) if distribution else KEY
    key = KEY_AGAINST.format(against=against) if against else key
    found: list[str] = []
    for ladder in ladders:
        silent = ladder.order is None
        found += [ladder.found()] if silent and not against else []
        told = ladder.counterexamples or ladder.undecided or ladder.refused
        found += ladder.sites() if told or silent else []
    lines = map(filled, found)
    return "\n\n".join([aligned(table), filled(" ".join(key.split()), indent=""), *lines])


def _cell_of(ladder: Ladder, kind: str) -> str:
    """Return the worst verdict on one kind of loss, marked if it is a counterexample elsewhere."""
    verdict = ladder.worst(kind)
    return cell(verdict) + ("*" if verdict in ladder.counterexamples else "")


def _short(kind: str) -> str:
    for long, short in _SHORT.items():
        kind = kind.replace(long, short)
    return kind


_SHORT = {
    "constant": "const",
    "linear": "lin",
    "multi": "m",
    "quadratic": "quad",
    "polynomial:": "deg",
}


def relation_text(rows: pd.DataFrame) -> str:
    """Return the relations between estimators, how far off each is and if it holds."""
    table = [("relation", "on", "by", "off by", "limit", "holds")]
    for row in rows.itertuples(index=False):
        on = str(row.problem).partition("(")[0]
        holds = "yes" if row.holds else "NO"
        table.append((row.relation, on, row.method, f"{row.size:.1e}", f"{row.limit:.1e}", holds))
    return f"\n{aligned(table)}"


def planted_text(rows: pd.DataFrame) -> str:
    """Return the planted errors: how and by how many draws each is found, the right code cleared.

    "found" is what is biased, its draw or training, or "refused": the reasons stand below.
    """
    table = [("planted error", "bias", "found", "draws", "without it", "draws", "cleared")]
    reasons: dict[str, list[str]] = {}
    for row in rows.itertuples(index=False):
        how, _, what = row.how.partition(": ")
        found = what if how == BIASED else how if how == "refused" else "NO"
        cleared = "yes" if row.right_outcome == UNBIASED else "NO"
        bias = "" if math.isnan(row.bias) else f"{row.bias:.0%}"
        right = f"{row.right_draws:,}"
        table.append((row.planted, bias, found, f"{row.draws:,}", row.right, right, cleared))
        if how == "refused":
            reasons.setdefault(what, []).append(row.planted)
    why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    told = f"\n\n{filled(f'Refused: {why}.', indent='')}" if reasons else ""
    return f"\n{aligned(table)}{told}"
