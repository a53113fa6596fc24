"""Draws from a table of f at its states are the draws that f itself gives."""

import math

import pytest
import torch

import gradlab
from cases import estimators, generator, logits_of, loss_of
from gradlab.estimators import ESTIMATORS
from gradlab.exact import for_draws
from gradlab.exact.for_draws import tabled
from gradlab.exact.moments import EnumeratedBatch, Enumeration
from gradlab.exact.state_table import StateTable, places
from gradlab.exact.tabulated import count_states
from gradlab.loss import NotDifferentiableError, NotFiniteError
from gradlab.loss.gate import checked
from gradlab.montecarlo import monte_carlo


def both_draws(estimator, f, logits, n=64):
    """Return draws by calls of f and from its table, and whether the generators end alike."""
    f = checked(f, logits)
    table = tabled(f, logits, math.inf)
    assert isinstance(table, StateTable)
    sources = generator(), generator()
    at = logits.double()
    direct, read = (
        estimator.draw(of, at, n, source) for of, source in zip((f, table), sources, strict=True)
    )
    assert torch.equal(*(source.get_state() for source in sources))
    return direct, read, table


def assert_same(direct, read):
    scale = direct.abs().max().clamp_min(1e-300)
    assert (direct - read).abs().max() <= 1e-12 * scale


class Watched:
    """A loss that counts the x that it is asked about."""

    def __init__(self, f):
        self.f, self.asked = f, 0

    def __call__(self, x):
        self.asked += x[..., 0, 0].numel()
        return self.f(x)


def directly(monkeypatch):
    monkeypatch.setattr("gradlab.montecarlo.tabled", lambda f, *_: f)


@pytest.mark.parametrize("regime", ["moderate", "masked"])
@estimators(one_each=True)
@pytest.mark.few(33)
def test_each_draw_is_the_one_that_calls_give(claim, regime):
    direct, read, _ = both_draws(
        claim.estimator, loss_of("norm:1.5", 3, 4), logits_of(regime, 3, 4)
    )
    assert_same(direct, read)
    assert (direct != 0).any()


@pytest.mark.parametrize("text", ["ARM", "DisARM", "ZGR", "RF(m=4)"])
@pytest.mark.parametrize("variables", [1, 4])
def test_two_classes_and_one_variable(text, variables):
    f, logits = loss_of("mlp", variables, 2), logits_of("peaked", variables, 2)
    assert_same(*both_draws(gradlab.parse(text), f, logits)[:2])


def test_one_class_alone():
    logits = torch.zeros(3, 1)
    direct, read, table = both_draws(gradlab.ZGR(), lambda x: x.sum((-2, -1)), logits)
    assert len(table) == 1
    assert torch.equal(direct, read)
    assert (read == 0).all()


@pytest.mark.parametrize("text", ["ZGR", "GS-ST", "RF(m=4)", "LE", "REBAR"])
def test_f_is_asked_in_its_own_precision(text):
    seen = set()

    def f(x):
        seen.add(x.dtype)
        return torch.tanh(x @ torch.arange(4, dtype=x.dtype)).sum(-1).square()

    direct, read, table = both_draws(gradlab.parse(text), f, logits_of("moderate", 3, 4).float())
    assert seen == {torch.float32}
    # f rounds by itself in each batch.
    assert (direct - read).abs().max() <= 1e-5 * direct.abs().max()
    if table.peek("values") is not None:
        assert torch.equal(table.peek("values").float().double(), table.peek("values"))


def test_a_table_in_the_wrong_order_is_noticed(monkeypatch):
    def swapped(allowed, classes):
        return places(allowed, classes, first_fastest=True)

    monkeypatch.setattr(for_draws, "places", swapped)
    for text in ("ZGR", "RF(m=4)", "LE"):
        direct, read, _ = both_draws(
            gradlab.parse(text), loss_of("mlp", 3, 4), logits_of("moderate", 3, 4)
        )
        with pytest.raises(AssertionError):
            assert_same(direct, read)


