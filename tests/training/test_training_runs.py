"""Estimators in training: sample, surrogate, the drop-in functions, and torch.func."""

import inspect
import math

import pytest
import torch

from cases import (
    DROP_IN,
    DTYPES,
    all_states,
    enumerated_estimates,
    estimators,
    generator,
    logits_of,
    loss_of,
)
from gradlab.categorical import probabilities, relaxed_given
from gradlab.estimators import (
    ARSM,
    IMLE,
    ZGR,
    GumbelRao,
    GumbelSoftmax,
    GumbelSoftmaxST,
    LeaveOneOut,
    Reinforce,
    _gumbel_product,
    functional,
    gumbel_softmax,
    zgr,
)
from gradlab.exact.truth import exact_gradient, exact_moments, exact_value
from gradlab.montecarlo import monte_carlo
from significance import limit, scores

ON_SIMPLEX = GumbelSoftmax
drop_in = pytest.mark.parametrize(("function", "arguments", "estimator"), DROP_IN)
with_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).split(".")[1])


def one_hot_along(x: torch.Tensor, dim: int = -1) -> bool:
    return bool(((x == 0) | (x == 1)).all() and (x.sum(dim) == 1).all())


# The forward pass.


@with_dtypes
@estimators(one_each=True, pathwise=True)
@pytest.mark.few(18)
def test_samples_are_exactly_one_hot_or_relaxed(claim, dtype):
    logits = logits_of("masked", 3, 4).to(dtype).expand(50, 3, 4)
    x = claim.estimator.sample(logits, generator())
    assert x.shape == logits.shape
    assert x.dtype == dtype
    assert (x[logits == -math.inf] == 0).all()
    assert one_hot_along(x) == claim.one_hot
    torch.testing.assert_close(x.sum(-1), torch.ones_like(x[..., 0]))


@with_dtypes
@estimators(pathwise=True, one_hot=True)
@pytest.mark.few(29)
def test_a_given_sample_is_used(claim, dtype):
    logits = logits_of("moderate", 2, 3).to(dtype)
    x = all_states(2, 3).to(dtype)
    assert torch.equal(claim.estimator.sample(logits.expand(x.shape), generator(), x=x), x)


def test_a_given_sample_is_the_largest_class_of_a_relaxed_one():
    x = all_states(2, 3)
    y = GumbelSoftmax(0.5).sample(logits_of("moderate").expand(x.shape), generator(), x=x)
    assert torch.equal(y.argmax(-1), x.argmax(-1))


@estimators(pathwise=True)
@pytest.mark.few(10)
def test_samples_do_not_share_memory_with_what_is_given(claim):
    x = all_states(2, 3)
    before = x.clone()
    out = claim.estimator.sample(logits_of("moderate").expand(x.shape), generator(), x=x)
    out.zero_()
    assert torch.equal(x, before)


