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
    exact_gradient,
    exact_moments,
    exact_value,
    monte_carlo,
    parse,
    tasks,
)
from gradlab.sequences.enumerated import EnumeratedPolicy
from gradlab.sequences.faults import PolicyError
from gradlab.sequences.finite_states import FiniteStates, finite_moments
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
    with pytest.raises(NotExactError, match="without a rollout policy only; use monte_carlo"):
        exact_moments("RLOO", NGram(3, 2), LONG, rollout=NGram(3, 2, seed=1))
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