@pytest.mark.parametrize("text", ["ZGR", "GR", "RF(m=4)", "LE", "REINFORCE"])
def test_f_is_evaluated_once_at_each_state(text):
    f, logits = Watched(lambda x: torch.tanh(x[..., 1]).sum(-1).exp()), logits_of("masked", 3, 4)
    states = count_states(logits)
    objective = checked(f, logits)
    f.asked = 0
    monte_carlo(text, objective, logits, draws=2000)
    # And at some of them again in the end, where it must have held still.
    assert f.asked == states + min(8, states)


def test_tuples_count_as_many_evaluations():
    f = Watched(loss_of("mlp", 3, 4))
    logits = logits_of("moderate", 3, 4)
    objective = checked(f, logits)
    for text, draws, asked in (
        ("RF(m=4)", 32, 64 + 8),
        ("ZGR", 63, 63),
        ("ZGR", 64, 64 + 8),
    ):
        f.asked = 0
        monte_carlo(text, objective, logits, draws=draws)
        assert f.asked == asked, text


@pytest.mark.parametrize("text", ["ZGR", "RF(m=2)", "GS-ST", "ARSM"])
def test_moments_are_the_same_for_any_route_chunk_and_number_of_workers(text, monkeypatch):
    f, logits = loss_of("mlp", 2, 3), logits_of("moderate", 2, 3)
    found = [
        monte_carlo(text, f, logits, 30_000, seed=3, workers=workers, chunk=chunk)
        for workers, chunk in ((1, 8), (2, 1))
    ]
    assert torch.equal(found[0].mean, found[1].mean)
    assert torch.equal(found[0].variance_per_variable, found[1].variance_per_variable)
    directly(monkeypatch)
    direct = monte_carlo(text, f, logits, 30_000, seed=3)
    assert_same(direct.mean, found[0].mean)
    assert_same(direct.variance_per_variable, found[0].variance_per_variable)


def of_batch(x):
    """A loss with another target for each of two elements."""
    weight = torch.arange(12, dtype=x.dtype).view(2, 2, 3).sin()
    return torch.tanh((x * weight).sum((-2, -1))).square()


@pytest.mark.parametrize("text", ["ZGR", "RF(m=2)", "GS-ST", "LE", "GS"])
def test_batches_read_the_table_of_their_element(text, monkeypatch):
    logits = torch.stack([logits_of("moderate", 2, 3), logits_of("peaked", 2, 3)])
    logits[1, 0, 2] = -math.inf
    f = Watched(of_batch)
    objective = checked(f, logits)
    f.asked = 0
    read = monte_carlo(text, objective, logits, 1000)
    if text != "GS":
        # Rows that train need values and gradients, each from one sweep of all elements.
        sweeps = 2 if gradlab.parse(text).needs_gradient else 1
        assert f.asked == (9 + 8) * 2 * sweeps
    directly(monkeypatch)
    direct = monte_carlo(text, objective, logits, 1000)
    assert_same(direct.mean, read.mean)
    assert_same(direct.variance_per_variable, read.variance_per_variable)


def test_an_enumeration_is_not_swept_again():
    f = Watched(loss_of("mlp", 3, 4))
    on = Enumeration(f, logits_of("moderate", 3, 4))
    texts = ["RF(m=4)", "ZGR"]
    gradlab.compare(on, estimators=texts, method="exact")
    f.asked = 0
    rows = gradlab.compare(on, estimators=texts, method="monte-carlo", draws=1000)
    # One x shows that there is a gradient.
    assert f.asked == 1
    alone = gradlab.compare(f, on.caller_logits, texts, method="monte-carlo", draws=1000)
    assert rows["variance"].tolist() == alone["variance"].tolist()


def test_a_batch_that_is_enumerated_is_not_swept_again():
    f = Watched(of_batch)
    on = EnumeratedBatch(f, torch.zeros(2, 2, 3))
    gradlab.compare(on, estimators=["ZGR"], method="exact")
    f.asked = 0
    gradlab.compare(on, estimators=["ZGR", "ST"], method="monte-carlo", draws=1000)
    assert f.asked == 2 * 2


