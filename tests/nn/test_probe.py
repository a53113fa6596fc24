"""The probe: exact where it says so, honest by draws, and not noticed by the training."""

import math

import pytest
import torch
from torch import nn

from gradlab import exact_gradient, exact_moments
from gradlab.data.datasets import load_images
from gradlab.estimators import parse
from gradlab.figures import vae as figure
from gradlab.loss import BatchDependentError, RandomLossError
from gradlab.nn.probe import GradientProbe
from gradlab.plots.probe import plot
from gradlab.training.loop import train
from gradlab.training.vae_training import VAESettings, VAETraining
from significance import limit, scores

pytestmark = pytest.mark.usefixtures("unchecked")  # shapes are checked in the tests of the parts

EXACT = ["ST", "DARN", "ZGR", "GS-ST(tau=0.5)", "GR(tau=0.3, k=4)", "REINFORCE", "RF(m=3)"]


@pytest.fixture(scope="module")
def batch():
    """Return f and logits [3, 2, 4] of a VAE in float64."""
    begun = VAETraining(VAESettings(latent="2x4", hidden=10), load_images("digits"))
    model = begun.model.double()
    images = begun.data.as_floats("train")[:3].double()
    return model.reconstruction(images), 5 * model.encode(images).detach()


def one(f, logits, b):
    def f_b(x):
        return f(x.unsqueeze(-3).expand(*x.shape[:-2], *logits.shape))[..., b]

    return f_b, logits[b]


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.few(3)
def test_exact_rows_are_those_of_exact_moments(text, batch):
    f, logits = batch
    probe = GradientProbe([text])
    probe(0, f, logits)
    (row,) = probe.rows.to_dict("records")
    moments = [exact_moments(parse(text), *one(f, logits, b)) for b in range(3)]
    truth = torch.cat([exact_gradient(*one(f, logits, b)) for b in range(3)])
    mean = torch.cat([m.mean for m in moments])
    assert row["method"] == "exact"
    assert row["truth"] == "enumeration"
    assert row["bias2"] == pytest.approx(float((mean - truth).square().sum()), abs=1e-10)
    assert row["variance"] == pytest.approx(sum(float(m.variance) for m in moments), abs=1e-10)
    assert row["truth2"] == pytest.approx(float(truth.square().sum()), abs=1e-10)
    expected = torch.cosine_similarity(mean.flatten(), truth.flatten(), dim=0)
    assert row["cosine"] == pytest.approx(float(expected), abs=1e-10)
    assert row["relative_bias"] ** 2 * row["truth2"] == pytest.approx(row["bias2"], abs=1e-10)


@pytest.mark.thorough  # test_montecarlo.py compares the same draws
@pytest.mark.parametrize("text", ["GR(tau=0.3, k=4)", "RF(m=3)"])
@pytest.mark.few(1)
def test_draws_agree_with_enumeration(text, batch, monkeypatch, unchecked):
    f, logits = batch
    exact = GradientProbe([text])
    exact(0, f, logits)
    monkeypatch.setattr("gradlab.nn.probe.LARGEST_STATES", 1)
    drawn = GradientProbe([text], draws=3000, reference_draws=3000)
    drawn(0, f, logits)
    found, truth = drawn.rows.iloc[0], exact.rows.iloc[0]
    assert found["method"] == "monte carlo"
    assert found["truth"] == "RF(m=4), 3,000 draws"
    for column in ("bias2", "variance", "mse"):
        score = scores(found[column], truth[column], found[f"{column}_se"])
        assert abs(score) < limit(15), column
    wrong = scores(found["variance"], 1.6 * truth["variance"], found["variance_se"])
    assert abs(wrong) > limit(15)


def test_a_block_is_bounded_and_changes_nothing_but_the_noise(batch, monkeypatch, unchecked):
    f, logits = batch
    seen = []

    def watched(x):
        seen.append(x.numel())
        return f(x)

    monkeypatch.setattr("gradlab.nn.probe.LARGEST_STATES", 1)
    monkeypatch.setattr("gradlab.nn.probe._BLOCK_NUMBERS", 4000)
    probe = GradientProbe(["RF(m=4)", "GR(k=5)"], draws=300, reference_draws=300)
    probe(0, watched, logits)
    assert max(seen) <= 4000
    assert probe.rows["reason"].isna().all()


def test_it_is_due_every_so_many_steps(batch):
    probe = GradientProbe(["ST"], every=3)
    for step in range(7):
        probe(step, *batch)
    assert list(probe.rows["step"]) == [0, 3, 6]


