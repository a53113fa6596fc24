"""Bias, standard deviation and RMSE of one draw on the tiny VAE through its training.

At four moments of the training, from broad posteriors to nearly deterministic ones, relative to the
length of the true gradient: the median over images, with the 15-85 % range. All values are exact
but those of ARSM, which come from draws.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plots.axes import logarithmic
from gradlab.plots.curves import name_zeros, series_handle
from gradlab.plots.names import label
from gradlab.plots.rounding import ROUNDING
from gradlab.plots.style import color, marker, styled

__all__ = ["plot", "rows"]

ESTIMATORS = (
    "ST",
    "DARN",
    "ZGR",
    "GR(tau=0.1, k=inf)",
    "GR(tau=0.5, k=inf)",
    "GR(tau=1, k=inf)",
    "GS-ST(tau=0.5)",
    "RF(m=4)",
)
PANELS = {"bias2": "bias", "variance": "standard deviation", "mse": "RMSE"}
COLUMNS = [
    *("problem", "snapshot", "steps", "image", "N", "C", "estimator", "series", "tau", "calls"),
    *("seed", "method", "draws", "truth2", "bias2", "bias2_se", "variance", "variance_se", "mse"),
    *("mse_se", "version", "dtype"),
]


def rows(
    seed: int = 0,
    *,
    snapshots: Sequence[str] | None = None,
    images: int = 16,
    draws: int = 192,
) -> pd.DataFrame:
    """Return one row for each estimator, snapshot and image.

    Args:
        seed: chooses the images and the draws.
        snapshots: names of the moments of the training; by default all.
        images: how many images.
        draws: how many draws the moments of ARSM are measured from; all others are exact.

    Returns:
        Rows of `compare` with the columns `snapshot`, `steps` and `image`.
    """
    from gradlab.comparison.comparing import compare
    from gradlab.exact.moments import Enumeration
    from gradlab.problems import SNAPSHOTS, TinyVAE
    from gradlab.reproducible import single_thread

    found = []
    with single_thread():
        for snapshot in snapshots or SNAPSHOTS:
            for image in (np.arange(images) + seed * images) % 300:
                f = TinyVAE(snapshot, int(image))
                exact = Enumeration(f, f.logits)
                for estimators, method in ((ESTIMATORS, "exact"), (["ARSM"], "monte-carlo")):
                    table = compare(exact, None, estimators, None, draws, seed, method=method)
                    table = table.assign(snapshot=snapshot, steps=SNAPSHOTS[snapshot], image=image)
                    found += table.to_dict("records")
    return pd.DataFrame(found, columns=COLUMNS)


def plot(rows: pd.DataFrame) -> Figure:
    """Return the figure: a panel a quantity, the moments of the training from left to right."""
    series = dict(zip(rows["estimator"], rows["series"], strict=True))
    with styled():
        figure = Figure(figsize=(8.2, 4.0))
        for ax, (quantity, title) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
            _panel(ax, rows, quantity, series)
            ax.set_ylabel(f"{title} / |g|")
        handles = [series_handle(s, ls=_style(e), label=label(e)) for e, s in series.items()]
        limit = "arrow: ARSM is unbiased, limit of its mean bias, + 2 s.e."
        handles.append(
            Line2D([], [], color=color("ARSM"), ls="", marker="$\\downarrow$", label=limit)
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.5)
        images, draws = rows["image"].nunique(), int(rows["draws"].max())
        figure.suptitle(
            f"tiny VAE: median and 15 to 85 % over {images} images; exact, except ARSM: {draws} "
            "draws per image; g: exact gradient",
            fontsize=9,
        )
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, quantity: str, series: Mapping[str, str]) -> None:
    """Draw one quantity; `series` gives the look of each estimator."""
    moments = rows.drop_duplicates("snapshot")
    zeros = []
    for place, estimator in enumerate(series):
        part = rows[rows["estimator"] == estimator]
        square = (part[quantity] / part["truth2"]).groupby(part["snapshot"])
        x = np.arange(len(moments)) + 0.05 * (place - (len(series) - 1) / 2)
        shade = color(series[estimator])
        look: dict[str, Any] = {"color": shade, "ms": 4, "marker": marker(series[estimator])}
        if quantity == "bias2" and (part["method"] == "monte carlo").all():
            # Unbiased: what is left is the noise of the mean over all images.
            error = (part["bias2_se"] / part["truth2"]).groupby(part["snapshot"])
            noise = error.apply(lambda e: np.sqrt((e**2).sum()) / len(e))
            limit = np.sqrt(square.mean().clip(lower=0) + 2 * noise)[moments["snapshot"]].to_numpy()
            ax.errorbar(x, limit, yerr=0.35 * limit, uplims=True, ls="", mfc="white", **look)
            continue
        low, middle, high = (
            np.sqrt(square.quantile(q)[moments["snapshot"]].to_numpy()) for q in (0.15, 0.5, 0.85)
        )
        if high.max() < ROUNDING:
            zeros.append(label(estimator))
            continue
        ax.plot(x, middle, ls=_style(estimator), lw=1, **look)
        ax.vlines(x, low, high, color=shade, lw=1, alpha=0.5)
    name_zeros(ax, zeros)
    labels = [f"{m.snapshot}\n{m.steps} steps" for m in moments.itertuples()]
    ax.set_xticks(range(len(moments)), labels)
    logarithmic(ax, "y")


def _style(estimator: str) -> str:
    """Return the line style, which distinguishes temperatures of one series."""
    return {"tau=0.5": "--", "tau=1": ":"}.get(estimator.partition("(")[2].split(",")[0], "-")
