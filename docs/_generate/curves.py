"""The curve of each card: bias, standard deviation, RMSE and progress on one standard problem.

An estimator with a temperature is drawn against it, the others against the number of estimates that
are averaged. Rows are computed at each build: moments are exact where they are known.
"""

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

import gradlab
from gradlab.distributions import KSubset, WithoutReplacement
from gradlab.estimators import Estimator
from gradlab.exact.moments import Enumeration, NotExactError
from gradlab.exact.structures import Structured
from gradlab.loss import Loss
from gradlab.moments import Moments
from gradlab.plots.style import styled
from gradlab.problems import problem, regime

__all__ = ["about_problem", "curve_rows", "picture"]

KIND, N, CLASSES = "mlp", 3, 3
TEMPERATURES = tuple(float(f"{tau:.3g}") for tau in np.geomspace(0.1, 4, 13))
PROGRESS_OF = 10.0
AVERAGED = tuple(float(f"{number:.3g}") for number in np.geomspace(1, 1000, 13))
DRAWS = 20_000
"""Draws of each point where moments are not known exactly."""
ROUNDING = 1e-20


def _of_levels(x: Tensor) -> Tensor:
    """Return (sum_i tanh(y_i - 1))^2 with the levels y = 0, ..., C - 1."""
    return (x @ torch.arange(x.shape[-1], dtype=x.dtype) - 1).tanh().sum(-1).square()


def _standard(estimator: Estimator) -> tuple[Loss, Tensor, str]:
    """Return a loss and logits that the estimator takes, and what they are, in words."""
    classes = 2 if estimator.refusal(regime("moderate", N, CLASSES)) else CLASSES
    f, logits = problem(KIND, N, classes), regime("moderate", N, classes)
    if estimator.supports(f, logits):
        return _of_levels, logits, "f(x) = (Σ tanh(yᵢ - 1))² of the levels yᵢ = 0, 1, 2"
    return f, logits, f"the problem `{KIND}`, a small network"


def law_of(estimator: Estimator) -> type[KSubset | WithoutReplacement] | None:
    """Return the law of subsets that an estimator is of, or None if it takes independent rows.

    Args:
        estimator: The estimator of a card.
    """
    if not estimator.refusal(torch.zeros(N, 2)):
        return None
    refused = [law(torch.zeros(4), 2) for law in (KSubset, WithoutReplacement)]
    (found,) = [type(law) for law in refused if estimator.structure_refusal(law) is None]
    return found


def _structured(law: type[KSubset | WithoutReplacement]) -> Structured:
    """Return the standard problem of subsets: the small network at 3 of 6 elements."""
    f, logits = problem(KIND, 1, 6), regime("moderate", 1, 6)
    return Structured(lambda x: f(x.unsqueeze(-2)), logits[0], lambda p: law(p, 3))


def about_problem(estimator: Estimator) -> str:
    """Return what a card says of its standard problem.

    Args:
        estimator: The estimator of the card.

    Returns:
        A phrase, with the numbers of variables and classes.
    """
    law = law_of(estimator)
    if law is not None:
        return f"the problem `{KIND}`, a small network, of 3 of 6 elements: `{law.__name__}`"
    _, logits, words = _standard(estimator)
    return f"{words}, {N} variables of {logits.shape[-1]} classes, moderate logits"


def curve_rows(estimator: Estimator) -> pd.DataFrame:
    """Return the rows that a card draws.

    Args:
        estimator: With its default arguments.

    Returns:
        Columns `tau` or `averaged`, then squares and progress with their standard errors, relative
        to the squared length of the gradient.
    """
    law = law_of(estimator)
    on = Enumeration(*_standard(estimator)[:2]) if law is None else _structured(law)
    size2 = float(on.gradient.square().sum())
    table = []
    for one in _at_temperatures(estimator):
        moments, method = _moments(one, on)
        for number in (PROGRESS_OF,) if one.temperature_field else AVERAGED:
            bias2, progress = moments.bias2(on.gradient), moments.progress(on.gradient, number)
            each = 1.0 if one.temperature_field else number
            table.append(
                {
                    "estimator": str(one),
                    "method": method,
                    "tau": one.temperature_value,
                    "averaged": number,
                    "bias2": bias2.value / size2,
                    "bias2_se": bias2.se / size2,
                    "variance": moments.variance.value / size2 / each,
                    "variance_se": moments.variance.se / size2 / each,
                    "progress": progress.value,
                    "progress_se": progress.se,
                }
            )
    return pd.DataFrame(table)


def _at_temperatures(estimator: Estimator) -> list[Estimator]:
    if estimator.temperature_field is None:
        return [estimator]
    return [estimator.at_temperature(tau) for tau in TEMPERATURES]


def _moments(estimator: Estimator, on: Enumeration | Structured) -> tuple[Moments, str]:
    try:
        return on.moments(estimator), "exact"
    except NotExactError:
        if isinstance(on, Enumeration):
            return gradlab.monte_carlo(estimator, on.f, on.logits, DRAWS), "monte carlo"
        given = (on.f, on.parameters, DRAWS)
        found = gradlab.monte_carlo(estimator, *given, distribution=on.distribution)
        return found, "monte carlo"


_GREEN = "#009E73"
_LINES = {"bias": ("#D55E00", "-"), "standard deviation": ("#0072B2", "-"), "RMSE": ("0.25", "--")}


def picture(rows: pd.DataFrame) -> bytes:
    """Return the picture of a card as SVG.

    Args:
        rows: What `curve_rows` returns.

    Returns:
        The file, the same for the same rows.
    """
    tempered = rows["tau"].notna().all()
    at = rows["tau"] if tempered else rows["averaged"]
    squares = {
        "bias": rows["bias2"],
        "standard deviation": rows["variance"],
        "RMSE": rows["bias2"] + rows["variance"],
    }
    # A bias that noise or rounding hides is not drawn.
    hidden = rows["bias2"] <= np.maximum(2 * rows["bias2_se"], ROUNDING)
    band = (rows["progress"] - 2 * rows["progress_se"], rows["progress"] + 2 * rows["progress_se"])
    with styled(), mpl.rc_context({"svg.hashsalt": "gradlab"}):
        # Placed by hand: a layout that measures all texts takes most of the time.
        figure = Figure(figsize=(6.6, 2.5), layout="none")
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.09, right=0.99, bottom=0.17, top=0.89, wspace=0.2)
        for name, square in squares.items():
            color, style = _LINES[name]
            shown = square.pow(0.5).mask(hidden if name == "bias" else square <= 0)
            if shown.notna().any():
                left.plot(at, shown, style, color=color, label=name)
            else:
                why = "0" if rows["bias2"].abs().max() < ROUNDING else "hidden by noise"
                left.plot([], [], " ", label=f"bias: {why}")
        left.set(ylabel="in lengths of the gradient", yscale="log")
        left.set_title("error of one" if tempered else "error of the mean", loc="left")
        left.legend(loc="best", fontsize=7)
        right.plot(at, rows["progress"], color=_GREEN)
        right.fill_between(at, *band, color=_GREEN, alpha=0.2, lw=0)
        right.set(ylim=(min(0.0, float(band[0].min())), 1.02))
        right.set_title(
            f"progress of the mean of {PROGRESS_OF:g}" if tempered else "progress of the mean",
            loc="left",
        )
        for axes in (left, right):
            axes.set(xlabel="temperature" if tempered else "averaged estimates", xscale="log")
        for axis in (left.xaxis, left.yaxis, right.xaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