class Noisy(nn.Module):
    """A classifier of one-hot codes with everything that a probe might disturb."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.logits = nn.Parameter(torch.zeros(5, 2, 3))
        self.net = nn.Sequential(
            nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.ReLU(), nn.Linear(4, 1)
        )

    def f(self, x):
        hidden = self.net(x.flatten(-2).flatten(0, -2))
        return hidden.reshape(x.shape[:-2]).square()


def trained(probe_of, *, before_backward=False):
    model = Noisy()
    probe = probe_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(4)
    for step in range(4):
        optimizer.zero_grad()
        loss = parse("ZGR").surrogate(model.f, model.logits).mean()
        if not before_backward:
            loss.backward()
        if probe is not None:
            model.eval()
            probe(step, model.f, model.logits)
            model.train()
        if before_backward:
            loss.backward()
        optimizer.step()
    return model.state_dict(), probe


@pytest.mark.parametrize("before_backward", [False, True])
def test_the_training_does_not_notice_it(before_backward):
    undisturbed, _ = trained(lambda model: None)
    probed, probe = trained(
        lambda model: GradientProbe(["ST", "RF(m=4)", "GS"], every=2, draws=64, model=model),
        before_backward=before_backward,
    )
    assert len(probe.rows) == 6
    for name, value in undisturbed.items():
        assert torch.equal(value, probed[name]), name


@pytest.mark.parametrize("given", [False, True])
def test_a_model_in_training_mode_is_refused_and_left_as_it_was(given):
    model = Noisy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    probe = GradientProbe(["ST"], model=model if given else None)
    with pytest.raises(RandomLossError, match=r"BatchNorm1d in training mode.*\.eval\(\)"):
        probe(0, model.f, model.logits)
    model.net[2].eval()  # without dropout the batch norm is the fault
    with pytest.raises(BatchDependentError, match=r"BatchNorm1d in training mode.*\.eval\(\)"):
        probe(0, model.f, model.logits)
    assert len(probe.rows) == 0
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_vae_ends_bit_identical_with_and_without_it(tmp_path, unchecked):
    settings = VAESettings("GR(k=2)", "3x3", hidden=8, epochs=2, bound_samples=2)
    plain = VAETraining(settings, load_images("digits"))
    curve = train(plain)
    probe = GradientProbe(["ZGR", "GS"], every=3, draws=64)
    probed = VAETraining(settings, load_images("digits"), probe=probe)
    found = train(probed, tmp_path)
    assert found.drop(columns="seconds").equals(curve.drop(columns="seconds"))
    assert list(probe.rows["step"]) == [0, 0, 3, 3, 6, 6]
    # Its rows are part of the checkpoint.
    again = GradientProbe(["ZGR", "GS"], every=3, draws=64)
    train(VAETraining(settings, load_images("digits"), probe=again), tmp_path)
    assert again.rows.equals(probe.rows)


def test_its_time_is_bounded(batch):
    probe = GradientProbe(["ST"], every=1, seconds=1e-9)
    probe(0, *batch)
    probe(1, *batch)
    assert math.isnan(probe.rows["bias2"][1])
    assert "1e-09 seconds for measurements are used up" in probe.rows["reason"][1]
    assert len(probe.rows) == 2


def test_what_cannot_be_measured_says_why(batch):
    _, logits = batch
    probe = GradientProbe(["ST", "RF(m=2)"], draws=64)
    probe(0, lambda x: x.detach().square().sum((-2, -1)), logits)
    assert "not differentiable" in probe.rows["reason"][0]
    assert probe.rows["reason"].isna()[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be an int of at least 1"),
        ({"draws": 3}, "draws must be an int of at least 32"),
        ({"reference": "ZGR"}, "reference must be unbiased for every f"),
        ({"seconds": 0.0}, "seconds must be positive"),
        ({"estimators": ["ZG"]}, "unknown estimator 'ZG'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GradientProbe(**({"estimators": ["ST"]} | options))


def test_logits_of_another_shape_are_named(batch, unchecked):
    with pytest.raises(ValueError, match="logits must have"):
        GradientProbe(["ST"])(0, batch[0], torch.zeros(2, 3))


def test_masked_classes_are_exact(batch):
    f, logits = batch
    masked = logits.clone()
    masked[:, 0, 1] = -math.inf
    probe = GradientProbe(["ZGR", "RF(m=2)"])
    probe(0, f, masked)
    assert probe.rows["bias2"].notna().all()
    assert probe.rows["bias2"][1] == pytest.approx(0, abs=1e-12)


@pytest.mark.thorough  # test_plots_rows.py draws them
def test_rows_can_be_drawn(batch):
    probe = GradientProbe(["ST", "ZGR", "GS"], every=1, draws=64)
    probe(0, *batch)
    probe(1, batch[0], 2 * batch[1])
    drawn = plot(probe.rows)
    assert len(drawn.axes) == 4
    assert all(len(ax.lines) + len(ax.containers) >= 2 for ax in drawn.axes)


@pytest.mark.parametrize("enumerated", [True, False])
def test_the_title_says_what_the_truth_is(batch, enumerated, monkeypatch, unchecked):
    if not enumerated:
        monkeypatch.setattr("gradlab.nn.probe.LARGEST_STATES", 1)
    probe = GradientProbe(["GS"], draws=64, reference_draws=64)
    probe(0, *batch)
    title = plot(probe.rows).get_suptitle()
    assert title.endswith("truth g: enumeration") == enumerated


def test_the_picture_shows_progress_through_the_steps(batch):
    probe = GradientProbe(["ST", "ZGR"], every=1)
    for step in range(2):
        probe(step, *batch)
    last = plot(probe.rows).axes[-1]
    assert last.get_ylabel() == "progress, mean of 10"
    own = probe.rows[probe.rows["estimator"] == "ZGR"]
    assert any(list(line.get_ydata()) == list(own["progress"]) for line in last.lines)


def test_rows_without_a_measurement_are_named(batch):
    probe = GradientProbe(["ARSM"], draws=64, seconds=1e-9)
    with pytest.raises(ValueError, match="rows must not be empty"):
        plot(probe.rows)
    probe.load_state_dict({"rows": [], "seconds": 1.0, "last": 1.0})
    probe(0, *batch)
    (text,) = plot(probe.rows).texts
    assert text.get_text().startswith("nothing could be measured")


@pytest.mark.thorough  # test_plot_door.py draws a probe
def test_figure_is_the_same_again_and_shows_all(unchecked):
    reduced = {"epochs": 1, "seeds": 1, "every": 3, "draws": 64, "latent": "2x2"}
    rows = figure.rows(3, **reduced)
    assert rows.equals(figure.rows(3, **reduced))
    assert set(rows["part"]) == {"curve", "probe"}
    drawn = figure.plot(rows)
    assert len(drawn.axes) == 4
    assert len(drawn.axes[0].lines) == len(figure.ESTIMATORS)


def test_random_numbers_are_its_own(batch):
    one_probe, other = (GradientProbe(["GS"], draws=64, seed=s) for s in (0, 1))
    state = torch.get_rng_state()
    one_probe(0, *batch)
    other(0, *batch)
    assert torch.equal(torch.get_rng_state(), state)
    assert one_probe.rows["variance"][0] != other.rows["variance"][0]


def test_your_own_code_is_not_called_where_nothing_is_measured():
    called = []

    def own(f, logits, n, generator=None):
        called.append(n)
        return parse("RF(m=2)").draw(f, logits, n, generator)

    probe = GradientProbe([own, "ST"], every=1, draws=32, seconds=1e-9)
    probe.load_state_dict({"rows": [], "seconds": 1.0, "last": 1.0})
    probe(0, lambda x: x[..., 0].sum(-1), torch.zeros(2, 2, 3))
    assert called == []
    assert probe.rows["cost"].isna().tolist() == [True, False]
    assert probe.rows["reason"].str.contains("are used up").all()


class Scalars:
    """A writer as TensorBoard's is."""

    def __init__(self):
        self.written = []

    def add_scalar(self, tag, value, step):
        self.written.append((step, tag, value))


