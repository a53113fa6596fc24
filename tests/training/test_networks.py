"""Quantized networks: exact level probabilities, and every pathwise estimator trains them."""

import dataclasses
import math
import signal

import pandas as pd
import pytest
import scipy
import torch

from cases import generator
from gradlab.cli import main
from gradlab.data.datasets import load_images
from gradlab.estimators import parse
from gradlab.nn.layer import Evaluation
from gradlab.nn.quantization import Quantizer, level_logits, level_values
from gradlab.training.loop import train
from gradlab.training.network_training import (
    NetworkSettings,
    NetworkTraining,
    best_learning_rate,
)
from gradlab.training.networks import QuantizedNetwork

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

PATHWISE = ["ST", "DARN", "ZGR", "ST-ZGR(alpha=0.5)", "GS", "GS-ST", "GR(k=2)"]
NUMBERS = torch.tensor([-3.0, -1.0, -0.4, 0.0, 0.1, 0.9, 2.5], dtype=torch.float64)
DIGITS = load_images("digits")
SMALL = {"epochs": 1, "batch": 100, "lr": 3e-3, "samples": 3, "first_drop": 1, "second_drop": 1}

SLOW = pytest.mark.slow
with_levels = pytest.mark.parametrize("levels", [2, 3, 16])


def begun(images=DIGITS, **settings):
    return NetworkTraining(NetworkSettings(**(SMALL | settings)), images)


# The quantizer.


@with_levels
def test_probabilities_are_of_the_discretized_logistic(levels):
    half = 1 / (levels - 1)
    values = level_values(levels, torch.float64)
    assert values[[0, -1]].tolist() == [-1, 1]
    noise = scipy.stats.logistic(loc=NUMBERS[:, None], scale=half / 2)
    upper, lower = noise.cdf(values + half), noise.cdf(values - half)
    upper[:, -1], lower[:, 0] = 1, 0
    p = level_logits(NUMBERS, levels).softmax(-1)
    torch.testing.assert_close(p, torch.tensor(upper - lower), rtol=0, atol=1e-10)
    if levels > 2:  # log P itself
        torch.testing.assert_close(level_logits(NUMBERS, levels), p.log(), rtol=1e-10, atol=1e-10)


def test_two_levels_are_a_stochastic_binary_unit():
    p = level_logits(NUMBERS, 2).softmax(-1)
    torch.testing.assert_close(p[:, 1], torch.sigmoid(2 * NUMBERS), rtol=0, atol=1e-12)
    torch.testing.assert_close(p @ level_values(2, torch.float64), torch.tanh(NUMBERS))