def test_what_is_not_a_state_is_asked_of_f():
    f, logits = loss_of("mlp", 2, 3), torch.tensor([[0.0, -math.inf, 1.0], [0.0, 1.0, 2.0]])
    objective = checked(f, logits)
    table = tabled(objective, logits, math.inf)
    masked = torch.tensor([[1, 0], [0, 0]])
    x = torch.nn.functional.one_hot(masked, 3).double()
    assert torch.equal(table.at(masked), objective(x))
    assert torch.equal(table(x), objective(x))
    assert table.gradient_at(x) is None
    relaxed = torch.full((4, 2, 3), 1 / 3).double()
    relaxed[0] = x[1]
    assert torch.equal(table(relaxed), objective(relaxed))
    assert table.gradient_at(relaxed) is None


def test_more_states_than_evaluations_and_large_tables_are_left_to_f(monkeypatch):
    logits = torch.zeros(3, 4)
    f = checked(loss_of("mlp", 3, 4), logits)
    assert isinstance(tabled(f, logits, 64), StateTable)
    assert tabled(f, logits, 63) is f
    monkeypatch.setattr(for_draws, "_DRAWN", 64 * 13 - 1)
    x = torch.eye(4)[torch.zeros(1, 3).long()].double()
    assert tabled(f, logits, 64).gradient_at(x) is None
    monkeypatch.setattr(for_draws, "_DRAWN", 63)
    assert tabled(f, logits, 64) is f


def test_a_loss_that_sees_the_logits_is_left_alone():
    logits = logits_of("moderate", 2, 3)

    @gradlab.with_parameters
    def f(x, logits):
        return (x * logits).sum((-2, -1)).square()

    objective = checked(f, logits)
    assert tabled(objective, logits, math.inf) is objective


@pytest.mark.parametrize("text", ["RF(m=4)", "ZGR"])
def test_faults_at_states_that_are_not_drawn_stay_unnoticed_and_others_have_their_sentence(
    text, monkeypatch
):
    # The last state has the probability 1e-26, and is none of those at which f is asked first.
    logits = torch.tensor([[0.0, 0.0, 0.0, -20.0]] * 3).double()

    def f(x):
        return x[..., 1].sum(-1) + 1 / (3 - x[..., 3].sum(-1))

    objective = checked(lambda x: x[..., 1].sum(-1).square(), logits)
    objective = type(objective)(f, *[objective.dtype, objective.device, None, objective.eps])
    assert monte_carlo(text, objective, logits, 500).mean.isfinite().all()
    sentences = []
    for _ in range(2):
        with pytest.raises(NotFiniteError) as raised:
            monte_carlo(text, objective, logits.new_zeros(3, 4), 20_000)
        sentences.append(str(raised.value))
        directly(monkeypatch)
    assert sentences[0] == sentences[1]


def test_an_f_without_gradient_has_its_sentence():
    with pytest.raises(NotDifferentiableError, match="use a score-function estimator"):
        monte_carlo("ZGR", lambda x: x.argmax(-1).to(x).sum(-1), torch.zeros(2, 3), 1000)


def test_an_f_that_does_not_hold_still_is_not_tabled():
    state = {"calls": 0}

    def f(x):
        state["calls"] += 1
        return x[..., 0].sum(-1) * (1 + (state["calls"] > 10))

    logits = torch.zeros(2, 3)
    table = tabled(checked(f, logits), logits, math.inf)
    state["calls"] = 10 - 1  # the sweep is the last call of the old values
    assert table.values is None


def test_second_derivatives_are_not_silently_left_out():
    logits = torch.zeros(2, 3)
    table = tabled(checked(loss_of("cubic", 2, 3), logits), logits, math.inf)
    x = torch.eye(3)[torch.zeros(4, 2).long()].double().requires_grad_()
    (g,) = torch.autograd.grad(table(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(g.sum(), x)


def test_every_estimator_is_tried_here():
    assert len(ESTIMATORS) > 20
