"""The objectives that GRPO and MaxRL climb on binary rewards, and what stands beside a KL term."""

import math
import re

import pytest
import torch

from gradlab.sequences import (
    OwnLoss,
    Tabular,
    exact_gradient,
    exact_value,
    parse,
    success_factor,
    tasks,
    verify,
)
from gradlab.sequences.planted_losses import standardized
from gradlab.sequences.success_targets import PassSum, Transformed
from gradlab.sequences.targets import target_of

POLICY, REFERENCE, ROLLOUT = (Tabular(3, 3, seed=seed) for seed in (0, 2, 1))
PARITY = tasks.parity()
# Another way to the same number: many small steps.
STEPS = 20_001


@pytest.mark.parametrize(
    "target", [Transformed(2), Transformed(7), Transformed(5, 0.1), PassSum(6)]
)
@pytest.mark.parametrize("p", [0.0, 0.03, 0.5, 1.0])
def test_the_slope_is_that_of_the_value(target, p):
    q = torch.linspace(0, p, STEPS, dtype=torch.float64)
    slopes = torch.tensor([target.slope(float(x)) for x in q[:: (STEPS - 1) // 200]])
    area = float(torch.trapezoid(slopes, dx=p / 200)) if p else 0.0
    assert target.of_success(p) == pytest.approx(area, rel=2e-3, abs=1e-12)
    if 0 < p < 1:
        step = 1e-5
        rise = target.of_success(p + step) - target.of_success(p - step)
        assert target.slope(p) == pytest.approx(rise / (2 * step), rel=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.4, 0.9])
@pytest.mark.parametrize("g", [2, 3, 8, 64])
def test_the_slopes_are_the_factors_of_the_estimators(g, p):
    for text, target in (
        (f"GRPO(g={g})", Transformed(g)),
        (f"GRPO(advantage=group-std(eps=0.01), g={g})", Transformed(g, 0.01)),
        (f"MaxRL(g={g})", PassSum(g)),
    ):
        assert target.slope(p) == pytest.approx(success_factor(parse(text), p), rel=1e-10)


def test_limits():
    assert Transformed(2).of_success(0.3) == pytest.approx(0.3 / math.sqrt(2))
    assert Transformed(2000).slope(0.3) == pytest.approx(1 / math.sqrt(0.21), rel=1e-3)
    harmonic = sum(1 / k for k in range(1, 3001))
    assert PassSum(3000).of_success(0.1) == pytest.approx(harmonic + math.log(0.1), abs=1e-6)


@pytest.mark.parametrize(
    ("text", "target", "wanted"),
    [
        ("GRPO(aggregation=SUM, g=8)", "h(p)", 1.0),
        ("GRPO(aggregation=SUM, g=8)", "h(g=8)", 1.0),
        ("GRPO(aggregation=CONST, g=5)", "h(p)", 1 / 3),
        ("GRPO(advantage=group-std(eps=0.1), aggregation=SUM)", "h(p)", 1.0),
        ("GRPO(advantage=group-std(eps=0.1), aggregation=SUM)", "h(g=4, eps=0.1)", 1.0),
        ("LUSPO(g=3)", "h(p)", 1.0),
        ("MaxRL(g=8)", None, 1.0),
        ("MaxRL(g=8)", "sum-pass@8", 1.0),
    ],
)
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.few(6)
def test_grpo_and_max_rl_are_gradients(text, target, wanted, two):
    task = [PARITY, tasks.copy(horizon=3, vocabulary=3)] if two else PARITY
    verdict = verify(text, POLICY, task, target)
    assert (verdict.outcome, verdict.method, verdict.claimed) == ("UNBIASED", "exact", True)
    assert verdict.wanted == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("GRPO(g=8)", "h(p)"),  # SEQ
        ("GRPO(aggregation=SUM, g=8)", "h(g=7)"),
        ("GRPO(aggregation=SUM, g=8)", "J"),
        ("DAPO(g=3)", "h(p)"),
        ("RLOO(g=8)", "h(p)"),
        ("MaxRL(g=8)", "sum-pass@7"),
        ("MaxRL(g=8)", "J"),
    ],
)
@pytest.mark.few(3)
def test_other_pairs_are_biased_and_not_claimed(text, target):
    verdict = verify(text, POLICY, PARITY, target)
    assert (verdict.outcome, verdict.claimed) == ("BIASED", False)
    assert "standard deviation" not in verdict.explain() or target == "J" or "DAPO" in text


