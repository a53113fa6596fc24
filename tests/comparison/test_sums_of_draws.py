"""Moments of a few draws are those by hand: blocks merged, squared bias without its noise."""

import pytest
import torch

from gradlab.moments import GROUPS, Groups, Moments


def draws(n: int, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return 3.0 + torch.randn(n, 2, 3, generator=source, dtype=torch.float64)


def moments(*blocks: torch.Tensor) -> Moments:
    first, *rest = map(Groups.from_draws, blocks)
    for block in rest:
        first = first.merge(block)
    return Moments.from_groups(first)


def pairs(g: torch.Tensor) -> float:
    """Return the mean of <g_i, g_j> over all i != j: |E g|^2 without the noise of a mean."""
    flat = g.flatten(1)
    products = flat @ flat.T
    return float((products.sum() - products.trace()) / len(g) / (len(g) - 1))


@pytest.mark.parametrize("lengths", [(40, 7), (3, 100), (GROUPS, 4 * GROUPS, 1), (96, 33, 64)])
def test_blocks_of_other_lengths_merge_to_the_moments_of_all(lengths):
    g = draws(sum(lengths))
    merged = moments(*g.split(lengths))
    torch.testing.assert_close(merged.mean, g.mean(0), rtol=1e-13, atol=0)
    torch.testing.assert_close(merged.variance_per_variable, g.var(0).sum(-1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [33, 80])
def test_the_squared_bias_is_the_mean_over_pairs_of_draws(n):
    g, truth = draws(n), torch.full((2, 3), 2.9, dtype=torch.float64)
    assert moments(g).bias2(truth) == pytest.approx(pairs(g - truth), rel=1e-9)


@pytest.mark.parametrize("n", [33, 80])
def test_a_measured_truth_is_freed_of_its_noise_too(n):
    g, other = draws(n), draws(50, seed=1)
    between = float((g.mean(0) * other.mean(0)).sum())
    expected = pairs(g) - 2 * between + pairs(other)
    assert moments(g).bias2(moments(other)) == pytest.approx(expected, rel=1e-9)


def test_the_error_of_a_mean_has_the_noise_of_the_truth_once():
    g, truth = draws(64), torch.zeros(2, 3, dtype=torch.float64)
    found = moments(g)
    for averaged in (1, 10):
        expected = found.bias2(truth) + found.variance / averaged
        assert found.mse(truth, averaged) == pytest.approx(expected, rel=1e-12)
