"""A loss function is verified on a policy as a shipped estimator is."""

import pytest
import torch

from gradlab.sequences import OwnLoss, Tabular, exact_moments, parse, tasks, verify
from gradlab.sequences import planted_losses as planted
from gradlab.sequences.finite_states import enumerated_policy
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
@pytest.mark.few(3)
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
