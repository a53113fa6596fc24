"""The discrete VAE: its bounds against enumeration, its gradient, and every estimator trains it."""

import math

import pandas as pd
import pytest
import torch

import gradlab
from cases import all_states, generator, is_binary, is_of_levels
from gradlab.cli import main
from gradlab.comparison.from_rows import recommend_from_rows
from gradlab.data.datasets import load_images
from gradlab.estimators import ESTIMATORS
from gradlab.plots.probe import plot as plot_probe
from gradlab.training.loop import train
from gradlab.training.runs import Run, run_all, summary
from gradlab.training.vae import DiscreteVAE, read_latent
from gradlab.training.vae_training import PROBED, VAESettings, VAETraining
from significance import limit, scores

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

N, C = 2, 3


@pytest.fixture(scope="module")
def images():
    return load_images("digits").as_floats("train")[:3].double()


@pytest.fixture(scope="module")
def vae():
    mean = load_images("digits").as_floats("train").mean(0)
    model = DiscreteVAE(N, C, mean, hidden=7, generator=generator()).double()
    with torch.no_grad():  # a decoder that uses the code, a posterior that is not uniform
        model.decoder[0].weight.mul_(8)
        model.decoder[-1].weight.mul_(5)
        model.encoder[-1].weight.mul_(8)
    return model


def enumerated(vae, images):
    """Return log q(z | x) and log p(x, z), [states, images]."""
    z = all_states(N, C).unsqueeze(1).expand(-1, len(images), -1, -1)
    log_q = (z * vae.encode(images).log_softmax(-1)).sum((-2, -1))
    pixels = torch.sigmoid(vae.decoder(z.flatten(-2)))
    log_p = torch.distributions.Bernoulli(pixels).log_prob(images).sum(-1)
    return log_q, log_p - N * math.log(C)


def test_loss_and_divergence_are_the_negative_elbo(vae, images):
    log_q, log_joint = enumerated(vae, images)
    expected = (log_q.exp() * (log_q - log_joint)).sum(0)
    values = vae.reconstruction(images)(
        all_states(N, C).unsqueeze(1).expand(-1, len(images), -1, -1)
    )
    found = (log_q.exp() * values).sum(0) + vae.divergence(vae.encode(images))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)


@pytest.mark.thorough  # a_step_has_the_exact_gradient_of_the_encoder_on_average
def test_negative_elbo_is_unbiased(vae, images):
    log_q, log_joint = enumerated(vae, images)
    expected = (log_q.exp() * (log_q - log_joint)).sum(0)
    found = vae.negative_elbo(images.repeat(4000, 1), generator()).unflatten(0, (4000, 3))
    error = found.std(0) / 4000**0.5
    assert scores(found.mean(0), expected, error).abs().max() < limit()
    assert scores(found.mean(0), expected + 10 * error, error).abs().max() > limit()


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.few(1)
def test_bound_has_the_enumerated_mean_of_importance_weights(vae, images, samples):
    log_joint = enumerated(vae, images)[1]
    # exp(-bound) is an unbiased estimate of p(x), whatever the number of samples.
    expected = log_joint.exp().sum(0) / (reference := log_joint.logsumexp(0).exp())
    n = 4000 // samples
    found = vae.bound(images.repeat(n, 1), samples, generator()).unflatten(0, (n, 3))
    ratio = (-found).exp() / reference
    error = ratio.std(0) / n**0.5
    assert scores(ratio.mean(0), expected, error).abs().max() < limit()


