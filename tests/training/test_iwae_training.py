"""A VAE trained on the bound of K samples, beside ones trained on the ELBO."""

import math

import pandas as pd
import pytest
import torch

from cases import all_states
from gradlab import bounds
from gradlab.cli import main
from gradlab.data.datasets import load_images
from gradlab.plots.names import label, series_of, trained_labels
from gradlab.training.checkpoint import CheckpointError
from gradlab.training.loop import train
from gradlab.training.runs import Run, summary
from gradlab.training.vae_training import VAESettings, VAETraining
from significance import limit, scores

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

SMALL = {"latent": "2x3", "epochs": 3, "hidden": 16, "lr": 1e-2, "bound_samples": 4}


def training(estimator="VIMCO", objective="iwae", k=3, **settings):
    chosen = VAESettings(estimator, objective=objective, k=k, **(SMALL | settings))
    return VAETraining(chosen, load_images("digits"))


@pytest.mark.parametrize("estimator", ["VIMCO", "LE"])
@pytest.mark.few(1)
def test_a_step_has_the_exact_gradient_of_the_bound_on_average(estimator):
    begun = training(estimator, k=2)
    pixels = begun.data.as_floats("train")[begun.batch(0)].double()
    model = begun.model.double()
    z = all_states(2, 3).unsqueeze(1).expand(-1, len(pixels), -1, -1)
    log_q = (z * model.encode(pixels).log_softmax(-1)).sum((-2, -1))
    out = torch.distributions.Bernoulli(logits=model.decoder(z.flatten(-2)))
    log_w = out.log_prob(pixels).sum(-1) - 2 * math.log(3) - log_q
    pairs = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - math.log(2)
    weight = (log_q.unsqueeze(0) + log_q.unsqueeze(1)).exp()
    exact = -(weight * pairs).sum((0, 1)).mean()
    parameters = [model.encoder[-1].weight, model.decoder[0].weight]
    truths = torch.autograd.grad(exact, parameters)
    begun.model.float()
    drawn = [[], []]
    for number in range(200):
        source = torch.Generator().manual_seed(number)
        begun.generator = lambda what, step, source=source: source
        for found, gradient in zip(
            drawn, torch.autograd.grad(begun.loss(0), parameters), strict=True
        ):
            found.append(gradient.double())
    for found, truth in zip(map(torch.stack, drawn), truths, strict=True):
        error = found.std(0) / len(found) ** 0.5
        used = error > 0
        assert scores(found.mean(0)[used], truth[used], error[used]).abs().max() < limit()
        # Twice the gradient would be seen.
        assert scores(found.mean(0)[used], 2 * truth[used], error[used]).abs().max() > limit()


@pytest.mark.parametrize("estimator", bounds.ESTIMATORS)
@pytest.mark.few(2)
def test_every_estimator_of_bounds_trains(estimator):
    curve = train(training(estimator, epochs=12, latent="4x3", hidden=32))
    # Where the encoder does not learn, test_bound ends at 210 nats, as with PLAIN.
    assert curve["loss"].iloc[-1] < curve["loss"].iloc[0] - 5
    assert estimator == "PLAIN" or curve["test_bound"].iloc[-1] < 206
    assert curve["objective"].unique().tolist() == ["iwae"]
    assert curve["k"].unique().tolist() == [3]


def test_the_objective_is_the_bound_of_k_samples():
    begun = training("PLAIN", k=1)
    more = training("PLAIN", k=50)
    # At the first step the weights are the same: more samples raise the bound.
    assert float(more.loss(0).detach()) < float(begun.loss(0).detach())
    assert begun.model.state_dict().keys() == more.model.state_dict().keys()


def test_curves_of_the_elbo_have_the_same_numbers_as_ever_and_say_so():
    curve = train(training("ZGR", "elbo", 1))
    assert curve["objective"].unique().tolist() == ["elbo"]
    assert curve["k"].unique().tolist() == [1]
    assert VAESettings("ZGR") == VAESettings("ZGR", objective="elbo", k=1)


class Interrupted(Exception):
    """Where a test stops a training."""


