"""What a loss f(x, logits) may do wrong with its second argument: each fault has its sentence."""

import re

import pytest
import torch
from torch import nn

import gradlab
from gradlab import exact_gradient, exact_value, with_parameters
from gradlab.distributions import KSubset
from gradlab.loss import (
    BatchDependentError,
    ChangesInputError,
    HoldsLogitsError,
    LossShapeError,
    NotFiniteError,
    RandomLossError,
    StatefulLossError,
    checked,
)

pytestmark = pytest.mark.usefixtures("unchecked")

LOGITS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROWS = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
WEIGHT = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def base(x):
    return (x * WEIGHT.to(x)).sum((-2, -1)).tanh()


def kl(logits):
    return (logits.softmax(-1) * logits.log_softmax(-1)).sum((-2, -1))


def changes(x, logits):
    logits.mul_(2)
    return base(x) + kl(logits)


def changes_without_graph(x, logits):
    with torch.no_grad():
        logits += 1
    return base(x) + kl(logits)


class Remembers:
    """Keeps the logits that it was first called with."""

    def __init__(self):
        self.first = None

    def __call__(self, x, logits):
        if self.first is None:
            self.first = kl(logits)
        return base(x) + self.first


class Averages:
    """Keeps a running mean of what it was called with."""

    mean = 0.0

    def __call__(self, x, logits):
        self.mean = 0.9 * self.mean + 0.1 * float(logits.detach().mean())
        return base(x) + kl(logits) + self.mean


class Last:
    """Uses the logits of the call before."""

    def __init__(self):
        self.last = None

    def __call__(self, x, logits):
        before = logits if self.last is None else self.last
        self.last = logits.detach().clone()
        if before.shape != logits.shape:
            before = logits
        return base(x) + kl(before)


def noisy(x, logits):
    return base(x) + (torch.randn(3, dtype=x.dtype) * logits).sum((-2, -1))


