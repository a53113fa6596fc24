"""The committed rows of each figure are those that the code computes: its cheapest ones, anew."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from gradlab import ZGR, LeaveOneOut, Reinforce
from gradlab.figures import FIGURES, function
from gradlab.figures.prediction.study import Study
from gradlab.figures.toys.descent import TOYS
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
