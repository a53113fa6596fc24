"""Long sequences by the states of policy and verifier: the same as by all sequences."""

import pytest
import torch

from gradlab.exact.enumeration import TooLargeError
from gradlab.exact.tuples import NotExactError
from gradlab.sequences import (
    Automaton,
    NGram,
    Tabular,
    Task,
    TinyGRU,
    exact_gradient,
    exact_moments,
    exact_value,
    monte_carlo,
    parse,
    tasks,
)
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.faults import PolicyError, SupportError
from gradlab.sequences.finite_moments import finite_moments
from gradlab.sequences.finite_states import FiniteStates
from gradlab.sequences.moments import all_moments
from gradlab.sequences.targets import target_of
from plain import by_differences

POLICY = NGram(3, 3)
SMALL = {"parity": tasks.parity(horizon=4), "brackets": tasks.brackets(5)}
LONG = tasks.parity(horizon=60)


@pytest.mark.parametrize("target", ["J", "pass@2", "max@3"])
@pytest.mark.parametrize("name", SMALL)
def test_values_and_gradients_agree_with_all_sequences(name, target):
    every, states = EnumeratedPolicy(POLICY, SMALL[name]), FiniteStates(POLICY, SMALL[name])
    wanted = target_of(target)
    assert float(wanted.value(states)) == pytest.approx(float(wanted.value(every)), abs=1e-13)
    assert float((wanted.gradient(states) - wanted.gradient(every)).abs().max()) < 1e-13


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "text",
    [
        *("REINFORCE(g=2)", "RLOO(g=4)", "GRPO(g=3)", "DAPO(g=3)", "OPO(g=2)", "GSPO(g=2)"),
        *("GMPO(g=2)", "MaxRL(g=3)", "ReMax(g=2)", "REINFORCE++(g=2)", "max-second(g=3)"),
    ],
)
@pytest.mark.few(10)
def test_moments_agree_with_all_sequences(name, text):
    estimator = parse(text)
    (every,) = all_moments([estimator], [EnumeratedPolicy(POLICY, SMALL[name])])
    states = finite_moments(estimator, [FiniteStates(POLICY, SMALL[name])])
    assert float((states.mean - every.mean).abs().max()) < 1e-13
    assert float(states.variance) == pytest.approx(float(every.variance), abs=1e-13)


OTHERS = {"rollout": NGram(3, 2, seed=1), "reference": NGram(3, 3, seed=2)}


@pytest.mark.parametrize("target", ["J", "J-KL(beta=0.3)", "pass@2", "surrogate"])
@pytest.mark.parametrize("name", SMALL)
def test_off_policy_values_and_gradients_agree_with_all_sequences(name, target):
    every, states = (of(POLICY, SMALL[name], **OTHERS) for of in (EnumeratedPolicy, FiniteStates))
    wanted = target_of(target)
    value = float(wanted.value(every))
    assert float(wanted.value(states)) == pytest.approx(value, abs=1e-12)
    assert float((wanted.gradient(states) - wanted.gradient(every)).abs().max()) < 1e-12
    assert float(wanted.gradient(states).norm()) > 1e-3


OFF_POLICY = [
    *("REINFORCE(g=2)", "RLOO(g=3)", "GRPO(g=3)", "MaxRL(g=3)", "OPO(g=2)", "IS(g=2)"),
    *("RLOO(g=2, loss=PPO)", "RLOO(g=2, loss=CISPO-verl)", "RLOO(g=2, loss=SAPO)"),
    *("RLOO(g=2, loss=DPPO)", "RLOO(g=2, loss=DRO)", "RLOO(g=2, aggregation=TOK, loss=PPO)"),
    *(f"RLOO(g=2, loss=score(ratio={ratio}))" for ratio in ("token", "prefix", "sequence")),
    "RLOO(g=2, aggregation=SEQ, loss=score(ratio=prefix))",
    "RLOO(g=2, loss=score(ratio=token, high=1.2, beyond=mask))",
    *(f"RLOO(g=2, kl={kl}(beta=0.3))" for kl in ("k1", "k2", "k3", "k3-ratio", "k1-ratio")),
    "RLOO(g=2, loss=PPO, kl=k3(beta=0.3))",
    "RLOO(g=2, loss=score(ratio=sequence), kl=k3(beta=0.3))",
    "RLOO(g=2, aggregation=SEQ, loss=score(ratio=sequence), kl=k2(beta=0.3))",
]


