"""What breaks the contract of a policy or a reward is refused by its name, in a sentence."""

import pytest
import torch
from torch import nn

from gradlab.sequences import (
    NextToken,
    Tabular,
    Task,
    TinyTransformer,
    exact_gradient,
    exact_moments,
    exact_value,
    monte_carlo,
    tasks,
    verify,
)
from gradlab.sequences.faults import (
    BatchPolicyError,
    LookAheadError,
    PolicyError,
    PolicyShapeError,
    RandomPolicyError,
    RewardError,
    SupportError,
)

TASK = tasks.parity(4, 4)


class Mixing(nn.Module):
    """An embedding mixed over time by a mask [T, T]: row t reads the tokens where it is 1."""

    def __init__(self, mask):
        super().__init__()
        self.table = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
        self.mask = mask

    def forward(self, tokens):
        return self.mask.to(self.table.dtype) @ self.table[tokens]


CAUSAL = torch.ones(4, 4).tril(-1)


def test_a_causal_mask_passes():
    exact_gradient(Mixing(CAUSAL), TASK)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 4).tril(), "they are one step late, as those of a language model are"),
        (torch.ones(4, 4), r"logits\[:, 0\] of the policy depend on tokens\[:, 3\]"),
        (CAUSAL + torch.eye(4).roll(1, 1) * torch.eye(4)[2][:, None], "its causal mask is missing"),
        (torch.ones(4, 4).triu(), "which comes later"),
    ],
    ids=["one step late", "no mask", "one wrong entry", "mask transposed"],
)
def test_a_policy_that_looks_ahead_is_refused(mask, message):
    with pytest.raises(LookAheadError, match=message):
        exact_value(Mixing(mask), TASK)


def test_a_mask_of_padding_that_reads_the_end_token_looks_ahead():
    class Padded(Tabular):
        def forward(self, tokens):
            # The length of the sequence is known to all of its tokens.
            ended = (tokens == 3).any(-1)
            return super().forward(tokens) + ended[:, None, None] * torch.arange(4)

    with pytest.raises(LookAheadError, match="which comes later"):
        exact_value(Padded(4, 4), TASK)


def test_a_language_model_is_wrapped():
    model = Mixing(torch.ones(4, 4).tril())
    policy = NextToken(model, start=3)
    assert exact_gradient(policy, TASK).shape == (16,)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (lambda tokens: torch.zeros(*tokens.shape, 5), PolicyShapeError, r"not \[6, 4, 5\]"),
        (
            lambda tokens: torch.zeros(len(tokens), 4),
            PolicyShapeError,
            r"\[B, T, V\] = \[6, 4, 4\]",
        ),
        (lambda tokens: tokens, PolicyShapeError, "a floating-point tensor, not a torch.int64"),
        (lambda tokens: None, PolicyShapeError, "not a NoneType"),
        (lambda tokens: torch.full((*tokens.shape, 4), torch.nan), PolicyError, "contain NaN"),
        (
            lambda tokens: torch.full((*tokens.shape, 4), -torch.inf),
            PolicyError,
            "masks every token",
        ),
        (lambda tokens: torch.rand(*tokens.shape, 4), RandomPolicyError, "draws random numbers"),
        ("policy", TypeError, "must be a module or function, not str"),
        (Tabular, TypeError, "not the class"),
    ],
)
def test_what_is_not_a_policy_is_refused(policy, error, message):
    with pytest.raises(error, match=message):
        exact_value(policy, TASK)


def test_dropout_in_train_mode_is_named():
    policy = nn.Sequential(TinyTransformer(4, 4), nn.Dropout(0.5))
    with pytest.raises(RandomPolicyError, match=r"train mode and has dropout \(p = 0.5\).*eval"):
        exact_gradient(policy, TASK)
    exact_gradient(policy.eval(), TASK)
    with pytest.raises(RandomPolicyError, match=r"rollout policy.*rollout_policy.eval\(\)"):
        exact_moments("RLOO", Tabular(4, 4), TASK, rollout=policy.train())