class Log:
    """A run as W&B and trackio have them."""

    def __init__(self):
        self.written = []

    def log(self, values, step):
        self.written += [(step, tag, value) for tag, value in values.items()]


@pytest.mark.parametrize("kind", [Scalars, Log])
def test_measurements_go_to_a_writer(batch, kind):
    writer = kind()
    probe = GradientProbe(["ST", "ARSM", "ZGR"], every=2, draws=64)
    probe(0, *batch)
    assert probe.log_to(writer) is probe
    for step in (1, 2, 4):
        probe(step, *batch)
    columns = ["relative_bias", "relative_sd", "relative_rmse", "cosine"]
    expected = [
        (row["step"], f"gradlab/{column}/{row['estimator']}", row[column])
        for row in probe.rows.to_dict("records")
        if row["step"] > 0
        for column in columns
        if math.isfinite(row[column])
    ]
    assert {step for step, _, _ in expected} == {2, 4}
    assert writer.written == expected
    assert all(type(value) is float for _, _, value in writer.written)


def test_numbers_that_are_not_there_are_not_written(batch):
    writer = Scalars()
    # ARM is for two classes: it cannot be measured here.
    probe = GradientProbe(["ARM", "ZGR"], every=1).log_to(writer, ["variance", "draws"])
    probe(0, *batch)
    assert [tag for _, tag, _ in writer.written] == ["gradlab/variance/ZGR"]


def test_a_writer_or_column_that_cannot_be_is_refused():
    probe = GradientProbe(["ST"])
    with pytest.raises(TypeError, match="list has neither add_scalar"):
        probe.log_to([])
    with pytest.raises(ValueError, match=r"unknown column of numbers 'cosin'.*mean 'cosine'"):
        probe.log_to(Scalars(), ["cosin"])
    with pytest.raises(ValueError, match="unknown column of numbers 'reason'"):
        probe.log_to(Scalars(), ["reason"])
