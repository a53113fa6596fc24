"""The committed rows of each figure are those that the code computes: its cheapest ones, anew."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from gradlab import ZGR, Grid, LeaveOneOut, Reinforce, run_sweep, sweep_rows
from gradlab.figures import FIGURES, function
from gradlab.figures.atlas.rows import summary
from gradlab.figures.prediction.study import Study
from gradlab.figures.toys.descent import TOYS
from gradlab.nn.timing import time_layers
from gradlab.training.network_training import NetworkSettings
from gradlab.training.runs import Run, begin, run_all
from gradlab.training.vae_training import VAESettings
from gradlab.verification import planted_errors

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

ROOT = Path(__file__).parents[2]
RELATIVE = 1e-9  # last digits differ from machine to machine
MOMENTS = ["truth2", "bias2", "variance"]
TWO = ("ZGR", "RF(m=4)")

# Of each figure: arguments of its cheapest exact rows, what names a row, what is compared.
CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "toys": (
        {"estimators": ["ZGR"], "toys": dict([*TOYS.items()][:1]), "steps": 1, "workers": 1},
        ["toy", "estimator"],
        ["snr", "limit", "limit_loss", "least", "batch"],
    ),
    "temperature": (
        {"draws": {"ZGR": 64, "GS-ST": 64}, "temperatures": (0.01, 10.0)},
        ["problem", "estimator"],
        MOMENTS,
    ),
    "trade-off": (
        {"temperatures": (10.0,), "alphas": (0.5,), "draws": 32, "seeds": 0, "images": 0},
        ["problem", "estimator"],
        MOMENTS,
    ),
    "zoo": ({"draws": 32, "fits": 32}, ["problem", "estimator"], MOMENTS),
    "baselines": ({"logits": (0.0,)}, ["problem", "logit", "estimator"], MOMENTS),
    "depth": (
        {"depths": (1,), "steps": (0,), "networks": 1, "estimators": TWO},
        ["depth", "network", "steps", "layer", "estimator"],
        [*MOMENTS, "loss", "cosine"],
    ),
    "classes": (
        {"seeds": 1, "sizes": [(1, 2)], "estimators": TWO},
        ["problem", "estimator"],
        MOMENTS,
    ),
    "snapshots": (
        {"snapshots": ("initial",), "images": 1, "draws": 32},
        ["problem", "estimator"],
        MOMENTS,
    ),
    "structures": (
        {"seeds": 1, "degrees": (2,), "estimators": ("ST", "ZGR", "RF(m=4)")},
        ["structure", "degree", "logits_seed", "estimator"],
        MOMENTS,
    ),
    "verdicts": (
        {"estimators": ("ZGR",), "kinds": ("linear",)},
        ["estimator", "loss"],
        ["degree", "bias", "declared"],
    ),
    "vae": ({"epochs": 1, "seeds": 1}, ["estimator", "seed", "epoch"], ["loss", "train_nelbo"]),
    "quadratics": (
        {"problems": 1, "draws": 64, "estimators": ("ST", "DARN"), "sampled": ("ZGR",)},
        ["problem", "estimator"],
        MOMENTS,
    ),
    "degree": (
        {"seeds": 1, "degrees": (2,), "estimators": ("ST", "DARN")},
        ["problem", "estimator"],
        MOMENTS,
    ),
    "bounds": (
        {"seeds": 1, "spreads": ["even"], "samples": (1, 4), "estimators": ("VIMCO", "LE", "ZGR")},
        ["problem", "logits_seed", "estimator", "K"],
        [*MOMENTS, "bound", "scale_free_variance"],
    ),
    "budget": ({"estimators": TWO, "draws": 32}, ["problem", "estimator"], MOMENTS),
    "cold-limit": (
        {"problems": ("mlp",), "temperatures": (0.003, 1.0)},
        ["problem", "estimator", "quantity"],
        ["difference", "law", "power", "scale"],
    ),
    "prediction": (
        {"study": Study(("polynomial, p = 2",), ("ST",), (0,), rates=3, shares={"start": 0.0})},
        ["task", "estimator", "lr", "seed"],
        ["loss_steps", "loss_cost", "cost"],
    ),
    "length": ({"groups": (2,)}, ["kind", "problem", "estimator"], [*MOMENTS, "cosine"]),
    "difficulty": (
        {"points": 3, "policies": 1},
        ["kind", "name", "problem", "policy_seed"],
        ["factor", "bias2"],
    ),
    "off-policy": (
        {"horizons": (2,), "drifts": (0.0, 1.0)},
        ["horizon", "drift", "ratio"],
        [*MOMENTS, "divergence"],
    ),
    "kl": ({}, ["sampled", "form"], MOMENTS),
    "groups": (
        {"groups": (2,)},
        ["problem", "name", "group", "budget"],
        [*MOMENTS, "tokens", "progress"],
    ),
}
# Which rows are those of trainings.
TRAINED = {"vae": ("part", "curve"), "prediction": ("kind", "loss")}
# Trained in float32, whose last digits are much larger.
SINGLE = {"vae": 1e-5}


@pytest.fixture
def few(monkeypatch, tmp_path) -> None:
    """Leave only cheap estimators in the figures that always show all, and an empty store."""
    zoo, baselines, vae = (
        importlib.import_module(f"gradlab.figures.{name}")
        for name in ("zoo.rows", "baselines.rows", "vae")
    )
    for module in (zoo, baselines):
        monkeypatch.setattr(module, "variants", lambda *_: [ZGR(), LeaveOneOut(4), Reinforce()])
    monkeypatch.setattr(vae, "ESTIMATORS", ("ST",))
    monkeypatch.setattr(planted_errors, "PLANTED", planted_errors.PLANTED[:1])
    cold: ModuleType = importlib.import_module("gradlab.figures.cold_limit.rows")
    monkeypatch.setattr(cold, "COLD", 2.0)  # slopes need two points
    prediction: ModuleType = importlib.import_module("gradlab.figures.prediction.rows")
    monkeypatch.setattr(prediction, "default_store", lambda: tmp_path)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.few(3)
def test_committed_rows_are_computed_again(few, name: str) -> None:
    arguments, keys, values = CASES[name]
    again = function(name, "rows")(0, **arguments)
    committed = pd.read_csv(ROOT / "figures" / f"{name}.csv", low_memory=False)
    exact = [
        table[table["method"] == "exact"] if "method" in table else table
        for table in (again, committed)
    ]
    if name in TRAINED:
        column, value = TRAINED[name]
        exact = [
            table[table[column] == value] if column in table else table
            for table in (again, committed)
        ]
    # Where a table repeats a row, as for each time of a run, the last one has all columns.
    new, old = (table.dropna(subset=values[0]).groupby(keys)[values].last() for table in exact)
    shared = new.index.intersection(old.index)
    assert len(shared) > 0
    pd.testing.assert_frame_equal(
        new.loc[shared].astype(float),
        old.loc[shared].astype(float),
        rtol=SINGLE.get(name, RELATIVE),
        atol=1e-15,  # zero up to rounding
        check_index_type=False,
    )


# ---- figures that other commands make -------------------------------------------------------


def committed_rows(name: str) -> pd.DataFrame:
    return pd.read_csv(ROOT / "figures" / f"{name}.csv", low_memory=False)


OTHERS = {"atlas", "timing", "vae-probed", "vae-mnist", "fashion"}


def test_every_committed_figure_has_a_row_that_a_test_computes_again() -> None:
    committed = {file.stem for file in (ROOT / "figures").glob("*.csv")}
    assert committed == CASES.keys() | OTHERS
    assert CASES.keys() == FIGURES.keys()


@pytest.mark.thorough  # test_atlas.py has the shares of mean vectors
def test_shares_of_the_atlas_are_computed_again(tmp_path) -> None:
    # One cell of examples/atlas.toml: all that its shares are made of, and no draws.
    taus = {"from": 0.01, "to": 10, "count": 20}
    series = ["ST", "ZGR", "DARN", "GR(k=inf)"]
    given = {"estimators": series, "temperatures": taus, "regimes": ["peaked"], "seeds": 1}
    path = tmp_path / "rows.db"
    run_sweep(Grid(["quadratic"], ["6x2"], **given), path, workers=1)
    keys = ["problem", "N", "C", "regime", "logits_seed", "scale", "series", "dominated_by"]
    again = summary(sweep_rows(path))
    tables = [
        table[table["kind"] == "domination"].set_index(keys)["share"].dropna()
        for table in (again, committed_rows("atlas"))
    ]
    shared = tables[0].index.intersection(tables[1].index)
    assert len(shared) >= 2
    pd.testing.assert_series_equal(
        tables[0][shared], tables[1][shared], rtol=RELATIVE, check_index_type=False
    )


def test_memory_of_the_timing_is_measured_again() -> None:
    # Times are those of a machine; the memory of a layer is not.
    again = time_layers(["ZGR"], [(32, 2)], seconds=0.01).set_index("estimator")["peak_bytes"]
    committed = committed_rows("timing").query("N == 32 and C == 2").set_index("estimator")
    for name in again.index:
        assert again[name] == pytest.approx(committed["peak_bytes"][name], rel=0.25)
    ratio = committed["peak_ratio"]["ZGR"]
    assert again["ZGR"] / again["F.gumbel_softmax(hard=True)"] == pytest.approx(ratio, rel=0.25)


def on_data(name: str) -> None:
    """Skip where the data set is not on this machine: a test does not download."""
    folder = os.environ.get("GRADLAB_DATA")
    if not folder:
        pytest.skip(f"needs {name}: set GRADLAB_DATA to the folder of the data sets")


@pytest.mark.slow  # half a minute, and needs a data set; training has its own tests
@pytest.mark.parametrize(
    ("figure", "settings", "column"),
    [
        (
            "vae-mnist",
            VAESettings("ZGR", latent="30x10", data="binarized-mnist", epochs=1),
            "train_nelbo",
        ),
        (
            "fashion",
            NetworkSettings("ZGR", model="conv", data="fashion-mnist", epochs=1, lr=1e-3),
            "loss",
        ),
    ],
)
def test_the_first_epoch_of_a_committed_training_is_run_again(
    figure: str, settings: Any, column: str, tmp_path
) -> None:
    on_data(settings.data)
    (outcome,) = run_all([Run(settings, tmp_path)], workers=1)
    assert outcome.error is None
    rows = committed_rows(figure).query("estimator == 'ZGR' and seed == 0 and epoch == 1")
    # A thousand steps in float32: the last digits of a machine grow.
    assert outcome.curve[column].iloc[0] == pytest.approx(rows[column].item(), rel=1e-2)


@pytest.mark.slow  # needs a data set; the probe has its own tests
def test_the_first_measurement_of_the_committed_probe_is_made_again() -> None:
    on_data("binarized-mnist")
    from gradlab.data import load_images

    settings = VAESettings("ZGR", latent="6x4", data="binarized-mnist", epochs=1)
    images = load_images("binarized-mnist", download=False)
    training = begin(settings, images, probe={"estimators": ["ST", "ZGR"], "every": 2000})
    training.model.train()
    training.loss(0)
    rows = committed_rows("vae-probed").query("step == 0").set_index("estimator")
    again = training.probe.rows.set_index("estimator")
    for column in ("relative_bias", "relative_sd"):
        for name in ("ST", "ZGR"):
            assert again[column][name] == pytest.approx(rows[column][name], rel=1e-4)
