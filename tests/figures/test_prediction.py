"""Does the ranking predict training: exact losses, criteria, the store, and the correlations."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from gradlab import exact_gradient, exact_value, parse
from gradlab.exact.moments import EnumeratedBatch
from gradlab.figures.prediction import study as study_module
from gradlab.figures.prediction.correlations import _between, correlations, spearman
from gradlab.figures.prediction.measuring import AVERAGED, measured
from gradlab.figures.prediction.plot import median_over_tasks, plot, plot_all, plot_column
from gradlab.figures.prediction.rows import MNIST, mnist, rows
from gradlab.figures.prediction.study import ESTIMATORS, SHARES, Study, perform
from gradlab.figures.prediction.tasks import TASKS, NetworkTask, ToyTask
from gradlab.problems import NormPower

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

TOY = "Tucker, t = 0.45"
SMALL = Study(
    tasks=(TOY,), estimators=("RF(m=4)", "ST", "GS-ST(tau=3.2)"), seeds=(0, 1), draws=64, rates=2
)


@pytest.fixture
def short(monkeypatch) -> None:
    monkeypatch.setitem(TASKS, TOY, ToyTask(TOY, TOY, runs=2, steps=20))


# ---- tasks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantized", [False, True])
def test_the_exact_loss_of_a_network_is_that_of_enumeration(quantized):
    task = NetworkTask("small", "2x3", quantized, epochs=1)
    training = task.training("ZGR", 1e-3, 0)
    with torch.no_grad():
        f, logits, known = training.frozen()
        each = [exact_value(lambda x, b=b: _element(f, x, b), row) for b, row in enumerate(logits)]
        expected = torch.stack(each)
        if not quantized:
            expected = expected + training.model.divergence(logits)
    pixels = "pixels" if quantized else "_pixels"
    first = getattr(training, pixels)[: len(logits)]
    setattr(training, pixels, first) if quantized else training.__dict__.update(_pixels=first)
    if quantized:
        training.labels = training.labels[: len(logits)]
    assert training.exact_loss() == pytest.approx(float(expected.mean()), rel=1e-5)
    assert (known is None) == quantized


def _element(f, x, b):
    """Return f of element b alone, for x without the axis of the batch."""
    return f(x.to(torch.float32).unsqueeze(-3).expand(*x.shape[:-2], 10, *x.shape[-2:]))[..., b]


def test_the_truth_of_a_toy_is_its_exact_gradient(monkeypatch):
    monkeypatch.setitem(
        study_module.TASKS, TOY, replace(TASKS[TOY], runs=2, steps=4)
    )  # the same dictionary
    (snapshot,) = TASKS[TOY].snapshots([1.0], 0.1, 0)
    f = NormPower(1, 2, 2, 0.45)
    expected = torch.stack([exact_gradient(f, row) for row in snapshot.logits])
    torch.testing.assert_close(snapshot.truth, expected, rtol=1e-10, atol=1e-12)
    values = torch.stack([exact_value(f, row) for row in snapshot.logits])
    assert snapshot.loss == pytest.approx(float(values.mean()), rel=1e-10)


def test_training_lowers_the_exact_loss_and_snapshots_follow_it():
    task = NetworkTask("small", "2x3", epochs=3)
    curve = task.curve("RF(m=4)", 1e-2, 0)
    assert [curve[0][0], curve[-1][0]] == [0, 12]
    assert curve[-1][1] < curve[0][1]
    first, last = task.snapshots([0.0, 1.0], 1e-2, 0)
    assert (first.step, last.step) == (0, 12)
    assert first.loss == curve[0][1]
    assert last.loss < first.loss
    assert not torch.equal(first.logits, last.logits)
    again = task.curve("RF(m=4)", 1e-2, 0)
    assert again == curve


def test_a_gradient_that_costs_less_gets_more_steps(short):
    """So that all runs spend as much as those of an estimator that needs the gradient of f."""
    task = TASKS[TOY]
    assert [task.length(text) for text in ("EMA", "DisARM", "ZGR", "RF(m=4)")] == [60, 30, 20, 20]
    short_run, long_run = task.curve("ZGR", 0.1, 0), task.curve("EMA", 0.1, 0)
    assert [short_run[-1][0], long_run[-1][0]] == [20, 60]
    network = NetworkTask("small", "2x3", epochs=1)
    assert network.curve("EMA", 1e-2, 0)[-1][0] == 12


# ---- criteria ----------------------------------------------------------------------------------


def test_criteria_are_those_of_exact_moments_with_the_known_part_added():
    (snapshot,) = NetworkTask("small", "2x3", epochs=1).snapshots([0.0], 1e-2, 0)
    alone, whole = measured(snapshot, ["ST"], 64, 0)
    on = EnumeratedBatch(snapshot.f, snapshot.logits)
    moments, g = on.moments(parse("ST")), on.gradient
    for averaged in AVERAGED:
        assert alone[f"progress {averaged}"] == float(moments.progress(g, averaged))
        error = float(moments.mse(g, averaged)) / float(g.square().sum())
        assert alone[f"error {averaged}"] == pytest.approx(error, rel=1e-12)
    mean, truth = moments.mean + snapshot.known, g + snapshot.known
    variance = float(moments.variance_per_variable.sum())
    inner, size2 = float((mean * truth).sum()), float(mean.square().sum()) + variance / 10
    expected = inner * abs(inner) / float(truth.square().sum()) / size2
    assert whole["progress 10"] == pytest.approx(expected, rel=1e-9)
    assert [alone["part"], whole["part"], alone["method"]] == ["estimated", "whole", "exact"]


def test_a_moving_average_is_measured_where_it_has_come_to(short):
    (snapshot,) = TASKS[TOY].snapshots([0.0], 0.1, 0)
    ema, plain = measured(snapshot, ["EMA", "REINFORCE"], 256, 0)
    assert ema["error 1"] < 0.1 * plain["error 1"]


# ---- the store ---------------------------------------------------------------------------------


@pytest.mark.thorough  # stores resume in test_store.py
def test_the_study_resumes_and_what_was_done_stays(short, tmp_path, monkeypatch, capsys):
    done = []
    whole = study_module._done

    def interrupted(study, job):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(job)
        return whole(study, job)

    monkeypatch.setattr(study_module, "_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        perform(SMALL, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    assert len(files) == 3
    monkeypatch.setattr(study_module, "_done", whole)
    perform(SMALL, tmp_path, progress=True)
    jobs = SMALL.jobs()
    assert len(jobs) == len(set(jobs)) == 2 * (1 + 3 * 2)
    assert f"{len(jobs)} jobs into {tmp_path}, {len(jobs) - 3} to do" in capsys.readouterr().err
    assert all((tmp_path / job.path).exists() for job in jobs)
    assert all(path.read_bytes() == before for path, before in files.items())
    assert not list(tmp_path.rglob("*.part"))


def test_a_store_of_other_settings_is_refused(short, tmp_path):
    perform(replace(SMALL, seeds=(), draws=64), tmp_path)
    with pytest.raises(ValueError, match="another draws: name another store"):
        perform(replace(SMALL, seeds=(), draws=65), tmp_path)


def test_a_run_that_stops_has_an_infinite_loss(short, tmp_path, monkeypatch):
    def stops(self, estimator, lr, seed):
        raise study_module.TrainingError("the loss is nan")

    monkeypatch.setattr(ToyTask, "curve", stops)
    study = replace(SMALL, seeds=(0,), rates=1)
    perform(study, tmp_path)
    found = rows(study=study, store=tmp_path, committed=tmp_path)
    losses = found[found["kind"] == "loss"]
    assert np.isinf(losses["loss_steps"].astype(float)).all()
    assert set(losses["reason"]) == {"the loss is nan"}


def test_each_task_has_at_least_a_dozen_estimators():
    for task in TASKS:
        usable = Study().usable(task)
        assert len(usable) >= 12
        assert {"GS-ST(tau=3.2)", "GR(tau=3.2, k=10)"} <= set(usable)
    assert len(set(ESTIMATORS)) == len(ESTIMATORS)


# ---- correlations ------------------------------------------------------------------------------


def test_spearman_is_scipys():
    noise = np.random.default_rng(0)
    x, y = noise.integers(0, 6, (5, 12)).astype(float), noise.normal(size=(5, 12))
    expected = [spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert spearman(x, y) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(spearman(np.ones(4), np.arange(4.0)))


def tables(noise: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Losses that follow progress of 10 at the middle; estimators of cost 1 to 6."""
    losses, criteria = [], []
    source = np.random.default_rng(1)
    for k in range(6):
        name = f"E{k}"
        for seed in range(3):
            loss = 10.0 - k + noise * source.normal()
            for lr, worse in ((0.1, 0.0), (0.2, 5.0)):
                losses.append(
                    {"task": "T", "estimator": name, "lr": lr, "seed": seed, "cost": k + 1.0}
                    | {"loss_steps": loss + worse, "loss_cost": -loss + worse}
                )
            for snapshot, sign in (("start", -1), ("middle", 1)):
                row = {"task": "T", "gradient": "estimated", "snapshot": snapshot}
                row |= {"estimator": name, "seed": seed, "cosine": 0.5, "reference_loss": 0.0}
                row["reference_loss"] = 3.0 if snapshot == "start" else 1.0
                for averaged in AVERAGED:
                    row[f"progress {averaged}"] = sign * (k + 1) / (k + 1 + 50 / averaged)
                    row[f"error {averaged}"] = 0.1 * k + 2.0 / averaged
                criteria.append(row)
    return pd.DataFrame(losses), pd.DataFrame(criteria)


