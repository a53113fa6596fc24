"""Every picture of the rows that the verbs give: as they are, read back from CSV, and one of them.

Rows may lack a temperature, a measurement, or what only the command line knows.
"""

import functools
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gradlab
from gradlab.comparison.ranking import ranking
from gradlab.data.datasets import load_images
from gradlab.figures.atlas import plot
from gradlab.figures.atlas.rows import summary
from gradlab.nn.probe import GradientProbe
from gradlab.nn.timing import time_layers
from gradlab.plots import comparison, probe, recommendation, sweep, timing, training, verdicts
from gradlab.problems import problem, regime
from gradlab.sweep.grid import Grid
from gradlab.sweep.running import run_sweep
from gradlab.sweep.store import sweep_rows
from gradlab.training.loop import train
from gradlab.training.network_training import NetworkSettings
from gradlab.training.runs import begin
from gradlab.training.vae_training import VAESettings
from gradlab.verification.order import rungs
from gradlab.verification.planted_errors import PLANTED, planted_rows

pytestmark = [
    pytest.mark.usefixtures("unchecked", "kept_processes"),
    pytest.mark.filterwarnings("error"),
]

MIXED = ["GS-ST", "GS", "ZGR", "RF"]


def compared(estimators, f="quadratic", tau=(0.1, 1.0), **options) -> pd.DataFrame:
    given = problem(f, 2, 2), regime("moderate", 2, 2), estimators, tau
    return gradlab.compare(*given, **({"draws": 64} | options))


def recommended(estimators, f="quadratic", **options) -> gradlab.Recommendation:
    given = {"evaluations": 8, "draws": 64, "temperatures": [0.5, 1.0]} | options
    return gradlab.recommend(
        problem(f, 2, 2), regime("moderate", 2, 2), estimators=estimators, **given
    )


def curves(estimators, f="quadratic", **options) -> pd.DataFrame:
    return recommended(estimators, f, **options).curves


def ranked(estimators) -> pd.DataFrame:
    return ranking(compared(estimators).assign(cost=1.0), [4])


def verified(estimators, f="quadratic", **options) -> pd.DataFrame:
    given = problem(f, 2, 2), regime("moderate", 2, 2)
    return pd.DataFrame([gradlab.verify(e, *given, **options).row() for e in estimators])


def ladders(*estimators, kinds=("constant", "cubic", "table")) -> pd.DataFrame:
    on = rungs(kinds)
    return pd.concat([gradlab.verify_order(e, on=on, max_draws=256).rows() for e in estimators])


def probed(estimators, classes=2, **options) -> pd.DataFrame:
    measured = GradientProbe(estimators, every=1, draws=64, reference_draws=64, **options)
    logits = torch.zeros(3, 2, classes)
    for step in range(2):
        measured(step, lambda x: (x[..., 0].sum(-1) - 0.3) ** 2, logits)
    return measured.rows


def timed(estimators, sizes) -> pd.DataFrame:
    return time_layers(estimators, sizes, batch=2, seconds=0.01)


def trained(settings) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        run = begin(settings, load_images("digits", None), "cpu", None)
        return train(run, Path(folder))


@functools.cache
def swept(*estimators) -> pd.DataFrame:
    axes = {"problems": ["quadratic"], "sizes": ["2x2"], "regimes": ["moderate"], "seeds": 1}
    grid = Grid(**axes, estimators=estimators, draws=64)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sweep.db"
        run_sweep(grid, store, workers=1)
        return sweep_rows(store)


def on_axes(draw: Callable[[Axes, pd.DataFrame], None]) -> Callable[[pd.DataFrame], Figure]:
    def plot(rows: pd.DataFrame) -> Figure:
        figure = Figure()
        draw(figure.subplots(), rows)
        return figure

    return plot


VAE = {"latent": "2x2", "hidden": 4, "batch": 700, "bound_samples": 2}

