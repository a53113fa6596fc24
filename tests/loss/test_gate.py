"""The gate: no public call returns a number for a faulty loss, and none refuses a correct one.

The tables of losses are in tests/loss/losses.py.
"""

import copy
import math

import pytest
import torch
from torch import nn

import gradlab
from gradlab import (
    compare,
    exact_gradient,
    exact_moments,
    exact_value,
    loss,
    monte_carlo,
    recommend,
    verify,
)
from gradlab.exact.moments import Enumeration
from gradlab.figures.toys.descent import optimize
from gradlab.loss import BatchDependentError, HoldsLogitsError, LossError, RandomLossError
from gradlab.loss.gate import checked
from gradlab.nn.probe import GradientProbe
from gradlab.problems import problem, regime
from gradlab.sweep import cells
from gradlab.testing import assert_unbiased
from losses import CORRECT, FAULTY

pytestmark = pytest.mark.usefixtures("unchecked")

LOGITS = regime("moderate", 2, 3, seed=0)


def probed(f, logits):
    probe = GradientProbe(["ZGR", "RF(m=2)"], draws=32, reference_draws=32)
    probe(0, f, logits.unsqueeze(0))
    return probe.rows


def swept(f, logits):
    """Return what a cell of a sweep measures, as the process of a task does."""
    cell = cells.Cell("own/2x3/moderate/0/RF(m=2)", "RF(m=2)")
    task = cells.Task("own", 2, 3, "moderate", 0, (cell,), 64, "auto", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_loss_and_logits", lambda task: (f, logits))
        _, row = cells.computed(task)
    if row["error"] is not None:
        raise_again(row["error"])
    return row


def raise_again(told: str) -> None:
    kind, _, message = told.partition(": ")
    raise getattr(loss, kind)(message)


# Every public call that takes f and logits.
ENTRIES = {
    "exact_value": exact_value,
    "exact_gradient": exact_gradient,
    "exact_moments of ZGR": lambda f, a: exact_moments(gradlab.ZGR(), f, a),
    "exact_moments of RF": lambda f, a: exact_moments(gradlab.LeaveOneOut(), f, a),
    "Enumeration": Enumeration,
    "monte_carlo": lambda f, a: monte_carlo("RF(m=2)", f, a, 64),
    "compare": lambda f, a: compare(f, a, ["RF(m=2)", "LE"]),
    "compare by draws": lambda f, a: compare(f, a, ["ARSM"], draws=64, method="monte-carlo"),
    "verify": lambda f, a: verify("RF(m=2)", f, a),
    "verify by draws": lambda f, a: verify("ARSM", f, a, method="monte-carlo", max_draws=256),
    "assert_unbiased": lambda f, a: assert_unbiased("RF(m=2)", f, a),
    "recommend": lambda f, a: recommend(f, a, evaluations=4, estimators=["RF(m=2)"], draws=64),
    "sweep": swept,
    "optimize": lambda f, a: optimize(gradlab.LeaveOneOut(), f, a, steps=1, batch=2),
    "probe": probed,
}
WITH_GRADIENT = {
    "exact_moments of ZGR": ENTRIES["exact_moments of ZGR"],
    "monte_carlo of ZGR": lambda f, a: monte_carlo("ZGR", f, a, 64),
    "compare of ZGR": lambda f, a: compare(f, a, ["ZGR"]),
    "verify of ZGR": lambda f, a: verify("ZGR", f, a),
}


def entries(table):
    return pytest.mark.parametrize("entry", table.values(), ids=list(table))


def rows(table):
    return pytest.mark.parametrize("row", table, ids=[row.name for row in table])


def pairs():
    """Return each faulty loss with each public call; most pairs are slow.

    All calls pass one gate (gradlab/loss/gate.py). So without the slow pairs every loss still meets
    two calls, and every call meets each kind of error once.
    """
    faulty, first = [row for row in FAULTY if not row.in_gradient], set()
    for i, row in enumerate(faulty):
        for k, (name, entry) in enumerate(ENTRIES.items()):
            is_short = (i - k) % len(ENTRIES) in (0, 7) or (row.error, name) not in first
            first.add((row.error, name))
            marks = () if is_short else pytest.mark.slow
            yield pytest.param(row, entry, marks=marks, id=f"{row.name}-{name}")


@pytest.mark.parametrize(("row", "entry"), list(pairs()))
@pytest.mark.few(60)
def test_no_call_returns_a_number_for_a_faulty_loss(row, entry):
    f, logits = row.make(LOGITS)
    if entry is probed and row.error == "HoldsLogitsError" and not logits.requires_grad:
        logits = logits.detach().requires_grad_()  # as those of a training do
        f, logits = row.make(logits)
    if entry is swept and row.error == "LossDtypeError" and logits.dtype == torch.float64:
        pytest.skip("a cell of a sweep goes on in float32")
    if entry in (probed, ENTRIES["optimize"]) and row.error == "HoldsLogitsError":
        pytest.skip("a batch of the logits is another tensor: see test_a_training_that_holds")
    with pytest.raises(LossError) as told:
        entry(f, logits)
    assert type(told.value).__name__ == row.error
    assert row.phrase in str(told.value).lower()


@entries(WITH_GRADIENT)
@rows([row for row in FAULTY if row.in_gradient])
def test_a_fault_of_the_gradient_is_named_where_it_is_used(row, entry):
    f, logits = row.make(LOGITS)
    with pytest.raises(LossError) as told:
        entry(f, logits)
    assert type(told.value).__name__ == row.error


@rows(CORRECT)
@pytest.mark.few(21)
def test_correct_losses_pass_and_are_left_as_they_were(row):
    f, logits = row.make(LOGITS)
    wanted = logits.requires_grad
    state = torch.get_rng_state()
    checked(f, logits)
    assert torch.equal(torch.get_rng_state(), state)
    assert logits.requires_grad == wanted
    assert checked(f, logits).dtype == logits.dtype


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["linear", "quadratic", "mlp", "table", "norm:1.5", "cubic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.few(32)
def test_problems_pass_in_both_precisions(kind, dtype, seed):
    checked(problem(kind, 3, 2, seed), regime("moderate", 3, 2, seed).to(dtype))


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (1, 300), (40, 2), (7, 5), (3, 2, 4)])
def test_all_sizes_pass(shape):
    weights = torch.linspace(-1, 1, shape[-1], dtype=torch.float64)
    objective = checked(lambda x: (x @ weights).square().sum(-1), torch.zeros(shape).double())
    assert objective.batch == (shape[0] if len(shape) == 3 else None)