@pytest.mark.few(8)
@pytest.mark.parametrize("given", ["rollout", "reference", "both"])
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("text", OFF_POLICY)
def test_off_policy_moments_agree_with_all_sequences(text, name, given):
    estimator = parse(text)
    used = {key: value for key, value in OTHERS.items() if given in (key, "both")}
    if "kl=" in text and given == "rollout":
        used = OTHERS
    every, states = (of(POLICY, SMALL[name], **used) for of in (EnumeratedPolicy, FiniteStates))
    (wanted,) = all_moments([estimator], [every])
    found = finite_moments(estimator, [states])
    assert float((found.mean - wanted.mean).abs().max()) < 1e-12 * (1 + float(wanted.mean.norm()))
    assert float(found.variance) == pytest.approx(float(wanted.variance), rel=1e-11)


REFUSED = {
    "GSPO(g=2)": "the loss of GSPO.* cannot be carried from step to step under another rollout",
    "RLOO(g=2, loss=score(ratio=geometric))": "cannot be carried from step to step",
    "RLOO(g=2, loss=score(ratio=sequence, high=2.0))": "cannot be carried from step to step",
    "RLOO(g=2, loss=VESPO)": "cannot be carried from step to step",
    "RLOO(g=2, kl=k1(place=reward, per=sequence))": "gives every sequence a reward of its own",
    "RLOO(g=2, kl=k2(per=sequence))": "the KL term of .* cannot be carried",
    "RLOO(g=2, kl=k1-prefix)": "the KL term of .* cannot be carried",
    "RLOO(g=2, kl=full)": "does not factorize",
    "RLOO(g=2, loss=score(ratio=prefix), kl=k3)": "the prefix ratio beside a KL term",
}


@pytest.mark.few(3)
@pytest.mark.parametrize("text", REFUSED)
def test_weights_that_no_state_carries_are_refused(text):
    states = FiniteStates(POLICY, SMALL["parity"], **OTHERS)
    with pytest.raises(NotExactError, match=REFUSED[text] + ".*use monte_carlo"):
        finite_moments(parse(text), [states])


def test_two_hundred_tokens_off_policy():
    policy, reference = NGram(3, 2), NGram(3, 2, seed=2)
    rollout = NGram(3, 2)
    with torch.no_grad():
        rollout.table += 0.05 * torch.randn(4, 3, generator=torch.Generator().manual_seed(3))
    task = tasks.parity(horizon=200)
    truth = exact_gradient(policy, task)
    found = exact_moments("IS(g=2)", policy, task, rollout=rollout)
    assert float((found.mean - truth).abs().max()) < 1e-12
    token = exact_moments("REINFORCE(g=2, loss=score(ratio=token))", policy, task, rollout=rollout)
    assert float((token.mean - truth).norm()) > 1e-3 * float(truth.norm())
    drawn = monte_carlo("RLOO(g=2, loss=PPO)", policy, task, 640, rollout=rollout)
    exact = exact_moments("RLOO(g=2, loss=PPO)", policy, task, rollout=rollout)
    assert bool(((exact.mean - drawn.mean).abs() <= 4.5 * drawn.mean_se).all())
    given = {"target": "J-KL(beta=0.1)", "reference": reference}
    gradient = exact_gradient(policy, task, **given)
    wanted = by_differences(lambda: exact_value(policy, task, **given), policy)
    assert float((gradient - wanted).abs().max()) < 1e-8


