"""Draws agree with exact moments, for every estimator, and repeat to the bit."""

import pytest
import torch

from gradlab.sequences import ESTIMATORS, Tabular, TinyGRU, exact_moments, monte_carlo, parse, tasks
from gradlab.sequences.drawing import sample_sequences
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.held import HeldPolicy

POLICY, ROLLOUT, REFERENCE = (Tabular(3, 3, scale=0.5, seed=seed) for seed in (0, 1, 2))
KLS = ["k1(place=reward,per=sequence)", "k1(place=reward)", "k3", "k3-ratio", "full"]


def apart(found, drawn):
    """Return how far the draws are from the exact mean and variance, in standard errors."""
    se = drawn.mean_se
    seen = se > 0
    far = float(((drawn.mean - found.mean).abs()[seen] / se[seen]).max())
    return far, abs(drawn.variance - found.variance) / drawn.variance.se


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("text", [*ESTIMATORS, *(f"RLOO(kl={kl})" for kl in KLS)])
@pytest.mark.few(10)
def test_draws_agree_with_exact_moments(text, off_policy):
    given = {"rollout": ROLLOUT if off_policy else None, "reference": REFERENCE}
    group = max(2, parse(text).advantage.least)
    found = exact_moments(text, POLICY, tasks.parity(), **given, group=group)
    drawn = monte_carlo(text, POLICY, tasks.parity(), 1600, **given, group=group)
    # 78 comparisons of up to 40 numbers each at these thresholds: one in some thousand by chance.
    far, of_variance = apart(found, drawn)
    assert far < 5
    assert of_variance < 5


def test_a_baseline_with_the_own_sample_is_seen_by_the_same_draws():
    wrong = exact_moments("RLOO(g=2)", POLICY, tasks.parity())
    drawn = monte_carlo("centred(g=2)", POLICY, tasks.parity(), 1600)
    assert apart(wrong, drawn)[0] > 8


@pytest.mark.parametrize("text", ["RLOO(g=2)", "REINFORCE++(g=2)", "LitePPO(g=2)", "DAPO(g=2)"])
def test_draws_of_several_prompts_agree(text):
    policy, pair = TinyGRU(2, 3), tasks.easy_and_hard(2, 2)
    found = exact_moments(text, policy, pair)
    far, of_variance = apart(found, monte_carlo(text, policy, pair, 1600))
    assert far < 5
    assert of_variance < 5


def test_dense_rewards_are_drawn():
    found = exact_moments("REINFORCE(g=2)", POLICY, tasks.dense())
    assert apart(found, monte_carlo("REINFORCE(g=2)", POLICY, tasks.dense(), 1600))[0] < 5


def test_draws_repeat_to_the_bit_and_depend_on_seed_and_row_alone():
    def mean(**given):
        return monte_carlo("RLOO(g=2)", POLICY, tasks.parity(), 64, **given).mean

    torch.manual_seed(1)
    first = mean()
    torch.manual_seed(2)
    assert torch.equal(first, mean())
    assert not torch.equal(first, mean(seed=1))
    assert not torch.equal(first, mean(row="another"))


def test_sampled_sequences_have_their_probabilities():
    on = EnumeratedPolicy(POLICY, tasks.parity())
    n = 20_000
    tokens, lengths = sample_sequences(on.held, n, torch.Generator().manual_seed(0))
    counts = {}
    for y, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        assert all(v == 2 for v in y[length:])
        counts[tuple(y[:length])] = counts.get(tuple(y[:length]), 0) + 1
    for leaves in on.blocks():
        rows, sizes = on.tree.sequences(leaves)
        p = on.probabilities[leaves.part].tolist()
        for y, size, chance in zip(rows.tolist(), sizes.tolist(), p, strict=True):
            error = (chance * (1 - chance) / n) ** 0.5
            assert abs(counts.get(tuple(y[:size]), 0) / n - chance) < 4.5 * error


def test_code_that_cannot_be_traced_is_drawn_and_enumerated_too():
    class Branching(Tabular):
        def forward(self, tokens):
            # Reading a value is what torch.func cannot trace.
            scale = 1.0 if int(tokens.sum()) > 10**9 else 2.0
            return super().forward(tokens) * scale

    def doubled():
        policy = Tabular(3, 3)
        with torch.no_grad():
            policy.table.mul_(2)
        return policy

    branching, plain = Branching(3, 3), doubled()
    held = HeldPolicy(branching, tasks.parity())
    held.scores(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([0]))
    assert not held._vmapped
    found = exact_moments("GRPO(g=2)", branching, tasks.parity())
    wanted = exact_moments("GRPO(g=2)", plain, tasks.parity())
    assert float((found.mean - 2 * wanted.mean).abs().max()) < 1e-12
    assert float(found.variance) == pytest.approx(4 * float(wanted.variance))
    drawn = monte_carlo("GRPO(g=2)", branching, tasks.parity(), 64).mean
    name = monte_carlo("GRPO(g=2)", plain, tasks.parity(), 64).mean
    assert drawn.shape == name.shape
