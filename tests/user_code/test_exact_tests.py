"""The exact tests keep their level for every law, and find small differences at it."""

import pytest
import scipy
import torch

from gradlab.user_code.exact_tests import cuts_of, law_test, pairs_test
from significance import P_VALUE

SEEDS, LEVEL = 300, 0.05


def heavy(n, generator):
    return torch.rand(n, 2, 2, generator=generator, dtype=torch.float64) ** -1.5


def atoms(n, generator):
    return torch.randint(3, (n, 2, 2), generator=generator).double()


def mostly_zero(n, generator):
    return (torch.rand(n, 2, 2, generator=generator) < 0.01).double()


def normal(n, generator):
    return torch.randn(n, 2, 2, generator=generator, dtype=torch.float64)


def law_p(few, many):
    inside = torch.arange(len(few) + len(many)) < len(few)
    return law_test(cuts_of(torch.cat([few, many])), inside).p_value


def pairs_p(first, second):
    place = torch.arange(len(first) + len(second))
    return pairs_test(cuts_of(torch.cat([first, second])), *place.chunk(2)).p_value


TESTS = {"law": law_p, "pairs": pairs_p}
# A difference that both tests must see: scaled, or half of the other draw added.
WRONG = {"law": lambda few, many: (1.5 * few, many), "pairs": lambda a, b: (a, b + 0.5 * a)}


def rejected(test, law, wrong):
    count = 0
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        first = law(256, generator)
        second = law(1024 if test == "law" else 256, generator)
        count += TESTS[test](*(WRONG[test](first, second) if wrong else (first, second))) < LEVEL
    return count


def most():
    """More rejections are a rate above the level, at the threshold that all tests share."""
    return int(scipy.stats.binom.isf(P_VALUE, SEEDS, LEVEL))


@pytest.mark.parametrize("law", [normal, heavy, atoms, mostly_zero], ids=lambda f: f.__name__)
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(1)
def test_rate_of_false_alarms_is_below_the_level(test, law):
    assert rejected(test, law, wrong=False) <= most()


@pytest.mark.thorough  # the rate of false alarms runs the same tests
@pytest.mark.parametrize("law", [normal, heavy], ids=lambda f: f.__name__)
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.few(1)
def test_a_small_difference_is_found_at_that_level(test, law):
    """The negative control: the same count and threshold, by draws that are wrong."""
    assert rejected(test, law, wrong=True) > most()


def test_p_values_are_those_of_fisher():
    g = torch.tensor([0.0, 1, 1, 1, 1, 0, 1, 0])[:, None, None]
    cuts = cuts_of(g)
    inside = torch.arange(8) < 3
    p = 2 * scipy.stats.fisher_exact([[2, 1], [3, 2]], alternative="greater").pvalue
    assert law_test(cuts, inside).p_value == pytest.approx(min(1.0, p * len(cuts.labels)))
    g = torch.tensor([0.0, 1, 1] * 8 + [0, 1, 1] * 8)[:, None, None]
    cuts = cuts_of(g)
    p = 2 * scipy.stats.fisher_exact([[16, 0], [0, 8]], alternative="greater").pvalue
    assert len(cuts.middle) > 1
    several = len(cuts.labels) + len(cuts.middle) * (len(cuts.middle) - 1)
    place = torch.arange(24)
    assert pairs_test(cuts, place, place + 24).p_value == pytest.approx(p * several)


def test_rounding_is_not_cut():
    g = torch.tensor([1.0, 1 + 1e-7, 2, 2 + 1e-7, 0, 1e-7])[:, None, None]
    above = {tuple(row) for row in cuts_of(g).above.tolist()}
    assert above
    assert all(row[0] == row[1] and row[2] == row[3] and row[4] == row[5] for row in above)
    assert len(cuts_of(torch.full((4, 1, 1), 2.0)).labels) == 0


def test_constant_draws_have_no_cut_and_are_no_fault():
    cuts = cuts_of(torch.full((8, 2, 3), 1.7))
    assert cuts.labels == []
    assert law_test(cuts, torch.arange(8) < 3).p_value == 1
    assert pairs_test(cuts, torch.arange(4), torch.arange(4, 8)).p_value == 1
