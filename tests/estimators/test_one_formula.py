"""Formulas that several modules share: configurations, their probabilities, and noise given x."""

import itertools
import math

import pandas as pd
import pytest
import torch

from cases import generator, logits_of, loss_of
from gradlab import StraightThrough, compare, exact_gradient, monte_carlo
from gradlab.categorical import (
    configurations,
    configurations_at,
    draw_exponentials,
    draw_one_hot,
    joint_of_all,
    log_noise_ratio,
    noise_ratio,
    one_hot,
    probabilities,
    probabilities_of,
    relaxed_given,
)
from gradlab.comparison.ranking import averaged_error
from gradlab.exact.tuples import tuples_at
from significance import limit

ALLOWED = [torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([0, 1, 4])]


def test_configurations_run_as_a_product_of_the_classes_does():
    found = configurations_at(torch.arange(6), ALLOWED)
    assert found.tolist() == [list(c) for c in itertools.product(*(a.tolist() for a in ALLOWED))]
    assert configurations_at(torch.tensor([[5], [0]]), ALLOWED).shape == (2, 1, 3)
    assert configurations_at(torch.arange(1), []).shape == (1, 0)
    every = itertools.product(range(3), repeat=2)
    assert configurations(2, 3).tolist() == [list(c) for c in every]


def test_tuples_run_with_the_first_sample_and_its_first_variable_fastest():
    allowed = [torch.tensor([0, 2]), torch.tensor([0, 1, 4])]
    one = [(a, b) for b in (0, 1, 4) for a in (0, 2)]
    wanted = [(first, second) for second in one for first in one]
    found = tuples_at(torch.arange(36), 2, allowed).movedim(0, 1)
    assert [tuple(map(tuple, pair)) for pair in found.tolist()] == wanted


@pytest.mark.parametrize("size", [(1, 3), (3, 2), (2, 4)])
def test_joint_probabilities_by_each_route(size):
    p = probabilities(logits_of("moderate", *size))
    each = torch.stack(
        [math.prod(p[i, c] for i, c in enumerate(row)) for row in configurations(*size)]
    )
    for found in (
        joint_of_all(p),
        joint_of_all(p.log(), logs=True).exp(),
        probabilities_of(p, configurations(*size)),
    ):
        torch.testing.assert_close(found, each, rtol=1e-14, atol=0)


def test_the_noise_given_x_has_the_law_of_the_noise_that_made_x():
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    n = 40_000
    e = draw_exponentials(p.new_empty(n, 3), generator(1))
    behind = (p.log() - e.log()) - (p.log() - e.log()).amax(-1, keepdim=True)
    x = draw_one_hot(p, generator(2), n)
    again = -noise_ratio(p, x, generator(3)).log1p()
    for moment in (lambda z: z.clamp_min(-3.0), lambda z: (z > -1.0).double()):
        first, second = moment(behind), moment(again)
        se = ((first.var(0) + second.var(0)) / n).sqrt()
        z = (first.mean(0) - second.mean(0)) / se
        assert float(z.abs().max()) < limit(6)


def test_the_noise_is_the_same_in_ratios_and_logarithms():
    p = probabilities(logits_of("moderate", 4, 5))
    x = draw_one_hot(p, generator(), 50)
    ratio = noise_ratio(p, x, generator(1))
    found = log_noise_ratio(p.log(), x, draw_exponentials(x, generator(1)).log()).exp()
    torch.testing.assert_close(torch.where(x > 0, 0.0, found), ratio, rtol=1e-12, atol=0)
    assert (ratio[x > 0] == 0).all()
    weight = (1 + ratio) ** -2.0
    y = relaxed_given(p, x, 0.5, generator(1))
    torch.testing.assert_close(y, weight / weight.sum(-1, keepdim=True), rtol=1e-12, atol=0)


def test_a_masked_class_is_infinitely_far_behind():
    p = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    x = one_hot(torch.tensor([2]), p)
    assert noise_ratio(p, x)[0, 2] == 0
    assert noise_ratio(p, one_hot(torch.tensor([0]), p))[0, 2] == math.inf


@pytest.mark.parametrize("n", [1, 4, 7.5])
def test_the_error_of_a_mean_of_draws_is_that_of_the_moments(n):
    f, logits = loss_of("cubic"), logits_of("moderate")
    rows = compare(f, logits, ["ST"], draws=4096, method="monte-carlo")
    error, se = averaged_error(rows, n)
    name = rows["problem"].item()
    moments = monte_carlo(StraightThrough(), f, logits, 4096, row=name)
    wanted = moments.mse(exact_gradient(f, logits), averaged=n)
    assert error.item() == pytest.approx(wanted.value, rel=1e-12)
    assert se.item() == pytest.approx(wanted.se, rel=0.05)


def test_the_error_of_exact_rows_has_no_noise():
    names = ("bias2", "variance", "bias2_se", "variance_se", "mse_se")
    rows = pd.DataFrame([dict.fromkeys(names, 0.0) | {"bias2": 2.0, "variance": 3.0}])
    error, se = averaged_error(rows, 6)
    assert (error.item(), se.item()) == (2.5, 0.0)