def test_off_policy_it_is_not_claimed():
    verdict = verify("GRPO(aggregation=SUM)", POLICY, PARITY, "h(p)", rollout=ROLLOUT)
    assert (verdict.outcome, verdict.claimed) == ("BIASED", False)


def test_your_own_loss_is_judged_for_h_too():
    own = OwnLoss(standardized, g=3)
    verdict = verify(own, POLICY, PARITY, "h(p)")
    # It adds 1e-6 to the deviation.
    assert verdict.objective == "h(g=3, eps=1e-06)"
    assert (verdict.outcome, verdict.claimed) == ("UNBIASED", True)


def test_rewards_that_are_not_binary():
    from gradlab.sequences.faults import RewardError

    with pytest.raises(RewardError, match=r"h\(g=4\) needs rewards 0 and 1"):
        verify("GRPO(aggregation=SUM)", POLICY, tasks.lengthy(), "h(p)")
    verdict = verify("MaxRL", POLICY, tasks.lengthy())
    assert verdict.objective == "J"
    assert "Its own target has no meaning here: sum-pass@4 needs rewards" in verdict.explain()


def test_grpo_says_which_target_it_has():
    verdict = verify("GRPO(aggregation=SUM, g=8)", POLICY, PARITY)
    assert verdict.objective == "J"
    assert "With rewards 0 and 1 it is the gradient of h(g=8)" in verdict.explain()
    assert "h(g=8)" not in verify("GRPO(g=8)", POLICY, PARITY).explain()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("GRPO(kl=k3)", "is the gradient of no objective that is known here"),
        ("RLOO(kl=k3(beta=0.1))", "the gradient of J-KL(beta=0.1), which the KL term is meant for"),
        ("RLOO(kl=k2(per=sequence))", "Beside it: the mean is the gradient of J-KL(beta=0.04)."),
        ("RLOO(kl=k1)", "is the gradient of no objective"),
    ],
)
def test_a_kl_term_is_judged_beside_j(text, said):
    verdict = verify(text, POLICY, tasks.lengthy(), "J", reference=REFERENCE)
    words = " ".join(verdict.explain().split())
    assert said in words
    assert "Beside it" in words
    missed = [float(part) for part in re.findall(r"missed by ([\d.]+) of", words)]
    if missed:
        beside = exact_gradient(
            POLICY, tasks.lengthy(), f"J-KL(beta={parse(text).kl.beta:g})", reference=REFERENCE
        )
        gap = float((verdict.bias + verdict.target - beside).norm() / beside.norm())
        assert any(abs(number - gap) < 1e-4 for number in missed)


@pytest.mark.parametrize("text", ["h(g=8)", "h(g=8, eps=0.0001)", "sum-pass@4"])
def test_text_forms_are_read_back(text):
    assert str(target_of(text)) == text
    assert target_of(target_of(text)) == target_of(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h(p)", r"write its group size, such as h\(g=4\)"),
        ("h(g=1)", "at least 2"),
        ("sum-pass@0", "at least 1"),
        ("h(g=8, eps=x)", "target must be J"),
        ("h(g=8, eps=nan)", "eps must be a number of at least 0"),
    ],
)
def test_wrong_texts(text, said):
    with pytest.raises(ValueError, match=said):
        target_of(text)


def test_values():
    p = float(exact_value(POLICY, PARITY))
    assert float(exact_value(POLICY, PARITY, "h(g=2)")) == pytest.approx(p / math.sqrt(2))
    assert float(exact_value(POLICY, PARITY, "sum-pass@1")) == pytest.approx(p)