def rho(found: pd.DataFrame, **of: object) -> pd.Series:
    for column, value in ({"per": "draw", "outcome": "steps"} | of).items():
        found = found[found[column] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_correlations_are_positive_where_the_better_criterion_has_the_lower_loss():
    found = correlations(*tables())
    best = rho(found, criterion="progress", averaged=10, moment="middle")
    assert (best["rho"], best["low"], best["high"]) == (1, 1, 1)
    assert rho(found, criterion="progress", averaged=10, moment="start")["rho"] == -1
    assert rho(found, criterion="error", averaged=10, moment="middle")["rho"] == -1
    at_cost = rho(found, criterion="progress", averaged=10, moment="middle", outcome="cost")
    assert at_cost["rho"] == -1
    # All the loss to go is at the start.
    weighted = rho(found, criterion="progress", averaged=10, moment="weighted by loss to go")
    assert weighted["rho"] == -1
    # Nothing to tell estimators apart by.
    assert math.isnan(
        found[(found["criterion"] == "cosine") & (found["moment"] == "middle")]["rho"].iloc[0]
    )


def test_noise_between_seeds_widens_the_interval():
    found = correlations(*tables(noise=2.0))
    row = rho(found, criterion="progress", averaged=10, moment="middle")
    assert row["low"] <= row["rho"] <= row["high"]
    assert row["low"] < row["high"]


def test_an_equal_number_of_evaluations_divides_what_is_averaged_by_the_cost():
    """At cost c = (k + 1)^2, progress (k + 1) / (k + 1 + 50 c / 100) falls with k."""
    losses, criteria = tables()
    losses["cost"] **= 2
    at = {"criterion": "progress", "averaged": 100, "moment": "middle", "outcome": "cost"}
    found = correlations(losses, criteria)
    assert rho(found, per="draw", **at)["rho"] == -1
    assert rho(found, per="evaluation", **at)["rho"] == 1


def test_between_two_numbers_averaged_stands_what_the_formula_says():
    wanted = np.array([1.0, 2.5, 40.0, 1000.0])
    known = np.array(AVERAGED)[:, None] * np.ones(4)
    progress = _between(0.8 / (1 + 30 / known), wanted, straight=False)
    assert progress == pytest.approx(0.8 / (1 + 30 / wanted), rel=1e-12)
    error = _between(0.2 + 7 / known, wanted, straight=True)
    assert error == pytest.approx(0.2 + 7 / wanted, rel=1e-12)


# ---- rows and picture --------------------------------------------------------------------------


@pytest.mark.thorough  # test_committed.py computes them, test_redraw.py draws
def test_rows_and_picture_of_a_small_study(short, tmp_path):
    found = rows(study=SMALL, store=tmp_path, committed=tmp_path)
    losses = found[found["kind"] == "loss"]
    assert len(losses) == 3 * 2 * 2
    # At equal cost RF has done 3/4 of its steps, the others all of them.
    assert set(losses["cost"]) == {3.0, 4.0}
    for row in losses.itertuples():
        curve = dict(TASKS[TOY].curve(row.estimator, row.lr, int(row.seed)))
        assert row.loss_steps == pytest.approx(curve[20], rel=1e-12)
        assert row.loss_cost == pytest.approx(curve[15 if row.cost == 4 else 20], rel=1e-12)
    assert set(found.loc[found["kind"] == "criterion", "snapshot"]) == set(SHARES)
    table = found[(found["kind"] == "correlation") & (found["outcome"] == "steps")]
    table = table[table["per"] == "draw"].assign(name=lambda t: t["criterion"])
    assert np.nanmax(median_over_tasks(table).to_numpy(float)) <= 1
    for draw, panels in ((plot, 2), (plot_all, 3), (plot_column, 1)):
        figure = draw(found)
        assert len(figure.axes) == panels
        figure.draw_without_rendering()


def test_mnist_stands_with_committed_rows():
    losses, criteria = mnist(Path(__file__).parents[2] / "figures")
    assert set(losses["task"]) == set(criteria["task"]) == {MNIST}
    assert losses["estimator"].nunique() == criteria["estimator"].nunique() == 6
    found = correlations(losses, criteria)
    assert found["rho"].abs().max() <= 1
    zgr = criteria[(criteria["estimator"] == "ZGR") & (criteria["snapshot"] == "start")].iloc[0]
    assert 0 < zgr["progress 1"] < zgr["progress 1000"] <= 1