# What draws, what gives the rows.
CASES: dict[str, tuple[Callable[[pd.DataFrame], Figure], Callable[[], pd.DataFrame]]] = {
    "compare": (comparison.plot, lambda: compared(MIXED, method="both")),
    "compare, exact": (comparison.plot, lambda: compared(["ST", "GS-ST"], method="exact")),
    "compare, Monte Carlo": (comparison.plot, lambda: compared(MIXED, method="monte-carlo")),
    "compare, no temperature": (comparison.plot, lambda: compared(["ST", "ZGR"], tau=None)),
    "compare, reasons": (comparison.plot, lambda: compared(["ST", "ZGR"], "table")),
    "compare, no gradient": (comparison.plot, lambda: compared(MIXED, "constant")),
    "compare, logits named": (comparison.plot, lambda: compared(MIXED).assign(regime="moderate")),
    "compare, of recommend": (comparison.plot, lambda: recommended(MIXED).rows),
    "compare, as a sweep": (sweep.plot, lambda: compared(MIXED)),
    "compare, as a sweep, no temperature": (sweep.plot, lambda: compared(["ST", "ZGR"], tau=None)),
    "recommend": (recommendation.plot, lambda: curves(MIXED)),
    "recommend, no temperature": (recommendation.plot, lambda: curves(["ST", "ZGR"], "mlp")),
    "recommend, Monte Carlo": (recommendation.plot, lambda: curves(["ARSM", "GS"])),
    "recommend, zero error": (recommendation.plot, lambda: curves(["ST", "RF"], "constant")),
    "recommend, one budget": (
        recommendation.plot,
        lambda: curves(["REINFORCE"], evaluations=1).query("asked"),
    ),
    "recommend, unused": (recommendation.plot, lambda: recommended(["RF", "ST"], "table").table),
    "ranking": (recommendation.plot, lambda: ranked(MIXED)),
    "ranking, no temperature": (recommendation.plot, lambda: ranked(["ST", "ZGR"])),
    "verify": (on_axes(verdicts.draw_verdicts), lambda: verified(["ST", "ZGR"])),
    "verify, unbiased": (on_axes(verdicts.draw_verdicts), lambda: verified(["ZGR"])),
    "verify, draws": (
        on_axes(verdicts.draw_verdicts),
        lambda: verified(["ARSM", "RF"], method="monte-carlo", max_draws=256),
    ),
    "verify, not applicable": (on_axes(verdicts.draw_verdicts), lambda: verified(["ST"], "table")),
    "verify, ladders": (on_axes(verdicts.draw_verdicts), lambda: ladders("ZGR", "ARSM")),
    "verify, planted": (
        on_axes(verdicts.draw_planted),
        lambda: planted_rows(0, errors=PLANTED[10:13]),
    ),
    "probe": (probe.plot, lambda: probed(["ST", "GS", "RF"])),
    "probe, exact": (probe.plot, lambda: probed(["ST", "ZGR"])),
    "probe, Monte Carlo": (probe.plot, lambda: probed(["ARSM"])),
    "probe, reasons": (probe.plot, lambda: probed(["ARM"], classes=3)),
    "probe, no time": (probe.plot, lambda: probed(["ST", "GS"], seconds=1e-9)),
    "time": (timing.plot, lambda: timed(["ST", "GS"], [(2, 2), (2, 3), (4, 2)])),
    "time, one size": (timing.plot, lambda: timed(["ST"], [(1, 2)])),
    "time, refused": (timing.plot, lambda: timed(["ARM"], [(1, 3)])),
    "train vae": (training.plot, lambda: trained(VAESettings("ST", epochs=3, **VAE))),
    "train vae, one epoch": (training.plot, lambda: trained(VAESettings("ST", epochs=1, **VAE))),
    "train network": (
        training.plot,
        lambda: trained(NetworkSettings("ST", epochs=2, batch=700, samples=2)),
    ),
    "sweep": (sweep.plot, lambda: swept("ST", "GS-ST(tau=0.5)", "GS-ST(tau=1)", "ARSM", "ARM")),
    "sweep, no temperature": (sweep.plot, lambda: swept("ST", "ZGR")),
    "atlas": (plot.plot, lambda: summary(swept("ST", "ZGR"))),
}


@functools.cache
def rows_of(name: str) -> pd.DataFrame:
    return CASES[name][1]()


def as_they_are(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def from_csv(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(rows.to_csv(index=False)))


def one_row(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.iloc[:1]


# Rows that were read have lost their types: that finds most. One of each verb is drawn in all ways.
ALL_WAYS = {"compare", "recommend", "verify", "probe", "time, one size", "train vae, one epoch"}
ALL_WAYS |= {"sweep", "atlas"}
DRAWN = [
    pytest.param(
        name, taken, marks=[] if name in ALL_WAYS or taken is from_csv else pytest.mark.slow
    )
    for name in CASES
    for taken in (as_they_are, from_csv, one_row)
]


@pytest.mark.parametrize(("name", "taken"), DRAWN)
@pytest.mark.few(4)
def test_rows_of_a_verb_are_drawn(name, taken):
    rows = taken(rows_of(name))
    before = rows.copy()
    figure = CASES[name][0](rows)
    if taken is not as_they_are:
        figure.set_layout_engine("none")  # most of the time
    figure.draw_without_rendering()
    assert figure.axes or figure.texts
    pd.testing.assert_frame_equal(rows, before)


@pytest.mark.thorough  # a label
def test_logits_are_named_where_they_are_known():
    def title(rows: pd.DataFrame) -> str:
        return comparison.plot(rows).axes[0].get_title(loc="left")

    rows = rows_of("compare")
    assert title(rows) == "quadratic(N=2, C=2, seed=0); one draw"
    assert title(rows.assign(regime="x")) == "quadratic(N=2, C=2, seed=0), logits: x; one draw"


def test_the_least_favourable_verdict_is_drawn():
    rows = verified(["ST", "ZGR"]).assign(problem="f", estimator="E")
    figure = on_axes(verdicts.draw_verdicts)(rows)
    bias = verified(["ST"])["bias"].iloc[0]
    assert f"{bias:.0%}" in [text.get_text() for text in figure.axes[0].texts]


# ---- no temperature at all --------------------------------------------------------------------


@pytest.mark.parametrize("estimators", [["ZGR", "ST"], ["ST"], ["RF", "REINFORCE"], ["ARSM"]])
@pytest.mark.parametrize("f", ["mlp", "quadratic", "constant"])
@pytest.mark.few(1)
def test_recommend_without_a_temperature_explains_itself(estimators, f):
    answer = recommended(estimators, f, temperatures=None)
    assert f"Best: {answer.best[0]}" in answer.explain()
    assert answer.best[0] in str(answer)
    assert answer.table["tau"].dtype == float


@pytest.mark.parametrize("tau", [None, (0.1, 1.0)])
def test_best_temperatures_are_numbers(tau):
    best = gradlab.best_temperature(compared(["ST", "ZGR", "GS-ST"], tau=tau))
    assert best["tau"].dtype == best["tau_low"].dtype == best["tau_high"].dtype == float
    assert best[best["series"] == "ST"]["tau"].isna().all()
    assert not best[best["series"] == "ST"]["at_edge"].any()


def test_best_temperature_of_nothing_measured_is_empty():
    assert gradlab.best_temperature(compared(["ST"], "table")).empty
