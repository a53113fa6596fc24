"""Bias, standard deviation and RMSE of one draw against temperature, on four problems.

Lines are exact, points are Monte Carlo estimates from draws, both against the exact gradient by
enumeration: of Gumbel-softmax (GS), its straight-through form (GS-ST) and Gumbel-Rao (GR) with 10,
100 and infinitely many inner samples, beside the estimators without a temperature (ZGR, ST, DARN,
RF). All values are relative to the length of the true gradient.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gradlab.comparison.comparing import compare
from gradlab.estimators import parse
from gradlab.exact.moments import Enumeration
from gradlab.problems import Problem, TinyVAE, problem, regime
from gradlab.reproducible import single_thread

__all__ = ["problems", "rows"]

# Draws of a Monte Carlo point: fewer where a draw costs more.
DRAWS = {
    "GS": 8192,
    "GS-ST": 8192,
    "GR(k=10)": 4096,
    "GR(k=100)": 1024,
    "GR(k=inf)": 4096,
    "ZGR": 8192,
    "ST": 8192,
    "DARN": 8192,
    "RF(m=4)": 8192,
}
TEMPERATURES = tuple(np.geomspace(0.01, 10, 13).tolist())
# Lines are drawn through this many exact values from one temperature of the points to the next.
REFINED = 2

COLUMNS = [
    *("problem", "N", "C", "logits_seed", "estimator", "series", "tau", "calls", "seed", "method"),
    *("draws", "truth2", "bias2", "bias2_se", "variance", "variance_se", "mse", "mse_se"),
    *("effective_draws", "version", "dtype"),
]


@single_thread()
def rows(
    seed: int = 0,
    *,
    draws: Mapping[str, int] = DRAWS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> pd.DataFrame:
    """Return exact rows on a fine grid of temperatures and Monte Carlo rows at `temperatures`.

    `draws` holds the number of draws of each series. The seed chooses problems, logits and draws.
    """
    log_tau = np.log(temperatures)
    steps = np.arange(REFINED * (len(log_tau) - 1) + 1) / REFINED
    fine = np.exp(np.interp(steps, np.arange(len(log_tau)), log_tau))
    exact = [series for series in draws if series != "GS"]
    tempered = [series for series in exact if parse(series).temperature_field]
    free = [series for series in exact if series not in tempered]
    tables = []
    for f, logits in problems(seed):
        on = Enumeration(f, logits)
        given: dict[str, Any] = {"seed": seed, "logits_seed": seed}
        # One temperature after the other: its table serves all series.
        for tau in fine.tolist():
            tables.append(compare(on, None, tempered, [tau], method="exact", **given))
        if free:
            tables.append(compare(on, None, free, method="exact", **given))
        for series, n in draws.items():
            # One evaluation of the decoder of 784 pixels costs as much as many of the others.
            n = n // 2 if isinstance(f, TinyVAE) else n
            tables.append(
                compare(on, None, [series], temperatures, n, method="monte-carlo", **given)
            )
    return pd.DataFrame(
        [row for table in tables for row in table.to_dict("records")], columns=COLUMNS
    )


def problems(seed: int) -> list[tuple[Problem, Tensor]]:
    """Return the four problems with 4 variables of 4 classes, and the logits of each."""
    logits = regime("moderate", 4, 4, seed)
    # Image 0 is unlike most: there every straight-through estimator errs by about |g|.
    vae = TinyVAE("some", image=(seed + 1) % 300)
    synthetic = [(problem(name, 4, 4, seed), logits) for name in ("quadratic", "cubic", "mlp")]
    return [*synthetic, (vae, vae.logits)]
