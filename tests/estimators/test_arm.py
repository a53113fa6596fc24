"""ARM and DisARM: one is the mean of the other given the pair."""

import pytest
import torch

from cases import all_states, generator, logits_of, loss_of
from gradlab.estimators import ARM, ARSM, DisARM, arm, arsm
from gradlab.estimators._two_classes import log_odds
from gradlab.exact.truth import exact_gradient, exact_moments
from test_golden import FUNCTIONS, distance, enumeration, golden, recipe
from test_golden import logits_of as golden_logits

REGIMES = ["uniform", "moderate", "peaked"]


def cells(p: torch.Tensor) -> torch.Tensor:
    """Bounds of u, [N, 3, 2], of the three cells in which the pair (b, b') of a variable is one."""
    low, high = torch.minimum(p, 1 - p), torch.maximum(p, 1 - p)
    zero, one = torch.zeros_like(p), torch.ones_like(p)
    bounds = torch.stack([zero, low, high, one], -1)
    return torch.stack([bounds[:, :-1], bounds[:, 1:]], -1)


def arm_over_cells(f, logits):
    """Return of each product of cells: probability, pair, mean of ARM, E |ARM|^2 a variable."""
    p = torch.softmax(logits, -1)[:, 1]
    bounds = cells(p)
    index = torch.cartesian_prod(*[torch.arange(3)] * len(p)).reshape(-1, len(p))
    low, high = bounds[torch.arange(len(p)), index].unbind(-1)
    middle = (low + high) / 2
    b, b_other = (middle > 1 - p).long(), (middle < p).long()
    one_hot = torch.eye(2, dtype=torch.float64)
    difference = (f(one_hot[b]) - f(one_hot[b_other]))[:, None]
    mean = difference * (middle - 0.5)
    cube = ((high - 0.5) ** 3 - (low - 0.5) ** 3) / (3 * (high - low))
    square = 2 * difference**2 * torch.where(high > low, cube, 0.0)
    return (high - low).prod(-1), torch.stack([b, b_other]), mean, square


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", ["quadratic", "cubic", "table"])
def test_disarm_is_the_mean_of_arm_within_each_cell_of_u(name, logits):
    f, logits = loss_of(name, 3, 2), logits_of(logits, 3, 2)
    weight, pairs, mean, _ = arm_over_cells(f, logits)
    possible = weight > 0
    found = DisARM().estimate_at(f, logits, pairs)[1][..., 1]
    torch.testing.assert_close(found[possible], mean[possible], rtol=0, atol=1e-14)
    law = DisARM().tuple_probabilities(logits, pairs)
    torch.testing.assert_close(law, weight, rtol=0, atol=1e-14)


@pytest.mark.parametrize("logits", REGIMES)
@pytest.mark.parametrize("name", ["quadratic", "cubic", "table"])
def test_arm_is_unbiased_over_all_cells(name, logits):
    f, logits = loss_of(name, 3, 2), logits_of(logits, 3, 2)
    weight, _, mean, _ = arm_over_cells(f, logits)
    torch.testing.assert_close(weight @ mean, exact_gradient(f, logits)[:, 1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_golden_variances(name):
    size = (4, 2)
    expected = golden(size, name, "DisARM")
    moments = enumeration(size, name).moments(DisARM())
    assert distance(moments.mean, expected["mean"]) < 1e-10
    assert moments.variance.value == pytest.approx(expected["total_variance"], abs=1e-10)
    weight, _, _, square = arm_over_cells(recipe(name, *size), golden_logits(size))
    variance = float(weight @ square.sum(-1) - moments.mean.square().sum())
    assert variance == pytest.approx(golden(size, name, "ARM")["total_variance"], abs=1e-10)
    assert variance >= moments.variance.value


def test_draws_of_arm_have_the_golden_variance():
    size = (4, 2)
    g = ARM().draw(recipe("quadratic", *size), golden_logits(size), 20_000, generator())
    radius = (g - g.mean(0)).square().sum((-2, -1))
    expected = golden(size, "quadratic", "ARM")["total_variance"]
    assert abs(radius.mean() - expected) < 6 * radius.std() / len(g) ** 0.5


def test_the_noise_gives_the_pair_of_its_uniform():
    odds = logits_of("moderate", 3, 2)[:, 1]
    noise = torch.linspace(-4, 4, 50, dtype=torch.float64).unsqueeze(-1).expand(50, 3)
    u, p = torch.sigmoid(noise), torch.sigmoid(odds)
    expected = torch.stack([u > 1 - p, u < p]).long()
    assert torch.equal(arm._pair(odds, noise), expected)


def test_arm_is_arsm_of_two_classes(monkeypatch):
    """With u = pi_0: the same noise in both gives the same draws."""
    f, logits = loss_of("table", 3, 2), logits_of("moderate", 3, 2)
    e = torch.empty(50, 3, 2, dtype=torch.float64).exponential_(generator=generator())
    monkeypatch.setattr(arsm, "draw_exponentials", lambda *_: e)
    noise = e[..., 0].log() - e[..., 1].log()
    monkeypatch.setattr(arm, "draw_logistic", lambda *_: noise)
    by_arsm, by_arm = ARSM().draw(f, logits, 50), ARM().draw(f, logits, 50)
    torch.testing.assert_close(by_arm, by_arsm, rtol=0, atol=1e-14)


def test_disarm_is_never_worse_than_leave_one_out_for_one_variable():
    """Its pair is the farthest apart that two samples can be."""
    f, logits = loss_of("table", 1, 2), logits_of("moderate", 1, 2)
    from gradlab.estimators import LeaveOneOut

    pair, independent = (exact_moments(e, f, logits).variance for e in (DisARM(), LeaveOneOut(2)))
    assert pair.value < independent.value


def test_odds_of_a_single_class_and_of_masks():
    masked = torch.tensor([[0.5, -torch.inf], [-torch.inf, 0.5], [1.0, 3.0]])
    assert log_odds(masked).tolist() == [-torch.inf, torch.inf, 2.0]
    assert log_odds(torch.zeros(2, 1)).tolist() == [-torch.inf] * 2
    assert len(all_states(2, 1)) == 1