def test_a_training_continues_exactly_and_not_as_another_objective(tmp_path):
    whole = train(training(), tmp_path / "whole")

    def stop(step):
        if step == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(training(), tmp_path / "cut", save_seconds=0, after_step=stop)
    continued = train(training(), tmp_path / "cut")
    drop = ["seconds"]
    pd.testing.assert_frame_equal(whole.drop(columns=drop), continued.drop(columns=drop))
    with pytest.raises(CheckpointError, match="k = 3 there, 4 here"):
        train(training(k=4), tmp_path / "cut")
    with pytest.raises(CheckpointError, match="objective = 'iwae' there, 'elbo' here"):
        train(training("ZGR", "elbo", 1), tmp_path / "cut")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"estimator": "RF(m=4)"}, "is an estimator of the objective elbo, not of iwae"),
        ({"objective": "elbo", "k": 1}, "is an estimator of the objective iwae, not of elbo"),
        ({"objective": "elbo", "estimator": "ZGR"}, "k = 3 samples are of the objective iwae"),
        ({"objective": "vimco"}, "objective must be one of elbo, iwae"),
        ({"k": 0}, "k must be an int"),
        ({"estimator": "nope"}, "unknown estimator 'nope'"),
        ({"k": 1}, "needs k >= 2, not 1"),
        ({"estimator": "OVIS-MC(s=inf)", "latent": "20x3"}, "more than 4096"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        training(**given)


def test_a_run_of_a_bound_has_a_folder_of_its_own():
    names = [
        Run.name(VAESettings("ZGR", objective=o, k=k))
        for o, k in (("elbo", 1), ("iwae", 5), ("iwae", 8))
    ]
    assert names == [
        "ZGR-lr0.0001-seed0",
        "iwae5-ZGR-lr0.0001-seed0",
        "iwae8-ZGR-lr0.0001-seed0",
    ]


def test_rows_of_both_objectives_are_told_apart():
    rows = pd.DataFrame({"estimator": ["ZGR", "ZGR"], "objective": ["elbo", "iwae"], "k": [1, 5]})
    rows = rows.assign(seed=0, epoch=3, step=9, loss=[2.0, 1.0])
    assert summary(rows, ["loss"])["estimator"].tolist() == ["ZGR · ELBO", "ZGR · IWAE(5)"]
    alone = rows[rows["objective"] == "elbo"]
    assert trained_labels(alone).tolist() == ["ZGR"]
    assert label("OVIS(gamma=0) · IWAE(5)") == "OVIS(γ=0) · IWAE(5)"
    assert series_of("ZGR · IWAE(5)") == "ZGR"


COMMAND = "train vae --epochs 1 --batch 700 --hidden 4 --bound-samples 2 --latent 2x2 --workers 1"


@pytest.mark.thorough  # test_smoke.py trains by the command
def test_the_command_trains_each_estimator_on_the_objectives_that_know_it(tmp_path, capsys):
    out = tmp_path / "runs"
    words = [*COMMAND.split(), "ZGR", "VIMCO", "ST", "--out", str(out)]
    assert main([*words, "--objective", "elbo,iwae", "--k", "4"]) == 0
    rows = pd.read_csv(out / "vae.csv")
    assert rows[["estimator", "objective", "k"]].values.tolist() == [
        ["ZGR", "elbo", 1],
        ["ZGR", "iwae", 4],
        ["VIMCO", "iwae", 4],
        ["ST", "elbo", 1],
        ["ST", "iwae", 4],
    ]
    assert "VIMCO · IWAE(4)" in capsys.readouterr().out
    # The bound at the end is that of as many samples for all.
    assert rows["bound_samples"].unique().tolist() == [2]
    assert rows["test_bound"].notna().all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("VIMCO", "is an estimator of the objective iwae"),
        ("RF --objective iwae", "is an estimator of the objective elbo"),
        ("ZGR --k 5", "add --objective iwae"),
        ("ZGR --objective iwae --probe 1", "leave out iwae"),
        ("ZGR --objective both", "objective must be one of elbo, iwae"),
        ("VIMCO --objective iwae --k 1", "needs k >= 2"),
    ],
)
def test_bad_usage_is_one_line(words, told, tmp_path, capsys):
    assert main([*COMMAND.split(), *words.split(), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