def test_masked_classes_are_not_shown_to_f():
    logits = torch.tensor([[0.0, -math.inf, 1.0], [-1e9, 0.0, 0.5]], dtype=torch.float64)

    def f(x):
        assert float(x[..., 0, 1].abs().max()) == 0
        assert float(x[..., 1, 0].abs().max()) == 0
        return x.sum((-2, -1))

    assert float(exact_value(f, logits)) == pytest.approx(2)


@entries(ENTRIES | WITH_GRADIENT)
@pytest.mark.few(7)
def test_every_call_works_where_gradients_are_off(entry):
    if entry is ENTRIES["optimize"]:
        pytest.skip("it trains")
    with torch.no_grad():
        entry(problem("quadratic", 2, 3, 0), LOGITS)
    with torch.inference_mode():
        logits = LOGITS.clone()
    entry(problem("quadratic", 2, 3, 0), logits.clone())


# ---- what trains --------------------------------------------------------------------------------


def test_a_training_that_holds_its_logits_is_refused_by_the_probe():
    encoder = nn.Linear(3, 6)
    logits = encoder(torch.randn(4, 3)).unflatten(-1, (2, 3))
    weight = torch.randn(2, 3)

    def f(x):
        kl = (logits.softmax(-1) * logits.log_softmax(-1)).sum((-2, -1))
        return (x * weight).sum((-2, -1)).square() + kl

    probe = GradientProbe(["ST"])
    with pytest.raises(HoldsLogitsError, match="add them to the surrogate"):
        probe(0, f, logits)
    assert len(probe.rows) == 0


def test_an_element_that_looks_at_its_neighbours_is_refused():
    logits = torch.randn(4, 2, 3, dtype=torch.float64)
    weight = torch.randn(2, 3, dtype=torch.float64)

    def f(x):
        values = (x * weight).sum((-2, -1)).square()
        return values - 0.1 * values.roll(1, -1)

    with pytest.raises(BatchDependentError, match="the other points of the call"):
        exact_gradient(f, logits)


def test_batch_norm_in_training_is_told_with_the_way_out_and_keeps_its_statistics():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).double()
    before = copy.deepcopy(net.state_dict())

    def f(x):
        return net(x.flatten(-2).flatten(0, -2)).view(x.shape[:-2])

    with pytest.raises(BatchDependentError, match=r"BatchNorm1d in training mode: call \.eval\(\)"):
        compare(f, LOGITS, ["ZGR"])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    net.eval()
    assert len(compare(f, LOGITS, ["ZGR"])) == 1


def test_a_fault_that_shows_late_is_found_by_the_sweep():
    calls = []

    def f(x):
        calls.append(1)
        return x[..., 0].sum(-1) + (len(calls) > 6) * 0.1

    with pytest.raises(BatchDependentError, match="or on something that it keeps between calls"):
        exact_gradient(f, LOGITS)


# ---- rare noise -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_one_call_in_twenty_is_found(seed):
    """The few calls of the gate may agree; a call that draws numbers is repeated."""

    def f(x):
        return x[..., 0].sum(-1) + (torch.rand(()) < 0.05).to(x.dtype)

    torch.manual_seed(seed)
    with pytest.raises(RandomLossError, match="f is random: two calls at the same x differ by 1"):
        checked(f, LOGITS)
