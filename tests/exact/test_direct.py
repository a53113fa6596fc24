"""The truth and the exact moments of losses that see the logits, f(x, logits).

Two routes to the gradient agree: E[f s] + E[df/dlogits], and the derivative of the exact value.
Moments are compared with a brute force that puts every sample to what trains.
"""

import itertools

import pytest
import torch
from torch import nn

import gradlab
from cases import CLAIMS, all_states, generator, state_probabilities
from gradlab import exact_gradient, exact_moments, exact_value, with_parameters
from gradlab.exact.direct import direct_part, each_gradient
from gradlab.exact.moments import Enumeration
from gradlab.exact.routes import TruthError
from gradlab.loss import checked

pytestmark = pytest.mark.usefixtures("unchecked")

N, C = 2, 3


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


W, V, PRIOR = random(N, C, seed=1), random(N, C, seed=2), random(N, C, seed=3)
Q = random(N * C, N * C, seed=4)
LEVELS = torch.arange(C, dtype=torch.float64)


def quadratic(x):
    v = x.flatten(-2)
    return ((v @ Q) * v).sum(-1)


def kl(x, logits):
    p = logits.softmax(-1)
    return (p * (logits.log_softmax(-1) - PRIOR.log_softmax(-1))).sum((-2, -1))


NET = nn.Sequential(nn.Linear(2 * N * C, 8), nn.Tanh(), nn.Linear(8, 1)).double()

LOSSES = {
    "KL": lambda x, logits: quadratic(x).tanh() + kl(x, logits),
    "large KL": lambda x, logits: quadratic(x).tanh() + 1e3 * kl(x, logits),
    "log q(x)": lambda x, logits: quadratic(x) + (x * logits.log_softmax(-1)).sum((-2, -1)),
    "router": lambda x, logits: (x * logits.softmax(-1) * W).sum((-2, -1)).tanh(),
    "norm of the logits": lambda x, logits: quadratic(x) + logits.square().sum((-2, -1)),
    "logits alone, times x": lambda x, logits: (x * logits).sum((-2, -1)).sin(),
    "table of x": lambda x, logits: LEVELS[x.argmax(-1)].sum(-1) * logits.logsumexp(-1).sum(-1),
    "network of both": lambda x, logits: NET(
        torch.cat([x.flatten(-2), logits.expand(x.shape).flatten(-2)], -1)
    ).squeeze(-1),
    "offset": lambda x, logits: 1e6 + quadratic(x).tanh() + kl(x, logits),
    "expected level": lambda x, logits: (
        (x * LEVELS).sum((-2, -1)) - (logits.softmax(-1) * LEVELS).sum((-2, -1))
    ).square(),
}


@pytest.mark.parametrize("shape", [(N, C), (3, N, C)], ids=["one", "batch"])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.few(10)
def test_two_routes_to_the_gradient_agree(name, shape):
    f, logits = with_parameters(LOSSES[name]), random(*shape, seed=5).requires_grad_()
    g = exact_gradient(f, logits)
    value = exact_value(f, logits)
    (other,) = torch.autograd.grad(value.sum(), logits)
    assert float(g.norm()) > 0.01
    torch.testing.assert_close(other, g, rtol=0, atol=1e-10)
    assert torch.equal(exact_value(f, logits.detach()), value.detach())


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_a_sum_over_states_that_is_written_out(name):
    f, logits = LOSSES[name], random(N, C, seed=6)
    leaf = logits.clone().requires_grad_()
    p = leaf.softmax(-1)
    total = 0
    for i, j in itertools.product(range(C), range(C)):
        x = torch.eye(C, dtype=p.dtype)[[i, j]]
        total = total + p[0, i] * p[1, j] * f(x, leaf)
    (wanted,) = torch.autograd.grad(total, leaf)
    g = exact_gradient(with_parameters(f), logits)
    torch.testing.assert_close(g, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("f", [LOSSES["KL"], LOSSES["router"], LOSSES["network of both"]])
def test_the_value_is_differentiable_twice(f):
    logits = random(N, C, seed=7).requires_grad_()
    of = lambda logits: exact_value(with_parameters(f), logits)  # noqa: E731
    assert torch.autograd.gradcheck(of, (logits,))
    assert torch.autograd.gradgradcheck(of, (logits,))


def test_the_value_of_a_loss_of_x_alone_is_differentiable_too_and_trains_its_parameters():
    weight = W.clone().requires_grad_()
    f = lambda x: (x * weight).sum((-2, -1)).tanh()  # noqa: E731
    logits = random(N, C, seed=8).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda logits: exact_value(f, logits), (logits,))
    g, of_weight = torch.autograd.grad(exact_value(f, logits), (logits, weight))
    torch.testing.assert_close(g, exact_gradient(f, logits), rtol=0, atol=1e-14)
    x, p = all_states(N, C), state_probabilities(logits.detach())
    (wanted,) = torch.autograd.grad(p @ f(x), weight)
    torch.testing.assert_close(of_weight, wanted, rtol=0, atol=1e-14)
    assert not exact_value(f, logits.detach()).requires_grad


