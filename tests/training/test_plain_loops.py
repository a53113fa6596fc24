"""The loops of benchmarks/ that stand for code written by hand: the same numbers as gradlab's."""

import math
from pathlib import Path

import pytest
import torch

from cases import generator, logits_of
from gradlab.data import load_images
from gradlab.estimators import DARN, STZGR, ZGR, StraightThrough, TemperedStraightThrough
from gradlab.problems import problem
from gradlab.training.loop import _gradient_norm
from gradlab.training.network_training import NetworkSettings
from gradlab.training.runs import begin
from gradlab.training.vae_training import VAESettings


@pytest.fixture(autouse=True)
def _root_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.mark.parametrize("size", [(8, 4), (32, 16), (3, 10)], ids=str)
@pytest.mark.parametrize("number", range(3), ids=["ZGR", "GS-ST", "RF"])
@pytest.mark.parametrize("kind", ["mlp", "quadratic"])
@pytest.mark.few(4)
def test_draws_have_the_bits_of_the_bare_loop(kind, number, size):
    from benchmarks.bare_loops import LOOPS

    estimator, (loop, _, _) = list(LOOPS.items())[number]
    f, logits = problem(kind, *size), logits_of("masked", *size).to(torch.float32)
    found = estimator.draw(f, logits, 64, generator(1))
    assert torch.equal(found, loop(f, logits, 64, generator(1)))


@pytest.mark.parametrize("kind", ["vae", "network"])
def test_a_training_has_the_losses_of_the_plain_loop(kind):
    from benchmarks import training

    settings = VAESettings("ZGR", hidden=20) if kind == "vae" else NetworkSettings("ZGR")
    begun = begin(settings, load_images("digits"))
    by_hand = {"vae": training.plain_vae, "network": training.plain_network}[kind](begun)
    step = training._steps(begun)
    for number in range(6):  # more than an epoch
        loss, other = step(), by_hand()
        assert math.isclose(loss, other, rel_tol=1e-5), number


@pytest.mark.parametrize(
    "estimator",
    [StraightThrough(), DARN(), ZGR(), STZGR(0.3), TemperedStraightThrough(0.5)],
    ids=str,
)
def test_the_backward_of_a_sample_can_be_differentiated(estimator):
    logits = logits_of("moderate", 3, 4).requires_grad_()
    v = torch.randn(3, 4, generator=generator(2), dtype=torch.float64)
    x = estimator.sample(logits, generator(1))
    (g,) = torch.autograd.grad(x, logits, v, create_graph=True)
    (found,) = torch.autograd.grad(g.square().sum(), logits)
    plain = estimator.pullback(logits.softmax(-1), x.detach(), v)
    (expected,) = torch.autograd.grad(plain.square().sum(), logits)
    assert torch.equal(g, plain)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.abs().sum() > 0


@pytest.mark.parametrize("value", [2.0, math.nan, math.inf, 1e30])
def test_the_norm_of_a_gradient_shows_what_is_not_finite(value):
    model = torch.nn.Linear(3, 2)
    model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.full((2,), value)
    found = _gradient_norm(model)
    if value == 2:
        assert found == pytest.approx(math.sqrt(6 + 8))
    else:
        assert not math.isfinite(found)
