"""The optimization toys with every estimator: where descent ends, and where theory says it does.

Tucker's toy and polynomial programming (`descent.TOYS`), from logits uniform in +-.01; the best is
b = 0. A step of Adam spends 64 evaluations of f, where f with its gradient counts as three, or one
draw where that is more (LE needs 257): 150 steps of .08, where published runs take some 9,000 of
.001, as steps times rate decides how far logits can go. Losses are exact, a mean over bits: the
least + Delta q, q = P(b = 1).

Three things decide where descent ends: where the mean of an estimator changes its sign, its noise,
and Adam's memory of large first squares. `drift.descent` predicts the end from the mean and the
variance alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.comparison.eligibility import cost, why_not
from gradlab.estimators import ESTIMATORS, Estimator, parse
from gradlab.figures.toys.descent import TOYS, expected_loss, optimize
from gradlab.figures.toys.drift import Drift, descent, loss_at
from gradlab.parallel import processes, usable_cores
from gradlab.plots.style import family
from gradlab.problems import NormPower
from gradlab.reproducible import block_generator, single_thread
from gradlab.version import __version__

__all__ = ["rows"]

BUDGET = 64
LR = 0.08
BITS = 512  # of the theory
RUNS = 16  # of one bit; the 128 bits of a polynomial are as many runs
_COUNTS = ["step", "runs", "batch"]


@dataclass(frozen=True)
class _Run:
    """What one process does: one estimator on one toy."""

    toy: str
    f: NormPower
    text: str
    fitted: bool
    seed: int
    steps: int


def rows(
    seed: int = 0,
    *,
    estimators: Sequence[str] | None = None,
    toys: Mapping[str, NormPower] = TOYS,
    steps: int = 150,
    workers: int | None = None,
) -> pd.DataFrame:
    """Return a row for each toy, estimator and eleven times of its run, or one with the `reason`.

    By default all of `ESTIMATORS`, those with a `fit` also as fitted at the start (1024 samples,
    not counted as cost). `q` and `loss` are means over bits and runs, q_low and q_high the 16 and
    84 % points; `predicted` is q by `drift.descent`, `limit` where the mean leads in the end (empty
    where noise hides it), both with their losses; `fixed_points` are where the mean changes its
    sign, with "!" where descent leaves them. `snr` is |mean| / standard deviation of the gradient
    of one bit at the first step. The seed decides the start and the draws, `workers` (by default
    one a core) nothing.
    """
    runs = [
        _Run(toy, f, text, fitted, seed, steps)
        for toy, f in toys.items()
        for text in estimators or ESTIMATORS
        for fitted in (False, True)
        if not fitted or parse(text).fitted_fields
    ]
    workers = usable_cores() if workers is None else workers
    if workers > 1:
        with processes(workers) as pool:
            found = list(pool.map(_rows_of, runs))
    else:
        found = [_rows_of(run) for run in runs]
    table = pd.DataFrame([row for part in found for row in part])
    return table.astype(dict.fromkeys(table.columns.intersection(_COUNTS), "Int64"))


@single_thread()
def _rows_of(run: _Run) -> list[dict[str, Any]]:
    f, estimator = run.f, parse(run.text)
    start = _start(f, run.seed)
    row: dict[str, Any] = {"toy": run.toy, "N": f.N, "p": f.p, "target": f.target}
    row |= {"estimator": str(estimator), "series": estimator.series}
    row |= {"family": family(run.text), "fitted": run.fitted, "order": estimator.order}
    row |= {"calls": estimator.calls(2, f.N), "cost": cost(estimator, 2, variables=f.N)}
    row["seed"] = run.seed
    row["reason"] = why_not(estimator, f, start[0])
    if row["reason"] is not None:
        return [row]
    if run.fitted:
        estimator = _fitted(estimator, f, start[0], run.seed)
    batch = max(1, int(BUDGET // row["cost"]))
    source = block_generator(run.seed, f"toys|{f.name}|{estimator}|theory")
    drift = Drift(estimator, f, run.seed)
    odds = np.resize((start[..., 1] - start[..., 0]).numpy(), BITS)
    predicted = descent(drift, odds, run.steps, LR, batch, source)
    every = max(1, run.steps // 10)
    single = start.to(torch.float32)
    logits = optimize(estimator, f, single, run.steps, LR, batch, run.seed, every=every)
    found = []
    for record, at in enumerate(logits):
        q = torch.softmax(at.to(torch.float64), -1)[..., 1]
        step = record * every
        values = {"step": step, "q": float(q.mean()), "loss": float(expected_loss(f, at).mean())}
        values["predicted"] = float(predicted[step].mean())
        found.append(row | values | {"predicted_loss": loss_at(f, values["predicted"])})
    low, high = np.quantile(q.numpy(), (0.16, 0.84))
    last = {"q_low": low, "q_high": high, "runs": len(start), "batch": batch, "lr": LR}
    last |= {"mean": "exact" if drift.exact else "measured", "snr": drift.snr(batch)}
    last |= {"limit": drift.limit(), "limit_loss": loss_at(f, drift.limit())}
    last |= {"least": loss_at(f, 0.0), "version": __version__}
    last["fixed_points"] = " ".join(
        f"{q:.4f}" + ("" if stays else "!") for q, stays in drift.fixed_points
    )
    found[-1] |= last
    return found


def _start(f: NormPower, seed: int) -> Tensor:
    """Return the logits [runs, N, 2] at which all estimators start."""
    source = block_generator(seed, f"toys|{f.name}")
    runs = RUNS if f.N == 1 else 1
    return (torch.rand(runs, f.N, 2, generator=source, dtype=torch.float64) - 0.5) / 50


def _fitted(estimator: Estimator, f: NormPower, logits: Tensor, seed: int) -> Estimator:
    source = block_generator(seed, f"toys|{f.name}|{estimator}|fit")
    return estimator.fit(f, logits, 1024, source, steps=50)