def test_many_blocks_of_states_are_differentiated_one_at_a_time(monkeypatch):
    f, logits = with_parameters(LOSSES["router"]), random(N, C, seed=5).requires_grad_()
    (whole,) = torch.autograd.grad(exact_value(f, logits), logits, create_graph=True)
    (twice,) = torch.autograd.grad(whole.square().sum(), logits)
    monkeypatch.setattr("gradlab.exact.differentiable._BLOCK", 2 * N * C)
    (parts,) = torch.autograd.grad(exact_value(f, logits), logits, create_graph=True)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14)
    (again,) = torch.autograd.grad(parts.square().sum(), logits)
    torch.testing.assert_close(again, twice, rtol=0, atol=1e-13)


def test_masked_classes_and_rows_with_other_masks():
    logits = random(3, N, C, seed=9)
    logits[0, 0, 1] = logits[1, 1, 2] = -torch.inf
    logits.requires_grad_()
    data = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def f(x, logits):
        log_p = torch.where(logits > -torch.inf, logits.log_softmax(-1), 0.0)
        return data * quadratic(x).tanh() + (logits.softmax(-1) * log_p).sum((-2, -1))

    g = exact_gradient(with_parameters(f), logits)
    (other,) = torch.autograd.grad(exact_value(with_parameters(f), logits).sum(), logits)
    torch.testing.assert_close(other, g, rtol=0, atol=1e-12)
    assert float(g[0, 0, 1]) == float(g[1, 1, 2]) == 0

    def one(b):
        def of_one(x, row):
            log_p = torch.where(row > -torch.inf, row.log_softmax(-1), 0.0)
            return data[b] * quadratic(x).tanh() + (row.softmax(-1) * log_p).sum((-2, -1))

        return with_parameters(of_one)

    each = torch.stack([exact_gradient(one(b), logits[b].detach()) for b in range(3)])
    torch.testing.assert_close(g, each, rtol=0, atol=1e-13)


def brute_force(estimator, f, logits):
    """Return mean and variance [N] over all samples, each put to what trains, one at a time."""
    x = all_states(*logits.shape)
    m = getattr(estimator, "samples", 1)
    mean, square = torch.zeros_like(logits), torch.zeros(len(logits), dtype=logits.dtype)
    every = list(itertools.product(range(len(x)), repeat=m))
    classes = x.argmax(-1)
    for numbers in every:
        leaf = logits.clone().requires_grad_()
        bound = lambda x, leaf=leaf: f(x, leaf)  # noqa: E731
        if isinstance(estimator, gradlab.SampleOnlyEstimator):
            weight = state_probabilities(logits)[numbers[0]]
            value = bound(estimator.sample(leaf, None, x[numbers[0]]))
        else:
            picked = classes[list(numbers)]
            weight = estimator.tuple_probabilities(logits, picked[:, None])[0]
            value = estimator.surrogate_at(bound, leaf, picked)
        if float(weight) == 0:
            continue
        (g,) = torch.autograd.grad(value, leaf)
        mean += weight * g
        square += weight * g.square().sum(-1)
    return mean, square - mean.square().sum(-1)


FORCED = [
    claim.estimator
    for claim in CLAIMS
    if not claim.binary
    and (
        claim.sample_only
        or (
            isinstance(claim.estimator, gradlab.SampledValueEstimator)
            and claim.estimator.enumerable
            and claim.estimator.samples <= 2
        )
    )
]


@pytest.mark.parametrize("estimator", FORCED, ids=str)
@pytest.mark.few(10)
def test_exact_moments_are_those_of_what_trains_at_every_sample(estimator):
    f, logits = LOSSES["router"], random(N, C, seed=10)
    both = lambda x, logits: f(x, logits) + quadratic(x).tanh()  # noqa: E731
    found = exact_moments(estimator, with_parameters(both), logits)
    mean, variance = brute_force(estimator, both, logits)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.variance_per_variable, variance, rtol=0, atol=1e-10)
    # The direct part changes both: neither is that of the loss at constant logits.
    alone = exact_moments(estimator, lambda x: both(x, logits.detach()), logits)
    assert float((alone.mean - found.mean).norm()) > 0.01
    assert float((alone.variance_per_variable - found.variance_per_variable).norm()) > 1e-3


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_formula_of_leave_one_out_is_the_sum_over_tuples(m):
    f, logits = with_parameters(LOSSES["router"]), random(1, 4, seed=11)
    f = with_parameters(lambda x, logits: (x * logits.softmax(-1) * random(4)).sum((-2, -1)).sin())
    found = exact_moments(gradlab.LeaveOneOut(m), f, logits)
    mean, variance = brute_force(gradlab.LeaveOneOut(m), f, logits)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.variance_per_variable, variance, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "text", ["GS-ST(tau=0.5)", "GR(tau=0.5, k=2)", "GR(tau=1, k=inf)", "ZGR", "RF(m=2)", "LE"]
)
def test_draws_have_the_exact_moments(text):
    f, logits = with_parameters(LOSSES["router"]), random(N, C, seed=12)
    estimator = gradlab.parse(text)
    exact = exact_moments(estimator, f, logits)
    drawn = gradlab.monte_carlo(estimator, f, logits, 20_000)
    apart = drawn.bias2(exact.mean)
    assert abs(apart.value) < 4 * apart.se
    assert abs(drawn.variance.value - exact.variance.value) < 4 * drawn.variance.se