@estimators(pathwise=True)
@pytest.mark.few(10)
def test_the_generator_alone_decides_the_sample(claim):
    logits = logits_of("moderate").expand(30, 2, 3)
    before = torch.get_rng_state()
    first = claim.estimator.sample(logits, generator(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(claim.estimator.sample(logits, generator(1)), first)
    assert not torch.equal(claim.estimator.sample(logits, generator(2)), first)


# The backward pass is the estimator.


def dense(y: torch.Tensor, v: torch.Tensor, tau: float) -> torch.Tensor:
    """The mean over the first axis of (diag(y) - y y^T) v / tau, by full matrices."""
    jacobian = (torch.diag_embed(y) - y[..., :, None] * y[..., None, :]) / tau
    return (jacobian @ v[..., None]).squeeze(-1).mean(0)


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@estimators(sample_only=True)
@pytest.mark.few(14)
def test_backward_of_a_sample_is_the_pullback(claim, logits):
    x = all_states(2, 3)
    logits = logits_of(logits).expand(x.shape).clone().requires_grad_()
    v = torch.randn(x.shape, dtype=x.dtype, generator=generator())
    (found,) = torch.autograd.grad(claim.estimator.sample(logits, x=x), logits, v)
    expected = claim.estimator.pullback(probabilities(logits.detach()), x, v)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("logits", ["moderate", "masked"])
@pytest.mark.parametrize(
    "estimator",
    [GumbelSoftmax(0.7), GumbelSoftmaxST(0.7), GumbelRao(0.7, 1), GumbelRao(0.7, 5)],
    ids=str,
)
def test_backward_of_a_gumbel_sample_is_the_relaxed_product(estimator, logits, monkeypatch):
    x = all_states(2, 3)
    logits = logits_of(logits).expand(x.shape).clone().requires_grad_()
    v = torch.randn(x.shape, dtype=x.dtype, generator=generator())
    drawn = []

    def recording(*args, **options):
        drawn.append(relaxed_given(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(_gumbel_product, "relaxed_given", recording)
    (found,) = torch.autograd.grad(estimator.sample(logits, generator(), x=x), logits, v)
    y = torch.cat([part.reshape(-1, *x.shape) for part in drawn])
    assert len(y) == getattr(estimator, "k", 1)
    torch.testing.assert_close(found, dense(y, v, 0.7), rtol=1e-13, atol=1e-13)


def test_backward_of_relaxed_gumbel_softmax_is_its_derivative():
    logits = logits_of("moderate").expand(50, 2, 3).clone().requires_grad_()
    y = GumbelSoftmax(0.7).sample(logits, generator())
    v = torch.randn(y.shape, dtype=y.dtype, generator=generator(1))
    (found,) = torch.autograd.grad(y, logits, v)
    # The Gumbel noise behind y, up to a constant for each variable.
    noise = (0.7 * y.log() - logits).detach()
    again = torch.softmax((logits + noise) / 0.7, -1)
    torch.testing.assert_close(again, y)
    (expected,) = torch.autograd.grad(again, logits, v)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_backward_of_exact_gumbel_rao_is_the_conditional_mean():
    f, logits = loss_of("cubic"), logits_of("moderate")
    exact = enumerated_estimates(GumbelRao(0.5, None), f, logits)
    many = enumerated_estimates(GumbelRao(0.5, 20_000), f, logits)
    # At most 1 / (2 tau) in size, so this is some seven standard errors.
    assert (exact - many).abs().max() < 0.05 * many.abs().max()


def replicates(estimator, f, logits: torch.Tensor, n: int) -> torch.Tensor:
    """n estimates through the backward of the surrogate of a batch of logits."""
    leaf = logits.expand(n, *logits.shape).clone().requires_grad_()
    values = estimator.surrogate(f, leaf, generator(9))
    assert values.shape == (n,)
    values.sum().backward()
    return leaf.grad


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["cubic", "mlp"])
@estimators(tabled=False)
@pytest.mark.few(16)
def test_backward_of_the_surrogate_follows_the_law_of_draws(claim, name):
    f, logits = loss_of(name), logits_of("masked")
    g = replicates(claim.estimator, f, logits, 8000)
    assert (g[:, logits == -math.inf] == 0).all()
    if claim.exact:
        moments = exact_moments(claim.estimator, f, logits)
        mean, variance, error = moments.mean, moments.variance.value, 0.0
    else:
        drawn = monte_carlo(claim.estimator, f, logits, 40_000, seed=8)
        mean, variance, error = drawn.mean, drawn.variance.value, drawn.mean_se
    error = (g.var(0) / len(g) + error**2).sqrt()
    assert scores(g.mean(0), mean, error).abs().max() < limit()
    radius = (g - g.mean(0)).square().sum((-2, -1))
    # 1.1: the variance may itself be measured.
    assert abs(scores(radius.mean(), variance, 1.1 * radius.std() / math.sqrt(len(g)))) < limit()


@estimators(one_hot=True, tabled=False)
@pytest.mark.few(16)
def test_the_surrogate_has_the_value_of_f_on_average(claim):
    f, logits = loss_of("cubic"), logits_of("moderate").expand(4000, 2, 3)
    with torch.no_grad():
        values = claim.estimator.surrogate(f, logits, generator())
    error = values.std() / math.sqrt(len(values))
    assert abs(scores(values.mean(), exact_value(f, logits[0]), error)) < limit()


class Recorded(torch.nn.Module):
    """A small loss with parameters, which keeps the x for which it built a graph."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(6, 4, generator=generator(), dtype=torch.float64))

    def forward(self, x):
        if torch.is_grad_enabled():
            self.x = x.detach()
        return torch.tanh(x.flatten(-2) @ self.w).sum(-1)


@estimators(pathwise=True)
@pytest.mark.few(10)
def test_parameters_of_f_get_their_ordinary_gradient(claim):
    f = Recorded()
    logits = logits_of("moderate").expand(20, 2, 3).clone().requires_grad_()
    claim.estimator.surrogate(f, logits, generator()).sum().backward()
    (expected,) = torch.autograd.grad(f(f.x).sum(), f.w)
    torch.testing.assert_close(f.w.grad, expected, rtol=1e-12, atol=1e-12)
    assert logits.grad.abs().max() > 0


@estimators(pathwise=False)
def test_parameters_of_f_get_the_gradient_of_the_samples_used(claim):
    f = Recorded()
    logits = logits_of("moderate").expand(20, 2, 3).clone().requires_grad_()
    claim.estimator.surrogate(f, logits, generator()).sum().backward()
    if isinstance(claim.estimator, Reinforce | LeaveOneOut | ARSM):
        value = f(f.x).mean(0)
    else:
        value = claim.estimator.estimate(f, logits.detach(), 1, generator())[0]
    (expected,) = torch.autograd.grad(value.sum(), f.w)
    torch.testing.assert_close(f.w.grad, expected, rtol=1e-12, atol=1e-12)
    assert logits.grad.abs().max() > 0


@estimators(pathwise=False)
def test_parameters_of_f_get_an_unbiased_gradient(claim):
    w = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    logits = logits_of("moderate")
    n = 4000
    claim.estimator.surrogate(
        lambda x: (x * w).sum((-2, -1)), logits.expand(n, 2, 3), generator()
    ).mean().backward()
    p = probabilities(logits)
    assert scores(w.grad, p, (p * (1 - p) / n).sqrt()).abs().max() < limit()


@estimators(one_each=True)
@pytest.mark.few(11)
def test_surrogates_of_a_weighted_sum_are_weighted(claim):
    if isinstance(claim.estimator, IMLE):
        pytest.skip("it is not linear in grad f, by its formula: weights count as another lam")
    f, logits = loss_of("cubic"), logits_of("moderate").expand(2, 2, 3)
    first, second = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    claim.estimator.surrogate(f, first, generator()).sum().backward()
    weight = torch.tensor([2.0, -3.0], dtype=torch.float64)
    (weight * claim.estimator.surrogate(f, second, generator())).sum().backward()
    torch.testing.assert_close(second.grad, weight[:, None, None] * first.grad)


@pytest.mark.parametrize("batch", [(), (0,), (2, 3)], ids=str)
@estimators(one_each=True)
@pytest.mark.few(16)
def test_surrogates_take_any_batch(claim, batch):
    logits = logits_of("moderate").expand(*batch, 2, 3).clone().requires_grad_()
    values = claim.estimator.surrogate(loss_of("cubic"), logits, generator())
    assert values.shape == batch
    values.sum().backward()
    assert logits.grad.shape == logits.shape
    assert (logits.grad.sum(-1).abs() < 1e-13).all()


@with_dtypes
@estimators(one_each=True)
@pytest.mark.few(16)
def test_surrogates_keep_the_dtype(claim, dtype):
    logits = logits_of("masked", 2, 4).to(dtype).expand(5, 2, 4).clone().requires_grad_()
    values = claim.estimator.surrogate(loss_of("mlp", 2, 4), logits, generator())
    assert values.dtype == dtype
    values.sum().backward()
    assert logits.grad.dtype == dtype
    assert logits.grad.isfinite().all()


@pytest.mark.usefixtures("unchecked")
@estimators(one_each=True, tabled=False, levels=False)
@pytest.mark.few(4)
def test_descent_finds_the_least_value(claim):
    f = loss_of("linear", 3, 3)
    logits = torch.zeros(32, 3, 3, dtype=torch.float64, requires_grad=True)
    optimizer, source = torch.optim.Adam([logits], lr=0.3), generator()
    for _ in range(60):
        optimizer.zero_grad()
        claim.estimator.surrogate(f, logits, source).sum().backward()
        optimizer.step()
    states = f(all_states(3, 3))
    reached = torch.stack([(row.softmax(-1) * f.b).sum() for row in logits.detach()]).mean()
    assert (reached - states.min()) / (states.mean() - states.min()) < 0.25


# Given samples that the probabilities exclude to rounding, as from a teacher.
@pytest.mark.parametrize("gap", [50.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@estimators(one_each=True, pathwise=True, tabled=False)
@pytest.mark.few(24)
def test_a_given_sample_of_vanishing_probability_is_no_nan(claim, dtype, gap):
    logits = torch.tensor([[0.0, -gap, -1.0]], dtype=dtype).expand(200, 1, 3)
    logits = logits.clone().requires_grad_()
    x = torch.tensor([[0.0, 1.0, 0.0]], dtype=dtype).expand(200, 1, 3)
    out = claim.estimator.sample(logits, generator(), x=x)
    assert out.isfinite().all()
    (g,) = torch.autograd.grad(out, logits, torch.randn(out.shape, generator=generator()).to(dtype))
    assert g.isfinite().all()


# Drop-in functions.


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
@drop_in
@pytest.mark.few(14)
def test_drop_in_functions_take_the_axis_of_classes(function, arguments, estimator, dim):
    logits = logits_of("moderate", 4, 5).expand(3, 4, 5).movedim(-1, dim).clone().requires_grad_()
    v = torch.randn(logits.shape, dtype=torch.float64, generator=generator(1))
    out = function(logits, **arguments, dim=dim, generator=generator())
    assert out.shape == logits.shape
    (found,) = torch.autograd.grad(out, logits, v)
    last = logits.detach().movedim(dim, -1).requires_grad_()
    expected = estimator.sample(last, generator())
    assert torch.equal(out, expected.movedim(-1, dim))
    (gradient,) = torch.autograd.grad(expected, last, v.movedim(dim, -1))
    torch.testing.assert_close(found, gradient.movedim(-1, dim), rtol=1e-14, atol=1e-14)


@drop_in
def test_drop_in_functions_take_a_sample_along_the_axis(function, arguments, estimator):
    x = all_states(2, 3).movedim(-1, 0)
    logits = logits_of("moderate").expand(9, 2, 3).movedim(-1, 0)
    out = function(logits, **arguments, dim=0, generator=generator(), x=x)
    assert torch.equal(out.argmax(0), x.argmax(0))
    assert torch.equal(out, x) != isinstance(estimator, ON_SIMPLEX)


@drop_in
def test_drop_in_functions_have_the_signature_of_torch(function, arguments, estimator):
    parameters = inspect.signature(function).parameters
    assert [p for p in parameters if parameters[p].kind is inspect.Parameter.KEYWORD_ONLY] == [
        "dim",
        "generator",
        "x",
    ]
    assert parameters["dim"].default == -1
    out = function(torch.zeros(7, 3), **arguments)
    assert out.shape == (7, 3)
    assert out.dtype == torch.float32


def test_there_is_a_drop_in_function_of_every_name():
    functions = {case.values[0].__name__ for case in DROP_IN}
    assert functions == set(functional.__all__)


def test_one_row_of_logits_is_enough_for_a_drop_in_function():
    assert one_hot_along(zgr(torch.zeros(5)))
    assert gumbel_softmax(torch.zeros(5), 0.5).shape == (5,)


# torch.func.


@estimators(sample_only=True)
def test_vmap_and_grad_give_the_estimate_of_each_state(claim):
    f, x, logits = loss_of("cubic"), all_states(2, 3), logits_of("masked")

    def estimate(x):
        return torch.func.grad(lambda row: f(claim.estimator.sample(row, x=x)))(logits)

    expected = enumerated_estimates(claim.estimator, f, logits)
    torch.testing.assert_close(torch.func.vmap(estimate)(x), expected, rtol=1e-13, atol=1e-14)


@estimators(pathwise=True, tabled=False)
@pytest.mark.few(10)
def test_vmap_and_grad_follow_the_law_of_draws(claim):
    f, logits = loss_of("cubic"), logits_of("moderate").expand(8000, 2, 3)
    gradient = torch.func.grad(lambda row: f(claim.estimator.sample(row)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        g = torch.func.vmap(gradient, randomness="different")(logits)
    if claim.exact:
        expected = exact_moments(claim.estimator, f, logits[0])
    else:
        expected = monte_carlo(claim.estimator, f, logits[0], 40_000, seed=8)
    error = (g.var(0) / len(g) + expected.mean_se**2).sqrt()
    assert scores(g.mean(0), expected.mean, error).abs().max() < limit()


@estimators(pathwise=True, tabled=False)
@pytest.mark.few(10)
def test_jacrev_gives_the_matrix_of_backward(claim):
    logits, x = logits_of("moderate"), all_states(2, 3)[5]

    def sample(logits):
        return claim.estimator.sample(logits, generator(), x=x)

    jacobian = torch.func.jacrev(sample)(logits)
    leaf = logits.clone().requires_grad_()
    out = sample(leaf)
    units = torch.eye(6, dtype=torch.float64).reshape(6, 2, 3)
    rows = [torch.autograd.grad(out, leaf, unit, retain_graph=True)[0] for unit in units]
    torch.testing.assert_close(jacobian.reshape(6, 2, 3), torch.stack(rows))
    assert jacobian[0, :, 1].abs().max() == jacobian[1, :, 0].abs().max() == 0


@estimators(sample_only=True)
def test_jacrev_of_a_batch_under_vmap(claim):
    x = all_states(2, 3)
    logits = logits_of("moderate").expand(x.shape)
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row, x: claim.estimator.sample(row, x=x)), in_dims=(0, 0)
    )(logits, x)
    v = torch.randn(2, 3, dtype=torch.float64, generator=generator())
    expected = claim.estimator.pullback(probabilities(logits), x, v.expand(x.shape))
    torch.testing.assert_close(torch.einsum("ic,sicjb->sjb", v, jacobian), expected)


def test_the_truth_is_the_mean_of_zgr_under_vmap():
    f, x, logits = loss_of("quadratic"), all_states(2, 3), logits_of("moderate")
    p = (probabilities(logits) * x).sum(-1).prod(-1)
    g = torch.func.vmap(
        torch.func.grad(lambda row, x: f(ZGR().sample(row, x=x))), in_dims=(None, 0)
    )(logits, x)
    torch.testing.assert_close(
        torch.einsum("s,snc->nc", p, g), exact_gradient(f, logits), rtol=0, atol=1e-14
    )