@with_levels
@pytest.mark.parametrize("a", [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_logits_and_gradients_are_finite_at_extremes(levels, a):
    number = torch.tensor(a, dtype=torch.float32, requires_grad=True)
    logits = level_logits(number, levels)
    assert torch.isfinite(logits).all()
    for k in range(levels):
        (slope,) = torch.autograd.grad(logits[k], number, retain_graph=True)
        assert torch.isfinite(slope)
    if abs(a) > 1:
        assert int(logits.argmax()) == (0 if a < 0 else levels - 1)


@with_levels
@pytest.mark.parametrize("estimator", ["ST", "DARN", "ZGR", "ST-ZGR(alpha=0.5)"])
def test_mean_gradient_of_the_level_is_exact(levels, estimator):
    a = NUMBERS.clone().requires_grad_()
    logits, values = level_logits(a, levels), level_values(levels, torch.float64)
    p = logits.softmax(-1)
    (wanted,) = torch.autograd.grad((p @ values).sum(), a, retain_graph=True)
    step = 1e-6
    sides = [level_logits(NUMBERS + e, levels).softmax(-1) @ values for e in (step, -step)]
    torch.testing.assert_close(wanted, (sides[0] - sides[1]) / (2 * step), rtol=0, atol=1e-8)
    found = torch.zeros_like(a)
    for k, x in enumerate(torch.eye(levels, dtype=torch.float64)):
        sample = parse(estimator).sample(logits, x=x.expand_as(logits))
        (given,) = torch.autograd.grad((sample @ values).sum(), a, retain_graph=True)
        found += p[:, k].detach() * given
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@with_levels
def test_a_quantizer_returns_levels(levels):
    quantizer = Quantizer("ZGR", levels)
    quantizer.layer.generator = generator()
    values = quantizer(torch.randn(50, 3, 2, generator=generator()))
    assert values.shape == (50, 3, 2)
    assert set(values.unique().tolist()) == set(level_values(levels).tolist())


def test_the_mode_is_the_nearest_level():
    quantizer = Quantizer("ST", 5).eval()
    quantizer.layer.evaluation = Evaluation.mode
    a = torch.tensor([-7.0, -0.8, -0.2, 0.3, 0.7, 3.0])
    assert quantizer(a).tolist() == [-1, -1, 0, 0.5, 0.5, 1]


# Training.


@pytest.mark.parametrize("estimator", PATHWISE)
@pytest.mark.few(2)
def test_each_pathwise_estimator_learns(estimator, unchecked):
    training = begun(estimator=estimator, epochs=4, first_drop=4, second_drop=4)
    curve = train(training)
    assert curve["loss"].iloc[-1] < 0.7 * curve["loss"].iloc[0]
    assert 0 <= curve["test_ensemble_error"].iloc[-1] < 0.6  # guessing: 0.9


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": True},
        {"levels": 16},
        {"model": "conv", "levels": 3},
        pytest.param({"weights": True, "activations": False, "levels": 3}, marks=SLOW),
        pytest.param({"model": "conv", "weights": True}, marks=SLOW),
    ],
    ids=str,
)
@pytest.mark.few(1)
def test_weights_activations_and_levels(settings, unchecked):
    training = begun(**settings)
    training.data = dataclasses.replace(DIGITS, train=DIGITS.train[:20])
    training.images = 20
    losses = []
    for step in range(3):
        training.optimizer.zero_grad()
        loss = training.loss(0)  # the same images and the same noise
        loss.backward()
        training.optimizer.step()
        losses.append(loss.item())
        gradients = [p.grad for p in training.model.parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients), step
    assert losses[-1] < losses[0]
    training.model.eval()
    with torch.no_grad():
        row = training.evaluate(1, last=False)
    assert 0 <= row["valid_sample_error"] <= 1


@pytest.mark.parametrize("estimator", ["ZGR", "GS"])
@pytest.mark.few(1)
def test_an_interrupted_run_goes_on_exactly(estimator, tmp_path, interruptible, unchecked):
    straight = begun(estimator=estimator, epochs=2)
    curve = train(straight)

    def after_step(step):
        if step == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(begun(estimator=estimator, epochs=2), tmp_path, after_step=after_step)
    resumed = begun(estimator=estimator, epochs=2)
    other = train(resumed, tmp_path)
    pd.testing.assert_frame_equal(
        curve.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True
    )
    states = straight.model.state_dict(), resumed.model.state_dict()
    for name, value in states[0].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, states[1][name]), name