@pytest.mark.thorough  # tests/bounds/test_bound_moments.py has the bound
def test_bound_falls_to_the_exact_log_likelihood(vae, images):
    exact = -enumerated(vae, images)[1].logsumexp(0)
    copies = images.repeat(30, 1)
    gaps = [
        float((vae.bound(copies, k, generator()) - exact.repeat(30)).detach().mean())
        for k in (1, 10, 300)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > -1e-3
    assert gaps[2] < 0.05 * gaps[0]


def test_large_numbers_of_samples_are_blocked(vae, images, monkeypatch):
    whole = vae.bound(images, 50, generator())
    monkeypatch.setattr("gradlab.training.vae._LARGEST", 3 * 784 * 7)
    assert vae.bound(images, 50, generator()).shape == whole.shape
    torch.testing.assert_close(vae.bound(images, 1, generator()), vae.bound(images, 1, generator()))


def training(estimator="ZGR", **settings):
    small = {"latent": "4x3", "epochs": 12, "hidden": 32, "lr": 1e-2, "bound_samples": 2}
    return VAETraining(VAESettings(estimator, **(small | settings)), load_images("digits"))


def test_a_step_has_the_exact_gradient_of_the_encoder_on_average(unchecked):
    begun = training("RF(m=4)", latent="2x3")
    pixels = begun.data.as_floats("train")[begun.batch(0)]
    log_q, log_joint = enumerated(begun.model.double(), pixels.double())
    exact = (log_q.exp() * (log_q - log_joint)).sum(0).mean()
    weight = begun.model.encoder[-1].weight
    (truth,) = torch.autograd.grad(exact, weight)
    begun.model.float()
    found = []
    for number in range(200):
        begun.generator = lambda what, step, number=number: generator(number)
        (estimate,) = torch.autograd.grad(begun.loss(0), weight)
        found.append(estimate.double())
    draws = torch.stack(found)
    error = draws.std(0) / len(draws) ** 0.5
    assert scores(draws.mean(0), truth, error).abs().max() < limit()
    # The divergence left out would be seen.
    (divergence,) = torch.autograd.grad(
        begun.model.divergence(begun.model.encode(pixels)).mean(), weight
    )
    assert scores(draws.mean(0), truth - divergence, error).abs().max() > limit()


@pytest.mark.parametrize("name", [n for n, cls in ESTIMATORS.items() if not is_of_levels(cls)])
@pytest.mark.few(9)
def test_every_estimator_trains(name, unchecked):
    latent = "6x2" if is_binary(ESTIMATORS[name]) else "4x3"
    begun = training(name, latent=latent, epochs=1)
    before = begun.model.encoder[-1].weight.clone()
    curve = train(begun)
    assert curve["step"].iloc[-1] == 4
    assert curve[["loss", "train_nelbo", "test_bound"]].iloc[-1].notna().all()
    assert not torch.equal(begun.model.encoder[-1].weight, before)


@pytest.mark.parametrize(
    ("text", "epochs"),
    [("ZGR", 12), ("REINFORCE(baseline=200)", 12), ("EMA", 24), ("LEARNED", 12)],
)
@pytest.mark.few(1)
def test_training_lowers_the_loss(text, epochs, unchecked):
    curve = train(training(text, epochs=epochs))
    assert curve["train_nelbo"].iloc[-1] < curve["train_nelbo"].iloc[0] - 5


def test_a_moving_average_comes_to_the_loss(unchecked):
    begun = training("EMA(baseline=50, decay=0.8)", epochs=10)
    train(begun)
    assert begun.baseline == pytest.approx(200, abs=15)
    assert str(begun.estimator) == "EMA(baseline=50, decay=0.8)"
    assert training("ZGR").baseline is None


def test_learned_baselines_are_fitted_before_the_first_step():
    begun, again = training("LEARNED"), training("LEARNED")
    assert begun.estimator.weights == again.estimator.weights
    assert sum(row[0] for row in begun.estimator.weights) > 100  # near the loss, which 0 is not


def test_estimators_start_from_the_same_weights_and_see_the_same_images():
    one, other = training("ST"), training("RF(m=2)")
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one.batch(5), other.batch(5))
    seen = torch.cat([one.batch(step) for step in range(4)])
    assert sorted(seen.tolist()) == list(range(200))


def test_seeds_differ():
    assert not torch.equal(training(seed=0).batch(0), training(seed=1).batch(0))


def test_grey_images_are_drawn_anew_at_every_use(monkeypatch):
    digits = load_images("digits")
    grey = type(digits)(
        "grey", digits.train * 128, digits.valid * 128, digits.test * 128, None, binary=False
    )
    begun = VAETraining(VAESettings(latent="2x2", epochs=1), grey)
    seen = []
    encode = begun.model.encode
    monkeypatch.setattr(begun.model, "encode", lambda x: seen.append(x.clone()) or encode(x))
    begun.loss(0), begun.loss(0), begun.loss(1)
    assert torch.equal(seen[0], seen[1])
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert begun.evaluate(1, False)["test_nelbo"] == begun.evaluate(1, False)["test_nelbo"]


