"""A loss function is verified on a policy as a shipped estimator is."""

import pytest
import torch

from gradlab.sequences import (
    OwnLoss,
    Tabular,
    Task,
    exact_moments,
    exact_value,
    examine,
    parse,
    tasks,
    verify,
)
from gradlab.sequences import planted_losses as planted
from gradlab.sequences.finite_states import enumerated_policy
from gradlab.sequences.own_loss import LossFunctionError
from gradlab.sequences.own_moments import LossEstimator

POLICY, TASK = Tabular(3, 3), tasks.lengthy()
LOSSES = [
    (planted.others_in_baseline, "RLOO", {}),
    (planted.mean_of_all, "centred", {}),
    (planted.own_sample_in_baseline, "OPO", {}),
    (planted.whitened, "REINFORCE++(loss=score)", {}),
    (planted.global_count, "centred(aggregation=TOK)", {"advantage": "centred"}),
]


@pytest.mark.parametrize(("loss", "text", "options"), LOSSES)
@pytest.mark.few(1)
def test_exact_moments_of_a_loss_are_those_of_its_estimator(loss, text, options):
    own = LossEstimator(OwnLoss(loss, g=2, **options))
    found = own.moments([enumerated_policy(POLICY, TASK)])
    wanted = exact_moments(parse(text), POLICY, TASK, group=2)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-6, atol=1e-9)
    assert found.variance.value == pytest.approx(wanted.variance.value, rel=1e-6)
    if "whitened" not in str(own):  # it adds 1e-8 to the deviation
        assert str(own.estimator) == str(parse(text).with_(g=2))


def test_a_right_loss_is_proved_and_a_wrong_one_is_biased():
    right = verify(planted.others_in_baseline, POLICY, TASK)
    assert (right.outcome, right.method, right.wanted) == ("UNBIASED", "exact", 1.0)
    short = verify(planted.mean_of_all, POLICY, TASK)
    assert (short.outcome, short.wanted) == ("UNBIASED", 0.5)  # half of the gradient
    assert verify(planted.mean_of_all, POLICY, TASK, factor=1.0).outcome == "BIASED"
    wrong = verify(planted.own_sample_in_baseline, POLICY, TASK)
    assert wrong.outcome == "BIASED"
    assert "this is OPO" in wrong.explain()


@pytest.mark.thorough  # test_comparing_policies.py: by enumeration and by draws
def test_draws_agree_with_the_proof():
    verdict = verify(
        planted.own_sample_in_baseline, POLICY, TASK, method="monte-carlo", max_draws=2**12
    )
    assert (verdict.outcome, verdict.method) == ("BIASED", "monte carlo")


def test_a_sequence_ratio_is_exact_off_policy_and_its_broadcast_is_not():
    rollout = Tabular(3, 3, seed=7)
    own = {"advantage": "loo", "g": 2}
    right, wrong = (
        verify(OwnLoss(loss, **own), POLICY, TASK, rollout=rollout)
        for loss in (planted.ratio_once, planted.ratio_at_each_token)
    )
    assert right.outcome == "UNBIASED"
    assert wrong.outcome == "BIASED"


def same_reward(value):
    def reward(tokens, lengths):
        return torch.full((len(tokens),), value, dtype=torch.float64)

    return Task(reward, vocabulary=3, horizon=3, end=2)


@pytest.mark.parametrize("value", [1.0, -1e6, 0.0])
@pytest.mark.parametrize(
    "estimator", ["RLOO", "PG(advantage=raw, g=1)", planted.others_in_baseline]
)
@pytest.mark.few(2)
def test_a_gradient_of_0_is_not_called_a_bias(estimator, value):
    verdict = verify(estimator, POLICY, same_reward(value), factor=1.0)
    assert verdict.outcome == "UNBIASED"


def test_a_small_bias_beside_a_large_reward_is_still_one():
    def reward(tokens, lengths):
        return 1.0 + 1e-6 * lengths.double()

    task = Task(reward, vocabulary=3, horizon=3, end=2)
    assert verify("centred(g=4)", POLICY, task, factor=1.0).outcome == "BIASED"
    assert verify("RLOO(g=4)", POLICY, task).outcome == "UNBIASED"


def with_noise(log_prob, rewards, mask):
    return -(log_prob * rewards[:, None] * mask).sum(-1).mean() * 2 * torch.rand(())


def with_dropout(log_prob, rewards, mask):
    return -(torch.nn.functional.dropout(log_prob) * rewards[:, None] * mask).sum(-1).mean()


class WithMemory:
    """A running mean of the rewards as the baseline."""

    mean = 0.0

    def __call__(self, log_prob, rewards, mask):
        self.mean = 0.9 * self.mean + 0.1 * rewards.mean()
        return -(log_prob * (rewards - self.mean)[:, None] * mask).sum(-1).mean()


@pytest.mark.parametrize("loss", [with_noise, with_dropout, WithMemory()])
@pytest.mark.parametrize("ask", [examine, lambda loss: verify(loss, POLICY, TASK)])
def test_a_loss_that_is_another_one_at_each_call_is_refused(ask, loss):
    with pytest.raises(LossFunctionError, match="at a second call with the same arguments"):
        ask(loss)


def test_a_table_that_is_too_short_for_the_task_says_so():
    with pytest.raises(ValueError, match="Tabular has logits for up to 2 tokens, not 3"):
        exact_value(Tabular(3, 2), TASK)
