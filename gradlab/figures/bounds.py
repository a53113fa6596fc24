"""Estimators of the bound of K samples against K: bias, variance and signal-to-noise, exact.

Two variables of two classes; log w is a random function of z, with a standard deviation of 0.5 nats
(even weights) or 3 nats (uneven weights) under q.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from gradlab.plots.bounds import draw_bounds
from gradlab.plots.names import label
from gradlab.plots.panels import series_entries
from gradlab.plots.style import looks, styled

__all__ = ["plot", "rows"]

ESTIMATORS = (
    *("PLAIN", "VIMCO", "VIMCO-A", "OVIS", "OVIS(gamma=1)", "OVIS-MC(s=1)", "OVIS-MC(s=10)"),
    *("LE", "ST", "ZGR"),
)
SPREADS = {"even": 0.5, "uneven": 3.0}
LEVEL = -10.0
"""log p(x), roughly: the mean of log w under q, in nats."""

_KEPT = [
    *("problem", "N", "C", "logits_seed", "K", "bound", "estimator", "series", "tau", "calls"),
    *("cost", "method", "truth2", "bias2", "variance", "cosine", "scale_free_variance"),
    *("averaged", "progress"),
]


def rows(
    seed: int = 0,
    *,
    seeds: int = 5,
    spreads: Sequence[str] = tuple(SPREADS),
    samples: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    estimators: Sequence[str] = ESTIMATORS,
) -> pd.DataFrame:
    """Return exact rows of `seeds` random problems of each spread of log w, at each K.

    Args:
        seed: Decides the problems.
        seeds: The number of problems of each spread.
        spreads: Names in `SPREADS`.
        samples: The numbers K.
        estimators: What is measured.

    Returns:
        Rows of `gradlab.bounds.compare` with the spread of log w in nats.
    """
    import torch

    from gradlab.bounds import compare
    from gradlab.problems import problem, regime
    from gradlab.samples import configurations, one_hot

    z = one_hot(configurations(2, 2), torch.zeros(2, 2, dtype=torch.float64))
    tables = []
    for number in range(seeds * seed, seeds * (seed + 1)):
        f, logits = problem("quadratic", 2, 2, number), regime("moderate", 2, 2, number)
        log_p = logits.log_softmax(-1)
        q = (z * log_p).sum((-2, -1)).exp()
        centre = float(q @ f(z))
        scale = float(q @ (f(z) - centre).square()) ** 0.5
        for name in spreads:

            def log_joint(x, spread=SPREADS[name], f=f, log_p=log_p, at=(centre, scale)):  # type: ignore[no-untyped-def]
                away = (f(x) - at[0]) / at[1]
                return LEVEL + spread * away + (x * log_p).sum((-2, -1))

            found = compare(
                log_joint,
                logits,
                estimators,
                samples,
                method="exact",
                problem=f"{name} weights",
                logits_seed=number,
            )
            tables.append(found[_KEPT].assign(spread=SPREADS[name]))
    return pd.concat(tables, ignore_index=True)


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: medians over the problems, one row of panels for each spread of log w."""
    measured = rows[rows["bias2"].notna()]
    with styled():
        figure = Figure(figsize=(8.2, 5.6))
        problems = list(measured["problem"].unique())
        axes = figure.subplots(len(problems), 3, squeeze=False, sharex=True)
        own = looks(rows["series"])
        for line, problem in zip(axes, problems, strict=True):
            part = measured[measured["problem"] == problem]
            for panel, show in zip(line, ("bias", "variance", "snr"), strict=True):
                draw_bounds(panel, part, show, own)
            line[0].set_ylabel("relative bias |E ĝ − g| / |g|")
            line[1].set_ylabel("variance of one draw (nats²)")
            line[2].set_ylabel("signal-to-noise |E ĝ| / sd")
            spread = part["spread"].iloc[0]
            line[1].set_title(f"{problem}: standard deviation of log w {spread:g} nats")
        for panel in axes[-1]:
            panel.set_xlabel("samples K in the bound")
        entries = series_entries(own, {series: label(series) for series in own})
        figure.legend(handles=entries, loc="outside lower center", ncols=5)
        count = rows["logits_seed"].nunique()
        text = f"gradient of the bound in the logits of q, exact: medians of {count} problems"
        figure.suptitle(text, fontsize=9)
    return figure
