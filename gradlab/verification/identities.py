r"""What estimators have to do with each other: identities between their means, each checked.

ST and DARN err by opposite amounts on quadratics, with ZGR halfway; GS-ST and Gumbel-Rao share one
mean at each temperature, which tends to that of ZGR as the temperature goes to zero.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor

from gradlab.estimators import DARN, ZGR, GumbelRao, GumbelSoftmaxST, StraightThrough
from gradlab.exact.moments import Enumeration
from gradlab.loss.gate import name_of
from gradlab.problems import problem, regime
from gradlab.verification.exact_bias import exact_bias
from gradlab.verification.verifying import verify

__all__ = ["Relation", "relation_rows"]

TEMPERATURES = (0.1, 0.5, 1.0)
COLD = (1e-2, 1e-3)
SIZE = (2, 3)  # N and C


@dataclass(frozen=True)
class Relation:
    """One identity on one problem: how far off it is (`size`) and may be (`limit`), by |g|.

    `method`: "exact", where the limit is rounding, or "monte carlo", where the size is a confidence
    bound.
    """

    relation: str
    problem: str
    method: str
    size: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the identity is shown."""
        return self.size <= self.limit


def relation_rows(seed: int = 0, *, delta: float = 0.05, alpha: float = 1e-3) -> pd.DataFrame:
    """Return one row for each relation and problem: the fields of `Relation`, and `holds`.

    Exact where both means are. That GS-ST and GR(k=10) draw with the exact mean of Gumbel-Rao is
    tested by draws.

    Args:
        seed: of the problems, logits and draws.
        delta: accuracy of what is tested by draws, in lengths of the gradient.
        alpha: false-alarm rate of what is tested by draws.

    Returns:
        A table with a row for each relation on each problem.
    """
    found: list[Relation] = []
    logits = regime("moderate", *SIZE, seed)
    for kind in ("quadratic", "multiquadratic"):
        found += _opposite(Enumeration(problem(kind, *SIZE, seed), logits))
    quadratic = Enumeration(problem("quadratic", *SIZE, seed), logits)
    found += _shared(quadratic, TEMPERATURES, delta, alpha, seed)
    found.append(_cold(quadratic, 1))
    found.append(_cold(Enumeration(problem("multilinear", *SIZE, seed), logits), 2))
    return pd.DataFrame([asdict(relation) | {"holds": relation.holds} for relation in found])


def _opposite(on: Enumeration) -> list[Relation]:
    """bias(DARN) = -bias(ST), and the mean of ZGR is that of the two."""
    st, darn, zgr = (exact_bias(estimator, on) for estimator in (StraightThrough(), DARN(), ZGR()))
    length = float(torch.linalg.vector_norm(zgr.truth))
    limit = (st.bound + darn.bound) / length
    name = name_of(on.objective)
    opposite = _norm(st.bias + darn.bias) / length
    between = _norm(zgr.mean - (st.mean + darn.mean) / 2) / length
    return [
        Relation("bias(DARN) = -bias(ST)", name, "exact", opposite, limit),
        Relation("ZGR = (ST + DARN)/2 in mean", name, "exact", between, limit),
    ]


def _shared(
    on: Enumeration, temperatures: Sequence[float], delta: float, alpha: float, seed: int
) -> list[Relation]:
    """Draws of GS-ST and of GR(k=10) have the exact mean of GR at the same temperature."""
    found = []
    for tau in temperatures:
        for estimator in (GumbelSoftmaxST(tau), GumbelRao(tau, 10)):
            verdict = verify(
                estimator,
                on,
                against=GumbelRao(tau, None),
                method="monte-carlo",
                delta=delta,
                alpha=alpha,
                seed=seed,
            )
            size = verdict.limit / verdict.unit[0] if verdict.unbiased else math.inf
            relation = f"{estimator} = GR(tau={tau:g}, k=inf) in mean"
            found.append(Relation(relation, verdict.problem, "monte carlo", size, delta))
    return found


def _cold(on: Enumeration, power: int) -> Relation:
    """The distance of the mean of GR from ZGR's falls like tau to the `power` as tau goes to 0."""
    zgr = exact_bias(ZGR(), on)
    warm, cold = (_norm(exact_bias(GumbelRao(tau, None), on).mean - zgr.mean) for tau in COLD)
    slope = math.log(warm / cold) / math.log(COLD[0] / COLD[1])
    shown = f"GR = ZGR + O(tau{'' if power == 1 else f'^{power}'}) in mean"
    return Relation(shown, name_of(on.objective), "exact", abs(slope - power), 0.1)


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))