def test_statistics_of_the_batch_are_named():
    class Centred(Tabular):
        def forward(self, tokens):
            logits = super().forward(tokens)
            return logits - logits.mean(0, keepdim=True)

    with pytest.raises(BatchPolicyError, match="depend on the other sequences of the batch"):
        exact_value(Centred(4, 4), TASK)


def test_a_function_has_a_value_but_no_gradient():
    def uniform(tokens):
        return torch.zeros(*tokens.shape, 4)

    assert 0 < float(exact_value(uniform, TASK)) < 1
    with pytest.raises(PolicyError, match="has no parameters that train"):
        exact_gradient(uniform, TASK)
    frozen = Tabular(4, 4).requires_grad_(False)
    with pytest.raises(PolicyError, match="has no parameters that train"):
        exact_gradient(frozen, TASK)


def test_frozen_parameters_are_left_out():
    policy = TinyTransformer(4, 4, width=4)
    whole = exact_gradient(policy, TASK)
    policy.embedding.requires_grad_(False)
    rest = exact_gradient(policy, TASK)
    assert len(whole) - len(rest) == policy.embedding.numel()
    assert torch.allclose(whole[policy.embedding.numel() :], rest)


def task_of(reward, **given):
    return Task(reward, 3, 3, end=2, **given)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda t, n: torch.where(n == 2, torch.nan, 1.0), r"of the sequence \[0, 2\] is NaN"),
        (lambda t, n: torch.where(n == 3, torch.inf, 1.0), "is infinite; every one must be finite"),
        (
            lambda t, n: 1e200 * t[:, 0].double(),
            "a reward of 2e.200 has a square that is not finite",
        ),
        (lambda t, n: torch.zeros(2), r"must return \[\d+\] or, dense, \[\d+, 3\]"),
        (lambda t, n: [0.0] * len(t), "must return a tensor .* not list"),
        (lambda t, n: t[:, 2].double(), "depends on what stands behind its end: mask the tokens"),
        (lambda t, n: t.double().mean() + n, "depends on the other sequences"),
        (lambda t, n: torch.rand(len(t)), "another one at a second call"),
    ],
)
def test_a_reward_that_breaks_its_contract_is_refused(reward, message):
    with pytest.raises(RewardError, match=message):
        exact_value(Tabular(3, 3), task_of(reward))
    with pytest.raises(RewardError):
        monte_carlo("RLOO", Tabular(3, 3), task_of(reward), 64)


def test_a_dense_reward_in_padding_does_not_count():
    dense = task_of(lambda t, n: torch.ones(t.shape))
    length = task_of(lambda t, n: n.double())
    policy = Tabular(3, 3)
    assert float(exact_value(policy, dense)) == pytest.approx(float(exact_value(policy, length)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vocabulary": 1}, "vocabulary must be an int of at least 2"),
        ({"horizon": 0}, "horizon must be an int of at least 1"),
        ({"end": 3}, "end must be an int from 0 to 2"),
    ],
)
def test_numbers_of_a_task_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        Task(lambda t, n: n.double(), **({"vocabulary": 3, "horizon": 3} | given))
    with pytest.raises(TypeError, match="reward must be a function"):
        Task(None, 3, 3)


def masked():
    """A policy that never starts with token 0."""
    policy = Tabular(3, 3)
    with torch.no_grad():
        policy.table[0, 0] = -torch.inf
    return policy