FAULTS = {
    "writes": (changes, ChangesInputError, "logits.clone()"),
    "writes without a graph": (changes_without_graph, ChangesInputError, "logits.clone()"),
    "keeps a graph": (Remembers(), StatefulLossError, "keeps"),
    "keeps a mean": (Averages(), StatefulLossError, "changes from call to call"),
    "keeps the last": (Last(), StatefulLossError, "keeps"),
    "is random": (noisy, RandomLossError, "random"),
    "sums over all axes": (
        lambda x, logits: base(x) + (logits.softmax(-1) * logits.log_softmax(-1)).sum(),
        BatchDependentError,
        "last two axes only",
    ),
    "flattens all axes": (
        lambda x, logits: base(x) + logits.reshape(6).square().sum(),
        BatchDependentError,
        "with an axis in front",
    ),
    "takes the first row": (
        lambda x, logits: base(x) + kl(logits.reshape(-1, 2, 3)[0]),
        BatchDependentError,
        "other rows",
    ),
    "returns the KL alone": (lambda x, logits: kl(logits), LossShapeError, "one value for each x"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_second_argument_is_named(name):
    f, error, told = FAULTS[name]
    with pytest.raises(error, match=re.escape(told)):
        exact_value(with_parameters(f), LOGITS)


@pytest.mark.parametrize("call", ["compare", "verify", "recommend", "monte_carlo", "probe"])
def test_every_call_passes_the_gate(call):
    f = with_parameters(FAULTS["sums over all axes"][0])
    calls = {
        "compare": lambda: gradlab.compare(f, LOGITS, ["ST"]),
        "verify": lambda: gradlab.verify("ST", f, LOGITS),
        "recommend": lambda: gradlab.recommend(f, LOGITS, evaluations=4),
        "monte_carlo": lambda: gradlab.monte_carlo("ST", f, LOGITS, 64),
        "probe": lambda: gradlab.GradientProbe(["ST"])(0, f, LOGITS[None]),
    }
    with pytest.raises((BatchDependentError, LossShapeError)):
        calls[call]()


def test_an_element_of_a_batch_must_not_see_the_logits_of_others():
    def f(x, logits):
        return base(x) + kl(logits).roll(1, -1) if logits.ndim > 2 else base(x) + kl(logits)

    with pytest.raises(BatchDependentError, match="element of the batch"):
        exact_value(with_parameters(f), ROWS)
    found = exact_value(with_parameters(lambda x, logits: base(x) + kl(logits)), ROWS)
    assert found.shape == (4,)


@pytest.mark.parametrize("masked", [True, False])
def test_the_entropy_of_a_masked_class_is_refused_or_right(masked):
    logits = LOGITS.clone()
    if masked:
        logits[0, 2] = -torch.inf

    def naive(x, logits):
        p = logits.softmax(-1)
        return base(x) + (p * p.log()).sum((-2, -1))

    def entr(x, logits):  # its value is right, its gradient is 0 * inf
        return base(x) - torch.special.entr(logits.softmax(-1)).sum((-2, -1))

    def safe(x, logits):
        log_p = logits.log_softmax(-1).masked_fill(logits == -torch.inf, 0.0)
        return base(x) + (logits.softmax(-1) * log_p).sum((-2, -1))

    def by_where(x, logits):
        log_p = torch.where(logits > -torch.inf, logits.log_softmax(-1), 0.0)
        return base(x) + (logits.softmax(-1) * log_p).sum((-2, -1))

    def far(x, logits):  # its value is finite, its gradient is not
        p = logits.softmax(-1)
        return base(x) + torch.where(p > 0, p * p.log(), 0.0).sum((-2, -1))

    found = [exact_gradient(with_parameters(f), logits) for f in (safe, by_where)]
    assert torch.isfinite(found[0]).all()
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-13)
    if not masked:
        for f in (naive, entr, far):
            torch.testing.assert_close(
                exact_gradient(with_parameters(f), logits), found[0], rtol=0, atol=1e-13
            )
        return
    assert float(found[0][0, 2]) == 0
    with pytest.raises(NotFiniteError, match="f\\(x\\) is nan"):
        exact_gradient(with_parameters(naive), logits)
    for f in (entr, far):
        with pytest.raises(NotFiniteError, match=r"df/dlogits is nan .*put 0 in place of log p"):
            exact_gradient(with_parameters(f), logits)


def test_a_loss_that_holds_the_logits_is_told_what_to_change():
    logits = LOGITS.clone().requires_grad_()
    told = "change def f(x) to def f(x, logits), put @gradlab.with_parameters above it"
    with pytest.raises(HoldsLogitsError, match=re.escape(told)):
        exact_value(lambda x: base(x) + kl(logits), logits)
    # What is told is done:
    found = exact_gradient(with_parameters(lambda x, logits: base(x) + kl(logits)), logits)
    leaf = LOGITS.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(kl(leaf), leaf)
    torch.testing.assert_close(found - exact_gradient(base, LOGITS), wanted, rtol=0, atol=1e-14)


def tied(theta):
    return theta.expand(2, 3)


def transformed(theta):
    return theta.tanh() * 2


@pytest.mark.parametrize("make", [tied, transformed, lambda theta: theta[:, [2, 0, 1]]])
@pytest.mark.parametrize("marked", [False, True])
def test_logits_that_are_held_are_found_for_tied_and_transformed_parameters(make, marked):
    logits = make(LOGITS[:1].clone().expand(2, 3).contiguous().requires_grad_())
    if marked:

        def f(x, given):
            return base(x) + kl(given) + kl(logits)

        f, told = with_parameters(f), "by another way than its second argument"
    else:

        def f(x):
            return base(x) + kl(logits)

        told = "put @gradlab.with_parameters above it"
    with pytest.raises(HoldsLogitsError, match=told):
        exact_value(f, logits)
    if marked:
        detached = with_parameters(lambda x, given: base(x) + kl(given) + kl(logits.detach()))
        assert torch.isfinite(exact_value(detached, logits))


def test_parameters_of_a_distribution_that_are_held_are_found():
    theta = torch.zeros(4, requires_grad=True)
    subsets = lambda p: KSubset(p, 2)  # noqa: E731
    with pytest.raises(HoldsLogitsError, match="with_parameters"):
        exact_value(lambda x: x[..., 0] + theta.square().sum(), theta, distribution=subsets)

    @with_parameters
    def f(x, given):
        return x[..., 0] + given.square().sum() + theta.sum()

    with pytest.raises(HoldsLogitsError, match="another way"):
        exact_value(f, theta, distribution=subsets)


class Model(nn.Module):
    """A module with a buffer and a batch norm, called with x and the logits."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6, dtype=torch.float64)
        self.register_buffer("prior", torch.full((2, 3), -1.1, dtype=torch.float64))

    def forward(self, x, logits):
        h = self.norm(x.flatten(-2).flatten(0, -2)).tanh().sum(-1).reshape(x.shape[:-2])
        q = logits.softmax(-1)
        return h + (q * (logits.log_softmax(-1) - self.prior)).sum((-2, -1))


def test_buffers_of_a_module_stay_and_its_batch_norm_is_named():
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BatchDependentError, match=r"BatchNorm1d in training mode: call \.eval\(\)"):
        exact_value(with_parameters(model), LOGITS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert exact_gradient(with_parameters(model.eval()), LOGITS).shape == (2, 3)


@pytest.mark.parametrize(
    "f",
    [
        lambda x, logits: base(x) + kl(logits.detach()),
        lambda x, logits: base(x),
        lambda x, logits: base(x) + 0 * logits.detach().sum((-2, -1)),
    ],
    ids=["detached", "ignored", "constant"],
)
def test_what_f_detaches_or_ignores_is_a_constant(f):
    leaf = LOGITS.clone().requires_grad_()
    g = exact_gradient(with_parameters(f), leaf)
    torch.testing.assert_close(g, exact_gradient(base, LOGITS), rtol=0, atol=1e-14)
    (second,) = torch.autograd.grad(exact_value(with_parameters(f), leaf), leaf)
    torch.testing.assert_close(second, g, rtol=0, atol=1e-14)
    gradlab.LeaveOneOut(2).surrogate(with_parameters(f), leaf).backward()


def test_what_runs_without_gradients_in_f_is_a_constant_and_calls_under_no_grad_are_right():
    def f(x, logits):
        with torch.no_grad():
            constant = kl(logits)
        return base(x) + constant + kl(logits)

    wanted = exact_gradient(with_parameters(lambda x, logits: base(x) + kl(logits)), LOGITS)
    torch.testing.assert_close(
        exact_gradient(with_parameters(f), LOGITS), wanted, rtol=0, atol=1e-14
    )
    leaf = LOGITS.clone().requires_grad_()
    with torch.no_grad():
        assert torch.equal(
            exact_gradient(with_parameters(f), leaf), exact_gradient(with_parameters(f), LOGITS)
        )
        assert not exact_value(with_parameters(f), leaf).requires_grad
        rows = gradlab.compare(with_parameters(f), leaf, ["ZGR", "RF(m=2)"])
        assert rows["reason"].isna().all()
        drawn = gradlab.ZGR().draw(with_parameters(f), leaf, 4)
    assert drawn.shape == (4, 2, 3)
    assert not drawn.requires_grad


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_f_may_compute_in_float32(given):
    net = nn.Linear(6, 1)

    def f(x, logits):
        h = net(x.float().flatten(-2)).squeeze(-1).tanh()
        return h + kl(logits.float())

    logits = LOGITS.to(given).requires_grad_()
    g = exact_gradient(with_parameters(f), logits)
    assert g.dtype == torch.float64
    (second,) = torch.autograd.grad(exact_value(with_parameters(f), logits), logits)
    assert second.dtype == given
    torch.testing.assert_close(second.double(), g, rtol=1e-5, atol=1e-6)
    verdict = gradlab.verify("RF(m=2)", with_parameters(f), logits)
    assert verdict.outcome == "UNBIASED"
    assert checked(with_parameters(f), logits).eps >= 1e-7


def test_a_loss_without_a_gradient_in_x_is_refused_though_it_has_one_in_the_logits():
    f = with_parameters(lambda x, logits: x.argmax(-1).sum(-1).to(x.dtype) + kl(logits))
    leaf = LOGITS.clone().requires_grad_()
    with pytest.raises(gradlab.loss.NotDifferentiableError):
        gradlab.ZGR().surrogate(f, leaf)
    reason = gradlab.compare(f, LOGITS, ["ZGR", "RF(m=2)"])["reason"]
    assert "not differentiable" in reason[0]
    assert reason.isna()[1]