def test_seeds_and_estimators_share_what_they_should():
    first, again, other = begun(), begun(estimator="GS"), begun(seed=1)
    weights = [t.model.layers[0].weight for t in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_evaluation_rows(unchecked):
    training = begun(checked=20)
    training.model.eval()
    with torch.no_grad():
        early, last = training.evaluate(1, last=False), training.evaluate(1, last=True)
        assert last == training.evaluate(1, last=True)
    assert (early["valid_images"], last["valid_images"]) == (20, 50)
    assert not any(name.startswith("test") for name in early)
    error = last["test_ensemble_error"]
    assert last["test_ensemble_error_se"] == pytest.approx(math.sqrt(error * (1 - error) / 50))


def test_parts_of_an_evaluation_do_not_change_the_mode(monkeypatch, unchecked):
    training = begun()
    training.model.eval()
    images = DIGITS.as_floats("test")
    with torch.no_grad():
        whole = training._class_probabilities(images, generator(), "mode")
        monkeypatch.setattr("gradlab.training.network_training._EVALUATED", 7 * 1000)
        parts = training._class_probabilities(images, generator(), "mode")
    torch.testing.assert_close(whole, parts)


def test_the_learning_rate_falls_twice():
    training = begun(lr=1e-3, epochs=200, first_drop=100, second_drop=150)
    rates = [training.learning_rate(epoch) for epoch in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_a_last_batch_of_one_image_is_not_normalized(unchecked):
    training = begun(batch=199)
    assert torch.equal(training.batch(1), training.batch(0))
    assert torch.isfinite(training.loss(1))


# The choice of the learning rate.


def curves(*rows):
    return pd.DataFrame(rows, columns=["lr", "seed", "epoch", "valid_mode_error"])


def test_the_best_learning_rate_has_the_least_mean_error_at_the_end():
    rows = [(1e-3, 0, 1, 0.0), (1e-3, 0, 2, 0.2), (1e-3, 1, 2, 0.2)]
    rows += [(1e-4, 0, 2, 0.1), (1e-4, 1, 2, 0.28)]
    assert best_learning_rate(curves(*rows)) == 1e-4
    assert best_learning_rate(curves((1e-3, 0, 2, 0.2), (1e-4, 0, 2, 0.2))) == 1e-3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (curves(), "must hold rows"),
        (curves((1e-3, 0, 1, 0.1)).drop(columns="seed"), "'seed'"),
        (curves((1e-3, 0, 1, 0.1), (1e-4, 0, 2, 0.1)), "end at epochs"),
    ],
)
def test_curves_that_cannot_be_compared(rows, message):
    with pytest.raises(ValueError, match=message):
        best_learning_rate(rows)


# Errors.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "RF(m=2)"}, "no sample to back-propagate"),
        ({"levels": 1}, "levels must be an int of at least 2, not 1"),
        ({"levels": 2.5}, "levels"),
        ({"batch": 1}, "batch"),
        ({"model": "resnet"}, "model must be one of mlp, conv"),
        ({"lr": 0.0}, "lr"),
        ({"activations": False}, "must not both be False"),
        ({"first_drop": 5, "second_drop": 4}, "second_drop"),
        ({"model": "conv", "levels": 1000}, "numbers at once"),
        ({"estimator": "GR(k=10000)"}, "numbers at once"),
        ({"seed": -1}, "seed"),
    ],
    ids=str,
)
def test_bad_settings(settings, message, unchecked):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        NetworkSettings(**settings)


def test_images_without_labels():
    with pytest.raises(ValueError, match=r"'digits' has no labels.*mnist, fashion-mnist"):
        begun(dataclasses.replace(DIGITS, labels=None))


def test_unknown_model():
    with pytest.raises(ValueError, match="mlp, conv"):
        QuantizedNetwork("resnet", "ST")


@pytest.mark.parametrize("levels", [0, 1])
def test_too_few_levels(levels):
    with pytest.raises(ValueError, match="at least 2"):
        level_logits(torch.zeros(3), levels)


# The command line.


@pytest.mark.thorough  # test_smoke.py trains by command
def test_command_line_chooses_the_learning_rate(tmp_path, capsys, unchecked):
    command = ["train", "network", "ST", "--lr", "1e-3,1e-6", "--epochs", "2"]
    assert main([*command, "--samples", "2", "--workers", "1", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "network.csv")
    chosen = rows.loc[rows["chosen"], "lr"].unique()
    assert len(rows) == 4
    assert list(chosen) == [best_learning_rate(rows)] == [1e-3]
    assert "0.001" in shown
    assert "%" in shown
    assert (tmp_path / "network.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["RF(m=4)"], "estimator RF(m=4) has no sample to back-propagate through"),
        (["--model", "cnn"], "model must be one of mlp, conv, not 'cnn'"),
        (["--lr", "1e-3,x"], "'x' is not a number"),
        (["--levels", "1"], "--levels"),
        (["--no-activations"], "nothing is random"),
    ],
)
def test_command_line_names_what_is_wrong(options, message, tmp_path, capsys, unchecked):
    assert main(["train", "network", "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