@pytest.mark.parametrize("text", ["30", "30x", "x10", "0x4", "3x1", "3x4x5", "axb"])
def test_wrong_latents_are_named(text):
    with pytest.raises(ValueError, match=r"latent must be variables x classes such as '30x10'"):
        read_latent(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be an int of at least 1, not 0"),
        ({"lr": math.nan}, "lr must be positive and finite"),
        ({"estimator": "ZG"}, "unknown estimator 'ZG'"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        VAESettings(**settings)


def test_an_estimator_that_does_not_fit_the_latent_is_refused():
    with pytest.raises(ValueError, match=r"estimator ARSM, latent 300x200: one draw of ARSM"):
        training("ARSM", latent="300x200")


def test_summary_is_the_mean_and_half_the_range():
    rows = pd.DataFrame(
        {
            "estimator": ["B"] * 4 + ["A"] * 2,
            "seed": [0, 0, 1, 1, 0, 0],
            "epoch": [1, 2] * 3,
            "step": [4, 8] * 3,
            "loss": [9.0, 3.0, 9.0, 5.0, 9.0, 1.0],
        }
    )
    found = summary(rows, ["loss"]).set_index("estimator")
    assert list(found.index) == ["B", "A"]
    assert found.loc["B"].to_dict() == {"seeds": 2, "epochs": 2, "loss": 4.0, "loss_spread": 1.0}
    assert found.loc["A", "loss_spread"] == 0


@pytest.mark.slow
def test_command_line_compares_over_seeds_and_goes_on(tmp_path, capsys, unchecked):
    command = ["train", "vae", "ST", "GR(tau=0.5, k=2)", "--seeds", "2", "--latent"]
    command += ["2x3", "--hidden", "5", "--bound-samples", "2", "--workers", "1"]
    command += ["--out", str(tmp_path)]
    assert main([*command, "--epochs", "2"]) == 0
    text = capsys.readouterr().out
    assert "After 2 epochs, mean ± (max - min)/2 of 2 seeds." in text
    first = pd.read_csv(tmp_path / "vae.csv")
    assert len(first) == 2 * 2 * 2
    assert main([*command, "--epochs", "3"]) == 0
    again = pd.read_csv(tmp_path / "vae.csv")
    assert len(again) == 2 * 2 * 3
    # Also the seconds: what was done is not done again.
    before = again[again["epoch"] <= 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        before.drop(columns="epochs"), first.drop(columns="epochs"), check_exact=True
    )
    assert (tmp_path / "vae.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latent", "3y3"], "latent must be variables x classes"),
        (["--images", "minst"], "did you mean 'mnist'"),
        (["ST", "ZG"], "did you mean 'ZGR'"),
        (["--device", "gpu"], "device must be 'cpu' or 'cuda'"),
        (["ARSM", "--latent", "300x200"], "use RF"),
    ],
)
@pytest.mark.few(2)
def test_command_line_names_what_is_wrong(options, message, tmp_path, capsys, unchecked):
    assert main(["train", "vae", "--epochs", "1", "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_line_tells_which_run_stopped(tmp_path, capsys, unchecked):
    command = ["train", "vae", "--lr", "1e30", "--epochs", "9", "--out", str(tmp_path)]
    assert main([*command, "--latent", "2x2"]) == 1
    assert (
        "at step 1 with ZGR, seed 0, data digits; the state before it is saved"
        in capsys.readouterr().err
    )


@pytest.mark.thorough  # the probe: tests/nn/test_probe.py
def test_rows_of_a_probe_keep_what_was_measured_beside_the_settings_of_the_run(tmp_path):
    probe = {"estimators": ["ST", "ZGR"], "every": 2, "draws": 128}
    small = {"latent": "2x3", "epochs": 1, "hidden": 8, "bound_samples": 2, "batch": 60}
    settings = [VAESettings("ZGR", lr=lr, **small) for lr in (1e-3, 1e-2)]
    runs = [Run(one, tmp_path / Run.name(one), probe=probe) for one in settings]
    rows = pd.concat([outcome.probed for outcome in run_all(runs, workers=1)])
    assert set(rows["batch"]) == {PROBED}
    assert set(rows["train_batch"]) == {60}
    assert set(rows["latent"]) == {"2x3"}
    assert rows.groupby(["lr", "step", "estimator"]).size().eq(1).all()
    answer = recommend_from_rows(rows, evaluations=12, steps=[2])
    assert answer.batch == PROBED
    # Two learning rates are two runs, not two rows of one.
    assert answer.rows.groupby("lr").size().tolist() == [2, 2]
    with pytest.raises(ValueError, match="must be of one lr, not 2"):
        gradlab.plot.probe(rows)
    assert len(plot_probe(rows).axes) == 4