def test_policies_without_common_support_are_named_at_any_length():
    policy, other = NGram(3, 2), NGram(3, 2, seed=1)
    with torch.no_grad():
        other.table[1, 0] = -torch.inf
    with pytest.raises(SupportError, match="the sequence ratio pi/mu is undefined there"):
        exact_moments("IS", policy, LONG, rollout=other)
    with pytest.raises(SupportError, match="the KL divergence is infinite"):
        exact_value(policy, LONG, "J-KL(beta=0.1)", reference=other)
    # Without a ratio, and the other way round, all is defined, as by all sequences.
    for text, pair in (("RLOO(g=2)", (policy, other)), ("IS(g=2)", (other, policy))):
        every, states = (
            of(pair[0], SMALL["parity"], pair[1]) for of in (EnumeratedPolicy, FiniteStates)
        )
        (wanted,) = all_moments([parse(text)], [every])
        found = finite_moments(parse(text), [states])
        assert float((found.mean - wanted.mean).abs().max()) < 1e-12
        assert float(found.variance) == pytest.approx(float(wanted.variance), rel=1e-11)


def test_a_prompt_moves_the_first_state():
    task = SMALL["parity"]
    prompted = Task(task.reward, 3, 4, end=2, prompt=(1, 0))
    every, states = EnumeratedPolicy(POLICY, prompted), FiniteStates(POLICY, prompted)
    assert float(states.probabilities @ states.rewards) == pytest.approx(
        float(every.probabilities @ every.rewards), abs=1e-13
    )
    assert float(exact_value(POLICY, task)) != pytest.approx(float(exact_value(POLICY, prompted)))


def test_sixty_tokens_have_the_gradient_of_differences():
    policy = NGram(3, 2)
    found = exact_gradient(policy, LONG)
    wanted = by_differences(lambda: exact_value(policy, LONG), policy)
    assert float((found - wanted).abs().max()) < 1e-9
    assert float(found.norm()) > 1e-3


@pytest.mark.thorough  # sixty_tokens_have_the_gradient_of_differences
def test_sixty_tokens_agree_with_draws():
    policy = NGram(3, 2)
    found, drawn = (
        exact_moments("GRPO(g=4)", policy, LONG),
        monte_carlo("GRPO(g=4)", policy, LONG, 640),
    )
    assert bool(((found.mean - drawn.mean).abs() <= 4.5 * drawn.mean_se).all())
    assert abs(drawn.variance - found.variance) < 4.5 * drawn.variance.se


def test_what_states_do_not_give_is_refused_with_the_way_out():
    with pytest.raises(NotExactError, match=r"the rollout policy has none .*use monte_carlo"):
        exact_moments("RLOO", NGram(3, 2), LONG, rollout=TinyGRU(3, width=2))
    with pytest.raises(NotExactError, match=r"does not factorize.*use monte_carlo"):
        exact_moments("OTB", NGram(3, 2), LONG)
    with pytest.raises(TooLargeError, match="use monte_carlo, or smaller g"):
        exact_moments("OPO(g=8)", NGram(3, 2), LONG)
    with pytest.raises(TooLargeError, match="n-gram policy with an Automaton as the reward"):
        exact_value(NGram(10, 2), Task(lambda tokens, lengths: lengths.double(), 10, 10))
    with pytest.raises(TooLargeError, match=r"10 tokens and horizon 10 make 1e\+10 sequences"):
        exact_value(
            Tabular(10, 3), Task(Automaton(torch.zeros(1, 10).long(), torch.ones(1)), 10, 10)
        )


def test_states_that_are_not_those_of_the_policy_are_seen():
    policy = NGram(3, 2)
    policy.transitions = policy.transitions.flip(1)

    class Other(NGram):
        def forward(self, tokens):
            return NGram.forward(self, tokens) * 2

    with pytest.raises(PolicyError, match="state_logits and transitions of the policy do not give"):
        exact_value(Other(3, 2), LONG)


@pytest.mark.parametrize(
    ("moves", "rewards", "message"),
    [
        (torch.zeros(2, 3).long(), torch.ones(3), "one row per reward"),
        (torch.full((2, 3), 2), torch.ones(2), "must lead to states 0 to 1"),
    ],
)
def test_an_automaton_that_leads_nowhere_is_refused(moves, rewards, message):
    with pytest.raises(ValueError, match=message):
        Automaton(moves, rewards)
