"""What rare states carry: against a sort of all states, and cases known by hand."""

import math

import pytest
import torch

from cases import logits_of, loss_of
from gradlab.exact.enumeration import Space, value_moments
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.exact.rarity import rarity

pytestmark = pytest.mark.usefixtures("unchecked")


def one_of(size: float = 1.0):
    """Return f = size at the state of all classes 0, else 0."""
    return lambda x: size * x[..., 0].prod(-1)


def sorted_states(f, logits):
    """Return p and t of all states, from the largest t."""
    space = Space(logits)
    assert space.split == 0
    p, x = space.block_p, space.block
    t = (f(x) - value_moments(f, logits).mean).abs() * (x - space.p).flatten(1).norm(dim=-1)
    order = t.argsort(descending=True)
    return p[order], t[order]


@pytest.mark.parametrize("logits", ["moderate", "peaked", "masked"])
@pytest.mark.parametrize("name", ["cubic", "quadratic", "table"])
def test_cumulated_sums_are_those_of_the_sorted_states(name, logits):
    f, logits = loss_of(name), logits_of(logits)
    p, t = sorted_states(f, logits)
    found = rarity(Enumeration(f, logits))
    for k in range(1, len(p)):
        q = float(p[:k].sum())
        # Events of one bin count as equally large, to 2 %.
        assert found.carried(q) == pytest.approx(float((p * t)[:k].sum()), rel=0.03)
        share = float((p * t**2)[:k].sum() / (p * t**2).sum())
        assert found.variance_share(q) == pytest.approx(share, rel=0.05)
    assert found.carried(1) == pytest.approx(float((p * t).sum()), rel=1e-12)
    assert found.variance_share(1) == 1


def test_prefixes_and_a_block_give_one_answer():
    # 4^8 states are 16 blocks of 4^6; only one state carries.
    found = rarity(Enumeration(one_of(), torch.zeros(8, 4).double()))
    p = 4.0**-8
    size = (1 - p) * math.sqrt(8 * 0.75)
    assert found.rate[1] == pytest.approx(p)
    assert found.carried(p) == pytest.approx(p * size)
    assert found.variance_share(p) == pytest.approx(1 / (1 + p / (1 - p)))
    assert found.variance_share(p / 2) == pytest.approx(found.variance_share(p) / 2)
    # Half of the state's rate carries half.
    assert found.draws_needed() == pytest.approx(60 / p, rel=1e-4)


@pytest.mark.parametrize("size", [1e-120, 1e-3, 1.0, 1e120])
def test_the_scale_of_f_changes_no_share(size):
    found = rarity(Enumeration(one_of(size), torch.zeros(4, 4).double()))
    assert found.draws_needed() == pytest.approx(60 * 4**4, rel=0.01)
    assert found.carried(1) == pytest.approx(size * rarity_of_one().carried(1), rel=1e-9)


def rarity_of_one():
    return rarity(Enumeration(one_of(), torch.zeros(4, 4).double()))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("visits", [1, 30, 300])
def test_the_draws_needed_are_the_fewest(visits, share):
    found = rarity(Enumeration(loss_of("cubic"), logits_of("peaked")))
    n = found.draws_needed(visits, share)
    assert found.variance_share(visits / n) <= share * (1 + 1e-12)
    assert n == 1 or found.variance_share(visits / (n - 1)) > share


def test_an_offset_is_not_taken_for_a_deviation():
    offset = 1e6
    found = rarity(Enumeration(lambda x: one_of()(x) + offset, torch.zeros(4, 4).double()))
    assert found.draws_needed() == pytest.approx(60 * 4**4, rel=0.01)


@pytest.mark.parametrize("value", [0.0, 3.7])
def test_a_constant_has_no_events(value):
    # The sum of a softmax is 1 but for rounding.
    found = rarity(
        Enumeration(lambda x: value * (x * 3).softmax(-1).sum((-2, -1)), torch.ones(2, 3))
    )
    assert (found.carried(0.5), found.variance_share(0.5)) == (0.0, 0.0)
    assert found.draws_needed() == 1


def test_rates_of_a_batch_add_up():
    logits = torch.zeros(3, 4, 4).double()
    found = rarity(EnumeratedBatch(one_of(), logits))
    single = rarity_of_one()
    assert found.rate[-1] == pytest.approx(3)
    assert found.carried(3) == pytest.approx(3 * single.carried(1))
    # Each draw has three elements that may meet their state.
    assert found.draws_needed() == pytest.approx(single.draws_needed() / 3, rel=1e-3)


def test_it_is_made_once():
    seen = []

    def f(x):
        seen.append(len(x))
        return x[..., 0].prod(-1)

    on = Enumeration(f, torch.zeros(2, 3))
    first = rarity(on)
    calls = len(seen)
    assert rarity(on) is first
    assert len(seen) == calls


def test_a_state_is_not_missed_in_part():
    p = 4.0**-4
    found = rarity_of_one()
    assert found.missed(0.9 * p) == (0.0, 0.0)
    mean, share = found.missed(1.1 * p)
    assert mean == pytest.approx(found.carried(p))
    assert share == pytest.approx(found.variance_share(p))