def test_wide_tables_are_not_needed(monkeypatch):
    f, logits = with_parameters(LOSSES["router"]), random(N, C, seed=13)
    by_tables = exact_moments(gradlab.ZGR(), f, logits)
    monkeypatch.setattr("gradlab.exact.moments._WIDE", 0)
    by_states = exact_moments(gradlab.ZGR(), f, logits)
    torch.testing.assert_close(by_states.mean, by_tables.mean, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        by_states.variance_per_variable, by_tables.variance_per_variable, rtol=0, atol=1e-13
    )


def test_the_element_of_a_batch_has_the_moments_that_it_has_alone():
    logits = random(3, N, C, seed=14)
    f = with_parameters(LOSSES["router"])
    for text in ("ZGR", "RF(m=3)", "LE"):
        estimator = gradlab.parse(text)
        found = exact_moments(estimator, f, logits)
        each = [exact_moments(estimator, f, row) for row in logits]
        torch.testing.assert_close(found.mean, torch.stack([m.mean for m in each]))
        torch.testing.assert_close(
            found.variance_per_variable, torch.stack([m.variance_per_variable for m in each])
        )
    drawn = gradlab.monte_carlo("RF(m=2)", f, logits, 20_000)
    apart = drawn.bias2(exact_gradient(f, logits))
    assert abs(apart.value) < 4 * apart.se


def test_numbers_of_a_loss_of_x_alone_are_as_they_were():
    """A mark that changes nothing changes no bit of the first part."""
    logits = random(N, C, seed=15)
    plain = Enumeration(quadratic, logits)
    marked = Enumeration(with_parameters(lambda x, logits: quadratic(x)), logits)
    assert plain.direct is None
    assert marked.direct is not None
    assert float(marked.direct.size) == 0
    assert torch.equal(marked.gradient, plain.gradient)
    for text in ("ZGR", "RF(m=3)"):
        estimator = gradlab.parse(text)
        assert torch.equal(plain.moments(estimator).mean, marked.moments(estimator).mean)


def test_two_routes_to_the_direct_part_that_differ_are_an_error():
    calls = []

    def f(x, logits):
        calls.append(1)
        late = logits.detach() if len(calls) > 15 and logits.ndim == 2 else logits
        return quadratic(x) + kl(x, late)

    logits = random(N, C, seed=16)
    objective = checked(with_parameters(f), logits)
    calls += [1] * 20
    with pytest.raises(TruthError, match="df/dlogits"):
        direct_part(objective, logits)


class Once(torch.autograd.Function):
    """A function whose derivative torch cannot differentiate."""

    @staticmethod
    def forward(ctx, theta):
        ctx.save_for_backward(theta)
        return theta**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (theta,) = ctx.saved_tensors
        return 3 * theta**2 * grad


class Silent(Once):
    """A function whose derivative drops the graph of what it is given."""

    @staticmethod
    def backward(ctx, grad):
        (theta,) = ctx.saved_tensors
        return 3 * theta**2 * grad.detach()


@pytest.mark.parametrize("cube", [Once, Silent])
def test_the_gradient_of_each_state_needs_no_second_derivative(cube):
    theta, states = random(1, 3), random(5, 1, 3, seed=1)
    f = with_parameters(lambda x, theta: (x * cube.apply(theta)).sum((-2, -1)))
    smooth = with_parameters(lambda x, theta: (x * theta**3).sum((-2, -1)))
    found = each_gradient(checked(f, theta), states, theta)
    wanted = each_gradient(checked(smooth, theta), states, theta)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(wanted, (states * 3 * theta**2).flatten(1))


def test_draws_of_an_estimator_are_rows_of_its_surrogate():
    f, logits = with_parameters(LOSSES["router"]), random(N, C, seed=17)
    drawn = gradlab.LeaveOneOut(3).draw(f, logits, 5, generator(3))
    leaf = logits.expand(5, N, C).clone().requires_grad_()
    gradlab.LeaveOneOut(3).surrogate(f, leaf, generator(3)).sum().backward()
    assert torch.equal(drawn, leaf.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direct_part_that_is_0_by_cancelling_is_no_fault(dtype):
    """A KL has gradient 0 at its minimum, made of terms that are not."""
    logits = torch.zeros(4, 3, dtype=dtype)

    @with_parameters
    def f(x, logits):
        log_q = logits.log_softmax(-1)
        kl = (log_q.exp() * (log_q - torch.zeros_like(log_q).log_softmax(-1))).sum((-2, -1))
        return 1e-3 * x[..., 0].sum(-1) + kl

    eps = torch.finfo(dtype).eps
    on = Enumeration(f, logits)
    assert on.direct is not None
    assert float(on.direct.mean.norm()) < 10 * eps
    assert on.direct.size > 0.1
    for text in ("RF(m=2)", "ZGR"):
        assert gradlab.verify(text, on).outcome != "BIASED"