def test_a_rollout_policy_without_the_support_of_the_policy_is_named():
    with pytest.raises(SupportError, match="the sequence ratio pi/mu is undefined there"):
        exact_moments("IS", Tabular(3, 3), tasks.parity(), rollout=masked())
    with pytest.raises(SupportError, match="the sequence ratio"):
        exact_gradient(Tabular(3, 3), tasks.parity(), "surrogate", rollout=masked())
    # Without a ratio the mean is defined: that of the tokens that are sampled.
    found = exact_moments("RLOO", Tabular(3, 3), tasks.parity(), rollout=masked())
    assert bool(found.mean.isfinite().all())
    # The other way round every ratio is defined.
    found = exact_moments("IS", masked(), tasks.parity(), rollout=Tabular(3, 3))
    truth = exact_gradient(masked(), tasks.parity())
    assert float((found.mean - truth).abs().max()) < 1e-12


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_one_prefix_without_probabilities_is_named(value):
    policy = Tabular(4, 5)
    with torch.no_grad():
        policy.table[340] = value  # after tokens 3, 3, 3, 3
    task = Task(lambda tokens, lengths: tokens[:, 0].double(), 4, 5)
    with pytest.raises(PolicyError, match=r"after the prefix \[3, 3, 3, 3\] the policy has"):
        exact_value(policy, task)
    with pytest.raises(PolicyError, match="the rollout policy has no probabilities"):
        exact_moments("RLOO", Tabular(4, 5), task, rollout=policy)
    with pytest.raises(PolicyError, match=r"after the prefix \[3, 3, 3, 3\] the policy has"):
        monte_carlo("RLOO(g=16)", policy, task, 640)


def test_logits_behind_the_end_do_not_matter():
    policy, task = Tabular(3, 3), tasks.parity()
    wanted = monte_carlo("RLOO", policy, task, 64).mean
    with torch.no_grad():
        policy.table[-1] = torch.nan  # after tokens 2, 2, of which the first one is the end
    assert torch.equal(monte_carlo("RLOO", policy, task, 64).mean, wanted)
    assert float(exact_value(policy, task)) == float(exact_value(Tabular(3, 3), task))


@pytest.mark.parametrize("reward", [1.0, -1e6])
@pytest.mark.parametrize("text", ["RLOO", "GRPO"])
def test_a_constant_reward_has_a_gradient_of_zero_and_says_so(text, reward):
    task = task_of(lambda tokens, lengths: torch.full(lengths.shape, reward).double())
    verdict = verify(text, Tabular(3, 3), task)
    assert verdict.outcome == "UNBIASED"
    assert "bias 0.0e+00 units of reward" in str(verdict)
    assert "the gradient of J is 0" in verdict.explain()


def test_an_infinite_divergence_is_named():
    with pytest.raises(SupportError, match="the KL divergence is infinite"):
        exact_value(Tabular(3, 3), tasks.parity(), "J-KL(beta=0.1)", reference=masked())


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("verb", [exact_moments, monte_carlo])
def test_a_group_of_one_and_a_missing_reference_are_sentences(verb):
    with pytest.raises(ValueError, match="loo needs groups of at least 2 sequences, not 1"):
        verb("RLOO", Tabular(3, 3), tasks.parity(), group=1)
    with pytest.raises(ValueError, match="needs a reference policy: give reference="):
        verb("RLOO(kl=k3)", Tabular(3, 3), tasks.parity())
    with pytest.raises(ValueError, match="did you mean 'RLOO'"):
        verb("rlo", Tabular(3, 3), tasks.parity())
    with pytest.raises(TypeError, match="must be a PolicyGradient or its text"):
        verb(3, Tabular(3, 3), tasks.parity())


@pytest.mark.thorough  # one sentence of many
def test_groups_that_are_never_kept_are_a_sentence():
    always = task_of(lambda t, n: torch.ones(len(t)))
    with pytest.raises(ValueError, match=r"all groups of .* have equal rewards"):
        exact_moments("DAPO", Tabular(3, 3), always)
    with pytest.raises(ValueError, match="still have equal rewards"):
        monte_carlo("DAPO", Tabular(3, 3), always, 32)


def masked_sum(tokens, lengths):
    inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    return (tokens * inside).double().sum(-1)


def test_too_many_groups_are_a_sentence():
    wide = tasks.lengthy(4, 4)
    with pytest.raises(ValueError, match=r"the coefficients of OTB.*do not factorize.*monte_carlo"):
        exact_moments("OTB(g=8)", Tabular(4, 4), wide)
    with pytest.raises(ValueError, match="use monte_carlo, or smaller g"):
        exact_moments("RLOO(g=64)", Tabular(4, 5), Task(masked_sum, 4, 5, 3))
